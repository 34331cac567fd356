"""Functions of distributions against their definitions, adjoints by hand, and differences."""

import itertools

from prosper_utils.blending.distributions import (
    big_sum,
    combination,
    combine,
    composition,
    distribution,
    divergence,
    evaluation,
    feedback,
    identity,
    index,
    inner_product,
    linear_combination,
    move,
    normalised,
    pairs,
    scalar_product,
    support,
    top_k,
)

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, given, settings
from hypothesis import strategies as st

WORDS = ["".join(w) for n in (1, 2, 3) for w in itertools.product("ab", repeat=n)]
CONCATENATION = {(x, y): x + y for x in WORDS for y in WORDS if len(x + y) <= 3}
SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def magmas(draw):
    """Draw the objects 0, ..., n - 1, a partial product, weights with zeros, and feedback."""
    n = draw(st.integers(2, 6))
    product = st.one_of(st.none(), st.integers(0, n - 1))
    table = {key: draw(product) for key in itertools.product(range(n), repeat=2)}
    weights = draw(st.lists(st.sampled_from([0.0, 0.0, 0.1, 0.3, 0.7]), min_size=n, max_size=n))
    assume(any(weights))
    values = st.floats(-2, 2).map(lambda x: round(x, 3))
    return table, np.array(weights), np.array(draw(st.lists(values, min_size=n, max_size=n)))


def subsets(n):
    return st.sets(st.integers(0, n - 1)).map(sorted)


def adjoint(function, p, w):
    """Return the gradient of <function(p), w>, by a tape."""
    p = tf.convert_to_tensor(p)
    with tf.GradientTape() as tape:
        tape.watch(p)
        value = tf.reduce_sum(function(p) * w)
    return tf.convert_to_tensor(tape.gradient(value, p, unconnected_gradients="zero")).numpy()


def differences(function, p, w, h=1e-6):
    """Return the same by differences: central ones, forward ones of second order at zeros."""
    p, found = np.array(p, np.float64), []

    def value(t, j):
        q = p.copy()
        q[j] += t
        return float(tf.reduce_sum(function(tf.constant(q)) * w))

    for j in range(len(p)):
        if p[j] > 0:
            found.append((value(h, j) - value(-h, j)) / (2 * h))
        else:
            found.append((4 * value(h, j) - 3 * value(0, j) - value(2 * h, j)) / (2 * h))
    return np.array(found)


def comb_by_hand(table, p, q):
    image = np.zeros(len(p))
    for (x, y), z in table.items():
        if z is not None:
            image[z] += p[x] * q[y]
    return image


# What a distribution is


def test_a_support_numbers_its_objects_in_order():
    assert index(["b", "a", (1, 2)]) == {"b": 0, "a": 1, (1, 2): 2}


@pytest.mark.parametrize(
    ("objects", "found"), [([], "found none"), (["a", "b", "a"], "found 'a' twice")]
)
def test_a_support_without_objects_or_with_equal_ones_is_refused(objects, found):
    with pytest.raises(ValueError, match=f"expected at least one object, each once, {found}"):
        index(objects)


def test_weights_are_a_vector_of_any_float_type():
    places = index("abc")
    p = distribution(places, {"c": 2, "a": 0.5})
    assert p.dtype == tf.float64
    np.testing.assert_array_equal(p, [0.5, 0, 2])
    assert distribution(places, {"c": 2}, tf.float32).dtype == tf.float32


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"a": -0.1, "b": 1}, "not all zero, found -0.1"),
        ({"a": float("nan")}, "not all zero, found nan"),
        ({"a": float("inf")}, "not all zero, found inf"),
        ({"a": 0.0}, "found zero for every object"),
        ({}, "found zero for every object"),
        ({"d": 1.0}, "weights: expected objects of the support, found 'd'"),
    ],
)
def test_bad_weights_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        distribution(index("abc"), weights)


