"""The loop: its adjoint by hand, which zeros get credit, its bookkeeping, and what it proves."""

import dataclasses
import functools
import itertools
import math
import warnings

from prosper_utils.blending import evolution
from prosper_utils.blending.detachment import AXIOMS, detach, parse, show, theorem
from prosper_utils.blending.distributions import combine, distribution, pairs, support
from prosper_utils.blending.evolution import (
    CREDITS,
    PERSISTS,
    BudgetSpent,
    History,
    Loop,
    Settings,
    Table,
    advantages,
    closed,
    detachment_table,
    evolution_step,
    evolve,
    goal_weights,
    loops,
    move_weights,
    named,
    one_loop,
    propagate,
    recompute,
    step_of,
    unsettled,
)
from prosper_utils.lookahead.trajectory import pull_back, roll_out

import numpy as np
import pytest
import tensorflow as tf
from goals import GOALS
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_distributions import adjoint, differences, magmas, subsets

EVERYTHING = 10**6  # keep that many weights: no cut


def product_of(table):
    return lambda i, j: table[i, j]


def chosen_pairs(table, p, extra=()):
    return pairs(product_of(table), p, p, extra)


# One step


@given(magmas(), st.sampled_from([0.0, 0.2, 0.5, 1.0]), st.sampled_from(PERSISTS))
@settings(max_examples=150)
def test_the_adjoint_of_a_step_by_hand(magma, a, persists):
    table, p, w = magma
    n = len(p)
    p = p / sum(p)
    comb = np.zeros(n)
    for (x, y), z in table.items():
        if z is not None:
            comb[z] += p[x] * p[y]
    assume(sum(comb) > 0)
    total, mean = sum(comb), comb @ w / sum(comb)
    expected = a * w if persists == "all" else np.zeros(n)
    for (x, y), z in table.items():
        if z is not None:
            expected[x] += (1 - a) / total * p[y] * (w[z] - mean)
            expected[y] += (1 - a) / total * p[x] * (w[z] - mean)
    step, everything = evolution_step(a, EVERYTHING, persists, 2), chosen_pairs(table, p, range(n))
    found = adjoint(lambda p: step(p, everything), p, w)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    kept = np.eye(n)[:2].sum(axis=0) / 2 if persists == "axioms" else p
    np.testing.assert_allclose(step(tf.constant(p), everything), a * kept + (1 - a) * comb / total)


@given(magmas())
@settings(max_examples=15)
def test_a_step_against_finite_differences(magma):
    table, p, w = magma
    assume(chosen_pairs(table, p).supported)
    step, everything = evolution_step(0.4, EVERYTHING), chosen_pairs(table, p, range(len(p)))
    found = adjoint(lambda p: step(p, everything), p, w)
    expected = differences(lambda p: step(p, everything), p, w)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


@given(magmas(), st.data())
def test_the_value_of_a_step_does_not_depend_on_the_extra_support(magma, data):
    table, p, _ = magma
    extra, step = data.draw(subsets(len(p))), evolution_step(0.3, EVERYTHING)
    p = tf.constant(p / 0.7)
    found, expected = (step(p, chosen_pairs(table, p, s)) for s in (extra, ()))
    np.testing.assert_array_max_ulp(found.numpy(), expected.numpy(), maxulp=4)


@given(magmas())
def test_where_nothing_combines_a_step_is_the_identity(magma):
    _, p, w = magma
    n = len(p)
    idle = dict.fromkeys(itertools.product(range(n), repeat=2))
    zeros = np.flatnonzero(p == 0).tolist()
    only_new = idle | {(x, y): 0 for x in zeros for y in range(n)}
    for table in (idle, only_new):
        chosen = chosen_pairs(table, p, range(n))
        step = functools.partial(evolution_step(0.3, EVERYTHING), chosen=chosen)
        np.testing.assert_array_equal(step(tf.constant(p)), p)
        np.testing.assert_array_equal(adjoint(step, p, w), w)


def test_where_nothing_combines_what_persists_is_left():
    p, w = np.array([0.2, 0.0, 0.8]), np.array([1.0, 2.0, 3.0])
    none = chosen_pairs(dict.fromkeys(itertools.product(range(3), repeat=2)), p)
    found = {}
    for persists in PERSISTS:
        step = functools.partial(evolution_step(0.3, EVERYTHING, persists, 2), chosen=none)
        found[persists] = step(tf.constant(p)).numpy().tolist(), adjoint(step, p, w).tolist()
    assert found["all"] == (p.tolist(), w.tolist())
    assert found["value"] == (p.tolist(), [0, 0, 0])
    assert found["axioms"] == ([0.5, 0.5, 0], [0, 0, 0])


# Which zeros get credit


def credits(table, p, w, steps, a, extra):
    """Return the credit over T steps without normalisation, and the states."""
    credit, states = crediting(table, p, steps, a, extra)
    return credit(w), states


def crediting(table, p, steps, a, extra):
    """Return the credit as a function of the feedback, and the states."""

    def step(p, chosen):
        return a * p + (1 - a) * combine(p, p, chosen)[0]

    states = roll_out(lambda p, _: step(p, chosen_pairs(table, p)), tf.constant(p), [()] * steps)
    chosen = support(states[-1]) if extra == "support" else extra
    batches = [chosen_pairs(table, state, chosen) for state in states[:-1]]
    again = roll_out(step, states[0], batches)
    np.testing.assert_array_equal(again[-1], states[-1])
    return lambda w: pull_back(step, again, batches, tf.constant(w)).numpy(), states


@given(magmas(), st.integers(1, 3), st.sampled_from([0.0, 0.3, 0.5]))
@settings(max_examples=100)
def test_fixed_identity_support_and_exact_credit_are_ordered(magma, steps, a):
    table, p, w = magma
    w, tiny = np.abs(w), 1e-12
    identity, states = credits(table, p, w, steps, a, ())
    decoupled, _ = credits(table, p, w, steps, a, "support")
    exact, _ = credits(table, p, w, steps, a, range(len(p)))
    fixed = np.where(p > 0, identity, 0)
    assert np.all(fixed <= identity + tiny)
    assert np.all(identity <= decoupled + tiny)
    assert np.all(decoupled <= exact + tiny)
    if steps == 1:
        known = sorted({*support(p), *support(states[-1])})
        np.testing.assert_allclose(decoupled[known], exact[known], rtol=1e-13)


@given(magmas(), st.integers(1, 3))
@settings(max_examples=15)
def test_exact_credit_is_the_derivative_of_the_whole_trajectory(magma, steps):
    table, p, w = magma

    def image(p):
        p = p.numpy()
        for _ in range(steps):
            comb = np.zeros(len(p))
            for (x, y), z in table.items():
                if z is not None:
                    comb[z] += p[x] * p[y]
            p = 0.5 * p + 0.5 * comb
        return p

    exact, _ = credits(table, p, w, steps, 0.5, range(len(p)))
    np.testing.assert_allclose(exact, differences(image, p, w), rtol=1e-5, atol=1e-7)


