"""What works: layers, losses, optimizers and ways of saving, each of them tried.

A *cell* is one row and one column of a table, such as a layer and a score.  Trying it ends in one
of three ways: it does what it should, by an independent calculation in float64 (the cell is ✓); it
refuses with an error or a warning (the cell is what it says); or it is wrong, and an AssertionError
says so, which `tests/book/test_works.py` does not let pass.  `python book/tools/works.py` tries all
cells and stores the outcomes in `book/works.json`, which the page shows and the test compares.
"""

import contextlib
import functools
import importlib.metadata
import json
import tempfile
import warnings
from pathlib import Path

from prosper_utils.lookahead.meta_gradient import meta_gradient
from prosper_utils.progress import progress
from prosper_utils.pruning import masks, scores
from prosper_utils.pruning.networks import as_loss, kernel_indices, kernels
from prosper_utils.pruning.paths import flow
from prosper_utils.study import results

import keras
import numpy as np
import tensorflow as tf

STORED = Path(__file__).parents[1] / "works.json"
CLASSES, BATCH, ALPHA, STEPS = 3, 8, 0.1, 2
L = keras.layers


@contextlib.contextmanager
def doubles():
    """Let layers and losses that are made inside compute in float64."""
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        yield
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)


# Layers ------------------------------------------------------------------------------------------


def image(*layers):
    """Return a classifier of small images with these layers in the middle."""
    return [keras.Input((6, 6, 4)), *layers, L.GlobalAveragePooling2D(), L.Dense(CLASSES)]


def series(*layers):
    """Return a classifier of short series with these layers in the middle."""
    return [keras.Input((5, 4)), *layers, L.GlobalAveragePooling1D(), L.Dense(CLASSES)]


def vector(*layers):
    """Return a classifier of vectors with these layers in the middle."""
    return [keras.Input((5,)), *layers, L.Dense(CLASSES)]


def graph(join):
    """Return a classifier of small images in which `join` brings two branches together."""
    x = keras.Input((6, 6, 4))
    a = L.Conv2D(4, 3, padding="same", activation="tanh")(x)
    b = L.Conv2D(4, 3, padding="same", activation="tanh")(x)
    pooled = L.GlobalAveragePooling2D()(join([a, b]))
    return keras.Model(x, L.Dense(CLASSES)(pooled))


def attention():
    """Return a classifier of short series with self-attention."""
    x = keras.Input((5, 4))
    mixed = L.MultiHeadAttention(2, 3)(x, x)
    return keras.Model(x, L.Dense(CLASSES)(L.GlobalAveragePooling1D()(mixed)))


def nested():
    """Return a classifier whose first part is a model."""
    inner = keras.Sequential([keras.Input((5,)), L.Dense(6, "tanh")])
    return keras.Sequential(vector(inner))


def shared():
    """Return a classifier that uses one layer twice."""
    x, layer = keras.Input((5,)), L.Dense(5, "tanh")
    return keras.Model(x, L.Dense(CLASSES)(layer(layer(x))))


@keras.saving.register_keras_serializable("prosper_utils_works")
class Stopped(L.Layer):
    """A layer of a reader's own that holds a part of its gradient back."""

    def call(self, x):
        """Return x times its own size, whose gradient is held back."""
        return x * tf.stop_gradient(tf.reduce_mean(x * x, -1, keepdims=True))


@tf.custom_gradient
def straight(x):
    """Return the sign of x, with the gradient of x: a straight-through estimate."""
    return tf.sign(x), lambda upstream: upstream


def conv():
    """Return the convolution that stands before what is tried."""
    return L.Conv2D(4, 3, padding="same")


