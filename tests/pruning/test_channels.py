"""Channels: what lives and dies together, against counting by hand and against cutting."""

import ast
import dataclasses
import functools
import inspect
import re

from prosper_utils.pruning import channels, paths
from prosper_utils.pruning.networks import dense_300_100, lenet5, resnet8

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from keras.src.ops import nn as nn_operations
from keras.src.ops import numpy as operations
from scipy import sparse
from test_networks import Subclassed

layers = keras.layers


def build(shape, *chain):
    """Return a functional model: one function or layer after the other."""
    inputs = keras.Input(shape)
    x = inputs
    for link in chain:
        x = link(x)
    return keras.Model(inputs, x)


def held(group):
    """Return what a group holds, in short: {(variable, axis): indices}."""
    return {(m.variable.path, m.axis): m.indices for m in group.members}


def free(model):
    """Return what the groups hold that can go."""
    return [held(group) for group in channels.groups(model) if not group.fixed]


def reasons(model):
    return {reason for group in channels.groups(model) for reason in group.fixed}


def test_what_comes_in_and_goes_out_is_fixed_of_every_input_and_output():
    inputs = [keras.Input((2,)), keras.Input((3,))]
    hidden = layers.Dense(4)(layers.concatenate(inputs))
    model = keras.Model(inputs, [layers.Dense(n)(hidden) for n in (5, 6)])
    fixed = [group.fixed for group in channels.groups(model)]
    assert fixed.count((channels.INPUT,)) == 2 + 3
    assert fixed.count((channels.OUTPUT,)) == 5 + 6
    assert fixed.count(()) == 4


# Costs --------------------------------------------------------------------------------------


def test_costs_of_lenet5_by_hand():
    found = channels.groups(lenet5())
    kinds = {(g.parameters, g.multiply_adds, g.fixed) for g in found}
    assert len(found) == 1 + 6 + 16 + 120 + 84 + 10
    assert kinds == {
        (6 * 25, 28 * 28 * 6 * 25, (channels.INPUT,)),
        (25 + 1 + 16 * 25, 28 * 28 * 25 + 10 * 10 * 16 * 25, ()),
        (6 * 25 + 1 + 25 * 120, 10 * 10 * 6 * 25 + 25 * 120, ()),
        (400 + 1 + 84, 400 + 84, ()),
        (120 + 1 + 10, 120 + 10, ()),
        (84 + 1, 84, (channels.OUTPUT,)),
    }
    total = 28 * 28 * 25 * 6 + 10 * 10 * 25 * 6 * 16 + 400 * 120 + 120 * 84 + 84 * 10
    assert channels.count_multiply_adds(lenet5()) == total


@pytest.mark.parametrize("options", [{}, {"strides": 2}, {"dilation_rate": 2}])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_convolution_is_counted_at_every_position(rank, options):
    conv = getattr(layers, f"Conv{rank}D")(5, 3, **options)
    model = build((9,) * rank + (2,), conv)
    positions = np.prod(model.output_shape[1:-1])
    assert channels.count_multiply_adds(model) == 3**rank * 2 * 5 * positions
    conv.trainable = False  # what is not trained is computed all the same
    assert channels.count_multiply_adds(model) == 3**rank * 2 * 5 * positions


def test_a_transposed_convolution_is_counted_at_every_input():
    model = build((4, 5, 3), layers.Conv2DTranspose(7, 3, strides=2))
    assert channels.count_multiply_adds(model) == 9 * 3 * 7 * 20
    kernel = model.layers[-1].kernel.path
    sizes = {axis: len(model.layers[-1].kernel.shape) for axis in (2, 3)}
    assert {key for g in channels.groups(model) for key in held(g)} >= {(kernel, a) for a in sizes}


