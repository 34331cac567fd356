"""Controls: fresh weights for the same widths, and kept weights of another size."""

from prosper_utils.pruning import budgets, gates, units
from prosper_utils.pruning.networks import kernels, lenet5, resnet, vgg
from prosper_utils.study import controls

import keras
import numpy as np
import pytest


def test_fresh_weights_are_drawn_as_the_layers_say():
    model = resnet(8, widths=(16, 32, 64), shape=(12, 12, 1))
    generator = np.random.default_rng(0)
    for variable in model.variables:
        variable.assign(generator.normal(7, 1, variable.shape))
    assert controls.fresh(model, seed=1) is model
    for variable in model.variables:
        values, name = variable.numpy(), variable.name
        if name == "kernel":
            fan_in = np.prod(variable.shape[:-1])
            assert values.std() == pytest.approx(np.sqrt(2 / fan_in), rel=0.25)
        else:
            assert np.all(values == (name in ("gamma", "moving_variance")))


def test_each_weight_has_a_seed_of_its_own():
    shared = keras.initializers.GlorotUniform(seed=keras.random.SeedGenerator(0))
    layers = [keras.layers.Dense(5, kernel_initializer=shared) for _ in range(3)]
    model = keras.Sequential([keras.Input((5,)), *layers])
    clone = keras.models.clone_model(model)
    first, second, third = (k.numpy() for k in kernels(controls.fresh(clone, seed=3)))
    assert not np.any(first == second)
    assert not np.any(second == third)
    again = [k.numpy() for k in kernels(controls.fresh(clone, seed=3))]
    assert np.array_equal(again[0], first)
    others = [k.numpy() for k in kernels(controls.fresh(clone, seed=5))]
    assert not any(np.any(a == b) for a in others for b in again)  # in no other place either


def test_what_no_layer_says_how_to_draw_is_refused():
    class Own(keras.layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(shape=(shape[-1],), name="scale")

        def call(self, x):
            return x * self.scale

    with pytest.raises(ValueError, match=r"expected an initializer of .*own/scale, found none"):
        controls.fresh(keras.Sequential([keras.Input((3,)), Own(name="own")]))


@pytest.mark.parametrize("make", [lenet5, vgg])
def test_rescaled_kernels_send_on_the_same_variance(make):
    before = make()
    small = units.shrink(before, budgets.choose(before, gates.random(before), share=0.25))
    kept = [k.numpy() for k in kernels(small)]
    controls.rescaled(small, before)
    for was, kernel, large in zip(kept, kernels(small), kernels(before), strict=True):
        fans = [np.prod(k.shape[:-1]) for k in (large, kernel)]
        np.testing.assert_allclose(kernel.numpy() ** 2 * fans[1], was**2 * fans[0], rtol=1e-5)
    assert not np.array_equal(kept[1], kernels(small)[1].numpy())


class Two(keras.layers.Layer):
    """Two kernels of one shape, from one initializer."""

    first_initializer = second_initializer = keras.initializers.GlorotUniform(seed=0)

    def build(self, shape):
        for name in ("first", "second"):
            setattr(self, name, self.add_weight(shape=(shape[-1], 4), name=name))

    def call(self, x):
        return x @ self.first + x @ self.second


def test_two_weights_of_one_layer_are_drawn_apart():
    model = controls.fresh(keras.Sequential([keras.Input((3,)), Two()]), seed=3)
    first, second = model.get_weights()
    assert not np.any(first == second)


def nested(inputs=6, inside=5):
    layer = keras.layers.Dense(inside, name="inside")
    inner = keras.Sequential([keras.Input((inputs,)), layer])
    return keras.Sequential([keras.Input((inputs,)), inner, keras.layers.Dense(3, name="last")])


def test_weights_of_a_model_within_a_model_are_drawn_anew_too():
    model = nested()
    before = model.get_weights()[::2]
    controls.fresh(model, seed=1)
    assert not any(np.any(a == b) for a, b in zip(model.get_weights()[::2], before, strict=True))


def test_kernels_of_a_model_within_a_model_are_rescaled_too():
    model = nested()
    before = model.get_weights()[::2]
    controls.rescaled(model, nested(inputs=24, inside=45))
    for was, now, by in zip(before, model.get_weights()[::2], (2, 3), strict=True):
        np.testing.assert_allclose(now, by * was, rtol=1e-6)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (keras.layers.SeparableConv2D(3, 2), (4, 4, 2)),
        (keras.layers.SeparableConv1D(3, 2), (4, 2)),
        (keras.layers.LSTM(3), (4, 2)),
        (keras.layers.Embedding(5, 3), (4,)),
    ],
    ids=lambda given: getattr(given, "name", None),
)
def test_every_kernel_of_a_layer_with_several_is_drawn_anew(layer, shape):
    model = keras.Sequential([keras.Input(shape), layer])
    before = model.get_weights()
    controls.fresh(model, seed=3)
    pairs = [(a, b) for a, b in zip(model.get_weights(), before, strict=True) if a.ndim > 1]
    assert pairs
    assert not any(np.any(a == b) for a, b in pairs)


