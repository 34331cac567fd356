"""The mode in which a model is run: statistics, random numbers, float types; no side effects."""

import functools
import inspect
import threading

from prosper_utils.lookahead import second_derivatives
from prosper_utils.lookahead.descent import loss_and_gradient
from prosper_utils.lookahead.meta_gradient import meta_gradient
from prosper_utils.pruning import mode
from prosper_utils.pruning.networks import (
    as_loss,
    as_outputs,
    cross_entropy,
    dense_300_100,
    lenet5,
)
from prosper_utils.pruning.replacement import replaced

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given
from hypothesis import strategies as st
from keras import layers
from keras.src.backend.common.variables import AutocastScope
from keras.src.models.functional import Functional

GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.normal(size=(6, 8, 8, 3)).astype("float32")
WORDS = GENERATOR.normal(size=(6, 5, 4)).astype("float32")
LABELS = np.arange(6) % 3


@pytest.fixture(autouse=True)
def _seeded():
    """Fix what layers draw."""
    keras.utils.set_random_seed(0)


def network(*inner, shape=(8, 8, 3), head=None, dtype=None):
    """Return a model of inner layers and a dense one to 3 classes."""
    last = [layers.Flatten(dtype=dtype), head or layers.Dense(3, dtype=dtype)]
    return keras.Sequential([keras.Input(shape, dtype=dtype), *inner, *last])


def normalised(**options):
    """Return convolution, batch normalisation, dropout, dense."""
    return network(layers.Conv2D(4, 3), layers.BatchNormalization(**options), layers.Dropout(0.5))


class Subclassed(keras.Model):
    """A model that leaves it to Keras to tell its layers the mode."""

    def __init__(self):
        super().__init__()
        self.norm, self.drop = layers.BatchNormalization(), layers.Dropout(0.5)
        self.head = layers.Dense(3)

    def call(self, x):
        return self.head(self.drop(self.norm(keras.ops.reshape(x, (-1, 192)))))


class Told(Subclassed):
    """One that takes the mode, and does not pass it on."""

    def call(self, x, training=None):
        return super().call(x)


class Compiled(Subclassed):
    """One whose call is compiled, with control flow over a tensor."""

    @tf.function
    def call(self, x):
        if tf.reduce_sum(tf.abs(x)) > 0:
            x = 2 * x
        return super().call(x)


class Holding(Subclassed):
    """One that holds a compiled function."""

    def __init__(self):
        super().__init__()
        self.step = tf.function(lambda x: self.head(self.drop(self.norm(x))))

    def call(self, x):
        return self.step(tf.reshape(x, (-1, 192)))


def built(kind):
    """Return a model that has been called, as `fit` would."""
    model = kind()
    model(IMAGES)
    return model


def without_dropout(model):
    """Return what a model gives in training if its dropout keeps everything."""
    for layer in model._flatten_layers():
        if isinstance(layer, layers.Dropout):
            layer.rate = 0.0
    return model(IMAGES, training=True)


# Statistics


@pytest.mark.parametrize("kind", [normalised, Subclassed, Told])
def test_by_default_batch_statistics_and_no_dropout(kind):
    model = built(kind)
    weights, outputs = as_outputs(model)
    found = outputs(weights, IMAGES)
    np.testing.assert_allclose(found, without_dropout(model), rtol=1e-5, atol=1e-6)
    assert not np.allclose(found, model(IMAGES, training=False), atol=1e-2)


@pytest.mark.parametrize("kind", [normalised, Subclassed, Told])
def test_moving_statistics_are_inference(kind):
    model = built(kind)
    model.get_layer(index=1) if model.built else None
    weights, outputs = as_outputs(model, statistics="moving")
    np.testing.assert_allclose(outputs(weights, IMAGES), model(IMAGES, training=False), rtol=1e-6)


@pytest.mark.parametrize("kind", [Compiled, Holding])
def test_a_compiled_call_depends_on_the_weights_it_is_given(kind):
    model, plain = built(kind), built(Subclassed)
    plain.set_weights(model.get_weights())
    weights, loss = as_loss(model)
    x = 2 * IMAGES if kind is Compiled else IMAGES
    expected = loss_and_gradient(as_loss(plain)[1], weights, (x, LABELS))
    found = loss_and_gradient(loss, weights, (IMAGES, LABELS))
    compiled = tf.function(lambda w: loss_and_gradient(loss, w, (IMAGES, LABELS)))(weights)
    for result in (found, compiled):
        assert float(result[0]) == pytest.approx(float(expected[0]), rel=1e-6)
        for a, b in zip(result[1], expected[1], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
    assert model.call(IMAGES).shape == (6, 3)  # and is itself again


def test_what_keras_compiles_itself_stays_compiled():
    """Grouped convolutions fail on a CPU otherwise, once they are differentiated."""
    model = network(layers.Conv2D(4, 3), layers.Conv2D(4, 3, groups=2))
    weights, loss = as_loss(model, dtype="float64")
    batches = [(IMAGES, LABELS)] * 2
    once = meta_gradient(loss, weights, batches, learning_rate=0.1)
    again = meta_gradient(loss, weights, batches, learning_rate=0.1, method="unrolled")
    assert [g.shape for g in again] == [w.shape for w in weights]
    for a, b in zip(once, again, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_a_frozen_normalisation_keeps_to_its_moving_statistics():
    model = normalised()
    model.layers[1].trainable = False
    weights, outputs = as_outputs(model)
    assert len(weights) == 4
    np.testing.assert_allclose(outputs(weights, IMAGES), model(IMAGES, training=False), rtol=1e-5)


@pytest.mark.parametrize(("build", "images"), [(dense_300_100, 4), (lenet5, 4)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_without_normalisation_nothing_changes_to_the_last_bit(build, images, dtype):
    model = build(dtype=dtype)
    x = GENERATOR.normal(size=(images, 28, 28, 1))
    state = model.trainable_variables, model.non_trainable_variables
    expected, _ = model.stateless_call(*([v.value for v in s] for s in state), x, training=False)
    weights, outputs = as_outputs(model)
    np.testing.assert_array_equal(outputs(weights, x), expected)


@pytest.mark.parametrize("options", [{}, {"dropout": True}, {"statistics": "moving"}])
@pytest.mark.parametrize("dtype", [None, "float64"])
def test_no_state_changes(options, dtype):
    model = built(Subclassed)
    before = [v.numpy().copy() for v in model.variables]
    kept = [(layer, layer.trainable, layer.dtype_policy.name) for layer in mode.layers(model)]
    generator = keras.src.random.seed_generator.global_seed_generator().state.numpy().copy()
    weights, loss = as_loss(model, dtype=dtype, **options)
    batches = [(IMAGES, LABELS)] * 3
    meta_gradient(loss, weights, batches, learning_rate=0.1)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    assert kept == [(s, s.trainable, s.dtype_policy.name) for s in mode.layers(model)]
    after = keras.src.random.seed_generator.global_seed_generator().state.numpy()
    np.testing.assert_array_equal(after, generator)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"statistics": "none"}, "expected 'batch' or 'moving', found 'none'"),
        ({"statistics": "moving", "dropout": True}, "expected statistics 'batch' with it"),
        ({"dtype": "float16"}, "expected None, 'float32' or 'float64', found 'float16'"),
    ],
)
def test_an_unknown_mode_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        as_outputs(normalised(), **options)


