"""The sweep on colour images: what an arm does, what is left to do, and whether it is stale."""

import functools
import json
import types

from prosper_utils.pruning import budgets, gates, masks, networks, optimizers, regrowth, scores
from prosper_utils.study import controls, datasets, results, training

import keras
import numpy as np
import pandas as pd
import pytest
import sweep_colour
import tensorflow as tf
from conftest import clock

SMALL = {"widths": (4,), "shape": (32, 32, 3)}
CASE = {"network": "small", "variant": "as it is", "sparsity": 0.8, "seed": 0}
SCORED = ("SNIP", "ProsPr", *sweep_colour.REST)


@pytest.fixture(scope="module")
def wide(digits):
    """Return digits in colour, few of them to train on."""
    found = datasets.in_colour(digits)
    x, y = found.train
    return found._replace(train=datasets.in_bytes((x[:96], y[:96])))


@pytest.fixture
def short(monkeypatch, wide):
    """Make the sweep small: a few steps of a small network on digits in colour."""
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


@functools.cache
def held(arm, variant="as it is"):
    """Return the row of a case, made once, where nothing but `short` is in place of what it was."""
    return run(arm, variant=variant)


def kept_of(row):
    return [int(count) for count in row["kept"].split()]


@pytest.mark.parametrize("arm", [*SCORED, *sweep_colour.WHILE_TRAINING])
def test_every_arm_keeps_k_weights(short, arm):
    row = held(arm)
    size = sum(int(np.prod(k.shape)) for k in networks.kernels(short()))
    assert row["failure"] == ""
    assert sum(kept_of(row)) == -(-size // 5)
    assert 0 <= row["error"] <= 100


def test_seeds_fix_a_case_and_arms_differ(short):
    first, again, other = held("SNIP"), run("SNIP"), run("SNIP", seed=1)
    assert first["loss"] == pytest.approx(again["loss"], rel=1e-5)
    assert abs(first["loss"] - other["loss"]) > 1e-4
    losses = {round(row["loss"], 6) for row in (first, run("dense"), held("ProsPr"))}
    assert len(losses) == 3


def test_shuffled_masks_keep_the_counts_of_each_layer(short):
    as_it_is, shuffled = held("SNIP"), held("SNIP", variant="shuffled")
    assert kept_of(as_it_is) == kept_of(shuffled)
    assert abs(as_it_is["loss"] - shuffled["loss"]) > 1e-6


def test_regrowth_by_size_moves_other_weights(short):
    as_it_is, by_size = held("credit"), held("credit", variant="by size")
    assert sum(kept_of(as_it_is)) == sum(kept_of(by_size))
    assert kept_of(as_it_is) != kept_of(by_size)


def test_what_is_removed_is_gone_before_training(short):
    whole, rows = budgets.cost(short()), {}
    for arm in sweep_colour.REMOVED:
        row = rows[arm] = run(arm, sparsity=0.5, options={})
        assert row["failure"] == ""
        assert 0.2 * whole < row["multiply_adds"] <= 0.5 * whole
    fresh = run("removed uniformly", sparsity=0.5, options={}, variant="fresh")
    same = rows["removed uniformly"]
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
    row = run("dense", rate=1e30)
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
    assert stored == expected | {"data": "cifar10", "sha256": stored["sha256"]}
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


def test_images_to_train_on_are_bytes_and_those_to_test_on_are_numbers_up_to_one(monkeypatch):
    monkeypatch.setenv("PROSPER_COLOUR", "digits")
    found = sweep_colour.data.__wrapped__()
    assert found.train[0].dtype == "uint8"
    assert np.max(found.train[0]) > 200
    for x, _ in (found.validation, found.test):
        assert x.dtype == "float32"
        assert 0.5 < np.max(x) <= 1


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


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_those_of_cifar_unless_others_are_asked_for(monkeypatch, channels):
    """Colour images stay as they are, and grey ones get three channels."""
    loaded = []
    shape = (28, 28, 1) if channels == 1 else (32, 32, 3)
    pairs = [(tf.ones((n, *shape)), tf.zeros(n, tf.int64)) for n in (4, 3, 2)]
    found = datasets.Data("some", *pairs)
    monkeypatch.setattr(datasets, "load", lambda name: loaded.append(name) or found)
    monkeypatch.delenv("PROSPER_COLOUR", raising=False)
    data = sweep_colour.data.__wrapped__()
    monkeypatch.setenv("PROSPER_COLOUR", "fashion_mnist")
    sweep_colour.data.__wrapped__()
    assert loaded == ["cifar10", "fashion_mnist"]
    assert data.name == "some"
    assert [tuple(x.shape) for x, _ in data[1:]] == [(n, 32, 32, 3) for n in (4, 3, 2)]


def test_all_train_for_whole_epochs_of_whole_batches(monkeypatch):
    images = types.SimpleNamespace(train=(range(1000), None))
    monkeypatch.setattr(sweep_colour, "data", lambda: images)
    assert sweep_colour.steps_of_all() == 5 * 7


@pytest.mark.parametrize("arm", SCORED)
def test_a_score_gets_its_batches_and_all_its_options(short, monkeypatch, arm):
    given, model = [], short()

    def score(scored, batches, **options):
        given.append((scored, [next(iter(batches))[0]], isinstance(batches, list), options))
        return [tf.fill(k.shape, 2.0) for k in networks.kernels(scored)]

    monkeypatch.setitem(sweep_colour.SCORES, arm, score)
    found = sweep_colour.scores_of(model, arm, 0.7, 5, rounds=4)
    ((scored, (x,), listed, options),) = given
    assert scored is model
    assert options == {"rounds": 4, "sparsity": 0.7, "seed": 5, "dtype": "float64"}
    assert listed == (arm == "SNIP")
    np.testing.assert_array_equal(x, next(sweep_colour.supply(5))[0])
    for score, kernel in zip(found, networks.kernels(model), strict=True):
        assert isinstance(score, np.ndarray)
        np.testing.assert_array_equal(score, np.full(kernel.shape, 2))


@pytest.mark.parametrize("batches", [{}, {"batches": 3}])
def test_snip_takes_the_mean_over_the_first_batches_of_the_seed(short, monkeypatch, batches):
    given = []
    monkeypatch.setitem(
        sweep_colour.SCORES, "SNIP", lambda model, taken, **_: given.extend(taken) or []
    )
    sweep_colour.scores_of(short(), "SNIP", 0.7, 5, **batches)
    assert len(given) == batches.get("batches", 1)
    for (x, y), wanted in zip(given, sweep_colour.supply(5), strict=False):
        np.testing.assert_array_equal(x, wanted[0])
        np.testing.assert_array_equal(y, wanted[1])


@pytest.mark.parametrize(
    ("arm", "options"),
    [
        ("removed by ProsPr", {"learning_rate": 0.01}),
        ("removed by SNIP", {}),
        ("removed uniformly", {}),
    ],
)
@pytest.mark.parametrize("fresh", [False, True])
def test_units_are_removed_by_their_score_for_each_multiply_add(
    short, monkeypatch, arm, options, fresh
):
    """All on the same batches; the control by chance is not divided by what a unit costs."""
    model, seen, batches = short(), [], []

    def score(scored, listed, **how):
        seen.append((scored, how))
        batches.extend(listed)
        return "scores"

    monkeypatch.setattr(sweep_colour, "chosen_options", lambda arm: {"learning_rate": 0.01})
    monkeypatch.setitem(sweep_colour.REMOVED, arm, score)
    monkeypatch.setattr(budgets, "per_cost", lambda *how: seen.append(how) or "for each")
    monkeypatch.setattr(budgets, "choose", lambda *how, **more: seen.append((*how, more)) or "kept")
    monkeypatch.setattr(sweep_colour.units, "shrink", lambda *how: seen.append(how) or "small")
    monkeypatch.setattr(controls, "fresh", lambda *how: seen.append(how) or "fresh")
    variant = "fresh" if fresh else "as it is"
    found = sweep_colour.smaller(model, arm, variant, 0.75, 4)
    drawn = arm == "removed uniformly"
    assert found == ("fresh" if fresh else "small")
    assert seen == [
        (model, {"seed": 4, "dtype": "float64"} | options),
        *([] if drawn else [(model, "scores")]),
        (model, "scores" if drawn else "for each", {"share": 0.25}),
        (model, "kept"),
        *([("small", 1004)] if fresh else []),
    ]
    assert len(batches) == 16
    for (x, y), wanted in zip(batches, sweep_colour.supply(4), strict=False):
        np.testing.assert_array_equal(x, wanted[0])
        np.testing.assert_array_equal(y, wanted[1])


def test_the_units_that_are_removed_are_scored_by_what_their_name_says():
    removed = sweep_colour.REMOVED
    assert list(removed) == ["removed by ProsPr", "removed by SNIP", "removed uniformly"]
    assert list(removed.values()) == [gates.prospr, gates.snip, gates.uniform]


@pytest.fixture
def untrained(short, monkeypatch):
    """Let the sweep train nothing; return what was asked of scores, loops, masks and trainings."""
    seen = {"trainer": [], "train": [], "scores": [], "loop": [], "masks": [], "gradual": []}

    def trainer(model, *how):
        seen["trainer"].append((model, *how))

        def train(*data, **options):
            seen["train"].append((data, options))
            return [3.0, 2.0, 1.5]

        return train

    def scores_of(model, *how, **options):
        seen["scores"].append((model, *how, options))
        return [np.abs(k) for k in networks.kernels(model)]

    class Loop:
        after = object()

        def __init__(self, *given, every, **options):
            self.every = every
            seen["loop"].append((*given, options | {"every": every}))

    monkeypatch.setattr(sweep_colour, "steps_of_all", lambda: 250)
    monkeypatch.setattr(sweep_colour, "trainer", trainer)
    monkeypatch.setattr(sweep_colour, "scores_of", scores_of)
    monkeypatch.setattr(
        sweep_colour, "chosen_options", lambda arm: {"SNIP": {"batches": 8}}.get(arm, {"no": 1})
    )
    monkeypatch.setattr(sweep_colour, "prune_gradually", lambda *how: seen["gradual"].append(how))
    monkeypatch.setattr(regrowth, "Regrowth", Loop)
    monkeypatch.setattr(masks, "apply", lambda *how: seen["masks"].append(how))
    monkeypatch.setattr(masks, "shuffled", lambda chosen, seed: ("shuffled", chosen, seed))
    monkeypatch.setattr(masks, "top_k", lambda scores, sparsity: ("best", len(scores), sparsity))
    return seen


@pytest.mark.parametrize(
    ("arm", "variant", "options", "scored", "mask"),
    [
        ("dense", "as it is", {}, None, None),
        ("removed by SNIP", "fresh", {}, None, None),
        ("removed uniformly", "as it is", {}, None, None),
        ("SNIP", "as it is", {"batches": 64}, {"batches": 64}, ("best", 3, 0.8)),
        ("SNIP", "shuffled", {}, {}, ("shuffled", ("best", 3, 0.8), 7)),
        ("GraSP", "as it is", {"temperature": 20.0}, {"temperature": 20.0}, ("best", 3, 0.8)),
    ],
)
def test_a_mask_is_in_force_before_the_one_training_of_an_arm(
    untrained, short, arm, variant, options, scored, mask
):
    """Taken from the network itself; it is its copy that trains."""
    model = short(seed=7)
    case = CASE | {"arm": arm, "variant": variant, "seed": 7}
    trained, loss = sweep_colour.prune_and_train(model, case, 0.3, options)
    assert loss == 1.5
    assert untrained["trainer"] == [(trained, 0.3, 250)]
    assert untrained["train"] == [
        ((sweep_colour.data().train,), {"steps": 250, "batch_size": 16, "seed": 7})
    ]
    assert untrained["scores"] == ([] if scored is None else [(model, arm, 0.8, 7, scored)])
    assert untrained["masks"] == ([] if mask is None else [(trained, mask)])
    assert untrained["loop"] == []
    for a, b in zip(trained.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("variant", ["as it is", "by size"])
@pytest.mark.parametrize("options", [{}, {"every": 25}])
def test_what_regrows_begins_with_the_mask_of_snip(untrained, short, variant, options):
    """With the options that were chosen for SNIP; by size, units of any scale are compared."""
    model = short(seed=7)
    case = CASE | {"arm": "credit", "variant": variant, "seed": 7}
    options = {"every": 50} | options
    trained, loss = sweep_colour.prune_and_train(model, case, 0.3, options)
    assert loss == 1.5
    assert untrained["scores"] == [(model, "SNIP", 0.8, 7, {"batches": 8})]
    how = {"share": 0.3, "decay": 0.98, "until": 187, "scale_free": variant == "as it is"}
    assert untrained["loop"] == [(trained, ("best", 3, 0.8), how | options)]
    ((_, how),) = untrained["train"]
    assert how == {"steps": 250, "batch_size": 16, "seed": 7} | {
        "every": options["every"],
        "after": regrowth.Regrowth.after,
    }
    assert untrained["masks"] == []


@pytest.mark.parametrize(("options", "until"), [({}, 187), ({"until": 0.9}, 225)])
def test_gradual_pruning_takes_a_fiftieth_of_the_training_at_a_time(
    untrained, short, options, until
):
    case = CASE | {"arm": "gradual magnitude", "seed": 7}
    trained, loss = sweep_colour.prune_and_train(short(seed=7), case, 0.3, options)
    assert loss == 1.5
    ((_, how),) = untrained["train"]
    how.pop("after")(10, "optimizer")
    assert how == {"steps": 250, "batch_size": 16, "seed": 7, "every": 5}
    assert untrained["gradual"] == [(trained, 0.8, until, 10, "optimizer")]
    assert untrained["scores"] == untrained["masks"] == untrained["loop"] == []


def test_gradual_pruning_follows_its_cubic_schedule_to_its_end(short):
    model, left = short(), []
    lightest_go = masks.top_k(scores.magnitude(model), 0.9)  # of all layers together
    masks.apply(model, [np.ones(k.shape) for k in networks.kernels(model)])
    optimizer = keras.optimizers.SGD(use_ema=True)
    optimizer.build(model.trainable_variables)
    for kernel in networks.kernels(model):
        optimizers.average(optimizer, kernel).assign(tf.ones_like(kernel))
    for step in (30, 45, 90, 400):
        sweep_colour.prune_gradually(model, 0.9, 90, step, optimizer)
        left.append(sum(count for _, count, _ in masks.per_layer(model)))
    size = sum(int(np.prod(k.shape)) for k in networks.kernels(model))
    sparsities = [0.9 * (1 - (1 - t) ** 3) for t in (1 / 3, 1 / 2, 1, 1)]
    assert left == [masks.kept(size, round(s, 6)) for s in sparsities]
    for kernel, mask, expected in zip(
        networks.kernels(model), masks.in_force(model), lightest_go, strict=True
    ):
        np.testing.assert_array_equal(mask, expected)
        np.testing.assert_array_equal(optimizers.average(optimizer, kernel), mask)


@pytest.mark.parametrize("part", ["validation", "test"])
@pytest.mark.parametrize("removed", [False, True])
def test_a_row_has_each_value_in_its_column(short, monkeypatch, part, removed):
    """Kept weights are counted in each layer, and again where a path goes through them."""
    seen, trained = [], short(seed=1)
    kernels = [np.ones((3, 3, 3, 4)), np.ones((3, 3, 4, 4)), np.ones((4, 10))]
    kernels[0][..., 3] = 0  # nothing comes out of the last channel
    kernels[2][0] = 0  # and of the next layer nothing goes on from the first
    for kernel, value in zip(networks.kernels(trained), kernels, strict=True):
        kernel.assign(value)
    small = networks.vgg(widths=(4,), shape=(32, 32, 3), seed=2)

    def smaller(*how):
        seen.append(("smaller", *how[1:]))
        return spend(1, small)

    def prune_and_train(model, case, rate, options):
        seen.append((model is small, case, rate, options))
        return spend(4, (trained, 1.25))

    def error(*how, **more):
        seen.append((*how, more))
        return spend(0.5, 50.0)

    monkeypatch.setattr(sweep_colour, "smaller", smaller)
    monkeypatch.setattr(sweep_colour, "prune_and_train", prune_and_train)
    monkeypatch.setattr(training, "error", error)
    monkeypatch.setattr(
        keras.utils, "clear_session", lambda *, free_memory: seen.append(free_memory)
    )
    spend = clock(monkeypatch, sweep_colour)
    arm = "removed by SNIP" if removed else "SNIP"
    options = {"batches": 8, "rounds": 2}
    row = run(arm, rate=0.3, options=options, seed=7, part=part)
    case = {"network": "small", "arm": arm, "variant": "as it is", "sparsity": 0.8, "seed": 7}
    assert seen == [
        True,
        *([("smaller", arm, "as it is", 0.8, 7)] if removed else []),
        (removed, case, 0.3, options),
        (trained, getattr(sweep_colour.data(), part), {"chunk": 500}),
    ]
    expected = case | {
        **{"rate": 0.3, "options": "batches=8 rounds=2", "multiply_adds": budgets.cost(small)},
        **{"error": 50.0, "loss": 1.25, "kept": "81 144 30"},
        "on_a_path": 81 + 9 * 3 * 3 + 30,
        **{"train_seconds": 4.5 + removed, "failure": ""},
    }
    assert row == expected
    assert list(row) == list(expected) == list(results.load("colour")[0])


def test_a_row_that_failed_has_all_columns(short, monkeypatch):
    """Also where units could not be removed: then it is the cost of the large network."""

    def fails(*how):
        raise ValueError("expected one that can be met")

    monkeypatch.setattr(sweep_colour, "smaller", fails)
    row = run("removed by ProsPr", rate=0.3, options={})
    case = {"network": "small", "arm": "removed by ProsPr", "variant": "as it is"}
    outcome = dict.fromkeys(("error", "loss", "kept", "on_a_path", "train_seconds"))
    assert row == case | {"sparsity": 0.8, "seed": 0, "rate": 0.3, "options": ""} | outcome | {
        "multiply_adds": budgets.cost(short()),
        "failure": "expected one that can be met",
    }
    assert list(row) == list(results.load("colour")[0])


FIVE, THREE = [0, 1, 2, 3, 4], [0, 1, 2]
PLAN = {
    ("dense", "as it is", 0.0): THREE,
    **{(arm, "as it is", 0.95): FIVE for arm in ("SNIP", "ProsPr", "credit", "SynFlow")},
    **{
        (arm, "as it is", 0.95): THREE
        for arm in ("gradual magnitude", "iterative SNIP", "magnitude", "GraSP")
    },
    **{
        (arm, "as it is", sparsity): THREE
        for sparsity in (0.9, 0.98)
        for arm in (
            *("SNIP", "ProsPr", "credit", "gradual magnitude"),
            *("iterative SNIP", "magnitude", "SynFlow", "GraSP"),
        )
    },
    **{
        (arm, "shuffled", sparsity): seeds
        for arm in ("SNIP", "ProsPr")
        for sparsity, seeds in ((0.95, FIVE), (0.98, THREE))
    },
    ("credit", "by size", 0.95): THREE,
    **{
        (arm, variant, share): THREE
        for share in (0.5, 0.75)
        for arm, variant in (
            ("removed by ProsPr", "as it is"),
            ("removed by SNIP", "as it is"),
            ("removed uniformly", "as it is"),
            ("removed by ProsPr", "fresh"),
        )
    },
}


def test_the_plan_has_every_arm_at_its_sparsities_and_seeds():
    cases = sweep_colour.plan()
    assert all(tuple(case) == sweep_colour.CASE for case in cases)
    found = {}
    for network, *arm, seed in (case.values() for case in cases):
        found.setdefault((network, *arm), []).append(seed)
    assert {arm: sorted(seeds) for arm, seeds in found.items()} == {
        **{("ResNet-8", *arm): seeds for arm, seeds in PLAN.items()},
        ("ResNet-20", "SNIP", "as it is", 0.95): [0],
        ("ResNet-20", "ProsPr", "as it is", 0.95): [0],
    }


def test_headline_cells_are_planned_first_seed_by_seed():
    headline = ("dense", "SNIP", "ProsPr", "credit", "gradual magnitude")
    cases = [tuple(case.values()) for case in sweep_colour.plan()]
    first = [
        network == "ResNet-8"
        and arm in headline
        and variant in ("as it is", "shuffled")
        and sparsity in (0.0, 0.95)
        and seed in THREE
        for network, arm, variant, sparsity, seed in cases
    ]
    assert first == sorted(first, reverse=True)
    seeds = [seed for *_, seed in cases[: sum(first)]]
    assert seeds == sorted(seeds)


def test_every_rate_and_every_trial_is_made_at_95_percent_on_a_seed_of_its_own():
    trials = {name: left(pd.DataFrame()) for name, (left, _) in sweep_colour.SWEEPS.items()}
    assert [*trials] == ["colour_rates", "colour_tuning", "colour"]
    assert [tuple(trial.values()) for trial in trials["colour_rates"]] == [
        ("ResNet-8", "dense", "as it is", 0.0, 100, rate) for rate in (0.05, 0.1, 0.2, 0.4, 0.8)
    ]
    arms = ["SNIP", "ProsPr", "gradual magnitude", "iterative SNIP", "SynFlow", "GraSP", "credit"]
    assert [tuple(trial.values()) for trial in trials["colour_tuning"]] == [
        ("ResNet-8", arm, "as it is", 0.95, 100, trial) for arm in arms for trial in range(3)
    ]
    assert trials["colour"] == sweep_colour.plan()


@pytest.mark.parametrize("name", sweep_colour.SWEEPS)
def test_a_trial_that_is_stored_stands_for_no_other(name):
    left, _ = sweep_colour.SWEEPS[name]
    cases = left(pd.DataFrame())
    assert left(pd.DataFrame(cases[:2])) == cases[2:]


def test_a_case_is_run_at_the_rate_of_all_and_a_trial_is_noted(monkeypatch):
    calls = []
    monkeypatch.setattr(sweep_colour, "run_case", lambda **how: calls.append(how) or {"row": 1})
    monkeypatch.setattr(sweep_colour, "chosen_rate", lambda: 0.4)
    monkeypatch.setattr(sweep_colour, "chosen_options", lambda arm: {"chosen": arm})
    case = CASE | {"arm": "GraSP"}
    for _, work in sweep_colour.SWEEPS.values():
        assert work(case) == [{"row": 1}]
        assert work(case | {"trial": 2}) == [{"row": 1, "trial": 2}]
        assert work(case | {"rate": 0.8}) == [{"row": 1}]
        tested, tuned, tried = calls
        assert tested == case | {"rate": 0.4, "options": {"chosen": "GraSP"}}
        how = {"rate": 0.4, "options": {"temperature": 200.0}, "part": "validation"}
        assert tuned == case | how
        assert tried == case | {"rate": 0.8, "options": {}, "part": "validation"}
        calls.clear()
