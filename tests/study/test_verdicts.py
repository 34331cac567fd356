"""Five words: each one is provoked, and none comes where another one should."""

from prosper_utils.study import verdicts
from prosper_utils.study.comparison import Interval
from prosper_utils.study.verdicts import (
    Verdict,
    below_zero,
    graded,
    judged,
    lower,
    no_worse,
    together,
    untestable,
)

import numpy as np
import pandas as pd
import pytest
from conftest import with_spaces
from hypothesis import given
from hypothesis import strategies as st

OUTCOMES = st.dictionaries(
    st.text("abcd", min_size=1), st.sampled_from([True, False, None]), min_size=1
)


def around(mean, half=1.0, p=0.001):
    return Interval(mean, mean - half, mean + half, p)


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        (around(-2), True),
        (around(2), False),
        (around(-0.5), None),
        (around(1), None),
        (around(-1), None),
    ],
)
def test_an_interval_shows_contradicts_or_does_neither(found, outcome):
    assert below_zero(found) is outcome


def test_a_difference_counts_only_if_holm_lets_it_stand():
    family = {"sure": around(-2), "once": around(-2, p=0.03), "against": around(2)}
    assert lower(family) == {"sure": True, "once": True, "against": False}
    twice = family | {"against": around(2, p=0.03)}
    assert lower(twice) == {"sure": True, "once": None, "against": None}
    assert lower(twice, level=0.07) == {"sure": True, "once": True, "against": False}
    assert lower(family, level=0.001) == dict.fromkeys(family)
    assert lower({"at the level": around(-2, p=0.05)}) == {"at the level": None}


def test_no_worse_is_contradicted_where_it_is_surely_worse():
    family = {
        "better": around(-5),
        "worse by little": around(0.5, half=0.4),
        "open": around(0.9),
        "worse": around(1.5),
        "worse by chance": around(1.2, p=0.06),
    }
    found = dict.fromkeys(family, True) | {"open": None, "worse": False, "worse by chance": None}
    assert no_worse(family) == found
    assert no_worse(family, margin=3) == dict.fromkeys(family, True)
    assert no_worse({"at the margin": around(0, half=1.0)}) == {"at the margin": None}


@pytest.mark.parametrize(
    ("outcomes", "words", "evidence"),
    [
        ({"a": True, "b": True}, "holds", "3"),
        ({"a": True, "b": None}, "holds if a", "3; else not shown"),
        ({"a": True, "b": False}, "holds if a", "3"),
        ({"a": True, "b": False, "c": None}, "holds if a", "3; not shown: c"),
        ({"a": None, "b": None}, "not shown", "3"),
        ({"a": False, "b": False}, "fails", "3"),
        ({"a": False, "b": None}, "fails: a", "3"),
    ],
)
def test_the_word_follows_from_the_outcomes(outcomes, words, evidence):
    found = graded(outcomes, "3")
    assert (str(found), found.evidence) == (words, evidence)


@given(OUTCOMES, st.randoms())
def test_the_order_of_cases_does_not_matter_to_the_word(outcomes, random):
    pairs = list(outcomes.items())
    random.shuffle(pairs)
    assert graded(dict(pairs)).word == graded(outcomes).word


@given(OUTCOMES)
def test_a_claim_never_fails_without_a_counterexample_nor_holds_without_a_case(outcomes):
    word = graded(outcomes).word
    seen = set(outcomes.values())
    assert (word in ("holds", "holds if")) == (True in seen)
    assert (word == "holds") == (seen == {True})
    assert (word == "fails") == (False in seen and True not in seen)
    assert (word == "not shown") == (seen == {None})


@given(OUTCOMES)
def test_the_opposite_claim_never_holds_with_it(outcomes):
    opposite = {case: None if o is None else not o for case, o in outcomes.items()}
    assert "holds" not in (graded(outcomes).word, graded(opposite).word) or (
        {graded(outcomes).word, graded(opposite).word} == {"holds", "fails"}
    )


@given(OUTCOMES)
def test_together_they_are_as_good_as_the_worst(outcomes):
    order = (False, None, True)
    worst = min(outcomes.values(), key=order.index)
    assert together(outcomes.values()) is worst
    assert together(iter(outcomes.values())) is worst
    assert (graded({"all": worst}).word == "holds") == (graded(outcomes).word == "holds")


def test_outcomes_of_numpy_and_pandas_are_outcomes():
    assert graded(pd.Series({"a": 0.7, "b": 0.2}) > 0.5).condition == "a"
    assert graded({"a": np.bool_(False)}).word == "fails"
    assert together([np.True_, np.True_]) is True
    assert together([np.True_, np.False_, None]) is False
    with pytest.raises(ValueError, match="expected at least one case"):
        graded({})
    with pytest.raises(ValueError, match="expected at least one claim"):
        together([])


