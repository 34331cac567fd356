"""The sweep of sparse training: what an arm does, what is left to do, and whether it is stale."""

import functools
import itertools
import json

from prosper_utils.pruning import masks, optimizers, regrowth
from prosper_utils.pruning.networks import dense_300_100, kernels
from prosper_utils.study import datasets, results, training

import keras
import numpy as np
import pandas as pd
import pytest
import sweep_mnist
import sweep_regrowth
import sweeps
import tensorflow as tf
from conftest import ROOT

CASE = {"network": "small", "variant": "as is", "sparsity": 0.9, "seed": 0}
OPTIONS = {"rate": 0.1, "schedule": "cosine", "weight_decay": 0.0}
SIZE = 784 * 30 + 30 * 10 + 10 * 10
KEPT = SIZE // 10


@pytest.fixture
def short(monkeypatch, digits):
    """Make the sweep small: a few steps of a small network on the digits."""
    build = functools.partial(dense_300_100, units=(30, 10))
    monkeypatch.setitem(sweep_mnist.NETWORKS, "small", build)
    monkeypatch.setitem(sweep_regrowth.ACTIVATION, "small", "relu")
    monkeypatch.setattr(sweep_regrowth, "STEPS", 40)
    monkeypatch.setattr(sweep_regrowth, "LOOP", sweep_regrowth.LOOP | {"every": 5, "until": 30})
    monkeypatch.setattr(sweep_regrowth, "data", lambda: digits)
    monkeypatch.setattr(sweep_mnist, "data", lambda: digits)
    monkeypatch.setattr(sweep_mnist, "chosen_options", lambda *arm: {})


def run(arm, options=OPTIONS, **changes):
    return sweep_regrowth.run_case(**CASE | {"arm": arm} | changes, options=options)


@pytest.mark.parametrize("arm", sweep_regrowth.ARMS)
def test_every_arm_ends_with_exactly_k_weights(short, arm):
    row = run(arm)
    assert row["kept"] == KEPT
    assert row["error"] == run(arm)["error"] < 90
    moves = arm in ("random regrowth", "credit")
    assert (row["moved"] > 0) == moves
    assert (row["stayed"] < row["kept"]) == moves


def test_arms_and_variants_differ(short):
    late = ("every 50", "every 500")  # beyond the last step here: the mask of SNIP does not move
    losses = [run(arm)["loss"] for arm in sweep_regrowth.ARMS]
    for variant in sweep_regrowth.VARIANTS:
        loss = run("credit", variant=variant)["loss"]
        if variant in late:
            assert loss == losses[0]
        else:
            losses.append(loss)
    assert len(set(losses)) == len(losses), losses


def test_the_protocol_is_as_it_says(short):
    row = run("SNIP")
    assert row["options"] == "rate=0.1 schedule=cosine weight_decay=0.0"
    others = [{"rate": 0.2}, {"schedule": "steps"}, {"weight_decay": 0.1}]
    losses = [run("SNIP", OPTIONS | change)["loss"] for change in others]
    assert len({row["loss"], *losses}) == 4


@pytest.mark.parametrize("arm", sweep_regrowth.ARMS)
def test_every_arm_makes_as_many_steps_but_the_one_labelled_so(short, monkeypatch, arm):
    """Each training takes its schedule of learning rates to the end."""
    real, made = training.trainer, []

    def counting(model, optimizer):
        train = real(model, optimizer)

        def counted(*data, **options):
            losses = train(*data, **options)
            made.append((int(optimizer.iterations), options["batch_size"]))
            assert float(optimizer.learning_rate) == pytest.approx(0, abs=1e-6)
            return losses

        return counted

    monkeypatch.setattr(training, "trainer", counting)
    run(arm)
    steps = {"magnitude": [20, 20], "magnitude, twice the cost": [40, 40]}.get(arm, [40])
    assert made == [(count, sweep_regrowth.BATCH_SIZE) for count in steps]


def test_all_arms_of_a_seed_begin_alike(short, monkeypatch):
    begins = []

    def look(model, train, case):
        begins.append((case["seed"], model.get_weights(), train.keywords))
        raise ValueError("seen")

    monkeypatch.setattr(sweep_regrowth, "prune_and_train", look)
    for seed, arm in itertools.product((0, 3), sweep_regrowth.ARMS):
        assert run(arm, seed=seed)["failure"] == "seen"
    for seed, weights, options in begins:
        wanted = sweep_mnist.NETWORKS["small"]("relu", seed=seed).get_weights()
        for a, b in zip(weights, wanted, strict=True):
            np.testing.assert_array_equal(a, b)
        assert options["seed"] == seed


