"""Every score against an independent calculation, and what they refuse."""

import functools
import itertools

from prosper_utils.lookahead.descent import loss_and_gradient
from prosper_utils.lookahead.meta_gradient import meta_gradient
from prosper_utils.lookahead.streaming import gauss_newton_diagonal, row_sums
from prosper_utils.pruning import scores
from prosper_utils.pruning.masks import top_k
from prosper_utils.pruning.networks import (
    as_logits,
    as_loss,
    cross_entropy,
    dense_300_100,
    kernels,
    lenet5,
)
from prosper_utils.pruning.scores import (
    SCORES,
    _masked,
    grasp,
    iterative,
    iterative_prospr,
    magnitude,
    prospr,
    random,
    snip,
    streamed_prospr,
    synflow,
)
from prosper_utils.study import datasets
from prosper_utils.study.checks import relative_error

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import Sequence, dense_with, right_once, with_an_idle_layer


@pytest.fixture(scope="module")
def batches(digits):
    return list(itertools.islice(datasets.batches(digits.train, 32), 4))


def test_a_rule_that_leaves_out_a_kernel_is_refused():
    with pytest.raises(ValueError, match="zip"):
        iterative(lambda masks: masks[:1], [(2, 2), (3,)], 0.5, rounds=1)


small = functools.partial(dense_300_100, units=(12, 8))


def one_kernel():
    """Return a network of a single weight tensor."""
    flat, dense = keras.layers.Flatten(), keras.layers.Dense(10, use_bias=False)
    model = keras.Sequential([keras.Input((28, 28)), flat, dense])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


SHORT = {"ProsPr", "ProsPr, M = 10"}  # the same as the longest one, in fewer steps
EACH = [(build, n) for build in (small, one_kernel) for n in SCORES]
EACH += [(lenet5, n) for n in SCORES if n not in SHORT]


@pytest.mark.parametrize(("build", "name"), EACH)
def test_one_signature_and_no_change_to_the_model(name, build, batches):
    model = build()
    before = model.get_weights()
    found = SCORES[name](model, itertools.cycle(batches), sparsity=0.9, seed=0)
    assert [s.shape for s in found] == [k.shape for k in kernels(model)]
    assert all(np.any(s > 0) for s in found)
    assert name == "GraSP" or all(np.all((s >= 0) | np.isneginf(s)) for s in found)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def looked_up(embedded, table):
    """Return a network that looks words up in a table, or multiplies their one-hot rows with it."""
    words = keras.Input((5,), dtype="int32")
    if embedded:
        x = keras.layers.Embedding(*table.shape)(words)
    else:
        x = keras.ops.one_hot(words, table.shape[0])
        x = keras.layers.Dense(table.shape[1], use_bias=False)(x)
    outputs = keras.layers.Dense(3, kernel_initializer="ones")(keras.layers.Flatten()(x))
    model = keras.Model(words, outputs)
    kernels(model)[0].assign(table)
    kernels(model)[1].assign(np.random.default_rng(1).normal(size=(5 * table.shape[1], 3)))
    return model


@pytest.mark.parametrize("name", [name for name in SCORES if name != "SynFlow"])
def test_a_table_of_words_scores_as_a_layer_that_takes_one_hot_rows(name):
    """Gradients of a table come row by row, those of a layer whole: it is the same network."""
    generator = np.random.default_rng(0)
    table = generator.normal(size=(9, 4))
    words = [generator.integers(0, 9, (8, 5)) for _ in range(5)]
    batches = [(x, np.arange(8) % 3) for x in words]
    found, expected = (
        SCORES[name](looked_up(kind, table), itertools.cycle(batches), sparsity=0.5, seed=0)
        for kind in (True, False)
    )
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_snip_is_a_mask_gradient(batches):
    model = dense_300_100()
    masks = [tf.ones(k.shape) for k in kernels(model)]
    x, y = batches[0]
    with tf.GradientTape() as tape:
        tape.watch(masks)
        h = tf.reshape(x, (len(x), 784))
        for i, layer in enumerate(model.layers[1:]):
            h = layer.activation(h @ (masks[i] * layer.kernel) + layer.bias)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(y, h)
    expected = [tf.abs(g) for g in tape.gradient(loss, masks)]
    assert relative_error(snip(model, batches[:1]), expected) < 1e-5


def test_snip_is_prospr_without_steps(batches):
    model = lenet5()
    assert relative_error(snip(model, batches), prospr(model, batches, steps=0)) < 1e-6


