"""Many detachments at once: the same as one after the other, in the same order."""

import importlib.util
import itertools
import sys
import types

from prosper_utils.blending import kernel, search
from prosper_utils.blending.detachment import AXIOMS, detach, enumerate_theorems, parse
from prosper_utils.blending.evolution import (
    BudgetSpent,
    Settings,
    Table,
    detachment_table,
    evolve,
    goal_weights,
)
from prosper_utils.blending.kernel import Detacher

import numpy as np
import pytest
from goals import GOALS
from hypothesis import given, settings
from hypothesis import strategies as st
from test_detachment import doubling, formulas, premises, system

TARGET = goal_weights(GOALS)


@settings(max_examples=200)
@given(
    st.lists(st.one_of(premises(), st.tuples(formulas, formulas)), max_size=4), st.integers(1, 60)
)
def test_many_detachments_are_what_each_is(chosen, limit):
    known = [formula for pair in chosen for formula in pair]
    pairs = list(itertools.product(range(len(known)), repeat=2))
    expected = [detach(known[i], known[j], limit) for i, j in pairs]
    assert Detacher(limit)(known, pairs) == expected


def test_detachments_of_theorems_are_what_each_is():
    theorems = list(enumerate_theorems(5, limit=25))
    pairs = list(itertools.product(range(len(theorems)), repeat=2))
    found = Detacher(25)(theorems, pairs)
    assert found == [detach(theorems[i], theorems[j], 25) for i, j in pairs]
    assert 0 < found.count(None) < len(found)


def test_large_results_and_cycles_are_refused():
    hard = [system(doubling("p", 6)), system([("p", "Np")]), system([("p", "Nq"), ("q", "Np")])]
    known = [x for pair in hard for x in pair]
    pairs = [(0, 1), (2, 3), (4, 5)]
    for limit in (25, 200):
        assert Detacher(limit)(known, pairs) == [
            detach(known[i], known[j], limit) for i, j in pairs
        ]


def test_formulas_are_laid_out_as_the_list_grows():
    detacher, theorems = Detacher(5), list(enumerate_theorems(7))
    assert len(theorems) < 1024
    for count in (1, 10, len(theorems)):
        pairs = [(k, count - 1 - k) for k in range(count)]
        expected = [detach(theorems[i], theorems[j], 5) for i, j in pairs]
        assert detacher(theorems[:count], pairs) == expected
    many = theorems * 16  # more rows than there are at first, and wider ones than the limit
    assert detacher(many, [(len(many) - 1, 0)]) == [detach(many[-1], many[0], 5)]
    assert max(map(len, theorems)) > 5


def both(run, **options):
    """Return the tables and what a run returns, many products at once and one after the other."""
    found = []
    for batch in (Detacher(15), None):
        table = detachment_table(limit=15, **options)
        table.batch = batch
        returned = run(table)
        table.batch = None
        found.append((table, returned))
    return found


RUNS = {
    "blend": lambda table: evolve(table, TARGET, Settings(keep=20, loops=4)),
    "rounds": lambda table: evolve(table, TARGET, Settings(keep=10, loops=3, rounds=1)),
    "breadth first": lambda table: search.breadth_first(table, TARGET, subsumption=True),
    "lightest first": lambda table: search.lightest_first(table, TARGET, by_age=5),
    "genetic": lambda table: search.breed(table, TARGET, search.Breeding(generations=4)),
}


@pytest.mark.parametrize("name", RUNS)
def test_runs_are_the_same_at_once_and_one_after_the_other(name):
    (one, returned), (other, expected) = both(RUNS[name], budget=400)
    assert returned == expected
    assert list(one.products.items()) == list(other.products.items())
    for what in ("objects", "met", "origins", "lengths"):
        assert getattr(one, what) == getattr(other, what)


def test_many_products_are_computed_once_and_as_far_as_the_budget_lasts():
    asked = []

    def batch(objects, pairs):
        asked.append([(objects[i], objects[j]) for i, j in pairs])
        return [x + y if len(x + y) < 4 else None for x, y in asked[-1]]

    table = Table({"a": "a", "b": "bb"}, None, budget=3, batch=batch)
    assert table.many([(0, 1), (1, 1), (0, 1)]) == [2, None, 2]
    assert table.many([(1, 1), (0, 1)]) == [None, 2]
    with pytest.raises(BudgetSpent, match="3 combinations"):
        table.many([(0, 1), (0, 0), (1, 0)])
    assert asked == [[("a", "bb"), ("bb", "bb")], [("a", "a")]]
    assert table.objects == ["a", "bb", "abb", "aa"]
    assert table.met == {0: 0, 1: 0, 2: 1, 3: 3}
    assert table.many([(0, 0), (0, 1)]) == [3, 2]
    assert table.many([]) == []


PLACES = st.integers(0, 2)
ASKED = st.lists(st.lists(st.tuples(PLACES, PLACES), max_size=12), max_size=6)


@given(ASKED, st.sampled_from([4, 100]))
def test_an_array_of_pairs_gives_what_a_list_of_them_does_however_often_it_is_asked(asked, budget):
    one, other = (detachment_table(limit=13, budget=budget) for _ in range(2))
    for pairs in asked:
        try:
            expected = [-1 if k is None else k for k in one.many(pairs)]
        except BudgetSpent:
            with pytest.raises(BudgetSpent):
                other.at_once(np.array(pairs, np.int64).reshape(-1, 2))
        else:
            found = other.at_once(np.array(pairs, np.int64).reshape(-1, 2))
            assert found.tolist() == expected
        assert list(other.products.items()) == list(one.products.items())
        assert all(type(k) is int for pair in other.products for k in pair)


@pytest.mark.skipif(not kernel.COMPILED, reason="Numba is not installed")
def test_where_numba_is_installed_the_kernel_is_machine_code():
    Detacher(25)(list(AXIOMS.values()), [(0, 0)])
    assert kernel.detach_rows.signatures
    assert Detacher(25)([parse("CpCqp")], [(0, 0)]) == [parse("CpCqCrq")]


@pytest.mark.parametrize("numba", [None, types.ModuleType("numba")])
def test_where_numba_cannot_be_used_the_kernel_is_python(monkeypatch, numba):
    """It is not installed, or, as with a NumPy that is too new for it, cannot be imported."""
    monkeypatch.setitem(sys.modules, "numba", numba)
    own = importlib.util.spec_from_file_location("own_kernel", kernel.__file__)
    module = importlib.util.module_from_spec(own)
    own.loader.exec_module(module)
    assert not module.COMPILED
    assert module.Detacher(25)([parse("CpCqp")], [(0, 0)]) == [parse("CpCqCrq")]
