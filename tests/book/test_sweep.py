"""The pruning sweep: what is left to do, what a case returns, and whether a result is stale."""

import functools
import importlib.util
import itertools
import json
import os
import sys

from prosper_utils.pruning import masks
from prosper_utils.pruning.networks import dense_300_100, kernels, lenet5
from prosper_utils.pruning.scores import prospr, random, snip
from prosper_utils.study import datasets, results, training
from prosper_utils.study.checks import relative_error

import numpy as np
import pandas as pd
import pytest
import sweep_mnist
import sweeps
import tensorflow as tf
from conftest import ROOT, clock

ENDS = {"": "mnist", "_fashion": "fashion_mnist"}  # of the name of a result: its data


def test_what_is_stored_is_not_computed_again():
    cases = sweep_mnist.cases_of("LeNet-5", "tanh", ("SNIP", "random"), range(2), (0.9, 0.95))
    assert len(cases) == 4
    assert sweep_mnist.missing(cases, pd.DataFrame(), sweep_mnist.CASE) == cases
    rows = [{k: case[k] for k in sweep_mnist.CASE} for case in cases]
    stored = [row | {"sparsity": s} for row in rows[:2] for s in (0.9, 0.95)]
    stored += [rows[2] | {"sparsity": 0.95}]
    left = sweep_mnist.missing(cases, pd.DataFrame(stored), sweep_mnist.CASE)
    assert [case["sparsities"] for case in left] == [(0.9,), (0.9, 0.95)]
    assert [case["seed"] for case in left] == [1, 1]


@pytest.fixture
def short(monkeypatch, digits):
    """Make the sweep small: a few steps of a small network on the digits."""
    build = functools.partial(dense_300_100, units=(30, 10))
    monkeypatch.setattr(sweep_mnist, "NETWORKS", {"small": build})
    monkeypatch.setitem(sweep_mnist.PROTOCOL, "steps", 20)
    monkeypatch.setitem(sweep_mnist.PROTOCOL, "times_0.1_at", [12, 17])
    monkeypatch.setattr(sweep_mnist, "data", lambda: digits)
    sweep_mnist.trained.cache_clear()
    yield
    sweep_mnist.trained.cache_clear()


def test_a_case_gives_a_row_for_each_sparsity(short):
    settings = {"sparsities": (0.5, 0.9), "options": {"rounds": 5}}
    rows = sweep_mnist.run_case("small", "relu", "SynFlow", "as scored", 0, **settings)
    again = sweep_mnist.run_case("small", "relu", "SynFlow", "as scored", 0, **settings)
    assert [row["sparsity"] for row in rows] == [0.5, 0.9]
    size = 784 * 30 + 30 * 10 + 10 * 10
    for row, twice in zip(rows, again, strict=True):
        kept = sum(map(int, row["kept"].split()))
        assert kept == round(size * (1 - row["sparsity"]))
        assert 0 < row["on_a_path"] <= kept
        assert row["error"] == twice["error"] < 90
        assert row["kept"] == twice["kept"]


def test_the_variants_are_what_they_say(short):
    settings = {"sparsities": (0.9,), "options": {}}
    rows = {
        variant: sweep_mnist.run_case("small", "tanh", "SNIP", variant, 0, **settings)[0]
        for variant in ("as scored", "shuffled", "inverted", "per layer", "re-initialised")
    }
    assert rows["shuffled"]["kept"] == rows["as scored"]["kept"] == rows["re-initialised"]["kept"]
    assert rows["inverted"]["kept"] != rows["as scored"]["kept"]
    assert rows["per layer"]["kept"] == "2352 30 10"
    assert len({row["loss"] for row in rows.values()}) == 5
    dense = sweep_mnist.run_case("small", "tanh", "dense", "as scored", 0, **settings)[0]
    assert dense["kept"] == "23520 300 100"


@pytest.fixture
def seen(short, monkeypatch):
    """Record what the score "spy" and the training of every cell begin with."""
    scored, begun, trainer = [], [], training.trainer

    def spy(model, batches, *, sparsity, seed, **options):
        scored.append((model.get_weights(), next(batches)[0].numpy(), seed, sparsity, options))
        return random(model, seed=7)

    def watched(model, optimizer):
        train = trainer(model, optimizer)

        def begin(data, **settings):
            begun.append((model.get_weights(), settings))
            return train(data, **settings)

        return begin

    monkeypatch.setitem(sweep_mnist.RULES, "spy", spy)
    monkeypatch.setattr(training, "trainer", watched)
    return scored, begun


