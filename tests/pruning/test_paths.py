"""Paths: R and what passes through a weight, against counting; and what cannot be treated."""

import collections
import functools
import itertools

from prosper_utils.pruning import channels, masks, paths
from prosper_utils.pruning.networks import dense_300_100, kernels, lenet5, resnet8
from prosper_utils.pruning.scores import synflow
from prosper_utils.study.checks import relative_error

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from test_networks import Subclassed


def chain(*sizes):
    """Return a dense network without biases."""
    layers = [keras.layers.Dense(n, "tanh", use_bias=False) for n in sizes[1:]]
    return keras.Sequential([keras.Input((sizes[0],)), *layers])


SMALL = chain(3, 2, 2, 3)
FLOW = paths.flow(SMALL)
SHAPES = [(3, 2), (2, 2), (2, 3)]


def lists_of_kernels(entry):
    def kernel(shape):
        return st.lists(
            entry, min_size=6 if 3 in shape else 4, max_size=6 if 3 in shape else 4
        ).map(lambda values: np.reshape(values, shape).astype(np.float64))

    return st.tuples(*map(kernel, SHAPES)).map(list)


def all_paths():
    return itertools.product(range(3), range(2), range(2), range(3))


@given(lists_of_kernels(st.floats(0, 2)))
def test_r_is_the_sum_over_all_paths(values):
    a, b, c = values
    expected = sum(a[i, j] * b[j, k] * c[k, m] for i, j, k, m in all_paths())
    found = float(FLOW([tf.constant(v) for v in values]))
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-12)


@given(lists_of_kernels(st.booleans()))
def test_a_weight_counts_if_it_is_on_a_path(values):
    a, b, c = values
    expected = [np.zeros(shape, bool) for shape in SHAPES]
    for i, j, k, m in all_paths():
        if a[i, j] and b[j, k] and c[k, m]:
            expected[0][i, j] = expected[1][j, k] = expected[2][k, m] = True
    for found, mask in zip(paths.effective(SMALL, values), expected, strict=True):
        assert np.array_equal(found, mask)


@pytest.mark.parametrize("build", [dense_300_100, lenet5])
def test_a_whole_network_is_all_paths(build):
    model = build()
    everything = [tf.ones(k.shape) for k in kernels(model)]
    assert all(np.all(m) for m in paths.effective(model, everything))
    assert masks.effective_sparsity(model) == 0


def test_a_filter_without_successors_is_on_no_path():
    model = lenet5()
    chosen = [np.ones(k.shape) for k in kernels(model)]
    chosen[1][:, :, 2, :] = 0  # nobody reads map 2 of the first layer
    found = paths.effective(model, chosen)
    assert not np.any(found[0][..., 2])
    assert np.all(np.delete(found[0], 2, axis=-1))
    masks.apply(model, chosen)
    gone = 25 * 16 + 25
    assert masks.effective_sparsity(model) == pytest.approx(gone / 61_470, rel=1e-9)
    assert masks.dead(chosen[1]) == (1, 0)
    assert masks.dead(chosen[0]) == (0, 0)


def test_activations_biases_and_types_do_not_matter():
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(3, 3, padding="same", activation="tanh", bias_initializer="ones")(
        inputs
    )
    x = keras.layers.MaxPooling2D(2)(keras.layers.Activation("tanh")(keras.layers.ReLU()(x)))
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(x))
    functional = keras.Model(inputs, keras.layers.Dense(4, "sigmoid")(x))
    functional.set_weights([tf.random.normal(w.shape) for w in functional.get_weights()])
    plain = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(3, 3, padding="same", use_bias=False),
            keras.layers.AveragePooling2D(2),
            keras.layers.Flatten(),
            keras.layers.Dense(4, use_bias=False),
        ]
    )
    values = [tf.cast(tf.abs(k.value), tf.float64) for k in kernels(functional)]
    plain.set_weights([v.numpy() for v in values])
    expected = tf.reduce_sum(plain(tf.ones((1, 6, 6, 2))))
    assert relative_error([paths.flow(functional)(values)], [expected]) < 1e-6