def test_trials_see_the_validation_images_and_no_other_case_does(short, monkeypatch, digits):
    seen = []
    monkeypatch.setattr(training, "error", lambda model, data: seen.append(data) or 0.0)
    monkeypatch.setitem(sweep_regrowth.TRIALS, "small", [OPTIONS, OPTIONS | {"rate": 0.2}])
    asked = []
    monkeypatch.setattr(
        sweep_regrowth, "chosen_options", lambda *case: asked.append(case) or OPTIONS
    )
    case = CASE | {"arm": "credit"}
    (tuned,) = sweep_regrowth.one(case | {"trial": 1})
    (tested,) = sweep_regrowth.one(case)
    assert [id(data) for data in seen] == [id(digits.validation), id(digits.test)]
    assert tuned["options"] == "rate=0.2 schedule=cosine weight_decay=0.0"
    assert (tuned["trial"], "trial" in tested) == (1, False)
    assert asked == [("small", "credit")]


@pytest.mark.parametrize(
    ("arm", "variant", "changes"),
    [
        ("credit", "as is", {}),
        ("credit", "one step", {"decay": 0.0}),
        ("credit", "every 10", {"every": 10}),
        ("credit", "no persistence", {"weight": regrowth.last_step}),
        ("credit", "one batch", {"credit": ...}),
        ("credit", "lookahead, M = 10", {"credit": ...}),
        ("random regrowth", "as is", {"credit": ...}),
    ],
)
def test_an_arm_is_the_loop_with_its_changes(short, monkeypatch, arm, variant, changes):
    seen = []

    class Seen(regrowth.Regrowth):
        def __init__(self, model, first, **options):
            seen.append((self, options))
            super().__init__(model, first, **options)

    monkeypatch.setattr(regrowth, "Regrowth", Seen)
    monkeypatch.setitem(sweep_regrowth.LOOP, "every", 15)  # no divisor of the variant's
    row = run(arm, variant=variant)
    ((loop, options),) = seen
    assert [step for step, _ in loop.moved] == list(range(loop.every, 31, loop.every))
    credit = options.get("credit")
    assert options == sweep_regrowth.LOOP | changes | ({"credit": credit} if credit else {})
    assert (credit is None) == ("credit" not in changes)
    assert row["moved"] >= row["kept"] - row["stayed"] > 0


def test_each_seed_draws_its_own_chance_and_its_own_batches(short, digits):
    model = dense_300_100(units=(30, 10))
    draws = [sweep_regrowth.loop_options({"credit": "random"}, s)["credit"](model) for s in (0, 1)]
    assert not np.any(draws[0][0] == draws[1][0])
    calls = [sweep_regrowth.loop_options({"credit": "batch"}, s)["credit"] for s in (0, 1)]
    for seed, call in enumerate(calls):
        supply = datasets.batches(digits.train, sweep_regrowth.BATCH_SIZE, seed=seed + 10_000)
        for _ in range(2):
            expected = regrowth.gradient_credit(model, next(supply))
            for a, b in zip(call(model), expected, strict=True):
                np.testing.assert_array_equal(a, b)


def test_credit_is_for_the_data_and_not_for_the_decay(short, monkeypatch, digits):
    """And a lookahead takes its batches from the seed, as far ahead as its name says."""
    credits = []
    for decay in (0.0, 0.5):
        model = dense_300_100(units=(30, 10))
        for variable in model.trainable_variables:
            variable.regularizer = keras.regularizers.L2(decay)
        credits.append(sweep_regrowth.loop_options({"credit": "batch"}, 0)["credit"](model))
    for a, b in zip(*credits, strict=True):
        np.testing.assert_array_equal(a, b)
    seen = []
    monkeypatch.setattr(
        regrowth,
        "lookahead_credit",
        lambda model, batches, **options: seen.append((next(batches)[0], options)),
    )
    changes = sweep_regrowth.VARIANTS["lookahead, M = 10"]
    sweep_regrowth.loop_options(changes, 4)["credit"](model)
    ((x, options),) = seen
    supply = datasets.batches(digits.train, sweep_regrowth.BATCH_SIZE, seed=10_004)
    np.testing.assert_array_equal(x, next(supply)[0])
    assert options == {"steps": 10, "regularisation": False}


