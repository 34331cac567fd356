r"""Condensed detachment: the most general theorem that follows from two theorems.

A formula is built of variables with C (implies) and N (not), written in Polish notation and taken
up to renaming of its variables.  If x proves the implication C a b, and y proves c, and
:math:`\sigma` is the most general unifier of a and c (renamed apart), then the proof Dxy proves

.. math:: \sigma b, \qquad \sigma a = \sigma c .

So a proof is a string in prefix notation, of D and the names of axioms: DD211 proves Cpp.  The rule
is C. A. Meredith's (Kalman, 1983; Hindley and Meredith, 1990).

A formula is a flat tuple of integers, its symbols from left to right: C is -2, N is -1, and the
variables are 0, 1, 2, ... in the order of their first occurrence.  Formulas equal up to renaming
are therefore equal tuples, which serve as dictionary keys.  Nothing here recurses, so formulas and
proofs may be as deep as memory allows.
"""

import itertools
import re

IMPLIES, NOT = -2, -1
LETTERS = "pqrstuvwxyzabcdefghijklmno"
TOKEN = re.compile("[CN]|[a-z]([1-9][0-9]*)?")


def parse(text):
    """Return the formula that a text in Polish notation stands for.

    Args:
        text: C (implies), N (not) and variables: a lower-case letter, and maybe a number from 1 on
            without leading zeros, as in CpCq12p; nothing else, no spaces either.

    Returns:
        A tuple of integers, as the module describes it.

    Raises:
        ValueError: if the text is no formula, with the first position where it goes wrong.
    """
    symbols = _tokens(text, "formula", TOKEN, {"C": 2, "N": 1}, "C, N or a variable")
    signs, number = {"C": IMPLIES, "N": NOT}, {}
    return tuple(signs[s] if s in signs else number.setdefault(s, len(number)) for s in symbols)


def _tokens(text, what, pattern, arity, expected):
    """Return the tokens of a text that is one expression in prefix notation."""
    tokens, position, missing = [], 0, 1
    while missing:
        match = pattern.match(text, position)
        if match is None:
            raise _malformed(what, expected, text, position)
        tokens.append(match[0])
        position = match.end()
        missing += arity.get(match[0], 0) - 1
    if position < len(text):
        raise _malformed(what, "the end", text, position)
    return tokens


def _malformed(what, expected, text, position):
    found = repr(text[position]) if position < len(text) else "the end"
    return ValueError(f"{what}: expected {expected} at position {position}, found {found}")


def canonical(formula):
    """Return a formula with its variables numbered 0, 1, 2, ... by first occurrence.

    Every formula that this module returns is so already; a slice of one may not be.

    Raises:
        ValueError: if it is not one whole formula.
    """
    _ends(formula)
    number = {}
    return tuple(s if s < 0 else number.setdefault(s, len(number)) for s in formula)


def _ends(formula):
    """Return, for each position, where the subformula that starts there ends."""
    ends = [0] * len(formula)
    try:
        for k in range(len(formula) - 1, -1, -1):
            symbol = formula[k]
            if symbol >= 0:
                ends[k] = k + 1
            elif symbol == NOT:
                ends[k] = ends[k + 1]
            elif symbol == IMPLIES:
                ends[k] = ends[ends[k + 1]]
        whole = ends[0] == len(formula)
    except (IndexError, TypeError):
        whole = False
    if not whole:
        found = _shortened(repr(formula))
        raise ValueError(f"formula: expected a tuple as parse returns it, found {found}")
    return ends


def _shortened(text):
    return text if len(text) <= 60 else f"{text[:57]}..."


def symbol_name(symbol):
    """Return the text of a symbol: p, q, ..., z, a, ..., o, then p1, q1, ..., o1, p2, ..."""
    if symbol < 0:
        return "C" if symbol == IMPLIES else "N"
    turn, letter = divmod(symbol, len(LETTERS))
    return LETTERS[letter] + (str(turn) if turn else "")


def show(formula):
    """Return the Polish text of a formula; `parse` reads it back.

    The variables are renamed p, q, ..., z, a, b, ..., o by first occurrence.  Those after these 26
    are p1, q1, ..., o1, then p2, q2, ..., and so on.

    Raises:
        ValueError: if it is not one whole formula.
    """
    return "".join(map(symbol_name, canonical(formula)))


