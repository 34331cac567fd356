"""Streaming: every curvature against the explicit Hessian, the product against its laws."""

import functools

from prosper_utils.lookahead import streaming
from prosper_utils.lookahead.meta_gradient import loss_and_gradient, meta_gradient
from prosper_utils.lookahead.streaming import (
    StreamingGamma,
    dense_diagonal,
    diagonal,
    flat,
    gauss_newton_diagonal,
    hessian_product,
    hutchinson,
    one_probe,
    row_sums,
    split,
    step_errors,
    streamed,
)
from prosper_utils.pruning.networks import as_logits, as_loss
from prosper_utils.study.checks import relative_error

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import right_once, tiny_loss
from hypothesis import given, settings
from hypothesis import strategies as st

layers = keras.layers
seeds = st.integers(0, 2**32 - 1)


@tf.function(autograph=False)
def hessian_rows(loss, vector, weights, batch):
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(vector)
        gradient = flat(loss_and_gradient(loss, split(vector, weights), batch)[1])
    return tape.jacobian(gradient, vector, experimental_use_pfor=False)


def explicit_hessian(loss, weights, batch):
    """Return the whole Hessian, one row for each entry of the gradient; traced once for a loss."""
    return hessian_rows(loss, flat(weights), weights, batch).numpy()


def explicit_diagonal(loss, weights, batch):
    return split(tf.constant(np.diag(explicit_hessian(loss, weights, batch))), weights)


def network(hidden, shape=(5,), *, seed=0):
    """Return a small float64 model with three classes and random biases, its loss and a batch."""
    keras.utils.set_random_seed(seed)
    output = layers.Dense(3, dtype="float64")
    model = keras.Sequential([keras.Input(shape, dtype="float64"), *hidden, output])
    generator = np.random.default_rng(seed)
    model.set_weights([generator.normal(size=w.shape) / 2 for w in model.get_weights()])
    x = generator.normal(size=(9, *shape))
    batch = tf.constant(x), tf.constant(generator.integers(0, 3, 9), tf.uint8)
    return model, *as_loss(model), batch


def dense(units, activation, **options):
    return layers.Dense(units, activation, dtype="float64", **options)


def chain(activation):
    return network([dense(6, activation), dense(4, activation)])


def quadratic(weights, batch):
    """Return w'Hw/2 - r'w for the batch (H, r): its Hessian is H."""
    (w,), (hessian, shift) = weights, batch
    return tf.tensordot(w, tf.linalg.matvec(hessian, w) / 2 - shift, 1)


def random_quadratic(seed, size):
    generator = np.random.default_rng(seed)
    matrix = generator.normal(size=(size, size))
    batch = tf.constant(matrix + matrix.T), tf.constant(generator.normal(size=size))
    return [tf.constant(generator.normal(size=size))], batch


def separable(weights, batch):
    """Return a loss whose Hessian is diagonal and changes with weights and batch."""
    return sum(tf.reduce_sum(s * w**2 / 2 + tf.cos(w + s)) for s, w in zip(batch, weights))  # noqa: B905


def separable_run(seed, steps):
    generator = np.random.default_rng(seed)
    shapes = [(2, 3), (4,)]
    batches = [[tf.constant(generator.normal(size=s)) for s in shapes] for _ in range(steps + 1)]
    return [tf.constant(generator.normal(size=s)) for s in shapes], batches


def given_factors(factors):
    """Return a StreamingGamma at learning rate 1 and the batches whose factors are those given."""
    factors = np.asarray(factors)
    start = [tf.zeros(factors.shape[1:], factors.dtype)]
    gamma = StreamingGamma(None, start, 1.0, lambda loss, weights, batch: [batch])
    for factor in factors:
        gamma.update(start, tf.constant(1 - factor))
    return gamma


# Curvatures


def test_hessian_product_equals_differences_of_gradients(reference):
    weights, batches, _ = reference
    vector = [tf.cos(w) for w in weights]
    sides = []
    for sign in (1, -1):
        moved = [w + sign * 1e-5 * v for w, v in zip(weights, vector, strict=True)]
        sides.append(loss_and_gradient(tiny_loss, moved, batches[0])[1])
    differences = [(a - b) / 2e-5 for a, b in zip(*sides, strict=True)]
    found = hessian_product(tiny_loss, weights, batches[0], vector)
    assert relative_error(found, differences) < 1e-8


@given(seeds, st.integers(1, 6))
@settings(max_examples=20)
def test_hessian_product_of_a_quadratic(seed, size):
    weights, batch = random_quadratic(seed, size)
    found = hessian_product(quadratic, weights, batch, [tf.sin(weights[0])])
    np.testing.assert_allclose(found[0], batch[0].numpy() @ np.sin(weights[0]), atol=1e-12)


def test_a_weight_without_influence_has_no_curvature(reference):
    weights, batches, _ = reference
    idle = [*weights, tf.ones(2, tf.float64)]
    for curvature in (row_sums, diagonal, hutchinson(2, 0)):
        found = curvature(lambda w, batch: tiny_loss(w[:4], batch), idle, batches[0])
        np.testing.assert_array_equal(found[4], [0.0, 0.0])
    linear = hessian_product(lambda w, batch: tf.reduce_sum(w[0]), idle, None, idle)
    assert not any(np.any(h) for h in linear)


def test_row_sums_are_row_sums_and_not_the_diagonal(reference):
    weights, batches, _ = reference
    hessian = explicit_hessian(tiny_loss, weights, batches[0])
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-14)
    found = row_sums(tiny_loss, weights, batches[0])
    assert relative_error([flat(found)], [hessian.sum(axis=1)]) < 1e-12
    assert relative_error([flat(found)], [np.diag(hessian)]) > 0.5


