r"""Channels: which entries of which weights must be kept or removed together.

A tensor has one label per channel (its last axis).  A layer that mixes channels gives its outputs
new labels; one that works on each channel passes them on; and what is added or multiplied
shares its labels.  So each axis of each weight has a vector of labels, and the classes of the
equivalence relation that the layers generate,

.. math:: a \sim b \iff {} & \text{some layer meets channel } a \\
          & \text{where it meets channel } b ,

are the groups that live and die together (Fang et al., 2023, find them by a graph of
dependencies).  Nothing is guessed: a layer that has no rule here fixes the channels that it meets,
and is named.

`walk` follows the graph of a Keras model; what its operations do is told by a table of rules.
`RULES` is the table for labels, and `paths.RULES` another one, for what flows through a network.
"""

import collections
import contextlib
import dataclasses
import itertools
import math
from typing import NamedTuple

import keras
import numpy as np
from keras.src.models import Functional
from keras.src.ops import nn as nn_operations
from keras.src.ops import numpy as operations

OUTPUT = "output of the network"
INPUT = "input of the network"


# The walk ---------------------------------------------------------------------------------------


def walk(model, inputs, visit):
    """Run through the graph of a model, with values of any kind in place of its tensors.

    Args:
        model: a built functional or Sequential model.  Models inside it are walked through too,
            each time that they are called.
        inputs: one value for each input of the model.
        visit: function (node, args, kwargs) that returns the outputs of one call of an operation,
            `node.operation`, which is a layer or an operation of `keras.ops`; args and kwargs are
            those of the call, with values in place of tensors.

    Returns:
        A list of one value for each output of the model.

    Raises:
        ValueError: for a model of another kind, or one that is not built; it is named.
    """
    graph = graph_of(model)
    values = {id(x): value for x, value in zip(graph.inputs, inputs, strict=True)}
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            if node.is_input or any(id(x) not in values for x in node.input_tensors):
                continue
            args, kwargs = _arguments(node, values)
            if is_graph(node.operation):
                outputs = walk(node.operation, _flat_inputs(node.operation, args[0]), visit)
            else:
                outputs = keras.tree.flatten(visit(node, args, kwargs))
            values.update((id(x), v) for x, v in zip(node.outputs, outputs, strict=True))
    return [values[id(x)] for x in graph.outputs]


def _arguments(node, values):
    """Return the arguments of a call; what enters the operation is positional if it is one."""
    args, kwargs = node.arguments.fill_in(values)
    if not args:
        inside = [(key, keras.tree.flatten(x)) for key, x in node.arguments.kwargs.items()]
        entering = [key for key, xs in inside if any(isinstance(x, keras.KerasTensor) for x in xs)]
        if len(entering) == 1:
            args = (kwargs.pop(entering[0]),)
    return args, kwargs


def is_graph(operation):
    """Return whether an operation is a model whose call does what its graph says."""
    plain = (Functional.call, keras.Sequential.call)
    return isinstance(operation, (Functional, keras.Sequential)) and type(operation).call in plain


def graph_of(model):
    """Return the functional model that a functional or Sequential model is.

    Raises:
        ValueError: for a model of another kind, or one that is not built.
    """
    if not is_graph(model):
        raise ValueError(
            f"model {model.name!r}: expected a functional or Sequential model, whose graph can be "
            f"walked, found {type(model).__name__}, which has a call of its own"
        )
    graph = model if isinstance(model, Functional) else model._functional
    if graph is None:
        raise ValueError(
            f"model {model.name!r}: expected a built model, found a Sequential without an Input"
        )
    return graph


def _flat_inputs(model, inputs):
    graph = graph_of(model)
    try:
        keras.tree.assert_same_structure(inputs, graph._inputs_struct)
    except ValueError as error:
        raise ValueError(
            f"model {model.name!r}: expected to be called with inputs in the structure it was "
            "made with, found another one"
        ) from error
    return keras.tree.flatten(inputs)


def from_graph(node):
    """Return for each positional argument of a call if it is a tensor of the graph."""
    return [isinstance(x, keras.KerasTensor) for x in node.arguments.args]


