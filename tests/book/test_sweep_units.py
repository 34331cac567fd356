"""The sweep of whole units: what an arm does, what is left to do, and whether it is stale."""

import functools
import importlib.util
import json
import sys

from prosper_utils.pruning import budgets, gates, networks, units
from prosper_utils.pruning.networks import dense_300_100
from prosper_utils.study import controls, datasets, results, training

import joblib
import numpy as np
import pandas as pd
import pytest
import sweep_units
from conftest import clock

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


held = functools.cache(run)  # where nothing but `short` is in place of what it was


@pytest.mark.parametrize("score", [*sweep_units.SCORES, f"ProsPr{sweep_units.PER_COST}"])
def test_every_score_meets_the_budget(short, score):
    row = held(score)
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
    first, again, other = held("SNIP"), run("SNIP"), run("SNIP", seed=1)
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


def test_scores_follow_their_seed_options_and_batches(short, digits, monkeypatch):
    """On one model: what is drawn hangs on the seed, and so do the batches that are looked at."""
    model = short("relu", seed=5)
    for score in ("random", "uniform", "SNIP"):
        one, again, other = (sweep_units.rule_of(score, seed)(model) for seed in (1, 1, 2))
        np.testing.assert_array_equal(one, again)
        assert not np.array_equal(one, other)
    taken = sweep_units.batches(3, 2)
    supply = datasets.batches(digits.train, sweep_units.BATCH_SIZE, seed=10_003)
    for (x, y), expected in zip(taken, supply, strict=False):
        np.testing.assert_array_equal(x, expected[0])
        np.testing.assert_array_equal(y, expected[1])
    assert sweep_units.SCORES["ProsPr, M = 10"] == (gates.prospr, {"steps": 10})
    given = {}
    spy = lambda model, batches, **options: given.update(options, count=len(batches))  # noqa: E731
    monkeypatch.setitem(sweep_units.SCORES, "spy", (spy, {"steps": 10}))
    sweep_units.rule_of("spy", 4)(model)
    assert given == {"steps": 10, "seed": 4, "count": sweep_units.SCORED}
    by_cost = sweep_units.rule_of(f"SNIP{sweep_units.PER_COST}", 1)(model)
    plain = sweep_units.rule_of("SNIP", 1)(model)
    np.testing.assert_array_equal(by_cost, budgets.per_cost(model, plain))
    for name, expected in ((f"SNIP{sweep_units.PER_COST}", by_cost), ("SNIP", plain)):
        in_rounds = sweep_units.rule_of(name + sweep_units.IN_ROUNDS, 1)(model)
        np.testing.assert_array_equal(in_rounds, expected)


def test_each_control_draws_by_the_seed_of_its_case(short, monkeypatch):
    drawn = []
    fresh, shuffled = controls.fresh, budgets.shuffled
    monkeypatch.setattr(
        controls, "fresh", lambda model, seed: drawn.append(seed) or fresh(model, seed)
    )
    monkeypatch.setattr(
        budgets, "shuffled", lambda model, keep, seed: drawn.append(seed) or shuffled(model, keep)
    )
    for seed in (0, 3):
        for variant in sweep_units.VARIANTS:
            sweep_units.smaller(short("relu", seed=0), "random", variant, 0.4, seed)
    assert drawn == [0, 1000, 3, 1003]