@given(magmas(), st.integers(1, 3))
def test_credit_is_exact_where_s_is_closed_step_by_step(magma, steps):
    table, p, w = magma
    _, states = credits(table, p, w, steps, 0.5, ())
    closed = set(support(states[-1]))
    for state in states[:-1]:
        met = support(state)
        found = [table[k] for x in closed for y in met for k in ((x, y), (y, x))]
        closed = closed.union(z for z in found if z is not None)
    decoupled, _ = credits(table, p, w, steps, 0.5, sorted(closed))
    exact, _ = credits(table, p, w, steps, 0.5, range(len(p)))
    known = support(states[-1])
    np.testing.assert_allclose(decoupled[known], exact[known], rtol=1e-12, atol=1e-14)


@given(magmas(), st.integers(1, 3), st.sampled_from([0.2, 0.5]))
def test_persistence_gives_every_element_of_the_image_its_part(magma, steps, a):
    table, p, _ = magma
    credit, states = crediting(table, p, steps, a, ())
    for v in support(states[-1]):
        found = credit(np.eye(len(p))[v])
        assert found[v] >= a**steps - 1e-15
        if states[-2][v] == 0:  # it was generated in the last step, so it only persisted
            np.testing.assert_allclose(found[v], a**steps, rtol=1e-15)


def successors(last):
    """Return a table where 0 ∘ k = k + 1 for 0 < k < last; k + 1 has depth k."""
    return Table({"a": 0, "b": 1}, lambda x, y: y + 1 if x == 0 and 0 < y < last else None)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_the_horizon_is_one_step_further_with_extra_support(steps):
    p = tf.constant([0.5, 0.5], tf.float64)

    def found(credit, depth):
        table, chosen = successors(20), Settings(credit=credit, steps=steps)
        loop = one_loop(table, p, {depth + 1: 1.0}, chosen)
        gain = loop.credit - tf.tensordot(loop.states[0], loop.credit, 1)
        return [k for k in table.objects[2:] if gain[table.places[k]] > 1e-9]

    goal = {depth: depth + 1 for depth in range(1, steps + 3)}
    for depth in range(2, steps + 1):
        assert goal[depth] - 1 in found("identity", depth)
    assert found("identity", steps + 1) == []
    assert goal[steps + 1] - 1 in found("support", steps + 1)
    assert found("support", steps + 2) == []


# The horizon: depths, goals, and what has to be in the extra support


@st.composite
def growing(draw, most=9):
    """Draw a partial product on 0, ..., n - 1 whose results are larger than both factors."""
    n = draw(st.integers(3, most))
    keys = itertools.product(range(n), repeat=2)
    larger = {k: list(range(max(k) + 1, min(max(k) + 3, n))) for k in keys}
    table = {k: draw(st.sampled_from([*z, None])) if z else None for k, z in larger.items()}
    return n, table | {(0, 0): 1}


def supports(table, steps):
    """Return the supports D_0, ..., D_T from object 0 on: t is the depth of what is new in D_t."""
    found = [{0}]
    for _ in range(steps):
        made = {table[pair] for pair in itertools.product(found[-1], repeat=2)} - {None}
        found.append(found[-1] | made)
    return found


def credited(table, goal, steps, rounds):
    """Return the objects from which a path leads to the goal, by their definition alone."""
    met = supports(table, steps)
    extra = set(met[-1])
    for _ in range(rounds):
        pairs = [p for x in extra for y in met[-2] for p in ((x, y), (y, x))]
        extra |= {table[pair] for pair in pairs} - {None}
    wanted = {goal}
    for state in reversed(met[:-1]):
        known = state | extra
        wanted = wanted | {
            x for x in known for y in state if {table[x, y], table[y, x]} & wanted - {None}
        }
    return wanted & met[-1] - {0}


def depths(table, n):
    """Return the depth of each object that can be made at all."""
    met = supports(table, n)
    return {x: next(t for t in range(n + 1) if x in met[t]) for x in met[-1]}


def credit_for(table, goal, steps, rounds, everything=()):
    """Return {object of the image: its credit from a goal}, as the loop calculates it."""
    own, chosen = Table({"a": 0}, lambda x, y: table.get((x, y))), Settings(steps=steps, keep=10**6)
    states = propagate(own, tf.constant([1.0], tf.float64), chosen)
    image = support(states[-1])
    for x in everything:
        if x not in own.places:
            own.places[x] = len(own.objects)
            own.objects.append(x)
            own.lengths.append(1)
    extra = range(len(own.objects)) if everything else closed(own, states, image, rounds)
    states, batches = recompute(own, states, extra, chosen)
    if goal not in own.places:
        return dict.fromkeys([own.objects[k] for k in image], 0.0)
    cotangent = tf.one_hot(own.places[goal], len(own.objects), dtype=tf.float64)
    credit = pull_back(step_of(own, chosen), states, batches, cotangent).numpy()
    return {own.objects[k]: credit[k] for k in image}


@given(growing(), st.integers(1, 4), st.integers(0, 4), st.data())
@settings(max_examples=60)
def test_credit_goes_where_a_path_leads_and_nowhere_else(magma, steps, rounds, data):
    n, table = magma
    beyond = sorted(set(depths(table, n)) - supports(table, steps)[-1])
    assume(beyond)
    goal = data.draw(st.sampled_from(beyond))
    found = credit_for(table, goal, steps, rounds)
    expected = credited(table, goal, steps, rounds)
    if expected:
        assert depths(table, n)[goal] <= min(steps + 1 + rounds, 2 * steps)
    assert {x for x, credit in found.items() if credit != 0} - {0} == expected
    assert all(credit >= 0 for credit in found.values())


def small_tables():
    """Yield every partial product on 0, 1, 2, 3 with 0 ∘ 0 = 1 and results above both factors."""
    keys = list(itertools.product(range(3), repeat=2))
    choices = [[1], *([None, *range(max(key) + 1, 4)] for key in keys[1:])]
    nothing = dict.fromkeys(itertools.product(range(4), repeat=2))
    for values in itertools.product(*choices):
        yield 4, nothing | dict(zip(keys, values, strict=True))


def towers(height=9):
    """Yield every table where k + 1 is k times 0 or 1, and nothing else."""
    nothing = dict.fromkeys(itertools.product(range(height + 1), repeat=2))
    for partners in itertools.product((0, 1), repeat=height - 1):
        tower = {(k, y): k + 1 for k, y in enumerate(partners, 1)}
        yield height + 1, nothing | {(0, 0): 1} | tower


@pytest.mark.parametrize(("tables", "most"), [(small_tables, 2), (towers, 4)])
def test_the_farthest_goal_that_gives_credit_in_all_small_tables(tables, most):
    farthest = dict.fromkeys(itertools.product(range(1, most + 1), range(5)), 0)
    highest = 0
    for n, table in tables():
        depth = depths(table, n)
        highest = max(highest, *depth.values())
        for (steps, rounds), goal in itertools.product(farthest, depth):
            if depth[goal] > max(steps, farthest[steps, rounds]) and credited(
                table, goal, steps, rounds
            ):
                farthest[steps, rounds] = depth[goal]
    assert highest == n - 1
    for (steps, rounds), depth in farthest.items():
        assert depth == min(steps + 1 + rounds, 2 * steps, highest)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