@given(st.integers(1, 6), st.data())
def test_one_bad_weight_is_refused_wherever_it_is(n, data):
    weights = dict.fromkeys(range(n), 1.0)
    weights[data.draw(st.integers(0, n - 1))] = bad = data.draw(
        st.sampled_from([-1e-300, float("nan"), float("inf"), -float("inf")])
    )
    with pytest.raises(ValueError, match=f"expected finite ones >= 0, not all zero, found {bad}"):
        distribution(index(range(n)), weights)


def test_of_several_bad_weights_the_first_is_named():
    with pytest.raises(ValueError, match=r"found -1\.0$"):
        distribution(index("abc"), {"b": -1.0, "c": -2.0})


def test_weights_are_compared_in_double_precision():
    """What single precision rounds to zero has weight, and what it takes for equal is not."""
    assert support(tf.constant([1e-60, 0.0, 1e-300], tf.float64)) == [0, 2]
    assert support(np.array([1.0, 1 + 1e-12]), 1 + 1e-13) == [1]
    p = tf.constant([1.0, 1 + 1e-12, 1 - 1e-12], tf.float64)
    np.testing.assert_array_equal(top_k(p, 1), [0, p[1], 0])
    np.testing.assert_array_equal(top_k(p, 2), [p[0], p[1], 0])
    assert float(normalised(1e-60 * p)[0]) == pytest.approx(1 / 3, rel=1e-11)


def test_the_essential_support_is_what_is_above_epsilon():
    p = tf.constant([0.0, 0.2, 1e-7, 0.5])
    assert support(p) == [1, 2, 3]
    assert support(p, 1e-6) == [1, 3]
    assert support(p, 0.5) == []


# The functions, by their definitions


@given(magmas(), st.floats(-2, 2), st.floats(-2, 2))
def test_sums_products_and_evaluations(magma, a, b):
    table, p, w = magma
    places = index(range(len(p)))
    square = {x: table[x, x] for x in places}
    moved = np.zeros(len(p))
    for x, z in square.items():
        if z is not None:
            moved[z] += p[x]
    np.testing.assert_allclose(move(places, square)(p), moved, atol=1e-15)
    np.testing.assert_array_equal(identity(p), p)
    combined = linear_combination((a, b), (identity, move(places, square)))
    np.testing.assert_allclose(combined(p), a * p + b * moved, atol=1e-15)
    np.testing.assert_allclose(normalised(p), p / sum(p), rtol=1e-15)
    np.testing.assert_allclose(inner_product(p, w), p @ w, atol=1e-15)
    np.testing.assert_array_equal(scalar_product(a, p), a * p)
    assert [evaluation(places, x)(p) for x in places] == list(p)


def test_a_composition_applies_the_last_function_first():
    places = index("abc")
    first, then = move(places, {"a": "b", "c": "a"}), move(places, {"b": "c"})
    p = distribution(places, {"a": 1.0, "b": 2.0, "c": 4.0})
    np.testing.assert_array_equal(composition(then, first)(p), then(first(p)))
    np.testing.assert_array_equal(composition(then, first)(p), [0, 0, 1])
    np.testing.assert_array_equal(composition(first, then)(p), [2, 0, 0])


@given(magmas(), SEEDS)
def test_a_combination_is_the_sum_over_all_pairs(magma, seed):
    table, p, _ = magma
    q = np.random.default_rng(seed).permutation(p)
    found = combination(index(range(len(p))), table)(tf.constant(p), tf.constant(q))
    np.testing.assert_allclose(found, comb_by_hand(table, p, q), atol=1e-15)


