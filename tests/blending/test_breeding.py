"""A population of the genetic search has each object once."""

from prosper_utils.blending import search
from prosper_utils.blending.evolution import detachment_table, goal_weights
from prosper_utils.blending.search import Breeding, breed

from goals import GOALS


def test_no_object_is_twice_in_a_population(monkeypatch):
    pools, survivors = [], search.survivors

    def noted(pool, *rest):
        pools.append(pool)
        return survivors(pool, *rest)

    monkeypatch.setattr(search, "survivors", noted)
    breed(detachment_table(budget=1500), goal_weights(GOALS), Breeding("smallness", population=40))
    assert len(pools) > 3
    assert all(len(pool) == len(set(pool)) for pool in pools)
