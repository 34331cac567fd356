"""The loss of a model: what Keras itself computes, for every loss, label and form of a batch."""

import functools

from prosper_utils.lookahead.descent import batch_list, is_stacked
from prosper_utils.lookahead.meta_gradient import METHODS, meta_gradient
from prosper_utils.pruning import losses, scores
from prosper_utils.pruning.networks import as_loss, kernel_indices, kernels
from prosper_utils.study.checks import relative_error

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import Sequence
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

CLASSES, SIZE = 3, 6
K = keras.losses


@pytest.fixture(autouse=True, scope="module")
def doubles():
    """Let layers and losses compute in float64."""
    floatx = keras.config.floatx()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(floatx)


def dense(activation=None, units=CLASSES, **options):
    """Return a small network, built."""
    keras.utils.set_random_seed(0)
    hidden, output = layers.Dense(5, "tanh", **options), layers.Dense(units, activation)
    return keras.Sequential([keras.Input((4,)), hidden, output])


def draw(seed=0, size=SIZE):
    """Return inputs, and labels of all kinds."""
    generator = np.random.default_rng(seed)
    classes = generator.integers(0, CLASSES, size)
    return generator.normal(size=(size, 4)), {
        "class": classes,
        "column": classes[:, None],
        "one-hot": np.eye(CLASSES)[classes],
        "real": generator.normal(size=(size, CLASSES)),
        "share": generator.dirichlet(np.ones(CLASSES), size),
        "binary": generator.integers(0, 2, (size, 1)),
        "flat binary": generator.integers(0, 2, size),
        "several": generator.integers(0, 2, (size, CLASSES)),
        "signs": generator.choice([-1.0, 1.0], (size, CLASSES)),
        "counts": generator.integers(0, 5, (size, CLASSES)),
    }


def quartic(y, outputs):
    """Return one number per example: a loss of one's own."""
    return tf.reduce_mean((tf.cast(y, outputs.dtype) - outputs) ** 4, -1)


def per_class(y, outputs):
    """Return one number per example and class."""
    return (tf.cast(y, outputs.dtype) - outputs) ** 2


LOGITS = {"from_logits": True}
SPARSE = functools.partial(K.SparseCategoricalCrossentropy, **LOGITS)
CASES = {  # units, activation, loss, labels
    "sparse, logits": (3, None, SPARSE, "class"),
    "sparse, column": (3, None, SPARSE, "column"),
    "sparse, softmax by name": (3, "softmax", lambda: "sparse_categorical_crossentropy", "class"),
    "crossentropy guessed": (3, "softmax", lambda: "crossentropy", "one-hot"),
    "ignored class": (
        3,
        None,
        functools.partial(K.SparseCategoricalCrossentropy, ignore_class=0, **LOGITS),
        "class",
    ),
    "one-hot, logits": (3, None, functools.partial(K.CategoricalCrossentropy, **LOGITS), "one-hot"),
    "smoothed": (3, "softmax", functools.partial(K.CategoricalCrossentropy, 0, 0.1), "one-hot"),
    "shares": (3, "softmax", K.CategoricalCrossentropy, "share"),
    "focal": (3, "softmax", K.CategoricalFocalCrossentropy, "one-hot"),
    "binary by name": (1, "sigmoid", lambda: "binary_crossentropy", "binary"),
    "binary, flat labels": (1, "sigmoid", lambda: "binary_crossentropy", "flat binary"),
    "binary, logits": (1, None, functools.partial(K.BinaryCrossentropy, **LOGITS), "binary"),
    "several labels": (3, "sigmoid", K.BinaryCrossentropy, "several"),
    "binary focal": (1, "sigmoid", K.BinaryFocalCrossentropy, "binary"),
    "mse": (3, None, lambda: "mse", "real"),
    "mae": (3, None, lambda: "mae", "real"),
    "Huber": (3, None, functools.partial(K.Huber, 0.3), "real"),
    "summed": (3, None, functools.partial(K.MeanSquaredError, reduction="sum"), "real"),
    "log-cosh": (3, None, K.LogCosh, "real"),
    "Poisson": (3, "softplus", K.Poisson, "counts"),
    "divergence": (3, "softmax", K.KLDivergence, "share"),
    "cosine": (3, None, K.CosineSimilarity, "real"),
    "hinge": (3, None, K.SquaredHinge, "signs"),
    "a function": (3, None, lambda: quartic, "real"),
    "one number per class": (3, None, lambda: per_class, "real"),
}


def compiled(name):
    """Return a compiled network and the kind of labels of a case."""
    units, activation, loss, kind = CASES[name]
    model = dense(activation, units, kernel_regularizer=keras.regularizers.L2(0.1))
    model.compile("sgd", loss())
    return model, kind


def by_keras(model, x, y, sample_weight=None):
    """Return the loss and its gradient as `train_step` computes them."""
    with tf.GradientTape() as tape:
        outputs = model(x, training=True)
        value = model.compute_loss(x, _tensors(y), outputs, sample_weight)
    return value, tape.gradient(value, model.trainable_variables)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_the_loss_and_its_gradient_are_those_of_training(name, weighted):
    model, kind = compiled(name)
    x, labels = draw()
    weight = np.linspace(0.1, 2, SIZE) if weighted else None
    if weighted and name == "one number per class":
        weight = weight[:, None]  # as Keras needs it there
    value, gradient = by_keras(model, x, labels[kind], weight)
    weights, loss = as_loss(model)
    batch = (x, labels[kind]) if weight is None else (x, labels[kind], weight)
    assert abs(float(loss(weights, batch)) - float(value)) < 1e-12 * (1 + abs(float(value)))
    wanted = [abs(weights[i] * gradient[i]) for i in kernel_indices(model)]
    assert relative_error(scores.snip(model, [batch]), wanted) < 1e-12


