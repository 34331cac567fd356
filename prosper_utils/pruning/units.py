r"""Whole units: a network from which groups of channels are really gone.

A mask leaves a network as large as it was.  A group of channels (see `channels`) whose readers are
all zero counts for nothing, so it can be cut out: with :math:`S` the channels that are kept,

.. math:: & \sum_{i} x_i w_{ij} = \sum_{i \in S} x_i w_{ij} \\
          & \text{if } w_{ij} = 0 \text{ for all } i \notin S .

This is exact for any activation, bias and statistics.  It would not be so with the group's own
weights at zero instead of its readers': a bias, a normalisation or an activation that does not
keep zero would still send something on.
"""

import dataclasses
import functools
import itertools

from prosper_utils.pruning import channels, optimizers
from prosper_utils.pruning.masks import strip
from prosper_utils.pruning.networks import kernels

import keras
import numpy as np
from keras.src.ops import numpy as operations


def shrink(model, keep, *, compiled=False):
    """Return a new plain Keras model without some groups of channels.

    It computes what the model computes with the slices that read these groups at zero (see
    `unread`).  Layers keep their names and what is left of their weights, and lose the masks of
    `masks.apply`, zeros staying zeros until they are trained; models in the model are dissolved
    into their layers, where a name that is taken gets a number.

    Args:
        model: a built functional or Sequential Keras model; it is not changed.
        keep: one boolean for each of `channels.groups(model)`; or a list of those of them that
            are kept, which tells groups of another model from this one's.
        compiled: whether to compile it as the model is, with what is left of the state of its
            optimizer, so that training goes on.  The next step is that of the model with `unread`
            for masks, if the optimizer treats each weight by itself: a norm over many of them, as
            in clipping, has lost those that are gone.

    Returns:
        A `keras.Sequential` if the model is one of layers only, else a `keras.Model`.

    Raises:
        ValueError: for another number of groups, groups of another model, one that is fixed, a
            layer of which nothing would be left, or one that cannot be made again, each named; if
            asked for a compiled one, for a model that is not compiled or trains by methods of its
            own, or an optimizer that `optimizers.transfer` does not take.
    """
    labels = channels.label(model)
    gone = _gone(labels, _removed(model, keep))
    if compiled:
        _expect_compiled(model)
    layers = {}

    def visit(node, args, kwargs):
        old = keras.tree.map_structure(lambda x: getattr(x, "signal", x), (args, kwargs))
        signals = channels.follow(labels, node, *old)
        args, kwargs = keras.tree.map_structure(lambda x: getattr(x, "tensor", x), (args, kwargs))
        if node.operation not in layers:
            taken = {x._keras_history.operation.name for x in inputs} | {
                layer.name for layer in layers.values()
            }
            layers[node.operation] = _smaller(node.operation, labels, gone, signals[0], taken)
        found = {key: value for key, value in kwargs.items() if value is not None}
        outputs = keras.tree.flatten(layers[node.operation](*args, **found))
        return [_Small(t, s) for t, s in zip(outputs, signals, strict=True)]

    graph = channels.graph_of(model)
    inputs = [_input(x) for x in graph.inputs]
    signals = [channels.Signal(tuple(x.shape), labels.new(x.shape[-1])) for x in inputs]
    values = [_Small(t, s) for t, s in zip(inputs, signals, strict=True)]
    outputs = [value.tensor for value in channels.walk(model, values, visit)]
    small = _assembled(model, graph, inputs, outputs, layers)
    pairs = [pair for old, new in layers.items() for pair in _pairs(old, new)]
    _carry_over(labels, gone, pairs)
    strip(small)  # masks of the old shapes came with the configurations
    if compiled:
        _compile_alike(model, small, pairs, labels, gone)
    return small


def _input(x):
    """Return an input like this one."""
    name = x._keras_history.operation.name
    return keras.Input(batch_shape=x.shape, dtype=x.dtype, name=name)


def unread(model, keep):
    """Return the masks that zero all slices that read the groups to be removed, one per kernel.

    Args:
        model, keep: as for `shrink`.

    Raises:
        ValueError: as `shrink` does, and if a weight that reads such a group is no trainable
            kernel, so that it has no mask.
    """
    removed = _removed(model, keep)
    _gone(channels.label(model), removed)
    masks = {id(kernel): np.ones(kernel.shape, bool) for kernel in kernels(model)}
    for member in (m for group in removed for m in group.members if m.reads):
        if id(member.variable) not in masks:
            raise ValueError(
                f"{member.variable.path}: expected a trainable kernel, which can have a mask, "
                "found another weight that reads a group to be removed"
            )
        slices = np.moveaxis(masks[id(member.variable)], member.axis, 0)
        slices[list(member.indices)] = False
    return list(masks.values())


