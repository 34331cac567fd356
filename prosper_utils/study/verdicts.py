r"""Verdicts: what became of a claim, in one of five words, by the same rules for all claims.

A claim is tested in cases, such as the settings of a sweep, and each case has an *outcome*: the
claim is shown (True), contradicted (False), or neither (None).  From the interval [l, u] of a
difference in error, first minus second, come the outcomes

.. math:: \begin{aligned}
          \text{lower: } & u < 0 \text{ shown}, \\
          & l > 0 \text{ contradicted}; \\
          \text{no worse: } & u < b \text{ shown}, \\
          & \text{else } l > 0 \text{ contradicted},
          \end{aligned}

with a margin b of what we tolerate, and neither of them otherwise.  A difference from zero counts
only if it stands among all cases of the claim (`comparison.holm`).

From the outcomes follows the word: a claim *holds* if it is shown in all cases, it *holds if* in
those in which it is, if there are some, it *fails* if it is shown in none and contradicted in at
least one, and it is *not shown* if it is neither in any.  What no test can decide is *not
testable*, with the reason.
"""

import re
from typing import NamedTuple

from prosper_utils.study.checks import check
from prosper_utils.study.comparison import holm, stated

NOWHERE = "-"  # where a claim is tested that no test can decide


class Verdict(NamedTuple):
    """What became of a claim: the word, its condition or reason, and the evidence in short."""

    word: str
    condition: str = ""
    evidence: str = ""

    def __str__(self):
        joint = " " if self.word == "holds if" else ": "
        return self.word + (self.condition and joint + self.condition)


class Claim(NamedTuple):
    """A claim with its number, where it was tested (chapters and stored results), its verdict."""

    number: str
    text: str
    tested: str
    verdict: Verdict


def below_zero(found):
    """Return the outcome of "this difference is below zero" for an `Interval`."""
    if found.high < 0:
        return True
    return False if found.low > 0 else None


def lower(family, level=0.05):
    """Return the outcome of "the first arm has the lower error" in each case, {case: outcome}.

    A difference counts only if Holm's method lets it stand among all of the family.

    Args:
        family: {case: `Interval` of the first arm minus the second}, for all cases of a claim.
        level: the chance of even one wrong outcome among them that is accepted.
    """
    sure = [p < level for p in holm([found.p for found in family.values()])]
    pairs = zip(family.items(), sure, strict=True)
    return {case: below_zero(found) if stands else None for (case, found), stands in pairs}


def no_worse(family, margin=1.0):
    """Return the outcome of "the first arm is no worse, up to the margin", {case: outcome}.

    It is contradicted where the second arm has the lower error (see `lower`), unless the interval
    ends below the margin.
    """
    outcomes = lower(family)
    return {c: True if family[c].high < margin else outcomes[c] for c in family}


def together(outcomes):
    """Return the outcome of several claims at once: contradicted if one is, shown if all are.

    Raises:
        ValueError: if there are no outcomes.
    """
    outcomes = [None if o is None else bool(o) for o in outcomes]
    if not outcomes:
        raise ValueError("outcomes: expected at least one claim, found none")
    if False in outcomes:
        return False
    return None if None in outcomes else True


def graded(outcomes, evidence="", spell="; ".join):
    """Return the `Verdict` that follows from the outcomes.

    Where it holds if in some cases, the evidence says which of the others are not shown; those of
    which it says nothing are contradicted.

    Args:
        outcomes: {case: True, False or None}.
        evidence: the numbers behind them, in short.
        spell: function of a list of cases that returns them in words.

    Raises:
        ValueError: if there are no outcomes.
    """
    outcomes = {case: None if o is None else bool(o) for case, o in outcomes.items()}
    if not outcomes:
        raise ValueError("outcomes: expected at least one case, found none")
    shown, against, open_ = (
        [case for case, outcome in outcomes.items() if outcome is which]
        for which in (True, False, None)
    )
    if len(shown) == len(outcomes):
        return Verdict("holds", "", evidence)
    if shown:
        rest = (f"not shown: {spell(open_)}" if against else "else not shown") if open_ else ""
        return Verdict("holds if", spell(shown), "; ".join(filter(None, (evidence, rest))))
    if against:
        return Verdict("fails", spell(against) if open_ else "", evidence)
    return Verdict("not shown", "", evidence)


