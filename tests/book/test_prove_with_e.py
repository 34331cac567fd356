"""The prover E as an opponent: what it is asked, what it says, what is stored; most need no E."""

import itertools
import json
import re
import shutil
from pathlib import Path

from prosper_utils.blending.detachment import (
    AXIOMS,
    IMPLIES,
    NOT,
    SYSTEMS,
    canonical,
    detach,
    parse,
    show,
    steps,
    subsumes,
    theorem,
)
from prosper_utils.study import results

import e_proofs
import pandas as pd
import prove_with_e
import pytest
import sweep_proofs
from goals import GOALS
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
PROOF = """# SZS output start CNFRefutation
cnf(detachment, axiom, (is_a_theorem(X2)|~is_a_theorem(implies(X1,X2))|~is_a_theorem(X1)), file('goal.p', detachment)).
fof(goal, conjecture, ![X1, X2]:is_a_theorem(implies(implies(X1,implies(X1,X2)),implies(X1,X2))), file('goal.p', goal)).
cnf(c_0_4, axiom, (is_a_theorem(X2)|~is_a_theorem(implies(X1,X2))|~is_a_theorem(X1)), detachment).
cnf(c_0_5, axiom, (is_a_theorem(implies(implies(X1,implies(X2,X3)),implies(implies(X1,X2),implies(X1,X3))))), axiom_2).
fof(c_0_6, negated_conjecture, ~(![X1, X2]:is_a_theorem(implies(implies(X1,implies(X1,X2)),implies(X1,X2)))), inference(assume_negation,[status(cth)],[goal])).
cnf(c_0_7, plain, (is_a_theorem(implies(implies(X1,X2),implies(X1,X3)))|~is_a_theorem(implies(X1,implies(X2,X3)))), inference(spm,[status(thm)],[c_0_4, c_0_5])).
fof(c_0_8, negated_conjecture, ~is_a_theorem(implies(implies(esk1_0,implies(esk1_0,esk2_0)),implies(esk1_0,esk2_0))), inference(skolemize,[status(esa)],[inference(variable_rename,[status(thm)],[inference(fof_nnf,[status(thm)],[c_0_6])])])).
cnf(c_0_9, plain, (is_a_theorem(implies(X1,X2))|~is_a_theorem(implies(X1,implies(X3,X2)))|~is_a_theorem(implies(X1,X3))), inference(spm,[status(thm)],[c_0_4, c_0_7])).
cnf(c_0_10, axiom, (is_a_theorem(implies(X1,implies(X2,X1)))), axiom_1).
cnf(c_0_11, negated_conjecture, (~is_a_theorem(implies(implies(esk1_0,implies(esk1_0,esk2_0)),implies(esk1_0,esk2_0)))), inference(split_conjunct,[status(thm)],[c_0_8])).
cnf(c_0_12, plain, (is_a_theorem(implies(implies(X1,implies(X2,X3)),implies(X1,X3)))|~is_a_theorem(implies(implies(X1,implies(X2,X3)),implies(X1,X2)))), inference(spm,[status(thm)],[c_0_9, c_0_5])).
cnf(c_0_13, plain, (is_a_theorem(implies(X1,X1))|~is_a_theorem(implies(X1,X2))), inference(spm,[status(thm)],[c_0_9, c_0_10])).
cnf(c_0_14, negated_conjecture, (~is_a_theorem(implies(implies(esk1_0,implies(esk1_0,esk2_0)),implies(esk1_0,esk1_0)))), inference(spm,[status(thm)],[c_0_11, c_0_12])).
cnf(c_0_15, plain, (is_a_theorem(implies(X1,X2))|~is_a_theorem(X2)), inference(spm,[status(thm)],[c_0_4, c_0_10])).
cnf(c_0_16, plain, (is_a_theorem(implies(X1,X1))), inference(spm,[status(thm)],[c_0_13, c_0_10])).
cnf(c_0_17, negated_conjecture, ($false), inference(cn,[status(thm)],[inference(rw,[status(thm)],[inference(spm,[status(thm)],[c_0_14, c_0_15]), c_0_16])]), ['proof']).
# SZS output end CNFRefutation
"""  # noqa: E501
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
    sets = prove_with_e.known()
    for name, goals in sets.items():
        for goal, proof in goals.items():
            assert tautology(goal) == (name != "controls")
            assert proof is None or theorem(proof) == goal
    counts = {name: len(goals) for name, goals in sets.items()}
    assert counts == {"goals": 24, "controls": 5, "drawn": 100}
    assert set(counts) == set(prove_with_e.LIMITS) == set(prove_with_e.RUNS)
    cases = prove_with_e.cases()
    goals = {name: [*map(show, sets[name])] for name in ("goals", "controls", "drawn")}
    assert goals["goals"] == [*sweep_proofs.SHORTEST]
    assert goals["controls"] == ["Cpq", "CpNp", "CCpqp", "CCpqCqp", "CCpqCNpNq"]
    once = [("controls", 0, 2), ("drawn", 0, 5)]
    rounds = [("goals", 0, 20), *once, *(("goals", run, 20) for run in range(1, 5))]
    assert cases == [
        {"set": name, "goal": goal, "run": run, "limit": limit}
        for name, run, limit in rounds
        for goal in goals[name]
    ]


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