# Random numbers

RANDOM = {
    "Dropout": (lambda: layers.Dropout(0.5), WORDS),
    "SpatialDropout1D": (lambda: layers.SpatialDropout1D(0.5), WORDS),
    "GaussianNoise": (lambda: layers.GaussianNoise(1.0), WORDS),
    "GaussianDropout": (lambda: layers.GaussianDropout(0.5), WORDS),
    "AlphaDropout": (lambda: layers.AlphaDropout(0.5), WORDS),
    "TimeDistributed": (lambda: layers.TimeDistributed(layers.Dropout(0.5)), WORDS),
    "LSTM": (lambda: layers.LSTM(3, dropout=0.5, recurrent_dropout=0.5), WORDS),
    "GRU": (lambda: layers.GRU(3, dropout=0.5, recurrent_dropout=0.5), WORDS),
    "SimpleRNN": (lambda: layers.SimpleRNN(3, dropout=0.5), WORDS),
    "stacked": (
        lambda: layers.RNN([layers.LSTMCell(3, dropout=0.5), layers.GRUCell(3, dropout=0.5)]),
        WORDS,
    ),
    "Bidirectional": (lambda: layers.Bidirectional(layers.LSTM(3, dropout=0.5)), WORDS),
    "ConvLSTM1D": (lambda: layers.ConvLSTM1D(3, 2, dropout=0.5), WORDS[:, :, :, None]),
    "nested model": (
        lambda: keras.Sequential([keras.Input((5, 4)), layers.Dense(3), layers.Dropout(0.5)]),
        WORDS,
    ),
    "SpatialDropout2D": (lambda: layers.SpatialDropout2D(0.5), IMAGES),
    "RandomFlip": (lambda: layers.RandomFlip(), IMAGES),
    "RandomTranslation": (lambda: layers.RandomTranslation(0.3, 0.3), IMAGES),
    "RandomContrast": (lambda: layers.RandomContrast(0.5, value_range=(0, 1)), IMAGES),
    "RandomErasing": (lambda: layers.RandomErasing(1.0), IMAGES),
}


@pytest.mark.parametrize("kind", RANDOM)
def test_what_draws_random_numbers_is_off_under_batch_statistics(kind):
    build, x = RANDOM[kind]
    model = network(build(), shape=x.shape[1:])
    weights, outputs = as_outputs(model)
    np.testing.assert_array_equal(outputs(weights, x), outputs(weights, x))
    np.testing.assert_allclose(outputs(weights, x), model(x, training=False), atol=1e-6)


@pytest.mark.parametrize("kind", RANDOM)
def test_masks_are_a_function_of_the_batch(kind):
    build, x = RANDOM[kind]
    model = network(build(), shape=x.shape[1:])
    weights, outputs = as_outputs(model, dropout=True)
    once = outputs(weights, x)
    np.testing.assert_array_equal(once, outputs(weights, np.array(x)))
    np.testing.assert_allclose(tf.function(outputs)(weights, x), once, atol=1e-5)
    assert not np.allclose(once, model(x, training=False))


def attention(dropout):
    """Return self-attention with dropout, and attention that draws by itself."""
    words = keras.Input((5, 4))
    x = layers.MultiHeadAttention(2, 3, dropout=dropout)(words, words)
    x = layers.Attention(dropout=dropout)([x, words])
    return keras.Model(words, layers.Dense(3)(layers.Flatten()(x)))


def test_dropout_in_attention():
    model = attention(0.5)
    weights, outputs = as_outputs(model)
    np.testing.assert_allclose(outputs(weights, WORDS), model(WORDS, training=False), atol=1e-6)
    weights, outputs = as_outputs(model, dropout=True)
    assert not np.allclose(outputs(weights, WORDS), model(WORDS, training=False))
    np.testing.assert_array_equal(outputs(weights, WORDS), outputs(weights, WORDS))