def test_chance_is_drawn_anew_each_time(short):
    model = dense_300_100(units=(30, 10))
    credit = sweep_regrowth.loop_options({"credit": "random"}, 0)["credit"]
    for a, b in zip(credit(model), credit(model), strict=True):
        assert not np.any(a == b)


def test_a_score_starts_with_the_options_chosen_for_it(short, monkeypatch):
    asked, scored = [], []
    monkeypatch.setattr(
        sweep_mnist, "chosen_options", lambda *case: asked.append(case) or {"batch_size": 7}
    )
    monkeypatch.setattr(
        sweep_mnist,
        "score_of",
        lambda model, *case, **options: (
            scored.append((*case, options)) or ([1.0 * k for k in kernels(model)], 0)
        ),
    )
    model = dense_300_100(units=(30, 10))
    first = sweep_regrowth.first_masks(model, "ProsPr", "small", 0.9, 5)
    best = masks.top_k([1.0 * k for k in kernels(model)], 0.9)  # of all layers together
    for a, b in zip(first, best, strict=True):
        np.testing.assert_array_equal(a, b)
    assert asked == [("small", "relu", "ProsPr")]
    assert scored == [("ProsPr", 5, 0.9, {"batch_size": 7})]


def test_the_schedules_and_the_penalty_are_as_they_say(short, monkeypatch):
    found = []
    monkeypatch.setattr(training, "trainer", lambda model, optimizer: found.append(optimizer))
    for schedule in ("cosine", "steps"):
        model, _ = sweep_regrowth.trained("small", 0.2, schedule, 0.01, 100)
        value = [tf.reduce_sum(v**2) for v in model.trainable_variables]
        np.testing.assert_allclose(tf.add_n(model.losses), 0.005 * tf.add_n(value), rtol=1e-5)
    cosine, steps = (o._learning_rate for o in found)
    assert [o.momentum for o in found] == [0.9, 0.9]
    for t in (0, 25, 50, 100):
        assert float(cosine(t)) == pytest.approx(0.1 * (1 + np.cos(np.pi * t / 100)), abs=1e-7)
    rates = [float(steps(t)) for t in (0, 60, 61, 85, 86, 100)]
    assert rates == pytest.approx([0.2, 0.2, 0.02, 0.02, 0.002, 0.002])


def test_a_training_that_diverges_is_a_row_without_an_error(short):
    row = run("SNIP", OPTIONS | {"rate": 1e6})
    assert row["error"] is None
    assert "expected a finite training loss" in row["failure"]
    assert list(row) == list(run("SNIP"))


