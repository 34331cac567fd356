r"""Training, fast enough to compare many networks: one compiled loop runs a whole epoch.

`trainer` compiles the loop once; every call after that starts with the weights and masks that the
network has then and with a fresh optimizer, so one graph serves many masks and many seeds.
Seeds fix everything: that of the network its initial weights, that of the call the batch order.
"""

import itertools
import math

from prosper_utils.progress import progress
from prosper_utils.pruning.networks import cross_entropy, trainable
from prosper_utils.study.datasets import check_pair, epoch_order

import keras
import tensorflow as tf


def trainer(model, optimizer=None, prepare=None):
    """Return a function that trains the model in place on softmax cross-entropy.

    Args:
        model: any built Keras 3 model from x to logits.
        optimizer: any Keras optimizer; by default SGD with learning rate 0.1 and momentum 0.9.
        prepare: function (x of a batch, a pair of integers that seeds it) -> what the model gets,
            such as `datasets.augmented`; the pair holds the seed of the call and the step.

    Returns:
        `train(data, *, epochs=None, steps=None, batch_size=128, seed=0, every=None, after=None,
        made=0)`: `data` is a pair (x, y), how long to train is given in epochs or in steps, `seed`
        fixes the batch order, and what is left at the end of an epoch, less than a batch, is not
        used in it.  The loss is the mean cross-entropy and whatever regularisation the model asks
        for.  `after(step, optimizer)` is called after every `every` steps.  Of a training that was
        interrupted, `made` steps are not made again; then the optimizer is taken as it is.
        It returns the mean training loss of each epoch, a list of floats; it raises a ValueError
        if not one of epochs and steps is given, only one of `every` and `after`, no whole batch
        can be taken, the examples do not fit the model, or a loss becomes NaN or infinite.
    """
    optimizer = optimizer or keras.optimizers.SGD(learning_rate=0.1, momentum=0.9)
    optimizer.build(trainable(model))
    fresh = [tf.identity(v.value) for v in optimizer.variables]
    run = compiled_run(model, optimizer, prepare)

    def train(
        data,
        *,
        epochs=None,
        steps=None,
        batch_size=128,
        seed=0,
        every=None,
        after=None,
        made=0,
    ):
        x, y = check_pair(data, batch_size)
        check_fits(model, x)
        if (epochs is None) == (steps is None):
            raise ValueError(f"expected epochs or steps, found epochs {epochs} and steps {steps}")
        if (every is None) != (after is None) or (every is not None and every < 1):
            raise ValueError(
                "expected `every`, a number of steps from 1 on, together with `after`, a function, "
                f"found every={every} and after={after}"
            )
        each = len(x) // batch_size
        last = epochs * each if steps is None else steps
        if not made:
            for variable, value in zip(optimizer.variables, fresh, strict=True):
                variable.assign(value)
        losses = []
        ahead = range(made // each, math.ceil(last / each)) if made < last else ()
        for epoch in progress(ahead, "training", "epoch"):
            rows = tf.constant(epoch_order(len(x), batch_size, seed, epoch))
            total, begin, end = 0.0, max(made, epoch * each), min(last, (epoch + 1) * each)
            for first, stop in itertools.pairwise(stops(begin, end, every)):
                constraints = tuple(v.constraint for v in model.trainable_variables)
                span = tf.constant([first, stop]) - epoch * each
                drawn = tf.constant([seed, epoch * each], tf.int64)
                total += float(run(constraints, x, y, rows, span, drawn))
                if not math.isfinite(total):
                    raise ValueError(
                        f"expected a finite training loss, found {total} in epoch {epoch}: "
                        "try a smaller learning rate"
                    )
                if every and stop % every == 0:
                    after(stop, optimizer)
            losses.append(total / (end - begin))
        return losses

    return train


def stops(begin, end, every):
    """Return begin, the multiples of `every` between, and end, a list of integers."""
    between = range(begin + every - begin % every, end, every) if every else ()
    return [begin, *between, end]


def compiled_run(model, optimizer, prepare=None):
    """Return a compiled function that trains on x[rows[i]], y[rows[i]] for i in a span.

    It takes (constraints, x, y, rows, span, drawn), span a pair (first, stop) and drawn what seeds
    the preparation of batch 0, and returns the sum of the losses.  The optimizer applies the
    constraints of the variables; they are an argument so that new ones make a new graph.
    """
    variables = trainable(model)
    prepare = prepare or (lambda x, seed: x)

    @tf.function
    def run(constraints, x, y, rows, span, drawn):
        total = tf.constant(0.0)
        for i in tf.range(span[0], span[1]):
            batch = tf.gather(rows, i)
            taken = prepare(tf.gather(x, batch), drawn + [0, tf.cast(i, tf.int64)])  # noqa: RUF005
            with tf.GradientTape() as tape:
                loss = cross_entropy(model(taken, training=True), tf.gather(y, batch))
                loss = tf.add_n([loss, *model.losses])
            optimizer.apply(tape.gradient(loss, variables), variables)
            total += tf.cast(loss, tf.float32)
        return total

    return run


def check_fits(model, x):
    """Raise a ValueError if a model of one input has another shape for it than the examples."""
    wanted = getattr(model, "input_shape", None)
    if isinstance(wanted, tuple) and not tf.TensorShape(wanted[1:]).is_compatible_with(x.shape[1:]):
        raise ValueError(
            f"model {model.name!r}: expected examples of shape {wanted[1:]}, "
            f"found {tuple(x.shape[1:])}"
        )


def error(model, data, *, chunk=2000):
    """Return the share of examples that the model gets wrong, in percent.

    Raises:
        ValueError: if there are no examples, they do not fit the model, or a logit is NaN.
    """
    x, y = check_pair(data)
    check_fits(model, x)
    wrong = 0
    for first in range(0, len(x), chunk):
        logits = model(x[first : first + chunk], training=False)
        if tf.reduce_any(tf.math.is_nan(logits)):
            raise ValueError(f"model {model.name!r}: expected finite logits, found NaN")
        found = tf.argmax(logits, axis=-1, output_type=tf.int64)
        wrong += int(tf.math.count_nonzero(found != tf.cast(y[first : first + chunk], tf.int64)))
    return 100 * wrong / len(x)


class FusedNormalization(keras.layers.BatchNormalization):
    """Batch normalisation by one operation of TensorFlow where Keras takes several, over channels.

    Its outputs and derivatives, second ones too, are those of Keras' layer.  The moving variance is
    that of N/(N - 1), as other libraries keep it.  Where the inputs are no images, in other float
    types than float32, where it is frozen and under a mask, it is Keras' layer.
    """

    def call(self, inputs, training=None, mask=None):
        plain = not (training and self.trainable) or mask is not None
        if plain or inputs.dtype != "float32" or len(inputs.shape) != 4:
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance, *_ = tf.compat.v1.nn.fused_batch_norm(
            inputs, self.gamma, self.beta, epsilon=self.epsilon
        )
        for moving, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(self.momentum * moving + (1 - self.momentum) * now)
        return outputs


def fused(model):
    """Return a functional or sequential model anew, with `FusedNormalization`, for faster training.

    It has the same weights in the same order, and their masks, constraints and regularizers.

    Raises:
        ValueError: for a batch normalisation that is not over the channels, with scale and centre;
            for a constraint that was set on a variable and that its layer does not store.
    """

    def copied(layer):
        if not isinstance(layer, keras.layers.BatchNormalization):
            return layer.from_config(layer.get_config())
        if not (layer.scale and layer.center and layer.axis in (-1, 3)):
            raise ValueError(
                f"layer {layer.name!r}: expected normalisation over the last axis with scale and "
                f"center, found axis {layer.axis}, {layer.scale} and {layer.center}"
            )
        return FusedNormalization.from_config(layer.get_config())

    again = keras.models.clone_model(model, clone_function=copied)
    again.set_weights(model.get_weights())
    for old, new in zip(model.trainable_variables, again.trainable_variables, strict=True):
        new.regularizer = old.regularizer
        if (old.constraint is None) != (new.constraint is None):
            raise ValueError(
                f"{old.path}: expected a constraint that its layer stores, found one that only the "
                "variable has: set it after `fused`"
            )
    return again
