"""Worth: what a little weight brings is what the exact credit promises."""

from prosper_utils.blending import worth
from prosper_utils.blending.distributions import distribution, support
from prosper_utils.blending.evolution import (
    Settings,
    Table,
    detachment_table,
    evolve,
    goal_weights,
    loops,
    one_loop,
    padded,
)

import numpy as np
import pytest
import tensorflow as tf
from goals import GOALS

TARGET = goal_weights(GOALS)


@pytest.fixture(scope="module")
def run():
    """Return a table, the distribution before the second loop of the blend, and places to ask."""
    table = detachment_table(limit=25)
    _, second = loops(table, TARGET, Settings(step_size=0.03, loops=2))
    loop = one_loop(table, second.states[0], TARGET, Settings())
    without = [k for k in loop.extra if loop.states[0][k] == 0]
    return table, second.states[0], [*support(second.states[0])[:5], *without[:15]]


@pytest.mark.parametrize("steps", [1, 2])
def test_for_little_mass_the_drop_is_the_mass_times_the_exact_credit_above_average(run, steps):
    table, p, places = run
    settings = Settings(steps=steps, keep=10**6)
    found = worth.drops(table, p, places, TARGET, settings, mass=1e-10)
    everything = list(range(len(table.objects)))
    credit = worth.credit(table, p, everything, TARGET, settings)
    p = padded(p, table).numpy()
    advantage = credit[places] - credit[: len(p)] @ p
    assert np.abs(advantage).max() > 1
    np.testing.assert_allclose(found / 1e-10, advantage, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("mode", ["support", "identity", "fixed"])
def test_credit_is_that_of_a_loop(run, mode):
    table, p, _ = run
    settings = Settings(credit=mode)
    loop = one_loop(table, padded(p, table), TARGET, settings)
    extra = support(loop.states[-1], settings.epsilon)
    found = worth.credit(table, p, extra, TARGET, settings)
    np.testing.assert_allclose(found[: len(loop.credit)], loop.credit, rtol=1e-12, atol=1e-12)
    assert not np.any(found[len(loop.credit) :])


def test_nothing_is_changed_and_bad_mass_is_refused(run):
    table, p, places = run
    before = p.numpy().copy()
    worth.drops(table, p, places[:2], TARGET, Settings())
    assert np.array_equal(p.numpy(), before)
    for mass in (0, -0.1, np.nan):
        with pytest.raises(ValueError, match="mass: expected more than 0, found"):
            worth.drops(table, p, places[:1], TARGET, Settings(), mass)


def test_a_fiftieth_is_added_unless_another_mass_is_said(run):
    table, p, places = run
    found = worth.drops(table, p, places[:4], TARGET, Settings())
    assert np.array_equal(found, worth.drops(table, p, places[:4], TARGET, Settings(), 0.02))
    before = worth.loss(table, p, TARGET, Settings())
    for k, drop in zip(places, found, strict=False):
        more = padded(p, table).numpy()
        more[k] += 0.02
        after = worth.loss(table, tf.constant(more / more.sum()), TARGET, Settings())
        assert drop == pytest.approx(before - after, rel=1e-9, abs=1e-12)


def test_the_epsilon_of_the_settings_bounds_credit_and_loss(run):
    table, p, _ = run
    settings = [Settings(epsilon=epsilon) for epsilon in (1e-6, 1e-3)]
    found = [worth.credit(table, p, [], TARGET, s) for s in settings]
    assert found[0].max() > 10 * found[1].max() > 0
    losses = [worth.loss(table, p, TARGET, s) for s in settings]
    assert losses[0] > losses[1] + 1


def test_loss_is_what_the_history_of_a_run_calls_divergence():
    table, settings = detachment_table(), Settings(loops=3, step_size=0.03)
    history, _ = evolve(table, TARGET, settings)
    table = detachment_table()
    *_, last = loops(table, TARGET, settings)
    found = worth.loss(table, last.states[0], TARGET, settings)
    assert found == pytest.approx(history.rows[-1]["divergence"], rel=1e-12)


@pytest.mark.parametrize("mode", ["generated", "fitness", "random", "multiplicative"])
def test_modes_that_differ_elsewhere_take_the_extra_support_as_it_is_given(run, mode):
    table, p, places = run
    found, expected, plain = (
        worth.credit(table, p, extra, TARGET, Settings(credit=credit))
        for credit, extra in ((mode, places), ("support", places), ("support", ()))
    )
    np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(found, plain)


def test_single_precision_gives_the_drops_and_credit_of_double():
    words = Table({c: c for c in "ab"}, lambda x, y: x + y if len(x + y) <= 4 else None)
    target, chosen, found = {"abba": 0.5, "bab": 0.5}, Settings(steps=1), []
    for dtype in (tf.float32, tf.float64):
        p = distribution(words.places, {"a": 0.25, "b": 0.75}, dtype)
        drops = worth.drops(words, p, [0, 1, 2], target, chosen, mass=0.5)
        credit = worth.credit(words, p, [2, 3], target, chosen)
        assert (credit.dtype, len(drops)) == (dtype.as_numpy_dtype, 3)
        found.append([*drops, *credit / np.abs(credit).max()])
    np.testing.assert_allclose(*found, rtol=1e-3, atol=1e-4)
