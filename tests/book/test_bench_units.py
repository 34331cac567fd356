"""What is timed of small networks: which they are, what a step is, what their rows say."""

from types import SimpleNamespace

from prosper_utils.lookahead.descent import sgd, start
from prosper_utils.pruning import deploy, units
from prosper_utils.pruning.masks import nonzero
from prosper_utils.pruning.networks import as_loss, cross_entropy, kernels
from prosper_utils.study import datasets, results

import bench_units
import keras
import numpy as np
import pytest
import tensorflow as tf
from bench_units import CUT, EIGHTS, MASKED, ONE, WHOLE
from conftest import clock


def widths(model):
    return [k.shape[-1] for k in kernels(model)]


@pytest.mark.parametrize("name", bench_units.NETWORKS)
def test_the_networks_are_those_that_are_stored(name):
    stored, _ = results.load("bench_units")
    stored = stored[stored.network == name]
    found = bench_units.variants(name)
    assert list(found) == [*dict.fromkeys(stored.model)]
    for model, rows in stored.groupby("model"):
        assert {*rows.widths} == {" ".join(map(str, widths(found[model])))}
        assert {*rows.parameters} == {found[model].count_params()}
    cost = stored.groupby("model").multiply_adds.max()
    assert all(cost[cut] <= 0.25 * cost[WHOLE] for cut in {CUT, EIGHTS} & {*found})
    assert cost[MASKED] == cost[WHOLE]
    assert {*widths(found[ONE])[:-1]} == {1}
    assert EIGHTS not in found or not any(n % 8 for n in widths(found[EIGHTS])[:-1])
    kept = [np.sum(mask) for mask in nonzero(found[MASKED])]
    assert sum(kept) == round(0.25 * sum(np.size(k) for k in kernels(found[MASKED])))
    assert all(np.all(mask) for mask in nonzero(found[WHOLE]))
    sizes = [np.abs(kernel) for kernel in kernels(found[WHOLE])]  # of the same seed
    pairs = [*zip(sizes, nonzero(found[MASKED]), strict=True)]
    dropped = max(np.max(size[~mask], initial=0) for size, mask in pairs)
    assert dropped <= min(np.min(size[mask], initial=np.inf) for size, mask in pairs)
    for model in found.values():
        names = [getattr(la, "activation", None) for la in model.layers]
        names = [f.__name__ for f in names if f is not None]
        assert names.count("relu") >= 2
        assert {*names} <= {"relu", "linear"}


def test_one_group_of_each_kind_is_kept_and_what_is_fixed():
    model = bench_units.NETWORKS["LeNet-300-100"]("relu")
    keep = bench_units.one_each(model)
    hidden = [True, *[False] * 299, True, *[False] * 99]
    assert keep == [True, *hidden, *[True] * 10]  # with what stands for the image
    shapes = [k.shape for k in kernels(units.shrink(model, keep))]
    assert shapes == [(784, 1), (1, 1), (1, 10)]


