r"""Boolean circuits: a second domain for the loop, which is no logic.

The objects are the Boolean functions of n inputs, each a truth table: an integer of :math:`2^n`
bits, of which bit k is the value where the bits of k are the inputs.  The product is a gate,

.. math:: x \circ y = \neg (x \land y) ,

of which every function can be made.  It is defined for all pairs, and commutes.  The axioms are the
inputs a, b, c, ...; what `evolution.Table` calls a proof is then a circuit in prefix notation: Dab
is the gate of a and b.  Written with each distinct part once, it is a straight-line program.
"""

import itertools
import math
import re

from prosper_utils.blending.evolution import Table

INPUTS = "abcd"


def truth_table(function, inputs):
    """Return the truth table of a function of so many Booleans, an integer."""
    values = itertools.product((False, True), repeat=inputs)
    return sum(bool(function(*v[::-1])) << k for k, v in enumerate(values))


def circuit_table(inputs=4, *, budget=math.inf):
    """Return an `evolution.Table` of the Boolean functions of so many inputs, with NAND.

    Args:
        inputs: 1 to 4.
        budget: as for `evolution.Table`.

    Raises:
        ValueError: if the number of inputs is another one.
    """
    if inputs not in range(1, 5):
        raise ValueError(f"inputs: expected 1 to 4, found {inputs}")
    every = (1 << 2**inputs) - 1
    axioms = {INPUTS[k]: truth_table(lambda *v, k=k: v[k], inputs) for k in range(inputs)}
    bits = 2**inputs  # every table has as many
    show = f"{{:0{bits}b}}".format
    return Table(axioms, lambda x, y: every & ~(x & y), budget, show, size=lambda _: bits)


GOALS = {  # of four inputs: what adders, comparators and selectors are made of
    "not a": lambda a, b, c, d: not a,
    "a and b": lambda a, b, c, d: a and b,
    "a or b": lambda a, b, c, d: a or b,
    "a nor b": lambda a, b, c, d: not (a or b),
    "a less than b": lambda a, b, c, d: b and not a,
    "a xor b": lambda a, b, c, d: a != b,
    "a equals b": lambda a, b, c, d: a == b,
    "all of three": lambda a, b, c, d: a and b and c,
    "any of three": lambda a, b, c, d: a or b or c,
    "select a or b by c": lambda a, b, c, d: b if c else a,
    "carry of three": lambda a, b, c, d: a + b + c >= 2,
    "sum of three": lambda a, b, c, d: (a + b + c) % 2,
    "one of three": lambda a, b, c, d: a + b + c == 1,
    "all of four": lambda a, b, c, d: a and b and c and d,
    "any of four": lambda a, b, c, d: a or b or c or d,
    "a xor b, or c xor d": lambda a, b, c, d: a != b or c != d,
    "pairs ab and cd are equal": lambda a, b, c, d: a == c and b == d,
    "number ab is less than cd": lambda a, b, c, d: 2 * a + b < 2 * c + d,
    "second bit of ab plus cd": lambda a, b, c, d: (2 * a + b + 2 * c + d) // 2 % 2,
    "third bit of ab plus cd": lambda a, b, c, d: 2 * a + b + 2 * c + d >= 4,
    "second bit of ab times cd": lambda a, b, c, d: (2 * a + b) * (2 * c + d) // 2 % 2,
    "at least two of four": lambda a, b, c, d: a + b + c + d >= 2,
    "two of four": lambda a, b, c, d: a + b + c + d == 2,
    "sum of four": lambda a, b, c, d: (a + b + c + d) % 2,
}


def circuit_goals():
    """Return the target, {truth table: weight}, with equal weights on the 24 `GOALS`."""
    return {truth_table(function, 4): 1 / len(GOALS) for function in GOALS.values()}


def program(circuit, inputs=4):
    """Return the straight-line program of a circuit: (gate, left, right) for each distinct one.

    Args:
        circuit: a text in prefix notation, as `evolution.Table.proof` returns it.
        inputs: how many inputs there may be.

    Returns:
        A list of triples of names; the gates are called 1, 2, ..., the last one is the output.

    Raises:
        ValueError: if the text is no circuit.
    """
    gates, waiting = {}, []
    names = INPUTS[:inputs]
    if not re.fullmatch(f"[D{names}]+", circuit):
        raise ValueError(f"circuit: expected D and {', '.join(names)} only, found {circuit!r}")
    for symbol in reversed(circuit):
        if symbol != "D":
            waiting.append(symbol)
        elif len(waiting) < 2:
            raise ValueError(f"circuit: expected two parts after each D, found {circuit!r}")
        else:
            key = waiting.pop(), waiting.pop()
            waiting.append(gates.setdefault(key, str(len(gates) + 1)))
    if len(waiting) != 1:
        raise ValueError(f"circuit: expected one circuit, found {len(waiting)} in {circuit!r}")
    return [(gate, *parts) for parts, gate in gates.items()]


def evaluate(circuit, values):
    """Return the output of a circuit for the values of its inputs, a list of Booleans.

    It carries out the straight-line program, and knows nothing of truth tables.
    """
    known = dict(zip(INPUTS, map(bool, values), strict=False))
    gate = circuit
    for gate, left, right in program(circuit, len(values)):
        known[gate] = not (known[left] and known[right])
    return known[gate]