@pytest.mark.parametrize("rounds", range(5))
@pytest.mark.parametrize("partners", [0, 1, 9])
def test_the_horizon_is_reached_and_not_passed(steps, rounds, partners):
    """In a chain, where j ∘ k = max(j, k) + 1 if the smaller one is at most `partners`."""
    table = {
        (x, y): max(x, y) + 1
        for x, y in itertools.product(range(2 * steps + 3), repeat=2)
        if min(x, y) <= partners
    }
    for goal in range(steps + 1, 2 * steps + 3):  # goal k has depth k
        credit = credit_for(table, goal, steps, rounds)
        seen = any(value > 0 for x, value in credit.items() if x > 0)
        assert seen == (goal <= min(steps + 1 + rounds, 2 * steps))


@given(growing(), st.integers(1, 4), st.data())
@settings(max_examples=30)
def test_one_round_less_than_steps_makes_the_credit_exact(magma, steps, data):
    n, table = magma
    goal = data.draw(st.integers(1, n - 1))
    exact = credit_for(table, goal, steps, 0, everything=range(n))
    for rounds in (steps - 1, steps + 1):
        found = credit_for(table, goal, steps, rounds)
        assert found.keys() == exact.keys()
        np.testing.assert_allclose(list(found.values()), list(exact.values()), atol=1e-13)


def test_a_run_closes_the_extra_support_in_its_rounds():
    p = tf.constant([0.5, 0.5], tf.float64)
    for steps, rounds, far in ((2, 0, 3), (2, 1, 4), (2, 2, 4), (3, 0, 4), (3, 1, 5), (3, 2, 6)):
        seen, image = [], range(2, steps + 2)
        for depth in range(3, 8):
            table, chosen = successors(20), Settings(steps=steps, rounds=rounds)
            loop = one_loop(table, p, {depth + 1: 1.0}, chosen)
            assert {table.objects[k] for k in loop.extra} == {0, 1, *image}
            if any(loop.credit[table.places[x]] > 1e-9 for x in image):
                seen.append(depth)
        assert max(seen) == far


def test_epsilon_bounds_the_feedback_and_the_support_of_the_image():
    products = {("a", "a"): "x", ("a", "b"): "c"}
    for epsilon in (1e-6, 0.02, 0.3):
        table = Table({x: x for x in "ab"}, lambda x, y: products.get((x, y)))
        p = distribution(table.places, {"a": 0.9, "b": 0.1})
        chosen = Settings(steps=1, credit="fitness", epsilon=epsilon)
        loop = one_loop(table, p, {"c": 1.0}, chosen)
        image = np.array([0.45, 0.05, 0.45, 0.05])
        np.testing.assert_allclose(loop.states[-1], image, rtol=1e-12)
        assert loop.extra == list(np.flatnonzero(image > epsilon))
        np.testing.assert_allclose(loop.credit, [0, 0, 0, 1 / (0.05 + epsilon)], rtol=1e-12)
        chosen = Settings(steps=1, loops=1, credit="identity", epsilon=epsilon)
        (found,) = evolve(table, {"c": 1.0}, chosen)[0].rows
        reached = 0.5 * 0.25 / 0.5  # from equal weights on the two letters
        assert found["divergence"] == pytest.approx(-np.log(reached + epsilon), rel=1e-12)


# What tells the arms from their neighbours


def one_of(axioms, products, goal, weights=None, met=(), **chosen):
    """Return {object: credit} of one loop, and its table."""
    table = Table({x: x for x in axioms}, lambda x, y: products.get((x, y)))
    for pair in met:
        table.product(*(table.places[x] for x in pair))
    p = distribution(table.places, weights or dict.fromkeys(axioms, 1 / len(axioms)))
    loop = one_loop(table, p, {goal: 1.0}, Settings(**chosen))
    return dict(zip(table.objects, loop.credit.numpy(), strict=True)), table


def test_without_credit_for_persistence_the_value_is_the_same_and_what_only_persisted_gets_none():
    products = {("a", "b"): "ab", ("ab", "a"): "aba"}
    images = {}
    for persists in ("all", "value"):
        table = Table({x: x for x in "ab"}, lambda x, y: products.get((x, y)))
        p = tf.constant([0.5, 0.5], tf.float64)
        images[persists] = propagate(table, p, Settings(persists=persists))[-1].numpy().tolist()
        credit, _ = one_of("ab", products, "aba", persists=persists)
        assert (credit["aba"] > 0) == (persists == "all")  # it can only have persisted
        assert credit["ab"] < 0 if persists == "value" else credit["ab"] > 0
    assert images["all"] == images["value"]


def test_where_only_axioms_persist_credit_needs_no_object_to_be_kept():
    """v ∘ a = z and z ∘ x = g: x must still be there in the second step."""
    products = {("a", "a"): "v", ("v", "a"): "z", ("z", "x"): "g"}
    found = {}
    for persists in PERSISTS:
        table = Table({x: x for x in "a"}, lambda x, y: products.get((x, y)))
        table.places["x"] = len(table.objects)
        table.objects.append("x")
        table.lengths.append(1)
        p = distribution(table.places, {"a": 0.5, "x": 0.5})
        loop = one_loop(table, p, {"g": 1.0}, Settings(persists=persists))
        credit = dict(zip(table.objects, loop.credit.numpy(), strict=True))
        found[persists] = credit["v"]
    assert found["all"] > 0
    assert found["value"] > 0
    assert found["axioms"] == 0


def test_without_persistence_the_axioms_are_lost_unless_they_are_given_anew():
    products = {("a", "b"): "ab", ("ab", "a"): "aba", ("aba", "b"): "abab"}
    for chosen, met in (({"persistence": 0.0}, False), ({"persists": "axioms"}, True)):
        credit, _ = one_of("ab", products, "abab", **chosen)
        assert ("abab" in credit) == met
        assert (credit["ab"] > 0) == met


def test_all_that_was_generated_is_credited_and_not_only_the_image():
    products = {("a", "a"): "b", ("b", "a"): "c", ("c", "a"): "d", ("d", "a"): "e"}
    met = [("a", "a"), ("b", "a"), ("c", "a")]
    found = {
        credit: one_of("a", products, "e", met=met, steps=1, credit=credit)[0].get("d", 0)
        for credit in ("identity", "support", "generated")
    }
    assert found["identity"] == found["support"] == 0
    assert found["generated"] > 0