def test_what_cannot_be_treated_is_named():
    normalised = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3), keras.layers.LayerNormalization(name="norm")]
    )
    with pytest.raises(ValueError, match=r"found LayerNormalization 'norm'"):
        paths.flow(normalised)
    assert " - " in masks.report(normalised)
    subclassed = Subclassed()
    subclassed(tf.zeros((1, 28, 28, 1)))
    with pytest.raises(
        ValueError, match=r"expected a functional or Sequential model.*found Subclassed"
    ):
        paths.flow(subclassed)


# Any graph ----------------------------------------------------------------------------------

layers = keras.layers


def residual():
    return resnet8(widths=(2, 3, 4), shape=(6, 6, 3), dtype="float64")


def concatenating():
    x = inputs = keras.Input((6, 6, 2))
    for name in "abc":
        y = layers.BatchNormalization()(layers.Conv2D(3, 3, padding="same", name=name)(x))
        x = layers.Concatenate()([x, layers.ReLU()(y)])
    x = layers.Flatten()(layers.MaxPooling2D()(x))
    return keras.Model(inputs, layers.Dense(2, name="out")(layers.Dropout(0.5)(x)))


def depthwise():
    x = inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(4, 3, 2, padding="same", name="a")(layers.Rescaling(1 / 255)(x))
    y = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="deep")(x)
    y = layers.BatchNormalization()(layers.Activation("relu6")(y))
    x = layers.Subtract()([x, layers.Conv2D(4, 1, name="b")(y)])
    x = layers.GlobalMaxPooling2D()(layers.UpSampling2D()(x))
    return keras.Model(inputs, layers.Dense(2, "softmax", name="out")(x))


def separable():
    x = inputs = keras.Input((8, 8, 2))
    x = layers.SeparableConv2D(4, 3, strides=2, depth_multiplier=2, name="a")(x)
    x = layers.Conv2DTranspose(6, 2, strides=2, name="b")(layers.ZeroPadding2D()(x))
    x = layers.Conv2D(4, 2, groups=2, dilation_rate=2, name="c")(x)
    x = layers.Average()([x, layers.Conv2D(4, 2, groups=4, padding="same", name="d")(x)])
    return keras.Model(inputs, layers.Dense(2, name="out")(layers.Flatten()(x)))


def nested():
    """Shared and nested models, operators, several inputs and outputs."""
    block = keras.Sequential([keras.Input((3,)), layers.Dense(3, "tanh", name="in")], name="block")
    a, b = keras.Input((3,)), keras.Input((2,))
    x = block(layers.Dense(3, name="a")(a)) + 0.5 * block(layers.Dense(3, name="b")(b)) - 1.0
    y = layers.Maximum()([block(x / 4), layers.PReLU()(x)])
    return keras.Model([a, b], [layers.Dense(2, name="y")(y), layers.Dense(1, name="x")(x)])


GRAPHS = [residual, concatenating, depthwise, separable, nested]


@functools.cache
def compiled(build):
    """Return a network and R of it, traced once: Keras compiles a grouped convolution per call."""
    model = build()
    return model, tf.function(paths.flow(model))


def through(part, member):
    """Return how much passes through the slices of a kernel that a member is."""
    return np.sum(np.take(part, member.indices, member.axis))


def mixes(member):
    """Return whether a kernel has inputs and outputs of its own; else what comes in goes out."""
    layer, name = member.variable.path.split("/")[-2:]
    return name != "depthwise_kernel" and layer not in ("d", "deep")


def writes_and_reads(model, parts):
    """Return, for each group that can go, what the weights that write it and read it pass on."""
    found = {id(k): p.numpy() for k, p in zip(kernels(model), parts, strict=True)}
    for group in channels.groups(model):
        members = [m for m in group.members if id(m.variable) in found]
        flows = [(m.reads, through(found[id(m.variable)], m)) for m in members if mixes(m)]
        if not group.fixed:
            yield [sum(flow for reads, flow in flows if reads == side) for side in (False, True)]


