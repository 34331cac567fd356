r"""The loss that a model was compiled with, as a pure function of its outputs and a batch.

For outputs :math:`f_k` of one or several heads k, labels :math:`y_k`, sample weights :math:`s_k`
and loss weights :math:`\lambda_k`, training minimises

.. math:: L = \sum_k \lambda_k \, \frac{1}{B} \sum_{i=1}^{B} s_{ki} \, \ell_k(y_{ki}, f_{ki})

and what layers add.  Keras' own code computes it here, whatever it was compiled with; it only gets
the float type of the outputs and keeps no metrics.  What would be computed without a word and be
wrong is refused: probabilities taken for logits, logits taken for probabilities.
"""

import functools
from operator import getitem

import keras
import numpy as np
import tensorflow as tf
from keras.src.models.functional import Functional  # no public names; a test watches over them
from keras.src.trainers.compile_utils import CompileLoss

PASSING = {"Identity", "Reshape", "Cast", "Squeeze", "ExpandDims", "Transpose"}
LINEAR = {"BiasAdd", "MatMul", "BatchMatMulV2", "Einsum", "Conv2D", "Conv3D", "LogSoftmax"}
SOFTENED = {"Softmax": "a softmax", "Sigmoid": "a sigmoid"}
PROBABILITIES = {name: f"a {name}" for name in ("softmax", "sigmoid", "hard_sigmoid", "sparsemax")}
KEEPING = {"Activation", "Dropout", "Flatten", "Identity", "Permute", "Reshape"}  # layers
LEAST = 1e-37  # of a probability whose logarithm is taken
OF_PROBABILITIES = [  # functions of Keras; as classes they say themselves what they take
    keras.losses.binary_crossentropy,
    keras.losses.binary_focal_crossentropy,
    keras.losses.categorical_crossentropy,
    keras.losses.categorical_focal_crossentropy,
    keras.losses.sparse_categorical_crossentropy,
]


class Total(CompileLoss):
    """Keras' sum over all outputs, in one float type and without metrics of its own.

    Args:
        model: the model whose outputs come.
        loss, weights: as `compile` takes them; no loss is the default one (see `of`).
        temperature: what the logits are divided by.
        dtype: the float type.
    """

    def __init__(self, model, loss, weights, temperature, dtype):
        self.model, self.temperature, self.default = model, temperature, loss is None
        names = getattr(model, "output_names", None)
        loss = (
            keras.losses.SparseCategoricalCrossentropy(from_logits=True) if self.default else loss
        )
        super().__init__(loss, weights, output_names=names)
        self._dtype = dtype

    def build(self, y_true, y_pred):
        """Find the loss of every output, as Keras does, and let it compute in the float type."""
        with tf.Graph().as_default():  # Keras makes metrics here, with variables; they stay there
            super().build(y_true, y_pred)
        known, parts = _endings(self.model, y_pred), []
        for part in self._flat_losses:
            output, ending = (functools.reduce(getitem, part.path, s) for s in (y_pred, known))
            _expect_fitting(self.model, part.loss, output, ending, self.default)
            if not tf.nest.is_nested(y_true):
                _expect_classes(self.model, part.loss, output, y_true)
            loss = at_temperature(computing_in(part.loss, self.dtype), self.temperature)
            parts.append(part._replace(loss=loss))
        self._flat_losses = parts
        self._metrics[:] = [None] * len(parts)


def of(model, loss=None, temperature=1.0, loss_weights=None):
    """Return the loss of a model as a function (outputs, labels, sample weights or None) -> scalar.

    Args:
        model: a Keras model.  If it was compiled with a loss, that one is taken, with its weights.
        loss: another one to take instead, in any form that `compile` takes: the name of a Keras
            loss, an object, a function, or a list or dict of them for several outputs.  Without
            any it is the sparse cross-entropy of logits (B, ..., classes), with integer labels
            (B, ...) or (B, ..., 1).
        temperature: the logits are divided by it; for a cross-entropy only.
        loss_weights: those of a `loss` that is given, as `compile` takes them.

    Raises:
        ValueError: if the model computes its loss by a method of its own, or its outputs are not
            what the loss takes (logits or probabilities).  Where this is not known before the
            model is called, the function raises it, and so it does for labels that do not fit the
            default loss or are one-hot where a loss takes integers (or the other way round), and
            for a loss that is no scalar.
    """
    given, weights = loss, loss_weights
    if loss is None:
        if loss_weights is not None:
            raise ValueError("loss weights: expected a loss with them, found none")
        _expect_plain(model)
        compiled = getattr(model, "_compile_loss", None)
        if compiled is not None:
            given, weights = compiled._user_loss, compiled._user_loss_weights
    summing = functools.partial(Total, model, given, weights, temperature)
    check = functools.partial(_expect_default, model) if given is None else lambda *_: None
    symbolic = _symbolic_outputs(model)
    if symbolic is not None:
        check(symbolic, symbolic)
        _expect_keys(model, given, symbolic)
        summing("float32").build(symbolic, symbolic)

    def total(outputs, labels, sample_weight=None):
        check(outputs, labels)
        summed = summing(tf.nest.flatten(outputs)[0].dtype.name)
        try:
            value = summed(labels, outputs, sample_weight)
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(
                f"loss: expected losses, labels and sample weights for the outputs of model "
                f"{model.name!r} as `fit` takes them, found others: {error}"
            ) from error
        if value is None or value.shape.rank != 0:
            raise ValueError(
                f"loss: expected a scalar, found shape {getattr(value, 'shape', None)}: give the "
                "loss a reduction, such as the default 'sum_over_batch_size'"
            )
        return value

    return total