def test_all_that_was_generated_may_earn_weight():
    table = Table({"a": "a"}, lambda x, y: x + y if len(x + y) < 9 else None)
    table.product(0, table.product(0, 0))
    p = tf.constant([1.0, 0, 0], tf.float64)
    extra = {
        c: one_loop(table, p, {"aaaa": 1.0}, Settings(steps=1, credit=c)).extra for c in CREDITS
    }
    assert extra["support"] == extra["identity"] == [0, 1]
    assert extra["generated"] == list(range(3))
    afresh = Table({"a": "a"}, table.combine)  # nothing was met before this very loop
    loop = one_loop(afresh, p[:1], {"aaaa": 1.0}, Settings(steps=2, credit="generated"))
    assert loop.extra == list(range(4))  # and not what the credit combines these to


# Stationary points

HALVES = {("a", "a"): "x", ("a", "b"): "c", ("b", "b"): "y"}
WANTED = {"x": 0.2, "c": 0.5, "y": 0.3}


def settling(count=100, **chosen):
    """Return the loops of a run on two letters, whose best weights are neither 0 nor 1."""
    table = Table({x: x for x in "ab"}, lambda x, y: HALVES.get((x, y)))
    return list(loops(table, WANTED, Settings(credit="fixed", steps=1, loops=count, **chosen)))


@functools.cache
def falling():
    """Return the loops of such a run with steps that fall."""
    return settling(200, step_decay=1.0)


def changes(run):
    """Return the largest change of a weight from each loop to the next."""
    p = [loop.states[0].numpy()[:2] for loop in run]
    return [np.abs(new - old).max() for old, new in itertools.pairwise(p)]


@pytest.mark.parametrize("credit", ["fixed", "identity"])
def test_with_a_fixed_support_nothing_without_weight_has_credit(credit):
    """The goal is met, and where the support may grow it has credit for having persisted."""
    words = Table({c: c for c in "ban"}, lambda x, y: x + y if x + y in "banana" else None)
    p = distribution(words.places, dict.fromkeys("ban", 1.0))
    found = one_loop(words, p, {"ba": 1.0}, Settings(credit=credit)).credit
    assert found[words.places["b"]] > 0
    assert (found[words.places["ba"]] > 0) == (credit == "identity")


def test_a_fixed_support_settles_with_steps_that_fall_and_not_without():
    steady, ever_less = settling(), falling()[:100]
    assert min(changes(steady)) > 0.04
    assert changes(ever_less)[-1] < 0.05 / 95
    assert unsettled(steady[-1]) > 10 * unsettled(ever_less[-1])
    assert unsettled(ever_less[-1]) < 0.01


def test_where_it_settles_the_conditions_hold():
    last = falling()[-1]
    p = last.states[0].numpy()[:2]
    assert p.min() > 0.1

    def loss(a):
        weights = np.array([a * a, a * (1 - a), (1 - a) ** 2])
        image = 0.5 * weights / weights.sum()
        return -np.log(image + 1e-6) @ list(WANTED.values())

    grid = np.linspace(0.001, 0.999, 9981)
    best = grid[np.argmin([loss(a) for a in grid])]
    assert abs(p[0] - best) < 1e-3


def test_a_stationary_point_has_average_credit_where_there_is_weight_and_no_more_elsewhere():
    p = tf.constant([0.5, 0.5, 0.0, 0.0])

    def distance(*credit, extra=(0, 1, 2, 3), barred=()):
        return unsettled(Loop([p], list(extra), tf.constant(credit)), barred)

    assert distance(1.0, 1.0, 1.0, -5.0) == 0
    assert distance(1.0, 1.0, 3.0, 0.0) == 2
    assert distance(1.0, 1.0, 3.0, 0.0, extra=(3,)) == 0
    assert distance(1.0, 1.0, 3.0, 0.0, barred=(2,)) == 0
    assert distance(0.0, 2.0, 0.0, 0.0) == 1
    early = Loop([p, tf.ones(4) / 4], [0, 1, 2, 3], tf.constant([1.0, 1.0, 1.0, -5.0]))
    assert unsettled(early) == 0  # weight is that of the first state, not of the image
    light = tf.constant([1 - 1e-9, 1e-9, 0.0], tf.float64)  # however little it is, it is weight
    credit = tf.constant([1.0, -4.0, -9.0], tf.float64)
    assert unsettled(Loop([light], [2], credit)) == pytest.approx(5, rel=1e-8)
    advantage, allowed = advantages(Loop([p], [2], tf.constant([0.0, 2.0, 5.0, 7.0])))
    assert advantage.tolist() == [-1, 1, 4, 0]
    assert allowed.tolist() == [True, True, True, False]


def test_a_stationary_point_stays_where_it_is():
    p = np.array([0.25, 0.75, 0.0])
    loop = Loop([tf.constant(p)], [2], tf.constant([2.0, 2.0, 1.0], tf.float64))
    np.testing.assert_allclose(move_weights(loop, (), Settings(), None), p, rtol=1e-15)


def test_steps_fall_with_the_number_of_the_loop():
    loop = Loop([tf.constant([0.5, 0.5])], [], tf.constant([1.0, 0.0]))
    for n, decay, size in ((1, 0.5, 0.05), (4, 0.5, 0.025), (4, 1.0, 0.0125), (4, 0.0, 0.05)):
        moved = move_weights(loop, (), Settings(step_decay=decay), None, n)
        np.testing.assert_allclose(moved, [0.5 + size, 0.5 - size], rtol=1e-6)


# Left identity = right identity: E = NC is equality, C in an equality the product, and as there are
# no constants, the left and the right identity are terms that do not unify, NCpp and NNp.
MONOID = {
    "t": parse("CNCpqCNCqrNCpr"),  # p = q, q = r: p = r
    "s": parse("CNCpqNCqp"),  # p = q: q = p
    "R": parse("NCCpNNqp"),  # p r = p
    "L": parse("NCCNCppqq"),  # l q = q
}
LEFT_IS_RIGHT = parse("NCNCppNNq")


def test_left_identity_is_right_identity():
    assert theorem("DsR", MONOID) == parse("NCpCpNNq")
    assert theorem("DDtDsRL", MONOID) == LEFT_IS_RIGHT


def test_only_the_extra_support_reaches_it_in_two_steps():
    gains = {}
    for credit in ("fixed", "identity", "support"):
        table = detachment_table(MONOID)
        p = distribution(table.places, dict.fromkeys(MONOID.values(), 0.25))
        loop = one_loop(table, p, {LEFT_IS_RIGHT: 1.0}, Settings(credit=credit))
        lemma = table.places[theorem("DtDsR", MONOID)]
        assert p.shape == 4
        assert loop.states[-1][lemma] > 0
        gains[credit] = loop.credit - tf.tensordot(loop.states[0], loop.credit, 1)
        assert (LEFT_IS_RIGHT in table.places) == (credit == "support")
        if credit == "support":
            assert gains[credit][lemma] > 0
            assert loop.states[-1][table.places[LEFT_IS_RIGHT]] == 0
            assert table.proof(LEFT_IS_RIGHT) == "DDtDsRL"
    assert not np.any(gains["fixed"])
    assert not np.any(gains["identity"])


# Bookkeeping