@pytest.mark.parametrize("build", GRAPHS)
@pytest.mark.parametrize("sparsity", [0, 0.5])
def test_what_flows_into_a_unit_flows_out_of_it(build, sparsity):
    """SynFlow's conservation law, for the channels of any graph, whole and pruned."""
    model, total = compiled(build)
    generator = np.random.default_rng(0)
    for _ in range(5):
        sizes = [
            tf.constant(generator.random(k.shape) * (generator.random(k.shape) >= sparsity))
            for k in kernels(model)
        ]
        parts = paths.passing(total, sizes)
        pairs, rounding = list(writes_and_reads(model, parts)), 1e-12 * float(total(sizes))
        assert len(pairs) >= 3
        assert max(max(pair) for pair in pairs) > 0
        for written, read in pairs:
            assert written == pytest.approx(read, rel=1e-12, abs=rounding)


@pytest.mark.parametrize("build", [residual, concatenating, depthwise, separable])
def test_all_that_flows_passes_each_cut(build):
    """The kernels that read the input, and those that write the output, pass on all of R."""
    model, total = compiled(build)
    generator = np.random.default_rng(1)
    sizes = [tf.constant(generator.random(k.shape)) for k in kernels(model)]
    parts = dict(zip([k.path for k in kernels(model)], paths.passing(total, sizes), strict=True))
    value = pytest.approx(float(total(sizes)), rel=1e-12)
    first, *_, last = parts
    assert last in ("out/kernel", "output/kernel")
    assert float(tf.reduce_sum(parts[last])) == value
    if build is concatenating:  # what is passed by goes around the first one
        assert float(tf.reduce_sum(parts[first])) < float(total(sizes))
    else:
        assert float(tf.reduce_sum(parts[first])) == value


def test_a_residual_network_by_hand():
    """Dense layers of one unit: R is what polynomials say."""
    x = inputs = keras.Input((1,))
    x = layers.Dense(1, name="a")(x)
    y = layers.BatchNormalization(gamma_initializer="zeros")(layers.Dense(1, name="b")(x))
    x = layers.Add()([x, layers.Dense(1, name="c")(y), x])
    x = layers.Average()([x, layers.Dense(1, name="d")(x)])
    model = keras.Model(inputs, layers.Dense(1, name="e")(layers.Concatenate()([x, inputs])))
    a, b, c, d, e, f = 2.0, 3.0, 5.0, 7.0, 11.0, 13.0
    values = [[[a]], [[b]], [[c]], [[d]], [[e], [f]]]
    expected = a * (2 + b * c) * (1 + d) / 2 * e + f
    assert float(paths.flow(model)([tf.constant(v, tf.float64) for v in values])) == expected


def test_each_layer_is_linear_as_keras_has_it():
    """Without activations R is the sum of the model's own outputs for an input of ones."""
    for build in (concatenating, depthwise, separable):
        model = keras.models.clone_model(build(), clone_function=plain)
        generator = np.random.default_rng(2)
        for kernel in kernels(model):
            kernel.assign(generator.random(kernel.shape))
        values = [tf.cast(k.value, tf.float64) for k in kernels(model)]
        ones = tf.ones((1, *model.input_shape[1:]))
        expected = tf.reduce_sum(model(ones))
        assert relative_error([paths.flow(model)(values)], [expected]) < 1e-5


CONVOLUTIONS = ("Conv2D", "Conv2DTranspose", "DepthwiseConv2D", "SeparableConv2D")
GEOMETRIES = [{}, {"strides": 2}, {"dilation_rate": 2}, {"padding": "same", "strides": 2}]