def test_diagonal_is_the_diagonal(reference):
    weights, batches, _ = reference
    expected = explicit_diagonal(tiny_loss, weights, batches[0])
    assert relative_error(diagonal(tiny_loss, weights, batches[0]), expected) < 1e-12


def test_diagonal_refuses_more_weights_than_it_can_do():
    few, many = [[tf.zeros(n)] for n in (2000, 2001)]
    assert diagonal(lambda w, batch: tf.reduce_sum(w[0] ** 2), few, None)[0].shape == (2000,)
    halves = [tf.zeros(1000), tf.zeros((7, 143))]
    for several in (many, halves):
        with pytest.raises(ValueError, match=r"at most 2,000 weights .* found 2,001"):
            diagonal(lambda w, batch: tf.reduce_sum(w[0] ** 2), several, None)


def test_control_flow_of_a_loss_is_not_translated():
    """A loss is taken as it is written, in what is compiled as in what is not."""

    def loss(weights, batch):
        value = tf.reduce_sum(weights[0] ** 2)
        return 2 * value if value > 1 else value

    def logits(weights, x):
        z = x @ weights[0]
        return 2 * z if tf.reduce_sum(z) > 1 else z

    x = tf.ones((2, 3))
    with pytest.raises(tf.errors.OperatorNotAllowedInGraphError):
        diagonal(loss, [tf.ones(3)], None)
    with pytest.raises(tf.errors.OperatorNotAllowedInGraphError):
        gauss_newton_diagonal(logits)(None, [tf.ones((3, 2))], (x, tf.zeros(2, tf.int64)))


RELU = {
    "dense": ([dense(6, "relu"), dense(4, "relu")], (5,)),
    "average": (
        [
            layers.Conv2D(2, 3, activation="relu", dtype="float64"),
            layers.AveragePooling2D(2, dtype="float64"),
            layers.Flatten(dtype="float64"),
            dense(4, "relu"),
        ],
        (6, 6, 1),
    ),
    "maximum": (
        [
            layers.Conv2D(2, 3, activation="leaky_relu", padding="same", dtype="float64"),
            layers.MaxPooling2D(2, dtype="float64"),
            layers.Flatten(dtype="float64"),
        ],
        (4, 4, 2),
    ),
}


@pytest.mark.parametrize("kind", RELU)
def test_gauss_newton_is_the_diagonal_of_relu_networks(kind):
    model, weights, loss, batch = network(*RELU[kind])
    found = gauss_newton_diagonal(as_logits(model)[1])(loss, weights, batch)
    assert relative_error(found, explicit_diagonal(loss, weights, batch)) < 1e-12
    assert min(float(tf.reduce_min(f)) for f in found) >= 0


def test_gauss_newton_is_not_the_diagonal_under_tanh():
    model, weights, loss, batch = chain("tanh")
    found = gauss_newton_diagonal(as_logits(model)[1])(loss, weights, batch)
    expected = explicit_diagonal(loss, weights, batch)
    assert relative_error(found, expected) > 0.1
    # but the logits are linear in the last layer, so there it is
    assert relative_error(found[-2:], expected[-2:]) < 1e-12


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "softplus", "gelu", "relu", "linear"])
def test_second_order_backpropagation_is_the_diagonal(activation):
    model, weights, loss, batch = chain(activation)
    found = dense_diagonal(model)(loss, weights, batch)
    assert relative_error(found, explicit_diagonal(loss, weights, batch)) < 1e-12


@pytest.mark.parametrize("order", ["channels_last", "channels_first"])
def test_second_order_backpropagation_with_flatten_and_without_biases(order):
    flatten = layers.Flatten(order, dtype="float64")
    hidden = [flatten, dense(6, "tanh", use_bias=False), dense(4, "elu")]
    model, weights, loss, batch = network(hidden, (2, 3, 2))
    found = dense_diagonal(model)(loss, weights, batch)
    assert relative_error(found, explicit_diagonal(loss, weights, batch)) < 1e-12


def test_second_order_backpropagation_of_a_single_kernel():
    model = keras.Sequential([keras.Input((4,)), dense(3, None, use_bias=False)])
    weights, loss = as_loss(model)
    batch = np.random.default_rng(0).normal(size=(5, 4)), np.arange(5) % 3
    found = dense_diagonal(model)(loss, weights, batch)
    assert relative_error(found, explicit_diagonal(loss, weights, batch)) < 1e-12


def bad_models():
    frozen = network([dense(3, "tanh")])[0]
    frozen.layers[0].trainable = False
    functional = network([dense(3, "tanh")])[0]
    return {
        "found Conv2D": network(RELU["average"][0], (6, 6, 1))[0],
        "found Dropout": network([layers.Dropout(0.5)])[0],
        "elementwise activation .* found .*softmax": network([dense(3, "softmax")])[0],
        "found Dense": network([dense(3, "tanh"), layers.Flatten()], (2, 2))[0],
        "trainable weights": frozen,
        "built keras.Sequential": keras.Model(functional.inputs, functional.outputs),
        "a built": keras.Sequential([dense(3, "tanh")]),
    }


@pytest.mark.parametrize("message", bad_models())
def test_second_order_backpropagation_refuses_other_networks(message):
    with pytest.raises(ValueError, match=message):
        dense_diagonal(bad_models()[message])


@pytest.mark.parametrize("part", ["kernel_regularizer", "activity_regularizer"])
def test_second_order_backpropagation_refuses_another_loss(part):
    hidden = [dense(3, "tanh", name="hidden", **{part: "l2"})]
    model, weights, loss, batch = network(hidden)
    curvature = dense_diagonal(model)
    with pytest.raises(ValueError, match=r"mean softmax cross-entropy .* found another value"):
        curvature(loss, weights, batch)
    with pytest.raises(tf.errors.InvalidArgumentError, match="found another value"):
        tf.function(curvature)(loss, weights, batch)
    _, alone = as_loss(model, regularisation=False)
    found = curvature(alone, weights, batch)
    assert relative_error(found, explicit_diagonal(alone, weights, batch)) < 1e-12


