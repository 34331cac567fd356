"""The journal and our hopes: verdicts follow from stored rows and from what was seen live."""

import functools
import itertools

from prosper_utils.study import arms, hopes, journal, verdicts
from prosper_utils.study.arms import BOTH, DENSE, GOALS_STORED, HIGH, LENET
from prosper_utils.study.comparison import Interval
from prosper_utils.study.verdicts import Verdict

import pandas as pd
import pytest
import sweep_regrowth
from conftest import said, verdict_of_each
from test_arms import give, rows_of_runs, runs_of

LITTLE = Interval(0.3, -0.2, 0.8, 0.3)  # no worse by a point, and no lower
BETTER, OPEN, WORSE = (Interval(m, m - 1, m + 1, p) for m, p in ((-3, 1e-6), (0, 1), (3, 1e-6)))
SEEN = {
    "lemmas paid by fitness": 0,
    "grown with a fixed support": 0,
    "grown with the image's support": 5,
    "credit off": 0.01,
    "same value": True,
    "other gradient": True,
    "support decides": True,
    "same states": True,
    "products": "9 products in place of 20",
    "by difference": 1e-12,
    "needs no support": True,
    "own feedback suffices": True,
    "new": (3, 4),
    "hasty": 2,
    "patient": 6,
}


def verdicts_of(found):
    return {claim.number: str(claim.verdict) for claim in found}


@pytest.fixture
def runs(monkeypatch):
    """Let the stored proof search have these goals, {arm: those of its two settings}."""

    def give(**proved):
        rows = [
            {"arm": arm, "steps": 2, "step_size": 0.03, "keep": k, "seed": 0, "proved": n}
            for arm, numbers in proved.items()
            for k, n in zip((150, 200), numbers, strict=True)
        ]
        monkeypatch.setattr(arms, "stored", {"proofs": pd.DataFrame(rows)}.__getitem__)

    return give


@pytest.mark.parametrize(
    ("seen", "changes"),
    [
        ({"lemmas paid by fitness": 1}, {"P1a": "fails"}),
        ({"credit off": 0.1}, {"P2a": "fails"}),
        ({"grown with a fixed support": 1}, {"P2b": "fails"}),
        ({"same value": False}, {"S2a": "fails"}),
        ({"other gradient": False}, {"S2b": "fails"}),
        ({"grown with the image's support": 0}, {"S2c": "fails"}),
        ({"support decides": False}, {"S3": "fails"}),
        ({"by difference": 1e-3}, {"C1": "fails"}),
        ({"same states": False}, {"C2": "fails", "C3b": "fails"}),
        ({"needs no support": False}, {"I1": "fails"}),
        ({"own feedback suffices": False}, {"I2": "fails"}),
        ({"new": (0, 4)}, {"I2": "holds"}),
        ({"hasty": 6}, dict.fromkeys(("S5b", "C6"), "fails: a purge leaves few")),
    ],
)
def test_what_was_seen_decides_its_statements_and_no_other(seen, changes):
    as_is = verdicts_of(journal.statements(SEEN))
    found = verdicts_of(journal.statements(SEEN | seen))
    assert {number: v for number, v in found.items() if as_is[number] != v} == changes


def test_an_identity_term_must_be_there_where_nothing_is_proved_without(runs):
    with_support, without = "without persistence", "identity, without persistence"
    runs(fixed=(1, 2), blend=(20, 22), **{without: (0, 2), with_support: (9, 9)})
    assert str(journal.must_there_be()) == "holds if there is no extra support"
    runs(fixed=(1, 2), blend=(20, 22), **{without: (0, 2), with_support: (0, 0)})
    assert journal.must_there_be().word == "holds"


def test_weight_flows_by_credit_only_if_chance_does_less(runs):
    runs(blend=(20, 22), **{"random growth": (15, 19)})
    assert journal.flows(3).word == "holds"
    assert journal.flows(0).word == "fails"
    runs(blend=(20, 22), **{"random growth": (15, 20)})
    assert journal.flows(3).word == "fails"


@pytest.mark.parametrize(
    ("found", "words"), [(BETTER, "holds"), (OPEN, "holds if a purge leaves few")]
)
def test_a_purge_at_once_harms_where_it_costs(monkeypatch, found, words):
    monkeypatch.setattr(journal, "goals", lambda *arms: found)
    assert str(journal.purge_late(2, 6)) == words