@pytest.mark.parametrize("dimensions", [0, 1, 2, 3])
def test_kernels_of_any_dimension_are_rescaled(dimensions):
    kinds = keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D
    layer = kinds[dimensions](3, *[2] * bool(dimensions), name="layer")
    before, after = (
        keras.Sequential([keras.Input((*[4] * dimensions, channels)), layer])
        for layer, channels in ((layer, 8), (type(layer).from_config(layer.get_config()), 2))
    )
    was = after.get_weights()[0]
    assert controls.rescaled(after, before) is after
    np.testing.assert_allclose(after.get_weights()[0], 2 * was, rtol=1e-6)


@pytest.mark.parametrize("kind", [keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D])
def test_kernels_of_depthwise_convolutions_are_drawn_anew(kind):
    layer = kind(2, depthwise_initializer="ones")
    model = keras.Sequential([keras.Input((*[4] * (kind.__name__[-2] == "2"), 4, 3)), layer])
    model.set_weights([np.full(w.shape, 7.0) for w in model.get_weights()])
    kernel, bias = controls.fresh(model).get_weights()
    assert np.all(kernel == 1)
    assert np.all(bias == 0)


def test_a_model_that_was_dissolved_is_rescaled_too():
    before = nested()
    small = units.shrink(before, budgets.choose(before, gates.random(before), share=0.5))
    was = [k.numpy() for k in kernels(small)]
    assert controls.rescaled(small, before) is small
    for kernel, old, large in zip(kernels(small), was, kernels(before), strict=True):
        fan_ins = large.shape[0] / old.shape[0]
        np.testing.assert_allclose(kernel.numpy(), np.sqrt(fan_ins) * old, rtol=1e-6)


@pytest.mark.parametrize(("names", "count"), [(("first", "other"), 0), (("last", "last"), 2)])
def test_layers_that_cannot_be_told_apart_are_named_and_nothing_is_scaled(names, count):
    inner = keras.Sequential([keras.Input((6,)), keras.layers.Dense(6, name=names[0])])
    last = keras.layers.Dense(6, name=names[1])
    before = keras.Sequential([keras.Input((6,)), inner, last])
    layers = [keras.layers.Dense(3, name=name) for name in ("first", "last")]
    small = keras.Sequential([keras.Input((3,)), *layers[bool(count) :]])
    was = small.get_weights()
    with pytest.raises(ValueError, match=f"expected one layer 'last' before, found {count}"):
        controls.rescaled(small, before)
    assert all(map(np.array_equal, small.get_weights(), was))


def test_seeds_of_layers_are_no_weights():
    """The state of a dropout stays, and so does the number of each weight in the draws."""
    layers = [keras.layers.Dense(4), keras.layers.Dense(3)]
    plain = keras.Sequential([keras.Input((5,)), *layers])
    expected = controls.fresh(plain, seed=3).get_weights()
    dropout = keras.layers.Dropout(0.5, seed=7)
    odd = keras.Sequential([keras.Input((5,)), layers[0], dropout, layers[1]])
    state = dropout.seed_generator.state.numpy()
    found = controls.fresh(odd, seed=3).trainable_variables
    assert all(map(np.array_equal, map(np.array, found), expected))
    assert np.array_equal(dropout.seed_generator.state, state)


def test_weights_of_a_frozen_layer_are_drawn_anew_too():
    model, again = nested(), nested()
    model.get_layer("last").trainable = False
    assert all(
        map(np.array_equal, *(controls.fresh(m, seed=1).get_weights() for m in (model, again)))
    )


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_weights_are_drawn_in_the_type_of_their_layer(dtype):
    """Of numbers in double precision single precision would leave zeros at the end."""
    layer = keras.layers.Dense(50, kernel_initializer="random_normal", dtype=dtype)
    kernel, _ = controls.fresh(keras.Sequential([keras.Input((20,)), layer])).get_weights()
    assert kernel.dtype == dtype
    rounded = kernel.astype("float32").astype(dtype)
    assert np.array_equal(rounded, kernel) == (dtype == "float16")
