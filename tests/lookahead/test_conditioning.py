"""The report beside a meta-gradient: explicit products, and errors made to order."""

import warnings

from prosper_utils.lookahead.conditioning import (
    ENOUGH,
    RATIO,
    ROUNDING,
    Conditioning,
    UndeterminedMask,
    advice,
    agreement,
    check_double,
    checked,
    conditioning,
    relative,
    suspect,
    vector,
)
from prosper_utils.lookahead.conditioning import relative_error as error_of_arrays
from prosper_utils.lookahead.meta_gradient import Cotangents, cotangents, meta_gradient
from prosper_utils.pruning.networks import lenet5
from prosper_utils.study.checks import relative_error

import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_loss
from hypothesis import given, settings
from hypothesis import strategies as st

SWEEPS = ["reverse", "checkpointed"]


def quadratic(weights, batch):
    """Return w'Hw/2 - r'w for the batch (H, r)."""
    (w,), (hessian, shift) = weights, batch
    return tf.tensordot(w, tf.linalg.matvec(hessian, w) / 2 - shift, 1)


def chaotic(weights, batch):
    """Return a loss whose steps fold every weight by itself: rounding doubles at each of them."""
    return tf.reduce_sum(tf.cos(4 * weights[0])) + 0 * tf.reduce_sum(
        tf.cast(batch, weights[0].dtype)
    )


def in_double(weights):
    return [tf.cast(w, tf.float64) for w in weights]


def case(steps, size=200):
    """Return weights and batches for `chaotic`."""
    weights = [tf.constant(np.random.default_rng(0).normal(size=size), tf.float32)]
    return weights, [np.zeros(1, np.float32)] * (steps + 1)


def as_float32(reference):
    weights, batches, _ = reference
    return [tf.cast(w, tf.float32) for w in weights], batches


