"""The networks, and Keras models of every kind as pure functions of their weights."""

import functools
import math

from prosper_utils.pruning import channels, networks
from prosper_utils.pruning.networks import (
    as_loss,
    dense_300_100,
    kernels,
    lenet5,
    lenet5_caffe,
    vgg,
)

import keras
import numpy as np
import pytest
import tensorflow as tf


@pytest.mark.parametrize(
    ("build", "count"),
    [(dense_300_100, 266_610), (lenet5, 61_706), (lenet5_caffe, 431_080), (vgg, 289_066)],
)
def test_parameter_counts_and_logits(build, count):
    model = build()
    assert model.count_params() == count
    assert model(np.zeros((2, 28, 28, 1), "float32")).shape == (2, 10)


@pytest.mark.parametrize(("build", "n"), [(networks.resnet8, 1), (networks.resnet20, 3)])
def test_parameter_counts_of_residual_networks(build, n):
    """Convolutions and shortcuts, four numbers per normalised channel, and the last layer."""
    widths, count = (16, 32, 64), 9 * 3 * 16 + 4 * 16 + 65 * 10
    for before, width in zip((16, 16, 32), widths, strict=True):
        count += 9 * before * width + (2 * n - 1) * 9 * width**2 + 4 * 2 * n * width
        count += (before * width + 4 * width) * (before != width)
    assert build().count_params() == count


EVERY = [dense_300_100, lenet5, lenet5_caffe, vgg, networks.resnet8]


