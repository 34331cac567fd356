r"""Worth: by how much the loss drops if an object without weight is given some, beside its credit.

Credit promises what a little weight on an object would bring.  This is what it does bring, if the
mass m moves to x from all others alike:

.. math:: & \operatorname{drop}_m(x) = L(p) - L\Big(\frac{p + m \, \delta_x}{1 + m}\Big), \\
          & \lim_{m \to 0} \frac{\operatorname{drop}_m(x)}{m}
          = v_0(x) - \sum_y p(y) \, v_0(y) ,

where L is the divergence of the image from the target and :math:`v_0` the exact credit.  A credit
that puts objects in the order of their drops tells what they are worth.
"""

from prosper_utils.blending.distributions import feedback, normalised
from prosper_utils.blending.evolution import (
    Loop,
    padded,
    propagate,
    recompute,
    row,
    step_of,
    target_vector,
)
from prosper_utils.lookahead.trajectory import pull_back

import numpy as np
import tensorflow as tf


def drops(table, p, places, target, settings, mass=0.02):
    """Return by how much the loss drops as mass is added to each place, the total kept at one.

    Args:
        table: the `Table`; products that it has not met are entered.
        p: the weights of a distribution over its objects.
        places: the places of the objects in question.
        target: {object: weight}, as for `evolution.evolve`.
        settings: the `Settings` of the trajectory.
        mass: how much is added, before the total is brought back to one.

    Returns:
        An array with one number for each place, in nats.

    Raises:
        ValueError: for a mass that is not above zero.
        BudgetSpent: if the budget of the table does not last.
    """
    if not mass > 0:
        raise ValueError(f"mass: expected more than 0, found {mass}")
    before, found = loss(table, p, target, settings), []
    for k in places:
        more = padded(p, table) + mass * tf.one_hot(k, len(table.objects), dtype=p.dtype)
        found.append(before - loss(table, normalised(more), target, settings))
    return np.array(found)


def loss(table, p, target, settings):
    """Return the divergence of the image of p from the target, in nats."""
    states = propagate(table, padded(p, table), settings)
    return row(0, table, target, Loop(states, [], None), settings)["divergence"]


def credit(table, p, extra, target, settings):
    """Return the credit of all objects of a table, as an array, with the extra support given.

    In the credit mode `"fixed"` only what has weight has any, and in `"identity"` there is no extra
    support; all other modes take it as it is given.

    Args and errors: as for `drops`; `extra` are the places of the extra support.
    """
    states = propagate(table, padded(p, table), settings)
    specified = () if settings.credit in ("fixed", "identity") else extra
    states, batches = recompute(table, states, specified, settings)
    tau = target_vector(table, target, p.dtype)
    cotangent = feedback(tau, states[-1], settings.epsilon)
    found = pull_back(step_of(table, settings), states, batches, cotangent).numpy()
    return np.where(states[0] > 0, found, 0) if settings.credit == "fixed" else found