@pytest.mark.parametrize("name", CASES)
def test_a_given_loss_is_the_compiled_one(name):
    model, kind = compiled(name)
    x, labels = draw()
    other = dense(CASES[name][1], CASES[name][0], kernel_regularizer=keras.regularizers.L2(0.1))
    weights, loss = as_loss(model)
    _, given = as_loss(other, CASES[name][2]())
    batch = x, labels[kind]
    assert float(given(weights, batch)) == float(loss(weights, batch))


@functools.cache
def plain():
    """Return weights and loss of a small network, the same ones for all."""
    return as_loss(dense())


@functools.cache
def one_by_one(seed):
    """Return a batch, and the loss of each of its examples."""
    (x, labels), (weights, loss) = draw(seed), plain()
    y = labels["class"]
    return x, y, [float(loss(weights, (x[i : i + 1], y[i : i + 1]))) for i in range(SIZE)]


@given(st.lists(st.floats(0, 3), min_size=SIZE, max_size=SIZE), st.integers(0, 9))
def test_sample_weights_weigh_each_example(weight, seed):
    (weights, loss), (x, y, each) = plain(), one_by_one(seed)
    found = float(loss(weights, (x, y, np.array(weight))))
    assert abs(found - np.dot(weight, each) / SIZE) < 1e-12 * (1 + sum(weight))


@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize(
    ("loss", "kind", "message"),
    [
        (K.SparseCategoricalCrossentropy, "one-hot", r"expected integers \(6,\).*found .*\(6, 3\)"),
        (
            K.CategoricalCrossentropy,
            "class",
            r"expected one-hot labels \(6, 3\).*found shape \(6,\)",
        ),
        (K.CategoricalCrossentropy, "column", r"expected one-hot labels.*found shape \(6, 1\)"),
    ],
)
def test_labels_of_the_other_kind_are_refused_with_the_loss_that_takes_them(
    loss, kind, message, logits
):
    model = dense(None if logits else "softmax")
    model.compile(loss=loss(from_logits=logits))
    x, labels = draw(size=6)
    weights, found = as_loss(model)
    with pytest.raises(ValueError, match=f"labels of model '{model.name}': {message}.*take the"):
        found(weights, (x, labels[kind]))


@pytest.mark.parametrize("kind", ["class", "column", "one-hot"])
def test_class_weights_are_those_of_fit(kind):
    name = "crossentropy" if kind == "one-hot" else "sparse_categorical_crossentropy"
    model, share = dense("softmax"), {0: 0.2, 2: 3.0}
    x, labels = draw()
    weights, _ = as_loss(model, name)
    ((x, y, weight),) = losses.class_weighted([(x, labels[kind])], share)
    np.testing.assert_allclose(weight, [share.get(c, 1.0) for c in labels["class"]], rtol=1e-7)
    model.compile(keras.optimizers.SGD(0.5), name)
    before = model.get_weights()
    _, loss = as_loss(model)
    with tf.GradientTape() as tape:
        tape.watch(weights)
        value = loss(weights, (x, y, weight))
    steps = tape.gradient(value, weights)
    model.fit(x, y, batch_size=SIZE, class_weight=share, verbose=0, shuffle=False)
    after = [b - 0.5 * s for b, s in zip(before, steps, strict=True)]
    assert relative_error(model.get_weights(), after) < 1e-6


@pytest.mark.parametrize("kinds", [2, 3, 5])
def test_class_weights_of_labels_in_every_form(kinds):
    y, weight = np.arange(7) % kinds, {0: 0.5, 1: 3.0}
    expected = [weight.get(c, 1.0) for c in y]
    for labels in (y, y[:, None], np.eye(kinds)[y], tf.constant(y)):
        ((x, same, found),) = losses.class_weighted([("x", labels)], weight)
        assert x == "x"
        assert same is labels
        assert found.numpy().tolist() == expected


def two_heads():
    """Return a model with two inputs and two outputs, named."""
    keras.utils.set_random_seed(0)
    a, b = keras.Input((4,), name="a"), keras.Input((2,), name="b")
    hidden = layers.Dense(5, "tanh")(layers.Concatenate()([a, b]))
    heads = {
        "kind": layers.Dense(3, "softmax", name="kind")(hidden),
        "size": layers.Dense(1, name="size", activity_regularizer="l2")(hidden),
    }
    return keras.Model({"a": a, "b": b}, heads), keras.Model([a, b], list(heads.values()))


def two_inputs(seed, size=SIZE):
    """Return a batch for `two_heads`, by name."""
    generator = np.random.default_rng(seed)
    x = {"a": generator.normal(size=(size, 4)), "b": generator.normal(size=(size, 2))}
    return x, {"kind": generator.integers(0, 3, size), "size": generator.normal(size=(size, 1))}


NAMES = {"kind": "sparse_categorical_crossentropy", "size": "mse"}


def several(form):
    """Return a compiled model with two inputs and outputs, and batches, in one of three forms."""
    named, listed = two_heads()
    batches = [two_inputs(seed) for seed in range(4)]
    if form == "dict":
        named.compile("sgd", NAMES, loss_weights={"kind": 1.0, "size": 0.3})
        return named, batches
    listed.compile("sgd", list(NAMES.values()), loss_weights=[1.0, 0.3])
    kind = list if form == "list" else tuple
    return listed, [(kind(x.values()), kind(y.values())) for x, y in batches]


