"""Proofs as a Metamath database: the checker accepts them, and rejects them once altered."""

import re
import shutil

from prosper_utils.blending import metamath
from prosper_utils.blending.detachment import (
    AXIOMS,
    SYSTEMS,
    canonical,
    detach,
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
from prosper_utils.blending.metamath import (
    check,
    export_proofs,
    export_table,
    read,
    read_database,
)
from prosper_utils.study import results

import pytest
from goals import GOALS
from hypothesis import assume, given
from hypothesis import strategies as st

TARGETS = [parse(goal) for goal in GOALS]
needs_checker = pytest.mark.skipif(
    shutil.which(metamath.PROGRAM) is None, reason="the checker `metamath` is not installed"
)


@pytest.fixture(scope="module")
def run():
    """Return the table of a small run of the loop."""
    table = detachment_table(budget=15_000)
    evolve(table, goal_weights(GOALS), Settings(keep=100, loops=20))
    return table


@pytest.fixture(scope="module")
def database():
    return export_proofs(GOALS.values())


@pytest.fixture(scope="module")
def stored():
    """Return {proof: formula} of all goals and lemmas that the stored runs of the blend have."""
    table, _ = results.load("proofs")
    blend = table[table.arm == "blend"]
    entries = " ".join([*blend.hits, *blend.lemmas]).split()
    return {entry.split(":")[-1]: parse(entry.split(":")[0]) for entry in entries}


@st.composite
def proofs(draw, systems=tuple(SYSTEMS)):
    """Return some axioms and a few proofs from them, put together at random."""
    axioms = SYSTEMS[draw(st.sampled_from(systems))]
    pool = [(name, formula) for name, formula in axioms.items()]
    for i, j in draw(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=30)):
        (x, major), (y, minor) = pool[i % len(pool)], pool[-1 - j % len(pool)]
        formula = detach(major, minor, limit=120)
        if formula is not None and len(x) + len(y) < 400:
            pool.append((f"D{x}{y}", formula))
    return axioms, [proof for proof, _ in pool[len(axioms) :]]


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


def accepted(text):
    """Return whether each proof of a database proves its statement."""
    try:
        return bool(proved(text))
    except (AssertionError, KeyError, ValueError):
        return False


def test_each_distinct_subproof_is_a_lemma_with_its_theorem(database):
    expected = dict(pair for proof in GOALS.values() for pair in steps(proof))
    lemmas = [read(statement) for statement in proved(database).values()]
    assert sorted(lemmas) == sorted(x for d, x in expected.items() if d not in AXIOMS)
    assert len(lemmas) == len({d for d in expected if d not in AXIOMS})


@given(proofs())
def test_random_proofs_are_lemmas_with_their_theorems(drawn):
    axioms, texts = drawn
    text = export_proofs(texts, axioms)
    expected = [theorem(proof, axioms) for proof in dict.fromkeys(texts)]
    assert [read(statement) for statement in proved(text).values()] == expected
    assert [formula for _, formula in read_database(text, axioms)] == expected


def test_the_random_proofs_are_of_all_systems_and_some_are_long():
    found = {}

    @given(proofs())
    def count(drawn):
        axioms, texts = drawn
        found.setdefault(tuple(axioms.items()), []).extend(map(len, texts))

    count()
    assert len(found) == len(SYSTEMS)
    assert max(max(lengths, default=0) for lengths in found.values()) > 50


def test_stored_proofs_are_lemmas_with_their_theorems(stored):
    text = export_proofs(stored)
    found = {read(statement) for statement in proved(text).values()} | set(AXIOMS.values())
    assert len(stored) > 100
    assert set(stored.values()) <= found


def test_a_subproof_is_written_once():
    proof = GOALS["Cpp"]
    for _ in range(10):
        proof = f"D{proof}{proof}"
    text = export_proofs([proof])
    assert len(proof) > 1579
    assert len(proved(text)) == 12
    assert len(text) < 2000


def test_all_that_a_run_has_met_is_a_lemma(run):
    lemmas = [read(statement) for statement in proved(export_table(run)).values()]
    assert len(lemmas) > 1000
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


def test_proofs_must_be_a_list():
    with pytest.raises(ValueError, match="proofs: expected a list of proofs, found one text, 'DD2"):
        export_proofs("DD211")


@pytest.mark.parametrize("call", [lambda: export_proofs([], {}), lambda: read_database("", {})])
def test_there_must_be_axioms(call):
    with pytest.raises(ValueError, match="axioms: expected at least one, found none"):
        call()