LAYERS = {
    "Dense": lambda: vector(L.Dense(6, "tanh")),
    "EinsumDense": lambda: series(L.EinsumDense("abc,cd->abd", (None, 6), activation="tanh")),
    "Conv1D": lambda: series(L.Conv1D(6, 3, activation="tanh")),
    "Conv2D": lambda: image(L.Conv2D(6, 3, activation="tanh")),
    "Conv2D, groups": lambda: image(L.Conv2D(6, 3, groups=2, activation="tanh")),
    "Conv2D, strides": lambda: image(L.Conv2D(6, 3, 2, activation="tanh")),
    "Conv2DTranspose": lambda: image(L.Conv2DTranspose(6, 3, activation="tanh")),
    "DepthwiseConv2D": lambda: image(L.DepthwiseConv2D(3, activation="tanh")),
    "SeparableConv2D": lambda: image(L.SeparableConv2D(6, 3, activation="tanh")),
    "Embedding": lambda: [keras.Input((5,)), L.Embedding(7, 4), *series(L.Dense(6, "tanh"))[1:]],
    "SimpleRNN": lambda: [keras.Input((5, 4)), L.SimpleRNN(6), L.Dense(CLASSES)],
    "LSTM": lambda: [keras.Input((5, 4)), L.LSTM(6), L.Dense(CLASSES)],
    "GRU": lambda: [keras.Input((5, 4)), L.GRU(6), L.Dense(CLASSES)],
    "Bidirectional": lambda: [keras.Input((5, 4)), L.Bidirectional(L.LSTM(4)), L.Dense(CLASSES)],
    "TimeDistributed": lambda: series(L.TimeDistributed(L.Dense(6, "tanh"))),
    "MultiHeadAttention": attention,
    "BatchNormalization": lambda: image(conv(), L.BatchNormalization(), L.Activation("tanh")),
    "BatchNormalization, renorm": lambda: image(
        conv(), L.BatchNormalization(renorm=True), L.Activation("tanh")
    ),
    "LayerNormalization": lambda: image(conv(), L.LayerNormalization(), L.Activation("tanh")),
    "GroupNormalization": lambda: image(conv(), L.GroupNormalization(2), L.Activation("tanh")),
    "RMSNormalization": lambda: image(conv(), L.RMSNormalization(), L.Activation("tanh")),
    "UnitNormalization": lambda: image(conv(), L.UnitNormalization()),
    "SpectralNormalization": lambda: image(L.SpectralNormalization(conv()), L.Activation("tanh")),
    "PReLU": lambda: image(conv(), L.PReLU(alpha_initializer="glorot_uniform")),
    "MaxPooling2D": lambda: image(conv(), L.MaxPooling2D()),
    "AveragePooling2D": lambda: image(conv(), L.Activation("gelu"), L.AveragePooling2D(2)),
    "Flatten": lambda: [keras.Input((6, 6, 4)), conv(), L.Flatten(), L.Dense(CLASSES)],
    "Add": lambda: graph(L.Add()),
    "Multiply": lambda: graph(L.Multiply()),
    "Concatenate": lambda: graph(L.Concatenate()),
    "Dropout": lambda: image(conv(), L.Dropout(0.5), L.Activation("tanh")),
    "GaussianNoise": lambda: image(conv(), L.GaussianNoise(0.5), L.Activation("tanh")),
    "a nested model": nested,
    "a shared layer": shared,
    "Lambda": lambda: image(conv(), L.Lambda(tf.tanh)),
    "a layer with stop_gradient": lambda: image(conv(), Stopped()),
    "a custom_gradient": lambda: image(conv(), L.Activation(straight)),
}
RANDOM = ("Dropout", "GaussianNoise")  # off in scores, so they are compared with inference


def network(row):
    """Return the model of a row of the table of layers, in float64, with weights of its own."""
    keras.utils.set_random_seed(1)
    with doubles():
        made = LAYERS[row]()
        model = made if isinstance(made, keras.Model) else keras.Sequential(made)
    generator = np.random.default_rng(2)
    for variable in model.trainable_variables:  # biases, gamma and beta that mean something
        variable.assign(variable + 0.1 * generator.normal(size=variable.shape))
    return model