@pytest.mark.parametrize(
    ("found", "word"), [(BETTER, "holds"), (OPEN, "not shown"), (WORSE, "fails")]
)
def test_on_networks_a_difference_decides(monkeypatch, found, word):
    monkeypatch.setattr(
        journal.arms, "credit_against", lambda other=None: {(arms.DENSE, 0.9): found}
    )
    claims = verdicts_of(journal.on_networks())
    assert claims["N1"].startswith(word)
    assert claims["N2"].startswith(word)


def test_harm_is_a_lower_error_as_is_and_gain_one_of_the_variant():
    claims = {claim.number: claim.verdict for claim in journal.on_networks()}
    assert str(claims["N4"]) == "holds if every 10"
    assert "every 10 +" in claims["N4"].evidence  # minus as is
    assert claims["N6"].word == "not shown"


def test_floors_and_lemma_order_follow_their_rows(monkeypatch):
    real = {name: arms.stored(name).copy() for name in ("pruning", "proofs_credit")}
    assert str(hopes.floors()) == "holds if ProsPr, floor of 50"
    real["pruning"]["error"] = 10.0
    real["proofs_credit"]["correlation"] = 0.7
    monkeypatch.setattr(arms, "stored", real.__getitem__)
    assert hopes.floors().word == "holds"
    assert hopes.lemma_order().word == "holds"
    real["proofs_credit"]["correlation"] = 0.6
    assert hopes.lemma_order().word == "fails"


def test_the_worst_run_of_the_blend_is_set_against_the_best_of_others(runs):
    kind = arms.GOALS_STORED
    others = {
        "breadth first": (3, 12),
        "genetic, size": (13, 4),
        "breadth first, held out": (9, 24),
    }
    kept = {f"blend{kind}": (18, 20), f"breadth first{kind}": (18, 11)}
    runs(blend=(14, 22), **others, **kept)
    assert str(hopes.beats_searches()) == "holds if they are not"
    runs(blend=(13, 22), **others, **kept)
    assert hopes.beats_searches().word == "fails"


def test_the_lead_carries_over_where_the_worst_run_is_above_the_best_search(monkeypatch):
    arm = [f"{a}{arms.GOALS_STORED}" for a in ("blend", "blend", "breadth first")]
    rows = [("circuits", *x) for x in zip(arm, (5, 7, 4), strict=True)]
    rows += [("ladder", *x) for x in zip(arm, (5, 7, 5), strict=True)]
    table = pd.DataFrame(rows, columns=["domain", "arm", "proved"])
    monkeypatch.setattr(arms, "stored", {"proofs_domains": table}.__getitem__)
    assert str(hopes.carries_over()) == "holds if circuits"


def test_a_rate_serves_within_five_points(monkeypatch):
    monkeypatch.setattr(arms, "minus", lambda arm, other, s: Interval(3, 2, 4.9, 1e-6))
    assert hopes.one_rate().word == "holds"
    monkeypatch.setattr(arms, "minus", lambda arm, other, s: Interval(3, 2, 5.1, 1e-6))
    assert hopes.one_rate().word == "fails"


def test_our_errors_are_those_published_within_three_tenths(monkeypatch):
    def table(offset):
        columns = {"network": arms.DENSE, "activation": "relu", "variant": "as scored"}
        rows = [
            columns | {"score": "SNIP" if s else "dense", "sparsity": s, "seed": k, "error": e}
            for s, theirs in hopes.PUBLISHED.items()
            for k, e in enumerate((theirs + offset, theirs + offset + 0.01))
        ]
        return {"pruning": pd.DataFrame(rows)}.__getitem__

    monkeypatch.setattr(arms, "stored", table(0.1))
    assert hopes.published().word == "holds"
    for name in ("unpruned", "SNIP at 95%", "SNIP at 98%"):
        assert name in hopes.published().evidence
    monkeypatch.setattr(arms, "stored", table(2.0))
    assert hopes.published().word == "fails"


def test_the_numbers_of_the_paper():
    """Table 1 of Lee et al., 2019: the error of LeNet-300-100 in percent, by sparsity."""
    assert list(hopes.PUBLISHED.items()) == [(0.0, 1.7), (0.95, 1.6), (0.98, 2.4)]