def test_a_missing_checker_is_named(monkeypatch):
    monkeypatch.setattr(metamath, "PROGRAM", "metamath-is-not-here")
    with pytest.raises(FileNotFoundError, match="metamath-is-not-here: expected the checker"):
        check(export_proofs(["DD211"]))


# What a database grants, read in its text: it needs no program either


def test_a_database_says_what_it_proves(database):
    found = read_database(database)
    assert found == [(label, read(statement)) for label, statement in proved(database).items()]
    assert set(TARGETS) <= {formula for _, formula in found}
    again = database.replace(" ", "\n").replace("th1\n", "other\n")
    assert read_database(again)[0] == ("other", found[0][1])
    assert read_database(export_proofs([])) == []


FALSE = "( ( p -> q ) -> ( q -> p ) )"  # no theorem
RULER = "-" * 79  # the checker draws it between statements


@pytest.mark.parametrize(
    "more",
    [
        f"th0 $a |- {FALSE} $.",
        f"${{ e $e |- {FALSE} $. th0 $p |- {FALSE} $= e $. $}}",
        f"${{ th0 $p |- {FALSE} $= vp $. $}}",
        "$v z9 $. z $f |- z9 $. th0 $p |- z9 $= z $.",
        "$d p q $.",
        "ax-4 $a |- p $.",
        "wa $a wff ( p q ) $.",
        "$c wrong $.",
        "$[ other.mm $]",
        "th0 $p wff p $= vp $.",
        f"th0 $p |- {FALSE}",
        f"th0 $p |- {FALSE} $.",
        f"th0 $p |- {FALSE} $= $.",
        f"$( \n\n{RULER}\n\n77 th0 $p |- {FALSE} $= ... $.\n\n{RULER}\n\n $)",
        f"$( \n\n77 wn $a wff -. p $.\n\n $)\nth0 $a |- {FALSE} $.",
        f"$( $) th0 $p |- {FALSE} $= vp $.",
        "th0 $p |- p $= vp $( a comment $) $.",
        "th0 $p |- p $= vp $[ other.mm $] $.",
        "th0 $p |- p $= vp $} $.",
        "th0 $p |- p $= vp $= vp $.",
        "th0\x0b $p |- p $= vp $.",
        "th0\xa0$p |- p $= vp $.",
        "th0 $p |- p $= vp$.$.",
    ],
)
def test_nothing_else_may_be_taken_for_granted(more):
    text = export_proofs(["DD211"])
    lines = text.splitlines()
    for place in (len(lines), len(lines) - 1, len(lines) - 2):
        bad = "\n".join([*lines[:place], more, *lines[place:], ""])
        for call in (read_database, check):
            with pytest.raises(ValueError, match=r"(database|statement): expected"):
                call(bad)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ax-1 $a |- ( p -> ( q -> p ) ) $.", "ax-1 $a |- ( p -> ( q -> q ) ) $."),
        ("min $e |- p $.", "min $e |- q $."),
        ("maj $e |- ( p -> q ) $.", ""),
        ("maj $e |- ( p -> q ) $.", "maj $e wff ( p -> q ) $."),
        ("ax-mp $a |- q $.", "ax-mp $a |- q $. ax-4 $a |- p $."),
        ("wi $a wff ( p -> q ) $.", "wi $a wff ( q -> p ) $."),
        ("wn $a wff -. p $.", "wn $a wff -. q $."),
        ("wn $a wff -. p $.", "wn $a |- -. p $."),
        ("vq $f wff q $.", "vq $f |- q $."),
        ("vq $f wff q $.", "vq $f wff q $. vq0 $f wff q $."),
        ("$c ( )", "$c p ( )"),
        ("$v p", "$v wrong p"),
        ("ax-3 $a", "ax-4 $a"),
    ],
)
def test_what_is_granted_must_be_as_expected(old, new):
    text = export_proofs(["DD211"])
    assert text.count(old) == 1
    for call in (read_database, check):
        with pytest.raises(ValueError, match=r"database: expected (.*), found (?!\1)"):
            call(text.replace(old, new))


@pytest.mark.parametrize("text", ["", "nonsense\n", "$[ other.mm $]\n", "$c wff $.\n"])
def test_what_is_no_database_is_refused(text):
    with pytest.raises(ValueError, match=r"database: expected .*, found"):
        check(text)


