r"""Budgets: which groups of channels to remove, so that a network costs as little as asked.

The cost of a network is a sum over its weights :math:`v` of a unit price :math:`u_v` (multiply-adds
of one entry, one parameter, bytes) times the entries that are left,

.. math:: C = \sum_v u_v \prod_{\text{axes } a \text{ of } v} n_{va} ,

so what a group costs depends on what else is left.  Groups go in order of their scores, lowest
first, until the budget is met; never all of a layer.
"""

import bisect
import math
from fractions import Fraction

from prosper_utils.lookahead.meta_gradient import check_choice
from prosper_utils.pruning import channels, units

import numpy as np

OF = ("multiply_adds", "parameters", "bytes")


# Costs ------------------------------------------------------------------------------------------


class Cost:
    """What a network costs while groups are removed from it.

    Args:
        model: as for `channels.groups`.
        of: `"multiply_adds"`, `"parameters"` or `"bytes"`.

    Raises:
        ValueError: for another unit; for multiply-adds if the size of the input is not known.
    """

    def __init__(self, model, of="multiply_adds"):
        check_choice("of", of, OF)
        if of == "multiply_adds":
            channels.count_multiply_adds(model)  # raises where it cannot be known
            uses = channels.label(model).uses
            price = {id(v): uses.get(id(v), 0) for v in model.variables}
        else:
            price = {id(v): v.value.dtype.size if of == "bytes" else 1 for v in model.variables}
        self._price = price
        self._left = {id(v): list(v.shape) for v in model.variables}

    def total(self):
        """Return the cost of what is left."""
        return sum(n * math.prod(self._left[key]) for key, n in self._price.items())

    def remove(self, group, sign=1):
        """Take a `channels.Group` away, or give it back with sign -1."""
        for member in group.members:
            self._left[id(member.variable)][member.axis] -= sign * len(member.indices)


def cost(model, of="multiply_adds"):
    """Return what a network costs: a number, or what the function `of` measures of it.

    Raises:
        ValueError: as `Cost` does, or if what is measured is NaN.
    """
    found = of(model) if callable(of) else Cost(model, of).total()
    if math.isnan(found):
        raise ValueError(f"{getattr(of, '__name__', of)}: expected a number, found {found}")
    return found


def per_cost(model, scores, of="multiply_adds"):
    """Return scores divided by what each group costs in the network as it is.

    Args:
        model, of: as for `Cost`.
        scores: one number per group, as `gates.SCORES` gives them.
    """
    groups, whole = channels.groups(model), Cost(model, of)
    _check_scores(groups, scores)
    total, found = whole.total(), []
    for group in groups:
        whole.remove(group)
        found.append(total - whole.total())
        whole.remove(group, sign=-1)
    return np.asarray(scores, float) / np.maximum(found, 1)


# What to keep -----------------------------------------------------------------------------------


def choose(model, scores, *, share=None, limit=None, of="multiply_adds", floor=0.0, multiple=1):
    """Return what to keep of a network for `units.shrink`, so that its cost meets a budget.

    Args:
        model: as for `channels.groups`; it is not changed.
        scores: one number per group, larger for what to keep; infinity keeps it, and -inf, the
            logarithm of a score of zero, goes first.
        share: the budget as a share of what the model costs, in (0, 1].
        limit: or the budget itself.
        of: what is counted, `"multiply_adds"`, `"parameters"` or `"bytes"`; or what is measured, a
            function of a smaller model that returns a number, such as the milliseconds of the form
            that is shipped (`deploy.latency`; of a plain call of a small model most is overhead).
            It is taken to fall with what is removed, and measured about log2(groups) times.
        floor: the share of each kind of groups that stays in any case, in [0, 1); one at least.
        multiple: let kinds of groups shrink to multiples of it, such as 8.

    Returns:
        A list of booleans, one per group of `channels.groups(model)`.

    Raises:
        ValueError: for scores that do not fit or are NaN, a budget or a measured cost that is not
            one, a budget that no choice meets, and a floor or multiple out of range.
    """
    groups = channels.groups(model)
    _check_options(share, limit, floor, multiple)
    budget = share * cost(model, of) if limit is None else limit
    return _within(budget, model, scores, of, _least(groups, floor), multiple)


def _within(budget, model, scores, of, least, multiple):
    """Return what to keep, as `choose` does, of each kind of groups at least so many."""
    groups = channels.groups(model)
    _check_scores(groups, scores)
    blocks = _order(groups, np.asarray(scores, float), least, int(multiple))
    costs = (
        _measured(model, groups, blocks, of)
        if callable(of)
        else _counted(model, groups, blocks, of)
    )
    # The cost falls along the blocks, so the first that meets the budget is found by bisection.
    met = bisect.bisect_left(range(len(blocks) + 1), -budget, key=lambda n: -costs(n))
    if met > len(blocks):
        what = getattr(of, "__name__", of)
        raise ValueError(
            f"budget: expected one that can be met, found {budget:,.6g} {what}, where the smallest "
            f"network that the floors leave takes {costs(len(blocks)):,.6g}{_fixed(groups)}"
        )
    return _kept(groups, blocks[:met])