@pytest.mark.parametrize(
    ("layer", "per_position"),
    [
        (layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"), 9 * 4 * 2),
        (
            layers.SeparableConv2D(5, 3, depth_multiplier=2, padding="same"),
            9 * 4 * 2 + 4 * 2 * 5,
        ),
        (layers.Conv2D(6, 3, groups=2, padding="same"), 9 * 2 * 6),
        (layers.Dense(5), 4 * 5),
        (layers.DepthwiseConv2D(3, 2, depth_multiplier=2), 9 * 4 * 2),
        (layers.SeparableConv2D(5, 3, 2, depth_multiplier=2), 9 * 4 * 2 + 4 * 2 * 5),
        (layers.Conv2D(6, 3, 2, groups=2), 9 * 2 * 6),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_layer_is_counted_at_every_position_of_its_output(layer, per_position):
    model = build((3, 7, 4), layer)
    positions = 1 * 3 if getattr(layer, "padding", "same") == "valid" else 3 * 7
    assert channels.count_multiply_adds(model) == positions * per_position


def test_what_is_looked_up_is_not_multiplied():
    links = layers.Embedding(5, 2, name="words"), layers.Flatten(), layers.Dense(1, name="dense")
    model = build((3,), *links)
    assert channels.count_multiply_adds(model) == 3 * 2
    found = [(held(g), g.parameters, g.multiply_adds) for g in channels.groups(model)]
    assert found == [
        ({("words/embeddings", 1): (0,), ("dense/kernel", 0): (0, 2, 4)}, 5 + 3, 3),
        ({("words/embeddings", 1): (1,), ("dense/kernel", 0): (1, 3, 5)}, 5 + 3, 3),
        ({("dense/kernel", 1): (0,), ("dense/bias", 0): (0,)}, 6 + 1, 6),
    ]


def test_costs_where_the_input_size_is_not_known():
    model = build((None, None, 3), layers.Conv2D(4, 3), layers.GlobalAveragePooling2D())
    assert {g.multiply_adds for g in channels.groups(model)} == {None}
    with pytest.raises(ValueError, match="kernel: expected a known input size, found None"):
        channels.count_multiply_adds(model)
    outer = build((8, 8, 3), model)  # called on a known size, it is counted there
    assert channels.count_multiply_adds(outer) == 36 * 9 * 3 * 4


@pytest.mark.parametrize("after", [layers.Flatten, lambda: layers.Reshape((-1, 2))])
def test_an_inner_model_for_any_size_is_labelled_at_the_size_of_the_call(after):
    """Where the last axis of the inner model is not known, it is worked out from the call."""
    links = [layers.Conv2D(4, 3, name="conv"), after(), layers.Dense(2, name="dense")]
    keras.utils.set_random_seed(0)
    inner = build((None, None, 3), *links[:2])
    nested, flat = build((6, 6, 3), inner, links[2]), build((6, 6, 3), *links)
    found, expected = (
        [(held(g), g.fixed, g.multiply_adds) for g in channels.groups(m)] for m in (nested, flat)
    )
    assert found == expected


def test_an_inner_model_is_called_in_the_structure_it_was_made_with():
    inputs = {name: keras.Input((3,), name=name) for name in "ab"}
    dense = {name: layers.Dense(4) for name in "ab"}
    inner = keras.Model(inputs, layers.Add()([dense[name](x) for name, x in inputs.items()]))
    outer = [keras.Input((3,)) for _ in "ab"]

    def nested(given):
        return keras.Model(outer, layers.Dense(2)(inner(given)))

    assert len(channels.groups(nested(dict(zip("ab", outer, strict=True))))) == 3 + 3 + 4 + 2
    with pytest.raises(ValueError, match="inputs in the structure it was made with, found another"):
        channels.groups(nested(outer))


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_what_enters_an_inner_model_by_name_is_met_by_the_input_of_that_name(names):
    widths = {"b": 2, "a": 3}
    inputs, outer = ({n: keras.Input((w,), name=n) for n, w in widths.items()} for _ in range(2))
    inner = keras.Model(
        inputs, layers.Add()([layers.Dense(4, name=f"from_{n}")(x) for n, x in inputs.items()])
    )
    model = keras.Model(outer, layers.Dense(2)(inner({name: outer[name] for name in names})))
    fixed = [held(g) for g in channels.groups(model) if g.fixed == (channels.INPUT,)]
    assert sorted(fixed, key=str) == [{("from_a/kernel", 0): (i,)} for i in range(3)] + [
        {("from_b/kernel", 0): (i,)} for i in range(2)
    ]


def test_an_inner_attention_that_is_called_by_name_is_counted_at_the_size_of_the_call():
    inputs = keras.Input((None, 3))
    x = layers.MultiHeadAttention(2, 4)(value=layers.Dense(5)(inputs), query=inputs)
    model = build((6, 3), keras.Model(inputs, x), layers.Dense(1))
    products = 3 * 5 + 3 * 2 * 4 + 2 * 5 * 2 * 4 + 2 * 4 * 3 + 3
    assert channels.count_multiply_adds(model) == 6 * products


@pytest.mark.parametrize("known_first", [True, False])
def test_one_unknown_size_makes_the_cost_of_what_it_meets_unknown(known_first):
    sizes = [(8, 8, 3), (None, None, 3)]
    inputs = [keras.Input(shape) for shape in (sizes if known_first else sizes[::-1])]
    conv, pool = layers.Conv2D(4, 3, name="conv"), layers.GlobalAveragePooling2D()
    x = layers.Add()([pool(conv(x)) for x in inputs])
    model = keras.Model(inputs, layers.Dense(2, name="dense")(x))
    found = channels.groups(model)
    outputs = [g for g in found if ("dense/bias", 0) in held(g)]
    assert [g.multiply_adds for g in found if g not in outputs] == [None] * (len(found) - 2)
    assert [g.multiply_adds for g in outputs] == [4, 4]
    assert all(g.fixed == (channels.INPUT,) for g in found if ("conv/kernel", 2) in held(g))


def test_every_input_is_fixed():
    inputs = [keras.Input((3,)), keras.Input((2,))]
    x = layers.Add()([layers.Dense(4, name=name)(x) for name, x in zip("ab", inputs, strict=True)])
    model = keras.Model(inputs, layers.Dense(1)(x))
    fixed = [held(g) for g in channels.groups(model) if g.fixed == (channels.INPUT,)]
    assert fixed == [{("a/kernel", 0): (i,)} for i in range(3)] + [
        {("b/kernel", 0): (i,)} for i in range(2)
    ]


def test_costs_of_attention_by_hand():
    """A query of 5 positions, a value of 7 and a key of 7, each with a width of its own."""
    query, value, key = (keras.Input(shape) for shape in ((5, 3), (7, 4), (7, 6)))
    x = layers.MultiHeadAttention(2, 8, value_dim=9, name="mha")(query, value, key)
    model = keras.Model([query, value, key], layers.Dense(1)(x))
    expected = 5 * 3 * 2 * 8 + 7 * 6 * 2 * 8 + 7 * 4 * 2 * 9 + 5 * 2 * 9 * 3 + 5 * 3
    assert channels.count_multiply_adds(model) == expected
    read = {key: len(i) for g in channels.groups(model) for key, i in held(g).items()}
    assert read["mha/key/kernel", 0] == 1
    widths = [sum(("mha/key/kernel", 0) in held(g) for g in channels.groups(model))]
    assert widths == [6]


def test_a_shared_layer_counts_each_call_and_its_weights_once():
    shared = layers.Dense(4, use_bias=False)
    model = build((4,), shared, layers.ReLU(), shared, layers.Dense(2, use_bias=False))
    assert channels.count_multiply_adds(model) == 2 * 16 + 8
    found = channels.groups(model)
    assert [g.parameters for g in found] == [4 + 4 - 1 + 2] * 4 + [4] * 2
    assert found[0].multiply_adds == 2 * 7 + 2
    assert all(g.fixed == (channels.INPUT,) for g in found[:4])  # its outputs are inputs, too


# What lives together ------------------------------------------------------------------------


def test_a_residual_stream_is_one_group():
    model = resnet8(widths=(2, 3, 4), shape=(8, 8, 3))
    found = free(model)
    assert [len(f) for f in found] == [13] * 2 + [6] * 2 + [6] * 3 + [13 - 1] * 3 + [6] * 4 + [
        11
    ] * 4
    stream = found[1]
    for name, axis in [("first", 3), ("stage_1_block_1_conv_1", 2), ("stage_1_block_1_conv_2", 3)]:
        assert stream[f"{name}/kernel", axis] == (1,)
    assert stream["stage_2_block_1_skip/kernel", 2] == (1,)
    assert stream["stage_1_block_1_conv_2_norm/moving_variance", 0] == (1,)


def test_flatten_strides_channels():
    model = build(
        (4, 4, 1), layers.Conv2D(3, 3, name="conv"), layers.Flatten(), layers.Dense(2, name="dense")
    )
    found = free(model)
    assert [f["dense/kernel", 0] for f in found] == [tuple(range(c, 12, 3)) for c in range(3)]


@pytest.mark.parametrize("twice", [False, True])
def test_concatenate_lines_channels_up(twice):
    inputs = keras.Input((5,))
    a = layers.Dense(2, name="a")(inputs)
    b = a if twice else layers.Dense(2, name="b")(inputs)
    x = layers.Concatenate()([a, b])
    model = keras.Model(inputs, layers.Dense(1, name="c")(x))
    read = [f["c/kernel", 0] for f in free(model)]
    assert read == ([(0, 2), (1, 3)] if twice else [(0,), (1,), (2,), (3,)])


@pytest.mark.parametrize("axis", [-1, 2, 1])
def test_concatenate_along_any_axis(axis):
    inputs = keras.Input((4, 5))
    a, b = (layers.Dense(2, name=name)(inputs) for name in "ab")
    x = layers.Concatenate(axis=axis)([a, b])
    model = keras.Model(inputs, layers.Dense(1, name="c")(x))
    found = [f["c/kernel", 0] for f in free(model)]
    assert found == ([(0,), (1,)] if axis == 1 else [(0,), (1,), (2,), (3,)])


def test_kinds_are_told_apart_by_their_axes():
    model = build((3,), layers.Dense(2, use_bias=False))
    assert channels.kinds(channels.groups(model)) == [[0, 1, 2], [3, 4]]


def test_kinds_are_told_apart_by_all_that_they_cut():
    """The five channels that come first are added to two of one layer and three of another."""
    inputs = keras.Input((3,))
    first = layers.ReLU()(layers.ReLU()(layers.Dense(5, name="first")(inputs)))
    parts = [layers.Dense(n, name=f"of_{n}")(inputs) for n in (2, 3)]
    x = layers.Add()([first, layers.Concatenate()(parts)])
    groups = channels.groups(keras.Model(inputs, layers.Dense(1)(x)))
    assert {group.members[0].variable.path for group in groups[3:8]} == {"first/kernel"}
    assert channels.kinds(groups) == [[0, 1, 2], [3, 4], [5, 6, 7], [8]]


@pytest.mark.parametrize("merge", ["Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"])
def test_what_is_merged_shares_its_channels(merge):
    inputs = keras.Input((5,))
    a, b = (layers.Dense(3, name=name)(inputs) for name in "ab")
    x = getattr(layers, merge)()([a, b])
    model = keras.Model(inputs, layers.Dense(1)(x))
    assert [(f["a/kernel", 1], f["b/kernel", 1]) for f in free(model)] == [
        ((i,), (i,)) for i in range(3)
    ]


def test_operators_share_channels_too():
    inputs = keras.Input((4, 4, 5))
    a, b = (layers.Conv2D(3, 1, name=name)(inputs) for name in "ab")
    x = keras.ops.relu(2.0 * a - b / 3 + 1)
    x = keras.ops.pad(x, [[0, 0], [1, 1], [2, 0], [0, 0]])
    x = keras.ops.mean(x[:, 1:, ::2], axis=(1, 2))
    model = keras.Model(inputs, layers.Dense(1)(x))
    assert [(f["a/kernel", 3], f["b/kernel", 3]) for f in free(model)] == [
        ((i,), (i,)) for i in range(3)
    ]


def test_depthwise_and_separable_pass_channels_on():
    model = build(
        (6, 6, 1),
        layers.Conv2D(2, 1, name="conv"),
        layers.DepthwiseConv2D(3, depth_multiplier=2, name="deep"),
        layers.SeparableConv2D(5, 3, depth_multiplier=2, name="apart"),
        layers.Flatten(),
        layers.Dense(1, name="dense"),
    )
    found = free(model)
    assert found[1] == {
        ("conv/kernel", 3): (1,),
        ("conv/bias", 0): (1,),
        ("deep/kernel", 2): (1,),
        ("deep/bias", 0): (2, 3),
        ("apart/depthwise_kernel", 2): (2, 3),
        ("apart/pointwise_kernel", 2): (4, 5, 6, 7),
    }
    assert len(found) == 2 + 5


def test_depthwise_kernels_of_one_axis():
    deep = layers.DepthwiseConv1D(3, depth_multiplier=2, name="deep")
    model = build((6, 1), layers.Conv1D(4, 1, name="conv"), deep, layers.Conv1D(1, 1))
    found = free(model)
    assert [f["deep/kernel", 1] for f in found] == [f["conv/kernel", 2] for f in found]
    assert [f["deep/bias", 0] for f in found] == [(0, 1), (2, 3), (4, 5), (6, 7)]
    model = build((6, 1), layers.Conv1DTranspose(3, 2, name="up"), layers.Conv1D(1, 1))
    assert [f["up/kernel", 1] for f in free(model)] == [(0,), (1,), (2,)]
    apart = layers.SeparableConv1D(5, 2, depth_multiplier=3, name="apart")
    model = build((6, 1), layers.Conv1D(2, 1, name="conv"), apart, layers.Conv1D(1, 1))
    assert [f["apart/pointwise_kernel", 1] for f in free(model)[:2]] == [(0, 1, 2), (3, 4, 5)]


@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_rule_that_counts_wrongly_is_not_believed(monkeypatch, count):
    other = lambda labels, layer, shape, x, **kwargs: labels.new(count)  # noqa: E731
    monkeypatch.setitem(channels.RULES, layers.ReLU, other)
    model = build((3,), layers.Dense(4), layers.ReLU(name="relu"), layers.Dense(2))
    assert any(f"ReLU 'relu' turns {count} channels into 4" in r for r in reasons(model))
    assert free(model) == []


def test_a_visit_returns_what_the_operation_does():
    with pytest.raises(ValueError, match="zip"):
        channels.walk(build((3,), layers.Dense(4)), [0], lambda *call: [0, 0])
    with pytest.raises(ValueError, match="zip"):
        channels.walk(build((3,), layers.Dense(4)), [0, 0], lambda *call: [0])


NUMBERS = [(2.0, 0.0), ([2.0], 0.0), (2.0, [1.0]), ([2.0, 3.0], 0.0), (2.0, [1.0, 2.0])]


@pytest.mark.parametrize(("scale", "offset"), NUMBERS)
def test_one_number_for_all_channels_passes_and_one_for_each_does_not(scale, offset):
    scaled = layers.Rescaling(scale, offset)
    found = free(build((3,), layers.Dense(2), scaled, layers.Dense(2)))
    assert len(found) == (0 if np.size(scale) == 2 or np.size(offset) == 2 else 2)


def test_two_groups_of_one_channel_are_depthwise():
    two = layers.Conv2D(4, 1, groups=2, name="two")
    found = free(build((6, 6, 1), layers.Conv2D(2, 1, name="first"), two, layers.Conv2D(1, 1)))
    assert [f["two/kernel", 3] for f in found] == [(0, 1), (2, 3)]
    assert [f["first/kernel", 3] for f in found] == [(0,), (1,)]


def attend(**options):
    """Return a function that attends from what it is given to itself."""
    return lambda x: layers.MultiHeadAttention(2, 3, **options)(x, x)


@pytest.mark.parametrize(
    ("shape", "link", "why"),
    [
        (
            (5, 4),
            lambda x: layers.MultiHeadAttention(2, 3)(x, x, return_attention_scores=True)[0],
            "is not understood",
        ),
        ((5, 6, 4), attend(attention_axes=(2,)), "attends along more than one axis"),
        ((5, 4), attend(output_shape=(2, 4)), "attends along more than one axis"),
        ((5, 6, 4), layers.Permute((2, 3, 1)), "moves the channels to another axis"),
        (
            (5, 4),
            lambda x: keras.ops.mean(x, 0, keepdims=True),
            "reduces over channels or examples",
        ),
    ],
)
def test_what_is_not_understood_fixes_what_it_meets(shape, link, why):
    model = build(shape, layers.Dense(4, name="before"), link, layers.Flatten(), layers.Dense(2))
    assert any(why in reason for reason in reasons(model))
    assert not any(("before/kernel", 1) in found for found in free(model))


def test_numbers_without_channels_may_be_reshaped():
    model = build((), layers.Reshape((1,)), layers.Dense(2), layers.Dense(1))
    assert len(free(model)) == 2
    assert any("input whose size is not known" in reason for reason in reasons(model))


def test_channels_of_an_input_of_unknown_size_are_not_moved():
    before = layers.Dense(3, name="before")
    model = build((None, 3), before, layers.Reshape((6,)), layers.Dense(2), layers.Dense(1))
    assert len(free(model)) == 2
    assert any("input whose size is not known" in reason for reason in reasons(model))


def test_a_model_of_any_size_has_the_size_that_it_is_called_with():
    inner = keras.Sequential([keras.Input((None, 3)), layers.Conv1D(4, 2)])
    model = build((6, 3), inner, layers.GlobalAveragePooling1D(), layers.Dense(2))
    assert channels.count_multiply_adds(model) == 5 * 2 * 3 * 4 + 4 * 2


def test_behind_a_softmax_there_are_as_many_channels():
    model = build((5, 4), layers.Dense(3, "softmax"), layers.Dense(2), layers.Dense(1))
    assert len(free(model)) == 2
    assert not any("turns" in reason for reason in reasons(model))


def test_a_report_says_how_many_of_an_axis_go_where_it_is_more_than_one():
    chain = layers.Conv1D(4, 1, name="conv"), layers.Flatten(), layers.Dense(3, name="dense")
    lines = [line.strip() for line in channels.report(build((2, 3), *chain)).splitlines()]
    assert "dense/kernel, axis 0, 2 each" in lines
    assert any(line.startswith("4 groups, each ") for line in lines)
    one = channels.report(build((2,), layers.Dense(1), layers.Dense(2))).splitlines()
    assert any(line.startswith("     1 group, each ") for line in one)
    assert "conv/kernel, axis 2" in lines


def test_groups_of_a_convolution():
    """Each group loses as many channels; with one channel in each, a group can go as a whole."""
    first = layers.Conv2D(4, 1, name="first")
    model = build((6, 6, 1), first, layers.Conv2D(6, 1, groups=2, name="two"), layers.Conv2D(1, 1))
    found = free(model)
    assert [f["first/kernel", 3] for f in found[:2]] == [(0, 2), (1, 3)]
    assert [f["two/kernel", 2] for f in found[:2]] == [(0,), (1,)]
    assert [f["two/kernel", 3] for f in found[2:]] == [(0, 3), (1, 4), (2, 5)]
    first = layers.Conv2D(4, 1, name="first")
    model = build((6, 6, 1), first, layers.Conv2D(8, 1, groups=4, name="four"), layers.Conv2D(1, 1))
    found = free(model)
    assert [f["four/kernel", 3] for f in found] == [(0, 1), (2, 3), (4, 5), (6, 7)]
    assert all(("four/kernel", 2) not in f for f in found)


def test_group_normalisation_goes_by_whole_groups():
    dense = layers.Dense(6, name="dense")
    model = build((2,), dense, layers.GroupNormalization(3, name="norm"), layers.Dense(1))
    assert [f["norm/gamma", 0] for f in free(model)] == [(0, 1), (2, 3), (4, 5)]
    dense = layers.Dense(6, name="dense")
    model = build((2,), dense, layers.GroupNormalization(-1, name="norm"), layers.Dense(1))
    assert len(free(model)) == 6
    dense = layers.Dense(6, name="dense")
    model = build((2,), dense, layers.GroupNormalization(1, name="norm"), layers.Dense(1))
    assert free(model) == []
    assert any(
        "GroupNormalization 'norm' normalises over all channels" in r for r in reasons(model)
    )


@pytest.mark.parametrize("shared_axes", [None, (1, 2), (1, 2, 3)])
def test_slopes_go_with_their_channels_wherever_they_are(shared_axes):
    """Those that all channels share stay."""
    slopes = layers.PReLU(shared_axes=shared_axes)
    links = slopes, layers.GlobalAveragePooling2D(), layers.Dense(2)
    found = free(build((4, 4, 2), layers.Conv2D(3, 1), *links))
    expected = [None if shared_axes and 3 in shared_axes else (i,) for i in range(3)]
    assert [group.get((slopes.alpha.path, 2)) for group in found] == expected


def test_heads_and_values_of_attention():
    inputs = keras.Input((7,))
    x = layers.Embedding(11, 4, name="words")(inputs)
    x = layers.MultiHeadAttention(3, 5, value_dim=2, name="mha")(x, x)
    model = keras.Model(inputs, layers.Dense(1)(x))
    found = free(model)
    assert len(found) == 4 + 3 + 2 + 4  # words, heads, values, outputs
    head = next(f for f in found if ("mha/query/kernel", 1) in f)
    assert {path for path, _ in head} == {
        f"mha/{part}/{name}" for part in ("query", "key", "value") for name in ("kernel", "bias")
    } | {"mha/attention_output/kernel"}
    assert any("divides by the root of its key dimension" in r for r in reasons(model))


def test_attention_without_biases():
    model = build((5, 4), attend(use_bias=False, name="mha"), layers.Dense(1))
    found = free(model)
    assert [len(group) for group in found] == [2] * 3 + [4] * 2 + [2] * 4
    assert not any("bias" in path for group in found for path, _ in group)


@pytest.mark.parametrize(
    "link",
    [
        lambda x: x[0],
        lambda x: x[:, 0],
        lambda x: x[:, ::2, -1],
        lambda x: keras.ops.mean(x, -2),
        lambda x: keras.ops.max(x, (-2, 1), keepdims=True),
        lambda x: keras.ops.sum(x, [1]),
        lambda x: keras.ops.pad(x, ((0, 0), (1, 0), (0, 2), (0, 0))),
        layers.Activation(layers.LeakyReLU(0.3)),
        lambda x: layers.Multiply()(inputs=[x, tf.constant([[[[2.0]]]])]),
        lambda x: layers.Permute((2, 1, 3))(x),
        layers.GaussianNoise(0.1),
        layers.SpatialDropout2D(0.1),
        layers.UpSampling2D(),
    ],
)
def test_what_works_on_other_axes_leaves_the_channels_free(link):
    conv = layers.Conv2D(4, 1, name="conv")
    model = build((5, 6, 3), conv, link, layers.Flatten(), layers.Dense(2))
    assert [f["conv/kernel", 3] for f in free(model)] == [(0,), (1,), (2,), (3,)]
    assert reasons(model) == {channels.INPUT, channels.OUTPUT}


def test_reshape_moves_channels_apart_and_back():
    model = build((3,), layers.Dense(12, name="d"), layers.Reshape((2, 2, 3)), layers.Conv2D(2, 1))
    assert [f["d/kernel", 1] for f in free(model)] == [(0, 3, 6, 9), (1, 4, 7, 10), (2, 5, 8, 11)]
    inner = (layers.Reshape((2, 6)), layers.Reshape((2, 2, 3)), layers.Flatten())
    model = build((3,), layers.Dense(12, name="d"), *inner, layers.Dense(2))
    assert [len(f["d/kernel", 1]) for f in free(model)] == [4, 4, 4]
    model = build((3,), layers.Dense(4, name="d"), layers.Reshape((4, 1)), layers.Conv1D(2, 1))
    assert [f["d/kernel", 1] for f in free(model)] == [(0, 1, 2, 3)]


def test_groups_and_signals_are_equal_to_themselves_alone():
    """Two of equal contents are two, and they may be the keys of a dictionary."""
    first, again = channels.groups(model := lenet5()), channels.groups(model)
    assert len({*first, *again}) == 2 * len(first)
    signals = [channels.Signal((None, 2), np.arange(2)) for _ in range(2)]
    assert len({*signals}) == 2
    for each, name in ((first[0], "fixed"), (signals[0], "shape")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(each, name, ())


def test_channels_that_stay_the_last_need_no_size():
    flat = layers.Conv2D(4, 1, name="c"), layers.Reshape((-1, 4)), layers.Conv1D(2, 1)
    found = free(build((None, None, 3), *flat))
    assert [f["c/kernel", 3] for f in found] == [(0,), (1,), (2,), (3,)]


def test_only_vectors_of_one_length_are_united():
    labels = channels.Labels()
    for count in (2, 4):
        with pytest.raises(ValueError, match="zip"):
            labels.unite(labels.new(3), labels.new(count))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=15))
def test_united_are_those_that_are_connected_whatever_the_order(edges):
    labels = channels.Labels()
    vector = labels.new(10)
    for i, j in edges:
        united = labels.unite(vector[[i]], vector[[j]])
        assert united.tolist() == [i]
    ends = np.reshape(edges, (-1, 2)).astype(int).T
    graph = sparse.coo_array((np.ones(len(edges)), ends), (10, 10))
    _, parts = sparse.csgraph.connected_components(graph, directed=False)
    lowest = [int(np.argmax(parts == part)) for part in parts]
    assert [labels.root(label) for label in vector.tolist()] == lowest


def test_nested_and_shared_models():
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, name="in"), layers.ReLU()], name="s"
    )
    inputs = keras.Input((4,))
    x = layers.Concatenate()([inner(inputs), inner(layers.Activation("tanh")(inputs))])
    model = keras.Model(inputs, layers.Dense(1, name="out")(x))
    assert [f["out/kernel", 0] for f in free(model)] == [(0, 3), (1, 4), (2, 5)]
    assert [f["s/in/kernel", 1] for f in free(model)] == [(0,), (1,), (2,)]
    assert channels.count_multiply_adds(model) == 2 * 12 + 6


