"""Deployment: the files compute what the model does, are as small as is said, and leave it alone.

No time is asserted anywhere.
"""

import contextlib
import functools
import pathlib
import re
import sys
import types
import warnings
import zlib

from prosper_utils.pruning import channels, deploy, masks, units
from prosper_utils.pruning.networks import dense_300_100, kernels, lenet5, resnet8

import keras
import numpy as np
import pytest
import tensorflow as tf

layers = keras.layers
LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
REFUSED = "expected a LiteRT file that .* loads, found one it refuses"


def pruned(model, sparsity):
    sizes = [np.abs(kernel) for kernel in kernels(model)]
    masks.apply(model, masks.top_k(sizes, sparsity, per_layer=True))
    return model


def stripped():
    model = pruned(lenet5("relu"), 0.9)
    masks.strip(model)
    return model


def shrunken():
    model = with_statistics(resnet8(shape=(12, 12, 3)))
    groups = channels.groups(model)
    return units.shrink(model, [bool(g.fixed) or i % 2 == 0 for i, g in enumerate(groups)])


def with_statistics(model):
    """Return a network with random scales, shifts and statistics."""
    generator = np.random.default_rng(1)
    for variable in model.weights:
        if "norm" in variable.path:
            variable.assign(generator.uniform(0.5, 1.5, variable.shape))
    return model


CASES = {
    "dense": dense_300_100,
    "lenet5": lenet5,
    "resnet8": lambda: with_statistics(resnet8(shape=(12, 12, 3))),
    "stripped": stripped,
    "shrunken": shrunken,
}


def inputs(model, count=40):
    shape = (count, *model.inputs[0].shape[1:])
    return np.random.default_rng(2).random(shape).astype("float32")


@functools.cache
def held(case):
    """Return a model and its files, with both ways of 8-bit integers; made once."""
    model = CASES[case]()
    return model, deploy.files(model, representative=inputs(model))


def content(found, form="LiteRT"):
    (only,) = found[form].values()
    return only


def total(found, form):
    return sum(map(len, found[form].values()))


def error(found, expected):
    """Return the largest difference, in units of how far outputs differ between inputs."""
    spread = np.std(expected, axis=0)
    assert np.min(spread) > 0
    return np.max(np.abs(found - expected) / spread)


# What a file computes ---------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["LiteRT", "LiteRT sparse"])
@pytest.mark.parametrize("case", CASES)
def test_a_file_computes_what_the_model_does(case, form):
    model, found = held(case)
    x = inputs(model)
    expected = model(x, training=False).numpy()
    for batch in (1, 16, 40):  # 16 leaves a smaller last one
        outputs = deploy.predict(content(found, form), x, batch=batch)
        assert outputs.dtype == np.float32
        assert error(outputs, expected) < 1e-4
    assert deploy.agreement(model, content(found, form), x, batch=16) == (40, 40)


def test_no_more_inputs_are_run_at_a_time_than_is_said(monkeypatch):
    sizes = []
    monkeypatch.setattr(
        deploy, "runner", lambda content, threads: lambda x: sizes.append(len(x)) or x
    )
    x = np.ones((600, 2))
    for options, expected in (({"batch": 250}, [250, 250, 100]), ({}, [256, 256, 88])):
        sizes.clear()
        np.testing.assert_array_equal(deploy.predict(None, x, **options), x)
        assert sizes == expected


def test_predictions_are_counted_where_each_place_has_a_class():
    links = [keras.layers.Conv1D(3, 2, name="conv")]
    model = keras.Sequential([keras.Input((5, 2)), *links])
    x = np.random.default_rng(0).normal(size=(6, 5, 2)).astype("float32")
    assert deploy.agreement(model, deploy.lite(model), x) == (24, 24)


class Augmented(keras.Model):
    """A model of a class of its own, whose `call` hears nothing of training."""

    def __init__(self):
        super().__init__(name="augmented")
        self.parts = [*augmenting(), layers.Dense(3)]

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x


def augmenting():
    return layers.RandomTranslation(0.3, 0.3), layers.RandomBrightness(0.5), layers.Flatten()


def augmented(kind):
    if kind == "a class":
        model = Augmented()
        model(np.zeros((1, 6, 6, 3), "float32"))
        return model
    chain = keras.Sequential([keras.Input((6, 6, 3)), *augmenting(), layers.Dense(3)])
    chain.trainable = kind != "frozen"
    return keras.Sequential([keras.Input((6, 6, 3)), chain]) if kind == "nested" else chain


@pytest.mark.parametrize("kind", ["a chain", "frozen", "nested", "a class"])
def test_augmentation_is_for_training_and_not_in_a_file(kind, tmp_path):
    """Keras' own `export` leaves it in, and predictions of the file are random."""
    model, x = augmented(kind), np.random.default_rng(3).random((8, 6, 6, 3), np.float32)
    found = deploy.files(model, ["SavedModel", "LiteRT"])
    written(found["SavedModel"], tmp_path / "saved")
    saved = tf.saved_model.load(tmp_path / "saved")
    expected = model(x, training=False).numpy()
    assert np.allclose(saved.serve(x), expected, atol=1e-6)
    assert np.allclose(deploy.predict(content(found), x), expected, atol=1e-5)
    assert error(model(x, training=True).numpy(), expected) > 0.1


@pytest.mark.parametrize("form", ["LiteRT dynamic int8", "LiteRT int8"])
@pytest.mark.parametrize("case", ["dense", "lenet5", "resnet8"])
def test_integers_are_near(case, form):
    model, found = held(case)
    x = inputs(model)
    expected = model(x, training=False).numpy()
    outputs = deploy.predict(content(found, form), x)
    assert 1e-4 < np.max(np.abs(outputs - expected)) < 0.1 * np.max(np.abs(expected))