def infix(formula):
    """Return the text of a formula with → between and ¬ in front, variables renamed as in `show`.

    Each implication inside another formula has its parentheses: (p → q) → ¬(q → ¬p).

    Raises:
        ValueError: if it is not one whole formula.
    """
    symbols, ends = canonical(formula), _ends(formula)
    pieces, waiting = [], [0]  # what waits is a piece of text or the position of a subformula
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            pieces.append(item)
        elif symbols[item] == IMPLIES:
            waiting += [")", ends[item + 1], " → ", item + 1, "("]
        elif symbols[item] == NOT:
            waiting += [item + 1, "¬"]
        else:
            pieces.append(symbol_name(symbols[item]))
    return "".join(pieces[1:-1] if symbols[0] == IMPLIES else pieces)


def size(formula):
    """Return the number of symbols of a formula."""
    return len(formula)


def subsumes(general, special):
    """Return whether some substitution for the variables of `general` makes it `special`.

    Raises:
        ValueError: if one of them is seen not to be one whole formula.
    """
    value, k = {}, 0  # the formula that each variable stands for; how far `special` is read
    try:
        for symbol in general:
            if symbol >= 0:
                if symbol not in value:
                    value[symbol] = special[k : _end(special, k)]
                if special[k : k + len(value[symbol])] != value[symbol]:
                    return False
                k += len(value[symbol])
            elif symbol == special[k]:
                k += 1
            else:
                return False
    except (IndexError, TypeError):
        k = None
    if k != len(special):
        found = _shortened(f"{general!r} and {special!r}")
        raise ValueError(f"subsumes: expected two tuples as parse returns them, found {found}")
    return True


def _end(formula, k):
    """Return where the subformula that starts at position k ends."""
    missing = 1
    while missing:
        symbol = formula[k]
        missing += 1 if symbol == IMPLIES else 0 if symbol == NOT else -1
        k += 1
    return k


class Generals:
    """Formulas in a tree of their symbols, to ask whether one of them subsumes another formula.

    It is a discrimination tree without wildcards: what two formulas have in common at their
    beginning is read once (McCune, 1992).
    """

    def __init__(self):
        self.root = {}

    def add(self, formula):
        """Enter a formula, as `parse` returns it."""
        node = self.root
        for symbol in formula:
            node = node.setdefault(symbol, {})

    def subsume(self, formula):
        """Return whether a formula that has been entered subsumes this one.

        Raises:
            ValueError: if it is not one whole formula.
        """
        ends, waiting = _ends(formula), [(self.root, 0, ())]
        while waiting:
            node, k, values = waiting.pop()  # read up to k, with these values of its variables
            if k == len(formula):
                return True
            for symbol, rest in node.items():
                if symbol < 0:
                    if symbol == formula[k]:
                        waiting.append((rest, k + 1, values))
                elif symbol == len(values):
                    waiting.append((rest, ends[k], (*values, formula[k : ends[k]])))
                elif formula[k : k + len(values[symbol])] == values[symbol]:
                    waiting.append((rest, k + len(values[symbol]), values))
        return False


def detach(major, minor, limit=None):
    """Return what follows from two formulas by condensed detachment, in the most general form.

    Unification is by union-find on the subformulas, and tests for cycles once at the end (Huet,
    1976; Baader and Snyder, 2001), so it takes nearly linear time, even where the result is
    exponentially large.

    Args:
        major: the formula whose antecedent is unified.
        minor: the formula that it is unified with, after renaming apart.
        limit: the largest size of a result; a larger one is not built.

    Returns:
        The consequent of the major formula under the most general unifier.  None if the major
        formula is no implication, if there is no unifier, or if the result is beyond the limit.

    Raises:
        ValueError: if one of the two is not one whole formula.
    """
    graph = _Graph(major, minor)
    children = graph.detached()
    if children is None:
        return None
    root = graph.root(graph.ends[1])
    if limit is not None and _size(root, children) > limit:
        return None
    return graph.read(root, children, {})


def unifier(major, minor):
    """Return what the most general unifier of `detach` puts for the variables of its arguments.

    With these values put for the variables of both, the minor formula is the antecedent of the
    major one, and the consequent is what `detach` returns.

    Returns:
        Two lists of formulas, one for each variable of the major and of the minor formula, in the
        order of their numbers.  The variables of the result come first in them, numbered as in it.
        None where `detach` without a limit returns None.

    Raises:
        ValueError: if one of the two is not one whole formula.
    """
    graph = _Graph(major, minor)
    children = graph.detached()
    if children is None:
        return None
    number, values = {}, []
    graph.read(graph.root(graph.ends[1]), children, number)
    for formula, shift in ((major, 0), (minor, len(major))):
        places = [shift + formula.index(v) for v in range(max(formula) + 1)]
        values.append([graph.read(graph.root(k), children, number) for k in places])
    return tuple(values)


