r"""The journal: each statement of "Blending pruning and backprop", with its verdict.

What runs while a chapter runs (three loops in several credit modes, big sums, a word spelled) is
handed in as *seen*; all else is decided by the stored runs of the proof search, an arm against
the blend, and, for what the journal says of any evolution, by those of regrowth on networks.  What
is lost without a part of the loop is the difference

.. math:: n_{\text{arm}} - n_{\text{blend}}

of goals proved, in each setting of a grid (`arms.goals`).
"""

from prosper_utils.study import arms, verdicts
from prosper_utils.study.arms import DENSE, GOALS_STORED, fewer, goals, proved, span
from prosper_utils.study.comparison import interval, paired, stated
from prosper_utils.study.verdicts import claims, graded

import numpy as np

JOURNAL = """
P1a Pruning by final fitness has trivial credit assignment … | 14 live
P1b … and this is a drawback: fewer goals | 15 proofs
P2a Pure backprop assigns credit well … | 13 15 proofs_credit
P2b … but done directly, its support never changes | 13 15 proofs
S1a There must be an identity term … | 15 proofs
S1b … so that credit can go to what just persists | 15 proofs
S2a Terms of weight zero do not change a big sum … | 13 live
S2b … but they do change its gradient … | 13 live
S2c … and weight can flow to them | 15 proofs
S3 A big sum can take a specified support instead | 13 live
S4 Summing over all generated lets some acquire weight | 15 proofs
S5a One should prune by weight now and then … | 15 proofs
S5b … but only after flowing for long enough | 13 15 proofs
C1 Functions can depend on a subset of V, too | 13 live
C2 To propagate, the empty subset will do | 14 live
C3a Then take the essential support of the image … | 15 proofs
C3b … and recompute: the value is unchanged | 14 live
C4 Back-propagate with the gradient of the new function | 15 proofs_credit
C5 This is one loop; repeated, it proves more in time | 15 proofs
C6 Purge after looping for enough time | 13 15 proofs
I1 The identity's gradient depends on no support | 13 live
I2 So persistence gives weight to all in the final distribution | 14 live
I3 This avoids the complications above | 15 proofs
"""
NETWORK = """
N1 (C5) The loop beats every mask that does not move | 17 regrowth
N2 (S2c) Credit is better than chance | 17 regrowth
N3 (S1) Purging by the last step, not by what persists, harms | 17 regrowth
N4 (S5b) Purging sooner than every 100 steps harms | 17 regrowth
N5 A mean of steps is a better credit than one | 17 regrowth
N6 Looking ahead is better still | 17 regrowth
N7 It needs a good first mask | 17 regrowth
N8 It is no worse than gradual pruning, dense first | 17 regrowth
"""


def credit_where_weight(off):
    """Return the verdict: does pure backprop credit each object as the loss says?

    Args:
        off: the relative error of its credit of what has weight, from the fall of the loss.
    """
    ranks = arms.stored("proofs_credit").groupby("mode").correlation
    cases = {"an object has weight": off < 0.05, "it has none": ranks.min()["fixed"] > 0.5}
    evidence = "with weight it is the fall of the loss, to 5%; without, "
    evidence += f"its rank correlation is {ranks.max()['fixed']:.1f}"
    return graded(cases, evidence)


def must_there_be():
    """Return the verdict: is nothing proved without the identity term?"""
    without = "identity, without persistence", "without persistence"
    poor = proved("fixed").max()  # as little as where no support grows
    cases = "there is no extra support", "there is one"
    needed = {c: proved(a).max() <= poor for c, a in zip(cases, without, strict=True)}
    return graded(needed, "goals proved: " + span(*without, "blend"))


def persisting_pays():
    """Return the verdict: do fewer goals come if what persists gets no credit for it?"""
    arm, plain, none = "persistence without credit", "identity", "no extra support"
    bare = f"{plain}, {arm}"
    return fewer(
        {
            "goals not stored": goals(arm),
            "goals stored": goals(arm + GOALS_STORED, "blend" + GOALS_STORED),
            none: goals(bare, plain),
            none + GOALS_STORED: goals(bare + GOALS_STORED, plain + GOALS_STORED),
        }
    )


def better_credit():
    """Return the verdict: does the new gradient rank lemmas better than the old one?"""
    at = ["steps", "keep", "loop", "mode"]
    ranks = arms.stored("proofs_credit").set_index(at).correlation.unstack()
    gap = (ranks["identity"] - ranks["support"]).groupby("steps")
    family = {f"T = {t}": interval(values) for t, values in gap}
    ends = {m: f"{ranks[m].min():.1f} to {ranks[m].max():.1f}" for m in ("support", "identity")}
    evidence = "rank correlation with the fall of the loss: "
    evidence += f"{ends['support']}; of the old one {ends['identity']}"
    return graded(verdicts.lower(family), evidence)


