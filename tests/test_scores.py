"""Every score against an independent calculation, and what they refuse."""

import itertools

from prosper_utils import datasets
from prosper_utils.checks import relative_error
from prosper_utils.networks import dense_300_100, kernels, lenet5
from prosper_utils.scores import SCORES, magnitude, prospr, random, snip

import keras
import numpy as np
import pytest
import tensorflow as tf


@pytest.fixture(scope="module")
def batches(digits):
    return list(itertools.islice(datasets.batches(digits.train, 32), 4))


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("build", [dense_300_100, lenet5])
def test_one_signature_and_no_change_to_the_model(name, build, batches):
    model = build()
    before = model.get_weights()
    found = SCORES[name](model, batches, seed=0)
    assert [s.shape for s in found] == [k.shape for k in kernels(model)]
    assert all(np.all(s >= 0) and np.any(s > 0) for s in found)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_snip_is_a_mask_gradient(batches):
    model = dense_300_100()
    masks = [tf.ones(k.shape) for k in kernels(model)]
    x, y = batches[0]
    with tf.GradientTape() as tape:
        tape.watch(masks)
        h = tf.reshape(x, (len(x), 784))
        for i, layer in enumerate(model.layers[1:]):
            h = layer.activation(h @ (masks[i] * layer.kernel) + layer.bias)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(y, h)
    expected = [tf.abs(g) for g in tape.gradient(loss, masks)]
    assert relative_error(snip(model, batches), expected) < 1e-5


def test_snip_is_prospr_without_steps(batches):
    model = lenet5()
    assert relative_error(snip(model, batches), prospr(model, batches, steps=0)) < 1e-6


def test_prospr_takes_what_it_needs_of_an_endless_supply(digits, batches):
    model = dense_300_100()
    endless = datasets.batches(digits.train, 32)
    assert relative_error(prospr(model, endless), prospr(model, batches)) == 0
    assert relative_error(prospr(model, batches), prospr(model, batches[:3], steps=2)) > 0.01


def test_random_follows_its_seed():
    model = dense_300_100()
    assert relative_error(random(model, seed=1), random(model, seed=1)) == 0
    assert relative_error(random(model, seed=1), random(model, seed=2)) > 0.1


def test_magnitude_is_the_absolute_weight():
    model = dense_300_100()
    assert relative_error(magnitude(model), [abs(w) for w in model.get_weights()[::2]]) == 0


def test_bad_input_is_named(batches):
    model = dense_300_100()
    with pytest.raises(ValueError, match="expected M >= 0, found -1"):
        prospr(model, batches, steps=-1)
    with pytest.raises(ValueError, match=r"at least 5 \(M \+ 1\), found 4"):
        prospr(model, batches, steps=4)
    with pytest.raises(ValueError, match="expected examples"):
        snip(model, [(np.ones((0, 28, 28, 1)), np.ones(0, int))])
    for score in SCORES.values():
        with pytest.raises(ValueError, match="expected a built model"):
            score(keras.Sequential([keras.layers.Dense(10)]), batches)
        with pytest.raises(ValueError, match="expected a kernel"):
            score(keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization()]), batches)
