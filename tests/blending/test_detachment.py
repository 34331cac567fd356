"""Condensed detachment: against known theorems and proofs, a naive unifier, and its own laws."""

import collections
import itertools
import re

from prosper_utils.blending import detachment
from prosper_utils.blending.detachment import (
    AXIOMS,
    IMPLIES,
    LETTERS,
    NOT,
    Generals,
    canonical,
    detach,
    enumerate_theorems,
    infix,
    parse,
    show,
    size,
    steps,
    subsumes,
    theorem,
)

import pytest
from goals import GOALS
from hypothesis import assume, given, settings
from hypothesis import strategies as st

# An independent and slower calculation, by recursion on nested tuples: a variable is a string,
# a compound formula is ("N", a) or ("C", a, b).


def nested(formula, prefix="x"):
    """Return a formula of the module as nested tuples, its variables as prefix and number."""
    symbols = iter(formula)

    def take():
        symbol = next(symbols)
        if symbol >= 0:
            return f"{prefix}{symbol}"
        return ("N", take()) if symbol == NOT else ("C", take(), take())

    return take()


def flat(tree):
    """Return nested tuples as a formula of the module."""
    names = []

    def walk(tree):
        if isinstance(tree, str):
            names.append(tree)
            return [tree]
        return [tree[0], *itertools.chain.from_iterable(walk(part) for part in tree[1:])]

    symbols, order = walk(tree), list(dict.fromkeys(names))
    return tuple({"C": -2, "N": -1}[s] if s in ("C", "N") else order.index(s) for s in symbols)


def replaced(tree, values):
    """Return a tree with its variables replaced, and those within the values too."""
    if isinstance(tree, str):
        return replaced(values[tree], values) if tree in values else tree
    return (tree[0], *(replaced(part, values) for part in tree[1:]))


def unifier(a, b, values):
    """Return `values` extended by a most general unifier of two trees; None if there is none."""
    a, b = replaced(a, values), replaced(b, values)
    if a == b:
        return values
    if not isinstance(a, str) and not isinstance(b, str):
        if a[0] != b[0]:
            return None
        for part, other in zip(a[1:], b[1:], strict=True):
            values = values if values is None else unifier(part, other, values)
        return values
    a, b = (a, b) if isinstance(a, str) else (b, a)
    return None if a in variables(b) else {**values, a: b}


def variables(tree):
    return {tree} if isinstance(tree, str) else set().union(*map(variables, tree[1:]))


def naive_detach(major, minor):
    major, minor = nested(major, "x"), nested(minor, "y")
    if major[0] != "C":
        return None
    values = unifier(major[1], minor, {})
    return None if values is None else flat(replaced(major[2], values))


def instance(formula, values):
    """Return a formula with variable v replaced by values[v mod length], trees."""
    tree = nested(formula)
    return flat(replaced(tree, {v: values[int(v[1:]) % len(values)] for v in variables(tree)}))


def trees(names="abcd", leaves=8):
    def extend(part):
        return st.tuples(st.just("N"), part) | st.tuples(st.just("C"), part, part)

    return st.recursive(st.sampled_from(list(names)), extend, max_leaves=leaves)


formulas = trees().map(flat)
values = st.lists(trees("uvw", 4), min_size=1, max_size=3)


@st.composite
def premises(draw):
    """Return two premises that have some chance to detach: the parts are instances of one tree."""
    pattern, consequent = draw(trees()), draw(trees())
    names = "abcd"
    left, right = (dict(zip(names, draw(st.tuples(*[trees("uvw", 3)] * 4)))) for _ in range(2))  # noqa: B905
    left = {name: left[name] for name in draw(st.sets(st.sampled_from(names)))}
    right = {name: right[name] for name in draw(st.sets(st.sampled_from(names)))}
    major = ("C", replaced(pattern, left), replaced(consequent, left))
    return flat(major), flat(replaced(pattern, right))


# Formulas and their texts.


def test_formulas_are_canonical_tuples():
    assert parse("CpCqp") == parse("CbCab") == parse("Cz9Czz9") == (IMPLIES, 0, IMPLIES, 1, 0)
    assert parse("NNa") == (NOT, NOT, 0)
    assert len({parse("Cpp"), parse("Cqq"), parse("Cpq")}) == 2
    assert size(parse("CCNpNqCqp")) == 9
    assert canonical(parse("CpCqr")[2:]) == parse("Cpq")


