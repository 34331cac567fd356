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
"""

import itertools

from prosper_utils.trajectory import pull_back, roll_out

import numpy as np
import tensorflow as tf


def meta_gradient(loss, weights, batches, *, learning_rate, momentum=0.0, method="reverse"):
    """Return the gradient of the loss after M steps with respect to a mask on the initial weights.

    Args:
        loss: function (weights, batch) -> scalar tensor.
        weights: list of tensors, all of one float type: the initial weights, biases included.
        batches: a list of M + 1 batches (x, y), or one stacked pair (x[M + 1, ...], y[M + 1, ...]).
            The first M are trained on, the last one is the outer batch.  M = 0 is SNIP.
        learning_rate: the step size of the inner steps (alpha).
        momentum: the heavy-ball factor of the inner steps (mu), in [0, 1).
        method: "reverse" (one sweep over the stored weights), "unrolled" (one tape over all
            steps) or "first_order" (every Hessian left out).

    Returns:
        A list of tensors, one per weight and of its shape: dL_M(w_M)/dc at c = 1, with its sign.

    Raises:
        ValueError: for no or empty batches, an unknown method, a momentum outside [0, 1), weights
            that are not float tensors, or a loss that is NaN or infinite (it says at which step).
    """
    weights, batches = float_tensors(weights), batch_list(batches)
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}; found {method!r}")
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum: expected a number in [0, 1), found {momentum}")
    step = sgd(loss, learning_rate, momentum)
    return METHODS[method](loss, step, start(weights, momentum), batches)


def start(weights, momentum=0.0):
    """Return the first state of gradient descent: [weights], or [weights, zeros] with momentum."""
    return [weights, [tf.zeros_like(w) for w in weights]] if momentum else [weights]


def sgd(loss, learning_rate, momentum=0.0):
    """Return one step of gradient descent as a function (state, batch) -> next state.

    The state is as `start` makes it; weights come first in it.
    """

    def step(state, batch):
        weights, *buffer = state
        _, update = loss_and_gradient(loss, weights, batch)
        if buffer:
            update = [momentum * b + g for b, g in zip(buffer[0], update, strict=True)]
        moved = [w - learning_rate * u for w, u in zip(weights, update, strict=True)]
        return [moved, update] if buffer else [moved]

    return step


def loss_and_gradient(loss, weights, batch):
    """Return the loss and its gradient, a list with one dense tensor per weight."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(weights)
        value = loss(weights, batch)
    gradient = tape.gradient(value, weights, unconnected_gradients="zero")
    return value, [tf.convert_to_tensor(g) for g in gradient]


def reverse(loss, step, state, batches):
    """Exact, by one reverse sweep: the weights of every step are kept, the graph of one."""
    states = roll_out(step, state, batches[:-1])
    cotangent = [outer_gradient(loss, states, batches)] + [
        [tf.zeros_like(b) for b in buffer] for buffer in state[1:]
    ]
    pulled = pull_back(step, states, batches[:-1], cotangent)
    return [w * v for w, v in zip(state[0], pulled[0], strict=True)]


def unrolled(loss, step, state, batches):
    """Exact, by one tape over the mask and all M steps: the definition itself, and its memory."""
    mask = [tf.ones_like(w) for w in state[0]]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(mask)
        masked = [c * w for c, w in zip(mask, state[0], strict=True)]
        states = roll_out(step, [masked, *state[1:]], batches[:-1])
        outer = loss(states[-1][0], batches[-1])
    check_finite(states, outer)
    return tape.gradient(outer, mask, unconnected_gradients="zero")


def first_order(loss, step, state, batches):
    """The gradient at w_M times the initial weights, as if no step depended on the weights."""
    states = roll_out(step, state, batches[:-1])
    gradient = outer_gradient(loss, states, batches)
    return [w * g for w, g in zip(state[0], gradient, strict=True)]


METHODS = {"reverse": reverse, "unrolled": unrolled, "first_order": first_order}


def outer_gradient(loss, states, batches):
    """Return the gradient of the outer loss at the last weights, having checked every step."""
    value, gradient = loss_and_gradient(loss, states[-1][0], batches[-1])
    check_finite(states, value)
    return gradient


def check_finite(states, outer):
    """Raise a ValueError that names the first step whose result is NaN or infinite."""
    for m, state in enumerate(states):
        if not all(tf.reduce_all(tf.math.is_finite(w)) for w in state[0]):
            where = f"in inner step {m - 1}" if m else "in the initial weights"
            raise ValueError(
                f"expected finite weights, found NaN or infinity {where} of {len(states) - 1}: "
                "try a smaller learning rate, and look for NaN in the batch"
            )
    if not tf.math.is_finite(outer):
        raise ValueError(
            f"expected a finite outer loss, found {float(outer)} after {len(states) - 1} inner "
            "steps: try a smaller learning rate, and look for NaN in the last batch"
        )


def float_tensors(weights):
    """Return the weights as a list of tensors; raise a ValueError unless of one float type."""
    tensors = [tf.convert_to_tensor(w) for w in weights]
    types = sorted({w.dtype.name for w in tensors})
    if len(types) != 1 or not tensors[0].dtype.is_floating:
        raise ValueError(f"weights: expected tensors of one float type, found {types or 'none'}")
    return tensors


def batch_list(batches, count=None):
    """Return batches as a list: of a list itself, of a stacked pair its slices (not copied).

    Args:
        batches: a list of batches, a pair of arrays stacked along their first axis, or, where
            `count` is given, any iterable, endless or not.
        count: how many batches to take; None takes all.

    Raises:
        ValueError: if there are fewer than `count` batches, none at all, or an empty one.
    """
    if isinstance(batches, tuple) and [hasattr(part, "shape") for part in batches] == [True, True]:
        lengths = {len(part) for part in batches}
        if len(lengths) != 1:
            raise ValueError(f"stacked batches: expected equal lengths, found {sorted(lengths)}")
        x, y = batches
        batches = [(x[m], y[m]) for m in range(lengths.pop())]
    elif count is None and not isinstance(batches, list | tuple):
        raise ValueError(
            f"batches: expected a list or a stacked pair, found {type(batches).__name__}"
        )
    taken = list(itertools.islice(batches, count))
    if len(taken) < (count or 1):
        raise ValueError(f"batches: expected at least {count or 1} (M + 1), found {len(taken)}")
    for m, batch in enumerate(taken):
        for shape in map(np.shape, tf.nest.flatten(batch)):
            if 0 in shape:
                raise ValueError(f"batch {m}: expected examples, found shape {tuple(shape)}")
    return taken
