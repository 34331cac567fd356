"""Ordinary networks: scores against a plain tape, and what a score leaves as it is.

Every case is a network as people have them, with the loss, labels and batch that go with it.  Its
score is compared with |w * gradient| of Keras' own model call and Keras' own loss objects.
"""

import contextlib
import functools
import random
from typing import Any, NamedTuple

from prosper_utils.pruning import losses, scores
from prosper_utils.pruning.networks import kernel_indices, kernels
from prosper_utils.pruning.scores import SCORES
from prosper_utils.study.checks import relative_error

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

K, SIZE, CLASSES = keras.losses, 6, 3
SPARSE = functools.partial(K.SparseCategoricalCrossentropy, from_logits=True)


@pytest.fixture(autouse=True, scope="module")
def doubles():
    """Let layers and losses compute in float64."""
    floatx = keras.config.floatx()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(floatx)


def sequential(*more, shape=(4,)):
    """Return a Sequential model of a hidden layer and more."""
    return keras.Sequential([keras.Input(shape), layers.Dense(5, "tanh"), *more])


def chain(*stages, shape=(4,), dtype=None):
    """Return a Sequential model of exactly these layers."""
    return keras.Sequential([keras.Input(shape, dtype=dtype), *stages])


def residual():
    """Return a functional model with a skip and a layer that is used twice."""
    inputs = keras.Input((4,))
    shared = layers.Dense(4, "tanh")
    hidden = layers.Add()([shared(shared(inputs)), inputs])
    return keras.Model(inputs, layers.Dense(CLASSES)(hidden))


def nested(activation=None):
    """Return a functional model with a Sequential model in it, and another at its end."""
    inputs = keras.Input((4,))
    hidden = sequential(layers.Dense(4, "relu"))(inputs)
    return keras.Model(inputs, sequential(layers.Dense(CLASSES, activation))(hidden))


class Subclassed(keras.Model):
    """A model whose `call` takes no `training`."""

    def __init__(self, units=CLASSES, activation=None):
        super().__init__()
        self.hidden = layers.Dense(5, "tanh")
        self.head = layers.Dense(units, activation)

    def call(self, x):
        return self.head(self.hidden(x))


class Mixed(keras.Model):
    """A model with two outputs of a tuple, that takes a dictionary."""

    def __init__(self):
        super().__init__()
        self.hidden = layers.Dense(5, "tanh")
        self.heads = [layers.Dense(CLASSES), layers.Dense(1)]

    def call(self, x):
        hidden = self.hidden(keras.ops.concatenate([x["a"], x["b"]], -1))
        return tuple(head(hidden) for head in self.heads)


def called(model, x):
    """Return a model that has been called, and so is built."""
    model(x)
    return model


def two_inputs(form):
    """Return a functional model with two inputs, in a list, tuple or dictionary."""
    a, b = keras.Input((4,), name="a"), keras.Input((2,), name="b")
    hidden = layers.Dense(5, "tanh")(layers.Concatenate()([a, b]))
    inputs = {"a": a, "b": b} if form is dict else form([a, b])
    return keras.Model(inputs, layers.Dense(CLASSES)(hidden))


def two_outputs(form):
    """Return a functional model with two outputs, in a list, tuple or dictionary."""
    inputs = keras.Input((4,))
    hidden = layers.Dense(5, "tanh", kernel_regularizer="l2")(inputs)
    kind = layers.Dense(CLASSES, "softmax", name="kind")(hidden)
    size = layers.Dense(1, name="size")(hidden)
    outputs = {"kind": kind, "size": size} if form is dict else form([kind, size])
    return keras.Model(inputs, outputs)


def frozen():
    """Return a model whose first layer is not trained."""
    model = sequential(layers.Dense(4, "relu"), layers.Dense(CLASSES))
    model.layers[0].trainable = False
    return model


def draw(*shape, seed=0):
    """Return normal numbers."""
    return np.random.default_rng(seed).normal(size=(SIZE, *shape))


def classes(*shape, kinds=CLASSES, seed=1):
    """Return labels."""
    return np.random.default_rng(seed).integers(0, kinds, (SIZE, *shape))


def conv():
    """Return a convolutional network with batch normalisation and pooling."""
    stages = [layers.Conv2D(3, 3, use_bias=False), layers.BatchNormalization(), layers.ReLU()]
    stages += [layers.MaxPooling2D(), layers.Flatten(), layers.Dense(CLASSES)]
    return chain(*stages, shape=(6, 6, 1))


