"""Boolean circuits: truth tables, programs, and the loop on them."""

import itertools
import math

from prosper_utils.blending.circuits import (
    GOALS,
    circuit_goals,
    circuit_table,
    evaluate,
    program,
    truth_table,
)
from prosper_utils.blending.evolution import BudgetSpent, Settings, evolve
from prosper_utils.blending.search import Breeding, breadth_first, breed, lightest_first, size

import numpy as np
import pytest


def test_bit_k_of_a_truth_table_is_the_value_at_the_bits_of_k():
    assert truth_table(lambda a: a, 1) == 0b10
    assert truth_table(lambda a, b: a, 2) == 0b1010
    assert truth_table(lambda a, b: b, 2) == 0b1100
    assert truth_table(lambda a, b: a and not b, 2) == 0b0010
    assert truth_table(lambda a, b: a + b, 2) == 0b1110  # a number counts as true or false


@pytest.mark.parametrize("word", ["whatever is true", 4, np.True_])
def test_what_a_function_returns_counts_as_true_or_false(word):
    assert truth_table(lambda a, b: word if a or b else type(word)(), 2) == 0b1110


@pytest.mark.parametrize("inputs", [1, 2, 3])
def test_gates_make_every_function(inputs):
    table = circuit_table(inputs)
    breadth_first(table)
    assert sorted(table.objects) == list(range(2**2**inputs))
    for x in table.objects:
        circuit = table.proof(x)
        values = itertools.product((False, True), repeat=inputs)
        for k, v in enumerate(values):
            assert evaluate(circuit, v[::-1]) == bool(x >> k & 1)


def test_a_program_has_each_distinct_gate_once():
    assert program("DDaDabDbDab") == [
        ("1", "a", "b"),
        ("2", "b", "1"),
        ("3", "a", "1"),
        ("4", "3", "2"),
    ]
    assert [evaluate("DDaDabDbDab", v) for v in ((0, 0), (0, 1), (1, 0), (1, 1))] == [0, 1, 1, 0]
    assert program("a") == []
    assert evaluate("a", [True]) is True


@pytest.mark.parametrize("circuit", ["", "Da", "Dabc", "DaX", "Dae", "ab"])
def test_what_is_no_circuit_is_refused(circuit):
    with pytest.raises(ValueError, match="circuit: expected"):
        program(circuit)


@pytest.mark.parametrize("inputs", [0, 5])
def test_there_are_one_to_four_inputs(inputs):
    with pytest.raises(ValueError, match=f"inputs: expected 1 to 4, found {inputs}"):
        circuit_table(inputs)


def test_the_goals_are_24_functions_and_no_inputs():
    goals = circuit_goals()
    assert len(goals) == len(GOALS) == 24
    assert sum(goals.values()) == pytest.approx(1, abs=1e-15)
    assert not set(goals) & set(circuit_table().axioms)


A, B, C, D, EVERY = 0xAAAA, 0xCCCC, 0xF0F0, 0xFF00, 0xFFFF  # truth tables of the inputs
AT_LEAST_TWO = A & B | A & C | A & D | B & C | B & D | C & D
AT_LEAST_THREE = A & B & C | A & B & D | A & C & D | B & C & D
LOW_CARRY = B & D  # of the sum of two numbers of two bits, a and c the upper ones
MADE = {
    "not a": EVERY ^ A,
    "a and b": A & B,
    "a or b": A | B,
    "a nor b": EVERY ^ (A | B),
    "a less than b": B & ~A,
    "a xor b": A ^ B,
    "a equals b": EVERY ^ A ^ B,
    "all of three": A & B & C,
    "any of three": A | B | C,
    "select a or b by c": A & ~C | B & C,
    "carry of three": A & B | C & (A ^ B),
    "sum of three": A ^ B ^ C,
    "one of three": (A ^ B ^ C) & ~(A & B & C),
    "all of four": A & B & C & D,
    "any of four": A | B | C | D,
    "a xor b, or c xor d": (A ^ B) | (C ^ D),
    "pairs ab and cd are equal": EVERY ^ ((A ^ C) | (B ^ D)),
    "number ab is less than cd": ~A & C | (EVERY ^ A ^ C) & ~B & D,
    "second bit of ab plus cd": A ^ C ^ LOW_CARRY,
    "third bit of ab plus cd": A & C | LOW_CARRY & (A ^ C),
    "second bit of ab times cd": (A & D) ^ (B & C),
    "at least two of four": AT_LEAST_TWO,
    "two of four": AT_LEAST_TWO & ~AT_LEAST_THREE,
    "sum of four": A ^ B ^ C ^ D,
}


def test_the_goals_are_what_gates_make_of_the_inputs():
    assert {name: truth_table(function, 4) for name, function in GOALS.items()} == MADE
    assert list(circuit_table().axioms) == [A, B, C, D]


@pytest.mark.parametrize("credit", ["support", "identity"])
def test_the_loop_builds_circuits(credit):
    table = circuit_table(budget=4000)
    history, _ = evolve(table, circuit_goals(), Settings(credit=credit, keep=30, loops=10))
    assert len(history.proofs) >= 8
    names = {f"{truth_table(function, 4):016b}": function for function in GOALS.values()}
    for goal, hit in history.proofs.items():
        for v in itertools.product((False, True), repeat=4):
            assert evaluate(hit["proof"], v) == bool(names[goal](*v))


def test_plain_search_takes_the_same_table():
    table = circuit_table(budget=4000)
    lightest_first(table, circuit_goals(), weight=lambda table, k: table.lengths[k])
    assert len(table.products) == 4000


def test_a_genetic_algorithm_breeds_circuits_too():
    for fitness in ("usefulness", "smallness"):
        table = circuit_table(budget=2000)
        breed(table, circuit_goals(), Breeding(fitness, population=50))
        assert len(table.products) == 2000
        assert size(table, 0) == size(table, len(table.objects) - 1) == 16


def test_a_program_has_no_more_inputs_than_there_are():
    for call in (lambda: program("Dac", 2), lambda: evaluate("Dac", [True, True])):
        with pytest.raises(ValueError, match="expected D and a, b only, found 'Dac'"):
            call()


@pytest.mark.parametrize(("inputs", "text"), [(1, "10"), (2, "1010"), (3, "10101010")])
def test_a_function_is_shown_by_all_its_bits_and_all_are_of_one_size(inputs, text):
    table = circuit_table(inputs)
    assert table.show(table.axioms[0]) == text
    assert table.show(0) == "0" * len(text)
    table.product(0, 0)
    assert [size(table, k) for k in range(inputs + 1)] == [len(text)] * (inputs + 1)


def test_the_budget_is_one_of_the_table():
    table = circuit_table(2, budget=1)
    table.product(0, 1)
    with pytest.raises(BudgetSpent):
        table.product(0, 0)
    assert circuit_table(2).budget == math.inf


@pytest.mark.parametrize("values", [(0, 1), (False, 2.0)])
def test_an_output_is_a_boolean_whatever_the_values_are(values):
    assert evaluate("a", values) is False
    assert evaluate("b", values) is True
    assert evaluate("Dab", values) is True
    assert evaluate("Dbb", values) is False