@pytest.mark.parametrize("build", EVERY)
def test_the_seed_fixes_the_weights(build):
    once, again, other = ([k.numpy() for k in kernels(build(seed=s))] for s in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(once, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(once, other, strict=True))
    layers = [w.ravel()[:50] for w in once]
    assert not np.allclose(layers[0] / layers[0].max(), layers[1] / layers[1].max())


@pytest.mark.parametrize("build", [vgg, networks.resnet8])
def test_normalised_networks_begin_he_normal(build):
    for kernel in kernels(build()):
        fan_in = np.prod(kernel.shape[:-1])
        assert np.std(kernel) == pytest.approx(np.sqrt(2 / fan_in), rel=0.25)


@pytest.mark.parametrize("build", EVERY)
def test_activation_and_type_are_a_choice_throughout(build):
    model = build("elu", dtype="float64")
    assert {v.dtype for v in (*model.weights, *model.inputs)} == {"float64"}
    layers = [x for x in model.layers if not isinstance(x, keras.layers.InputLayer)]
    assert {layer.compute_dtype for layer in layers} == {"float64"}
    found = [getattr(layer, "activation", None) for layer in model.layers]
    found = [activation.__name__ for activation in found if activation is not None]
    assert set(found) == {"elu", "linear"}
    assert found[-1] == "linear"
    plain = {keras.layers.Dense, keras.layers.Conv2D}
    norms = sum(isinstance(x, keras.layers.BatchNormalization) for x in model.layers)
    mixing = sum(type(layer) in plain for layer in model.layers)
    assert found.count("elu") == (mixing - 1 if not norms else norms - 2 * (build is not vgg))


POOLED = [["Conv2D", "AveragePooling2D"], ["Conv2D", "MaxPooling2D"]]
UNIT = ["Conv2D", "BatchNormalization", "Activation"]


@pytest.mark.parametrize(
    ("build", "kinds"),
    [
        (dense_300_100, ["Flatten", *["Dense"] * 3]),
        (lenet5, [*POOLED[0] * 2, "Flatten", *["Dense"] * 3]),
        (lenet5_caffe, [*POOLED[1] * 2, "Flatten", *["Dense"] * 2]),
        (vgg, [*[*UNIT * 2, "MaxPooling2D"] * 3, "GlobalAveragePooling2D", "Dense"]),
    ],
)
def test_the_layers_are_in_their_order(build, kinds):
    assert [type(layer).__name__ for layer in build().layers] == kinds


@pytest.mark.parametrize(("build", "epsilon"), [(vgg, 1e-3), (networks.resnet8, 1e-5)])
def test_normalisation_is_as_the_networks_are_trained_with(build, epsilon):
    norms = [x for x in build().layers if isinstance(x, keras.layers.BatchNormalization)]
    assert {(norm.momentum, norm.epsilon) for norm in norms} == {(0.9, epsilon)}


def test_the_activation_of_a_residual_network_comes_where_it_is_said():
    """A block: conv, norm, activation, conv, norm, sum, activation."""
    model = networks.resnet8(widths=(2, 3, 4), shape=(8, 8, 3))
    for layer in model.layers:
        if isinstance(layer, keras.layers.Add):
            long, short = (t._keras_history.operation for t in layer.input)
            assert long.name.endswith("conv_2_norm")
            assert short.name.endswith("skip_norm") or isinstance(short, keras.layers.Activation)
            (after,) = layer._outbound_nodes
            assert isinstance(after.operation, keras.layers.Activation)


TRICKY = {
    "temperature": {"temperature": 3.0},
    "no penalties": {"regularisation": False},
    "moving statistics": {"statistics": "moving"},
    "its float type": {"dtype": "float32"},
    "another loss": {"loss": "mse", "loss_weights": [0.5]},
}


@pytest.mark.parametrize("case", [None, *TRICKY])
def test_a_loss_in_float64_is_the_same_loss(case):
    """All options are handed on, but for the float type."""
    keras.utils.set_random_seed(0)
    stages = [keras.layers.Dense(4, "tanh", kernel_regularizer="l2"), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization(), *stages])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    generator = np.random.default_rng(0)
    x, y = generator.normal(2, 3, (6, 4)).astype("float32"), np.arange(6) % 3
    batch = (x, np.eye(3)[y]) if case == "another loss" else (x, y)
    weights, loss = as_loss(model, **TRICKY.get(case, {}))
    fine = loss.in_float64()([tf.cast(w, tf.float64) for w in weights], batch)
    assert fine.dtype == tf.float64
    assert float(loss(weights, batch)) == pytest.approx(float(fine), rel=1e-6)
    assert loss.names == [v.path for v in model.trainable_variables]
    assert set(loss.layers) > {layer.name for layer in model.layers}
    if case not in (None, "its float type"):  # the option makes a difference
        _, other = as_loss(model, *(["mse"] if case == "another loss" else []))
        assert abs(float(other(weights, batch)) - float(fine)) > 1e-3


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_the_activation_is_a_choice(activation):
    assert dense_300_100(activation).get_layer("hidden_1").activation.__name__ == activation
    assert lenet5(activation).get_layer("conv_2").activation.__name__ == activation


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.convolution = keras.layers.Conv2D(2, 3, strides=3, activation="tanh")
        self.norm = keras.layers.BatchNormalization()
        self.drop = keras.layers.Dropout(0.5)
        self.head = keras.layers.Dense(10)

    def call(self, x, training=None):
        x = self.norm(self.convolution(x), training=training)
        return self.head(self.drop(keras.ops.reshape(x, (-1, 162)), training=training))


def functional():
    image = keras.Input((28, 28, 1))
    flat = keras.layers.Flatten()(image)
    two_paths = [keras.layers.Dense(4, a)(flat) for a in ("tanh", "relu")]
    return keras.Model(image, keras.layers.Dense(10)(keras.layers.Concatenate()(two_paths)))


def models():
    subclassed = Subclassed()
    subclassed(np.zeros((1, 28, 28, 1), "float32"))
    return [dense_300_100(), functional(), subclassed]


@pytest.mark.parametrize("which", range(3), ids=["sequential", "functional", "subclassed"])
@pytest.mark.parametrize("integer", ["uint8", "int32", "int64"])
def test_as_loss_is_the_cross_entropy_of_any_model(digits, which, integer):
    model = models()[which]
    x, y = (part[:16] for part in digits.train)
    weights, loss = as_loss(model, statistics="moving")
    expected = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(
        y, model(x, training=False)
    )
    found = loss(weights, (x, y.numpy().astype(integer)))
    assert float(found) == pytest.approx(float(expected), rel=1e-6)
    assert [tuple(w.shape) for w in weights] == [tuple(v.shape) for v in model.trainable_variables]


