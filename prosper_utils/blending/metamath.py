r"""Proofs as a Metamath database, which a program that is not ours can check.

Metamath (Megill and Wheeler, 2019) knows one rule: an assertion may be used with formulas put for
its variables.  So a condensed detachment is written out: if the lemma x proves C a b, the lemma y
proves c, and :math:`\sigma` is their most general unifier, then

.. math:: \frac{x : C a b, \quad y : c}{Dxy : \sigma b} \qquad \text{becomes} \qquad
          \sigma a, \; \sigma b, \; y(\sigma), \; x(\sigma), \; \text{ax-mp} .

The database declares `wn` (¬p is a formula), `wi` (p → q is one), the rule `ax-mp` and the axioms;
everything else is proved, one `$p` statement for each distinct subproof.

The checker (the Debian package `metamath`) always exits with status 0, and takes an unfinished
proof for a warning.  So `check` reads what it says, and accepts nothing but what it expects: no
error and no warning, no other assertion taken for granted, and the goals among what is proved.
"""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from prosper_utils.blending.detachment import (
    AXIOMS,
    IMPLIES,
    NOT,
    canonical,
    show,
    steps,
    symbol_name,
    unifier,
)

RULE = {  # hypotheses and statement of what every database declares
    "wn": ("wff -. p",),
    "wi": ("wff ( p -> q )",),
    "ax-mp": ("|- p", "|- ( p -> q )", "|- q"),
}
PROGRAM, FILE = "metamath", "database.mm"
VERIFIED = "All proofs in the database were verified"
COMPLAINT = re.compile(r"^\?.*|.*(Warning|Error).*", re.MULTILINE)
STATEMENT = re.compile(r"^\d+ (\S+) (\$[aefp]) (.*?) \$[=.]", re.MULTILINE | re.DOTALL)
HYPOTHESIS = re.compile(r"^  \S+ \$e (.*?) \$\.", re.MULTILINE | re.DOTALL)


def export_proofs(proofs, axioms=AXIOMS):
    """Return proofs as a Metamath database, a text.

    The lemmas are th1, th2, ..., one for each distinct subproof that is no axiom, premises first.

    Args:
        proofs: strings in prefix notation, as `detachment.theorem` takes them.
        axioms: {name: formula}; the axiom of name 1 is called ax-1, and so on.

    Raises:
        ValueError: if a name is no letter or digit, or as for `detachment.theorem`.
    """
    lemmas = {name: (canonical(formula), None) for name, formula in axioms.items()}
    for proof in proofs:
        for subproof, formula in steps(proof, axioms):
            if subproof not in lemmas:
                lemmas[subproof] = formula, _premises(subproof)
    return _database(lemmas, axioms)


def _premises(proof):
    """Return the two subproofs of a proof, which begins with D."""
    missing, k = 1, 1
    while missing:
        missing += 1 if proof[k] == "D" else -1
        k += 1
    return proof[1:k], proof[k:]


def export_table(table):
    """Return all that a run has met, each object with its kept proof, as a Metamath database.

    Args:
        table: an `evolution.Table` of formulas under condensed detachment.

    Raises:
        ValueError: if the name of an axiom is no letter or digit.
    """
    order = sorted(range(len(table.objects)), key=table.lengths.__getitem__)
    count = len(table.axioms)
    lemmas = {k: (table.objects[k], table.origins[k] if k >= count else None) for k in order}
    return _database(lemmas, {table.origins[k]: table.objects[k] for k in range(count)})


def _database(lemmas, axioms):
    """Return the database of {key: (formula, keys of its two premises)}, the axioms first.

    The premises of an axiom are None; those of a lemma come before it.
    """
    _names(axioms)
    labels = dict(zip(lemmas, (f"ax-{name}" for name in axioms), strict=False))
    lines, count = [], max(2, *(max(canonical(x)) + 1 for x in axioms.values()))
    for key in list(lemmas)[len(axioms) :]:
        formula, premises = lemmas[key]
        labels[key] = f"th{len(lines) + 1}"
        proof, used = _application(formula, *((labels[k], lemmas[k][0]) for k in premises))
        count = max(count, used)
        lines.append(f"{labels[key]} $p |- {_infix(formula)} $= {proof} $.")
    return "\n".join([*_header(axioms, count), *lines, ""])


def _names(axioms):
    if bad := [name for name in axioms if not re.fullmatch("[A-Za-z0-9]", name)]:
        raise ValueError(f"axioms: expected a letter or a digit as a name, found {bad[0]!r}")


