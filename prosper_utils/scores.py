r"""Scores: one number per connection that says how much it should be kept.

Every score is a function `(model, batches, *, seed=0)` that returns one tensor per kernel, larger
for what to keep.  Those that look at data read off what a mask :math:`c` on the weights would do:

.. math:: \text{SNIP} = |\partial L(c \odot w) / \partial c| = |w \odot \nabla L(w)|, \qquad
          \text{ProsPr} = |\partial L_M(w_M) / \partial c|.

To add a score, write such a function and enter it in `SCORES`.
"""

from prosper_utils.descent import batch_list, loss_and_gradient
from prosper_utils.meta_gradient import meta_gradient
from prosper_utils.networks import as_loss, kernel_indices, kernels

import numpy as np
import tensorflow as tf


def random(model, batches=None, *, seed=0):
    """Return uniform random scores: what any other score has to beat."""
    generator = np.random.default_rng(seed)
    return [tf.constant(generator.random(k.shape), k.dtype) for k in kernels(model)]


def magnitude(model, batches=None, *, seed=0):
    """Return |w|, the size of each weight as it is now."""
    return [tf.abs(k.value) for k in kernels(model)]


def snip(model, batches, *, seed=0):
    """Return |w * dL/dw| on the first batch: SNIP (Lee et al., 2019), not normalised."""
    scored = kernel_indices(model)
    weights, loss = as_loss(model)
    (batch,) = batch_list(batches, 1)
    _, gradient = loss_and_gradient(loss, weights, batch)
    return [tf.abs(weights[i] * gradient[i]) for i in scored]


def prospr(model, batches, *, seed=0, steps=3, learning_rate=0.1, momentum=0.0, method="reverse"):
    """Return |dL_M(w_M)/dc|, the meta-gradient after M steps: ProsPr (Alizadeh et al., 2022).

    Args:
        model: any built Keras 3 model; its weights are not changed.
        batches: at least M + 1 batches, as a list, a stacked pair, or anything endless.
        seed: not used; every score takes one.
        steps: how many inner steps to look ahead (M); 0 is SNIP.
        learning_rate, momentum, method: as for `meta_gradient`.

    Returns:
        One tensor per kernel; biases take part in the steps but are not scored.

    Raises:
        ValueError: for negative `steps`, fewer than M + 1 batches, and whatever
            `meta_gradient` refuses.
    """
    if steps < 0:
        raise ValueError(f"steps: expected M >= 0, found {steps}")
    scored = kernel_indices(model)
    weights, loss = as_loss(model)
    gradient = meta_gradient(
        loss,
        weights,
        batch_list(batches, steps + 1),
        learning_rate=learning_rate,
        momentum=momentum,
        method=method,
    )
    return [tf.abs(gradient[i]) for i in scored]


SCORES = {"random": random, "magnitude": magnitude, "SNIP": snip, "ProsPr": prospr}