# Nothing depends on a group that nobody reads ------------------------------------------------


def residual():
    return resnet8("tanh", widths=(2, 3, 4), shape=(8, 8, 3), dtype="float64")


def chain():
    return lenet5(dtype="float64")


def mixed():
    """A network with most of what passes channels on."""
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="tanh")(x)
    x = layers.Concatenate()([x, layers.SeparableConv2D(4, 3, padding="same")(x), x])
    x = layers.Conv2D(8, 3, groups=2)(layers.ZeroPadding2D()(x))
    y = layers.Conv2DTranspose(6, 2, strides=2)(layers.MaxPooling2D()(layers.PReLU()(x)))
    y = layers.Average()([layers.GroupNormalization(3)(y), layers.Conv2D(6, 1, groups=6)(y)])
    gate = layers.Reshape((1, 1, 6))(layers.Dense(6)(layers.GlobalAveragePooling2D()(y)))
    y = layers.DepthwiseConv2D(3, depth_multiplier=2)(y * keras.ops.sigmoid(gate))
    y = layers.BatchNormalization()(layers.Flatten()(layers.Cropping2D(2)(y)))
    return keras.Model(inputs, layers.Dense(2)(layers.Dense(5, "relu")(y)))


def attending():
    x = inputs = keras.Input((5, 3))
    x = layers.Dense(4, "tanh")(x)
    y = layers.MultiHeadAttention(3, 2, value_dim=4)(x, layers.Conv1D(6, 2, padding="causal")(x))
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(layers.Add()([x, y]))))