def test_integers_can_be_all_wrong_and_agreement_says_so():
    model = pruned(lenet5("tanh"), 0.98)  # tanh of small sums: a step of 1/128 is too coarse
    x = inputs(model)
    full = deploy.lite(model, quantised="full", representative=x)
    agree, count = deploy.agreement(model, full, x)
    assert count == 40
    assert agree < 20


def test_agreement_counts_what_agrees():
    model, found = held("dense")
    x = inputs(model)
    expected = np.argmax(model(x), axis=-1)
    model_2 = dense_300_100(seed=1)
    other = np.argmax(model_2(x), axis=-1)
    same = int(np.sum(expected == other))
    assert deploy.agreement(model_2, content(found), x) == (same, 40)
    assert same < 40


def test_a_runner_follows_the_batch():
    model, found = held("shrunken")
    run = deploy.runner(content(found), threads=2)
    x = inputs(model)
    for count in (1, 1, 7, 40, 1):
        assert error(run(x[:count]), model(x).numpy()[:count]) < 1e-4 if count > 1 else True
        np.testing.assert_allclose(run(x[:count]), model(x[:count]), rtol=1e-3, atol=1e-4)


def test_integers_as_inputs_any_size_and_a_class_of_its_own():
    start = [keras.Input((5,), dtype="int32"), layers.Embedding(9, 4)]
    tokens = keras.Sequential([*start, layers.Flatten(), layers.Dense(3)])
    x = np.random.default_rng(0).integers(0, 9, (6, 5))
    made = deploy.lite(tokens)
    np.testing.assert_allclose(deploy.predict(made, x), tokens(x), atol=1e-6)
    with pytest.raises(ValueError, match=r"x: expected int32 of shape \(-1, 5\), found float64"):
        deploy.predict(made, x + 0.5)
    anywhere = keras.Sequential(
        [keras.Input((None, None, 3)), layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()]
    )
    x = np.random.default_rng(0).random((2, 9, 7, 3), "float32")
    np.testing.assert_allclose(deploy.predict(deploy.lite(anywhere), x), anywhere(x), atol=1e-6)
    start = [keras.Input((None,), dtype="int32"), layers.Embedding(9, 4), layers.Conv1D(3, 5)]
    ever = keras.Sequential([*start, layers.GlobalAveragePooling1D()])
    x = np.random.default_rng(0).integers(0, 9, (2, 7))
    np.testing.assert_allclose(deploy.predict(deploy.lite(ever), x), ever(x), atol=1e-6)
    tall = keras.Sequential([keras.Input((None, 8, 3)), layers.Cropping2D(3), layers.Conv2D(4, 2)])
    x = np.random.default_rng(0).random((2, 12, 8, 3), "float32")  # one of height 1 is not cropped
    np.testing.assert_allclose(deploy.predict(deploy.lite(tall), x), tall(x), atol=1e-6)

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3)

        def call(self, x):
            return self.dense(x)

    own = Own()
    x = np.random.default_rng(0).random((4, 2), "float32")
    own(x)
    np.testing.assert_allclose(deploy.predict(deploy.lite(own), x), own(x), atol=1e-6)
    assert deploy.lite(own, quantised="full", representative=x)


# How large a file is ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_sparsity():
    """Return {sparsity: (weights left, sizes)} of one dense network, its masks on."""
    found, forms = {}, ["LiteRT", "LiteRT sparse", ".keras"]
    for sparsity, some in ((0.0, forms), (0.3, forms[:2]), (0.96, forms[1:2]), (0.98, forms)):
        model = pruned(dense_300_100(), sparsity)
        left = sum(int(tf.math.count_nonzero(kernel)) for kernel in kernels(model))
        found[sparsity] = left, deploy.sizes(model, some)
    return found


def test_zeros_count_as_much_as_other_numbers_until_compressed(by_sparsity):
    whole, most = by_sparsity[0.0][1], by_sparsity[0.98][1]
    for form in (".keras", "LiteRT"):
        assert abs(most[form]["bytes"] / whole[form]["bytes"] - 1) < 0.01
        assert most[form]["zipped"] < whole[form]["zipped"] / 10
    assert most["LiteRT"]["bytes"] / 266_610 == pytest.approx(4, rel=0.01)
    assert whole["LiteRT sparse"]["bytes"] == whole["LiteRT"]["bytes"]
    assert most["LiteRT sparse"]["bytes"] < most["LiteRT"]["bytes"] / 10


def test_the_sparse_encoding_takes_what_the_docstring_says(by_sparsity):
    sparse = {s: found["LiteRT sparse"]["bytes"] for s, (_, found) in by_sparsity.items()}
    left = by_sparsity[0.96][0]
    assert 6 * left < sparse[0.96] < 6 * left + 6000
    assert sparse[0.98] == pytest.approx(4.5 * 266_200 * (1 - 0.98**4), 0.05)  # blocks of four
    assert sparse[0.98] > sparse[0.96]
    assert sparse[0.3] > by_sparsity[0.3][1]["LiteRT"]["bytes"]


def test_a_size_is_that_of_a_zip_with_all_files_in_it(monkeypatch):
    """Of each a header of 30 bytes and one of 46, both with its name, and 22 bytes at the end."""
    numbers = np.random.default_rng(0).integers(0, 2, 30_000).astype("uint8").tobytes()
    contents, asked = {"some/numbers": numbers, "zeros": bytes(5000)}, []

    def files(model, forms, *, representative):
        asked.append((model, forms, representative))
        return {"one": contents, "other": {"empty": b""}}

    def deflated(content):
        made = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        return len(made.compress(content) + made.flush())

    monkeypatch.setattr(deploy, "files", files)
    zipped = sum(76 + 2 * len(name) + deflated(text) for name, text in contents.items()) + 22
    assert deploy.sizes("model", ["one"], representative="inputs") == {
        "one": {"bytes": 35_000, "zipped": zipped},
        "other": {"bytes": 0, "zipped": 76 + 10 + 2 + 22},
    }
    assert asked == [("model", ["one"], "inputs")]