def test_prospr_takes_what_it_needs_of_an_endless_supply(digits, batches):
    model = dense_300_100()
    endless, found = datasets.batches(digits.train, 32), prospr(model, batches)
    assert relative_error(prospr(model, endless), found) == 0
    assert relative_error(found, prospr(model, batches[:3], steps=2)) > 0.01


@pytest.fixture(scope="module")
def tiny():
    """A network of few enough weights for an explicit Hessian, in float64, and one batch for it."""
    layers = [
        keras.Input((5,), dtype="float64"),
        keras.layers.Dense(4, "tanh", dtype="float64"),
        keras.layers.Dense(3, dtype="float64"),
    ]
    model = keras.Sequential(layers)
    generator = np.random.default_rng(0)
    model.set_weights([generator.normal(size=w.shape) for w in model.get_weights()])
    return model, (generator.normal(size=(7, 5)), generator.integers(0, 3, 7))


@pytest.fixture(scope="module")
def loss_of_tiny(tiny):
    """Its weights and one loss, for which sweeps of any length are compiled once."""
    return as_loss(tiny[0])


@pytest.mark.parametrize(("temperature", "options"), [(1.0, {"temperature": 1.0}), (200.0, {})])
def test_grasp_is_the_explicit_hessian_times_the_gradient(tiny, temperature, options):
    model, batch = tiny
    weights, logits = as_logits(model)
    sizes = [w.shape.num_elements() for w in weights[::2]]

    def loss(vector):
        first, last = tf.split(vector, sizes)
        values = [tf.reshape(first, (5, 4)), weights[1], tf.reshape(last, (4, 3)), weights[3]]
        return cross_entropy(logits(values, batch[0]) / temperature, batch[1])

    vector = tf.concat([tf.reshape(w, [-1]) for w in weights[::2]], 0)
    with tf.GradientTape() as outer:
        outer.watch(vector)
        with tf.GradientTape() as inner:
            inner.watch(vector)
            value = loss(vector)
        gradient = inner.gradient(value, vector)
    hessian = outer.jacobian(gradient, vector)
    expected = vector * tf.linalg.matvec(hessian, gradient)
    found = tf.concat([tf.reshape(s, [-1]) for s in grasp(model, [batch], **options)], 0)
    assert relative_error([found], [expected]) < 1e-10


def test_grasp_predicts_what_the_gradient_loses(tiny):
    """Shrinking one weight by a share h lowers |g|^2 / 2 by h times its score."""
    model, batch = tiny
    weights, loss = as_loss(model)

    def half_square(weights):
        _, gradient = loss_and_gradient(loss, weights, batch)
        return float(sum(tf.reduce_sum(g**2) for g in gradient[::2])) / 2

    score, h = grasp(model, [batch], temperature=1.0)[0].numpy(), 1e-5
    for index in ((0, 0), (3, 2), (4, 1)):
        share = np.zeros((5, 4))
        share[index] = h
        ends = [half_square([weights[0] * (1 - s * share), *weights[1:]]) for s in (1, -1)]
        assert (ends[1] - ends[0]) / (2 * h) == pytest.approx(score[index], rel=1e-6)


def test_synflow_conserves_flow():
    """In a network without biases what flows into a layer flows out of it (Tanaka et al., 2020)."""
    found = synflow(dense_300_100("relu", units=(30, 20)), sparsity=0.0, rounds=1)
    totals = [float(tf.reduce_sum(s)) for s in found]
    assert totals == pytest.approx([totals[0]] * 3, rel=1e-12)
    into = [tf.reduce_sum(s, axis=0) for s in found[:-1]]
    out = [tf.reduce_sum(s, axis=1) for s in found[1:]]
    assert relative_error(into, out) < 1e-12
    conv = synflow(lenet5(), sparsity=0.0, rounds=1)
    assert [float(tf.reduce_sum(s)) for s in conv] == pytest.approx(
        [float(tf.reduce_sum(conv[0]))] * 5, rel=1e-12
    )


def test_synflow_is_the_explicit_product_of_absolute_weights(tiny):
    """R = 1 |A| |B| 1, so each score is |w| times the flow into its input and out of its output."""
    model, _ = tiny
    a, b = (np.abs(k.numpy()) for k in kernels(model))
    found = synflow(model, sparsity=0.0, rounds=1)
    expected = [a * b.sum(axis=1), a.sum(axis=0)[:, None] * b]
    assert relative_error(found, expected) < 1e-12


