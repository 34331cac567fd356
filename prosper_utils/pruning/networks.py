r"""The networks of the book, and any Keras 3 model as a pure function of its weights.

A meta-gradient differentiates through training steps, so it needs the loss as a function
:math:`L(w, \text{batch})` of plain tensors, not of variables that change in place.
`as_loss` gives it for every built Keras 3 model.
"""

import functools

import keras
import tensorflow as tf

IMAGE = (28, 28, 1)
COLOUR = (32, 32, 3)
CLASSES = 10


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


def resnet(depth, activation="relu", *, seed=0, dtype="float32", widths=(16, 32, 64), shape=COLOUR):
    """Return a residual network with batch normalisation for small images (He et al., 2016).

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
        A built `keras.Model` from images (B, *shape) to logits (B, 10).

    Raises:
        ValueError: for a depth that is not 6n + 2 with n >= 1.
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


resnet8 = functools.partial(resnet, 8)
resnet20 = functools.partial(resnet, 20)


def _glorot(seed):
    """Return one initializer for all layers, each call drawing the next numbers of one seed."""
    return keras.initializers.GlorotUniform(seed=keras.random.SeedGenerator(seed))


def as_logits(model):
    """Return `(weights, logits)`: a built Keras 3 model as a pure function of its weights.

    `logits(weights, x)` has shape (B, classes); all else is as for `as_loss`.
    """
    variables = trainable(model)
    frozen = [tf.identity(v.value) for v in model.non_trainable_variables]

    def logits(weights, x):
        check_types(weights, variables)
        outputs, _ = model.stateless_call(weights, frozen, x, training=False)
        return tf.cast(outputs, weights[0].dtype)

    return [tf.identity(v.value) for v in variables], logits


def as_loss(model):
    """Return `(weights, loss)`: the loss of a built Keras 3 model as a pure function.

    Args:
        model: any built Keras 3 model from x to logits (B, classes).

    Returns:
        The trainable weights now, copied, as plain tensors in Keras' order, and the function
        (weights, batch) -> scalar that is the mean softmax cross-entropy of the logits.  There
        batch = (x, y), x float (B, 28, 28, 1) in [0, 1] or whatever the model takes, y integer
        labels (B,) of any integer type.  Non-trainable state is held fixed at its value now, and
        the model runs as in inference: dropout is off.

    Raises:
        ValueError: if the model is not built, has no trainable weights, or is later given weights
            of another number or float type than its own.
    """
    weights, logits = as_logits(model)

    def loss(weights, batch):
        x, y = batch
        return cross_entropy(logits(weights, x), y)

    return weights, loss


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
    if isinstance(entry, int):
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


def check_types(weights, variables):
    """Raise a ValueError unless weights match the variables in number and float type."""
    if len(weights) != len(variables):
        raise ValueError(f"weights: expected {len(variables)} tensors, found {len(weights)}")
    for weight, variable in zip(weights, variables, strict=True):
        if tf.as_dtype(weight.dtype).name != variable.dtype:
            raise ValueError(
                f"weight {variable.path}: the model computes in {variable.dtype}, "
                f"found {tf.as_dtype(weight.dtype).name}: build the model with that dtype"
            )