def evolves():
    """Return the verdict: does every run of the blend prove more goals later on?"""
    runs = arms.stored("proofs")
    runs = runs[(runs.arm == "blend") & (runs.steps == 2)]
    curves = np.array([[int(n) for n in c.split()] for c in runs.curve])
    early, later = curves[:, 6], curves[:, -1]  # the former after 10,000
    evidence = f"goals proved: {early.min()} to {early.max()} by 10,000 "
    evidence += f"detachments, {later.min()} to {later.max()} by 200,000"
    fixed = proved("fixed").max()  # which does not evolve
    return graded({"": np.all(later > early) and early.min() > fixed}, evidence)


def purge_late(hasty, patient):
    """Return the verdict: does it harm to purge at once?

    Args:
        hasty, patient: the longest word that is spelled if a purge comes in each loop, or late.
    """
    more = goals("purge every 1")
    evidence = f"longest word {patient} letters, at once {hasty}; "
    evidence += f"difference in goals, at once: {stated(more)}"
    harm = {"a purge leaves few": hasty < patient}
    return graded(harm | {"it leaves many": verdicts.below_zero(more)}, evidence)


def flows(grown):
    """Return the verdict: can weight flow to terms of weight zero, and not by chance?

    Args:
        grown: how many objects have weight after three loops that had none at first.
    """
    chance = proved("random growth").max()  # all at one setting
    more = chance < proved("blend").loc[0.03, 150].item()
    return graded({"": grown > 0 and more}, f"goals proved: {span('blend', 'random growth')}")


def statements(seen):
    """Return the `Claim` list of the journal.

    Args:
        seen: what was seen live, by name.  Counts: `"lemmas paid by fitness"`, `"grown with a fixed
            support"`, `"grown with the image's support"`.  Relative errors: `"credit off"`, of the
            fixed mode's credit from the fall of the loss, and `"by difference"`, of an adjoint.
            True or False: `"same value"`, `"other gradient"`, `"support decides"`, `"same states"`,
            `"needs no support"`, `"own feedback suffices"`.  A text: `"products"`.  Lengths of
            words: `"hasty"`, `"patient"`.  And `"new"`: how many new objects have no feedback, and
            how many there are.
    """
    seldom = {"never": goals("never purge"), "every 20 loops, not 10": goals("purge every 20")}
    late = purge_late(seen["hasty"], seen["patient"])
    drawback = goals("fitness" + GOALS_STORED, "blend" + GOALS_STORED)
    behind = {f"T = {t}": goals("blend", "identity", t) for t in (1, 2, 3)}
    all_met = proved("all generated").min() > proved("fixed").max()
    wider = {f"{a} − blend": goals(a) for a in ("all generated", "1 round")}
    own = {"it has feedback of its own": seen["own feedback suffices"]}
    return claims(
        JOURNAL,
        graded({"": seen["lemmas paid by fitness"] == 0}, "only goals have credit, no lemma"),
        fewer({"goals stored": drawback}),
        credit_where_weight(seen["credit off"]),
        graded(
            {"": seen["grown with a fixed support"] == 0}, f"goals proved: {span('fixed', 'blend')}"
        ),
        *(must_there_be(), persisting_pays()),
        graded({"": seen["same value"]}, "bit by bit, with any extra support"),
        graded({"": seen["other gradient"]}, "40 drawn at random"),
        flows(seen["grown with the image's support"]),
        graded({"": seen["support decides"]}, "no credit without it, some with it"),
        graded({"": all_met}, f"goals proved: {span('all generated', 'fixed')}"),
        *(fewer(seldom), late),
        graded({"": seen["by difference"] < 1e-10}, "adjoint = finite differences"),
        graded({"": seen["same states"]}, seen["products"]),
        fewer(wider),
        graded({"": seen["same states"]}, "no weight of any state changes, to 1e-15"),
        *(better_credit(), evolves(), late),
        graded({"": seen["needs no support"]}, "a w for any support; aᵀ w after T steps"),
        graded(own | {"": not seen["new"][0]}, "{} of {} new ones have none".format(*seen["new"])),
        verdicts.each(verdicts.no_worse, behind, "goals behind the blend"),
    )


def on_networks():
    """Return the `Claim` list of the same sentences, on networks."""
    as_is = arms.regrown(DENSE, "credit", 0.99)
    variants = sorted({*arms.stored("regrowth").variant} - {"as is"})
    changed = {v: arms.regrown(DENSE, "credit", 0.99, v) for v in variants}
    changed["at random"] = arms.regrown(DENSE, "random regrowth", 0.99)
    better = {v: paired(e, as_is) for v, e in changed.items()}
    worse = {v: paired(as_is, e) for v, e in changed.items()}

    def of_variants(family, *names):
        found = verdicts.lower(family)  # of all changes, as in chapter 17
        evidence = "; ".join(f"{v} {stated(better[v])}" for v in names)
        return graded({v: found[v] for v in names}, f"minus as is, points: {evidence}")

    return claims(
        NETWORK,
        arms.lower(arms.credit_against(), "credit − best frozen"),
        arms.lower(arms.credit_against("random regrowth"), "credit − random"),
        of_variants(worse, "no persistence"),
        of_variants(worse, "every 10", "every 50"),
        of_variants(worse, "one batch", "one step"),
        of_variants(better, *(v for v in variants if "look" in v)),
        of_variants(worse, "from random"),
        arms.no_worse(arms.credit_against("gradual magnitude"), "credit − gradual"),
    )