def _header(axioms, count):
    """Return the lines that declare `count` variables, the connectives, the rule, the axioms."""
    variables = [symbol_name(v) for v in range(count)]
    minor, major, result = RULE["ax-mp"]
    return [
        "$c ( ) -> -. wff |- $.",
        f"$v {' '.join(variables)} $.",
        *(f"v{name} $f wff {name} $." for name in variables),
        *(f"{label} $a {RULE[label][0]} $." for label in ("wn", "wi")),
        f"${{ min $e {minor} $. maj $e {major} $. ax-mp $a {result} $. $}}",
        *(f"ax-{name} $a |- {_infix(canonical(x))} $." for name, x in axioms.items()),
    ]


def _application(result, major, minor):
    """Return the proof of a detachment, in reverse Polish notation, and how many variables it has.

    The two premises are (label, formula).
    """
    values = unifier(major[1], minor[1])
    antecedent = tuple(s for v in minor[1] for s in (values[1][v] if v >= 0 else (v,)))
    parts = [antecedent, result, *values[1], minor[0], *values[0], major[0], "ax-mp"]
    count = 1 + max(max(x) for x in (result, *values[0], *values[1]))
    return " ".join(x if isinstance(x, str) else _postfix(x) for x in parts), count


def _fold(formula, variable, negation, implication):
    """Return the text of a formula, put together from within."""
    parts = []
    for symbol in reversed(formula):
        if symbol >= 0:
            parts.append(variable.format(symbol_name(symbol)))
        elif symbol == NOT:
            parts.append(negation.format(parts.pop()))
        else:
            parts.append(implication.format(parts.pop(), parts.pop()))
    return parts.pop()


def _infix(formula):
    """Return a formula in the words of the database: ( p -> -. q )."""
    return _fold(formula, "{}", "-. {}", "( {} -> {} )")


def _postfix(formula):
    """Return the proof that a formula is one: vp vq wn wi."""
    return _fold(formula, "v{}", "{} wn", "{} {} wi")


def read(statement):
    """Return the formula that a statement of the database, as `|- ( p -> q )`, says is provable.

    Raises:
        ValueError: if it says something else.
    """
    signs, number = {"(": IMPLIES, "-.": NOT}, {}
    sign, *words = statement.split()
    symbols = [signs.get(w, w) for w in words if w not in ("->", ")")]
    formula = tuple(
        s if s in (IMPLIES, NOT) else number.setdefault(s, len(number)) for s in symbols
    )
    names = {symbol_name(v): name for name, v in number.items()}
    if sign != "|-" or [names.get(w, w) for w in _infix(canonical(formula)).split()] != words:
        raise ValueError(f"statement: expected |- and a formula, found {statement!r}")
    return formula


def check(text, goals=(), axioms=AXIOMS):
    """Let the checker read a database; return {formula: label} of all that is proved in it.

    Args:
        text: the database.
        goals: formulas that must be among the proved ones.
        axioms: {name: formula}, what may be taken for granted.

    Raises:
        FileNotFoundError: if the program `metamath` is not installed.
        ValueError: if the checker complains or warns, if the database declares anything but
            variables for formulas, the connectives, the rule, and the axioms, if a proof has
            hypotheses, or if a goal is not proved.
    """
    if shutil.which(PROGRAM) is None:
        raise FileNotFoundError(f"{PROGRAM}: expected the checker to be installed, found none")
    said = _said(text, "verify proof *")
    complaint = COMPLAINT.search(said)
    if complaint or VERIFIED not in said:
        found = " ".join(said[complaint.start() :].split())[:300] if complaint else said[-300:]
        raise ValueError(f"database: expected every proof to be verified, found {found}")
    proved = _proved(_said(text, "show statement * / full"), axioms)
    if missing := [show(goal) for goal in goals if canonical(goal) not in proved]:
        raise ValueError(f"database: expected a proof of {missing[0]}, found none")
    return proved


def _said(text, command):
    """Return what the checker says to a command after it has read a database."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, FILE).write_text(text)
        commands = ["set scroll continuous", f'read "{FILE}"', command, "exit"]
        run = subprocess.run(
            [PROGRAM, *commands],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    return run.stdout + run.stderr


def _proved(listing, axioms):
    """Return {formula: label} of the proved statements in the checker's list of all statements."""
    granted = RULE | {f"ax-{name}": (f"|- {_infix(canonical(x))}",) for name, x in axioms.items()}
    proved = {}
    for block in re.split("^-{70,}$", listing, flags=re.MULTILINE):
        if (found := STATEMENT.search(block)) is None:
            continue
        label, kind, statement = found[1], found[2], " ".join(found[3].split())
        whole = (*(" ".join(h.split()) for h in HYPOTHESIS.findall(block)), statement)
        fits = {
            "$a": granted.get(label) == whole,
            "$p": len(whole) == 1,
            "$e": True,  # it is listed again with what it is a hypothesis of
            "$f": statement.startswith("wff "),
        }
        if not fits[kind]:
            raise ValueError(f"database: expected only what follows, found {label}: {found[0]}")
        if kind == "$p":
            proved.setdefault(read(statement), label)
    return proved