@pytest.mark.parametrize("method", SWEEPS)
@given(st.integers(0, 2**32 - 1), st.integers(0, 6), st.sampled_from([0.0, 0.5]))
@settings(max_examples=15)
def test_norms_and_ratio_are_those_of_the_explicit_products(method, seed, steps, momentum):
    generator = np.random.default_rng(seed)
    matrices = generator.normal(size=(steps + 1, 3, 3))
    matrices = matrices + matrices.transpose(0, 2, 1)
    batches, w = [(h, h[0]) for h in matrices], generator.normal(size=3)
    at, buffer = w, np.zeros(3)
    for hessian, shift in batches[:-1]:
        buffer = momentum * buffer + hessian @ at - shift
        at = at - 0.1 * buffer
    v, q = batches[-1][0] @ at - batches[-1][1], np.zeros(3)
    expected = [v]
    for hessian, _ in reversed(batches[:-1]):
        through = q - 0.1 * v  # how the end answers to b_m: directly, and through w_{m+1}
        v, q = v + hessian @ through, momentum * through
        expected.insert(0, v)
    options = {"learning_rate": 0.1, "momentum": momentum, "method": method}
    report = conditioning(quadratic, [tf.constant(w)], batches, **options)
    np.testing.assert_allclose(report.norms, np.linalg.norm(expected, axis=1), rtol=1e-10)
    ratio = np.linalg.norm(w * expected[0]) / np.linalg.norm(w * expected[-1])
    assert report.ratio == pytest.approx(ratio, rel=1e-10)
    np.testing.assert_allclose(report.scores[0], w * expected[0], rtol=1e-9, atol=1e-12)
    found = cotangents(quadratic, [tf.constant(w)], batches, **options)
    np.testing.assert_allclose(found.last[0], expected[-1], rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(found.weights[0], at, rtol=1e-10, atol=1e-13)


def test_the_scores_are_the_meta_gradient(reference):
    weights, batches, _ = reference
    for method in [*SWEEPS, "unrolled"]:
        options = {"learning_rate": 0.5, "momentum": 0.9, "method": method}
        report = conditioning(tiny_loss, weights, batches, **options)
        expected = meta_gradient(tiny_loss, weights, batches, **options)
        assert relative_error(report.scores, expected) < 1e-14
        assert relative_error(checked(tiny_loss, weights, batches, **options), expected) < 1e-14
        assert (report.rounding, report.error, report.determined) == (None, None, None)
        assert len(report.norms) == (2 if method == "unrolled" else len(batches))


@pytest.mark.parametrize("scored", [None, [0, 2]])
def test_the_error_is_the_difference_from_float64(reference, scored):
    weights, batches = as_float32(reference)
    fine = in_double(weights)
    report = conditioning(
        tiny_loss,
        weights,
        batches,
        learning_rate=0.5,
        scored=scored,
        double=(fine, tiny_loss),
    )
    found = meta_gradient(tiny_loss, weights, batches, learning_rate=0.5)
    exact = meta_gradient(tiny_loss, fine, batches, learning_rate=0.5, method="unrolled")
    if scored:
        found, exact = [found[0], found[2]], [exact[0], exact[2]]
    expected = relative_error([tf.cast(f, tf.float64) for f in found], exact)
    assert report.error == pytest.approx(expected, rel=1e-6)
    assert 1e-9 < report.rounding < 1e-6
    assert report.determined == 1


def test_rounding_sees_a_kink_that_float32_is_on_the_other_side_of():
    """In float32, 0.1 times 10 is 1; in float64 it is more, and the slope is another one."""

    def loss(weights, batch):
        x = tf.cast(batch, weights[0].dtype)
        return tf.reduce_sum(tf.nn.relu(weights[0] * x - 1) + 0.5 * weights[0] * x)

    weights = [tf.constant([0.1, 0.3], tf.float32)]
    options = {"learning_rate": 0.1, "double": (in_double(weights), loss)}
    report = conditioning(loss, weights, [np.array([10.0, 10.0])], **options)
    assert report.ratio == 1
    # w * gradient is (0.1 * 5, 0.3 * 15) instead of (0.1 * 15, 0.3 * 15)
    assert report.rounding == pytest.approx(1 / np.hypot(1.5, 4.5), rel=1e-6)
    assert report.error == pytest.approx(report.rounding, rel=1e-12)


@given(st.lists(st.integers(-50, 50), min_size=4, max_size=30), st.integers(0, 2**32 - 1))
def test_agreement_counts_the_kept_weights_that_both_keep(a, seed):
    a = np.array(a, float)
    b = np.random.default_rng(seed).permutation(a)

    def best(scores):  # ties: the lower index
        return set(sorted(range(len(a)), key=lambda i: (-abs(scores[i]), i))[: -(-len(a) // 4)])

    assert agreement(a, b, 0.75) == len(best(a) & best(b)) / -(-len(a) // 4)


def test_a_mask_that_float32_does_not_determine_is_warned_of_with_its_numbers():
    weights, batches = case(steps=30)
    options = {"learning_rate": 0.25, "double": (in_double(weights), chaotic)}
    report = conditioning(chaotic, weights, batches, **options)
    assert report.ratio > 1e6
    assert report.error > 0.5
    assert report.determined < 0.5
    growth = report.norms[:-1] / report.norms[1:]
    assert np.exp(np.mean(np.log(growth))) > 1.5
    words = (
        rf"{report.ratio:.3g} times.*float32 is {report.error:.2g}.*keeps {report.determined:.1%}"
    )
    with pytest.warns(
        UndeterminedMask, match=rf"{words}.*float64.*smaller learning rate or M".replace("+", r"\+")
    ):
        found = checked(chaotic, weights, batches, **options)
    assert relative_error(found, report.scores) == 0


def test_without_a_double_a_large_ratio_is_warned_of():
    weights, batches = case(steps=30)
    words = "whether float32 can hold it was not measured"
    with pytest.warns(UndeterminedMask, match=words) as said:
        checked(chaotic, weights, batches, learning_rate=0.25)
    assert said[0].filename == __file__


@pytest.mark.parametrize(
    ("steps", "learning_rate", "always", "second"),
    [(2, 0.01, False, False), (2, 0.01, True, True), (30, 0.25, False, True)],
)
def test_a_second_sweep_is_made_only_where_something_demands_it(
    steps, learning_rate, always, second
):
    calls = []

    def counted(weights, batch):
        calls.append(batch)
        return chaotic(weights, batch)

    weights, batches = case(steps)
    options = {"learning_rate": learning_rate, "double": (in_double(weights), counted)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if steps == 30 else "error")
        checked(chaotic, weights, batches, always=always, **options)
    # one gradient; and, for a sweep, three traces and one to look at the structure of the loss
    assert len(calls) == (5 if second else 1)


def test_on_lenet5_float32_is_enough(digits):
    model, fine_model = lenet5(), lenet5(dtype="float64")
    weights = [tf.identity(v.value) for v in model.trainable_variables]

    def loss_of(model, dtype):
        def loss(weights, batch):
            found, _ = model.stateless_call(weights, [], tf.cast(batch[0], dtype))
            return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(batch[1], found))

        return loss

    x, y = digits.train
    batches = [(x[m * 32 : m * 32 + 32], y[m * 32 : m * 32 + 32]) for m in range(4)]
    report = conditioning(
        loss_of(model, "float32"),
        weights,
        batches,
        learning_rate=0.1,
        double=(in_double(weights), loss_of(fine_model, "float64")),
    )
    assert 1e-8 < report.error < 1e-4
    assert report.rounding < 1e-4
    assert report.determined > 0.99
    assert 0.1 < report.ratio < 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w, "double: expected weights in float64, found float32"),
        (
            lambda w: in_double(w)[:2],
            r"double: expected shapes \[\(6, 5\), \(5,\), \(5, 3\), \(3,\)\], "
            r"found \[\(6, 5\), \(5,\)\]$",
        ),
        (lambda w: [*in_double(w), tf.ones((), tf.float64)], r"shapes .*, \(3,\), \(\)\]$"),
        (lambda w: [tf.transpose(v) for v in in_double(w)], r"shapes .* found \[\(5, 6\), "),
        (lambda w: [2 * v for v in in_double(w)], r"expected the values of weights\[0\]"),
    ],
)
def test_a_double_of_other_weights_is_refused(reference, change, message):
    weights, batches = as_float32(reference)
    with pytest.raises(ValueError, match=message):
        conditioning(
            tiny_loss, weights, batches, learning_rate=0.1, double=(change(weights), tiny_loss)
        )


def test_a_bad_sparsity_is_named(reference):
    weights, batches, _ = reference
    for bad in (1.0, -0.5):
        with pytest.raises(ValueError, match=rf"sparsity: expected .* \[0, 1\), found {bad}"):
            conditioning(tiny_loss, weights, batches, learning_rate=0.1, sparsity=bad)


@pytest.mark.parametrize("method", SWEEPS)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_second_sweep_is_the_first_one_in_double_precision(reference, method, momentum):
    """With another momentum or rate it would not judge rounding, but tell two scores apart."""
    weights, batches = as_float32(reference)
    options = {"learning_rate": 0.1, "momentum": momentum, "method": method}
    double = in_double(weights), tiny_loss
    report = conditioning(tiny_loss, weights, batches, double=double, **options)
    assert report.error < 1e-4
    assert report.determined > 0.95
    exact = meta_gradient(tiny_loss, double[0], batches, **options)
    assert report.error == pytest.approx(relative_error(report.scores, exact), rel=1e-3, abs=1e-9)


def test_a_rounding_error_alone_demands_a_second_sweep():
    """In float32, 0.1 times 10 is 1; in float64 it is more, and the slope is another one."""

    def loss(weights, batch):
        x = tf.cast(batch, weights[0].dtype)
        return tf.reduce_sum(tf.nn.relu(weights[0] * x - 1) + 0.5 * weights[0] * x)

    weights = [tf.constant([0.1, 0.3], tf.float32)]
    options = {"learning_rate": 0.1, "double": (in_double(weights), loss), "always": False}
    report = conditioning(loss, weights, [np.array([10.0, 10.0])], **options)
    assert report.ratio == 1
    assert report.error == pytest.approx(report.rounding, rel=1e-12)


def test_the_ratio_is_that_of_what_is_scored(reference):
    weights, batches, _ = reference
    options = {"learning_rate": 0.5}
    found = cotangents(tiny_loss, weights, batches, **options)
    for scored in ([0, 2], [3]):
        ends = [
            np.linalg.norm(np.concatenate([np.ravel(weights[i] * v[i]) for i in scored]))
            for v in (found.first, found.last)
        ]
        report = conditioning(tiny_loss, weights, batches, scored=scored, **options)
        assert report.ratio == pytest.approx(ends[0] / ends[1], rel=1e-12)


def test_how_many_are_kept_is_counted_without_rounding():
    """1 - 0.7 is a little more than 0.3 in floating point; of ten, three are kept."""
    a = np.arange(10.0, 0.0, -1.0)
    b = np.array([10.0, 9.0, 8.0, 0.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0])
    assert agreement(a, b, 0.7) == 1.0
    b = b[[0, 1, 3, 2, *range(4, 10)]]
    assert agreement(a, b, 0.7) == 2 / 3


def test_the_mask_is_judged_at_the_sparsity_that_is_given():
    weights, batches = case(steps=30)
    options = {"learning_rate": 0.25, "double": (in_double(weights), chaotic)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checked(chaotic, weights, batches, sparsity=0.0, **options)  # all are kept by any
    report = conditioning(chaotic, weights, batches, sparsity=0.5, **options)
    with pytest.warns(
        UndeterminedMask, match=f"sparsity 0.5 float64 keeps {report.determined:.1%}"
    ):
        checked(chaotic, weights, batches, sparsity=0.5, **options)


@pytest.mark.parametrize("place", range(4))
def test_a_double_has_to_have_the_values_of_every_weight(reference, place):
    weights, batches = as_float32(reference)
    fine = in_double(weights)
    fine[place] = fine[place] + 1
    with pytest.raises(ValueError, match=rf"expected the values of weights\[{place}\], found"):
        conditioning(tiny_loss, weights, batches, learning_rate=0.1, double=(fine, tiny_loss))


def test_among_equals_the_first_ones_are_kept():
    a = np.arange(200) % 3 + 1.0
    b = 1.0 * np.isin(np.arange(200), np.flatnonzero(a == 3)[:50])  # of 66 equal ones
    assert agreement(a, b, 0.75) == 1.0


def reported(ratio=1.0, dtype="float32", **measured):
    """Return a report with these numbers."""
    return Conditioning([tf.ones(1, dtype)], ratio, np.ones(2))._replace(**measured)


@pytest.mark.parametrize(("dtype", "ratio"), [("float32", 8.38), ("float64", 4.5e9)])
def test_a_ratio_is_suspect_by_what_its_float_type_resolves(dtype, ratio):
    assert not suspect(reported(0.99 * ratio, dtype))
    assert suspect(reported(1.01 * ratio, dtype))


def test_what_reaches_a_limit_is_not_beyond_it():
    reached = RATIO / float(np.finfo(np.float32).eps)  # a power of two, so the product is exact
    assert not suspect(reported(reached))
    assert suspect(reported(np.nextafter(reached, 10)))
    assert not suspect(reported(rounding=ROUNDING))
    assert suspect(reported(rounding=np.nextafter(ROUNDING, 1)))


@pytest.mark.parametrize(("determined", "warned"), [(ENOUGH, False), (ENOUGH - 1e-9, True)])
def test_a_mask_is_determined_if_float64_keeps_enough_of_it(monkeypatch, determined, warned):
    report = reported(rounding=0.0, error=0.0, determined=determined)
    monkeypatch.setattr(
        "prosper_utils.lookahead.conditioning.conditioning", lambda *_, **options: report
    )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert checked(None, None, None) is report.scores
    assert bool(said) is warned


def test_the_norm_of_something_over_nothing_is_infinite():
    zero, one = np.zeros(2), np.ones(2)
    sizes = [relative(a, b) for a, b in ((one, zero), (zero, one), (zero, zero))]
    assert sizes == [np.inf, 0.0, 1.0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_double_has_the_values_to_the_last_place(dtype):
    weights = [np.array(values, dtype) for values in ([0.1, 0.7], [0.3])]
    check_double(weights, in_double(weights))
    for place in range(2):
        moved = [*weights]
        moved[place] = np.nextafter(moved[place], np.array(1, dtype))
        with pytest.raises(ValueError, match=rf"expected the values of weights\[{place}\]"):
            check_double(weights, in_double(moved))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_weights_may_be_the_rounded_values_of_their_double(dtype):
    fine = [tf.constant([0.1, 0.7], tf.float64), tf.constant([0.3], tf.float64)]
    rounded = [tf.cast(w, dtype) for w in fine]
    check_double(rounded, fine)
    with pytest.raises(ValueError, match=r"expected the values of weights\[1\]"):
        check_double(rounded, [fine[0], fine[1] + 0.01])


@pytest.mark.parametrize("place", range(2))
def test_every_weight_of_a_double_is_in_float64(place):
    weights = [tf.constant([0.1, 0.7]), tf.constant([0.3])]
    mixed = in_double(weights)
    mixed[place] = weights[place]
    with pytest.raises(ValueError, match="in float64, found float32, float64"):
        check_double(weights, mixed)


def test_scores_that_differ_beyond_single_precision_are_no_equals():
    a = np.array([1.0, 1 + 1e-12])
    assert agreement(a, a[::-1], 0.5) == 0.0


def test_scores_that_are_all_zero_have_no_error(reference):
    weights, batches = as_float32(reference)
    weights = [0 * w for w in weights]
    double = in_double(weights), tiny_loss
    report = conditioning(tiny_loss, weights, batches, learning_rate=0.1, double=double)
    assert report[3:] == (0.0, 0.0, 1.0)
    assert report.ratio == 1


def test_a_data_set_that_is_shuffled_anew_each_time_is_looked_through_once(reference):
    weights, batches = as_float32(reference)
    stacked = tuple(np.stack(part) for part in zip(*batches, strict=True))
    data = tf.data.Dataset.from_tensor_slices(stacked).shuffle(20)
    double = in_double(weights), tiny_loss
    report = conditioning(tiny_loss, weights, data, learning_rate=0.5, double=double)
    assert max(report.rounding, report.error) < 1e-5


@pytest.mark.parametrize(("determined", "said"), [(0.0, "0.0%"), (0.5, "50.0%")])
def test_a_warning_says_what_was_measured_if_it_was(determined, said):
    report = reported(error=0.25, rounding=0.0, determined=determined)
    found = advice(report, 0.9)
    assert "its relative error in float32 is 0.25, and of the weights that it keeps at" in found
    assert f"at sparsity 0.9 float64 keeps {said}" in found
    assert "was not measured" not in found
    assert "whether float32 can hold it was not measured" in advice(reported(), 0.9)


def test_the_norm_of_large_scores_in_single_precision_does_not_overflow():
    weights, batches = [tf.ones(3)], [np.float32(1e25)] * 2

    def loss(weights, batch):
        return tf.reduce_sum(weights[0]) * batch

    report = conditioning(loss, weights, batches, learning_rate=1e-30)
    assert report.ratio == 1
    values = np.float32([2.0]), np.float32([[1.0, 3.0]])
    found = vector(values, [np.float32([0.5]), np.float32([[1.0, 1.0]])], [1, 0])
    np.testing.assert_array_equal(found, [1.0, 3.0, 1.0])
    assert found.dtype == np.float64


MODULE = "prosper_utils.lookahead.conditioning."


@pytest.fixture
def by_hand(monkeypatch):
    """Let two sweeps and a gradient be what is written here; return the calls of all three."""
    as_tensors = lambda parts, dtype: [tf.constant(part, dtype) for part in parts]  # noqa: E731
    sweeps, calls = [([3, 1], [100], [0, -4]), ([3, 1], [0], [0, -2])], []

    def swept(*given, **options):
        calls.append((given, options))
        of = given[1][0].dtype
        first = as_tensors(sweeps[of == tf.float64], of)
        last, at = as_tensors(([2, 1], [50], [0, -1]), of), as_tensors(([9, 9], [8], [7, 7]), of)
        return Cotangents(first, last, at, np.array([7.0, 6.0, 5.0]))

    def gradient(*given):
        calls.append((given, {}))
        return None, as_tensors(([1, 0], [7], [0, -1]), tf.float64)

    monkeypatch.setattr(MODULE + "cotangents", swept)
    monkeypatch.setattr(MODULE + "loss_and_gradient", gradient)
    return calls


def test_the_report_of_two_sweeps_and_a_gradient_by_hand(by_hand):
    weights = [tf.constant(w) for w in ([1.0, 2.0], [4.0], [3.0, -1.0])]
    batches, fine = [np.zeros(1), np.ones(1)], in_double(weights)
    options = {"learning_rate": 0.25, "momentum": 0.5, "method": "checkpointed"}
    report = conditioning(
        "loss", weights, batches, scored=[0, 2], sparsity=0.5, double=(fine, "fine loss"), **options
    )
    assert [s.numpy().tolist() for s in report.scores] == [[3.0, 2.0], [400.0], [0.0, 4.0]]
    assert report.norms.tolist() == [7.0, 6.0, 5.0]
    assert report.ratio == pytest.approx(np.sqrt(29) / 3)  # (3, 2, 0, 4) and (2, 2, 0, 1)
    assert report.rounding == pytest.approx(np.sqrt(5 / 2))  # (2, 2, 0, 1) for (1, 0, 0, 1)
    assert report.error == pytest.approx(2 / np.sqrt(17))  # (3, 2, 0, 4) for (3, 2, 0, 2)
    assert report.determined == 0.5
    (first, same), ((fine_loss, last, batch), _), (second, also) = by_hand
    assert same == also == options
    assert (first[0], fine_loss, second[0]) == ("loss", "fine loss", "fine loss")
    assert first[1] is weights
    assert second[1] is fine
    assert [b is c for b, c in zip(batches, first[2], strict=True)] == [True, True]
    assert [b is c for b, c in zip(batches, second[2], strict=True)] == [True, True]
    assert batch is batches[-1]
    assert [w.dtype.name for w in last] == ["float64"] * 3
    assert [w.numpy().tolist() for w in last] == [[9.0, 9.0], [8.0], [7.0, 7.0]]


def test_the_report_of_one_sweep_by_hand(by_hand):
    weights = [tf.constant(w) for w in ([1.0, 2.0], [4.0], [3.0, -1.0])]
    report = conditioning("loss", weights, [np.zeros(1)], learning_rate=0.25)
    assert report[3:] == (None, None, None)
    # (3, 2, 400, 0, 4) and (2, 2, 200, 0, 1)
    assert report.ratio == pytest.approx(np.sqrt((29 + 400**2) / (9 + 200**2)))
    stacked = np.zeros((2, 1)), np.zeros(2)
    conditioning("loss", weights, stacked, learning_rate=0.25)
    (_, options), (given, _) = by_hand
    assert options == {"learning_rate": 0.25, "momentum": 0.0, "method": "reverse"}
    assert given[2] is stacked  # no list of slices


def test_what_is_checked_is_handed_on_as_it_is(monkeypatch):
    calls = []

    def recorded(*given, **options):
        calls.append((given, options))
        return reported()

    monkeypatch.setattr(MODULE + "conditioning", recorded)
    options = {"learning_rate": 0.5, "momentum": 0.1, "method": "m", "scored": [1], "double": "d"}
    checked("loss", "weights", "batches", sparsity=0.25, always=True, **options)
    checked("loss", "weights", "batches", sparsity=0.0, learning_rate=0.5)
    checked("loss", "weights", "batches", learning_rate=0.5)
    assert [given for given, _ in calls] == [("loss", "weights", "batches")] * 3
    assert [found for _, found in calls] == [
        {"sparsity": 0.25, "always": True, **options},
        {"sparsity": 0.0, "always": False, "learning_rate": 0.5},
        {"sparsity": 0.9, "always": False, "learning_rate": 0.5},
    ]


def test_an_error_is_relative_to_what_is_exact():
    cases = [([1, 2], [1, 0]), ([1, 0], [1, 2]), ([0, 0], [0, 0]), ([3, 4], [0, 0]), ([2], [2])]
    found = [error_of_arrays(*map(np.array, case)) for case in cases]
    assert found == [2.0, pytest.approx(2 / np.sqrt(5)), 0.0, np.inf, 0.0]


def test_a_mask_that_is_suspect_and_was_measured_to_be_determined_is_not_warned_of(monkeypatch):
    report = reported(ratio=1e9, rounding=1.0, error=1e-5, determined=1.0)
    monkeypatch.setattr(MODULE + "conditioning", lambda *_, **options: report)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert checked(None, None, None) is report.scores