@pytest.mark.parametrize("options", GEOMETRIES, ids=str)
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_convolution_goes_where_its_options_say(kind, options):
    if kind == "Conv2DTranspose" and "dilation_rate" in options:
        pytest.skip("TensorFlow has none on processors")
    width = () if kind == "DepthwiseConv2D" else (5,)
    layer = getattr(layers, kind)(*width, 3, use_bias=False, **options)
    model = keras.Sequential([keras.Input((9, 7, 2)), layer])
    values = [tf.abs(tf.cast(k.value, tf.float64)) for k in kernels(model)]
    for kernel, value in zip(kernels(model), values, strict=True):
        kernel.assign(value)
    seen = tf.reduce_sum(model(tf.ones((1, 9, 7, 2))))
    assert relative_error([paths.flow(model)(values)], [seen]) < 1e-5


def plain(layer):
    """Return a copy of a layer without bias, activation, scaling and maximum."""
    config = layer.get_config()
    kind = type(layer).__name__.replace("MaxPooling", "AveragePooling")
    if kind == "BatchNormalization":
        return layers.BatchNormalization(epsilon=0, name=layer.name)
    if kind in ("ReLU", "Activation", "Rescaling"):
        return layers.Identity(name=layer.name)
    if kind == "Subtract":
        return layers.Add(name=layer.name)
    config |= {k: v for k, v in {"use_bias": False, "activation": None}.items() if k in config}
    return getattr(layers, kind).from_config(config)


def random_graph(seed, count, share):
    """Return a small graph of dense layers, sums and concatenations, and masks for its kernels."""
    generator = np.random.default_rng(seed)
    nodes = [keras.Input((2,))]
    for _ in range(count):
        a, b = (nodes[i] for i in generator.integers(len(nodes), size=2))
        kind = generator.choice(["dense", "dense", "add", "concatenate"])
        if kind == "add" and a.shape == b.shape:
            nodes.append(layers.Add()([a, b]))
        elif kind == "concatenate" and a.shape[1] + b.shape[1] < 8:
            nodes.append(layers.Concatenate()([a, b]))
        else:
            nodes.append(layers.Dense(int(generator.integers(1, 4)), "relu")(a))
    model = keras.Model(nodes[0], layers.Dense(2)(nodes[-1]))
    return model, [generator.random(k.shape) < share for k in kernels(model)]


def unit_graph(model, masks):
    """Return the edges of a graph of units, (from, to, kept weight or None), and both its ends."""
    mask_of = {k.path: m for k, m in zip(kernels(model), masks, strict=True)}
    count, edges = itertools.count(), []

    def units(size):
        return np.array([next(count) for _ in range(size)])

    def visit(node, args, kwargs):
        inputs, made = keras.tree.flatten(args), units(node.outputs[0].shape[1])
        if isinstance(node.operation, layers.Dense):
            path = node.operation.kernel.path
            kept = zip(*np.nonzero(mask_of[path]), strict=True)
            edges.extend((inputs[0][i], made[j], (path, i, j)) for i, j in kept)
        elif isinstance(node.operation, layers.Add):
            edges.extend((a, b, None) for x in inputs for a, b in zip(x, made, strict=True))
        else:
            edges.extend((a, b, None) for a, b in zip(np.concatenate(inputs), made, strict=True))
        return made

    first = units(2)
    (last,) = channels.walk(model, [first], visit)
    return edges, set(first), set(last)


def on_a_path(edges, first, last):
    """Return the weights on all paths, found by following each of them to its end."""
    onwards = collections.defaultdict(list)
    for source, target, weight in edges:
        onwards[source].append((target, weight))
    found, open_paths = set(), [(unit, ()) for unit in first]
    while open_paths:
        unit, behind = open_paths.pop()
        found |= set(behind) if unit in last else set()
        open_paths += [(target, (*behind, weight)) for target, weight in onwards[unit]]
    return found - {None}


@given(st.integers(0, 2**31), st.integers(2, 6), st.floats(0.2, 0.9))
@settings(max_examples=25)
def test_a_weight_counts_if_a_path_of_any_graph_has_it(seed, count, share):
    model, chosen = random_graph(seed, count, share)
    expected = on_a_path(*unit_graph(model, chosen))
    for kernel, found in zip(kernels(model), paths.effective(model, chosen), strict=True):
        here = {(kernel.path, *index) for index in zip(*np.nonzero(found), strict=True)}
        assert here == {weight for weight in expected if weight[0] == kernel.path}


