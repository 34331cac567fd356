r"""The meta-gradient: how the loss after M training steps answers to a mask on the first weights.

The mask :math:`c` (all ones) multiplies the initial weights only, :math:`w_0 = c \odot w`.
Then M steps of gradient descent run free of the mask,
:math:`w_{m+1} = w_m - \alpha \nabla L_m(w_m)`, and the loss is taken once more, on the last batch.
With :math:`H_m` the Hessian of :math:`L_m` at :math:`w_m`,

.. math:: \frac{\partial L_M(w_M)}{\partial c}
          = w \odot (I - \alpha H_0)(I - \alpha H_1) \cdots (I - \alpha H_{M-1}) \nabla L_M(w_M)

(Alizadeh et al., 2022, equation 10, written for column vectors).  With heavy-ball momentum the
state is the pair of weights and buffer, :math:`b_m = \mu b_{m-1} + \nabla L_m(w_m)`,
:math:`w_{m+1} = w_m - \alpha b_m`, and its Jacobians take the place of :math:`I - \alpha H_m`.

The sweeps run in chunks of about :math:`\sqrt M` steps.  A chunk is one compiled loop, the same
one for every chunk and every M; between chunks only states are kept, all of them ("reverse") or
the first one of each chunk ("checkpointed").
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

from prosper_utils.descent import (
    batch_list,
    divergence,
    finite,
    float_tensors,
    loss_and_gradient,
    sgd,
    shapes,
    start,
)
from prosper_utils.streaming import diagonal, hutchinson, row_sums, streamed
from prosper_utils.trajectory import at, pull_back, push_forward, roll_out

import numpy as np
import tensorflow as tf

METHODS = ("reverse", "checkpointed", "unrolled", "first_order")
STREAMING = {
    "row_sums": lambda: row_sums,
    "diagonal": lambda: diagonal,
    "hutchinson": lambda: hutchinson(probes=1, seed=0),
}


def meta_gradient(
    loss,
    weights,
    batches,
    *,
    learning_rate,
    momentum=0.0,
    method="reverse",
    momentum_start="true",
):
    """Return the gradient of the loss after M steps with respect to a mask on the initial weights.

    Args:
        loss: function (weights, batch) -> scalar tensor; the weights come to it as a list.
        weights: list of tensors, all of one float type: the initial weights, biases included.
        batches: a list of M + 1 batches (x, y), or one stacked pair (x[M + 1, ...], y[M + 1, ...]).
            The first M are trained on, the last one is the outer batch.  M = 0 is SNIP.
        learning_rate: the step size of the inner steps (alpha).
        momentum: the heavy-ball factor of the inner steps (mu), in [0, 1).
        method: "reverse" (one sweep over the weights of every step), "checkpointed" (the same
            with about 2 sqrt(M) of them in memory, at the price of running the steps twice),
            "unrolled" (one tape over all steps) or "first_order" (every Hessian left out).
            "row_sums", "diagonal" and "hutchinson" are streamed and not exact: see `streaming`.
        momentum_start: "true", or "as_released" for what the authors' code computes with momentum:
            it takes the first buffer as a constant, so the first Hessian drops out.

    Returns:
        A list of tensors, one per weight and of its shape: dL_M(w_M)/dc at c = 1, with its sign.

    Raises:
        ValueError: for no or empty batches, an unknown method, a momentum outside [0, 1), weights
            that are not float tensors, or a loss that is NaN or infinite (it says at which step).
    """
    weights, batches = float_tensors(weights), batch_list(batches)
    check_choice("method", method, (*METHODS, *STREAMING))
    check_choice("momentum_start", momentum_start, ("true", "as_released"))
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum: expected a number in [0, 1), found {momentum}")
    if method in STREAMING:
        if momentum:
            raise ValueError(f"method {method!r}: expected momentum 0, found {momentum}")
        return streamed(loss, weights, batches, learning_rate, STREAMING[method]())
    rates = tuple(tf.constant(r, weights[0].dtype) for r in (learning_rate, momentum))
    state, inner, outer = start(weights, momentum), batches[:-1], batches[-1]
    if momentum and inner and momentum_start == "as_released":
        state, inner = sgd(loss, *rates)(state, inner[0]), inner[1:]
    sweep = unrolled if method == "unrolled" else functools.partial(chunked, method)
    gradient, finite = sweep(loss, rates, state, inner, outer)
    if not finite:
        raise ValueError(divergence(loss, rates, start(weights, momentum), batches))
    return [w * g for w, g in zip(weights, gradient, strict=True)]


def directional(loss, weights, batches, direction, *, learning_rate, momentum=0.0):
    """Return the derivative of the loss after M steps along one direction of the mask.

    One forward sweep that stores nothing: the tangent starts at direction * weights and is pushed
    through every step.  With ones on a group of weights (a unit, a filter) and zeros elsewhere it
    is the meta-gradient of one mask entry shared by the group, the sum of its weights' entries.

    Args:
        loss, weights, batches, learning_rate, momentum: as for `meta_gradient`.
        direction: a list of tensors with the shapes of the weights.

    Returns:
        A scalar tensor, the inner product of the direction and `meta_gradient`.

    Raises:
        ValueError: as `meta_gradient` does, or if the direction does not fit the weights.
    """
    weights, batches = float_tensors(weights), batch_list(batches)
    direction = [tf.cast(d, weights[0].dtype) for d in direction]
    if [d.shape for d in direction] != [w.shape for w in weights]:
        raise ValueError(
            f"direction: expected shapes {[tuple(w.shape) for w in weights]}, "
            f"found {[tuple(d.shape) for d in direction]}"
        )
    rates = tuple(tf.constant(r, weights[0].dtype) for r in (learning_rate, momentum))
    state = start(weights, momentum)
    moved = tuple(d * w for d, w in zip(direction, weights, strict=True))
    tangent = (moved, *tf.nest.map_structure(tf.zeros_like, state[1:]))
    for part in chunks(batches[:-1]):
        push = compiled(loss, specs(state), specs(as_tensors(part[0]))).push
        state, tangent = push(rates, state, stack(part), tangent)
    outer = as_tensors(batches[-1])
    value, gradient = compiled(loss, specs(state), specs(outer)).outer(state, outer)
    if not finite(value, *gradient, *tangent[0]):
        raise ValueError(divergence(loss, rates, start(weights, momentum), batches))
    return sum(tf.reduce_sum(g * u) for g, u in zip(gradient, tangent[0], strict=True))


def unrolled(loss, rates, state, inner, outer):
    """Return dL_M(w_M)/dw_0 by one tape over all M steps, and whether all is finite."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(state)
        last = roll_out(sgd(loss, *rates), state, inner)[-1]
        value = loss(list(last[0]), outer)
    gradient = tape.gradient(value, state[0], unconnected_gradients="zero")
    return gradient, finite(value, *last[0], *gradient)


