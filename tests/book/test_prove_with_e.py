"""The prover E as an opponent: what it is asked, what it says, what is stored; most need no E."""

import itertools
import json
import re
import shutil

from prosper_utils.blending.detachment import (
    AXIOMS,
    IMPLIES,
    NOT,
    SYSTEMS,
    canonical,
    parse,
    show,
    theorem,
)
from prosper_utils.study import results

import prove_with_e
import pytest
from hypothesis import given
from hypothesis import strategies as st

needs_e = pytest.mark.skipif(
    shutil.which(prove_with_e.PROGRAM) is None, reason="the prover `eprover` is not installed"
)
SAID = """# No SInE strategy applied
# Auto-Mode selected heuristic H_____011_C07_F1_PI_AE_Q4_CS_SP_PS_S0V
# and selection function PSelectComplexExceptRRHorn.
#
# Preprocessing time       : 0.009 s
# Presaturation interreduction done

# Proof found!
# SZS status Theorem
# Parsed axioms                        : 5
# Initial clauses in saturation        : 5
# Processed clauses                    : 203
# ...of these trivial                  : 0
# ...subsumed                          : 118
# Generated clauses                    : 569
# ...of the previous two non-trivial   : 541
# Paramodulations                      : 568
# Current number of processed clauses  : 77
# Current number of unprocessed clauses: 330

# -------------------------------------------------
# User time                : 0.012 s
# System time              : 0.003 s
# Total time               : 0.015 s
# Maximum resident set size: 6528 pages
"""
STOPPED = SAID.replace("# Proof found!\n# SZS status Theorem", "# SZS status ResourceOut")


def formulas():
    """Return a strategy of formulas."""
    return st.recursive(
        st.integers(0, 30).map(lambda v: (v,)),
        lambda x: st.one_of(
            x.map(lambda a: (NOT, *a)), st.tuples(x, x).map(lambda ab: (IMPLIES, *ab[0], *ab[1]))
        ),
        max_leaves=12,
    ).map(canonical)


def polish(text):
    """Return the formula of a term: without its marks it is in Polish notation."""
    short = text.replace("implies", "?").replace("not", "!").lower()
    return parse(re.sub("[(), ]", "", short).replace("?", "C").replace("!", "N"))


def tautology(formula):
    """Return whether a formula is true for all truth values of its variables."""
    return all(value(formula, true) for true in itertools.product((0, 1), repeat=max(formula) + 1))


def value(formula, true):
    parts = []
    for symbol in reversed(formula):
        if symbol >= 0:
            parts.append(true[symbol])
        elif symbol == NOT:
            parts.append(1 - parts.pop())
        else:
            left, right = parts.pop(), parts.pop()
            parts.append(max(1 - left, right))
    return parts.pop()


def stored():
    if not (results.FOLDER / "provers.json").exists():
        pytest.skip("provers.json is not stored yet")
    return results.load("provers")


# What E is asked


def test_terms_are_those_of_the_tptp():
    assert prove_with_e.term(parse("p")) == "P"
    assert prove_with_e.term(parse("CpCqp")) == "implies(P, implies(Q, P))"
    assert prove_with_e.term(parse("CCNpNqCqp")) == (
        "implies(implies(not(P), not(Q)), implies(Q, P))"
    )


@given(formulas())
def test_a_term_is_its_formula(formula):
    text = prove_with_e.term(formula)
    assert polish(text) == formula
    assert text.count("(") == text.count(")") == sum(symbol < 0 for symbol in formula)


def test_a_problem_is_the_rule_the_axioms_and_the_goal():
    rule, one, two, three, goal = prove_with_e.problem(parse("CNpCpq")).splitlines()
    assert rule == (
        "cnf(detachment, axiom, ~is_a_theorem(implies(X, Y)) | ~is_a_theorem(X) | is_a_theorem(Y))."
    )
    assert one == "cnf(axiom_1, axiom, is_a_theorem(implies(P, implies(Q, P))))."
    for line, axiom in zip((one, two, three), AXIOMS.values(), strict=True):
        text = re.fullmatch(r"cnf\(axiom_\d, axiom, is_a_theorem\((.*)\)\)\.", line)[1]
        assert polish(text) == axiom
    assert goal == ("fof(goal, conjecture, ![P, Q]: is_a_theorem(implies(not(P), implies(P, Q)))).")
    single = prove_with_e.problem(parse("Cpp"), SYSTEMS["Meredith, one axiom"])
    assert single.count("axiom,") == 2