@given(formulas, st.sampled_from([1, 3]), st.data())
def test_formulas_that_differ_in_the_names_of_variables_have_one_canonical_form(formula, gap, data):
    names = data.draw(st.permutations(range(max(formula) + 1)))
    assert canonical([s if s < 0 else gap * names[s] for s in formula]) == formula


@given(formulas)
def test_what_is_shown_is_read_back(formula):
    assert parse(show(formula)) == formula
    assert canonical(formula) == formula


def test_variables_beyond_26_get_numbers():
    text = show((IMPLIES,) * 59 + tuple(range(60)))
    names = [f"{letter}{turn}" for turn in ("", 1, 2) for letter in "pqrstuvwxyzabcdefghijklmno"]
    assert len(LETTERS) == 26
    assert text == "C" * 59 + "".join(names[:60])
    assert show(parse(text)) == text


@pytest.mark.parametrize(
    ("text", "expected", "position", "found"),
    [
        ("", "C, N or a variable", 0, "the end"),
        ("CpN", "C, N or a variable", 3, "the end"),
        ("CpXq", "C, N or a variable", 2, "'X'"),
        ("Cp q", "C, N or a variable", 2, "' '"),
        ("Cpé", "C, N or a variable", 2, "'é'"),
        ("Cp12q0", "the end", 5, "'0'"),
        ("Np0", "the end", 2, "'0'"),
        ("CpCqpr", "the end", 5, "'r'"),
        ("Cpp\n", "the end", 3, r"'\\n'"),
    ],
)
def test_malformed_formulas_are_located(text, expected, position, found):
    message = f"formula: expected {expected} at position {position}, found {found}$"
    with pytest.raises(ValueError, match=message):
        parse(text)


@pytest.mark.parametrize("bad", ["Cpp", (), (-2, 0), (0, 0), (-2, 0, 0, 0), (-3, 0), (-1,), None])
def test_what_is_no_formula_is_refused(bad):
    calls = [show, infix, canonical, lambda f: detach(f, (0,)), lambda f: detach((-2, 0, 0), f)]
    for call in calls:
        with pytest.raises((ValueError, TypeError), match=r"formula|len\(\)"):
            call(bad)


def test_infix_is_readable():
    assert infix(parse("p")) == "p"
    assert infix(parse("NNq")) == "¬¬p"
    assert infix(parse("CCNpNqCqp")) == "(¬p → ¬q) → (q → p)"
    assert infix(parse("NCpNCqr")) == "¬(p → ¬(q → r))"


@given(formulas)
def test_infix_says_the_same_as_polish(formula):
    def text(tree):
        if isinstance(tree, str):
            return LETTERS[int(tree[1:])]
        return f"¬{text(tree[1])}" if tree[0] == "N" else f"({text(tree[1])} → {text(tree[2])})"

    expected = text(nested(formula))
    assert infix(formula) == (expected[1:-1] if expected.startswith("(") else expected)


@given(formulas, st.permutations(range(30)))
def test_what_is_written_of_a_formula_does_not_depend_on_the_names_of_its_variables(formula, names):
    renamed = tuple(s if s < 0 else names[s] for s in formula)
    assert canonical(renamed) == formula
    assert show(renamed) == show(formula)
    assert infix(renamed) == infix(formula)


# Substitution instances.


@given(formulas, values)
def test_a_formula_subsumes_its_instances(formula, values):
    special = instance(formula, values)
    assert subsumes(formula, special)
    assert subsumes(special, formula) == (special == formula)


@given(formulas, formulas, values)
def test_subsumption_is_unification_with_fixed_variables(general, special, values):
    for f in (special, instance(general, values)):
        fixed = {v: ("C", ("N", f"constant{v}"), f"constant{v}") for v in variables(nested(f, "y"))}
        constants = set().union(*map(variables, fixed.values()))
        found = unifier(nested(general, "x"), replaced(nested(f, "y"), fixed), {})
        assert subsumes(general, f) == (found is not None and not constants & found.keys())


@given(st.lists(formulas, max_size=12), formulas, values)
def test_a_tree_of_formulas_knows_whether_one_subsumes(entered, special, values):
    known = Generals()
    for formula in entered:
        known.add(formula)
    for f in (special, *(instance(formula, values) for formula in entered)):
        assert known.subsume(f) == any(subsumes(general, f) for general in entered)


