r"""A proof of E as a proof by condensed detachment, so that its word need not be taken.

Every clause of E says that a formula is a theorem if some others are, its *premises*,

.. math:: T(A_1), \dots, T(A_n) \vdash T(B) ,

and we read it with a proof of B that has a hole for each premise: D□□ for the rule itself, 1 for an
axiom.  A step of E puts the proof of one clause into a hole of another.  The last clause has no
premise left, and its proof is one of the goal: a string, which `detachment.theorem` checks.
"""

import itertools
import re
from typing import NamedTuple

ARITY = {"implies": 2, "not": 1}
CLAUSE = re.compile(r"^cnf\((\w+), \w+, \((\S*)\), (.*?)(?:, \['proof'\])?\)\.$", re.MULTILINE)
SOURCE = re.compile(r"inference\(\w+,\[.*?\],\[|\]\)|\w+")  # a step opens, it closes, a clause


class Clause(NamedTuple):
    """A conclusion (None for that of the goal), what it needs, and its proof with holes.

    A term is a nested tuple, as ("implies", "X1", ("not", "X2")); the proof is a tuple of "D", the
    names of axioms, and numbers of premises.
    """

    conclusion: object
    premises: tuple
    proof: tuple


def read(literals):
    """Return the (conclusion, premises) that a clause of E states."""
    found = re.findall(r"(~?)is_a_theorem(.*?)(?=\|~?is_a|$)", literals)
    conclusions = [_term(text) for sign, text in found if not sign]
    return (conclusions or [None])[0], tuple(_term(text) for sign, text in found if sign)


def _term(text):
    parts = []
    for word in reversed(re.findall(r"\w+", text)):
        count = ARITY.get(word, 0)
        parts.append((word, *(parts.pop() for _ in range(count))) if count else word)
    return parts.pop()


def d_proof(said):
    """Return the proof by condensed detachment that is in what E says, in prefix notation.

    Raises:
        ValueError: if there is a step that is not understood, or no proof.
    """
    clauses = {}
    for name, literals, source in CLAUSE.findall(said):
        if source.startswith("file("):
            continue
        conclusion, premises = read(literals)
        clauses[name] = _derived(conclusion, premises, source, clauses)
        if conclusion is None and not premises:
            return "".join(clauses[name].proof)
    raise ValueError("E: expected a proof, found none")


def _derived(conclusion, premises, source, clauses):
    """Return the clause stated, with its proof, from the clauses that its source names."""
    if source == "detachment":
        major = next(k for k in (0, 1) if isinstance(premises[k], tuple))
        return Clause(conclusion, premises, ("D", major, 1 - major))
    if source.startswith("axiom_"):
        return Clause(conclusion, premises, (source.removeprefix("axiom_"),))
    if "split_conjunct" in source:  # the negated goal: a proof of its premise is one of the goal
        return Clause(None, premises, (0,))
    for found in _candidates(source, clauses):
        for places in itertools.product(range(len(premises)), repeat=len(found.premises)):
            stated = conclusion, *(premises[k] for k in places)
            if _alike((found.conclusion, *found.premises), stated):
                return Clause(conclusion, premises, _filled(found.proof, [(k,) for k in places]))
    raise ValueError(f"E: expected a step of resolution, found {source}")


def _candidates(source, clauses):
    """Return the clauses that a source may stand for: all resolvents of what it names."""
    stack = [[]]
    for token in SOURCE.findall(source):
        if token.startswith("inference("):
            stack.append([])
        elif token == "])":
            parents = stack.pop()
            stack[-1].append(parents[0] if len(parents) == 1 else _resolvents(*parents))
        else:
            stack[-1].append([clauses[token]])
    return stack[0][0]


def _resolvents(left, right):
    """Return every clause that comes of filling holes of one clause with the other."""
    found = []
    for one, other in itertools.product(left, right):
        for main, side in ((one, other), (other, one)):
            waiting = [main]
            while waiting:
                new = list(_resolved(waiting.pop(), side))
                found += new
                waiting += new if not side.premises else []
    return found


def _resolved(main, side):
    """Yield the clauses that come of filling one hole of the first with the second."""
    mark = "*" * (1 + str(main).count("*"))  # no variable of the first one ends in so many
    apart = [_put(term, {}, mark) for term in (side.conclusion, *side.premises)]
    for k, premise in enumerate(main.premises):
        values = {}
        if side.conclusion is not None and _unify(premise, apart[0], values):
            terms = (main.conclusion, *main.premises[:k], *apart[1:], *main.premises[k + 1 :])
            conclusion, *premises = (_put(term, values) for term in terms)
            count = len(side.premises)
            inner = _filled(side.proof, [(k + n,) for n in range(count)])
            others = [(n if n < k else n + count - 1,) for n in range(len(main.premises))]
            others[k] = inner
            yield Clause(conclusion, tuple(premises), _filled(main.proof, others))


def _filled(proof, parts):
    """Return a proof with its holes filled."""
    return tuple(s for x in proof for s in (parts[x] if isinstance(x, int) else (x,)))


def _put(term, values, mark=""):
    """Return a term with values put for its variables, and a mark behind those without one."""
    if isinstance(term, tuple):
        return (term[0], *(_put(part, values, mark) for part in term[1:]))
    if term in values:
        return _put(values[term], values, mark)
    return term + mark if term and term[0] == "X" else term


def _unify(a, b, values):
    """Enter into `values` what makes two terms equal; return whether there is anything."""
    a, b = _put(a, values), _put(b, values)
    if a == b:
        return True
    if isinstance(b, str) and b[0] == "X":
        a, b = b, a
    if isinstance(a, str) and a[0] == "X":
        values[a] = b
        return not _within(a, b)
    if isinstance(a, str) or isinstance(b, str) or a[0] != b[0]:
        return False
    return all(_unify(x, y, values) for x, y in zip(a[1:], b[1:], strict=True))


def _within(name, term):
    return name == term if isinstance(term, str) else any(_within(name, x) for x in term[1:])


def _alike(terms, others):
    """Return whether two lists of terms are the same up to the names of their variables."""
    names, back = {}, {}

    def same(a, b):
        if isinstance(a, tuple) and isinstance(b, tuple):
            return len(a) == len(b) and all(map(same, a, b))
        if isinstance(a, str) and isinstance(b, str) and a[0] == b[0] == "X":
            return names.setdefault(a, b) == b and back.setdefault(b, a) == a
        return a == b

    return all(map(same, terms, others))
