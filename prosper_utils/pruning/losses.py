r"""The loss that a model was compiled with, as a pure function of its outputs and a batch.

For outputs :math:`f_k` of one or several heads k, labels :math:`y_k`, sample weights :math:`s_k`
and loss weights :math:`\lambda_k`, training minimises

.. math:: L = \sum_k \lambda_k \, \frac{1}{B} \sum_{i=1}^{B} s_{ki} \, \ell_k(y_{ki}, f_{ki})

and what layers add.  Keras' own code computes it here, whatever it was compiled with; it only gets
the float type of the outputs and keeps no metrics.  What would be computed without a word and be
wrong is refused: probabilities taken for logits, logits taken for probabilities.
"""

import functools

import keras
import numpy as np
import tensorflow as tf
from keras.src.trainers.compile_utils import CompileLoss  # no public name; a test watches over it

PASSING = {"Identity", "Reshape", "Cast", "Squeeze", "ExpandDims", "Transpose"}
LINEAR = {"BiasAdd", "MatMul", "BatchMatMulV2", "Einsum", "Conv2D", "Conv3D", "LogSoftmax"}
SOFTENED = {"Softmax": "a softmax", "Sigmoid": "a sigmoid"}
OF_PROBABILITIES = {"crossentropy", "ce"} | {
    f"{kind}_{name}"
    for kind in ("binary", "categorical", "sparse_categorical")
    for name in ("crossentropy", "focal_crossentropy")
}


class Total(CompileLoss):
    """Keras' sum over all outputs, in one float type and without metrics of its own."""

    def __init__(self, loss, weights, names, dtype):
        super().__init__(loss, weights, output_names=names)
        self._dtype = dtype

    def build(self, y_true, y_pred):
        """Find the loss of every output, as Keras does, and let it compute in the float type."""
        with tf.Graph().as_default():  # Keras makes metrics here, with variables; they stay there
            super().build(y_true, y_pred)
        self._flat_losses = [e._replace(loss=computing_in(e.loss, self.dtype)) for e in self.parts]
        self._metrics[:] = [None] * len(self.parts)

    @property
    def parts(self):
        """Path, loss, weight and name for each output, as Keras lists them."""
        return self._flat_losses


def of(model, loss=None, temperature=1.0):
    """Return the loss of a model as a function (outputs, labels, sample weights or None) -> scalar.

    Args:
        model: a Keras model.  If it was compiled with a loss, that one is taken, with its weights.
        loss: another one to take instead, in any form that `compile` takes: the name of a Keras
            loss, an object, a function, or a list or dict of them for several outputs.  Without
            any it is the sparse cross-entropy of logits.
        temperature: the logits are divided by it; for a cross-entropy only.

    Raises:
        ValueError: if the model computes its loss by a method of its own.  The function raises one
            for outputs that are not what the loss takes (logits or probabilities), and for a loss
            that is no scalar.
    """
    given, weights = loss, None
    if loss is None:
        _expect_plain(model)
        compiled = getattr(model, "_compile_loss", None)
        if compiled is not None:
            given, weights = compiled._user_loss, compiled._user_loss_weights
    names = getattr(model, "output_names", None)
    default = given is None
    if default:
        given = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def total(outputs, labels, sample_weight=None):
        dtype = tf.nest.flatten(outputs)[0].dtype.name
        if temperature != 1:
            outputs = tf.nest.map_structure(lambda o: tempered(o, temperature), outputs)
        summed = Total(given, weights, names, dtype)
        value = summed(labels, outputs, sample_weight)
        for path, part, _, _ in summed.parts:
            _expect_fitting(part, functools.reduce(lambda o, key: o[key], path, outputs), default)
            if temperature != 1 and takes_logits(part) is None:
                raise ValueError(
                    f"temperature: expected 1 with a loss that is no cross-entropy, found "
                    f"{temperature} with {part.name!r}"
                )
        if value is None or value.shape.rank != 0:
            raise ValueError(
                f"loss: expected a scalar, found shape {getattr(value, 'shape', None)}: give the "
                "loss a reduction, such as the default 'sum_over_batch_size'"
            )
        return value

    return total