def test_integers_take_about_a_quarter():
    for case in ("dense", "lenet5"):
        found = held(case)[1]
        for form in ("LiteRT dynamic int8", "LiteRT int8"):
            assert total(found, "LiteRT") / 4.5 < total(found, form) < total(found, "LiteRT") / 3.4


def test_a_shrunken_network_is_smaller_in_every_form():
    large, small = held("resnet8")[1], held("shrunken")[1]
    assert set(large) == set(deploy.FORMS) - {"LiteRT sparse int8"}
    for form in large:
        assert total(small, form) < 0.6 * total(large, form)


# The files themselves ---------------------------------------------------------------------------


def written(contents, folder):
    for name, text in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text)


def fitted():
    """Return a masked network, in training, of which a layer with a mask is frozen."""
    keras.utils.clear_session(free_memory=False)  # names have a count, and files hold names
    model = pruned(dense_300_100("relu", units=(30, 20)), 0.8)
    model.layers[2].trainable = False
    model.compile(keras.optimizers.Adam(0.01), LOGITS, metrics=["accuracy"], jit_compile=False)
    model.fit(inputs(model), np.arange(40) % 10, verbose=0)
    return model


def state(model):
    values = [v.numpy() for v in [*model.weights, *model.optimizer.variables]]
    objects = [v.constraint for v in model.weights]
    objects += [la.kernel_constraint for la in model.layers if hasattr(la, "kernel_constraint")]
    objects += [model.optimizer, model.train_function, model.compiled, model.loss]
    return values, objects


def test_the_files_load_elsewhere_and_the_model_is_as_it_was(tmp_path):
    model = fitted()
    (values, objects), names = state(model), set(vars(model))
    found = deploy.files(model, [".keras", "SavedModel", "LiteRT"])
    now, the_same = state(model)
    assert all(np.array_equal(a, b) for a, b in zip(values, now, strict=True))
    assert all(a is b for a, b in zip(objects, the_same, strict=True))
    assert isinstance(objects[0], masks.Mask)
    assert set(vars(model)) == names

    x = inputs(model)
    written(found[".keras"], tmp_path)
    loaded = keras.models.load_model(tmp_path / "lenet_300_100.keras")
    assert all(v.constraint is None for v in loaded.weights)
    assert not loaded.compiled
    assert np.array_equal(loaded(x), model(x))
    written(found["SavedModel"], tmp_path / "saved")
    assert np.allclose(tf.saved_model.load(tmp_path / "saved").serve(x), model(x), atol=1e-6)

    model.fit(x, np.arange(40) % 10, verbose=0)
    assert masks.outside(model) == []
    assert int(model.optimizer.iterations) == 4


def test_sizes_are_those_of_the_files_without_what_is_for_training():
    model = fitted()
    found = deploy.sizes(model, [".keras"])
    keras.utils.clear_session(free_memory=False)
    plain = deploy.sizes(dense_300_100("relu", units=(30, 20)), [".keras"])
    assert found.keys() == plain.keys() == {".keras"}
    difference = found[".keras"]["bytes"] - plain[".keras"]["bytes"]
    assert difference == len("false") - len("true")  # "trainable"; no mask, no optimizer
    assert found[".keras"]["zipped"] < plain[".keras"]["zipped"]
    assert all(type(number) is int for number in found[".keras"].values())


def test_a_model_that_is_not_saved_is_as_it_was(monkeypatch):
    model = fitted()
    before = state(model)[1]
    monkeypatch.setattr(keras.Model, "save", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        deploy.files(model, [".keras"])
    assert all(a is b for a, b in zip(before, state(model)[1], strict=True))


def test_a_frozen_model_loses_its_masks_too():
    model = fitted()
    masks.strip(model)
    assert all(v.constraint is None for v in model.weights)
    assert model.layers[2].kernel_constraint is None


def test_a_model_that_was_never_compiled_is_as_it_was():
    model = dense_300_100(units=(4, 4))
    before = dict(vars(model))
    deploy.files(model, [".keras"])
    assert vars(model).keys() == before.keys()
    for name in ("compiled", "train_function"):
        assert vars(model).get(name) is before.get(name)
    assert not model.compiled
    assert getattr(model, "optimizer", None) is None


def test_all_is_as_it_was_where_a_model_is_not_exported(monkeypatch):
    model, logger, call = dense_300_100(units=(4, 4)), tf.get_logger(), keras.Layer.__call__
    before, folders = logger.level, []

    def fails(self, folder, *, verbose):
        folders.append(pathlib.Path(folder))
        assert folders[0].is_dir()
        raise ZeroDivisionError

    monkeypatch.setattr(keras.Model, "export", fails)
    try:
        logger.setLevel(17)
        with pytest.raises(ZeroDivisionError):
            deploy.lite(model)
        assert logger.level == 17
    finally:
        logger.setLevel(before)
    assert keras.Layer.__call__ is call
    assert not folders[0].exists()


# What the converter is told ---------------------------------------------------------------------


@pytest.fixture
def converter(monkeypatch, tmp_path):
    """Return what stands in for TensorFlow's converter, and a folder with two files for a model."""
    made = types.SimpleNamespace(target_spec=types.SimpleNamespace(), convert=lambda: b"made")
    monkeypatch.setattr(
        tf.lite.TFLiteConverter,
        "from_saved_model",
        lambda folder: vars(made).setdefault("folder", folder) and made,
    )
    written({"z.pb": b"1", "variables/a.index": b"22"}, tmp_path)
    monkeypatch.setattr(deploy, "_saved", lambda model: contextlib.nullcontext(tmp_path))
    monkeypatch.setattr(deploy, "_try", lambda content: made.tried.append(content))
    made.tried = []
    return made


KINDS = tf.lite.Optimize


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, []),
        ({"sparse": True}, [KINDS.EXPERIMENTAL_SPARSITY]),
        ({"quantised": "dynamic"}, [KINDS.DEFAULT]),
        ({"quantised": "full"}, [KINDS.DEFAULT]),
        ({"quantised": "full", "sparse": True}, [KINDS.EXPERIMENTAL_SPARSITY, KINDS.DEFAULT]),
    ],
)
def test_the_converter_is_told_what_is_asked_for(converter, tmp_path, options, expected):
    full = options.get("quantised") == "full"
    x = np.arange(3 * 784).reshape(3, 28, 28, 1)
    if full:
        options = options | {"representative": x}
    assert deploy.lite(dense_300_100(units=(2, 2)), **options) == b"made"
    assert converter.folder == str(tmp_path)
    assert converter.optimizations == expected
    assert converter.tried == [b"made"]
    integers = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]}
    assert vars(converter.target_spec) == (integers if full else {})
    assert hasattr(converter, "representative_dataset") == full
    for _ in range(2 * full):  # it may be asked for more than once
        found = list(converter.representative_dataset())
        assert [(len(given), given[0].dtype, given[0].shape) for given in found] == [
            (1, np.float32, (1, 28, 28, 1))
        ] * 3
        np.testing.assert_array_equal(np.concatenate([given for (given,) in found]), x)


