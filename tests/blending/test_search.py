"""Plain search and the genetic algorithm: what they ask for, in which order, and what they bar."""

import dataclasses
import functools
import math
from collections import Counter

from prosper_utils.blending import search
from prosper_utils.blending.detachment import (
    SYSTEMS,
    detach,
    enumerate_theorems,
    parse,
    show,
    subsumes,
    theorem,
)
from prosper_utils.blending.evolution import Table, detachment_table, goal_weights, proofs
from prosper_utils.blending.search import (
    FITNESS,
    Breeding,
    breadth_first,
    breed,
    drawn_goals,
    lightest_first,
    offspring,
    similarity,
    size,
    size_and_proof,
    smallness,
    subformulas,
    survivors,
    used,
    usefulness,
)

import numpy as np
import pytest
from goals import GOALS
from hypothesis import given
from hypothesis import strategies as st

TARGET = goal_weights(GOALS)


class Asked(Table):
    """A table that notes what it is asked for."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.asked = []

    def product(self, i, j):
        self.asked.append((self.objects[i], self.objects[j]))
        return super().product(i, j)


def words(last, budget=math.inf):
    """Return a table of the words of a and b with at most so many letters."""
    axioms = {"a": "a", "b": "b"}
    return Asked(axioms, lambda x, y: x + y if len(x + y) <= last else None, budget)


# Plain search


@pytest.mark.parametrize("limit", [None, 15])
def test_breadth_first_meets_the_theorems_in_the_order_of_their_proofs(limit):
    table, expected = detachment_table(limit=limit), enumerate_theorems(11, limit=limit)
    table.budget = 9500
    breadth_first(table)
    assert len(table.products) == 9500
    assert table.lengths == sorted(table.lengths)
    met = {x for x, length in zip(table.objects, table.lengths, strict=True) if length <= 9}
    assert met == {x for x, proof in expected.items() if len(proof) <= 9}
    for x in met:
        assert len(table.proof(x)) == len(expected[x])


AGED = functools.partial(lightest_first, by_age=5)


@pytest.mark.parametrize("search", [breadth_first, lightest_first, AGED])
def test_a_search_asks_for_every_pair_once_and_ends(search):
    table = words(4)
    search(table)
    assert len(table.objects) == 2 + 4 + 8 + 16
    assert sorted(table.asked) == sorted({(x, y) for x in table.objects for y in table.objects})


@pytest.mark.parametrize("search", [breadth_first, lightest_first, AGED])
def test_what_is_barred_is_met_and_not_combined(search):
    table = words(4)
    search(table, {"ab", "aaaa"})
    assert {"ab", "aaaa", "aba"} < set(table.objects)
    assert not {"ab", "aaaa"} & {x for pair in table.asked for x in pair}
    assert "abab" in table.objects  # as a and bab


@pytest.mark.parametrize("search", [breadth_first, lightest_first, AGED])
def test_a_search_spends_its_budget_to_the_last_combination(search):
    table = words(20, budget=500)
    search(table)
    assert len(table.products) == 500


def test_lightest_first_takes_the_lightest():
    weights = {"a": 1, "b": 5, "aa": 2, "ab": 9, "ba": 3, "bb": 9}
    table = words(2)
    lightest_first(table, weight=lambda table, k: weights[table.objects[k]])
    given = list(dict.fromkeys(max(pair, key=lambda x: (weights[x], x)) for pair in table.asked))
    assert given == ["a", "aa", "b", "ba", "ab", "bb"]


@pytest.mark.parametrize(("n", "expected"), [(2, ["z", "a", "y", "b"]), (3, ["z", "y", "a", "x"])])
def test_each_nth_is_taken_by_age(n, expected):
    axioms = {x: x for x in "abxyz"}  # a is the oldest, z the lightest
    table = Asked(axioms, lambda x, y: None)
    lightest_first(table, weight=lambda table, k: -k, by_age=n)
    given = list(dict.fromkeys(x for x, y in table.asked if x == y))
    assert given[:4] == expected
    assert sorted(given) == sorted(axioms)


def test_how_many_by_age_is_not_negative():
    with pytest.raises(ValueError, match="by_age: expected at least 0, found -1"):
        lightest_first(words(2), by_age=-1)


@pytest.mark.parametrize("search", [breadth_first, lightest_first, AGED])
@pytest.mark.parametrize("barred", [(), TARGET])
def test_what_is_subsumed_is_met_and_not_combined(search, barred):
    found = {}
    for subsumption in (False, True):
        table = detachment_table(limit=15, budget=2000)
        table.batch = None
        table.product, asked = noted(table)
        search(table, barred, subsumption=subsumption)
        combined = list(dict.fromkeys(k for pair in asked for k in sorted(pair)))
        found[subsumption] = [table.objects[k] for k in sorted(combined)]
    instances = {
        subsumption: [
            special
            for i, special in enumerate(formulas)
            if any(subsumes(general, special) for general in formulas[:i])
        ]
        for subsumption, formulas in found.items()
    }
    assert instances[False]
    assert not instances[True]
    assert not set(found[True]) & set(barred)


def noted(table):
    """Return the product of a table, which then notes what it is asked for, and the notes."""
    product, asked = table.product, []

    def asking(i, j):
        asked.append((i, j))
        return product(i, j)

    return asking, asked


def test_breadth_first_with_subsumption_meets_what_the_enumeration_keeps():
    table = detachment_table(limit=None, budget=1500)
    breadth_first(table, subsumption=True)
    kept = enumerate_theorems(7, subsumption=True)
    assert set(kept) <= set(table.objects)
    assert all(len(table.proof(x)) == len(proof) for x, proof in kept.items())


def test_size_and_proof_adds_them_up():
    table = words(3)
    assert size_and_proof(table, table.product(0, table.product(0, 1))) == 3 + 5


# Goals that nothing was tuned on


def test_goals_are_drawn_by_their_rule():
    options = {"lengths": (7, 11), "avoid": TARGET}
    one, again = (drawn_goals(30, 5, **options) for _ in range(2))
    assert one == again
    assert one != drawn_goals(30, 6, **options)
    assert len(one) == 30
    assert Counter(len(proof) for proof in one.values()) == {7: 10, 9: 10, 11: 10}
    every = enumerate_theorems(11, limit=25, subsumption=True)
    for formula, proof in one.items():
        assert theorem(proof) == formula
        assert every[formula] == proof
        assert len(formula) <= 25
        assert not any(subsumes(general, formula) for general in TARGET)
    shape = parse("CCpqCrs")
    assert any(subsumes(shape, formula) for formula in one)
    fewer = drawn_goals(10, 5, lengths=(7, 11), avoid=[*TARGET, shape])
    assert not any(subsumes(shape, formula) for formula in fewer)


def test_goals_are_drawn_from_the_axioms_that_are_given_and_avoided_up_to_renaming():
    axioms = SYSTEMS["Tarski and Bernays, implication alone"]
    for formula, proof in drawn_goals(5, 0, lengths=(5, 7), axioms=axioms, limit=15).items():
        assert theorem(proof, axioms) == formula
        assert len(formula) <= 15
    options = {"lengths": (5, 7), "limit": 15}
    shape = parse("CCpqCrs")
    renamed = tuple(s if s < 0 else 9 - s for s in shape)
    found, same = (drawn_goals(8, 0, **options, avoid=[x]) for x in (renamed, shape))
    assert found == same


def test_more_goals_than_there_are_are_refused():
    with pytest.raises(ValueError, match="goals: expected at least 100 theorems, found"):
        drawn_goals(100, 0, lengths=(5, 5))


# Fitness


def test_smallness_is_how_the_target_weighs():
    table = detachment_table()
    for goal in TARGET:
        table.places[goal] = len(table.objects)
        table.objects.append(goal)
    found = smallness(table, TARGET)([table.places[goal] for goal in TARGET])
    np.testing.assert_allclose(found / sum(found), list(TARGET.values()), rtol=1e-12)


def test_subformulas_are_counted_up_to_renaming():
    found = {show(x): n for x, n in subformulas(parse("CCpqCqNp")).items()}
    assert found == {"CCpqCqNp": 1, "Cpq": 1, "CpNq": 1, "Np": 1, "p": 4}


def test_similarity_is_to_the_closest_goal_that_is_missing():
    table = detachment_table()
    target = goal_weights(["CpNNp", "Cpp"])
    score, places = similarity(table, target), [0, 2]
    own = [subformulas(table.objects[k]) for k in places]

    def dice(one, other):
        return 2 * (one & other).total() / (one.total() + other.total())

    goals = [subformulas(g) for g in target]
    assert score(places).tolist() == [max(dice(x, g) for g in goals) for x in own]
    table.product(table.product(table.product(1, 0), 0), 0)  # D21, then DD211: Cpp
    identity = table.product(table.product(1, 0), 0)
    assert show(table.objects[identity]) == "Cpp"
    assert score([identity]).tolist() == [dice(subformulas(parse("Cpp")), goals[0])]
    assert similarity(table, goal_weights(["Cpp"]))([identity]).tolist() == [1.0]


def test_usefulness_credits_what_the_proofs_of_goals_use():
    table = detachment_table()
    target = goal_weights(["Cpp", "CpNNp"])
    score = usefulness(table, target)
    assert score([0, 1, 2]).max() < 0.001
    lemma = table.product(1, 0)
    goal = table.product(lemma, 0)
    assert table.objects[goal] in target
    assert used(table, goal) == {0, 1, lemma, goal}
    found = score([0, 1, 2, lemma])
    assert found[[0, 1, 3]].min() > target[parse("Cpp")] > 0.001 > found[2]


def test_what_is_of_use_to_several_goals_is_credited_by_all_of_them():
    table = words(4)
    target = {"ab": 0.5, "abb": 0.25, "bb": 0.125, "aaaa": 0.125}
    score = usefulness(table, target)
    a, b = 0, 1
    ab = table.product(a, b)
    abb, bb = table.product(ab, b), table.product(b, b)
    credit = np.array([0.75, 0.875, 0.75, 0.25, 0.125])
    places = [a, b, ab, abb, bb]
    expected = credit + smallness(table, target)(places) / 1000
    np.testing.assert_allclose(score(places), expected, rtol=1e-12)


# The genetic algorithm


@pytest.mark.parametrize("fitness", FITNESS)
def test_a_run_is_repeatable_and_keeps_its_books(fitness):
    def run(seed):
        table = detachment_table(budget=4000)
        return table, breed(table, TARGET, Breeding(fitness, population=60, seed=seed))

    (table, history), (_, again), (_, other) = run(0), run(0), run(1)
    assert history == again != other
    assert len(table.products) == 4000
    counts = [row["combinations"] for row in history.rows]
    assert counts == sorted(counts)
    assert history.rows[-1]["proved"] <= len(history.proofs)
    assert history.settings["fitness"] == fitness
    for goal, hit in history.proofs.items():
        assert show(theorem(hit["proof"])) == goal
    assert all(math.isfinite(row["divergence"]) for row in history.rows)


def test_goals_are_combined_only_if_they_may_be_stored():
    def combined(store_goals):
        table = detachment_table(budget=4000)
        breed(table, TARGET, Breeding("smallness", mutation=0.5, store_goals=store_goals))
        return {table.objects[k] for pair in table.products for k in pair} & set(TARGET)

    assert combined(True)
    assert not combined(False)


def test_parents_are_the_fittest_of_a_few():
    table, generator = words(2), np.random.default_rng(0)
    chosen = Breeding(population=50, mutation=0, tournament=40)
    children = offspring(table, [0, 1], np.array([1.0, 2.0]), set(), chosen, generator)
    assert {table.objects[k] for k in children} == {"bb"}
    assert len(children) == 50
    table = words(2)
    table.product(0, 0)
    chosen = Breeding(population=200, mutation=1.0)
    offspring(table, [1], np.array([1.0]), {"aa"}, chosen, generator)
    assert {"a", "b"} == {x for pair in table.asked[1:] for x in pair} - {"ab", "ba", "bb"}


def test_the_elite_survives():
    generator, fitness = np.random.default_rng(0), np.arange(10.0)
    found = survivors(list(range(20, 30)), fitness, Breeding(population=6, elite=0.5), generator)
    assert found[:3] == [29, 28, 27]
    assert len(set(found)) == 6
    assert sorted(survivors([4, 5], fitness[:2], Breeding(population=6), generator)) == [4, 5]


@given(st.integers(0, 99), st.integers(1, 12), st.floats(0, 1))
def test_survivors_are_the_elite_and_a_draw_of_the_others(seed, population, elite):
    fitness = np.array([3.0, 1.0, 2.0, 2.0, 5.0, 0.0, 2.0, 4.0])
    pool, settings = list(range(10, 18)), Breeding(population=population, elite=elite)
    found = survivors(pool, fitness, settings, np.random.default_rng(seed))
    assert len(found) == len(set(found)) == min(population, len(pool))
    order = [14, 17, 10, 12, 13, 16, 11, 15]  # among equals, as they came
    count = min(len(pool), round(elite * population))
    assert found[:count] == order[:count]
    assert set(found) <= set(pool)


def test_any_of_the_others_may_survive():
    """They are drawn, whatever their fitness."""
    generator, settings = np.random.default_rng(0), Breeding(population=4, elite=0.5)
    fitness = np.arange(6.0)
    found = Counter(
        k for _ in range(400) for k in survivors(range(6), fitness, settings, generator)
    )
    assert found[5] == found[4] == 400
    assert all(150 < found[k] < 250 for k in range(4))


@pytest.mark.parametrize("tournament", [1, 2])
def test_a_parent_is_anything_met_as_often_as_is_said(tournament):
    """Of the two in the population the better one, but for those drawn among all four words."""
    table, generator = words(1), np.random.default_rng(0)
    table.objects += ["c", "d"]
    chosen = Breeding(population=1000, mutation=0.4, tournament=tournament)
    table.many = lambda pairs: table.asked.extend(pairs) or []
    offspring(table, [0, 1], np.array([1.0, 2.0]), {"d"}, chosen, generator)
    assert len(table.asked) == 1000
    better = 1 - 0.5**tournament
    expected = np.array([0.7 * (1 - better) + 0.1, 0.7 * better + 0.1, 0.1, 0])
    for side in (0, 1):  # of the drawn ones a quarter is barred, and changes nothing
        counts = Counter(pair[side] for pair in table.asked)
        shares = [counts[k] / 1000 for k in range(4)]
        np.testing.assert_allclose(shares, expected, atol=0.06)
        assert shares[3] == 0


def test_a_row_is_of_the_children_of_its_generation():
    """Each child counts, however often it comes, and no one else."""
    table, target = words(2), {"ab": 0.75, "bb": 0.25}
    ab, aa = table.product(0, 1), table.product(0, 0)
    found = search._row(3, table, target, [ab, aa, ab, 0])
    image = np.array([0.5, 0.0]) + 1e-6
    tau = np.array([0.75, 0.25])
    expected = np.sum(tau * np.log(tau / image))
    assert found.pop("divergence") == pytest.approx(expected, rel=1e-12)
    assert found == {"generation": 3, "combinations": 2, "proved": 1}
    assert search._row(1, table, target, [])["divergence"] > 10


def test_the_generation_in_which_the_budget_ends_has_no_row():
    settings = Breeding("smallness", population=30, generations=50, seed=3)
    tables = [words(20, budget) for budget in (math.inf, 120)]
    whole, ended = (breed(table, {"abab": 1.0}, settings).rows for table in tables)
    assert len(whole) == 50
    assert ended == [row for row in whole if row["combinations"] <= 120][: len(ended)]
    assert whole[len(ended)]["combinations"] > 120


def test_weights_are_asked_when_an_object_is_met():
    """Once, and in the order in which they are met."""
    table, asked = words(3), []

    def weight(table, k):
        asked.append(k)
        return size(table, k)

    lightest_first(table, weight=weight)
    assert asked == list(range(len(table.objects)))


def test_it_stops_after_its_generations():
    table = words(2)
    history = breed(table, {"ab": 1.0}, Breeding("smallness", population=5, generations=7))
    assert len(history.rows) == 7
    assert proofs(table, {"ab": 1.0}).keys() == history.proofs.keys()


def test_products_are_detachments():
    table = detachment_table(limit=9, budget=2000)
    lightest_first(table)
    for (i, j), k in table.products.items():
        formula = detach(table.objects[i], table.objects[j], 9)
        assert formula == (None if k is None else table.objects[k])


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"fitness": "beauty"}, "fitness: expected one of similarity, .*; found 'beauty'"),
        ({"population": 0}, "population: expected at least 1, found 0"),
        ({"tournament": 0}, "tournament: expected at least 1, found 0"),
        ({"generations": -1}, "generations: expected at least 1, found -1"),
        ({"elite": 1.5}, r"elite: expected a number in \[0, 1\], found 1.5"),
        ({"elite": -0.5}, r"elite: expected a number in \[0, 1\], found -0.5"),
        ({"mutation": -0.1}, r"mutation: expected a number in \[0, 1\], found -0.1"),
        ({"mutation": 1.1}, r"mutation: expected a number in \[0, 1\], found 1.1"),
        ({"mutation": math.nan}, r"mutation: expected a number in \[0, 1\], found nan"),
        ({"elite": math.nan}, r"elite: expected a number in \[0, 1\], found nan"),
    ],
)
def test_bad_settings_are_refused(chosen, message):
    with pytest.raises(ValueError, match=message):
        Breeding(**chosen)


def test_bad_targets_are_refused():
    with pytest.raises(ValueError, match="expected goals that are no axioms, found CpCqp"):
        breed(detachment_table(), {parse("CpCqp"): 1.0}, Breeding())


def test_no_object_is_twice_in_a_population(monkeypatch):
    pools, survivors = [], search.survivors

    def noted(pool, *rest):
        pools.append(pool)
        return survivors(pool, *rest)

    monkeypatch.setattr(search, "survivors", noted)
    breed(detachment_table(budget=1500), goal_weights(GOALS), Breeding("smallness", population=40))
    assert len(pools) > 3
    assert all(len(pool) == len(set(pool)) for pool in pools)


def test_usefulness_is_of_now_however_often_it_is_asked():
    table, target = words(4), {"ab": 0.5, "bb": 0.5}
    score = usefulness(table, target)
    table.product(0, 1)
    first = score([0, 1])
    np.testing.assert_array_equal(score([0, 1]), first)


@pytest.mark.parametrize("search", [breadth_first, lightest_first])
def test_what_is_barred_subsumes_nothing(search):
    """It is never combined, so what it would stand for has to be."""
    general, special = parse("CpCqCrq"), parse("CpCqCqq")
    table = Asked({"1": general, "2": special}, lambda x, y: None)
    search(table, {general}, subsumption=True)
    assert table.asked == [(special, special)]


def test_lengths_are_drawn_from_by_one_stream():
    """With a stream each, the same places would be drawn of levels of one size."""
    levels = {}
    for formula, proof in enumerate_theorems(9, limit=25, subsumption=True).items():
        levels.setdefault(len(proof), []).append(formula)
    generator = np.random.default_rng(3)
    expected = [levels[n][generator.permutation(len(levels[n]))[0]] for n in (5, 7, 9)]
    assert list(drawn_goals(3, 3, lengths=(5, 9))) == expected


def test_all_or_nothing_may_be_elite_and_mutate():
    chosen = [Breeding(elite=share, mutation=share) for share in (0, 1)]
    assert [(c.elite, c.mutation) for c in chosen] == [(0, 0), (1, 1)]


def test_fitness_by_size_is_by_the_size_that_the_table_says():
    table = Table({"a": "a", "b": "bb"}, lambda x, y: x + y, size=lambda x: 12 * len(x))
    np.testing.assert_allclose(smallness(table, {})([1, 0]), [1 / 16, 1 / 4], rtol=1e-15)


def test_size_and_proof_are_as_they_were_met():
    """The size that the table says, and the proof that it had then, not what it could have now."""
    table = Table({"a": 1, "b": 3}, lambda x, y: x + y, size=lambda x: 100 * x)
    two = table.product(0, 0)
    four = table.product(two, two)
    five = table.product(four, 0)
    assert table.product(0, 1) == four
    assert [size_and_proof(table, k) for k in (0, two, four, five)] == [101, 203, 403, 509]


def test_a_run_has_its_settings_its_budget_and_a_row_for_each_generation(monkeypatch):
    """Bred from all axioms, with the fitness that was chosen, and with one stream of draws."""
    asked, streams = [], set()

    def chosen(table, target):
        asked.append(target)
        return lambda places: np.array([-float(k) for k in places])

    def bred(table, population, fitness, barred, settings, generator):
        streams.add(generator)
        asked.append((population, fitness.tolist(), barred))
        return offspring(table, population, fitness, barred, settings, generator)

    monkeypatch.setitem(search.FITNESS, "smallness", chosen)
    monkeypatch.setattr(search, "offspring", bred)
    table, target = words(4, budget=30), {"ab": 0.5, "abab": 0.5}
    settings = Breeding("smallness", population=5, generations=3, seed=9)
    history = breed(table, target, settings)
    assert history.settings == dataclasses.asdict(settings) | {"budget": 30}
    assert [row["generation"] for row in history.rows] == [1, 2, 3]
    assert asked[:2] == [target, ([0, 1], [0.0, -1.0], set(target))]
    assert len(streams) == 1
    assert history.proofs == proofs(table, target)


def test_a_population_is_of_those_before_and_their_children(monkeypatch):
    pools = []

    def noted(pool, fitness, settings, generator):
        pools.append([table.objects[k] for k in pool])
        np.testing.assert_array_equal(fitness, smallness(table, {})(pool))
        return survivors(pool, fitness, settings, generator)

    monkeypatch.setattr(search, "survivors", noted)
    table = words(2)
    breed(table, {"ab": 1.0}, Breeding("smallness", population=40, generations=1))
    assert pools == [["a", "b", *(x for x in table.objects[2:] if x != "ab")]]
    assert len(pools[0]) == 5


def test_goals_are_drawn_within_the_limit_that_is_given():
    with pytest.raises(ValueError, match="expected at least 100 theorems, found"):
        drawn_goals(100, 0, lengths=(7, 7), limit=7)
    small = drawn_goals(2, 0, lengths=(5, 7), limit=7)
    assert max(map(len, small)) <= 7
    large = drawn_goals(30, 0, lengths=(7, 9), limit=60)
    every = enumerate_theorems(9, limit=60, subsumption=True)
    assert large.items() <= every.items()
    assert max(map(len, large)) > 25


def test_goals_are_drawn_from_the_lengths_in_turn_as_long_as_there_are_any():
    """There are three axioms and six theorems of proofs of three symbols."""
    found = list(drawn_goals(9, 0, lengths=(1, 3)).values())
    assert [len(proof) for proof in found] == [1, 3, 1, 3, 1, 3, 3, 3, 3]
    assert sorted(found) == sorted(enumerate_theorems(3, limit=25, subsumption=True).values())
