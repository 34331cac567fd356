"""Steps of gradient descent, and every form in which batches may come."""

import itertools

from prosper_utils.lookahead.descent import (
    Packed,
    batch_list,
    divergence,
    ends,
    finite,
    float_tensors,
    hessian_product,
    is_stacked,
    loss_and_gradient,
    packed,
    sgd,
    shapes,
    start,
)

import keras
import numpy as np
import pytest
import tensorflow as tf

X, Y = np.ones((4, 2)), np.arange(4)


def slope(weights, batch):
    """Return a loss whose gradient is the batch, for one weight."""
    return tf.reduce_sum(weights[0] * batch)


def test_the_first_buffer_is_zero_and_there_is_none_without_momentum():
    weights = [tf.constant([1.0, 2.0]), tf.constant([[3.0]])]
    assert [len(start(weights)), len(start(weights, 0.9))] == [1, 2]
    first, buffer = start(weights, 0.9)
    assert all(a is b for a, b in zip(first, weights, strict=True))
    assert [b.numpy().tolist() for b in buffer] == [[0.0, 0.0], [[0.0]]]


def test_two_steps_with_and_without_momentum_by_hand():
    weights, batches = [tf.constant([1.0, 2.0])], ([2.0, 0.0], [0.0, 4.0])
    state = start(weights)
    for batch in batches:
        state = sgd(slope, 0.5)(state, batch)
    assert state[0][0].numpy().tolist() == [0.0, 0.0]
    state = start(weights, 0.25)
    for batch in batches:
        state = sgd(slope, 0.5, 0.25)(state, batch)
    assert state[0][0].numpy().tolist() == [-0.25, 0.0]
    assert state[1][0].numpy().tolist() == [0.5, 4.0]
    plain = sgd(slope, 0.5)(start(weights, 0.25), batches[0])  # a buffer, and no momentum
    assert plain[1][0].numpy().tolist() == batches[0]
    carried = sgd(slope, 0.5)(plain, batches[1])
    assert carried[1][0].numpy().tolist() == batches[1]


def test_gradients_and_products_are_dense_where_a_loss_looks_rows_up():
    def loss(weights, batch):
        return 2 * tf.reduce_sum(tf.gather(weights[0], batch) ** 2)

    table = [tf.constant([[1.0], [2.0], [3.0]])]
    value, (gradient,) = loss_and_gradient(loss, table, [0, 2, 2])
    assert float(value) == 2 * (1 + 9 + 9)
    (product,) = hessian_product(loss, table, [0, 2, 2], [tf.ones((3, 1))])
    for found, expected in ((gradient, [4.0, 0.0, 24.0]), (product, [4.0, 0.0, 8.0])):
        assert tf.is_tensor(found)
        assert found.numpy().ravel().tolist() == expected


def test_weights_are_tensors_of_one_float_type():
    found = float_tensors([np.ones(2), tf.Variable([1.0], dtype="float64")])
    assert [t.dtype.name for t in found] == ["float64", "float64"]
    assert all(tf.is_tensor(t) for t in found)
    for weights, said in (
        ([], "none"),
        ([tf.constant(1)], r"\['int32'\]"),
        ([tf.constant(1.0), tf.constant(1)], r"\['float32', 'int32'\]"),
        ([tf.constant(1), tf.constant(1.0)], r"\['float32', 'int32'\]"),
    ):
        with pytest.raises(ValueError, match=f"weights: expected .*one float type, found {said}"):
            float_tensors(weights)


@pytest.mark.parametrize(
    ("batches", "stacked"),
    [
        ((X, Y), True),
        ((X, Y, Y), True),
        (({"a": X, "b": X}, Y), True),
        ((X, {"a": Y}, {"a": Y}), True),
        ([X, Y], False),
        ((X,), False),
        ((X, Y, Y, Y), False),
        (((X, Y), (X, Y)), False),
        (((X, Y), (X, Y), (X, Y)), False),
        (((X, Y),), False),
        (X, False),
    ],
)
def test_what_is_stacked(batches, stacked):
    assert is_stacked(batches) is stacked


@pytest.mark.parametrize(
    "batches", [(X, [1, 2]), ([X], Y), (X, (X, Y)), ({"a": [1]}, Y), (X, Y, None)]
)
def test_what_may_be_stacked_or_not_is_refused(batches):
    names = ", ".join(type(part).__name__ for part in batches)
    with pytest.raises(ValueError, match=f"found a tuple of {names}, which may be either"):
        is_stacked(batches)


class Batches(keras.utils.PyDataset):
    """Batches by number, endless unless a count is given."""

    def __init__(self, count=None):
        super().__init__()
        self.count = count

    @property
    def num_batches(self):
        return self.count

    def __getitem__(self, index):
        return X + index, Y