@pytest.mark.parametrize("form", ["dict", "list"])
def test_parts_of_a_batch_that_fit_no_output_are_refused(form):
    model, ((x, y), *_) = several(form)
    weights, loss = as_loss(model)
    ones = np.ones(SIZE)
    if form == "dict":
        wrong = [(x, {"kind": y["kind"], "weight": y["size"]}), (x, y, {"kind": ones})]
        wrong += [(x, y, [ones, ones])]
    else:
        wrong = [(x, y, [ones])]
    for batch in wrong:
        with pytest.raises(ValueError, match=r"loss: .* as `fit` takes them, found others: "):
            loss(weights, batch)


@pytest.mark.parametrize("form", ["dict", "list", "tuple"])
def test_several_inputs_and_outputs(form):
    model, batches = several(form)
    weights, loss = as_loss(model)
    value, gradient = by_keras(model, *batches[0])
    assert abs(float(loss(weights, batches[0])) - float(value)) < 1e-12
    wanted = [abs(weights[i] * gradient[i]) for i in kernel_indices(model)]
    assert relative_error(scores.snip(model, batches[:1]), wanted) < 1e-12
    reference = meta_gradient(loss, weights, batches, learning_rate=0.1, method="unrolled")
    for method in set(METHODS) - {"unrolled", "first_order"}:
        found = meta_gradient(loss, weights, batches, learning_rate=0.1, method=method)
        assert relative_error(found, reference) < 1e-12


def _tensors(batch):
    return tf.nest.map_structure(tf.convert_to_tensor, batch)


@functools.cache
def score_of_dictionaries():
    return scores.prospr(*several("dict"))


def test_named_and_listed_outputs_score_alike():
    found = scores.prospr(*several("list"))
    assert relative_error(found, score_of_dictionaries()) < 1e-12


def stacked(batches):
    """Return batches as one tuple of arrays, or dictionaries of arrays, stacked."""
    return tf.nest.map_structure(lambda *parts: np.stack(parts), *batches)


FORMS = {
    "list": list,
    "tuple": tuple,
    "stacked": stacked,
    "data set": lambda batches: tf.data.Dataset.from_tensor_slices(stacked(batches)),
    "PyDataset": Sequence,
}


@functools.cache
def score_of_a_list(score):
    return score(dense(), [(x, labels["class"]) for x, labels in map(draw, range(4))])


@pytest.mark.parametrize("score", [scores.snip, scores.prospr, scores.grasp])
@pytest.mark.parametrize("form", FORMS)
def test_batches_in_every_form_score_alike(form, score):
    batches = [(x, labels["class"]) for x, labels in map(draw, range(4))]
    found = score(dense(), FORMS[form](batches))
    assert relative_error(found, score_of_a_list(score)) < 1e-12


@pytest.mark.parametrize("form", FORMS)
def test_batches_of_dictionaries_in_every_form(form):
    model, batches = several("dict")
    found = scores.prospr(model, FORMS[form](batches))
    assert relative_error(found, score_of_dictionaries()) < 1e-12


@pytest.mark.parametrize("form", ["iterator", "repeated data set"])
def test_of_what_does_not_end_the_first_batches_are_taken(form):
    model = dense()
    batches = [(x, labels["class"]) for x, labels in map(draw, range(4))]
    data = FORMS["data set"](batches).repeat()
    endless = (lambda: iter(data)) if form == "iterator" else lambda: data
    first = scores.snip(model, batches[:1])
    assert relative_error(scores.snip(model, endless()), first) < 1e-12
    found = scores.prospr(model, endless(), steps=2)
    assert relative_error(found, scores.prospr(model, batches, steps=2)) < 1e-12


def test_a_tuple_of_batches_is_not_stacked():
    (x, labels), pair = draw(), two_inputs(0)
    assert is_stacked((x, labels["class"]))
    assert is_stacked((x, labels["class"], x))
    assert is_stacked(pair)
    assert not is_stacked(((x, labels["class"]), (x, labels["class"])))
    for unclear in (([x, x], [x, x]), ([x, x], x), ((x, x), x)):
        with pytest.raises(ValueError, match="which may be either: give a list of batches"):
            is_stacked(unclear)
    assert not is_stacked([x, x])
    assert len(batch_list(pair)) == SIZE


@pytest.mark.parametrize("score", [scores.snip, scores.grasp])
@pytest.mark.parametrize("sizes", [(6, 6, 6, 6), (6, 6, 6, 1)])
def test_a_score_of_a_list_is_that_of_its_concatenation(score, sizes):
    model = dense()
    batches = [(x, y["class"]) for x, y in (draw(s, size) for s, size in enumerate(sizes))]
    whole = tuple(np.concatenate(parts) for parts in zip(*batches, strict=True))
    assert relative_error(score(model, batches), score(model, [whole])) < 1e-12
    assert relative_error(score(model, batches), score(model, batches[:1])) > 0.01


@pytest.mark.parametrize("method", METHODS)
def test_a_smaller_last_batch_of_an_epoch(method):
    drawn = (draw(s, size) for s, size in enumerate((6, 6, 5, 6, 2)))
    batches = [(x, y["class"]) for x, y in drawn]
    weights, loss = plain()
    found = meta_gradient(loss, weights, batches, learning_rate=0.1, method=method)
    reference = "first_order" if method == "first_order" else "unrolled"
    wanted = meta_gradient(loss, weights, batches, learning_rate=0.1, method=reference)
    assert relative_error(found, wanted) < 1e-12