def test_representative_words_are_integers(converter):
    links = [keras.Input((3,), dtype="int32"), layers.Embedding(5, 2), layers.Flatten()]
    words = keras.Sequential([*links, layers.Dense(2)])
    deploy.lite(words, quantised="full", representative=np.ones((2, 3)))
    assert [x.dtype for (x,) in converter.representative_dataset()] == [np.int32] * 2


def test_every_form_has_its_files_under_their_names(converter, monkeypatch):
    model, told = dense_300_100(units=(2, 2)), []

    def converted(given, folder, sparse=False, quantised=None, representative=None):
        told.append((given is model, sparse, quantised, representative is X))
        return b"%d" % len(told)

    monkeypatch.setattr(deploy, "_keras_file", lambda given: b"whole" * (given is model))
    monkeypatch.setattr(deploy, "_converted", converted)
    expected = {
        "LiteRT sparse int8": {"lenet_300_100.tflite": b"1"},
        "LiteRT int8": {"lenet_300_100.tflite": b"2"},
        "SavedModel": {"variables/a.index": b"22", "z.pb": b"1"},
        "LiteRT dynamic int8": {"lenet_300_100.tflite": b"3"},
        ".keras": {"lenet_300_100.keras": b"whole"},
        "LiteRT sparse": {"lenet_300_100.tflite": b"4"},
        "LiteRT": {"lenet_300_100.tflite": b"5"},
    }
    found = deploy.files(model, list(expected), representative=X)
    assert list(found.items()) == list(expected.items())
    assert list(found["SavedModel"]) == ["variables/a.index", "z.pb"]
    assert [row[:3] for row in told] == [
        (True, True, "full"),
        (True, False, "full"),
        (True, False, "dynamic"),
        (True, True, None),
        (True, False, None),
    ]
    assert [row[3] for row in told[:2]] == [True, True]
    assert list(deploy.files(model)) == [
        *(".keras", "SavedModel", "LiteRT", "LiteRT sparse", "LiteRT dynamic int8"),
    ]
    assert list(deploy.files(model, representative=X)) == [
        *(".keras", "SavedModel", "LiteRT", "LiteRT sparse", "LiteRT dynamic int8", "LiteRT int8"),
    ]


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("'tf.Two' and 'tf.One', again 'tf.Two', and 'other.Op'", "tf.One, tf.Two"),
        ("it is\n  broken " + "x" * 400, "it is broken " + "x" * 287),
    ],
)
def test_what_the_converter_says_is_said_in_short(converter, said, found):
    class ConverterError(Exception):
        pass

    def convert():
        raise ConverterError(said)

    converter.convert = convert
    with pytest.raises(ValueError, match=f", on types that it has, found {found}$") as raised:
        deploy.lite(dense_300_100(units=(2, 2)))
    assert isinstance(raised.value.__cause__, ConverterError)


# The runtime ------------------------------------------------------------------------------------