def test_every_form_of_batches_becomes_a_list_in_order():
    data = tf.data.Dataset.from_tensor_slices(np.arange(3.0)).map(lambda m: (X + m, Y))
    lists = [(X + m, Y) for m in range(3)], ((X, Y), (X + 1, Y), (X + 2, Y))
    stacked = np.stack([X, X + 1, X + 2]), np.stack([Y] * 3)
    tensors = tuple(tf.constant(part) for part in stacked)
    for batches in (*lists, stacked, tensors, data, Batches(3)):
        found = batch_list(batches)
        assert [float(x[0][0, 0]) for x in found] == [1.0, 2.0, 3.0]
        assert [np.asarray(x[1]).tolist() for x in found] == [Y.tolist()] * 3
        assert [float(x[0][0, 0]) for x in batch_list(batches, 2)] == [1.0, 2.0]
    names = batch_list(({"a": stacked[0]}, {"b": stacked[1]}))
    assert [batch[0]["a"][0, 0] for batch in names] == [1.0, 2.0, 3.0]
    x = tf.ones((3, 5, 17))  # TensorFlow copies its own slices of such an odd size
    assert np.shares_memory(batch_list((x, x))[1][0], memoryview(x))


def test_what_need_not_end_is_taken_by_number_only():
    endless = data = tf.data.Dataset.from_tensors((X, Y)).repeat()
    unknown = tf.data.Dataset.from_tensors((X, Y)).repeat(3).filter(lambda *_: True)
    for batches in (endless, unknown, Batches(), itertools.repeat((X, Y))):
        assert not ends(batches)
        assert len(batch_list(batches, 2)) == 2
        with pytest.raises(ValueError, match=f"that ends, found {type(batches).__name__}"):
            batch_list(batches)
    assert all(ends(x) for x in (data.take(2), data.take(0), Batches(2), [(X, Y)], ((X, Y),)))


@pytest.mark.parametrize(
    ("batches", "count", "said"),
    [
        ([], None, r"expected at least 1 \(M \+ 1\), found 0"),
        (tf.data.Dataset.from_tensors((X, Y)).take(0), None, "at least 1 .* found 0"),
        ([(X, Y)], 2, r"expected at least 2 \(M \+ 1\), found 1"),
        ((X[:2], Y[:3]), None, r"expected equal lengths, found \[2, 3\]"),
        (({}, {}), None, r"expected equal lengths, found \[\]"),
        ((X[:0], Y[:0]), None, "at least 1 .* found 0"),
        ([(X, Y), (X[:0], Y[:0])], None, r"batch 1: expected examples, found shape \(0, 2\)"),
        ([(X, Y), (X[:, :0], Y)], None, r"batch 1: expected examples, found shape \(4, 0\)"),
        ([(X, Y), (X, Y[:0])], None, r"batch 1: expected examples, found shape \(0,\)"),
        ([(X, Y), (X, Y, Y[:0])], None, r"batch 1: expected examples, found shape \(0,\)"),
        ([(X, Y), ({"a": X, "b": X[:0]}, Y)], None, r"batch 1: .*, found shape \(0, 2\)"),
        ([(X, Y)], 0, "at least 1 .* found 0"),
        ([(X, Y), (X, [1, 0.5])], None, "batch 1: .*found a float of Python's"),
        ([(X, Y), (X, Y, {"a": 0.5})], None, "batch 1: .*found a float of Python's"),
    ],
)
def test_too_few_batches_and_bad_ones_are_named(batches, count, said):
    with pytest.raises(ValueError, match=said):
        batch_list(batches, count)


def test_sample_weights_that_are_none_are_left_out_and_nothing_else_is():
    weights = np.ones(4)
    for batch, kept in (
        ((X, Y, None), 2),
        ([X, Y, None], 2),
        ((X, Y, weights), 3),
        ((X, Y), 2),
        ((X, None, weights), 3),
        ((X, Y, weights, weights), 4),
        ((X, Y, None, None), 4),
        ((X,), 1),
    ):
        (found,) = batch_list([batch])
        assert len(found) == kept
        assert all(a is b for a, b in zip(found, batch, strict=False))
    assert batch_list([X])[0] is X


def test_batches_with_names_are_packed_in_one_order_and_their_loss_finds_them():
    def named(weights, batch):
        inputs, labels = batch
        return inputs["a"][0] * weights[0] - inputs["b"][0] + labels

    listed = [({"b": np.array([m]), "a": np.array([10 * m])}, m) for m in (1.0, 2.0)]
    listed = [(names, np.float64(m)) for names, m in listed]
    loss, parts = packed(named, listed)
    assert [loss([3.0], batch) for batch in parts] == [named([3.0], batch) for batch in listed]
    assert all(type(batch) is tuple for batch in parts)
    again, _ = packed(named, listed[1:])
    assert again == loss
    assert hash(again) == hash(loss)
    for other in (packed(named, [listed[0][0]])[0], packed(slope, listed)[0], named):
        assert isinstance(other, Packed) == (other is not named)
        assert loss != other
    nested = [((X, [{"c": Y}]), Y)]
    assert isinstance(packed(slope, nested)[0], Packed)
    plain = [(X, (Y, [Y]))]
    assert packed(slope, plain) == (slope, plain)


