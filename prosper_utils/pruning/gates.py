r"""Gates: one score for each group of channels, read off a gate that the whole group shares.

A group :math:`g` (see `channels`) has its places in the weights, and one gate :math:`c_g`
multiplies all of them.  By the chain rule its meta-gradient is the sum of theirs, with their signs:

.. math:: S_g = \frac{\partial L_M(w_M)}{\partial c_g}
              = \sum_{i \in g} \frac{\partial L_M(w_M)}{\partial c_i} .

A reverse sweep gives it for all groups at once, and a forward sweep, whose tangent starts at the
weights of the group, for one.  With random signs :math:`s_g` one forward sweep serves all groups:
its result is :math:`d = \sum_g s_g S_g`, and :math:`s_g d` has the mean :math:`S_g` and the
variance :math:`\sum_{h \ne g} S_h^2`.

Where the gate sits is a choice.  `"readers"` are the slices that read the group, those that
`units.shrink` takes to be zero.  `"writers"` are its kernels' columns and biases; behind them batch
statistics take the scale away again, and without steps ahead the sum over a column vanishes.
`"scales"` are :math:`\gamma` and :math:`\beta` of its normalisations.
"""

from prosper_utils.lookahead import conditioning
from prosper_utils.lookahead.descent import batch_list, loss_and_gradient
from prosper_utils.lookahead.meta_gradient import check_choice, directional
from prosper_utils.lookahead.meta_gradient import meta_gradient as of_weights
from prosper_utils.lookahead.second_derivatives import check_structure
from prosper_utils.pruning import channels
from prosper_utils.pruning.networks import as_loss, trainable
from prosper_utils.pruning.scores import all_or_first, mean

import keras
import numpy as np
import tensorflow as tf

ON = ("readers", "writers", "scales")
METHODS = ("reverse", "checkpointed", "forward", "signs")


# Places -----------------------------------------------------------------------------------------


def places(model, on="readers"):
    """Return where the gate of each group sits, in order of `channels.groups(model)`.

    Args:
        model: as for `channels.groups`.
        on: `"readers"`, `"writers"` or `"scales"`.

    Returns:
        For each group a list of (i, axis, indices), slices of the trainable weight i.

    Raises:
        ValueError: for another `on`; a group that could go but has no such place; a weight in it
            that is not trained.
    """
    check_choice("on", on, ON)
    numbers = {id(v): i for i, v in enumerate(trainable(model))}
    found = []
    for group in channels.groups(model):
        members = [m for m in group.members if _sits(m, on)]
        frozen = [m.variable.path for m in members if id(m.variable) not in numbers]
        if not group.fixed and (frozen or not members):
            where = group.members[0]
            lacking = f"{frozen[0]}, which is not trained" if frozen else "none"
            raise ValueError(
                f"on={on!r}: expected trainable {on} of every group, found {lacking}, for the "
                f"group of axis {where.axis} of {where.variable.path}"
            )
        kept = [m for m in members if id(m.variable) in numbers]
        found.append([(numbers[id(m.variable)], m.axis, list(m.indices)) for m in kept])
    return found


def _sits(member, on):
    """Return whether a gate on readers, writers or scales multiplies the slices of a member."""
    name = member.variable.name
    if on == "scales":
        return name.endswith(("gamma", "beta"))
    if on == "readers":
        return member.reads
    return not member.reads and name.endswith(("kernel", "embeddings", "bias"))


def sums(places, values):
    """Return the sum over each group's places of one tensor of values per trainable weight."""
    values, along = [keras.ops.convert_to_numpy(v).astype(np.float64) for v in values], {}

    def one(i, axis, indices):
        if (i, axis) not in along:
            others = tuple(a for a in range(values[i].ndim) if a != axis)
            along[i, axis] = values[i].sum(axis=others)
        return along[i, axis][indices].sum()

    return np.array([sum(one(*place) for place in group) for group in places])


def _direction(weights, groups, signs):
    """Return one tensor per weight with each group's sign at its places, and zeros elsewhere."""
    found = [np.zeros(w.shape) for w in weights]
    for group, sign in zip(groups, signs, strict=True):
        for i, axis, indices in group:
            np.moveaxis(found[i], axis, 0)[indices] += sign
    return found


# The meta-gradient of a gate --------------------------------------------------------------------