def converted(model, folder, **settings):
    """Return a LiteRT file straight from TensorFlow's converter."""
    model.export(folder, verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    for name, value in settings.items():
        setattr(converter, name, value)
    return converter.convert()


def test_sparse_with_dynamic_does_not_load_and_is_refused(tmp_path):
    model, found = held("stripped")
    with pytest.raises(ValueError, match=r"sparse: expected False with quantised='dynamic'"):
        deploy.lite(model, sparse=True, quantised="dynamic")
    both = [KINDS.DEFAULT, KINDS.EXPERIMENTAL_SPARSITY]
    with pytest.raises(ValueError, match=REFUSED):
        deploy.interpreter(converted(model, tmp_path, optimizations=both))
    for form in ("LiteRT dynamic int8", "LiteRT sparse"):
        deploy.interpreter(content(found, form))


def test_sparse_with_full_is_made_where_it_loads():
    model, found = held("stripped")
    x = inputs(model)
    try:
        made = deploy.files(model, ["LiteRT sparse int8"], representative=x)
    except ValueError as error:
        if deploy.runtime() is tf.lite.Interpreter or not re.search(REFUSED, str(error)):
            raise
        return  # ai-edge-litert 2.3 does not load every such file
    both = content(made, "LiteRT sparse int8")
    assert len(both) < min(total(found, "LiteRT int8"), total(found, "LiteRT sparse"))
    full = deploy.predict(content(found, "LiteRT int8"), x)
    assert np.array_equal(deploy.predict(both, x), full)


def test_nothing_is_printed_and_nothing_warned(capfd):
    model = dense_300_100(units=(8, 8))
    x = inputs(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "__array__")  # Keras, when it saves a model
        deploy.table({"a": model}, x, representative=x, batches=[2], repeats=1)
    assert capfd.readouterr() == ("", "")


def test_the_small_runtime_is_taken_where_it_is_installed(monkeypatch):
    file, made = deploy.lite(dense_300_100(units=(2, 2))), []

    class Interpreter(deploy.runtime()):
        def __init__(self, **options):
            made.append(options)
            super().__init__(**options)

    package = types.ModuleType("ai_edge_litert")
    package.interpreter = types.ModuleType("ai_edge_litert.interpreter")
    package.interpreter.Interpreter = Interpreter
    monkeypatch.setitem(sys.modules, "ai_edge_litert", package)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", package.interpreter)
    assert deploy.runtime() is Interpreter
    assert isinstance(deploy.interpreter(file, threads=2), Interpreter)
    assert made == [{"model_content": file, "num_threads": 2}]
    del package.interpreter.Interpreter  # it is there, but cannot be loaded
    assert deploy.runtime() is tf.lite.Interpreter
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    assert deploy.runtime() is tf.lite.Interpreter


def test_what_refuses_a_file_is_named(monkeypatch):
    def refuses(**options):
        raise TypeError("no file")

    refuses.__module__ = "some_runtime.interpreter"
    monkeypatch.setattr(deploy, "runtime", lambda: refuses)
    expected = "content: expected a LiteRT file that some_runtime loads, found one it refuses: no f"
    with pytest.raises(ValueError, match=expected) as raised:
        deploy.interpreter(b"")
    assert isinstance(raised.value.__cause__, TypeError)


@pytest.mark.parametrize("what", ["input", "output"])
def test_one_input_and_one_output_in_floats_are_expected(what):
    a, b, c = (
        {"name": name, "quantization_parameters": {"scales": np.zeros(count)}}
        for name, count in (("a", 0), ("b", 0), ("c", 1))
    )
    assert deploy._only(what, [a]) is a
    with pytest.raises(ValueError, match=f"content: expected one {what}, found 2: a, b$"):
        deploy._only(what, [a, b])
    with pytest.raises(ValueError, match=f"content: expected one {what}, found 0"):
        deploy._only(what, [])
    with pytest.raises(ValueError, match=f"expected an {what} in floats, found one that is quant"):
        deploy._only(what, [c])


# Times and the table ----------------------------------------------------------------------------


def test_functions_take_turns_and_the_first_call_of_each_turn_does_not_count():
    calls = []
    functions = {n: lambda x, n=n: calls.append((n, x)) or x for n in "ab"}
    found = deploy.latency(functions, 5, repeats=2, number=2)
    assert calls == [(n, 5) for n in "aaabbbaaabbb"]
    assert list(found) == ["a", "b"]
    for time in found.values():
        assert list(time) == ["low", "median", "high"]
        assert 0 < time["low"] <= time["median"] <= time["high"]


def test_median_and_quartiles(monkeypatch):
    times = iter([4, 10, 1, 20, 2, 30, 3, 40, 0, 50])
    monkeypatch.setattr(deploy, "_seconds", lambda *_: next(times))
    found = deploy.latency({"a": np.sin, "b": np.cos}, 1.0, repeats=5)
    assert found["a"] == {"low": 1, "median": 2, "high": 3}
    assert found["b"] == {"low": 20, "median": 30, "high": 40}


def test_a_measurement_is_the_mean_of_its_calls(monkeypatch):
    class Timer:
        def __init__(self, call):
            self.call = call

        def timeit(self, number):
            return sum(2.0 for _ in range(number) if self.call() is not None)

    calls = []
    monkeypatch.setattr(deploy.timeit, "Timer", Timer)
    assert deploy._seconds(lambda x: calls.append(x) or x, 5.0, 3) == 2.0
    assert calls == [5.0] * 3


@pytest.mark.parametrize("batch", [1, 3, 4, 11, 12, 13])
def test_batches_have_every_input_once_and_in_order(batch):
    sizes, x = [], np.arange(24.0).reshape(12, 2)
    found = deploy._in_batches(lambda part: sizes.append(len(part)) or 2 * part, x, batch)
    np.testing.assert_array_equal(found, 2 * x)
    assert sizes == [batch] * (12 // batch) + [12 % batch] * (12 % batch > 0)


def test_threads_are_handed_on(monkeypatch):
    given = []
    monkeypatch.setattr(
        deploy, "runner", lambda content, *, threads=1: given.append(threads) or np.negative
    )
    deploy.predict(b"", np.ones((2, 2)), threads=3)
    deploy._run(None, "LiteRT", {"a.tflite": b""}, 4)
    assert given == [3, 4]


def test_agreement_takes_as_many_inputs_at_a_time_as_is_said(monkeypatch):
    sizes, x = {"file": [], "model": []}, np.eye(2)[[0, 1, 1, 0, 1]]

    def taken(name):
        return lambda part, **options: sizes[name].append((len(part), options)) or part

    monkeypatch.setattr(deploy, "runner", lambda content, *, threads: taken("file"))
    assert deploy.agreement(taken("model"), b"", x, batch=2) == (5, 5)
    assert sizes["file"] == [(2, {}), (2, {}), (1, {})]
    assert sizes["model"] == [(n, {"training": False}) for n in (2, 2, 1)]


def test_each_form_is_run_as_it_would_be(monkeypatch):
    model = dense_300_100(units=(4, 4))
    given = []
    monkeypatch.setattr(
        deploy, "runner", lambda content, *, threads: given.append((content, threads)) or "run"
    )
    plain, compiled = (deploy._run(model, form, {}, 3) for form in (".keras", "SavedModel"))
    assert not hasattr(plain, "get_concrete_function")
    assert hasattr(compiled, "get_concrete_function")
    x = inputs(model, 2)
    np.testing.assert_array_equal(plain(x), model(x))
    np.testing.assert_allclose(compiled(x), model(x), atol=1e-6)
    assert deploy._run(model, "LiteRT sparse", {"a.tflite": b"made"}, 3) == "run"
    assert given == [(b"made", 3)]


def test_times_and_ratios_by_hand():
    times = {2: {"low": 1.0, "median": 2.0, "high": 3.0}, 8: {"high": 6, "low": 4, "median": 5}}
    expected = {"low_2": 1, "seconds_2": 2, "high_2": 3, "low_8": 4, "seconds_8": 5, "high_8": 6}
    assert deploy._flat(times) == expected
    columns = ("form", "bytes", "zipped", "seconds_2", "seconds_8")
    numbers = [("a", 8, 6, 4, 3), ("b", 1, 1, 1, 1), ("a", 4, 2, 16, 3), ("a", 2, 12, 1, 6)]
    rows = [dict(zip(columns, row, strict=True)) for row in numbers]
    deploy._compare(rows, [2, 8])
    ratios = ("smaller", "smaller_zipped", "faster_2", "faster_8")
    assert [tuple(row[ratio] for ratio in ratios) for row in rows] == [
        *((1, 1, 1, 1), (1, 1, 1, 1), (2, 3, 0.25, 1), (4, 0.5, 4, 0.5)),
    ]


def test_a_text_of_two_rows_by_hand():
    names = ["model", "form", "bytes", "smaller", "zipped", "smaller_zipped"]
    names += [f"{key}_{b}" for b in (1, 256) for key in ("seconds", "low", "high", "faster")]
    names += ["agree", "accuracy"]
    dense = ["dense", ".keras", 1_234_567, 1.0, 1_000, 1.0]
    dense += [0.0123456, 0.01, 0.02, 1.0, 1.5, 1.25, 2.0, 1.0, 1.0, 0.98764]
    small = ["s", "LiteRT", 49, 25.25, 40_000, 0.04]
    small += [0.0001, 0.00005, 0.0002, 123.456, 0.25, 0.125, 0.5, 6.0, 0.5, 0.1]
    rows = [dict(zip(names, row, strict=True)) for row in (dense, small)]
    assert deploy.as_text(rows).splitlines() == [
        "model  form         kB  smaller  zipped  smaller  ms for 1  (quartiles)  faster  "
        "ms for 256       (quartiles)  faster    agree  accuracy",
        "dense  .keras  1,234.6     1.0x     1.0     1.0x      12.3      (10-20)    1.0x  "
        "   1.5e+03  (1.25e+03-2e+03)    1.0x  100.00%    98.76%",
        "s      LiteRT      0.0    25.2x    40.0     0.0x       0.1   (0.05-0.2)  123.5x  "
        "       250         (125-500)    6.0x   50.00%    10.00%",
    ]


def test_a_table_of_three_models():
    dense = dense_300_100(units=(60, 40))
    groups = channels.groups(dense)
    small = units.shrink(dense, [bool(g.fixed) or i % 4 == 0 for i, g in enumerate(groups)])
    models = {"dense": dense, "masked": pruned(keras.models.clone_model(dense), 0.9)}
    models["shrunken"] = small
    x = inputs(dense, 6)
    labels = np.argmax(dense(x), axis=-1)
    forms = [".keras", "SavedModel", "LiteRT"]
    rows, text = deploy.table(models, x, labels, forms=forms, batches=(1, 8), repeats=2)
    assert [row["model"] for row in rows] == [n for n in models for _ in forms]
    assert [row["form"] for row in rows] == forms * 3
    for i, row in enumerate(rows):
        first = rows[i % len(forms)]
        assert row["smaller"] == first["bytes"] / row["bytes"]
        assert row["smaller_zipped"] == first["zipped"] / row["zipped"]
        for b in (1, 8):
            assert row[f"faster_{b}"] == first[f"seconds_{b}"] / row[f"seconds_{b}"]
            assert 0 < row[f"low_{b}"] <= row[f"seconds_{b}"] <= row[f"high_{b}"]
        expected = np.argmax(models[row["model"]](x), axis=-1)
        assert row["agree"] == 1
        assert row["accuracy"] == np.mean(expected == labels)
    assert min(row["smaller"] for row in rows if row["model"] == "shrunken") > 1.2
    assert min(row["smaller_zipped"] for row in rows if row["model"] == "masked") > 1.2
    assert text == deploy.as_text(rows)
    lines = text.splitlines()
    assert len(lines) == 1 + len(rows)
    assert lines[0].split()[:3] == ["model", "form", "kB"]
    assert lines[0].endswith("accuracy")
    for row, line in zip(rows, lines[1:], strict=True):
        assert line.startswith(row["model"])
        assert f"{row['bytes'] / 1000:,.1f}" in line
        assert f"{1000 * row['seconds_8']:.3g}" in line
        assert f"{row['agree']:.2%}" in line


def test_a_row_as_text_by_hand():
    row = {"model": "small", "form": ".keras", "bytes": 12_340, "smaller": 2.0}
    row |= {"zipped": 5_600, "smaller_zipped": 3.0, "agree": 0.75}
    row |= {"seconds_8": 0.004, "low_8": 0.003, "high_8": 0.0065, "faster_8": 5.5}
    head, line = deploy.as_text([row]).splitlines()
    said = "model form kB smaller zipped smaller ms for 8 (quartiles) faster agree"
    assert " ".join(head.split()) == said
    assert " ".join(line.split()) == "small .keras 12.3 2.0x 5.6 3.0x 4 (3-6.5) 5.5x 75.00%"


def test_a_table_times_whole_batches_as_often_and_with_as_many_threads_as_is_said(monkeypatch):
    """Where there are fewer inputs than a batch takes, they come again."""
    asked, given, runner = [], [], deploy.runner

    def latency(functions, x, *, repeats):
        asked.append((x, repeats))
        return {name: dict.fromkeys(("low", "median", "high"), 1.0) for name in functions}

    monkeypatch.setattr(deploy, "latency", latency)
    monkeypatch.setattr(
        deploy, "runner", lambda made, *, threads=1: given.append(threads) or runner(made)
    )
    model = dense_300_100(units=(4, 4))
    x = inputs(model, 3)
    options = {"forms": ["LiteRT"], "batches": [2, 7], "repeats": 5, "threads": 2}
    deploy.table({"a": model}, x, **options)
    assert [repeats for _, repeats in asked] == [5, 5]
    np.testing.assert_array_equal(asked[0][0], x[:2])
    np.testing.assert_array_equal(asked[1][0], x[[0, 1, 2, 0, 1, 2, 0]])
    assert given[-1] == 2  # those before only try the file


def test_a_table_says_of_every_file_how_often_it_agrees(monkeypatch):
    """With the model that it was made of, in Keras."""
    models = {name: dense_300_100(units=(8, 8), seed=seed) for seed, name in enumerate("ab")}
    x = inputs(models["a"])
    classes = {name: np.argmax(model(x), axis=-1) for name, model in models.items()}
    wrong = (classes["b"] + np.eye(1, 40, 3, dtype=int)[0]) % 10  # the fourth one
    run = deploy._run

    def altered(model, form, contents, threads):
        if model is models["b"] and form == "LiteRT":
            return lambda x: np.eye(10)[wrong[: len(x)]]
        return run(model, form, contents, threads)

    monkeypatch.setattr(deploy, "_run", altered)
    forms = [".keras", "LiteRT"]
    rows, _ = deploy.table(models, x, classes["b"], forms=forms, batches=[1], repeats=1)
    assert [row["agree"] for row in rows] == [1, 1, 1, 39 / 40]
    same = np.mean(classes["a"] == classes["b"])
    assert [row["accuracy"] for row in rows] == [same, same, 1, 39 / 40]


def test_a_table_without_labels_and_with_chosen_forms():
    model = dense_300_100(units=(8, 8))
    rows, text = deploy.table({"a": model}, inputs(model), forms=["LiteRT"], batches=[3], repeats=1)
    (row,) = rows
    assert "accuracy" not in row
    assert "accuracy" not in text
    assert {key for key in row if key.startswith("seconds")} == {"seconds_3"}


# Bad input --------------------------------------------------------------------------------------


def several(outputs):
    a, b = (keras.Input((2,), name=name) for name in "ab")
    if outputs:
        return keras.Model(a, [layers.Dense(1, name="c")(a), layers.Dense(1, name="d")(a)])
    return keras.Model([a, b], layers.Dense(1)(layers.Add()([a, b])))


MODELS = {
    "not a model": (lambda: layers.Dense(3), "expected a Keras model, found Dense"),
    "not built": (
        lambda: keras.Sequential([layers.Dense(3)], name="new"),
        "model 'new': expected a built model, found one without weights",
    ),
    "inputs": (lambda: several(False), "expected one of its inputs, found a, b"),
    "outputs": (lambda: several(True), "expected one of its outputs, found"),
    "double": (
        lambda: dense_300_100(units=(2, 2), dtype="float64"),
        "'lenet_300_100': expected operations that LiteRT has, .*found .*tf.MatMul",
    ),
}


@pytest.mark.parametrize("function", [deploy.lite, deploy.sizes])
@pytest.mark.parametrize("case", MODELS)
def test_a_model_that_will_not_do(case, function):
    make, message = MODELS[case]
    with pytest.raises(ValueError, match=message):
        function(make())


X = np.zeros((4, 28, 28, 1), "float32")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantised": "int4"}, r"quantised: expected one of .*'full'\), found 'int4'"),
        ({"quantised": "full"}, r"representative: expected inputs \(N, ...\), found None"),
        ({"representative": X}, "representative: expected None with quantised=None, found some"),
        (
            {"quantised": "dynamic", "representative": X},
            "representative: expected None with quantised='dynamic', found some",
        ),
        (
            {"quantised": "full", "representative": 1.0},
            r"representative: expected inputs of \[\(None, 28, 28, 1\)\], found \(\)",
        ),
        (
            {"quantised": "full", "representative": X[..., 0]},
            r"representative: expected inputs of \[\(None, 28, 28, 1\)\], found \(4, 28, 28\)",
        ),
        ({"quantised": "full", "representative": X[:0]}, r"found \(0, 28, 28, 1\)"),
        (
            {"quantised": "full", "representative": tf.data.Dataset.from_tensors(X)},
            r"one array, found a tf.data.Dataset: .* next\(iter\(dataset\)\)\[0\]",
        ),
    ],
)
def test_options_that_will_not_do(options, message):
    with pytest.raises(ValueError, match=message):
        deploy.lite(dense_300_100(units=(2, 2)), **options)