def test_a_table_asks_once_and_counts_failures():
    asked = []

    def product(x, y):
        asked.append((x, y))
        return x + y if len(x + y) < 4 else None

    table = Table({"a": "a", "b": "bb"}, product, budget=3)
    assert table.product(0, 1) == 2
    assert table.product(1, 1) is None
    assert [table.product(1, 1), table.product(0, 1)] == [None, 2]
    assert table.product(0, 0) == 3
    with pytest.raises(BudgetSpent):
        table.product(1, 0)
    assert table.product(0, 0) == 3
    assert asked == [("a", "bb"), ("bb", "bb"), ("a", "a")]
    assert table.objects == ["a", "bb", "abb", "aa"]
    assert table.met == {0: 0, 1: 0, 2: 1, 3: 3}


def test_a_table_keeps_the_shorter_proof_and_improves_what_is_built_on_it():
    table = Table({"a": 1, "b": 3}, lambda x, y: x + y)
    two = table.product(0, 0)
    four = table.product(two, two)
    assert table.proof(4) == "DDaaDaa"
    table.product(four, 0)
    assert table.proof(5) == "DDDaaDaaa"
    assert table.product(0, 1) == four
    assert table.proof(4) == "Dab"
    assert table.proof(5) == "DDaba"
    assert table.lengths[four] == 3


def test_of_proofs_of_one_length_the_first_stays():
    table = Table({"a": 1, "b": 2}, lambda x, y: x + y)
    assert table.product(0, 1) == table.product(1, 0)
    assert table.proof(3) == "Dab"


@pytest.mark.parametrize("budget", [1, 2.5, 40, math.inf])
def test_many_products_are_those_of_one_after_the_other_whatever_the_budget(budget):
    """The table numbers objects beyond 256, and a budget need not be whole."""

    def product(x, y):
        return (x * 31 + y * 7) % 1009 if (x + y) % 5 else None

    axioms = {chr(200 + k): k for k in range(300)}
    generator = np.random.default_rng(0)
    asked = [generator.integers(0, 300, (size, 2)) for size in (1, 60, 0, 60, 30)]
    asked += [np.concatenate([asked[3][::-1], asked[1]])]  # what is known, in another order
    asked += [np.array([(i, j) for i in (0, 1, 2) for j in (0, 1, 2, 256, 257, 258)])]
    assert product(5, 122) == 0  # the first axiom, whose place is 0: no None
    asked += [np.array([(5, 122)])]
    tables = [Table(axioms, product, budget) for _ in range(3)]
    tables[2].batch = lambda objects, new: [product(objects[i], objects[j]) for i, j in new]
    for batch in asked:
        results = []
        for table, method in zip(tables, ("product", "at_once", "at_once"), strict=True):
            try:
                if method == "product":
                    found = [table.product(*pair) for pair in map(tuple, batch.tolist())]
                    found = [-1 if k is None else k for k in found]
                else:
                    found = table.at_once(batch).tolist()
            except BudgetSpent:
                found = "spent"
            results.append((found, len(table.products), table.objects, table.met))
        assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("wrong", [[], [3], [3, 4, 5]])
def test_a_batch_of_another_length_is_refused_and_enters_nothing(wrong):
    table = Table({"a": 1, "b": 2}, None, batch=lambda objects, new: wrong)
    with pytest.raises(ValueError, match=f"batch: .* each of 2 pairs, found {len(wrong)}"):
        table.many([(0, 1), (1, 1)])
    assert table.products == {}
    assert table.objects == [1, 2]


def test_a_pair_that_is_listed_twice_is_computed_and_paid_for_once():
    asked = []

    def sums(objects, new):
        asked.extend(new)
        return [objects[i] + objects[j] for i, j in new]

    table = Table({"a": 1, "b": 2}, None, budget=2, batch=sums)
    assert table.many([(0, 1), (0, 1), (1, 1), (0, 1)]) == [2, 2, 3, 2]
    assert asked == [(0, 1), (1, 1)]
    assert table.objects == [1, 2, 3, 4]


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("keep", [10, EVERYTHING])
def test_recomputing_with_extra_support_changes_no_value(steps, keep):
    table, chosen = detachment_table(limit=15), Settings(steps=steps, keep=keep)
    p = distribution(table.places, dict(zip(table.axioms, (0.2, 0.3, 0.5), strict=True)))
    states = propagate(table, p, chosen)
    extra = support(states[-1])
    again, batches = recompute(table, states, extra, chosen)
    assert len(batches[0].left) > batches[0].supported
    for old, new in zip(states, again, strict=True):
        np.testing.assert_array_equal(old, new[: len(old)])
        assert not np.any(new[len(old) :])


def small(budget=10_000, goals=GOALS, **chosen):
    """Run for some thousand combinations; return the table, the history and the weights."""
    table = detachment_table(budget=budget)
    return table, *evolve(table, goal_weights(goals), Settings(keep=40, **chosen))


@pytest.mark.parametrize("credit", CREDITS)
def test_every_run_is_repeatable_and_keeps_its_books(credit):
    table, history, weights = small(credit=credit, loops=12, purge_every=5)
    assert len(table.products) <= 10_000
    assert sum(weights.values()) == pytest.approx(1, abs=1e-12)
    assert not set(weights) & set(GOALS)
    assert [r["loop"] for r in history.rows] == list(range(1, len(history.rows) + 1))
    counts = [r["combinations"] for r in history.rows]
    assert counts == sorted(counts)
    assert all(r["support"] <= 40 for r in history.rows)
    assert all(len(purge["weights"]) <= 32 for purge in history.purges)
    for goal, hit in history.proofs.items():
        assert show(theorem(hit["proof"])) == goal
        assert hit["combinations"] <= 10_000
    assert small(credit=credit, loops=12, purge_every=5)[1] == history


def test_support_grows_only_where_it_can():
    sizes = {c: len(small(credit=c, loops=2)[2]) for c in CREDITS}
    assert sizes["fixed"] == sizes["fitness"] == sizes["multiplicative"] == 3
    assert min(sizes[c] for c in ("identity", "support", "random")) > 3


def test_the_divergence_falls():
    rows = small(loops=20)[1].rows
    assert rows[-1]["divergence"] < rows[0]["divergence"] - 1


def test_a_row_is_about_the_last_state():
    words, goal = Table({"a": "a"}, lambda x, y: x + y if len(x + y) <= 8 else None), "a" * 8
    chosen = Settings(steps=3)
    loop = next(loops(words, {goal: 1.0}, chosen))
    found = evolution.row(1, words, {goal: 1.0}, loop, chosen)["divergence"]
    reached = [float(state[words.places[goal]]) for state in loop.states]
    assert reached[:-1] == [0, 0, 0] < reached[-1:]
    assert found == pytest.approx(-math.log(reached[-1] + chosen.epsilon))


def test_the_budget_is_spent_to_the_last_combination():
    table, history, _ = small(2000)
    assert len(table.products) == 2000
    assert history.rows[-1]["combinations"] < 2000
    assert history.settings["budget"] == 2000


def test_goals_earn_weight_only_if_they_may_be_stored():
    goals = ["Cpp", "CCpCpqCpq"]
    assert not set(goals) & set(small(goals=goals, loops=5)[2])
    assert set(goals) & set(small(goals=goals, loops=5, store_goals=True)[2])


