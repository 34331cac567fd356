"""Paths: R and what passes through a weight, against counting; and what cannot be treated."""

import itertools

from prosper_utils.pruning import masks, paths
from prosper_utils.pruning.networks import dense_300_100, kernels, lenet5
from prosper_utils.study.checks import relative_error

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from test_networks import Subclassed


def chain(*sizes):
    """Return a dense network without biases."""
    layers = [keras.layers.Dense(n, "tanh", use_bias=False) for n in sizes[1:]]
    return keras.Sequential([keras.Input((sizes[0],)), *layers])


SMALL = chain(3, 2, 2, 3)
FLOW = paths.flow(SMALL)
SHAPES = [(3, 2), (2, 2), (2, 3)]


def lists_of_kernels(entry):
    def kernel(shape):
        return st.lists(
            entry, min_size=6 if 3 in shape else 4, max_size=6 if 3 in shape else 4
        ).map(lambda values: np.reshape(values, shape).astype(np.float64))

    return st.tuples(*map(kernel, SHAPES)).map(list)


def all_paths():
    return itertools.product(range(3), range(2), range(2), range(3))


@given(lists_of_kernels(st.floats(0, 2)))
def test_r_is_the_sum_over_all_paths(values):
    a, b, c = values
    expected = sum(a[i, j] * b[j, k] * c[k, m] for i, j, k, m in all_paths())
    found = float(FLOW([tf.constant(v) for v in values]))
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-12)


@given(lists_of_kernels(st.booleans()))
def test_a_weight_counts_if_it_is_on_a_path(values):
    a, b, c = values
    expected = [np.zeros(shape, bool) for shape in SHAPES]
    for i, j, k, m in all_paths():
        if a[i, j] and b[j, k] and c[k, m]:
            expected[0][i, j] = expected[1][j, k] = expected[2][k, m] = True
    for found, mask in zip(paths.effective(SMALL, values), expected, strict=True):
        assert np.array_equal(found, mask)


@pytest.mark.parametrize("build", [dense_300_100, lenet5])
def test_a_whole_network_is_all_paths(build):
    model = build()
    everything = [tf.ones(k.shape) for k in kernels(model)]
    assert all(np.all(m) for m in paths.effective(model, everything))
    assert masks.effective_sparsity(model) == 0


def test_a_filter_without_successors_is_on_no_path():
    model = lenet5()
    chosen = [np.ones(k.shape) for k in kernels(model)]
    chosen[1][:, :, 2, :] = 0  # nobody reads map 2 of the first layer
    found = paths.effective(model, chosen)
    assert not np.any(found[0][..., 2])
    assert np.all(np.delete(found[0], 2, axis=-1))
    masks.apply(model, chosen)
    gone = 25 * 16 + 25
    assert masks.effective_sparsity(model) == pytest.approx(gone / 61_470, rel=1e-9)
    assert masks.dead(chosen[1]) == (1, 0)
    assert masks.dead(chosen[0]) == (0, 0)


def test_activations_biases_and_types_do_not_matter():
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(3, 3, padding="same", activation="tanh", bias_initializer="ones")(
        inputs
    )
    x = keras.layers.MaxPooling2D(2)(keras.layers.Activation("tanh")(keras.layers.ReLU()(x)))
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(x))
    functional = keras.Model(inputs, keras.layers.Dense(4, "sigmoid")(x))
    functional.set_weights([tf.random.normal(w.shape) for w in functional.get_weights()])
    plain = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(3, 3, padding="same", use_bias=False),
            keras.layers.AveragePooling2D(2),
            keras.layers.Flatten(),
            keras.layers.Dense(4, use_bias=False),
        ]
    )
    values = [tf.cast(tf.abs(k.value), tf.float64) for k in kernels(functional)]
    plain.set_weights([v.numpy() for v in values])
    expected = tf.reduce_sum(plain(tf.ones((1, 6, 6, 2))))
    assert relative_error([paths.flow(functional)(values)], [expected]) < 1e-6


def test_what_cannot_be_treated_is_named():
    normalised = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3), keras.layers.LayerNormalization(name="norm")]
    )
    with pytest.raises(ValueError, match=r"found LayerNormalization 'norm'"):
        paths.flow(normalised)
    assert " - " in masks.report(normalised)
    subclassed = Subclassed()
    subclassed(tf.zeros((1, 28, 28, 1)))
    with pytest.raises(
        ValueError, match=r"expected a functional or Sequential model.*found Subclassed"
    ):
        paths.flow(subclassed)