def examples(model, count):
    """Return batches of random examples that fit a model."""
    generator = np.random.default_rng(3)
    embeds = any(isinstance(layer, L.Embedding) for layer in model.layers)
    shape = (BATCH, *getattr(model, "input_shape", (None, 5))[1:])  # a class of one's own has none
    draw = (
        (lambda: generator.integers(0, 7, shape))
        if embeds
        else lambda: generator.normal(size=shape)
    )
    return [(draw(), generator.integers(0, CLASSES, BATCH)) for _ in range(count)]


def by_keras(model, training):
    """Return the loss and its gradient as functions (weights, batch), by Keras alone."""
    frozen = [tf.identity(v) for v in model.non_trainable_variables]
    with doubles():
        entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def loss(weights, batch):
        outputs, _ = model.stateless_call(weights, frozen, batch[0], training=training)
        return entropy(batch[1], outputs)

    def gradient(weights, batch):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            value = loss(weights, batch)
        slopes = tape.gradient(value, weights, unconnected_gradients="zero")
        return [tf.convert_to_tensor(slope) for slope in slopes]

    return loss, gradient


def close(found, expected, bound):
    """Raise an AssertionError unless two lists of tensors agree, relative to all entries."""
    a, b = (np.concatenate([np.ravel(t) for t in ts]) for ts in (found, expected))
    error = np.linalg.norm(a - b) / np.linalg.norm(b)
    assert error < bound, f"expected a relative error below {bound}, found {error}"


def snip_works(row):
    """Compare SNIP with weight times gradient, as Keras' own loss has it."""
    model = network(row)
    (batch,) = examples(model, 1)
    _, gradient = by_keras(model, row not in RANDOM)
    weights = [tf.identity(v) for v in model.trainable_variables]
    slopes = gradient(weights, batch)
    wanted = [tf.abs(weights[i] * slopes[i]) for i in kernel_indices(model)]
    close(scores.snip(model, [batch]), wanted, 1e-10)


def grasp_works(row):
    """Compare GraSP with a difference of gradients, as Keras' own loss has them."""
    model = network(row)
    (batch,) = examples(model, 1)
    _, gradient = by_keras(model, row not in RANDOM)
    weights, scored = [tf.identity(v) for v in model.trainable_variables], kernel_indices(model)
    slopes, h = gradient(weights, batch), 1e-5
    ahead, behind = (
        gradient([w + s * h * g if i in scored else w for i, (w, g) in enumerate(pairs)], batch)
        for s in (1, -1)
        for pairs in [list(zip(weights, slopes, strict=True))]
    )
    wanted = [weights[i] * (ahead[i] - behind[i]) / (2 * h) for i in scored]
    close(scores.grasp(model, [batch], temperature=1.0), wanted, 1e-5)


def prospr_works(row):
    """Compare ProsPr with one tape over all steps, and that with differences of Keras' loss."""
    model = network(row)
    batches = examples(model, STEPS + 1)
    found = scores.prospr(model, batches, steps=STEPS, learning_rate=ALPHA)
    weights, of_model = as_loss(model)
    signed = meta_gradient(of_model, weights, batches, learning_rate=ALPHA, method="unrolled")
    close(found, [tf.abs(signed[i]) for i in kernel_indices(model)], 1e-12)
    loss, gradient = by_keras(model, row not in RANDOM)
    generator = np.random.default_rng(4)
    along = [generator.choice([-1.0, 1.0], v.shape) for v in weights]

    def after(h):
        w = [v * (1 + h * d) for v, d in zip(weights, along, strict=True)]
        for batch in batches[:-1]:
            w = [v - ALPHA * g for v, g in zip(w, gradient(w, batch), strict=True)]
        return float(loss(w, batches[-1]))

    slope = sum(float(tf.reduce_sum(s * d)) for s, d in zip(signed, along, strict=True))
    size = sum(float(tf.reduce_sum(tf.abs(s))) for s in signed)
    assert abs(slope - (after(1e-5) - after(-1e-5)) / 2e-5) < 1e-5 * size