@pytest.mark.parametrize(("margin", "off"), [(1e-3, 1e-5), (100.0, 0.02)])
def test_another_loss_is_told_from_rounding_by_its_size(margin, off):
    logits, labels = tf.constant([[0.0, np.log(np.expm1(margin))]], tf.float64), tf.constant([0])
    mean = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)[0]
    np.testing.assert_allclose(mean, margin, rtol=1e-9)
    for sign in (-1, 1):
        streaming._refuse_other(mean + sign * 5e-5 * margin, logits, labels)
        with pytest.raises(ValueError, match="found another value"):
            streaming._refuse_other(mean + sign * off, logits, labels)


@pytest.mark.parametrize("probes", [1, 4])
def test_hutchinson_has_the_stated_mean_and_standard_error(probes):
    weights, batch = random_quadratic(3, 5)
    hessian, repeats = batch[0].numpy(), 300
    curvature = tf.function(hutchinson(probes, 1))
    found = np.array([curvature(quadratic, weights, batch)[0] for _ in range(repeats)])
    off = hessian - np.diag(np.diag(hessian))
    variance = np.sum(off**2, axis=1) / probes
    error = np.abs(found.mean(axis=0) - np.diag(hessian))
    assert np.all(error < 4 * np.sqrt(variance / repeats))
    np.testing.assert_allclose(found.var(axis=0), variance, rtol=0.25)


def test_hutchinson_draws_new_probes_in_an_order_that_its_seed_fixes():
    weights, batch = random_quadratic(0, 6)
    runs = []
    for seed in (0, 0, 1):
        curvature = hutchinson(1, seed)
        runs.append([curvature(quadratic, weights, batch)[0].numpy() for _ in range(3)])
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0][0], runs[0][1])
    assert not np.array_equal(runs[0], runs[2])
    for few in (0, -1):
        with pytest.raises(ValueError, match=f"at least 1 probe, found {few}"):
            hutchinson(few, 0)


def test_one_probe_begins_the_sequence_of_its_seed_each_time():
    weights, batch = random_quadratic(0, 6)
    expected = hutchinson(probes=1, seed=0)(quadratic, weights, batch)
    for _ in range(2):
        np.testing.assert_array_equal(one_probe()(quadratic, weights, batch), expected)
    assert one_probe() is one_probe()


def test_curvatures_may_be_compiled():
    model, weights, loss, batch = chain("tanh")
    logits = as_logits(model)[1]
    for curvature in (row_sums, diagonal, dense_diagonal(model), gauss_newton_diagonal(logits)):
        found = tf.function(curvature)(loss, weights, batch)
        assert relative_error(found, curvature(loss, weights, batch)) < 1e-14
    compiled = tf.function(hutchinson(1, 0))  # it draws anew in every call, not when traced
    first, second = (compiled(loss, weights, batch)[0].numpy() for _ in range(2))
    assert not np.array_equal(first, second)


# The product


@given(
    st.lists(
        st.lists(
            st.one_of(st.just(0.0), st.floats(0.01, 100), st.floats(-100, -0.01)),
            min_size=3,
            max_size=3,
        ),
        min_size=0,
        max_size=8,
    )
)
def test_sum_of_logarithms_and_sign_equal_the_product(factors):
    factors = np.reshape(factors, (-1, 3))
    gamma = given_factors(factors)
    expected = np.prod(1 - (1 - factors), axis=0)  # as the class computes them, at rate 1
    np.testing.assert_allclose(gamma.product()[0], expected, rtol=1e-12)
    np.testing.assert_array_equal(gamma.sign()[0], np.sign(expected))
    by_logarithm = gamma.sign()[0] * np.exp(gamma.log_product()[0])
    np.testing.assert_allclose(by_logarithm, expected, rtol=1e-12)
    assert gamma.steps == len(factors)


def test_logarithms_and_signs_do_not_underflow_where_the_product_does():
    factors, weights = np.array([[0.98, -0.98]] * 9_999 + [[0.98, 0.98]], "float32"), [tf.zeros(2)]
    curvature = lambda loss, weights, batch: [batch[0]]  # noqa: E731
    gamma = StreamingGamma(lambda w, batch: tf.reduce_sum(w[0]), weights, 1.0, curvature)
    gamma.follow(weights, (tf.constant(1 - factors), tf.zeros(len(factors))))
    np.testing.assert_array_equal(gamma.product()[0], [0, 0])
    np.testing.assert_array_equal(gamma.sign()[0], [1, -1])
    assert not np.any(np.exp(gamma.log_product()[0]))  # to exponentiate is to underflow again
    np.testing.assert_allclose(gamma.log_product()[0], 10_000 * np.log(0.98), rtol=1e-3)


def test_zero_stays_zero_even_after_an_overflow():
    factors = np.array([[1e30, 2.0], [-1e30, 2.0], [0.0, 2.0], [1e30, -2.0]], np.float32)
    gamma = given_factors(factors)
    np.testing.assert_array_equal(gamma.product()[0], [0.0, -16.0])
    np.testing.assert_array_equal(gamma.sign()[0], [0.0, -1.0])
    np.testing.assert_allclose(gamma.log_product()[0], [-np.inf, np.log(16)], rtol=1e-6)
    np.testing.assert_array_equal(gamma.scores([tf.ones(2)], [tf.ones(2)])[0], [0.0, -16.0])


