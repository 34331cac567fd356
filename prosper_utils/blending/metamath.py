r"""Proofs as a Metamath database, which a program that is not ours can check.

Metamath (Megill and Wheeler, 2019) knows one rule: an assertion may be used with formulas put for
its variables.  So a condensed detachment is written out: if the lemma x proves C a b, the lemma y
proves c, and :math:`\sigma` is their most general unifier, then

.. math:: & \frac{x : C a b, \quad y : c}{Dxy : \sigma b} \quad \text{becomes} \\
          & \sigma a, \; \sigma b, \; y(\sigma), \; x(\sigma), \; \text{ax-mp} .

The database declares `wn` (¬p is a formula), `wi` (p → q is one), the rule `ax-mp` and the axioms;
everything else is proved, one `$p` statement for each distinct subproof.

Whether the proofs are right, the checker says (the Debian package `metamath`): it always exits with
status 0, and takes an unfinished proof for a warning, so `check` goes by its words.  What is taken
for granted and what is stated, `read_database` reads in the text itself: the declarations word for
word, and then nothing but `$p` statements, not even a comment.
"""

import itertools
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

PROGRAM, FILE = "metamath", "database.mm"
VERIFIED = "All proofs in the database were verified"
COMPLAINT = re.compile(r"^\?.*|.*(Warning|Error).*", re.MULTILINE)
PROOF = re.compile(r"\$=.*?\$\s*\.[\s^]*", re.DOTALL)  # as the checker shows it, with a mark below
LEMMA = re.compile(r"([^\s$]+) \$p ([^$]+) \$= [^$]+")


def export_proofs(proofs, axioms=AXIOMS):
    """Return proofs as a Metamath database, a text.

    The lemmas are th1, th2, ..., one for each distinct subproof that is no axiom, premises first.

    Args:
        proofs: strings in prefix notation, as `detachment.theorem` takes them.
        axioms: {name: formula}; the axiom of name 1 is called ax-1, and so on.

    Raises:
        ValueError: if the proofs are one text and not a list, if a name is no letter or digit, or
            as for `detachment.theorem`.
    """
    if isinstance(proofs, str):
        raise ValueError(f"proofs: expected a list of proofs, found one text, {proofs[:60]!r}")
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
    if not axioms:
        raise ValueError("axioms: expected at least one, found none")
    if bad := [name for name in axioms if not re.fullmatch("[A-Za-z0-9]", name)]:
        raise ValueError(f"axioms: expected a letter or a digit as a name, found {bad[0]!r}")


def _header(axioms, count):
    """Return the lines that declare `count` variables, the connectives, the rule, the axioms."""
    variables = [symbol_name(v) for v in range(count)]
    return [
        "$c ( ) -> -. wff |- $.",
        f"$v {' '.join(variables)} $.",
        *(f"v{name} $f wff {name} $." for name in variables),
        "wn $a wff -. p $.",
        "wi $a wff ( p -> q ) $.",
        "${ min $e |- p $. maj $e |- ( p -> q ) $. ax-mp $a |- q $. $}",
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


def read_database(text, axioms=AXIOMS):
    """Return what a database states as proved, a list of (label, formula), without its proofs.

    Args:
        text: the database, as `export_proofs` writes it; line breaks and labels may differ.
        axioms: {name: formula}, what may be taken for granted, in the order of the database.

    Raises:
        ValueError: if there is anything but the declarations of `export_proofs` and statements with
            proofs: another axiom or hypothesis, a comment, a file to be included, or a character
            that is not printable ASCII.
    """
    _names(axioms)
    if bad := re.search(r"[^\n -~]", text):
        raise ValueError(f"database: expected printable ASCII, found {bad[0]!r}")
    found = _statements(text)
    count = sum(" $f " in statement for statement in found)
    header = _statements("\n".join(_header(axioms, count)))
    for want, have in itertools.zip_longest(header, found[: len(header)], fillvalue=""):
        if want != have:
            raise ValueError(f"database: expected {want[:99]!r}, found {have[:99]!r}")
    return [_lemma(statement) for statement in found[len(header) :]]


def _statements(text):
    """Return the statements of a database without their ends, with one space between words."""
    *statements, rest = (" ".join(part.split()) for part in text.split("$."))
    if rest:
        raise ValueError(f"database: expected statements that end with $., found {rest[:60]!r}")
    return statements


def _lemma(statement):
    """Return the label and the formula of a statement with a proof."""
    if (found := LEMMA.fullmatch(statement)) is None:
        raise ValueError(f"database: expected a statement and its proof, found {statement[:60]!r}")
    return found[1], read(found[2])


def check(text, goals=(), axioms=AXIOMS):
    """Let the checker verify a database; return {formula: label} of all that is proved in it.

    Args:
        text: the database, as `read_database` takes it.
        goals: formulas that must be among the proved ones.
        axioms: as for `read_database`.

    Raises:
        FileNotFoundError: if the program `metamath` is not installed.
        ValueError: as for `read_database`; if the checker complains or warns, or does not say that
            all is verified; or if a goal is not proved.
    """
    lemmas = read_database(text, axioms)
    _approved(_said(text), len(axioms) + 3, len(lemmas))
    proved = {}
    for label, formula in lemmas:
        proved.setdefault(formula, label)
    if missing := [show(goal) for goal in goals if canonical(goal) not in proved]:
        raise ValueError(f"database: expected a proof of {missing[0]}, found none")
    return proved


def _said(text):
    """Return what the checker says of a database."""
    if shutil.which(PROGRAM) is None:
        raise FileNotFoundError(
            f"{PROGRAM}: expected the checker to be installed (Debian package metamath), found none"
        )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, FILE).write_text(text)
        commands = ["set scroll continuous", f'read "{FILE}"', "verify proof *", "exit"]
        run = subprocess.run(
            [PROGRAM, *commands],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    return run.stdout + run.stderr


def _approved(said, granted, proved):
    """Raise an error unless the checker says that it read so many statements and verified all."""
    complaint = COMPLAINT.search(said)
    counts = f"; {granted} are $a and {proved} are $p."
    if complaint or counts not in said or VERIFIED not in said:
        words = PROOF.sub("$= ... $. ", said[complaint.start() if complaint else -300 :])
        found = " ".join(words.split())[:400]
        raise ValueError(f"database: expected every proof to be verified, found {found}")
