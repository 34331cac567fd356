r"""The mode: how a model is run when it is scored.

A score looks at what training would do, so a model is run as training runs it, with two cares.
With :math:`\bar x_B, v_B` the mean and variance of the batch B itself, a normalising layer gives

.. math:: y = \gamma \, \frac{x - \bar x_B}{\sqrt{v_B + \varepsilon}} + \beta

(at initialisation the moving statistics normalise nothing yet), and they are differentiated twice
(see `normalisation`).  Layers that draw random numbers are off, or draw what the batch determines.

Nothing of the model is edited: Keras reads variables from a stateless scope, and what else is to
be different is replaced for the calls of this thread only (see `replacement`).
"""

import contextlib
import inspect
import types

from prosper_utils.pruning.normalisation import exact_moments
from prosper_utils.pruning.replacement import replaced

import keras
import tensorflow as tf
from keras.src.backend.common.variables import AutocastScope
from keras.src.models.functional import Functional

STATISTICS = ("batch", "moving")
ODD = (0x1E3779B97F4A7C15, 0x3F58476D1CE4E5B9)  # to mix bits by multiplication (after splitmix64)
FUNCTION = type(tf.function(lambda: None))  # what `tf.function` makes of a function


class Values(keras.StatelessScope):
    """Values for the variables of a model, in whatever float type, without any side effect."""

    def __init__(self, variables, values, collect_losses=False):
        super().__init__(collect_losses=collect_losses)
        self.state_mapping.update({id(v): x for v, x in zip(variables, values, strict=True)})