def test_words_under_concatenation():
    places = index(WORDS)
    p = distribution(places, {"a": 0.5, "ab": 0.25})
    image = combination(places, CONCATENATION)(p, p)
    found = {WORDS[k]: float(image[k]) for k in support(image)}
    assert found == {"aa": 0.25, "aab": 0.125, "aba": 0.125}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda i: combination(i, {("a", "d"): "b"}), "combination table: .* found 'd'"),
        (lambda i: combination(i, {("d", "a"): "b"}), "combination table: .* found 'd'"),
        (lambda i: combination(i, {("a", "b"): "d"}), "combination table: .* found 'd'"),
        (lambda i: combination(i, {}, ["d"]), "extra support: .* found 'd'"),
        (lambda i: big_sum(i, lambda v: identity, ["d"]), "extra support: .* found 'd'"),
        (lambda i: move(i, {"d": "a"}), "move: .* found 'd'"),
        (lambda i: move(i, {"a": "d"}), "move: .* found 'd'"),
        (lambda i: evaluation(i, "d"), "evaluation: .* found 'd'"),
    ],
)
def test_objects_outside_the_support_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(index("abc"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: normalised(0 * p), "expected a finite total weight above 0, found 0.0"),
        (lambda p: normalised(-p), "expected a finite total weight above 0, found -"),
        (lambda p: normalised(np.nan * p), "expected a finite total weight above 0, found nan"),
        (lambda p: normalised(1e308 * p), "expected a finite total weight above 0, found inf"),
        (lambda p: big_sum(index("abc"), lambda v: identity)(0 * p), "big sum: .* found none"),
        (lambda p: linear_combination((1,), (identity, identity)), "found 1 for 2"),
        (lambda p: linear_combination((1, 2), (identity,)), "found 2 for 1"),
        (lambda p: linear_combination((), ()), "found 0 for 0"),
        (lambda p: top_k(p, 0), "expected k of at least 1, found 0"),
    ],
)
def test_sums_of_nothing_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(tf.ones(3, tf.float64))


# Adjoints


@given(magmas())
@settings(max_examples=12)
def test_every_function_against_finite_differences(magma):
    table, p, w = magma
    n = len(p)
    places, everything = index(range(n)), list(range(n))
    square = move(places, {x: table[x, x] for x in places})
    comb = combination(places, table, everything)
    terms = big_sum(places, lambda v: move(places, {y: table[v, y] for y in places}), everything)
    functions = [
        identity,
        square,
        normalised,
        comb_with_itself := lambda p: comb(p, p),
        terms,
        lambda p: comb(p, tf.constant(abs(w))),
        lambda p: comb(tf.constant(abs(w)), p),
        linear_combination((0.3, -0.7), (identity, comb_with_itself)),
        composition(square, comb_with_itself, normalised),
        lambda p: scalar_product(evaluation(places, 0)(p), p),
        lambda p: scalar_product(inner_product(p, w), square(p)),
        lambda p: divergence(tf.constant(w**2), p, 0.5),
    ]
    for i, function in enumerate(functions):
        found, expected = adjoint(function, p, w), differences(function, p, w)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8, err_msg=f"{i}")


@given(magmas(), st.data())
def test_the_adjoint_of_a_combination_by_hand(magma, data):
    table, p, w = magma
    extra = data.draw(subsets(len(p)))
    comb = combination(index(range(len(p))), table, extra)
    found = adjoint(lambda p: comb(p, p), p, w)
    chosen = set(support(p)) | set(extra)
    expected = np.zeros(len(p))
    for (x, y), z in table.items():
        if z is not None and x in chosen and y in chosen:
            expected[x] += p[y] * w[z]
            expected[y] += p[x] * w[z]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@given(magmas())
def test_the_adjoints_of_moving_and_normalising_by_hand(magma):
    table, p, w = magma
    places = index(range(len(p)))
    square = {x: table[x, x] for x in places}
    by_hand = [0 if z is None else w[z] for z in square.values()]
    np.testing.assert_array_equal(adjoint(move(places, square), p, w), by_hand)
    mean = p @ w / sum(p)
    np.testing.assert_allclose(adjoint(normalised, p, w), (w - mean) / sum(p), atol=1e-12)


