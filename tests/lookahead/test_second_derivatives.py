"""The check of second derivatives: what is right passes, what is wrong is refused by name."""

import concurrent.futures
import contextlib
import functools
import gc
import weakref

from prosper_utils.lookahead import second_derivatives
from prosper_utils.lookahead.meta_gradient import directional, meta_gradient
from prosper_utils.lookahead.second_derivatives import (
    accept,
    check,
    check_structure,
    difference,
    suspects,
)
from prosper_utils.lookahead.streaming import row_sums, step_errors, streamed
from prosper_utils.pruning.networks import as_loss, as_outputs, dense_300_100

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import right_once, tiny_loss
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.normal(size=(6, 6, 6, 4)).astype("float32")
WORDS = GENERATOR.normal(size=(6, 5, 4)).astype("float32")
TOKENS = GENERATOR.integers(0, 9, (6, 5))
LABELS = np.arange(6) % 3


@pytest.fixture(autouse=True)
def _seeded():
    """Fix the initial weights."""
    keras.utils.set_random_seed(0)


@tf.custom_gradient
def right(x):
    """Return tanh x with a gradient that can be differentiated."""
    return tf.tanh(x), lambda dy: dy * (1 - tf.tanh(x) ** 2)


@tf.custom_gradient
def straight_through(x):
    """Return the sign of x, and let the gradient through as if it were x."""
    return tf.sign(x), lambda dy: dy


@keras.saving.register_keras_serializable()
class Lambda(layers.Layer):
    """A layer of a function."""

    def __init__(self, function, **options):
        super().__init__(**options)
        self.function = function

    def call(self, x):
        return self.function(x)


def own_moments(x):
    """Return what a layer does that normalises by itself."""
    mean, variance = tf.nn.moments(x, [0, 1, 2])
    return (x - mean) * tf.math.rsqrt(variance + 1e-3)


def fused(x):
    """Return fused batch normalisation."""
    one, zero = tf.ones(4), tf.zeros(4)
    options = {"scale": one, "offset": zero, "mean": zero, "variance": one, "is_training": True}
    return tf.raw_ops.FusedBatchNormV3(x=x, **options)[0]


def prevented(x):
    """Return x through an operation that refuses a second derivative."""
    return x + tf.raw_ops.PreventGradient(input=x, message="no")


def numpy(x):
    """Return x through NumPy."""
    return tf.ensure_shape(tf.numpy_function(np.tanh, [x], x.dtype), x.shape) + x


def network(*inner, shape=(6, 6, 4), dtype=None):
    """Return a model of a convolution or dense layer, inner layers, tanh, and 3 classes."""
    first = layers.Conv2D(4, 3, padding="same") if len(shape) == 3 else layers.Dense(4)
    last = [layers.Activation("tanh"), layers.Flatten(), layers.Dense(3)]
    return keras.Sequential([keras.Input(shape, dtype=dtype), first, *inner, *last])