@contextlib.contextmanager
def running(model, *, dtype, quiet):
    """Let `model` run in this thread as it is run for scores.

    Args:
        model: a built Keras 3 model.
        dtype: the float type in which every layer computes, or None for what each is set to.
        quiet: the layers that are called with `training=False`.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(exact_moments())
        stack.enter_context(replaced(FUNCTION, "__call__", _inline))
        for owner in {_defining(type(layer), "call") for layer in quiet}:
            stack.enter_context(replaced(owner, "call", _quietly(quiet)))
        if dtype:
            stack.enter_context(computing_in(dtype))
        try:
            yield
        finally:  # recurrent cells keep their dropout masks if tracing raises
            for layer in layers(model):
                for name in ("reset_dropout_mask", "reset_recurrent_dropout_mask"):
                    getattr(layer, name, lambda: None)()


@contextlib.contextmanager
def computing_in(dtype):
    """Let all layers called in this thread compute in one float type, whatever their policies."""

    def policy(original, policy):
        found = original(policy)
        return dtype if tf.as_dtype(found).is_floating else found

    def convert(original, functional, inputs):
        """Convert the inputs of a functional model as Keras does, but floats to the float type."""
        return [
            tf.cast(x, dtype) if tf.is_tensor(c) and c.dtype.is_floating else c
            for x, c in zip(inputs, original(functional, inputs), strict=True)
        ]

    with contextlib.ExitStack() as stack:
        for name in ("compute_dtype", "variable_dtype"):
            stack.enter_context(replaced(keras.DTypePolicy, name, policy))
        stack.enter_context(replaced(keras.Sequential, "input_dtype", policy))
        stack.enter_context(replaced(Functional, "_convert_inputs_to_tensors", convert))
        stack.enter_context(AutocastScope(dtype))
        yield


def float_type(model, dtype=None):
    """Return the float type of the weights as given to the model, and that in which to compute.

    Weights and arithmetic have one float type: `dtype`, or that of the trainable weights, in which
    a mixed model is run, too, since half precision holds no second derivative.  Where the layers
    compute in that type of themselves, or the weights are of several types, the second is None.

    Raises:
        ValueError: for a type other than float32 and float64, or weights in half precision.
    """
    if dtype not in (None, "float32", "float64"):
        raise ValueError(f"dtype: expected None, 'float32' or 'float64', found {dtype!r}")
    types = {v.dtype for v in model.trainable_variables}
    if dtype is None and types & {"float16", "bfloat16"}:
        raise ValueError(
            f"model {model.name!r}: expected weights in float32 or float64, found {sorted(types)}, "
            "which hold no second derivative: run it with dtype='float32'"
        )
    if dtype is None and len(types) > 1:
        return None, None
    chosen = dtype or types.pop()
    computed = {layer.compute_dtype for layer in layers(model)}
    floats = {t for t in computed | types if tf.as_dtype(t).is_floating}
    return chosen, None if floats <= {chosen} else chosen


def layers(model):
    """Return a model and all layers in it, and in them, as a list."""
    return list(model._flatten_layers())


def drawing(model):
    """Return the layers that draw random numbers in training only: dropout, noise, augmentation.

    A layer that takes no `training` draws in inference as well, as in a variational autoencoder:
    there is nothing to turn off.

    Raises:
        ValueError: for a layer that draws and holds others with statistics, by name: turning it off
            would turn them to inference.
    """
    found = [
        layer
        for layer in layers(model)
        if layer._seed_generators and "training" in inspect.signature(layer.call).parameters
    ]
    for layer in found:
        for inner in layers(layer)[1:]:
            if isinstance(inner, keras.layers.BatchNormalization):
                raise ValueError(
                    f"layer {layer.name!r}: expected random numbers in a layer of their own, such "
                    f"as keras.layers.Dropout, found {inner.name!r} inside, whose statistics would "
                    "be turned off with them"
                )
    return found


def seeds(model):
    """Return the states of all random number generators of a model, as Keras variables."""
    return [g.state for layer in layers(model) for g in layer._seed_generators]


def fingerprint(batch):
    """Return a number below :math:`2^{31}` that depends on the batch: equal ones have the same."""
    total = tf.constant(0, tf.int64)
    for part in tf.nest.flatten(batch):
        part = tf.convert_to_tensor(part)
        if part.dtype == tf.string:
            bits = tf.strings.to_hash_bucket_fast(part, 2**31 - 1)
        elif part.dtype.is_floating:
            bits = tf.cast(tf.bitcast(tf.cast(part, tf.float32), tf.int32), tf.int64)
        else:
            bits = tf.cast(part, tf.int64)
        bits = tf.reshape(bits, [-1])
        place = tf.range(tf.size(bits, tf.int64), dtype=tf.int64)
        total = _mixed(total + tf.reduce_sum(_mixed(bits + place * ODD[0])))  # exact in any order
    return tf.math.floormod(total, 2**31)


def _mixed(number):
    """Return 64-bit integers whose every bit depends on all bits of the given ones."""
    for odd in ODD:  # products wrap; their upper half is the one that is well mixed
        number *= odd
        number = tf.bitwise.bitwise_xor(number, tf.bitwise.right_shift(number, tf.int64.size * 4))
    return number


def _inline(original, function, *args, **kwargs):
    """Run what was compiled as plain Python: compiled, it would keep the weights of its first run.

    Its `if` and `while` over tensors are translated, as `tf.function` itself does.  What Keras and
    TensorFlow compile themselves stays so: it holds no variables, and may need it (Keras compiles
    grouped convolutions, which fail on a CPU otherwise).
    """
    plain = function.python_function
    if plain.__module__.split(".")[0] in ("keras", "tensorflow"):
        return original(function, *args, **kwargs)
    if getattr(function, "_autograph", True):
        plain = _translated(plain)
    return plain(*args, **kwargs)


def _translated(plain):
    """Return a function with its control flow over tensors translated, if its source is known."""
    try:
        if inspect.ismethod(plain):  # what is translated is the function alone
            return types.MethodType(tf.autograph.to_graph(plain.__func__), plain.__self__)
        return tf.autograph.to_graph(plain)
    except Exception:  # no source: nothing to translate from
        return plain


def _defining(kind, name):
    """Return the class that defines a method of a class."""
    return next(owner for owner in kind.__mro__ if name in vars(owner))


def _quietly(quiet):
    """Return a `call` for layers, in which the quiet ones take `training=False`."""
    chosen = {id(layer) for layer in quiet}

    def call(original, layer, *args, **kwargs):
        if id(layer) in chosen:
            given = inspect.signature(original).bind(layer, *args, **kwargs)
            given.arguments["training"] = False
            args, kwargs = given.args[1:], given.kwargs
        return original(layer, *args, **kwargs)

    return call
