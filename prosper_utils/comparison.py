r"""Comparisons over seeds: a difference is stated with its interval, and claims with their number.

Where two arms share their seeds (initial weights, batch order), what counts is the difference
within each seed.  For S differences with mean :math:`\bar d` and standard deviation
:math:`\sigma` the interval of Student's t is

.. math:: \bar d \pm t_{(1 + \text{level})/2,\; S - 1} \, \frac{\sigma}{\sqrt S} .

Of many claims some will look true by chance: `holm` raises each p-value so that the probability
of even one false claim among all of them stays below the level (Holm, 1979).
"""

from typing import NamedTuple

import numpy as np
from scipy import stats


class Interval(NamedTuple):
    """A mean, its interval, and the p-value of the hypothesis that the true mean is zero."""

    mean: float
    low: float
    high: float
    p: float


def interval(values, level=0.95):
    """Return the `Interval` of the mean of independent values, by Student's t.

    Raises:
        ValueError: for fewer than two values, or one that is NaN or infinite.
    """
    values = np.asarray(values, float)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"values: expected at least two in a row, found shape {values.shape}")
    if not np.all(np.isfinite(values)):
        raise ValueError(f"values: expected finite numbers, found {values}")
    mean, error = values.mean(), values.std(ddof=1) / np.sqrt(len(values))
    if error == 0:  # all values agree
        return Interval(mean, mean, mean, float(mean == 0))
    freedom = len(values) - 1
    margin = stats.t.ppf((1 + level) / 2, freedom) * error
    p = 2 * stats.t.sf(abs(mean) / error, freedom)
    return Interval(mean, mean - margin, mean + margin, p)


def paired(first, second, level=0.95):
    """Return the `Interval` of first - second, two lists of numbers with the same seeds.

    Raises:
        ValueError: as `interval` does, or if the lists differ in length.
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    if first.shape != second.shape:
        raise ValueError(
            f"paired: expected as many values twice, found {first.shape} and {second.shape}"
        )
    return interval(first - second, level)


def holm(p_values):
    """Return adjusted p-values: a claim holds at a level if its own is below it (Holm, 1979).

    The smallest of n p-values is multiplied by n, the next by n - 1, and so on, and none may fall
    below the one before it.
    """
    p_values = np.asarray(p_values, float)
    order = np.argsort(p_values, kind="stable")
    raised = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(raised, 1)
    return adjusted