def test_synflow_traces_its_pass_once_for_all_rounds(monkeypatch):
    traced, passing = [], scores.passing
    monkeypatch.setattr(scores, "passing", lambda *how: traced.append(1) or passing(*how))
    scores.synflow(dense_300_100(units=(4, 3)), sparsity=0.5, rounds=7)
    assert traced == [1]


def test_synflow_keeps_every_layer_where_one_round_need_not():
    model = dense_300_100()
    kept = [int(np.sum(m)) for m in top_k(synflow(model, sparsity=0.999), 0.999)]
    assert sum(kept) == 267
    assert min(kept) > 0


def test_what_earlier_rounds_remove_stays_removed():
    model = dense_300_100(units=(12, 8))
    found = synflow(model, sparsity=0.9, rounds=3)
    gone = sum(int(np.sum(np.isneginf(s))) for s in found)
    size = sum(int(tf.size(s)) for s in found)
    assert gone == size - int(np.ceil(size * 0.1 ** (2 / 3)))
    assert gone < sum(int(np.sum(~m.numpy())) for m in top_k(found, 0.9))


def test_iterative_prospr_follows_the_masked_trajectory(digits, batches):
    """Two rounds by hand: the second on a network whose pruned weights cannot move."""
    model = dense_300_100(units=(12, 8), dtype="float64")
    first = prospr(model, batches)
    masks = top_k(first, 1 - 0.1**0.5)
    weights, loss = as_loss(model)

    def masked(weights, batch):
        w = [
            weights[0] * m[0],
            weights[1],
            weights[2] * m[1],
            weights[3],
            weights[4] * m[2],
            weights[5],
        ]
        return loss(w, batch)

    m = [tf.cast(mask, tf.float64) for mask in masks]
    second = meta_gradient(masked, weights, batches, learning_rate=0.1, method="unrolled")[::2]
    expected = [tf.where(k, tf.abs(s), 0) for k, s in zip(masks, second, strict=True)]
    found = iterative_prospr(model, batches, sparsity=0.9, rounds=2)
    for f, mask in zip(found, masks, strict=True):
        assert np.array_equal(np.isneginf(f), ~mask.numpy())
    assert (
        relative_error([tf.where(k, f, 0) for k, f in zip(masks, found, strict=True)], expected)
        < 1e-10
    )
    once = iterative_prospr(model, batches, sparsity=0.9, rounds=1)
    assert relative_error(once, first) < 1e-12


def test_the_streamed_scores_are_those_of_the_curvature(batches):
    model = lenet5("relu")
    weights, loss = as_loss(model)
    found = streamed_prospr(model, batches, curvature=lambda model: row_sums)
    expected = meta_gradient(loss, weights, batches, learning_rate=0.1, method="row_sums")[::2]
    assert relative_error(found, [tf.abs(e) for e in expected]) < 1e-6
    found = SCORES["diagonal"](model, batches, steps=1)
    h = gauss_newton_diagonal(as_logits(model)[1])(loss, weights, batches[0])
    _, g = loss_and_gradient(loss, weights, batches[0])
    moved = [w - 0.1 * d for w, d in zip(weights, g, strict=True)]
    _, g = loss_and_gradient(loss, moved, batches[1])
    expected = [tf.abs(w * (1 - 0.1 * c) * d) for w, c, d in zip(weights, h, g, strict=True)][::2]
    assert relative_error(found, expected) < 1e-5


def small_batches(count):
    generator = np.random.default_rng(3)
    return [(generator.normal(size=(7, 5)), generator.integers(0, 3, 7)) for _ in range(count)]


REGISTERED = {  # name: (steps, options of the meta-gradient)
    "ProsPr": (3, {}),
    "ProsPr, M = 10": (10, {}),
    "ProsPr, M = 100": (100, {}),
    "first order": (10, {"method": "first_order"}),
    "row sums": (10, {"method": "row_sums"}),
    "diagonal": (10, {"method": "diagonal"}),
}


@pytest.mark.parametrize("name", REGISTERED)
def test_a_registered_score_is_what_its_name_says(tiny, loss_of_tiny, name):
    (model, _), (weights, loss) = tiny, loss_of_tiny
    steps, options = REGISTERED[name]
    batches = small_batches(steps + 1)
    found = SCORES[name](model, batches, sparsity=0.5)
    expected = meta_gradient(loss, weights, batches, learning_rate=0.1, **options)[::2]
    assert relative_error(found, [tf.abs(e) for e in expected]) < 1e-10
    with pytest.raises(ValueError, match=rf"at least {steps + 1} \(M \+ 1\), found {steps}"):
        SCORES[name](model, batches[:-1], sparsity=0.5)


