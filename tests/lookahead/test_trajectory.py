"""The reverse sweep against explicit Jacobians, and the laws that any pull-back obeys."""

from prosper_utils.lookahead.trajectory import (
    advance,
    pull_back,
    pull_back_once,
    push_forward,
    roll_out,
)

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st


def affine(state, batch):
    """Map a vector by the matrix and shift of the batch, then bend it: no two Jacobians commute."""
    matrix, shift = batch
    return tf.tanh(tf.linalg.matvec(matrix, state) + shift)


def random_run(seed, steps, size=3):
    generator = np.random.default_rng(seed)
    batches = [
        (tf.constant(generator.normal(size=(size, size))), tf.constant(generator.normal(size=size)))
        for _ in range(steps)
    ]
    return tf.constant(generator.normal(size=size)), batches, generator


def test_roll_out_keeps_every_state():
    state, batches, _ = random_run(0, 4)
    states = roll_out(affine, state, batches)
    assert len(states) == 5
    assert states[0] is state
    for m, batch in enumerate(batches):
        np.testing.assert_array_equal(states[m + 1], affine(states[m], batch))


@given(st.integers(0, 2**32 - 1), st.integers(0, 5))
@settings(max_examples=25)
def test_pull_back_is_the_product_of_transposed_jacobians(seed, steps):
    state, batches, generator = random_run(seed, steps)
    states = roll_out(affine, state, batches)
    product = np.eye(3)
    for (matrix, _), image in zip(batches, states[1:], strict=True):
        product = np.diag(1 - image.numpy() ** 2) @ matrix.numpy() @ product
    cotangent = generator.normal(size=3)
    found = pull_back(affine, states, batches, tf.constant(cotangent))
    np.testing.assert_allclose(found, product.T @ cotangent, rtol=1e-11, atol=1e-13)


@given(st.integers(0, 2**32 - 1), st.floats(-3, 3), st.floats(-3, 3))
@settings(max_examples=25)
def test_pull_back_is_linear_in_the_cotangent(seed, a, b):
    state, batches, generator = random_run(seed, 3)
    states = roll_out(affine, state, batches)
    u, v = (tf.constant(generator.normal(size=3)) for _ in range(2))
    whole = pull_back(affine, states, batches, a * u + b * v)
    parts = a * pull_back(affine, states, batches, u) + b * pull_back(affine, states, batches, v)
    np.testing.assert_allclose(whole, parts, rtol=1e-11, atol=1e-12)


@given(st.integers(0, 2**32 - 1), st.integers(0, 5))
@settings(max_examples=25)
def test_pushing_and_pulling_are_adjoint(seed, steps):
    state, batches, generator = random_run(seed, steps)
    u, v = (generator.normal(size=3) for _ in range(2))
    states = roll_out(affine, state, batches)
    last, pushed = push_forward(affine, state, batches, tf.constant(u))
    pulled = pull_back(affine, states, batches, tf.constant(v))
    np.testing.assert_array_equal(last, states[-1])
    np.testing.assert_allclose(pushed.numpy() @ v, u @ pulled.numpy(), rtol=1e-10, atol=1e-12)