@pytest.mark.parametrize(("ends", "word"), [((9, 8), "holds"), ((9, 5), "fails")])
def test_the_blend_evolves_only_if_every_run_proves_more_later(monkeypatch, ends, word):
    """Later than after 10,000 combinations, at the seventh checkpoint."""
    rows = [
        row | {"curve": " ".join(["4"] * 6 + ["5", str(row["proved"])])}
        for row in runs_of("blend", ends)
    ]
    table = pd.DataFrame(rows + runs_of("fixed", [2, 3], 0))
    monkeypatch.setattr(arms, "stored", {"proofs": table}.__getitem__)
    assert journal.evolves().word == word


def test_a_change_of_the_loop_counts_only_among_all_of_them(monkeypatch):
    """One with p = 0.02 is surely worse by itself, and not among as many as there are."""
    monkeypatch.setattr(
        journal.arms, "credit_against", lambda other=None: {(arms.DENSE, 0.9): OPEN}
    )
    noise, worse = [-1, -0.5, 0, 0.5, 1], [0.2, 0.5, 0.8, 1.1, 1.4]

    def regrown(network, arm, sparsity, variant="as is"):
        plain = variant == "as is" and arm == "credit"
        found = [0.0] * 5 if plain else worse if variant == "no persistence" else noise
        return dict(enumerate(found))

    monkeypatch.setattr(journal.arms, "regrown", regrown)
    claims = {claim.number: claim.verdict.word for claim in journal.on_networks()}
    assert claims["N3"] == "not shown"


def test_what_persists_is_set_against_the_loop_that_stores_goals_as_it_does(monkeypatch):
    asked = []
    monkeypatch.setattr(
        journal, "goals", lambda arm, other="blend", steps=2: asked.append((arm, other)) or OPEN
    )
    journal.persisting_pays()
    arm, kind = "persistence without credit", arms.GOALS_STORED
    bare = f"identity, {arm}"
    assert asked == [
        (arm, "blend"),
        (arm + kind, "blend" + kind),
        (bare, "identity"),
        (bare + kind, "identity" + kind),
    ]


@pytest.mark.parametrize(("new", "word"), [(0.9, "holds"), (0.3, "fails")])
def test_the_better_credit_is_the_one_that_ranks_better(monkeypatch, new, word):
    rows = [
        {"steps": t, "keep": 150, "loop": n, "mode": mode, "correlation": value + 0.01 * n * sign}
        for t in (1, 2)
        for n in range(4)
        for mode, value, sign in (("support", new, 1), ("identity", 0.6, -1))
    ]
    monkeypatch.setattr(arms, "stored", {"proofs_credit": pd.DataFrame(rows)}.__getitem__)
    assert journal.better_credit().word == word


def test_each_arm_is_set_against_the_rival_of_its_statement(monkeypatch):
    asked = []
    monkeypatch.setattr(
        journal,
        "goals",
        lambda arm, other="blend", steps=2: asked.append((arm, other, steps)) or OPEN,
    )
    journal.statements(SEEN)
    kind = arms.GOALS_STORED
    assert {("blend", "identity", t) for t in (1, 2, 3)} <= set(asked)
    assert not any(arm == "identity" for arm, *_ in asked)
    assert ("fitness" + kind, "blend" + kind, 2) in asked


def test_credit_is_set_against_frozen_masks_chance_and_gradual_pruning(monkeypatch):
    asked = []
    monkeypatch.setattr(
        arms, "credit_against", lambda other=None: asked.append(other) or {(arms.DENSE, 0.9): OPEN}
    )
    journal.on_networks()
    assert asked == [None, "random regrowth", "gradual magnitude"]


def test_a_chosen_rate_is_set_against_the_small_one(monkeypatch):
    asked = []
    monkeypatch.setattr(arms, "minus", lambda *found: asked.append(found) or OPEN)
    hopes.one_rate()
    assert len(asked) == 12
    assert all(small == (*chosen, "small steps") for chosen, small, _ in asked)
    assert {s for *_, s in asked} == {0.995}


def test_lemmas_are_in_order_only_if_they_are_in_every_loop(monkeypatch):
    rows = [
        {"mode": "support", "steps": 1, "keep": 150, "loop": n, "correlation": value}
        for n, value in enumerate((0.9, 0.9, 0.5))
    ]
    monkeypatch.setattr(arms, "stored", {"proofs_credit": pd.DataFrame(rows)}.__getitem__)
    assert hopes.lemma_order().word == "fails"