def test_a_tree_of_theorems_knows_which_subsume_which():
    theorems, known = list(enumerate_theorems(9)), Generals()
    subsumed = []
    for i, formula in enumerate(theorems):
        assert known.subsume(formula) == any(subsumes(x, formula) for x in theorems[:i])
        subsumed.append(known.subsume(formula))
        known.add(formula)
    assert 10 < sum(subsumed) < 100
    with pytest.raises(ValueError, match="formula: expected a tuple as parse returns it"):
        known.subsume((-2, 0))


def test_subsumption_by_example():
    assert subsumes(parse("CpCqp"), parse("CpCpp"))
    assert not subsumes(parse("CpCpp"), parse("CpCqp"))
    assert not subsumes(parse("CpCqp"), parse("CpCqCpp"))
    for bad in [("Cpp", (0,)), ((-2, 0), (-2, 0, 0)), ((0,), ()), ((0,), (0, 0))]:
        with pytest.raises(ValueError, match="subsumes: expected two tuples as parse returns"):
            subsumes(*bad)


# Detachment.


@settings(max_examples=200)
@given(st.one_of(premises(), st.tuples(formulas, formulas)))
def test_detachment_agrees_with_a_naive_calculation(pair):
    result = detach(*pair)
    assert result == naive_detach(*pair)
    assert result is None or canonical(result) == result


def test_the_random_premises_detach_often_and_fail_often():
    found = collections.Counter()

    @settings(max_examples=100)
    @given(premises())
    def count(pair):
        found[detach(*pair) is None] += 1

    count()
    assert min(found[True], found[False]) >= 8


@pytest.mark.parametrize("length", [5, 7])
def test_detachments_of_theorems_agree_with_a_naive_calculation(length):
    for major, minor in itertools.product(enumerate_theorems(length), repeat=2):
        assert detach(major, minor) == naive_detach(major, minor)


def put(formula, values):
    """Return a formula with values[v] for each variable v."""
    return tuple(s for v in formula for s in (values[v] if v >= 0 else (v,)))


@given(st.one_of(premises(), st.tuples(formulas, formulas)))
def test_the_unifier_makes_the_premises_fit_and_gives_the_result(pair):
    result, values = detach(*pair), detachment.unifier(*pair)
    assert (values is None) == (result is None)
    if values is not None:
        major, minor = map(put, pair, values)
        assert major == (IMPLIES, *minor, *result)
        assert [len(v) for v in values] == [max(f) + 1 for f in pair]


@given(premises(), st.permutations(range(20)))
def test_names_of_variables_do_not_matter(pair, names):
    renamed = [tuple(s if s < 0 else names[s] for s in formula) for formula in pair]
    assert detach(*renamed) == detach(*pair)


@given(premises(), values, values)
def test_instances_of_premises_prove_instances(pair, left, right):
    special = detach(instance(pair[0], left), instance(pair[1], right))
    assume(special is not None)
    assert subsumes(detach(*pair), special)


@given(premises())
def test_the_limit_is_the_largest_size(pair):
    result = detach(*pair)
    assume(result is not None)
    assert detach(*pair, limit=size(result)) == result
    assert detach(*pair, limit=size(result) - 1) is None


@pytest.mark.parametrize(
    ("major", "minor"),
    [
        ("p", "Cpp"),  # no implication
        ("Np", "Cpp"),
        ("CNpq", "Cpp"),  # N against C
        ("CCppq", "CpCqp"),  # p is within Cqp
        ("CCppq", "CNpp"),
        ("CCpCqCNpNqr", "CpCqCqp"),  # p = Nq and q = Np, though r has no part in it
        ("CCpCqCNpNqp", "CpCqCqp"),
    ],
)
def test_what_does_not_detach(major, minor):
    assert detach(parse(major), parse(minor)) is None


def system(equations):
    """Return premises that detach if the equations have a solution, to the sides of the last."""
    left, right = zip(*equations, strict=True)
    both = [f"a{k}" for k in range(1, len(left) + 1)]
    major = "".join(f"C{part}" for part in [*both, *both])
    minor = "".join(f"C{part}" for part in [*left, *right])
    return parse(f"C{major}z{both[-1]}"), parse(f"{minor}z")


def doubling(letter, n):
    """Return equations of which the last is of size 2^(n+1) - 1."""
    names = [f"{letter}{k}" for k in range(1, n + 2)]
    return [(names[k + 1], f"C{names[k]}{names[k]}") for k in range(n)]


