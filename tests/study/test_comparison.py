"""Comparisons over seeds: intervals, paired differences, and Holm's correction."""

import itertools
import re

from prosper_utils.study.comparison import (
    Interval,
    by_seed,
    carried_over,
    holm,
    interval,
    paired,
    plus_minus,
    rank_correlation,
    stated,
)

import numpy as np
import pandas as pd
import pytest
from conftest import with_spaces
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

NUMBERS = st.floats(-100, 100)


@given(st.lists(NUMBERS, min_size=3, max_size=12).filter(lambda v: np.std(v) > 1e-3))
def test_the_interval_is_that_of_the_t_test(values):
    expected = stats.ttest_1samp(values, 0)
    found = interval(values)
    assert found.mean == pytest.approx(np.mean(values))
    assert found[1:3] == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.p == pytest.approx(expected.pvalue, abs=1e-12)


def test_half_of_the_narrow_intervals_miss():
    draws = np.random.default_rng(0).normal(1, 1, (2000, 5))
    inside = [low < 1 < high for _, low, high, _ in (interval(d, 0.5) for d in draws)]
    assert np.mean(inside) == pytest.approx(0.5, abs=0.05)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=8), NUMBERS)
def test_what_a_seed_adds_to_both_does_not_matter(pairs, shift):
    first, second = (dict(enumerate(column)) for column in np.transpose(pairs))
    moved = [{seed: v + shift * seed for seed, v in arm.items()} for arm in (first, second)]
    assert paired(*moved)[:3] == pytest.approx(paired(first, second)[:3], abs=1e-6)
    assert paired(second, first).mean == pytest.approx(-paired(first, second).mean)


def test_only_seeds_that_both_have_are_paired():
    arms = {0: 5.0, 1: 1.0, 2: 2.0}, {2: 1.0, 1: 0.5, 7: 9.0}
    assert paired(*arms) == interval([0.5, 1.0])
    assert paired(*arms, level=0.5) == interval([0.5, 1.0], level=0.5)
    many = {seed: float(seed**2) for seed in range(12)}  # all of them, however many
    assert paired(many, dict.fromkeys(range(3, 20), 1.0)) == interval(
        [seed**2 - 1.0 for seed in range(3, 12)]
    )
    with pytest.raises(ValueError, match="at least two"):
        paired({0: 1.0, 1: 2.0}, {1: 1.0, 2: 2.0})


def test_an_arm_of_a_table_by_seed():
    columns = {"score": ["a", "a", "b", "a"], "seed": [1, 0, 0, 1], "error": [3.0, 2.0, 9.0, 4.0]}
    table = pd.DataFrame(columns | {"sparsity": [0.9, 0.9, 0.9, 0.5]})
    assert by_seed(table, score="a", sparsity=0.9) == {1: 3.0, 0: 2.0}
    assert by_seed(table, "sparsity", score="a", error=3.0) == {1: 0.9}
    with pytest.raises(ValueError, match="found a seed twice"):
        by_seed(table, score="a")
    with pytest.raises(ValueError, match="found none"):
        by_seed(table, score="c")


def test_values_that_agree_have_no_width():
    assert interval([2.0, 2.0, 2.0]) == (2.0, 2.0, 2.0, 0.0)
    assert paired({4: 1.0, 5: 3.0}, {4: 1.0, 5: 3.0}) == (0.0, 0.0, 0.0, 1.0)


def test_holm_on_an_example_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10), st.randoms())
def test_holm_follows_a_permutation_and_lies_between_the_bounds(p_values, random):
    adjusted, order = holm(p_values), list(range(len(p_values)))
    random.shuffle(order)
    assert holm([p_values[i] for i in order]) == pytest.approx(adjusted[order])
    assert all(adjusted >= np.array(p_values) - 1e-15)
    assert all(adjusted <= np.minimum(1, len(p_values) * np.array(p_values)) + 1e-15)