def test_scores_and_their_logarithms():
    gamma = given_factors([[0.5, -2.0, 3.0, 0.0, 4.0]])
    w = tf.constant([-1.0, 3.0, 0.0, 2.0, 1.0], tf.float64)
    g = tf.constant([2.0, 0.5, 1.0, 1.0, 0.0], tf.float64)
    np.testing.assert_allclose(gamma.scores([w], [g])[0], [-1.0, -3.0, 0.0, 0.0, 0.0])
    logarithms = gamma.log_scores([w], [g])[0]
    np.testing.assert_allclose(logarithms, [0.0, np.log(3), -np.inf, -np.inf, -np.inf], atol=1e-15)


def test_a_score_of_zero_is_zero_where_the_product_is_infinite():
    gamma = given_factors(np.full((2, 2), 1e30, np.float32))
    assert np.all(np.isinf(gamma.product()[0]))
    found = gamma.scores([tf.constant([0.0, 1.0])], [tf.ones(2)])[0]
    np.testing.assert_array_equal(found, [0.0, np.inf])


def test_logarithms_rank_where_products_over_and_underflow():
    factors = np.float32([[16, 32, 1 / 8, 1 / 4]] * 100)
    gamma = given_factors(factors)
    np.testing.assert_array_equal(gamma.product()[0], [np.inf, np.inf, 0, 0])
    found = gamma.log_scores([tf.ones(4)], [tf.ones(4)])[0]
    np.testing.assert_allclose(found, 100 * np.log(factors[0].astype(float)), rtol=1e-5)


ALIKE = diagonal, row_sums, hutchinson(1, 0)  # where the Hessian is diagonal, whatever is drawn


@given(seeds, st.integers(0, 6), st.floats(0.01, 2.0))
@settings(max_examples=25)
def test_streaming_is_exact_for_diagonal_hessians(seed, steps, alpha):
    weights, batches = separable_run(seed, steps)
    expected = meta_gradient(separable, weights, batches, learning_rate=alpha, method="unrolled")
    for curvature in ALIKE:
        found = streamed(separable, weights, batches, alpha, curvature)
        assert relative_error(found, expected) < 1e-10


def test_streaming_is_not_exact_otherwise(reference):
    weights, batches, _ = reference
    expected = meta_gradient(tiny_loss, weights, batches[:4], learning_rate=0.5, method="unrolled")
    for curvature in (diagonal, row_sums):
        found = streamed(tiny_loss, weights, batches[:4], 0.5, curvature)
        assert relative_error(found, expected) > 0.01


def test_streaming_equals_its_formula(reference):
    weights, batches, _ = reference
    at, product = weights, np.ones(sum(w.shape.num_elements() for w in weights))
    for batch in batches[:3]:
        product *= 1 - 0.5 * np.diag(explicit_hessian(tiny_loss, at, batch))
        _, gradient = loss_and_gradient(tiny_loss, at, batch)
        at = [w - 0.5 * g for w, g in zip(at, gradient, strict=True)]
    _, gradient = loss_and_gradient(tiny_loss, at, batches[3])
    expected = flat(weights) * product * flat(gradient)
    found = streamed(tiny_loss, weights, batches[:4], 0.5, diagonal)
    assert relative_error([flat(found)], [expected]) < 1e-12


def test_the_curvature_is_taken_before_the_weights_move(reference):
    weights, batches, _ = reference

    def curvature(loss, weights, batch):  # tells every weight and every batch from all others
        return [tf.sin(w) + tf.reduce_mean(batch[0]) for w in weights]

    product, at = [1.0 for _ in weights], weights
    for x, y in batches[:3]:  # none on the last batch
        product = [p * (1 - 0.5 * (np.sin(w) + x.mean())) for p, w in zip(product, at, strict=True)]
        _, gradient = loss_and_gradient(tiny_loss, at, (x, y))
        at = [w - 0.5 * g for w, g in zip(at, gradient, strict=True)]
    _, gradient = loss_and_gradient(tiny_loss, at, batches[3])
    expected = [w * p * g for w, p, g in zip(weights, product, gradient, strict=True)]
    found = streamed(tiny_loss, weights, batches[:4], 0.5, curvature)
    assert relative_error(found, expected) < 1e-14


CURVATURES = {
    "row sums": lambda model: row_sums,
    "diagonal": lambda model: diagonal,
    "Gauss-Newton": lambda model: gauss_newton_diagonal(as_logits(model)[1]),
    "second-order backpropagation": dense_diagonal,
    "Hutchinson": lambda model: hutchinson(2, 3),
}


def step_by_step(gamma, weights, batches):
    """Do what `follow` does, one `update` and one step after the other."""
    for batch in batches:
        gamma.update(weights, batch)
        _, gradient = loss_and_gradient(gamma.loss, weights, batch)
        weights = [w - gamma.learning_rate * g for w, g in zip(weights, gradient, strict=True)]
    return weights


def assert_same(gamma, other):
    assert gamma.steps == other.steps
    for name in ("product", "sign", "log_product"):
        assert relative_error(getattr(gamma, name)(), getattr(other, name)()) < 1e-12, name


@pytest.mark.parametrize("kind", CURVATURES)
def test_compiled_steps_equal_steps_one_by_one(kind):
    model, weights, loss, (x, y) = chain("tanh")
    batches = [(x + m, y) for m in range(5)]
    one, other = (StreamingGamma(loss, weights, 0.3, CURVATURES[kind](model)) for _ in range(2))
    expected = step_by_step(one, weights, batches)
    found = other.follow(other.follow(weights, batches, 2), batches[2:])  # and in two parts
    assert relative_error(found, expected) < 1e-12
    assert_same(other, one)
    gradient = loss_and_gradient(loss, found, batches[0])[1]
    scores = streamed(loss, weights, [*batches, batches[0]], 0.3, CURVATURES[kind](model))
    assert relative_error(scores, one.scores(weights, gradient)) < 1e-12


