"""The sweep on colour images: what an arm does, what is left to do, and whether it is stale."""

import functools
import json

from prosper_utils.pruning import budgets, gates, masks, networks
from prosper_utils.study import controls, datasets, results, training

import numpy as np
import pandas as pd
import pytest
import sweep_colour
import tensorflow as tf

SMALL = {"widths": (4,), "shape": (32, 32, 3)}
CASE = {"network": "small", "variant": "as it is", "sparsity": 0.8, "seed": 0}
SCORED = ("SNIP", "ProsPr", *sweep_colour.REST)


@pytest.fixture
def short(monkeypatch, digits):
    """Make the sweep small: a few steps of a small network on digits in colour."""
    x, y = datasets.in_colour(digits).train
    few = datasets.in_bytes((x[:96], y[:96]))
    wide = datasets.in_colour(digits)._replace(train=few)
    build = functools.partial(networks.vgg, **SMALL)
    monkeypatch.setitem(sweep_colour.NETWORKS, "small", build)
    for name, value in {"EPOCHS": 3, "BATCH_SIZE": 16}.items():
        monkeypatch.setattr(sweep_colour, name, value)
    monkeypatch.setattr(sweep_colour, "data", lambda: wide)
    monkeypatch.setattr(sweep_colour, "chosen_options", first_options)
    return build


def first_options(arm):
    options = dict(sweep_colour.TRIALS[arm][0]) if arm in sweep_colour.TRIALS else {}
    return options | ({"every": 3} if arm == "credit" else {})


def run(arm, **changes):
    found = {"rate": 0.1, "options": first_options(arm)} | changes
    options = {key: found.pop(key) for key in ("rate", "options")}
    return sweep_colour.run_case(**CASE | {"arm": arm} | found, **options)


def kept_of(row):
    return [int(count) for count in row["kept"].split()]