def in_double(make, randomly=True):
    """Return a network in float64, with random weights, scales and statistics if asked for."""
    before = keras.config.floatx()
    try:
        keras.config.set_floatx("float64")
        keras.config.set_dtype_policy("float64")
        model = make()
    finally:
        keras.config.set_floatx(before)
        keras.config.set_dtype_policy("float32")
    assert {v.dtype for v in model.trainable_variables} == {"float64"}
    generator = np.random.default_rng(0)
    for variable in model.weights if randomly else ():
        low = 0.5 if "variance" in variable.path else -1
        variable.assign(generator.uniform(low, 1, variable.shape))
    return model


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("make", [residual, mixed, attending, chain])
def test_nothing_depends_on_a_group_that_nobody_reads(make, training):
    """With the slices that read some groups at zero, their other slices may hold anything."""
    model, generator = in_double(make), np.random.default_rng(1)
    x = generator.normal(size=(4, *model.input_shape[1:]))
    everything = [g for g in channels.groups(model) if not g.fixed]
    chosen = [g for g in everything if generator.random() < 0.3]
    before = model(x, training=training)
    set_slices(chosen, True, lambda shape: np.zeros(shape))
    zeroed = model(x, training=training)
    set_slices(chosen, False, lambda shape: generator.uniform(0.5, 1.5, shape))
    spread = np.min(np.std(zeroed, axis=0))
    assert 0 < len(chosen) < len(everything)
    assert np.max(np.abs(zeroed - before)) > 1e-2 * spread > 0
    assert np.max(np.abs(model(x, training=training) - zeroed)) < 1e-12 * spread