def test_all_declarations_must_be_there():
    lines = export_proofs([]).splitlines()
    for k in range(len(lines)):
        for some in (lines[:k], [*lines[:k], *lines[k + 1 :]]):
            with pytest.raises(ValueError, match=r"database: expected .*, found"):
                read_database("\n".join(some))


@pytest.mark.parametrize("name", AXIOMS)
def test_a_system_may_not_take_more_for_granted_than_is_said(name):
    fewer = {key: formula for key, formula in AXIOMS.items() if key != name}
    with pytest.raises(ValueError, match="database: expected"):
        read_database(export_proofs(["DD211"]), fewer)


# The words of the checker, which exits with status 0 whatever it finds

COUNTS = "The source has 16 statements; 6 are $a and 2 are $p.\n"
GOOD = f"{COUNTS}All proofs in the database were verified in 0.00 s.\n"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (GOOD, None),
        ("", ""),
        ("All proofs in the database were verified in 0.00 s.\n", "All proofs"),
        (GOOD.replace(" 6 are", " 7 are"), "The source has"),
        (GOOD.replace(" 6 are", " 66 are"), "The source has"),
        (GOOD.replace("2 are", "12 are"), "The source has"),
        (COUNTS, "The source has"),
        (GOOD + "?Warning: something", r"\?Warning: something"),
        (f"Warning: The following $p were not proved: th1\n{GOOD}", "Warning: The following"),
        (f"?Error on line 9: this is no label\n{GOOD}", r"\?Error on line 9"),
        (f"{COUNTS}?Step 3 does not match\n", r"\?Step 3 does not match"),
    ],
)
def test_the_words_must_say_that_all_is_verified(monkeypatch, words, found):
    monkeypatch.setattr(metamath, "_said", lambda text: words)
    text = export_proofs(["DD211"])
    if found is None:
        assert parse("Cpp") in check(text)
    else:
        with pytest.raises(ValueError, match=f"every proof to be verified, found {found}"):
            check(text)


# What the reference checker says


@needs_checker
def test_the_checker_accepts_the_24_proofs(database):
    found = check(database, TARGETS)
    assert set(TARGETS) <= set(found)
    assert set(found) == {read(statement) for statement in proved(database).values()}


@needs_checker
def test_the_checker_accepts_every_lemma_of_a_run(run):
    goals = [goal for goal in TARGETS if goal in run.places]
    assert len(goals) > 5
    assert set(check(export_table(run), goals)) == set(run.objects) - set(run.axioms)


@needs_checker
def test_the_reason_is_told_and_not_the_proof():
    bad = export_proofs(["DD2D131"]).replace("ax-2 ax-mp", "ax-3 ax-mp")
    reason = (
        r"found \?Error on line 13 .* \$= \.\.\. \$\. After proof step 39 .*exactly one entry\."
    )
    with pytest.raises(ValueError, match=reason):
        check(bad)


@needs_checker
def test_of_two_proofs_of_a_theorem_the_first_is_named():
    text = export_proofs(["DD211", "DD21D11"])
    assert [label for label, x in read_database(text) if x == parse("Cpp")] == ["th2", "th4"]
    assert check(text)[parse("Cpp")] == "th2"


@needs_checker
def test_the_checker_accepts_other_axioms():
    monoid = {"t": parse("CNCpqCNCqrNCpr"), "s": parse("CNCpqNCqp")}
    monoid |= {"R": parse("NCCpNNqp"), "L": parse("NCCNCppqq")}
    goal = theorem("DDtDsRL", monoid)
    text = export_proofs(["DDtDsRL"], monoid)
    assert goal in check(text, [goal], monoid)
    with pytest.raises(ValueError, match=r"expected .* ax-1 .*, found .* ax-t "):
        check(text, [goal])


@needs_checker
@given(proofs())
def test_the_checker_accepts_random_proofs(drawn):
    axioms, texts = drawn
    goals = {theorem(proof, axioms) for proof in texts}
    assert set(check(export_proofs(texts, axioms), goals, axioms)) == goals


@needs_checker
@given(proofs())
def test_axioms_and_goals_are_taken_up_to_renaming(drawn):
    def renamed(formula):
        return tuple(x if x < 0 else x + 7 for x in formula)

    axioms, texts = drawn
    others = {name: renamed(formula) for name, formula in axioms.items()}
    text, goals = export_proofs(texts, axioms), {theorem(proof, axioms) for proof in texts}
    assert export_proofs(texts, others) == text
    assert read_database(text, others) == read_database(text, axioms)
    assert set(check(text, set(map(renamed, goals)), others)) == goals