def test_as_loss_is_pure(digits):
    model = models()[2]
    batch = tuple(part[:16] for part in digits.train)
    weights, loss = as_loss(model)
    before = float(loss(weights, batch)), [v.numpy() for v in model.variables]
    for variable in model.variables:
        variable.assign(variable.value + 1)
    assert float(loss(weights, batch)) == before[0]  # neither weights nor statistics follow
    moved = float(loss([w + 0.1 for w in weights], batch))
    assert moved != before[0]
    for variable, value in zip(model.variables, before[1], strict=True):
        np.testing.assert_array_equal(variable.numpy(), value + 1)


def test_float64_is_float64_throughout(digits):
    model = dense_300_100(dtype="float64")
    weights, loss = as_loss(model)
    x, y = (part[:16] for part in digits.train)
    h = tf.cast(tf.reshape(x, (16, 784)), tf.float64)
    for kernel, bias in (weights[:2], weights[2:4]):
        h = tf.tanh(h @ kernel + bias)
    expected = tf.nn.sparse_softmax_cross_entropy_with_logits(y, h @ weights[4] + weights[5])
    assert float(loss(weights, (x, y))) == pytest.approx(float(tf.reduce_mean(expected)), rel=1e-14)


def test_kernels_are_what_is_pruned():
    assert [k.path.split("/")[-2] for k in kernels(lenet5())] == [
        "conv_1",
        "conv_2",
        "hidden_1",
        "hidden_2",
        "output",
    ]
    assert [k.name for k in kernels(models()[2])] == ["kernel", "kernel"]


def test_bad_models_are_named():
    with pytest.raises(ValueError, match="expected a built model"):
        as_loss(keras.Sequential([keras.layers.Dense(10)]))
    with pytest.raises(ValueError, match="expected a built model"):
        as_loss(Subclassed())
    with pytest.raises(ValueError, match="expected trainable weights, found none"):
        as_loss(keras.Sequential([keras.Input((4,)), keras.layers.Flatten()]))
    frozen = dense_300_100(units=(3, 2))
    frozen.trainable = False
    with pytest.raises(ValueError, match="'lenet_300_100': expected trainable weights, found none"):
        as_loss(frozen)
    scale = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization()])
    with pytest.raises(ValueError, match=r"expected a kernel to prune, found only .*gamma"):
        kernels(scale)


def test_other_weights_than_the_model_s_are_refused(digits):
    weights, loss = as_loss(dense_300_100())
    batch = tuple(part[:4] for part in digits.train)
    with pytest.raises(ValueError, match="computes in float32, found float64"):
        loss([tf.cast(w, tf.float64) for w in weights], batch)
    for count in (5, 7):
        with pytest.raises(ValueError, match=f"expected 6 tensors, found {count}"):
            loss([*weights, weights[0]][:count], batch)


@pytest.mark.parametrize(("depth", "trainable", "layers"), [(8, 78_042, 10), (20, 272_474, 22)])
def test_a_residual_network_has_its_layers_and_parameters(depth, trainable, layers):
    model = networks.resnet(depth)
    assert sum(math.prod(v.shape) for v in model.trainable_variables) == trainable
    assert len(networks.kernels(model)) == layers  # with the two shortcuts
    assert model(np.zeros((2, 32, 32, 3), np.float32)).shape == (2, 10)


def test_a_residual_network_of_equal_widths_halves_the_image_all_the_same():
    model = networks.resnet(8, widths=(4, 4, 4), shape=(8, 8, 1))
    assert [layer.output.shape[1] for layer in model.layers if "skip" in layer.name] == [4, 4, 2, 2]


@pytest.mark.parametrize("depth", [2, 7, 9, 19, -4])
def test_other_depths_of_a_residual_network_are_refused(depth):
    with pytest.raises(ValueError, match=f"expected 6n \\+ 2, such as 8 or 20, found {depth}"):
        networks.resnet(depth)


