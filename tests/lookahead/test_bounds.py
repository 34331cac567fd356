"""The error of a streamed score: its telescoping identity, its bounds, and where they are equal."""

from prosper_utils.lookahead.meta_gradient import loss_and_gradient, meta_gradient
from prosper_utils.lookahead.streaming import (
    diagonal,
    flat,
    row_sums,
    step_errors,
    streamed,
)
from prosper_utils.study.checks import relative_error

import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_loss
from hypothesis import given, settings
from hypothesis import strategies as st
from test_streaming import explicit_hessian

seeds, lengths = st.integers(0, 2**32 - 1), st.integers(1, 6)
rates = st.sampled_from([1e-3, 0.03, 0.3, 1.0])


def nothing(loss, weights, batch):
    """Return the curvature of the first-order score."""
    return [tf.zeros_like(w) for w in weights]


CURVATURES = [row_sums, diagonal, nothing]


def quadratic(weights, batch):
    """Return w'Hw/2 - r'w for the batch (H, r): its Hessian is H."""
    (w,), (hessian, shift) = weights, batch
    return tf.tensordot(w, tf.linalg.matvec(hessian, w) / 2 - shift, 1)


def quadratics(seed, size, steps):
    """Return weights, of which one is zero, and batches whose Hessians do not commute."""
    draw = np.random.default_rng(seed)
    roots = draw.normal(size=(steps + 1, size, size)) / np.sqrt(size)
    batches = [(tf.constant(r + r.T), tf.constant(draw.normal(size=size))) for r in roots]
    weights = draw.normal(size=size)
    weights[0] = 0
    return [tf.constant(weights)], batches


def hessian(loss, weights, batch):
    """Return the matrix of second derivatives, one row for each entry of the gradient."""
    if loss is quadratic:
        return batch[0].numpy()
    return explicit_hessian(loss, weights, batch)


def walk(loss, weights, batches, rate, curvature):
    """Return w, the matrices I - aH_m and I - aD_m of every step, and the last gradient."""
    exact, stand_ins, w = [], [], weights
    for batch in batches[:-1]:
        curved = flat(curvature(loss, w, batch)).numpy()
        stand_ins.append(np.eye(len(curved)) - rate * np.diag(curved))
        exact.append(np.eye(len(curved)) - rate * hessian(loss, w, batch))
        _, g = loss_and_gradient(loss, w, batch)
        w = [a - rate * b for a, b in zip(w, g, strict=True)]
    g = flat(loss_and_gradient(loss, w, batches[-1])[1]).numpy()
    return flat(weights).numpy(), exact, stand_ins, g


def chain(matrices, vector):
    """Return the product of all matrices, the last one first, with a vector."""
    for matrix in reversed(matrices):
        vector = matrix @ vector
    return vector


def telescope(w, exact, stand_ins, g):
    """Return the terms w * Y_0 .. Y_(m-1) (Y_m - X_m) X_(m+1) .. X_(M-1) g."""
    return [
        w * chain(stand_ins[:m], (stand_ins[m] - exact[m]) @ chain(exact[m + 1 :], g))
        for m in range(len(exact))
    ]


def without_cotangents(w, exact, stand_ins, g):
    """Return the bound of the operator norms: sum max|w| gamma^m |Y_m - X_m| rho^(M-1-m) |g|."""
    steps, size = len(exact), np.linalg.norm(g)
    most = [np.abs(w * chain(stand_ins[:m], np.ones_like(w))).max() for m in range(steps)]
    rho = max(np.linalg.norm(x, 2) for x in exact)
    gaps = [np.linalg.norm(y - x, 2) for x, y in zip(exact, stand_ins, strict=True)]
    return sum(most[m] * gaps[m] * rho ** (steps - 1 - m) * size for m in range(steps))


def compare(loss, weights, batches, rate, curvature):
    """Check identity and bounds; return the relative error of the streamed score, and the bound."""
    arguments = loss, weights, batches, rate, curvature
    exact = meta_gradient(loss, weights, batches, learning_rate=rate, method="unrolled")
    away = flat(streamed(*arguments)).numpy() - flat(exact).numpy()
    parts = walk(*arguments)
    terms, size = telescope(*parts), np.linalg.norm(flat(exact))
    scale = sum(np.linalg.norm(t) for t in terms) + size
    np.testing.assert_allclose(sum(terms), away, rtol=0, atol=1e-12 * scale)
    found = step_errors(*arguments)
    expected = [np.linalg.norm(t) / size for t in terms]
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12 * scale / size)
    slack = 1 + 1e-12
    assert np.linalg.norm(away) <= sum(found) * size * slack + 1e-12 * scale
    assert sum(found) * size <= without_cotangents(*parts) * slack + 1e-12 * scale
    return np.linalg.norm(away) / size, sum(found)


@given(seeds, st.integers(2, 6), lengths, rates, st.sampled_from(CURVATURES))
@settings(max_examples=30)
def test_terms_telescope_and_bound_the_error_of_quadratics(seed, size, steps, rate, curvature):
    compare(quadratic, *quadratics(seed, size, steps), rate, curvature)


@pytest.mark.parametrize("curvature", CURVATURES)
@pytest.mark.parametrize(("rate", "steps"), [(0.1, 1), (0.5, 3), (2.0, 4)])
def test_terms_telescope_and_bound_the_error_of_the_reference(reference, rate, steps, curvature):
    weights, batches, _ = reference
    error, bound = compare(tiny_loss, weights, batches[: steps + 1], rate, curvature)
    assert error <= bound * (1 + 1e-12)
    if steps == 1:
        np.testing.assert_allclose(error, bound, rtol=1e-10)