def meta_gradient(
    model,
    batches,
    *,
    on="readers",
    steps=3,
    learning_rate=0.1,
    momentum=0.0,
    method="reverse",
    probes=100,
    seed=0,
    **of_loss,
):
    r"""Return the meta-gradient of every group's gate, with its sign: the sum over its places.

    Args:
        model: a built functional or Sequential Keras model; it is not changed.
        batches: at least M + 1 batches, of which the first M + 1 are used, without steps too.
        steps, learning_rate, momentum, of_loss: as for `scores.prospr`.
        on: where the gates sit, as for `places`.
        method: `"reverse"` or `"checkpointed"`, one sweep for all groups; `"forward"`, one sweep a
            group that keeps nothing of the trajectory; `"signs"`, the mean over `probes` forward
            sweeps, each of random signs on all groups at once: no bias, and an error relative to
            the norm of the result of about :math:`\sqrt{(\text{groups} - 1) / \text{probes}}`.
        probes, seed: for `"signs"`: how many sweeps, and what fixes their signs.

    Returns:
        A float64 vector, one entry per group, in order of `channels.groups(model)`.

    Warns:
        conditioning.UndeterminedMask: as `scores.prospr` does, for the two methods that sweep back.

    Raises:
        ValueError: for another method, negative steps, fewer than one probe, and whatever `places`
            and `lookahead.meta_gradient` refuse.
    """
    check_choice("method", method, METHODS)
    if steps < 0:
        raise ValueError(f"steps: expected M >= 0, found {steps}")
    if probes < 1:
        raise ValueError(f"probes: expected at least 1, found {probes}")
    gates = places(model, on)
    weights, loss = as_loss(model, **of_loss)
    taken = batch_list(batches, steps + 1)
    options = {"learning_rate": learning_rate, "momentum": momentum}
    if method in ("reverse", "checkpointed"):
        if steps and weights[0].dtype != tf.float64:
            options["double"] = as_loss(model, **of_loss | {"dtype": "float64"})
        exact = conditioning.checked if steps else of_weights
        return sums(gates, exact(loss, weights, taken, method=method, **options))

    def along(signs):
        found = directional(loss, weights, taken, _direction(weights, gates, signs), **options)
        return float(found)

    if method == "forward":
        return np.array([along(row) for row in np.eye(len(gates))])
    generator = np.random.default_rng(seed)
    drawn = generator.choice([-1.0, 1.0], size=(probes, len(gates)))
    return np.mean([signs * along(signs) for signs in drawn], axis=0)


# Scores: functions (model, batches, *, on, seed, **of_loss) -> one number per group -------------


def random(model, batches=None, *, on="readers", seed=0, **of_loss):
    """Return uniform random scores, one per group."""
    return _barred(model, np.random.default_rng(seed).random(len(channels.groups(model))))


def uniform(model, batches=None, *, on="readers", seed=0, **of_loss):
    """Return random ranks within each kind of groups, so that all widths shrink by one factor."""
    found, generator = np.zeros(len(channels.groups(model))), np.random.default_rng(seed)
    for kind in channels.kinds(channels.groups(model)):
        found[kind] = (generator.permutation(len(kind)) + 0.5) / len(kind)
    return _barred(model, found)


def magnitude(model, batches=None, *, on="readers", seed=0, **of_loss):
    """Return the Euclidean norm of the weights at each group's places."""
    squares = [keras.ops.square(v) for v in trainable(model)]
    return _barred(model, np.sqrt(sums(places(model, on), squares)))


def snip(model, batches, *, on="readers", seed=0, **of_loss):
    r"""Return :math:`|\sum_{i \in g} w_i \, \partial L / \partial w_i|`, SNIP for whole groups.

    Args:
        model, on, of_loss: as for `meta_gradient`.
        batches: as for `scores.snip`.
        seed: not used; every score takes it.
    """
    gates, (weights, loss) = places(model, on), as_loss(model, **of_loss)
    listed = all_or_first(batches)
    check_structure(loss, weights, listed[0], order=1)
    gradient = mean(lambda batch: loss_and_gradient(loss, weights, batch)[1], listed)
    products = [w * g for w, g in zip(weights, gradient, strict=True)]
    return _barred(model, np.abs(sums(gates, products)))


def taylor(model, batches, *, on="readers", seed=0, **of_loss):
    """Return the root of the mean square over batches of what `snip` sums, for trained networks.

    In a minimum the mean of the gradients is zero and says nothing; their squares do (Molchanov et
    al., 2019, who take them for single examples, or batches, as here).

    Args:
        model, batches, on, seed, of_loss: as for `snip`.
    """
    gates, (weights, loss) = places(model, on), as_loss(model, **of_loss)
    listed = all_or_first(batches)
    check_structure(loss, weights, listed[0], order=1)

    def squared(batch):
        _, gradient = loss_and_gradient(loss, weights, batch)
        return np.square(sums(gates, [w * g for w, g in zip(weights, gradient, strict=True)]))

    return _barred(model, np.sqrt(np.mean([squared(batch) for batch in listed], axis=0)))


def prospr(model, batches, *, on="readers", seed=0, **options):
    """Return the size of the meta-gradient of every gate.

    Args:
        model, batches, on, seed: as for `meta_gradient`.
        options: its other arguments.
    """
    return _barred(model, np.abs(meta_gradient(model, batches, on=on, seed=seed, **options)))


def _barred(model, found):
    """Return scores with infinity where a group is fixed and cannot go."""
    fixed = [bool(group.fixed) for group in channels.groups(model)]
    return np.where(fixed, np.inf, found)


SCORES = {
    "random": random,
    "uniform": uniform,
    "magnitude": magnitude,
    "SNIP": snip,
    "Taylor": taylor,
    "ProsPr": prospr,
}
