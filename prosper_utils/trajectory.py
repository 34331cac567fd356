r"""A trajectory of states, and the one reverse sweep that pulls a gradient back along it.

A *step* maps (state, batch) to the next state, :math:`s_{m+1} = \Phi(s_m, b_m)`, whatever the
state is: weights, weights with momentum, or a distribution.  `roll_out` keeps the states;
`pull_back` multiplies a cotangent by one transposed Jacobian after the other,

.. math:: v_m = J_m^\top v_{m+1}, \qquad J_m = \partial s_{m+1} / \partial s_m,

last step first, so that the graph of only one step is alive at any time.
"""

import tensorflow as tf


def roll_out(step, state, batches):
    """Apply `step` once per batch and keep every state on the way.

    Args:
        step: function (state, batch) -> next state, of the same structure.
        state: the first state, a tensor or a nested list of tensors.
        batches: a list of M batches, of any form that `step` takes.

    Returns:
        The list of the M + 1 states s_0, ..., s_M.
    """
    states = [state]
    for batch in batches:
        states.append(step(states[-1], batch))
    return states


def pull_back(step, states, batches, cotangent):
    """Pull a cotangent at the last state back to the first one, in one reverse sweep.

    Each step is run again at its stored state, differentiated, and forgotten: this is
    reverse-mode differentiation with a checkpoint at every step (Griewank and Walther, 2008).

    Args:
        step: the function that made the states.
        states: the M + 1 states that `roll_out` returned.
        batches: the same M batches.
        cotangent: the gradient of some scalar with respect to the last state, of its structure.

    Returns:
        The gradient of that scalar with respect to the first state, of its structure;
        zero where the first state has no influence.

    Raises:
        ValueError: if there is not one state more than there are batches.
    """
    if len(states) != len(batches) + 1:
        raise ValueError(
            f"pull_back needs one state more than batches: expected {len(batches) + 1} states "
            f"for {len(batches)} batches, found {len(states)}"
        )
    for state, batch in zip(reversed(states[:-1]), reversed(batches), strict=True):
        cotangent = pull_back_once(step, state, batch, cotangent)
    return cotangent


def pull_back_once(step, state, batch, cotangent):
    """Return J^T `cotangent`, with J the Jacobian of `step` at (`state`, `batch`)."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(state)
        image = step(state, batch)
    return tape.gradient(image, state, cotangent, unconnected_gradients="zero")