def set_slices(groups, reads, numbers):
    """Assign numbers to all slices of some groups that read them, or to all others."""
    for member in (m for g in groups for m in g.members if m.reads == reads):
        values = np.moveaxis(member.variable.numpy(), member.axis, 0).copy()
        values[list(member.indices)] = numbers(values[list(member.indices)].shape)
        member.variable.assign(np.moveaxis(values, 0, member.axis))


# What is fixed, and why ---------------------------------------------------------------------


class Custom(layers.Layer):
    def call(self, x):
        return x[..., ::-1]


def softmax_like(x):
    return keras.ops.softmax(x)


@pytest.mark.parametrize(
    ("link", "why"),
    [
        (layers.Lambda(lambda x: x, name="odd"), "Lambda 'odd' is not understood"),
        (Custom(name="odd"), "Custom 'odd' is not understood"),
        (layers.EinsumDense("ab,bc->ac", 4, name="odd"), "EinsumDense 'odd' is not understood"),
        (layers.LayerNormalization(name="odd"), "LayerNormalization 'odd' normalises over all"),
        (layers.Softmax(name="odd"), "Softmax 'odd' normalises over all"),
        (layers.RMSNormalization(name="odd"), "RMSNormalization 'odd' normalises over all"),
        (layers.UnitNormalization(name="odd"), "UnitNormalization 'odd' normalises over all"),
        (layers.Activation("softmax", name="odd"), "Activation 'odd' has the activation softmax"),
        (layers.Activation(softmax_like, name="odd"), "the activation softmax_like, which is not"),
        (layers.Dense(4, "softmax", name="odd"), "Dense 'odd' has the activation softmax"),
        (layers.Dense(8, "glu", name="odd"), "Dense 'odd' has the activation glu"),
        (layers.Dense(4, layers.Softmax(), name="odd"), "Dense 'odd' has the activation Softmax,"),
        (layers.Normalization(name="odd"), "Normalization 'odd' holds statistics"),
        (layers.Rescaling([1.0, 2.0, 3.0, 4.0], name="odd"), "Rescaling 'odd' has constants"),
        (layers.Rescaling(2.0, [1.0, 2.0, 3.0, 4.0], name="odd"), "Rescaling 'odd' has constants"),
        (lambda x: keras.ops.add(np.ones(4, "f"), x), "Add 'add.*combines channels with"),
        (lambda x: x * np.arange(1.0, 5, dtype="f"), "Multiply 'multiply.*combines channels with"),
        (
            lambda x: keras.ops.concatenate([x, np.ones((1, 2), "f")], -1),
            "Concatenate 'concatenate.*combines channels with constants",
        ),
        (lambda x: keras.ops.mean(x, -1, keepdims=True), "Mean 'mean.*reduces over channels"),
        (lambda x: x + keras.ops.mean(x), "Mean 'mean.*reduces over channels"),
        (
            lambda x: keras.ops.transpose(keras.ops.transpose(x)),
            "Transpose 'transpose.*moves the channels to another axis",
        ),
        (lambda x: x * layers.Dense(1)(x), "Multiply 'multiply.*combines one channel with many"),
        (lambda x: layers.Dense(1)(x) * x, "Multiply 'multiply.*combines one channel with many"),
        (lambda x: keras.ops.pad(x, [[0, 0], [0, 1]]), "Pad 'pad.*adds channels"),
        (lambda x: x[:, 1:], "GetItem 'get_item.*picks out channels"),
        (lambda x: keras.ops.pad(x, [[0, 0], [1, 0]]), "Pad 'pad.*adds channels"),
        (lambda x: keras.ops.split(x, 2, -1)[0], "Split 'split.*is not understood"),
    ],
)
def test_what_is_not_understood_fixes_its_channels_and_is_named(link, why):
    model = build((3,), layers.Dense(4, name="before"), link, layers.Dense(2, name="after"))
    assert any(re.search(why, reason) for reason in reasons(model)), reasons(model)
    fixed = {key for g in channels.groups(model) if g.fixed for key in held(g)}
    free_keys = {key for f in free(model) for key in f}
    met = fixed - free_keys if not why.startswith("Dense") else free_keys - fixed
    assert ("before/kernel", 1) in met  # a dense layer mixes its outputs only
    assert ("after/kernel", 0) in fixed - free_keys
    assert re.search(why, channels.report(model))