def several():
    """Return a model of an embedding, attention, a nested model and a head."""
    x = keras.Input((5,), dtype="int32")
    h = keras.layers.Embedding(7, 4, name="table")(x)
    h = keras.layers.MultiHeadAttention(2, 3, name="attention")(h, h)
    inner = keras.Sequential([keras.Input((5, 4)), keras.layers.Dense(4, name="deep")], name="in")
    h = keras.layers.Flatten()(inner(h))
    return keras.Model(x, keras.layers.Dense(3, name="head")(h))


def test_embeddings_are_kernels():
    names = [k.name for k in kernels(several())]
    assert names == ["embeddings", *["kernel"] * 6]


@pytest.mark.parametrize(
    ("choice", "left_out"),
    [
        ({}, []),
        ({"exclude": [0, -1]}, [0, 6]),
        ({"exclude": [6, -7]}, [0, 6]),
        ({"exclude": ["attention"]}, [1, 2, 3, 4]),
        ({"exclude": ["deep", "table"]}, [0, 5]),
        ({"exclude": ["in"]}, [5]),
        ({"exclude": [keras.layers.Embedding, keras.layers.MultiHeadAttention]}, [0, 1, 2, 3, 4]),
        ({"exclude": [lambda layer: getattr(layer, "units", 0) == 3]}, [6]),
        ({"include": [keras.layers.Dense]}, [0, 1, 2, 3, 4]),
        ({"include": [keras.layers.Dense], "exclude": ["head"]}, [0, 1, 2, 3, 4, 6]),
        ({"include": []}, [0, 1, 2, 3, 4, 5, 6]),
        ({"exclude": [1, -2]}, [1, 5]),
    ],
)
def test_what_is_pruned_is_chosen_by_place_name_class_or_function(choice, left_out):
    model = several()
    found = networks.select(model, **choice)
    assert found == [i not in left_out for i in range(7)]


@pytest.mark.parametrize("entry", [7, -8, "heads", keras.layers.Conv2D, lambda layer: False])
def test_a_choice_that_fits_nothing_is_refused(entry):
    for choice in ({"include": [entry]}, {"exclude": [0, entry]}):
        with pytest.raises(ValueError, match="select: expected what fits one of 7 kernels, found"):
            networks.select(several(), **choice)


def test_what_is_made_of_a_model_does_not_follow_its_later_training():
    layers = [keras.layers.BatchNormalization(), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((3,)), *layers])
    weights, outputs = networks.as_outputs(model, statistics="moving")
    x = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    before = outputs(weights, x).numpy()
    for variable in model.variables:
        variable.assign(variable + 1)
    np.testing.assert_array_equal(outputs(weights, x), before)


def test_each_weight_has_to_have_the_type():
    weights, loss = as_loss(dense_300_100(units=(6, 5)))
    weights[-1] = tf.cast(weights[-1], tf.float64)
    batch = np.ones((6, 28, 28, 1), "float32"), np.arange(6) % 3
    with pytest.raises(ValueError, match=r"weight .*bias: the model computes in float32, found"):
        loss(weights, batch)


def test_after_each_stage_the_images_are_half_as_large():
    model = vgg(widths=(2, 3), shape=(8, 8, 1))
    expected = 64 * 9 * (1 * 2 + 2 * 2) + 16 * 9 * (2 * 3 + 3 * 3) + 3 * 10
    assert channels.count_multiply_adds(model) == expected


layers = keras.layers


def test_all_parts_of_a_batch_have_as_many_examples():
    """Keras would spread a single sample weight over all examples."""
    weights, loss = as_loss(dense_300_100(units=(6, 5)))
    x, y = np.ones((6, 28, 28, 1), "float32"), np.arange(6) % 3
    single = (x, y[:1]), (x, y, np.ones(1, "float32")), (x, y, np.ones(5, "float32"))
    for wrong in (*single, (x, 1), (x, y, 1.0), ([x, x[:5]], y), (x, {"a": y, "b": y[:5]})):
        with pytest.raises(ValueError, match="batch: expected equally many examples in each part"):
            loss(weights, wrong)