def test_the_controls_are_no_theorems_and_the_goals_are():
    sets = {}
    for name, goal, proof in prove_with_e.cases():
        assert tautology(goal) == (name != "controls")
        assert proof is None or theorem(proof) == goal
        sets[name] = [*sets.get(name, []), goal]
    assert {name: len(rows) for name, rows in sets.items()} == {
        "goals": 24,
        "controls": 5,
        "drawn": 100,
    }
    assert set(sets) == set(prove_with_e.LIMITS)


# What E says


def test_an_account_is_read():
    assert prove_with_e.account(SAID) == {
        "status": "Theorem",
        "proved": True,
        "seconds": 0.015,
        "generated": 569,
        "processed": 203,
        "strategy": "H_____011_C07_F1_PI_AE_Q4_CS_SP_PS_S0V",
    }
    assert prove_with_e.account(STOPPED)["proved"] is False


@pytest.mark.parametrize("status", ["ContradictoryAxioms", "Unsatisfiable", "InputError"])
def test_another_status_is_refused(status):
    with pytest.raises(ValueError, match=f"E: expected a status of Theorem, .* found {status}"):
        prove_with_e.account(SAID.replace("Theorem", status))


@pytest.mark.parametrize("line", ["SZS", "Total time", "Generated", "Processed", "Auto-Mode"])
def test_an_account_that_lacks_something_is_refused(line):
    said = "\n".join(x for x in SAID.splitlines() if line not in x)
    with pytest.raises(ValueError, match=r"E: expected a line .*, found none"):
        prove_with_e.account(said)


def test_goals_within_a_budget_are_counted_from_the_cheapest():
    assert prove_with_e.within([5, 100, 10], 15) == 2
    assert prove_with_e.within([5, 100, 10], 14) == 1
    assert prove_with_e.within([5, 100, 10], 115) == 3
    assert prove_with_e.within([5], 4) == prove_with_e.within([], 4) == 0


@given(st.lists(st.integers(0, 50), max_size=7), st.integers(0, 200))
def test_no_choice_of_goals_has_more_of_them_within_a_budget(costs, budget):
    best = max(
        n
        for n in range(len(costs) + 1)
        for chosen in itertools.combinations(costs, n)
        if sum(chosen) <= budget
    )
    assert prove_with_e.within(costs, budget) == best


# What is stored


def test_without_the_prover_nothing_is_touched(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "provers.csv").write_text("as it was\n")
    prove_with_e.main()
    assert "eprover is not installed" in capsys.readouterr().out
    assert [path.read_text() for path in tmp_path.iterdir()] == ["as it was\n"]


def test_what_is_stored_is_of_these_cases():
    table, provenance = stored()
    cases = [(name, show(goal)) for name, goal, _ in prove_with_e.cases()]
    assert list(zip(table.set, table.goal, strict=True)) == cases
    assert table.limit.tolist() == [prove_with_e.LIMITS[name] for name in table.set]
    assert [prove_with_e.PROVED[status] for status in table.status] == table.proved.tolist()
    assert (table.seconds <= table.limit + prove_with_e.GRACE).all()
    assert (table.processed <= table.generated + len(AXIOMS) + 2).all()
    assert not table.proved[table.set == "controls"].any()
    chosen = provenance["configuration"]
    assert chosen["prover"].startswith("E ")
    now = json.loads(json.dumps(prove_with_e.configuration(chosen["prover"])))
    assert chosen == now, "provers is stale: run `make results`"


# With the prover


@needs_e
@pytest.mark.parametrize("goal", ["CpNNp", "CCpqCCrpCrq"])
def test_e_proves_a_theorem_by_as_many_clauses_as_are_stored(goal):
    found = prove_with_e.prove(parse(goal), 5)
    assert found["proved"]
    table, provenance = stored()
    if prove_with_e.version() != provenance["configuration"]["prover"]:
        pytest.skip("the results are of another version of E")
    (row,) = table[table.goal == goal].to_dict("records")
    names = ("status", "generated", "processed", "strategy")
    assert {name: found[name] for name in names} == {name: row[name] for name in names}


@needs_e
@pytest.mark.parametrize("goal", ["Cpq", "CCpqp"])
def test_e_proves_no_control(goal):
    assert not prove_with_e.prove(parse(goal), 1)["proved"]


@needs_e
def test_without_an_axiom_there_is_no_proof():
    axioms = {name: AXIOMS[name] for name in "12"}
    assert prove_with_e.prove(parse("Cpp"), 1, axioms)["proved"]
    assert not prove_with_e.prove(parse("CNpCpq"), 1, axioms)["proved"]