def test_every_registered_score_is_known_by_a_test():
    others = {"random", "magnitude", "SNIP", "GraSP", "SynFlow", "iterative SNIP"}
    assert set(SCORES) == {*REGISTERED, *others, "iterative ProsPr"}


@pytest.mark.parametrize("name", ["iterative SNIP", "iterative ProsPr"])
def test_scores_in_rounds_are_what_their_names_say(tiny, loss_of_tiny, name):
    """Five rounds, each by hand from the masks of the round before."""
    (model, _), (weights, loss) = tiny, loss_of_tiny
    steps = {"iterative SNIP": 0, "iterative ProsPr": 3}[name]
    batches = small_batches(steps + 1)
    ones = [tf.ones_like(w) for w in weights]
    for r in range(1, 6):

        def masked(w, batch, ones=ones):
            return loss([a * m for a, m in zip(w, ones, strict=True)], batch)

        options = {"learning_rate": 0.1, "method": "unrolled"}
        found = meta_gradient(masked, weights, batches, **options)[::2]
        kept = [m > 0 for m in ones[::2]]
        score = [tf.where(k, tf.abs(f), -np.inf) for k, f in zip(kept, found, strict=True)]
        chosen = top_k(score, 1 - 0.2 ** (r / 5))
        before, ones = ones, [tf.ones_like(w) for w in weights]
        ones[::2] = [tf.cast(c, tf.float64) for c in chosen]
    assert sum(int(tf.reduce_sum(m)) for m in before[::2]) > sum(map(np.sum, chosen))
    for a, b in zip(SCORES[name](model, batches, sparsity=0.8), score, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)


OPTIONS = [
    (prospr, {"learning_rate": 0.3, "momentum": 0.5, "steps": 1, "method": "unrolled"}),
    (prospr, {"momentum": 0.9, "method": "checkpointed"}),
    (prospr, {"steps": 2, "method": "first_order"}),
    (streamed_prospr, {"learning_rate": 0.3, "steps": 2}),
    (scores.diagonal, {"learning_rate": 0.3, "steps": 2}),
    (iterative_prospr, {"learning_rate": 0.3, "steps": 2, "method": "first_order"}),
]
ONE_ROUND = {"sparsity": 0.0, "rounds": 1}
FIXED = {streamed_prospr: {"curvature": lambda model: row_sums}, iterative_prospr: ONE_ROUND}


@pytest.mark.parametrize(("score", "options"), OPTIONS)
def test_options_are_handed_on(tiny, loss_of_tiny, score, options):
    (model, _), (weights, loss) = tiny, loss_of_tiny
    batches = small_batches(4)
    found = score(model, batches, **FIXED.get(score, {}), **options)
    streams = {streamed_prospr: {"method": "row_sums"}, scores.diagonal: {"method": "diagonal"}}
    options = {"learning_rate": 0.1, "steps": 3} | streams.get(score, {}) | options
    taken = batches[: options.pop("steps") + 1]
    expected = meta_gradient(loss, weights, taken, **options)[::2]
    assert relative_error(found, [tf.abs(e) for e in expected]) < 1e-10


LOOKS_AT_DATA = {
    "SNIP": snip,
    "GraSP": functools.partial(grasp, temperature=1.0),
    "ProsPr": functools.partial(prospr, steps=1),
    "streamed": functools.partial(streamed_prospr, steps=1, curvature=lambda model: row_sums),
    "iterative": functools.partial(iterative_prospr, steps=1, **ONE_ROUND),
}
CHANGES = {
    "penalty": {"regularisation": True},
    "statistics": {"statistics": "moving"},
    "loss": {"loss": "mean_squared_error"},
}


class TwiceInTraining(keras.layers.Layer):
    """A layer that says how the model is run."""

    def call(self, x, training=None):
        return 2.0 * x if training else x


@pytest.mark.parametrize("name", LOOKS_AT_DATA)
def test_how_the_model_is_run_and_its_loss_are_handed_on(name):
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((5,)),
        keras.layers.Dense(4, "tanh", kernel_regularizer=keras.regularizers.L2(0.1)),
        TwiceInTraining(),
        keras.layers.Dense(3),
    ]
    model, batches = keras.Sequential(layers), small_batches(2)
    base = {"dtype": "float64", "regularisation": False}
    found = [LOOKS_AT_DATA[name](model, batches, **base)]
    assert {s.dtype.name for s in found[0]} == {"float64"}
    for what, change in CHANGES.items():
        given = [(x, np.eye(3)[y]) for x, y in batches] if what == "loss" else batches
        found.append(LOOKS_AT_DATA[name](model, given, **base | change))
    for a, b in itertools.combinations(found, 2):
        assert relative_error(a, b) > 1e-3