SEED = 3


def choose(variant, model, scores, sparsity):
    """Return the masks that a variant should have."""
    if variant == "floor":
        return masks.connected(model, scores, sparsity)
    if variant == "floor of 30":
        return masks.top_k(scores, sparsity, floor=30)
    if variant == "per layer":
        return masks.top_k(scores, sparsity, per_layer=True)
    chosen = masks.top_k([-s if variant == "inverted" else s for s in scores], sparsity)
    return masks.shuffled(chosen, SEED) if variant == "shuffled" else chosen


@pytest.mark.filterwarnings("ignore:the floor of")
def test_a_cell_begins_with_the_weights_and_batches_of_its_seed(seen, digits):
    """All variants: scored before pruning, trained from the same weights, but where they say so."""
    model = sweep_mnist.NETWORKS["small"]("tanh", seed=SEED)
    initial, scores, (scored, begun) = model.get_weights(), random(model, seed=7), seen
    first = next(datasets.batches(digits.train, 100, seed=SEED))[0].numpy()
    plain = ("as scored", "inverted", "per layer", "floor", "floor of 30", "shuffled")
    for variant in (*plain, "re-initialised", "other batches"):
        settings = {"sparsities": (0.9, 0.995), "options": {}}
        sweep_mnist.run_case("small", "tanh", "spy", variant, SEED, **settings)
        weights, images, seed, *_ = scored[-1]
        assert all(np.array_equal(a, b) for a, b in zip(weights, initial, strict=True))
        assert np.array_equal(images, first) == (seed == SEED) == (variant != "other batches")
        for (weights, how), sparsity in zip(begun[-2:], (0.9, 0.995), strict=True):
            assert how == {"steps": 20, "batch_size": 100, "seed": SEED}
            chosen = choose(variant, model, scores, sparsity)
            for w, mask, before in zip(weights[::2], chosen, initial[::2], strict=True):
                assert not np.any(w[~mask.numpy()])
                same = w[mask.numpy()] == before[mask.numpy()]
                assert not np.any(same) if variant == "re-initialised" else np.all(same)


def test_what_prunes_in_rounds_is_scored_for_every_sparsity(seen, monkeypatch):
    scored, _ = seen
    for score in ("spy", "SynFlow"):
        monkeypatch.setitem(sweep_mnist.RULES, score, sweep_mnist.RULES["spy"])
        options = {"batch_size": 50, "rounds": 4}
        settings = {"sparsities": (0.5, 0.9), "options": options}
        sweep_mnist.run_case("small", "tanh", score, "as scored", SEED, **settings)
    assert [sparsity for *_, sparsity, _ in scored] == [0.5, 0.5, 0.9]
    assert all(len(images) == 50 for _, images, *_ in scored)
    assert all(options == {"rounds": 4} for *_, options in scored)


def test_a_cell_is_tested_on_its_part_and_counts_what_is_on_a_path(short, digits):
    settings = {"sparsities": (0.98,), "options": {}}
    errors = set()
    for part in ("validation", "test"):
        case = ("small", "relu", "random", "as scored", 0)
        (row,) = sweep_mnist.run_case(*case, **settings, part=part)
        model, _ = sweep_mnist.trained("small", "relu")
        assert row["error"] == training.error(model, getattr(digits, part))
        errors.add(row["error"])
        share = 1 - masks.effective_sparsity(model)
        assert row["on_a_path"] == pytest.approx(share * (784 * 30 + 30 * 10 + 10 * 10))
        assert 0 < row["on_a_path"] < sum(map(int, row["kept"].split()))
    assert len(errors) == 2


def test_the_protocol_is_in_force(short, digits):
    """The rate falls twice, and half the decay times w^2 is in the loss, for biases too."""
    model, train = sweep_mnist.trained("small", "tanh")
    rates, momenta = {}, set()

    def note(step, optimizer):
        rates[step] = float(optimizer.learning_rate)
        momenta.add(optimizer.momentum)

    train(digits.train, steps=20, batch_size=100, every=1, after=note)
    assert [rates[s] for s in (1, 11, 14, 16, 19)] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001])
    assert momenta == {0.9}
    squares = sum(float(tf.reduce_sum(v**2)) for v in model.trainable_variables)
    assert float(sum(model.losses)) == pytest.approx(5e-4 / 2 * squares, rel=1e-5)
    assert sum(float(tf.reduce_sum(b**2)) for b in model.trainable_variables[1::2]) > 0