def test_penalties_and_added_losses_count_unless_told_otherwise():
    class Adding(layers.Layer):
        def call(self, x):
            self.add_loss(keras.ops.mean(x**2))
            return x

    hidden = layers.Dense(5, "tanh", kernel_regularizer=keras.regularizers.L2(0.1))
    model = keras.Sequential([keras.Input((4,)), hidden, Adding(), layers.Dense(CLASSES)])
    x, labels = draw()
    weights, loss = as_loss(model)
    _, plain = as_loss(model, regularisation=False)
    batch = x, labels["class"]
    inner = tf.tanh(x @ weights[0] + weights[1])
    added = hidden.kernel_regularizer(weights[0]) + tf.reduce_mean(inner**2)
    assert abs(float(loss(weights, batch) - plain(weights, batch)) - float(added)) < 1e-12


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("score", [scores.snip, scores.prospr, scores.grasp])
def test_probabilities_are_not_taken_for_logits(score, activation):
    x, labels = draw()
    model, batch = dense(activation), (x, labels["class"])
    remedy = "compile the model with its loss, or give `loss=`"
    with pytest.raises(ValueError, match=f"found an output that ends in a {activation}: {remedy}"):
        score(model, [batch] * 4)
    model.compile("sgd", K.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match=r"expected logits.*take from_logits=False"):
        score(model, [batch] * 4)


class Own(keras.Model):
    """A model of a class of one's own, whose call takes no `training`."""

    def __init__(self, last):
        super().__init__()
        self.hidden, self.out, self.last = layers.Dense(5, "tanh"), layers.Dense(CLASSES), last

    def call(self, x):
        return self.last(self.out(self.hidden(x)))


@pytest.mark.parametrize("last", [layers.Softmax, lambda: keras.ops.softmax, lambda: tf.nn.softmax])
def test_a_softmax_is_found_however_it_is_made(last):
    x, labels = draw()
    own = Own(last())
    own(x)
    inputs = keras.Input((4,))
    nested = keras.Sequential([keras.Input((4,)), layers.Dense(CLASSES), layers.Softmax()])
    for model in (own, keras.Model(inputs, nested(layers.Dense(4)(inputs)))):
        with pytest.raises(ValueError, match="found an output that ends in a softmax"):
            scores.snip(model, [(x, labels["class"])])


def test_a_loss_of_ones_own_may_have_any_name():
    """What Keras' function of that name takes says nothing about it."""

    def categorical_crossentropy(y, outputs):
        return K.categorical_crossentropy(y, outputs, from_logits=True)

    x, labels = draw()
    model, plain = dense(), dense()
    model.compile("sgd", categorical_crossentropy)
    plain.compile("sgd", K.CategoricalCrossentropy(from_logits=True))
    batch = [(x, labels["one-hot"])]
    assert relative_error(scores.snip(model, batch), scores.snip(plain, batch)) < 1e-12


def test_what_keras_functions_of_probabilities_take_is_known():
    names = [name for name in dir(K) if name.endswith("crossentropy")]
    assert len(names) == 5
    for name in names:
        summed = losses.CompileLoss(name)
        summed.build(np.zeros((2, 3)), np.zeros((2, 3)))
        assert losses.takes_logits(summed._flat_losses[0].loss) is False


def heads(order, *, nested):
    """Return a model of logits and probabilities, in this order; nested, as another model's."""
    inputs = keras.Input((4,))
    ends = {"logits": layers.Dense(CLASSES)(inputs)}
    ends["softmax"] = layers.Dense(CLASSES, "softmax")(inputs)
    model = keras.Model(inputs, [ends[name] for name in order])
    outer = keras.Input((4,))
    return keras.Model(outer, model(outer)) if nested else model


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("order", [("logits", "softmax"), ("softmax", "logits")])
def test_each_output_of_a_model_is_judged_by_itself(order, nested):
    kinds = {"logits": SPARSE(), "softmax": K.SparseCategoricalCrossentropy()}
    model = heads(order, nested=nested)
    as_loss(model, [kinds[name] for name in order])
    for wrong in (order[::-1], (order[0],) * 2, (order[1],) * 2):
        with pytest.raises(ValueError, match=r"expected (logits|probabilities), found an output"):
            as_loss(model, [kinds[name] for name in wrong])


def test_a_softmax_is_seen_through_a_wrapper():
    inner = layers.Dense(CLASSES, "softmax")
    model = keras.Sequential([keras.Input((5, 4)), layers.TimeDistributed(inner, name="each")])
    with pytest.raises(ValueError, match=r"of layer 'each': expected logits, found .* a softmax"):
        as_loss(model)


MOVES = {
    "itself": tf.identity,
    "reshape": lambda t: tf.reshape(t, (-1, 3)),
    "cast": lambda t: tf.cast(t, tf.float32),
    "one axis more": lambda t: tf.expand_dims(t, 1),
    "and less": lambda t: tf.squeeze(tf.expand_dims(t, 1), 1),
    "transpose": tf.transpose,
}
LINEAR = {
    "matmul": lambda x: tf.ones((2, 4)) @ tf.ones((4, 3)) + x,
    "no bias": lambda x: x @ tf.ones((3, 3), tf.float64),
    "of each example": lambda x: tf.matmul(x[None], tf.ones((1, 3, 3), tf.float64)),
    "einsum": lambda x: tf.einsum("ij,jk->ik", x, tf.ones((3, 3), tf.float64)),
    "conv": lambda x: tf.nn.conv2d(
        x[None, ..., None], tf.ones((1, 1, 1, 2), tf.float64), 1, "SAME"
    ),
    "of a volume": lambda x: tf.nn.conv3d(
        x[None, ..., None, None], tf.ones((1, 1, 1, 1, 2), tf.float64), [1] * 5, "SAME"
    ),
    "bias": lambda x: tf.nn.bias_add(x, tf.ones(3, tf.float64)),
    "log softmax": tf.nn.log_softmax,
}


