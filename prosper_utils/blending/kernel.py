"""Condensed detachment of many pairs at once, compiled if Numba is installed.

It is the calculation of `detachment.detach`, on formulas that stand in the rows of an array.  With
Numba (the extra `fast`) it is machine code; without it `evolution.detachment_table` takes `detach`
for each pair.  Both give the same formulas, in the same order.

For a pair, the symbols of both formulas stand in one row, and a node is a position in it, as in
`detachment`: `parent` leads from a node to the one that it was merged with by the unification.
"""

from prosper_utils.blending.detachment import IMPLIES, NOT

import numpy as np

try:
    from numba import njit

    COMPILED = True
except ImportError:
    COMPILED = False

    def njit(**_):
        """Return a decorator that changes nothing."""
        return lambda function: function


class Detacher:
    """A function of a list of formulas and pairs of places in it: what follows from each pair.

    Each formula is laid out in an array once, when the list has grown by it.

    Args:
        limit: the largest size of a result, as for `detachment.detach`.
    """

    def __init__(self, limit):
        self.limit, self.count, self.known = limit, 0, {}
        self.symbols = np.zeros((1024, limit), np.int16)
        self.sizes = np.zeros(1024, np.int64)

    def __call__(self, formulas, pairs):
        """Return a list: the formula that follows from each pair, or None."""
        for formula in formulas[self.count :]:
            self._enter(formula)
        left, right = np.array(pairs, np.int64).reshape(-1, 2).T
        results = np.empty((len(left), self.limit), np.int16)
        sizes = np.empty(len(left), np.int64)
        detach_rows(self.symbols, self.sizes, left, right, results, sizes)
        known, found = self.known, []
        for row, size in zip(results, sizes.tolist(), strict=True):
            if size == 0:
                found.append(None)
                continue
            key = row[:size].tobytes()
            if key not in known:
                known[key] = tuple(row[:size].tolist())
            found.append(known[key])
        return found

    def _enter(self, formula):
        rows, width = self.symbols.shape
        if self.count == rows or len(formula) > width:
            more, wider = rows * (self.count == rows), max(0, len(formula) - width)
            self.symbols = np.pad(self.symbols, ((0, more), (0, wider)))
            self.sizes = np.pad(self.sizes, (0, more))
        self.symbols[self.count, : len(formula)] = formula
        self.sizes[self.count] = len(formula)
        self.count += 1


@njit(cache=True)
def detach_rows(formulas, sizes, left, right, results, found):
    """Write what follows from each pair into a row of `results`, and its size into `found`.

    Args:
        formulas: an array of integers, a formula in each row.
        sizes: how long each formula is.
        left, right: the rows of the major and of the minor formula of each pair.
        results: an array with a row for each pair, as long as a result may be.
        found: the size of each result; 0 where there is none, or one that is too large.
    """
    width = 2 * formulas.shape[1]
    work = np.zeros((6, 4 * width + 4), np.int64)
    symbols, ends, parent, mark, number, waiting = work
    for k in range(len(left)):
        major, minor = sizes[left[k]], sizes[right[k]]
        lay_out(formulas[left[k]], 0, major, symbols, ends, parent, number)
        lay_out(formulas[right[k]], major, minor, symbols, ends, parent, number)
        found[k] = 0
        if symbols[0] == IMPLIES and unify(1, major, symbols, ends, parent, waiting):
            mark[: major + minor] = 0
            if acyclic(root(0, parent), symbols, ends, parent, mark, waiting):
                number[: major + minor] = -1
                node = root(ends[1], parent)
                found[k] = write(node, symbols, ends, parent, number, waiting, results[k])


@njit(cache=True)
def lay_out(formula, shift, size, symbols, ends, parent, first):
    """Write a formula into the row of a pair, from a position on; each variable is one node."""
    first[:size] = -1
    for k in range(size):
        node, symbol = shift + k, formula[k]
        symbols[node] = symbol
        parent[node] = node
        if symbol >= 0:
            if first[symbol] < 0:
                first[symbol] = node
            parent[node] = first[symbol]
    for node in range(shift + size - 1, shift - 1, -1):
        if symbols[node] >= 0:
            ends[node] = node + 1
        elif symbols[node] == NOT:
            ends[node] = ends[node + 1]
        else:
            ends[node] = ends[ends[node + 1]]


@njit(cache=True)
def root(node, parent):
    """Return the node that stands for all that were merged with this one."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@njit(cache=True)
def unify(a, b, symbols, ends, parent, waiting):
    """Merge two nodes, and what has to be merged in consequence; return False on a clash."""
    waiting[0], waiting[1], count = a, b, 2
    while count > 0:
        count -= 2
        a, b = root(waiting[count], parent), root(waiting[count + 1], parent)
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
            waiting[count], waiting[count + 1] = ends[a + 1], ends[b + 1]
            count += 2
        waiting[count], waiting[count + 1] = a + 1, b + 1
        count += 2
    return True


@njit(cache=True)
def acyclic(node, symbols, ends, parent, mark, waiting):
    """Return whether no node is within itself; mark is 1 while we are within one, 2 after it."""
    waiting[0], count = node, 1
    while count > 0:
        node = waiting[count - 1]
        if mark[node] > 0:
            mark[node] = 2
            count -= 1
            continue
        mark[node] = 1
        inner = 0 if symbols[node] >= 0 else 1 if symbols[node] == NOT else 2
        for k in range(inner):
            child = root(node + 1 if k == 0 else ends[node + 1], parent)
            if mark[child] == 1:
                return False
            if mark[child] == 0:
                waiting[count] = child
                count += 1
    return True


@njit(cache=True)
def write(node, symbols, ends, parent, number, waiting, result):
    """Write the formula at a node, with everything merged put in; return its size, 0 if too big."""
    waiting[0], count, size, variables = node, 1, 0, 0
    while count > 0:
        if size + count > len(result):
            return 0
        count -= 1
        node = waiting[count]
        symbol = symbols[node]
        if symbol >= 0:
            if number[node] < 0:
                number[node] = variables
                variables += 1
            symbol = number[node]
        elif symbol == IMPLIES:
            waiting[count] = root(ends[node + 1], parent)
            count += 1
        if symbols[node] < 0:
            waiting[count] = root(node + 1, parent)
            count += 1
        result[size] = symbol
        size += 1
    return size
