r"""Findings: which comparisons of the book carry over from one data set to the others.

A finding says that one arm has a lower error than another.  Every stored sweep that has both tests
it in its *cells*, each a network at a sparsity, over the seeds that both arms share: with errors
:math:`a_S` and :math:`b_S` for seed S, by the interval of

.. math:: a_S - b_S ,

and by Holm's correction among the cells of one data set (`verdicts.lower`).
"""

import itertools

from prosper_utils.study import results, verdicts
from prosper_utils.study.comparison import paired, stated

import pandas as pd

SEEDS = 3  # fewer are not judged
FROZEN = "the best frozen mask"
FINDINGS = {  # what is said: the kind of sweep, the arm with the lower error, and the other
    "SNIP beats random": ("pruning", "SNIP", "random"),
    "SNIP beats SNIP shuffled": ("pruning", "SNIP", "SNIP, shuffled"),
    "ProsPr beats ProsPr shuffled": ("pruning", "ProsPr", "ProsPr, shuffled"),
    "ProsPr, M = 3, beats SNIP": ("pruning", "ProsPr", "SNIP"),
    "ProsPr, M = 100, beats SNIP": ("pruning", "ProsPr, M = 100", "SNIP"),
    "SNIP in rounds beats SNIP": ("pruning", "iterative SNIP", "SNIP"),
    "SynFlow beats SNIP": ("pruning", "SynFlow", "SNIP"),
    "regrowth by credit beats the best frozen mask": ("regrowth", "credit", FROZEN),
    "regrowth by credit beats random regrowth": ("regrowth", "credit", "random regrowth"),
    "gradual magnitude beats credit": ("regrowth", "gradual magnitude", "credit"),
}
SWEEPS = {  # the stored sweep of each kind, data set by data set
    "MNIST": {"pruning": "pruning", "regrowth": "regrowth"},
    "Fashion-MNIST": {"pruning": "pruning_fashion", "regrowth": "regrowth_fashion"},
    "CIFAR-10": {"pruning": "colour", "regrowth": "colour"},
}
PLAIN = "as scored", "as is", "as it is"  # the variant of an arm that its name alone stands for
NOT_FROZEN = "credit", "random regrowth", "gradual magnitude", "dense", "removed"
NOT_FROZEN += ("magnitude",)  # of trained weights, in one of the sweeps


def arms(table):
    """Return the rows of a sweep that have an error: network, arm, sparsity, seed, error.

    The name of an arm is that of its score or way to prune, and of its variant if it has one.
    """
    if table.empty:
        return table
    table = table[table.error.notna() & (table.sparsity > 0)]
    arm = table.score if "score" in table else table.arm
    arm = arm.where(table.variant.isin(PLAIN), arm + ", " + table.variant)
    network = table.network
    if "activation" in table:
        network = network + ", " + table.activation.replace("relu", "ReLU")
    return table[["sparsity", "seed", "error"]].assign(network=network, arm=arm)


def family(table, first, second):
    """Return {(network, sparsity): `Interval` of the first arm minus the second}.

    Args:
        table: what `arms` returns.
        first, second: names of arms; `FROZEN` is the arm whose mask stands from before training and
            whose mean error is the lowest of its cell.
    """
    found = {}
    groups = table.groupby(["network", "sparsity"], sort=False) if len(table) else ()
    for cell, rows in groups:
        by_arm = {
            arm: dict(zip(part.seed, part.error, strict=True)) for arm, part in rows.groupby("arm")
        }
        other = best_frozen(by_arm) if second == FROZEN else second
        pair = [by_arm.get(arm, {}) for arm in (first, other)]
        if len(pair[0].keys() & pair[1].keys()) >= SEEDS:
            found[cell] = paired(*pair)
    return found


def best_frozen(by_arm):
    """Return the arm with a fixed mask whose mean error is the lowest, "" if there is none.

    Arms with at least `SEEDS` seeds are compared, by the means over the seeds that all have.
    """
    frozen = {
        arm: errors
        for arm, errors in by_arm.items()
        if len(errors) >= SEEDS and not arm.startswith(NOT_FROZEN)
    }
    shared = set.intersection(*map(set, frozen.values())) if frozen else ()
    return min(frozen, key=lambda arm: sum(frozen[arm][seed] for seed in shared), default="")


def families():
    """Return {(finding, data set): what `family` returns} from the stored sweeps."""
    tables = {
        (data, kind): arms(results.resume(name))
        for data, sweeps in SWEEPS.items()
        for kind, name in sweeps.items()
    }
    return {
        (finding, data): family(tables[data, kind], first, second)
        for (finding, (kind, first, second)), data in itertools.product(FINDINGS.items(), SWEEPS)
    }


def carried_over(found):
    """Return a table of verdicts: a row for each finding, a column for each data set.

    Args:
        found: what `families` returns.
    """
    table = pd.Series({key: told(cells) for key, cells in found.items()}).unstack()
    return table.loc[[*FINDINGS], [*SWEEPS]].rename_axis("finding")


def told(cells):
    """Return the verdict of a finding on one data set, with the number of cells that show it."""
    if not cells:
        return "not run"
    outcomes = verdicts.lower(cells)
    word = verdicts.graded(outcomes, spell=str).word.replace("holds if", "holds in part")
    shown, against = (sum(o is which for o in outcomes.values()) for which in (True, False))
    contradicted = f", contradicted in {against}" if against else ""
    return f"{word}: {shown} of {len(cells)}{contradicted}"


def cells(found):
    """Return a table of all intervals, a row for each finding, data set and network.

    A star marks a difference that stands among the cells of its finding on its data set.
    """
    rows = {}
    for (finding, data), of_data in found.items():
        sure = verdicts.lower(of_data) if of_data else {}
        for (network, sparsity), interval in of_data.items():
            row = rows.setdefault((finding, data, network), {})
            row[sparsity] = stated(interval, star=sure[network, sparsity] is not None)
    table = pd.DataFrame.from_dict(rows, orient="index")
    table = table[sorted(table)].fillna("")
    return table.rename(columns=lambda sparsity: f"{100 * sparsity:g}%")