def test_a_search_that_stores_no_goals_is_no_rival_in_other_domains(monkeypatch):
    kind = arms.GOALS_STORED
    rows = [("circuits", f"blend{kind}", 5), ("circuits", f"breadth first{kind}", 4)]
    rows += [("circuits", "breadth first", 9)]
    table = pd.DataFrame(rows, columns=["domain", "arm", "proved"])
    monkeypatch.setattr(arms, "stored", {"proofs_domains": table}.__getitem__)
    assert hopes.carries_over().word == "holds"


@pytest.mark.parametrize(
    ("lowest", "words"), [(0.2, "holds if an object has weight"), (0.6, "holds")]
)
def test_plain_credit_ranks_lemmas_only_if_it_does_everywhere(monkeypatch, lowest, words):
    rows = [{"mode": "fixed", "correlation": c} for c in (0.9, lowest)]
    give(monkeypatch, proofs_credit=rows)
    assert str(journal.credit_where_weight(0.01)) == words


def test_an_identity_term_is_not_needed_where_one_run_does_without(monkeypatch):
    without = "identity, without persistence", "without persistence"
    rows = [*rows_of_runs("fixed", (1, 2)), *rows_of_runs("blend", (20, 22))]
    rows += [row for arm in without for row in rows_of_runs(arm, (0, 9))]
    give(monkeypatch, proofs=rows)
    assert journal.must_there_be().word == "fails"


@pytest.mark.parametrize(("fixed", "word"), [(4, "holds"), (5, "fails")])
def test_what_evolves_is_soon_beyond_a_fixed_support(monkeypatch, fixed, word):
    """In two steps, whatever becomes of three."""
    rows = rows_of_runs("blend", (9, 8)) + rows_of_runs("blend", (5, 5), steps=3)
    rows = [row | {"curve": " ".join(["5"] * 7 + [str(row["proved"])])} for row in rows]
    give(monkeypatch, proofs=rows + rows_of_runs("fixed", (2, fixed), steps=0))
    assert journal.evolves().word == word


def test_every_part_of_the_loop_is_taken_out_where_its_statement_says_so(monkeypatch):
    asked, kind = [], GOALS_STORED
    monkeypatch.setattr(
        journal,
        "goals",
        lambda arm, other="blend", steps=2: asked.append((arm, other, steps)) or OPEN,
    )
    monkeypatch.setattr(journal, "persisting_pays", lambda: Verdict("holds"))
    journal.statements(SEEN)
    assert asked == [
        ("never purge", "blend", 2),
        ("purge every 20", "blend", 2),
        ("purge every 1", "blend", 2),
        (f"fitness{kind}", f"blend{kind}", 2),
        *(("blend", "identity", t) for t in (1, 2, 3)),
        ("all generated", "blend", 2),
        ("1 round", "blend", 2),
    ]


@pytest.mark.parametrize(("lowest", "word"), [(4, "holds"), (3, "fails")])
def test_all_that_was_generated_acquires_weight_if_every_run_proves_more(monkeypatch, lowest, word):
    few = {"all generated": pd.Series([20, lowest]), "fixed": pd.Series([2, 3])}
    real = journal.proved
    monkeypatch.setattr(journal, "proved", lambda arm: few[arm] if arm in few else real(arm))
    assert verdict_of_each(journal.statements(SEEN))["S4"].word == word


def test_chance_and_all_variants_are_one_family(monkeypatch):
    families, real = [], verdicts.lower
    monkeypatch.setattr(
        verdicts, "lower", lambda family, *rest: families.append({*family}) or real(family, *rest)
    )
    journal.on_networks()
    assert families.count({*sweep_regrowth.VARIANTS, "at random"}) == 5  # N3 to N7


def test_what_is_worse_in_every_variant_harms_and_does_not_help(monkeypatch):
    monkeypatch.setattr(arms, "credit_against", lambda other=None: {(DENSE, 0.9): LITTLE})

    def regrown(network, arm, sparsity, variant="as is"):
        plain = (arm, variant) == ("credit", "as is")
        return dict(enumerate((0, 0.1, -0.1, 0.2, 0) if plain else (5, 5.1, 5.3, 4.9, 4.8)))

    monkeypatch.setattr(arms, "regrown", regrown)
    words = {number: v.word for number, v in verdict_of_each(journal.on_networks()).items()}
    expected = dict.fromkeys(("N3", "N4", "N5", "N7", "N8"), "holds")
    assert words == expected | {"N1": "not shown", "N2": "not shown", "N6": "fails"}