def test_a_step_is_one_of_gradient_descent_with_momentum_in_training(monkeypatch):
    keras.utils.set_random_seed(0)
    links = [keras.layers.Dense(5), keras.layers.BatchNormalization(), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((4,)), *links])
    weights, loss = as_loss(model)
    x, labels = tf.random.normal((6, 4)), tf.constant([0, 1, 2, 0, 1, 2])
    state = start(weights, 0.9)
    step, called = bench_units.training_step(model, labels), []
    monkeypatch.setattr(
        bench_units.networks,
        "cross_entropy",
        lambda *given: called.append(1) or cross_entropy(*given),
    )
    for _ in range(3):
        np.testing.assert_allclose(step(x), loss(list(state[0]), (x, labels)), rtol=1e-5)
        state = sgd(loss, 0.01, 0.9)(state, (x, labels))
    assert len(called) == 1  # traced once, and compiled
    for found, expected in zip(model.trainable_variables, state[0], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_every_form_has_a_row_and_so_has_a_step_whose_time_is_compared_with_the_whole(monkeypatch):
    asked = {}

    def table(models, x, *, representative, repeats):
        asked["table"] = len(x), len(representative), repeats
        return [{"model": cut, "form": ".keras"} for cut in models], "a text"

    def latency(functions, x, *, repeats):
        asked["latency"] = len(x), repeats
        return {cut: {"median": 8.0 / 2**i} for i, cut in enumerate(functions)}

    monkeypatch.setattr(deploy, "table", table)
    monkeypatch.setattr(deploy, "latency", latency)
    rows = bench_units.measured("LeNet-300-100", datasets.digits(), repeats=3)
    assert asked == {"table": (300, 100, 3), "latency": (128, 3)}
    stored, _ = results.load("bench_units")
    stored = stored[
        (stored.network == "LeNet-300-100") & stored.form.isin([".keras", "training step"])
    ]
    keys = ["model", "widths", "parameters", "multiply_adds", "network"]
    for form, of in stored.groupby("form"):
        part = [row for row in rows if row["form"] == form]
        assert [[row[key] for key in keys] for row in part] == of[keys].to_numpy().tolist()
    steps = [row for row in rows if row["form"] == "training step"]
    assert [row["faster_128"] for row in steps] == [2.0**i for i in range(5)]
    assert [row["seconds_128"] for row in steps] == [8.0 / 2**i for i in range(5)]


class Tiny(SimpleNamespace):
    """What is read of a model, and its name."""

    def count_params(self):
        return self.size


def measured(monkeypatch, *given, **options):
    """Return rows of two models of no size worth timing, and all that was asked for."""
    models = {"whole": Tiny(name="whole", size=50), "less": Tiny(name="less", size=20)}
    kernel = {"whole": [np.ones((7, 4)), np.ones((4, 3))], "less": [np.ones((7, 2))]}
    asked = {"steps": []}

    def table(found, x, *, representative, repeats):
        asked["table"] = found, x, representative, repeats
        return [{"model": cut, "form": "a form", "agree": 1.0} for cut in found], "a text"

    def training_step(model, labels):
        asked["steps"].append((model.name, labels))
        return f"step of {model.name}"

    def latency(functions, x, *, repeats):
        asked["latency"] = functions, x, repeats
        times = {"whole": (3.0, 6.0, 9.0), "less": (1.0, 1.5, 2.0)}
        return {
            cut: dict(zip(("low", "median", "high"), times[cut], strict=True)) for cut in functions
        }

    monkeypatch.setattr(bench_units, "variants", lambda name: asked.update(name=name) or models)
    monkeypatch.setattr(bench_units, "training_step", training_step)
    monkeypatch.setattr(bench_units.budgets, "cost", lambda model: 10 * model.size)
    monkeypatch.setattr(bench_units.networks, "kernels", lambda model: kernel[model.name])
    monkeypatch.setattr(deploy, "table", table)
    monkeypatch.setattr(deploy, "latency", latency)
    rows = bench_units.measured("a network", *given, **options)
    assert asked["table"][0] == models
    return rows, asked


def test_a_row_says_of_its_model_and_form_what_was_measured(monkeypatch):
    digits = datasets.digits()
    rows, asked = measured(monkeypatch, digits)
    of = {
        "whole": {"parameters": 50, "multiply_adds": 500, "widths": "4 3"},
        "less": {"parameters": 20, "multiply_adds": 200, "widths": "2"},
    }
    step = {"form": "training step"}
    assert rows == [
        {"model": cut, "network": "a network"} | of[cut] | found
        for cut, found in (
            ("whole", {"form": "a form", "agree": 1.0}),
            ("less", {"form": "a form", "agree": 1.0}),
            ("whole", step | {"faster_128": 1.0, "seconds_128": 6.0}),
            ("less", step | {"faster_128": 4.0, "seconds_128": 1.5}),
        )
    ]
    assert asked["name"] == "a network"
    x, y = digits.train
    _, images, representative, repeats = asked["table"]
    np.testing.assert_array_equal(images, x[:300])
    np.testing.assert_array_equal(representative, x[:100])
    functions, images, again = asked["latency"]
    assert functions == {"whole": "step of whole", "less": "step of less"}
    np.testing.assert_array_equal(images, x[:128])
    assert repeats == again == 9
    assert [name for name, _ in asked["steps"]] == ["whole", "less"]
    for _, labels in asked["steps"]:
        np.testing.assert_array_equal(labels, y[:128])
    _, asked = measured(monkeypatch, digits, repeats=2)
    assert (asked["table"][-1], asked["latency"][-1]) == (2, 2)


def test_the_command_stores_the_rows_of_all_networks(monkeypatch):
    saved, threads, spend = [], [], clock(monkeypatch, bench_units)

    def measured(name, data):
        assert (data, threads) == ("the digits", [1])
        return spend(3.5, [{"network": name, "model": model} for model in ("a", "b")])

    monkeypatch.setattr(tf.config.threading, "set_intra_op_parallelism_threads", threads.append)
    monkeypatch.setattr(datasets, "digits", lambda: "the digits")
    monkeypatch.setattr(bench_units, "measured", measured)
    monkeypatch.setattr(results, "save", lambda *given, **options: saved.append((given, options)))
    bench_units.main()
    (((name, rows, configuration), options),) = saved
    stored, provenance = results.load("bench_units")
    assert name == "bench_units"
    assert configuration == provenance["configuration"]
    assert configuration == {"share": 0.25, "batch_size": 128, "threads": 1}
    names = dict.fromkeys(stored.network)
    assert options == {"seconds": 3.5 * len(names)}
    assert rows == [{"network": n, "model": model} for n in names for model in ("a", "b")]
