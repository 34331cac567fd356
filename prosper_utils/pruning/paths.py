r"""Paths: how much can flow through a network from its inputs to its outputs.

Take away what bends the signal: every activation becomes the identity, every bias zero.  What is
left is linear in each kernel, and for kernels that are nowhere negative and an input of ones the
sum of its outputs counts the paths from input to output, each with the product of its weights,

.. math:: R(w) &= \mathbf 1^\top W_L \cdots W_2 W_1 \mathbf 1 \\
               &= \sum_{\text{paths}} \; \prod_{i \in \text{path}} w_i .

So :math:`w_i \, \partial R / \partial w_i` is the part of R that passes through weight i: the score
of SynFlow (Tanaka et al., 2020), and, with a mask for w, a test of which weights are on a path.
What flows into a hidden unit flows out of it: the sums of these parts over the weights that write
a unit and over those that read it are equal, in any graph of layers that are linear so.

The graph may branch and join: what is added, subtracted or averaged adds its paths, and a maximum
counts as an average.  Batch normalisation works on each channel by itself and counts as the
identity.  The authors' pass, in inference mode at initialisation, differs from that by its
epsilon only; any other positive factor would keep the conservation law too, but a scale that
begins at zero, as the last of a residual block often does, would cut the block off.
Normalisations over channels, products of two tensors, attention and recurrent layers have no such
paths and are refused.  In particular, a gate that no path reaches is a constant and seldom zero,
so that a product of paths would call what it multiplies dead.
"""

from prosper_utils.pruning import channels
from prosper_utils.pruning.networks import kernels as kernels_of

import keras
import numpy as np
import tensorflow as tf
from keras.src.ops import numpy as operations


def flow(model, *, after=tf.identity):
    """Return R, the sum over all paths of a model, as a pure function of its kernels.

    Weights that are not among the kernels, of frozen layers and embeddings, count with their size
    as it is now; an embedding is taken as a dense layer on one-hot words.

    Args:
        model: a built Sequential or functional Keras model, with models in it or not, of dense,
            convolution, pooling, normalisation per channel and activation layers, sums,
            concatenations and what only moves numbers around.
        after: what to do with the output of each operation.

    Returns:
        A function from a list of kernels (float64, in the order of `networks.kernels`) to a scalar.

    Raises:
        ValueError: for any other kind of model or layer, or an unknown input size; it is named.
    """
    variables = kernels_of(model)
    inputs = [_ones(model, x) for x in channels.graph_of(model).inputs]
    channels.walk(model, inputs, lambda node, args, kwargs: _check(node) or node.outputs)

    def total(kernels):
        values = {id(v): w for v, w in zip(variables, kernels, strict=True)}

        def weight(variable):
            if id(variable) in values:
                return values[id(variable)]
            return tf.abs(tf.cast(variable.value, tf.float64))

        def visit(node, args, kwargs):
            return after(RULES[type(node.operation)](node, weight, *args, **kwargs))

        return tf.add_n([tf.reduce_sum(y) for y in channels.walk(model, inputs, visit)])

    return total