@pytest.mark.parametrize("forms", [["LiteRT", "ONNX"], [], "LiteRT"])
def test_unknown_forms(forms):
    with pytest.raises(ValueError, match="forms: expected a list of some of"):
        deploy.files(dense_300_100(units=(2, 2)), forms)


def test_a_form_that_needs_inputs_says_so():
    with pytest.raises(ValueError, match="representative: expected inputs"):
        deploy.files(dense_300_100(units=(2, 2)), ["LiteRT int8"])


def test_content_that_will_not_do():
    for bad in (b"", b"nothing of the kind", "a/path.tflite", None):
        with pytest.raises(ValueError, match=REFUSED):
            deploy.interpreter(bad)


def test_a_file_that_takes_or_gives_something_else(tmp_path):
    model = dense_300_100(units=(8, 8))
    x = inputs(model)
    integers = converted(
        model,
        tmp_path,
        optimizations=[tf.lite.Optimize.DEFAULT],
        representative_dataset=lambda: ([row[None]] for row in x),
        inference_input_type=tf.int8,
    )
    with pytest.raises(ValueError, match="expected an input in floats, found one"):
        deploy.predict(integers, x)
    with pytest.raises(ValueError, match="expected one output, found 2: "):
        deploy.runner(converted(several(True), tmp_path / "two"))


