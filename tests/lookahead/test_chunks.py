"""Chunks hold every step once, in order, in parts of equal shapes of about root M."""

import math

from prosper_utils.lookahead.chunks import (
    as_tensors,
    chunks,
    fit,
    one,
    specs,
    stack,
    stacked_spec,
    uncopied,
)
from prosper_utils.lookahead.descent import Packed

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st


def loss(weights, batch):
    return tf.reduce_sum(weights[0]) * tf.reduce_sum(batch[0])


@given(st.integers(1, 70), st.integers(0, 5), st.integers(1, 12), st.none() | st.integers(1, 9))
def test_every_step_is_in_one_chunk_and_the_first_one_takes_what_is_left_over(
    count, first, at_least, end
):
    last = count - 1 if end is None else min(end, count)
    first = min(first, last)
    limit = max(at_least, math.ceil(math.sqrt(last - first)))
    numbers = np.arange(count)
    stacked = chunks((numbers, -numbers), first, at_least, end and last)
    listed = chunks([(m, -m) for m in numbers], first, at_least, end and last)
    for parts in ([list(zip(*part, strict=True)) for part in stacked], listed):
        assert [pair for part in parts for pair in part] == [(m, -m) for m in range(first, last)]
        lengths = [len(part) for part in parts]
        assert lengths[1:] == [limit] * len(lengths[1:])
        assert all(0 < length <= limit for length in lengths[:1])
    assert all(np.shares_memory(part, numbers) for part, _ in stacked)


def test_numbers_of_python_are_of_a_kind_too():
    assert chunks([(m, [m, -m]) for m in range(5)]) == [
        [(0, [0, 0]), (1, [1, -1])],
        [(2, [2, -2]), (3, [3, -3])],
    ]


def test_batches_are_stacked_along_a_new_first_axis_in_their_own_types():
    x, y = np.ones((3, 2)), np.array([1, 2, 3], "int8")
    arrays = [((m * x, y + m), [y - m]) for m in range(4)]
    for part in (arrays, [tf.nest.map_structure(tf.constant, batch) for batch in arrays]):
        (first, second), (third,) = stack(part)
        for found, expected in (
            (first, [m * x for m in range(4)]),
            (second, [y + m for m in range(4)]),
            (third, [y - m for m in range(4)]),
        ):
            assert tf.is_tensor(found)
            assert found.dtype.as_numpy_dtype == expected[0].dtype
            np.testing.assert_array_equal(found, expected)
    with pytest.raises(ValueError, match="zip"):  # batches of two forms
        stack([(x, y), (x,)])


def test_what_is_stacked_becomes_tensors_and_keeps_its_structure():
    slices = np.ones((4, 2)), [np.zeros(4, "int8"), (np.ones(4, "float32"),)]
    for found in (stack(slices), as_tensors(slices)):
        whole, (first, (second,)) = found
        assert [t.dtype.name for t in (whole, first, second)] == ["float64", "int8", "float32"]
        np.testing.assert_array_equal(whole, slices[0])


def test_types_of_a_chunk_and_of_one_batch_of_it():
    batch = tf.zeros((5, 3)), (tf.zeros(5, tf.int8),)
    part = stack([batch] * 4)
    assert specs(batch) == one(part)
    assert specs(part)[0] == tf.TensorSpec([4, 5, 3])
    for spec, t in zip(tf.nest.flatten(specs(batch)), tf.nest.flatten(part), strict=True):
        assert stacked_spec(spec) == tf.TensorSpec([None, *t.shape[1:]], t.dtype)
        assert stacked_spec(spec).is_compatible_with(t)


def test_only_a_stacked_tensor_is_not_copied():
    array, tensor = np.ones((4, 2)), tf.ones((4, 2))
    assert uncopied((tensor, array))
    assert uncopied((tensor, tensor))
    assert not uncopied((array, tensor))  # the inputs, which are large
    assert not uncopied([(tensor, tensor)])
    assert not uncopied([tensor, tensor])


def test_the_compiled_loops_get_stacked_batches_as_they_are_and_all_else_in_a_list():
    x = np.ones((4, 2, 3))
    stacked, listed = (x, x), [(a, a) for a in x]
    found, batches, again = fit(loss, stacked, listed)
    assert found is loss
    assert batches is stacked
    assert again is listed
    _, batches, again = fit(loss, iter(()), listed)
    assert batches is again is listed

    names, listed = {"b": x, "a": 2 * x}, [({"b": a, "a": 2 * a}, a) for a in x]
    found, batches, again = fit(loss, (names, x), listed)
    assert isinstance(found, Packed)
    assert batches is again
    for whole, parts in zip(listed, again, strict=True):
        assert isinstance(parts, tuple)
        tf.nest.map_structure(np.testing.assert_array_equal, found.restore(parts), whole)


@pytest.mark.parametrize("made", [np.asarray, tf.convert_to_tensor], ids=["arrays", "tensors"])
def test_a_chunk_has_one_shape_and_one_type(made):
    x, y = np.ones((3, 2)), np.arange(3)
    kinds = [("float64", "int64"), ("float32", "int64"), ("float32", "int32")]
    batches = [(made(x.astype(a)), made(y.astype(b))) for a, b in kinds for _ in range(2)]
    batches += [(made(x[:2]), made(y[:2]))] * 2
    parts = chunks([*batches, batches[0]], at_least=8)
    assert [len(part) for part in parts] == [2, 2, 2, 2]
    for part, (first, *_) in zip(map(stack, parts), parts, strict=True):
        assert one(part) == specs(tf.nest.map_structure(tf.convert_to_tensor, first))


def test_sample_weights_of_a_chunk_are_of_one_kind_too():
    x, y = np.ones((3, 2)), np.arange(3)
    weights = np.ones(3), np.ones(3, "float32"), np.ones((3, 1), "float32")
    batches = [(x, y, w) for w in weights for _ in range(2)]
    parts = chunks([*batches, batches[0]], at_least=8)
    assert [len(part) for part in parts] == [2, 2, 2]


def test_before_an_end_at_the_beginning_there_are_no_steps():
    numbers = np.arange(5)
    assert chunks((numbers, numbers), end=0) == []
    assert chunks([(m, m) for m in numbers], end=0) == []
    assert chunks([(m, m) for m in numbers], first=2, end=2) == []
