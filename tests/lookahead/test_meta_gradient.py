"""The meta-gradient against the authors' scores, closed forms, finite differences and itself."""

import functools
import itertools
import math
import sys
import weakref

from prosper_utils.lookahead.chunks import chunks
from prosper_utils.lookahead.descent import batch_list, loss_and_gradient
from prosper_utils.lookahead.meta_gradient import (
    METHODS,
    STREAMING,
    cotangents,
    directional,
    meta_gradient,
)
from prosper_utils.lookahead.streaming import (
    StreamingGamma,
    diagonal,
    hutchinson,
    row_sums,
    step_errors,
    streamed,
)
from prosper_utils.lookahead.trajectory import length
from prosper_utils.pruning.networks import as_loss, dense_300_100, lenet5, resnet8
from prosper_utils.study import datasets
from prosper_utils.study.checks import relative_error

import numpy as np
import pytest
import tensorflow as tf
from conftest import Sequence, right_once, tiny_loss
from hypothesis import given, settings
from hypothesis import strategies as st

EXACT = ["reverse", "checkpointed", "unrolled"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("steps", [0, 1, 3, 8])
@pytest.mark.parametrize("learning_rate", [0.1, 0.5])
def test_equals_the_authors_scores(reference, method, steps, learning_rate):
    weights, batches, cases = reference
    theirs = "first_order" if method == "first_order" else "full"
    (case,) = (
        c
        for c in cases
        if (c["steps"], c["learning_rate"], c["momentum"], c["method"])
        == (steps, learning_rate, 0, theirs)
    )
    found = meta_gradient(
        tiny_loss, weights, batches[: steps + 1], learning_rate=learning_rate, method=method
    )
    assert relative_error([tf.abs(found[0]), tf.abs(found[2])], case["scores"]) < 1e-10


def quadratic(weights, batch):
    """Return w'Hw/2 - r'w for the batch (H, r): its Hessian is H."""
    (w,), (hessian, shift) = weights, batch
    return tf.tensordot(w, tf.linalg.matvec(hessian, w) / 2 - shift, 1)


def random_quadratics(seed, count, size=3):
    generator = np.random.default_rng(seed)
    matrices = generator.normal(size=(count, size, size))
    matrices = matrices + matrices.transpose(0, 2, 1)
    shifts = generator.normal(size=(count, size))
    return generator.normal(size=size), list(zip(matrices, shifts, strict=True))


@pytest.mark.parametrize("method", EXACT)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.floats(0.01, 0.5))
@settings(max_examples=20)
def test_quadratics_have_a_closed_form(method, seed, steps, alpha):
    w, batches = random_quadratics(seed, steps + 1)
    first, second = batches[0][0], batches[1][0]
    assert not np.allclose(first @ second, second @ first)  # else the order is not tested
    at, product = w, np.eye(3)
    for hessian, shift in batches[:-1]:
        at = at - alpha * (hessian @ at - shift)
        product = product @ (np.eye(3) - alpha * hessian)
    outer = batches[-1][0] @ at - batches[-1][1]
    found = meta_gradient(quadratic, [tf.constant(w)], batches, learning_rate=alpha, method=method)
    np.testing.assert_allclose(found[0], w * (product @ outer), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_central_differences(reference, method, momentum):
    weights, batches, _ = reference
    batches = batches[:4]  # three steps: an odd number, or a wrong sign in each would cancel

    def outer(mask):
        at = [c * w for c, w in zip(mask, weights, strict=True)]
        buffer = [tf.zeros_like(w) for w in weights]
        for batch in batches[:-1]:
            with tf.GradientTape() as tape:
                tape.watch(at)
                loss = tiny_loss(at, batch)
            gradient = tape.gradient(loss, at)
            buffer = [momentum * b + g for b, g in zip(buffer, gradient, strict=True)]
            at = [w - 0.5 * b for w, b in zip(at, buffer, strict=True)]
        return tiny_loss(at, batches[-1])

    ones = [np.ones(w.shape) for w in weights]
    found = meta_gradient(
        tiny_loss, weights, batches, learning_rate=0.5, momentum=momentum, method=method
    )
    for i, index in [(0, (0, 0)), (0, (4, 2)), (1, (3,)), (2, (2, 1)), (3, (0,))]:
        sides = []
        for sign in (1, -1):
            mask = [o.copy() for o in ones]
            mask[i][index] += sign * 1e-5
            sides.append(float(outer(mask)))
        difference = (sides[0] - sides[1]) / 2e-5
        assert found[i].numpy()[index] == pytest.approx(difference, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("build", [dense_300_100, lenet5])
@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-10), ("float32", 1e-5)])
def test_every_exact_method_agrees(digits, monkeypatch, build, dtype, bound, momentum):
    monkeypatch.setattr(sys.modules[meta_gradient.__module__], "COPIED", 1)
    weights, loss = as_loss(build(dtype=dtype))
    batches = list(itertools.islice(datasets.batches(digits.train, 8), 8))  # chunks of 3, 3, 1
    options = {"learning_rate": 0.1, "momentum": momentum}
    expected = meta_gradient(loss, weights, batches, method="unrolled", **options)
    for method in ("reverse", "checkpointed"):
        found = meta_gradient(loss, weights, batches, method=method, **options)
        assert [g.dtype.name for g in found] == [dtype] * len(weights)
        assert relative_error(found, expected) < bound
    first_order = meta_gradient(loss, weights, batches, method="first_order", **options)
    assert relative_error(first_order, expected) > 0.01  # the Hessians count

    unit = [np.zeros(w.shape) for w in weights]  # the weights that lead into one unit
    unit[-4][..., 3] = 1
    group = directional(loss, weights, batches, unit, **options)
    assert float(group) == pytest.approx(
        float(tf.reduce_sum(expected[-4][..., 3])), rel=100 * bound
    )