def test_inputs_that_will_not_do():
    model, found = held("dense")
    for bad in (X[..., 0], X[0], np.zeros((2, 28, 28, 1), complex)):
        with pytest.raises(ValueError, match=r"x: expected float32 of shape \(-1, 28, 28, 1\)"):
            deploy.predict(content(found), bad)
    words = keras.Sequential([keras.Input((None,), dtype="int32"), layers.Embedding(9, 4)])
    ever = deploy.lite(words)
    with pytest.raises(ValueError, match=r"x: expected int32 of shape \(-1, -1\), found int64 of"):
        deploy.predict(ever, np.arange(3))
    with pytest.raises(ValueError, match="x: expected at least one input"):
        deploy.predict(content(found), X[:0])
    with pytest.raises(ValueError, match="outputs: expected finite numbers, found NaN"):
        deploy.agreement(model, content(found), X * np.nan)


def test_one_class_is_none():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    x = np.ones((3, 2), "float32")
    with pytest.raises(ValueError, match=r"two classes or more, found shape \(3, 1\)"):
        deploy.agreement(model, deploy.lite(model), x)


def test_classes_are_predicted_from_finite_numbers_for_two_or_more():
    np.testing.assert_array_equal(deploy._predicted(np.array([[1.0, 1.0], [0, 2]])), [0, 1])
    for shape in ((3,), (3, 1), (3, 4, 1)):
        said = re.escape(f"those of two classes or more, found shape {shape}")
        with pytest.raises(ValueError, match=said):
            deploy._predicted(np.ones(shape))
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match="expected finite numbers, found NaN or infinite ones"):
            deploy._predicted(np.array([[0.0, 1.0], [bad, 1.0]]))