def test_a_block_is_on_a_path_whatever_its_skip():
    """A block of a residual network that nothing leaves is dead, and the rest of it is not."""
    model = residual()
    chosen = {k.path: np.ones(k.shape) for k in kernels(model)}
    chosen["stage_1_block_1_conv_2/kernel"][:] = 0
    found = dict(zip(chosen, paths.effective(model, list(chosen.values())), strict=True))
    assert not np.any(found["stage_1_block_1_conv_1/kernel"])
    others = [f for path, f in found.items() if "stage_1" not in path]
    assert all(np.all(f) for f in others)
    masks.apply(model, list(chosen.values()))
    gone = 2 * 9 * 2 * 2
    total = sum(np.size(m) for m in chosen.values())
    assert masks.effective_sparsity(model) == pytest.approx(gone / total, rel=1e-12)
    assert " - " not in masks.report(model)


def test_the_number_of_paths_may_exceed_a_float():
    """Then R is infinite and scores are refused; what is on a path is known all the same."""
    wide = [layers.Dense(100, use_bias=False) for _ in range(170)]
    model = keras.Sequential([keras.Input((100,)), *wide])
    ones = [tf.ones(k.shape, tf.float64) for k in kernels(model)]
    assert np.isinf(paths.flow(model)(ones))
    assert all(np.all(found) for found in paths.effective(model, ones))
    most = [np.indices(one.shape).sum(0) % 10 != 0 for one in ones]  # infinity times 0 is none
    assert not np.isfinite(paths.flow(model)([tf.cast(mask, tf.float64) for mask in most]))
    for found, mask in zip(paths.effective(model, most), most, strict=True):
        np.testing.assert_array_equal(found, mask)
    with pytest.raises(ValueError, match="expected finite numbers"):
        masks.top_k(paths.passing(paths.flow(model), ones), 0.5)


@pytest.mark.parametrize("trainable", [False, True])
def test_what_is_frozen_or_embedded_counts_with_its_size(trainable):
    words = layers.Embedding(3, 2, name="words", trainable=trainable)
    frozen = layers.Dense(2, trainable=False)
    model = keras.Sequential(
        [keras.Input((4,)), words, frozen, layers.GlobalAveragePooling1D(), layers.Dense(1)]
    )
    words.embeddings.assign([[1, -2], [0, 0.5], [-1, 0]])
    frozen.kernel.assign([[1, 0], [-2, 0]])
    ones = tf.constant([[1.0], [1.0]], tf.float64)
    sizes = [tf.abs(tf.cast(words.embeddings.value, tf.float64))] if trainable else []
    found = paths.passing(paths.flow(model), [*sizes, ones])
    assert np.array_equal(found[-1], [[2 * 1 + 2.5 * 2], [0]])


def test_synflow_prunes_a_residual_network():
    """At 90% no kernel is left empty, and what is kept is nearly all on a path."""
    model = resnet8(widths=(4, 8, 16), shape=(8, 8, 3), dtype="float64")
    scores = synflow(model, sparsity=0.9, rounds=20)
    chosen = masks.top_k(scores, 0.9)
    assert min(np.sum(m) for m in chosen) > 0
    found = paths.effective(model, chosen)
    assert sum(map(np.sum, found)) > 0.99 * sum(map(np.sum, chosen))


class Custom(layers.Layer):
    def call(self, x):
        return x