@needs_checker
def test_the_checker_accepts_every_lemma_of_the_stored_runs(stored):
    found = check(export_proofs(stored), set(stored.values()) - set(AXIOMS.values()))
    assert len(found) > 100


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


@st.composite
def one_step_altered(draw):
    """Return a database of random proofs with one step of one proof altered, as another text."""
    axioms, texts = draw(proofs())
    assume(texts)
    lines = export_proofs(texts, axioms).splitlines()
    labels = [label for label, *_ in statements("\n".join(lines)) if label not in ("min", "maj")]
    place = draw(st.sampled_from([k for k, line in enumerate(lines) if " $p " in line]))
    head, proof = lines[place].split(" $= ")
    words = proof.split()[:-1]
    at, new = draw(st.integers(0, len(words) - 1)), draw(st.sampled_from(labels))
    rest = draw(st.sampled_from([[new, *words[at + 1 :]], words[at + 1 :], [new, *words[at:]]]))
    assume(words[:at] + rest != words and words[:at] + rest)
    lines[place] = f"{head} $= {' '.join(words[:at] + rest)} $."
    return axioms, "\n".join([*lines, ""])


@needs_checker
@given(one_step_altered())
def test_both_checkers_say_the_same_of_an_altered_step(drawn):
    axioms, text = drawn
    if accepted(text):
        check(text, (), axioms)
    else:
        with pytest.raises(ValueError, match="database: expected every proof to be verified"):
            check(text, (), axioms)


@needs_checker
def test_a_goal_must_be_among_what_is_proved(database):
    with pytest.raises(ValueError, match="database: expected a proof of CpCqCrr, found none"):
        check(database, [parse("CpCqCrr"), parse("CpCqCrCss")])


APPROVAL = """The source has 16 statements; 6 are $a and 2 are $p.
All proofs in the database were verified in 0.00 s.
"""


def test_every_goal_must_be_proved_and_not_the_first_alone(monkeypatch):
    monkeypatch.setattr(metamath, "_said", lambda text: APPROVAL)
    text, goals = export_proofs(["DD211"]), [parse("Cpp"), parse("CpCqCrr")]
    for order in (goals, goals[::-1], dict.fromkeys(goals)):
        with pytest.raises(ValueError, match=r"expected a proof of CpCqCrr, found none"):
            check(text, order)
    with pytest.raises(ValueError, match=r"expected a proof of CpCqCrr, found none"):
        check(text, [*goals, parse("CpCqq")])


def test_a_goal_may_be_written_in_any_variables(monkeypatch):
    monkeypatch.setattr(metamath, "_said", lambda text: APPROVAL)
    moved = tuple(s + 5 if s >= 0 else s for s in parse("Cpp"))
    assert parse("Cpp") in check(export_proofs(["DD211"]), [moved])


def test_axioms_may_be_written_in_any_variables():
    moved = {
        name: tuple(s + 7 if s >= 0 else s for s in formula) for name, formula in AXIOMS.items()
    }
    text = export_proofs(GOALS.values())
    assert export_proofs(GOALS.values(), moved) == text
    assert read_database(text, moved) == read_database(text)


DECLARED = """$c ( ) -> -. wff |- $.
$v p q r $.
vp $f wff p $.
vq $f wff q $.
vr $f wff r $.
wn $a wff -. p $.
wi $a wff ( p -> q ) $.
${ min $e |- p $. maj $e |- ( p -> q ) $. ax-mp $a |- q $. $}
"""


def test_a_database_word_for_word():
    """Declared are all variables of axioms, lemmas and steps, and at least the rule's two."""
    ax_2 = "( ( p -> ( q -> r ) ) -> ( ( p -> q ) -> ( p -> r ) ) )"
    assert export_proofs(["DD211", "1", "D21"]) == (
        f"{DECLARED}ax-1 $a |- ( p -> ( q -> p ) ) $.\nax-2 $a |- {ax_2} $.\n"
        "ax-3 $a |- ( ( -. p -> -. q ) -> ( q -> p ) ) $.\n"
        "th1 $p |- ( ( p -> q ) -> ( p -> p ) ) $= vp vq vp wi wi vp vq wi vp vp wi wi vp vq ax-1 "
        "vp vq vp ax-2 ax-mp $.\n"
        "th2 $p |- ( p -> p ) $= vp vq vp wi wi vp vp wi vp vq ax-1 vp vq vp wi th1 ax-mp $.\n"
    )
    assert export_proofs(["D11"], {"1": parse("CpCqp")}) == (
        f"{DECLARED}ax-1 $a |- ( p -> ( q -> p ) ) $.\n"
        "th1 $p |- ( p -> ( q -> ( r -> q ) ) ) $= vq vr vq wi wi vp vq vr vq wi wi wi vq vr ax-1 "
        "vq vr vq wi wi vp ax-1 ax-mp $.\n"
    )
    two = DECLARED.replace(" r $.", " $.").replace("vr $f wff $.\n", "")
    assert export_proofs(["DaDaa"], {"a": parse("Cpp")}) == (
        f"{two}ax-a $a |- ( p -> p ) $.\n"
        "th1 $p |- ( p -> p ) $= vp vp wi vp vp wi vp ax-a vp vp wi ax-a ax-mp $.\n"
        "th2 $p |- ( p -> p ) $= vp vp wi vp vp wi vp th1 vp vp wi ax-a ax-mp $.\n"
    )