@given(seeds, st.integers(2, 6), lengths, rates)
@settings(max_examples=20)
def test_one_direction_makes_the_bound_an_equality(seed, size, steps, rate):
    """Where all terms point one way nothing is lost, so no smaller constant is a bound."""
    draw = np.random.default_rng(seed)
    g = draw.normal(size=size)
    curved = [np.outer(g, g) / (g @ g) * d for d in draw.uniform(-0.9, -0.1, steps)]
    batches = [(tf.constant(h), tf.zeros(size, tf.float64)) for h in curved]
    batches.append((tf.zeros((size, size), tf.float64), tf.constant(-g)))  # last gradient g
    arguments = quadratic, [tf.constant(draw.normal(size=size))], batches, rate
    error, bound = compare(*arguments, nothing)
    np.testing.assert_allclose(error, bound, rtol=1e-9)
    assert error > 0.99 * bound


def test_the_bound_without_cotangents_is_an_equality_where_all_directions_are_alike():
    """Equal weights and H_m = -I: every norm is attained, so 0.99 of it is no bound."""
    size, steps, rate = 4, 5, 0.3
    batches = [(-tf.eye(size, dtype=tf.float64), tf.zeros(size, tf.float64))] * (steps + 1)
    weights = [tf.fill([size], tf.constant(2.0, tf.float64))]
    error, _ = compare(quadratic, weights, batches, rate, nothing)
    exact = meta_gradient(quadratic, weights, batches, learning_rate=rate)
    bound = without_cotangents(*walk(quadratic, weights, batches, rate, nothing))
    np.testing.assert_allclose(error * np.linalg.norm(flat(exact)), bound, rtol=1e-10)
    assert error * np.linalg.norm(flat(exact)) > 0.99 * bound


@given(seeds, lengths)
@settings(max_examples=10)
def test_diagonal_hessians_leave_no_error(seed, steps):
    draw = np.random.default_rng(seed)
    batches = [
        (tf.constant(np.diag(draw.normal(size=4))), tf.constant(draw.normal(size=4)))
        for _ in range(steps + 1)
    ]
    weights = [tf.constant(draw.normal(size=4))]
    for curvature in (row_sums, diagonal):
        assert max(step_errors(quadratic, weights, batches, 0.3, curvature)) < 1e-12


def test_no_steps_have_no_error(reference):
    weights, batches, _ = reference
    assert step_errors(tiny_loss, weights, batches[:1], 0.1, row_sums).shape == (0,)


def test_step_errors_refuse_what_is_not_finite(reference):
    weights, batches, _ = reference
    idle = [0 * w for w in weights]
    with pytest.raises(ValueError, match="an exact score that is not zero"):
        step_errors(tiny_loss, idle, batches[:3], 0.1, row_sums)
    with pytest.raises(ValueError, match="expected shapes"):
        step_errors(tiny_loss, weights, batches[:3], 0.1, lambda *_: [])
    with pytest.raises(ValueError, match="expected finite terms"):
        step_errors(tiny_loss, weights, batches[:3], 0.1, lambda *_: [w * np.inf for w in weights])


def test_terms_that_are_not_finite_are_said_in_the_order_of_the_steps(reference):
    weights, batches, _ = reference
    scales = iter([0.0, np.inf, 0.0])

    def curvature(*_):
        scale = next(scales)
        return [tf.fill(w.shape, tf.constant(scale, w.dtype)) for w in weights]

    with pytest.raises(ValueError, match=r"found \[\d\.\S+ +inf +(inf|nan)\], and \d"):
        step_errors(tiny_loss, weights, batches[:4], 0.1, curvature)


@pytest.mark.parametrize("curvature", CURVATURES)
def test_half_the_learning_rate_leaves_a_quarter_beyond_first_order(reference, curvature):
    """To first order the error is a |w * sum (H_m - D_m) g|: what that misses is quadratic."""
    weights, batches, _ = reference
    gaps = []
    for rate in (2e-3, 1e-3):
        arguments = tiny_loss, weights, batches[:4], rate, curvature
        w, exact, stand_ins, g = walk(*arguments)
        first = w * sum((y - x) @ g for x, y in zip(exact, stand_ins, strict=True))
        truth = meta_gradient(*arguments[:3], learning_rate=rate, method="unrolled")
        predicted = np.linalg.norm(first) / np.linalg.norm(w * g)
        gaps.append(abs(predicted - relative_error(streamed(*arguments), truth)))
    assert 3 < gaps[0] / gaps[1] < 5


def test_step_errors_take_weights_and_batches_as_the_streamed_score_does(reference):
    weights, batches, _ = reference
    for bad in ([tf.ones(2, tf.int32)], [], [tf.ones(2), tf.ones(2, tf.float64)]):
        with pytest.raises(ValueError, match="one float type"):
            step_errors(tiny_loss, bad, batches, 0.1, row_sums)
    with pytest.raises(ValueError, match="at least 1"):
        step_errors(tiny_loss, weights, [], 0.1, row_sums)
    stacked = tuple(np.stack(part) for part in zip(*batches[:3], strict=True))
    expected = step_errors(tiny_loss, weights, batches[:3], 0.1, row_sums)
    for form in (stacked, tf.data.Dataset.from_tensor_slices(stacked)):
        found = step_errors(tiny_loss, weights, form, 0.1, row_sums)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