def computing_in(loss, dtype):
    """Return a copy of a Keras loss that computes in a float type, whatever Keras' own is."""
    found = object.__new__(type(loss))  # what `copy` makes goes by the configuration, and forgets
    vars(found).update(vars(loss), _dtype=dtype)
    return found


def _expect_plain(model):
    """Raise a ValueError if a model class computes its loss itself."""
    for name in ("compute_loss", "train_step"):
        if getattr(type(model), name) is not getattr(keras.Model, name):
            raise ValueError(
                f"model {model.name!r}: expected a compiled loss, found a method {name} of its "
                "own, which we cannot call on other weights: give `loss=`"
            )


def _expect_fitting(loss, output, default):
    """Raise a ValueError if a loss of logits is given probabilities, or the other way round."""
    found, logits = ends_in(output), takes_logits(loss)
    if logits and found in SOFTENED.values():
        remedy = "compile the model with its loss, or give `loss=`"
        if not default:
            remedy = "take from_logits=False, or an output without it"
        raise ValueError(
            f"loss {loss.name!r}: expected logits, found an output that ends in {found}: {remedy}"
        )
    if logits is False and found == "logits":
        raise ValueError(
            f"loss {loss.name!r}: expected probabilities, found an output that ends without "
            "softmax or sigmoid: take from_logits=True"
        )


def takes_logits(loss):
    """Return whether a Keras loss takes logits, or None where that makes no difference to it."""
    options = getattr(loss, "_fn_kwargs", {})
    if "from_logits" in options:
        return options["from_logits"]
    function = getattr(loss, "fn", None)
    return False if getattr(function, "__name__", "") in OF_PROBABILITIES else None


def ends_in(output):
    """Return what an output ends in: "a softmax", "a sigmoid", "logits", or None if not known.

    In a graph its last operation says it.  Outside of one, Keras notes on a tensor of
    probabilities which logits they are of, and nothing is known of others.
    """
    operation = _operation(output)
    if operation is not None:
        return SOFTENED.get(operation.type, "logits" if _is_linear(operation) else None)
    if not hasattr(output, "_keras_logits"):
        return None
    sums_to_one = tf.reduce_all(tf.abs(tf.reduce_sum(output, -1) - 1) < 1e-3)
    return "a softmax" if output.shape[-1] > 1 and sums_to_one else "a sigmoid"


def tempered(output, temperature):
    """Return an output whose logits are divided by a temperature, of the same kind as it was.

    The logarithms of what a softmax gives are its logits, but for a constant, which the softmax
    does not notice; so what it was given need not be known.
    """
    found = ends_in(output)
    if found == "a softmax":
        return keras.activations.softmax(tf.math.log(output) / temperature)
    if found == "a sigmoid":
        return keras.activations.sigmoid(
            (tf.math.log(output) - tf.math.log1p(-output)) / temperature
        )
    return output / temperature


def _operation(output):
    """Return the operation that made a tensor of a graph, through those that change no number."""
    if tf.executing_eagerly() or isinstance(output, tf.Variable):
        return None
    operation = output.op
    while operation.type in PASSING and operation.inputs:
        operation = operation.inputs[0].op
    return operation


def _is_linear(operation):
    """Return whether an operation is that of a linear layer, with its bias or without one."""
    below = [t.op.type for t in operation.inputs] if operation.type == "AddV2" else []
    return bool({operation.type, *below} & LINEAR)


def class_weighted(batches, class_weight):
    """Yield (x, y, sample weights) for batches (x, y): a weight for each class, as `fit` has it.

    Args:
        batches: an iterable of batches (x, y), y integers (n,) or (n, 1), or one-hot (n, classes).
        class_weight: {class: weight}; a class that is not in it has weight 1.
    """
    weight_of = np.vectorize(lambda c: class_weight.get(int(c), 1.0), otypes=[np.float32])
    for x, y in batches:
        classes = np.asarray(y)
        if classes.ndim > 1:
            classes = classes.argmax(-1) if classes.shape[-1] > 1 else classes.squeeze(-1)
        yield x, y, tf.constant(weight_of(classes))