def test_every_exact_method_agrees_on_a_residual_network_at_every_call():
    weights, loss = as_loss(resnet8(dtype="float64", widths=(2, 4, 8), shape=(8, 8, 3)))
    generator = np.random.default_rng(0)
    batches = [(generator.normal(size=(8, 8, 8, 3)), np.arange(8)) for _ in range(4)]
    expected = meta_gradient(loss, weights, batches, learning_rate=0.01, method="unrolled")
    for method in ["reverse", "checkpointed"] * 2:
        found = meta_gradient(loss, weights, batches, learning_rate=0.01, method=method)
        assert relative_error(found, expected) < 1e-10


@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("steps", [0, 1, 3, 8])
@pytest.mark.parametrize("learning_rate", [0.1, 0.5])
def test_as_released_is_what_the_authors_code_computes(reference, method, steps, learning_rate):
    weights, batches, cases = reference
    case = next(
        c
        for c in cases
        if (c["steps"], c["learning_rate"], c["momentum"], c["method"])
        == (steps, learning_rate, 0.9, "full")
    )
    options = {"learning_rate": learning_rate, "momentum": 0.9, "method": method}
    batches = batches[: steps + 1]
    found = meta_gradient(tiny_loss, weights, batches, momentum_start="as_released", **options)
    assert relative_error([tf.abs(found[0]), tf.abs(found[2])], case["scores"]) < 1e-10
    if steps:
        true = meta_gradient(tiny_loss, weights, batches, **options)
        assert relative_error(found, true) > 1e-3


def test_one_graph_whatever_the_number_of_steps(reference):
    weights, batches, _ = reference
    traces = []

    def counted(weights, batch):
        traces.append(batch)
        return tiny_loss(weights, batch)

    for method in ("reverse", "checkpointed", "first_order"):
        for steps in (2, 5, 8):
            meta_gradient(counted, weights, batches[: steps + 1], learning_rate=0.1, method=method)
    # Rolling out, pulling back, the outer gradient, and a look at what is differentiated once and
    # at what is differentiated twice: once each.
    assert len(traces) == 5


@pytest.mark.parametrize("name", ["directional", "follow"])
def test_nothing_is_traced_again_for_more_steps_or_another_learning_rate(name):
    weights, batches = [tf.constant([0.5, -1.0], tf.float64)], [np.ones(2)] * 9
    traces, seen = [], []

    def counted(weights, batch):
        traces.append(batch)
        return tf.reduce_sum(weights[0] ** 2 * batch)

    for steps, rate in ((2, 0.1), (5, 0.2), (8, 0.3)):
        if name == "follow":
            StreamingGamma(counted, weights, rate, row_sums).follow(weights, batches[:steps])
        else:
            directional(counted, weights, batches[: steps + 1], weights, learning_rate=rate)
        seen.append(len(traces))
    assert seen[0] == seen[1] == seen[2] > 0


