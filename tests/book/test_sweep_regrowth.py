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
from conftest import ROOT, clock

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
    monkeypatch.setattr(sweep_regrowth, "LOOP", sweep_regrowth.LOOP | {"every": 15, "until": 30})
    monkeypatch.setattr(sweep_regrowth, "data", lambda: digits)
    monkeypatch.setattr(sweep_mnist, "data", lambda: digits)
    monkeypatch.setattr(sweep_mnist, "chosen_options", lambda *arm: {})


def run(arm, options=OPTIONS, **changes):
    return sweep_regrowth.run_case(**CASE | {"arm": arm} | changes, options=options)


held = functools.cache(run)  # where nothing but `short` is in place of what it was


@pytest.mark.parametrize("arm", sweep_regrowth.ARMS)
def test_every_arm_ends_with_exactly_k_weights(short, arm):
    row = held(arm)
    assert row["kept"] == KEPT
    assert row["error"] < 90
    moves = arm in ("random regrowth", "credit")
    assert (row["moved"] > 0) == moves
    assert (row["stayed"] < row["kept"]) == moves


def test_arms_and_variants_differ(short):
    late = ("every 50", "every 500")  # beyond the last step here: the mask of SNIP does not move
    losses = [held(arm)["loss"] for arm in sweep_regrowth.ARMS]
    for variant in sweep_regrowth.VARIANTS:
        loss = run("credit", variant=variant)["loss"]
        if variant in late:
            assert loss == losses[0]
        else:
            losses.append(loss)
    assert len(set(losses)) == len(losses), losses


def test_the_protocol_is_as_it_says(short):
    row = held("SNIP")
    assert row["options"] == "rate=0.1 schedule=cosine weight_decay=0.0"
    others = [{"rate": 0.2}, {"schedule": "steps"}, {"weight_decay": 0.1}]
    losses = [run("SNIP", OPTIONS | change)["loss"] for change in others]
    assert len({row["loss"], *losses}) == 4


@pytest.mark.parametrize("arm", sweep_regrowth.ARMS)
def test_every_arm_makes_as_many_steps_but_the_one_labelled_so(short, monkeypatch, arm):
    """Each training takes its schedule of learning rates to the end; and a seed fixes a case."""
    real, made, before = training.trainer, [], held(arm)

    def counting(model, optimizer):
        train = real(model, optimizer)

        def counted(*data, **options):
            losses = train(*data, **options)
            made.append((int(optimizer.iterations), options["batch_size"]))
            assert float(optimizer.learning_rate) == pytest.approx(0, abs=1e-6)
            return losses

        return counted

    monkeypatch.setattr(training, "trainer", counting)
    assert run(arm)["error"] == before["error"]
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


def test_masks_move_every_so_many_steps_until_the_end_of_the_loop(short, monkeypatch):
    loops = []

    class Seen(regrowth.Regrowth):
        def __init__(self, *given, **options):
            loops.append(self)
            super().__init__(*given, **options)

    monkeypatch.setattr(regrowth, "Regrowth", Seen)
    row = run("credit", variant="every 10")
    assert [step for step, _ in loops[0].moved] == [10, 20, 30]
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
    assert list(row) == list(held("SNIP"))


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
    now |= {"data": data, "sha256": stored["sha256"]}
    assert stored == now, f"{name} is stale: run `make results`"


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


@pytest.mark.parametrize(
    ("network", "activation"), [("LeNet-300-100", "relu"), ("LeNet-5", "tanh")]
)
def test_a_network_trains_and_begins_with_its_activation(monkeypatch, digits, network, activation):
    built, build = [], sweep_mnist.NETWORKS[network]

    def noted(*how, **more):
        built.append((how, more))
        return build(*how, **more)

    def untouched(model, train, case):
        return masks.in_force(model), 0, [1.0]

    monkeypatch.setitem(sweep_mnist.NETWORKS, network, noted)
    monkeypatch.setattr(training, "trainer", lambda model, optimizer: lambda: None)
    monkeypatch.setattr(training, "error", lambda model, data: 0.0)
    monkeypatch.setattr(sweep_regrowth, "data", lambda: digits)
    monkeypatch.setattr(sweep_regrowth, "prune_and_train", untouched)
    assert run("SNIP", network=network, seed=5)["failure"] == ""
    assert built == [((activation,), {}), ((activation,), {"seed": 5})]


