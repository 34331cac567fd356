"""Cases of the proof search: their options, goals and seeds are those of their rows."""

from prosper_utils.blending import search, worth
from prosper_utils.blending.detachment import parse
from prosper_utils.blending.evolution import History, detachment_table, goal_weights

import numpy as np
import pandas as pd
import pytest
import sweep_domains
import sweep_proofs
from test_sweep_domains import BLEND
from test_sweep_domains import run as run_domain


def test_an_arm_takes_the_trial_that_proved_most_of_its_own(monkeypatch):
    table = pd.DataFrame(
        {"arm": ["a", "a", "a", "b", "b"], "trial": [0, 1, 1, 0, 1], "proved": [7, 9, 6, 30, 2]}
    )
    monkeypatch.setattr(
        sweep_proofs.results, "load", lambda name: ({"proofs_tuning": table}[name], {})
    )
    assert sweep_proofs.chosen_options("a") == sweep_proofs.TRIALS[1]
    assert sweep_proofs.chosen_options("b") == sweep_proofs.TRIALS[0]


def test_held_out_counts_the_goals_that_a_run_was_not_given():
    table = detachment_table(limit=25, budget=3000)
    search.breadth_first(table)
    goals, others = list(sweep_proofs.SHORTEST)[:1], list(sweep_proofs.SHORTEST)[1:]
    found = sweep_proofs.outcome(table, goal_weights(goals), goal_weights(others), [])
    assert found["proved"] == sum(parse(g) in table.places for g in goals)
    assert found["held_out"] == sum(parse(g) in table.places for g in others) > 1


def test_the_weights_before_the_first_loop_are_those_of_the_axioms():
    sweep_proofs.weights_at.cache_clear()
    found = sweep_proofs.weights_at(1)
    assert set(found) == {parse(x) for x in ("CpCqp", "CCpCqrCCpqCpr", "CCNpNqCqp")}
    assert list(found.values()) == pytest.approx([1 / 3] * 3)


def test_lemmas_have_no_weight_and_are_no_goals(monkeypatch):
    asked = []

    def drops(table, p, places, target, settings, mass):
        asked.extend((table.objects[k] in target, float(p[k])) for k in places)
        return np.arange(len(places))

    monkeypatch.setattr(worth, "drops", drops)
    sweep_proofs.credit_case({"steps": 1, "keep": 150, "loop": 1})
    assert len(asked) > 10
    assert set(asked) == {(False, 0.0)}


@pytest.mark.parametrize("stored", [False, True])
def test_a_run_has_the_settings_of_its_case(monkeypatch, stored):
    given = []

    def noted(table, target, settings):
        given.append(settings)
        return History({})

    monkeypatch.setattr(sweep_domains, "evolve", lambda *run: (noted(*run), {}))
    monkeypatch.setattr(search, "breed", noted)
    end = sweep_domains.STORED if stored else ""
    run_domain("circuits", BLEND, arm="identity" + end, step_size=0.05, keep=200)
    run_domain("circuits", BLEND, arm=sweep_domains.BRED + end, seed=2)
    loop, bred = given
    assert (loop.credit, loop.step_size, loop.keep) == ("identity", 0.05, 200)
    assert (bred.fitness, bred.seed) == ("usefulness", 2)
    assert loop.store_goals == bred.store_goals == stored