WRONG = {
    "renormalisation": (lambda n: layers.BatchNormalization(renorm=True, name=n), "stopped"),
    "spectral normalisation": (
        lambda n: layers.SpectralNormalization(layers.Conv2D(4, 3, padding="same"), name=n),
        "stopped",
    ),
    "own moments": (lambda n: Lambda(own_moments, name=n), "stopped"),
    "stop_gradient": (lambda n: Lambda(lambda x: x + tf.stop_gradient(x**2), name=n), "stopped"),
    "custom_gradient": (lambda n: layers.Activation(right_once, name=n), "custom_gradient"),
    "straight-through": (lambda n: layers.Activation(straight_through, name=n), "custom_gradient"),
    "fused": (lambda n: Lambda(fused, name=n), "FusedBatchNorm"),
    "PreventGradient": (lambda n: Lambda(prevented, name=n), "PreventGradient"),
    "softsign": (lambda n: layers.Activation("softsign", name=n), "Softsign"),
    "NumPy": (lambda n: Lambda(numpy, name=n), "PyFunc"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_is_refused_by_the_name_of_its_layer(kind):
    build, reason = WRONG[kind]
    weights, loss = as_loss(network(layers.Activation("tanh"), build("at_fault")))
    with pytest.raises(ValueError, match=rf"at_fault[^;]*: .*{reason}.*accept\(name\)"):
        check_structure(loss, weights, (IMAGES, LABELS))
    with accept("at_fault"):
        check_structure(loss, weights, (IMAGES, LABELS))
    with accept("another"), pytest.raises(ValueError, match="at_fault"):
        check_structure(loss, weights, (IMAGES, LABELS))


@pytest.mark.parametrize("kind", ["own moments", "custom_gradient", "stop_gradient"])
def test_differences_find_what_is_wrong_and_name_what_may_be_at_fault(kind):
    weights, loss = as_loss(network(WRONG[kind][0]("at_fault")), dtype="float64")
    with pytest.raises(ValueError, match=r"found .*May be at fault: .*at_fault"):
        check(loss, weights, (IMAGES, LABELS))


@pytest.mark.parametrize("place", ["cell", "nested model", "compiled function"])
def test_what_is_wrong_is_found_wherever_it_is(place):
    inner = {
        "cell": lambda: layers.SimpleRNN(3, activation=right_once, name="at_fault"),
        "nested model": lambda: keras.Sequential(
            [keras.Input((5, 4)), layers.Activation(right_once, name="at_fault")]
        ),
        "compiled function": lambda: Lambda(tf.function(right_once), name="at_fault"),
    }[place]()
    weights, loss = as_loss(network(inner, shape=(5, 4)))
    with pytest.raises(ValueError, match=r"at_fault.*custom_gradient"):
        check_structure(loss, weights, (WORDS, LABELS))


THRESHOLD = {"threshold": {"threshold": 0.1, "default_value": 0.0}}
NO_ACTIVATIONS = {"deserialize", "get", "serialize", "softsign"}  # softsign: see WRONG
ACTIVATIONS = [n for n in dir(keras.activations) if n[0] != "_" and n not in NO_ACTIVATIONS]


def test_the_list_of_activations_is_theirs():
    assert len(ACTIVATIONS) > 30
    assert {"relu", "silu", "gelu", "softmax", "glu", "sparsemax"} <= set(ACTIVATIONS)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_of_keras_passes(name):
    activation = functools.partial(keras.activations.get(name), **THRESHOLD.get(name, {}))
    model, batch = network(Lambda(activation), shape=(4,)), (WORDS[:, 0], LABELS)
    weights, loss = as_loss(model)
    check_structure(loss, weights, batch)
    weights, loss = as_loss(model, dtype="float64")
    assert check(loss, weights, batch, directions=1) < 1e-6


RIGHT = {
    "BatchNormalization": (layers.BatchNormalization, IMAGES),
    "LayerNormalization": (layers.LayerNormalization, IMAGES),
    "GroupNormalization": (lambda: layers.GroupNormalization(2), IMAGES),
    "RMSNormalization": (layers.RMSNormalization, IMAGES),
    "UnitNormalization": (layers.UnitNormalization, IMAGES),
    "Dropout": (lambda: layers.Dropout(0.5), IMAGES),
    "DepthwiseConv2D": (lambda: layers.DepthwiseConv2D(3), IMAGES),
    "SeparableConv2D": (lambda: layers.SeparableConv2D(4, 3), IMAGES),
    "grouped": (lambda: layers.Conv2D(4, 3, groups=2), IMAGES),
    "grouped, one filter each": (lambda: layers.Conv2D(8, 3, groups=4), IMAGES),
    "dilated": (lambda: layers.Conv2D(4, 3, dilation_rate=2), IMAGES),
    "Conv2DTranspose": (lambda: layers.Conv2DTranspose(4, 3), IMAGES),
    "MaxPooling2D": (layers.MaxPooling2D, IMAGES),
    "AveragePooling2D": (lambda: layers.AveragePooling2D(2), IMAGES),
    "GlobalMaxPooling2D": (layers.GlobalMaxPooling2D, IMAGES),
    "UpSampling2D": (lambda: layers.UpSampling2D(interpolation="bilinear"), IMAGES),
    "Resizing": (lambda: layers.Resizing(4, 4), IMAGES),
    "PReLU": (layers.PReLU, IMAGES),
    "Softmax": (layers.Softmax, IMAGES),
    "custom_gradient that is right": (lambda: layers.Activation(right), IMAGES),
    "logsumexp": (lambda: Lambda(lambda x: tf.reduce_logsumexp(x, -1, keepdims=True) + x), IMAGES),
    "stop_gradient of a constant": (
        lambda: Lambda(lambda x: x + tf.stop_gradient(tf.ones_like(x))),
        IMAGES,
    ),
    "stop_gradient of the maximum": (
        lambda: Lambda(lambda x: tf.exp(x - (m := tf.stop_gradient(tf.reduce_max(x)))) * tf.exp(m)),
        IMAGES,
    ),
    "compiled function": (lambda: Lambda(tf.function(tf.tanh)), IMAGES),
    "Conv1D": (lambda: layers.Conv1D(4, 3, padding="causal"), WORDS),
    "EinsumDense": (lambda: layers.EinsumDense("abc,cd->abd", output_shape=(5, 3)), WORDS),
    "SimpleRNN": (lambda: layers.SimpleRNN(3), WORDS),
    "LSTM": (lambda: layers.LSTM(3), WORDS),
    "GRU": (lambda: layers.GRU(3), WORDS),
    "Bidirectional": (lambda: layers.Bidirectional(layers.SimpleRNN(2)), WORDS),
    "TimeDistributed": (lambda: layers.TimeDistributed(layers.Dense(3)), WORDS),
    "ConvLSTM1D": (lambda: layers.ConvLSTM1D(2, 2), WORDS[..., None]),
}


@pytest.mark.parametrize("kind", RIGHT)
def test_ordinary_layers_pass(kind):
    build, x = RIGHT[kind]
    first = [] if x.ndim == 4 else [layers.Dense(4)]
    model = keras.Sequential([keras.Input(x.shape[1:]), *first, build(), layers.Flatten()])
    model.add(layers.Dense(3))
    weights, loss = as_loss(model)
    check_structure(loss, weights, (x, LABELS))
    weights, loss = as_loss(model, dtype="float64")
    assert check(loss, weights, (x, LABELS), directions=1) < 1e-6


def test_attention_and_embeddings_pass():
    tokens = keras.Input((5,), dtype="int32")
    words = layers.Embedding(9, 4)(tokens)
    x = layers.MultiHeadAttention(2, 3, dropout=0.1)(words, words, use_causal_mask=True)
    x = layers.GroupQueryAttention(2, 2, 1)(x, x)
    x = layers.LayerNormalization()(layers.Add()([x, words]))
    x = layers.Add()([layers.Attention()([x, words]), layers.AdditiveAttention()([x, words])])
    model = keras.Model(tokens, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))
    weights, loss = as_loss(model)
    check_structure(loss, weights, (TOKENS, LABELS))
    weights, loss = as_loss(model, dtype="float64")
    assert check(loss, weights, (TOKENS, LABELS)) < 1e-6


LOGITS = {"from_logits": True}
LOSSES = {
    "BinaryCrossentropy": ("binary", LOGITS),
    "BinaryFocalCrossentropy": ("binary", LOGITS),
    "CategoricalCrossentropy": ("binary", LOGITS),
    "CategoricalFocalCrossentropy": ("binary", LOGITS),
    "SparseCategoricalCrossentropy": ("labels", LOGITS),
    "CategoricalHinge": ("binary", {}),
    "Hinge": ("binary", {}),
    "SquaredHinge": ("binary", {}),
    "CosineSimilarity": ("numbers", {}),
    "Huber": ("numbers", {}),
    "LogCosh": ("numbers", {}),
    "MeanSquaredError": ("numbers", {}),
    "MeanAbsoluteError": ("numbers", {}),
    "MeanAbsolutePercentageError": ("numbers", {}),
    "MeanSquaredLogarithmicError": ("positive", {}),
    "Poisson": ("positive", {}),
    "KLDivergence": ("positive", {}),
    "Dice": ("binary", {}),
    "Tversky": ("binary", {}),
}
TARGETS = {
    "binary": np.eye(3)[LABELS],
    "labels": LABELS,
    "numbers": GENERATOR.normal(size=(6, 3)),
    "positive": np.abs(GENERATOR.normal(size=(6, 3))) + 0.1,
}


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_of_keras_passes(name):
    kind, options = LOSSES[name]
    head = [layers.Activation("softplus")] if kind == "positive" else []
    model = keras.Sequential([keras.Input((4,)), layers.Dense(5, "tanh"), layers.Dense(3), *head])
    function, target = getattr(keras.losses, name)(dtype="float64", **options), TARGETS[kind]
    weights, outputs = as_outputs(model, dtype="float64")

    def loss(weights, batch):
        return function(batch[1], outputs(weights, batch[0]))

    check_structure(loss, weights, (WORDS[:, 0], target))
    assert check(loss, weights, (WORDS[:, 0], target), directions=1) < 1e-6


# Who asks

SCORES = {
    "reverse": lambda *a: meta_gradient(*a, learning_rate=0.1),
    "checkpointed": lambda *a: meta_gradient(*a, learning_rate=0.1, method="checkpointed"),
    "unrolled": lambda *a: meta_gradient(*a, learning_rate=0.1, method="unrolled"),
    "row_sums": lambda *a: meta_gradient(*a, learning_rate=0.1, method="row_sums"),
    "directional": lambda *a: directional(*a, a[1], learning_rate=0.1),
    "streamed": lambda *a: streamed(*a, 0.1, row_sums),
    "step_errors": lambda *a: step_errors(*a, 0.1, row_sums),
}


@functools.cache
def at_fault():
    """Return the weights and the loss of a network with a wrong second derivative."""
    return as_loss(network(layers.Activation(right_once, name="at_fault"), shape=(4,)))


@pytest.mark.parametrize("name", SCORES)
def test_everything_that_looks_ahead_refuses_what_is_wrong(name):
    weights, loss = at_fault()
    batches = [(WORDS[:, 0], LABELS)] * 2
    with pytest.raises(ValueError, match=r"at_fault: a gradient is stated by hand"):
        SCORES[name](loss, weights, batches)
    with accept("at_fault"):
        SCORES[name](loss, weights, batches)
    SCORES[name](loss, weights, batches[:1])  # M = 0 takes one gradient only


def test_first_order_takes_gradients_as_they_are():
    weights, loss = at_fault()
    options = {"learning_rate": 0.1, "method": "first_order"}
    meta_gradient(loss, weights, [(WORDS[:, 0], LABELS)] * 3, **options)


# Weights that the loss does not depend on


def heads(used):
    """Return a model of two heads, of which the loss shall see one."""
    inputs = keras.Input((4,))
    x = layers.Dense(5, "tanh", name="body")(inputs)
    outputs = [layers.Dense(3, name=name)(x) for name in ("first", "second")]
    return keras.Model(inputs, outputs if used else outputs[0])


def test_weights_that_do_not_reach_the_loss_are_named():
    model = heads(used=True)
    weights, outputs = as_outputs(model)

    def loss(weights, batch):
        return tf.reduce_mean(outputs(weights, batch)[0] ** 2)

    with pytest.raises(ValueError, match=r"found none of weights\[4\], weights\[5\] in it: freeze"):
        check_structure(loss, weights, WORDS[:, 0], order=1)
    loss.names = [v.path for v in model.trainable_variables]
    with pytest.raises(ValueError, match="found none of second/kernel, second/bias in it: freeze"):
        check_structure(loss, weights, WORDS[:, 0])


class Unused(keras.Model):
    """A model with a layer that it does not call."""

    def __init__(self):
        super().__init__()
        self.head, self.other = layers.Dense(3), layers.Dense(3)
        self.other.build((None, 4))

    def call(self, x):
        return self.head(x)


def test_a_layer_that_is_not_called_has_gradient_zero():
    model = Unused()
    model(WORDS[:, 0])
    weights, loss = as_loss(model)
    check_structure(loss, weights, (WORDS[:, 0], LABELS))


def test_a_loss_that_depends_on_no_weight_is_refused():
    weights = [tf.ones((2, 2)), tf.ones(2)]
    with pytest.raises(ValueError, match=r"found none of weights\[0\], weights\[1\] in it"):
        check_structure(lambda weights, batch: tf.reduce_sum(batch), weights, tf.ones(3), order=1)
    with pytest.raises(ValueError, match=r"found none of weights\[1\] in it"):
        check_structure(lambda w, _: (w[1] ** 2, tf.reduce_sum(w[0]))[1], weights, (), order=1)


class Concrete(layers.Layer):
    """A layer with a function that was compiled once and for all."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(4,), initializer="ones", name="kernel")
        spec = tf.TensorSpec((None, *shape[1:]), tf.float32)
        self.compiled = tf.function(lambda x: x * self.scale).get_concrete_function(spec)

    def call(self, x):
        return self.compiled(x)


def test_a_compiled_function_that_keeps_its_variables_is_refused_by_name():
    weights, loss = as_loss(network(Concrete(name="kept")))
    for order in (1, 2):
        with pytest.raises(ValueError, match=r"a compiled function with variables .*kept"):
            check_structure(loss, weights, (IMAGES, LABELS), order=order)


# The numbers


@settings(max_examples=5)
@given(st.integers(0, 999))
def test_differences_of_a_smooth_loss_agree(seed):
    generator = np.random.default_rng(seed)
    weights = [tf.constant(generator.normal(size=s)) for s in ((4, 5), (5,), (5, 3), (3,))]
    batch = generator.normal(size=(6, 4)), LABELS
    assert difference(tiny_loss, weights, batch, bound=1e-7, seed=seed) < 1e-7


@pytest.mark.parametrize("part", [1.0, 1e-3])
def test_a_small_fault_shows(part):
    weights = [tf.constant(GENERATOR.normal(size=(5,)))]

    def loss(weights, batch):
        (w,) = weights
        fault = tf.reduce_sum(w) * tf.stop_gradient(tf.reduce_sum(w**3))
        return tf.reduce_sum(tf.sin(w)) + part * fault

    assert difference(loss, weights, ()) > 1e-2 * part


def test_a_fault_is_measured_by_the_curvature_and_not_by_a_larger_gradient():
    """Half of a curvature of about 0.01 is lost, beside a gradient of about one."""
    weights = [tf.constant(GENERATOR.normal(size=(5,)))]

    def loss(weights, batch):
        (w,) = weights
        return tf.reduce_sum(w) + 0.01 * tf.reduce_sum(w * tf.stop_gradient(w) + w**2 / 2)

    assert difference(loss, weights, ()) == pytest.approx(0.5, rel=1e-3)


def test_rounding_of_a_gradient_is_no_curvature():
    """The loss is linear but for rounding, of which its differences are made altogether."""

    def loss(weights, batch):
        (w,) = weights
        return tf.reduce_sum(tf.exp(tf.math.log(w**2)) - w**2 + 2e6 * w)

    assert difference(loss, [tf.constant(GENERATOR.normal(size=(5,)))], ()) < 1e-9


def test_smaller_differences_are_tried_where_the_first_are_too_large():
    """The error of a difference is that of sin(k h) / (k h): about 0.002 for h = 1e-5."""
    weights = [tf.constant(GENERATOR.normal(size=(5,)))]
    assert difference(lambda w, _: tf.reduce_sum(tf.sin(1e4 * w[0])), weights, ()) < 1e-6


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (TypeError("single precision only\nand so on"), "TypeError: single precision only"),
        (RuntimeError("no"), "RuntimeError: no"),
        (tf.errors.InvalidArgumentError(None, None, "no"), "InvalidArgumentError: no"),
        (ZeroDivisionError("no"), "ZeroDivisionError: no"),
        (AssertionError(), "AssertionError: without a word"),
    ],
)
def test_why_no_comparison_was_possible_is_said_in_one_line(problem, said):
    def loss(weights, batch):
        if weights[0].dtype == tf.float64:
            raise problem
        return tf.reduce_sum(tf.nn.softsign(weights[0]))

    with pytest.raises(ValueError, match=rf"possible \({said}\)\.  Use"):
        second_derivatives.check_structure(loss, [tf.ones(3)], tf.zeros(1))


def test_linear_and_constant_losses_agree():
    weights = [tf.constant(GENERATOR.normal(size=(5,)))]
    assert difference(lambda w, _: tf.reduce_sum(w[0]), weights, ()) < 1e-8
    assert difference(lambda w, _: 0 * tf.reduce_sum(w[0]), weights, ()) == 0


def test_differences_need_double_precision():
    weights, loss = as_loss(dense_300_100())
    batch = np.zeros((2, 28, 28, 1)), np.arange(2)
    with pytest.raises(ValueError, match=r"expected weights in float64, found \['float32'\]"):
        check(loss, weights, batch)


def test_nothing_is_traced_twice():
    calls = []

    def loss(weights, batch):
        calls.append(batch)
        return tf.reduce_sum(weights[0] ** 2 * batch)

    for _ in range(3):
        check_structure(loss, [tf.ones(3)], tf.ones(3))
    assert len(calls) == 1
    check_structure(loss, [tf.ones(4)], tf.ones(4))
    assert len(calls) == 2


def test_a_loss_of_its_own_is_judged_too():
    def wrong(weights, batch):
        return tf.reduce_sum(right_once(weights[0]) ** 2)

    def fine(weights, batch):
        return tf.reduce_sum(right(weights[0]) ** 2)

    for dtype in ("float32", "float64"):
        weights = [tf.constant([0.1, -0.5], dtype)]
        check_structure(fine, weights, ())
        with pytest.raises(ValueError, match="the loss: a gradient is stated by hand"):
            check_structure(wrong, weights, ())


def test_the_private_names_are_where_we_look_for_them():
    """If this fails, TensorFlow has changed what the graph says of a custom gradient."""
    found = suspects(lambda w, _: tf.reduce_sum(right(w[0])), [tf.ones(2)], ())
    assert found == [("the loss", second_derivatives.CUSTOM)]
    assert suspects(lambda w, _: tf.reduce_sum(tf.nn.silu(w[0])), [tf.ones(2)], ()) == []

    @tf.function(autograph=False)
    def silu(x):
        return tf.nn.silu(x)

    operations = silu.get_concrete_function(tf.TensorSpec([2])).graph.get_operations()
    assert "IdentityN" in {op.type for op in operations}  # its gradient is stated by hand


def test_only_what_lies_between_the_weights_and_the_loss_is_suspect():
    def data_only(weights, batch):
        return tf.reduce_sum(weights[0] ** 2 * right(batch))

    def unused(weights, batch):
        right(weights[0])
        return tf.reduce_sum(weights[0] ** 2 * batch)

    def between(weights, batch):
        return tf.reduce_sum(right(weights[0]) * batch)

    arguments = [tf.ones(2)], tf.ones(2)
    assert [len(suspects(f, *arguments)) for f in (data_only, unused, between)] == [0, 0, 1]


def test_an_error_as_large_as_the_bound_is_within_it():
    arguments = lambda w, _: tf.reduce_sum(tf.tanh(w[0])), [tf.constant([0.3, -1.2], "float64")], ()
    error = difference(*arguments)
    assert error > 0
    check(*arguments, directions=1, bound=error)
    with pytest.raises(ValueError, match=r"May be at fault: nothing known$"):
        check(*arguments, directions=1, bound=np.nextafter(error, 0))


def test_a_loss_that_was_checked_for_gradients_is_not_checked_for_what_is_differentiated_twice():
    def wrong(weights, batch):
        return tf.reduce_sum(right_once(weights[0]) ** 2)

    weights = [tf.constant([0.1, -0.5], "float64")]
    check_structure(wrong, weights, (), order=1)
    with pytest.raises(ValueError, match="a gradient is stated by hand"):
        check_structure(wrong, weights, ())


def test_what_was_refused_is_refused_again():
    def wrong(weights, batch):
        return tf.reduce_sum(right_once(weights[0]) ** 2)

    for _ in range(2):
        with pytest.raises(ValueError, match="a gradient is stated by hand"):
            check_structure(wrong, [tf.constant([0.1, -0.5])], ())


def scoped(weights, batch):
    """Return a loss with a wrong second derivative in each of two scopes."""
    total = 0.0
    for name in ("one", "other"):
        with tf.name_scope(name):
            total += tf.reduce_sum(right_once(weights[0]) ** 2)
    return total


def test_what_is_accepted_outside_is_accepted_inside_too():
    weights = [tf.constant([0.1, -0.5])]
    with accept("one"), accept("other"):
        check_structure(scoped, weights, ())
    stated = r"a gradient is stated by hand \(custom_gradient\)"
    with accept("one"), pytest.raises(ValueError, match=f", from other: {stated}\\.  Use"):
        check_structure(scoped, weights, ())
    with pytest.raises(ValueError, match=f", from one: {stated}; other: {stated}\\.  Use"):
        check_structure(scoped, weights, ())


def test_what_is_accepted_in_one_thread_is_refused_in_another():
    weights = [tf.constant([0.1, -0.5])]
    with accept("one", "other"), concurrent.futures.ThreadPoolExecutor(1) as pool:
        check_structure(scoped, weights, ())
        with pytest.raises(ValueError, match="a gradient is stated by hand"):
            pool.submit(check_structure, scoped, weights, ()).result()


def test_after_an_error_nothing_is_accepted_any_more():
    weights = [tf.constant([0.1, -0.5])]
    with contextlib.suppress(ZeroDivisionError), accept("one", "other"):
        raise ZeroDivisionError
    with pytest.raises(ValueError, match="a gradient is stated by hand"):
        check_structure(scoped, weights, ())


def test_every_direction_counts_and_the_seed_draws_them():
    loss, weights = (
        lambda w, _: tf.reduce_sum(tf.tanh(w[0]) ** 3),
        [tf.constant([0.3, -1.2, 2.0], "float64")],
    )
    one, many, other = (
        check(loss, weights, (), directions=d, bound=b, seed=s)
        for d, b, s in ((1, 1e-2, 0), (20, 1e-2, 0), (1, 1e-2, 1))
    )
    assert many > one != other


def test_a_batch_of_another_form_is_looked_at_anew():
    def loss(weights, batch):
        x = right(weights[0]) if len(batch) == 2 else right_once(weights[0])
        return tf.reduce_sum(x**2)

    weights, part = [tf.constant([0.1, -0.5])], tf.ones(2)
    check_structure(loss, weights, (part, part))
    with pytest.raises(ValueError, match="a gradient is stated by hand"):
        check_structure(loss, weights, (part, part, part))


def test_weights_of_another_form_are_looked_at_anew():
    def loss(weights, batch):
        x = right(weights[0]) if len(weights) == 1 else right_once(weights[0]) * weights[1]
        return tf.reduce_sum(x**2)

    weight = tf.constant([0.1, -0.5])
    check_structure(loss, [weight], ())
    with pytest.raises(ValueError, match="a gradient is stated by hand"):
        check_structure(loss, [weight, weight], ())


def test_what_was_found_of_a_loss_goes_with_it():
    """The next one may stand in its place in memory."""

    def made(power):
        return lambda weights, batch: tf.reduce_sum(weights[0] ** power if power else batch)

    weights, batch = [tf.ones(2)], tf.ones(2)
    for power in (1, 2, 3):
        check_structure(made(power), weights, batch, order=1)
        gc.collect()
        with pytest.raises(ValueError, match=r"found none of weights\[0\] in it"):
            check_structure(made(0), weights, batch, order=1)
    loss = made(2)
    check_structure(loss, weights, batch)
    gone = weakref.ref(loss)
    del loss
    gc.collect()
    assert gone() is None


@tf.custom_gradient
def doubled(x):
    """Return x with twice its gradient."""
    return x, lambda dy: 2 * dy


def test_a_gradient_that_is_wrong_itself_shows_without_curvature():
    weights = [tf.constant([0.1, -0.5], "float64")]
    assert difference(lambda w, _: tf.reduce_sum(doubled(w[0])), weights, ()) > 0.01


def swish(x):
    """Return what is not TensorFlow's function of this name."""
    return right_once(x)


@pytest.mark.parametrize("function", [right_once, swish])
def test_neither_weights_of_zero_nor_a_known_name_hide_what_is_wrong(function):
    with pytest.raises(ValueError, match="a gradient is stated by hand"):
        check_structure(lambda w, _: tf.reduce_sum(function(w[0] + 0.5) ** 2), [tf.zeros(3)], ())


@pytest.mark.parametrize("wrong", ["part", "part_1"])
def test_a_layer_with_a_number_at_its_end_is_no_second_call_of_another_one(wrong):
    both = ((right_once if name == wrong else "tanh", name) for name in ("part", "part_1"))
    inner = [layers.Activation(activation, name=name) for activation, name in both]
    weights, loss = as_loss(network(*inner))
    with pytest.raises(ValueError, match=f"/{wrong}: a gradient is stated by hand"):
        check_structure(loss, weights, (IMAGES, LABELS))
    with accept(wrong):
        check_structure(loss, weights, (IMAGES, LABELS))


@functools.cache
def named(activation):
    """Return the loss of a network of named inputs with an activation, its weights and batches."""
    inputs = {name: keras.Input((4,), name=name) for name in "ab"}
    x = layers.Add()([layers.Dense(4)(part) for part in inputs.values()])
    x = layers.Activation(activation, name="at_fault")(x)
    batch = dict.fromkeys("ab", WORDS[:, 0]), LABELS
    return *as_loss(keras.Model(inputs, layers.Dense(3)(x)))[::-1], [batch] * 2


@pytest.mark.parametrize("score", ["reverse", "directional"])
def test_a_network_of_named_inputs_is_judged_by_its_double_and_its_layers(score):
    SCORES[score](*named(right))
    with pytest.raises(ValueError, match="at_fault: a gradient is stated by hand"):
        SCORES[score](*named(right_once))


def test_a_gradient_that_is_wrongly_zero_is_infinitely_wrong():
    def stopped(weights, batch):
        return tf.reduce_sum(tf.stop_gradient(weights[0]) ** 2) + 0 * tf.reduce_sum(weights[0])

    def constant(weights, batch):
        return 0 * tf.reduce_sum(weights[0])

    weights = [tf.constant([0.5, -0.3], tf.float64)]
    with np.errstate(divide="ignore"):
        assert difference(stopped, weights, None) == np.inf
        with pytest.raises(ValueError, match="found inf"):
            check(stopped, weights, None)
    assert difference(constant, weights, None) == 0


@pytest.mark.parametrize("last", ["a compiled function", "an activation", "the first one, too"])
def test_the_last_operation_of_a_loss_may_be_at_fault(last):
    def loss(weights, batch):
        x = weights[0] if last == "the first one, too" else tf.reduce_sum(weights[0] ** 2)
        return right_once(x)

    loss = tf.function(loss) if last == "a compiled function" else loss
    weights = [tf.constant(0.7, tf.float64)]
    with pytest.raises(ValueError, match="a gradient is stated by hand"):
        check_structure(loss, weights, None)
    check_structure(loss, weights, None, order=1)


def test_control_flow_of_a_loss_is_not_translated():
    """The compiled loops take a loss as it is written; so does the look at its structure."""

    def loss(weights, batch):
        value = tf.reduce_sum(weights[0] ** 2)
        return 2 * value if value > 1 else value

    with pytest.raises(tf.errors.OperatorNotAllowedInGraphError):
        second_derivatives.check_structure(loss, [tf.ones(3)], tf.zeros(1))
    with pytest.raises(tf.errors.OperatorNotAllowedInGraphError):
        difference(loss, [tf.ones(3, tf.float64)], tf.zeros(1))


def test_a_loss_is_looked_at_with_a_batch_of_the_kinds_that_it_has():
    kinds = []

    def loss(weights, batch):
        kinds[:] = [type(part) for part in (batch, *batch)]
        return tf.reduce_sum(weights[0] ** 2) * tf.reduce_sum(batch[1][0])

    for batch in ((np.ones(2), [np.ones(2)]), [np.ones(2), (np.ones(2), 3)]):
        second_derivatives.check_structure(loss, [tf.ones(3, tf.float64)], batch)
        assert kinds[::2] == [type(batch), type(batch[1])]


@pytest.mark.parametrize("size", [3.0, 0.0])
def test_directions_are_about_as_large_as_the_weights(size):
    """Of zeros they are about one; of normal numbers none of a thousand is beyond six."""
    generator = np.random.default_rng(0)
    found = second_derivatives._direction(generator, tf.fill((1000,), tf.constant(size)))
    assert np.sqrt(np.mean(np.square(found))) == pytest.approx(size or 1, rel=0.1)
    assert np.max(np.abs(found)) < 6 * (size or 1)


@pytest.mark.parametrize(
    ("slope", "curvature", "bound", "error", "sizes"),
    [
        (3.0, 3.0, 1e-6, 0.0, (1e-5,)),
        (3.0, 4.0, 0.3, 0.25, (1e-5,)),  # |6 - 8| / 8 along v = 2
        (3.0, 4.0, 0.2, 0.25, (1e-5, 1e-7, 1e-8, 1e-9, 1e-4)),
        (5.0, 5.0, 0.5, 0.4, (1e-5,)),  # |12 - 20| / (10 * 2): the slope alone is wrong
        (3.0, 0.0, 0.5, 1.0, (1e-5, 1e-7, 1e-8, 1e-9, 1e-4)),
    ],
)
def test_one_direction_by_hand(slope, curvature, bound, error, sizes):
    """The loss is 1.5 w^2 at w = 2, with a gradient and a Hessian product as they are given."""
    tried = []

    def first(weights):
        w = float(weights[0][0])
        tried.append(w - 2)
        return 1.5 * w**2, np.array([slope * w])

    def second(weights, v):
        return np.array([curvature * float(v[0][0])])

    one, v = ([tf.constant([2.0], tf.float64)] for _ in range(2))
    found = second_derivatives._along((first, second), one, v, bound)
    assert found == pytest.approx(error, rel=1e-6, abs=1e-8)
    steps = [s * 2 * h for h in sizes for s in (1, -1)]
    assert tried == pytest.approx([0, *steps], abs=1e-14)


def test_the_largest_error_of_directions_that_are_drawn_one_after_the_other(monkeypatch):
    errors, calls = iter([0.1, 0.3, 0.2]), []

    def along(functions, weights, v, bound):
        calls.append((v, bound))
        return next(errors)

    monkeypatch.setattr(second_derivatives, "_along", along)
    weights = [tf.constant([3.0, -3.0], tf.float64), tf.constant([[0.0]], tf.float64)]
    assert difference(None, weights, (), directions=3, bound=0.25, seed=5) == 0.3
    draw = np.random.default_rng(5)
    for v, bound in calls:
        assert bound == 0.25
        np.testing.assert_allclose(v[0], 3 * draw.normal(size=2), rtol=1e-14)
        np.testing.assert_allclose(v[1], draw.normal(size=(1, 1)), rtol=1e-14)
    assert len(calls) == 3


@pytest.fixture
def measured(monkeypatch):
    """Let differences find the error that is appended; return it, and how they were asked."""
    errors, calls = [], []

    def difference(*given, **options):
        calls.append((given, options))
        return errors[-1]

    monkeypatch.setattr(second_derivatives, "difference", difference)
    return errors, calls


def test_a_check_hands_on_what_it_is_given(measured):
    errors, calls = measured
    weights = [tf.ones(2, tf.float64)]
    errors.append(0.5)
    assert check("loss", weights, "batch", directions=2, bound=0.5, seed=7) == 0.5
    errors.append(1e-7)
    assert check("loss", weights, "batch") == 1e-7
    assert calls == [
        (("loss", weights, "batch"), {"directions": 2, "bound": 0.5, "seed": 7}),
        (("loss", weights, "batch"), {"directions": 3, "bound": 1e-6, "seed": 0}),
    ]
    errors.append(np.nan)
    shapes, batch = ((2, 2), (2,), (2, 3), (3,)), (np.ones((1, 2)), [0])
    with pytest.raises(ValueError, match=r"relative error of at most 0\.5 .* found nan"):
        check(tiny_loss, [tf.ones(shape) for shape in shapes], batch, bound=0.5)


def test_a_loss_is_judged_by_its_double_at_the_weights_in_double_precision(measured):
    errors, calls = measured

    def loss(weights, batch):
        return tf.reduce_sum(right(weights[0]))

    loss.in_float64 = lambda: "the double"
    weights, batch = [tf.constant([0.1, -0.5])], (np.ones(2),)
    for error in (np.nan, np.nextafter(1e-6, 1), np.inf):
        errors.append(error)
        with pytest.raises(ValueError, match=f"a relative error of {error:.2g}, from the loss"):
            check_structure(loss, weights, batch)
    errors.append(1e-6)
    check_structure(loss, weights, batch)
    assert len(calls) == 4
    for (exact, fine, of), options in calls:
        assert (exact, options) == ("the double", {"bound": 1e-6})
        assert of is batch
        assert [w.dtype.name for w in fine] == ["float64"]
        np.testing.assert_array_equal(fine[0], tf.cast(weights[0], tf.float64))


FLOW = {
    "cond": lambda x, on: tf.cond(on > 0, lambda: right_once(x), lambda: x),
    "cond, other branch": lambda x, on: tf.cond(on > 0, lambda: x, lambda: right_once(x)),
    "case": lambda x, on: tf.switch_case(tf.cast(on, tf.int32), [lambda: x, lambda: right_once(x)]),
    "loop": lambda x, on: tf.while_loop(
        lambda m, _: m < 2, lambda m, x: (m + 1, right_once(x)), (0, x)
    )[1],
    "map": lambda x, on: tf.map_fn(right_once, x),
    "function": lambda x, on: tf.function(right_once)(x),
    "function in a function": lambda x, on: tf.function(lambda x: tf.function(right_once)(x))(x),
}


@pytest.mark.parametrize("kind", FLOW)
def test_control_flow_and_compiled_functions_are_looked_into(kind):
    def loss(weights, batch):
        return tf.reduce_sum(FLOW[kind](weights[0], batch))

    found = suspects(loss, [tf.ones(2)], tf.ones([]))
    assert second_derivatives.CUSTOM in [what for _, what in found]


def test_a_place_is_the_scope_with_layers_as_the_model_names_them():
    for name, place in (
        ("op", "the loss"),
        ("body/op", "body"),
        ("net_1/body_12/op_3", "net_1/body"),
        ("body_x/body_1_2/op", "body_x/body_1"),
    ):
        assert second_derivatives._place(name, ["body", "body_1"]) == place


def test_the_form_of_a_batch_is_kept_with_shapes_and_types():
    given = {"a": [1.0, (None, np.ones((2, 3), "int8"))], "b": tf.ones(4)}
    assert second_derivatives._specs(given) == {
        "a": [tf.TensorSpec([], tf.float64), (None, tf.TensorSpec([2, 3], tf.int8))],
        "b": tf.TensorSpec([4], tf.float32),
    }


def test_what_may_be_at_fault_is_said_once_for_each_place_in_order():
    weights, custom = [tf.ones(2)], second_derivatives.CUSTOM
    assert suspects(scoped, weights, ()) == [("one", custom), ("other", custom)]

    def twice(weights, batch):
        return tf.reduce_sum(right_once(right_once(weights[0])) + tf.stop_gradient(weights[0]))

    stopped = second_derivatives.SUSPECTS["StopGradient"]
    assert suspects(twice, weights, ()) == [("the loss", custom), ("the loss", stopped)]
