"""Loops that TensorFlow's memory optimiser would rewrite: right at every call."""

import collections
import concurrent.futures
import contextlib
import threading

from prosper_utils.lookahead import loops
from prosper_utils.lookahead.descent import sgd
from prosper_utils.lookahead.meta_gradient import METHODS, STREAMING, directional, meta_gradient
from prosper_utils.lookahead.streaming import StreamingGamma, row_sums, step_errors, streamed
from prosper_utils.lookahead.trajectory import pull_back, roll_out
from prosper_utils.study.checks import relative_error

import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_loss
from tensorflow.python.eager import context

SIZE, RATE = 2_000_000, 0.5  # a dozen arrays of 16 MB: more than the optimiser lets be


def large_loss(weights, batch):
    """Return a loss of two weights, each with several readers, on many examples at once."""
    (w,) = weights
    h = tf.tanh(batch * w[0])
    h = tf.tanh(h * w[1] + w[0])
    return tf.reduce_mean(tf.tanh(h * w[1] + w[0]) ** 2)


@pytest.fixture(scope="module")
def large():
    """Return weights, three batches, and the meta-gradient after two steps."""
    generator = np.random.default_rng(0)
    weights = [tf.constant([0.7, 1.3], tf.float64)]
    batches = [tf.constant(generator.normal(size=SIZE)) for _ in range(3)]
    expected = meta_gradient(large_loss, weights, batches, learning_rate=RATE, method="unrolled")
    return weights, batches, expected


def options():
    """Return the options with which this thread calls functions."""
    found = context.context().function_call_options
    config = tf.compat.v1.ConfigProto.FromString(found.config_proto_serialized)
    return found.executor_type, config.graph_options.rewrite_options


def credit(large):
    """Return a compiled function that a user could have written, and its arguments."""
    weights, batches, _ = large
    cotangent = ((tf.constant([1.0, -2.0], tf.float64),),)

    @tf.function
    def pull(state, stacked, cotangent):
        step = sgd(large_loss, tf.constant(RATE, tf.float64))
        return pull_back(step, roll_out(step, state, stacked), stacked, cotangent)

    return pull, ((tuple(weights),), tf.stack(batches[:2]), cotangent)


@pytest.mark.parametrize("method", ["reverse", "checkpointed"])
def test_large_sweeps_are_right_at_every_call(large, method):
    weights, batches, expected = large
    for _ in range(3):
        found = meta_gradient(large_loss, weights, batches, learning_rate=RATE, method=method)
        assert relative_error(found, expected) < 1e-10


def test_a_large_forward_sweep_is_right_at_every_call(large):
    weights, batches, expected = large
    for _ in range(3):
        found = directional(large_loss, weights, batches, [[2.0, -1.0]], learning_rate=RATE)
        assert float(found) == pytest.approx(float(2 * expected[0][0] - expected[0][1]), rel=1e-10)


def test_a_function_of_ones_own_is_right_where_it_is_protected(large):
    pull, arguments = credit(large)
    state, stacked, cotangent = arguments
    step, batches = sgd(large_loss, tf.constant(RATE, tf.float64)), list(tf.unstack(stacked))
    expected = pull_back(step, roll_out(step, state, batches), batches, cotangent)
    for _ in range(3):
        with loops.protected():
            assert relative_error(pull(*arguments)[0], expected[0]) < 1e-10


def test_without_protection_tensorflow_breaks_the_same_function(large):
    """If this fails, the loop is too small for the tests above, or TensorFlow is mended."""
    pull, arguments = credit(large)
    with pytest.raises(tf.errors.AlreadyExistsError, match="tmp_var"):
        collections.deque((pull(*arguments) for _ in range(2)), 0)


def test_only_one_option_changes_and_all_come_back():
    before = options()
    asked = {"constant_folding": False}
    kept = tf.config.optimizer.get_experimental_options()
    try:
        tf.config.optimizer.set_experimental_options(asked)
        with tf.experimental.function_executor_type("SINGLE_THREADED_EXECUTOR"):
            outside = options()
            with contextlib.suppress(ZeroDivisionError), loops.protected(), loops.protected():
                executor, inside = options()
                assert inside.memory_optimization == inside.NO_MEM_OPT
                inside.ClearField("memory_optimization")
                assert (executor, inside) == outside
                raise ZeroDivisionError
            assert options() == outside
            assert outside[0] == "SINGLE_THREADED_EXECUTOR"
            assert outside[1].constant_folding == outside[1].OFF
    finally:
        tf.config.optimizer.set_experimental_options({"constant_folding": True, **kept})
    assert options()[1].memory_optimization == before[1].memory_optimization