def test_batches_may_differ_in_size(reference):
    weights, batches, _ = reference
    batches = [(x[: 4 - m % 2], y[: 4 - m % 2]) for m, (x, y) in enumerate(batches)]
    expected = meta_gradient(tiny_loss, weights, batches, learning_rate=0.1, method="unrolled")
    for method in ("reverse", "checkpointed"):
        found = meta_gradient(tiny_loss, weights, batches, learning_rate=0.1, method=method)
        assert relative_error(found, expected) < 1e-12


@pytest.mark.parametrize(
    ("method", "curvature"),
    [("row_sums", row_sums), ("diagonal", diagonal), ("hutchinson", hutchinson(1, 0))],
)
def test_streaming_methods_are_those_of_streaming(reference, method, curvature):
    weights, batches, _ = reference
    if method == "hutchinson":
        curvature.generator.reset_from_seed(0)
    found = meta_gradient(tiny_loss, weights, batches, learning_rate=0.1, method=method)
    again = streamed(tiny_loss, weights, batches, 0.1, curvature)
    assert relative_error(found, again) == 0
    assert STREAMING[method]() is STREAMING[method]()  # so that it is compiled once
    exact = meta_gradient(tiny_loss, weights, batches, learning_rate=0.1)
    assert relative_error(found, exact) > 1e-3  # no streaming product is exact here


def test_a_direction_must_fit(reference):
    weights, batches, _ = reference
    with pytest.raises(ValueError, match=r"direction: expected shapes \[\(6, 5\).*found \[\]"):
        directional(tiny_loss, weights, batches, [], learning_rate=0.1)


