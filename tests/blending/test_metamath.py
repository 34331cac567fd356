"""Proofs as a Metamath database: the checker accepts them, and rejects them once altered."""

import re
import shutil

from prosper_utils.blending import metamath
from prosper_utils.blending.detachment import (
    AXIOMS,
    canonical,
    enumerate_theorems,
    parse,
    steps,
    symbol_name,
    theorem,
)
from prosper_utils.blending.evolution import (
    Settings,
    Table,
    detachment_table,
    evolve,
    goal_weights,
)
from prosper_utils.blending.metamath import check, export_proofs, export_table, read

import pytest
from goals import GOALS

TARGETS = [parse(goal) for goal in GOALS]
needs_checker = pytest.mark.skipif(
    shutil.which(metamath.PROGRAM) is None, reason="the checker `metamath` is not installed"
)


@pytest.fixture(scope="module")
def run():
    """Return the table of a small run of the loop."""
    table = detachment_table(budget=10_000)
    evolve(table, goal_weights(GOALS), Settings(keep=40))
    return table


@pytest.fixture(scope="module")
def database():
    return export_proofs(GOALS.values())


# What is written, read by a second, small checker: it needs no program


def statements(text):
    """Yield (label, kind, words, words of the proof) of each statement with a label."""
    for label, kind, words, proof in re.findall(
        r"(\S+) (\$[faep]) (.*?)(?: \$= (.*?))? \$\.", text
    ):
        yield label, kind, words.split(), proof.split()


def proved(text):
    """Return {label: statement} of the proved statements, each proof carried out on a stack."""
    floating, hypotheses, frames, found = {}, {}, {}, {}
    for label, kind, words, proof in statements(text):
        if kind == "$f":
            floating[label] = words
        elif kind == "$e":
            hypotheses[label] = words
        elif kind == "$p":
            stack = []
            for step in proof:
                apply(step, stack, floating, frames)
            assert stack == [words], label
            found[label] = " ".join(words)
        if kind in ("$a", "$p"):
            given = list(hypotheses.values()) if label == "ax-mp" else []
            inside = {w for part in (*given, words) for w in part}
            own = [part for part in floating.values() if part[1] in inside]
            frames[label] = [*own, *given], words
    return found


def apply(step, stack, floating, frames):
    if step in floating:
        stack.append(floating[step])
        return
    needed, words = frames[step]
    arguments = stack[len(stack) - len(needed) :]
    del stack[len(stack) - len(needed) :]
    put = {
        need[1]: argument[1:]
        for need, argument in zip(needed, arguments, strict=True)
        if need[0] == "wff"
    }

    def filled(part):
        return [w for word in part for w in put.get(word, [word])]

    for need, argument in zip(needed, arguments, strict=True):
        assert argument[0] == need[0]
        assert argument == filled(need)
    stack.append(filled(words))


def test_each_distinct_subproof_is_a_lemma_with_its_theorem(database):
    expected = dict(pair for proof in GOALS.values() for pair in steps(proof))
    lemmas = [read(statement) for statement in proved(database).values()]
    assert sorted(lemmas) == sorted(x for d, x in expected.items() if d not in AXIOMS)
    assert len(lemmas) == len({d for d in expected if d not in AXIOMS})


def test_all_that_a_run_has_met_is_a_lemma(run):
    lemmas = [read(statement) for statement in proved(export_table(run)).values()]
    assert len(lemmas) > 500
    assert sorted(lemmas) == sorted(set(run.objects) - set(run.axioms))


def test_the_small_checker_notices_a_wrong_step():
    text = export_proofs(["DD211"])
    assert list(proved(text).values())[-1] == "|- ( p -> p )"
    with pytest.raises(AssertionError):
        proved(text.replace("ax-2 ax-mp", "ax-3 ax-mp"))


def test_a_statement_is_read_back():
    for text in ("Cpp", "NCpNq", "CCpCqrCCpqCpr", "NNp", "p"):
        infix = metamath._infix(parse(text))
        assert read(f"|- {infix}") == parse(text)
    assert read("|- ( q -> -. p )") == parse("CpNq")
    for bad in ("wff p", "|- ( p -> q", "|- p -> q", "|- ( p q )", "|- ( p -> q ) )", "|-"):
        with pytest.raises(ValueError, match="expected"):
            read(bad)


def test_many_variables_have_labels_of_their_own():
    chain = canonical([s for k in range(60) for s in (-2, k)] + [60])
    text = export_proofs(["D1a"], {"1": AXIOMS["1"], "a": chain})
    labels = [label for label, *_ in statements(text)]
    assert len(set(labels)) == len(labels)
    assert not set(labels) & {symbol_name(v) for v in range(1000)}
    assert list(map(read, proved(text).values())) == [theorem("D1a", {**AXIOMS, "a": chain})]


@pytest.mark.parametrize("name", ["*", " ", "$", "é"])
def test_names_of_axioms_must_be_labels(name):
    with pytest.raises(ValueError, match="axioms: expected a letter or a digit as a name, found"):
        export_proofs(["DD211"], AXIOMS | {name: parse("p")})


def test_a_missing_checker_is_named(monkeypatch):
    monkeypatch.setattr(metamath, "PROGRAM", "metamath-is-not-here")
    with pytest.raises(FileNotFoundError, match="metamath-is-not-here: expected the checker"):
        check(export_proofs(["DD211"]))


