"""What works: every cell of the page is tried, and says today what is stored of it."""

import functools
import importlib.metadata
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import works
from conftest import ROOT

OUTCOMES = works.stored()["outcomes"]


@pytest.mark.parametrize("cell", works.CELLS, ids=" - ".join)
def test_a_cell_says_what_is_stored(cell):
    table, row, column = cell
    said = works.outcome(table, row, column)
    assert said == OUTCOMES[table][row][column], "the page is out of date: run `make works`"


def test_every_cell_is_stored_and_no_other():
    stored = [(t, r, c) for t, rows in OUTCOMES.items() for r, cells in rows.items() for c in cells]
    assert stored == works.CELLS


def test_the_versions_are_those_of_the_pins():
    versions = works.stored()["versions"]
    assert versions == {name: importlib.metadata.version(name) for name in versions}


def test_what_refuses_says_what_to_do_or_what_was_found():
    for _, rows in OUTCOMES.items():
        for row, cells in rows.items():
            for column, words in cells.items():
                refused = "expected " in words and "found " in words
                assert not words or refused or words.startswith("masks: "), (row, column, words)


def test_zeros_that_fill_are_no_outcome(monkeypatch):
    monkeypatch.setattr(works.masks, "apply", lambda model, masks: None)
    with pytest.raises(AssertionError, match="kernel"):
        works.outcome("optimizers", "SGD", "as it comes")


SCORED = {"SNIP": "snip", "GraSP": "grasp", "ProsPr": "prospr", "SynFlow": "synflow"}
LOSS_ROW = "sparse cross-entropy, logits"


@pytest.mark.parametrize("column", works.TABLES["losses"][1])
def test_another_loss_than_that_of_keras_is_no_outcome(monkeypatch, column):
    model, by_keras, batches = works.with_loss(LOSS_ROW)
    monkeypatch.setattr(
        works, "with_loss", lambda row: (model, lambda w, batch: 2 * by_keras(w, batch), batches)
    )
    with pytest.raises(AssertionError):
        works.outcome("losses", LOSS_ROW, column)


def test_a_negative_score_of_synflow_is_no_outcome(monkeypatch):
    synflow = works.scores.synflow

    def one_negative(model, **options):
        first, *rest = (np.array(score) for score in synflow(model, **options))
        first[0, 0] *= -1
        return [first, *rest]

    assert works.outcome("layers", "Dense", "SynFlow") == ""
    monkeypatch.setattr(works.scores, "synflow", one_negative)
    with pytest.raises(AssertionError, match="kernel"):
        works.outcome("layers", "Dense", "SynFlow")


def test_scores_that_are_no_numbers_are_no_outcome(monkeypatch):
    score = works.scores.snip
    monkeypatch.setattr(
        works.scores, "snip", lambda *given: [np.nan * value for value in score(*given)]
    )
    with pytest.raises(AssertionError, match="found nan"):
        works.outcome("layers", "Dense", "SNIP")


def test_only_an_error_of_a_value_refuses_and_only_a_word_on_masks_excuses(monkeypatch):
    def fails(error, said=None):
        def column(row):
            if said:
                warnings.warn(said, stacklevel=1)
            raise error("words")

        monkeypatch.setitem(works.TABLES, "mine", (["row"], {"column": column}))
        return works.outcome("mine", "row", "column")

    assert fails(ValueError) == "words"
    assert fails(AssertionError, "masks: none") == "masks: none"
    for error, said in ((TypeError, "masks: none"), (AssertionError, "some: masks: none")):
        with pytest.raises(error, match="words"):
            fails(error, said)


@pytest.mark.parametrize("column", ["use_ema", "ema_overwrite_frequency", "SwapEMAWeights"])
def test_where_averages_are_kept_they_would_fill_the_zeros(monkeypatch, column):
    monkeypatch.setattr(works.masks.optimizers, "average", lambda optimizer, variable: None)
    with pytest.raises(AssertionError, match="zeros filled"):
        works.outcome("optimizers", "SGD", column)
    assert works.outcome("optimizers", "SGD", "as it comes") == ""


def test_a_scaled_loss_is_scaled_and_weights_are_swapped(monkeypatch):
    used = []
    for owner, name in (
        (works.keras.optimizers.LossScaleOptimizer, "apply"),
        (works.keras.callbacks.SwapEMAWeights, "on_epoch_end"),
    ):
        call = getattr(owner, name)

        def noting(self, *args, call=call, name=name, **kwargs):
            used.append((name, getattr(self, "swap_on_epoch", None)))
            return call(self, *args, **kwargs)

        monkeypatch.setattr(owner, name, noting)
    expected = {
        "LossScaleOptimizer": ("apply", None),
        "SwapEMAWeights": ("on_epoch_end", True),
    }
    for column, use in expected.items():
        used.clear()
        assert works.outcome("optimizers", "SGD", column) == ""
        assert set(used) == {use}


def test_masks_that_are_lost_show_in_a_fit_after_loading(monkeypatch):
    def lost(model, folder):
        works.masks.strip(model)
        return model

    way = ".keras file"
    monkeypatch.setitem(works.WAYS, way, lost)
    with pytest.raises(AssertionError, match="zeros filled by a fit"):
        works.outcome("saving", "Sequential", way)


def test_weights_that_are_not_loaded_are_no_outcome(monkeypatch):
    monkeypatch.setattr(works.keras.Model, "load_weights", lambda self, path: None)
    with pytest.raises(AssertionError, match="zeros filled"):
        works.outcome("saving", "Sequential", "save_weights, load_weights")