@pytest.mark.parametrize("move", MOVES)
def test_what_an_output_ends_in_is_seen_in_a_graph_through_what_changes_no_number(move):
    with tf.Graph().as_default():
        x = tf.ones((2, 3), tf.float64)
        assert losses.ends_in(MOVES[move](tf.nn.softmax(x))) == "a softmax"
        assert losses.ends_in(MOVES[move](tf.nn.sigmoid(x))) == "a sigmoid"
        assert losses.ends_in(MOVES[move](x @ tf.ones((3, 3), tf.float64))) == "logits"
        assert losses.ends_in(MOVES[move](tf.nn.relu(x @ tf.ones((3, 3), tf.float64)))) is None
        assert losses.ends_in(2 * MOVES[move](tf.nn.softmax(x))) is None


@pytest.mark.parametrize("kind", LINEAR)
def test_what_is_linear_ends_in_logits(kind):
    with tf.Graph().as_default():
        dtype = tf.float32 if kind == "matmul" else tf.float64
        assert losses.ends_in(LINEAR[kind](tf.ones((2, 3), dtype))) == "logits"


def test_outside_of_a_graph_all_rows_tell_a_softmax_from_sigmoids():
    x = tf.constant([[0.0, 0.0], [1.0, 2.0]])
    assert losses.ends_in(keras.activations.softmax(x)) == "a softmax"
    assert losses.ends_in(keras.activations.sigmoid(x)) == "a sigmoid"  # the first row sums to one
    assert losses.ends_in(keras.activations.sigmoid(x[:, :1])) == "a sigmoid"
    assert losses.ends_in(keras.activations.softmax(x[:1])) == "a softmax"  # of one example
    ones = keras.activations.sigmoid(tf.fill((3, 1), 100.0))  # they sum to one as well
    assert losses.ends_in(ones) == "a sigmoid"
    assert losses.ends_in(x) is None


def test_a_loss_that_computes_in_another_type_is_a_copy():
    given = K.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0)
    found = losses.computing_in(given, "float32")
    assert (given.dtype, found.dtype) == ("float64", "float32")
    before = vars(given) | {"_dtype": None}
    assert vars(found) | {"_dtype": None} == before
    model = dense()
    model.compile("sgd", given)
    x, labels = draw()
    weights, loss = as_loss(model, dtype="float32")
    assert loss(weights, (x, labels["class"])).dtype == tf.float32
    assert given.dtype == "float64"


PLAIN = {"from_logits": True}
OTHER = [{}, PLAIN | {"ignore_class": 0}, PLAIN | {"reduction": "sum"}]


def test_which_loss_is_the_plain_cross_entropy():
    plain = K.SparseCategoricalCrossentropy(**PLAIN)
    model = dense()
    assert losses.is_cross_entropy(model)  # the default one
    assert losses.is_cross_entropy(model, plain)
    other = [K.SparseCategoricalCrossentropy(**options) for options in OTHER]
    other += [K.CategoricalCrossentropy(**PLAIN), "sparse_categorical_crossentropy", "mse", quartic]
    for loss in other:
        assert not losses.is_cross_entropy(model, loss)
        model.compile("sgd", loss)
        assert not losses.is_cross_entropy(model)
        assert losses.is_cross_entropy(model, plain)  # a given one comes first
    model.compile("sgd", plain)
    assert losses.is_cross_entropy(model)
    model.compile("sgd", plain, loss_weights=[0.5])
    assert not losses.is_cross_entropy(model)


@pytest.mark.parametrize("name", ["sparse_categorical_crossentropy", "binary_crossentropy"])
def test_logits_are_not_taken_for_probabilities(name):
    x, labels = draw()
    binary = name.startswith("binary")
    model = dense(units=1 if binary else CLASSES)
    model.compile("sgd", name)
    with pytest.raises(ValueError, match=r"expected probabilities, .*: take from_logits=True"):
        scores.snip(model, [(x, labels["binary" if binary else "class"])])


def test_log_probabilities_are_logits():
    x, labels = draw()
    found = scores.prospr(dense("log_softmax"), [(x, labels["class"])] * 4)
    assert relative_error(found, scores.prospr(dense(), [(x, labels["class"])] * 4)) < 1e-12


@pytest.mark.parametrize(
    ("ends", "labels"),
    [
        ("softmax", "class"),
        ("sigmoid", "binary"),
        (tf.nn.softmax, "class"),
        (tf.nn.sigmoid, "binary"),
    ],
)
@pytest.mark.parametrize("factor", [1.0, 20.0])
def test_grasp_of_probabilities_is_that_of_their_logits(ends, labels, factor):
    """Also of small ones, and where Keras has not noted the logits."""
    units = 1 if labels == "binary" else CLASSES
    kind = K.BinaryCrossentropy if labels == "binary" else K.SparseCategoricalCrossentropy
    x, y = draw()
    logits, probabilities = dense(None, units), dense(ends, units)
    for model in (logits, probabilities):
        model.layers[-1].kernel.assign(factor * model.layers[-1].kernel)
    logits.compile("sgd", kind(from_logits=True))
    probabilities.compile("sgd", kind())
    batch = [(x, y[labels])]
    assert relative_error(scores.grasp(probabilities, batch), scores.grasp(logits, batch)) < 1e-9