@pytest.mark.parametrize(
    ("status", "proved"),
    [("Theorem", True), ("CounterSatisfiable", False), ("GaveUp", False), ("ResourceOut", False)],
)
def test_only_a_theorem_is_proved(status, proved):
    found = prove_with_e.account(SAID.replace("status Theorem", f"status {status}"))
    assert (found["status"], found["proved"]) == (status, proved)


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


@pytest.fixture
def prover(tmp_path, monkeypatch):
    """Put a program in the place of E; return a function of (goal, ...) and of what it says.

    The function returns what `prove` does, the arguments of the program, and the problem it read.
    """
    program = tmp_path / "eprover"
    program.write_text(
        """#!/bin/sh
cd "$(dirname "$0")"
printf '%s\\n' "$@" > arguments
for last; do :; done
cat "$last" > problem
cat out
cat err >&2
exit 1
"""
    )
    program.chmod(0o755)
    monkeypatch.setattr(prove_with_e, "PROGRAM", program)

    def prove(*given, out, err=""):
        (tmp_path / "out").write_text(out)
        (tmp_path / "err").write_text(err)
        found = prove_with_e.prove(*given)
        asked = (tmp_path / "arguments").read_text().splitlines()
        return found, asked, (tmp_path / "problem").read_text()

    return prove


@pytest.mark.parametrize("where", ["out", "err"])
def test_the_prover_is_asked_with_its_limits_and_its_proof_is_checked(prover, where):
    goal = parse("CCpCpqCpq")
    said = {"out": PROOF + SAID} if where == "out" else {"out": PROOF, "err": SAID}
    found, asked, problem = prover(goal, 7, **said)
    assert found == prove_with_e.account(SAID) | {"proof": "DD22D1DD211"}
    *options, path = asked
    assert options == [
        "--auto",
        "--tstp-format",
        "--silent",
        "--proof-object=1",
        "--print-statistics",
        "--resources-info",
        "--soft-cpu-limit=7",
        "--cpu-limit=17",
        "--memory-limit=2048",
    ]
    assert path.endswith("/goal.p")
    assert not Path(path).parent.exists()
    assert problem == prove_with_e.problem(goal)


def test_what_is_not_proved_has_no_proof(prover):
    found, *_ = prover(parse("Cpq"), 2, out=PROOF + STOPPED)
    assert found == prove_with_e.account(STOPPED) | {"proof": None}


def test_a_proof_of_something_else_is_refused(prover):
    with pytest.raises(ValueError, match="E: expected a proof of Cpq, found one of CCpCpqCpq"):
        prover(parse("Cpq"), 2, out=PROOF + SAID)
    with pytest.raises(ValueError, match=r"E: expected a line .*SZS status"):
        prover(parse("Cpq"), 2, out="eprover: an error\n")


SHORT = """cnf(c_0_1, axiom, (is_a_theorem(implies(X1,X1))), axiom_7).
cnf(c_0_2, negated_conjecture, (~is_a_theorem(implies(esk1_0,esk1_0))), inference(split_conjunct,[status(thm)],[c_0_0])).
cnf(c_0_3, negated_conjecture, ($false), inference(sr,[status(thm)],[c_0_2, c_0_1]), ['proof']).
cnf(c_0_4, plain, (is_a_theorem(X1)), inference(what,[status(thm)],[is, this])).
"""  # noqa: E501