def test_huge_results_are_refused_before_they_are_built():
    assert size(detach(*system(doubling("b", 10)))) == 2**11 - 1
    assert detach(*system(doubling("b", 10)), limit=2**11 - 2) is None
    assert detach(*system(doubling("b", 2000)), limit=100) is None
    assert detach(*system([*doubling("b", 2000), ("b1", "b2001")])) is None  # within itself


def test_many_equal_variables_are_merged():
    premises = system([(f"b{k}", "b1") for k in range(2, 20_000)])
    assert detach(*premises) == (0,)


def test_huge_results_unify_with_each_other_without_being_built():
    equal = [*doubling("x", 500), *doubling("y", 500), ("x501", "y501")]
    assert detach(*system([*equal, ("u", "Cx1y1")])) == parse("Cpp")
    for order in (1, -1):
        clash = [("x1", "Nu"), *equal, ("y1", "Cuu")][::order]
        assert detach(*system(clash)) is None


@pytest.mark.parametrize(
    "text", ["N" * 10_000 + "p", "C" * 10_000 + "p" * 10_001, "Cp" * 9_999 + "p"]
)
def test_deep_formulas(text):
    formula = parse(text)
    assert show(formula) == text
    assert infix(formula).count("p") == text.count("p")
    assert subsumes(formula, formula)
    assert detach((IMPLIES, 0, 0), formula) == formula
    assert detach((IMPLIES, *formula, *formula), formula) == formula
    twice = (IMPLIES, *formula, *formula)
    assert detach((IMPLIES, *twice, 0), (IMPLIES, *formula, NOT, *formula)) is None


# Proofs.


@pytest.mark.parametrize("goal", GOALS)
def test_published_proofs(goal):
    assert theorem(GOALS[goal]) == parse(goal)


def test_there_are_24_goals():
    assert len(GOALS) == 24


@given(st.lists(st.sampled_from(list(GOALS)), min_size=2, max_size=40), st.randoms())
def test_proofs_are_put_together_of_proofs(goals, random):
    parts = [(GOALS[goal], parse(goal)) for goal in goals]
    while len(parts) > 1:
        (x, major), (y, minor) = parts.pop(random.randrange(len(parts))), parts.pop()
        formula = detach(major, minor, limit=200)
        if formula is None:
            formula, x, y = parse("CpCqq"), "1", GOALS["Cpp"]
        parts.append((f"D{x}{y}", formula))
    assert theorem(parts[0][0]) == parts[0][1]


def abstract(variable, term):
    """Return a proof term that maps the variable to the term, with 2 for S and 1 for K."""
    if term == variable:
        return ("D", ("D", "2", "1"), "1")
    if isinstance(term, str):
        return ("D", "1", term)
    return ("D", ("D", "2", abstract(variable, term[1])), abstract(variable, term[2]))


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_long_proofs_made_of_functions(n):
    """The function f_1, ..., f_n, x -> f_n(...f_1(x)) has the principal type CCp_0p_1...Cp_0p_n."""
    names = [f"f{k}" for k in range(1, n + 1)]
    term = "x"
    for name in names:
        term = ("D", name, term)
    for name in ["x", *reversed(names)]:
        term = abstract(name, term)

    def text(term):
        return term if isinstance(term, str) else "".join(map(text, term))

    p = LETTERS
    goal = "".join(f"CC{p[k]}{p[k + 1]}" for k in range(n)) + f"C{p[0]}{p[n]}"
    proof = text(term)
    assert show(theorem(proof)) == goal
    assert n < 4 or len(proof) > 1579


def test_deep_proofs():
    proof = "D1" * 789 + "1"
    assert show(theorem(proof))[:10] == "CpCqCrCsCt"
    assert size(theorem(proof)) == 5 + 2 * 789
    left = "D" * 20_000 + "1" + "DD211" * 20_000  # DD...D1aa...a, with a = Cpp
    assert show(theorem(left)) == "Cpp"
    assert len(steps("D" * 10 + "1" + "DD211" * 10)) == 4 + 10


def test_equal_subproofs_are_evaluated_once():
    proof = "DD211"
    for _ in range(12):
        proof = f"D{proof}{proof}"  # Cpp detached from itself
    assert show(theorem(proof)) == "Cpp"
    assert len(steps(proof)) == 4 + 12