def test_a_temperature_needs_a_cross_entropy():
    x, labels = draw()
    model = dense()
    model.compile("sgd", "mse")
    batch = [(x, labels["real"])]
    with pytest.raises(ValueError, match=r"temperature: expected 1 .*no cross-entropy, found 200"):
        scores.grasp(model, batch)
    assert all(np.all(np.isfinite(s)) for s in scores.grasp(model, batch, temperature=1.0))


def test_a_loss_that_is_no_scalar_is_refused():
    x, labels = draw()
    model = dense()
    model.compile("sgd", K.MeanSquaredError(reduction=None))
    with pytest.raises(ValueError, match=r"loss: expected a scalar, found shape \(6,\)"):
        scores.snip(model, [(x, labels["real"])])


@pytest.mark.parametrize("method", ["compute_loss", "train_step"])
def test_a_model_with_a_loss_of_its_own_is_refused_unless_one_is_given(method):
    own = type("Odd", (keras.Sequential,), {method: lambda self, *args, **kwargs: 0.0})
    x, labels = draw()
    for kind in (own, type("Derived", (own,), {})):
        model = kind([keras.Input((4,)), layers.Dense(CLASSES)])
        with pytest.raises(ValueError, match=f"found a method {method} of its own"):
            as_loss(model)
    assert len(scores.snip(model, [(x, labels["class"])], loss=CASES["sparse, logits"][2]())) == 1


@pytest.mark.parametrize("batch", [5, (1,), (1, 2, 3, 4), np.zeros(3), {"x": 1}])
def test_what_is_no_batch_is_refused(batch):
    weights, loss = as_loss(dense())
    with pytest.raises(ValueError, match=r"batch: expected \(x, y\) or \(x, y, sample weights\)"):
        loss(weights, batch)


def test_the_scale_of_a_loss_scale_optimizer_is_no_part_of_the_score():
    x, labels = draw()
    plain, scaled = dense(), dense()
    loss = K.SparseCategoricalCrossentropy(from_logits=True)
    plain.compile("sgd", loss)
    scaled.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()), loss)
    batches = [(x, labels["class"])] * 4
    assert relative_error(scores.prospr(scaled, batches), scores.prospr(plain, batches)) == 0


def test_keras_has_what_we_take_from_it():
    summed = losses.CompileLoss("mse")
    summed.build(np.zeros((2, 3)), np.zeros((2, 3)))
    (part,) = summed._flat_losses
    assert part._fields == ("path", "loss", "loss_weights", "name")
    assert part.loss._dtype == part.loss.dtype
    assert summed._metrics == []
    assert K.CategoricalCrossentropy(from_logits=True)._fn_kwargs["from_logits"] is True
    model = dense()
    model.compile("sgd", "mse", loss_weights=0.5)
    assert model._compile_loss._user_loss == "mse"
    assert model._compile_loss._user_loss_weights == 0.5
    assert hasattr(keras.activations.softmax(tf.zeros((1, 2))), "_keras_logits")
    assert all(len(kernels(model)) == 2 for model in (dense(),))


def test_what_is_added_as_a_vector_is_summed_as_keras_does():
    class Adding(layers.Layer):
        def call(self, x):
            self.add_loss(keras.ops.sum(x**2, axis=0))
            return x

    model = keras.Sequential([keras.Input((4,)), layers.Dense(5), Adding(), layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = np.random.default_rng(0).normal(size=(6, 4)).astype("float32"), np.arange(6) % 3
    weights, loss = as_loss(model)
    expected = model.compute_loss(x, tf.constant(y), model(x, training=True))
    assert float(loss(weights, (x, y))) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("kind", ["BinaryCrossentropy", "BinaryFocalCrossentropy"])
def test_a_temperature_of_every_binary_loss_divides_the_logits(kind, width):
    kind = getattr(keras.losses, kind)
    logits = tf.constant([[-1.0, 0.7, 1.5], [0.5, -2.0, 0.1], [2.0, 1.0, -0.3]])[:, :width]
    y = np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 0.0, 0.0]])[:, :width]
    found = losses.at_temperature(kind(), 3.0)(y, keras.activations.sigmoid(logits))
    assert float(found) == pytest.approx(float(kind(from_logits=True)(y, logits / 3)), rel=1e-5)


def test_sample_weights_count_at_a_temperature():
    x, labels = draw()
    weights, loss = as_loss(dense(), temperature=3.0, dtype="float64")
    y, weight = labels["class"], np.linspace(0.1, 2, SIZE)
    each = [float(loss(weights, (x[i : i + 1], y[i : i + 1]))) for i in range(SIZE)]
    assert float(loss(weights, (x, y, weight))) == pytest.approx(np.mean(weight * each), rel=1e-9)


def test_class_weights_may_be_integers_and_fractions():
    ((_, _, found),) = losses.class_weighted([("x", np.array([0, 1, 2]))], {0: 1, 1: 2.5})
    assert found.dtype == tf.float32
    assert found.numpy().tolist() == [1.0, 2.5, 1.0]


KEEPING = {
    "Activation": lambda: layers.Activation("linear"),
    "Dropout": lambda: layers.Dropout(0.5),
    "Flatten": layers.Flatten,
    "Identity": layers.Identity,
    "Permute": lambda: layers.Permute((1,)),
    "Reshape": lambda: layers.Reshape((CLASSES,)),
}