@dataclasses.dataclass(frozen=True, eq=False)
class _Small:
    """A tensor of the small model, and what is known of the one in whose place it is."""

    tensor: keras.KerasTensor
    signal: channels.Signal


def _removed(model, keep):
    """Return the groups that are to go, none of which is fixed."""
    groups = channels.groups(model)
    keep = _booleans(groups, list(keep))
    removed = [group for group, kept in zip(groups, keep, strict=True) if not kept]
    for group in removed:
        if group.fixed:
            first = group.members[0]
            raise ValueError(
                f"keep: expected the fixed groups to be kept, found that one of axis {first.axis} "
                f"of {first.variable.path} is not: {'; '.join(group.fixed)}"
            )
    return removed


def _booleans(groups, keep):
    """Return for each group whether it is kept."""
    if keep and all(isinstance(kept, channels.Group) for kept in keep):
        firsts = [(id(g.members[0].variable), *g.members[0][1:]) for g in [*groups, *keep]]
        known, kept = firsts[: len(groups)], firsts[len(groups) :]
        for first, group in zip(kept, keep, strict=True):
            if first not in known:
                raise ValueError(
                    f"keep: expected groups of this model, found one of axis {first[1]} of "
                    f"{group.members[0].variable.path}, which belongs to another model"
                )
        return [first in kept for first in known]
    if len(keep) != len(groups):
        raise ValueError(f"keep: expected one boolean per group, {len(groups)}, found {len(keep)}")
    for kept in keep:
        if np.shape(kept) or kept not in (False, True):
            raise ValueError(f"keep: expected booleans, or groups, found {kept!r}")
    return keep


def _gone(labels, removed):
    """Return the labels (roots) of the groups that are to go; something of each axis must stay."""
    firsts = [group.members[0] for group in removed]
    gone = {labels.root(labels.of(m.variable, m.axis)[m.indices[0]]) for m in firsts}
    for variable, axis, vector in labels.axes.values():
        if len(vector) and not _left(labels, gone, vector).size:
            raise ValueError(f"keep: expected some of axis {axis} of {variable.path}, found none")
    return gone


def _left(labels, gone, vector):
    """Return the indices of a vector of labels that stay."""
    return np.flatnonzero([labels.root(mark) not in gone for mark in vector.tolist()])


# A smaller layer --------------------------------------------------------------------------------


def _smaller(layer, labels, gone, signal, taken):
    """Return a layer like this one, for what is left of its channels, with a name of its own."""

    def size(variable, axis):
        return len(_left(labels, gone, labels.of(variable, axis)))

    width, name = len(_left(labels, gone, signal.labels)), _free(layer.name, taken)
    if not isinstance(layer, keras.Layer):
        if type(layer) is operations.Reshape and width != signal.shape[-1]:
            return operations.Reshape((-1, *signal.shape[1:-1], width), name=name)
        return layer if name == layer.name else _again(layer, {"name": name})
    if isinstance(layer, keras.layers.Lambda):
        options = {"dtype": layer.dtype_policy, "trainable": layer.trainable, "name": name}
        options |= {"mask": layer.mask, "arguments": layer.arguments}
        return keras.layers.Lambda(layer.function, layer._output_shape, **options)
    axes = [(v, a) for v in layer.variables for a in range(len(v.shape))]
    is_cut = any((id(v), a) in labels.axes and size(v, a) < v.shape[a] for v, a in axes)
    changes = {"name": name}
    if type(layer) in SIZES and (is_cut or width < len(signal.labels)):
        changes |= SIZES[type(layer)](layer, size, width)
    return _again(layer, changes)


def _free(name, taken):
    """Return a name that is not taken: this one, or with a number."""
    names = itertools.chain([name], (f"{name}_{i}" for i in itertools.count(1)))
    return next(each for each in names if each not in taken)


def _again(layer, changes):
    """Make a layer from its configuration; functions, which may have none, are handed on."""
    handed_on = type(layer) in channels.RULES and hasattr(layer, "activation")
    if handed_on:
        changes = changes | {"activation": "linear"}
    try:
        new = type(layer).from_config(layer.get_config() | changes)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(
            f"shrink: expected layers that can be made from their configuration, found "
            f"{type(layer).__name__} {layer.name!r}, which cannot"
        ) from error
    if handed_on:
        new.activation = layer.activation
    return new