def test_compiled_steps_take_batches_of_any_form():
    _, weights, loss, (x, y) = chain("tanh")
    x, y = x.numpy(), y.numpy()
    forms = {
        "one length": [(x + m, y) for m in range(65)],  # more than a chunk
        "two lengths": [(x[: 9 - m % 2], y[: 9 - m % 2]) for m in range(4)],
        "weighted": [(x, y, np.arange(9.0) + m) for m in range(4)],
    }
    stacked = np.stack([x, x + 1, x + 2]), np.stack([y, y, y])
    forms |= {"arrays": stacked, "tensors": tuple(map(tf.constant, stacked))}
    forms["data set"] = tf.data.Dataset.from_tensor_slices(stacked)
    for form, batches in forms.items():
        listed = batches if isinstance(batches, list) else list(zip(*stacked, strict=True))
        one, other = (StreamingGamma(loss, weights, 0.1, row_sums) for _ in range(2))
        expected = step_by_step(one, weights, listed)
        assert relative_error(other.follow(weights, batches), expected) < 1e-12, form
        assert_same(other, one)


def test_a_curvature_of_compiled_steps_sees_batches_as_they_are():
    def loss(weights, batch):
        return tf.reduce_mean(tf.tanh(batch[0]["a"] * weights[0] + batch[0]["b"]) ** 2)

    def curvature(loss, weights, batch):
        return [tf.reduce_mean(batch[0]["a"] - 2 * batch[0]["b"]) * weights[0]]

    draw, weights = np.random.default_rng(0), [tf.constant([0.5, -1.0], tf.float64)]
    batches = [({k: draw.normal(size=(4, 2)) for k in "ab"}, np.zeros(4)) for _ in range(3)]
    one, other = (StreamingGamma(loss, weights, 0.1, curvature) for _ in range(2))
    expected = step_by_step(one, weights, batches)
    assert relative_error(other.follow(weights, batches), expected) < 1e-12
    assert_same(other, one)


def test_without_steps_it_is_weight_times_gradient(reference):
    weights, batches, _ = reference
    expected = meta_gradient(tiny_loss, weights, batches[:1], learning_rate=0.5)
    assert relative_error(streamed(tiny_loss, weights, batches[:1], 0.5, None), expected) < 1e-14


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_float_type_is_kept(dtype):
    weights, batches = separable_run(0, 2)
    cast = lambda tensors: [tf.cast(t, dtype) for t in tensors]  # noqa: E731
    found = streamed(separable, cast(weights), [cast(b) for b in batches], 0.1, row_sums)
    assert [f.dtype.name for f in found] == [dtype] * 2


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_curvature_that_is_not_finite_raises(bad):
    gamma = StreamingGamma(None, [tf.ones(2)] * 2, 0.1, lambda loss, weights, batch: batch)
    gamma.update([tf.ones(2)] * 2, [tf.ones(2)] * 2)
    with pytest.raises(ValueError, match=r"weights\[1\] in step 1, found NaN or infinite"):
        gamma.update([tf.ones(2)] * 2, [tf.ones(2), tf.constant([1.0, bad])])
    np.testing.assert_allclose(gamma.product(), np.full((2, 2), 0.9))  # left as it was
    np.testing.assert_allclose(gamma.log_product(), np.full((2, 2), np.log(0.9)), rtol=1e-6)
    assert gamma.steps == 1


def test_a_fault_in_compiled_steps_is_named_and_nothing_is_taken_up():
    def curvature(loss, weights, batch):
        return [tf.ones_like(weights[0]), batch]

    def loss(weights, batch):
        return tf.reduce_sum(weights[0])

    weights = [tf.ones(2), tf.ones(2)]
    for bad in (np.nan, np.inf, -np.inf):
        gamma = StreamingGamma(loss, weights, 0.1, curvature)
        gamma.follow(weights, [tf.ones(2)] * 3)
        for zero in (1.0, 10.0):  # also after a factor of zero
            batches = [tf.fill([2], zero), tf.constant([1.0, bad]), tf.ones(2)]
            with pytest.raises(ValueError, match=r"weights\[1\] in step 4, found NaN or infinite"):
                gamma.follow(weights, batches)
        np.testing.assert_allclose(gamma.product(), np.full((2, 2), 0.9**3), rtol=1e-6)
        assert gamma.steps == 3
    gamma = StreamingGamma(loss, weights, 0.1, curvature)
    gamma.follow(weights, [tf.fill([2], 10.0)] * 2)  # a factor of zero is no fault
    np.testing.assert_array_equal(gamma.log_product()[1], [-np.inf] * 2)


def test_compiled_steps_raise_the_error_of_the_curvature():
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3), keras.layers.BatchNormalization()]
    )
    batch = np.random.default_rng(0).normal(size=(5, 4)).astype("float32"), np.arange(5) % 3
    weights, loss = as_loss(model)
    gamma = StreamingGamma(loss, weights, 0.1, gauss_newton_diagonal(as_logits(model)[1]))
    with pytest.raises(ValueError, match="expected logits of one example that do not depend on"):
        gamma.follow(weights, [batch] * 2)


@pytest.mark.parametrize(
    "curvature",
    [
        lambda loss, weights, batch: [w.numpy() for w in weights],
        lambda loss, weights, batch: [np.asarray(w) ** 2 for w in weights],
        lambda loss, weights, batch: [w * float(tf.reduce_sum(w)) for w in weights],
    ],
)
def test_a_curvature_that_cannot_be_traced_is_refused_in_words(curvature):
    weights, batches = separable_run(0, 3)
    gamma = StreamingGamma(separable, weights, 0.1, curvature)
    with pytest.raises(ValueError, match=r"that a tf.function can trace, found one that ends in"):
        gamma.follow(weights, batches)
    gamma.update(weights, batches[0])  # step by step it serves
    assert gamma.steps == 1