@pytest.mark.parametrize("arm", ["magnitude", "credit"])
def test_a_row_has_each_value_in_its_column(short, monkeypatch, digits, arm):
    """All weights are free before the arm begins, and the mean loss is that of the last epoch."""
    judged, given, asked, spend = [], [], [], clock(monkeypatch, sweep_regrowth)
    first = [np.zeros((784, 30)), np.zeros((30, 10)), np.ones((10, 10))]
    now = [np.zeros((784, 30)), np.ones((30, 10)), np.zeros((10, 10))]
    first[1][:2], now[2][3], now[0][5] = 1, 1, 1

    def trained(*network, **how):
        asked.append((*network, how))
        return dense_300_100(units=(30, 10)), lambda *data, **how: given.append((data, how))

    def prune_and_train(model, train, case):
        assert all(np.all(mask) for mask in masks.in_force(model))
        assert case == CASE | {"arm": arm}
        train()
        masks.apply(model, now)
        spend(3.0)
        return first, 17, [3.0, 2.0, 1.5]

    monkeypatch.setattr(sweep_regrowth, "trained", trained)
    monkeypatch.setattr(sweep_regrowth, "prune_and_train", prune_and_train)
    monkeypatch.setattr(
        training, "error", lambda model, data: judged.append(data) or spend(1.5, 6.25)
    )
    row = run(arm, OPTIONS | {"weight_decay": 5e-4})
    expected = {
        **{"network": "small", "arm": arm, "variant": "as is", "sparsity": 0.9, "seed": 0},
        **{"options": "rate=0.1 schedule=cosine weight_decay=0.0005", "error": 6.25, "loss": 1.5},
        **{"kept": 340, "stayed": 20 + 10, "moved": 17, "train_seconds": 4.5, "failure": ""},
    }
    assert row == expected
    assert list(row) == list(expected) == list(results.load("regrowth")[0])
    steps = 20 if arm == "magnitude" else 40
    assert asked == [("small", OPTIONS | {"weight_decay": 5e-4, "steps": steps})]
    assert given == [((digits.train,), {"steps": steps, "batch_size": 100, "seed": 0})]
    assert judged == [digits.test]


LOOPED = {"until": 30, "share": 0.3}  # and every 15 steps, with a decay of 0.98, by `short`