def test_the_trial_with_the_lowest_mean_error_is_chosen(tmp_path, monkeypatch):
    """A trial that fails on one seed is no good, however good it is on the other."""
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    errors = {
        ("LeNet-5", "tanh", "ProsPr"): ((1.9, 2.8), (0.3, None), (2.2, 2.3)),
        ("LeNet-5", "relu", "ProsPr"): ((1.0, 1.0), (9.0, 9.0), (9.0, 9.0)),
        ("LeNet-300-100", "tanh", "ProsPr"): ((1.0, 1.0), (9.0, 9.0), (9.0, 9.0)),
        ("LeNet-5", "tanh", "SNIP"): ((1.0, 1.0), (9.0, 9.0), (9.0, 9.0)),
    }
    rows = [
        dict(zip(sweep_mnist.CASE, (*key, "as scored", 100 + i), strict=True))
        | {"trial": trial, "error": error}
        for key, trials in errors.items()
        for trial, pair in enumerate(trials)
        for i, error in enumerate(pair)
    ]
    results.save("pruning_tuning", rows, {}, seconds=0)
    assert sweep_mnist.chosen_options("LeNet-5", "tanh", "ProsPr") == {"learning_rate": 0.3}
    assert sweep_mnist.chosen_options("LeNet-5", "relu", "ProsPr") == {"learning_rate": 0.03}
    assert sweep_mnist.chosen_options("LeNet-5", "tanh", "SNIP") == {"batch_size": 100}
    assert sweep_mnist.chosen_options("LeNet-5", "tanh", "random") == {}


def test_choices_are_made_on_validation_images_and_seeds_of_their_own(monkeypatch):
    calls, seeds = [], {}
    monkeypatch.setattr(sweep_mnist, "run_case", lambda **given: calls.append(given) or [{}])
    monkeypatch.setattr(sweep_mnist, "chosen_options", lambda *key: {"chosen": key})
    for name, (left, work) in sweep_mnist.SWEEPS.items():
        for case in left(pd.DataFrame()):
            rows = work(case)
            given, score = calls.pop(), case["score"]
            if name == "pruning_tuning":
                assert given["part"] == "validation"
                assert given["options"] == sweep_mnist.TRIALS[score][case["trial"]]
                assert rows == [{"trial": case["trial"]}]
            else:
                small, key = case["variant"] == "small steps", (case["network"], case["activation"])
                assert given["part"] == "test"
                assert given["options"] == (
                    {"learning_rate": 0.03} if small else {"chosen": (*key, score)}
                )
            seeds.setdefault(name, set()).add(case["seed"])
    assert not seeds["pruning_tuning"] & seeds["pruning"]


def test_the_rules_of_the_sweep_are_what_they_are_called(digits):
    model = dense_300_100(units=(30, 10))
    batches = list(itertools.islice(datasets.batches(digits.train, 50), 3))
    found = sweep_mnist.RULES["iterative SNIP"](model, batches, sparsity=0.5, rounds=1)
    assert relative_error(found, snip(model, batches)) < 1e-6
    found = sweep_mnist.RULES["first order, M = 100"](model, batches, steps=2)
    expected = prospr(model, batches, steps=2, method="first_order")
    assert relative_error(found, expected) < 1e-6
    assert relative_error(found, prospr(model, batches, steps=2)) > 1e-3


