r"""Paths: how much can flow through a network from its inputs to its outputs.

Take away what bends the signal: every activation becomes the identity, every bias zero.  What is
left is linear in each kernel, and for kernels that are nowhere negative and an input of ones the
sum of its outputs counts the paths from input to output, each with the product of its weights,

.. math:: R(w) = \mathbf 1^\top W_L \cdots W_2 W_1 \mathbf 1
               = \sum_{\text{paths}} \; \prod_{i \in \text{path}} w_i .

So :math:`w_i \, \partial R / \partial w_i` is the part of R that passes through weight i: the score
of SynFlow (Tanaka et al., 2020), and, with a mask for w, a test of which weights are on a path.
"""

from prosper_utils.pruning.networks import as_logits, kernel_indices

import keras
import tensorflow as tf

ACTIVATIONS = {"Activation", "ReLU", "LeakyReLU", "ELU"}
POOLING = {f"MaxPooling{d}D": f"AveragePooling{d}D" for d in (1, 2, 3)}
LINEAR = {f"{kind}{d}D" for kind in ("Conv", "AveragePooling", "ZeroPadding") for d in (1, 2, 3)}
LINEAR |= {f"GlobalAveragePooling{d}D" for d in (1, 2, 3)}
LINEAR |= {"InputLayer", "Dense", "Flatten", "Reshape", "Permute", "Add", "Concatenate"}
LINEAR |= {"DepthwiseConv1D", "DepthwiseConv2D", "Dropout", "Identity"}


def flow(model):
    """Return R, the sum over all paths of a model, as a pure function of its kernels.

    Args:
        model: a built Sequential or functional Keras model of dense, convolution, pooling and
            activation layers and what only moves numbers around.  Maximum pooling is taken as
            average pooling.

    Returns:
        A function from a list of kernels (float64, in the order of `networks.kernels`) to a scalar.

    Raises:
        ValueError: for any other kind of model or layer, which it names.
    """
    scored = kernel_indices(model)
    weights, outputs = as_logits(linear_copy(model))
    ones = tf.ones([1, *model.input_shape[1:]], tf.float64)

    def total(kernels):
        values = [tf.zeros_like(w) for w in weights]
        for i, kernel in zip(scored, kernels, strict=True):
            values[i] = kernel
        return tf.reduce_sum(outputs(values, ones))

    return total


def linear_copy(model):
    """Return a copy of a model in float64 with the identity for every activation.

    Raises:
        ValueError: for a subclassed model, or a layer that is not known to be linear otherwise.
    """
    return keras.models.clone_model(model, clone_function=_linear)


def _linear(layer):
    """Return a linear layer that takes the place of a layer; raise a ValueError if none can."""
    kind = type(layer).__name__
    if kind in ACTIVATIONS:
        return keras.layers.Identity(name=layer.name, dtype="float64")
    if type(layer) is not getattr(keras.layers, kind, None) or kind not in LINEAR | set(POOLING):
        raise ValueError(
            f"paths: expected dense, convolution, pooling and activation layers, found {kind} "
            f"{layer.name!r}, for which no linear one is known here"
        )
    settings = {k: v for k, v in layer.get_config().items() if not k.endswith("_constraint")}
    settings["dtype"] = "float64"
    if "activation" in settings:
        settings["activation"] = "linear"
    return getattr(keras.layers, POOLING.get(kind, kind)).from_config(settings)


def passing(total, kernels):
    """Return w * dR/dw, what passes through each weight, for kernels that are not negative."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(kernels)
        value = total(kernels)
    gradient = tape.gradient(value, kernels, unconnected_gradients="zero")
    return [w * g for w, g in zip(kernels, gradient, strict=True)]


def effective(model, masks):
    """Return the masks without the weights that are on no path from an input to an output.

    Args:
        model: as for `flow`.
        masks: a list of tensors of zeros and ones, one per kernel.
    """
    return [p > 0 for p in passing(flow(model), [tf.cast(m, tf.float64) for m in masks])]
