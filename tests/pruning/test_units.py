"""Units: the small network computes what the large one does without the readers of what is gone."""

from prosper_utils.pruning import channels, masks, units
from prosper_utils.pruning.networks import dense_300_100, kernels, lenet5

import keras
import numpy as np
import pytest
from test_channels import attending, chain, in_double, mixed, residual

layers = keras.layers


def concatenating():
    x = inputs = keras.Input((6, 6, 2), name="images")
    for name in "abc":
        y = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same", name=name)(x))
        x = layers.Concatenate()([x, layers.Activation(lambda z: z + 1, name=f"{name}_1")(y), x])
        x = layers.Conv2D(5, 1, activation="swish", name=f"{name}_2")(x)
    x = layers.Reshape((6 * 6 * 5,))(layers.MaxPooling2D(1)(x))
    return keras.Model({"images": inputs}, {"a": layers.Dense(2)(x), "b": layers.Dense(1)(x)})


def reshaping():
    """Dense to images and back, and a block that is used twice."""
    block = keras.Sequential([keras.Input((5, 5, 4)), layers.Conv2D(4, 3, padding="same")])
    x = inputs = keras.Input((7,))
    x = layers.Reshape((5, 5, 4))(layers.Dense(100, "sigmoid")(x))
    x = keras.ops.reshape(block(layers.ReLU()(block(x))), (-1, 25, 4))
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(layers.Conv1D(6, 3)(x))))


NETWORKS = [residual, mixed, attending, chain, concatenating, reshaping]


def some(model, share=0.6, seed=1):
    """Return what to keep: what is fixed, and a share of the rest."""
    generator = np.random.default_rng(seed)
    return [bool(g.fixed) or generator.random() < share for g in channels.groups(model)]


def outputs(model, x, training):
    x = {"images": x} if model.inputs[0].name == "images" else x
    found = keras.tree.flatten(model(x, training=training))
    return np.concatenate([y.numpy().reshape(len(y), -1) for y in found], axis=1)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("make", NETWORKS)
def test_the_small_network_is_the_masked_one(make, training):
    model = in_double(make)
    keep = some(model)
    x = np.random.default_rng(2).normal(size=(8, *model.inputs[0].shape[1:]))
    before = [w.numpy() for w in model.weights]
    small = units.shrink(model, keep)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.weights, strict=True))
    found = outputs(small, x, training)
    for kernel, mask in zip(kernels(model), units.unread(model, keep), strict=True):
        kernel.assign(kernel * mask)
    expected = outputs(model, x, training)
    spread = np.std(expected, axis=0)
    assert np.min(spread) > 0
    assert np.max(np.abs(found - expected) / spread) < 1e-12
    assert small.count_params() < 0.9 * model.count_params()


@pytest.mark.parametrize("make", NETWORKS)
def test_nothing_removed_is_the_same_network(make):
    model = in_double(make)
    small = units.shrink(model, [True] * len(channels.groups(model)))
    x = np.random.default_rng(2).normal(size=(4, *model.inputs[0].shape[1:]))
    assert np.array_equal(outputs(small, x, False), outputs(model, x, False))
    assert small.count_params() == model.count_params()


def test_one_group_costs_what_it_says():
    model = in_double(residual)
    groups = channels.groups(model)
    for i in (3, 5, len(groups) - 11):
        small = units.shrink(model, [j != i for j in range(len(groups))])
        assert model.count_params() - small.count_params() == groups[i].parameters
        lost = channels.count_multiply_adds(model) - channels.count_multiply_adds(small)
        assert lost == groups[i].multiply_adds


def test_names_types_and_masks(tmp_path):
    model = lenet5()
    masks.apply(model, masks.top_k([np.abs(k) for k in kernels(model)], 0.5))
    small = units.shrink(model, some(model))
    assert type(small) is keras.Sequential
    assert small.name == model.name
    assert [layer.name for layer in small.layers] == [layer.name for layer in model.layers]
    assert all(k.constraint is None for k in kernels(small))
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    x = np.random.default_rng(0).normal(size=(3, 28, 28, 1)).astype("float32")
    assert np.array_equal(again(x), small(x))
    small.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    small.fit(x, np.arange(3), verbose=0)


def test_what_cannot_be_removed_is_named():
    model = dense_300_100(units=(4, 3))
    groups = channels.groups(model)
    with pytest.raises(ValueError, match=f"one boolean per group, {len(groups)}, found 2"):
        units.shrink(model, [True, False])
    keep = [g.fixed != (channels.OUTPUT,) for g in groups]
    with pytest.raises(
        ValueError, match=r"axis 1 of .*output/kernel is not: output of the network"
    ):
        units.shrink(model, keep)
    with pytest.raises(ValueError, match=r"some of axis 1 of .*hidden_1/kernel, found none"):
        units.shrink(model, [bool(g.fixed) for g in groups])
