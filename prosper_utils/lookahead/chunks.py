r"""Long trajectories in chunks: batches stacked, so that a chunk is one compiled loop.

M batches become parts of about :math:`\sqrt M` steps, or more where nothing has to be run again.
The batches of a part are stacked along a new first axis, and a loop over that axis, compiled once
for a loss and a shape of batch, serves every part and every M.
"""

import itertools
import math

from prosper_utils.lookahead.descent import is_stacked, packed

import numpy as np
import tensorflow as tf

COPIED = 64  # how many batches of a list are at least stacked at once, if there are so many


def fit(loss, batches, listed):
    """Return loss and batches as the compiled loops take them, and the batches as a list.

    Stacked batches stay so; dictionaries in a batch become tuples, and other iterables lists.
    """
    fitting, listed = packed(loss, listed)
    return fitting, batches if is_stacked(batches) and fitting is loss else listed, listed


def uncopied(batches):
    """Return whether batches are stacked tensors, of which a part is a slice and no copy."""
    return is_stacked(batches) and tf.is_tensor(batches[0])


def chunks(batches, first=0, at_least=1, end=None):
    r"""Split the batches from `first` on into parts of about :math:`\sqrt M`, each of one kind.

    Batches of one kind have equal shapes and types.

    Args:
        batches: M + 1 batches, as a list or one stacked pair.
        first: how many to leave out at the beginning.
        end: where to end; by default before the last one, the outer batch.
        at_least: a part may be that long, if this is more than :math:`\lceil \sqrt M \rceil`.

    Returns:
        A list of parts in order, each a list of batches, or slices of the stacked pair, not copied.
    """
    stacked = is_stacked(batches)
    count = len(batches[0]) if stacked else len(batches)
    end = count - 1 if end is None else end
    limit, ends = max(at_least, math.ceil(math.sqrt(end - first))), []
    for m in range(end, first, -1):  # from the back, so that what is left over comes first
        cut = not stacked and m < end and _kind(batches[m - 1]) != _kind(batches[m])
        if cut or not ends or ends[-1] - m == limit:
            ends.append(m)
    spans = itertools.pairwise([first, *reversed(ends)])
    return [tuple(p[a:b] for p in batches) if stacked else list(batches[a:b]) for a, b in spans]


def _kind(batch):
    """Return the shapes and types of the parts of a batch; batches of one kind can be stacked."""
    parts = [p if hasattr(p, "dtype") else np.asarray(p) for p in tf.nest.flatten(batch)]
    return [(tuple(p.shape), tf.as_dtype(p.dtype)) for p in parts]


def stack(part):
    """Return a list of batches of equal shapes and types as one batch with a new first axis.

    What is stacked already stays as it is, as tensors.
    """
    if isinstance(part, tuple):
        return as_tensors(part)
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


def one(stacked):
    """Return the shapes and types of one batch of stacked ones."""
    return tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape[1:], t.dtype), stacked)


def stacked_spec(spec):
    """Return the type of any number of such tensors, stacked."""
    return tf.TensorSpec([None, *spec.shape], spec.dtype)