def synflow_works(row):
    """Check that what SynFlow gives the last kernel adds up to the sum over all paths."""
    model = network(row)
    found = scores.synflow(model, sparsity=0.0, rounds=1)
    through_last = float(tf.reduce_sum(found[-1]))
    for kernel, score in zip(kernels(model), found, strict=True):
        assert np.all(np.asarray(score) >= 0), kernel.path
    total = flow(model)([tf.abs(k.value) for k in kernels(model)])
    assert abs(through_last - float(total)) < 1e-9 * float(total)


def mask_works(row):
    """Prune to a half by magnitude, fit, and see that the zeros are zero and the rest moves."""
    keras.utils.set_random_seed(1)
    made = LAYERS[row]()
    model = made if isinstance(made, keras.Model) else keras.Sequential(made)
    chosen = masks.top_k(scores.magnitude(model), 0.5)
    masks.apply(model, chosen)
    before = model.get_weights()
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = examples(model, 1)[0]
    model.fit(x, y, epochs=2, verbose=0)
    for kernel, mask in zip(kernels(model), chosen, strict=True):
        assert not np.any(kernel.numpy()[~np.asarray(mask)]), kernel.path
    assert any(np.any(a != b) for a, b in zip(before, model.get_weights(), strict=True))


# Losses ------------------------------------------------------------------------------------------

ONE_HOT, CLASS, REAL, BINARY, SIGNS, COUNTS = (
    "one-hot",
    "class",
    "real",
    "binary",
    "signs",
    "counts",
)
CE = keras.losses


def per_example(y, outputs):
    """Return a loss of a reader's own, one number for each example."""
    return tf.reduce_mean((tf.cast(y, outputs.dtype) - outputs) ** 4, -1)


# Per row: the activation of the output, the loss as it is given to `compile`, and the labels.
LOSSES = {
    "none (sparse cross-entropy of logits)": (None, None, CLASS),
    "sparse cross-entropy, logits": (
        None,
        lambda: CE.SparseCategoricalCrossentropy(from_logits=True),
        CLASS,
    ),
    "sparse cross-entropy, softmax": ("softmax", lambda: "sparse_categorical_crossentropy", CLASS),
    "labels of shape (n, 1)": ("softmax", lambda: "sparse_categorical_crossentropy", "column"),
    "cross-entropy, one-hot, logits": (
        None,
        lambda: CE.CategoricalCrossentropy(from_logits=True),
        ONE_HOT,
    ),
    "cross-entropy, label smoothing": (
        "softmax",
        lambda: CE.CategoricalCrossentropy(label_smoothing=0.1),
        ONE_HOT,
    ),
    "focal cross-entropy": ("softmax", CE.CategoricalFocalCrossentropy, ONE_HOT),
    "binary cross-entropy, sigmoid": ("sigmoid", lambda: "binary_crossentropy", BINARY),
    "binary cross-entropy, logits": (
        None,
        lambda: CE.BinaryCrossentropy(from_logits=True),
        BINARY,
    ),
    "mean squared error": (None, lambda: "mse", REAL),
    "mean absolute error": (None, lambda: "mae", REAL),
    "Huber": (None, CE.Huber, REAL),
    "log-cosh": (None, CE.LogCosh, REAL),
    "Poisson": ("softplus", CE.Poisson, COUNTS),
    "Kullback-Leibler": ("softmax", CE.KLDivergence, ONE_HOT),
    "cosine similarity": (None, CE.CosineSimilarity, REAL),
    "squared hinge": (None, CE.SquaredHinge, SIGNS),
    "a function of one's own": (None, lambda: per_example, REAL),
    "softmax without a loss": ("softmax", None, CLASS),
    "from_logits=True on a softmax": (
        "softmax",
        lambda: CE.SparseCategoricalCrossentropy(from_logits=True),
        CLASS,
    ),
    "from_logits=False on logits": (None, CE.SparseCategoricalCrossentropy, CLASS),
}