WAYS = {
    "update": lambda gamma, weights: gamma.update(weights, tf.ones(1)),
    "follow": lambda gamma, weights: gamma.follow(weights, [tf.ones(1)]),
}


GIVEN = {way: ("weights", call) for way, call in WAYS.items()} | {
    "weights of scores": ("weights_0", lambda gamma, w: gamma.scores(w, [tf.ones(2)])),
    "gradient of scores": ("gradient", lambda gamma, g: gamma.scores([tf.ones(2)], g)),
    "weights of logarithms": ("weights_0", lambda gamma, w: gamma.log_scores(w, [tf.ones(2)])),
    "gradient of logarithms": ("gradient", lambda gamma, g: gamma.log_scores([tf.ones(2)], g)),
}


@pytest.mark.parametrize("way", GIVEN)
@pytest.mark.parametrize(
    "found", [[tf.ones(3)], [tf.ones(2)] * 2, [tf.ones([])], [tf.ones(2, tf.float64)], []]
)
def test_weights_and_gradients_of_other_shapes_or_types_raise(way, found):
    """Otherwise a gradient of one number would be broadcast."""
    gamma = StreamingGamma(None, [tf.ones(2)], 0.1, lambda loss, weights, batch: [weights[0]])
    name, call = GIVEN[way]
    with pytest.raises(ValueError, match=rf"{name}: expected tensors \(2,\) of float32, found"):
        call(gamma, found)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("found", [[tf.ones(3)], [tf.ones(2)] * 2, [tf.ones([])]])
def test_a_curvature_of_other_shapes_raises(way, found):
    gamma = StreamingGamma(None, [tf.ones(2)], 0.1, lambda *_: found)
    with pytest.raises(ValueError, match=r"expected shapes \[\(2,\)\], found"):
        WAYS[way](gamma, [tf.ones(2)])


def test_a_curvature_whose_shape_is_known_only_when_it_runs_is_not_broadcast():
    def shorter(loss, weights, batch):
        return [tf.boolean_mask(weights[0], [True, False])]

    def loss(weights, batch):
        return tf.reduce_sum(batch * weights[0] ** 2)

    gamma = StreamingGamma(loss, [tf.ones(2)], 0.1, shorter)
    for way in WAYS.values():
        with pytest.raises(ValueError, match=r"expected shapes \[\(2,\)\], found \[\(1,\)\]"):
            way(gamma, [tf.ones(2)])


LOOKS = {
    "streamed": lambda *run: streamed(*run, learning_rate=0.5, curvature=row_sums),
    "step_errors": lambda *run: step_errors(*run, learning_rate=0.5, curvature=row_sums),
    "follow": lambda loss, w, data: StreamingGamma(loss, w, 0.5, row_sums).follow(w, data),
    "meta_gradient": lambda *run: meta_gradient(*run, learning_rate=0.5),
}


@pytest.mark.parametrize("name", LOOKS)
def test_a_data_set_is_looked_through_once_since_it_may_be_shuffled_anew(name, reference):
    weights, batches, _ = reference
    looks = []

    def each():
        looks.append(name)
        yield from batches

    kinds = tuple(tf.TensorSpec(part.shape, part.dtype) for part in batches[0])
    data = tf.data.Dataset.from_generator(each, output_signature=kinds)
    data = data.apply(tf.data.experimental.assert_cardinality(len(batches)))
    found, expected = (LOOKS[name](tiny_loss, weights, given) for given in (data, batches))
    assert looks == [name]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_bad_input_and_divergence_are_named(reference):
    weights, batches, _ = reference
    with pytest.raises(ValueError, match="one float type"):
        streamed(tiny_loss, [tf.ones(2, tf.int32)], batches, 0.1, row_sums)
    with pytest.raises(ValueError, match="at least 1"):
        streamed(tiny_loss, weights, [], 0.1, row_sums)
    for broken, message in [(1, "in step 1, found NaN"), (2, "loss nan after 2 inner steps")]:
        bad = [(np.array(x), y) for x, y in batches[:3]]
        bad[broken][0][0, 0] = np.nan
        with pytest.raises(ValueError, match=message):
            streamed(tiny_loss, weights, bad, 0.1, row_sums)


def test_flat_and_split_are_inverse():
    tensors = [tf.constant(t) for t in ([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [7.0, 8.0], 9.0)]
    np.testing.assert_array_equal(flat(tensors), np.arange(1, 10))
    assert relative_error(split(flat(tensors), tensors), tensors) == 0


@pytest.mark.parametrize("compiled", [False, True])
def test_examples_that_depend_on_each_other_have_no_gauss_newton_matrix(compiled):
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3), keras.layers.BatchNormalization()]
    )
    batch = np.random.default_rng(0).normal(size=(5, 4)).astype("float32"), np.arange(5) % 3
    weights, logits = as_logits(model)
    curvature = gauss_newton_diagonal(logits)
    run = tf.function(curvature) if compiled else curvature
    error = tf.errors.InvalidArgumentError if compiled else ValueError
    with pytest.raises(error, match="expected logits of one example that do not depend on"):
        run(None, weights, batch)
    weights, logits = as_logits(model, statistics="moving")
    found = gauss_newton_diagonal(logits)(None, weights, batch)
    assert [f.shape for f in found] == [w.shape for w in weights]


def test_of_no_examples_none_depends_on_another():
    """The mean over none is no number, which is what a score is refused for."""
    weights = [tf.ones((2, 3))]
    found = gauss_newton_diagonal(lambda w, x: x @ w[0])(None, weights, (tf.zeros((0, 2)), None))
    assert np.all(np.isnan(found[0]))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("k", range(3))