def test_an_activation_is_known_if_it_takes_each_number_by_itself():
    """Tried on all that Keras has: where one channel changes, the others stay."""
    x = np.linspace(-3, 3, 8, dtype="float32").reshape(2, 4)
    changed = x + np.array([0, 0, 0, 1], "float32")
    tried = {}
    for name, activation in inspect.getmembers(keras.activations, inspect.isfunction):
        if name not in ("deserialize", "get", "serialize"):
            given = (0.5, 0.0) if name == "threshold" else ()
            before, after = (activation(tf.constant(v), *given).numpy() for v in (x, changed))
            alone = before.shape == x.shape and np.array_equal(before[:, :3], after[:, :3])
            tried[name] = alone
            assert channels.elementwise(activation) == alone, name
    mixing = {name for name, alone in tried.items() if not alone}
    assert mixing >= {"softmax", "log_softmax", "glu", "sparsemax"}
    assert len(tried) > 25


@pytest.mark.parametrize(
    ("activation", "known"),
    [
        (None, True),
        (layers.ReLU(6.0), True),
        (layers.LeakyReLU(), True),
        (layers.ELU(), True),
        (layers.Softmax(), False),
        (layers.PReLU(), False),
        (softmax_like, False),
        (type("Own", (layers.ReLU,), {})(), False),
    ],
)
def test_an_activation_may_be_a_layer_that_is_known(activation, known):
    assert channels.elementwise(activation) is known


@pytest.mark.parametrize(
    ("norm", "weights"),
    [
        (layers.LayerNormalization, ["gamma", "beta"]),
        (layers.RMSNormalization, ["scale"]),
        (functools.partial(layers.GroupNormalization, 1), ["gamma", "beta"]),
    ],
)
def test_weights_of_what_normalises_over_all_channels_are_fixed_with_them(norm, weights):
    links = layers.Dense(4, name="before"), norm(name="norm"), layers.Dense(2)
    found = [g for g in channels.groups(build((3,), *links)) if ("before/kernel", 1) in held(g)]
    assert [len(g.fixed) for g in found] == [1] * 4
    for name in weights:
        assert [held(g)[f"norm/{name}", 0] for g in found] == [(0,), (1,), (2,), (3,)]


def test_a_reason_is_given_once():
    """Though the layer that fixes a channel meets it at twelve places."""
    links = layers.Conv1D(2, 1, name="conv"), layers.Flatten(), layers.Softmax(name="odd")
    found = [g for g in channels.groups(build((12, 3), *links)) if ("conv/kernel", 2) in held(g)]
    why = "Softmax 'odd' normalises over all channels together, so that each counts for all others"
    assert [g.fixed for g in found] == [(why,)] * 2


def test_channels_first_and_moved_axes_are_fixed():
    conv = layers.Conv2D(4, 1, data_format="channels_first", name="conv")
    model = build((3, 6, 6), conv, layers.Flatten(), layers.Dense(2))
    assert any("Conv2D 'conv' has its channels first" in r for r in reasons(model))
    conv = layers.Conv2D(4, 1, name="conv")
    pool = layers.MaxPooling2D(2, data_format="channels_first", name="pool")
    model = build((6, 6, 3), conv, pool, layers.Flatten(), layers.Dense(2))
    assert any("MaxPooling2D 'pool' has its channels first" in r for r in reasons(model))
    dense = layers.Dense(4, name="dense")
    model = build((3,), dense, layers.Dense(2))
    assert len(free(model)) == 4
    dense.enable_lora(1)
    assert any("Dense 'dense' is quantised or has low-rank" in r for r in reasons(model))
    assert free(model) == []
    conv, move = layers.Conv2D(4, 1, name="conv"), layers.Permute((3, 1, 2), name="move")
    model = build((6, 6, 3), conv, move, layers.Flatten(), layers.Dense(2))
    assert any("Permute 'move' moves the channels" in r for r in reasons(model))
    assert free(model) == []
    for still in (
        layers.Permute((2, 1, 3)),
        lambda x: keras.ops.transpose(x, (0, 2, 1, 3)),
        lambda x: keras.ops.transpose(x, (0, 2, 1, -1)),
    ):
        model = build((6, 5, 3), conv, still, layers.GlobalAveragePooling2D())
        assert reasons(model) == {channels.INPUT, channels.OUTPUT}


@pytest.mark.parametrize(
    "link",
    [
        lambda axis: layers.BatchNormalization(axis=axis),
        lambda axis: layers.GroupNormalization(2, axis=axis),
        lambda axis: lambda x: layers.Concatenate(axis)([x, x]),
        lambda axis: lambda x: keras.ops.concatenate([x, x], axis),
    ],
    ids=["batch", "group", "concatenate", "ops.concatenate"],
)
def test_the_last_axis_may_be_counted_from_either_end(link):
    """Counted from the front, the last of four axes is 3; what follows 1 is not over channels."""

    def found(axis):
        keras.utils.clear_session(free_memory=False)
        links = link(axis), layers.GlobalAveragePooling2D(), layers.Dense(2)
        return channels.groups(build((4, 4, 3), layers.Conv2D(4, 1), *links))

    last, counted, other = ([(held(g), g.fixed) for g in found(axis)] for axis in (-1, 3, 1))
    assert counted == last
    assert other != last


