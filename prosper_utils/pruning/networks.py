r"""The networks of the book, and a Keras 3 model as a pure function of its weights.

A meta-gradient differentiates through training steps, so it needs the loss as a function
:math:`L(w, \text{batch})` of plain tensors, not of variables that change in place.
`as_loss` gives it for a built Keras 3 model, functional or subclassed, whose loss is compiled or
given; what it refuses, the page "What works" of the book lists.
"""

import functools
import numbers

from prosper_utils.pruning import losses, mode

import keras
import numpy as np
import tensorflow as tf

IMAGE = (28, 28, 1)
COLOUR = (32, 32, 3)
CLASSES = 10
DOUBLE = {"dtype": "float64"}


def dense_300_100(activation="tanh", *, seed=0, dtype="float32", units=(300, 100)):
    """Return LeNet-300-100 (LeCun et al., 1998): 784-300-100-10, with 266,610 parameters.

    Args:
        activation: the hidden activation, any name or function that Keras knows.
        seed: fixes the initial weights (Glorot uniform; biases are zero).
        dtype: the float type of weights and arithmetic.
        units: the widths of the two hidden layers, for a smaller or larger network of this kind.

    Returns:
        A built `keras.Sequential` from images (B, 28, 28, 1) to logits (B, 10).
    """
    dense = functools.partial(keras.layers.Dense, kernel_initializer=_glorot(seed), dtype=dtype)
    layers = [
        keras.Input(IMAGE, dtype=dtype),
        keras.layers.Flatten(dtype=dtype),
        dense(units[0], activation, name="hidden_1"),
        dense(units[1], activation, name="hidden_2"),
        dense(CLASSES, name="output"),
    ]
    return keras.Sequential(layers, name="lenet_300_100")


def lenet5(activation="tanh", *, seed=0, dtype="float32"):
    """Return LeNet-5 (after LeCun et al., 1998), all feature maps connected: 61,706 parameters.

    Convolution 6 @ 5x5 (same), average pool, convolution 16 @ 5x5 (valid), average pool,
    120, 84, 10.  It is not LeNet-5-Caffe, which has 431k weights.
    Arguments and result are those of `dense_300_100`, but for the units.
    """
    glorot = _glorot(seed)
    dense = functools.partial(keras.layers.Dense, kernel_initializer=glorot, dtype=dtype)
    conv = functools.partial(keras.layers.Conv2D, kernel_initializer=glorot, dtype=dtype)
    layers = [
        keras.Input(IMAGE, dtype=dtype),
        conv(6, 5, padding="same", activation=activation, name="conv_1"),
        keras.layers.AveragePooling2D(2, dtype=dtype),
        conv(16, 5, padding="valid", activation=activation, name="conv_2"),
        keras.layers.AveragePooling2D(2, dtype=dtype),
        keras.layers.Flatten(dtype=dtype),
        dense(120, activation, name="hidden_1"),
        dense(84, activation, name="hidden_2"),
        dense(CLASSES, name="output"),
    ]
    return keras.Sequential(layers, name="lenet_5")


def lenet5_caffe(activation="relu", *, seed=0, dtype="float32"):
    """Return the LeNet-5 of Caffe's example, which papers on pruning use: 431,080 parameters.

    Convolution 20 @ 5x5 (valid), max pool, convolution 50 @ 5x5 (valid), max pool, 500, 10.
    Arguments and result are those of `lenet5`.
    """
    glorot = _glorot(seed)
    dense = functools.partial(keras.layers.Dense, kernel_initializer=glorot, dtype=dtype)
    conv = functools.partial(keras.layers.Conv2D, kernel_initializer=glorot, dtype=dtype)
    layers = [
        keras.Input(IMAGE, dtype=dtype),
        conv(20, 5, activation=activation, name="conv_1"),
        keras.layers.MaxPooling2D(2, dtype=dtype),
        conv(50, 5, activation=activation, name="conv_2"),
        keras.layers.MaxPooling2D(2, dtype=dtype),
        keras.layers.Flatten(dtype=dtype),
        dense(500, activation, name="hidden"),
        dense(CLASSES, name="output"),
    ]
    return keras.Sequential(layers, name="lenet_5_caffe")