def test_a_softmax_gives_zeros_no_gradient_and_linear_weights_do():
    p, w = np.array([0.5, 0.5, 0.0]), np.array([1.0, 0.0, 5.0])
    with np.errstate(divide="ignore"):
        logits = np.log(p)
    assert adjoint(tf.nn.softmax, logits, w)[2] == 0
    assert adjoint(normalised, p, w)[2] == 4.5


# The extra support


@given(magmas(), st.data())
def test_the_value_does_not_depend_on_the_extra_support_to_the_last_bit(magma, data):
    table, p, _ = magma
    n = len(p)
    p, extra = tf.constant(p / 0.7), data.draw(subsets(n))
    places = index(range(n))

    def term(v):
        return move(places, {y: table[v, y] for y in range(n)})

    np.testing.assert_array_equal(big_sum(places, term, extra)(p), big_sum(places, term)(p))
    for other in (p, p[::-1]):
        plain, chosen = (pairs(lambda i, j: table[i, j], p, other, s) for s in ((), extra))
        (image, total), (again, same) = combine(p, other, plain), combine(p, other, chosen)
        np.testing.assert_array_equal(image, again)
        assert total == same
        by_hand = comb_by_hand(table, p.numpy(), other.numpy())
        np.testing.assert_allclose([*image, total], [*by_hand, sum(by_hand)], rtol=1e-14)


def test_the_value_of_a_large_sum_does_not_depend_on_it_either():
    generator = np.random.default_rng(0)
    n = 300
    table = generator.integers(-n, n, (n, n))

    def product(i, j):
        return table[i, j] if table[i, j] >= 0 else None

    weights = generator.random(n) * (generator.random(n) < 0.5)
    double = tf.constant(weights, tf.float64)
    chosen = [pairs(product, double, double, s) for s in ((), range(n), range(0, n, 3))]
    for p in (double, tf.cast(double, tf.float32)):
        results = [combine(p, p, those) for those in chosen]
        assert results[0][0].dtype == p.dtype
        for image, total in results[1:]:
            np.testing.assert_array_equal(image, results[0][0])
            assert total == results[0][1]
            np.testing.assert_array_max_ulp(image / total, results[0][0] / results[0][1], maxulp=4)


@given(magmas(), st.data())
def test_a_term_of_weight_zero_gives_its_function_to_the_gradient(magma, data):
    table, p, w = magma
    n = len(p)
    extra, places = data.draw(subsets(n)), index(range(n))
    terms = {v: move(places, {y: table[v, y] for y in range(n)}) for v in range(n)}
    found = adjoint(big_sum(places, terms.get, extra), p, w)
    plain = adjoint(big_sum(places, terms.get), p, w)
    for v in range(n):
        gain = float(inner_product(terms[v](p), w)) if v in extra and p[v] == 0 else 0
        np.testing.assert_allclose(found[v] - plain[v], gain, atol=1e-13)


@given(magmas(), st.data())
def test_a_combination_is_a_big_sum_in_each_factor(magma, data):
    table, p, w = magma
    n = len(p)
    extra, places = data.draw(subsets(n)), index(range(n))

    def term(v):
        def inner(y):
            z = table[v, y]
            return lambda p: tf.zeros(n, p.dtype) if z is None else tf.one_hot(z, n, dtype=p.dtype)

        return big_sum(places, inner, extra)

    nested = big_sum(places, term, extra)
    comb = combination(places, table, extra)
    np.testing.assert_allclose(nested(tf.constant(p)), comb(p, p), rtol=1e-14)
    found = adjoint(lambda p: comb(p, p), p, w)
    np.testing.assert_allclose(found, adjoint(nested, p, w), rtol=1e-12, atol=1e-12)