def test_errors_half_a_point_off_are_not_those_published(monkeypatch):
    rows = [
        {"network": DENSE, "activation": "relu", "variant": "as scored", "sparsity": s}
        | {"score": "SNIP" if s else "dense", "seed": seed, "error": theirs + error}
        for s, theirs in hopes.PUBLISHED.items()
        for seed, error in enumerate((0.5, 0.51))
    ]
    give(monkeypatch, pruning=rows)
    assert hopes.published().word == "fails"


def test_a_floor_is_judged_by_the_runs_at_its_sparsity_that_have_an_error(monkeypatch):
    runs = [
        (LENET, 0.995, "SNIP", "floor", (80.5, 80)),
        (LENET, 0.995, "ProsPr", "floor", (None, 90)),
        (LENET, 0.995, "ProsPr", "floor of 50", (10, 10)),
        (LENET, 0.995, "ProsPr", "as scored", (90, 90)),
        (LENET, 0.99, "ProsPr", "floor of 50", (90, 90)),
        (DENSE, 0.995, "ProsPr", "floor of 50", (90, 90)),
    ]
    columns = "network", "sparsity", "score", "variant"
    rows = [
        dict(zip(columns, arm, strict=True)) | {"error": e} for *arm, errors in runs for e in errors
    ]
    give(monkeypatch, pruning=rows)
    found = hopes.floors()
    assert str(found) == "holds if ProsPr, floor of 50"
    assert found.evidence.startswith("runs at chance: ProsPr 0% to 100%; SNIP 50% to 50%")


def test_a_search_with_ten_budgets_is_no_rival(monkeypatch):
    kind = GOALS_STORED
    runs = {"blend": (14, 22), f"blend{kind}": (18, 20), "breadth first": (3, 12)}
    runs |= {f"breadth first{kind}": (11, 12), "light first, ten budgets": (30, 30)}
    give(monkeypatch, proofs=[row for arm, n in runs.items() for row in rows_of_runs(arm, n)])
    assert hopes.beats_searches().word == "holds"


def test_every_hope_is_tested_where_it_says_so(monkeypatch):
    asked, kind = [], GOALS_STORED

    def record(*found):
        asked.append(found)
        return OPEN

    monkeypatch.setattr(arms, "minus", record)
    monkeypatch.setattr(arms, "versus", lambda a, b, cells: {cell: record(a, b) for cell in cells})
    monkeypatch.setattr(hopes, "goals", lambda arm, other="blend": record(arm, other))
    decided = {"H3": "one_rate", "H4": "floors", "H5": "published", "H6": "lemma_order"}
    decided |= {"H8": "beats_searches", "H9": "carries_over"}
    for name in decided.values():
        monkeypatch.setattr(hopes, name, functools.partial(Verdict, "holds", "", name))
    found = verdict_of_each(hopes.hopes())
    assert {number: found[number].evidence for number in decided} == decided
    scores = itertools.product(BOTH, ("SNIP", "ProsPr", "SynFlow"), HIGH[:2])
    assert asked == [
        *(((DENSE, a, name), (DENSE, a, name, "shuffled"), s) for a, name, s in scores),
        *[("iterative ProsPr", "iterative SNIP")] * (len(BOTH) * len(HIGH)),
        ("identity", "blend"),
        (f"identity{kind}", f"blend{kind}"),
    ]


def test_a_hope_of_less_is_not_shown_by_little_more(monkeypatch):
    monkeypatch.setattr(arms, "minus", lambda *_: LITTLE)
    monkeypatch.setattr(hopes, "goals", lambda *_: LITTLE)
    words = {number: v.word for number, v in verdict_of_each(hopes.hopes()).items()}
    assert [words[number] for number in ("H1", "H2", "H7")] == ["not shown"] * 3


def test_the_lead_is_one_over_the_best_run_of_the_best_search(monkeypatch):
    runs = {"blend": (5, 7), "breadth first": (4, 5), "light first": (1, 2)}
    rows = [
        {"domain": "circuits", "arm": arm + GOALS_STORED, "proved": n}
        for arm, numbers in runs.items()
        for n in numbers
    ]
    give(monkeypatch, proofs_domains=rows)
    assert hopes.carries_over().word == "fails"