def text(*, units=CLASSES, activation=None):
    """Return a network for words by their numbers, 0 where a sentence has ended."""
    stages = [layers.Embedding(7, 4, mask_zero=True), layers.LSTM(3)]
    return chain(*stages, layers.Dense(units, activation), shape=(5,), dtype="int32")


WEIGHT, PAIR = np.linspace(0.2, 2, SIZE), {"a": draw(4), "b": draw(2, seed=2)}
LISTED, BOTH = list(PAIR.values()), [classes(), draw(1)]
NAMED = dict(zip(("kind", "size"), BOTH, strict=True))


class Case(NamedTuple):
    """A network, what it is compiled with, a batch, and the same loss for a plain tape."""

    build: Any
    compiled: Any  # the loss, or a dictionary of arguments of `compile`, or None
    batch: Any
    plain: Any  # one loss object per output, and its weight
    training: bool = False


def each(*parts):
    """Return losses with their weights for a plain tape."""
    return [part if isinstance(part, tuple) else (part, 1.0) for part in parts]


FROM = "sparse_categorical_crossentropy"
TWO = {"loss": [FROM, "mse"], "loss_weights": [1.0, 0.3]}
BY_NAME = {"loss": {"kind": FROM, "size": "mse"}, "loss_weights": {"kind": 1.0, "size": 0.3}}
HEADS = each(K.SparseCategoricalCrossentropy, (K.MeanSquaredError, 0.3))
CASES = {
    "nothing compiled": Case(
        lambda: sequential(layers.Dense(CLASSES)), None, (draw(4), classes()), each(SPARSE)
    ),
    "labels in a column": Case(residual, None, (draw(4), classes(1)), each(SPARSE)),
    "uint8 labels": Case(nested, None, (draw(4), classes().astype("uint8")), each(SPARSE)),
    "a batch in a list": Case(residual, None, [draw(4), classes()], each(SPARSE)),
    "no weights": Case(residual, None, (draw(4), classes(), None), each(SPARSE)),
    "sample weights": Case(residual, SPARSE(), (draw(4), classes(), WEIGHT), each(SPARSE)),
    "subclassed": Case(
        lambda: called(Subclassed(), draw(4)), SPARSE(), (draw(4), classes()), each(SPARSE)
    ),
    "subclassed, softmax": Case(
        lambda: called(Subclassed(activation="softmax"), draw(4)),
        FROM,
        (draw(4), classes()),
        each(K.SparseCategoricalCrossentropy),
    ),
    "nested, softmax, one-hot": Case(
        lambda: nested("softmax"),
        "categorical_crossentropy",
        (draw(4), np.eye(CLASSES)[classes()]),
        each(K.CategoricalCrossentropy),
    ),
    "binary, flat labels": Case(
        lambda: sequential(layers.Dense(1, "sigmoid")),
        "binary_crossentropy",
        (draw(4), classes(kinds=2)),
        each(K.BinaryCrossentropy),
    ),
    "several labels, from logits, weighted": Case(
        lambda: sequential(layers.Dense(4)),
        K.BinaryCrossentropy(from_logits=True),
        (draw(4), classes(4, kinds=2), WEIGHT),
        each(functools.partial(K.BinaryCrossentropy, from_logits=True)),
    ),
    "regression, flat targets": Case(
        lambda: called(Subclassed(1), draw(4)), "mse", (draw(4), draw()), each(K.MeanSquaredError)
    ),
    "regression, penalty": Case(
        lambda: sequential(layers.Dense(2, activity_regularizer="l1", kernel_regularizer="l2")),
        K.Huber(0.5),
        (draw(4), draw(2)),
        each(functools.partial(K.Huber, 0.5)),
    ),
    "float32 data": Case(
        residual, "mae", (draw(4).astype("f4"), draw(3).astype("f4")), each(K.MeanAbsoluteError)
    ),
    "inputs in a list": Case(lambda: two_inputs(list), SPARSE(), (LISTED, classes()), each(SPARSE)),
    "inputs in a tuple": Case(
        lambda: two_inputs(tuple), SPARSE(), (tuple(LISTED), classes(1)), each(SPARSE)
    ),
    "inputs by name": Case(lambda: two_inputs(dict), None, (PAIR, classes()), each(SPARSE)),
    "outputs in a list": Case(lambda: two_outputs(list), TWO, (draw(4), BOTH), HEADS),
    "outputs in a tuple": Case(lambda: two_outputs(tuple), TWO, (draw(4), tuple(BOTH)), HEADS),
    "outputs by name": Case(lambda: two_outputs(dict), BY_NAME, (draw(4), NAMED), HEADS),
    "outputs in a list, losses by name": Case(
        lambda: two_outputs(list), BY_NAME, (draw(4), BOTH), HEADS
    ),
    "outputs by name, weighted by name": Case(
        lambda: two_outputs(dict),
        BY_NAME,
        (draw(4), NAMED, {"kind": WEIGHT, "size": 1 / WEIGHT}),
        HEADS,
    ),
    "outputs in a list, one weight for all": Case(
        lambda: two_outputs(list), TWO, (draw(4), BOTH, WEIGHT), HEADS
    ),
    "inputs by name, a tuple out": Case(
        lambda: called(Mixed(), PAIR),
        {"loss": [SPARSE(), "mse"]},
        (PAIR, tuple(BOTH)),
        each(SPARSE, K.MeanSquaredError),
    ),
    "a label at every place": Case(
        lambda: chain(
            layers.Conv1D(4, 3, padding="same", activation="relu"), layers.Dense(3), shape=(5, 2)
        ),
        SPARSE(),
        (draw(5, 2), classes(5)),
        each(SPARSE),
    ),
    "batch normalisation": Case(conv, SPARSE(), (draw(6, 6, 1), classes()), each(SPARSE), True),
    "layer normalisation and dropout": Case(
        lambda: sequential(layers.LayerNormalization(), layers.Dropout(0.5), layers.Dense(3)),
        SPARSE(),
        (draw(4), classes()),
        each(SPARSE),
    ),
    "masked words": Case(text, SPARSE(), (classes(5, kinds=7), classes()), each(SPARSE)),
    "masked words, binary": Case(
        lambda: text(units=1, activation="sigmoid"),
        "binary_crossentropy",
        (classes(5, kinds=7), classes(1, kinds=2)),
        each(K.BinaryCrossentropy),
    ),
    "a frozen layer": Case(frozen, SPARSE(), (draw(4), classes()), each(SPARSE)),
}