@pytest.mark.parametrize(
    ("arm", "variant", "start", "changes"),
    [
        ("SNIP", "as is", "SNIP", None),
        ("ProsPr", "as is", "ProsPr", None),
        ("iterative ProsPr", "as is", "iterative ProsPr", None),
        ("SynFlow", "as is", "SynFlow", None),
        ("credit", "as is", "SNIP", {}),
        ("random regrowth", "as is", "SNIP", {"credit": ...}),
        ("credit", "one batch", "SNIP", {"credit": ...}),
        ("credit", "one step", "SNIP", {"decay": 0.0}),
        ("credit", "lookahead, M = 3", "SNIP", {"credit": ...}),
        ("credit", "lookahead, M = 10", "SNIP", {"credit": ...}),
        ("credit", "no persistence", "SNIP", {"weight": regrowth.last_step}),
        ("credit", "every 10", "SNIP", {"every": 10}),
        ("credit", "every 50", "SNIP", {"every": 50}),
        ("credit", "every 500", "SNIP", {"every": 500}),
        ("credit", "from random", "random", {}),
        ("credit", "from ProsPr", "ProsPr", {}),
        ("credit", "from iterative ProsPr", "iterative ProsPr", {}),
    ],
)
def test_an_arm_starts_from_its_masks_and_trains_once(
    short, monkeypatch, arm, variant, start, changes
):
    """A frozen mask is in force while it trains; one that moves is handed to its loop."""
    asked, made, trainings = [], [], []
    model = dense_300_100(units=(30, 10))
    first = masks.top_k([1.0 * k for k in kernels(model)], 0.8)

    class Loop:
        after, moved = object(), [(5, 3), (10, 4), (15, 1)]

        def __init__(self, *given, every, **options):
            self.every = every
            made.append((given, options | {"every": every}))

    def train(**how):
        trainings.append((how, sum(int(np.sum(mask)) for mask in masks.in_force(model))))
        return [3.0, 1.0]

    monkeypatch.setattr(regrowth, "Regrowth", Loop)
    monkeypatch.setattr(sweep_regrowth, "first_masks", lambda *given: asked.append(given) or first)
    masks.apply(model, [np.ones(k.shape) for k in kernels(model)])
    case = CASE | {"arm": arm, "variant": variant, "sparsity": 0.8, "seed": 6}
    found = sweep_regrowth.prune_and_train(model, train, case)
    assert asked == [(model, start, "small", 0.8, 6)]
    assert found == (first, 0 if changes is None else 8, [3.0, 1.0])
    if changes is None:
        assert trainings == [({}, SIZE // 5)]
        assert made == []
        return
    ((given, of_loop),) = made
    assert given == (model, first)
    wanted = LOOPED | {"every": 15, "decay": 0.98} | changes
    if "credit" in changes:
        assert callable(of_loop["credit"])
        wanted["credit"] = of_loop["credit"]
    assert of_loop == wanted
    assert trainings == [({"every": wanted["every"], "after": Loop.after}, SIZE)]


@pytest.mark.parametrize("arm", ["magnitude", "magnitude, twice the cost"])
def test_the_heaviest_weights_of_the_trained_network_are_trained_again(short, arm):
    model, seen = dense_300_100(units=(30, 10)), []
    masks.apply(model, [np.ones(k.shape) for k in kernels(model)])
    rng = np.random.default_rng(3)
    weights = [rng.standard_normal(k.shape).astype("float32") for k in kernels(model)]

    def train():
        seen.append(masks.in_force(model))
        if len(seen) == 1:
            for kernel, value in zip(kernels(model), weights, strict=True):
                kernel.assign(value)
        return [[9.0], [4.0, 2.0]][len(seen) - 1]

    case = CASE | {"arm": arm, "sparsity": 0.8}
    first, moved, losses = sweep_regrowth.prune_and_train(model, train, case)
    best = masks.top_k([np.abs(w) for w in weights], 0.8)
    assert (moved, losses, len(seen)) == (0, [4.0, 2.0], 2)
    for a, b, before, after in zip(first, best, *seen, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(after, b)
        assert np.all(before)


def test_gradual_pruning_is_called_every_so_many_steps(short, monkeypatch):
    model, calls = dense_300_100(units=(30, 10)), []
    masks.apply(model, [np.ones(k.shape) for k in kernels(model)])

    def train(every, after):
        for step in (every, 2 * every):
            after(step, "optimizer")
        return [2.0]

    monkeypatch.setattr(sweep_regrowth, "prune_gradually", lambda *how: calls.append(how))
    case = CASE | {"arm": "gradual magnitude", "sparsity": 0.8}
    first, moved, losses = sweep_regrowth.prune_and_train(model, train, case)
    assert all(np.all(mask) for mask in first)
    assert (moved, losses) == (0, [2.0])
    assert calls == [(model, 0.8, step, "optimizer") for step in (15, 30)]


NINE = [
    *("SNIP", "ProsPr", "iterative ProsPr", "SynFlow", "magnitude", "magnitude, twice the cost"),
    *("gradual magnitude", "random regrowth", "credit"),
]
SIX = ["SNIP", "iterative ProsPr", "SynFlow", "gradual magnitude", "random regrowth", "credit"]


def planned(name):
    """Return what a sweep runs if nothing is stored, as tuples, and the names of their entries."""
    left, _ = sweep_regrowth.SWEEPS[name]
    cases = left(pd.DataFrame())
    return [tuple(case.values()) for case in cases], [*cases[0]]


@pytest.mark.parametrize("clothes", [False, True])
@pytest.mark.parametrize("name", sweep_regrowth.SWEEPS)
def test_the_stored_results_are_of_this_plan(monkeypatch, name, clothes):
    """On clothes not all of it is stored."""
    monkeypatch.setattr(sweep_regrowth, "FASHION", clothes)
    cases, keys = planned(name)
    table, _ = results.load(f"{name}_fashion" if clothes else name)
    stored = {*table[keys].itertuples(index=False, name=None)}
    assert len(stored) == len(table)
    assert len({*cases}) == len(cases)
    assert stored <= {*cases} if clothes else stored == {*cases}


def test_headline_cells_are_planned_first():
    cases, keys = planned("regrowth")
    assert tuple(keys) == sweep_regrowth.CASE
    headline = [
        (network, variant) == ("LeNet-300-100", "as is") and sparsity in (0.99, 0.995)
        for network, _, variant, sparsity, _ in cases
    ]
    assert headline == sorted(headline, reverse=True)


def test_clothes_have_every_arm_at_two_sparsities(monkeypatch):
    monkeypatch.setattr(sweep_regrowth, "FASHION", True)
    cases, _ = planned("regrowth")
    assert sorted(cases) == sorted(
        (network, arm, "as is", sparsity, seed)
        for network, arms in (("LeNet-300-100", NINE), ("LeNet-5", SIX))
        for arm in arms
        for sparsity in (0.95, 0.99)
        for seed in range(5)
    )


def test_every_trial_is_made_on_seeds_that_no_case_has():
    found = sweep_regrowth.tuning()
    assert [tuple(case.values()) for case in found] == [
        (network, arm, "as is", 0.99, seed, trial)
        for network, arms, trials, seeds in (
            ("LeNet-300-100", NINE, 7, (100, 101)),
            ("LeNet-5", SIX, 3, (100,)),
        )
        for arm in arms
        for trial in range(trials)
        for seed in seeds
    ]
    assert [*sweep_regrowth.SWEEPS] == ["regrowth_tuning", "regrowth"]
    assert sweep_regrowth.SWEEPS["regrowth_tuning"][0](pd.DataFrame()) == found


def test_a_case_is_run_with_its_options_and_a_trial_is_noted(monkeypatch):
    calls = []
    monkeypatch.setattr(sweep_regrowth, "run_case", lambda **how: calls.append(how) or {"row": 1})
    monkeypatch.setattr(sweep_regrowth, "chosen_options", lambda *arm: {"chosen": arm})
    for _, work in sweep_regrowth.SWEEPS.values():
        case = {"network": "LeNet-5"} | {k: v for k, v in CASE.items() if k != "network"}
        case["arm"] = "SynFlow"
        assert work(case) == [{"row": 1}]
        assert work(case | {"trial": 2}) == [{"row": 1, "trial": 2}]
        tested, tuned = calls
        assert tested == case | {"options": {"chosen": ("LeNet-5", "SynFlow")}}
        options = {"rate": 0.2, "schedule": "cosine", "weight_decay": 5e-4}
        assert tuned == case | {"options": options, "part": "validation"}
        calls.clear()