def labels(kind, generator):
    """Return random labels of a kind."""
    classes = generator.integers(0, CLASSES, BATCH)
    return {
        CLASS: classes,
        "column": classes[:, None],
        ONE_HOT: np.eye(CLASSES)[classes],
        REAL: generator.normal(size=(BATCH, CLASSES)),
        BINARY: generator.integers(0, 2, (BATCH, 1)),
        SIGNS: generator.choice([-1.0, 1.0], (BATCH, CLASSES)),
        COUNTS: generator.integers(0, 5, (BATCH, CLASSES)),
    }[kind]


def with_loss(row):
    """Return a compiled model, its loss as Keras computes it, and batches, for a row of losses."""
    activation, loss, kind = LOSSES[row]
    keras.utils.set_random_seed(1)
    with doubles():
        output = L.Dense(1 if kind == BINARY else CLASSES, activation)
        model = keras.Sequential([keras.Input((5,)), L.Dense(6, "tanh"), output])
        if loss is None:
            loss = functools.partial(CE.SparseCategoricalCrossentropy, from_logits=True)
        else:
            model.compile("sgd", loss())
        keras_loss = keras.losses.get(loss())
    generator = np.random.default_rng(3)
    batches = [(generator.normal(size=(BATCH, 5)), labels(kind, generator)) for _ in range(3)]
    frozen = [tf.identity(v) for v in model.non_trainable_variables]

    def by_keras(weights, batch):
        outputs, _ = model.stateless_call(weights, frozen, batch[0], training=True)
        return tf.reduce_mean(keras_loss(tf.convert_to_tensor(batch[1]), outputs))

    return model, by_keras, batches


def loss_works(row):
    """Compare the loss and SNIP with what Keras' own loss object gives."""
    model, by_keras, batches = with_loss(row)
    weights, loss = as_loss(model)
    with tf.GradientTape() as tape:
        tape.watch(weights)
        value = by_keras(weights, batches[0])
    slopes = tape.gradient(value, weights)
    assert abs(float(loss(weights, batches[0])) - float(value)) < 1e-12 * (1 + abs(float(value)))
    wanted = [tf.abs(weights[i] * slopes[i]) for i in kernel_indices(model)]
    close(scores.snip(model, batches[:1]), wanted, 1e-10)


def loss_ahead_works(row):
    """Compare the meta-gradient with one of Keras' own loss, all steps on one tape."""
    model, by_keras, batches = with_loss(row)
    weights, _ = as_loss(model)
    wanted = meta_gradient(by_keras, weights, batches, learning_rate=ALPHA, method="unrolled")
    found = scores.prospr(model, batches, steps=STEPS, learning_rate=ALPHA)
    close(found, [tf.abs(wanted[i]) for i in kernel_indices(model)], 1e-10)


def loss_grasp_works(row):
    """Compare GraSP with the curvature of Keras' own loss."""
    model, by_keras, batches = with_loss(row)
    weights, scored = [tf.identity(v) for v in model.trainable_variables], kernel_indices(model)
    with tf.GradientTape() as outer:
        outer.watch(weights)
        with tf.GradientTape() as tape:
            tape.watch(weights)
            value = by_keras(weights, batches[0])
        slopes = tape.gradient(value, weights)
        along = [tf.stop_gradient(slopes[i]) for i in scored]
        total = sum(tf.reduce_sum(slopes[i] * v) for i, v in zip(scored, along, strict=True))
    product = outer.gradient(total, weights, unconnected_gradients="zero")
    found = scores.grasp(model, batches[:1], temperature=1.0)
    close(found, [weights[i] * product[i] for i in scored], 1e-10)


# Optimizers --------------------------------------------------------------------------------------

OPTIMIZERS = [
    *("Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Ftrl", "Lamb", "Lion"),
    *("Muon", "Nadam", "RMSprop", "SGD", "ScheduleFreeAdamW"),
]


