"""Second derivatives through normalisation: against differences, and the authors' scores."""

import json
import threading
import types

from prosper_utils.lookahead import second_derivatives
from prosper_utils.lookahead.meta_gradient import meta_gradient
from prosper_utils.lookahead.streaming import hessian_product
from prosper_utils.pruning import normalisation
from prosper_utils.pruning.networks import as_loss, as_outputs, kernel_indices, resnet

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from keras import layers
from keras.src.backend.tensorflow import nn

NORMALISATIONS = {
    "batch": layers.BatchNormalization,
    "batch, synchronized": lambda: layers.BatchNormalization(synchronized=True),
    "batch, along another axis": lambda: layers.BatchNormalization(axis=1),
    "batch, without scale": lambda: layers.BatchNormalization(scale=False, center=False),
    "layer": layers.LayerNormalization,
    "layer, over several axes": lambda: layers.LayerNormalization(axis=(1, 2, 3)),
    "layer, rms_scaling": lambda: layers.LayerNormalization(rms_scaling=True),
    "group": lambda: layers.GroupNormalization(2),
    "instance": lambda: layers.GroupNormalization(-1),
    "RMS": layers.RMSNormalization,
    "unit": layers.UnitNormalization,
}


def network(normalise):
    """Return convolution, normalisation, tanh, dense: 4x4x4 images to 3 classes."""
    return keras.Sequential(
        [
            keras.Input((4, 4, 4)),
            layers.Conv2D(4, 3, padding="same"),
            normalise,
            layers.Activation("tanh"),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


def batch(seed=0, shape=(6, 4, 4, 4)):
    """Return random images and labels."""
    generator = np.random.default_rng(seed)
    return generator.normal(size=shape), generator.integers(0, 3, shape[0])


def perturbed(model, seed=0):
    """Return weights away from the symmetric point of initialisation, in float64, and the loss."""
    generator = np.random.default_rng(seed)
    weights, loss = as_loss(model, dtype="float64")
    return [w + 0.3 * generator.normal(size=w.shape) for w in weights], loss


@pytest.mark.filterwarnings("ignore:You passed `rms_scaling=True`")
@pytest.mark.parametrize("kind", NORMALISATIONS)
def test_hessian_products_equal_differences_through_every_normalisation(kind):
    weights, loss = perturbed(network(NORMALISATIONS[kind]()))
    assert second_derivatives.check(loss, weights, batch(), bound=1e-6) < 1e-6
    second_derivatives.check_structure(loss, weights, batch())
    assert second_derivatives.suspects(loss, weights, batch()) == []


@pytest.mark.filterwarnings("ignore:Layer 'flatten")
def test_hessian_products_equal_differences_through_masked_batch_normalisation():
    tokens = keras.Input((6,), dtype="int32")
    x = layers.Embedding(7, 4, mask_zero=True)(tokens)
    x = layers.Activation("tanh")(layers.BatchNormalization()(x))
    model = keras.Model(tokens, layers.Dense(3)(layers.Flatten()(x)))
    x = np.random.default_rng(0).integers(0, 7, (8, 6))  # zeros are masked
    weights, loss = perturbed(model)
    assert second_derivatives.check(loss, weights, (x, np.arange(8) % 3)) < 1e-6


def test_hessian_products_equal_differences_in_a_residual_network():
    model = resnet(8, "tanh", widths=(2, 3, 4), shape=(8, 8, 3))
    weights, loss = as_loss(model, dtype="float64")
    error = second_derivatives.check(loss, weights, batch(1, (4, 8, 8, 3)), directions=1)
    assert error < 1e-6


def as_keras(x, axes, keepdims):
    """Return the moments that Keras takes."""
    return tf.nn.moments(x, axes, keepdims=keepdims)


@pytest.mark.parametrize("kind", ["batch", "layer", "group"])
def test_with_keras_moments_they_would_be_wrong(kind, monkeypatch):
    """What is repaired is there to be repaired: else the module is not needed any more."""
    monkeypatch.setattr(normalisation, "moments", as_keras)
    weights, loss = perturbed(network(NORMALISATIONS[kind]()))
    with pytest.raises(ValueError, match=r"relative error.*\n?.*StopGradient"):
        second_derivatives.check(loss, weights, batch())
    with pytest.raises(ValueError, match=r"normalization.*/moments: a gradient is stopped"):
        second_derivatives.check_structure(loss, weights, batch())


def test_the_wrong_product_is_symmetric_all_the_same(monkeypatch):
    monkeypatch.setattr(normalisation, "moments", as_keras)
    weights, loss = perturbed(network(layers.BatchNormalization()))
    generator = np.random.default_rng(0)
    u, v = ([tf.constant(generator.normal(size=w.shape)) for w in weights] for _ in range(2))

    def between(a, b):
        product = hessian_product(loss, weights, batch(), a)
        return float(sum(tf.reduce_sum(p * q) for p, q in zip(product, b, strict=True)))

    assert between(u, v) == pytest.approx(between(v, u), rel=1e-12)


@given(st.integers(0, 999), st.sampled_from([(0,), (0, 1), (1,), (-1,), (0, 1, 2)]), st.booleans())
def test_the_moments_are_those_of_tensorflow(seed, axes, keepdims):
    x = tf.constant(np.random.default_rng(seed).normal(size=(3, 4, 5)))
    expected = tf.nn.moments(x, axes, keepdims=keepdims)
    for found, right in zip(normalisation.moments(x, axes, keepdims), expected, strict=True):
        np.testing.assert_array_equal(found, right)


@pytest.mark.parametrize("replicas", [2, 8])
def test_moments_of_several_replicas_are_refused(replicas, monkeypatch):
    strategy = types.SimpleNamespace(num_replicas_in_sync=replicas)
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: strategy)
    with pytest.raises(ValueError, match=f"moments: expected one replica, found {replicas}: score"):
        normalisation.moments(tf.ones((2, 3)), (0,))


def test_the_moments_have_the_hessian_that_is_derived():
    n, x = 5, tf.constant(np.random.default_rng(0).normal(size=5))
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            variance = normalisation.moments(x, (0,))[1]
        gradient = inner.gradient(variance, x)
    np.testing.assert_allclose(outer.jacobian(gradient, x), 2 / n * (np.eye(n) - 1 / n), atol=1e-15)


def reference():
    """Return the authors' batch-normalised network with their weights, its batches and scores."""
    case = json.loads((ROOT / "tests" / "prospr_bn_tiny.json").read_text())
    arrays = {name: np.array(value) for name, value in case["weights"].items()}
    inputs = keras.Input(np.shape(case["x"])[2:], dtype="float64")
    options = {"dtype": "float64"}

    def convolve(x, i):
        kernel = arrays[f"c{i}.weight"]
        x = layers.Conv2D(kernel.shape[-1], 3, padding="same", use_bias=False, **options)(x)
        return layers.BatchNormalization(epsilon=1e-5, **options)(x)

    def activate(x):
        return layers.Activation("tanh", **options)(x)

    x = activate(convolve(inputs, 1))
    x = activate(layers.Add(**options)([convolve(x, 2), x]))
    x = layers.GlobalAveragePooling2D(**options)(activate(convolve(x, 3)))
    model = keras.Model(inputs, layers.Dense(len(arrays["out.bias"]), **options)(x))
    for variable, value in zip(model.trainable_variables, arrays.values(), strict=True):
        variable.assign(value)
    return model, list(zip(case["x"], case["y"], strict=True)), case["scores"]


@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("method", ["reverse", "checkpointed", "unrolled", "first_order"])
def test_scores_equal_those_of_the_authors_on_a_batch_normalised_network(method, steps):
    model, batches, scores = reference()
    weights, loss = as_loss(model)
    batches = [(np.array(x), np.array(y)) for x, y in batches[: steps + 1]]
    found = meta_gradient(loss, weights, batches, learning_rate=0.1, method=method)
    name = "first_order" if method == "first_order" else "full"
    expected = [np.array(s) for s in scores[f"{name}_M{steps}"]]
    for i, right in zip(kernel_indices(model), expected, strict=True):
        np.testing.assert_allclose(np.abs(found[i]), right, atol=1e-8 * np.abs(right).max(), rtol=0)


def test_keras_gets_its_own_moments_back():
    private = nn._compute_moments, nn._compute_moments_sync
    model = network(layers.BatchNormalization())
    weights, outputs = as_outputs(model)
    outputs(weights, batch()[0].astype("float32"))
    assert (nn._compute_moments, nn._compute_moments_sync) == private
    with pytest.raises(ValueError, match="expected axis -1"):
        outputs(weights, np.zeros((2, 4, 4, 9), "float32"))
    assert (nn._compute_moments, nn._compute_moments_sync) == private


def test_another_thread_gets_keras_own_moments_meanwhile():
    x = tf.ones((2, 3))
    with normalisation.exact_moments():
        seen = []
        thread = threading.Thread(target=lambda: seen.append(operations(x)))
        thread.start()
        thread.join()
        assert "StopGradient" in seen[0]
        assert "StopGradient" not in operations(x)
    assert "StopGradient" in operations(x)


def operations(x):
    """Return which operations Keras' moments of x are made of."""
    with tf.Graph().as_default() as graph:
        keras.ops.moments(tf.constant(x.numpy()), axes=(0,))
    return {op.type for op in graph.get_operations()}


def test_the_private_names_are_where_we_look_for_them():
    """If this fails, Keras or TensorFlow has moved what `exact_moments` replaces."""
    assert callable(nn._compute_moments)
    assert callable(nn._compute_moments_sync)
    assert "StopGradient" in operations(tf.ones((2, 3)))  # as long as this holds, it is needed


@pytest.mark.parametrize("keepdims", [False, True])
def test_moments_keep_other_axes_of_size_one(keepdims):
    x = tf.constant(np.random.default_rng(0).normal(size=(3, 1, 5)))
    expected = tf.nn.moments(x, (0,), keepdims=keepdims)
    for found, right in zip(normalisation.moments(x, (0,), keepdims), expected, strict=True):
        assert found.shape == right.shape
