"""A check that cannot fail is none: each one here is made to fail."""

import re

from prosper_utils.study.checks import check, check_equal, relative_error

import numpy as np
import pytest
import tensorflow as tf


def test_relative_error_is_over_all_entries_together():
    assert relative_error([np.array([3.0]), np.array([4.0])], [np.zeros(1), np.array([5.0])]) == (
        pytest.approx(np.sqrt(9 + 1) / 5)
    )


def test_relative_error_sees_what_single_precision_does_not():
    expected = np.array([1.0, 1e8])
    found = expected + np.array([1e-4, 0.0])
    assert relative_error([found], [expected]) == pytest.approx(1e-12, rel=1e-3)


def test_a_bound_is_not_reached():
    with pytest.raises(AssertionError, match=r"below 0\.5, found 0\.5"):
        check_equal("half", [np.array([1.5])], [np.ones(1)], 0.5)


def test_what_cannot_be_compared_is_named():
    expected = [np.ones(2)]
    for found in (
        [np.ones(3)],
        [np.ones(1)],
        [1.0],
        [np.ones((1, 2))],
        [],
        [*expected, np.ones(2)],
    ):
        said = f"expected shapes [(2,)], found {[np.shape(t) for t in found]}"
        with pytest.raises(ValueError, match=re.escape(said)):
            relative_error(found, expected)
    with pytest.raises(ValueError, match="not zero throughout"):
        relative_error([np.ones(3)], [np.zeros(3)])


def test_a_claim_is_printed_with_its_bound_and_no_measured_number(capsys):
    check_equal("one = one", [np.ones(2)], [np.ones(2) + 1e-13], 1e-10)
    check("zero is small", 0 < 1)
    assert capsys.readouterr().out == ("✓ one = one: relative error below 1e-10\n✓ zero is small\n")


@pytest.mark.parametrize("found", [1.1, np.nan, np.inf])
def test_a_claim_that_does_not_hold_stops(found):
    with pytest.raises(AssertionError, match="expected a relative error below"):
        check_equal("one = other", [np.array([found])], [np.ones(1)], 1e-10)
    for false in (False, np.bool_(False), tf.constant(False), None, 0, []):
        with pytest.raises(AssertionError, match="does not hold: up is down"):
            check("up is down", false)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_relative_errors_of_low_precision_are_taken_in_double(dtype):
    """Squares of these numbers do not fit into the type."""
    large = {"float16": 300.0, "bfloat16": 2.0**80, "float32": 2.0**80}[dtype]
    found, expected = (tf.constant([k * large], dtype) for k in (1.5, 1))
    assert relative_error([found], [expected]) == pytest.approx(0.5)
