"""What is timed of small networks: which they are, what a step is, what their rows say."""

from prosper_utils.lookahead.descent import sgd, start
from prosper_utils.pruning import deploy
from prosper_utils.pruning.masks import nonzero
from prosper_utils.pruning.networks import as_loss, kernels
from prosper_utils.study import datasets, results

import bench_units
import keras
import numpy as np
import pytest
import tensorflow as tf
from bench_units import CUT, EIGHTS, MASKED, ONE, WHOLE


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


def test_a_step_is_one_of_gradient_descent_with_momentum_in_training():
    keras.utils.set_random_seed(0)
    links = [keras.layers.Dense(5), keras.layers.BatchNormalization(), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((4,)), *links])
    weights, loss = as_loss(model)
    x, labels = tf.random.normal((6, 4)), tf.constant([0, 1, 2, 0, 1, 2])
    state = start(weights, 0.9)
    step = bench_units.training_step(model, labels)
    for _ in range(3):
        np.testing.assert_allclose(step(x), loss(list(state[0]), (x, labels)), rtol=1e-5)
        state = sgd(loss, 0.01, 0.9)(state, (x, labels))
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