@pytest.mark.parametrize("kind", KEEPING)
def test_an_output_ends_in_what_the_layers_that_keep_it_are_given(kind):
    """Also if such a layer is called on logits first, and on probabilities then."""
    x, keep = keras.Input((4,)), KEEPING[kind]()
    ends = layers.Dense(CLASSES)(x), layers.Dense(CLASSES, "softmax", name="ends")(x)
    model = keras.Model(x, [keep(end) for end in ends])
    sparse = K.SparseCategoricalCrossentropy
    as_loss(model, [sparse(from_logits=True), sparse()])
    with pytest.raises(ValueError, match=r"of layer 'ends': expected logits, found .* a softmax"):
        as_loss(model, [sparse(from_logits=True)] * 2)
    with pytest.raises(ValueError, match="expected probabilities, found an output that ends"):
        as_loss(model, [sparse()] * 2)


class Softened(keras.Model):
    """A functional model whose own call goes on."""

    def call(self, x, training=None):
        return keras.ops.softmax(super().call(x, training=training))


def test_a_call_of_ones_own_may_end_in_something_else():
    x, inputs = draw()[0], keras.Input((4,))
    model = Softened(inputs, layers.Dense(CLASSES)(inputs))
    weights, loss = as_loss(model)
    with pytest.raises(ValueError, match="expected logits, found an output that ends in a softmax"):
        loss(weights, (x, np.arange(SIZE) % CLASSES))


@pytest.mark.parametrize("names", [["kind"], ["size", "kinds"]])
def test_losses_for_outputs_that_are_not_there_are_refused_by_name(names):
    model = two_heads()[0]
    if set(names) <= set(NAMES):
        as_loss(model, {"kind": NAMES["kind"], "size": "mse"})
        return
    with pytest.raises(ValueError, match=r"outputs \['kind', 'size'\] .* found them for \['kinds'"):
        as_loss(model, dict.fromkeys(names, "mse"))


@pytest.mark.parametrize("whole", [True, False])
def test_one_hot_labels_without_a_loss_are_refused_whatever_their_type(whole):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    weights, loss = as_loss(model)
    hot = np.eye(3, dtype="int64" if whole else "float32")
    with pytest.raises(ValueError, match=r"without a loss: expected integers \(3,\), found"):
        loss(weights, (np.ones((3, 4), "float32"), hot))


def test_a_softmax_over_classes_is_one_at_every_place():
    x = keras.ops.convert_to_tensor(np.random.default_rng(0).normal(size=(2, 5, 3)))
    assert losses.ends_in(keras.activations.softmax(x)) == "a softmax"
    assert losses.ends_in(keras.activations.sigmoid(x)) == "a sigmoid"


@pytest.mark.parametrize("layer", [False, True])
@pytest.mark.parametrize("name", ["softmax", "sigmoid", "hard_sigmoid", "sparsemax"])
def test_every_activation_that_gives_probabilities_is_known(name, layer):
    """As an activation of a layer, and as a layer of its own."""
    model = dense(None if layer else name)
    if layer:
        model = keras.Sequential([keras.Input((4,)), model, layers.Activation(name)])
    message = f"of layer '{model.layers[-1].name}': expected logits, .* ends in a {name}: take"
    with pytest.raises(ValueError, match=message):
        as_loss(model, K.CategoricalCrossentropy(from_logits=True))
    as_loss(model, K.CategoricalCrossentropy())


class SoftenedChain(keras.Sequential):
    """A Sequential model whose own call goes on."""

    def call(self, x, training=None, mask=None):
        return keras.ops.softmax(super().call(x, training=training))


@pytest.mark.parametrize("nested", [False, True])
def test_a_chain_with_a_call_of_ones_own_may_end_in_something_else(nested):
    model = SoftenedChain([keras.Input((4,)), layers.Dense(CLASSES)])
    if nested:
        x = keras.Input((4,))
        model = keras.Model(x, model(x))
    x, labels = draw()
    weights, loss = as_loss(model, "sparse_categorical_crossentropy")
    logits = x @ weights[0] + weights[1]
    expected = K.sparse_categorical_crossentropy(labels["class"], logits, from_logits=True)
    found = float(loss(weights, (x, labels["class"])))
    assert found == pytest.approx(float(tf.reduce_mean(expected)), rel=1e-12)


@pytest.mark.parametrize("names", [("z", "a"), ("a", "z")])
def test_outputs_by_name_are_judged_by_name_whatever_their_order(names):
    x, soft, plain = keras.Input((4,)), *names
    kinds = {soft: layers.Dense(CLASSES, "softmax")(x), plain: layers.Dense(CLASSES)(x)}
    model, sparse = keras.Model(x, kinds), K.SparseCategoricalCrossentropy
    weights, loss = as_loss(model, {plain: sparse(from_logits=True), soft: sparse()})
    inputs, labels = draw()
    logits = [inputs @ weights[i] + weights[i + 1] for i in (0, 2)]
    each = [K.sparse_categorical_crossentropy(labels["class"], y, from_logits=True) for y in logits]
    found = float(loss(weights, (inputs, dict.fromkeys(names, labels["class"]))))
    assert found == pytest.approx(float(sum(map(tf.reduce_mean, each))), rel=1e-12)
    for wrong in (sparse(), sparse(from_logits=True)):
        with pytest.raises(ValueError, match=r"expected (logits|probabilities), found an output"):
            as_loss(model, dict.fromkeys(names, wrong))