def test_different_batches_see_different_masks_of_the_right_share():
    model = network(layers.Dropout(0.25), head=layers.Dense(192, kernel_initializer="identity"))
    weights, outputs = as_outputs(model, dropout=True)
    ones = np.ones_like(IMAGES)
    masks = [outputs(weights, x).numpy() / x.reshape(6, -1) for x in (ones, 2 * ones)]
    assert not np.array_equal(*masks)
    for mask in masks:
        assert set(np.unique(mask.round(5))) == {0, np.float32(4 / 3).round(5)}
        assert abs((mask > 0).mean() - 0.75) < 0.06  # 1,152 draws: four deviations


@pytest.mark.parametrize("other", ["another order", "another number", "half"])
def test_the_fingerprint_tells_batches_apart(other):
    x = IMAGES.copy()
    changed = {
        "another order": x[::-1],
        "another number": x + (x == x[2, 3, 4, 1]),
        "half": x[:3],
    }
    found = int(mode.fingerprint(x))
    assert found == int(mode.fingerprint(tf.constant(x, tf.float64)))
    assert found == int(tf.function(mode.fingerprint)(x))
    assert found != int(mode.fingerprint(changed[other]))
    assert 0 <= found < 2**31
    assert (
        mode.fingerprint({"a": x, "b": [np.array(["one", "two"]), np.arange(3)]}).dtype == tf.int64
    )


NUMBERS = st.lists(st.integers(-4, 4), min_size=1, max_size=4)


@given(NUMBERS, NUMBERS, st.sampled_from(["int64", "int8", "float32"]))
@example([3, 1], [2, 2], "int64")  # a place more and a number less
@example([1, 0], [0, 1], "int64")
def test_different_numbers_have_different_fingerprints(one, other, dtype):
    found = [int(mode.fingerprint(np.array(numbers, dtype))) for numbers in (one, other)]
    assert (found[0] == found[1]) == (one == other)


def test_the_fingerprint_is_of_every_part_and_of_its_place():
    x, n = np.arange(6.0).reshape(2, 3), np.arange(6).reshape(2, 3)
    words, is_on = np.array([["one", "two"], ["six", ""]]), np.array([True, False])
    batch = {"x": x, "pair": [n, n + 1], "words": words, "is_on": is_on}
    others = [
        batch | {"x": np.nextafter(x.astype("float32"), 9).astype("float64")},
        batch | {"pair": [n + (n == 5), n + 1]},
        batch | {"pair": [n, n + 1 + (n == 0)]},
        batch | {"pair": [n + 1, n]},
        batch | {"words": np.array([["one", "two"], ["six", "."]])},
        batch | {"words": np.array([["six", "two"], ["one", ""]])},
        batch | {"words": np.array([["one", "tow"], ["six", ""]])},
        batch | {"is_on": ~is_on},
        batch | {"is_on": np.array([True, True])},
    ]
    found = [int(mode.fingerprint(b)) for b in (batch, *others)]
    assert len(set(found)) == len(found)
    assert int(mode.fingerprint(tf.nest.map_structure(np.copy, batch))) == found[0]


class Twice(layers.Layer):
    """A layer with two random number generators."""

    def __init__(self):
        super().__init__()
        self.generators = [keras.random.SeedGenerator(seed) for seed in (0, 1)]

    def call(self, x, training=None):
        shape = keras.ops.shape(x)
        if training:
            for generator in self.generators:
                x = x + keras.random.normal(shape, seed=generator)
        return x


@pytest.mark.parametrize("kind", [*RANDOM, "two generators"])
def test_all_seeds_of_a_model_are_found(kind):
    build, x = RANDOM.get(kind, (Twice, WORDS))
    model = network(build(), shape=x.shape[1:])
    wanted = [v for v in model.non_trainable_variables if "seed_generator" in v.path]
    assert len(wanted) >= (2 if kind == "two generators" else 1)
    assert {id(seed) for seed in mode.seeds(model)} == {id(v) for v in wanted}


def test_a_step_and_its_pull_back_see_the_same_masks():
    model = network(layers.Conv2D(3, 3, activation="tanh"), layers.Dropout(0.5))
    weights, loss = as_loss(model, dropout=True, dtype="float64")
    batches = [(IMAGES * k, LABELS) for k in (1, 2, 3, 1)]
    found = {
        method: meta_gradient(loss, weights, batches, learning_rate=0.3, method=method)
        for method in ("reverse", "checkpointed", "unrolled")
    }
    for method in ("reverse", "checkpointed"):
        for a, b in zip(found[method], found["unrolled"], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12)
    assert second_derivatives.check(loss, weights, batches[0]) < 1e-6


class Drawing(layers.Layer):
    """A layer that draws and normalises."""

    def __init__(self, norm=layers.BatchNormalization):
        super().__init__()
        self.seed_generator = keras.random.SeedGenerator(0)
        self.norm = norm()

    def build(self, shape):
        self.norm.build(shape)

    def call(self, x, training=None):
        noise = keras.random.normal(keras.ops.shape(x), seed=self.seed_generator)
        return self.norm(x + noise if training else x)


class Sampling(layers.Layer):
    """A layer that draws in inference, too, as in a variational autoencoder."""

    def __init__(self):
        super().__init__()
        self.seed_generator = keras.random.SeedGenerator(0)

    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x), seed=self.seed_generator)


def test_a_layer_that_draws_and_holds_statistics_is_refused_by_name():
    with pytest.raises(ValueError, match=r"layer 'drawing.*': expected random numbers in"):
        as_outputs(network(Drawing()))
    assert as_outputs(network(Drawing()), dropout=True)