def trained(optimizer, callbacks=(), **compiled):
    """Fit a pruned model and raise an AssertionError unless its zeros are zero, the rest not."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((5,)), L.Dense(16, "tanh"), L.Dense(CLASSES)])
    model.compile(optimizer, CE.SparseCategoricalCrossentropy(from_logits=True), **compiled)
    chosen = masks.top_k(scores.random(model), 0.5)
    masks.apply(model, chosen)
    generator = np.random.default_rng(3)
    x, y = generator.normal(size=(32, 5)), generator.integers(0, CLASSES, 32)
    before = model.get_weights()
    model.fit(x, y, batch_size=8, epochs=2, callbacks=list(callbacks), verbose=0)
    for kernel, mask in zip(kernels(model), chosen, strict=True):
        kept = np.asarray(mask)
        assert not np.any(kernel.numpy()[~kept]), f"{kernel.path}: zeros filled"
        assert np.any(kernel.numpy()[kept]), f"{kernel.path}: nothing left"
    assert any(np.any(a != b) for a, b in zip(before, model.get_weights(), strict=True))


def optimizer_works(name):
    """Train with an optimizer as it comes."""
    trained(getattr(keras.optimizers, name)())


def average_works(name):
    """Train with the average of the weights kept, and written back at the end of `fit`."""
    trained(getattr(keras.optimizers, name)(use_ema=True))


def overwritten_works(name):
    """Train with the average of the weights written back every few steps."""
    trained(getattr(keras.optimizers, name)(use_ema=True, ema_overwrite_frequency=3))


def swapped_works(name):
    """Train with the average of the weights put in their place for every epoch's end."""
    optimizer = getattr(keras.optimizers, name)(use_ema=True)
    trained(optimizer, [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)])


def scaled_works(name):
    """Train with a loss that is scaled, as for mixed precision."""
    trained(keras.optimizers.LossScaleOptimizer(getattr(keras.optimizers, name)()))


# Saving ------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("prosper_utils_works")
class Subclassed(keras.Model):
    """A model that makes its layers itself."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden, self.out = L.Dense(6, "tanh"), L.Dense(CLASSES)

    def call(self, x):
        """Return logits."""
        return self.out(self.hidden(x))


def subclassed():
    """Return a built model of a class of one's own."""
    model = Subclassed()
    model(np.zeros((1, 5), np.float32))
    return model


KINDS = {
    "Sequential": lambda: keras.Sequential(vector(L.Dense(6, "tanh"))),
    "convolution and normalisation": lambda: keras.Sequential(LAYERS["BatchNormalization"]()),
    "nested model": nested,
    "shared layer": shared,
    "subclassed model": subclassed,
    "MultiHeadAttention": attention,
    "Bidirectional LSTM": lambda: keras.Sequential(LAYERS["Bidirectional"]()),
    "TimeDistributed": lambda: keras.Sequential(LAYERS["TimeDistributed"]()),
}


def by_file(model, folder):
    """Save the model and load it."""
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


def by_checkpoint(model, folder):
    """Let a callback of Keras save the model, and load it."""
    saves = keras.callbacks.ModelCheckpoint(folder / "model.keras", monitor="loss")
    model.fit(*examples(model, 1)[0], callbacks=[saves], verbose=0)
    return keras.saving.load_model(folder / "model.keras")


def by_weights(model, folder):
    """Save the weights, disturb them, and load them again."""
    model.save_weights(folder / "model.weights.h5")
    for variable in model.trainable_variables:
        variable.assign_add(tf.ones_like(variable))
    model.load_weights(folder / "model.weights.h5")
    return model


def by_clone(model, folder):
    """Clone the model, and give the clone its weights."""
    clone = keras.models.clone_model(model)
    clone.build(model.input_shape) if not clone.built else None
    clone.set_weights(model.get_weights())
    clone.compile("adam", CE.SparseCategoricalCrossentropy(from_logits=True))
    return clone