@pytest.mark.parametrize(
    ("link", "why"),
    [
        (lambda x: layers.Lambda(lambda y: y, name="odd")(x), "Lambda 'odd', for which no linear"),
        (lambda x: Custom(name="odd")(x), "Custom 'odd', for which no linear"),
        (lambda x: layers.LSTM(3, name="odd")(x), "LSTM 'odd', for which"),
        (lambda x: layers.MultiHeadAttention(1, 2, name="odd")(x, x), "MultiHeadAttention 'odd'"),
        (lambda x: layers.GroupNormalization(1, name="odd")(x), "GroupNormalization 'odd'"),
        (lambda x: layers.Multiply(name="odd")([x, x]), "Multiply 'odd', a product of two tensors"),
        (lambda x: x * x, "Multiply 'multiply.*', a product of two tensors"),
        (lambda x: 2 / x, "Divide .*, a division by a tensor"),
        (lambda x: layers.Dense(4, "glu", name="odd")(x), "Dense 'odd', whose activation glu"),
    ],
)
def test_each_layer_without_paths_is_named(link, why):
    inputs = keras.Input((5, 3))
    model = keras.Model(inputs, layers.Dense(2)(link(layers.Dense(4)(inputs))))
    with pytest.raises(ValueError, match=why):
        paths.flow(model)
    outer = keras.Sequential([keras.Input((5, 3)), model])  # inside another model too
    with pytest.raises(ValueError, match=why):
        paths.flow(outer)


def between(link):
    """Return a network with a link between a convolution and a dense layer."""
    inputs = keras.Input((6, 3))
    x = link(layers.Conv1D(4, 1)(inputs))
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))


SIGNS = np.array([-2.0, 2.0, -2.0, 2.0], "float32")


def padded(x):
    return keras.ops.pad(x, [[0, 0], [2, 0], [0, 0]], constant_values=5.0)


@pytest.mark.parametrize(
    ("link", "alike"),
    [
        (lambda x: -0.5 * x, lambda x: 0.5 * x),
        (lambda x: x / -4.0, lambda x: 0.25 * x),
        (lambda x: 3.0 - x, lambda x: x),
        (lambda x: x + 1.0, lambda x: x),
        (lambda x: x * SIGNS, lambda x: 2.0 * x),
        (lambda x: x / SIGNS, lambda x: 0.5 * x),
        (lambda x: x + SIGNS, lambda x: x),
        (padded, layers.ZeroPadding1D((2, 0))),
        (layers.GlobalAveragePooling1D(keepdims=True), lambda x: keras.ops.mean(x, 1)),
        (
            lambda x: layers.Conv1D(2, 1)(layers.GlobalMaxPooling1D(keepdims=True)(x)),
            lambda x: layers.Conv1D(2, 1)(keras.ops.mean(x, 1, keepdims=True)),
        ),
        (layers.GlobalMaxPooling1D(), layers.GlobalAveragePooling1D()),
        (
            layers.GlobalAveragePooling1D(data_format="channels_first"),
            lambda x: keras.ops.mean(x, 2),
        ),
        (layers.MaxPooling1D(2, 1), layers.AveragePooling1D(2, 1)),
        (lambda x: layers.Minimum()([x, x]), lambda x: x),
        (lambda x: layers.Average()([x, x, 2.0 * x]), lambda x: x * (4 / 3)),
        (lambda x: x[:, 2:], layers.Cropping1D((2, 0))),
        (
            layers.Conv1D(5, 3, padding="causal"),
            lambda x: layers.Conv1D(5, 3)(layers.ZeroPadding1D((2, 0))(x)),
        ),
    ],
)
def test_constants_count_by_their_size_and_what_is_filled_in_as_nothing(link, alike):
    model, other = between(link), between(alike)
    generator = np.random.default_rng(3)
    values = [tf.constant(generator.random(k.shape)) for k in kernels(model)]
    found, expected = (paths.passing(paths.flow(m), values) for m in (model, other))
    assert relative_error(found, expected) < 1e-7  # constants of Keras are in float32
    assert float(paths.flow(model)(values)) > 0


def test_what_has_negative_weights_of_its_own_is_refused():
    inputs = keras.Input((4, 4, 3))
    for kind in ("nearest", "bilinear", "bicubic", "lanczos3", "lanczos5"):
        x = layers.UpSampling2D(2, interpolation=kind, name="up")(inputs)
        model = keras.Model(inputs, layers.Conv2D(2, 3)(x))
        if kind in ("nearest", "bilinear"):
            paths.flow(model)
            continue
        with pytest.raises(ValueError, match=f"'up', whose interpolation {kind} has negative"):
            paths.flow(model)
    model = between(layers.Dense(4, name="dense"))
    paths.flow(model)
    model.get_layer("dense").enable_lora(1)
    with pytest.raises(ValueError, match="Dense 'dense', which is quantised or has low-rank"):
        paths.flow(model)
    model = between(layers.Dense(4, name="other"))
    model.get_layer("other").quantize("int8")
    with pytest.raises(ValueError, match="'other', which is quantised or has low-rank"):
        paths.flow(model)