def plans(data):
    """Return what the sweeps run, {name: cases}, where they are loaded anew for a data set."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROSPER_DATASET", data)
        for name in ("sweep_mnist", "sweep_regrowth"):
            spec = importlib.util.find_spec(name)
            module = importlib.util.module_from_spec(spec)
            patch.setitem(sys.modules, name, module)
            spec.loader.exec_module(module)
            found |= {name: left(pd.DataFrame()) for name, (left, _) in module.SWEEPS.items()}
    return found


def test_clothes_are_a_part_of_the_same_grid_under_names_of_their_own():
    digits, clothes = plans("mnist"), plans("fashion_mnist")
    assert [*clothes] == [f"{name}_fashion" for name in digits]
    assert len(digits) == 4
    for name, cases in digits.items():
        of_clothes = clothes[f"{name}_fashion"]
        assert len(of_clothes) > 100
        assert all(case in cases for case in of_clothes), name


@pytest.mark.parametrize(
    ("name", "data"),
    [(name + end, data) for name in sweep_mnist.SWEEPS for end, data in ENDS.items()],
)
def test_what_is_stored_is_not_stale(name, data):
    path = ROOT / "book" / "studies" / "results" / f"{name}.json"
    if not path.exists():
        pytest.skip(f"{path.name} is not stored yet")
    stored = json.loads(path.read_text())["configuration"]
    now = json.loads(json.dumps(sweep_mnist.configuration()))
    now |= {"data": data, "sha256": stored["sha256"]}
    assert stored == now, f"{name} is stale: run `make results`"


def test_a_score_that_fails_is_a_row_without_an_error(short, monkeypatch):
    def broken(model, batches, *, sparsity=None, seed=0):
        return [np.full(shape, np.nan) for shape in ((784, 30), (30, 10), (10, 10))]

    monkeypatch.setitem(sweep_mnist.RULES, "broken", broken)
    settings = {"sparsities": (0.5, 0.9), "options": {}}
    rows = sweep_mnist.run_case("small", "relu", "broken", "as scored", 0, **settings)
    fine = sweep_mnist.run_case("small", "relu", "random", "as scored", 0, **settings)
    assert [row["sparsity"] for row in rows] == [0.5, 0.9]
    for row, other in zip(rows, fine, strict=True):
        assert row["error"] is None
        assert "NaN" in row["failure"]
        assert other["failure"] == ""
        assert list(row) == list(other)


def test_a_dask_cluster_gives_the_rows_that_joblib_gives(monkeypatch):
    from distributed import LocalCluster

    monkeypatch.setenv("PROSPER_DATASET", "digits")
    for threads in sweeps.THREADS:  # two threads may add up in two orders
        monkeypatch.setenv(threads, "1")
    cases = sweep_mnist.cases_of("LeNet-300-100", "relu", ("random",), (1,), (0.9,))

    def work(case):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sweep_mnist.PROTOCOL, "steps", 50)
            return sweep_mnist.one(case, part="validation")

    expected = list(sweeps.in_parallel(work, cases, jobs=2))
    options = {"n_workers": 1, "threads_per_worker": 2, "dashboard_address": None}
    before = [vars(module).copy() for module in (sweep_mnist, sweeps)]
    loaded = sweep_mnist.data.cache_info()
    with LocalCluster(**options) as cluster, sweeps.on_dask(cluster, sweep_mnist.__file__):
        found = list(sweeps.in_parallel(work, cases))
    assert sweep_mnist.data.cache_info() == loaded, "a case ran in this process"
    ((here,),), ((there,),) = expected, found
    assert here["seed"] == 1
    for seconds in ("score_seconds", "train_seconds"):
        assert here.pop(seconds) > 0
        assert there.pop(seconds) > 0
    assert here == there
    for module, names in zip((sweep_mnist, sweeps), before, strict=True):  # not loaded again here
        assert all(vars(module)[name] is value for name, value in names.items())


@pytest.mark.skipif(
    os.environ.get("PROSPER_DATASET") != "mnist", reason="the stored results are those of MNIST"
)
def test_a_stored_cell_comes_again():
    table, _ = results.load("pruning")
    key = ("LeNet-300-100", "relu", "SNIP", "as scored")
    rows = table.set_index(list(sweep_mnist.CASE[:4])).sort_index().loc[key]
    same = rows[rows.sparsity == 0.98]
    stored = same[same.seed == 0].iloc[0]
    case = dict(zip(sweep_mnist.CASE, (*key, 0), strict=True)) | {"sparsities": (0.98,)}
    (row,) = sweep_mnist.one(case, "test")
    assert row["kept"] == stored.kept, row["failure"]
    assert abs(row["error"] - stored.error) < 3 * same.error.std()


def test_what_is_scored_is_the_loss_without_the_decay(short, monkeypatch):
    penalties = []

    def spy(model, batches, *, sparsity, seed):
        penalties.append(len(model.losses))
        return random(model, seed=seed)

    monkeypatch.setitem(sweep_mnist.RULES, "spy", spy)
    settings = {"sparsities": (0.9,), "options": {}}
    sweep_mnist.run_case("small", "tanh", "spy", "as scored", 0, **settings)
    assert penalties == [0]


def test_weights_are_drawn_again_by_the_seed_of_the_case(seen):
    _, begun = seen
    for seed in (0, 3):
        settings = {"sparsities": (0.9,), "options": {}}
        sweep_mnist.run_case("small", "tanh", "spy", "re-initialised", seed, **settings)
        fresh = sweep_mnist.NETWORKS["small"]("tanh", seed=seed + 10_000).get_weights()
        for kernel, drawn in zip(begun[-1][0][::2], fresh[::2], strict=True):
            kept = kernel != 0
            assert np.any(kept)
            np.testing.assert_array_equal(kernel[kept], drawn[kept])


SMALL = functools.partial(dense_300_100, units=(30, 10))


@pytest.fixture
def untrained(monkeypatch, digits):
    """Let the sweep of scores train nothing: every cell has an error of 1."""
    monkeypatch.setattr(sweep_mnist, "NETWORKS", {"small": SMALL})
    monkeypatch.setattr(sweep_mnist, "data", lambda: digits)
    monkeypatch.setattr(sweep_mnist, "trained", lambda *arm: (SMALL("relu"), None))
    monkeypatch.setattr(
        sweep_mnist, "train_and_test", lambda *cell: dict.fromkeys(sweep_mnist.OUTCOME, 1.0)
    )


def test_clothes_have_choices_of_their_own(monkeypatch):
    asked = []
    monkeypatch.setattr(sweep_mnist, "FASHION", True)
    monkeypatch.setattr(sweeps, "best", lambda name, *where: asked.append(name) or 0)
    sweep_mnist.chosen_options("LeNet-5", "tanh", "SNIP")
    assert asked == ["pruning_tuning_fashion"]


def test_on_clothes_what_chapter_12_cannot_do_without_comes_first():
    case = {"network": "LeNet-300-100", "activation": "relu", "variant": "as scored"}
    needed = (*sweep_mnist.HEADLINE, "dense", "SynFlow", "iterative SNIP")
    for score, variant in itertools.product(needed, ("as scored", "shuffled")):
        first = case | {"score": score, "variant": variant}
        assert sweep_mnist.later(first) == 0
        assert sweep_mnist.later(first | {"network": "LeNet-5"}) == 1
        assert sweep_mnist.later(first | {"activation": "tanh"}) == 2
    for last in ({"score": "GraSP"}, {"score": "SNIP", "variant": "floor 3"}):
        assert sweep_mnist.later(case | last) == 2
        assert sweep_mnist.later(case | last | {"network": "LeNet-5"}) == 2


def test_every_option_is_tried_and_no_other():
    tried = {}
    for trial in sweep_mnist.tuning():
        arm = trial["network"], trial["activation"], trial["score"]
        tried.setdefault((arm, trial["seed"]), []).append(trial["trial"])
    assert {seed for _, seed in tried} == {100, 101}
    for ((*_, score), _), trials in tried.items():
        assert trials == [*range(len(sweep_mnist.TRIALS[score]))]


def test_a_trial_that_is_stored_stands_for_no_other():
    left, _ = sweep_mnist.SWEEPS["pruning_tuning"]
    trials = left(pd.DataFrame())
    rows = [trial | {"sparsity": s} for trial in trials[:3] for s in trial["sparsities"]]
    assert left(pd.DataFrame(rows)) == trials[3:]


@pytest.mark.parametrize("name", ["PROTOCOL", "TRIALS", "SMALL"])
def test_what_determines_the_results_is_in_the_configuration(monkeypatch, name):
    before = sweep_mnist.configuration()
    monkeypatch.setattr(sweep_mnist, name, "changed")
    assert sweep_mnist.configuration() != before


@pytest.mark.parametrize("score", ["SynFlow", "iterative ProsPr", "iterative SNIP"])
def test_whatever_prunes_in_rounds_is_scored_for_every_sparsity(untrained, monkeypatch, score):
    asked = []

    def spy(model, batches, *, sparsity, seed):
        asked.append(sparsity)
        return random(model, seed=seed)

    monkeypatch.setitem(sweep_mnist.RULES, score, spy)
    settings = {"sparsities": (0.5, 0.9), "options": {}}
    sweep_mnist.run_case("small", "relu", score, "as scored", 0, **settings)
    assert asked == [0.5, 0.9]


def test_a_score_that_fails_at_one_sparsity_fails_there_alone(untrained, monkeypatch):
    def spy(model, batches, *, sparsity, seed):
        if sparsity == 0.9:
            raise ValueError("broken")
        return random(model, seed=seed)

    monkeypatch.setitem(sweep_mnist.RULES, "SynFlow", spy)
    settings = {"sparsities": (0.5, 0.9, 0.95), "options": {}}
    rows = sweep_mnist.run_case("small", "relu", "SynFlow", "as scored", 0, **settings)
    assert [row["error"] for row in rows] == [1, None, 1]
    assert [row["failure"] for row in rows] == ["", "broken", ""]


@pytest.mark.parametrize("steps", [1, 30])
def test_a_lookahead_is_as_long_as_its_name_says(digits, steps):
    supply = itertools.islice(datasets.batches(digits.train, 20), 40)
    sweep_mnist.RULES[f"ProsPr, M = {steps}"](SMALL(), supply, learning_rate=0.03)
    assert len(list(supply)) == 40 - (steps + 1)


def test_the_networks_and_rules_are_what_they_are_called():
    assert {"LeNet-300-100": dense_300_100, "LeNet-5": lenet5} == sweep_mnist.NETWORKS
    ahead = {
        name: rule.keywords
        for name, rule in sweep_mnist.RULES.items()
        if name not in sweep_mnist.SCORES
    }
    assert ahead == {
        "ProsPr, M = 1": {"steps": 1},
        "ProsPr, M = 30": {"steps": 30},
        "ProsPr, M = 300": {"steps": 300},
        "ProsPr, M = 1000": {"steps": 1000},
        "first order, M = 100": {"steps": 100, "method": "first_order"},
    }
    assert all(sweep_mnist.RULES[name].func is prospr for name in ahead)
    assert all(sweep_mnist.RULES[name] is rule for name, rule in sweep_mnist.SCORES.items())


def test_the_data_are_loaded_once(monkeypatch):
    loaded = []
    monkeypatch.setattr(datasets, "load", lambda: loaded.append(1) or loaded)
    sweep_mnist.data.cache_clear()
    try:
        assert sweep_mnist.data() is sweep_mnist.data() is loaded
    finally:
        sweep_mnist.data.cache_clear()
    assert loaded == [1]


def test_a_network_is_compiled_once_for_each_activation(short):
    found = {a: sweep_mnist.trained("small", a) for a in ("tanh", "relu")}
    for activation, pair in found.items():
        assert sweep_mnist.trained("small", activation) is pair
        hidden = [layer.activation.__name__ for layer in pair[0].layers[1:]]
        assert hidden == [activation, activation, "linear"]
    assert found["tanh"][0] is not found["relu"][0]


def test_a_score_is_timed_and_given_the_options_of_its_case(untrained, monkeypatch, digits):
    """A batch has 100 training images unless an option says so, in the order of the seed."""
    asked, model = [], SMALL()

    def spy(model, batches, **given):
        asked.append((model, next(batches)[0].numpy(), given))
        return spend(7, random(model, seed=7))

    spend = clock(monkeypatch, sweep_mnist)
    monkeypatch.setitem(sweep_mnist.RULES, "spy", spy)
    for size, more in ((100, {}), (50, {"batch_size": 50, "rounds": 4})):
        found, seconds = sweep_mnist.score_of(model, "spy", 3, 0.9, **more)
        scored, images, given = asked.pop()
        assert scored is model
        more.pop("batch_size", None)
        assert given == {"sparsity": 0.9, "seed": 3, **more}
        first = next(datasets.batches(digits.train, size, seed=3))[0].numpy()
        np.testing.assert_array_equal(images, first)
        assert seconds == 7
        for array, expected in zip(found, random(model, seed=7), strict=True):
            np.testing.assert_array_equal(array, expected)


def test_a_row_says_what_was_asked_and_what_came_of_it(untrained, monkeypatch):
    """Every column: of a cell that was trained, of one that failed, and of the dense network.

    All scores are equal, so what is kept are the first weights.
    """
    told = []

    def score_of(model, score, seed, sparsity, **options):
        told.append((score, seed, sparsity, options))
        return [np.ones(k.shape) for k in kernels(model)], 5.0 + len(told)

    def train_and_test(case, chosen, part):
        told.append((case, [int(np.sum(m)) for m in chosen], part))
        if case["score"] == "SynFlow" and len(told) == 4:
            raise ValueError("diverged")
        return {"error": 1, "loss": 2, "kept": "3 4", "on_a_path": 5, "train_seconds": 6}

    monkeypatch.setattr(sweep_mnist, "score_of", score_of)
    monkeypatch.setattr(sweep_mnist, "train_and_test", train_and_test)
    key = {"network": "small", "activation": "tanh", "variant": "as scored", "seed": 3}
    nothing = dict.fromkeys(("error", "loss", "kept", "on_a_path", "train_seconds"))
    outcome = {"error": 1, "loss": 2, "kept": "3 4", "on_a_path": 5, "train_seconds": 6}
    settings = {"sparsities": (0.5, 0.9), "options": {"rounds": 4, "batch_size": 50}}

    rows = sweep_mnist.run_case(**key, score="SynFlow", **settings, part="validation")
    case = dict(zip(sweep_mnist.CASE, ("small", "tanh", "SynFlow", "as scored", 3), strict=True))
    said = {"options": "rounds=4 batch_size=50"}
    assert rows == [
        case | said | {"sparsity": 0.5, **outcome, "score_seconds": 6.0, "failure": ""},
        case | said | {"sparsity": 0.9, **nothing, "score_seconds": 8.0, "failure": "diverged"},
    ]
    assert [[*row] for row in rows] == [[*results.load("pruning")[0]]] * 2
    assert told == [
        ("SynFlow", 3, 0.5, settings["options"]),
        (case, [11960, 0, 0], "validation"),
        ("SynFlow", 3, 0.9, settings["options"]),
        (case, [2392, 0, 0], "validation"),
    ]

    told.clear()
    rows = sweep_mnist.run_case(**key, score="dense", sparsities=(0.0,), options={})
    case["score"] = "dense"
    assert rows == [
        case | {"sparsity": 0.0, "options": "", **outcome, "score_seconds": 0.0, "failure": ""}
    ]
    assert told == [(case, [23520, 300, 100], "test")]


def test_a_mistake_is_no_result(untrained, monkeypatch):
    """Only a ValueError says that a score failed, or a training."""
    settings = {"sparsities": (0.5,), "options": {"no_such_option": 1}}
    with pytest.raises(TypeError, match="no_such_option"):
        sweep_mnist.run_case("small", "relu", "random", "as scored", 0, **settings)


def test_what_came_of_a_cell_is_its_last_loss_its_masks_and_its_seconds(monkeypatch, digits):
    model, told = SMALL("tanh", seed=1), []

    def train(data, **settings):
        told.append((data, settings))
        return spend(5, [3.0, 2.0, 1.5])

    spend = clock(monkeypatch, sweep_mnist)
    monkeypatch.setattr(sweep_mnist, "data", lambda: digits)
    monkeypatch.setattr(sweep_mnist, "trained", lambda *arm: told.append(arm) or (model, train))
    monkeypatch.setattr(training, "error", lambda model, data: spend(2, (model, data)))
    monkeypatch.setattr(sweep_mnist.masks, "apply", lambda *given: told.append(given))
    # The 20 weights behind the unit 0 of the first layer lead on, by one way, to 5 outputs.
    chosen = [np.zeros((784, 30), bool), np.zeros((30, 10), bool), np.zeros((10, 10), bool)]
    chosen[0][:20, 0] = chosen[0][:9, 1] = chosen[1][0, 0] = chosen[2][0, :5] = True
    chosen[1][2, 3] = True
    case = dict(zip(sweep_mnist.CASE, ("small", "tanh", "SNIP", "as scored", 3), strict=True))
    for part in ("validation", "test"):
        found = sweep_mnist.train_and_test(case, chosen, part)
        assert found == {
            "error": (model, getattr(digits, part)),
            "loss": 1.5,
            "kept": "29 2 5",
            "on_a_path": 26,
            "train_seconds": 7,
        }
        assert told == [
            ("small", "tanh"),
            (model, chosen),
            (digits.train, {"steps": 4000, "batch_size": 100, "seed": 3}),
        ]
        told.clear()


@pytest.mark.filterwarnings("ignore:the floor of")
@pytest.mark.parametrize("least", [10, 30, 50])
def test_a_floor_is_the_least_that_every_layer_keeps(least):
    model = SMALL()
    scores = [np.ones((784, 30)), np.zeros((30, 10)), np.zeros((10, 10))]
    variant = f"floor of {least}"
    chosen = sweep_mnist.choose(model, scores, 0.98, variant, 0)
    assert [int(np.sum(m)) for m in chosen][1:] == [least, least]
    assert variant in sweep_mnist.FLOORS
    assert len(sweep_mnist.FLOORS) == 3


def cells(cases, *more):
    """Return what is run, one tuple of the entries of a case for each sparsity."""
    keys = (*sweep_mnist.CASE, *more)
    return [(*(case[k] for k in keys), s) for case in cases for s in case["sparsities"]]


def test_a_part_of_the_grid_goes_seed_by_seed():
    cases = sweep_mnist.cases_of("LeNet-5", "relu", ("a", "b"), (3, 4), (0.9, 0.5), ("x", "y"))
    assert [tuple(case.values()) for case in cases] == [
        ("LeNet-5", "relu", score, variant, seed, (0.9, 0.5))
        for seed in (3, 4)
        for score in ("a", "b")
        for variant in ("x", "y")
    ]
    assert tuple(cases[0]) == ("network", "activation", "score", "variant", "seed", "sparsities")
    (case,) = sweep_mnist.cases_of("LeNet-5", "relu", ("a",), (3,), (0.9,))
    assert case["variant"] == "as scored"


@pytest.mark.parametrize(
    ("name", "plan", "more"),
    [("pruning", "plan", ()), ("pruning_tuning", "tuning", ("trial",))],
)
def test_the_plan_is_what_is_stored(monkeypatch, name, plan, more):
    """No cell comes twice, and on clothes none is stored that is not in the plan."""
    keys = [*sweep_mnist.CASE, *more, "sparsity"]
    for clothes in (False, True):
        monkeypatch.setattr(sweep_mnist, "FASHION", clothes)
        planned = cells(getattr(sweep_mnist, plan)(), *more)
        table, _ = results.load(sweep_mnist.stored_as(name))
        stored = {*table[keys].itertuples(index=False, name=None)}
        assert len({*planned}) == len(planned)
        assert stored <= {*planned} if clothes else stored == {*planned}


HEADLINE = ("random", "SNIP", "ProsPr", "ProsPr, M = 100")


def test_headline_cells_come_first():
    """All of LeNet-300-100 is done before LeNet-5."""
    networks = [case["network"] for case in sweep_mnist.plan()]
    assert networks == sorted(networks)
    headline = [
        case["score"] in ("dense", *HEADLINE) and case["variant"] == "as scored"
        for case in sweep_mnist.plan()
        if case["network"] == "LeNet-300-100"
    ]
    assert headline == sorted(headline, reverse=True)


def test_clothes_have_the_whole_dense_grid_and_the_headline_of_lenet5(monkeypatch):
    digits = sweep_mnist.plan()
    trials = sweep_mnist.tuning()
    monkeypatch.setattr(sweep_mnist, "FASHION", True)
    lenet = {("LeNet-5", "tanh", "dense", "as scored", seed, 0.0) for seed in range(5)}
    for score, sparsity in itertools.product(HEADLINE, (0.9, 0.95, 0.98, 0.99, 0.995)):
        lenet |= {("LeNet-5", "tanh", score, "as scored", seed, sparsity) for seed in range(5)}
    clothes = sweep_mnist.plan()
    dense = [case for case in digits if case["network"] == "LeNet-300-100"]
    assert {*cells(clothes)} == {*cells(dense)} | lenet
    ranks = [sweep_mnist.later(case) for case in clothes]
    assert ranks == sorted(ranks)
    assert {*ranks} == {0, 1, 2}

    tuned = sweep_mnist.tuning()
    dense = [case for case in trials if case["network"] == "LeNet-300-100"]
    lenet = {
        ("LeNet-5", "tanh", score, "as scored", seed, trial, 0.98)
        for score in ("SNIP", "ProsPr", "ProsPr, M = 100")
        for seed in (100, 101)
        for trial in range(3)
    }
    assert {*cells(tuned, "trial")} == {*cells(dense, "trial")} | lenet
    ranks = [sweep_mnist.later(case) for case in tuned]
    assert ranks == sorted(ranks)


def test_a_case_is_run_as_it_stands_with_its_options(monkeypatch):
    """And is not changed by it, since it is what waits in the plan."""
    calls, asked = [], []
    monkeypatch.setattr(
        sweep_mnist, "run_case", lambda **given: calls.append(given) or [{"n": 1}, {"n": 2}]
    )
    monkeypatch.setattr(
        sweep_mnist, "chosen_options", lambda *key: asked.append(key) or {"rounds": 9}
    )
    plain = dict(zip(sweep_mnist.CASE, ("net", "tanh", "ProsPr", "floor", 4), strict=True))
    plain["sparsities"] = (0.9, 0.5)
    for case, options in [
        (plain, {"rounds": 9}),
        (plain | {"variant": "small steps"}, {"learning_rate": 0.03}),
        (plain | {"trial": 0}, {"learning_rate": 0.03}),
        (plain | {"trial": 2}, {"learning_rate": 0.3}),
    ]:
        before, trial = dict(case), {"trial": case["trial"]} if "trial" in case else {}
        rows = sweep_mnist.one(case, "validation")
        assert case == before
        assert rows == [{"n": 1} | trial, {"n": 2} | trial]
        given = {key: value for key, value in case.items() if key != "trial"}
        assert calls.pop() == given | {"options": options, "part": "validation"}
    assert asked == [("net", "tanh", "ProsPr")]