def test_a_table_is_written_with_premises_first():
    """In the order of the proofs that it keeps, not in that in which objects were met."""
    table = Table(AXIOMS, detach)
    lemma = table.product(1, 0)
    goal = table.product(lemma, 0)
    later = table.product(0, 0)
    table.origins[goal], table.lengths[goal] = (lemma, later), 7  # a proof by what was met later
    text = export_table(table)
    expected = [table.objects[k] for k in (lemma, later, goal)]
    assert [read(statement) for statement in proved(text).values()] == expected
    assert [label for label, _ in read_database(text)] == ["th1", "th2", "th3"]


@pytest.mark.parametrize("name", ["", "A1", "a ", "1\n", "*", "$", "é"])
def test_a_name_of_an_axiom_is_one_letter_or_digit_and_nothing_else(name):
    axioms = {"1": parse("CpCqp"), name: parse("Cpp")}
    table = Table(axioms, lambda x, y: None)
    calls = (lambda: export_table(table), lambda: read_database("", axioms))
    for call in (*calls, lambda: export_proofs([], axioms)):
        with pytest.raises(ValueError, match="axioms: expected a letter or a digit as a name"):
            call()


def test_what_must_be_read_and_verified_is_that_of_the_database(monkeypatch):
    """Of one axiom and its two lemmas; of two proofs of a formula the first is named."""
    axioms = {"a": parse("Cpp")}
    text, said = export_proofs(["DaDaa"], axioms), []
    words = "4 are $a and 2 are $p.\nAll proofs in the database were verified"
    monkeypatch.setattr(metamath, "_said", lambda text: said.append(text) or f"; {words}")
    assert check(text, [parse("Cpp")], axioms) == {parse("Cpp"): "th1"}
    assert said == [text]
    with pytest.raises(ValueError, match=r"expected .* ax-1 .*, found .* ax-a "):
        check(text)
    assert said == [text]  # what takes more for granted is not even shown to the checker


def test_the_checker_reads_the_database_in_a_folder_of_its_own(monkeypatch):
    seen = []

    def run(command, *, cwd, **options):
        seen.append((command, (metamath.Path(cwd) / "database.mm").read_text(), options))
        return metamath.subprocess.CompletedProcess(command, 0, stdout="out ", stderr="error")

    monkeypatch.setattr(metamath.shutil, "which", lambda program: program)
    monkeypatch.setattr(metamath.subprocess, "run", run)
    assert metamath._said("the text") == "out error"
    ((command, text, options),) = seen
    commands = ["set scroll continuous", 'read "database.mm"', "verify proof *", "exit"]
    assert (command, text) == (["metamath", *commands], "the text")
    assert options["stdin"] == metamath.subprocess.DEVNULL


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("Reading\n?Error: th1 $p |- p $= vp\n  vq $.\n ^^\nwrong", "?Error: th1 $p |- p {} wrong"),
        ("a $= b $. Warning: c $= d $. e $= f $. g", "a {} Warning: c {} e {} g"),
        ("x" * 500 + f"\n{COUNTS}end", "x" * 243 + f" {COUNTS}end"),
        (f"?Error {'y ' * 500}", "?Error " + "y " * 196 + "y"),
    ],
)
def test_a_complaint_is_told_from_its_line_on_without_proofs(said, found):
    with pytest.raises(ValueError, match="every proof to be verified, found ") as error:
        metamath._approved(said, 6, 2)
    expected = " ".join(found.format(*["$= ... $."] * 3).split())
    assert str(error.value) == f"database: expected every proof to be verified, found {expected}"