@pytest.mark.parametrize(
    ("shape", "expected", "fits"),
    [
        ((7, 2, 3), (None, 2, 3), True),
        ((7, 2, 3), (-1, -1, None), True),
        ((7, 2, 3), (1, 2, 3), True),  # any number of examples does
        ((7, 2, 3), (None, 2, 4), False),
        ((7, 3, 3), (None, 2, 3), False),
        ((7, 2), (None, 2, 3), False),
        ((7, 2, 3), (None, 2), False),
        ((7,), (None, 2), False),
        ((7,), (None, None), False),
        ((), (None, 2), False),
    ],
)
def test_a_shape_fits_if_all_its_axes_do_and_there_are_as_many(shape, expected, fits):
    assert deploy._fits(shape, expected) is fits


def test_tables_and_times_of_nothing():
    model = dense_300_100(units=(2, 2))
    for options in ({"functions": {}}, {"repeats": 0}, {"number": 0}):
        with pytest.raises(ValueError, match="latency: expected some functions"):
            deploy.latency(**{"functions": {"a": np.sin}, "x": X} | options)
    one = {"a": model}
    bad = [({}, X, [1]), (one, X[:0], [1]), (one, X, [0]), (one, X, [4, 0]), (one, X, [])]
    for models, x, batches in bad:
        with pytest.raises(ValueError, match="table: expected some models, inputs and batch sizes"):
            deploy.table(models, x, batches=batches)
    for shape in ((3,), (4, 1), (4, 10), ()):
        found = re.escape(f"labels: expected shape (4,), found {shape}")
        with pytest.raises(ValueError, match=found):
            deploy.table({"a": model}, X, np.zeros(shape))


def test_all_representative_inputs_say_how_far_numbers_go():
    """From the first one alone, which is black, nothing would be known of the others."""
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, "relu"), layers.Dense(3)])
    x = np.random.default_rng(1).normal(size=(40, 4)).astype("float32")
    dark = np.concatenate([np.zeros((1, 4), "float32"), x])
    made = deploy.lite(model, quantised="full", representative=dark)
    assert error(deploy.predict(made, x), model(x).numpy()) < 0.1


def test_a_file_that_loads_and_does_not_run_is_refused_when_it_is_made(monkeypatch):
    class Refuses(deploy.runtime()):
        def invoke(self):
            raise RuntimeError("no such kernel")

    monkeypatch.setattr(deploy, "runtime", lambda: Refuses)
    with pytest.raises(ValueError, match=f"{REFUSED}: no such kernel"):
        deploy.lite(dense_300_100(units=(2, 2)))


def test_what_tensorflow_logs_is_as_it_was():
    logger = tf.get_logger()
    before = logger.level
    try:
        logger.setLevel(17)
        deploy.files(dense_300_100(units=(2, 2)), ["SavedModel"])
        assert logger.level == 17
    finally:
        logger.setLevel(before)


def test_a_table_hands_on_forms_and_representative_inputs(monkeypatch):
    given = []

    def files(model, forms, *, representative=None):
        given.append((forms, representative))
        return {".keras": {"a.keras": b"123"}}

    monkeypatch.setattr(deploy, "files", files)
    model = dense_300_100(units=(4, 4))
    x = inputs(model, 3)
    deploy.table({"a": model}, x, representative=x, batches=[1], repeats=1)
    ((forms, representative),) = given
    assert forms is None
    assert representative is x


def test_a_measurement_waits_for_all_values_that_are_returned():
    waited = []

    class Later:
        def __array__(self, dtype=None, copy=None):
            waited.append(self)
            return np.zeros(1)

    functions = {"a": lambda x: {"one": Later(), "other": [Later()]}}
    deploy.latency(functions, 1.0, repeats=2, number=3)
    assert len(waited) == 2 * 2 * (1 + 3)