def parts_of_one_batch():
    """Return one batch, and the same examples in uneven parts."""
    generator = np.random.default_rng(5)
    x, y = generator.normal(size=(21, 5)), generator.integers(0, 3, 21)
    return (x, y), [(x[a:b], y[a:b]) for a, b in ((0, 4), (4, 14), (14, 21))]


AT_ONE_MOMENT = {
    "SNIP": snip,
    "GraSP": functools.partial(grasp, temperature=1.0),
    "ProsPr without steps": functools.partial(prospr, steps=0),
    "iterative SNIP": functools.partial(SCORES["iterative SNIP"], sparsity=0.5, rounds=2),
}


@pytest.mark.parametrize("name", AT_ONE_MOMENT)
def test_what_ends_is_averaged_over_all_examples_and_of_the_rest_the_first_is_taken(tiny, name):
    model, _ = tiny
    whole, parts = parts_of_one_batch()
    score = AT_ONE_MOMENT[name]
    kinds = tuple(tf.TensorSpec((None, *part.shape[1:]), part.dtype) for part in whole)
    ends = tf.data.Dataset.from_generator(lambda: parts, output_signature=kinds)
    ends = ends.apply(tf.data.experimental.assert_cardinality(3))
    expected = score(model, [whole])
    two = [tuple(part[side] for part in whole) for side in (slice(6), slice(6, None))]
    for listed in (parts, tuple(parts), ends, Sequence(parts), two):
        for a, b in zip(score(model, listed), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-15)
    first = score(model, itertools.repeat(parts[0]))
    for a, b in zip(first, score(model, parts[:1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    endless = score(model, itertools.cycle(parts))
    equal = all(np.allclose(a, b, rtol=1e-9) for a, b in zip(endless, first, strict=True))
    assert equal != name.startswith("iterative")  # each round takes the next batch


@pytest.mark.parametrize(("name", "steps"), [("iterative SNIP", 0), ("iterative ProsPr", 3)])
def test_every_round_takes_new_batches_of_what_goes_on(tiny, name, steps):
    model, _ = tiny
    given, options = small_batches(2 * steps + 3), {"sparsity": 0.6, "rounds": 2}
    options |= {"method": "first_order"} if steps else {}
    supply = iter(given)
    found = SCORES[name](model, supply, **options)
    assert next(supply)[0] is given[-1][0]
    ended = SCORES[name](model, given[: steps + 1], **options)
    assert not all(np.array_equal(a, b) for a, b in zip(found, ended, strict=True))


def ordinary():
    """Return a small network with a penalty and a layer that says how the model is run."""
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((5,)),
        keras.layers.Dense(4, "relu", kernel_regularizer=keras.regularizers.L2(0.1)),
        TwiceInTraining(),
        keras.layers.Dense(3),
    ]
    return keras.Sequential(layers)


@pytest.mark.parametrize(
    "of_loss",
    [{}, {"regularisation": False}, {"statistics": "moving"}, {"loss": "mean_squared_error"}],
)
def test_what_judges_a_score_is_the_same_loss_at_the_same_sparsity(monkeypatch, of_loss):
    model, batches, seen = ordinary(), small_batches(2), {}
    if "loss" in of_loss:
        batches = [(x, np.eye(3)[y]) for x, y in batches]

    def checked(loss, weights, batches, **options):
        seen.update(options)
        return meta_gradient(loss, weights, batches, learning_rate=options["learning_rate"])

    monkeypatch.setattr("prosper_utils.lookahead.conditioning.checked", checked)
    prospr(model, batches, steps=1, sparsity=0.7, **of_loss)
    fine, judged = seen["double"]
    weights, loss = as_loss(model, **of_loss, dtype="float64")
    assert float(judged(fine, batches[1])) == float(loss(weights, batches[1]))
    assert seen["sparsity"] == 0.7
    assert list(seen["scored"]) == [0, 2]


@pytest.mark.parametrize("statistics", ["batch", "moving"])
def test_the_curvature_is_that_of_the_model_as_it_is_run(statistics):
    model, batches = ordinary(), small_batches(2)
    run = {"statistics": statistics, "dtype": "float64"}
    found = SCORES["diagonal"](model, batches, steps=1, regularisation=False, **run)
    weights, loss = as_loss(model, regularisation=False, **run)
    h = gauss_newton_diagonal(as_logits(model, **run)[1])(loss, weights, batches[0])
    ends = [loss_and_gradient(loss, weights, batches[0])[1]]
    moved = [w - 0.1 * g for w, g in zip(weights, ends[0], strict=True)]
    ends.append(loss_and_gradient(loss, moved, batches[1])[1])
    expected = [abs(w * (1 - 0.1 * c) * g) for w, c, g in zip(weights, h, ends[1], strict=True)]
    assert relative_error(found, expected[::2]) < 1e-10


def test_a_curvature_that_is_not_of_this_loss_is_refused():
    diagonal, batches = SCORES["diagonal"], small_batches(2)
    model, plain = ordinary(), {"steps": 1, "regularisation": False}
    weighted = [(x, y, np.ones(7)) for x, y in batches]
    for given, options, message in (
        (batches, {"steps": 1}, "expected nothing added to the loss"),
        (batches, plain | {"loss": "mean_squared_error"}, "softmax cross-entropy of logits"),
        (batches, plain | {"dropout": True}, "found dropout"),
        (weighted, plain, "found sample weights"),
    ):
        with pytest.raises(ValueError, match=f"diagonal: expected .*{message}|diagonal: {message}"):
            diagonal(model, given, **options)


def test_the_diagonal_is_that_of_examples_apart():
    """Batch statistics tie them together where a layer takes them, dropout in any network."""
    diagonal, batches = SCORES["diagonal"], small_batches(2)
    within = [keras.Input((4,)), keras.layers.BatchNormalization(name="bn")]
    plain, normalised, nested = (
        keras.Sequential([keras.Input((5,)), keras.layers.Dense(4), norm, keras.layers.Dense(3)])
        for norm in (keras.layers.LayerNormalization(), within[1], keras.Sequential(within))
    )
    loss = {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}
    for model, options, said in [
        (plain, {"statistics": "batch"}, None),
        (plain, {"statistics": "moving"}, None),
        (plain, {"dropout": True}, "found dropout of model"),
        (normalised, {"statistics": "moving"}, None),
        (normalised, {}, "found 'bn' of model"),
        (normalised, {"statistics": "batch"}, "found 'bn' of model"),
        (nested, {}, "found 'bn' of model"),
    ]:
        if said is None:
            assert all(np.any(s) for s in diagonal(model, batches, steps=1, **loss, **options))
        else:
            with pytest.raises(ValueError, match=f"diagonal: .* each other, {said}"):
                diagonal(model, batches, steps=1, **loss, **options)


def test_a_look_ahead_through_masks_is_judged_through_masks():
    """The double of a masked loss, by which wrong second derivatives are found, is masked, too."""
    weights, loss = as_loss(ordinary())
    masks = [tf.cast(np.arange(np.size(w)).reshape(w.shape) % 2, w.dtype) for w in weights]
    masked, (batch,) = _masked(loss, masks), small_batches(1)
    assert (masked.names, masked.layers) == (loss.names, loss.layers)
    fine = [tf.cast(w, tf.float64) for w in weights]
    expected = loss.in_float64()(
        [w * tf.cast(m, w.dtype) for w, m in zip(fine, masks, strict=True)], batch
    )
    assert float(masked.in_float64()(fine, batch)) == float(expected)
    assert float(masked(weights, batch)) == pytest.approx(float(expected), rel=1e-5)


def test_synflow_takes_a_hundred_rounds():
    model = dense_300_100(units=(12, 8))
    found = SCORES["SynFlow"](model, sparsity=0.9)
    for a, b in zip(found, synflow(model, sparsity=0.9, rounds=100), strict=True):
        np.testing.assert_array_equal(a, b)
    size = sum(int(tf.size(s)) for s in found)
    gone = sum(int(np.sum(np.isneginf(s))) for s in found)
    assert gone == size - int(np.ceil(size * 0.1 ** (99 / 100)))


@pytest.mark.parametrize("name", SCORES)
def test_an_option_that_no_score_takes_is_refused(tiny, name):
    model, batch = tiny
    with pytest.raises(TypeError, match="stepz"):
        SCORES[name](model, [batch] * 101, sparsity=0.5, statistics="moving", stepz=3)


def test_random_scores_are_uniform_and_each_kernel_has_its_own():
    layers = [keras.layers.Dense(50) for _ in range(2)]
    first, second = random(keras.Sequential([keras.Input((50,)), *layers]))
    assert abs(np.corrcoef(np.ravel(first), np.ravel(second))[0, 1]) < 0.1
    for found in (first, second):
        shares = np.histogram(found, bins=5, range=(0, 1))[0] / 2500
        assert shares == pytest.approx([0.2] * 5, abs=0.05)


def test_random_follows_its_seed():
    model = dense_300_100()
    assert relative_error(random(model, seed=1), random(model, seed=1)) == 0
    assert relative_error(random(model, seed=1), random(model, seed=2)) > 0.1


def test_magnitude_is_the_absolute_weight():
    model = dense_300_100()
    assert relative_error(magnitude(model), [abs(w) for w in model.get_weights()[::2]]) == 0


def test_bad_input_is_named(batches):
    model = dense_300_100()
    with pytest.raises(ValueError, match="expected M >= 0, found -1"):
        prospr(model, batches, steps=-1)
    with pytest.raises(ValueError, match=r"at least 5 \(M \+ 1\), found 4"):
        prospr(model, batches, steps=4)
    with pytest.raises(ValueError, match="expected examples"):
        snip(model, [(np.ones((0, 28, 28, 1)), np.ones(0, int))])
    for score in SCORES.values():
        with pytest.raises(ValueError, match="expected a built model"):
            score(keras.Sequential([keras.layers.Dense(10)]), batches, sparsity=0.5)
        with pytest.raises(ValueError, match="expected a kernel"):
            score(
                keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization()]),
                batches,
                sparsity=0.5,
            )
    for score in (synflow, iterative_prospr):
        for wrong in (None, -0.1, 1, np.nan):
            with pytest.raises(ValueError, match=rf"needs one in \[0, 1\), found {wrong}"):
                score(model, batches, sparsity=wrong)
        with pytest.raises(ValueError, match="rounds: expected at least 1, found 0"):
            score(model, batches, sparsity=0.5, rounds=0)