def test_lemmas_are_put_in_order_by_the_credit_of_the_extra_support(monkeypatch):
    rows = [
        {"mode": mode, "steps": 1, "keep": 150, "loop": 0, "correlation": value}
        for mode, value in (("support", 0.9), ("identity", 0.1), ("fixed", 0.2))
    ]
    give(monkeypatch, proofs_credit=rows)
    assert hopes.lemma_order().word == "holds"


def test_the_evidence_is_the_goals_of_the_arms_that_a_statement_names(runs):
    none, some = "identity, without persistence", "without persistence"
    runs(
        fixed=(1, 2),
        blend=(20, 22),
        **{none: (2, 0), some: (9, 9), "random growth": (19, 15)},
    )
    assert said(journal.must_there_be()) == (
        "holds if there is no extra support",
        f"goals proved: {none} 0 to 2; {some} 9; blend 20 to 22",
    )
    assert said(journal.flows(1)) == (
        "holds",
        "goals proved: blend 20 to 22; random growth 15 to 19",
    )
    runs(fixed=(1, 3), blend=(20, 22), **{none: (3, 0), some: (4, 3)})
    assert str(journal.must_there_be()) == "holds if there is no extra support"


@pytest.mark.parametrize(("off", "weighted"), [(0.049, True), (0.051, False)])
def test_plain_credit_is_right_where_there_is_weight_up_to_a_twentieth(monkeypatch, off, weighted):
    modes = {"fixed": (0.2, 0.64), "support": (0.9, 0.95)}
    rows = [{"mode": m, "correlation": c} for m, pair in modes.items() for c in pair]
    give(monkeypatch, proofs_credit=rows)
    assert said(journal.credit_where_weight(off)) == (
        "holds if an object has weight" if weighted else "fails",
        "with weight it is the fall of the loss, to 5%; without, its rank correlation is 0.6",
    )


def test_credits_are_compared_step_by_step(monkeypatch):
    """With one step the old credit ranks no lemma well, with two it is as good as the new one."""
    values = {(1, "support"): 0.9, (1, "identity"): 0.1, (2, "support"): 0.5, (2, "identity"): 0.5}
    rows = [
        {"steps": t, "keep": keep, "loop": n, "mode": mode}
        | {"correlation": value + 0.01 * n + more * ((t, mode) == (2, "support"))}
        for (t, mode), value in values.items()
        for keep, more in ((150, 0.02), (400, -0.02))
        for n in range(4)
    ]
    give(monkeypatch, proofs_credit=rows)
    assert said(journal.better_credit()) == (
        "holds if T = 1",
        "rank correlation with the fall of the loss: 0.5 to 0.9; of the old one 0.1 to 0.5"
        "; else not shown",
    )


def test_what_evolves_is_told_with_its_least_and_most_goals(monkeypatch):
    curves = "1 1 1 1 1 1 5 6 9", "1 1 1 1 1 1 7 7 8"
    rows = [
        row | {"curve": c} for row, c in zip(rows_of_runs("blend", (9, 8)), curves, strict=True)
    ]
    rows += [row | {"curve": "9 9"} for row in rows_of_runs("others", (30, 30))]
    give(monkeypatch, proofs=rows + rows_of_runs("fixed", (2, 3), steps=0))
    assert said(journal.evolves()) == (
        "holds",
        "goals proved: 5 to 7 by 10,000 detachments, 8 to 9 by 200,000",
    )


def test_a_purge_is_told_with_both_words_and_the_difference_in_goals(monkeypatch):
    monkeypatch.setattr(journal, "goals", lambda *arms: BETTER)
    words = "longest word 6 letters, at once 2; difference in goals, at once: −3.0 [−4.0, −2.0] *"
    assert said(journal.purge_late(2, 6)) == ("holds", words)
    assert str(journal.purge_late(6, 6)) == "holds if it leaves many"
    monkeypatch.setattr(journal, "goals", lambda *arms: WORSE)
    assert str(journal.purge_late(2, 6)) == "holds if a purge leaves few"