def test_bad_input():
    with pytest.raises(ValueError, match="at least two"):
        interval([1.0])
    for shape in ((), (0,), (2, 1), (2, 3)):
        with pytest.raises(ValueError, match=rf"in a row, found shape {re.escape(str(shape))}"):
            interval(np.ones(shape))
    for wrong in (np.nan, np.inf, -np.inf):
        for values in ([1.0, wrong], [wrong, 1.0, 2.0]):
            with pytest.raises(ValueError, match="finite"):
                interval(values)


def test_intervals_as_texts_do_not_break():
    texts = {
        stated(Interval(-1.25, -2.04, -0.46, 0.01)): "−1.2 [−2.0, −0.5] *",
        stated(Interval(0.5, -0.3, 1.3, 0.3)): "+0.5 [−0.3, +1.3]",
        stated(Interval(0.5, -0.3, 1.3, 0.3), 2, star=True): "+0.50 [−0.30, +1.30] *",
        stated(Interval(0.5, 0.3, 1.3, 0.3), star=False): "+0.5 [+0.3, +1.3]",
        stated(Interval(0.5, 0.0, 1.0, 0.05)): "+0.5 [+0.0, +1.0]",  # 0 is in it
        stated(Interval(-0.5, -1.0, 0.0, 0.05)): "−0.5 [−1.0, +0.0]",
        stated(Interval(0.5, -0.1, 1.1, 0.03)): "+0.5 [−0.1, +1.1]",  # its level is 99%
        stated(Interval(0.5, 0.1, 0.9, 0.07)): "+0.5 [+0.1, +0.9] *",  # and here 90%
        plus_minus(Interval(4.06, 3.92, 4.2, 0.0)): "4.1 ± 0.1",
        plus_minus(Interval(4.06, 3.92, 4.2, 0.0), 2): "4.06 ± 0.14",
    }
    for found, expected in texts.items():
        assert " " not in found
        assert with_spaces(found) == expected


def test_a_rank_correlation_takes_what_rounding_parts_for_a_tie():
    drop = np.array([0.0, 0.0, 1.0, 2.0])
    assert rank_correlation(drop + 1e-15 * drop[::-1], drop) == pytest.approx(1)
    assert rank_correlation(-drop, drop) == pytest.approx(-1)
    assert rank_correlation([3, 1, 2], [30, 10, 20]) == pytest.approx(1)
    assert rank_correlation(drop + 1e-9 * drop[::-1], drop) < 1  # this is no rounding
    for level in (np.ones(4), np.zeros(4)):
        assert rank_correlation(level, drop) == rank_correlation(drop, level) == 0


def test_ties_are_equal_to_twelve_decimals_of_the_largest():
    for scale in (1.0, 50.0):
        largest = np.array([scale, scale, 0.0])
        for step, tied in ((4e-13, True), (4e-12, False)):
            found = rank_correlation(largest - step * np.array([0.0, scale, 0.0]), largest)
            assert (found == pytest.approx(1)) is tied


VALUES = st.lists(st.integers(0, 20), min_size=4, max_size=6)


def domains(first, second):
    return dict(enumerate(first)), dict(enumerate(second))


def test_a_choice_is_judged_by_what_it_gives_elsewhere():
    found = carried_over(*domains([5, 9, 9, 2], [10, 30, 50, 70]))
    assert found[:4] == (40, 70, 40, 10)
    assert found.correlation == pytest.approx(stats.spearmanr([5, 9, 9, 2], [1, 3, 5, 7]).statistic)
    with pytest.raises(ValueError, match=r"expected the same in both domains, found \[1, 2\]"):
        carried_over({0: 1, 1: 2}, {0: 1, 2: 2})


def test_a_p_value_is_never_zero():
    """The order that was found is one of those that chance may give."""
    for sign in (1, -1):
        found = carried_over(*domains(range(12), [sign * n for n in range(12)]), draws=40)
        assert found.p == pytest.approx(1 / 41)