def vgg(activation="relu", *, seed=0, dtype="float32", widths=(32, 64, 128), shape=IMAGE):
    """Return a small network of the kind of VGG (Simonyan and Zisserman, 2015), normalised.

    For each width two convolutions 3x3, each normalised and activated, and a max pool; then the
    mean over the pixels, and 10 logits.  With the default widths 289,066 parameters.
    Arguments and result are those of `resnet`.
    """
    initial = keras.initializers.HeNormal(seed=keras.random.SeedGenerator(seed))
    conv = functools.partial(
        keras.layers.Conv2D, padding="same", use_bias=False, kernel_initializer=initial, dtype=dtype
    )
    layers = [keras.Input(shape, dtype=dtype)]
    for stage, width in enumerate(widths, 1):
        for i in (1, 2):
            name = f"stage_{stage}_conv_{i}"
            norm = keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_norm", dtype=dtype)
            layers += [conv(width, 3, name=name), norm]
            layers.append(keras.layers.Activation(activation, dtype=dtype))
        layers.append(keras.layers.MaxPooling2D(2, dtype=dtype))
    layers.append(keras.layers.GlobalAveragePooling2D(dtype=dtype))
    output = keras.layers.Dense(CLASSES, kernel_initializer=initial, name="output", dtype=dtype)
    return keras.Sequential([*layers, output], name="vgg")