def test_an_unknown_size_is_refused():
    model = keras.Sequential([keras.Input((None, 3)), layers.Conv1D(2, 2)])
    with pytest.raises(ValueError, match=r"expected inputs of known size, found \(None, None, 3\)"):
        paths.flow(model)
    known, later = keras.Input((2, 3)), keras.Input((2, None))
    joined = layers.Concatenate(axis=-1)([layers.Dense(2)(known), layers.Softmax()(later)])
    with pytest.raises(ValueError, match=r"found \(None, 2, None\) in model 'joined'"):
        paths.flow(keras.Model([known, later], joined, name="joined"))


def test_a_transposed_convolution_has_the_size_that_it_is_given():
    x = inputs = keras.Input((4, 4, 1))
    options = {"padding": "same", "output_padding": 0, "use_bias": False}
    x = layers.Conv2DTranspose(2, 3, 2, kernel_initializer="ones", **options)(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(1, use_bias=False, kernel_initializer="ones")(x))
    found = float(paths.flow(model)([tf.cast(k.value, tf.float64) for k in kernels(model)]))
    assert found == pytest.approx(float(model(tf.ones((1, 4, 4, 1)))[0, 0]), rel=1e-6)


def test_pooling_goes_along_the_axes_that_it_is_told():
    found = []
    for kind in (layers.MaxPooling1D, layers.AveragePooling1D):
        inputs = keras.Input((6, 3))
        x = kind(2, data_format="channels_first")(layers.Conv1D(4, 1)(inputs))
        model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
        generator = np.random.default_rng(3)
        values = [tf.constant(generator.random(k.shape)) for k in kernels(model)]
        found.append(paths.passing(paths.flow(model), values))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_a_kernel_too_few_is_an_error():
    model = lenet5()
    with pytest.raises(ValueError, match="zip"):
        paths.flow(model)([k.value for k in kernels(model)][:-1])


def test_what_is_frozen_counts_with_the_size_that_it_has_when_it_is_asked():
    frozen = layers.Dense(2, use_bias=False, trainable=False)
    model = keras.Sequential([keras.Input((2,)), frozen, layers.Dense(1)])
    total = paths.flow(model)
    for size in (1.0, -3.0):
        frozen.kernel.assign(size * tf.ones((2, 2)))
        assert float(total([tf.ones((2, 1), tf.float64)])) == 4 * abs(size)


def test_all_inputs_and_all_outputs_count():
    """Of two inputs and two outputs, by hand; what reaches only one of them counts as well."""
    x, y = keras.Input((1,)), keras.Input((2,))
    a, b = layers.Dense(1, name="a")(x), layers.Dense(1, name="b")(y)
    both = layers.Concatenate()([a, b])
    heads = [layers.Dense(1, name="c")(both), layers.Dense(2, name="d")(b), a]
    model = keras.Model([x, y], heads)
    values = {"a": [[2.0]], "b": [[3.0], [5.0]], "c": [[7.0], [11.0]], "d": [[13.0, 17.0]]}
    wanted = {  # a is an output itself, and counts 2 there
        "a": [[2 * 7 + 2]],
        "b": [[3 * (11 + 13 + 17)], [5 * (11 + 13 + 17)]],
        "c": [[2 * 7], [(3 + 5) * 11]],
        "d": [[(3 + 5) * 13, (3 + 5) * 17]],
    }
    names = [k.path.split("/")[-2] for k in kernels(model)]
    sizes = [tf.constant(values[name], tf.float64) for name in names]
    total = paths.flow(model)
    assert float(total(sizes)) == 2 + 2 * 7 + (3 + 5) * (11 + 13 + 17)
    for name, found in zip(names, paths.passing(total, sizes), strict=True):
        np.testing.assert_array_equal(found, wanted[name])
    ends = {"c": [[1, 0]], "d": [[0, 1]]}
    chosen = [np.reshape(ends.get(n, np.ones_like(values[n])), np.shape(values[n])) for n in names]
    for mask, found in zip(chosen, paths.effective(model, chosen), strict=True):
        assert found.dtype == tf.bool
        np.testing.assert_array_equal(found, mask > 0)