def in_rounds(
    model,
    rule,
    *,
    share,
    rounds,
    of="multiply_adds",
    floor=0.0,
    multiple=1,
    compiled=False,
):
    r"""Return a smaller network, shrunk in rounds; each is scored anew, as small as it is by then.

    Args:
        model: as for `choose`; it is not changed.
        rule: function of a model that returns one score per group.
        share: the budget of the last round, a share of what the model costs; after round r it is
            :math:`\text{share}^{r / \text{rounds}}`.
        rounds: how many, at least 1.
        of, multiple: as for `choose`.
        floor: the share of each kind of groups of the model, not of a round, that stays.
        compiled: as for `units.shrink`; a rule that looks at the compiled loss needs it.
    """
    if rounds < 1:
        raise ValueError(f"rounds: expected at least 1, found {rounds}")
    _check_options(share, None, floor, multiple)
    whole, least = cost(model, of), _least(channels.groups(model), floor)
    for r in range(1, rounds + 1):
        limit = whole * share ** (r / rounds)
        keep = _within(limit, model, rule(model), of, least, multiple)
        model = units.shrink(model, keep, compiled=compiled)
    return model


def shuffled(model, keep, seed=0):
    """Return another choice with the same widths: which groups of each kind stay is drawn."""
    groups, generator = channels.groups(model), np.random.default_rng(seed)
    _check_scores(groups, keep)
    found = np.array(keep, bool)
    for kind in channels.kinds(groups):
        free = [number for number in kind if not groups[number].fixed]
        found[free] = generator.permutation(found[free])
    return found.tolist()


# How it is found --------------------------------------------------------------------------------


def _check_scores(groups, scores):
    if np.shape(scores) != (len(groups),) or np.any(np.isnan(np.asarray(scores, float))):
        raise ValueError(
            f"scores: expected {len(groups)} numbers, one per group, found "
            f"{'NaN' if np.shape(scores) == (len(groups),) else f'shape {np.shape(scores)}'}"
        )


def _check_options(share, limit, floor, multiple):
    if (share is None) == (limit is None):
        raise ValueError(f"budget: expected share or limit, found share={share}, limit={limit}")
    if share is not None and not 0 < share <= 1:
        raise ValueError(f"share: expected a number in (0, 1], found {share}")
    if not 0 <= floor < 1:
        raise ValueError(f"floor: expected a share in [0, 1), found {floor}")
    if limit is not None and math.isnan(limit):
        raise ValueError(f"limit: expected a number, found {limit}")
    if multiple < 1 or multiple != int(multiple):
        raise ValueError(f"multiple: expected a whole number from 1 on, found {multiple}")


def _fixed(groups):
    """Return the end of a message: why groups are fixed, those of inputs and outputs apart."""
    reasons = {reason for group in groups for reason in group.fixed}
    reasons -= {channels.INPUT, channels.OUTPUT}
    return f"; fixed: {', '.join(sorted(reasons))}" if reasons else ""


def _least(groups, floor):
    """Return how many groups of each kind stay in any case."""
    share = Fraction(str(floor))  # a decimal, exactly
    return [max(1, math.ceil(share * len(kind))) for kind in channels.kinds(groups)]


def _order(groups, scores, least, multiple):
    """Return the blocks of groups that may go, lists of numbers, in the order in which they go.

    A block has one group, or as many of a kind as bring it to the next lower multiple.
    """
    found = []
    for kind, fewest in zip(channels.kinds(groups), least, strict=True):
        free = [n for n in kind if not groups[n].fixed and scores[n] < np.inf]
        ranked = sorted(free, key=lambda n: (scores[n], n))
        width, first, mean = len(kind), 0, -np.inf
        while True:
            lower = (width - 1) // multiple * multiple
            step = width - lower
            if lower < fewest or first + step > len(ranked):
                break
            block = ranked[first : first + step]
            mean = max(mean, float(np.mean(scores[block])))  # rises, also where it is rounded
            found.append((mean, len(found), block))
            width, first = lower, first + step
    return [block for *_, block in sorted(found, key=lambda entry: entry[:2])]


def _kept(groups, blocks):
    gone = {number for block in blocks for number in block}
    return [number not in gone for number in range(len(groups))]


def _counted(model, groups, blocks, of):
    """Return the function that says what is left to pay after so many blocks."""
    running = Cost(model, of)
    totals = [running.total()]
    for block in blocks:
        for number in block:
            running.remove(groups[number])
        totals.append(running.total())
    return totals.__getitem__


def _measured(model, groups, blocks, of):
    def costs(count):
        return cost(units.shrink(model, _kept(groups, blocks[:count])), of)

    return costs