def test_losses_may_be_named_by_the_layers_of_listed_outputs():
    _, listed = two_heads()
    x, y = two_inputs(0)
    batch = list(x.values()), list(y.values())
    weights, loss = as_loss(listed, NAMES)
    _, other = as_loss(listed, list(NAMES.values()))
    assert float(loss(weights, batch)) == pytest.approx(float(other(weights, batch)), rel=1e-12)
    with pytest.raises(ValueError, match=r"outputs \['kind', 'size'\] .* for \['kind', 'sizes'\]"):
        as_loss(listed, {"kind": NAMES["kind"], "sizes": "mse"})


@pytest.mark.parametrize("by_name", [False, True])
def test_labels_of_sequences_are_of_the_kind_that_the_loss_takes(by_name):
    model = keras.Sequential([keras.Input((5, 2)), layers.Dense(CLASSES, "softmax")])
    generator = np.random.default_rng(0)
    x, classes = generator.normal(size=(SIZE, 5, 2)), generator.integers(0, CLASSES, (SIZE, 5))
    hot, column = np.eye(CLASSES)[classes], classes[..., None]
    sparse, plain = "sparse_categorical_crossentropy", "categorical_crossentropy"
    if not by_name:
        sparse, plain = K.SparseCategoricalCrossentropy(), K.CategoricalCrossentropy()
    (weights, loss), (_, other) = as_loss(model, sparse), as_loss(model, plain)
    found = [loss(weights, (x, y)) for y in (classes, column)] + [other(weights, (x, hot))]
    np.testing.assert_allclose(found, found[0], rtol=1e-12)
    with pytest.raises(ValueError, match=r"expected integers \(6, 5\) .* found shape \(6, 5, 3\)"):
        loss(weights, (x, hot))
    for y in (classes, column):
        with pytest.raises(ValueError, match=r"expected one-hot labels \(6, 5, 3\) .* found shape"):
            other(weights, (x, y))


@pytest.mark.filterwarnings("ignore:In loss categorical_crossentropy")
def test_one_output_of_a_loss_of_classes_has_labels_of_either_kind():
    """With a single class they cannot be told apart, and nothing is refused."""
    x, _ = draw()
    model = dense("sigmoid", 1)
    for loss in (K.CategoricalCrossentropy(), K.SparseCategoricalCrossentropy()):
        weights, found = as_loss(model, loss)
        assert np.isfinite(found(weights, (x, np.zeros((SIZE, 1), int))))


def test_where_no_output_has_a_loss_there_is_no_scalar():
    x = keras.Input((4,))
    model = keras.Model(x, [layers.Dense(3)(x), layers.Dense(2)(x)])
    batch = np.ones((2, 4)), [np.zeros((2, 3)), np.zeros((2, 2))]
    weights, loss = as_loss(model, [None, "mse"])
    expected = np.mean((batch[0] @ weights[2] + weights[3]) ** 2)
    assert float(loss(weights, batch)) == pytest.approx(expected, rel=1e-12)
    weights, loss = as_loss(model, [None, None])
    with pytest.raises(ValueError, match="loss: expected a scalar, found shape None: give the"):
        loss(weights, batch)


def test_without_a_loss_the_classes_of_every_place_are_whole_numbers():
    model = keras.Sequential([keras.Input((5, 2)), layers.Dense(CLASSES)])
    generator = np.random.default_rng(0)
    x, classes = generator.normal(size=(SIZE, 5, 2)), generator.integers(0, CLASSES, (SIZE, 5))
    (weights, loss), (_, given) = as_loss(model), as_loss(model, SPARSE())
    expected = float(given(weights, (x, classes)))
    for y in (classes, classes[..., None], tf.constant(classes, tf.uint8)):
        assert float(loss(weights, (x, y))) == pytest.approx(expected, rel=1e-12)
    hot = np.eye(CLASSES, dtype=int)[classes]
    for y in (classes[:, 0], hot, classes[..., None, None], classes * 1.0, classes > 0, [classes]):
        with pytest.raises(ValueError, match=r"a loss: expected integers \(6, 5\), found"):
            loss(weights, (x, y))


@pytest.mark.parametrize(
    ("ending", "found"),
    [
        (lambda y: y[:, 0], r"outputs of shape \(6,\)"),
        (lambda y: y[:, :1], r"outputs of shape \(6, 1\)"),
        (lambda y: [y, y], "several outputs"),
        (lambda y: {"y": y}, "several outputs"),
    ],
)
def test_without_a_loss_other_outputs_than_logits_are_refused_in_the_call(ending, found):
    """Those of a model with a call of its own are not known before."""
    model = Own(ending)
    x, labels = draw()
    model(x)
    weights, loss = as_loss(model)
    with pytest.raises(ValueError, match=rf"without a loss: expected logits .*, found {found}: "):
        loss(weights, (x, labels["class"]))


def test_the_weights_that_a_model_was_compiled_with_are_not_those_of_a_given_loss():
    model = dense()
    x, labels = draw()
    model.compile("sgd", "mse", loss_weights=[0.25])
    (weights, loss), (_, given) = as_loss(model), as_loss(model, "mse")
    _, halved = as_loss(model, "mse", loss_weights=[0.5])
    outputs = tf.tanh(x @ weights[0] + weights[1]) @ weights[2] + weights[3]
    expected = float(tf.reduce_mean((outputs - labels["real"]) ** 2))
    for share, found in ((0.25, loss), (1.0, given), (0.5, halved)):
        value = float(found(weights, (x, labels["real"])))
        assert value == pytest.approx(share * expected, rel=1e-12)