def test_every_statement_of_the_journal_has_its_own_evidence(monkeypatch):
    """In their order, with a mark in place of what is found elsewhere."""
    for name in ("must_there_be", "persisting_pays", "better_credit", "evolves"):
        monkeypatch.setattr(journal, name, functools.partial(Verdict, "holds", "", name))
    for name in ("credit_where_weight", "purge_late", "flows"):
        mark = lambda *given, name=name: Verdict("holds", "", f"{name} {given}")  # noqa: E731
        monkeypatch.setattr(journal, name, mark)
    monkeypatch.setattr(journal, "span", lambda *names: " | ".join(names))
    monkeypatch.setattr(journal, "goals", lambda *arms: BETTER)
    proved = {"all generated": pd.Series([5]), "fixed": pd.Series([2])}
    monkeypatch.setattr(journal, "proved", proved.__getitem__)
    found = verdict_of_each(journal.statements(SEEN))
    less = "−3.0 [−4.0, −2.0] *"
    expected = {
        "P1a": "only goals have credit, no lemma",
        "P1b": f"difference in goals: goals stored: {less}",
        "P2a": "credit_where_weight (0.01,)",
        "P2b": "goals proved: fixed | blend",
        "S1a": "must_there_be",
        "S1b": "persisting_pays",
        "S2a": "bit by bit, with any extra support",
        "S2b": "40 drawn at random",
        "S2c": "flows (5,)",
        "S3": "no credit without it, some with it",
        "S4": "goals proved: all generated | fixed",
        "S5a": f"difference in goals: never: {less}; every 20 loops, not 10: {less}",
        "S5b": "purge_late (2, 6)",
        "C1": "adjoint = finite differences",
        "C2": "9 products in place of 20",
        "C3a": f"difference in goals: all generated − blend: {less}; 1 round − blend: {less}",
        "C3b": "no weight of any state changes, to 1e-15",
        "C4": "better_credit",
        "C5": "evolves",
        "C6": "purge_late (2, 6)",
        "I1": "a w for any support; aᵀ w after T steps",
        "I2": "3 of 4 new ones have none",
        "I3": f"goals behind the blend: T = 1: {less}; T = 2: {less}; T = 3: {less}",
    }
    assert {number: said(v)[1] for number, v in found.items()} == expected
    assert str(found["I2"]) == "holds if it has feedback of its own"


def test_fewer_goals_is_more_than_no_worse(monkeypatch):
    monkeypatch.setattr(journal, "goals", lambda *_: LITTLE)
    words = {number: v.word for number, v in verdict_of_each(journal.statements(SEEN)).items()}
    assert [words[number] for number in ("P1b", "S5a", "C3a")] == ["not shown"] * 3
    assert words["I3"] == "holds"


def test_every_statement_on_networks_has_its_own_evidence(monkeypatch):
    """Variant number n is worse by n points than as it is, and chance by 20."""
    names = [*sorted(sweep_regrowth.VARIANTS), "at random"]
    rises = (0.0, 0.01, -0.01)

    def regrown(network, arm, sparsity, variant="as is"):
        assert (network, sparsity) == (DENSE, 0.99)
        name = "at random" if arm == "random regrowth" else variant
        more = names.index(name) + 1 if name in names else 0
        return {seed: more + rise * (name in names) for seed, rise in enumerate(rises)}

    monkeypatch.setattr(arms, "regrown", regrown)
    monkeypatch.setattr(journal, "stated", lambda found: f"{found.mean:.0f}")
    rival = {None: BETTER, "random regrowth": OPEN, "gradual magnitude": WORSE}
    monkeypatch.setattr(arms, "credit_against", lambda other=None: {(DENSE, 0.9): rival[other]})
    found = verdict_of_each(journal.on_networks())
    one = {name: f"{name} {n}" for n, name in enumerate(names, 1)}
    told = "minus as is, points: "
    assert {number: said(v)[1] for number, v in found.items()} == {
        "N1": "credit − best frozen: points from −3.0 [−4.0, −2.0] * to −3.0 [−4.0, −2.0] *",
        "N2": "credit − random: points from +0.0 [−1.0, +1.0] to +0.0 [−1.0, +1.0]",
        "N3": told + one["no persistence"],
        "N4": f"{told}{one['every 10']}; {one['every 50']}",
        "N5": f"{told}{one['one batch']}; {one['one step']}",
        "N6": f"{told}{one['lookahead, M = 10']}; {one['lookahead, M = 3']}",
        "N7": told + one["from random"],
        "N8": "credit − gradual: points from +3.0 [+2.0, +4.0] * to +3.0 [+2.0, +4.0] *",
    }