def test_steps_give_premises_first():
    assert [(p, show(f)) for p, f in steps("DD211")] == [
        ("1", "CpCqp"),
        ("2", "CCpCqrCCpqCpr"),
        ("D21", "CCpqCpp"),
        ("DD211", "Cpp"),
    ]
    own = {"a": parse("CpCqp"), "b": parse("CNpCpq")}
    assert [(p, show(f)) for p, f in steps("Dab", own)] == [
        ("b", "CNpCpq"),
        ("a", "CpCqp"),
        ("Dab", show(detach(own["a"], own["b"]))),
    ]
    for proof in GOALS.values():
        listed = steps(proof)
        assert listed[-1] == (proof, theorem(proof))
        assert len({p for p, _ in listed}) == len(listed)
        met = set()
        for subproof, formula in listed:
            assert theorem(subproof) == formula
            assert len(subproof) == 1 or any(f"D{x}{y}" == subproof for x in met for y in met)
            met.add(subproof)


@pytest.mark.parametrize(
    ("proof", "message"),
    [
        ("", "expected one of D123 at position 0, found the end"),
        ("DD21", "expected one of D123 at position 4, found the end"),
        ("DD214", "expected one of D123 at position 4, found '4'"),
        ("D 21", "expected one of D123 at position 1, found ' '"),
        ("DD2111", "expected the end at position 5, found '1'"),
        ("1D11", "expected the end at position 1, found 'D'"),
        (
            "D1D31",
            "D31 at position 2 does not detach: expected an implication whose antecedent unifies "
            "with CpCqp, found CCNpNqCqp",
        ),
    ],
)
def test_malformed_proofs_are_located(proof, message):
    with pytest.raises(ValueError, match=f"^proof: {message}$"):
        theorem(proof)
    with pytest.raises(ValueError, match=f"^proof: {message}$"):
        steps(proof)


def test_a_failing_long_proof_has_a_short_message():
    long = "D1" * 500 + "1"
    with pytest.raises(ValueError, match=r"D3D1.*\.\.\. at position 0 does not detach") as error:
        theorem(f"D3{long}")
    assert len(str(error.value)) < 300


def test_other_axioms():
    axioms = {"B": parse("CCpqCCrpCrq"), "C": parse("CCpCqrCqCpr"), "^": parse("CpCqp")}
    assert show(theorem("DCB", axioms)) == "CCpqCCqrCpr"
    assert theorem("^", axioms) == parse("CpCqp")
    assert theorem("1", {"1": (IMPLIES, 7, 7)}) == parse("Cpp")
    with pytest.raises(ValueError, match=r"one of DBC\^ at position 1, found '1'"):
        theorem("D1B", axioms)
    for name in ("D", "12", ""):
        with pytest.raises(ValueError, match=f"axioms: expected names.*found '{name}'"):
            theorem("1", {**AXIOMS, name: (0,)})
    with pytest.raises(ValueError, match="formula: expected a tuple"):
        theorem("1", {"1": "Cpp"})


# All theorems by the length of their proofs.


def holds(formula):
    """Return whether a formula is a tautology, by its truth table."""

    def value(tree, values):
        if isinstance(tree, str):
            return values[int(tree[1:])]
        if tree[0] == "N":
            return not value(tree[1], values)
        return not value(tree[1], values) or value(tree[2], values)

    tree = nested(formula)
    rows = itertools.product((False, True), repeat=max(formula) + 1)
    return all(value(tree, values) for values in rows)


@pytest.mark.parametrize("name", detachment.SYSTEMS)
def test_other_systems_of_axioms_prove_tautologies_only(name):
    axioms = detachment.SYSTEMS[name]
    theorems = enumerate_theorems(7, axioms, limit=60)
    assert set(axioms.values()) < set(theorems)
    assert all(map(holds, theorems))
    assert any(NOT in formula for formula in theorems) == ("alone" not in name)
    assert not holds(parse("CpCqNp"))


def counts(theorems):
    return list(collections.Counter(map(len, theorems.values())).values())


def test_numbers_of_theorems_by_length():
    theorems = enumerate_theorems(15)
    assert counts(theorems) == [3, 6, 15, 50, 139, 435, 1420, 4495]
    for formula, proof in list(theorems.items())[:300]:
        assert theorem(proof) == formula


def test_numbers_of_theorems_with_forward_subsumption():
    theorems = enumerate_theorems(11, subsumption=True)
    assert counts(theorems) == [3, 6, 12, 38, 89, 229]
    assert not any(subsumes(f, g) for f, g in itertools.combinations(theorems, 2))