@pytest.fixture
def plain():
    """Return weights and loss of a small network, images, labels, and the loss of these."""
    weights, loss = as_loss(dense_300_100(units=(6, 5), dtype="float64"))
    x, y = np.random.default_rng(0).random((6, 28, 28, 1)), np.arange(6) % 3
    return weights, loss, x, y, pytest.approx(float(loss(weights, (x, y))), rel=1e-12)


def test_a_batch_may_be_a_list(plain):
    weights, loss, x, y, expected = plain
    for batch in ([x, y], [x, y, np.ones(6)]):
        assert float(loss(weights, batch)) == expected


def test_a_batch_may_have_none_for_its_sample_weights(plain):
    weights, loss, x, y, expected = plain
    assert float(loss(weights, (x, y, None))) == expected


def test_a_batch_may_be_of_a_size_that_comes_later(plain):
    weights, loss, x, y, expected = plain

    @tf.function(input_signature=[tf.TensorSpec((None, 28, 28, 1), tf.float64)], autograph=False)
    def of_images(images):
        return loss(weights, (images, y))

    assert float(of_images(x)) == expected


@pytest.mark.parametrize("make", [dense_300_100, lenet5, lenet5_caffe])
def test_plain_networks_begin_glorot_uniform(make):
    for kernel in kernels(make()):
        ends = np.prod(kernel.shape[:-2]) * sum(kernel.shape[-2:])
        limit = np.sqrt(6 / ends)
        assert np.max(np.abs(kernel)) < limit * (1 + 1e-6)
        assert np.std(kernel) == pytest.approx(limit / np.sqrt(3), rel=0.15)


def test_a_name_chooses_the_layer_of_this_name_and_none_that_begins_so():
    stages = [layers.Dense(4, name="dense"), layers.Dense(3, name="dense_1")]
    model = keras.Sequential([keras.Input((5,)), *stages])
    assert networks.select(model, exclude=["dense"]) == [False, True]
    assert networks.select(model, include=["dense_1"]) == [False, True]
    with pytest.raises(ValueError, match="select: expected what fits one of 2 kernels, found 'den"):
        networks.select(model, exclude=["den"])


def test_kernels_may_be_numbered_by_numpy():
    model = lenet5()
    for i in (0, -1):
        assert networks.select(model, exclude=[np.int64(i)]) == networks.select(model, exclude=[i])


def test_logits_are_outputs_run_in_the_same_way_as_those_of_a_loss():
    model = networks.resnet8(widths=(2, 4, 8), shape=(8, 8, 3))
    x = np.random.default_rng(0).normal(size=(5, 8, 8, 3)).astype("float32")
    for run in ({}, {"statistics": "moving"}, {"dtype": "float64"}):
        weights, logits = networks.as_logits(model, **run)
        found = logits(weights, x)
        np.testing.assert_array_equal(found, networks.as_outputs(model, **run)[1](weights, x))
        y = np.argmax(found, -1)
        expected = networks.cross_entropy(found, y)
        assert float(as_loss(model, **run)[1](weights, (x, y))) == pytest.approx(float(expected))


def described(layer):
    """Return what a layer with options that count no parameters is, in words."""
    if isinstance(layer, layers.Dense):
        return f"{layer.name}: {layer.units}, {layer.activation.__name__}"
    window = layer.kernel_size if isinstance(layer, layers.Conv2D) else layer.pool_size
    where = "{}x{} by {}x{}, {}".format(*window, *layer.strides, layer.padding)
    if not isinstance(layer, layers.Conv2D):
        return f"{type(layer).__name__}: {where}"
    bias = "" if layer.use_bias else ", no bias"
    return f"{layer.name}: {layer.filters} @ {where}, {layer.activation.__name__}{bias}"


def normalised(name, width, window="3x3", step="1x1"):
    return f"{name}: {width} @ {window} by {step}, same, linear, no bias"