def compiled(case):
    """Return the network of a case, compiled."""
    keras.utils.set_random_seed(0)
    model = case.build()
    if case.compiled is not None:
        given = case.compiled if isinstance(case.compiled, dict) else {"loss": case.compiled}
        model.compile("sgd", **given)
    return model


def by_tape(model, case):
    """Return |w * gradient| of the kernels by a plain tape, and leave the model as it was."""
    x, y, weight = keras.utils.unpack_x_y_sample_weight(case.batch)
    before = [v.numpy() for v in model.variables]
    labels = [tf.convert_to_tensor(part) for part in tf.nest.flatten(y)]
    shares = tf.nest.flatten(weight) * (len(labels) if not tf.nest.is_nested(weight) else 1)
    with tf.GradientTape() as tape:
        outputs = tf.nest.flatten(model(x, training=case.training))
        terms = zip(case.plain, labels, outputs, shares, strict=True)
        total = sum(share * make()(y, out, s) for (make, share), y, out, s in terms)
        total += sum(tf.reduce_sum(added) for added in model.losses)
    gradient = tape.gradient(total, model.trainable_variables)
    for variable, value in zip(model.variables, before, strict=True):
        variable.assign(value)
    variables = model.trainable_variables
    return [tf.abs(variables[i] * tf.convert_to_tensor(gradient[i])) for i in kernel_indices(model)]


@pytest.mark.parametrize("name", CASES)
def test_an_ordinary_case_scores_as_a_plain_tape_says(name):
    case = CASES[name]
    model = compiled(case)
    expected = by_tape(model, case)
    assert relative_error(scores.snip(model, [case.batch]), expected) < 1e-11
    found = scores.prospr(model, [case.batch] * 2, steps=1, learning_rate=0.0)
    assert relative_error(found, expected) < 1e-11  # through a compiled loop


def state(model):
    """Return all that a score could change: of the model, and of what draws random numbers."""
    flags = [layer.trainable for layer in model._flatten_layers()]
    compiled = (model.compiled, model.built, getattr(model, "optimizer", None))
    values = [v.numpy() for v in model.variables]
    paths = [v.path for v in model.trainable_variables]
    return values, (flags, paths, compiled, random.getstate(), np.random.get_state()[1].tolist())


