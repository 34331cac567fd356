r"""The meta-gradient: how the loss after M training steps answers to a mask on the first weights.

The mask :math:`c` (all ones) multiplies the initial weights only, :math:`w_0 = c \odot w`.
Then M steps of gradient descent run free of the mask,
:math:`w_{m+1} = w_m - \alpha \nabla L_m(w_m)`, and the loss is taken once more, on the last batch.
With :math:`H_m` the Hessian of :math:`L_m` at :math:`w_m`,

.. math:: \frac{\partial L_M}{\partial c}
          &= w \odot J_0 J_1 \cdots J_{M-1} \nabla L_M(w_M), \\
          J_m &= I - \alpha H_m

(Alizadeh et al., 2022, equation 10, written for column vectors).  With heavy-ball momentum the
state is the pair of weights and buffer, :math:`b_m = \mu b_{m-1} + \nabla L_m(w_m)`,
:math:`w_{m+1} = w_m - \alpha b_m`, and its Jacobians take the place of :math:`I - \alpha H_m`.

The sweeps run in chunks of steps: of about :math:`\sqrt M` where a chunk will be run again, of at
least 64 where batches in a list have to be stacked for a compiled loop or the buffers of a chunk
are in memory while it runs, else in one chunk.  A chunk is one compiled loop, the same one for
every chunk and every M; between chunks only the weights of every step are kept (`"reverse"`; the
Jacobian does not depend on the buffer), or the first state of each chunk (`"checkpointed"`).

The loops are right for networks and batches of any size: they are called with the one rewrite of
TensorFlow's switched off that breaks them (see `loops`), and no other option is touched.  That
takes a call of our own, so inside a `tf.function` all of this is refused.  Whether the float type
can hold what the sweep returns is a question of its own: see `conditioning`.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

from prosper_utils.lookahead import loops
from prosper_utils.lookahead.chunks import (
    COPIED,
    as_tensors,
    chunks,
    fit,
    one,
    specs,
    stack,
    stacked_spec,
    uncopied,
)
from prosper_utils.lookahead.descent import (
    batch_list,
    divergence,
    finite,
    float_tensors,
    loss_and_gradient,
    sgd,
    start,
)
from prosper_utils.lookahead.second_derivatives import check_structure
from prosper_utils.lookahead.streaming import diagonal, one_probe, row_sums, streamed
from prosper_utils.lookahead.trajectory import (
    at,
    length,
    pull_back,
    pull_back_once,
    push_forward,
    roll_out,
)

import numpy as np
import tensorflow as tf

STARTS = ("true", "as_released")  # of the momentum
METHODS = ("reverse", "checkpointed", "unrolled", "first_order")
STREAMING = {
    "row_sums": lambda: row_sums,
    "diagonal": lambda: diagonal,
    "hutchinson": one_probe,
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
    r"""Return the gradient of the loss after M steps with respect to a mask on the initial weights.

    Args:
        loss: function (weights, batch) -> scalar tensor; the weights come to it as a list.
        weights: list of tensors, all of one float type: the initial weights, biases included.
        batches: a list of M + 1 batches (x, y), or one stacked pair (x[M + 1, ...], y[M + 1, ...]);
            what else may be in a batch, or stand for the list, says `descent.batch_list`.
            The first M are trained on, the last one is the outer batch.  M = 0 is SNIP.
        learning_rate: the step size of the inner steps (alpha).
        momentum: the heavy-ball factor of the inner steps (mu), in [0, 1).
        method: `"reverse"` (one sweep over the weights of every step), `"checkpointed"` (the same
            with about :math:`2 \sqrt M` of them in memory, at the price of running the steps
            twice), `"unrolled"` (one tape over all steps) or `"first_order"` (every Hessian left
            out).  `"row_sums"`, `"diagonal"` and `"hutchinson"` are streamed and not exact: see
            `streaming`.
        momentum_start: `"true"`, or `"as_released"` for what the authors' code computes with
            momentum: it takes the first buffer as a constant, so the first Hessian drops out.

    Returns:
        A list of tensors, one per weight and of its shape,
        :math:`\partial L_M(w_M) / \partial c` at c = 1, with its sign.

    Raises:
        ValueError: for no or empty batches, an unknown method, a momentum outside [0, 1), weights
            that are not float tensors, what `second_derivatives.check_structure` refuses, a loss
            that is NaN or infinite (it says at which step), or a call from inside a `tf.function`.
    """
    check_choice("method", method, (*METHODS, *STREAMING))
    check_choice("momentum_start", momentum_start, STARTS)
    if method in STREAMING:
        loops.expect_eager("meta_gradient")
        if momentum:
            raise ValueError(f"method {method!r}: expected momentum 0, found {momentum}")
        return streamed(loss, weights, batches, learning_rate, STREAMING[method]())
    found = cotangents(
        loss,
        weights,
        batches,
        learning_rate=learning_rate,
        momentum=momentum,
        method=method,
        momentum_start=momentum_start,
    )
    return [w * v for w, v in zip(float_tensors(weights), found.first, strict=True)]


class Cotangents(NamedTuple):
    r"""How the loss after M steps answers to the weights, at both ends of the way.

    Attributes:
        first: the gradient with respect to the first weights, :math:`v_0`, a list.
        last: the gradient with respect to the last weights, :math:`v_M`, a list.
        weights: these last weights, :math:`w_M`, a list.
        norms: :math:`\lVert v_0 \rVert, \dots, \lVert v_M \rVert` on the way, float64.
    """

    first: list
    last: list
    weights: list
    norms: np.ndarray


def cotangents(
    loss,
    weights,
    batches,
    *,
    learning_rate,
    momentum=0.0,
    method="reverse",
    momentum_start="true",
):
    """Return the `Cotangents` of one sweep; `meta_gradient` is the weights times the first one.

    Arguments and errors are those of `meta_gradient`, without the streaming methods; `"unrolled"`
    and `"first_order"` go no way back step by step, so of the norms they have the two ends.
    """
    loops.expect_eager("meta_gradient")
    weights, listed = float_tensors(weights), batch_list(batches)
    check_choice("method", method, METHODS)
    check_choice("momentum_start", momentum_start, STARTS)
    check_momentum(momentum)
    order = 1 if method == "first_order" or len(listed) == 1 else 2
    # The loss as it is given, which may know its double.
    check_structure(loss, weights, listed[-1], order=order)
    loss, batches, listed = fit(loss, batches, listed)
    rates = tuple(tf.constant(r, weights[0].dtype) for r in (learning_rate, momentum))
    state, first, outer = start(weights, momentum), 0, listed[-1]
    if momentum and len(listed) > 1 and momentum_start == "as_released":
        state, first = sgd(loss, *rates)(state, listed[0]), 1
    if method == "unrolled":
        found, ok = unrolled(loss, rates, state, listed[first:-1], outer)
    else:
        # The loop over a chunk holds the buffers of its steps, too.
        whole = uncopied(batches) and not momentum
        at_least = 1 if method == "checkpointed" else len(listed) if whole else COPIED
        parts = chunks(batches, first, at_least)
        found, ok = chunked(method, loss, rates, state, parts, outer)
    if not ok:
        raise ValueError(divergence(loss, rates, start(weights, momentum), listed))
    return found


def directional(loss, weights, batches, direction, *, learning_rate, momentum=0.0):
    """Return the derivative of the loss after M steps along one direction of the mask.

    One forward sweep that stores nothing: the tangent starts at direction times weights and is
    pushed through every step.  With ones on a group of weights (a unit, a filter) and zeros
    elsewhere it is the meta-gradient of one mask entry shared by the group, the sum of its weights'
    entries.

    Args:
        loss, weights, batches, learning_rate, momentum: as for `meta_gradient`.
        direction: a list of tensors with the shapes of the weights.

    Returns:
        A scalar tensor, the inner product of the direction and `meta_gradient`.

    Raises:
        ValueError: as `meta_gradient` does, or if the direction does not fit the weights.
    """
    loops.expect_eager("directional")
    loops.expect_compiled()
    weights, listed = float_tensors(weights), batch_list(batches)
    check_momentum(momentum)
    # A list of Python's own numbers would become float32.
    direction = [d if tf.is_tensor(d) else np.asarray(d) for d in direction]
    direction = [tf.cast(d, weights[0].dtype) for d in direction]
    if [d.shape for d in direction] != [w.shape for w in weights]:
        raise ValueError(
            f"direction: expected shapes {[tuple(w.shape) for w in weights]}, "
            f"found {[tuple(d.shape) for d in direction]}"
        )
    check_structure(loss, weights, listed[-1], order=min(len(listed), 2))
    loss, batches, listed = fit(loss, batches, listed)
    rates = tuple(tf.constant(r, weights[0].dtype) for r in (learning_rate, momentum))
    state = start(weights, momentum)
    moved = tuple(d * w for d, w in zip(direction, weights, strict=True))
    tangent = (moved, *tf.nest.map_structure(tf.zeros_like, state[1:]))
    for part in chunks(batches):
        part = stack(part)
        state, tangent = compiled(loss, specs(state), one(part)).push(rates, state, part, tangent)
    outer = as_tensors(listed[-1])
    _, gradient, _, ok = compiled(loss, specs(state), specs(outer)).outer(state, outer)
    if not (ok and finite(*tangent[0])):
        raise ValueError(divergence(loss, rates, start(weights, momentum), listed))
    return sum(tf.reduce_sum(g * u) for g, u in zip(gradient, tangent[0], strict=True))


def unrolled(loss, rates, state, inner, outer):
    """Return the `Cotangents` by one tape over all M steps, and whether all is finite."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(state)
        last = roll_out(sgd(loss, *rates), state, inner)[-1]
        value = loss(list(last[0]), outer)
    ends = tape.gradient(value, (state[0], last[0]), unconnected_gradients="zero")
    first, at_end = ([tf.convert_to_tensor(g) for g in end] for end in ends)
    norms = np.array([norm(first), norm(at_end)])
    return Cotangents(first, at_end, list(last[0]), norms), finite(value, *last[0], *first)