def judged(rule, family, what, spell="; ".join):
    """Return the `Verdict` of a family of intervals by a rule, `lower` or `no_worse`.

    The evidence is its two extremes, in points.

    Args:
        rule: function of the family that returns {case: outcome}.
        family: {case: `Interval`}.
        what: what the differences are, such as "ProsPr − SNIP".
        spell: as for `graded`.
    """
    ends = [stated(end(family.values())) for end in (min, max)]
    return graded(rule(family), f"{what}: points from {ends[0]} to {ends[1]}", spell)


def each(rule, family, what):
    """Return the same as `judged`, with the difference in every case as the evidence.

    Args:
        rule, what: as for `judged`.
        family: {case in words: `Interval`}.
    """
    by = "; ".join(f"{case}: {stated(found)}" for case, found in family.items())
    return graded(rule(family), f"{what}: {by}")


def grouped(cases, joint, unit=""):
    """Return cases (name, ..., value) in words; those that differ only in the value are together.

    Args:
        cases: tuples whose last entry is the value.
        joint, unit: what stands between the names and their values, and after these.
    """
    found = {}
    for *names, value in cases:
        found.setdefault(", ".join(names), []).append(str(value))
    return "; ".join(f"{name}{joint}{', '.join(v)}{unit}" for name, v in found.items())


def untestable(reason):
    """Return the `Verdict` of a statement that no test can decide, and why."""
    return Verdict("not testable", reason)


def claims(lines, *verdicts):
    """Return a list of `Claim`, one for each line "number text | where tested", with its verdict.

    What is not tested has "-" for where.

    Raises:
        ValueError: if there are more or fewer verdicts than lines, a line has not this form, or a
            number comes twice.
    """
    lines, found = lines.strip().splitlines(), []
    if len(lines) != len(verdicts):
        raise ValueError(f"claims: expected {len(lines)} verdicts, found {len(verdicts)}")
    for line, verdict in zip(lines, verdicts, strict=True):
        head, bar, tested = line.partition(" | ")
        number, space, text = head.partition(" ")
        if not bar or not space:
            raise ValueError(f'claims: expected "number text | where tested", found {line!r}')
        if number in {claim.number for claim in found}:
            raise ValueError(f"claims: expected each number once, found {number} twice")
        found.append(Claim(number, text, tested, verdict))
    return found


def table(found, links=()):
    """Return claims as a table in Markdown: what is claimed, the verdict, the evidence.

    Args:
        found: a list of `Claim`.
        links: {name: link} for the names in `Claim.tested`; others stand as they are.
    """
    links = dict(links)
    rows = ["| statement (where tested) | verdict | evidence |", "|-|-|-|"]
    for number, text, tested, verdict in found:
        by = " ".join(links.get(name, name.replace("_", " ")) for name in tested.split())
        place = "" if tested == NOWHERE else f" ({by})"
        rows.append(f"| **{number}** {text}{place} | {verdict} | {verdict.evidence} |")
    text = re.sub(r"(?<![\w-])-(?=\d)", "\N{MINUS SIGN}", "\n".join(rows))  # but not in 1e-5
    return re.sub("\N{NO-BREAK SPACE}(?![*])", " ", text)  # a star stays where it is


def settle(found, expected):
    """Check that every verdict is what we say it is, word for word; stop at the first that is not.

    Args:
        found: a list of `Claim`.
        expected: {number: the verdict as text, of what is not testable the words alone}; what is
            not in it has to hold.

    Raises:
        ValueError: if there is a number that no claim has.
        AssertionError: if a verdict is another one.
    """
    unknown = set(expected) - {claim.number for claim in found}
    if unknown:
        raise ValueError(f"settle: expected numbers of claims, found {sorted(unknown)}")
    for number, text, _, verdict in found:
        words = expected.get(number, "holds")
        said = verdict.word if verdict.word == "not testable" else str(verdict)
        if said != words:
            raise AssertionError(f"{number} {text}: expected {words!r}, found {said!r}")
        check(f"{number} {text}: {words}", holds=True)