# What the reference checker says


@needs_checker
def test_the_checker_accepts_the_24_proofs(database):
    found = check(database, TARGETS)
    assert set(TARGETS) <= set(found)
    assert set(found) == {read(statement) for statement in proved(database).values()}


@needs_checker
def test_the_checker_accepts_every_lemma_of_a_run(run):
    goals = [goal for goal in TARGETS if goal in run.places]
    assert goals
    assert set(check(export_table(run), goals)) == set(run.objects) - set(run.axioms)


@needs_checker
def test_the_checker_accepts_other_axioms():
    monoid = {"t": parse("CNCpqCNCqrNCpr"), "s": parse("CNCpqNCqp")}
    monoid |= {"R": parse("NCCpNNqp"), "L": parse("NCCNCppqq")}
    goal = theorem("DDtDsRL", monoid)
    text = export_proofs(["DDtDsRL"], monoid)
    assert goal in check(text, [goal], monoid)
    with pytest.raises(ValueError, match="expected only what follows, found ax-t"):
        check(text, [goal])


@needs_checker
def test_the_checker_accepts_short_theorems_and_long_formulas():
    theorems = enumerate_theorems(9)
    text = export_proofs(theorems.values())
    assert set(check(text)) | set(AXIOMS.values()) == set(theorems)
    assert max(map(len, theorems)) > 40


def altered(text, k):
    """Return the database with the k-th of ten alterations of a proof; all statements are kept."""
    lines = text.splitlines()
    place = max(i for i, line in enumerate(lines) if " $p " in line and len(line) < 400)
    head, proof = lines[place].split(" $= ")
    words = proof.split()[:-1]
    swapped = {"ax-1": "ax-2", "ax-2": "ax-1", "ax-3": "ax-1"}
    earlier = "th1" if "th1" not in words else "th2"
    lemma = next(w for w in reversed(words) if w.startswith(("th", "ax-")) and w != "ax-mp")
    at = words.index(lemma)
    own = head.split()[0]
    options = [
        words[:-1],  # the last step is missing
        words[1:],  # the first one is
        [*words, "vp"],  # one too many
        ["?"],  # nothing is proved: only a warning
        [*words[:at], "?", *words[at + 1 :]],  # one step is left open
        [*words[:at], swapped.get(lemma, earlier), *words[at + 1 :]],  # another lemma
        [own],  # itself
        [*words[:at], f"th{10**6}", *words[at + 1 :]],  # no such lemma
        [words[1], words[0], *words[2:]] if words[0] != words[1] else words[::-1],
        ["vp" if w == "vq" else "vq" if w == "vp" else w for w in words],  # other formulas
    ]
    lines[place] = f"{head} $= {' '.join(options[k])} $."
    return "\n".join([*lines, ""])


@needs_checker
@pytest.mark.parametrize("k", range(10))
def test_an_altered_proof_with_its_statement_kept_is_rejected(database, k):
    text = altered(database, k)
    kept = [[s[:3] for s in statements(t)] for t in (database, text)]
    assert kept[0] == kept[1]
    assert text != database
    with pytest.raises(ValueError, match="database: expected every proof to be verified, found"):
        check(text, TARGETS)


FALSE = "( ( p -> q ) -> ( q -> p ) )"  # no theorem


@needs_checker
@pytest.mark.parametrize(
    "more",
    [
        f"th0 $a |- {FALSE} $.",
        f"${{ e $e |- {FALSE} $. th0 $p |- {FALSE} $= e $. $}}",
        "$v z9 $. z $f |- z9 $. th0 $p |- z9 $= z $.",
        "ax-4 $a |- p $.",
        "wa $a wff ( p q ) $.",
    ],
)
def test_nothing_else_may_be_taken_for_granted(more):
    text = export_proofs(["DD211"]) + more + "\n"
    with pytest.raises(ValueError, match="database: expected only what follows, found"):
        check(text)


@needs_checker
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ax-1 $a |- ( p -> ( q -> p ) ) $.", "ax-1 $a |- ( p -> ( q -> q ) ) $."),
        ("min $e |- p $.", "min $e |- q $."),
        ("wi $a wff ( p -> q ) $.", "wi $a wff ( q -> p ) $."),
        ("wn $a wff -. p $.", "wn $a wff -. q $."),
    ],
)
def test_what_is_granted_must_be_as_expected(old, new):
    header = export_proofs(["1"])
    assert old in header
    check(header)
    with pytest.raises(ValueError, match="database: expected only what follows, found"):
        check(header.replace(old, new))


@needs_checker
def test_a_goal_must_be_among_what_is_proved(database):
    with pytest.raises(ValueError, match="database: expected a proof of CpCqCrr, found none"):
        check(database, [parse("CpCqCrr")])


@needs_checker
@pytest.mark.parametrize("text", ["", "nonsense\n", "$[ other.mm $]\n"])
def test_what_is_no_database_is_refused(text):
    with pytest.raises(ValueError, match="database: expected every proof to be verified, found"):
        check(text)


def test_a_table_needs_labels_too():
    table = Table({"*": parse("CpCqp")}, lambda x, y: None)
    with pytest.raises(ValueError, match="axioms: expected a letter or a digit"):
        export_table(table)