IDENTITIES = {
    "ReLU": lambda x: layers.ReLU()(x),
    "LeakyReLU": lambda x: layers.LeakyReLU()(x),
    "ELU": lambda x: layers.ELU()(x),
    "PReLU": lambda x: layers.PReLU()(x),
    "Softmax": lambda x: layers.Softmax()(x),
    "Activation": lambda x: layers.Activation("tanh")(x),
    "Identity": lambda x: layers.Identity()(x),
    "BatchNormalization": lambda x: layers.BatchNormalization()(x),
    "Rescaling": lambda x: layers.Rescaling(1 / 255, 0.5)(x),
    "Normalization": lambda x: layers.Normalization(mean=0.5, variance=4.0)(x),
    "Dropout": lambda x: layers.Dropout(0.5)(x),
    "SpatialDropout1D": lambda x: layers.SpatialDropout1D(0.5)(x),
    "GaussianDropout": lambda x: layers.GaussianDropout(0.5)(x),
    "GaussianNoise": lambda x: layers.GaussianNoise(1.0)(x),
    "AlphaDropout": lambda x: layers.AlphaDropout(0.5)(x),
    "ActivityRegularization": lambda x: layers.ActivityRegularization(0.1)(x),
    "relu": keras.ops.relu,
    "tanh": keras.ops.tanh,
    "sigmoid": keras.ops.sigmoid,
    "gelu": keras.ops.gelu,
    "exp": keras.ops.exp,
    "abs": keras.ops.abs,
    "square": keras.ops.square,
    "sqrt": keras.ops.sqrt,
    "negative": keras.ops.negative,
    "silu": keras.ops.silu,
    "clip": lambda x: keras.ops.clip(x, -1.0, 0.5),
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_what_bends_or_scales_each_number_counts_as_the_identity(name):
    generator = np.random.default_rng(4)
    model, other = between(IDENTITIES[name]), between(lambda x: x)
    values = [tf.constant(generator.random(k.shape)) for k in kernels(model)]
    found, expected = (paths.passing(paths.flow(m), values) for m in (model, other))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "link",
    [
        lambda x: layers.Permute((2, 1))(x)[:, 1:],
        lambda x: layers.Reshape((3, 8))(x)[..., ::2],
        lambda x: keras.ops.sum(x[:, 1:], 1),
        lambda x: keras.ops.transpose(x[:, :4], (0, 2, 1)),
        lambda x: keras.ops.concatenate([x[:, 4:], x], 1),
        lambda x: layers.RepeatVector(3)(layers.Flatten()(x[:, :2])),
        lambda x: keras.ops.reshape(x[..., :3], (-1, 9, 2)),
    ],
)
def test_what_moves_numbers_around_moves_the_paths(link):
    """R is the sum of the outputs of the model itself, which is linear and has no biases."""
    inputs = keras.Input((6, 3))
    x = layers.Flatten()(link(layers.Conv1D(4, 1, use_bias=False)(inputs)))
    model = keras.Model(inputs, layers.Dense(2, use_bias=False)(x))
    generator = np.random.default_rng(5)
    for kernel in kernels(model):
        kernel.assign(generator.random(kernel.shape))
    found = paths.flow(model)([tf.cast(k.value, tf.float64) for k in kernels(model)])
    seen = tf.reduce_sum(model(tf.ones((1, 6, 3))))
    assert float(found) == pytest.approx(float(seen), rel=1e-5)