@pytest.mark.parametrize("arm", [*SCORED, *sweep_colour.WHILE_TRAINING])
def test_every_arm_keeps_k_weights(short, arm):
    row = run(arm)
    size = sum(int(np.prod(k.shape)) for k in networks.kernels(short()))
    assert row["failure"] == ""
    assert sum(kept_of(row)) == -(-size // 5)
    assert 0 <= row["error"] <= 100


def test_seeds_fix_a_case_and_arms_differ(short):
    first, again, other = run("SNIP"), run("SNIP"), run("SNIP", seed=1)
    assert first["loss"] == pytest.approx(again["loss"], rel=1e-5)
    assert abs(first["loss"] - other["loss"]) > 1e-4
    losses = {round(row["loss"], 6) for row in (first, run("dense"), run("ProsPr"))}
    assert len(losses) == 3


def test_shuffled_masks_keep_the_counts_of_each_layer(short):
    as_it_is, shuffled = run("SNIP"), run("SNIP", variant="shuffled")
    assert kept_of(as_it_is) == kept_of(shuffled)
    assert abs(as_it_is["loss"] - shuffled["loss"]) > 1e-6


def test_regrowth_by_size_moves_other_weights(short):
    as_it_is, by_size = run("credit"), run("credit", variant="by size")
    assert sum(kept_of(as_it_is)) == sum(kept_of(by_size))
    assert kept_of(as_it_is) != kept_of(by_size)


def test_what_is_removed_is_gone_before_training(short):
    whole = budgets.cost(short())
    for arm in sweep_colour.REMOVED:
        row = run(arm, sparsity=0.5, options={})
        assert row["failure"] == ""
        assert 0.2 * whole < row["multiply_adds"] <= 0.5 * whole
    fresh = run("removed by ProsPr", sparsity=0.5, options={}, variant="fresh")
    same = run("removed by ProsPr", sparsity=0.5, options={})
    assert kept_of(fresh) == kept_of(same)
    assert fresh["loss"] != same["loss"]


def test_a_case_trains_on_shifted_images_for_its_steps(short, monkeypatch):
    seen, augmented = [], datasets.augmented

    def noted(images, seed):
        tf.py_function(lambda x, pair: seen.append((x.dtype, *pair.numpy())), [images, seed], [])
        return augmented(images, seed)

    monkeypatch.setattr(datasets, "augmented", noted)
    run("dense", sparsity=0.0, seed=4)
    assert seen == [(tf.uint8, 4, step) for step in range(3 * 6)]


def test_scores_are_taken_in_double_precision(short, monkeypatch):
    given = []

    def score(model, batches, **options):
        given.append(
            (options["dtype"], sum(1 for _ in batches) if isinstance(batches, list) else 0)
        )
        return [np.random.default_rng(0).random(k.shape) for k in networks.kernels(model)]

    for arm in SCORED:
        monkeypatch.setitem(sweep_colour.SCORES, arm, score)
        options = {"batches": 3} if arm == "SNIP" else {}
        sweep_colour.scores_of(short(), arm, 0.8, 0, **options)
    assert [dtype for dtype, _ in given] == ["float64"] * len(SCORED)
    assert given[0][1] == 3


def test_a_failure_is_a_row(short, monkeypatch):
    row = run("SNIP", rate=1e30)
    assert row["error"] is None
    assert "finite training loss" in row["failure"]


def test_what_is_chosen_is_best_on_validation_images(monkeypatch):
    stored = {
        "colour_rates": pd.DataFrame({"rate": [0.05, 0.1, 0.2], "error": [30.0, 28.0, None]}),
        "colour_tuning": pd.DataFrame(
            {
                "arm": ["SNIP", "SNIP", "GraSP", "SNIP"],
                "variant": ["as it is"] * 3 + ["by size"],
                "trial": [0, 2, 1, 1],
                "error": [50.0, 40.0, 60.0, 30.0],
            }
        ),
    }
    monkeypatch.setattr(results, "resume", stored.get)
    asked = []
    monkeypatch.setattr(sweep_colour, "run_case", lambda **case: asked.append(case) or {})
    assert sweep_colour.chosen_rate() == 0.1
    for case in (*sweep_colour.plan()[:2], *sweep_colour.tuning()[:1], *sweep_colour.rates()[:1]):
        sweep_colour.one(case)
    of_plan, snip, trial, rate = asked
    assert (of_plan["arm"], of_plan["rate"], of_plan["options"]) == ("dense", 0.1, {})
    assert (snip["arm"], snip["options"]) == ("SNIP", {"batches": 64})
    assert (trial["arm"], trial["options"]) == ("SNIP", {"batches": 1})
    assert rate["rate"] == 0.05
    assert ["part" in case for case in asked] == [False, False, True, True]
    assert trial["part"] == rate["part"] == "validation"


def test_the_plan_has_every_case_once_and_tests_what_was_not_tuned_on():
    cases = [tuple(case.values()) for case in sweep_colour.plan()]
    assert len(cases) == len(set(cases))
    tuned = {case["seed"] for case in (*sweep_colour.tuning(), *sweep_colour.rates())}
    assert not tuned & {case["seed"] for case in sweep_colour.plan()}
    arms = {case[1] for case in cases}
    assert arms == {"dense", *SCORED, *sweep_colour.WHILE_TRAINING, *sweep_colour.REMOVED}
    counts = {len(trials) for trials in sweep_colour.TRIALS.values()}
    assert counts == {3}


def test_the_stored_results_are_of_this_plan():
    if not (results.FOLDER / "colour.json").exists():
        pytest.skip("colour.json is not stored yet")
    table, provenance = results.load("colour")
    found = set(table[list(sweep_colour.CASE)].itertuples(index=False, name=None))
    assert found <= {tuple(case.values()) for case in sweep_colour.plan()}
    assert len(found) == len(table)
    stored = provenance["configuration"]
    expected = json.loads(json.dumps(sweep_colour.configuration()))
    assert {key: stored[key] for key in expected} == expected
    assert stored["data"] == "cifar10"
    assert set(table.rate) == {sweep_colour.chosen_rate()}


def test_networks_train_with_one_operation_for_a_normalisation(short):
    trained, _ = sweep_colour.prune_and_train(
        short(), CASE | {"arm": "dense", "sparsity": 0.0}, 0.1, {}
    )
    names = {type(layer).__name__ for layer in trained.layers}
    assert training.FusedNormalization.__name__ in names
    assert "BatchNormalization" not in names


def test_scores_look_at_the_batches_of_the_seed_as_they_are(short):
    for seed in (0, 3):
        x, y = next(sweep_colour.supply(seed))
        train = sweep_colour.data().train
        bytes_, labels = next(datasets.batches(train, sweep_colour.BATCH_SIZE, seed=seed))
        np.testing.assert_allclose(x, bytes_.numpy() / 255, rtol=1e-6)
        np.testing.assert_array_equal(y, labels)
    assert x.dtype == tf.float32


@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_case_is_judged_on_the_images_that_are_said(short, monkeypatch, part):
    judged = []
    monkeypatch.setattr(
        sweep_colour.training, "error", lambda model, data, **_: judged.append(data) or 50.0
    )
    run("dense", sparsity=0.0, part=part)
    assert judged[0] is getattr(sweep_colour.data(), part)


def test_images_to_train_on_are_bytes_and_those_to_test_on_are_numbers_up_to_one(monkeypatch):
    monkeypatch.setenv("PROSPER_COLOUR", "digits")
    found = sweep_colour.data.__wrapped__()
    assert found.train[0].dtype == "uint8"
    assert np.max(found.train[0]) > 200
    for x, _ in (found.validation, found.test):
        assert x.dtype == "float32"
        assert 0.5 < np.max(x) <= 1


def test_pruning_while_training_ends_when_its_trial_says(short, monkeypatch):
    ends, prune = [], sweep_colour.prune_gradually

    def noted(model, sparsity, until, *rest):
        ends.append(until)
        prune(model, sparsity, until, *rest)

    monkeypatch.setattr(sweep_colour, "prune_gradually", noted)
    for options, end in (({"until": 0.5}, 9), ({}, 13)):
        run("gradual magnitude", options=options)
        assert set(ends) == {end}  # of 18 steps
        ends.clear()


def test_units_are_scored_and_drawn_by_the_seed_of_the_case(short, monkeypatch):
    given, drawn, fresh = [], [], controls.fresh

    def spy(model, batches, **options):
        given.append((len(batches), options))
        return gates.uniform(model, batches, **options)

    monkeypatch.setitem(sweep_colour.REMOVED, "removed uniformly", spy)
    monkeypatch.setattr(
        controls, "fresh", lambda model, seed=None: drawn.append(seed) or fresh(model, seed)
    )
    for seed in (0, 7):
        sweep_colour.smaller(short(seed=0), "removed uniformly", "fresh", 0.5, seed)
    assert given == [(16, {"seed": seed, "dtype": "float64"}) for seed in (0, 7)]
    assert drawn == [1000, 1007]


def test_masks_are_shuffled_by_the_seed_of_the_case(short, monkeypatch):
    drawn = []
    monkeypatch.setattr(masks, "shuffled", lambda chosen, seed=None: drawn.append(seed) or chosen)
    run("SNIP", variant="shuffled", seed=5)
    assert drawn == [5]


def test_training_warms_up_and_falls_with_momentum_and_decay(short, monkeypatch):
    made = []
    monkeypatch.setattr(training, "trainer", lambda *given, **more: made.append((given, more)))
    model = short()
    sweep_colour.trainer(model, 0.3, 400)
    (((found, optimizer), more),) = made
    assert found is model
    assert more == {"prepare": datasets.augmented}
    rates = [float(optimizer._learning_rate(t)) for t in (0, 20, 40, 220, 400)]
    assert rates == pytest.approx([0, 0.15, 0.3, 0.15, 0], abs=1e-6)
    assert optimizer.momentum == 0.9
    squares = sum(float(tf.reduce_sum(v**2)) for v in model.trainable_variables)
    assert float(sum(model.losses)) == pytest.approx(5e-4 / 2 * squares, rel=1e-5)


def test_all_arms_of_a_seed_begin_with_its_weights(short, monkeypatch):
    begun = []

    def look(model, case, rate, options):
        begun.append(model.get_weights())
        raise ValueError("seen")

    monkeypatch.setattr(sweep_colour, "prune_and_train", look)
    for seed in (0, 3):
        assert run("SNIP", seed=seed)["failure"] == "seen"
        for a, b in zip(begun[-1], short(seed=seed).get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_options_of_an_arm_are_chosen_by_its_own_trials(monkeypatch):
    columns = {"arm": ["SNIP", "SNIP", "GraSP"], "trial": [0, 2, 1], "error": [50.0, 40.0, 10.0]}
    table = pd.DataFrame(columns | {"variant": "as it is"})
    monkeypatch.setattr(results, "resume", {"colour_tuning": table}.get)
    assert sweep_colour.chosen_options("SNIP") == sweep_colour.TRIALS["SNIP"][2]
    assert sweep_colour.chosen_options("magnitude") == {}