GLOROT, HE = keras.initializers.GlorotUniform, keras.initializers.HeNormal
AVERAGED, LARGEST = (f"{kind}Pooling2D: 2x2 by 2x2, valid" for kind in ("Average", "Max"))
DESCRIBED = {  # network: name, layers with options, how weights begin
    dense_300_100: (
        "lenet_300_100",
        ["hidden_1: 300, tanh", "hidden_2: 100, tanh", "output: 10, linear"],
        GLOROT,
    ),
    lenet5: (
        "lenet_5",
        [
            "conv_1: 6 @ 5x5 by 1x1, same, tanh",
            AVERAGED,
            "conv_2: 16 @ 5x5 by 1x1, valid, tanh",
            AVERAGED,
            *["hidden_1: 120, tanh", "hidden_2: 84, tanh", "output: 10, linear"],
        ],
        GLOROT,
    ),
    lenet5_caffe: (
        "lenet_5_caffe",
        [
            "conv_1: 20 @ 5x5 by 1x1, valid, relu",
            LARGEST,
            "conv_2: 50 @ 5x5 by 1x1, valid, relu",
            LARGEST,
            *["hidden: 500, relu", "output: 10, linear"],
        ],
        GLOROT,
    ),
    functools.partial(vgg, widths=(2, 3)): (
        "vgg",
        [
            *[normalised(f"stage_1_conv_{i}", 2) for i in (1, 2)],
            LARGEST,
            *[normalised(f"stage_2_conv_{i}", 3) for i in (1, 2)],
            *[LARGEST, "output: 10, linear"],
        ],
        HE,
    ),
    functools.partial(networks.resnet8, widths=(2, 3, 4)): (
        "resnet_8",
        [
            normalised("first", 2),
            *[normalised(f"stage_1_block_1_conv_{i}", 2) for i in (1, 2)],
            normalised("stage_2_block_1_conv_1", 3, step="2x2"),
            normalised("stage_2_block_1_conv_2", 3),
            normalised("stage_2_block_1_skip", 3, window="1x1", step="2x2"),
            normalised("stage_3_block_1_conv_1", 4, step="2x2"),
            normalised("stage_3_block_1_conv_2", 4),
            normalised("stage_3_block_1_skip", 4, window="1x1", step="2x2"),
            "output: 10, linear",
        ],
        HE,
    ),
}


@pytest.mark.parametrize("build", DESCRIBED, ids=lambda build: DESCRIBED[build][0])
def test_a_network_is_layer_by_layer_what_it_was(build):
    """Stored results and saved models rest on it; one seed is drawn from by all layers in turn."""
    name, expected, initializer = DESCRIBED[build]
    model = build(seed=3)
    kinds = layers.Dense, layers.Conv2D, layers.AveragePooling2D, layers.MaxPooling2D
    assert model.name == name
    assert [described(layer) for layer in model.layers if isinstance(layer, kinds)] == expected
    initial = [x.kernel_initializer for x in model.layers if hasattr(x, "kernel_initializer")]
    assert {type(x) for x in initial} == {initializer}
    assert isinstance(initial[0].seed, keras.random.SeedGenerator)
    assert all(x.seed is initial[0].seed for x in initial)
    shape = (32, 32, 3) if name == "resnet_8" else (28, 28, 1)
    assert (model.input_shape, model.output_shape) == ((None, *shape), (None, 10))


class Named(layers.Layer):
    """A layer whose weights have names in which the word stands."""

    def build(self, shape):
        names = "kernel_scale", "own_kernel", "kernels", "embeddings_mean", "bias"
        self.own = [self.add_weight(shape=(2,), name=name) for name in names]
        self.fixed = self.add_weight(shape=(2,), name="kernel", trainable=False)

    def call(self, x):
        return x


def test_a_kernel_is_a_trainable_variable_whose_name_ends_so():
    stages = [
        layers.Dense(4, trainable=False),
        layers.SeparableConv1D(3, 2, name="separable"),
        layers.BatchNormalization(),
        layers.LSTM(2, name="recurrent"),
        Named(name="named"),
        layers.Dense(3, name="head"),
    ]
    model = keras.Sequential([keras.Input((5, 3)), *stages])
    expected = [
        "separable/depthwise_kernel",
        "separable/pointwise_kernel",
        "recurrent/lstm_cell/kernel",
        "recurrent/lstm_cell/recurrent_kernel",
        "named/own_kernel",
        "head/kernel",
    ]
    assert [v.path.removeprefix(f"{model.name}/") for v in kernels(model)] == expected
    assert networks.kernel_indices(model) == [0, 1, 5, 6, 9, 13]
    assert networks.select(model) == [True] * 6