layers = keras.layers


@pytest.mark.parametrize("method", ["reverse", "checkpointed"])
def test_both_sweeps_back_are_judged(monkeypatch, method):
    model, seen = keras.Sequential([keras.Input((5,)), layers.Dense(3)]), []

    def checked(loss, weights, batches, **options):
        seen.append(options)
        return weights

    monkeypatch.setattr("prosper_utils.lookahead.conditioning.checked", checked)
    scores.prospr(model, small_batches(2), steps=1, method=method)
    assert [options["method"] for options in seen] == [method]
    assert seen[0]["double"] is not None


@pytest.mark.parametrize(
    "score", [scores.snip, functools.partial(scores.grasp, temperature=1.0)], ids=["snip", "grasp"]
)
def test_a_score_at_one_moment_names_a_weight_that_does_not_reach_the_loss(score):
    model, loss, batch = with_an_idle_layer()
    with pytest.raises(ValueError, match=r"depends on each of them .* none of idle/kernel"):
        score(model, [batch], loss=loss)


def test_only_where_gradients_are_differentiated_must_second_derivatives_be_right():
    model, batch = dense_with(right_once)
    same = dense_with("tanh")[0]
    for found, expected in zip(snip(model, [batch]), snip(same, [batch]), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-8)
    for score in (grasp, functools.partial(prospr, steps=0), functools.partial(prospr, steps=1)):
        score(same, [batch] * 2)
    for score in (grasp, functools.partial(prospr, steps=1)):
        with pytest.raises(ValueError, match="second derivatives"):
            score(model, [batch] * 2)