KINDS = {
    "Sequential": "nothing compiled",
    "functional": "labels in a column",
    "subclassed": "subclassed",
    "nested": "nested, softmax, one-hot",
    "several inputs": "inputs by name",
    "regression": "regression, flat targets",
    "binary": "binary, flat labels",
    "batch normalisation": "batch normalisation",
    "dropout": "layer normalisation and dropout",
}
REFUSED = {("diagonal", kind): "diagonal: expected" for kind in ("nested", "regression", "binary")}
REFUSED |= {("diagonal", "batch normalisation"): "statistics='moving'"}


def options(name, kind):
    """Return options that make a score quick, and GraSP possible for regression."""
    if name in ("random", "magnitude", "SNIP"):
        return {}
    if name == "GraSP":
        return {"temperature": 1.0} if kind == "regression" else {}
    if name in ("SynFlow", "iterative SNIP"):
        return {"rounds": 2}
    return {"steps": 1} | ({"rounds": 2} if name == "iterative ProsPr" else {})


LONGER = {"ProsPr, M = 10", "ProsPr, M = 100"}  # with one step they are ProsPr
LEFT = [
    (kind, name) for kind in KINDS for name in SCORES if kind == "dropout" or name not in LONGER
]


@pytest.mark.parametrize(("kind", "name"), LEFT)
def test_a_score_leaves_everything_as_it_is(kind, name):
    model = compiled(CASES[KINDS[kind]])
    values, rest = state(model)
    tf.random.set_seed(7)
    batches = [CASES[KINDS[kind]].batch] * 2
    score = functools.partial(SCORES[name], model, batches, sparsity=0.5, **options(name, kind))
    if (name, kind) in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[name, kind]):
            score()
    else:
        with contextlib.suppress(ValueError) if name == "SynFlow" else contextlib.nullcontext():
            assert [s.shape for s in score()] == [k.shape for k in kernels(model)]
    drawn = tf.random.uniform([3])
    after, others = state(model)
    assert others == rest
    assert all(np.array_equal(a, b) for a, b in zip(after, values, strict=True))
    tf.random.set_seed(7)
    assert np.array_equal(tf.random.uniform([3]), drawn)


@pytest.mark.parametrize("name", SCORES)
def test_one_batch_fewer_or_smaller_is_handled_or_refused(name):
    model = compiled(CASES["nothing compiled"])
    x, y = CASES["nothing compiled"].batch
    batches = [(x, y), (x[:-1], y[:-1])]
    found = SCORES[name](model, batches, sparsity=0.5, **options(name, "Sequential"))
    assert [s.shape for s in found] == [k.shape for k in kernels(model)]
    if "steps" in options(name, "Sequential"):
        with pytest.raises(ValueError, match=r"expected at least 3 \(M \+ 1\), found 2"):
            SCORES[name](model, batches, sparsity=0.5, **options(name, "Sequential") | {"steps": 2})


@pytest.mark.parametrize("name", ["SNIP", "GraSP", "iterative SNIP"])
def test_what_looks_at_one_moment_uses_a_list_to_its_end(name):
    model = compiled(CASES["nothing compiled"])
    x, y = CASES["nothing compiled"].batch
    apart = [(x[:1], y[:1]), (x[1:4], y[1:4]), (x[4:], y[4:])]
    score = functools.partial(SCORES[name], model, sparsity=0.5, **options(name, "Sequential"))
    found, expected = score(batches=apart), score(batches=[(x, y)])
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-15)
    first = score(batches=iter(apart * 2))
    assert not np.allclose(first[0], expected[0])


def test_class_weights_count():
    model, (x, y) = compiled(CASES["nothing compiled"]), CASES["nothing compiled"].batch
    (weighted,) = losses.class_weighted([(x, y)], {0: 3.0})
    case = CASES["nothing compiled"]._replace(batch=(x, y, np.where(y == 0, 3.0, 1.0)))
    assert relative_error(scores.snip(model, [weighted]), by_tape(model, case)) < 1e-7