def test_what_draws_in_inference_draws_the_same_numbers_each_time():
    model = network(Sampling())
    weights, outputs = as_outputs(model)
    found = outputs(weights, IMAGES)
    np.testing.assert_array_equal(outputs(weights, IMAGES), found)
    sampling = next(layer for layer in model.layers if isinstance(layer, Sampling))
    sampling.call = lambda x: x
    assert not np.allclose(outputs(weights, IMAGES), found)


def test_only_what_draws_in_training_alone_is_turned_off():
    dropout = layers.Dropout(0.5)
    assert mode.drawing(network(Sampling())) == []
    assert mode.drawing(network(dropout)) == [dropout]


# No edit outlives the call


class Raising(layers.Layer):
    """A layer that fails in a call."""

    broken = False

    def call(self, x):
        if self.broken:
            raise RuntimeError("broken")
        return x


PATCHED = [
    (layers.Dropout, "call"),
    (layers.LSTMCell, "call"),
    (mode.FUNCTION, "__call__"),
    (keras.DTypePolicy, "compute_dtype"),
    (keras.DTypePolicy, "variable_dtype"),
    (Functional, "_convert_inputs_to_tensors"),
]


def test_everything_is_restored_also_when_a_call_raises():
    before = [vars(owner)[name] for owner, name in PATCHED]
    model = network(layers.LSTM(3, dropout=0.5, return_sequences=True), Raising(), shape=(5, 4))
    for options in ({}, {"dropout": True}, {"dtype": "float64"}):
        weights, outputs = as_outputs(model, **options)
        model.layers[1].broken = True
        with pytest.raises(RuntimeError, match="broken"):
            tf.function(outputs)(weights, tf.cast(WORDS, weights[0].dtype))
        assert [vars(owner)[name] for owner, name in PATCHED] == before
        assert keras.src.backend.common.stateless_scope.get_stateless_scope() is None
        assert keras.src.backend.get_autocast_scope() is None
        model.layers[1].broken = False
        assert outputs(weights, WORDS).shape == (6, 3)
        assert model(WORDS, training=True).dtype == tf.float32


class RaisingCell(layers.SimpleRNNCell):
    """A recurrent cell that fails in a step, when the ones before have drawn their masks."""

    broken = False

    def call(self, x, states, training=None):
        if self.broken:
            raise RuntimeError("broken")
        return super().call(x, states, training=training)


def test_no_mask_of_a_recurrent_cell_outlives_a_call_that_raises():
    cells = [layers.GRUCell(3, dropout=0.5, recurrent_dropout=0.5), RaisingCell(3)]
    model = network(layers.RNN(cells), shape=(5, 4))
    weights, outputs = as_outputs(model, dropout=True)
    expected = outputs(weights, WORDS)
    cells[1].broken = True
    with pytest.raises(RuntimeError, match="broken"):
        tf.function(outputs)(weights, WORDS)
    assert cells[0]._dropout_mask is None
    assert cells[0]._recurrent_dropout_mask is None
    cells[1].broken = False
    np.testing.assert_array_equal(outputs(weights, WORDS), expected)


def test_a_replacement_is_for_one_thread_and_for_as_long_as_any_needs_it():
    class Owner:
        def number(self):
            return 1

    original, owner, inside, leave = Owner.number, Owner(), threading.Event(), threading.Event()
    seen = []

    def other():
        with replaced(Owner, "number", lambda original, self: original(self) + 10):
            seen.append(owner.number())
            inside.set()
            leave.wait(10)
            seen.append(owner.number())

    thread = threading.Thread(target=other)
    with replaced(Owner, "number", lambda original, self: original(self) + 100):
        thread.start()
        assert inside.wait(10)
        assert owner.number() == 101
        with replaced(Owner, "number", lambda original, self: 7):
            assert owner.number() == 7
        assert owner.number() == 101
    assert owner.number() == 1
    leave.set()
    thread.join()
    assert seen == [11, 11]
    assert Owner.number is original


def test_a_name_that_has_moved_is_an_error():
    message = r"Layer\.gone: expected a function to replace, found none"
    with pytest.raises(ValueError, match=message), replaced(layers.Layer, "gone", print):
        pass