def test_other_axioms_are_told_and_their_proofs_checked_by_them(prover):
    axioms = {"7": parse("Cpp")}
    found, _, problem = prover(parse("CNpNp"), 2, axioms, out=SHORT + SAID)
    assert found["proof"] == "7"
    assert problem == prove_with_e.problem(parse("CNpNp"), axioms)
    assert "cnf(axiom_7, axiom, is_a_theorem(implies(P, P)))." in problem.splitlines()
    assert prove_with_e.checked("7", parse("CNpNp"), axioms) == "7"
    with pytest.raises(ValueError, match="E: expected a proof of CpCqp, found one of Cpp"):
        prover(parse("CpCqp"), 2, axioms, out=SHORT + SAID)


# Its proof as one by condensed detachment


@pytest.mark.parametrize(
    ("literals", "conclusion", "premises"),
    [
        (
            "is_a_theorem(X2)|~is_a_theorem(implies(X1,X2))|~is_a_theorem(X1)",
            "X2",
            (("implies", "X1", "X2"), "X1"),
        ),
        (
            "~is_a_theorem(X1)|is_a_theorem(not(X2))|~is_a_theorem(not(implies(X3,not(X1))))",
            ("not", "X2"),
            ("X1", ("not", ("implies", "X3", ("not", "X1")))),
        ),
        ("is_a_theorem(implies(X10,esk1_0))", ("implies", "X10", "esk1_0"), ()),
        ("~is_a_theorem(implies(esk1_0,esk2_0))", None, (("implies", "esk1_0", "esk2_0"),)),
        ("$false", None, ()),
    ],
)
def test_a_clause_is_a_conclusion_and_premises_in_their_order(literals, conclusion, premises):
    assert e_proofs.read(literals) == (conclusion, premises)


def test_the_clauses_that_are_no_resolvents_have_proofs_of_their_own():
    rule = ("implies", "X1", "X2")
    for source, conclusion, premises, proof in (
        ("detachment", "X2", (rule, "X1"), ("D", 0, 1)),
        ("detachment", "X2", ("X1", rule), ("D", 1, 0)),
        ("axiom_12", rule, (), ("12",)),
        ("inference(split_conjunct,[status(thm)],[c_0_8])", None, (rule,), (0,)),
    ):
        found = e_proofs._derived(conclusion, premises, source, {})
        assert found == e_proofs.Clause(conclusion, premises, proof)


def test_a_proof_ends_with_the_first_contradiction():
    assert e_proofs.d_proof(SHORT) == "7"
    with pytest.raises(ValueError, match="E: expected a proof, found none"):
        e_proofs.d_proof("".join(SHORT.splitlines(keepends=True)[:2]))


def test_a_clause_may_be_stated_again_by_steps_of_one_clause():
    found = ("implies", "X1", ("not", "X2"))
    clauses = {"c": e_proofs.Clause(found, ("X1", "X2"), ("a", 0, "b", 1))}
    source = "inference(cn,[status(thm)],[inference(rename,[status(thm)],[c])])"
    assert e_proofs._candidates(source, clauses) == [clauses["c"]]
    stated = ("implies", "X7", ("not", "X3")), ("X3", "X7")  # the premises the other way round
    expected = e_proofs.Clause(*stated, ("a", 1, "b", 0))
    assert e_proofs._derived(*stated, source, clauses) == expected


def test_terms_are_unified_by_the_values_of_their_variables():
    a, b = ("implies", "X1", ("not", "X2")), ("implies", ("not", "X3"), "X1")
    values = {}
    assert e_proofs._unify(a, b, values)
    both = e_proofs._put(a, values)
    assert both == e_proofs._put(b, values)
    assert flat(both) == (IMPLIES, NOT, 0, NOT, 0)
    for left, right in (
        ("X1", ("not", "X1")),
        (("implies", "X1", "X1"), ("implies", "X2", ("not", "X2"))),
        ("esk1_0", "esk2_0"),
        ("esk1_0", ("not", "X1")),
        (("not", "X1"), ("implies", "X2", "X3")),
        (("implies", "X1", "X1"), ("implies", "esk1_0", "esk2_0")),
    ):
        assert not e_proofs._unify(left, right, {})
        assert not e_proofs._unify(right, left, {})
    for left, right in (("X1", "esk1_0"), ("esk1_0", "esk1_0"), ("X1", "X1"), ("X1", "X2")):
        assert e_proofs._unify(left, right, {})
        assert e_proofs._unify(right, left, {})


