r"""Our own hopes: what we expected of pruning and of the proof search, with its verdict.

Each is a claim like those of the sources, and decided by a stored result alone, in the same way:
by the interval of a difference, :math:`\bar d \pm t \, \sigma / \sqrt S`, or by a threshold that
its function states.
"""

import functools
import itertools

from prosper_utils.study import arms, verdicts
from prosper_utils.study.arms import BOTH, CELLS, DENSE, GOALS_STORED, HIGH, LENET, goals, proved
from prosper_utils.study.comparison import by_seed, interval
from prosper_utils.study.verdicts import claims, graded

import numpy as np

HOPES = """
H1 In rounds, it pays to look ahead | 10 pruning
H2 A mask knows which weights | 10 pruning
H3 A learning rate chosen at 98% serves at 99.5% | 10 pruning
H4 A floor cures LeNet-5 at 99.5% | 09 pruning
H5 Our errors are those published | 08 pruning
H6 Credit ranks lemmas as they help | 15 proofs_credit
H7 The extra support helps | 15 proofs
H8 On the 24 goals the blend beats every other search of ours | 15 proofs
H9 Its lead carries over, goals stored | 15 proofs_domains
"""
PUBLISHED = {0.0: 1.7, 0.95: 1.6, 0.98: 2.4}  # Lee et al., 2019, table 1: LeNet-300-100, MNIST


def carries_over():
    """Return the verdict: has the blend the lead in other domains, where goals are stored?"""
    rows, lead, ends = arms.stored("proofs_domains"), {}, []
    for name, own in rows[rows.arm.str.endswith(GOALS_STORED)].groupby("domain"):
        by = own.groupby("arm").proved
        ours, best = by.min()["blend" + GOALS_STORED], by.max().filter(like="first").max()
        lead[name] = ours > best
        ends.append(f"{name} {ours}, {best}")
    return graded(lead, "the blend and the best search: " + "; ".join(ends))


def one_rate():
    """Return the verdict: is a rate chosen at 98% within five points at 99.5%?"""
    names = {m: f"ProsPr, M = {m}" for m in (1, 3, 10, 30, 100, 300)} | {3: "ProsPr"}
    more = {
        (a.replace("relu", "ReLU"), m): arms.minus(
            (DENSE, a, names[m]), (DENSE, a, names[m], "small steps"), 0.995
        )
        for a, m in itertools.product(BOTH, sorted(names))
    }
    rule = functools.partial(verdicts.no_worse, margin=5)
    spell = functools.partial(verdicts.grouped, joint=", M = ")
    return verdicts.judged(rule, more, "chosen − small rate", spell)


def published():
    """Return the verdict: are our errors at most 0.3 points above those of the SNIP paper?"""
    ours = {}
    for s, theirs in PUBLISHED.items():
        at = {"network": DENSE, "activation": "relu", "sparsity": s}
        at |= {"variant": "as scored", "score": "SNIP" if s else "dense"}
        errors = np.array([*by_seed(arms.stored("pruning"), **at).values()]) - theirs
        ours[f"SNIP at {s:.0%}" if s else "unpruned"] = interval(errors)
    rule = functools.partial(verdicts.no_worse, margin=0.3)
    return verdicts.each(rule, ours, "error minus theirs, points")


def floors():
    """Return the verdict: does a floor cure LeNet-5 at 99.5%?"""
    at = arms.stored("pruning")
    at = at[(at.network == LENET) & (at.sparsity == 0.995)]
    at = at[at.variant.str.contains("floor") & at.error.notna()]
    lost = (at.error > 80).groupby([at.score, at.variant]).mean()
    by = lost.groupby("score").agg(["min", "max"])
    by = [f"{score} {a:.0%} to {b:.0%}" for score, a, b in by.itertuples()]
    cured = {", ".join(arm): share == 0 for arm, share in lost.items()}
    return graded(cured, "runs at chance: " + "; ".join(by))


def lemma_order():
    """Return the verdict: does credit put lemmas in the order in which they help?"""
    ranks = arms.stored("proofs_credit")
    rank = ranks[ranks["mode"] == "support"].groupby(["steps", "keep"]).correlation.min()
    by = rank.groupby("steps").agg(["min", "max"])
    by = [f"T = {t} {a:.2f} to {b:.2f}" for t, a, b in by.itertuples()]
    evidence = "lowest rank correlation in a loop: " + "; ".join(by)
    rank.index = [f"T = {t}, K = {k:,}" for t, k in rank.index]
    return graded(rank > 0.6, evidence)


def beats_searches():
    """Return the verdict: is the blend's worst run better than the best of other searches?"""
    rows = arms.stored("proofs")
    others = {*rows.arm[rows.arm.str.contains("first|genetic")]}
    others = sorted(n for n in others if "held" not in n and "budgets" not in n)
    best, cases = [], {}
    for kind, case in (("", "they are not"), (GOALS_STORED, "goals are stored")):
        rivals = [arm for arm in others if (GOALS_STORED in arm) == bool(kind)]
        best.append(max(rivals, key=lambda arm: proved(arm).max()))
        cases[case] = proved("blend" + kind).min() > proved(best[-1]).max()
    evidence = arms.span("blend", best[0], "blend" + GOALS_STORED, best[1])
    return graded(cases, f"goals proved: {evidence}")


def hopes():
    """Return the `Claim` list of what we had hoped."""
    knows = {
        (a, name, s): arms.minus((DENSE, a, name), (DENSE, a, name, "shuffled"), s)
        for a in BOTH
        for name in ("SNIP", "ProsPr", "SynFlow")
        for s in HIGH[:2]
    }
    high = [cell for cell in CELLS if cell[-1] in HIGH]
    ahead = arms.versus("iterative ProsPr", "iterative SNIP", high)
    less_support = {
        "goals are not stored": goals("identity"),
        "goals are stored": goals("identity" + GOALS_STORED, "blend" + GOALS_STORED),
    }
    return claims(
        HOPES,
        arms.lower(ahead, "iterative ProsPr − SNIP"),
        arms.lower(knows, "as scored − shuffled"),
        *(one_rate(), floors(), published(), lemma_order()),
        *(arms.fewer(less_support), beats_searches(), carries_over()),
    )