def resnet(depth, activation="relu", *, seed=0, dtype="float32", widths=(16, 32, 64), shape=COLOUR):
    r"""Return a residual network with batch normalisation for small images (He et al., 2016).

    A first 3x3 convolution, then three stages of n blocks each, depth = 6n + 2; a block is
    conv 3x3, normalise, activate, conv 3x3, normalise, add what came in, activate.  The later
    stages begin with stride 2, and there the shortcut is a normalised 1x1 convolution (option B;
    the paper's CIFAR networks pad with zeros).  At the end the mean over the pixels, and 10 logits.

    Args:
        depth: 8, 14, 20, ...: how many layers with weights, shortcuts not counted.
        activation, seed, dtype: as for `dense_300_100`; weights are He normal.
        widths: the channels of the three stages.
        shape: height, width and channels of the images.

    Returns:
        A built `keras.Model` from images (B, height, width, channels) to logits (B, 10).

    Raises:
        ValueError: for a depth that is not :math:`6n + 2` with :math:`n \ge 1`.
    """
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"depth: expected 6n + 2, such as 8 or 20, found {depth}")
    initial = keras.initializers.HeNormal(seed=keras.random.SeedGenerator(seed))

    def convolve(x, width, size, stride, name):
        options = {"padding": "same", "use_bias": False, "kernel_initializer": initial}
        conv = keras.layers.Conv2D(width, size, stride, name=name, dtype=dtype, **options)
        norm = keras.layers.BatchNormalization(
            momentum=0.9, epsilon=1e-5, name=f"{name}_norm", dtype=dtype
        )
        return norm(conv(x))

    def activate(x):
        return keras.layers.Activation(activation, dtype=dtype)(x)

    images = keras.Input(shape, dtype=dtype)
    x = activate(convolve(images, widths[0], 3, 1, "first"))
    for stage, width in enumerate(widths, 1):
        for block in range(1, (depth - 2) // 6 + 1):
            name, stride = f"stage_{stage}_block_{block}", 2 if stage > 1 and block == 1 else 1
            same = stride == 1 and x.shape[-1] == width
            shortcut = x if same else convolve(x, width, 1, stride, f"{name}_skip")
            x = activate(convolve(x, width, 3, stride, f"{name}_conv_1"))
            x = convolve(x, width, 3, 1, f"{name}_conv_2")
            x = activate(keras.layers.Add(dtype=dtype)([x, shortcut]))
    x = keras.layers.GlobalAveragePooling2D(dtype=dtype)(x)
    output = keras.layers.Dense(CLASSES, kernel_initializer=initial, name="output", dtype=dtype)
    return keras.Model(images, output(x), name=f"resnet_{depth}")


#: `resnet` of depth 8: one block for each stage.
resnet8 = functools.partial(resnet, 8)
#: `resnet` of depth 20: three blocks for each stage.
resnet20 = functools.partial(resnet, 20)


def _glorot(seed):
    """Return one initializer for all layers, each call drawing the next numbers of one seed."""
    return keras.initializers.GlorotUniform(seed=keras.random.SeedGenerator(seed))


def as_outputs(model, *, statistics="batch", dropout=False, dtype=None, losses=False):
    """Return `(weights, outputs)`: a built Keras 3 model as a pure function of its weights.

    By default the model is run as in training, but for its random numbers, and none of its state
    changes: neither weights, moving statistics, seeds, nor anything else.

    Args:
        model: any built Keras 3 model, subclassed ones included.
        statistics: `"batch"`, for batch normalisation by the statistics of the batch at hand, as in
            training (a frozen one takes its moving statistics, by Keras' own rule), or `"moving"`,
            for the model as in inference.
        dropout: whether dropout and all else that draws random numbers in training is on.  Then
            the numbers are fixed by the seeds and the batch: equal batches see equal masks.
        dtype: the float type of weights and arithmetic, `"float64"` or `"float32"`, whatever the
            model's own; by default that of its weights, also for a mixed model.
        losses: whether `outputs` also returns what layers add to the loss (see there).

    Returns:
        The trainable weights now, copied, as plain tensors in Keras' order, and the function
        (weights, x) -> the structure of tensors that the model returns; with `losses` the pair of
        it and a list of scalars: regularisation and what layers gave to `add_loss`.

    Raises:
        ValueError: if the model is not built, has no trainable weights or some in half precision,
            for an unknown mode, or if it is later given weights of another number or float type.
    """
    if statistics not in mode.STATISTICS:
        raise ValueError(f"statistics: expected 'batch' or 'moving', found {statistics!r}")
    if dropout and statistics == "moving":
        raise ValueError("dropout: expected statistics 'batch' with it, found 'moving'")
    variables, state = trainable(model), model.non_trainable_variables
    given, computed = mode.float_type(model, dtype)

    def copied(variable):
        floating = tf.as_dtype(variable.dtype).is_floating
        value = tf.identity(variable.value)
        return tf.cast(value, given) if given and floating else value

    frozen = {id(v): copied(v) for v in state}
    quiet = [] if dropout or statistics == "moving" else mode.drawing(model)

    def outputs(weights, x):
        check_types(weights, variables, given)
        values = dict(frozen)
        if dropout:
            drawn = mode.fingerprint(x)
            for seed in mode.seeds(model):
                values[id(seed)] = frozen[id(seed)] + tf.cast([0, drawn], frozen[id(seed)].dtype)
        values = [*weights, *(values[id(v)] for v in state)]
        with (
            mode.running(model, dtype=computed, quiet=quiet),
            mode.Values([*variables, *state], values, collect_losses=losses),
        ):
            found = model(x, training=statistics == "batch")
            added = list(model.losses) if losses else []
        found = tf.nest.map_structure(lambda t: _as_weights(t, weights), found)
        return (found, [_as_weights(t, weights) for t in added]) if losses else found

    return [copied(v) for v in variables], outputs


def _as_weights(tensor, weights):
    """Return a tensor in the float type of the weights if it is one of floats."""
    return tf.cast(tensor, weights[0].dtype) if tensor.dtype.is_floating else tensor


def as_logits(model, **running):
    """Return `(weights, logits)`: `as_outputs` of a model whose output are logits (B, classes)."""
    return as_outputs(model, **running)


def as_loss(
    model, loss=None, *, loss_weights=None, regularisation=True, temperature=1.0, **running
):
    """Return `(weights, loss)`: the loss of a built Keras 3 model as a pure function.

    Args:
        model: any built Keras 3 model.
        loss: the loss to take, in any form that `compile` takes; by default the one that the model
            was compiled with, or else the sparse cross-entropy of logits (see `losses.of`).
        loss_weights: those of a `loss` that is given, for several outputs.
        regularisation: whether what layers add to the loss counts, as it does in training: the
            penalties of regularizers, and what is given to `add_loss`.
        temperature: what the logits are divided by, for a cross-entropy only.
        running: how it is run: `statistics`, `dropout` and `dtype` as for `as_outputs`.

    Returns:
        The trainable weights now, copied, as plain tensors in Keras' order, and the function
        (weights, batch) -> scalar.  There batch = (x, y) or (x, y, sample weights), each as Keras
        takes it: an array, or a list, tuple or dict of them for several inputs or outputs.  By
        default the model is run with batch statistics and without dropout, and no state of it
        changes.

    Raises:
        ValueError: if the model is not built, has no trainable weights, computes its loss by a
            method of its own, or is later given weights of another number or float type, or
            outputs, labels or batches that do not fit.
    """
    total = losses.of(model, loss, temperature, loss_weights)
    weights, outputs = as_outputs(model, losses=True, **running)

    def value(weights, batch):
        x, y, sample_weight = _parts(batch)
        found, added = outputs(weights, x)
        summed = total(found, y, sample_weight)
        return sum(map(tf.reduce_sum, added), summed) if regularisation else summed

    options = {"regularisation": regularisation, "temperature": temperature} | running | DOUBLE
    options["loss_weights"] = loss_weights
    return weights, described(value, model, lambda: as_loss(model, loss, **options)[1])


def _parts(batch):
    """Return (x, y, sample weights or None); raise a ValueError for what is no such batch."""
    if not isinstance(batch, tuple | list) or not 2 <= len(batch) <= 3:
        raise ValueError(
            "batch: expected (x, y) or (x, y, sample weights), found "
            f"{type(batch).__name__}{f' of {len(batch)}' if hasattr(batch, '__len__') else ''}"
        )
    shapes = [tuple(np.shape(part)) for part in tf.nest.flatten(batch) if part is not None]
    if () in shapes or len({shape[0] for shape in shapes} - {None}) > 1:
        raise ValueError(
            f"batch: expected equally many examples in each part, found shapes {shapes}; "
            "a batch of its own is given in a list, [(x, y)]"
        )
    return (*batch, None)[:3]


def described(loss, model, in_float64):
    """Return a loss that says what it is of, for `lookahead.second_derivatives`.

    Args:
        loss: function (weights, batch) -> scalar.
        model: the model whose loss it is: `loss.names` become the paths of its trainable weights,
            `loss.layers` the names of its layers.
        in_float64: function without arguments that returns the same loss in double precision.
    """
    loss.names = [v.path for v in trainable(model)]
    loss.layers = [layer.name for layer in mode.layers(model)]
    loss.in_float64 = in_float64
    return loss


def cross_entropy(logits, labels):
    """Return the mean softmax cross-entropy of logits (B, classes) and integer labels (B,)."""
    labels = tf.cast(labels, tf.int64)
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))