def test_hopes_are_told_with_the_numbers_behind_them(monkeypatch):
    kind = GOALS_STORED
    domains = [("circuits", "blend", (5, 7)), ("circuits", "light first", (4, 3))]
    domains += [("ladder", "blend", (5, 6)), ("ladder", "breadth first", (2, 5))]
    domains += [("ladder", "genetic, size", (6, 6))]  # which is no search in order
    rows = [
        {"domain": domain, "arm": arm + kind, "proved": n}
        for domain, arm, numbers in domains
        for n in numbers
    ]
    ranks = [
        {"mode": "support", "steps": t, "keep": keep, "loop": n, "correlation": c}
        for (t, keep), pair in {
            (1, 150): (0.95, 0.9),
            (1, 1000): (0.9, 0.7),
            (2, 150): (0.8, 0.5),
            (2, 1000): (0.61, 0.99),
        }.items()
        for n, c in enumerate(pair)
    ]
    give(monkeypatch, proofs_domains=rows, proofs_credit=ranks)
    assert said(hopes.carries_over()) == (
        "holds if circuits",
        "the blend and the best search: circuits 5, 4; ladder 5, 5",
    )
    assert said(hopes.lemma_order()) == (
        "holds if T = 1, K = 150; T = 1, K = 1,000; T = 2, K = 1,000",
        "lowest rank correlation in a loop: T = 1 0.70 to 0.90; T = 2 0.50 to 0.61",
    )


def test_the_blend_is_told_beside_the_best_search_of_each_kind(runs):
    kind = GOALS_STORED
    others = {"breadth first": (3, 12), "genetic, size": (13, 4), f"light first{kind}": (11, 18)}
    runs(blend=(14, 22), **others, **{f"blend{kind}": (19, 24), f"genetic, size{kind}": (12, 17)})
    assert said(hopes.beats_searches()) == (
        "holds",
        f"goals proved: blend 14 to 22; genetic, size 4 to 13; blend{kind} 19 to 24; "
        f"light first{kind} 11 to 18",
    )


def test_a_chosen_rate_is_told_network_by_network(monkeypatch):
    """It serves ReLU looking no further than three steps, and tanh at ten."""
    serves = [("relu", "ProsPr, M = 1"), ("relu", "ProsPr"), ("tanh", "ProsPr, M = 10")]
    monkeypatch.setattr(
        arms, "minus", lambda arm, other, s: BETTER if arm[1:] in serves else Interval(9, 8, 10, 0)
    )
    assert said(hopes.one_rate()) == (
        "holds if ReLU, M = 1, 3; tanh, M = 10",
        "chosen − small rate: points from −3.0 [−4.0, −2.0] * to +9.0 [+8.0, +10.0] *",
    )


def test_our_errors_are_told_as_differences_from_those_published(monkeypatch):
    """Of the scores as they are, of the network that was published."""
    rows = [
        {"network": network, "activation": a, "variant": v, "sparsity": s, "score": score}
        | {"seed": seed, "error": theirs + more + (0.1, 0.3)[seed]}
        for s, theirs in hopes.PUBLISHED.items()
        for score in (("SNIP", "ProsPr") if s else ("dense",))
        for network, a, v, more in (
            (DENSE, "relu", "as scored", 0),
            (DENSE, "tanh", "as scored", 5),
            (LENET, "relu", "as scored", 5),
            (DENSE, "relu", "shuffled", 5),
        )
        for seed in range(2)
        if (score, more) != ("ProsPr", 0)
    ]
    give(monkeypatch, pruning=rows)
    one = "+0.2 [−1.1, +1.5]"
    assert said(hopes.published()) == (
        "not shown",
        f"error minus theirs, points: unpruned: {one}; SNIP at 95%: {one}; SNIP at 98%: {one}",
    )


def test_hopes_of_lower_errors_and_more_goals_say_what_is_subtracted(monkeypatch):
    monkeypatch.setattr(arms, "minus", lambda *_: BETTER)
    monkeypatch.setattr(hopes, "goals", lambda *_: BETTER)
    found, less = verdict_of_each(hopes.hopes()), "−3.0 [−4.0, −2.0] *"
    assert [said(found[number]) for number in ("H1", "H2", "H7")] == [
        ("holds", f"iterative ProsPr − SNIP: points from {less} to {less}"),
        ("holds", f"as scored − shuffled: points from {less} to {less}"),
        (
            "holds",
            f"difference in goals: goals are not stored: {less}; goals are stored: {less}",
        ),
    ]