def test_a_stored_p_value_can_be_drawn_again():
    first, second = [3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2, 8, 1, 8]
    a, b = (stats.zscore(stats.rankdata(x)) for x in (first, second))
    orders = np.random.default_rng(0).permuted(np.tile(b, (200, 1)), axis=1)
    larger = sum(abs(order @ a) > abs(a @ b) - 1e-9 for order in orders)
    assert carried_over(*domains(first, second), draws=200).p == (1 + larger) / 201
    for seed in range(1, 5):
        orders = np.random.default_rng(seed).permuted(np.tile(b, (200, 1)), axis=1)
        assert sum(abs(order @ a) > abs(a @ b) - 1e-9 for order in orders) != larger


def test_where_all_choices_are_level_there_is_no_order_to_compare():
    for first, second in (([1, 2, 3], [4, 4, 4]), ([4, 4, 4], [1, 2, 3])):
        found = carried_over(*domains(first, second))
        assert np.isnan([found.correlation, found.p]).all()
        assert found.given == np.mean(second)  # of several that are best, or of all alike


@given(VALUES, st.randoms())
def test_the_p_value_of_a_correlation_is_the_share_of_permutations(first, random):
    second = [random.randrange(20) for _ in first]
    found = carried_over(*domains(first, second), draws=4000)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert np.isnan(found.p)
        return
    a, b = (stats.zscore(stats.rankdata(x)) for x in (first, second))
    every = [a @ b[list(order)] / len(a) for order in itertools.permutations(range(len(a)))]
    exact = np.mean(np.abs(every) >= abs(found.correlation) - 1e-9)
    assert found.p == pytest.approx(exact, abs=0.05)
    assert found.correlation == pytest.approx(rank_correlation(first, second))


@given(VALUES, st.randoms())
def test_what_is_carried_over_does_not_depend_on_names_and_scales(first, random):
    second = [random.randrange(20) for _ in first]
    found = carried_over(*domains(first, second), draws=50)
    scaled = carried_over(*domains([2 * x + 1 for x in first], [3 * y for y in second]), draws=50)
    assert [3 * x for x in found[:4]] == pytest.approx(scaled[:4])
    np.testing.assert_allclose(found[4:], scaled[4:])
    assert found.worst <= found.given <= found.best


@pytest.mark.parametrize("scale", [1e-14, 1e9])
def test_what_is_a_tie_does_not_depend_on_the_scale(scale):
    drop = np.array([0.0, 0.0, 1.0, 2.0])
    assert rank_correlation(scale * (drop + 1e-15 * drop[::-1]), drop) == pytest.approx(1)


def test_choices_are_matched_by_name_whatever_their_order():
    first = dict(zip("abcde", (5, 9, 1, 2, 7), strict=True))
    second = dict(zip("abcde", (10, 30, 50, 70, 20), strict=True))
    turned = dict(reversed(second.items()))
    found = carried_over(first, turned, draws=50)
    assert found.given == 30
    assert found == carried_over(first, second, draws=50)


def test_the_median_of_what_choices_give_is_no_mean():
    found = carried_over({0: 1, 1: 2, 2: 3}, {0: 10, 1: 20, 2: 90}, draws=10)
    assert found[:4] == (90, 90, 20, 10)


def test_columns_of_a_table_are_compared_by_their_index():
    first, second = pd.Series({"a": 1, "b": 3, "c": 2}), pd.Series({"c": 20, "a": 40, "b": 30})
    found = carried_over(first, second, draws=50)
    assert found == carried_over(dict(first), dict(second), draws=50)
    assert found.given == 30


def test_the_best_choice_is_alone_if_it_is_better_by_little():
    assert carried_over({0: 1.0, 1: 1.0 + 1e-10}, {0: 10, 1: 50}, draws=10).given == 50