def test_the_seed_matters_only_where_something_is_random():
    one, other = (small(credit="random", loops=3, seed=s)[2] for s in (0, 1))
    assert one != other
    one, other = (small(credit="support", loops=3, seed=s)[2] for s in (0, 1))
    assert one == other


def test_a_purge_keeps_the_heaviest():
    target = goal_weights(GOALS)
    runs = [
        list(loops(detachment_table(), target, Settings(loops=3, keep=40, **purge)))
        for purge in ({}, {"purge_every": 2, "purge_to": 10})
    ]
    before, after = (run[2].states[0].numpy() for run in runs)
    assert np.count_nonzero(before) > 10
    heaviest = np.argsort(-before, kind="stable")[:10]
    assert set(np.flatnonzero(after)) == set(heaviest)
    np.testing.assert_allclose(
        after[heaviest], before[heaviest] / sum(before[heaviest]), rtol=1e-12
    )


def test_weights_move_by_the_credit_above_average():
    p = np.array([0.5, 0.3, 0.2, 0.0, 0.0, 0.0, 0.0])
    credit = np.array([1.0, -4.0, 5.0, 2.0, 90.0, 0.30001, 80.0])  # on average 0.3
    loop = Loop([tf.constant(p)], [2, 3, 4, 5], tf.constant(credit))
    barred = [4]  # and 6 is not in the extra support
    change = 0.1 * (credit - 0.3) / 4.7
    expected = {
        "support": [0.5 + change[0], 0.3 + change[1], 0.2 + change[2], change[3], 0, 0, 0],
        "multiplicative": [*(p * np.exp(change))[:3], 0, 0, 0, 0],
    }
    for name, weights in expected.items():
        chosen = Settings(credit=name, step_size=0.1)
        moved = move_weights(loop, barred, chosen, None)
        np.testing.assert_allclose(moved, np.array(weights) / sum(weights), rtol=1e-12)
    few = move_weights(loop, barred, Settings(step_size=0.1, keep=2), None)
    assert support(few) == [0, 2]
    assert sum(few.numpy()) == pytest.approx(1, abs=1e-15)


def test_the_largest_change_is_the_step_size_whatever_its_sign():
    p, credit = np.array([0.3, 0.3, 0.4]), np.array([4.0, -9.0, 1.0])
    advantage = credit - p @ credit
    moved = move_weights(Loop([tf.constant(p)], [], tf.constant(credit)), (), Settings(), None)
    expected = p + 0.05 * advantage / -advantage[1]
    np.testing.assert_allclose(moved, expected / expected.sum(), rtol=1e-12)


def test_chance_is_drawn_anew_in_each_loop_from_the_generator_of_the_run():
    n = 12
    p, credit = np.zeros(n), np.arange(1.0, n + 1)
    p[0] = 1.0
    loop = Loop([tf.constant(p)], list(range(n)), tf.constant(credit))
    chosen, found = Settings(credit="random", seed=0), []
    run, same = np.random.default_rng(7), np.random.default_rng(7)
    for _ in range(2):
        moved = move_weights(loop, (), chosen, run).numpy()
        order = same.permutation(credit[1:] - 1)
        expected = np.array([1.0, *0.05 * order / order.max()])
        np.testing.assert_allclose(moved, expected / expected.sum(), rtol=1e-12)
        found.append(moved)
    assert not np.array_equal(*found)


def test_the_heaviest_come_first_of_equals_the_first_met_and_proofs_in_the_order_of_meeting():
    products = {("a", "b"): "z", ("b", "a"): "y", ("b", "b"): "x"}
    table = Table({x: x for x in "abc"}, lambda x, y: products.get((x, y)))
    p = tf.constant([0.2, 0.4, 0.4, 0.0], tf.float64)
    assert list(named(table, p)) == ["b", "c", "a"]
    target = {"x": 0.2, "y": 0.5, "z": 0.3}
    history, _ = evolve(table, target, Settings(credit="fixed", steps=1, loops=1))
    assert list(history.proofs) == ["z", "y", "x"]
    assert [hit["proof"] for hit in history.proofs.values()] == ["Dab", "Dba", "Dbb"]
    assert [hit["combinations"] for hit in history.proofs.values()] == [2, 4, 5]
    assert table.axioms == ["a", "b", "c"]  # what is met later is no axiom


def test_goals_not_met_are_left_out_and_the_others_keep_their_weights():
    table = Table({x: x for x in "ab"}, lambda x, y: None)
    for target, expected in (
        ({"b": 0.3, "a": 0.2, "not met": 0.5}, [0.2, 0.3]),
        ({"b": 0.25, "not met": 0.75}, [0.0, 0.25]),
        ({"not met": 1.0}, [0.0, 0.0]),
    ):
        found = evolution.target_vector(table, target, tf.float32)
        assert found.dtype == tf.float32
        np.testing.assert_array_equal(found, np.float32(expected))


def test_a_history_can_be_saved_and_loaded(tmp_path):
    _, history, _ = small(loops=4, purge_every=2)
    assert history.purges
    assert history.proofs
    history.save(tmp_path / "run.json")
    assert History.load(tmp_path / "run.json") == history
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    history.rows.append({"what JSON cannot hold": {1, 2}})
    with pytest.raises(TypeError):
        history.save(tmp_path / "run.json")
    assert History.load(tmp_path / "run.json").rows == history.rows[:-1]


# Bad input


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"steps": 0}, "steps: expected at least 1, found 0"),
        ({"keep": 0}, "keep: expected at least 1, found 0"),
        ({"loops": 0}, "loops: expected at least 1, found 0"),
        ({"purge_every": 0}, "purge_every: expected at least 1, found 0"),
        ({"purge_to": 0}, "purge_to: expected at least 1, found 0"),
        ({"step_size": 0}, "step_size: expected more than 0, found 0"),
        ({"epsilon": -1.0}, "epsilon: expected more than 0, found -1.0"),
        ({"epsilon": math.nan}, "epsilon: expected more than 0, found nan"),
        ({"step_size": math.nan}, "step_size: expected more than 0, found nan"),
        ({"persistence": 1.5}, r"persistence: expected a number in \[0, 1\], found 1.5"),
        ({"persistence": -0.5}, r"persistence: expected a number in \[0, 1\], found -0.5"),
        ({"persistence": math.nan}, r"persistence: expected a number in \[0, 1\], found nan"),
        ({"credit": "blend"}, "credit: expected one of fixed, .*; found 'blend'"),
        ({"persists": "none"}, "persists: expected one of all, value, axioms; found 'none'"),
        ({"rounds": -1}, "rounds: expected at least 0, found -1"),
        ({"step_decay": -0.5}, "step_decay: expected at least 0, found -0.5"),
        ({"step_decay": math.nan}, "step_decay: expected at least 0, found nan"),
    ],
)
def test_bad_settings_are_refused(chosen, message):
    with pytest.raises(ValueError, match=message):
        Settings(**chosen)