@given(magmas(), st.data())
def test_pairs_of_two_zeros_are_left_out_and_no_other(magma, data):
    table, p, _ = magma
    extra = data.draw(subsets(len(p)))
    chosen = pairs(lambda i, j: table[i, j], p, p, extra)
    found = [tuple(t.numpy().tolist()) for t in chosen[:3]]
    triples = list(zip(*found, strict=True))
    reach = set(support(p)) | set(extra)
    expected = {
        (x, y, z)
        for (x, y), z in table.items()
        if z is not None and {x, y} <= reach and p[x] + p[y] > 0
    }
    assert set(triples) == expected
    assert len(triples) == len(expected)
    inner = [p[x] * p[y] > 0 for x, y, _ in triples]
    assert inner == [True] * chosen.supported + [False] * (len(inner) - chosen.supported)


# Cutting, and what is aimed at


@given(st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.7]), min_size=1, max_size=8), st.integers(1, 9))
def test_top_k_keeps_the_heaviest_and_lets_the_gradient_pass(weights, k):
    p, w = np.array(weights) / 0.7, np.arange(1.0, len(weights) + 1)
    best = sorted(range(len(p)), key=lambda i: (-p[i], i))[:k]
    np.testing.assert_array_equal(
        top_k(tf.constant(p), k), np.where(np.isin(range(len(p)), best), p, 0)
    )
    np.testing.assert_array_equal(adjoint(lambda p: top_k(p, k), p, w), w)


@given(magmas())
def test_the_feedback_is_minus_the_gradient_of_the_divergence(magma):
    _, p, w = magma
    target = tf.constant(w**2)
    with tf.GradientTape() as tape:
        p = tf.constant(p)
        tape.watch(p)
        value = divergence(target, p, 1e-3)
    np.testing.assert_allclose(-tape.gradient(value, p), feedback(target, p, 1e-3), rtol=1e-12)
    assert np.isfinite(value)


def test_the_divergence_is_that_of_kullback_and_leibler():
    target, p = np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.25, 0.5])
    np.testing.assert_allclose(divergence(target, p, 0.0), np.log(2), rtol=1e-14)
    np.testing.assert_allclose(divergence(target, target, 0.0), 0, atol=1e-15)


def test_pairs_are_those_with_two_weights_and_then_those_with_one():
    """By hand: each factor has a support of its own, and so an extra support of its own."""
    p, q = np.array([0.5, 0.5, 0.0, 0.0]), np.array([0.0, 1.0, 0.0, 0.0])
    chosen = pairs(lambda i, j: (i + j) % 4 if i != 3 else None, p, q, extra=(0, 1, 2, 3))
    found = list(zip(chosen.left.numpy().tolist(), chosen.right.numpy().tolist(), strict=True))
    assert found[: chosen.supported] == [(0, 1), (1, 1)]
    assert sorted(found[chosen.supported :]) == [
        *((0, j) for j in (0, 2, 3)),
        *((1, j) for j in (0, 2, 3)),
        (2, 1),
    ]
    assert chosen.product.numpy().tolist() == [(i + j) % 4 for i, j in found]


def test_the_total_gives_credit_to_pairs_with_a_factor_of_weight_zero():
    """By hand: of the total p_0 q_0 + p_0 q_1 + p_1 q_0, where p_1 and q_1 are zero."""
    p, q = tf.constant([0.5, 0.0], tf.float64), tf.constant([0.25, 0.0], tf.float64)
    chosen = pairs(lambda i, j: 0, p, q, extra=(1,))
    with tf.GradientTape() as tape:
        tape.watch([p, q])
        total = combine(p, q, chosen)[1]
    assert total == 0.125
    by_p, by_q = map(tf.convert_to_tensor, tape.gradient(total, [p, q]))
    np.testing.assert_array_equal(by_p, [0.25, 0.25])
    np.testing.assert_array_equal(by_q, [0.5, 0.5])


TIMES = {("a", "b"): "a", ("a", "c"): "b", ("c", "a"): "c", ("c", "b"): "a", ("b", "b"): "c"}