def test_two_threads_in_different_modes_do_not_meet():
    model = normalised()
    ways = [{}, {"statistics": "moving"}, {"dropout": True}, {"dtype": "float64"}]
    runs = [as_outputs(model, **options) for options in ways]
    expected = [outputs(weights, IMAGES).numpy() for weights, outputs in runs]
    wrong = []

    def work(i):
        weights, outputs = runs[i]
        for _ in range(8):
            if not np.array_equal(outputs(weights, IMAGES), expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_private_names_are_where_we_look_for_them():
    """If this fails, Keras or TensorFlow has moved what `mode` uses."""
    for owner, name in PATCHED:
        assert name in vars(owner), f"{owner.__name__}.{name}"
    layer = layers.Dropout(0.5)
    assert [g.state.shape for g in layer._seed_generators] == [(2,)]
    assert list(layer._flatten_layers()) == [layer]
    assert callable(tf.function(print).python_function)
    assert tf.function(print)._autograph
    with AutocastScope("float64"):
        assert keras.Variable(1.0).dtype == "float64"
    assert isinstance(keras.StatelessScope().state_mapping, dict)


# Float types


def twice(dtype):
    """Return a network of many kinds of layers, with the same weights whatever its float type."""
    keras.utils.set_random_seed(0)
    options = {"dtype": dtype}
    images = keras.Input((8, 8, 3), dtype="float64" if dtype == "float64" else None)
    x = layers.Rescaling(1 / 3, offset=0.1, **options)(images)
    x = layers.Conv2D(4, 3, activation="leaky_relu", **options)(x)
    x = layers.BatchNormalization(**options)(x)
    x = layers.Dropout(0.5, **options)(x)
    x = layers.SeparableConv2D(4, 3, activation="gelu", **options)(x)
    x = layers.GroupNormalization(2, **options)(x)
    x = layers.Reshape((16, 4), **options)(x)
    x = layers.LSTM(3, return_sequences=True, **options)(x)
    x = layers.MultiHeadAttention(2, 3, dropout=0.1, **options)(x, x)
    x = layers.LayerNormalization(**options)(x)
    inner = keras.Input((16, 3), dtype="float64" if dtype == "float64" else None)
    dense = layers.Dense(2, **options)(layers.Flatten(**options)(inner))
    x = keras.Model(inner, dense, dtype=dtype)(x)
    return keras.Model(images, layers.Dense(3, **options)(x), dtype=dtype)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("statistics", ["batch", "moving"])
def test_float64_is_that_of_the_same_network_built_in_float64(policy, statistics):
    model, exact = twice(policy), twice("float64")
    exact.set_weights([w.astype("float64") for w in model.get_weights()])
    x = GENERATOR.normal(size=(4, 8, 8, 3))  # not to be rounded to float32
    batch = x, LABELS[:4]
    weights, loss = as_loss(model, statistics=statistics, dtype="float64")
    right, other = as_loss(exact, statistics=statistics)
    assert {w.dtype for w in weights} == {tf.float64}
    value, gradient = loss_and_gradient(loss, weights, batch)
    expected, slopes = loss_and_gradient(other, right, batch)
    assert float(value) == pytest.approx(float(expected), rel=1e-12)
    for a, b in zip(gradient, slopes, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
    assert model.layers[2].dtype_policy.name == policy
    assert model(x).dtype == model.layers[-1].compute_dtype


def test_float64_of_a_chain_does_not_round_its_inputs():
    """A `keras.Sequential` converts its inputs by a rule of its own, alone or within a model."""
    x, labels = np.random.default_rng(1).normal(size=(5, 6)), LABELS[:5]
    chain = keras.Sequential([keras.Input((6,)), layers.Dense(4, "tanh"), layers.Dense(3)])
    whole = keras.Input((6,))
    for model in (chain, keras.Model(whole, chain(whole)), keras.Sequential([whole, chain])):
        for batch in ((x, labels), (tf.constant(x), labels)):
            weights, loss = as_loss(model, dtype="float64")
            logits = tf.tanh(x @ weights[0] + weights[1]) @ weights[2] + weights[3]
            assert float(loss(weights, batch)) == pytest.approx(
                float(cross_entropy(logits, labels)), rel=1e-14
            )


def test_float64_of_a_subclassed_model():
    model = built(Subclassed)
    weights, loss = as_loss(model, dtype="float64")
    single, _ = as_loss(model)
    assert loss(weights, (IMAGES, LABELS)).dtype == tf.float64
    assert second_derivatives.check(loss, weights, (IMAGES, LABELS)) < 1e-6
    with pytest.raises(ValueError, match="the model computes in float64, found float32"):
        loss(single, (IMAGES, LABELS))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_mixed_model_is_run_in_the_type_of_its_weights(policy):
    mixed, plain = twice(policy), twice("float32")
    batch = GENERATOR.normal(size=(4, 8, 8, 3)).astype("float32"), LABELS[:4]
    runs = [loss_and_gradient(loss, w, batch) for w, loss in map(as_loss, (mixed, plain))]
    assert float(runs[0][0]) == pytest.approx(float(runs[1][0]), rel=1e-6)
    for a, b in zip(runs[0][1], runs[1][1], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize(
    ("types", "dtype", "expected"),
    [
        (["float32", "float32"], None, ("float32", None)),
        (["float64", "float64"], None, ("float64", "float64")),  # the model is of float32
        (["float32", "float32"], "float64", ("float64", "float64")),
        (["float32", "mixed_float16"], None, ("float32", "float32")),
        (["mixed_bfloat16", "float32"], None, ("float32", "float32")),
        (["float32", "float64"], None, (None, None)),
        (["float32", "float64"], "float32", ("float32", "float32")),
        (["float16", "float16"], "float64", ("float64", "float64")),
    ],
)
def test_the_type_of_the_weights_and_that_of_the_arithmetic(types, dtype, expected):
    stages = [layers.Dense(3, dtype=kind) for kind in types]
    model = keras.Sequential([keras.Input((4,)), *stages])
    assert mode.float_type(model, dtype) == expected


@pytest.mark.parametrize("policy", ["float16", "bfloat16"])
def test_weights_in_half_precision_are_refused_unless_another_type_is_asked_for(policy):
    model = network(layers.Dense(4, dtype=policy), dtype=policy)
    with pytest.raises(ValueError, match="which hold no second derivative: run it with dtype="):
        as_loss(model)
    weights, loss = as_loss(model, dtype="float32")
    assert loss(weights, (IMAGES, LABELS)).dtype == tf.float32


def test_what_layers_add_to_the_loss_is_returned_on_demand():
    conv = layers.Conv2D(2, 3, kernel_regularizer="l2", activity_regularizer="l1")
    model = network(conv)
    weights, outputs = as_outputs(model, losses=True, dtype="float64")
    _, added = outputs([2 * w for w in weights], IMAGES)
    assert len(added) == 2
    l2 = np.float32(0.01).astype("float64") * tf.reduce_sum((2 * weights[0]) ** 2)
    assert any(float(a) == pytest.approx(float(l2), rel=1e-12) for a in added)


def test_what_stands_there_by_now_is_what_is_replaced_and_comes_back():
    class Owner:
        def number(self):
            return 1

    def ten_more(original, self):
        return original(self) + 10

    with replaced(Owner, "number", ten_more):
        assert Owner().number() == 11
    Owner.number = lambda self: 2
    with replaced(Owner, "number", ten_more):
        assert Owner().number() == 12
    assert Owner().number() == 2


def test_a_package_whose_name_begins_as_keras_does_is_not_keras():
    model = built(Holding)
    model.step.python_function.__module__ = "keras_hub.layers"
    weights, outputs = as_outputs(model)
    first = outputs(weights, IMAGES)
    other = outputs([2 * w for w in weights], IMAGES)
    assert not np.allclose(first, other)


class Deep(layers.Layer):
    """A layer that draws, and normalises further in."""

    def __init__(self):
        super().__init__()
        self.seed_generator = keras.random.SeedGenerator(0)
        self.inner = keras.Sequential([layers.Dense(3), layers.BatchNormalization(name="deep")])

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x, training=None):
        noise = keras.random.normal(keras.ops.shape(x), seed=self.seed_generator)
        return self.inner(x + noise if training else x)


def test_statistics_further_inside_of_what_draws_are_found():
    with pytest.raises(ValueError, match=r"layer 'deep.*': expected random .* found 'deep' inside"):
        as_outputs(network(Deep(), shape=(5,)))


def test_the_type_of_the_arithmetic_is_looked_up_in_models_within_too():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, dtype="mixed_float16")])
    model = keras.Sequential([keras.Input((4,)), inner, layers.Dense(3)])
    assert mode.float_type(model) == ("float32", "float32")