def test_other_threads_keep_their_options():
    inside, looked = threading.Event(), threading.Event()

    def protect():
        with loops.protected():
            inside.set()
            looked.wait(10)
            return options()[1].memory_optimization

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        result = pool.submit(protect)
        assert inside.wait(10)
        found = options()[1]
        looked.set()
        assert found.memory_optimization == found.DEFAULT_MEM_OPT
        assert result.result() == found.NO_MEM_OPT


def test_threads_may_sweep_at_the_same_time(reference):
    weights, batches, _ = reference
    expected = meta_gradient(tiny_loss, weights, batches, learning_rate=RATE, method="unrolled")

    def sweep(_):
        def loss(weights, batch):  # traced anew, while the others trace
            return tiny_loss(weights, batch)

        return meta_gradient(loss, weights, batches, learning_rate=RATE)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for found in pool.map(sweep, range(4)):
            assert relative_error(found, expected) < 1e-12


def test_the_private_names_are_where_we_look_for_them():
    """TensorFlow has no public name for these options; what follows may move with any release."""
    found = context.context().function_call_options
    assert isinstance(found, context.FunctionCallOptions)
    assert isinstance(found.config_proto_serialized, bytes)
    attribute = type(context.context()).function_call_options
    assert attribute.fset is not None
    with loops.protected():
        attributes = context.context().function_call_options.as_attrs()
    config = tf.compat.v1.ConfigProto.FromString(attributes["config_proto"])
    rewrites = config.graph_options.rewrite_options
    assert rewrites.memory_optimization == rewrites.NO_MEM_OPT


@pytest.mark.parametrize(
    ("name", "call"),
    [
        *(
            ("meta_gradient", lambda w, b, m=m: meta_gradient(tiny_loss, w, b, method=m, **ALPHA))
            for m in (*METHODS, *STREAMING)
        ),
        ("directional", lambda w, b: directional(tiny_loss, w, b, w, **ALPHA)),
        ("streamed", lambda w, b: streamed(tiny_loss, w, b, RATE, row_sums)),
        ("step_errors", lambda w, b: step_errors(tiny_loss, w, b, RATE, row_sums)),
        (
            "StreamingGamma.update",
            lambda w, b: StreamingGamma(tiny_loss, w, RATE, row_sums).update(w, b[0]),
        ),
        (
            "StreamingGamma.follow",
            lambda w, b: StreamingGamma(tiny_loss, w, RATE, row_sums).follow(w, b),
        ),
    ],
)
def test_inside_a_function_it_is_refused(reference, name, call):
    weights, batches, _ = reference
    with pytest.raises(ValueError, match=f"{name}: expected an eager call.*call it outside"):
        tf.function(lambda: call(weights, batches[:3]))()


ALPHA = {"learning_rate": RATE}


def test_lifted_out_of_a_function_it_is_itself(reference):
    weights, batches, _ = reference

    @tf.function
    def score():
        with tf.init_scope():
            return meta_gradient(tiny_loss, weights, batches, **ALPHA)

    expected = meta_gradient(tiny_loss, weights, batches, **ALPHA)
    assert relative_error(score(), expected) < 1e-14


@pytest.mark.parametrize("method", ["reverse", "checkpointed"])
def test_functions_that_may_not_compile_are_refused(reference, method):
    weights, batches, _ = reference
    expected = meta_gradient(tiny_loss, weights, batches, method="unrolled", **ALPHA)
    tf.config.run_functions_eagerly(True)
    try:
        with pytest.raises(ValueError, match=r"found tf.config.run_functions_eagerly\(True\)"):
            meta_gradient(tiny_loss, weights, batches, method=method, **ALPHA)
        with pytest.raises(ValueError, match="expected compiled functions"):
            directional(tiny_loss, weights, batches, weights, **ALPHA)
        with pytest.raises(ValueError, match="expected compiled functions"):
            streamed(tiny_loss, weights, batches, RATE, row_sums)
        found = meta_gradient(tiny_loss, weights, batches, method="unrolled", **ALPHA)
    finally:
        tf.config.run_functions_eagerly(False)
    assert relative_error(found, expected) < 1e-14


def test_a_compiled_function_keeps_its_name_and_its_words():
    @loops.function()
    def twice(x):
        """Return 2 x."""
        return 2 * x

    assert (twice.__name__, twice.__doc__) == ("twice", "Return 2 x.")
    assert float(twice(tf.constant(1.5))) == 3
