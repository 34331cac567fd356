r"""Compiled loops of differentiated steps, kept from a rewrite that TensorFlow makes in them.

Pulling a cotangent back adds to it what comes through the gradient,
:math:`v_m = v_{m+1} + (-\alpha) H_m v_{m+1}`, and the second term is itself a sum where a weight
has several readers.  In a loop, :math:`v_{m+1}` is a loop variable.  Where TensorFlow expects a
step to need more than some 200 MB, its memory optimiser replaces such a sum of three terms or
more by a temporary variable, to be made once the first term is known.  It takes for that the
operation that hands out loop variables, which also runs after the last step: one variable too
many is made there, never added to and never destroyed.  The next call that finds it ends in
`AlreadyExistsError ... tmp_var`, and until then results may be wrong without a word
(tensorflow/tensorflow, issues 23780 and 37740).

`protected` switches this one rewrite off for the compiled functions that are called in its
context, in this thread, and leaves every other option as the user has set it.  The option
belongs to the outermost call: a function called inside another `tf.function` is rewritten with
that one, whatever was in force while it was traced.  So `meta_gradient` and its like, which
compile loops of their own, are refused there (`expect_eager`).
"""

import contextlib
import functools

import tensorflow as tf
from tensorflow.python.eager import context as eager  # no public name; tests watch over it


@contextlib.contextmanager
def protected():
    """Run compiled functions called in this context without TensorFlow's memory rewrites.

    For a `tf.function` of one's own around `pull_back` on stacked batches, every call counts::

        with loops.protected():
            credit = my_function(state, batches, cotangent)
    """
    found = eager.context()
    before = found.function_call_options
    config = tf.compat.v1.ConfigProto.FromString(before.config_proto_serialized)
    rewrites = config.graph_options.rewrite_options
    rewrites.memory_optimization = rewrites.NO_MEM_OPT
    found.function_call_options = eager.FunctionCallOptions(before.executor_type, config)
    try:
        yield
    finally:
        found.function_call_options = before


def function(**options):
    """Return a decorator like `tf.function`, every call of whose result is `protected`.

    Args:
        options: those of `tf.function`, such as `input_signature`.
    """

    def decorate(python_function):
        compiled = tf.function(**options)(python_function)

        @functools.wraps(python_function)
        def call(*arguments):
            with protected():
                return compiled(*arguments)

        return call

    return decorate


def expect_eager(name):
    """Raise a ValueError, which says what to do, if called while a `tf.function` is traced."""
    if not tf.executing_eagerly():
        raise ValueError(
            f"{name}: expected an eager call, found one inside a tf.function: call it outside, "
            "where it compiles its own loops and can check what it finds, and pass the result in"
        )


def expect_compiled():
    """Raise a ValueError, which says what to do, if `tf.function` is told not to compile."""
    if tf.config.functions_run_eagerly():
        raise ValueError(
            "sweeps: expected compiled functions, found tf.config.run_functions_eagerly(True): "
            "undo it, or take method='unrolled', which compiles nothing"
        )