def test_one_example_that_depends_on_the_others_is_enough_to_be_refused(k, compiled):
    weights, x = [tf.reshape(tf.range(6.0), (2, 3))], tf.constant([[1, 0], [0, 1], [2.0, 0]])

    def logits(weights, x):
        z = x @ weights[0]
        return z + tf.one_hot(k, tf.shape(x)[0])[:, None] * (tf.reduce_mean(z, axis=0) - z)

    curvature = gauss_newton_diagonal(logits)
    run = tf.function(curvature) if compiled else curvature
    error = tf.errors.InvalidArgumentError if compiled else ValueError
    with pytest.raises(error, match="expected logits of one example that do not depend on"):
        run(None, weights, (x, None))


def test_probes_of_two_weights_of_one_shape_are_independent():
    """The loss is w . u, so H z is (z_u, z_w) and z * H z is z_w z_u, of mean zero."""
    loss, weights = (
        lambda w, _: tf.tensordot(w[0], w[1], 1),
        [tf.ones(400, tf.float64) for _ in range(2)],
    )
    first, second = hutchinson(1, 0)(loss, weights, None)
    np.testing.assert_array_equal(first, second)
    assert abs(np.mean(first)) < 4 / np.sqrt(400)


@pytest.mark.parametrize("sweep", [streamed, step_errors])
def test_second_derivatives_have_to_be_right_if_there_is_a_step(sweep):
    def wrong(weights, batch):
        return tf.reduce_sum(right_once(weights[0] * batch) ** 2)

    weights, batches = [tf.constant([0.1, -0.5], "float64")], [np.ones(2)] * 3
    for steps in (1, 2):
        with pytest.raises(ValueError, match="a gradient is stated by hand"):
            sweep(wrong, weights, batches[: steps + 1], 0.1, row_sums)
    found = sweep(wrong, weights, batches[:1], 0.1, row_sums)
    if sweep is streamed:
        expected = weights[0] * loss_and_gradient(wrong, weights, batches[0])[1][0]
        np.testing.assert_array_equal(*found, expected)
    else:
        assert len(found) == 0


@pytest.mark.parametrize("curvature", [row_sums, diagonal, hutchinson(3, 0)])
def test_one_tensor_as_two_weights_has_two_curvatures(curvature):
    def loss(weights, batch):
        return tf.reduce_sum(weights[0] ** 2 * tf.sin(weights[1]))

    once = tf.constant([0.6, -1.1], tf.float64)
    if curvature not in (row_sums, diagonal):
        found, expected = (hutchinson(3, 0)(loss, w, None) for w in both(once))
    else:
        found, expected = (curvature(loss, w, None) for w in both(once))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def both(tensor):
    """Return a tensor as two weights, and two tensors of the same values."""
    return [tensor, tensor], [tensor, tf.constant(tensor.numpy())]


def test_one_tensor_as_two_weights_has_two_parts_of_the_gauss_newton_matrix():
    def logits(weights, x):
        return tf.stack([x * weights[0], x * weights[1] ** 2, x], axis=-1)

    once = tf.constant(0.6, tf.float64)
    batch = tf.constant([0.4, -1.0, 2.0], tf.float64), tf.constant([0, 1, 2])
    found, expected = (gauss_newton_diagonal(logits)(None, w, batch) for w in both(once))
    np.testing.assert_array_equal(found, expected)
    assert found[0] != found[1]


@pytest.mark.parametrize("name", ["product", "sign", "log_product"])
def test_what_is_handed_out_may_be_changed(name):
    gamma = given_factors([[0.5, -2.0]])
    found = getattr(gamma, name)()
    kept = [*found]
    found.clear()
    assert relative_error(getattr(gamma, name)(), kept) == 0


@pytest.mark.parametrize("count", [4, -1])
def test_no_other_steps_are_counted_than_there_are_batches(count):
    weights, batches = separable_run(0, 2)
    batches = [tuple(batch) for batch in batches]
    gamma = StreamingGamma(separable, weights, 0.1, row_sums)
    for form in (batches, tuple(map(tf.stack, zip(*batches, strict=True)))):
        with pytest.raises(
            ValueError, match=f"count: expected a number from 0 to 3, found {count}"
        ):
            gamma.follow(weights, form, count)
    assert gamma.steps == 0


def test_gauss_newton_of_two_inputs_by_hand():
    """Of linear logits it is the mean of x^2 p (1 - p), and zero for what they do not depend on."""
    draw = np.random.default_rng(0)
    x = {"a": draw.normal(size=(3, 2)), "b": draw.normal(size=3)}
    kernel, bias = draw.normal(size=(2, 4)), draw.normal(size=4)

    def logits(weights, x):
        return x["a"] @ weights[0] + x["b"][:, None] * weights[1]

    weights = [tf.constant(w) for w in (kernel, bias, np.ones(2))]
    batch = tf.nest.map_structure(tf.constant, x), None
    found = gauss_newton_diagonal(logits)(None, weights, batch)
    z = np.exp(x["a"] @ kernel + x["b"][:, None] * bias)
    p = z / z.sum(axis=1, keepdims=True)
    expected = [(x["a"] ** 2).T @ (p * (1 - p)) / 3, (x["b"] ** 2) @ (p * (1 - p)) / 3, np.zeros(2)]
    for part, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(part, right, rtol=1e-12)