def test_a_name_that_has_moved_to_a_base_is_an_error():
    class Base:
        def number(self):
            return 1

    class Child(Base):
        pass

    refused = pytest.raises(ValueError, match=r"Child\.number: expected a function to replace")
    with refused, replaced(Child, "number", lambda original, self: 2):
        pass
    assert "number" not in vars(Child)


def test_each_layer_draws_masks_of_its_own_for_each_batch():
    x = keras.Input((50,))
    h = layers.Dense(50, kernel_initializer="identity")(x)
    model = keras.Model(x, [layers.Dropout(0.5, seed=seed)(h) for seed in (1, 2)])
    weights, outputs = as_outputs(model, dropout=True)
    ones = np.ones((6, 50), "float32")
    drawn = [y.numpy() != 0 for batch in (ones, 2 * ones) for y in outputs(weights, batch)]
    assert len({mask.tobytes() for mask in drawn}) == 4


def test_masks_do_not_follow_later_draws_of_the_model():
    model = network(layers.Dropout(0.5))
    weights, outputs = as_outputs(model, dropout=True)
    before = outputs(weights, IMAGES).numpy()
    model(IMAGES, training=True)  # draws, and moves the seed on
    np.testing.assert_array_equal(outputs(weights, IMAGES), before)


def test_many_words_have_as_many_fingerprints():
    found = {int(mode.fingerprint(np.array([f"word {n}"]))) for n in range(200)}
    assert len(found) == 200


@pytest.mark.parametrize("kind", ["method", "function", "not translated"])
def test_what_is_compiled_inside_is_translated_as_it_was_compiled(kind):
    """Translated, an `if` over a tensor is one of the graph; else it has to be written as such."""

    def branches(x):
        if tf.reduce_sum(x) > 0:
            x = doubled_until_large(x)
        return x

    def doubled_until_large(x):  # what is called is translated, too
        while tf.reduce_sum(x) < 16:
            x = 2 * x
        return x

    class Switch(layers.Layer):
        def __init__(self):
            super().__init__()
            step = {"method": self.branches, "function": branches, "not translated": self.chosen}
            self.step = tf.function(step[kind], autograph=kind != "not translated")

        def branches(self, x):
            if tf.reduce_sum(x) > 0:
                x = doubled_until_large(x)
            return x

        def chosen(self, x):
            return tf.cond(tf.reduce_sum(x) > 0, lambda: 2 * x, lambda: x)

        def call(self, x):
            return self.step(x)

    same = layers.Dense(4, use_bias=False, kernel_initializer="identity")
    weights, outputs = as_outputs(keras.Sequential([keras.Input((4,)), same, Switch()]))
    compiled = tf.function(outputs, autograph=False)
    for x in (np.ones((2, 4), "float32"), -np.ones((2, 4), "float32")):
        np.testing.assert_array_equal(compiled(weights, x), x * (1 + (x > 0)))


def test_what_was_compiled_without_translation_is_not_translated():
    """It may be written so that only plain Python understands it."""
    seen = []

    class Watching(layers.Layer):
        def __init__(self):
            super().__init__()
            self.step = tf.function(self.watched, autograph=False)

        def watched(self, x):
            seen.append(inspect.currentframe().f_code.co_filename)
            return 2 * x

        def call(self, x):
            return self.step(x)

    model = keras.Sequential([keras.Input((4,)), layers.Dense(4), Watching()])
    weights, outputs = as_outputs(model)
    seen.clear()
    outputs(weights, np.ones((2, 4), "float32"))
    assert seen == [__file__]


def test_what_stands_in_has_the_signature_that_keras_reads():
    class Owner:
        def number(self, x, *, training=None):
            """Return x."""
            return x

    def told():
        return inspect.signature(Owner.number), Owner.number.__name__, Owner.number.__doc__

    plain = told()
    with replaced(Owner, "number", lambda original, self, x: x + 1):
        assert Owner().number(1) == 2
        assert told() == plain


def test_a_name_that_comes_later_can_be_replaced_then():
    class Owner:
        pass

    refused = pytest.raises(ValueError, match=r"Owner\.number: expected a function to replace")
    with refused, replaced(Owner, "number", lambda original, self: original(self) + 1):
        pass
    Owner.number = lambda self: 1
    with replaced(Owner, "number", lambda original, self: original(self) + 1):
        assert Owner().number() == 2
    assert Owner().number() == 1