@pytest.mark.parametrize(("shape", "fixed"), [((4, 4, 1), False), ((1,), False), ((4,), True)])
def test_a_constant_may_differ_between_places_but_not_between_channels(shape, fixed):
    links = layers.Conv2D(4, 1), lambda x: x * np.ones(shape), layers.GlobalAveragePooling2D()
    model = build((4, 4, 3), *links, layers.Dense(2))
    assert bool(free(model)) is not fixed
    assert any("combines channels with constants" in r for r in reasons(model)) is fixed


def test_networks_without_a_graph_are_refused():
    subclassed = Subclassed()
    subclassed(tf.zeros((1, 28, 28, 1)))
    with pytest.raises(ValueError, match=r"expected a functional or Sequential.*found Subclassed"):
        channels.groups(subclassed)
    with pytest.raises(ValueError, match="found a Sequential without an Input"):
        channels.groups(keras.Sequential([layers.Dense(3)]))


def test_the_report_says_what_and_why():
    text = channels.report(resnet8(widths=(2, 3, 4), shape=(8, 8, 3)), most=3)
    assert text.startswith("resnet_8, ")
    assert "3 FIXED" in text
    assert f"because: {channels.INPUT}" in text
    assert f"because: {channels.OUTPUT}" in text
    assert "2 groups, each" in text
    assert "first_norm/gamma, beta, moving_mean, moving_variance, axis 0" in text
    assert "and 4 more" in text
    assert "more" not in channels.report(dense_300_100(units=(4, 3)), most=3)
    assert "and 1 more" in channels.report(dense_300_100(units=(4, 3)), most=2)
    dense = channels.report(dense_300_100(units=(4, 3)))
    assert "784 each" in dense  # the pixels are one channel, flattened


def test_the_report_begins_with_what_can_go_and_what_it_holds():
    """A kernel between two kinds counts once: 20 + 30 + 12 of 74 products, 83.8% and not 124%."""
    parts = [layers.Dense(n, name=f"dense_{n}") for n in (4, 5, 6, 2)]
    model = build((3,), parts[0], layers.LayerNormalization(name="norm"), *parts[1:])
    counts = [3 * 4 + 4, 4 + 4, 4 * 5 + 5, 5 * 6 + 6, 6 * 2 + 2]
    held = sum(counts[2:]) - 2  # all but the bias of the output
    lines = channels.report(model).splitlines()
    assert lines[:6] == [
        f"{model.name}, {sum(counts)} parameters, 74 multiply-adds:",
        f"    11 of 24 groups can go, of 2 kinds, with {held / sum(counts):.1%} of the parameters "
        "and 83.8% of the multiply-adds",
        "     3 FIXED: input of the network",
        "     8 FIXED: LayerNormalization 'norm' normalises over all channels together, so that "
        "each counts for all others",
        "     2 FIXED: output of the network",
        "",
    ]


def test_a_report_by_hand():
    chain = layers.Conv1D(4, 1, name="conv"), layers.Flatten(), layers.Dense(3, name="dense")
    model = build((2, 3), *chain)
    expected = [
        f"{model.name}, 43 parameters, 48 multiply-adds:",
        "     4 of 10 groups can go, of 1 kind, with 93.0% of the parameters and 100.0% of the "
        "multiply-adds",
        "     3 FIXED: input of the network",
        "     3 FIXED: output of the network",
        "",
        "     3 FIXED, each 4 parameters, 8 multiply-adds",
        "       because: input of the network",
        "       conv/kernel, axis 1",
        "",
        "     4 groups, each 10 parameters, 12 multiply-adds",
        "       conv/kernel, axis 2",
        "       conv/bias, axis 0",
        "       and 1 more",
        "",
        "     3 FIXED, each 9 parameters, 8 multiply-adds",
        "       because: output of the network",
        "       dense/kernel, axis 1",
        "       dense/bias, axis 0",
    ]
    assert channels.report(model, most=2).splitlines() == expected
    whole = [*expected[:12], "       dense/kernel, axis 0, 2 each", *expected[13:]]
    assert channels.report(model).splitlines() == whole
    lines = channels.report(lenet5()).splitlines()
    assert lines[0] == "lenet_5, 61,706 parameters, 416,520 multiply-adds:"
    assert "   120 groups, each 485 parameters, 484 multiply-adds" in lines
    assert "     6 groups, each 426 parameters, 59,600 multiply-adds" in lines


def test_groups_that_cut_the_same_are_reported_each_with_its_own_reason():
    inputs = [keras.Input((n,)) for n in (3, 2, 2)]
    ends = [layers.Softmax(name=name)(x) for name, x in zip("pq", inputs[1:], strict=True)]
    x = layers.Add()([layers.Dense(4, name="a")(inputs[0]), layers.Concatenate()(ends)])
    lines = channels.report(keras.Model(inputs, layers.Dense(1)(x)), most=0).splitlines()
    why = "normalises over all channels together, so that each counts for all others"
    for name in "pq":
        first = lines.index(f"       because: Softmax '{name}' {why}")
        assert lines[first - 1] == "     2 FIXED, each 5 parameters, 4 multiply-adds"
        assert lines[first + 1] == "       and 3 more"


def test_the_report_of_what_cannot_go_or_has_no_known_size():
    model = build((3,), layers.Dense(2))
    assert channels.report(model).splitlines()[1] == "     0 of 5 groups can go, of 0 kinds"
    sized = layers.Conv2D(4, 3), layers.GlobalAveragePooling2D(), layers.Dense(2)
    lines = channels.report(build((None, None, 3), *sized)).splitlines()
    assert lines[0].endswith(", 122 parameters:")
    assert lines[1] == "     4 of 9 groups can go, of 1 kind, with 98.4% of the parameters"


# The walk -----------------------------------------------------------------------------------


def test_the_walk_computes_what_the_model_computes():
    """With each operation as itself the walk is the model: nested, shared, several outputs."""
    model = walked()
    x = np.random.default_rng(0).normal(size=(2, 3))

    def visit(node, args, kwargs):
        return node.operation(*args, **kwargs)

    found = channels.walk(model, [tf.constant(x), tf.constant(x[:, :2])], visit)
    for a, b in zip(found, model([x, x[:, :2]]), strict=True):
        assert np.array_equal(a, b)


def through_all(way):
    """Return a model whose layers, of kinds with a rule of their own, are all called in one way."""
    keras.utils.clear_session()  # so that names begin anew
    chain = [layers.Conv2D(3, 3), layers.BatchNormalization(), layers.ZeroPadding2D()]
    chain += [layers.MaxPooling2D(), layers.DepthwiseConv2D(2), layers.Permute((2, 1, 3))]
    chain += [layers.Reshape((4, 3)), layers.UpSampling1D(), layers.Conv1D(2, 2), layers.Flatten()]
    x = inputs = keras.Input((6, 6, 2))
    for layer in [*chain, layers.Dropout(0.5), layers.Dense(2, name="last")]:
        x = layer(inputs=x) if way == "by name" else layer(x)
    return keras.Model(inputs, x)


