r"""Normalisation: moments whose second derivative is right, too.

A normalising layer subtracts the mean :math:`\bar x = \frac1n \sum_i x_i` and divides by the root
of the variance :math:`v(x, \bar x) = \frac1n \sum_i (x_i - \bar x)^2`.  `tf.nn.moments` holds the
mean inside v constant, which is right once and wrong twice:

.. math:: \frac{\partial v}{\partial x_i} &= \frac2n (x_i - \bar x)
            + \frac{\partial v}{\partial \bar x} \frac{\partial \bar x}{\partial x_i}, \\
          \frac{\partial v}{\partial \bar x} &= -\frac2n \sum_j (x_j - \bar x) = 0, \\
          \frac{\partial^2 v}{\partial x_i \partial x_j} &= \frac2n \Bigl(\delta_{ij}
            - \frac{\partial \bar x}{\partial x_j}\Bigr) \\
          &= \frac2n \Bigl(\delta_{ij} - \frac1n\Bigr), \\
          &\phantom{=}\; \text{but } \frac2n \, \delta_{ij} \text{ with } \bar x \text{ fixed.}

The product with the wrong Hessian is still symmetric, so only differences of gradients notice.
"""

import contextlib

from prosper_utils.pruning.replacement import replaced

import tensorflow as tf
from keras.src.backend.tensorflow import nn


@contextlib.contextmanager
def exact_moments():
    """Let Keras' normalisations in this thread take the `moments` of this module.

    They reach batch, layer and group normalisation, synchronized or not; RMS and unit normalisation
    need none.  They do not reach a layer's own `tf.nn.moments`, or fused batch normalisation.
    """

    def plain(original, x, axes, keepdims):
        return moments(x, axes, keepdims)

    with replaced(nn, "_compute_moments", plain), replaced(nn, "_compute_moments_sync", plain):
        yield


def moments(x, axes, keepdims=False):
    """Return the mean and the variance of x over some axes, to be differentiated twice.

    Raises:
        ValueError: inside a `tf.distribute` strategy with several replicas.
    """
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if replicas > 1:
        raise ValueError(
            f"moments: expected one replica, found {replicas}: score outside the scope"
        )
    mean = tf.reduce_mean(x, axes, keepdims=True)
    variance = tf.reduce_mean(tf.math.squared_difference(x, mean), axes, keepdims=keepdims)
    return (mean if keepdims else tf.squeeze(mean, axes)), variance
