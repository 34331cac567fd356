r"""Checks: how a chapter states a claim so that it holds on any machine, or stops.

A check prints the claim and its bound, never the number that was measured, so that the printed line
can be compared word for word.  The relative error of two lists of tensors is over all entries
together,

.. math:: \|a - b\|_2 \, / \, \|b\|_2 .
"""

import numpy as np


def relative_error(found, expected):
    r"""Return the relative error of a list of tensors, over all its entries.

    It is :math:`\|\text{found} - \text{expected}\| / \|\text{expected}\|`.

    Args:
        found, expected: lists of tensors or arrays with equal shapes, entry by entry.

    Raises:
        ValueError: if the lists differ in length or shapes, or `expected` is zero throughout.
    """
    a, b = ([np.asarray(t, np.float64) for t in tensors] for tensors in (found, expected))
    if [t.shape for t in a] != [t.shape for t in b]:
        raise ValueError(
            f"relative error: expected shapes {[t.shape for t in b]}, found {[t.shape for t in a]}"
        )
    if not any(np.any(t) for t in b):
        raise ValueError("relative error: expected a reference that is not zero throughout")
    difference = sum(np.sum((s - t) ** 2) for s, t in zip(a, b, strict=True))
    return float(np.sqrt(difference / sum(np.sum(t**2) for t in b)))


def check_equal(claim, found, expected, bound):
    """Print that two lists of tensors agree within a relative error; raise if they do not."""
    error = relative_error(found, expected)
    if not error < bound:
        raise AssertionError(f"{claim}: expected a relative error below {bound:g}, found {error:g}")
    print(f"✓ {claim}: relative error below {bound:g}")


def check(claim, holds):
    """Print a claim that holds; raise an AssertionError with the claim if it does not."""
    if not holds:
        raise AssertionError(f"does not hold: {claim}")
    print(f"✓ {claim}")