def test_all_or_nothing_may_persist():
    assert [Settings(persistence=a).persistence for a in (0, 1)] == [0, 1]


def test_settings_stay_as_they_were_checked():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().keep = 0


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({}, "at least one object, each once, found none"),
        ({parse("Cpp"): -1.0}, "not all zero, found -1.0"),
        ({parse("Cpp"): 0.0}, "not all zero, found zero for every object"),
        ({"nonsense": 1.0}, "formula: expected a tuple as parse returns it, found 'nonsense'"),
        *(
            ({parse("Cpp"): 0.5, formula: 0.5}, f"that are no axioms, found {show(formula)}")
            for formula in AXIOMS.values()
        ),
    ],
)
def test_bad_targets_are_refused(target, message):
    with pytest.raises(ValueError, match=message):
        evolve(detachment_table(), target, Settings())


@pytest.mark.parametrize(
    ("goals", "message"),
    [
        (["Cpp", "CpX"], "formula: expected C, N or a variable at position 2, found 'X'"),
        ([(-2, 0)], "formula: expected a tuple as parse returns it"),
        (["Cpp", "Cqq"], "each once, found .* twice"),
        ([], "found none"),
    ],
)
def test_bad_goals_are_refused(goals, message):
    with pytest.raises(ValueError, match=message):
        goal_weights(goals)


def test_axioms_without_names_are_refused():
    for axioms in ([parse("Cpp")], (parse("Cpp"),)):
        for call in (detachment_table, functools.partial(theorem, "1")):
            with pytest.raises(ValueError, match=r"axioms: expected \{name: formula\}, found"):
                call(axioms)
        with pytest.raises(ValueError, match=r"axioms: expected \{name: object\}, found"):
            Table(axioms, lambda major, minor: None)


@pytest.mark.parametrize("budget", [0, -5, math.nan])
def test_a_budget_of_nothing_is_refused(budget):
    with pytest.raises(
        ValueError, match=f"budget: expected at least 1 combination, found {budget}"
    ):
        detachment_table(budget=budget)


def test_a_table_without_axioms_is_refused():
    with pytest.raises(ValueError, match="support: expected at least one object"):
        detachment_table({})


def test_a_table_takes_the_kernel_where_it_is_compiled_and_there_is_a_limit(monkeypatch):
    for compiled in (True, False):
        monkeypatch.setattr(evolution, "COMPILED", compiled)
        assert (detachment_table().batch is not None) == compiled
        assert detachment_table(limit=None).batch is None


def test_goals_weigh_by_their_size():
    weights = goal_weights(["Cpp", "CpCqCrCsp", parse("CNpNp")])
    assert sum(weights.values()) == pytest.approx(1, abs=1e-15)
    assert weights[parse("Cpp")] / weights[parse("CpCqCrCsp")] == pytest.approx(2, rel=1e-14)
    weights = goal_weights(["Cpp", "CpCqCrCsp"], halving=3)
    assert list(weights.values()) == pytest.approx([0.8, 0.2], rel=1e-14)


# What it proves


@pytest.mark.parametrize("credit", ["support", "fixed", "fitness"])
def test_the_blend_proves_goals_and_the_extremes_do_not(credit):
    table = detachment_table(budget=60_000)
    history, _ = evolve(table, goal_weights(GOALS), Settings(credit=credit, loops=30))
    for goal, hit in history.proofs.items():
        assert theorem(hit["proof"]) == parse(goal)
        assert len(hit["proof"]) >= len(GOALS[goal])
    assert len(history.proofs) >= 14 if credit == "support" else len(history.proofs) <= 4


@pytest.mark.parametrize("way", ["at once", "at once, not compiled", "one by one"])
def test_products_of_a_table_are_detachments_within_the_limit(way, monkeypatch):
    monkeypatch.setattr(evolution, "COMPILED", evolution.COMPILED and way == "at once")
    table = detachment_table(limit=9)
    for _ in range(2):
        places = range(len(table.objects))
        if way == "one by one":
            found = [table.product(i, j) for i in places for j in places]
        else:
            found = table.many([(i, j) for i in places for j in places])
        assert found == [table.products[i, j] for i in places for j in places]
    for (i, j), k in table.products.items():
        formula = detach(table.objects[i], table.objects[j], 9)
        assert formula == (None if k is None else table.objects[k])
    longer = [detach(table.objects[i], table.objects[j]) for i, j in table.products]
    assert any(formula is not None and len(formula) > 9 for formula in longer)


def test_a_run_in_which_no_goal_has_been_met():
    words = Table({c: c for c in "ban"}, lambda x, y: x + y if x + y in "banana" else None)
    history, _ = evolve(words, {"banana": 1.0}, Settings(credit="fixed", loops=2))
    assert [row["proved"] for row in history.rows] == [0, 0]
    assert all(row["divergence"] > 0 for row in history.rows)
    assert history.proofs == {}


@pytest.mark.parametrize("credit", ["fixed", "identity", "support"])
@pytest.mark.parametrize("length", [2, 4, 5, 6, 7, 8])
def test_a_warning_tells_that_no_goal_is_within_reach(credit, length):
    goal, reach = "a" * length, 6 if credit == "support" else 4  # four letters, and two more
    words = Table({"a": "a"}, lambda x, y: x + y if len(x + y) <= 16 else None)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        *_, last = loops(words, {goal: 1.0}, Settings(credit=credit, loops=5))
    assert [w.filename for w in said] == [__file__] * (length > reach)
    if said:
        assert "found none among the" in str(said[0].message)
        assert len(said) == 1
        assert not np.any(last.credit)


def test_a_round_takes_in_the_products_with_every_state_but_the_last():
    words = Table({c: c for c in "ban"}, lambda x, y: x + y if len(x + y) <= 6 else None)
    p = distribution(words.places, {"b": 0.5, "a": 0.5})
    states = propagate(words, p, Settings(steps=3))
    extra = words.places["n"]  # which has no weight in any state

    def products(states):
        pairs = [
            (i, j) for p in states for i, j in itertools.product([*support(p), extra], repeat=2)
        ]
        return {words.product(i, j) for i, j in pairs if (i, j) != (extra, extra)} - {None}

    found = set(closed(words, states, [extra], 1))
    assert products(states[:1]) < products(states[:-1]) == found - {extra}
    assert extra in found


def test_feedback_is_on_the_last_state():
    words, p = Table({"a": "a"}, lambda x, y: x + y if len(x + y) <= 8 else None), tf.ones(1)
    chosen = Settings(credit="fitness", steps=3)
    loop = one_loop(words, tf.cast(p, tf.float64), {"a" * 8: 1.0}, chosen)
    place = words.places["a" * 8]
    assert loop.states[1].shape == loop.states[-1].shape
    assert loop.credit[place] == 1 / (loop.states[-1][place] + chosen.epsilon)


def test_the_warning_comes_with_the_first_loop():
    words = Table({"a": "a"}, lambda x, y: x + y if len(x + y) <= 16 else None)
    with pytest.warns(UserWarning, match="found none among the"):
        next(loops(words, {"a" * 8: 1.0}, Settings()))