class _Graph:
    """The subformulas of two formulas as the nodes of a graph, on which unification merges nodes.

    A node is a position in the symbols of both formulas; a variable is its first occurrence.
    `parent` leads from a node to the one that it was merged with, and from a root to itself.
    """

    def __init__(self, major, minor):
        shift = len(major)
        self.ends = _ends(major) + [shift + k for k in _ends(minor)]
        self.symbols = major + minor
        self.parent = _first(major) + [shift + k for k in _first(minor)]

    def detached(self):
        """Unify the antecedent of the first formula with the second one; return `children`.

        None if the first formula is no implication, or if there is no unifier.
        """
        if self.symbols[0] != IMPLIES or not self.unify(1, self.ends[0]):
            return None
        return self.children(0)

    def root(self, node):
        """Return the node that stands for all that were merged with this one."""
        parent = self.parent
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    def unify(self, a, b):
        """Merge two nodes, and what has to be merged in consequence; return False on a clash."""
        symbols, parent, root = self.symbols, self.parent, self.root
        waiting = [(a, b)]
        while waiting:
            a, b = map(root, waiting.pop())
            if a == b:
                continue
            if symbols[b] >= 0:
                a, b = b, a
            parent[a] = b
            if symbols[a] >= 0:
                continue
            if symbols[a] != symbols[b]:
                return False
            if symbols[a] == IMPLIES:
                waiting.append((self.ends[a + 1], self.ends[b + 1]))
            waiting.append((a + 1, b + 1))
        return True

    def children(self, node):
        """Return {root: roots of its immediate subformulas} for all roots within a node.

        Each root comes after those within it; None if one is within itself.
        """
        children, entered = {}, {}
        waiting = [self.root(node)]
        while waiting:
            node = waiting[-1]
            if node not in entered:
                entered[node] = self._inner(node)
                waiting += entered[node]  # it stays below them, to be met again after them
                continue
            waiting.pop()
            for child in entered[node]:
                if child not in children:  # we are still within it
                    return None
            children[node] = entered[node]
        return children

    def _inner(self, node):
        symbol = self.symbols[node]
        if symbol >= 0:
            return ()
        if symbol == NOT:
            return (self.root(node + 1),)
        return self.root(node + 1), self.root(self.ends[node + 1])

    def read(self, root, children, number):
        """Return the formula at a root, with everything merged put in.

        `number` holds the numbers of the variables met before, and takes those of the others.
        """
        formula, waiting = [], [root]
        while waiting:
            node = waiting.pop()
            symbol = self.symbols[node]
            formula.append(symbol if symbol < 0 else number.setdefault(node, len(number)))
            waiting += children[node][::-1]
        return tuple(formula)


def _size(root, children):
    """Return the size of the formula at a root, without building it."""
    sizes = {}
    for node, inner in children.items():
        sizes[node] = 1 + sum([sizes[child] for child in inner])
    return sizes[root]


def _first(formula):
    """Return, for each position, the first occurrence of its variable, or itself if C or N."""
    first = {}
    return [k if s < 0 else first.setdefault(s, k) for k, s in enumerate(formula)]


AXIOMS = {"1": parse("CpCqp"), "2": parse("CCpCqrCCpqCpr"), "3": parse("CCNpNqCqp")}
SYSTEMS = {  # other systems of axioms, for what may be called `axioms` below
    "Łukasiewicz, implication and negation": AXIOMS,
    "Łukasiewicz, implication alone": {"1": parse("CCCpqrCCrpCsp")},  # 1948
    "Tarski and Bernays, implication alone": {
        "1": parse("CpCqp"),
        "2": parse("CCpqCCqrCpr"),
        "3": parse("CCCpqpp"),
    },
    "Meredith, one axiom": {"1": parse("CCCCCpqCNrNsrtCCtpCsp")},  # 1953
}