def test_an_instance_of_equal_size_and_length_is_left_out():
    axioms = {"a": parse("CpCpp"), "b": parse("CpCqp")}
    assert enumerate_theorems(1, axioms) == {axioms["a"]: "a", axioms["b"]: "b"}
    assert enumerate_theorems(1, axioms, subsumption=True) == {axioms["b"]: "b"}


def test_shortest_proofs_are_found():
    theorems = enumerate_theorems(15)
    for goal, proof in GOALS.items():
        if len(proof) <= 15:
            assert len(theorems[parse(goal)]) == len(proof)


def test_of_proofs_of_one_length_the_first_is_kept():
    """First by the length of the major premise, then in the order in which theorems come."""
    theorems, found = enumerate_theorems(11), {}
    for (f, x), (g, y) in itertools.product(theorems.items(), repeat=2):
        if len(x) + len(y) < 11:
            found.setdefault(detach(f, g), []).append(f"D{x}{y}")
    for formula, proof in list(theorems.items())[len(AXIOMS) :]:
        shortest = min(map(len, found[formula]))
        assert proof == next(p for p in found[formula] if len(p) == shortest)
    doubled = {"a": parse("CpCqp"), "b": parse("CpCqp")}
    assert enumerate_theorems(1, doubled) == {parse("CpCqp"): "a"}


def test_axioms_are_taken_up_to_renaming():
    renamed = {name: tuple(s if s < 0 else 7 - s for s in x) for name, x in AXIOMS.items()}
    assert enumerate_theorems(5, renamed) == enumerate_theorems(5)


def test_enumeration_within_a_size():
    within = enumerate_theorems(9, limit=15)
    assert max(map(size, within)) == 15
    assert within.keys() < enumerate_theorems(9).keys()
    assert enumerate_theorems(2) == {formula: name for name, formula in AXIOMS.items()}
    with pytest.raises(ValueError, match="length: expected at least 1, found 0"):
        enumerate_theorems(0)


@pytest.mark.parametrize("length", [59, 60, 61])
def test_a_message_shows_sixty_characters_at_most(length):
    """What is no formula is shown whole if it is so short, and else up to three dots."""
    found = (-int("9" * (length - 4)),)
    text = repr(found)
    assert len(text) == length
    with pytest.raises(ValueError, match="formula: expected") as error:
        canonical(found)
    assert str(error.value).endswith(", found " + (text if length <= 60 else f"{text[:57]}..."))


def test_names_of_axioms_are_characters_whatever_they_mean_in_a_pattern():
    """A minus sign between letters is no range, and a bracket ends nothing."""
    axioms = dict.fromkeys("a-c]^\\.", parse("CpCqp"))
    for name in axioms:
        assert theorem(f"D{name}{name}", axioms) == parse("CpCqCrq")
    for other in "b[d":
        with pytest.raises(ValueError, match=f"at position 1, found '{re.escape(other)}'$"):
            theorem(f"D{other}a", axioms)


def test_every_part_of_a_message_is_short():
    long = "N" * 300 + "p"
    axioms = {"a": parse(long), "b": parse(f"C{long}q"), "c": parse("CpCqp")}
    short = "N" * 57 + r"\.\.\."
    with pytest.raises(ValueError, match=f"unifies with CpCqp, found {short}$"):
        theorem("Dac", axioms)
    with pytest.raises(ValueError, match=f"unifies with CpCqp, found C{short[1:]}$"):
        theorem("Dbc", axioms)
    with pytest.raises(ValueError, match=f"unifies with {short}, found N"):
        theorem("Daa", axioms)
    for pair in (((0,), (NOT,) * 300), ((NOT,) * 300, (NOT,) * 301)):
        with pytest.raises(ValueError, match="subsumes: expected two tuples") as error:
            subsumes(*pair)
        assert len(str(error.value)) < 130


def test_proofs_of_axioms_in_other_variables_are_of_canonical_formulas():
    renamed = {"1": (IMPLIES, 4, IMPLIES, 2, 4), "2": (IMPLIES, 3, 3)}
    expected = [("1", parse("CpCqp")), ("D11", parse("CpCqCrq"))]
    assert steps("D11", renamed) == expected
    found = enumerate_theorems(3, renamed)
    assert list(found)[:2] == [parse("Cpp"), parse("CpCqp")]
    assert all(canonical(formula) == formula for formula in found)
    assert detachment.canonical_axioms(renamed) == {"1": parse("CpCqp"), "2": parse("Cpp")}
