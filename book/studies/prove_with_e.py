r"""A prover of others: what E proves of the goals of chapter 15, each told alone, and at what cost.

Condensed detachment is one clause, and each axiom is one,

.. math:: \neg T(x \to y) \lor \neg T(x) \lor T(y), \qquad T(p \to (q \to p)), \ \dots ,

and E (Schulz, Cruanes and Vukmirović, 2019) looks for a contradiction with the negated goal.  Its
own account is stored: proved or not, processor time, clauses generated and processed; and its
proof as one by condensed detachment (see `e_proofs`), checked.  Beside the goals stand theorems
that nothing was tuned with, and formulas that are no theorems, of which it must prove none.

The program `eprover` is needed for this alone (the Debian package of that name); without it the
stored results stay as they are.
"""

import itertools
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from prosper_utils.blending.detachment import (
    AXIOMS,
    NOT,
    parse,
    show,
    subsumes,
    symbol_name,
    theorem,
)

import e_proofs
import sweep_domains
import sweep_proofs
import sweeps

PROGRAM = "eprover"
OPTIONS = (
    *("--auto", "--tstp-format", "--silent", "--proof-object=1"),
    *("--print-statistics", "--resources-info"),
)
CONTROLS = ("Cpq", "CpNp", "CCpqp", "CCpqCqp", "CCpqCNpNq")  # none of them is a tautology
DRAWN = "three axioms, far"  # the domain of the drawn theorems
LIMITS = {"goals": 20, "controls": 2, "drawn": 5}  # processor time of E for each, in seconds
RUNS = {"goals": 5, "controls": 1, "drawn": 1}  # E's choices hang on addresses in memory, too
GRACE, MEMORY = 10, 2048  # seconds more until E is stopped without its account; megabytes
PROVED = {"Theorem": True, "CounterSatisfiable": False, "GaveUp": False, "ResourceOut": False}


def term(formula):
    """Return a formula as a term of the TPTP, as implies(P, not(Q))."""
    parts = []
    for symbol in reversed(formula):
        if symbol >= 0:
            parts.append(symbol_name(symbol).upper())
        elif symbol == NOT:
            parts.append(f"not({parts.pop()})")
        else:
            parts.append(f"implies({parts.pop()}, {parts.pop()})")
    return parts.pop()


def problem(goal, axioms=AXIOMS):
    """Return the text of the problem, in the language of the TPTP, whether a goal is a theorem.

    Args:
        goal: a formula, as `detachment.parse` returns it.
        axioms: {name: formula}.
    """
    rule = "~is_a_theorem(implies(X, Y)) | ~is_a_theorem(X) | is_a_theorem(Y)"
    clauses = {"detachment": rule}
    clauses |= {f"axiom_{name}": f"is_a_theorem({term(x)})" for name, x in axioms.items()}
    lines = [f"cnf({name}, axiom, {clause})." for name, clause in clauses.items()]
    names = ", ".join(symbol_name(v).upper() for v in range(max(goal) + 1))
    lines.append(f"fof(goal, conjecture, ![{names}]: is_a_theorem({term(goal)})).")
    return "\n".join([*lines, ""])


def account(said):
    """Return what E says of a run: its status, whether it proved the goal, and the costs.

    `generated` are the clauses that its inferences made, `processed` those it took to infer from,
    `seconds` its processor time, and `strategy` is what it chose for itself.

    Raises:
        ValueError: if it says something else.
    """
    status = _found(r"^# SZS status (\w+)", said)
    if status not in PROVED:
        raise ValueError(f"E: expected a status of {', '.join(PROVED)}, found {status}")
    return {
        "status": status,
        "proved": PROVED[status],
        "seconds": float(_found(r"^# Total time +: ([\d.]+) s", said)),
        "generated": int(_found(r"^# Generated clauses +: (\d+)$", said)),
        "processed": int(_found(r"^# Processed clauses +: (\d+)$", said)),
        "strategy": _found(r"^# Auto-Mode selected heuristic (\S+)$", said),
    }


def _found(pattern, said):
    if (match := re.search(pattern, said, re.MULTILINE)) is None:
        raise ValueError(f"E: expected a line {pattern!r}, found none in {said[-300:]!r}")
    return match[1]


def prove(goal, seconds, axioms=AXIOMS):
    """Let E try to prove a goal; return its `account`, with its proof as one by detachment.

    Args:
        goal: a formula.
        seconds: the processor time after which it gives up.
        axioms: as for `problem`.

    Raises:
        ValueError: if it says something else than how it went, or its proof is none of the goal.
    """
    limits = (f"--soft-cpu-limit={seconds}", f"--cpu-limit={seconds + GRACE}")
    memory = f"--memory-limit={MEMORY}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "goal.p")
        path.write_text(problem(goal, axioms))
        command = [PROGRAM, *OPTIONS, *limits, memory, path]
        run = subprocess.run(command, capture_output=True, text=True)
    found = account(run.stdout + run.stderr)
    proof = checked(e_proofs.d_proof(run.stdout), goal, axioms) if found["proved"] else None
    return found | {"proof": proof}


def checked(proof, goal, axioms=AXIOMS):
    """Return a proof by condensed detachment if the goal is an instance of what it proves.

    Raises:
        ValueError: if it is not.
    """
    if not subsumes(proved := theorem(proof, axioms), goal):
        raise ValueError(f"E: expected a proof of {show(goal)}, found one of {show(proved)}")
    return proof


def version():
    """Return the name and the version of the program."""
    return subprocess.run([PROGRAM, "--version"], capture_output=True, text=True).stdout.strip()


def within(costs, budget):
    """Return how many goals there are for a budget, if they are taken in the order of their costs.

    Args:
        costs: what each goal cost that was proved.
        budget: what they may cost together.
    """
    return sum(spent <= budget for spent in itertools.accumulate(sorted(costs)))


def known():
    """Return {set: {formula: its shortest known proof}}; the controls have none."""
    goals = {parse(goal): proof for goal, proof in sweep_proofs.SHORTEST.items()}
    controls = dict.fromkeys(map(parse, CONTROLS))
    return {"goals": goals, "controls": controls, "drawn": sweep_domains.theorems(DRAWN)}


def cases():
    """Return every case: a goal, the set that it is of, the number of the run, and E's limit."""
    return [
        {"set": name, "goal": show(goal), "run": run, "limit": LIMITS[name]}
        for run in range(max(RUNS.values()))
        for name, goals in known().items()
        for goal in goals
        if run < RUNS[name]
    ]


def one(case):
    """Return the row of one case."""
    return [case | prove(parse(case["goal"]), case["limit"])]


SWEEPS = {"provers": (sweeps.left(cases, ("set", "goal", "run")), one)}


def configuration():
    """Return what determines the results, but for the machine, which bounds what is not proved."""
    return settings() | {"prover": version()}


def settings():
    """Return the part of it that needs no prover."""
    return {
        "options": [*OPTIONS, f"--memory-limit={MEMORY}"],
        "limits": LIMITS,
        "runs": RUNS,
        "problem": problem(parse("CpNNp")),
        "drawn": dict(sweep_domains.SYSTEMS[DRAWN][1], seed=sweep_domains.SEED),
    }


def main():
    """Run E on the cases that are not stored yet, if it is installed."""
    if shutil.which(PROGRAM) is None:
        print(f"{PROGRAM} is not installed: what is stored of provers stays as it is")
        return
    import prove_with_e  # by its name, under which the processes of joblib can import it

    sweeps.command(prove_with_e, prove_with_e.SWEEPS, prove_with_e.configuration)


if __name__ == "__main__":
    main()