@pytest.mark.parametrize("first", ["a dense chain", "a convolution"])
def test_the_diagonal_is_that_of_a_loss_without_weights(first):
    links = [layers.Conv1D(3, 3, activation="relu")] * (first == "a convolution")
    links += [layers.Flatten(), layers.Dense(3)]
    model = keras.Sequential([keras.Input((8, 2)), *links])
    batch = np.ones((6, 8, 2), "float32"), np.arange(6) % 3
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for weights in ([1.0], [0.5]):
        with pytest.raises(ValueError, match=r"diagonal: expected .*, without loss weights"):
            scores.diagonal(model, [batch] * 2, steps=1, loss=loss, loss_weights=weights)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_looks_at_no_loss_has_the_float_type_of_the_kernels(dtype):
    model = dense_300_100(units=(4, 3), dtype=dtype)
    for score in (random, magnitude):
        assert {s.dtype.name for s in score(model)} == {dtype}


@pytest.mark.parametrize("name", ["random", "magnitude", "SynFlow"])
def test_what_looks_at_no_loss_takes_each_option_of_one_and_leaves_it_aside(tiny, name):
    """All scores are called alike: this is what those with a loss take."""
    model, _ = tiny
    of_loss = {"loss": "mse", "loss_weights": [2.0], "statistics": "moving", "dropout": True}
    of_loss |= {"dtype": "float32", "regularisation": False}
    rounds = {"rounds": 1} if name == "SynFlow" else {}
    score = functools.partial(SCORES[name], model, None, sparsity=0.5, **rounds)
    expected = score()
    for given in [{key: value} for key, value in of_loss.items()] + [of_loss]:
        for a, b in zip(score(**given), expected, strict=True):
            np.testing.assert_array_equal(a, b)
    for wrong in ("temperature", "momentum"):
        with pytest.raises(TypeError, match=rf"unexpected options \['{wrong}'\]"):
            score(**of_loss | {wrong: 1})