def theorem(proof, axioms=AXIOMS):
    """Return the formula that a proof proves; equal subproofs are evaluated once.

    The formula may be as large as it comes, in the worst case exponential in the proof.

    Args:
        proof: a string in prefix notation: Dxy detaches the theorem of x (major) and that of y.
        axioms: a dictionary from names of one character other than D to formulas.

    Raises:
        ValueError: if the proof is malformed, with the first position where it goes wrong; if a
            subproof does not detach, with its text and position; or if the axioms are not as said.
    """
    return _deduce(proof, axioms)[-1][2]


def steps(proof, axioms=AXIOMS):
    """Return (subproof, formula) for each distinct subproof, premises first, the proof last.

    Args and errors: as for `theorem`.
    """
    return [(proof[start:end], formula) for start, end, formula in _deduce(proof, axioms)]


def _deduce(proof, axioms):
    """Return (start, end, formula) for each distinct subproof, premises first."""
    axioms = canonical_axioms(axioms)
    names = "D" + "".join(axioms)
    _tokens(proof, "proof", re.compile(f"[{re.escape(names)}]"), {"D": 2}, f"one of {names}")
    deduced, place = [], {}  # equal subproofs are equal axioms or have their premises in common
    waiting = []  # place and end of the subproofs to the right, the next one last
    for start in range(len(proof) - 1, -1, -1):
        key, end = proof[start], start + 1
        if key == "D":
            (major, _), (minor, end) = waiting.pop(), waiting.pop()
            key = major, minor
        if key not in place:
            if key in axioms:
                formula = axioms[key]
            else:
                premises = deduced[major][2], deduced[minor][2]
                formula = detach(*premises)
                if formula is None:
                    raise _not_detaching(proof[start:end], start, *premises)
            place[key] = len(deduced)
            deduced.append((start, end, formula))
        waiting.append((place[key], end))
    return deduced


def canonical_axioms(axioms):
    """Return axioms, {name: formula}, with variables numbered by their first appearance.

    Raises:
        ValueError: if they have no names, or one that cannot stand in a proof.
    """
    if not isinstance(axioms, dict):
        raise ValueError(f"axioms: expected {{name: formula}}, found {type(axioms).__name__}")
    for name in axioms:
        if len(name) != 1 or name == "D":
            raise ValueError(f"axioms: expected names of one character, not D, found {name!r}")
    return {name: canonical(formula) for name, formula in axioms.items()}


def _not_detaching(proof, position, major, minor):
    return ValueError(
        f"proof: {_shortened(proof)} at position {position} does not detach: expected an "
        f"implication whose antecedent unifies with {_shortened(show(minor))}, "
        f"found {_shortened(show(major))}"
    )


def enumerate_theorems(length, axioms=AXIOMS, *, limit=None, subsumption=False):
    """Return {formula: proof} for all theorems with proofs of at most `length` symbols.

    The search is breadth-first by the length of proofs, which is odd, so each proof is one of the
    shortest; of several it is the one whose major premise, and then minor premise, comes first.
    The theorems come in that order, and at equal lengths the more general ones first.

    Args:
        length: the longest proof, at least 1.
        axioms: as for `theorem`.
        limit: the largest size of a result; larger ones are left out, with all that needs them.
        subsumption: whether to leave out what a theorem before it subsumes, and build no proofs on
            it (forward subsumption).

    Raises:
        ValueError: if the length is less than 1, or the axioms are not as said.
    """
    if length < 1:
        raise ValueError(f"length: expected at least 1, found {length}")
    candidates = ((formula, name) for name, formula in canonical_axioms(axioms).items())
    proofs, levels, known = {}, {}, Generals()
    for n in range(1, length + 1, 2):
        new = {}
        for formula, proof in candidates:
            if formula not in proofs:
                new.setdefault(formula, proof)
        levels[n] = []
        for formula in sorted(new, key=_instances_last):
            if not (subsumption and known.subsume(formula)):
                known.add(formula)
                proofs[formula] = new[formula]
                levels[n].append(formula)
        candidates = _detachments(n + 2, levels, proofs, limit)
    return proofs


def _instances_last(formula):
    """Sort key: an instance is longer than what it is an instance of, or has fewer variables."""
    return len(formula), -max(formula)


def _detachments(n, levels, proofs, limit):
    """Yield (formula, proof) for each proof of length n with two premises of the levels."""
    for i in range(1, n - 1, 2):
        for major, minor in itertools.product(levels[i], levels[n - 1 - i]):
            formula = detach(major, minor, limit)
            if formula is not None:
                yield formula, f"D{proofs[major]}{proofs[minor]}"