def chunked(method, loss, rates, state, inner, outer):
    """Return dL_M(w_M)/dw_0 by one sweep over chunks of steps, and whether all is finite."""
    parts, kept, outer = chunks(inner), [], as_tensors(outer)
    functions = functools.partial(compiled, loss, specs(state))
    for part in parts:
        states = functions(specs(as_tensors(part[0]))).roll(rates, state, stack(part))
        kept.append(states if method == "reverse" else state)
        state = at(states, len(part))
    value, gradient = functions(specs(outer)).outer(state, outer)
    if method == "first_order":
        return gradient, finite(value, *state[0], *gradient)
    cotangent = (tuple(gradient), *tf.nest.map_structure(tf.zeros_like, state[1:]))
    while parts:
        part, states = parts.pop(), kept.pop()
        function = functions(specs(as_tensors(part[0])))
        if method == "checkpointed":
            states = function.roll(rates, states, stack(part))
        cotangent = function.pull(rates, states, stack(part), cotangent)
    return cotangent[0], finite(value, *state[0], *cotangent[0])


class Compiled(NamedTuple):
    """The sweeps over one chunk, and the gradient of the outer loss, as compiled functions."""

    roll: Callable
    pull: Callable
    push: Callable
    outer: Callable


@functools.lru_cache(maxsize=16)
def compiled(loss, state, batch):
    """Return the `Compiled` functions for a loss, traced once each, when they are first called.

    Args:
        loss: the loss function.
        state, batch: `tf.TensorSpec`s in the structure of a state and of a batch.
    """
    rates = (tf.TensorSpec([], state[0][0].dtype),) * 2
    states, part = (tf.nest.map_structure(stacked_spec, s) for s in (state, batch))

    @tf.function(input_signature=[rates, state, part])
    def roll(rates, state, part):
        return roll_out(sgd(loss, *rates), state, part)

    @tf.function(input_signature=[rates, states, part, state])
    def pull(rates, states, part, cotangent):
        return pull_back(sgd(loss, *rates), states, part, cotangent)

    @tf.function(input_signature=[rates, state, part, state])
    def push(rates, state, part, tangent):
        return push_forward(sgd(loss, *rates), state, part, tangent)

    @tf.function(input_signature=[state, batch])
    def outer(state, batch):
        return loss_and_gradient(loss, state[0], batch)

    return Compiled(roll, pull, push, outer)


def chunks(batches):
    """Split a list of M batches, in order, into lists of equal shapes and at most ceil(sqrt(M))."""
    limit = math.ceil(math.sqrt(len(batches)))
    parts = []
    for batch in batches:
        full = parts and len(parts[-1]) == limit
        if not parts or full or shapes(batch) != shapes(parts[-1][0]):
            parts.append([])
        parts[-1].append(batch)
    return parts


def stack(part):
    """Return batches of equal shapes as one batch with a new first axis."""
    if isinstance(part[0], tuple | list):
        return tuple(stack(list(entries)) for entries in zip(*part, strict=True))
    return (
        tf.convert_to_tensor(np.stack(part)) if isinstance(part[0], np.ndarray) else tf.stack(part)
    )


def as_tensors(batch):
    """Return a batch as a tensor or (nested) tuple of tensors."""
    if isinstance(batch, tuple | list):
        return tuple(as_tensors(part) for part in batch)
    return tf.convert_to_tensor(batch)


def specs(structure):
    """Return the shapes and types of a structure of tensors, something that can be hashed."""
    return tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), structure)


def stacked_spec(spec):
    """Return the type of any number of such tensors, stacked."""
    return tf.TensorSpec([None, *spec.shape], spec.dtype)


def check_choice(name, found, choices):
    """Raise a ValueError unless an argument is one of its choices."""
    if found not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}; found {found!r}")