# Labels -----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class Signal:
    """A tensor on the walk: its shape, examples first, and one label per channel (last axis)."""

    shape: tuple
    labels: np.ndarray


class Unclear(Exception):  # noqa: N818
    """A layer's channels cannot be told apart, so that what it meets is fixed; says why."""


class Labels:
    """Labels of channels, united where layers make them live and die together (union-find).

    Attributes:
        axes: {(id of variable, axis): (variable, axis, its labels)}, in the order of the walk.
        reading: which of them meet channels that a layer reads and mixes.
        uses: {id of variable: how often each of its entries multiplies something in one example},
            None if the size of the input is not known.
        reasons: {label: list of why it is fixed}.
    """

    def __init__(self):
        self._parents = []
        self.axes = {}
        self.reading = set()
        self.uses = {}
        self.reasons = {}

    def new(self, count):
        """Return a vector of labels that were not there before."""
        first = len(self._parents)
        self._parents.extend(range(first, first + (count or 0)))
        return np.arange(first, len(self._parents))

    def of(self, variable, axis):
        """Return the labels of an axis of a variable; a shared layer meets them again."""
        axis %= len(variable.shape)
        key = id(variable), axis
        if key not in self.axes:
            self.axes[key] = variable, axis, self.new(variable.shape[axis])
        return self.axes[key][2]

    def read(self, channels, variable, axis):
        """Let a layer mix channels by a variable, whose axis they meet."""
        self.unite(self.of(variable, axis), channels)
        self.reading.add((id(variable), axis % len(variable.shape)))

    def root(self, label):
        """Return the label that stands for all that are united with this one: their lowest."""
        parents = self._parents
        while parents[label] != label:
            parents[label] = label = parents[parents[label]]
        return label

    def unite(self, *vectors):
        """Unite vectors of one length, entry by entry, and return the first."""
        for other in vectors[1:]:
            for a, b in zip(vectors[0].tolist(), other.tolist(), strict=True):
                a, b = sorted((self.root(a), self.root(b)))
                self._parents[b] = a
        return vectors[0]

    def fix(self, labels, reason):
        """Fix channels, for a reason."""
        for mark in labels.tolist():
            self.reasons.setdefault(mark, []).append(reason)

    def use(self, variable, positions):
        """Count one call, at so many positions, of a layer that multiplies by a variable."""
        before = self.uses.get(id(variable), 0)
        unknown = None in positions or before is None
        self.uses[id(variable)] = None if unknown else before + math.prod(positions)


def label(model):
    """Return the `Labels` of all weights of a model.

    Raises:
        ValueError: for a model that is no graph (see `walk`) or is not built.
    """
    labels = Labels()
    signals = [Signal(tuple(x.shape), labels.new(_last(x.shape))) for x in graph_of(model).inputs]
    for signal in signals:
        labels.fix(signal.labels, INPUT)
    for signal in walk(model, signals, lambda *call: follow(labels, *call)):
        labels.fix(signal.labels, OUTPUT)
    return labels


def _last(shape):
    return shape[-1] if len(shape) > 1 else 0


def follow(labels, node, args, kwargs):
    """Return the signals that leave an operation; what is not understood fixes its channels."""
    layer, shapes = node.operation, _output_shapes(node, args, kwargs)
    try:
        return [Signal(shapes[0], _by_rule(labels, layer, shapes, args, kwargs))]
    except Unclear as unclear:
        reason = f"{type(layer).__name__} {layer.name!r} {unclear}"
    outputs = [Signal(shape, labels.new(_last(shape))) for shape in shapes]
    met = [x for x in keras.tree.flatten((args, kwargs)) if isinstance(x, Signal)]
    for signal in met + outputs:
        labels.fix(signal.labels, reason)
    return outputs


def _by_rule(labels, layer, shapes, args, kwargs):
    rule = RULES.get(type(layer))
    if rule is None or len(shapes) > 1:
        raise Unclear("is not understood")
    if getattr(layer, "data_format", None) == "channels_first":
        raise Unclear("has its channels first, and only channels last are understood")
    if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
        raise Unclear("is quantised or has low-rank updates")
    found = rule(labels, layer, shapes[0], *args, **kwargs)
    if len(found) != (_last(shapes[0]) or 0):
        raise Unclear(f"turns {len(found)} channels into {_last(shapes[0])}")
    return found