@given(st.integers(0, 2**32 - 1), st.integers(0, 5), st.sampled_from([0.0, 0.5]))
@settings(max_examples=20)
def test_any_direction_is_an_inner_product(seed, steps, momentum):
    w, batches = random_quadratics(seed, steps + 1)
    direction = np.random.default_rng(seed + 1).normal(size=3)
    options = {"learning_rate": 0.1, "momentum": momentum}
    (whole,) = meta_gradient(quadratic, [tf.constant(w)], batches, **options)
    found = directional(quadratic, [tf.constant(w)], batches, [direction], **options)
    assert float(found) == pytest.approx(direction @ whole.numpy(), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_without_steps_it_is_weight_times_gradient(reference, method):
    weights, batches, _ = reference
    with tf.GradientTape() as tape:
        tape.watch(weights)
        loss = tiny_loss(weights, batches[0])
    expected = [w * g for w, g in zip(weights, tape.gradient(loss, weights), strict=True)]
    found = meta_gradient(tiny_loss, weights, batches[:1], learning_rate=0.1, method=method)
    assert relative_error(found, expected) < 1e-14


def test_a_stacked_pair_is_a_list_of_batches(reference):
    weights, batches, _ = reference
    stacked = tuple(np.stack(part) for part in zip(*batches, strict=True))
    found = meta_gradient(tiny_loss, weights, stacked, learning_rate=0.1)
    assert relative_error(found, meta_gradient(tiny_loss, weights, batches, learning_rate=0.1)) == 0
    assert np.shares_memory(batch_list(stacked)[3][0], stacked[0])


def test_a_weight_without_influence_gets_zero(reference):
    weights, batches, _ = reference
    idle = [*weights, tf.ones(2, tf.float64)]
    for method in METHODS:
        found = meta_gradient(
            lambda w, batch: tiny_loss(w[:4], batch),
            idle,
            batches[:3],
            learning_rate=0.1,
            momentum=0.5,
            method=method,
        )
        np.testing.assert_array_equal(found[4], [0.0, 0.0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batches": []}, r"expected at least 1 \(M \+ 1\), found 0"),
        ({"batches": [(np.ones((0, 6)), np.ones(0, int))]}, r"batch 0: .* found shape \(0, 6\)"),
        ({"batches": (np.ones((2, 4, 6)), np.ones((3, 4), int))}, r"equal lengths, found \[2, 3\]"),
        ({"batches": iter([])}, "a stacked pair or a data set that ends, found list_iterator"),
        ({"weights": []}, "one float type, found none"),
        ({"weights": [tf.ones(2), tf.ones(2, tf.float64)]}, "found .'float32', 'float64'."),
        ({"weights": [tf.ones(2, tf.int32)]}, "found .'int32'."),
        ({"method": "magic"}, "expected one of reverse, checkpointed, .*; found 'magic'"),
        ({"momentum_start": "late"}, "expected one of true, as_released; found 'late'"),
        ({"method": "order"}, "expected one of .*; found 'order'"),  # a part of a name is no name
        ({"method": ""}, "expected one of .*; found ''"),
        ({"momentum_start": "released"}, "expected one of .*; found 'released'"),
        ({"method": "row_sums", "momentum": 0.5}, "'row_sums': expected momentum 0, found 0.5"),
        ({"momentum": 1.0}, r"expected a number in \[0, 1\), found 1.0"),
        ({"momentum": -0.5}, r"expected a number in \[0, 1\), found -0.5"),
        ({"momentum": float("nan")}, "found nan"),
    ],
)
def test_bad_input_is_named(reference, change, message):
    weights, batches, _ = reference
    arguments = {"weights": weights, "batches": batches, **change}
    with pytest.raises(ValueError, match=message):
        meta_gradient(tiny_loss, learning_rate=0.1, **arguments)


def test_numbers_of_a_batch_are_not_rounded():
    """A float of Python's would become float32, whatever the weights are; what NumPy has stays."""
    third = 1 / 3  # no number of single precision

    def loss(weights, batch):
        return tf.reduce_sum(weights[0] * tf.cast(batch, tf.float64)) ** 3

    weights = [tf.constant([2.0], tf.float64)]
    plain, kept = [third, 3 * third, third], [np.float64(third), np.array(1.0), np.array(third)]
    for method in METHODS:
        (found,) = meta_gradient(loss, weights, kept, learning_rate=0.01, method=method)
        a, w = third, 2.0 - 0.01 * 3 * third * (2 * third) ** 2
        w, ahead = w - 0.01 * 3 * w**2, (1 - 0.01 * 6 * third**3 * 2.0) * (1 - 0.01 * 6 * w)
        ahead = 1.0 if method == "first_order" else ahead
        assert float(found[0]) == pytest.approx(2.0 * ahead * 3 * a**3 * w**2, rel=1e-13)
    for batches in (plain, [*kept[:2], third], [([third], [0])], [{"x": [[third]]}]):
        which = len(batches) - 1 if batches is not plain else 0
        calls = [functools.partial(meta_gradient, method=m) for m in (*METHODS, *STREAMING)]
        for call in (*calls, functools.partial(directional, direction=[[1.0]])):
            with pytest.raises(ValueError, match=f"batch {which}: .*found a float of Python's"):
                call(loss, weights, batches, learning_rate=0.01)
        gamma = StreamingGamma(loss, weights, 0.01, row_sums)
        with pytest.raises(ValueError, match=f"batch {which}: .*found a float of Python's"):
            gamma.follow(weights, batches)


RELEASED = {"momentum": 0.9, "momentum_start": "as_released"}  # a buffer that is a constant


@pytest.mark.parametrize(
    "how", [{"method": m} for m in METHODS] + [{"method": m} | RELEASED for m in EXACT]
)
@pytest.mark.parametrize("broken", [0, 1, 2])
def test_nan_names_the_step(reference, how, broken):
    weights, batches, _ = reference
    batches = [(np.array(x), y) for x, y in batches[:3]]
    batches[broken][0][0, 0] = np.nan
    where = f"inner step {broken} of 2" if broken < 2 else "after 2 inner steps: .* loss nan"
    with pytest.raises(ValueError, match=f"^{where}.*smaller learning rate"):
        meta_gradient(tiny_loss, weights, batches, learning_rate=0.1, **how)


def powers(weights, batch):
    """Return a loss whose value, gradient or Hessian is infinite where the batch says so."""
    power, more = batch
    return tf.reduce_sum(weights[0] ** 2) + tf.reduce_sum(tf.pow(weights[1], power)) + more


INFINITE = {  # what alone is infinite, at a weight of zero: (inner batch, outer batch), the message
    "value": ((2.0, 0.0), (2.0, np.inf), "after 1 inner steps: .* found the loss inf"),
    "gradient": ((2.0, 0.0), (0.5, 0.0), r"after 1 inner steps: .* found the loss 3\.2"),
    "weights": ((0.5, 0.0), (0.0, 0.0), "inner step 0 of 1: expected finite weights"),
    "Hessian": ((1.5, 0.0), (2.0, 0.0), r"after 1 inner steps: .* found the loss 3\.2"),
}


@pytest.mark.parametrize("what", INFINITE)
def test_whatever_is_infinite_is_refused(what):
    """Nothing else is, and no other weight: every part of every result is looked at."""
    weights = [tf.constant([1.0, 2.0], tf.float64), tf.constant([0.0], tf.float64)]
    *batches, message = INFINITE[what]
    batches = [tuple(np.array(x) for x in batch) for batch in batches]
    for method in METHODS:
        if (what, method) != ("Hessian", "first_order"):  # it takes no Hessian
            with pytest.raises(ValueError, match=message):
                meta_gradient(powers, weights, batches, learning_rate=0.1, method=method)
    ones = [tf.ones_like(w) for w in weights]
    with pytest.raises(ValueError, match=message):
        directional(powers, weights, batches, ones, learning_rate=0.1)
    curved = what in ("weights", "Hessian")
    message = "curvature: expected finite" if curved else "finite outer loss and gradient"
    with pytest.raises(ValueError, match=message):
        meta_gradient(powers, weights, batches, learning_rate=0.1, method="row_sums")
    with pytest.raises(ValueError, match=message):
        streamed(powers, weights, batches, 0.1, row_sums)
    if curved:
        with pytest.raises(ValueError, match=r"for weights\[1\] in step 0"):
            StreamingGamma(powers, weights, 0.1, row_sums).update(weights, batches[0])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_weights_are_infinite_where_neither_their_loss_nor_their_momentum_is(momentum):
    """The step overflows in the product of its rate and a gradient that is finite."""
    weights, batches = [tf.constant([0.0], tf.float64)], [np.array(1e10), np.array(1.0)]
    options = {"learning_rate": 1e300, "momentum": momentum}
    level = lambda weights, size: size * tf.reduce_sum(tf.tanh(weights[0]))  # noqa: E731
    for method in METHODS:
        with pytest.raises(ValueError, match="inner step 0 of 1: expected finite weights"):
            meta_gradient(level, weights, batches, method=method, **options)
    with pytest.raises(ValueError, match="inner step 0 of 1: expected finite weights"):
        directional(level, weights, batches, [tf.ones(1, tf.float64)], **options)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_tangent_is_infinite_where_neither_weights_nor_momentum_are(momentum):
    weights, batches = [tf.ones(1, tf.float64)], [np.array(1e10), np.array(1.0)]
    least = lambda weights, size: size * tf.reduce_sum((weights[0] - 1) ** 2)  # noqa: E731
    with pytest.raises(ValueError, match="after 1 inner steps: expected a finite meta-gradient"):
        directional(least, weights, batches, weights, learning_rate=1e300, momentum=momentum)


@pytest.fixture
def watched(monkeypatch):
    """Watch the sweeps: how long each chunk is, and of how many chunks the steps are kept."""
    module, lengths, kept, alive = sys.modules[meta_gradient.__module__], [], [], []
    compiled = module.compiled

    def watching(*arguments):
        functions = compiled(*arguments)

        def roll(rates, state, part):
            found = functions.roll(rates, state, part)
            kept.append(weakref.ref(found[0][0]))
            lengths.append(int(length(part)))
            alive.append(sum(w() is not None for w in kept))
            return found

        return functions._replace(roll=roll)

    monkeypatch.setattr(module, "compiled", watching)
    monkeypatch.setattr(module, "COPIED", 1)
    return lengths, alive


@pytest.mark.parametrize("steps", [8, 9, 16, 30])
def test_checkpoints_keep_the_steps_of_one_chunk_of_root_m(watched, steps):
    lengths, alive = watched
    w, batches = random_quadratics(0, steps + 1)
    options = {"learning_rate": 0.01, "method": "checkpointed"}
    found = meta_gradient(quadratic, [tf.constant(w)], batches, **options)
    expected = meta_gradient(quadratic, [tf.constant(w)], batches, learning_rate=0.01)
    assert relative_error(found, expected) < 1e-10
    root = math.ceil(math.sqrt(steps))
    count = math.ceil(steps / root)
    again = 2 * count - 1  # all chunks but the last are run twice
    assert sum(lengths[:count]) == sum(lengths[again:]) == steps
    assert max(lengths) == root
    assert max(alive[:again]) <= 2  # the one that is made, and the one that it takes the place of


def test_a_sweep_over_tensors_is_one_chunk_unless_buffers_are_kept_too(watched):
    lengths, _ = watched
    w, batches = random_quadratics(0, 17)
    stacked = tuple(tf.stack(part) for part in zip(*batches, strict=True))
    for momentum, expected in ((0.0, [16]), (0.5, [4] * 4)):
        lengths.clear()
        meta_gradient(quadratic, [tf.constant(w)], stacked, learning_rate=0.01, momentum=momentum)
        assert lengths == expected


def test_batches_of_two_shapes_are_parted_wherever_the_shape_changes():
    for cut in range(1, 10):
        batches = [np.zeros(2 if m < cut else 3) for m in range(11)]
        parts = chunks(batches, at_least=64)
        assert [len(part) for part in parts] == ([10] if cut == 10 else [cut, 10 - cut])
        assert [b is a for part in parts for b in part for a in batches].count(True) == 10


def test_norms_are_in_order_of_the_steps_and_do_not_overflow():
    def loss(weights, batch):
        return tf.reduce_sum(batch * weights[0] ** 2) / 2

    batches = [np.array(a, "float32") for a in ([3.0, 1.0], [2.0, 1.0], [1e25, 1e25])]
    weights = [tf.constant([1.0, 2.0])]  # the squares of what comes back are beyond float32
    found = cotangents(loss, weights, batches, learning_rate=0.1)
    v = 1e25 * np.array([0.7 * 0.8 * 1.0, 0.9 * 0.9 * 2.0])
    expected = [v, [0.8, 0.9] * v, [0.7 * 0.8, 0.9 * 0.9] * v]
    np.testing.assert_allclose(found.norms, [np.linalg.norm(e) for e in expected[::-1]], rtol=1e-5)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_both_ends_are_the_same_by_one_tape(reference, momentum):
    weights, batches, _ = reference
    ends = [
        cotangents(tiny_loss, weights, batches, learning_rate=0.1, momentum=momentum, method=method)
        for method in ("reverse", "unrolled")
    ]
    for name in ("first", "last", "weights"):
        for a, b in zip(*(getattr(end, name) for end in ends), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)
    swept, at_once = (end.norms for end in ends)
    np.testing.assert_allclose(at_once, swept[[0, -1]], rtol=1e-12)


def test_of_first_order_both_ends_are_one(reference):
    weights, batches, _ = reference
    found = cotangents(tiny_loss, weights, batches, learning_rate=0.1, method="first_order")
    size = np.linalg.norm(np.concatenate([np.ravel(v) for v in found.last]))
    np.testing.assert_allclose(found.norms, [size, size], rtol=1e-12)


def test_a_diverged_inner_loop_says_so():
    w, batches = random_quadratics(0, 40)
    with pytest.raises(ValueError, match="smaller learning rate"):
        meta_gradient(quadratic, [tf.constant(w)], batches, learning_rate=1e30)


def test_a_direction_is_not_broadcast(reference):
    weights, batches, _ = reference
    ones = [np.ones(w.shape) for w in weights]
    for other in (1.0, np.ones(5), np.ones((1, 5)), np.ones((6, 1))):
        with pytest.raises(ValueError, match=r"direction: expected shapes \[\(6, 5\)"):
            directional(tiny_loss, weights, batches, [other, *ones[1:]], learning_rate=0.1)


def test_checkpoints_of_stacked_tensors_keep_one_chunk_of_root_m_too(watched):
    lengths, _ = watched
    w, batches = random_quadratics(0, 17)
    stacked = tuple(tf.stack(part) for part in zip(*batches, strict=True))
    options = {"learning_rate": 0.01, "method": "checkpointed"}
    meta_gradient(quadratic, [tf.constant(w)], stacked, **options)
    assert lengths == [4] * 7


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_may_stand_for_two_weights(method):
    """A tape knows tensors as objects, and would give both the sum of their gradients."""

    def loss(weights, batch):
        return tf.reduce_sum(batch * weights[0] ** 2 * tf.sin(weights[1]))

    batches = [np.array([0.3, 0.7]), np.array([0.2, -0.5]), np.array([1.0, 0.4])]
    once = tf.constant([0.6, -1.1], tf.float64)
    options = {"learning_rate": 0.1, "momentum": 0.5, "method": method}
    expected = meta_gradient(loss, [once, tf.constant(once.numpy())], batches, **options)
    found = meta_gradient(loss, [once, once], batches, **options)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.all(found[0] != found[1])


@pytest.mark.parametrize("method", ["reverse", "row_sums", "hutchinson"])
def test_every_method_refuses_an_unknown_start(reference, method):
    weights, batches, _ = reference
    options = {"learning_rate": 0.1, "method": method, "momentum_start": "warm"}
    with pytest.raises(ValueError, match=r"momentum_start: expected one of .*as_released"):
        meta_gradient(tiny_loss, weights, batches, **options)


@pytest.mark.parametrize(
    "option", [{"method": "row_sums"}, {"method": "magic"}, {"momentum_start": "late"}]
)
def test_cotangents_refuse_what_is_no_sweep(reference, option):
    weights, batches, _ = reference
    with pytest.raises(ValueError, match=f"{min(option)}: expected one of"):
        cotangents(tiny_loss, weights, batches, learning_rate=0.1, **option)


def test_batches_with_names_are_those_without(reference):
    def named(weights, batch):
        return tiny_loss(weights, (batch[0]["x"], batch[1]))

    weights, batches, _ = reference
    pairs = (named, [({"x": x}, y) for x, y in batches]), (tiny_loss, batches)
    for call in (
        *(functools.partial(meta_gradient, method=method) for method in METHODS),
        lambda *given, **options: [directional(*given, given[1], **options)],
    ):
        found, expected = (call(loss, weights, of, learning_rate=0.1) for loss, of in pairs)
        assert relative_error(found, expected) < 1e-14


@pytest.mark.parametrize("momentum", [1.0, -0.5, float("nan")])
def test_a_direction_takes_the_momentum_that_a_sweep_takes(reference, momentum):
    weights, batches, _ = reference
    with pytest.raises(ValueError, match=rf"expected a number in \[0, 1\), found {momentum}"):
        directional(tiny_loss, weights, batches, weights, learning_rate=0.1, momentum=momentum)


def test_a_direction_in_plain_numbers_is_not_rounded():
    w, batches = random_quadratics(0, 4)
    found, expected = (
        directional(quadratic, [tf.constant(w)], batches, [direction], learning_rate=0.1)
        for direction in ([0.1, 0.2, 0.3], np.array([0.1, 0.2, 0.3]))
    )
    assert float(found) == float(expected)


@pytest.mark.parametrize("method", METHODS)
def test_second_derivatives_have_to_be_right_where_they_are_taken_and_only_there(method):
    def loss(weights, batch):
        return tf.reduce_sum(right_once(weights[0] * batch) ** 2)

    weights, batch = [tf.constant([0.5, -0.3], "float64")], tf.constant([1.0, 2.0], "float64")
    options = {"learning_rate": 0.1, "method": method}
    cotangents(loss, weights, [batch], **options)
    for steps in (1, 2):
        if method == "first_order":
            cotangents(loss, weights, [batch] * (steps + 1), **options)
        else:
            with pytest.raises(ValueError, match="a gradient is stated by hand"):
                cotangents(loss, weights, [batch] * (steps + 1), **options)


def test_second_derivatives_have_to_be_right_along_a_direction_if_there_is_a_step():
    def loss(weights, batch):
        return tf.reduce_sum(right_once(weights[0] * batch) ** 2)

    weights, batch = [tf.constant([0.5, -0.3], "float64")], tf.constant([1.0, 2.0], "float64")
    ones = [tf.ones_like(w) for w in weights]
    found = directional(loss, weights, [batch], ones, learning_rate=0.1)
    gradient = loss_and_gradient(loss, weights, batch)[1][0]
    assert float(found) == pytest.approx(float(tf.reduce_sum(weights[0] * gradient)), rel=1e-12)
    for steps in (1, 2):
        with pytest.raises(ValueError, match="a gradient is stated by hand"):
            directional(loss, weights, [batch] * (steps + 1), ones, learning_rate=0.1)


@pytest.mark.parametrize("method", METHODS)
def test_what_was_released_differs_in_the_first_hessian_only(reference, method):
    """Without momentum there is no buffer to take as a constant, and first order has no Hessian."""
    weights, batches, _ = reference
    for momentum in (0.0, 0.9) if method == "first_order" else (0.0,):
        found, expected = (
            cotangents(
                tiny_loss,
                weights,
                batches[:4],
                learning_rate=0.5,
                momentum=momentum,
                method=method,
                momentum_start=start,
            )
            for start in ("as_released", "true")
        )
        for name in ("first", "last", "weights"):
            assert relative_error(getattr(found, name), getattr(expected, name)) < 1e-14
        np.testing.assert_allclose(found.norms, expected.norms, rtol=1e-14)


SWEEPS = {
    **{
        method: functools.partial(meta_gradient, learning_rate=0.1, method=method)
        for method in (*METHODS, "row_sums")
    },
    "directional": lambda loss, weights, batches: [
        directional(loss, weights, batches, weights, learning_rate=0.1)
    ],
}


@pytest.mark.parametrize("name", SWEEPS)
def test_every_sweep_takes_batches_of_every_form(reference, name):
    weights, batches, _ = reference
    batches = batches[:4]
    stacked = tuple(np.stack(part) for part in zip(*batches, strict=True))
    expected = SWEEPS[name](tiny_loss, weights, batches)
    for form in (
        stacked,
        tuple(map(tf.constant, stacked)),
        tuple(batches),
        tf.data.Dataset.from_tensor_slices(stacked),
        Sequence(batches),
    ):
        assert relative_error(SWEEPS[name](tiny_loss, weights, form), expected) < 1e-14


class Scaled:
    """A loss as a method, as an object that is called, and as a function with an argument more."""

    def method(self, weights, batch):
        return tf.reduce_sum(weights[0] ** 3 * batch)

    def __call__(self, weights, batch):
        return self.method(weights, batch)

    def more(self, scale, weights, batch):
        return scale * self.method(weights, batch)


@pytest.mark.parametrize("name", ["reverse", "row_sums"])
def test_a_loss_may_be_anything_that_is_called(name):
    """Of diagonal Hessians both are exact: w (1 - 6 a w x) 3 w'^2 x, at w' = w - 3 a w^2 x."""
    own, w, x = Scaled(), np.array([0.5, -1.0]), np.array([1.0, 2.0])
    expected = w * (1 - 0.6 * w * x) * 3 * (w - 0.3 * w**2 * x) ** 2 * x
    for loss in (own.method, own, functools.partial(own.more, 1.0)):
        (found,) = SWEEPS[name](loss, [tf.constant(w)], [x, x])
        np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_weights_come_to_a_loss_as_a_list():
    kinds = set()

    def loss(weights, batch):
        kinds.add(type(weights))
        return tf.reduce_sum(weights[0] ** 2 * batch)

    def curvature(loss, weights, batch):
        kinds.add(type(weights))
        return row_sums(loss, weights, batch)

    weights, batches = (tf.constant([1.0, 2.0], tf.float64),), [np.ones(2)] * 3
    for call in SWEEPS.values():
        call(loss, weights, batches)
    for call in (streamed, step_errors):
        call(loss, weights, batches, 0.1, curvature)
    assert kinds == {list}
    with pytest.raises(ValueError, match="found the loss nan"):
        meta_gradient(loss, weights, [np.full(2, np.nan)], learning_rate=0.1)
    assert kinds == {list}


@pytest.mark.parametrize(
    ("form", "options", "expected"),
    [
        ("list", {}, [1, 5, 5, 5]),
        ("arrays", {}, [1, 5, 5, 5]),
        ("tensors", {}, [16]),
        ("tensors", {"momentum": 0.5}, [1, 5, 5, 5]),
        ("list", {"method": "first_order"}, [1, 5, 5, 5]),
        ("list", {"method": "checkpointed"}, [4] * 7),
    ],
)
def test_what_has_to_be_copied_is_copied_so_many_batches_at_a_time(
    watched, monkeypatch, form, options, expected
):
    lengths, _ = watched
    monkeypatch.setattr(sys.modules[meta_gradient.__module__], "COPIED", 5)
    w, batches = random_quadratics(0, 17)
    stacked = tuple(np.stack(part) for part in zip(*batches, strict=True))
    forms = {"list": batches, "arrays": stacked, "tensors": tuple(map(tf.constant, stacked))}
    meta_gradient(quadratic, [tf.constant(w)], forms[form], learning_rate=0.01, **options)
    assert lengths == expected