def is_cross_entropy(model, loss=None):
    """Return whether the loss is the mean softmax cross-entropy of logits and integer labels."""
    if loss is None and getattr(model, "_compile_loss", None) is not None:
        loss = model._compile_loss._user_loss
        if model._compile_loss._user_loss_weights is not None:
            return False
    plain = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    same = type(loss) is type(plain) and loss.get_config() == plain.get_config()
    return loss is None or same


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


def _expect_keys(model, loss, outputs):
    """Raise a ValueError if losses by name are not for outputs of these names."""
    names = set(outputs if isinstance(outputs, dict) else getattr(model, "output_names", ()))
    if isinstance(loss, dict) and not set(loss) <= names:
        raise ValueError(
            f"loss: expected losses for the outputs {sorted(names)} of model {model.name!r}, "
            f"found them for {sorted(loss)}"
        )


def _expect_default(model, outputs, labels):
    """Raise a ValueError unless outputs and labels can be logits and the numbers of classes."""
    remedy = "compile the model with its loss, or give `loss=`"
    found = f"model {model.name!r} without a loss: expected logits (B, classes), found"
    if tf.nest.is_nested(outputs):
        raise ValueError(f"{found} several outputs: {remedy}")
    if len(outputs.shape) < 2 or outputs.shape[-1] == 1:
        raise ValueError(f"{found} outputs of shape {tuple(outputs.shape)}: {remedy}")
    if isinstance(outputs, keras.KerasTensor):
        return
    label = None if tf.nest.is_nested(labels) else tf.convert_to_tensor(labels)
    fits = label is not None and label.shape.rank in (len(outputs.shape) - 1, len(outputs.shape))
    if fits and label.shape.rank == len(outputs.shape):
        fits = label.shape[-1] == 1
    if not (fits and label.dtype.is_integer):
        shown = type(labels).__name__ if label is None else f"{label.dtype.name} {label.shape}"
        raise ValueError(
            f"labels of model {model.name!r} without a loss: expected integers "
            f"{tuple(outputs.shape[:-1])}, found {shown}: {remedy}, such as "
            "keras.losses.CategoricalCrossentropy(from_logits=True) for one-hot labels"
        )


def _expect_fitting(model, loss, output, ending, default):
    """Raise a ValueError if a loss of logits is given probabilities, or the other way round.

    Args:
        model: the model, for its name.
        loss: a Keras loss.
        output: the output that it is given.
        ending: what it is known to end in and by which layer, or (None, None).
        default: whether the loss is the one that is taken where there is none.
    """
    known, layer = ending
    found, logits = known or ends_in(output), takes_logits(loss)
    what = f"loss {loss.name!r} of " + (f"layer {layer!r}" if layer else f"model {model.name!r}")
    if logits and found in {*SOFTENED.values(), *PROBABILITIES.values()}:
        remedy = "compile the model with its loss, or give `loss=`"
        if not default:
            remedy = "take from_logits=False, or an output without it"
        raise ValueError(f"{what}: expected logits, found an output that ends in {found}: {remedy}")
    if logits is False and found == "logits":
        raise ValueError(
            f"{what}: expected probabilities, found an output that ends without softmax or "
            "sigmoid: take from_logits=True"
        )