def trainable(model):
    """Return the trainable variables of a built model; raise a ValueError if there are none."""
    if not getattr(model, "built", False):
        raise ValueError(
            f"model {model.name!r}: expected a built model, found one without weights: "
            "call it on a batch, or give it an Input"
        )
    if not model.trainable_variables:
        raise ValueError(f"model {model.name!r}: expected trainable weights, found none")
    return model.trainable_variables


def kernel_indices(model):
    """Return which trainable weights are kernels, the ones that are scored and pruned.

    A kernel is a trainable variable that Keras names so: `kernel` of dense and convolution layers,
    `depthwise_kernel`, `recurrent_kernel` and the like, and `embeddings`, the table of an
    embedding; biases and normalisation scales are not.  `select` chooses among them.

    Raises:
        ValueError: if the model is not built or has no kernel.
    """
    found = enumerate(trainable(model))
    indices = [i for i, v in found if v.name.endswith(("kernel", "embeddings"))]
    if not indices:
        names = ", ".join(v.path for v in model.trainable_variables)
        raise ValueError(f"model {model.name!r}: expected a kernel to prune, found only {names}")
    return indices


def kernels(model):
    """Return the kernels of a built model as Keras variables, in Keras' order."""
    return [model.trainable_variables[i] for i in kernel_indices(model)]


def select(model, *, include=None, exclude=()):
    """Return for each kernel whether it is to be pruned, as `masks.top_k` takes it with `prune`.

    Args:
        model: a built Keras 3 model.
        include: what to prune, a list; by default every kernel.
        exclude: what to leave whole, a list.  `[0, -1]` is the usual "first and last".

    Each entry of a list is the number of a kernel in the order of `kernels`, negative ones from the
    end; the name or the class of a layer, which stands for all kernels within it; or a function
    from a layer to True or False.

    Raises:
        ValueError: for an entry that fits no kernel.
    """
    layers = [
        (la, {id(v) for v in la.trainable_variables})
        for la in model._flatten_layers(include_self=False)
    ]
    within = [[layer for layer, ids in layers if id(kernel) in ids] for kernel in kernels(model)]
    wanted = [include is None] * len(within)
    for entries, value in ((include or (), True), (exclude, False)):
        for entry in entries:
            for i in _fitting(entry, within):
                wanted[i] = value
    return wanted


def _fitting(entry, within):
    """Return the numbers of the kernels that an entry of `select` stands for."""
    count = len(within)
    if isinstance(entry, numbers.Integral):
        found = [entry % count] if -count <= entry < count else []
    else:
        found = [i for i, layers in enumerate(within) if any(_fits(entry, x) for x in layers)]
    if not found:
        raise ValueError(f"select: expected what fits one of {count} kernels, found {entry!r}")
    return found


def _fits(entry, layer):
    if isinstance(entry, str):
        return layer.name == entry
    return isinstance(layer, entry) if isinstance(entry, type) else entry(layer)


def check_types(weights, variables, dtype=None):
    """Raise a ValueError unless weights match the variables in number and float type.

    Args:
        weights: a list of tensors.
        variables: the Keras variables whose values they are.
        dtype: the float type expected of all, or None for that of each variable.
    """
    if len(weights) != len(variables):
        raise ValueError(f"weights: expected {len(variables)} tensors, found {len(weights)}")
    for weight, variable in zip(weights, variables, strict=True):
        expected, found = dtype or variable.dtype, tf.as_dtype(weight.dtype).name
        if found != expected:
            raise ValueError(
                f"weight {variable.path}: the model computes in {expected}, "
                f"found {found}: ask for that dtype, or build the model with it"
            )