def test_values_are_put_to_the_end_and_a_mark_only_behind_variables():
    values = {"X1": ("not", "X2"), "X2": "X3"}
    term = ("implies", "X1", ("not", "esk1_0"))
    assert e_proofs._put(term, values) == ("implies", ("not", "X3"), ("not", "esk1_0"))
    assert e_proofs._put(term, {}, "*") == ("implies", "X1*", ("not", "esk1_0"))
    assert e_proofs._put("X2", values, "*") == "X3*"
    assert e_proofs._put(None, {}, "*") is None  # the conclusion of a negated goal


def variable(text):
    """Return a term with X before the names of its variables, as E writes them."""
    return re.sub(r"\b([A-Z]\d*)\b", r"X\1", text)


def flat(term):
    """Return the formula of a nested term."""
    signs, number = {"implies": IMPLIES, "not": NOT}, {}
    words = re.findall(r"[\w*]+", str(term))
    return tuple(signs[w] if w in signs else number.setdefault(w, len(number)) for w in words)


RULE = "(is_a_theorem(X2)|~is_a_theorem(implies(X1,X2))|~is_a_theorem(X1))"


def detached(major, minor):
    """Return what follows by resolution: of the rule with the major formula, then the minor one."""
    conclusion, premises = e_proofs.read(RULE[1:-1])
    rule = e_proofs.Clause(conclusion, premises, ("D", 0, 1))
    x, y = (
        e_proofs.Clause(e_proofs.read(variable(f"is_a_theorem({term})"))[0], (), (name,))
        for term, name in ((prove_with_e.term(major), "x"), (prove_with_e.term(minor), "y"))
    )
    both = e_proofs._resolvents(e_proofs._resolvents([rule], [x]), [y])
    found = [c for c in both if c.proof == ("D", "x", "y")]
    assert all(c.premises == () for c in found)
    assert len({flat(c.conclusion) for c in found}) <= 1
    return flat(found[0].conclusion) if found else None


@given(formulas(), formulas(), formulas())
def test_resolution_with_the_rule_is_detachment(antecedent, consequent, minor):
    major = canonical((IMPLIES, *antecedent, *consequent))
    assert detached(major, minor) == detach(major, minor)


@pytest.mark.parametrize("proof", GOALS.values())
def test_resolution_with_the_rule_is_detachment_in_known_proofs(proof):
    for subproof, formula in steps(proof):
        if subproof[0] == "D":
            major, minor = (theorem(part) for part in premises_of(subproof))
            assert detached(major, minor) == formula


def premises_of(proof):
    """Return the two subproofs of a proof."""
    k = next(k for k in range(2, len(proof)) if 2 * proof.count("D", 1, k) + 1 == k - 1)
    return proof[1:k], proof[k:]


def test_a_proof_of_e_is_one_by_condensed_detachment():
    proof = e_proofs.d_proof(PROOF)
    assert proof == "DD22D1DD211"
    assert theorem(proof) == parse("CCpCpqCpq")
    assert prove_with_e.checked(proof, parse("CCpCpqCpq")) == proof


@pytest.mark.parametrize(
    ("stated", "changed"),
    [
        ("~is_a_theorem(implies(X1,X3))), inf", "~is_a_theorem(implies(X3,X1))), inf"),
        ("(is_a_theorem(implies(X1,X1))), inf", "(is_a_theorem(implies(X1,X2))), inf"),
        ("c_0_15, plain, (is_a_theorem(implies(X1,X2))|", "c_0_15, plain, (is_a_theorem(X1)|"),
        ("[c_0_14, c_0_15])", "[c_0_14, c_0_13])"),
    ],
)
def test_a_step_that_does_not_follow_is_refused(stated, changed):
    assert PROOF.count(stated) == 1
    with pytest.raises(ValueError, match="E: expected a step of resolution, found inference"):
        e_proofs.d_proof(PROOF.replace(stated, changed))


def test_a_variable_of_the_second_clause_is_none_of_the_first():
    first = e_proofs.Clause(("not", "X1*"), (("implies", "X1", "X1*"),), ("a", 0))
    second = e_proofs.Clause(("implies", "X1", "X1"), ("X1*",), ("b", 0))
    (found,) = e_proofs._resolved(first, second)
    assert found.proof == ("a", "b", 0)
    assert flat(found.conclusion) == (NOT, 0)
    assert found.premises[0] not in str(found.conclusion)