def test_a_class_stands_for_what_is_derived_from_it_and_the_model_itself_is_no_layer():
    class Own(layers.Dense):
        pass

    x = keras.Input((4,))
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(3)], name="inner")
    model = keras.Model(x, layers.Dense(2)(inner(Own(3, name="own")(x))), name="whole")
    assert networks.select(model, exclude=[Own]) == [False, True, True]
    assert networks.select(model, exclude=[layers.Dense]) == [False] * 3
    for nested in (keras.Model, keras.Sequential, "inner"):
        assert networks.select(model, exclude=[nested]) == [True, False, True]
    assert networks.select(model, include=[lambda layer: layer is not model]) == [True] * 3
    with pytest.raises(ValueError, match="select: expected what fits one of 3 kernels, found 'who"):
        networks.select(model, exclude=["whole"])


def test_the_weights_of_a_model_of_two_types_have_each_their_own():
    stages = layers.Dense(3, dtype="float32"), layers.Dense(3, dtype="float64")
    model = keras.Sequential([keras.Input((4,)), *stages])
    weights, loss = as_loss(model)
    assert [w.dtype for w in weights] == [tf.float32] * 2 + [tf.float64] * 2
    batch = np.ones((6, 4), "float32"), np.arange(6) % 3
    expected = networks.cross_entropy(model(batch[0]), batch[1])
    assert float(loss(weights, batch)) == pytest.approx(float(expected), rel=1e-5)
    for i, (expected, found) in enumerate([("float32", "float64")] * 2 + [("float64", "float32")]):
        wrong = [tf.cast(w, found) if n == i else w for n, w in enumerate(weights)]
        with pytest.raises(ValueError, match=f"the model computes in {expected}, found {found}"):
            loss(wrong, batch)


class Mixed(layers.Layer):
    """A layer that returns several things, and adds a loss, in types of its own."""

    def call(self, x):
        self.add_loss(tf.cast(tf.reduce_mean(x), "float32"))
        return {"whole": tf.argmax(x, -1), "pair": (x, tf.cast(x, "float16")), "is": x > 0}


@pytest.mark.parametrize("dtype", [None, "float64"])
def test_outputs_keep_their_structure_and_floats_have_the_type_of_the_weights(dtype):
    same = layers.Dense(3, use_bias=False, kernel_initializer="identity")
    inputs = keras.Input((3,))
    weights, outputs = networks.as_outputs(
        keras.Model(inputs, Mixed()(same(inputs))), dtype=dtype, losses=True
    )
    x = np.array([[0.5, -1.0, 2.0], [0.25, 0.0, -1.0]], "float32")
    found, (added,) = outputs(weights, x)
    floating = dtype or "float32"
    assert tf.nest.map_structure(lambda t: t.dtype.name, found) == {
        "whole": "int64",
        "pair": (floating, floating),
        "is": "bool",
    }
    np.testing.assert_array_equal(found["whole"], [2, 0])
    np.testing.assert_array_equal(found["pair"][0], x)
    np.testing.assert_array_equal(found["is"], x > 0)
    assert added.dtype == floating
    assert float(added) == 0.125


@pytest.mark.parametrize("integer", ["uint8", "int32", "int64"])
def test_the_cross_entropy_is_a_mean_of_logarithms(integer):
    logits = np.log([[1.0, 3.0], [4.0, 1.0], [1.0, 1.0]])
    found = networks.cross_entropy(tf.constant(logits), np.array([1, 1, 0], integer))
    assert found.dtype == tf.float64
    assert float(found) == pytest.approx(-np.log(3 / 4 * 1 / 5 * 1 / 2) / 3, rel=1e-14)