class Either(layers.Layer):
    """A layer of one class that draws, or else normalises."""

    def __init__(self, *, draws):
        super().__init__()
        self.seed_generator = keras.random.SeedGenerator(0) if draws else None
        self.norm = None if draws else layers.BatchNormalization()

    def call(self, x, training=None):
        if self.norm is not None:
            return self.norm(x, training=training)
        return x + keras.random.normal((6, 5), seed=self.seed_generator) if training else x


def test_of_one_class_only_the_layers_that_draw_are_off():
    model = network(Either(draws=True), Either(draws=False), shape=(5,))
    x = GENERATOR.normal(size=(6, 5)).astype("float32")
    weights, outputs = as_outputs(model)
    plain = layers.BatchNormalization()(x, training=True)
    np.testing.assert_allclose(outputs(weights, x), model.layers[-1](plain), atol=1e-5)


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 63))
def test_every_bit_of_a_whole_number_counts(number, bit):
    other = np.array([number], "int64") ^ np.left_shift(np.int64(1), np.int64(bit))
    assert int(mode.fingerprint(np.array([number], "int64"))) != int(mode.fingerprint(other))


@pytest.mark.parametrize("name", ["dtype", "compute_dtype", "variable_dtype"])
def test_a_layer_that_goes_by_its_type_finds_the_one_that_is_computed_in(name):
    class Casting(layers.Layer):
        def call(self, x):
            return tf.cast(x, getattr(self, name))

    x = np.random.default_rng(0).normal(size=(3, 4))
    same = layers.Dense(4, use_bias=False, kernel_initializer="identity")
    model = keras.Sequential([keras.Input((4,)), same, Casting()])
    weights, outputs = as_outputs(model, dtype="float64")
    np.testing.assert_array_equal(outputs(weights, x), x)
    assert model(x).dtype == tf.float32


def test_a_variable_that_a_layer_shares_with_others_is_read_in_the_type_that_is_computed_in():
    shared = [keras.Variable(np.ones(4, "float32"))]  # in a place where Keras does not find it

    class Adding(layers.Layer):
        def call(self, x):
            return tf.add(x, shared[0])

    x = np.random.default_rng(0).normal(size=(3, 4))
    same = layers.Dense(4, use_bias=False, kernel_initializer="identity")
    weights, outputs = as_outputs(
        keras.Sequential([keras.Input((4,)), same, Adding()]), dtype="float64"
    )
    np.testing.assert_array_equal(outputs(weights, x), x + 1)