def by_backup(model, folder):
    """Let training be backed up by Keras, and go on from the backup."""
    backup = functools.partial(keras.callbacks.BackupAndRestore, folder, delete_checkpoint=False)
    x, y = examples(model, 1)[0]
    model.fit(x, y, callbacks=[backup()], verbose=0)
    model.fit(x, y, epochs=2, callbacks=[backup()], verbose=0)
    return model


WAYS = {
    ".keras file": by_file,
    "ModelCheckpoint": by_checkpoint,
    "save_weights, load_weights": by_weights,
    "clone_model": by_clone,
    "BackupAndRestore": by_backup,
}


def saving_works(way, kind):
    """Prune a model, save and load it, fit it again: its zeros are zero all the same."""
    keras.utils.set_random_seed(1)
    model = KINDS[kind]()
    model.compile("adam", CE.SparseCategoricalCrossentropy(from_logits=True))
    chosen = masks.top_k(scores.random(model), 0.5)
    masks.apply(model, chosen)
    x, y = examples(model, 1)[0]
    model.fit(x, y, verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        loaded = WAYS[way](model, Path(folder))
    for kernel, mask in zip(kernels(loaded), chosen, strict=True):
        assert not np.any(kernel.numpy()[~np.asarray(mask)]), f"{kernel.path}: zeros filled"
    loaded.fit(x, y, epochs=2, verbose=0)
    for kernel, mask in zip(kernels(loaded), chosen, strict=True):
        kept = np.asarray(mask)
        assert not np.any(kernel.numpy()[~kept]), f"{kernel.path}: zeros filled by a fit"
        assert np.any(kernel.numpy()[kept])


# All tables --------------------------------------------------------------------------------------

TABLES = {
    "layers": (
        list(LAYERS),
        {
            "SNIP": snip_works,
            "GraSP": grasp_works,
            "ProsPr": prospr_works,
            "SynFlow": synflow_works,
            "mask and fit": mask_works,
        },
    ),
    "losses": (
        list(LOSSES),
        {"SNIP": loss_works, "GraSP": loss_grasp_works, "ProsPr": loss_ahead_works},
    ),
    "optimizers": (
        OPTIMIZERS,
        {
            "as it comes": optimizer_works,
            "use_ema": average_works,
            "ema_overwrite_frequency": overwritten_works,
            "SwapEMAWeights": swapped_works,
            "LossScaleOptimizer": scaled_works,
        },
    ),
    "saving": (list(KINDS), {w: functools.partial(saving_works, w) for w in WAYS}),
}
CELLS = [(t, r, c) for t, (rows, columns) in TABLES.items() for r in rows for c in columns]


def outcome(table, row, column):
    """Try one cell; return "" if it works, else the words that refuse it or that warned of it.

    Raises:
        AssertionError: if it does not work, and nothing was said.
    """
    # Names begin anew, so that what is said is the same every time.  Memory is freed by itself: to
    # look through all objects would take a third of the time of the whole page.
    keras.utils.clear_session(free_memory=False)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            TABLES[table][1][column](row)
        except ValueError as refused:
            return str(refused)
        except AssertionError:
            ours = [str(w.message) for w in said if str(w.message).startswith("masks: ")]
            if not ours:
                raise
            return ours[0]
    return ""


def stored():
    """Return what is stored: {"versions": ..., "outcomes": {table: {row: {column: words}}}}."""
    return json.loads(STORED.read_text())


def main():
    """Try all cells and store the outcomes, with the versions."""
    outcomes = {table: {row: {} for row in rows} for table, (rows, _) in TABLES.items()}
    for table, row, column in progress(CELLS, "trying", "cell"):
        outcomes[table][row][column] = outcome(table, row, column)
    versions = {name: importlib.metadata.version(name) for name in ("keras", "tensorflow", "numpy")}
    text = json.dumps({"versions": versions, "outcomes": outcomes}, indent=1, ensure_ascii=False)
    results.replace(STORED, text + "\n")


if __name__ == "__main__":
    main()