def _expect_classes(model, loss, output, labels):
    """Raise a ValueError for one-hot labels where the loss takes integers, or the other way round.

    Args:
        model: the model, for its name.
        loss: a Keras loss; of those of classes only the labels are looked at.
        output, labels: one tensor each.
    """
    sparse = getattr(loss, "fn", None) is keras.losses.sparse_categorical_crossentropy
    one_hot = getattr(loss, "fn", None) is keras.losses.categorical_crossentropy
    rank = getattr(getattr(labels, "shape", None), "rank", 0)
    if isinstance(labels, keras.KerasTensor) or rank is None:
        return
    found, shape = tuple(np.shape(labels)), tuple(output.shape)
    are_integers = len(found) == len(shape) - 1 or found[-1:] == (1,)
    are_one_hot = len(found) == len(shape) and not are_integers
    if shape[-1] > 1 and ((sparse and are_one_hot) or (one_hot and are_integers)):
        takes = f"integers {shape[:-1]}" if sparse else f"one-hot labels {shape}"
        remedy = "categorical_crossentropy" if sparse else "sparse_categorical_crossentropy"
        raise ValueError(
            f"labels of model {model.name!r}: expected {takes} for the loss {loss.name!r}, found "
            f"shape {found}: take the loss {remedy!r}, or other labels"
        )


def _symbolic_outputs(model):
    """Return the symbolic outputs of a functional or Sequential model, None for any other."""
    if isinstance(model, keras.Sequential) and type(model).call is keras.Sequential.call:
        model = model._functional
    plain = isinstance(model, Functional) and type(model).call is Functional.call
    return model._outputs_struct if plain else None


def _endings(model, outputs):
    """Return, in the structure of the outputs, what each one is known to end in."""
    symbolic = _symbolic_outputs(model)
    flat = tf.nest.flatten(outputs if symbolic is None else symbolic)
    return keras.tree.pack_sequence_as(
        outputs, [(None, None) if symbolic is None else _ending(tensor) for tensor in flat]
    )


def _ending(symbolic):
    """Return what a symbolic output ends in, as for `ends_in`, and the name of the layer."""
    layer, call, index = symbolic._keras_history
    if isinstance(layer, keras.Model):
        inner = _symbolic_outputs(layer)
        return (None, None) if inner is None else _ending(tf.nest.flatten(inner)[index])
    inner = getattr(layer, "layer", layer)  # of a wrapper
    kind, activation = type(inner).__name__, getattr(inner, "activation", None)
    name = getattr(activation, "__name__", type(activation).__name__).lower()
    name = kind.lower() if activation is None else name
    if name in PROBABILITIES:
        return PROBABILITIES[name], layer.name
    if kind in KEEPING and name in (kind.lower(), "linear"):
        return _ending(layer._inbound_nodes[call].input_tensors[0])  # it may be called again
    known = activation is not None and getattr(keras.activations, name, None) is activation
    return ("logits", layer.name) if known else (None, None)


def takes_logits(loss):
    """Return whether a Keras loss takes logits, or None where that makes no difference to it."""
    options = getattr(loss, "_fn_kwargs", {})
    if "from_logits" in options:
        return options["from_logits"]
    return False if getattr(loss, "fn", None) in OF_PROBABILITIES else None


def ends_in(output):
    """Return what an output ends in: `"a softmax"`, `"a sigmoid"`, `"logits"`, or None if unknown.

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


def at_temperature(loss, temperature):
    """Return a loss of the same outputs, whose logits are divided by a temperature.

    The logarithms of what a softmax gives are its logits, but for a constant, which the softmax
    does not notice; so what it was given need not be known.  Where Keras notes it, it is taken,
    since a probability that has become 0 or 1 has no logarithm.
    """
    logits = takes_logits(loss)
    if temperature == 1:
        return loss
    if logits is None:
        raise ValueError(
            f"temperature: expected 1 with a loss that is no cross-entropy, found {temperature} "
            f"with {loss.name!r}: give temperature=1.0"
        )
    binary = "binary" in getattr(loss.fn, "__name__", "")

    def tempered(output):
        if logits:
            return output / temperature
        soften = keras.activations.sigmoid if binary else keras.activations.softmax
        return soften(_logits_of(output, binary) / temperature)

    return lambda labels, output, sample_weight=None: loss(labels, tempered(output), sample_weight)


def _logits_of(output, binary):
    """Return logits of probabilities: log p, or log(p / (1 - p)) where there are two classes."""
    if hasattr(output, "_keras_logits"):
        return output._keras_logits
    log_p, log_rest = (tf.math.log(tf.maximum(p, LEAST)) for p in (output, 1 - output))
    return log_p - log_rest if binary else log_p


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