def test_a_hole_is_filled_where_it_is_and_those_behind_it_move():
    first = e_proofs.Clause(
        ("not", "X1"), (("not", "X2"), ("implies", "X1", "X2"), "X1"), ("a", 0, 1, 2)
    )
    second = e_proofs.Clause(("implies", "X1", "X3"), ("X1", ("not", "X3")), ("b", 1, 0))
    found = [c for c in e_proofs._resolved(first, second) if len(c.premises[0]) == 2]
    proofs = {clause.proof for clause in found}
    assert ("a", 0, "b", 2, 1, 3) in proofs  # of what was 1, two; what was 2 is 3
    assert ("a", 0, 1, "b", 3, 2) in proofs


def test_two_premises_may_become_one():
    """E states a resolvent whose premises are alike with one of them."""
    p, twice = "X1", ("implies", "X1", ("implies", "X1", "X2"))
    clauses = {
        "c": [("implies", p, "X2"), (twice, p), ("a", 0, 1)],
        "d": [twice, (p,), ("b", 0)],
    }
    clauses = {name: e_proofs.Clause(*parts) for name, parts in clauses.items()}
    source = "inference(spm,[status(thm)],[c, d])"
    found = e_proofs._derived(("implies", "X3", "X4"), ("X3",), source, clauses)
    assert found == e_proofs.Clause(("implies", "X3", "X4"), ("X3",), ("a", "b", 0, 0))
    with pytest.raises(ValueError, match="expected a step of resolution"):
        e_proofs._derived(("implies", "X3", "X4"), ("X4",), source, clauses)


def test_a_clause_without_premises_may_fill_several_holes():
    main = e_proofs.Clause("X1", (("implies", "X1", "X2"), ("implies", "X2", "X3")), ("a", 0, 1))
    unit = e_proofs.Clause(("implies", "X1", "X1"), (), ("u",))
    for pair in ([main], [unit]), ([unit], [main]):
        proofs = {clause.proof for clause in e_proofs._resolvents(*pair)}
        assert proofs == {("a", "u", 0), ("a", 0, "u"), ("a", "u", "u")}


def test_clauses_are_alike_if_their_variables_correspond_one_to_one():
    pair, same = [("implies", "X1", "X2")], [("implies", "X5", "X5")]
    assert e_proofs._alike(pair, [("implies", "X2", "X1")])
    assert not e_proofs._alike(pair, same)
    assert not e_proofs._alike(same, pair)
    assert not e_proofs._alike(pair, [("implies", "a", "X1")])
    assert not e_proofs._alike(pair, [("not", "X1")])
    assert not e_proofs._alike(["X1"], [("not", "X1")])
    assert e_proofs._alike([None, "X1", "X2", "a"], [None, "X4", "X1", "a"])
    assert not e_proofs._alike([None, "X1", "X1"], [None, "X1", "X2"])
    assert not e_proofs._alike([None, "X1"], ["X1", "X1"])
    assert not e_proofs._alike(["a"], ["b"])


def test_a_filled_hole_takes_the_substitution_to_all_terms():
    first = e_proofs.Clause(("not", "X1"), (("not", "X1"), ("implies", "X1", "X2")), ("a", 0, 1))
    second = e_proofs.Clause(("not", "esk1_0"), ("X1", "X2"), ("b", 1, 0))
    (found,) = e_proofs._resolved(first, second)
    assert found.conclusion == ("not", "esk1_0")
    one, two, last = found.premises
    assert one != two
    assert {one, two}.isdisjoint({"X1", "X2"})
    assert last == ("implies", "esk1_0", "X2")
    assert found.proof == ("a", "b", 1, 0, 2)
    assert not [*e_proofs._resolved(first, e_proofs.Clause(None, ("X1",), (0,)))]


def test_what_is_no_proof_of_the_goal_is_refused():
    with pytest.raises(ValueError, match="E: expected a proof, found none"):
        e_proofs.d_proof(SAID)
    with pytest.raises(ValueError, match="E: expected a proof of CpCqp, found one of Cpp"):
        prove_with_e.checked("DD211", parse("CpCqp"))
    assert prove_with_e.checked("DD211", parse("CNqNq")) == "DD211"  # an instance


