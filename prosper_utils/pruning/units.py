r"""Whole units: a network from which groups of channels are really gone.

A mask leaves a network as large as it was.  A group of channels (see `channels`) whose readers are
all zero counts for nothing, so it can be cut out: with :math:`S` the channels that are kept,

.. math:: \sum_{i} x_i w_{ij} = \sum_{i \in S} x_i w_{ij}
          \quad \text{if } w_{ij} = 0 \text{ for all } i \notin S .

This is exact for any activation, bias and statistics.  It would not be so with the group's own
weights at zero instead of its readers': a bias, a normalisation or an activation that does not
keep zero would still send something on.
"""

import dataclasses

from prosper_utils.pruning import channels
from prosper_utils.pruning.masks import Mask
from prosper_utils.pruning.networks import kernels

import keras
import numpy as np
from keras.src.ops import numpy as operations


def shrink(model, keep):
    """Return a new plain Keras model without some groups of channels.

    It computes what the model computes with the slices that read these groups at zero (see
    `unread`).  Layers keep their names and what is left of their weights, and lose the masks of
    `masks.apply`, zeros staying zeros until they are trained; models in the model are dissolved
    into their layers.  It is not compiled.

    Args:
        model: a built functional or Sequential Keras model; it is not changed.
        keep: one boolean for each of `channels.groups(model)`.

    Returns:
        A `keras.Sequential` if the model is one of layers only, else a `keras.Model`.

    Raises:
        ValueError: for another number of groups, a group that is fixed, a layer of which nothing
            would be left, or one that cannot be made again; it is named.
    """
    labels = channels.label(model)
    gone = _gone(model, labels, keep)
    layers = {}

    def visit(node, args, kwargs):
        old = keras.tree.map_structure(lambda x: getattr(x, "signal", x), (args, kwargs))
        signals = channels.follow(labels, node, *old)
        args, kwargs = keras.tree.map_structure(lambda x: getattr(x, "tensor", x), (args, kwargs))
        if node.operation not in layers:
            layers[node.operation] = _smaller(node.operation, labels, gone, signals[0])
        found = {key: value for key, value in kwargs.items() if value is not None}
        outputs = keras.tree.flatten(layers[node.operation](*args, **found))
        return [_Small(t, s) for t, s in zip(outputs, signals, strict=True)]

    graph = channels.graph_of(model)
    inputs = [keras.Input(batch_shape=x.shape, dtype=x.dtype, name=x.name) for x in graph.inputs]
    signals = [channels.Signal(tuple(x.shape), labels.new(x.shape[-1])) for x in inputs]
    values = [_Small(t, s) for t, s in zip(inputs, signals, strict=True)]
    outputs = [value.tensor for value in channels.walk(model, values, visit)]
    small = _assembled(model, graph, inputs, outputs, layers)
    _carry_over(labels, gone, layers)
    return small


def unread(model, keep):
    """Return the masks that zero all slices that read the groups to be removed, one per kernel.

    Args:
        model, keep: as for `shrink`.
    """
    _gone(model, channels.label(model), keep)
    masks = {id(kernel): np.ones(kernel.shape, bool) for kernel in kernels(model)}
    for group, kept in zip(channels.groups(model), keep, strict=True):
        for member in group.members:
            if not kept and member.reads and id(member.variable) in masks:
                slices = np.moveaxis(masks[id(member.variable)], member.axis, 0)
                slices[list(member.indices)] = False
    return list(masks.values())


@dataclasses.dataclass(frozen=True, eq=False)
class _Small:
    """A tensor of the small model, and what is known of the one in whose place it is."""

    tensor: keras.KerasTensor
    signal: channels.Signal


def _gone(model, labels, keep):
    """Return the labels (roots) of the groups that are to go."""
    groups = channels.groups(model)
    if len(keep) != len(groups):
        raise ValueError(f"keep: expected one boolean per group, {len(groups)}, found {len(keep)}")
    removed = [group for group, kept in zip(groups, keep, strict=True) if not kept]
    for group in removed:
        if group.fixed:
            first = group.members[0]
            raise ValueError(
                f"keep: expected the fixed groups to be kept, found that one of axis {first.axis} "
                f"of {first.variable.path} is not: {'; '.join(group.fixed)}"
            )
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


def _smaller(layer, labels, gone, signal):
    """Return a layer like this one, for what is left of its channels."""

    def size(variable, axis):
        return len(_left(labels, gone, labels.of(variable, axis)))

    width = len(_left(labels, gone, signal.labels))
    if not isinstance(layer, keras.Layer):
        if type(layer) is operations.Reshape and width != signal.shape[-1]:
            return operations.Reshape((-1, *signal.shape[1:-1], width))
        return layer
    if isinstance(layer, keras.layers.Lambda):
        return keras.layers.Lambda(layer.function, layer._output_shape, name=layer.name)
    changes = SIZES[type(layer)](layer, size, width) if type(layer) in SIZES else {}
    return _again(layer, changes)


def _again(layer, changes):
    """Make a layer from its configuration; functions, which may have none, are handed on."""
    config = layer.get_config() | changes
    for key in config:
        if key.endswith("_constraint") and isinstance(getattr(layer, key, None), Mask):
            config[key] = keras.saving.serialize_keras_object(getattr(layer, key).inner)
    handed_on = type(layer) in channels.RULES and "activation" in config
    if handed_on:
        config["activation"] = "linear"
    try:
        new = type(layer).from_config(config)
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
    before = layer.gamma.shape[0] if layer.scale else layer.beta.shape[0]
    return {"groups": layer.groups if layer.groups == -1 else layer.groups * width // before}


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


def _carry_over(labels, gone, layers):
    """Give each new layer what is left of the weights of the old one."""
    for old, new in layers.items():
        for variable, target in _pairs(old, new):
            values = keras.ops.convert_to_numpy(variable.value)
            for axis in range(values.ndim):
                if (id(variable), axis) in labels.axes:
                    left = _left(labels, gone, labels.of(variable, axis))
                    values = np.take(values, left, axis)
            if values.shape != tuple(target.shape):
                raise ValueError(
                    f"shrink: expected {target.path} of shape {values.shape}, found {target.shape}"
                )
            target.assign(values)


def _pairs(old, new):
    return zip(getattr(old, "variables", ()), getattr(new, "variables", ()), strict=True)