def test_what_enters_by_name_enters():
    inputs = keras.Input((4,))
    x = layers.Dense(3, name="a")(inputs=inputs)
    x = keras.Sequential([keras.Input((3,)), layers.ReLU()])(inputs=x)
    model = keras.Model(inputs, layers.Dense(1)(inputs=x))
    assert len(free(model)) == 3
    named = through_all("by name")
    assert free(named) == free(through_all("in order"))
    x = np.random.default_rng(0).random((2, 6, 6, 2))
    (found,) = channels.walk(named, [tf.constant(x)], lambda n, a, k: n.operation(*a, **k))
    assert np.array_equal(found, named(x))
    inputs = keras.Input((5, 4))
    attention = layers.MultiHeadAttention(2, 3)
    model = keras.Model(inputs, attention(value=layers.Dense(6)(inputs), query=inputs))
    assert sorted(len(f) for f in free(model)) == [3] * 3 + [4] * 6 + [7] * 2


def names_used():
    """Return (name, module) for every class that the modules ask Keras for by name."""
    where = {None: keras.layers, "operations": operations, "nn_operations": nn_operations}
    for module in (channels, paths):
        for call in ast.walk(ast.parse(inspect.getsource(module))):
            name = ast.unparse(getattr(call, "func", ast.Pass())).removeprefix("channels.")
            if name in ("classes", "each_rank") and isinstance(call.args[0], ast.Constant):
                other = ast.unparse(call.args[1]) if len(call.args) > 1 else None
                for each in call.args[0].value.split():
                    ranks = "123" if name == "each_rank" else [""]
                    yield from (
                        (each.format(r), where.get(other, keras.activations)) for r in ranks
                    )


def test_keras_has_what_is_asked_for_by_name():
    """These names are partly private: this fails when Keras moves them."""
    missing = {name for name, module in names_used() if not hasattr(module, name)}
    assert missing == {"DepthwiseConv3D", "SeparableConv3D"}
    assert len(set(names_used())) > 120


def walked():
    keras.utils.set_random_seed(0)
    options = {"dtype": "float64"}
    inner = keras.Sequential(
        [keras.Input((3,), dtype="float64"), layers.Dense(3, "tanh", **options)]
    )
    a, b = keras.Input((3,), dtype="float64"), keras.Input((2,), dtype="float64")
    c = layers.Dense(3, **options)(b)
    x = layers.Add(**options)([inner(a), inner(c), inner(inner(c))])
    return keras.Model([a, b], [x * 2.0, layers.Concatenate(**options)([x, a, x])])


@pytest.mark.parametrize("name", ["MobileNet", "MobileNetV2"])
def test_the_networks_of_keras(name):
    """Every weight axis over channels is in a group, and nothing but input and output is fixed."""
    options = {"weights": None, "classes": 7, "classifier_activation": None}
    model = getattr(keras.applications, name)(input_shape=(32, 32, 3), **options)
    found = channels.groups(model)
    assert {r for g in found for r in g.fixed} == {channels.INPUT, channels.OUTPUT}
    assert sum(bool(g.fixed) for g in found) == 3 + 7
    together = {m.variable.path for g in found for m in g.members}
    assert together == {v.path for v in model.variables if "seed" not in v.path}


class Halved(keras.Model):
    """A functional model that does less than its layers say."""

    def call(self, x, training=None, mask=None):
        return 0.5 * super().call(x, training=training, mask=mask)


class Doubled(keras.Sequential):
    """A chain of layers that does more than its layers say."""

    def call(self, x, training=None, mask=None):
        return 2.0 * super().call(x, training=training, mask=mask)


def test_a_group_names_all_that_fixes_it():
    """Two layers that meet the same channels, and one that meets those that are added to them."""
    x = keras.Input((3,))
    a, b = (layers.Dense(4, name=name)(x) for name in "ab")
    ends = [layers.Softmax(name=name)(y) for name, y in (("p", a), ("q", a), ("r", b))]
    together = layers.Concatenate()([*ends, layers.Add()([a, b])])
    model = keras.Model(x, layers.Dense(2)(together))
    found = [g.fixed for g in channels.groups(model) if ("a/kernel", 1) in held(g)]
    assert len(found) == 4
    for fixed in found:
        assert sorted(re.findall(r"Softmax '(.)'", " ".join(fixed))) == ["p", "q", "r"]


def test_what_is_quantised_is_fixed():
    dense = layers.Dense(4, name="dense")
    model = build((3,), dense, layers.Dense(2))
    assert len(free(model)) == 4
    dense.quantize("int8")
    assert any("Dense 'dense' is quantised" in r for r in reasons(model))
    assert free(model) == []


def test_attention_under_a_mask_that_the_network_computes_is_fixed():
    inputs = keras.Input((5, 3))
    x, mask = layers.Dense(4)(inputs), layers.Dense(5, "sigmoid", name="mask")(inputs)
    x = layers.MultiHeadAttention(2, 3, name="mha")(x, x, attention_mask=mask)
    model = keras.Model(inputs, layers.Dense(1)(x))
    assert any("'mha' takes a mask that the network computes" in r for r in reasons(model))
    assert free(model) == []


def test_the_gate_of_attention_goes_with_heads_and_values():
    inputs = keras.Input((5, 3))
    x = layers.Dense(4, name="first")(inputs)
    x = layers.MultiHeadAttention(3, 2, value_dim=6, use_gate=True, name="mha")(x, x)
    model = keras.Model(inputs, layers.Dense(1)(x))
    gate = [{key: i for key, i in f.items() if "gate" in key[0]} for f in free(model)]
    kernel, bias = (f"mha/gate/{name}" for name in ("kernel", "bias"))
    assert [g for g in gate if (kernel, 0) in g] == [{(kernel, 0): (i,)} for i in range(4)]
    heads = [{(kernel, 1): (i,), (bias, 0): (i,)} for i in range(3)]
    assert [g for g in gate if (kernel, 1) in g] == heads
    values = [{(kernel, 2): (i,), (bias, 1): (i,)} for i in range(6)]
    assert [g for g in gate if (kernel, 2) in g] == values
    products = 3 * 4 + 2 * 4 * 3 * 2 + 2 * 4 * 3 * 6 + 3 * 6 * 4 + 4
    assert channels.count_multiply_adds(model) == 5 * products


def test_channels_that_are_picked_behind_an_ellipsis_are_fixed():
    links = layers.Conv2D(4, 1), lambda x: x[..., ::-1], layers.GlobalAveragePooling2D()
    model = build((4, 4, 3), *links, layers.Dense(2))
    assert any("picks out channels" in r for r in reasons(model))
    assert free(model) == []


@pytest.mark.parametrize("kind", [Doubled, Halved])
def test_a_model_with_a_call_of_its_own_is_no_graph(kind):
    inputs = keras.Input((3,))
    links = [inputs, layers.Dense(4), layers.Dense(3)]
    graph = (links,) if kind is Doubled else (inputs, links[2](links[1](inputs)))
    own, found = kind(*graph, name="own"), kind.__name__
    with pytest.raises(ValueError, match=f"'own': expected .* found {found}, which has a call of"):
        channels.groups(own)
    model = build((3,), layers.Dense(3, name="before"), own, layers.Dense(2))
    assert any(f"{found} 'own' is not understood" in r for r in reasons(model))
    assert free(model) == []