def test_a_case_has_the_time_that_its_row_says(monkeypatch):
    monkeypatch.setattr(prove_with_e, "prove", lambda goal, limit: {"asked": (goal, limit)})
    for case in prove_with_e.cases()[::7]:
        (row,) = prove_with_e.one(case)
        assert row == case | {"asked": (parse(case["goal"]), prove_with_e.LIMITS[case["set"]])}


def test_a_sweep_is_of_what_is_not_stored():
    ((name, (left, one)),) = prove_with_e.SWEEPS.items()
    assert name == "provers"
    assert one is prove_with_e.one
    cases = prove_with_e.cases()
    done = pd.DataFrame([cases[0] | {"limit": 1}, cases[-1], cases[30]])  # a limit tells none apart
    assert left(done) == [case for n, case in enumerate(cases[:-1]) if n not in (0, 30)]
    assert left(pd.DataFrame()) == cases


# What is stored


def test_the_command_compares_what_is_stored_with_the_version_of_the_prover(tmp_path, monkeypatch):
    said, asked = tmp_path / "prover", []
    said.write_text("#!/bin/sh\necho E 3.2.5 Puttabong Moondrop\n")
    said.chmod(0o755)
    monkeypatch.setattr(prove_with_e, "PROGRAM", said)
    monkeypatch.setattr(prove_with_e.sweeps, "command", lambda *given: asked.extend(given))
    prove_with_e.main()
    module, sweeps, configuration = asked
    assert module.SWEEPS is sweeps is prove_with_e.SWEEPS
    assert configuration() == prove_with_e.settings() | {"prover": "E 3.2.5 Puttabong Moondrop"}


def test_without_the_prover_nothing_is_touched(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "provers.csv").write_text("as it was\n")
    prove_with_e.main()
    assert "eprover is not installed" in capsys.readouterr().out
    assert [path.read_text() for path in tmp_path.iterdir()] == ["as it was\n"]


def test_what_is_stored_is_of_these_cases():
    table, provenance = stored()
    keys = ["set", "goal", "run", "limit"]
    found = set(table[keys].itertuples(index=False, name=None))
    assert found == {tuple(case.values()) for case in prove_with_e.cases()}
    assert len(found) == len(table)
    assert [prove_with_e.PROVED[status] for status in table.status] == table.proved.tolist()
    assert (table.seconds <= table.limit + prove_with_e.GRACE).all()
    assert not table.proved[table.set == "controls"].any()
    chosen = provenance["configuration"]
    assert chosen.pop("prover").startswith("E ")
    assert chosen == json.loads(json.dumps(prove_with_e.settings())), "stale: run `make results`"


def test_every_proof_stored_proves_its_goal():
    table, _ = stored()
    assert table.proof.notna().tolist() == table.proved.tolist()
    for goal, proof in table[table.proved][["goal", "proof"]].itertuples(index=False):
        assert subsumes(theorem(proof), parse(goal))


def test_rows_of_another_version_are_another_configuration(tmp_path, monkeypatch):
    said = tmp_path / "prover"
    monkeypatch.setattr(prove_with_e, "PROGRAM", said)
    found = []
    for number in ("3.2.5", "3.2.6"):
        said.write_text(f"#!/bin/sh\necho E {number} Puttabong Moondrop\n")
        said.chmod(0o755)
        found.append(prove_with_e.configuration())
        assert found[-1]["prover"] == f"E {number} Puttabong Moondrop"
    assert found[0] != found[1]


# With the prover


@needs_e
@pytest.mark.parametrize("goal", ["CCpCpqCpq", "CpNNp", "CCpqCCrpCrq"])
def test_e_proves_a_theorem_by_about_as_many_clauses_as_are_stored(goal):
    found = prove_with_e.prove(parse(goal), 5)
    assert found["proved"]
    table, _ = stored()
    rows = table[table.goal == goal]
    for count in ("generated", "processed"):  # they differ from run to run, and by version
        assert rows[count].min() / 3 < found[count] < 3 * rows[count].max()


@needs_e
@pytest.mark.parametrize("goal", ["Cpq", "CCpqp"])
def test_e_proves_no_control(goal):
    assert not prove_with_e.prove(parse(goal), 1)["proved"]


@needs_e
def test_without_an_axiom_there_is_no_proof():
    axioms = {name: AXIOMS[name] for name in "12"}
    assert prove_with_e.prove(parse("Cpp"), 1, axioms)["proved"]
    assert not prove_with_e.prove(parse("CNpCpq"), 1, axioms)["proved"]