@pytest.fixture
def sweeps(monkeypatch):
    """Return what is called: whether it is judged, on how many batches, by which type, how."""
    seen = []

    def noted(which):
        def called(loss, weights, batches, *, double=None, scored=None, **options):
            seen.append((which, len(batches), double and double[0][0].dtype.name, options))
            return weights

        return called

    monkeypatch.setattr("prosper_utils.lookahead.conditioning.checked", noted("judged"))
    monkeypatch.setattr(scores, "meta_gradient", noted("as it is"))
    return seen


IMAGES = np.random.default_rng(0).normal(size=(3, 2, 28, 28, 1))
JUDGED = {"reverse": True, "checkpointed": True, "unrolled": False, "first_order": False}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("method", JUDGED)
def test_which_sweep_is_judged_and_by_which(sweeps, method, dtype):
    """A sweep back with steps is judged, by float64 unless it is in float64 itself."""
    model = dense_300_100(units=(3, 2), dtype=dtype)
    batches = [(x, np.arange(2)) for x in IMAGES]
    given = {"learning_rate": 0.3, "momentum": 0.5, "method": method}
    prospr(model, batches, sparsity=0.7, steps=2, **given)
    if JUDGED[method]:
        double = "float64" if dtype == "float32" else None
        assert sweeps == [("judged", 3, double, given | {"sparsity": 0.7})]
    else:
        assert sweeps == [("as it is", 3, None, given)]


def test_a_sweep_that_is_asked_for_in_float64_is_judged_by_no_other(sweeps):
    batches = [(x, np.arange(2)) for x in IMAGES]
    prospr(dense_300_100(units=(3, 2)), batches, steps=1, dtype="float64")
    ((which, count, double, _),) = sweeps
    assert (which, count, double) == ("judged", 2, None)


@pytest.mark.parametrize("method", JUDGED)
def test_without_steps_no_sweep_is_judged(sweeps, method):
    batches = [(x, np.arange(2)) for x in IMAGES]
    given = {"learning_rate": 0.3, "momentum": 0.5, "method": method}
    prospr(dense_300_100(units=(3, 2)), batches, sparsity=0.7, steps=0, **given)
    assert sweeps == [("as it is", 1, None, given)] * 3  # each of the three batches is a run


def test_iterative_snip_is_iterative_prospr_without_steps_whatever_it_is_given(monkeypatch):
    seen = []
    monkeypatch.setattr(scores, "iterative_prospr", lambda *args, **options: seen.append(options))
    of_loss = {"loss": "mse", "statistics": "moving", "dtype": "float64"}
    scores.iterative_snip("model", "batches", sparsity=0.6)
    scores.iterative_snip("model", "batches", sparsity=0.7, seed=4, rounds=2, **of_loss)
    assert seen == [
        {"sparsity": 0.6, "seed": 0, "rounds": 5, "steps": 0},
        {"sparsity": 0.7, "seed": 4, "rounds": 2, "steps": 0} | of_loss,
    ]


def test_labels_in_a_column_have_the_curvature_of_flat_ones():
    model = keras.Sequential([keras.Input((5,)), layers.Dense(4, "tanh"), layers.Dense(3)])
    x, y = np.random.default_rng(0).normal(size=(6, 5)), np.arange(6) % 3
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    flat, column = (
        scores.diagonal(model, [(x, labels)] * 2, steps=1, loss=loss, dtype="float64")
        for labels in (y, y[:, None])
    )
    assert relative_error(column, flat) < 1e-12