@pytest.mark.parametrize(
    ("off", "refused"), [(3e-3, False), (-3e-3, False), (5e-3, True), (-5e-3, True)]
)
def test_logits_that_the_others_move_are_told_from_rounding_by_their_size(off, refused):
    """By a thousandth of the largest in the batch, here 4, whatever their signs are."""

    def logits(weights, x):
        return x @ weights[0] + off * tf.cast(tf.shape(x)[0] > 1, tf.float64)

    weights = [tf.constant([[-4.0, -1.0]], tf.float64)]
    arguments = None, weights, (tf.ones((3, 1), tf.float64), None)
    if refused:
        with pytest.raises(ValueError, match="logits of one example that do not depend on"):
            gauss_newton_diagonal(logits)(*arguments)
    else:
        p = 1 / (1 + np.exp(3))
        (found,) = gauss_newton_diagonal(logits)(*arguments)
        np.testing.assert_allclose(found, [[p * (1 - p)] * 2], rtol=1e-12)


def test_logits_that_are_all_zero_depend_on_no_other_example():
    weights, x = [tf.zeros((1, 2))], tf.ones((3, 1))
    (found,) = gauss_newton_diagonal(lambda w, x: x @ w[0])(None, weights, (x, None))
    np.testing.assert_allclose(found, [[0.25, 0.25]])


@pytest.mark.parametrize("hidden", [[], [4]])
def test_second_order_backpropagation_with_bent_logits_and_inputs_of_another_type(hidden):
    draw = np.random.default_rng(1)
    chained = [dense(units, "sigmoid") for units in hidden]
    model = keras.Sequential([keras.Input((5,), dtype="float64"), *chained, dense(3, "tanh")])
    weights, loss = as_loss(model)
    weights = [tf.constant(draw.normal(size=w.shape)) for w in weights]
    batch = draw.normal(size=(7, 5)).astype("float32"), np.arange(7, dtype="int32") % 3
    found = dense_diagonal(model)(loss, weights, batch)
    assert relative_error(found, explicit_diagonal(loss, weights, batch)) < 1e-12


class Own(layers.Dense):
    """A layer that may compute something else."""


def test_second_order_backpropagation_refuses_what_it_cannot_know_and_any_frozen_layer():
    slanted = functools.partial(keras.activations.leaky_relu, negative_slope=0.3)
    frozen = network([dense(3, "tanh")])[0]
    frozen.layers[-1].trainable = False
    for model, message in (
        (network([Own(3, "tanh", dtype="float64", name="at_fault")])[0], "found Own 'at_fault'"),
        (network([dense(4, slanted, name="at_fault")])[0], "elementwise activation in 'at_fault'"),
        (network([dense(4, layers.LeakyReLU(), name="own")])[0], "activation in 'own'"),
        (frozen, f"expected trainable weights in '{frozen.layers[-1].name}'"),
    ):
        with pytest.raises(ValueError, match=message):
            dense_diagonal(model)


@pytest.mark.parametrize("count", [0, 2])
def test_as_many_steps_are_made_as_are_counted(count):
    weights, batches = separable_run(0, 3)
    batches = [tuple(batch) for batch in batches]
    one = StreamingGamma(separable, weights, 0.1, row_sums)
    expected = step_by_step(one, weights, batches[:count])
    for form in (batches, tuple(map(tf.stack, zip(*batches, strict=True))), tuple(batches)):
        gamma = StreamingGamma(separable, weights, 0.1, row_sums)
        found = gamma.follow(weights, form, count)
        assert isinstance(found, list)
        assert gamma.steps == count
        for a, b in zip(
            [*found, *gamma.product(), *gamma.log_product()],
            [*expected, *one.product(), *one.log_product()],
            strict=True,
        ):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)


def test_a_curvature_that_fails_in_compiled_steps_only_is_refused_too():
    def curvature(loss, weights, batch):
        return [w * (1.0 if tf.executing_eagerly() else np.nan) for w in weights]

    gamma = StreamingGamma(lambda w, b: tf.reduce_sum(w[0] * b), [tf.ones(2)], 0.1, curvature)
    with pytest.raises(ValueError, match="curvature: expected 2 finite ones, found NaN"):
        gamma.follow([tf.ones(2)], [tf.ones(2)] * 3, 2)
    assert gamma.steps == 0
    np.testing.assert_array_equal(gamma.product(), [[1.0, 1.0]])


def test_a_fault_in_a_batch_with_names_is_named_by_its_step():
    def loss(weights, batch):
        return tf.reduce_sum(weights[0] * batch[0]["a"])

    def curvature(loss, weights, batch):
        return [batch[0]["a"] * weights[0]]

    weights, batches = [tf.ones(2, tf.float64)], [({"a": np.ones(2)}, np.ones(2)) for _ in range(3)]
    batches[1][0]["a"][1] = np.nan
    gamma = StreamingGamma(loss, weights, 0.1, curvature)
    with pytest.raises(ValueError, match=r"for weights\[0\] in step 1, found NaN"):
        gamma.follow(weights, batches)


def test_a_product_is_begun_with_float_tensors_only():
    for bad in ([tf.ones(2, tf.int32)], [tf.ones(2), tf.ones(2, tf.float64)], []):
        with pytest.raises(ValueError, match="one float type"):
            StreamingGamma(separable, bad, 0.1, row_sums)


def test_only_batches_that_have_to_be_copied_are_taken_up_in_chunks(monkeypatch):
    taken, chunks = [], streaming.chunks

    def noted(batches, **options):
        taken.append(options)
        return chunks(batches, **options)

    monkeypatch.setattr(streaming, "chunks", noted)
    weights, batches = separable_run(0, 3)
    batches = [tuple(batch) for batch in batches]
    tensors = tuple(map(tf.stack, zip(*batches, strict=True)))
    for form in (tensors, tuple(part.numpy() for part in tensors), batches):
        StreamingGamma(separable, weights, 0.1, row_sums).follow(weights, form, 3)
    assert taken == [{"end": 3, "at_least": n} for n in (3, 64, 64)]
