r"""A trajectory of states, and the sweeps that carry derivatives along it.

A *step* maps (state, batch) to the next state, :math:`s_{m+1} = \Phi(s_m, b_m)`, whatever the
state is: weights, weights with momentum, or a distribution.  `roll_out` keeps the states, `advance`
only the last one; `pull_back` multiplies a cotangent by one transposed Jacobian after the other,
last step first, and `push_forward` a tangent by one Jacobian after the other, first step first:

.. math:: v_m &= J_m^\top v_{m+1}, \qquad u_{m+1} = J_m u_m, \\
          J_m &= \partial s_{m+1} / \partial s_m .

The graph of only one step is alive at any time.  All four take the batches in one of two forms:

* a list, for any step: they run as Python loops, and the states are a list;
* tensors stacked along their first axis, a single one or a tuple of them: they run as one
  `tf.while_loop` each, whose graph does not grow with the number of batches, and the states are
  kept in a `tf.TensorArray` each.  This is the form for use inside a `tf.function`.

Such a `tf.function` has to be called in `loops.protected()`: else, where a step needs more than
some 200 MB, TensorFlow rewrites the sums in its loop, and its calls fail or are wrong.  Python
loops, eager or traced, need no protection.
"""

import tensorflow as tf


def roll_out(step, state, batches):
    r"""Apply `step` once per batch and keep every state on the way.

    Args:
        step: function (state, batch) -> next state, of the same structure.
        state: the first state, a tensor or a nested list of tensors.
        batches: M batches, of any form that `step` takes, listed or stacked.

    Returns:
        The M + 1 states in a list,
        :math:`s_0, \dots, s_M`, or one state with a `tf.TensorArray` of length M + 1 for each of
        its tensors.
    """
    if isinstance(batches, list):
        states = [state]
        for batch in batches:
            states.append(step(states[-1], batch))
        return states

    count, flat = length(batches), tf.nest.flatten(state)
    keep = {"size": count + 1, "clear_after_read": False}
    stores = [tf.TensorArray(s.dtype, element_shape=s.shape, **keep) for s in flat]
    stores = [store.write(0, s) for store, s in zip(stores, flat, strict=True)]

    def body(m, state, stores):
        state = step(state, at(batches, m))
        flat = tf.nest.flatten(state)
        return m + 1, state, [a.write(m + 1, s) for a, s in zip(stores, flat, strict=True)]

    _, _, stores = tf.while_loop(lambda m, *_: m < count, body, (0, state, stores))
    return tf.nest.pack_sequence_as(state, stores)


def advance(step, state, batches):
    """Apply `step` once per batch and return the last state only; arguments as for `roll_out`."""
    if isinstance(batches, list):
        for batch in batches:
            state = step(state, batch)
        return state

    def body(m, state):
        return m + 1, step(state, at(batches, m))

    count = length(batches)
    return tf.while_loop(lambda m, _: m < count, body, (0, state))[1]


def pull_back(step, states, batches, cotangent, pull=None):
    """Pull a cotangent at the last state back to the first one, in one reverse sweep.

    Each step is run again at its stored state, differentiated, and forgotten: this is
    reverse-mode differentiation with a checkpoint at every step (Griewank and Walther, 2008).

    Args:
        step: the function that made the states.
        states: the M + 1 states that `roll_out` returned.
        batches: the same M batches, in the same form.
        cotangent: the gradient of some scalar with respect to the last state, of its structure.
        pull: how one step pulls back, a function (step, state, batch, cotangent);
            by default `pull_back_once`.

    Returns:
        The gradient of that scalar with respect to the first state, of its structure;
        zero where the first state has no influence.

    Raises:
        ValueError: if there is not one state more than there are batches in a list.
    """
    pull = pull or pull_back_once
    if isinstance(batches, list):
        if len(states) != len(batches) + 1:
            raise ValueError(
                f"pull_back needs one state more than batches: expected {len(batches) + 1} "
                f"states for {len(batches)} batches, found {len(states)}"
            )
        for state, batch in zip(reversed(states[:-1]), reversed(batches), strict=True):
            cotangent = pull(step, state, batch, cotangent)
        return cotangent

    def body(m, cotangent):
        return m - 1, pull(step, at(states, m), at(batches, m), cotangent)

    # One step at a time: the steps could be linearised ahead of their turn, at the price of memory.
    first = length(batches) - 1, cotangent
    return tf.while_loop(lambda m, _: m >= 0, body, first, parallel_iterations=1)[1]


def push_forward(step, state, batches, tangent):
    """Push a tangent at the first state forward to the last one; nothing is stored.

    Args:
        step, state, batches: as for `roll_out`.
        tangent: a direction at the first state, of its structure.

    Returns:
        The last state and the derivative of it along the tangent, both of the state's structure.
    """
    if isinstance(batches, list):
        for batch in batches:
            state, tangent = push_forward_once(step, state, batch, tangent)
        return state, tangent

    def body(m, state, tangent):
        return m + 1, *push_forward_once(step, state, at(batches, m), tangent)

    count = length(batches)
    return tf.while_loop(lambda m, *_: m < count, body, (0, state, tangent))[1:]


def pull_back_once(step, state, batch, cotangent):
    r"""Return :math:`J^\top` `cotangent`, with J the Jacobian of `step` at (`state`, `batch`)."""
    state = tf.nest.map_structure(tf.identity, state)  # a tape tells tensors by their objects
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(state)
        image = step(state, batch)
    pulled = tape.gradient(image, state, cotangent, unconnected_gradients="zero")
    return tf.nest.map_structure(tf.convert_to_tensor, pulled)  # a gather would give slices


def push_forward_once(step, state, batch, tangent):
    """Return the next state and J `tangent`, with J the Jacobian of `step`."""
    state = tf.nest.map_structure(tf.identity, state)  # each an object of its own
    flat = tf.nest.flatten(state), tf.nest.flatten(tangent)
    with tf.autodiff.ForwardAccumulator(*flat) as accumulator:
        image = step(state, batch)
    pushed = [accumulator.jvp(s, unconnected_gradients="zero") for s in tf.nest.flatten(image)]
    return image, tf.nest.pack_sequence_as(image, pushed)


def length(batches):
    """Return how many batches are stacked, a scalar integer tensor."""
    return tf.shape(tf.nest.flatten(batches)[0])[0]


def at(stacked, m):
    """Return entry m of stacked batches (a copy; a slice would keep all of them) or of states."""

    def entry(part):
        return part.read(m) if isinstance(part, tf.TensorArray) else tf.gather(part, m)

    return tf.nest.map_structure(entry, stacked)