def test_every_loop_has_its_number_and_goes_on_with_the_draws(monkeypatch):
    seen, draws = [], []

    def moved(loop, barred, settings, generator, n=1):
        seen.append(n)
        draws.append(generator.random())
        return move(loop, barred, settings, generator, n)

    move = evolution.move_weights
    monkeypatch.setattr(evolution, "move_weights", moved)
    words = Table({c: c for c in "ban"}, lambda x, y: x + y if x + y in "banana" else None)
    list(loops(words, {"ban": 1.0}, Settings(loops=4, seed=7)))
    assert seen == [1, 2, 3, 4]
    assert draws == list(np.random.default_rng(7).random(4))


@pytest.mark.parametrize("credit", ["random", "multiplicative"])
def test_what_differs_in_its_moves_alone_has_the_credit_of_the_blend(credit):
    found = []
    for mode in ("support", credit, "identity"):
        table = Table({"a": 0, "b": 1}, lambda x, y: y + 1 if x == 0 and 0 < y < 9 else None)
        p = tf.constant([0.5, 0.5], tf.float64)
        loop = one_loop(table, p, {3: 1.0}, Settings(credit=mode, steps=1))
        found.append(loop.credit.numpy().tolist())
    assert found[0] == found[1] != found[2]


def test_a_purge_is_noted_with_what_had_been_combined_before_it():
    chosen = Settings(keep=20, loops=5, purge_every=2, purge_to=10)
    history, _ = evolve(detachment_table(limit=15), goal_weights(GOALS), chosen)
    counts = [row["combinations"] for row in history.rows]
    assert counts[1] < counts[2]
    assert [(purge["loop"], purge["combinations"]) for purge in history.purges] == [
        (2, counts[1]),
        (4, counts[3]),
    ]


def test_the_support_of_a_row_is_that_before_its_loop():
    chosen, target = Settings(keep=20, loops=3), goal_weights(GOALS)
    history, weights = evolve(detachment_table(limit=15), target, chosen)
    found = [row["support"] for row in history.rows]
    run = loops(detachment_table(limit=15), target, chosen)
    assert found == [len(support(loop.states[0])) for loop in run]
    assert (found[0], found[-1]) == (3, len(weights))


def test_goals_met_in_a_loop_that_was_not_completed_are_proved():
    table = Table({"a": "a", "b": "b"}, lambda x, y: x + y, budget=2)
    history, weights = evolve(table, {"ab": 1.0}, Settings(steps=1))
    assert (history.rows, weights) == ([], {})
    assert history.proofs == {"ab": {"combinations": 2, "proof": "Dab"}}


def test_axioms_in_other_variables_are_the_same_goals():
    formula = parse("CpCqp")
    renamed = tuple(x if x < 0 else x + 7 for x in formula)
    table = detachment_table({"1": renamed})
    assert list(table.objects) == list(detachment_table({"1": formula}).objects)


@pytest.mark.parametrize("credit", CREDITS)
def test_a_loop_in_single_precision_is_that_in_double(credit):
    chosen, found = Settings(credit=credit, steps=2), {}
    for dtype in (tf.float32, tf.float64):
        words = Table({c: c for c in "ban"}, lambda x, y: x + y if len(x + y) <= 5 else None)
        p = distribution(words.places, dict(zip("ban", (0.2, 0.5, 0.3), strict=True)), dtype)
        loop = one_loop(words, p, {"banan": 0.75, "nab": 0.25}, chosen)
        moved = move_weights(loop, (), chosen, np.random.default_rng(0))
        assert {t.dtype for t in (*loop.states, loop.credit, moved)} == {dtype}
        found[dtype] = loop.credit
    np.testing.assert_allclose(found[tf.float32], found[tf.float64], rtol=1e-4, atol=1e-4)


def test_what_is_barred_loses_the_weight_that_it_has():
    p, credit = np.array([0.5, 0.3, 0.2]), np.array([1.0, 9.0, 2.0])
    loop = Loop([tf.constant(p)], [0, 1, 2], tf.constant(credit))
    for mode in ("support", "multiplicative"):
        moved = move_weights(loop, [1], Settings(credit=mode), None).numpy()
        assert moved[1] == 0
        assert sum(moved) == pytest.approx(1, abs=1e-15)
    advantage, allowed = advantages(loop, [1])
    np.testing.assert_allclose(advantage, [-2.6, 0, -1.6], rtol=1e-12)
    assert allowed.tolist() == [True, False, True]
    moved = move_weights(loop, [1], Settings(step_size=0.1), None)
    np.testing.assert_allclose(moved, np.array([4, 0, 2 - 16 / 26]) / (6 - 16 / 26), rtol=1e-12)


def test_a_purge_is_noted_with_the_weights_that_it_left():
    """Which are those that the next loop begins with, of total one, and the last loop's at last."""
    chosen, target = Settings(keep=20, loops=5, purge_every=2, purge_to=5), goal_weights(GOALS)
    history, weights = evolve(detachment_table(limit=15), target, chosen)
    table = detachment_table(limit=15)
    starts = [named(table, loop.states[0]) for loop in loops(table, target, chosen)]
    assert [purge["weights"] for purge in history.purges] == [starts[2], starts[4]]
    assert [len(start) for start in starts][2::2] == [5, 5]
    assert [sum(start.values()) for start in starts] == pytest.approx([1] * 5, abs=1e-12)
    assert weights == starts[-1]
    assert len(starts[3]) > 5


def test_a_run_is_told_with_its_settings_and_its_budget():
    table = Table({"a": "a"}, lambda x, y: x + y if len(x + y) <= 4 else None, budget=50)
    history, weights = evolve(table, {"aaa": 1.0}, Settings(loops=2, seed=3))
    assert history.settings == dataclasses.asdict(Settings(loops=2, seed=3)) | {"budget": 50}
    assert history.settings["credit"] == "support"
    assert list(history.rows[0]) == ["loop", "combinations", "proved", "divergence", "support"]
    assert history.proofs["aaa"]["proof"] in ("DaDaa", "DDaaa")
    assert next(iter(weights)) == "a"


def test_what_persists_of_axioms_is_of_the_type_of_the_weights():
    for dtype in (tf.float32, tf.float64):
        found = evolution.persisting(tf.zeros(3, dtype), "axioms", 2)
        assert found.dtype == dtype
        assert found.numpy().tolist() == [0.5, 0.5, 0]


def test_where_only_axioms_persist_they_are_those_of_the_table_however_much_it_has_met():
    table = Table({"a": "a", "b": "b"}, lambda x, y: x + y if x + y == "ab" else None)
    table.product(0, 1)
    chosen = Settings(steps=1, persistence=0.5, persists="axioms")
    states = propagate(table, tf.constant([0.25, 0.75, 0], tf.float64), chosen)
    np.testing.assert_allclose(states[-1], [0.25, 0.25, 0.5], rtol=1e-15)