def passing(total, kernels):
    r"""Return what passes through each weight, for kernels that are not negative.

    It is :math:`w \odot \partial R / \partial w`.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(kernels)
        value = total(kernels)
    gradient = tape.gradient(value, kernels, unconnected_gradients="zero")
    return [w * g for w, g in zip(kernels, gradient, strict=True)]


def effective(model, masks):
    """Return the masks without the weights that are on no path from an input to an output.

    Only whether anything passes is asked, and so every number on the way is set to 0 or 1: the
    number of paths of a deep network would not fit into a float.

    Args:
        model: as for `flow`.
        masks: a list of tensors of zeros and ones, one per kernel.
    """
    total = flow(model, after=_whether)
    return [p > 0 for p in passing(total, [tf.cast(m, tf.float64) for m in masks])]


@tf.custom_gradient
def _whether(x):
    """Return 1 where a tensor is positive, and 0 elsewhere; the same for its gradient."""

    def positive(y):
        return tf.cast(y > 0, y.dtype)

    return positive(x), positive


def _ones(model, x):
    if None in x.shape[1:]:
        raise ValueError(
            f"paths: expected inputs of known size, found {tuple(x.shape)} in model {model.name!r}"
        )
    return tf.ones([1, *x.shape[1:]], tf.float64)


def _check(node):
    """Raise a ValueError if no linear layer is known that may take the place of a layer."""
    layer = node.operation
    kind, why = type(layer).__name__, None
    if type(layer) is keras.layers.Multiply or (
        type(layer) in PRODUCTS and sum(channels.from_graph(node)) > 1
    ):
        why = "a product of two tensors"
    elif type(layer) in DIVISIONS and channels.from_graph(node)[-1]:
        why = "a division by a tensor"
    elif type(layer) not in RULES:
        why = "for which no linear one is known here"
    elif getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
        why = "which is quantised or has low-rank updates"
    elif getattr(layer, "activation", None) is keras.activations.glu:
        why = "whose activation glu is a product"
    elif getattr(layer, "interpolation", "nearest") not in ("nearest", "bilinear"):
        why = f"whose interpolation {layer.interpolation} has negative weights"
    if why:
        raise ValueError(
            "paths: expected dense, convolution, pooling, activation and batch normalisation "
            f"layers, sums and concatenations, found {kind} {layer.name!r}, {why}"
        )


# Rules: (node, weight, inputs of the call) -> output, where weight(variable) is its value --------


def _identity(node, weight, x, *args, **kwargs):
    return x


def _itself(node, weight, *args, **kwargs):
    """Let a layer without weights, which is linear, do what it does, in float64."""
    kwargs = {k: v for k, v in kwargs.items() if k not in ("training", "mask")}
    return node.operation.call(*args, **kwargs)


def _pad(node, weight, x, *args, **kwargs):
    return node.operation.call(x)  # what it pads with is a constant, and counts as zero


def _dense(node, weight, x, **kwargs):
    return tf.tensordot(x, weight(node.operation.kernel), 1)


def _geometry(layer):
    """Return the settings of a convolution or pooling layer, as `keras.ops` take them."""
    names = ("strides", "padding", "data_format", "dilation_rate", "output_padding")
    return {name: getattr(layer, name) for name in names if hasattr(layer, name)}


def _convolution(node, weight, x, **kwargs):
    layer, settings = node.operation, _geometry(node.operation)
    if layer.padding == "causal":
        x, settings["padding"] = keras.ops.pad(x, layer._compute_causal_padding()), "valid"
    return keras.ops.conv(x, weight(layer.kernel), **settings)


def _transposed(node, weight, x, **kwargs):
    layer = node.operation
    return keras.ops.conv_transpose(x, weight(layer.kernel), **_geometry(layer))


def _depthwise(node, weight, x, **kwargs):
    layer = node.operation
    return keras.ops.depthwise_conv(x, weight(layer.kernel), **_geometry(layer))


def _separable(node, weight, x, **kwargs):
    layer = node.operation
    found = [weight(kernel) for kernel in (layer.depthwise_kernel, layer.pointwise_kernel)]
    return keras.ops.separable_conv(x, *found, **_geometry(layer))


def _max_pooling(node, weight, x, **kwargs):
    settings = _geometry(node.operation)
    return keras.ops.average_pool(x, node.operation.pool_size, **settings)


def _mean(node, weight, x, **kwargs):
    layer = node.operation
    first = 1 if layer.data_format == "channels_last" else 2
    axes = tuple(range(first, first + len(x.shape) - 2))
    return tf.reduce_mean(x, axes, keepdims=layer.keepdims)


def _embedding(node, weight, x, **kwargs):
    return tf.ones([*x.shape, 1], x.dtype) * tf.reduce_sum(weight(node.operation.embeddings), 0)


def _sum(node, weight, *args, **kwargs):
    """Add what comes in, whatever the signs; constants are biases, and count as zero."""
    from_graph = channels.from_graph(node)
    if len(args) > 1:
        args = [x for x, own in zip(args, from_graph, strict=True) if own]
    found = keras.tree.flatten(args)
    return sum(found[1:], found[0])


def _average(node, weight, *args, **kwargs):
    return _sum(node, weight, *args) / len(keras.tree.flatten(args))


def _scaled(node, weight, *args, **kwargs):
    """Multiply by the size of a constant, or divide."""
    sizes = [
        x if own else np.abs(x) for x, own in zip(args, channels.from_graph(node), strict=True)
    ]
    return node.operation.call(*sizes)


DIVISIONS = channels.classes("Divide TrueDivide", operations)
PRODUCTS = [operations.Multiply, *DIVISIONS]

RULES = {
    keras.layers.Dense: _dense,
    keras.layers.Embedding: _embedding,
    **dict.fromkeys(channels.CONVOLUTIONS, _convolution),
    **dict.fromkeys(channels.TRANSPOSED, _transposed),
    **dict.fromkeys(channels.DEPTHWISE, _depthwise),
    **dict.fromkeys(channels.SEPARABLE, _separable),
    **dict.fromkeys(channels.MAX_POOLING, _max_pooling),
    **dict.fromkeys(channels.GLOBAL_POOLING, _mean),
    **dict.fromkeys(channels.AVERAGE_POOLING + channels.MOVES, _itself),
    **dict.fromkeys(channels.classes("Flatten Reshape Permute Concatenate"), _itself),
    **dict.fromkeys(channels.SUMS, _sum),
    **dict.fromkeys(channels.classes("Average Maximum Minimum"), _average),
    **dict.fromkeys(channels.ACTIVATION_LAYERS + channels.NOISE, _identity),
    **dict.fromkeys(channels.classes("Activation PReLU Softmax BatchNormalization"), _identity),
    **dict.fromkeys(channels.classes("Rescaling Normalization"), _identity),
    **dict.fromkeys(channels.ELEMENTWISE_OPERATIONS, _identity),
    **dict.fromkeys(channels.classes("Add Subtract", operations), _sum),
    **dict.fromkeys(PRODUCTS, _scaled),
    **dict.fromkeys(
        channels.classes("Mean Sum Reshape Transpose Concatenate GetItem", operations), _itself
    ),
    operations.Pad: _pad,
}
