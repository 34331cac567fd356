"""The sweep of whole units: what an arm does, what is left to do, and whether it is stale."""

import functools
import json

from prosper_utils.pruning import budgets, networks
from prosper_utils.study import results

import joblib
import numpy as np
import pytest
import sweep_units

CASE = {"network": "small", "when": sweep_units.START, "share": 0.4, "seed": 0}
RATES = {sweep_units.START: 0.05, sweep_units.TRAINED: 0.01}


@pytest.fixture
def short(monkeypatch, digits):
    """Make the sweep small: a few steps of a small network on the digits."""
    build = functools.partial(networks.dense_300_100, units=(30, 10))
    monkeypatch.setitem(sweep_units.NETWORKS, "small", (build, 30))
    monkeypatch.setattr(sweep_units, "SCORED", 11)
    monkeypatch.setattr(sweep_units, "data", lambda: digits)
    return build


def run(score, variant="kept", **changes):
    case = CASE | {"score": score, "variant": variant} | changes
    return sweep_units.run_case(**case, rates=RATES)


@pytest.mark.parametrize("score", [*sweep_units.SCORES, f"ProsPr{sweep_units.PER_COST}"])
def test_every_score_meets_the_budget(short, score):
    row = run(score)
    whole = budgets.cost(short("relu"))
    assert row["failure"] == ""
    assert 0.3 * whole < row["multiply_adds"] <= 0.4 * whole
    assert row["error"] < 90


def small_weights(variant, score="SNIP", seed=0):
    model = networks.dense_300_100("relu", units=(30, 10), seed=seed)
    return [w.numpy() for w in sweep_units.smaller(model, score, variant, 0.4, seed).weights]


def test_a_control_changes_what_its_name_says(short):
    kept = small_weights("kept")
    others = {v: small_weights(v) for v in sweep_units.VARIANTS[1:]}
    for weights in others.values():
        assert [w.shape for w in weights] == [w.shape for w in kept]
    large = networks.dense_300_100("relu", units=(30, 10), seed=0)
    columns = {column.tobytes() for column in large.layers[1].kernel.numpy().T}
    for variant, weights in others.items():
        found = {column.tobytes() for column in weights[0].T}
        assert found <= columns if variant != "fresh" else not found & columns
    assert np.array_equal(others["rescaled"][0], kept[0])  # as many inputs as before
    fewer = 30 / len(kept[2])
    np.testing.assert_allclose(others["rescaled"][2], kept[2] * np.sqrt(fewer), rtol=1e-6)
    assert not np.array_equal(others["other channels"][0], kept[0])
    assert not np.array_equal(small_weights("fresh", seed=1)[0], others["fresh"][0])


def test_seeds_and_scores_differ(short):
    scored, drawn = (small_weights("kept", score)[0] for score in ("SNIP", "uniform"))
    assert scored.shape != drawn.shape or not np.array_equal(scored, drawn)
    first, again, other = run("SNIP"), run("SNIP"), run("SNIP", seed=1)
    assert first["error"] == again["error"]
    assert first["error"] != other["error"] or first["widths"] != other["widths"]


def test_after_training_the_large_one_is_trained_first_and_once(short, monkeypatch, tmp_path):
    said, kept = [], joblib.Memory(tmp_path, verbose=0)
    train = kept.cache(sweep_units.trained_weights.func)
    monkeypatch.setattr(sweep_units, "trained_weights", train)
    fit = sweep_units.fit

    def noted(model, rate, steps, seed):
        said.append((budgets.cost(model), rate, steps, seed))
        return fit(model, rate, steps, seed)

    monkeypatch.setattr(sweep_units, "fit", noted)
    run("Taylor", when=sweep_units.TRAINED)
    run("Taylor", "fresh", when=sweep_units.TRAINED)
    whole = budgets.cost(short("relu"))
    assert [entry[1:] for entry in said] == [(0.05, 30, 0), (0.01, 7, 1), (0.05, 37, 0)]
    assert said[0][0] == whole > 2 * said[1][0]


def test_in_rounds_the_network_is_scored_as_small_as_it_is(short, monkeypatch):
    asked, rule = [], sweep_units.SCORES["SNIP"][0]

    def noted(model, *args, **options):
        asked.append(budgets.cost(model))
        return rule(model, *args, **options)

    monkeypatch.setitem(sweep_units.SCORES, "SNIP", (noted, {}))
    row = run(f"SNIP{sweep_units.PER_COST}{sweep_units.IN_ROUNDS}")
    whole = budgets.cost(short("relu"))
    assert row["multiply_adds"] <= 0.4 * whole
    assert len(asked) == sweep_units.ROUNDS
    assert asked[0] == whole
    assert asked == sorted(set(asked), reverse=True)


def test_a_budget_that_cannot_be_met_is_a_row(short):
    row = run("SNIP", share=0.001)
    assert row["error"] is None
    assert "expected one that can be met" in row["failure"]


def test_the_plan_has_every_case_once_and_five_seeds():
    cases = [tuple(case.values()) for case in sweep_units.plan()]
    assert len(cases) == len(set(cases))
    arms = {case[:-1] for case in cases}
    assert len(cases) == 5 * len(arms)
    assert all(
        (case["network"], "none") in {(c[0], c[2]) for c in cases} for case in sweep_units.plan()
    )


def test_the_stored_results_are_of_this_plan():
    table, provenance = results.load("units")
    found = set(table[list(sweep_units.CASE)].itertuples(index=False, name=None))
    assert found <= {tuple(case.values()) for case in sweep_units.plan()}
    assert len(found) == len(table)
    stored = provenance["configuration"]
    expected = json.loads(json.dumps(sweep_units.configuration()))
    assert {key: stored[key] for key in expected} == expected
    assert stored["data"] == "mnist"
    for network in sweep_units.NETWORKS:
        chosen = sweep_units.chosen_rates(network)
        of_it = table[table.network == network]
        assert all(row.rate == chosen[row.when] for row in of_it.itertuples())