def test_loss_weights_go_with_a_given_loss():
    case = CASES["outputs by name"]
    model = compiled(case._replace(compiled=None))
    found = scores.snip(model, [case.batch], **BY_NAME)
    assert relative_error(found, by_tape(model, case)) < 1e-11
    with pytest.raises(ValueError, match="loss weights: expected a loss with them, found none"):
        scores.snip(model, [case.batch], loss_weights=[1.0, 2.0])


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (None, r"found several outputs: compile the model with its loss, or give `loss=`"),
        ({"kind": FROM, "weight": "mse"}, r"outputs \['kind', 'size'\].*found them for .*'weight'"),
        ({"kind": SPARSE(), "size": "mse"}, r"of layer 'kind': expected logits.*from_logits=False"),
        ({"kind": FROM, "size": "binary_crossentropy"}, r"of layer 'size': expected probabilities"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_batch_comes(loss, said):
    with pytest.raises(ValueError, match=said):
        scores.as_loss(two_outputs(dict), loss)


@pytest.mark.parametrize("activation", ["relu", "tanh", None])
def test_no_other_activation_gives_probabilities(activation):
    model = sequential(layers.Dense(CLASSES, activation, name="last"))
    model.compile("sgd", FROM)
    with pytest.raises(ValueError, match=r"of layer 'last': expected probabilities.*=True"):
        scores.as_loss(model)


@pytest.mark.parametrize("more", [layers.Dropout(0.1), layers.Reshape((CLASSES,)), "linear"])
def test_a_softmax_is_seen_through_what_keeps_it(more):
    more = layers.Activation(more) if isinstance(more, str) else more
    model = sequential(layers.Dense(CLASSES), layers.Softmax(name="p"), more)
    with pytest.raises(ValueError, match=r"of layer 'p': expected logits, found .* a softmax"):
        scores.as_loss(model)


@pytest.mark.parametrize(
    "labels", [draw(), np.eye(CLASSES)[classes()], classes(2), (classes(),) * 2]
)
def test_labels_without_a_loss_are_integers(labels):
    model = compiled(CASES["nothing compiled"])
    weights, loss = scores.as_loss(model)
    with pytest.raises(ValueError, match=r"without a loss: expected integers \(6,\), found"):
        loss(weights, (draw(4), labels))


def test_one_output_without_a_loss_is_refused():
    with pytest.raises(ValueError, match=r"expected logits \(B, classes\), found .* 1\)"):
        scores.as_loss(sequential(layers.Dense(1)))


def test_a_batch_without_a_list_around_it_is_refused():
    model = compiled(CASES["nothing compiled"])
    with pytest.raises(ValueError, match=r"a batch of its own is given in a list, \[\(x, y\)\]"):
        scores.snip(model, CASES["nothing compiled"].batch)


@pytest.mark.parametrize("last", [layers.Softmax, lambda: tf.nn.softmax])
@pytest.mark.parametrize("factor", [1.0, 300.0])
def test_grasp_of_a_softmax_is_that_of_its_logits(last, factor):
    """Also where probabilities are 0 and 1 to the last digit, if Keras' softmax made them."""
    if factor > 1 and last is not layers.Softmax:
        pytest.skip("of probabilities alone, 0 and 1 have no logits")
    case = CASES["nothing compiled"]
    logits = compiled(case._replace(compiled=SPARSE()))
    logits.layers[-1].kernel.assign(factor * logits.layers[-1].kernel)
    ends = called(keras.Sequential([logits, layers.Lambda(last())]), draw(4))
    ends.compile("sgd", FROM)
    found, expected = (scores.grasp(m, [case.batch]) for m in (ends, logits))
    assert relative_error(found, expected) < 1e-12


@pytest.mark.parametrize("name", SCORES)
def test_an_option_that_is_not_known_is_an_error(name):
    model, batch = compiled(CASES["nothing compiled"]), CASES["nothing compiled"].batch
    with pytest.raises(TypeError, match="statitics"):
        SCORES[name](model, [batch] * 11, sparsity=0.5, statitics="moving")


@pytest.mark.parametrize(
    ("build", "batch", "given", "said"),
    [
        ("regression, penalty", None, {}, "expected the softmax cross-entropy of logits"),
        ("frozen", None, {}, None),
        ("nothing compiled", (draw(4), classes(), WEIGHT), {}, "found sample weights"),
        ("batch normalisation", None, {}, "found 'batch_norm.*give statistics='moving'"),
        ("layer normalisation and dropout", None, {"dropout": True}, "found dropout"),
    ],
)
def test_the_diagonal_refuses_what_it_is_not_the_curvature_of(build, batch, given, said):
    case = CASES.get(build, CASES["nothing compiled"])
    batches = [batch or case.batch] * 2
    if said is None:
        found = SCORES["diagonal"](compiled(case), batches, steps=1, **given)
        assert all(np.all(np.isfinite(s)) for s in found)
        return
    with pytest.raises(ValueError, match=f"diagonal: .*{said}"):
        SCORES["diagonal"](compiled(case), batches, steps=1, **given)