def test_values_are_there_for_every_variable_and_inside_only():
    model = network(layers.Dense(2), shape=(4,))
    variables = model.trainable_variables
    before = [v.numpy() for v in variables]
    with pytest.raises(ValueError, match="zip"):
        mode.Values(variables, before[:-1])
    with mode.Values(variables, [tf.cast(b + 1, "float64") for b in before]):
        for variable, value in zip(variables, before, strict=True):
            np.testing.assert_array_equal(variable.value, value + np.float64(1))
    for variable, value in zip(variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


class Whole(layers.Layer):
    """A layer that passes whole numbers on, and notes what it is given."""

    def __init__(self, seen, dtype="int32"):
        super().__init__(dtype=dtype)
        self.note = seen.append  # of a list Keras would keep a copy

    def call(self, x):
        self.note((x.dtype, self.compute_dtype, self.variable_dtype))
        return x


@pytest.mark.parametrize("form", ["chain", "model", "chain in a model"])
@pytest.mark.parametrize(("policy", "computed"), [("int32", "int32"), ("float32", "float64")])
def test_whole_numbers_stay_what_they_are_whatever_the_float_type(form, policy, computed):
    """A layer of floats is given them as they are; one of whole numbers would round others."""
    seen, words = [], keras.Input((3,), dtype="int32")
    table = layers.Embedding(5, 2)
    if form == "model":
        made = table(Whole(seen, policy)(words))
    else:
        chain = keras.Sequential([keras.Input((3,), dtype="int32"), Whole(seen, policy), table])
        made = chain(words)
    model = chain if form == "chain" else keras.Model(words, made)
    weights, outputs = as_outputs(model, dtype="float64")
    x = np.array([[0, 4, 2]], "int32")
    seen.clear()
    np.testing.assert_array_equal(outputs(weights, x), weights[0].numpy()[x])
    assert seen == [(tf.int32, computed, computed)]


def test_the_type_of_a_layer_of_whole_numbers_is_no_float_type():
    model = keras.Sequential([keras.Input((3,), dtype="int32"), Whole([]), layers.Embedding(5, 2)])
    assert mode.float_type(model) == ("float32", None)
    assert mode.float_type(model, "float64") == ("float64", "float64")


def test_a_weight_of_another_type_than_its_layer_is_computed_in_what_is_asked_for():
    class Own(layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(shape=(3,), dtype="float64")

        def call(self, x):
            return x * keras.ops.cast(self.scale, x.dtype)

    model = keras.Sequential([keras.Input((3,)), Own()])
    assert mode.float_type(model) == ("float64", "float64")
    assert mode.float_type(model, "float32") == ("float32", "float32")


class Statistics(layers.BatchNormalization):
    """A batch normalisation by another name."""


def test_of_all_layers_that_draw_none_may_hold_statistics():
    """Not the second one either, nor a normalisation of a class of one's own."""
    drawing = Drawing()
    model = network(layers.Dropout(0.5), drawing, layers.Dropout(0.5), shape=(5,))
    with pytest.raises(ValueError, match=rf"layer '{drawing.name}': .* found 'batch_norm.* inside"):
        as_outputs(model)
    drawing = Drawing(Statistics)
    with pytest.raises(ValueError, match=rf"layer '{drawing.name}': .* found 'statistics.* inside"):
        as_outputs(network(drawing, shape=(5,)))


@pytest.mark.parametrize(
    ("package", "stays"),
    [
        ("keras.src.ops.nn", True),
        ("tensorflow.python.ops.math_ops", True),
        ("keras", True),
        ("tensorflow_probability.python", False),
        ("kerastuner", False),
        ("mine.keras", False),
    ],
)
def test_only_what_keras_and_tensorflow_compile_stays_compiled(package, stays):
    def plain(*args, **kwargs):
        return "plain", args, kwargs

    def original(function, *args, **kwargs):
        assert function is compiled
        return "compiled", args, kwargs

    plain.__module__ = package
    compiled = tf.function(plain, autograph=False)
    found = mode._inline(original, compiled, 1, 2, of=3)
    assert found == ("compiled" if stays else "plain", (1, 2), {"of": 3})


class Doubling:
    """What can be called, and is no function."""

    def __call__(self, x):
        return 2 * x


def untranslatable():
    """Return functions that double, and whose source cannot be looked up or translated."""
    names = {}
    exec("def written(x):\n    return 2 * x", {"__name__": "mine"}, names)
    partial = functools.partial(lambda factor, x: factor * x, 2)
    return [names["written"], eval("lambda x: 2 * x"), partial, Doubling()]


@pytest.mark.parametrize("number", range(4), ids=["written", "lambda", "partial", "object"])
def test_what_cannot_be_translated_is_run_as_it_is(number):
    class Compiling(layers.Layer):
        def __init__(self):
            super().__init__()
            self.step = tf.function(untranslatable()[number])

        def call(self, x):
            return self.step(x)

    same = layers.Dense(4, use_bias=False, kernel_initializer="identity")
    model = keras.Sequential([keras.Input((4,)), same, Compiling()])
    weights, outputs = as_outputs(model)
    x = np.ones((2, 4), "float32")
    np.testing.assert_array_equal(outputs(weights, x), 2 * x)
    np.testing.assert_array_equal(outputs([3 * w for w in weights], x), 6 * x)


def elsewhere(call):
    """Return what a call returns in another thread."""
    found = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    thread.join()
    return found[0]


def test_all_that_a_call_is_given_arrives_here_and_in_other_threads():
    class Owner:
        def number(self, x, *, more=0):
            return x + more

        @property
        def size(self):
            return 1

    class Other:
        def number(self, x, *, more=0):
            return -x - more

    owner, other, kept = Owner(), Other(), vars(Owner)["size"]
    with (
        replaced(Owner, "number", lambda original, *args, **kwargs: 10 * original(*args, **kwargs)),
        replaced(Owner, "size", lambda original, self: original(self) + 1),
    ):
        assert (owner.number(1, more=2), owner.number(x=1), owner.size) == (30, 10, 2)
        assert elsewhere(lambda: (owner.number(1, more=2), owner.size)) == (3, 1)
        assert other.number(1, more=2) == -3
        with replaced(Other, "number", lambda original, *args, **kwargs: original(*args, more=5)):
            assert (other.number(1, more=2), owner.number(1, more=2)) == (-6, 30)
        assert other.number(1, more=2) == -3
    assert (owner.number(1, more=2), owner.size) == (3, 1)
    assert vars(Owner)["size"] is kept


@pytest.mark.parametrize("nested", [False, True])
def test_a_replacement_that_raises_is_taken_back(nested):
    class Owner:
        def number(self):
            return 1

    original = Owner.number

    def broken(original, self):
        raise RuntimeError("broken")

    def run():
        with replaced(Owner, "number", broken):
            Owner().number()

    if nested:
        with replaced(Owner, "number", lambda original, self: original(self) + 1):
            with pytest.raises(RuntimeError, match="broken"):
                run()
            assert Owner().number() == 2
    else:
        with pytest.raises(RuntimeError, match="broken"):
            run()
    assert Owner.number is original
    assert Owner().number() == 1


class Scaling(layers.Layer):
    """A layer that draws, and takes a number by its name and one by its name only."""

    def __init__(self):
        super().__init__()
        self.seed_generator = keras.random.SeedGenerator(0)

    def call(self, x, by=1.0, training=None, *, plus=0.0):
        noise = keras.random.normal(keras.ops.shape(x), seed=self.seed_generator)
        return by * x + plus + (noise if training else 0.0)


def test_what_a_layer_that_is_off_is_called_with_by_name_arrives():
    inputs = keras.Input((4,))
    same = layers.Dense(4, use_bias=False, kernel_initializer="identity")
    model = keras.Model(inputs, Scaling()(same(inputs), by=2.0, plus=3.0))
    weights, outputs = as_outputs(model)
    np.testing.assert_array_equal(outputs(weights, np.ones((2, 4), "float32")), np.full((2, 4), 5))


def test_what_else_a_layer_that_is_off_is_called_with_arrives():
    """A causal mask, a mask of what is there, and a first state."""
    words = keras.Input((5, 4))
    x = layers.MultiHeadAttention(2, 3, dropout=0.5)(words, words, use_causal_mask=True)
    x = layers.GRU(3, dropout=0.5)(x, initial_state=layers.Dense(3)(words[:, 0]))
    y = layers.LSTM(3, dropout=0.5)(layers.Masking()(words))
    model = keras.Model(words, layers.Concatenate()([x, y]))
    some = WORDS * (np.arange(5) < 3)[:, None]
    weights, outputs = as_outputs(model)
    np.testing.assert_allclose(outputs(weights, some), model(some, training=False), atol=1e-6)