def test_shapes_and_finiteness_look_at_every_part():
    assert shapes((X, {"a": Y, "b": 1.0})) == [(4, 2), (4,), ()]
    good = tf.constant([1.0, 2.0])
    assert finite(good, good)
    for bad in (np.nan, np.inf, -np.inf):
        for place in (0, 1):
            tensor = tf.tensor_scatter_nd_update(good, [[place]], [bad])
            assert not finite(tensor, good)
            assert not finite(good, tensor)


def test_divergence_names_the_first_step_that_is_not_finite():
    def said(at, weight=1.0, rates=(0.5, 0.0)):
        batches = [np.float32(np.inf if m == at else 1.0) for m in range(4)]
        return divergence(slope, rates, start([tf.constant([weight])], rates[1]), batches)

    bad = "weights: expected finite numbers, found NaN or infinite ones"
    assert said(9, np.nan) == said(9, np.nan, (0.5, 0.9)) == bad
    for rates in ((0.5, 0.0), (0.5, 0.9)):
        for step in range(3):
            assert said(step, rates=rates).startswith(f"inner step {step} of 3: expected finite")
    weights, batches = [tf.constant([1.0])], [np.float32(1e38)] * 4  # the update is finite
    found = divergence(slope, (1e3, 0.9), start(weights, 0.9), batches)
    assert found.startswith("inner step 0 of 3: expected finite weights")
    assert said(3).startswith("after 3 inner steps: expected a finite meta-gradient, ")
    assert "found the loss -inf and its gradient" in said(3)
    assert "found the loss -0.5 and its gradient" in said(9)
    assert "found the loss -1.805" in said(9, rates=(0.5, 0.9))  # 1 - (1 + 1.9 + 2.71) / 2


def test_stacked_sample_weights_have_to_be_as_many():
    x, y = np.ones((3, 4, 2)), np.ones((3, 4))
    for count in (2, 4):
        with pytest.raises(ValueError, match="stacked batches: expected equal lengths"):
            batch_list((x, y, np.ones((count, 4))))


def test_one_tensor_as_two_weights_has_two_gradients_and_two_products():
    def loss(weights, batch):
        return tf.reduce_sum(weights[0] ** 3 * weights[1])

    x = np.array([0.5, -2.0])
    once, vector = tf.constant(x), [tf.ones(2, tf.float64), 2 * tf.ones(2, tf.float64)]
    _, gradient = loss_and_gradient(loss, [once, once], None)
    np.testing.assert_allclose(gradient, [3 * x**3, x**3], rtol=1e-14)
    products = hessian_product(loss, [once, once], None, vector)
    np.testing.assert_allclose(products, [6 * x**2 + 6 * x**2, 3 * x**2], rtol=1e-14)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_every_batch_has_the_names_of_the_first(place):
    listed = [({"a": np.ones(3), "b": np.ones(3)}, np.ones(3)) for _ in range(3)]
    for other in (({"a": np.ones(3), "c": np.ones(3)}, np.ones(3)), (np.ones(3), np.ones(3))):
        wrong = [*listed[:place], other, *listed[place + 1 :]]
        with pytest.raises(ValueError, match=rf"batch {max(place, 1)}: expected the parts of"):
            packed(lambda weights, batch: 0.0, wrong)


@pytest.mark.parametrize("count", [2, 4])
def test_stacked_parts_with_names_have_to_be_as_many(count):
    names = {"a": np.ones((3, 2)), "b": np.ones((count, 2))}
    for batches in ((names, np.ones(3)), (np.ones((3, 2)), names)):
        with pytest.raises(ValueError, match="stacked batches: expected equal lengths"):
            batch_list(batches)


def test_no_more_batches_are_taken_than_are_asked_for():
    rest = ((X + m, Y) for m in range(5))
    assert [x[0, 0] for x, _ in batch_list(rest, 2)] == [1.0, 2.0]
    assert next(rest)[0][0, 0] == 3.0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "bool"])
def test_stacked_tensors_of_any_type_are_sliced(dtype):
    x = tf.cast([[0, 1], [1, 1], [1, 0]], dtype)
    for found, (part, _) in zip(tf.unstack(x), batch_list((x, x)), strict=True):
        assert tf.as_dtype(part.dtype) == x.dtype
        np.testing.assert_array_equal(part, found)


def test_what_is_compiled_for_one_structure_serves_no_other():
    """As many parts with other names, or nested in another way, are handed to the loss as such."""

    def loss(weights, batch):
        return tf.reduce_sum(weights[0] * batch[0])

    def made(x, loss=loss):
        return Packed(loss, (x, 0.0))

    one, others = made({"a": 1.0, "b": 2.0}), ({"a": 1.0, "c": 2.0}, {"a": {"b": 1.0}, "b": 2.0})
    assert one == made({"a": 5.0, "b": 6.0})
    assert hash(one) == hash(made({"a": 5.0, "b": 6.0}))
    assert one.restore([3.0, 4.0, 5.0]) == ({"a": 3.0, "b": 4.0}, 5.0)
    for other in (*map(made, others), made({"a": 1.0, "b": 2.0}, abs), "another thing"):
        assert one != other
