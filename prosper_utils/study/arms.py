r"""Arms of the stored sweeps: what one does better than another, case by case.

An arm is what was trained or run: a score, a way of regrowth, a search.  Two arms are compared in
*cases*, such as a network at a sparsity, each by the interval of

.. math:: a_S - b_S

over the seeds S that both share (of a deterministic search: over its settings), in points of test
error or in goals.  A family of such intervals, {case: `Interval`}, goes to `verdicts`.
"""

import functools
import itertools

from prosper_utils.study import results, verdicts
from prosper_utils.study.comparison import by_seed, paired

import numpy as np

DENSE, LENET = "LeNet-300-100", "LeNet-5"
BOTH, HIGH = ("relu", "tanh"), (0.98, 0.99, 0.995)
SPARSITIES = (0.8, 0.9, 0.95, *HIGH)
CELLS = tuple(itertools.product([DENSE], BOTH, SPARSITIES))
LENET_CELLS = tuple((LENET, "tanh", s) for s in SPARSITIES[1:])
REGROWN = (*((DENSE, s) for s in SPARSITIES[1:]), (LENET, 0.95), (LENET, 0.99))
FROZEN = ("SNIP", "ProsPr", "iterative ProsPr", "SynFlow")
GOALS_STORED = ", goals stored"  # the end of the name of such an arm


@functools.cache
def stored(name):
    """Return the table of a stored sweep; it is read once, and not to be changed."""
    return results.load(name)[0]


def minus(arm, other, sparsity):
    """Return the `Interval` of the difference in error of two arms of the sweep of scores.

    Args:
        arm, other: (network, activation, score), or with a variant of the score at the end.
        sparsity: the share of weights removed.
    """
    columns = "network", "activation", "score", "variant"
    found = [dict(zip(columns, (*a, "as scored"), strict=False)) for a in (arm, other)]
    return paired(*(by_seed(stored("pruning"), sparsity=sparsity, **a) for a in found))


def versus(first, second, cells):
    """Return the differences of two scores in cells (network, activation, sparsity)."""
    return {(*net, s): minus((*net, first), (*net, second), s) for *net, s in cells}


def in_words(cells):
    """Return cells, each with a sparsity at its end, in words; the dense network is not named."""
    words = verdicts.grouped([(*name, f"{100 * s:g}") for *name, s in cells], " at ", "%")
    return words.replace("relu", "ReLU").replace(f"{DENSE}, ", "")


lower = functools.partial(verdicts.judged, verdicts.lower, spell=in_words)
no_worse = functools.partial(verdicts.judged, verdicts.no_worse, spell=in_words)


def regrown(network, arm, sparsity, variant="as is"):
    """Return {seed: test error} of an arm of the sweep of regrowth."""
    at = {"network": network, "arm": arm, "variant": variant}
    return by_seed(stored("regrowth"), sparsity=sparsity, **at)


def best_frozen(network, sparsity):
    """Return {seed: test error} of the mask with the lowest mean among those that do not move."""
    rows = stored("regrowth")
    known = set(rows.arm[rows.network == network])
    found = [regrown(network, arm, sparsity) for arm in FROZEN if arm in known]
    return min(found, key=lambda errors: np.mean([*errors.values()]))


def credit_against(other=None):
    """Return how regrowth by credit differs from another arm, or from the best frozen mask."""
    family = {}
    for network, s in REGROWN:
        rival = regrown(network, other, s) if other else best_frozen(network, s)
        family[network, s] = paired(regrown(network, "credit", s), rival)
    return family


def proved(arm, steps=2):
    """Return the goals that an arm of the proof search proves, {its setting and seed: number}.

    Args:
        arm: its name in the stored sweep.
        steps: those of the evolution, T; an arm that has none is found with any.
    """
    rows = stored("proofs")
    rows = rows[(rows.arm == arm) & rows.steps.isin((0, steps))]
    return rows.set_index(["step_size", "keep", "seed"]).proved


def goals(arm, other="blend", steps=2):
    """Return the `Interval` of goals, arm minus other, over their settings."""
    return paired(*(proved(a, steps).to_dict() for a in (arm, other)))


def span(*arms):
    """Return the fewest and the most goals of some arms, as a text."""
    found = {arm: proved(arm) for arm in arms}
    ends = {arm: sorted({n.min(), n.max()}) for arm, n in found.items()}
    return "; ".join(f"{arm} {' to '.join(map(str, e))}" for arm, e in ends.items())


def fewer(family):
    """Return the `Verdict` on "the first arm proves fewer goals"."""
    return verdicts.each(verdicts.lower, family, "difference in goals")