def test_gradual_pruning_follows_its_schedule():
    model = dense_300_100("relu", units=(30, 10))
    optimizer = keras.optimizers.SGD(use_ema=True)
    until = sweep_regrowth.LOOP["until"]
    masks.apply(model, [np.ones(k.shape) for k in kernels(model)])
    optimizer.build(model.trainable_variables)
    for kernel in kernels(model):
        optimizers.average(optimizer, kernel).assign(tf.ones_like(kernel))
    left = []
    for step in (until // 3, until // 2, until, until + 500):
        sweep_regrowth.prune_gradually(model, 0.99, step, optimizer)
        left.append(sum(count for _, count, _ in masks.per_layer(model)))
    expected = [0.99 * (1 - (1 - t) ** 3) for t in (1 / 3, 1 / 2, 1, 1)]
    assert left == [masks.kept(SIZE, round(s, 6)) for s in expected]
    for kernel, mask in zip(kernels(model), masks.in_force(model), strict=True):
        np.testing.assert_array_equal(optimizers.average(optimizer, kernel), mask)


def test_options_are_those_that_did_best(monkeypatch):
    trials = pd.DataFrame(
        [
            ("LeNet-300-100", "credit", 0, 100, 5.0),
            ("LeNet-300-100", "credit", 0, 101, 3.0),
            ("LeNet-300-100", "credit", 1, 100, None),  # it failed
            ("LeNet-300-100", "credit", 1, 101, 1.0),
            ("LeNet-300-100", "credit", 2, 100, 3.0),
            ("LeNet-300-100", "credit", 2, 101, 3.5),
            ("LeNet-300-100", "SNIP", 3, 100, 0.0),
            ("LeNet-5", "credit", 4, 100, 0.0),
        ],
        columns=["network", "arm", "trial", "seed", "error"],
    )
    monkeypatch.setattr(results, "resume", lambda name: trials)
    found = sweep_regrowth.chosen_options("LeNet-300-100", "credit")
    assert found == sweep_regrowth.TRIALS["LeNet-300-100"][2]


def test_the_plan_is_fair():
    cases = sweep_regrowth.plan()
    keys = [tuple(case[k] for k in sweep_regrowth.CASE) for case in cases]
    assert len(set(keys)) == len(keys)
    for arm in sweep_regrowth.ARMS:
        cells = {k[3:] for k in keys if k[:3] == ("LeNet-300-100", arm, "as is")}
        assert cells == {(s, seed) for s in (0.9, 0.95, 0.98, 0.99, 0.995) for seed in range(5)}
    for arm in sweep_regrowth.LENET_ARMS:
        cells = {k[3:] for k in keys if k[:3] == ("LeNet-5", arm, "as is")}
        assert cells == set(itertools.product((0.95, 0.99), range(5)))
    for variant in sweep_regrowth.VARIANTS:
        cells = {k[3:] for k in keys if k[:3] == ("LeNet-300-100", "credit", variant)}
        assert cells == {(0.99, seed) for seed in range(5)}
    trials = pd.DataFrame(sweep_regrowth.tuning()).groupby(["network", "arm"]).size()
    assert trials["LeNet-300-100"].nunique() == trials["LeNet-5"].nunique() == 1
    assert {case["sparsity"] for case in sweep_regrowth.tuning()} == {0.99}
    tuned = {case["seed"] for case in sweep_regrowth.tuning()}
    assert not tuned & {case["seed"] for case in cases}


@pytest.mark.parametrize("data", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("name", sweep_regrowth.SWEEPS)
def test_what_is_stored_is_not_stale(name, data):
    name = name if data == "mnist" else f"{name}_fashion"
    path = ROOT / "book" / "studies" / "results" / f"{name}.json"
    if not path.exists():
        pytest.skip(f"{path.name} is not stored yet")
    stored = json.loads(path.read_text())["configuration"]
    now = json.loads(json.dumps(sweep_regrowth.configuration()))
    assert {key: stored[key] for key in now} == now, f"{name} is stale: run `make results`"
    assert stored["data"] == data


def test_clothes_have_choices_of_their_own_in_regrowth(monkeypatch):
    asked = []
    monkeypatch.setattr(sweep_mnist, "FASHION", True)
    monkeypatch.setattr(sweeps, "best", lambda name, *where: asked.append(name) or 0)
    sweep_regrowth.chosen_options("LeNet-5", "credit")
    assert asked == ["regrowth_tuning_fashion"]


def test_a_trial_of_regrowth_that_is_stored_stands_for_no_other():
    left, _ = sweep_regrowth.SWEEPS["regrowth_tuning"]
    trials = left(pd.DataFrame())
    assert left(pd.DataFrame(trials[:3])) == trials[3:]


@pytest.mark.parametrize(
    "name", ["STEPS", "BATCH_SIZE", "MOMENTUM", "ACTIVATION", "LOOP", "VARIANTS", "TRIALS"]
)
def test_what_determines_regrowth_is_in_its_configuration(monkeypatch, name):
    before = sweep_regrowth.configuration()
    monkeypatch.setattr(sweep_regrowth, name, "changed")
    assert sweep_regrowth.configuration() != before


def test_a_lookahead_goes_on_with_its_batches(monkeypatch, digits):
    seen = []
    monkeypatch.setattr(sweep_regrowth, "data", lambda: digits)
    monkeypatch.setattr(
        regrowth, "lookahead_credit", lambda model, batches, **rest: seen.append(next(batches)[0])
    )
    changes = sweep_regrowth.VARIANTS["lookahead, M = 3"]
    credit = sweep_regrowth.loop_options(changes, 4)["credit"]
    supply = datasets.batches(digits.train, sweep_regrowth.BATCH_SIZE, seed=10_004)
    for _ in range(3):
        credit(None)
        np.testing.assert_array_equal(seen[-1], next(supply)[0])