def test_a_family_is_judged_with_its_extremes():
    family = {("relu", 0.9): around(-2), ("tanh", 0.9): around(0)}
    found = judged(lower, family, "first − second", lambda cases: cases[0][0])
    assert str(found) == "holds if relu"
    assert "points from −2.0" in found.evidence
    assert "to +0.0" in found.evidence
    family = {n: around(-2, p=0.03) for n in range(4)}  # enough for one claim, not for four
    assert judged(lower, {0: family[0]}, "first − second", str).word == "holds"
    assert judged(lower, family, "first − second", str).word == "not shown"


def test_with_few_cases_each_is_evidence():
    found = verdicts.each(lower, {"a": around(-2), "b": around(0)}, "goals")
    assert str(found) == "holds if a"
    assert found.evidence.startswith("goals: a: −2.0")
    assert with_spaces(found.evidence).endswith("b: +0.0 [−1.0, +1.0]; else not shown")
    family = {name: around(-2, p=0.03) for name in "abcd"}  # a family, corrected as one
    assert verdicts.each(lower, {"a": family["a"]}, "goals").word == "holds"
    assert verdicts.each(lower, family, "goals").word == "not shown"


def test_in_a_table_a_star_stays_with_its_interval():
    found = verdicts.each(lower, {"a": around(-2)}, "goals")
    text = verdicts.table(verdicts.claims("P1 It works | live", found))
    assert "a: −2.0 [−3.0, −1.0]\N{NO-BREAK SPACE}*" in text


def test_in_a_table_a_minus_sign_is_one_and_a_hyphen_stays():
    found = graded({"": True}, "LeNet-300-100: from -0.5 to -12, [-1], to 1e-10, layer-wise")
    text = verdicts.table(verdicts.claims("P1 It works | live", found))
    assert "LeNet-300-100: from −0.5 to −12, [−1], to 1e-10, layer-wise" in text


def test_cases_that_differ_in_their_value_alone_are_together():
    cases = [("tanh", "M = 3", 98), ("relu", "M = 3", 98), ("tanh", "M = 3", 99)]
    assert verdicts.grouped(cases, " at ", "%") == "tanh, M = 3 at 98, 99%; relu, M = 3 at 98%"
    assert verdicts.grouped([], " at ") == ""


def test_claims_have_a_number_a_text_a_place_and_a_verdict():
    lines = "\nP1 It works | 03 some_table\nP2 We hope | -\n"
    found = verdicts.claims(lines, graded({"": True}, "live"), untestable("a hope"))
    assert found[0] == ("P1", "It works", "03 some_table", Verdict("holds", "", "live"))
    assert verdicts.table(found, {"03": "[03](03_x.ipynb)"}).splitlines()[2:] == [
        "| **P1** It works ([03](03_x.ipynb) some table) | holds | live |",
        "| **P2** We hope | not testable: a hope |  |",
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("P1 a | b\nP2 c | d", "expected 2 verdicts, found 1"),
        ("", "expected 0 verdicts, found 1"),
        ("P1 no place", 'expected "number text'),
        ("P1 | b", 'expected "number text'),
    ],
)
def test_bad_claims_are_refused(lines, message):
    with pytest.raises(ValueError, match=message):
        verdicts.claims(lines, Verdict("holds"))


def test_a_number_stands_for_one_claim():
    with pytest.raises(ValueError, match="found P1 twice"):
        verdicts.claims("P1 a | b\nP1 c | d", Verdict("holds"), Verdict("holds"))


def test_what_is_settled_is_printed_and_what_is_not_stops(capsys):
    found = verdicts.claims("P1 a | b\nP2 c | d", Verdict("holds"), Verdict("fails", "M = 1"))
    verdicts.settle(found, {"P2": "fails: M = 1"})
    assert capsys.readouterr().out == "✓ P1 a: holds\n✓ P2 c: fails: M = 1\n"
    verdicts.settle(verdicts.claims("P3 e | -", untestable("a hope")), {"P3": "not testable"})
    assert capsys.readouterr().out == "✓ P3 e: not testable\n"
    with pytest.raises(AssertionError, match="P2 c: expected 'holds', found 'fails: M = 1'"):
        verdicts.settle(found, {})
    with pytest.raises(ValueError, match=r"found \['P3'\]"):
        verdicts.settle(found, {"P2": "fails: M = 1", "P3": "holds"})
    for verdict in ("holds if lucky", "holds: M = 1"):  # more is said than that it holds
        found = verdicts.claims("P4 g | h", Verdict(*verdict.split(": ")))
        with pytest.raises(AssertionError, match=f"P4 g: expected 'holds', found '{verdict}'"):
            verdicts.settle(found, {})


def test_a_number_stands_for_one_claim_wherever_it_comes_again():
    lines = "P1 a | b\nP2 c | d\nP1 e | f"
    with pytest.raises(ValueError, match="found P1 twice"):
        verdicts.claims(lines, *[verdicts.Verdict("holds")] * 3)