def slope(function):
    """Return the gradient of <function(p), w> where c has no weight."""
    p = tf.constant([0.4, 0.6, 0.0], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(p)
        value = tf.reduce_sum(function(p) * [1.0, -2.0, 5.0])
    return tf.convert_to_tensor(tape.gradient(value, p)).numpy().tolist()


def test_what_is_named_twice_is_a_term_of_a_big_sum_once():
    places = index("abc")

    def found(extra):
        term = lambda v: move(places, {y: TIMES.get((v, y)) for y in "abc"})  # noqa: E731
        return slope(big_sum(places, term, extra))

    assert found("cc") == found("c") != found("")


def test_what_is_named_twice_is_combined_once():
    def found(extra):
        return slope(lambda p: combination(index("abc"), TIMES, extra)(p, p))

    assert found("cc") == found("c") != found("")


def test_where_nothing_is_aimed_at_a_zero_has_no_part_in_divergence_and_feedback():
    """Without an epsilon, too: there is no 0 / 0 and no 0 log 0."""
    target, p = (tf.constant(x, tf.float64) for x in ([0.5, 0.5, 0.0], [0.25, 0.75, 0.0]))
    found = float(divergence(target, p, 0.0))
    assert found == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3), rel=1e-14)
    np.testing.assert_allclose(feedback(target, p, 0.0), [2, 2 / 3, 0], rtol=1e-14)
    np.testing.assert_allclose(feedback(target, p, 0.25), [1, 0.5, 0], rtol=1e-14)


@pytest.mark.parametrize("dtype", [tf.float16, tf.float32, tf.float64])
def test_functions_stay_in_the_float_type_of_their_weights(dtype):
    places = index("abc")
    p = distribution(places, {"a": 0.25, "b": 0.75}, dtype)
    term = lambda v: move(places, {y: TIMES.get((v, y)) for y in "abc"})  # noqa: E731
    chosen = pairs(lambda i, j: 2 if i < j else None, p, p, (2,))
    functions = [
        identity,
        normalised,
        evaluation(places, "b"),
        move(places, {"a": "c"}),
        linear_combination((0.5, 2), (identity, normalised)),
        big_sum(places, term, "c"),
        lambda p: combination(places, TIMES, "c")(p, p),
        lambda p: combine(p, p, chosen)[0],
        lambda p: combine(p, p, chosen)[1],
        lambda p: top_k(p, 1),
        lambda p: scalar_product(inner_product(p, p), p),
        lambda p: divergence(p, p, 1e-3),
        lambda p: feedback(p, p, 1e-3),
    ]
    assert {function(p).dtype for function in functions} == {dtype}


def test_of_maps_and_tables_zero_is_an_object_and_none_is_nothing():
    places = index([0, 1])
    p = distribution(places, {0: 0.5, 1: 0.25})
    np.testing.assert_array_equal(move(places, {0: 1, 1: 0})(p), [0.25, 0.5])
    np.testing.assert_array_equal(move(places, {0: None, 1: 0})(p), [0.25, 0])
    table = {(0, 0): 0, (0, 1): None, (1, 1): 1}
    np.testing.assert_array_equal(combination(places, table)(p, p), [0.25, 0.0625])


def test_of_objects_the_first_that_comes_again_is_named():
    with pytest.raises(ValueError, match="found 'a' twice"):
        index("cabab")


def test_factors_have_supports_of_their_own():
    """By hand: on the left two weights above zero, on the right one, and the third is extra."""
    p, q = np.array([0.5, 0.25, 0.0]), np.array([0.0, 0.0, 0.5])
    chosen = pairs(lambda i, j: 2 - i if i + j > 1 else None, p, q, extra=(0,))
    found = [part.numpy().tolist() for part in chosen[:3]]
    assert (found, chosen.supported) == ([[0, 1], [2, 2], [2, 1]], 2)
    chosen = pairs(lambda i, j: 0, p, q, extra=(2, 1))
    found = sorted(zip(*(part.numpy().tolist() for part in chosen[:2]), strict=True))
    assert (found, chosen.supported) == ([(0, 1), (0, 2), (1, 1), (1, 2), (2, 2)], 2)