def test_training_warms_up_and_falls_and_takes_the_order_of_its_seed(short, monkeypatch):
    made = []

    def trainer(model, optimizer):
        return lambda data, **options: made.append((optimizer, data, options))

    monkeypatch.setattr(training, "trainer", trainer)
    for steps in (40, 4000):
        model = short("relu")
        assert sweep_units.fit(model, 0.3, steps, seed=7) is model
        optimizer, data, options = made.pop()
        warm = min(sweep_units.WARM_UP, steps // 4)
        found = [float(optimizer._learning_rate(t)) for t in (0, warm, (warm + steps) / 2, steps)]
        assert found == pytest.approx([0, 0.3, 0.15, 0], abs=1e-6)
        assert optimizer.momentum == sweep_units.MOMENTUM
        assert data is sweep_units.data().train
        assert options == {"steps": steps, "batch_size": sweep_units.BATCH_SIZE, "seed": 7}


@pytest.mark.parametrize("part", ["validation", "test"])
def test_the_error_of_a_row_is_that_of_the_part_that_is_asked_for(short, monkeypatch, digits, part):
    judged = []
    monkeypatch.setattr(training, "error", lambda model, data: judged.append(data) or 12.5)
    monkeypatch.setattr(sweep_units, "fit", lambda model, *rest: model)
    assert run("random", part=part)["error"] == 12.5
    assert judged == [getattr(digits, part)]


def test_rates_are_chosen_on_validation_images_and_seeds_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    errors = {
        ("small", sweep_units.START): {0.02: (3.0, None), 0.05: (9.0, 9.0)},
        ("small", sweep_units.TRAINED): {0.005: (2.0, 4.0), 0.02: (2.5, 3.0), 0.05: (9.0, 1.0)},
        ("other", sweep_units.START): {0.02: (1.0, 1.0), 0.05: (9.0, 9.0)},
    }
    for (network, when), by_rate in errors.items():
        name = "units_tuning" + "_after" * (when == sweep_units.TRAINED)
        rows = [
            {"network": network, "when": when, "rate": rate, "seed": 100 + n, "error": error}
            for rate, pair in by_rate.items()
            for n, error in enumerate(pair)
        ]
        results.append(name, rows)
    chosen = {sweep_units.START: 0.05, sweep_units.TRAINED: 0.02}
    assert sweep_units.chosen_rates("small") == chosen
    calls, seeds = [], {}
    monkeypatch.setattr(
        sweep_units, "run_case", lambda **given: calls.append(given) or {"row": given["network"]}
    )
    by_network = {
        network: {sweep_units.START: 0.1 + n, sweep_units.TRAINED: 0.2 + n}
        for n, network in enumerate(sweep_units.NETWORKS)
    }
    monkeypatch.setattr(sweep_units, "chosen_rates", by_network.get)
    for name, (left, work) in sweep_units.SWEEPS.items():
        for case in left(pd.DataFrame()):
            rows = work(case)
            given, chosen = calls.pop(), by_network[case["network"]]
            seeds.setdefault(name == "units", set()).add(given["seed"])
            if name == "units":
                assert given == case | {"rates": chosen}  # of the test images, which is the default
                assert rows == [{"row": case["network"]}]
                continue
            rates = {case["when"]: case["rate"]}
            if case["when"] == sweep_units.TRAINED:
                rates[sweep_units.START] = chosen[sweep_units.START]
            assert given.pop("part") == "validation"
            assert given | {"rate": case["rate"]} == case | {"rates": rates}
            assert rows == [{"row": case["network"]}]
    assert not seeds[True] & seeds[False]


SMALL = functools.partial(dense_300_100, units=(30, 10))
SMALLER = functools.partial(dense_300_100, units=(5, 3))


@pytest.mark.parametrize(
    ("case", "rate", "made"),
    [
        (("start", "none", "kept"), 0.05, [("dense", "small", 0.05, 7)]),
        (
            ("start", "SNIP", "fresh"),
            0.05,
            [("smaller", "new", "SNIP", "fresh", 0.4, 7), ("fit", "smaller", 0.05, 30, 7)],
        ),
        (
            ("trained", "SNIP", "kept"),
            0.01,
            [
                ("dense", "small", 0.05, 7),
                ("smaller", "dense", "SNIP", "kept", 0.4, 7),
                ("fit", "smaller", 0.01, 7, 8),
            ],
        ),
        (
            ("trained", "random", "other channels"),
            0.01,
            [
                ("dense", "small", 0.05, 7),
                ("smaller", "dense", "random", "other channels", 0.4, 7),
                ("fit", "smaller", 0.01, 7, 8),
            ],
        ),
        (
            ("trained", "SNIP", "fresh"),
            0.01,
            [
                ("dense", "small", 0.05, 7),
                ("smaller", "dense", "SNIP", "fresh", 0.4, 7),
                ("fit", "smaller", 0.05, 37, 7),
            ],
        ),
    ],
)
def test_a_case_is_made_smaller_and_trained_as_its_moment_says(
    monkeypatch, digits, case, rate, made
):
    """All in its order, each with its rate, steps and seed; and the row of what came out."""
    models = {"dense": SMALL("relu"), "smaller": SMALLER("relu"), "new": SMALL("relu", seed=1)}
    names = {id(model): name for name, model in models.items()}
    done, built = [], []

    def build(activation, seed):
        built.append((activation, seed))
        return models["new"]

    spend = clock(monkeypatch, sweep_units)

    def smaller(model, *how):
        done.append(("smaller", names[id(model)], *how))
        return spend(1, models["smaller"])

    def fit(model, *how):
        done.append(("fit", names[id(model)], *how))
        return spend(1, model)

    monkeypatch.setitem(sweep_units.NETWORKS, "small", (build, 30))
    monkeypatch.setattr(sweep_units, "data", lambda: digits)
    monkeypatch.setattr(
        sweep_units, "dense", lambda *how: done.append(("dense", *how)) or spend(1, models["dense"])
    )
    monkeypatch.setattr(sweep_units, "smaller", smaller)
    monkeypatch.setattr(sweep_units, "fit", fit)
    judged = []
    monkeypatch.setattr(training, "error", lambda *seen: judged.append(seen) or spend(0.5, 12.5))
    when, score, variant = case
    row = sweep_units.run_case("small", when, score, variant, 0.4, 7, rates=RATES)
    assert done == made
    assert built == ([("relu", 7)] if (when, score) == ("start", "SNIP") else [])
    last = "dense" if score == "none" else "smaller"
    ((model, images),) = judged
    assert names[id(model)] == last
    assert images is digits.test
    first, second = (30, 10) if score == "none" else (5, 3)
    products = 784 * first + first * second + second * 10
    expected = {
        **{"network": "small", "when": when, "score": score, "variant": variant},
        **{"share": 0.4, "seed": 7, "rate": rate, "error": 12.5, "multiply_adds": products},
        **{"parameters": products + first + second + 10, "widths": f"{first} {second} 10"},
        **{"train_seconds": len(made) + 0.5, "failure": ""},
    }
    assert row == expected
    assert list(row) == list(expected) == list(results.load("units")[0])


def activations(model):
    return [layer.activation.__name__ for layer in model.layers[1:]]


def test_the_large_network_is_trained_from_the_weights_of_its_seed(short, monkeypatch):
    """And once it is trained, `dense` gives it the weights that were kept."""
    begun = []

    def fit(model, *how):
        begun.append((model.get_weights(), how, activations(model)))
        model.set_weights([w + 1 for w in model.get_weights()])
        return model

    monkeypatch.setattr(sweep_units, "fit", fit)
    found = sweep_units.trained_weights.func("small", 0.03, 4, "digits")
    initial = short("relu", seed=4).get_weights()
    ((weights, how, activated),) = begun
    assert how == (0.03, 30, 4)
    assert activated == ["relu", "relu", "linear"]
    for new, before, after in zip(initial, weights, found, strict=True):
        np.testing.assert_array_equal(before, new)
        np.testing.assert_array_equal(after, new + 1)
    with pytest.raises(AssertionError):
        sweep_units.trained_weights.func("small", 0.03, 4, "mnist")
    asked = []
    monkeypatch.setattr(sweep_units, "trained_weights", lambda *key: asked.append(key) or found)
    large = sweep_units.dense("small", 0.03, 4)
    assert asked == [("small", 0.03, 4, "digits")]
    for kept, now in zip(found, large.get_weights(), strict=True):
        np.testing.assert_array_equal(now, kept)
    assert activations(large) == ["relu", "relu", "linear"]


def test_what_is_removed_is_chosen_by_its_score_at_its_share(short, monkeypatch):
    """In rounds too; the channels that are kept, or others in their place, are what is left."""
    seen, model, small = [], short("relu"), SMALLER("relu")

    def rule(model):
        return "scores"

    monkeypatch.setattr(sweep_units, "rule_of", lambda *case: seen.append(("rule", *case)) or rule)
    monkeypatch.setattr(
        budgets, "in_rounds", lambda *given, **how: seen.append((*given, how)) or "in rounds"
    )
    monkeypatch.setattr(
        budgets, "choose", lambda *given, **how: seen.append((*given, how)) or "kept"
    )
    monkeypatch.setattr(budgets, "shuffled", lambda *given: seen.append(given) or "others")
    monkeypatch.setattr(units, "shrink", lambda *given: seen.append(given) or small)
    score = f"SNIP{sweep_units.IN_ROUNDS}"
    assert sweep_units.smaller(model, score, "kept", 0.3, 6) == "in rounds"
    assert seen == [("rule", score, 6), (model, rule, {"share": 0.3, "rounds": 5})]
    for variant in ("kept", "other channels"):
        seen.clear()
        assert sweep_units.smaller(model, "SNIP", variant, 0.3, 6) is small
        chosen = [(model, "kept", 6)] if variant == "other channels" else []
        kept = "others" if chosen else "kept"
        given = [("rule", "SNIP", 6), (model, "scores", {"share": 0.3}), *chosen, (model, kept)]
        assert seen == given


def test_a_budget_that_cannot_be_met_is_a_row(short):
    row = run("SNIP", share=0.001)
    assert row["error"] is None
    assert "expected one that can be met" in row["failure"]


def test_the_plan_has_no_case_twice_and_headline_cells_first():
    """All seeds of an arm together."""
    cases = [tuple(case.values()) for case in sweep_units.plan()]
    assert len({*cases}) == len(cases)
    assert [case[-1] for case in cases] == [*range(5)] * (len(cases) // 5)
    headline = [
        network in ("LeNet-300-100", "LeNet-5")
        and score in ("none", "SNIP", "ProsPr", "ProsPr per multiply-add", "uniform")
        and (when, share) in (("start", 1.0), ("start", 0.25))
        for network, when, score, _, share, _ in cases
    ]
    assert headline == sorted(headline, reverse=True)


def test_rates_are_tried_with_the_large_network_and_with_one_that_is_halved():
    trials = {name: left(pd.DataFrame()) for name, (left, _) in sweep_units.SWEEPS.items()}
    assert [*trials] == ["units_tuning", "units_tuning_after", "units"]
    assert [tuple(trial.values()) for trial in trials["units_tuning"]] == [
        (network, "start", "none", "kept", 1.0, 100, rate)
        for network in ("LeNet-300-100", "LeNet-5", "LeNet-5-Caffe", "ResNet-8")
        for rate in (0.02, 0.05)
    ]
    assert [tuple(trial.values()) for trial in trials["units_tuning_after"]] == [
        (network, "trained", "Taylor per multiply-add", "kept", 0.5, 100, rate)
        for network in ("LeNet-5", "ResNet-8")
        for rate in (0.005, 0.02, 0.05)
    ]
    assert trials["units"] == sweep_units.plan()


def test_the_stored_results_are_of_this_plan():
    table, provenance = results.load("units")
    found = set(table[list(sweep_units.CASE)].itertuples(index=False, name=None))
    assert found == {tuple(case.values()) for case in sweep_units.plan()}
    assert len(found) == len(table)
    stored = provenance["configuration"]
    expected = json.loads(json.dumps(sweep_units.configuration()))
    assert stored == expected | {"data": "mnist", "sha256": stored["sha256"]}
    for network in sweep_units.NETWORKS:
        chosen = sweep_units.chosen_rates(network)
        of_it = table[table.network == network]
        assert all(row.rate == chosen[row.when] for row in of_it.itertuples())


def test_trained_networks_are_kept_by_network_rate_and_seed(short, monkeypatch, tmp_path, digits):
    """The folder is read when the module is loaded, so it is loaded once more."""
    monkeypatch.setenv(sweep_units.CACHE, str(tmp_path))
    spec = importlib.util.spec_from_file_location("sweep_units_kept", sweep_units.__file__)
    kept = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, kept)
    spec.loader.exec_module(kept)
    made = []
    monkeypatch.setattr(kept, "data", lambda: digits)
    monkeypatch.setattr(kept, "NETWORKS", sweep_units.NETWORKS)
    monkeypatch.setattr(
        kept, "fit", lambda model, rate, steps, seed: made.append((rate, seed)) or model
    )
    cases = [(rate, seed) for rate in (0.1, 0.2) for seed in (0, 1)]
    for rate, seed in cases * 2:
        kept.trained_weights("small", rate, seed, "digits")
    assert made == cases


def test_the_large_network_is_that_of_the_seed_of_its_case(monkeypatch, digits):
    asked = []
    monkeypatch.setitem(sweep_units.NETWORKS, "small", (SMALL, 30))
    monkeypatch.setattr(sweep_units, "data", lambda: digits)
    monkeypatch.setattr(training, "error", lambda model, data: 0.0)
    monkeypatch.setattr(sweep_units, "fit", lambda model, *rest: model)
    monkeypatch.setattr(
        sweep_units, "dense", lambda *large: asked.append(large) or SMALL("relu", seed=large[-1])
    )
    rates = {sweep_units.START: 0.05, sweep_units.TRAINED: 0.01}
    for seed in (0, 3):
        for when, score in ((sweep_units.START, "none"), (sweep_units.TRAINED, "random")):
            row = sweep_units.run_case("small", when, score, "kept", 0.4, seed, rates=rates)
            assert row["failure"] == ""
            assert asked.pop() == ("small", 0.05, seed)
    assert asked == []


@pytest.mark.parametrize("name", ["units_tuning", "units_tuning_after"])
def test_a_rate_that_is_stored_stands_for_no_other(name):
    left, _ = sweep_units.SWEEPS[name]
    trials = left(pd.DataFrame())
    assert left(pd.DataFrame(trials[:1])) == trials[1:]


@pytest.mark.parametrize(
    "name", ["NETWORKS", "BATCH_SIZE", "MOMENTUM", "WARM_UP", "SCORED", "RATES", "ROUNDS"]
)
def test_what_determines_the_units_is_in_their_configuration(monkeypatch, name):
    before = sweep_units.configuration()
    monkeypatch.setattr(sweep_units, name, {} if name == "NETWORKS" else "changed")
    assert sweep_units.configuration() != before


def test_a_row_that_failed_has_all_columns(monkeypatch):
    """The first row that is stored decides which columns there are."""

    def diverges(*arguments):
        raise ValueError("expected a finite training loss")

    monkeypatch.setattr(sweep_units, "dense", diverges)
    rates = {sweep_units.START: 0.1, sweep_units.TRAINED: 0.01}
    row = sweep_units.run_case("LeNet-5", sweep_units.START, "none", "kept", 1.0, 0, rates=rates)
    assert row["failure"] == "expected a finite training loss"
    assert set(row) == set(results.load("units")[0])