def chunked(method, loss, rates, state, parts, outer):
    """Return the `Cotangents` by one sweep over chunks of steps, and whether all is finite.

    What is kept of a chunk are the weights of its steps, or its first state where `"checkpointed"`
    will run it again; the last chunk, at hand when the way back begins, is not run again.
    """
    loops.expect_compiled()
    kept, outer = [], as_tensors(outer)
    functions = functools.partial(compiled, loss, specs(state))
    for i, part in enumerate(parts):
        batches, first = stack(part), state
        weights, state = functions(one(batches)).roll(rates, first, batches)
        again = method == "checkpointed" and i < len(parts) - 1
        kept.append((first, None) if again else (None, weights))
    _, gradient, size, ok = functions(specs(outer)).outer(state, outer)
    end, norms = (gradient, list(state[0])), [[size]]
    if method == "first_order":
        return Cotangents(gradient, *end, np.concatenate(norms * 2)), bool(ok)
    cotangent = (tuple(gradient), *tf.nest.map_structure(tf.zeros_like, state[1:]))
    for part in reversed(parts):
        batches, (first, weights) = stack(part), kept.pop()
        function = functions(one(batches))
        if weights is None:
            weights, _ = function.roll(rates, first, batches)
        cotangent, sizes = function.pull(rates, weights, batches, cotangent)
        norms.append(sizes)
    first = list(cotangent[0])
    return Cotangents(first, *end, np.concatenate(norms)[::-1]), ok and finite(*first)


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
        state, batch: a `tf.TensorSpec` for each tensor of a state, and of a batch.
    """
    rates = (tf.TensorSpec([], state[0][0].dtype),) * 2
    part = tf.nest.map_structure(stacked_spec, batch)
    handles = tuple(tf.TensorSpec([], tf.variant) for _ in state[0])  # of the weights' TensorArrays

    @loops.function(input_signature=[rates, state, part])
    def roll(rates, state, part):
        states = roll_out(sgd(loss, *rates), state, part)
        return states[0], at(states, length(part))

    @loops.function(input_signature=[rates, handles, part, state])
    def pull(rates, handles, part, cotangent):
        weights = tuple(
            tf.TensorArray(v.dtype, flow=handle, clear_after_read=False)
            for handle, v in zip(handles, cotangent[0], strict=True)
        )

        def once(step, weights, batch, way):  # a step is affine in the buffer: any other will do
            v, sizes = way
            weights = tuple(tf.ensure_shape(w, u.shape) for w, u in zip(weights, v[0], strict=True))
            buffer = tf.nest.map_structure(tf.zeros_like, v[1:])
            v = pull_back_once(step, (weights, *buffer), batch, v)
            return v, sizes.write(sizes.size(), norm(v[0]))

        sizes = tf.TensorArray(tf.float64, 0, dynamic_size=True, element_shape=[])
        v, sizes = pull_back(sgd(loss, *rates), weights, part, (cotangent, sizes), once)
        return v, sizes.stack()

    @loops.function(input_signature=[rates, state, part, state])
    def push(rates, state, part, tangent):
        return push_forward(sgd(loss, *rates), state, part, tangent)

    @loops.function(input_signature=[state, batch])
    def outer(state, batch):
        value, gradient = loss_and_gradient(loss, state[0], batch)
        fine = [tf.reduce_all(tf.math.is_finite(t)) for t in (value, *state[0], *gradient)]
        return value, gradient, norm(gradient), tf.reduce_all(fine)

    return Compiled(roll, pull, push, outer)


def norm(tensors):
    """Return the norm over all entries of all tensors, a float64 scalar that does not overflow."""
    return tf.linalg.global_norm([tf.cast(t, tf.float64) for t in tensors])


def check_momentum(found):
    """Raise a ValueError unless it is a number in [0, 1)."""
    if not 0 <= found < 1:
        raise ValueError(f"momentum: expected a number in [0, 1), found {found}")


def check_choice(name, found, choices):
    """Raise a ValueError unless an argument is one of its choices."""
    if found not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}; found {found!r}")
