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


def plus_minus(found, digits=1):
    """Return an `Interval` as a text for a table, "mean ± half its width"."""
    return _typeset(f"{found.mean:.{digits}f} ± {found.high - found.mean:.{digits}f}")


def stated(found, digits=1, star=None):
    """Return the `Interval` of a difference as a text, "mean [low, high]", and a star.

    Its spaces do not break, so that it stays on one line in a table.

    Args:
        found: the `Interval`.
        digits: how many digits after the point.
        star: whether to put a star; if None, wherever 0 is not in the interval.
    """
    if star is None:
        star = not found.low <= 0 <= found.high
    mean, low, high = (f"{value:+.{digits}f}" for value in found[:3])
    return _typeset(f"{mean} [{low}, {high}]{' *' if star else ''}")


def _typeset(text):
    """Return a text with minus signs in place of hyphens, and spaces that do not break."""
    return text.replace("-", "\N{MINUS SIGN}").replace(" ", "\N{NO-BREAK SPACE}")


def by_seed(table, value="error", **where):
    """Return {seed: value} of the rows of a stored table that have these entries.

    Args:
        table: a data frame with a column `seed`.
        value: the column to return.
        where: which entry each of these columns must have, such as `score="SNIP", sparsity=0.98`.

    Raises:
        ValueError: if there are no such rows, or a seed comes twice.
    """
    for column, entry in where.items():
        table = table[table[column] == entry]
    if table.empty or table.seed.duplicated().any():
        found = "none" if table.empty else "a seed twice"
        raise ValueError(f"{where}: expected one row for each seed, found {found}")
    return dict(zip(table.seed.tolist(), table[value].tolist(), strict=True))


def paired(first, second, level=0.95):
    """Return the `Interval` of first - second, two {seed: value}, over the seeds that both have.

    Raises:
        ValueError: as `interval` does; so if they share fewer than two seeds.
    """
    return interval([first[seed] - second[seed] for seed in sorted(first) if seed in second], level)


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


def rank_correlation(first, second):
    """Return Spearman's rank correlation of two lists, in [-1, 1]; 0 if one of them is constant.

    Numbers are rounded to twelve decimals of the largest; those that are then equal are ties.
    """
    ranked = [np.round(x / (np.abs(x).max() or 1), 12) for x in map(np.asarray, (first, second))]
    if any(len(set(x.tolist())) == 1 for x in ranked):
        return 0.0
    return float(stats.spearmanr(*ranked).statistic)


class Carried(NamedTuple):
    """What the best choice in one domain gives in another, and the best, median and worst there.

    With the rank correlation of all choices in the two, with its p-value; NaN where the choices are
    level in one of the domains, so that there is no order to compare.
    """

    given: float
    best: float
    median: float
    worst: float
    correlation: float
    p: float


def carried_over(first, second, draws=10_000):
    """Return how a choice made in one domain does in another, as `Carried`.

    The p-value is the share of permutations of the choices whose rank correlation is at least as
    large, whatever its sign; Student's distribution does not hold for few choices with many ties.

    Args:
        first, second: {choice: value} of the two domains; a larger value is better.  If several are
            best in the first, what they give in the second is averaged.
        draws: how many permutations are drawn at random, from the seed 0.

    Raises:
        ValueError: if they have not the same choices.
    """
    first, second = dict(first), dict(second)  # a pandas.Series will do
    if set(first) != set(second):
        odd = sorted(set(first) ^ set(second))
        raise ValueError(f"choices: expected the same in both domains, found {odd} in one alone")
    x, y = (np.array([values[choice] for choice in first], float) for values in (first, second))
    found = y[x == x.max()].mean(), y.max(), np.median(y), y.min()
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return Carried(*map(float, found), np.nan, np.nan)
    a, b = (stats.zscore(stats.rankdata(values)) for values in (x, y))
    shuffled = np.random.default_rng(0).permuted(np.tile(b, (draws, 1)), axis=1)
    extreme = np.abs(shuffled @ a) >= abs(a @ b) - 1e-9
    p = (1 + np.count_nonzero(extreme)) / (1 + draws)
    return Carried(*map(float, found), rank_correlation(x, y), p)