def test_push_forward_is_a_finite_difference():
    state, batches, generator = random_run(1, 4)
    u = generator.normal(size=3)
    ends = [roll_out(affine, state + h * u, batches)[-1] for h in (1e-6, -1e-6)]
    _, found = push_forward(affine, state, batches, tf.constant(u))
    np.testing.assert_allclose(found, (ends[0] - ends[1]) / 2e-6, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("known", [True, False])
def test_stacked_batches_give_the_same_in_one_loop(steps, known):
    """Also where a function is made for any number of them."""
    state, batches, generator = random_run(2, steps)
    cotangent = tf.constant(generator.normal(size=3))
    stacked = tuple(tf.stack(part) for part in zip(*batches, strict=True))
    listed = roll_out(affine, state, batches)

    shapes = [[steps if known else None, *part.shape[1:]] for part in stacked]
    parts = tuple(tf.TensorSpec(shape, tf.float64) for shape in shapes)
    vector = tf.TensorSpec([3], tf.float64)

    @tf.function(input_signature=[vector, parts, vector])
    def sweeps(state, stacked, cotangent):
        states = roll_out(affine, state, stacked)
        pulled = pull_back(affine, states, stacked, cotangent)
        pushed = push_forward(affine, state, stacked, state)
        return states.stack(), pulled, pushed, advance(affine, state, stacked)

    states, pulled, pushed, last = sweeps(state, stacked, cotangent)
    np.testing.assert_allclose(states, tf.stack(listed), rtol=1e-14)
    np.testing.assert_allclose(last, listed[-1], rtol=1e-14)
    np.testing.assert_array_equal(advance(affine, state, batches), listed[-1])
    np.testing.assert_allclose(pulled, pull_back(affine, listed, batches, cotangent), rtol=1e-13)
    np.testing.assert_allclose(pushed, push_forward(affine, state, batches, state), rtol=1e-13)


def test_a_batch_may_be_one_tensor():
    state, batches, generator = random_run(0, 3)
    matrices = [matrix for matrix, _ in batches]
    cotangent = tf.constant(generator.normal(size=3))
    found = [
        pull_back(bent, roll_out(bent, state, some), some, cotangent)
        for some in (matrices, tf.stack(matrices))
    ]
    np.testing.assert_allclose(*found, rtol=1e-13)


def bent(state, matrix):
    return tf.tanh(tf.linalg.matvec(matrix, state))


def test_stacked_states_may_be_read_again():
    state, batches, _ = random_run(0, 3)
    stacked = tuple(tf.stack(part) for part in zip(*batches, strict=True))
    states = roll_out(affine, state, stacked)
    for _ in range(2):
        np.testing.assert_array_equal(states.stack(), roll_out(affine, state, batches))
        np.testing.assert_array_equal(states.read(3), advance(affine, state, stacked))


def test_pull_back_keeps_the_structure_of_the_state():
    def step(state, batch):
        (w,), unused = state
        return [[w * batch], unused]

    state = [[tf.constant([1.0, 2.0])], tf.constant([5.0])]
    states = roll_out(step, state, [3.0, 4.0])
    (found,), unused = pull_back(step, states, [3.0, 4.0], [[tf.ones(2)], tf.zeros(1)])
    np.testing.assert_array_equal(found, [12.0, 12.0])
    np.testing.assert_array_equal(unused, [0.0])


def test_no_influence_is_zero_credit():
    states = roll_out(lambda state, batch: batch, tf.ones(2), [tf.zeros(2)])
    found = pull_back(lambda state, batch: batch, states, [tf.zeros(2)], tf.ones(2))
    np.testing.assert_array_equal(found, [0.0, 0.0])


def test_what_is_gathered_comes_back_as_a_tensor():
    def step(state, rows):
        return tf.gather(state, rows)

    states = roll_out(step, tf.constant([1.0, 2.0, 3.0]), [[2, 2, 0]])
    found = pull_back(step, states, [[2, 2, 0]], tf.constant([1.0, 10.0, 100.0]))
    assert tf.is_tensor(found)
    np.testing.assert_array_equal(found, [100.0, 0.0, 11.0])


def test_states_and_batches_must_match():
    state, batches, _ = random_run(0, 2)
    states = roll_out(affine, state, batches)
    with pytest.raises(ValueError, match="expected 2 states for 1 batches, found 3"):
        pull_back(affine, states, batches[:1], state)
    with pytest.raises(ValueError, match="expected 3 states for 2 batches, found 2"):
        pull_back(affine, states[1:], batches, state)


def test_no_influence_pushes_zero_forward():
    _, pushed = push_forward(
        lambda s, b: (s[0], b), (tf.ones(2), tf.ones(2)), [tf.zeros(2)], (tf.ones(2), tf.ones(2))
    )
    np.testing.assert_array_equal(pushed[0], [1.0, 1.0])
    np.testing.assert_array_equal(pushed[1], [0.0, 0.0])


def test_a_list_is_pulled_back_as_is_said():
    def doubled(*arguments):
        return 2 * pull_back_once(*arguments)

    found = pull_back(lambda s, b: b * s, [tf.ones(2)] * 3, [3.0, 4.0], tf.ones(2), doubled)
    np.testing.assert_array_equal(found, [48.0, 48.0])


def test_one_tensor_as_two_parts_of_a_state_is_two():
    def step(state, batch):
        return state[0] ** 2 * state[1], state[1] + batch

    one = tf.constant([0.5, -2.0], tf.float64)
    pair, batch = (one, one), tf.ones(2, tf.float64)
    x = one.numpy()
    pulled = pull_back_once(step, pair, batch, (batch, batch))
    np.testing.assert_allclose(pulled, [2 * x**2, x**2 + 1], rtol=1e-14)
    _, pushed = push_forward(step, pair, [batch], (batch, 3 * batch))
    np.testing.assert_allclose(pushed, [2 * x**2 + 3 * x**2, 3 + 0 * x], rtol=1e-14)


def coupled(state, batch):
    """Map a vector in single and a number in double precision, each by both."""
    (w, [b]), (x, y) = state, batch
    return tf.sin(w) * x + tf.cast(b, w.dtype), [b * y + tf.cast(tf.reduce_sum(w), b.dtype)]


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_state_of_several_types_is_the_same_listed_and_stacked(steps):
    draw = np.random.default_rng(0)
    x, y = (
        tf.constant(draw.normal(size=(steps, 2)), tf.float32),
        tf.constant(draw.normal(size=steps)),
    )
    listed = [(x[m], y[m]) for m in range(steps)]
    state = tf.constant([0.5, -1.0]), [tf.constant(2.0, tf.float64)]
    other = tf.constant([1.0, 3.0]), [tf.constant(-2.0, tf.float64)]
    found = []
    for batches in (listed, (x, y)):
        states = roll_out(coupled, state, batches)
        pulled = pull_back(coupled, states, batches, other)
        last, pushed = push_forward(coupled, state, batches, other)
        found.append([advance(coupled, state, batches), last, pulled, pushed])
        if batches is listed:
            kept = [tf.stack(part) for part in zip(*map(tf.nest.flatten, states), strict=True)]
    for part, expected in zip(tf.nest.flatten(states), kept, strict=True):
        np.testing.assert_allclose(part.stack(), expected, rtol=1e-6)
    for a, b in zip(*found, strict=True):
        assert [type(part) for part in (a, a[1])] == [tuple, list]
        for part, same in zip(tf.nest.flatten(a), tf.nest.flatten(b), strict=True):
            assert part.dtype == same.dtype
            np.testing.assert_allclose(part, same, rtol=1e-6)