def test_double_precision_ends_also_where_something_fails():
    config = works.keras.config
    before = config.floatx(), config.dtype_policy().name

    def double():
        with works.doubles():
            raise ValueError(f"{config.floatx()} {config.dtype_policy().name}")

    with pytest.raises(ValueError, match="float64 float64"):
        double()
    assert (config.floatx(), config.dtype_policy().name) == before


@pytest.mark.parametrize("row", ["Dense", "BatchNormalization", "a nested model"])
def test_a_network_has_biases_that_mean_something_and_the_same_each_time(row):
    model, again = works.network(row), works.network(row)
    for a, b in zip(model.trainable_variables, again.trainable_variables, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == "float64"
        assert len(np.unique(a)) == np.size(a)


MADE_OF = {
    "a layer with stop_gradient": works.Stopped,
    "a nested model": keras.Sequential,
    "a custom_gradient": works.L.Activation,
}


@pytest.mark.parametrize("row", works.LAYERS)
def test_a_network_has_what_its_row_says_on_the_way_to_its_classes(row):
    model = works.network(row)
    assert model.output_shape == (None, works.CLASSES)
    if row == "a shared layer":
        _, layer, out = model.layers
        x = np.ones((2, 5))
        np.testing.assert_array_equal(model(x), out(layer(layer(x))))
    else:
        kind = MADE_OF.get(row) or getattr(works.L, row.split(",")[0])
        assert any(type(layer) is kind for layer in model.layers)
    if row in ("Add", "Multiply", "Concatenate"):  # of two branches
        assert sum(type(layer) is works.L.Conv2D for layer in model.layers) == 2


def test_examples_have_labels_of_every_class_and_losses_one_number_each():
    batches = works.examples(works.network("Dense"), 9)
    assert {*np.concatenate([y for _, y in batches])} == {*range(works.CLASSES)}
    assert not np.array_equal(batches[0][0], batches[1][0])
    generator = np.random.default_rng(0)
    assert {*np.ravel([works.labels("class", generator) for _ in range(9)])} == {0, 1, 2}
    outputs = np.arange(6.0).reshape(2, 3)
    np.testing.assert_allclose(works.per_example(0 * outputs, outputs), [17 / 3, 962 / 3])


def test_a_model_of_a_class_of_ones_own_returns_logits():
    model, x = works.subclassed(), np.ones((2, 5), "float32")
    np.testing.assert_array_equal(model(x), model.out(model.hidden(x)))
    assert model.out.activation is keras.activations.linear


def test_a_layer_that_holds_a_part_of_its_gradient_back_lets_the_other_through():
    x = tf.constant([[1.0, 2.0, 3.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = works.Stopped()(x)
    np.testing.assert_allclose(y, x * 14 / 3)
    np.testing.assert_allclose(tape.gradient(y, x), [[14 / 3] * 3])


def test_only_the_rows_without_a_loss_are_not_compiled():
    for row, (_, loss, _) in works.LOSSES.items():
        assert works.with_loss(row)[0].compiled == (loss is not None)


@pytest.mark.parametrize("way", [".keras file", "ModelCheckpoint", "clone_model"])
def test_what_comes_back_is_another_model_with_the_same_weights(way, tmp_path):
    model = works.KINDS["Sequential"]()
    model.compile("adam", "sparse_categorical_crossentropy")
    loaded = works.WAYS[way](model, tmp_path)
    assert not {*map(id, loaded.weights)} & {*map(id, model.weights)}
    for found, expected in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_backup_is_gone_on_from(monkeypatch, tmp_path):
    model, epochs = works.KINDS["Sequential"](), []
    model.compile("adam", "sparse_categorical_crossentropy")
    fit = model.fit
    monkeypatch.setattr(model, "fit", lambda *a, **k: epochs.append(fit(*a, **k).epoch))
    assert works.by_backup(model, tmp_path) is model
    assert epochs == [[0], [1]]


# What a cell tries, row by row --------------------------------------------------------------------


def as_layers(made):
    """Return what a row makes as a model, in single precision."""
    return made if isinstance(made, keras.Model) else keras.Sequential(made)


def the(kind, model):
    """Return the one layer of a kind in a model."""
    (layer,) = (layer for layer in model.layers if type(layer) is kind)
    return layer


def test_a_row_of_layers_is_set_up_as_its_name_says():
    def layer(row, kind):
        return the(kind, as_layers(works.LAYERS[row]()))

    assert layer("Conv2D, groups", works.L.Conv2D).groups > 1
    assert layer("Conv2D, strides", works.L.Conv2D).strides == (2, 2)
    plain = layer("Conv2D", works.L.Conv2D)
    assert (plain.groups, plain.strides) == (1, (1, 1))
    for row, renorm in (("BatchNormalization", False), ("BatchNormalization, renorm", True)):
        assert layer(row, works.L.BatchNormalization).renorm is renorm
    assert layer("GroupNormalization", works.L.GroupNormalization).groups > 1
    assert layer("a custom_gradient", works.L.Activation).activation is works.straight


def test_what_is_around_a_layer_is_around_one_that_is_pruned():
    for row, inner, kind in (
        ("Bidirectional", "forward_layer", works.L.LSTM),
        ("TimeDistributed", "layer", works.L.Dense),
        ("SpectralNormalization", "layer", works.L.Conv2D),
    ):
        around = the(getattr(works.L, row), as_layers(works.LAYERS[row]()))
        assert type(getattr(around, inner)) is kind
    nested = the(keras.Sequential, works.LAYERS["a nested model"]())
    assert type(nested.layers[0]) is works.L.Dense


@pytest.mark.parametrize("row", works.RANDOM)
def test_what_is_compared_with_inference_is_random_while_it_trains(row):
    model = works.network(row)
    ((x, _),) = works.examples(model, 1)
    for training in (True, False):
        one, other = (model(x, training=training) for _ in range(2))
        assert np.any(one != other) == training


def test_both_branches_see_the_images_and_attention_mixes_a_series_with_itself():
    model, x = (
        works.graph(works.L.Concatenate()),
        np.random.default_rng(0).normal(size=(2, 6, 6, 4)),
    )
    _, a, b, _, _, out = model.layers
    pooled = np.concatenate([np.mean(branch(x), (1, 2)) for branch in (a, b)], -1)
    np.testing.assert_allclose(model(x), out(pooled), rtol=1e-4, atol=1e-6)
    model, x = works.attention(), x[:, 0, :5]
    _, mix, _, out = model.layers
    np.testing.assert_allclose(model(x), out(np.mean(mix(x, x), 1)), rtol=1e-4, atol=1e-6)


def test_a_straight_through_sign_hands_the_gradient_on_as_it_is():
    x = tf.constant([-2.0, 0.5])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = works.straight(x)
    np.testing.assert_array_equal(y, [-1, 1])
    np.testing.assert_array_equal(tape.gradient(y, x, tf.constant([3.0, -5.0])), [3, -5])


def test_classes_of_ones_own_are_registered_under_the_name_of_the_page():
    for kind in (works.Stopped, works.Subclassed):
        name = f"prosper_utils_works>{kind.__name__}"
        assert keras.saving.get_registered_object(name) is kind


@pytest.mark.parametrize("row", ["Dense", "BatchNormalization", "Bidirectional"])
def test_a_network_is_in_double_precision_and_a_tenth_away_from_its_first_weights(row):
    keras.utils.set_random_seed(1)
    with works.doubles():
        first = as_layers(works.LAYERS[row]())
    model, generator = works.network(row), np.random.default_rng(2)
    assert {v.dtype for v in model.trainable_variables} == {"float64"}
    assert model.compute_dtype == "float64"
    for found, start in zip(model.trainable_variables, first.trainable_variables, strict=True):
        expected = start + 0.1 * generator.normal(size=start.shape)
        np.testing.assert_allclose(found, expected, rtol=1e-14)
    for found, start in zip(
        model.non_trainable_variables, first.non_trainable_variables, strict=True
    ):
        if "seed" not in found.path:
            np.testing.assert_array_equal(found, start)


@pytest.mark.parametrize(
    ("row", "shape"), [("Dense", (8, 5)), ("Conv2D", (8, 6, 6, 4)), ("Embedding", (8, 5))]
)
def test_examples_fit_the_model_and_are_the_same_each_time(row, shape):
    generator, model = np.random.default_rng(3), as_layers(works.LAYERS[row]())
    batches = works.examples(model, 3)
    assert len(batches) == 3
    for x, y in batches:
        drawn = generator.integers(0, 7, shape) if row == "Embedding" else None
        expected = generator.normal(size=shape) if drawn is None else drawn
        np.testing.assert_array_equal(x, expected)
        np.testing.assert_array_equal(y, generator.integers(0, 3, 8))


def test_examples_fit_a_model_of_a_class_of_ones_own():
    ((x, y),) = works.examples(works.subclassed(), 1)
    assert (x.shape, y.shape) == ((8, 5), (8,))


def entropy(y, z):
    """Return the mean cross-entropy of logits."""
    z = np.asarray(z)
    return np.mean(np.log(np.exp(z).sum(-1)) - z[np.arange(len(y)), y])


@pytest.mark.parametrize("training", [True, False])
def test_the_loss_by_keras_is_the_cross_entropy_of_logits_in_the_mode_asked_for(training):
    model = works.network("BatchNormalization")
    (batch,) = works.examples(model, 1)
    loss, gradient = works.by_keras(model, training)
    weights = [tf.identity(v) for v in model.trainable_variables]
    value = loss(weights, batch)
    assert value.dtype == "float64"
    assert float(value) == pytest.approx(entropy(batch[1], model(batch[0], training=training)))
    moved = [tf.identity(w) for w in weights]
    moved[-1] += tf.constant([1e-6, 0, 0], "float64")
    slope = (float(loss(moved, batch)) - float(value)) / 1e-6
    slopes = gradient(weights, batch)
    assert [g.shape for g in slopes] == [w.shape for w in weights]
    assert float(slopes[-1][0]) == pytest.approx(slope, rel=1e-4)


def test_a_weight_that_the_loss_does_not_reach_has_a_gradient_of_zero():
    held = works.vector(works.L.Dense(4), works.L.Lambda(tf.stop_gradient))
    model = as_layers(held)
    _, gradient = works.by_keras(model, True)
    weights = [tf.identity(v) for v in model.trainable_variables]
    slopes = gradient(weights, (np.ones((2, 5)), np.arange(2)))
    assert [bool(np.any(slope)) for slope in slopes] == [False, False, True, True]


def test_two_lists_are_close_relative_to_all_entries_of_the_second():
    a, b = [[3.0], [[4.0]]], [[3.0], [[0.0]]]
    works.close(a, b, 1.34)
    with pytest.raises(AssertionError, match=r"below 1\.33, found 1\.333"):
        works.close(a, b, 1.33)
    works.close(b, a, 0.81)
    with pytest.raises(AssertionError, match=r"below 0\.8, found 0\.8"):
        works.close(b, a, 0.8)


# How closely it looks ----------------------------------------------------------------------------

SLIGHTLY = {"SNIP": 1 + 1e-9, "GraSP": 1 + 1e-4, "ProsPr": 1 + 1e-8, "SynFlow": 1 + 1e-8}


def with_one_off(monkeypatch, column, place, factor):
    """Let a score return one of its tensors times a factor."""
    score = getattr(works.scores, SCORED[column])

    def off(*args, **options):
        found = [*score(*args, **options)]
        found[place] = factor * found[place]
        return found

    monkeypatch.setattr(works.scores, SCORED[column], off)


@pytest.mark.parametrize("place", [0, -1])
@pytest.mark.parametrize(
    ("table", "column"),
    [*(("layers", c) for c in SCORED), *(("losses", c) for c in SCORED if c != "SynFlow")],
)
def test_a_score_that_is_a_little_off_for_one_kernel_is_no_outcome(
    monkeypatch, table, column, place
):
    """What SynFlow gives the other kernels than the last is only seen not to be negative."""
    with_one_off(monkeypatch, column, place, SLIGHTLY[column])
    row = "Dense" if table == "layers" else LOSS_ROW
    if (column, place) == ("SynFlow", 0):
        assert works.outcome(table, row, column) == ""
    else:
        with pytest.raises(AssertionError):
            works.outcome(table, row, column)


@pytest.mark.parametrize("place", [1, 2])
def test_a_meta_gradient_that_is_a_little_off_is_no_outcome(monkeypatch, place):
    """Also where the score is off by as much, and for biases, which have no score."""
    for owner, name in ((works, "meta_gradient"), (works.scores, "meta_gradient")):
        gradient = getattr(owner, name)

        def off(*args, gradient=gradient, **options):
            found = [*gradient(*args, **options)]
            found[place] = (1 + 1e-2) * found[place]
            return found

        monkeypatch.setattr(owner, name, off)
    with pytest.raises(AssertionError):
        works.outcome("layers", "Dense", "ProsPr")


def noted(monkeypatch, owner, name):
    """Return a list to which each call of a function adds what it was given."""
    call, given = getattr(owner, name), []

    def noting(*args, **options):
        given.append((args, options))
        return call(*args, **options)

    monkeypatch.setattr(owner, name, noting)
    return given


ASKED = {  # of each score: how many batches, and with which options
    "SNIP": (1, {}),
    "GraSP": (1, {"temperature": 1.0}),
    "ProsPr": (3, {"steps": 2, "learning_rate": 0.1}),
    "SynFlow": (None, {"sparsity": 0.0, "rounds": 1}),
}
BOUNDS = {"layers": {"SNIP": 1e-10, "GraSP": 1e-5, "ProsPr": 1e-12}}
BOUNDS["losses"] = {"SNIP": 1e-10, "GraSP": 1e-10, "ProsPr": 1e-10}


@pytest.mark.parametrize(
    ("table", "row", "column"),
    [
        *(("layers", "Dropout", column) for column in SCORED),
        *(("losses", LOSS_ROW, column) for column in SCORED if column != "SynFlow"),
    ],
)
def test_a_score_is_asked_for_once_and_held_to_its_bound(monkeypatch, table, row, column):
    asked = noted(monkeypatch, works.scores, SCORED[column])
    compared = noted(monkeypatch, works, "close")
    modes = noted(monkeypatch, works, "by_keras")
    assert works.outcome(table, row, column) == ""
    (((_, *batches), options),) = asked
    count, expected = ASKED[column]
    assert options == expected
    assert [len(given) for given in batches] == ([] if count is None else [count])
    bounds = [bound for (*_, bound), _ in compared]
    assert bounds == ([] if column == "SynFlow" else [BOUNDS[table][column]])
    if table == "layers" and column != "SynFlow":  # dropout is off in scores
        assert [training for (_, training), _ in modes] == [False]


@pytest.mark.parametrize("column", ["SNIP", "GraSP", "ProsPr"])
def test_what_is_not_random_is_compared_with_training(monkeypatch, column):
    modes = noted(monkeypatch, works, "by_keras")
    works.outcome("layers", "Dense", column)
    assert [training for (_, training), _ in modes] == [True]


def test_a_sum_over_all_paths_that_is_a_little_off_is_no_outcome(monkeypatch):
    flow = works.flow
    monkeypatch.setattr(works, "flow", lambda m: lambda ks: (1 - 1e-8) * flow(m)(ks))
    with pytest.raises(AssertionError):
        works.outcome("layers", "Dense", "SynFlow")


def test_a_loss_that_is_a_little_off_in_value_alone_is_no_outcome(monkeypatch):
    as_loss = works.as_loss

    def off(model):
        weights, loss = as_loss(model)
        return weights, lambda *given: loss(*given) + 1e-10

    monkeypatch.setattr(works, "as_loss", off)
    with pytest.raises(AssertionError):
        works.outcome("losses", LOSS_ROW, "SNIP")


# Losses, by their formulas -----------------------------------------------------------------------


def softmax(z):
    return np.exp(z) / np.exp(z).sum(-1, keepdims=True)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def picked(y, z):
    return -np.log(softmax(z)[np.arange(8), np.ravel(y)])


def crossed(y, p):
    return -(y * np.log(p)).sum(-1)


def bernoulli(y, z):
    return -np.where(y == 1, np.log(sigmoid(z)), np.log(1 - sigmoid(z)))


def huber(e):
    return np.where(abs(e) <= 1, e**2 / 2, abs(e) - 0.5)


def unit(a):
    return a / np.linalg.norm(a, axis=-1, keepdims=True)


SOFTPLUS_EPSILON = 1e-7  # Keras adds it to what it takes the logarithm of
FORMULAS = {  # of labels and of what the last layer gives before its activation; then its mean
    "none (sparse cross-entropy of logits)": picked,
    "sparse cross-entropy, logits": picked,
    "sparse cross-entropy, softmax": picked,
    "labels of shape (n, 1)": picked,
    "cross-entropy, one-hot, logits": lambda y, z: crossed(y, softmax(z)),
    "cross-entropy, label smoothing": lambda y, z: crossed(0.9 * y + 0.1 / 3, softmax(z)),
    "focal cross-entropy": lambda y, z: 0.25 * crossed(y * (1 - softmax(z)) ** 2, softmax(z)),
    "binary cross-entropy, sigmoid": bernoulli,
    "binary cross-entropy, logits": bernoulli,
    "mean squared error": lambda y, z: (y - z) ** 2,
    "mean absolute error": lambda y, z: abs(y - z),
    "Huber": lambda y, z: huber(y - z),
    "log-cosh": lambda y, z: np.log(np.cosh(y - z)),
    "Poisson": lambda y, z: (p := np.log1p(np.exp(z))) - y * np.log(p + SOFTPLUS_EPSILON),
    "Kullback-Leibler": lambda y, z: crossed(y, softmax(z)),  # the entropy of one-hot is 0
    "cosine similarity": lambda y, z: -(unit(y) * unit(z)).sum(-1),
    "squared hinge": lambda y, z: np.maximum(1 - y * z, 0) ** 2,
    "a function of one's own": lambda y, z: (y - z) ** 4,
    "softmax without a loss": None,  # the page has no outcome of these three but a refusal
    "from_logits=True on a softmax": None,
    "from_logits=False on logits": None,
}


def test_every_loss_is_its_formula_on_labels_of_its_kind():
    assert [*works.LOSSES] == [*FORMULAS]
    for row, formula in FORMULAS.items():
        if formula is None:
            continue
        model, by_keras, batches = works.with_loss(row)
        weights = [tf.identity(v) for v in model.trainable_variables]
        w, b, v, c = (weight.numpy() for weight in weights)
        for x, y in batches:
            value, z = by_keras(weights, (x, y)), np.tanh(x @ w + b) @ v + c
            assert (value.dtype, value.shape) == ("float64", ()), row
            assert float(value) == pytest.approx(np.mean(formula(y, z)), rel=1e-5), row


SHAPES = {"class": (8,), "column": (8, 1), "one-hot": (8, 3), "real": (8, 3), "binary": (8, 1)}
SHAPES |= {"signs": (8, 3), "counts": (8, 3)}
KIND_OF = {
    "labels of shape (n, 1)": "column",
    "cross-entropy, one-hot, logits": "one-hot",
    "cross-entropy, label smoothing": "one-hot",
    "focal cross-entropy": "one-hot",
    "Kullback-Leibler": "one-hot",
    "binary cross-entropy, sigmoid": "binary",
    "binary cross-entropy, logits": "binary",
    "squared hinge": "signs",
    "Poisson": "counts",
    **dict.fromkeys(["mean squared error", "mean absolute error", "Huber", "log-cosh"], "real"),
    **dict.fromkeys(["cosine similarity", "a function of one's own"], "real"),
}
ENDS_IN = {  # the activation of the last layer, if it has one
    **dict.fromkeys(["sparse cross-entropy, softmax", "labels of shape (n, 1)"], "softmax"),
    **dict.fromkeys(["cross-entropy, label smoothing", "focal cross-entropy"], "softmax"),
    **dict.fromkeys(["Kullback-Leibler", "softmax without a loss"], "softmax"),
    "from_logits=True on a softmax": "softmax",
    "binary cross-entropy, sigmoid": "sigmoid",
    "Poisson": "softplus",
}


@pytest.mark.parametrize("row", works.LOSSES)
def test_a_row_of_losses_has_its_network_its_labels_and_its_compiled_loss(row):
    model, _, batches = works.with_loss(row)
    kind, end = KIND_OF.get(row, "class"), ENDS_IN.get(row, "linear")
    assert model.layers[-1].activation is keras.activations.get(end)
    assert model.output_shape == (None, 1 if kind == "binary" else 3)
    assert [(x.shape, y.shape) for x, y in batches] == [((8, 5), SHAPES[kind])] * 3
    generator = np.random.default_rng(3)
    for x, y in batches:
        np.testing.assert_array_equal(x, generator.normal(size=(8, 5)))
        np.testing.assert_array_equal(y, works.labels(kind, generator))
    again, *_ = works.with_loss(row)
    for found, expected in zip(again.weights, model.weights, strict=True):
        assert found.dtype == "float64"
        np.testing.assert_array_equal(found, expected)
    if model.compiled:
        given = works.LOSSES[row][1]()
        if isinstance(given, keras.losses.Loss):
            assert model.loss.get_config() == given.get_config()
        else:
            assert model.loss == given


def test_a_loss_that_is_refused_is_compiled_as_its_row_says():
    for row, logits in (
        ("from_logits=True on a softmax", True),
        ("from_logits=False on logits", False),
    ):
        loss = works.with_loss(row)[0].loss
        assert type(loss) is keras.losses.SparseCategoricalCrossentropy
        assert loss.get_config()["from_logits"] is logits


LABELS = {"class": {0, 1, 2}, "column": {0, 1, 2}, "one-hot": {0, 1}, "binary": {0, 1}}
LABELS |= {"signs": {-1, 1}, "counts": {0, 1, 2, 3, 4}}


@pytest.mark.parametrize("kind", SHAPES)
def test_labels_of_a_kind_have_its_shape_and_its_values(kind):
    generator = np.random.default_rng(0)
    drawn = np.array([works.labels(kind, generator) for _ in range(40)])
    assert drawn.shape == (40, *SHAPES[kind])
    if kind == "real":
        assert abs(drawn.mean()) < 0.1
        assert drawn.std() == pytest.approx(1, abs=0.1)
    else:
        assert {*drawn.ravel()} == LABELS[kind]
    if kind == "one-hot":
        np.testing.assert_array_equal(drawn.sum(-1), np.ones((40, 8)))


# Training ----------------------------------------------------------------------------------------


@pytest.fixture
def untraced():
    """Run what would be traced as it stands, which is faster for a step or two."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def eagerly(test):
    """Let a test run untraced; that what prepares the examples is traced is no matter."""
    quiet = pytest.mark.filterwarnings("ignore:Even though the")
    return pytest.mark.usefixtures("untraced")(quiet(test))


def after_fits(monkeypatch, change):
    """Let `change(model)` happen at the end of every fit; return how often, and with what, it was.

    Of each fit: the model, the shapes of the examples, and the options but `verbose`.
    """
    fit, fits = keras.Model.fit, []

    def changing(self, x, y, **options):
        fits.append((self, np.shape(x), np.shape(y), options))
        assert options.pop("verbose") == 0
        ended = fit(self, x, y, verbose=0, **options)
        change(self)
        return ended

    monkeypatch.setattr(keras.Model, "fit", changing)
    return fits


def filled(place):
    """Return a function that fills the zeros of one kernel of a model."""

    def fill(model):
        kernel = works.kernels(model)[place]
        kernel.assign(np.where(kernel, kernel, 1.0))

    return fill


def emptied(model):
    """Set all kernels to zero."""
    for kernel in works.kernels(model):
        kernel.assign(np.zeros(kernel.shape))


TRAINED = [("layers", "Dense", "mask and fit"), ("optimizers", "SGD", "as it comes")]
TRAINED += [("saving", "Sequential", "save_weights, load_weights")]


@pytest.mark.parametrize("place", [0, -1])
@pytest.mark.parametrize("cell", TRAINED)
@eagerly
def test_zeros_of_any_kernel_that_fill_in_a_fit_are_no_outcome(monkeypatch, cell, place):
    after_fits(monkeypatch, filled(place))
    with pytest.raises(AssertionError, match="kernel" if place else "dense"):
        works.outcome(*cell)


@pytest.mark.parametrize("cell", TRAINED[1:])
@eagerly
def test_a_network_of_which_nothing_is_left_is_no_outcome(monkeypatch, cell):
    after_fits(monkeypatch, emptied)
    with pytest.raises(AssertionError):
        works.outcome(*cell)


@pytest.mark.parametrize("cell", TRAINED[:2])
@eagerly
def test_a_fit_in_which_nothing_moves_is_no_outcome(monkeypatch, cell):
    monkeypatch.setattr(keras.Model, "fit", lambda self, *given, **options: None)
    with pytest.raises(AssertionError):
        works.outcome(*cell)


@eagerly
def test_a_row_of_layers_is_pruned_to_a_half_by_magnitude_and_fitted(monkeypatch):
    scored = noted(monkeypatch, works.scores, "magnitude")
    cut, applied = (noted(monkeypatch, works.masks, name) for name in ("top_k", "apply"))
    fits = after_fits(monkeypatch, lambda model: None)
    for _ in range(2):
        works.mask_works("Dense")
    for place in range(2):
        ((model, *shapes_and_options),) = fits[place : place + 1]
        assert shapes_and_options == [(8, 5), (8,), {"epochs": 2}]
        assert scored[place] == ((model,), {})
        assert cut[place][0][1:] == (0.5,)
        assert applied[place][0][0] is model
        assert type(model.optimizer) is keras.optimizers.Adam
        assert type(model.loss) is keras.losses.SparseCategoricalCrossentropy
        assert model.loss.get_config()["from_logits"] is True
        zeros = sum(np.count_nonzero(k.numpy() == 0) for k in works.kernels(model))
        assert zeros == (5 * 6 + 6 * 3) // 2
    for a, b in zip(fits[0][0].get_weights(), fits[1][0].get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)  # it is the same every time


@eagerly
def test_an_optimizer_trains_a_network_pruned_at_random_with_what_it_is_given(monkeypatch):
    compiled = noted(monkeypatch, keras.Model, "compile")
    cut = noted(monkeypatch, works.masks, "top_k")
    fits = after_fits(monkeypatch, lambda model: None)
    callback, order = keras.callbacks.Callback(), []
    callback.on_epoch_end = lambda epoch, logs=None: order.append(epoch)
    for _ in range(2):
        optimizer = keras.optimizers.SGD(0.5)
        works.trained(optimizer, (callback,), metrics=["accuracy"])
        (model, given, loss), options = compiled[-1]
        assert given is optimizer
        assert (type(loss), loss.get_config()["from_logits"]) == (
            keras.losses.SparseCategoricalCrossentropy,
            True,
        )
        assert options == {"metrics": ["accuracy"]}
        assert fits[-1] == (
            model,
            (32, 5),
            (32,),
            {"batch_size": 8, "epochs": 2, "callbacks": [callback]},
        )
        assert [k for _, k in (args for args, _ in cut)] == [0.5] * len(cut)
        weights = np.concatenate([np.ravel(k) for k in works.kernels(model)])
        assert np.mean(weights == 0) == 0.5
    assert order == [0, 1, 0, 1]
    for a, b in zip(fits[0][0].get_weights(), fits[1][0].get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


AVERAGED = {  # use_ema, ema_overwrite_frequency, whether the weights are swapped, and scaled
    "as it comes": (False, None, False, False),
    "use_ema": (True, None, False, False),
    "ema_overwrite_frequency": (True, 3, False, False),
    "SwapEMAWeights": (True, None, True, False),
    "LossScaleOptimizer": (False, None, False, True),
}


def test_a_column_of_optimizers_trains_each_with_its_way_to_average(monkeypatch):
    given = []

    def trained(optimizer, callbacks=(), **compiled):
        given.append((optimizer, [*callbacks], compiled))

    monkeypatch.setattr(works, "trained", trained)
    assert [*works.TABLES["optimizers"][1]] == [*AVERAGED]
    for column, (ema, frequency, swapped, scaled) in AVERAGED.items():
        for name in works.OPTIMIZERS:
            assert works.outcome("optimizers", name, column) == ""
            optimizer, callbacks, compiled = given.pop()
            assert not given
            assert compiled == {}
            assert (type(optimizer) is keras.optimizers.LossScaleOptimizer) == scaled
            inner = optimizer.inner_optimizer if scaled else optimizer
            assert type(inner) is getattr(keras.optimizers, name)
            assert (inner.use_ema, inner.ema_overwrite_frequency) == (ema, frequency)
            assert inner.get_config() == type(inner)().get_config() | {
                "name": inner.name,
                "use_ema": ema,
                "ema_overwrite_frequency": frequency,
            }
            swaps = [(type(c), c.swap_on_epoch) for c in callbacks]
            assert swaps == [(keras.callbacks.SwapEMAWeights, True)] * swapped


# Saving ------------------------------------------------------------------------------------------


def test_every_kind_of_model_that_is_saved_is_what_it_is_called():
    models = {kind: make() for kind, make in works.KINDS.items()}
    assert all(model.built for model in models.values())
    made_of = {
        "Sequential": [],
        "convolution and normalisation": [works.L.Conv2D, works.L.BatchNormalization],
        "nested model": [keras.Sequential],
        "shared layer": [],
        "subclassed model": [],
        "MultiHeadAttention": [works.L.MultiHeadAttention],
        "Bidirectional LSTM": [works.L.Bidirectional],
        "TimeDistributed": [works.L.TimeDistributed],
    }
    assert [*models] == [*made_of]
    for kind, layers in made_of.items():
        assert {*layers} <= {type(layer) for layer in models[kind].layers}, kind
    assert type(models["Sequential"]) is keras.Sequential
    assert type(models["subclassed model"]) is works.Subclassed
    both_ways = the(works.L.Bidirectional, models["Bidirectional LSTM"])
    assert type(both_ways.forward_layer) is works.L.LSTM
    _, layer, out = models["shared layer"].layers
    x = np.ones((2, 5), "float32")
    np.testing.assert_array_equal(models["shared layer"](x), out(layer(layer(x))))


def small():
    """Return a small compiled model."""
    model = works.KINDS["Sequential"]()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


@eagerly
def test_each_way_of_saving_writes_what_its_name_says(monkeypatch, tmp_path):
    files = {
        ".keras file": {"model.keras"},
        "ModelCheckpoint": {"model.keras"},
        "save_weights, load_weights": {"model.weights.h5"},
        "clone_model": set(),
    }
    fits = after_fits(monkeypatch, lambda model: None)
    for n, (way, written) in enumerate(files.items()):
        folder, model = tmp_path / str(n), small()
        folder.mkdir()
        loaded = works.WAYS[way](model, folder)
        assert {path.name for path in folder.iterdir()} == written
        assert (loaded is model) == (way == "save_weights, load_weights")
    (fitted,) = fits  # by the callback alone
    assert fitted[1:3] == ((8, 5), (8,))
    (saves,) = fitted[3].pop("callbacks")
    assert type(saves) is keras.callbacks.ModelCheckpoint
    assert (saves.monitor, fitted[3]) == ("loss", {})
    assert [*works.WAYS] == [*files, "BackupAndRestore"]


def test_every_weight_is_disturbed_before_the_weights_are_loaded(monkeypatch, tmp_path):
    model, load, seen = small(), keras.Model.load_weights, []
    before = model.get_weights()

    def loading(self, path):
        seen.extend(self.get_weights())
        return load(self, path)

    monkeypatch.setattr(keras.Model, "load_weights", loading)
    assert works.by_weights(model, tmp_path) is model
    for start, disturbed, found in zip(before, seen, model.get_weights(), strict=True):
        np.testing.assert_allclose(disturbed, start + 1, rtol=1e-6)
        np.testing.assert_array_equal(found, start)


@pytest.mark.parametrize("kind", ["Sequential", "subclassed model"])
@eagerly
def test_a_clone_is_compiled_to_be_fitted_again(kind, tmp_path):
    model = works.KINDS[kind]()
    clone = works.by_clone(model, tmp_path)
    assert type(clone) is type(model)
    assert type(clone.optimizer) is keras.optimizers.Adam
    assert clone.loss.get_config()["from_logits"] is True
    for found, expected in zip(clone.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


@eagerly
def test_a_backup_is_kept_between_two_fits_of_the_same_examples(monkeypatch, tmp_path):
    fits = after_fits(monkeypatch, lambda model: None)
    model = small()
    assert works.by_backup(model, tmp_path) is model
    assert [given[:3] for given in fits] == [(model, (8, 5), (8,))] * 2
    options = [given[3] for given in fits]
    backups = [callback for given in options for callback in given.pop("callbacks")]
    assert options == [{}, {"epochs": 2}]
    assert [type(backup) for backup in backups] == [keras.callbacks.BackupAndRestore] * 2
    assert not any(backup.delete_checkpoint for backup in backups)
    assert any(tmp_path.iterdir())


@eagerly
def test_a_model_is_fitted_saved_and_fitted_again(monkeypatch):
    """By a way of ours that returns another model; its folder is there, and is gone in the end."""
    done, folders = [], []
    other = small()

    def way(model, folder):
        assert [*folder.iterdir()] == []
        folders.append(folder)
        done.append(("saved", model))
        assert type(model.optimizer) is keras.optimizers.Adam
        assert model.loss.get_config()["from_logits"] is True
        other.set_weights(model.get_weights())
        works.masks.apply(other, [k.numpy() != 0 for k in works.kernels(model)])
        return other

    monkeypatch.setitem(works.WAYS, ".keras file", way)
    cut = noted(monkeypatch, works.masks, "top_k")
    fits = after_fits(monkeypatch, lambda model: done.append(("fitted", model)))
    states = []
    for _ in range(2):
        assert works.outcome("saving", "Sequential", ".keras file") == ""
        first = fits[-2][0]
        assert done == [("fitted", first), ("saved", first), ("fitted", other)]
        assert [given[1:] for given in fits[-2:]] == [
            ((8, 5), (8,), {}),
            ((8, 5), (8,), {"epochs": 2}),
        ]
        assert cut[-1][0][1:] == (0.5,)
        zeros = sum(np.count_nonzero(k.numpy() == 0) for k in works.kernels(other))
        assert zeros == (5 * 6 + 6 * 3) // 2
        states.append(first.get_weights())
        done.clear()
    assert not any(folder.exists() for folder in folders)
    for a, b in zip(*states, strict=True):  # the same every time
        np.testing.assert_allclose(a, b, rtol=1e-5)


@eagerly
def test_zeros_that_come_back_filled_are_seen_before_they_are_fitted(monkeypatch):
    """A fit would set them to zero again, since the masks are still there."""
    for place in (0, -1):

        def way(model, folder, place=place):
            filled(place)(model)
            return model

        monkeypatch.setitem(works.WAYS, ".keras file", way)
        with pytest.raises(AssertionError, match=r"zeros filled$"):
            works.saving_works(".keras file", "Sequential")


# All tables --------------------------------------------------------------------------------------


@eagerly
def test_every_column_of_saving_saves_in_the_way_of_its_heading(monkeypatch):
    def refused(way, model, folder):
        raise ValueError(f"{way} of {type(model).__name__}")

    for way in works.WAYS:
        monkeypatch.setitem(works.WAYS, way, functools.partial(refused, way))
    for way in works.TABLES["saving"][1]:
        assert works.outcome("saving", "subclassed model", way) == f"{way} of Subclassed"


def test_names_begin_anew_with_every_cell_and_warnings_are_heard_each_time(monkeypatch):
    cleared = noted(monkeypatch, keras.utils, "clear_session")

    def column(row):
        for words in ("others", "masks of others", "masks: first", "masks: second"):
            warnings.warn(words, stacklevel=1)
        assert row == "good"

    monkeypatch.setitem(works.TABLES, "mine", (["good", "bad"], {"column": column}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            assert works.outcome("mine", "bad", "column") == "masks: first"
            assert works.outcome("mine", "good", "column") == ""
    assert cleared == [((), {"free_memory": False})] * 4


def test_outcomes_are_stored_whole_as_lines_that_people_can_read(monkeypatch, tmp_path):
    assert works.STORED.resolve() == ROOT / "book" / "works.json"
    cells = [("mine", row, column) for row in "ab" for column in ("one", "two")]
    written, watched = [], []
    monkeypatch.setattr(works, "TABLES", {"mine": (["a", "b"], {"one": None, "two": None})})
    monkeypatch.setattr(works, "CELLS", cells)
    monkeypatch.setattr(
        works, "outcome", lambda table, row, column: {"a": "α", "b": "β"}[row] * (column == "two")
    )
    monkeypatch.setattr(works, "progress", lambda *given: watched.append(given) or given[0])
    monkeypatch.setattr(works.importlib.metadata, "version", lambda name: f"version of {name}")
    monkeypatch.setattr(works.results, "replace", lambda *given: written.append(given))
    monkeypatch.setattr(works, "STORED", tmp_path / "works.json")
    works.main()
    assert watched == [(cells, "trying", "cell")]
    assert written == [
        (
            works.STORED,
            """{
 "versions": {
  "keras": "version of keras",
  "tensorflow": "version of tensorflow",
  "numpy": "version of numpy"
 },
 "outcomes": {
  "mine": {
   "a": {
    "one": "",
    "two": "α"
   },
   "b": {
    "one": "",
    "two": "β"
   }
  }
 }
}
""",
        )
    ]
