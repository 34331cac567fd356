"""What works: every cell of the page is tried, and says today what is stored of it."""

import importlib.metadata
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import works

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


def test_a_wrong_result_is_no_outcome(monkeypatch):
    monkeypatch.setattr(works.scores, "snip", lambda model, batches: works.scores.magnitude(model))
    with pytest.raises(AssertionError, match="expected a relative error below"):
        works.outcome("layers", "Dense", "SNIP")


def test_zeros_that_fill_are_no_outcome(monkeypatch):
    monkeypatch.setattr(works.masks, "apply", lambda model, masks: None)
    with pytest.raises(AssertionError, match="kernel"):
        works.outcome("optimizers", "SGD", "as it comes")


def times(factor, function):
    return lambda *args, **kwargs: [factor * value for value in function(*args, **kwargs)]


SCORED = {"SNIP": "snip", "GraSP": "grasp", "ProsPr": "prospr", "SynFlow": "synflow"}
LOSS_ROW = "sparse cross-entropy, logits"


@pytest.mark.parametrize(("table", "row"), [("layers", "Dense"), ("losses", LOSS_ROW)])
@pytest.mark.parametrize("column", SCORED)
@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_a_score_of_another_size_is_no_outcome(monkeypatch, table, row, column, factor):
    """The meta-gradient that ProsPr is compared with is compared with differences itself."""
    if column in works.TABLES[table][1]:
        score = getattr(works.scores, SCORED[column])
        monkeypatch.setattr(works.scores, SCORED[column], times(factor, score))
        if table == "layers":
            monkeypatch.setattr(works, "meta_gradient", times(factor, works.meta_gradient))
        with pytest.raises(AssertionError):
            works.outcome(table, row, column)


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


def test_what_was_tried_is_stored_with_the_versions(tmp_path, monkeypatch):
    tables = {"mine": (["a", "b"], {"one": lambda row: None, "two": None})}
    cells = [("mine", row, column) for row in "ab" for column in ("one", "two")]
    monkeypatch.setattr(works, "TABLES", tables)
    monkeypatch.setattr(works, "CELLS", cells)
    monkeypatch.setattr(works, "STORED", tmp_path / "works.json")
    monkeypatch.setattr(works, "outcome", lambda *cell: " ".join(cell) * (cell[1] != "b"))
    works.main()
    found = works.stored()
    assert found["outcomes"] == {
        "mine": {"a": {"one": "mine a one", "two": "mine a two"}, "b": {"one": "", "two": ""}}
    }
    assert set(found["versions"]) == {"keras", "tensorflow", "numpy"}


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