def _output_shapes(node, args, kwargs):
    """Return the shapes of a call, from its inputs where the graph was made without them."""
    shapes = [tuple(x.shape) for x in node.outputs]
    if all(None not in shape[1:] for shape in shapes):
        return shapes

    def tensor(x):
        return keras.KerasTensor(x.shape) if isinstance(x, Signal) else x

    args, kwargs = keras.tree.map_structure(tensor, (args, kwargs))
    outputs = keras.tree.flatten(node.operation.compute_output_spec(*args, **kwargs))
    return [tuple(x.shape) for x in outputs]


# Rules: (labels, layer, shape of the output, inputs of the call) -> labels of the output ------


def _pass_on(labels, layer, shape, x, *args, **kwargs):
    return x.labels


def _dense(labels, layer, shape, x, **kwargs):
    labels.read(x.labels, layer.kernel, 0)
    labels.use(layer.kernel, shape[1:-1])
    return _finish(labels, layer, shape, labels.of(layer.kernel, 1))


def _convolution(labels, layer, shape, x, **kwargs):
    groups = layer.groups
    labels.use(layer.kernel, shape[1:-1])
    if groups > 1 and groups == len(x.labels):  # depthwise: each of its groups can go
        outputs = labels.of(layer.kernel, -1)
        labels.unite(np.repeat(x.labels, len(outputs) // groups), outputs)
    else:  # as many channels must leave each group
        for part in np.split(x.labels, groups):
            labels.read(part, layer.kernel, -2)
        outputs = labels.of(layer.kernel, -1)
        labels.unite(*np.split(outputs, groups))
    return _finish(labels, layer, shape, outputs)


def _transposed(labels, layer, shape, x, **kwargs):
    labels.read(x.labels, layer.kernel, -1)
    labels.use(layer.kernel, x.shape[1:-1])
    return _finish(labels, layer, shape, labels.of(layer.kernel, -2))


def _depthwise(labels, layer, shape, x, **kwargs):
    return _finish(labels, layer, shape, _spread(labels, layer.kernel, shape, x))


def _separable(labels, layer, shape, x, **kwargs):
    spread = _spread(labels, layer.depthwise_kernel, shape, x)
    labels.read(spread, layer.pointwise_kernel, -2)
    labels.use(layer.pointwise_kernel, shape[1:-1])
    return _finish(labels, layer, shape, labels.of(layer.pointwise_kernel, -1))


def _spread(labels, kernel, shape, x):
    labels.unite(x.labels, labels.of(kernel, -2))
    labels.use(kernel, shape[1:-1])
    return np.repeat(x.labels, kernel.shape[-1])


def _finish(labels, layer, shape, outputs):
    """Return the labels behind bias and activation."""
    if layer.bias is not None:
        labels.unite(outputs, labels.of(layer.bias, 0))
    if elementwise(layer.activation):
        return outputs
    behind = labels.new(shape[-1])
    for mixed in (outputs, behind):
        labels.fix(mixed, f"{type(layer).__name__} {layer.name!r} {_mixing(layer.activation)}")
    return behind


def _activation(labels, layer, shape, x, **kwargs):
    if not elementwise(layer.activation):
        raise Unclear(_mixing(layer.activation))
    return x.labels


def _mixing(activation):
    name = getattr(activation, "__name__", type(activation).__name__)
    return f"has the activation {name}, which is not known to take each channel by itself"


def _own_weights(labels, layer, shape, x, **kwargs):
    """Pass on, with the layer's weights of one entry per channel."""
    for variable in layer.variables:
        if variable.shape and variable.shape[-1] == len(x.labels):
            labels.unite(x.labels, labels.of(variable, -1))
    return x.labels


def _batch_norm(labels, layer, shape, x, **kwargs):
    if layer.axis not in (-1, len(shape) - 1):
        raise Unclear(f"normalises axis {layer.axis}, which is not the last")
    return _own_weights(labels, layer, shape, x)


def _group_norm(labels, layer, shape, x, **kwargs):
    if layer.axis not in (-1, len(shape) - 1):
        raise Unclear(f"normalises axis {layer.axis}, which is not the last")
    if layer.groups == 1:
        _over_channels(labels, layer, shape, x)
    parts = np.reshape(x.labels, (layer.groups, -1))
    labels.unite(*parts.T)  # a group of the layer goes as a whole
    return _own_weights(labels, layer, shape, x)


def _over_channels(labels, layer, shape, x, **kwargs):
    _own_weights(labels, layer, shape, x)
    raise Unclear("normalises over all channels together, so that each counts for all others")


def _statistics(labels, layer, shape, x, **kwargs):
    raise Unclear("holds statistics of the data")


def _rescaling(labels, layer, shape, x, **kwargs):
    if np.size(layer.scale) > 1 or np.size(layer.offset) > 1:
        raise Unclear("has constants of its own for each channel")
    return x.labels


def _embedding(labels, layer, shape, x, **kwargs):
    return labels.of(layer.embeddings, 1)


def _attention(labels, layer, shape, query, value, key=None, **kwargs):
    """Let a head be a group, and a dimension of the values (of all heads) another."""
    if any(isinstance(x, Signal) for x in keras.tree.flatten(kwargs)):
        raise Unclear("takes a mask that the network computes, which is not understood")
    out = layer.output_dense
    if len(out.kernel.shape) != 3 or len(query.shape) != 3:
        raise Unclear("attends along more than one axis, which is not understood")
    keys, values = labels.of(layer.query_dense.kernel, 2), labels.of(out.kernel, 1)
    parts = [
        (layer.query_dense, query, keys),
        (layer.key_dense, value if key is None else key, keys),
        (layer.value_dense, value, values),
    ]
    if getattr(layer, "_gate_dense", None) is not None:
        parts.append((layer._gate_dense, query, values))
    labels.read(labels.of(out.kernel, 0), out.kernel, 0)
    labels.read(values, out.kernel, 1)
    for dense, x, width in parts:
        _heads(labels, dense, x, labels.of(out.kernel, 0), width)
    labels.fix(keys, f"MultiHeadAttention {layer.name!r} divides by the root of its key dimension")
    labels.use(out.kernel, shape[1:-1])
    return _finish(labels, out, shape, labels.of(out.kernel, 2))


def _heads(labels, dense, x, heads, width):
    """Enter a projection of channels to heads, each of some width."""
    labels.read(x.labels, dense.kernel, 0)
    for axis, found in enumerate((heads, width)):
        labels.unite(found, labels.of(dense.kernel, axis + 1))
        if dense.bias is not None:
            labels.unite(found, labels.of(dense.bias, axis))
    labels.use(dense.kernel, x.shape[1:-1])


def _merge(labels, layer, shape, *inputs, **kwargs):
    """Unite what is combined entry by entry; numbers pass, constants with channels do not."""
    found = keras.tree.flatten(inputs)
    signals = [x for x in found if isinstance(x, Signal)]
    if any(not isinstance(x, Signal) and np.shape(x)[-1:] not in ((), (1,)) for x in found):
        raise Unclear("combines channels with constants")
    if any(_last(x.shape) != _last(shape) for x in signals):
        raise Unclear("combines one channel with many")
    return labels.unite(*(x.labels for x in signals))


def _concatenate(labels, layer, shape, inputs, axis=None, **kwargs):
    if not all(isinstance(x, Signal) for x in inputs):
        raise Unclear("combines channels with constants")
    axis = layer.axis if axis is None else axis
    if axis in (-1, len(shape) - 1):
        return np.concatenate([x.labels for x in inputs])
    return labels.unite(*(x.labels for x in inputs))


def _reshape(labels, layer, shape, x, *args, **kwargs):
    """Unite the channels that come to lie at one place of the new last axis."""
    if shape[-1] == _last(x.shape):
        return x.labels
    if None in x.shape[1:] or None in shape[1:] or not x.labels.size:
        raise Unclear("moves channels of an input whose size is not known")
    everywhere = np.broadcast_to(x.labels, x.shape[1:]).reshape(-1, shape[-1])
    return labels.unite(*everywhere)


def _permute(labels, layer, shape, x, axes=None, **kwargs):
    order = axes or layer.axes if hasattr(layer, "axes") else (0, *layer.dims)
    if order is None or order[-1] not in (-1, len(shape) - 1):
        raise Unclear("moves the channels to another axis")
    return x.labels


def _reduce(labels, layer, shape, x, axis=None, **kwargs):
    axis = layer.axis if axis is None else axis
    axes = range(len(x.shape)) if axis is None else np.atleast_1d(axis)
    if any(int(a) % len(x.shape) in (0, len(x.shape) - 1) for a in axes):
        raise Unclear("reduces over channels or examples")
    return x.labels


def _pad(labels, layer, shape, x, *args, **kwargs):
    width = np.broadcast_to(layer.pad_width, (len(shape), 2))
    if np.any(width[-1]):
        raise Unclear("adds channels, as many as its constants say")
    return x.labels


def _get_item(labels, layer, shape, x, key, **kwargs):
    key = key if isinstance(key, tuple) else (key,)
    if len(key) >= len(x.shape) or not all(isinstance(k, (int, slice)) for k in key):
        raise Unclear("picks out channels")
    return x.labels


# The table --------------------------------------------------------------------------------------


def classes(names, module=keras.layers):
    """Return what a module has under these names, given in one string.

    A name that it does not have, as in another version of Keras, is left out: what the name stood
    for is then not understood, and said to be so.
    """
    return [getattr(module, name) for name in names.split() if hasattr(module, name)]


def each_rank(names):
    """Return the layers for one, two and three spatial axes, as far as Keras has them."""
    return classes(" ".join(f"{name.format(d)}" for name in names.split() for d in "123"))


ACTIVATIONS = classes(
    "celu elu exponential gelu hard_shrink hard_sigmoid hard_silu hard_tanh leaky_relu linear "
    "log_sigmoid mish relu relu6 selu sigmoid silu soft_shrink softplus softsign sparse_plus "
    "sparse_sigmoid squareplus tanh tanh_shrink threshold",
    keras.activations,
)
ACTIVATION_LAYERS = classes("ReLU LeakyReLU ELU")


def elementwise(activation):
    """Return whether an activation is known to take each number by itself."""
    known = activation is None or activation in ACTIVATIONS
    return known or type(activation) in ACTIVATION_LAYERS


CONVOLUTIONS = each_rank("Conv{}D")
TRANSPOSED = each_rank("Conv{}DTranspose")
DEPTHWISE = each_rank("DepthwiseConv{}D")
SEPARABLE = each_rank("SeparableConv{}D")
AVERAGE_POOLING = each_rank("AveragePooling{}D")
MAX_POOLING = each_rank("MaxPooling{}D")
GLOBAL_POOLING = each_rank("GlobalAveragePooling{}D GlobalMaxPooling{}D")
MOVES = each_rank("ZeroPadding{}D Cropping{}D UpSampling{}D") + classes("RepeatVector")
NOISE = each_rank("SpatialDropout{}D")
NOISE += classes("Dropout GaussianDropout GaussianNoise AlphaDropout ActivityRegularization")
NOISE += classes("Identity")
SUMS = classes("Add Subtract")
MERGES = classes("Add Subtract Multiply Average Maximum Minimum")
MERGE_OPERATIONS = "Add Subtract Multiply Divide TrueDivide Maximum Minimum Power"
ELEMENTWISE_OPERATIONS = classes(
    "Abs Absolute Clip Cos Exp Expm1 Log Log1p Negative Reciprocal Sin Sqrt Square Tanh", operations
) + classes(
    "Relu Relu6 Sigmoid Softplus Softsign Silu LeakyRelu HardSigmoid HardSilu Elu Selu Gelu Celu "
    "LogSigmoid",
    nn_operations,
)

RULES = {
    keras.layers.Dense: _dense,
    keras.layers.Embedding: _embedding,
    keras.layers.MultiHeadAttention: _attention,
    **dict.fromkeys(CONVOLUTIONS, _convolution),
    **dict.fromkeys(TRANSPOSED, _transposed),
    **dict.fromkeys(DEPTHWISE, _depthwise),
    **dict.fromkeys(SEPARABLE, _separable),
    keras.layers.BatchNormalization: _batch_norm,
    keras.layers.GroupNormalization: _group_norm,
    **dict.fromkeys(
        classes("LayerNormalization RMSNormalization UnitNormalization Softmax"), _over_channels
    ),
    keras.layers.Normalization: _statistics,
    keras.layers.Rescaling: _rescaling,
    keras.layers.PReLU: _own_weights,
    keras.layers.Activation: _activation,
    **dict.fromkeys(ACTIVATION_LAYERS + NOISE + MOVES, _pass_on),
    **dict.fromkeys(AVERAGE_POOLING + MAX_POOLING + GLOBAL_POOLING, _pass_on),
    **dict.fromkeys(MERGES + classes(MERGE_OPERATIONS, operations), _merge),
    **dict.fromkeys([keras.layers.Concatenate, operations.Concatenate], _concatenate),
    **dict.fromkeys([keras.layers.Flatten, keras.layers.Reshape, operations.Reshape], _reshape),
    **dict.fromkeys([keras.layers.Permute, operations.Transpose], _permute),
    **dict.fromkeys(classes("Mean Max Amax Min Amin Sum", operations), _reduce),
    operations.Pad: _pad,
    operations.GetItem: _get_item,
    **dict.fromkeys(ELEMENTWISE_OPERATIONS, _pass_on),
}


# Groups -----------------------------------------------------------------------------------------


class Member(NamedTuple):
    """Slices of a variable that belong to a group: indices along one axis.

    `reads` says whether a layer reads the group there, mixing it with others: with all these slices
    at zero nothing depends on the group any more.
    """

    variable: keras.Variable
    axis: int
    indices: tuple
    reads: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """What lives and dies together: usually one channel with all that writes and reads it.

    Attributes:
        members: a list of `Member`, in the order of the walk.
        parameters: how many entries of the model's variables go with the group.
        multiply_adds: how many multiplications by a weight go with it, for one example; None if
            the size of the input is not known.
        fixed: why it cannot go, a tuple of reasons; empty if it can.
    """

    members: list
    parameters: int
    multiply_adds: int | None
    fixed: tuple


def groups(model):
    """Return the groups of channels of a model that live and die together, in order of the walk.

    An entry of a weight lies in a group if any of its indices does, so a kernel's entry counts in
    the group of its input channel and in that of its output channel.

    Args:
        model: a built functional or Sequential Keras model; it is not changed.

    Returns:
        A list of `Group`.

    Raises:
        ValueError: for a model that is no graph (see `walk`) or is not built.
    """
    return _groups(label(model))


def _groups(labels):
    members = collections.defaultdict(list)
    for key, (variable, axis, vector) in labels.axes.items():
        indices = collections.defaultdict(list)
        for index, mark in enumerate(vector.tolist()):
            indices[labels.root(mark)].append(index)
        for root, found in indices.items():
            members[root].append(Member(variable, axis, tuple(found), key in labels.reading))
    reasons = collections.defaultdict(list)
    for mark, found in labels.reasons.items():
        reasons[labels.root(mark)].extend(found)
    return [
        Group(found, *_costs(found, labels.uses), tuple(dict.fromkeys(reasons[root])))
        for root, found in sorted(members.items(), key=lambda item: item[0])
    ]


def kinds(groups):
    """Return the groups that are alike, those that cut the same axes of the same weights.

    Args:
        groups: a list of `Group`.

    Returns:
        A list of lists of numbers in that list; the channels of one layer that nothing tells apart
        are of one kind.
    """
    alike = collections.defaultdict(list)
    for number, group in enumerate(groups):
        alike[tuple((id(m.variable), m.axis) for m in group.members)].append(number)
    return list(alike.values())


def _costs(members, uses):
    """Return the parameters and the multiply-adds that go with the members of a group, or more."""
    counts = collections.defaultdict(collections.Counter)
    for member in members:
        counts[id(member.variable)][member.axis] += len(member.indices)
    shapes = {id(m.variable): m.variable.shape for m in members}
    gone = {
        key: math.prod(shapes[key]) - math.prod(n - cut[axis] for axis, n in enumerate(shapes[key]))
        for key, cut in counts.items()
    }
    unknown = any(uses.get(key, 0) is None for key in gone)
    products = None if unknown else sum(n * uses.get(key, 0) for key, n in gone.items())
    return sum(gone.values()), products


def count_multiply_adds(model):
    """Return how many multiplications by a weight one example takes, padding included.

    Counted are the layers that have a rule here, in every call; the products of queries with
    keys and of those with values, which involve no weight, are not.

    Raises:
        ValueError: as `groups` does, and if the size of the input is not known.
    """
    return _products(model, label(model).uses)


def _products(model, uses):
    found = {id(v): math.prod(v.shape) for v in model.variables}
    for variable in model.variables:
        if uses.get(id(variable), 0) is None:
            raise ValueError(f"{variable.path}: expected a known input size, found None in it")
    return sum(size * uses.get(key, 0) for key, size in found.items())


def report(model, *, most=6):
    """Return a text: how many groups can go, how many are fixed and why; then what each kind cuts.

    Groups that are alike (slices of the same axes, as many of each) share an entry, and weights of
    one layer a line of it.

    Args:
        model: as for `groups`.
        most: how many lines of an entry say what is cut.

    Raises:
        ValueError: as `groups` does.
    """
    labels, alike = label(model), collections.defaultdict(list)
    for group in _groups(labels):
        key = tuple((m.variable.path, m.axis, len(m.indices)) for m in group.members)
        alike[key, group.fixed, group.parameters, group.multiply_adds].append(group)
    lines = _summary(model, labels.uses, list(alike.values()))
    for (members, fixed, *costs), found in alike.items():
        kind = "FIXED" if fixed else "group" if len(found) == 1 else "groups"
        lines += ["", f"{len(found):>6} {kind}, each {_amounts('{:,}', costs, ', ')}"]
        lines += [f"       because: {reason}" for reason in fixed]
        cut = _by_layer(members)
        lines += [f"       {line}" for line in cut[:most]]
        if len(cut) > most:
            lines.append(f"       and {len(cut) - most} more")
    return "\n".join(lines)


def _summary(model, uses, entries):
    """Return the lines that say how many groups can go, with which share, and why others cannot."""
    whole = [model.count_params(), None]
    with contextlib.suppress(ValueError):  # the size of the input is not known
        whole[1] = _products(model, uses)
    every = [group for entry in entries for group in entry]
    free = [group for group in every if not group.fixed]
    kinds = sum(not entry[0].fixed for entry in entries)
    lines = [
        f"{model.name}, {_amounts('{:,}', whole, ', ')}:",
        f"{len(free):>6} of {len(every)} groups can go, of {kinds} kind{'s' * (kinds != 1)}",
    ]
    if free:
        held = _costs([member for group in free for member in group.members], uses)
        shares = [None if n is None else n / all_ for n, all_ in zip(held, whole, strict=True)]
        lines[-1] += f", with {_amounts('{:.1%} of the', shares, ' and ')}"
    reasons = collections.Counter(reason for group in every for reason in group.fixed)
    return lines + [f"{count:>6} FIXED: {reason}" for reason, count in reasons.items()]


def _amounts(form, amounts, between):
    """Return how many parameters, and multiply-adds if these are known, in words."""
    named = zip(amounts, ("parameters", "multiply-adds"), strict=True)
    return between.join(f"{form.format(n)} {name}" for n, name in named if n is not None)


def _by_layer(members):
    """Return what an entry cuts, one line for each layer and axis."""
    lines = []
    for (layer, axis, count), found in itertools.groupby(
        members, lambda member: ("".join(member[0].rpartition("/")[:2]), *member[1:])
    ):
        names = ", ".join(path.rpartition("/")[2] for path, *_ in found)
        each = f", {count} each" if count > 1 else ""
        lines.append(f"{layer}{names}, axis {axis}{each}")
    return lines