def _filters(layer, size, width):
    depthwise = layer.groups > 1 and layer.kernel.shape[-2] == 1
    share = layer.groups * width // layer.filters if depthwise else layer.groups
    return {"filters": width, "groups": share}


def _norm_groups(layer, size, width):
    before = layer.input_spec.axes[layer.axis]
    return {"groups": layer.groups * width // before}


def _attention(layer, size, width):
    kernel = layer.output_dense.kernel
    sizes = {"num_heads": size(kernel, 0), "value_dim": size(kernel, 1)}
    return sizes | {"output_shape": (width,)}


SIZES = {
    keras.layers.Dense: lambda layer, size, width: {"units": width},
    keras.layers.Embedding: lambda layer, size, width: {"output_dim": width},
    keras.layers.MultiHeadAttention: _attention,
    keras.layers.GroupNormalization: _norm_groups,
    keras.layers.Reshape: lambda layer, size, width: {
        "target_shape": (*layer.target_shape[:-1], width)
    },
    **dict.fromkeys(channels.CONVOLUTIONS, _filters),
    **dict.fromkeys(
        channels.TRANSPOSED + channels.SEPARABLE, lambda layer, size, width: {"filters": width}
    ),
}


# The smaller model ------------------------------------------------------------------------------


def _assembled(model, graph, inputs, outputs, layers):
    """Return the model of the new layers, in the structure of the old one."""
    if isinstance(model, keras.Sequential) and all(x in layers for x in model.layers):
        return keras.Sequential([inputs[0], *(layers[x] for x in model.layers)], name=model.name)
    return keras.Model(
        keras.tree.pack_sequence_as(graph._inputs_struct, inputs),
        keras.tree.pack_sequence_as(graph._outputs_struct, outputs),
        name=model.name,
    )


def _pairs(old, new):
    return zip(getattr(old, "variables", ()), getattr(new, "variables", ()), strict=True)


def _carry_over(labels, gone, pairs):
    """Give each new variable what is left of the old one."""
    for variable, target in pairs:
        values = _cut(labels, gone, variable, keras.ops.convert_to_numpy(variable.value))
        if values.shape != tuple(target.shape):
            raise ValueError(
                f"shrink: expected {target.path} of shape {values.shape}, found {target.shape}"
            )
        target.assign(values)


def _cut(labels, gone, variable, values):
    """Return what is left of values of the shape of a variable."""
    for axis in range(values.ndim):
        if (id(variable), axis) in labels.axes:
            left = _left(labels, gone, labels.of(variable, axis))
            values = np.take(values, left, axis)
    return values


def _expect_compiled(model):
    if not model.compiled:
        raise ValueError(f"model {model.name!r}: expected a compiled model, found one that is not")
    for name in ("compile", "train_step", "test_step", "compute_loss", "compute_metrics"):
        if getattr(type(model), name) is not getattr(keras.Model, name):
            raise ValueError(
                f"model {model.name!r}: expected a model that trains as Keras' own do, found a "
                f"method {name} of its own, which the small one would not have"
            )


def _compile_alike(model, small, pairs, labels, gone):
    """Compile the small model as the large one is, with what is left of its optimizer's state."""
    options = dict(model._compile_config.config)
    names = [channels.graph_of(each).output_names for each in (model, small)]
    by_name = any(isinstance(value, dict) for value in options.values())
    if by_name and names[0] != names[1] and not isinstance(model.output, dict):
        raise ValueError(
            f"model {model.name!r}: expected losses and metrics for outputs named {names[1]}, as "
            f"models in the model are dissolved, found those for {names[0]}: compile with a list"
        )
    for key in ("metrics", "weighted_metrics"):
        options[key] = keras.tree.map_structure(_fresh, options[key])
    options["optimizer"] = optimizers.again(model.optimizer)
    small.compile(**options, auto_scale_loss=False)
    if model.optimizer.built:
        small.optimizer.build(small.trainable_variables)
    trained = {id(variable) for variable in small.trainable_variables}
    trained = [pair for pair in pairs if id(pair[1]) in trained]
    cut = functools.partial(_cut, labels, gone)
    optimizers.transfer(model.optimizer, small.optimizer, trained, cut)


def _fresh(metric):
    """Return a metric that has counted nothing yet, if it is one that counts."""
    counts = isinstance(metric, keras.Metric)
    return type(metric).from_config(metric.get_config()) if counts else metric
