"""Saving: masks come back with their layers, or their loss is announced and undone by one line."""

import json
import os
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

from prosper_utils.pruning import masks, regrowth
from prosper_utils.pruning.networks import kernels

import keras
import numpy as np
import pytest
import tensorflow as tf

HERE = Path(__file__).parent
LAYERS = keras.layers


class Own(keras.layers.Layer):
    """A layer that makes its own layer."""

    def __init__(self, **options):
        super().__init__(**options)
        self.inner = LAYERS.Dense(4)

    def call(self, x):
        return self.inner(x)

    def build(self, shape):
        self.inner.build(shape)


def block():
    x = keras.Input((5, 4))
    return keras.Model(x, LAYERS.Dense(4, "tanh")(LAYERS.Conv1D(4, 2, padding="same")(x)))


def shared():
    x = keras.Input((5, 4))
    dense = LAYERS.Dense(4)
    return keras.Model(x, dense(dense(x)))


# From (5, 4) to anything; the last entry says whether the configuration of the layer holds masks.
COMPOSITE = {
    "dense": (lambda: LAYERS.Dense(4), True),
    "separable": (lambda: LAYERS.SeparableConv1D(4, 2), True),
    "depthwise": (lambda: LAYERS.DepthwiseConv1D(2), True),
    "transposed": (lambda: LAYERS.Conv1DTranspose(4, 2), True),
    "einsum": (lambda: LAYERS.EinsumDense("abc,cd->abd", (5, 3)), True),
    "time distributed": (lambda: LAYERS.TimeDistributed(LAYERS.Dense(4)), True),
    "bidirectional": (lambda: LAYERS.Bidirectional(LAYERS.LSTM(3)), True),
    "recurrent": (lambda: LAYERS.RNN(LAYERS.GRUCell(3)), True),
    "stacked": (lambda: LAYERS.RNN([LAYERS.LSTMCell(3), LAYERS.SimpleRNNCell(2)]), True),
    "nested": (block, True),
    "nested twice": (lambda: keras.Sequential([keras.Input((5, 4)), block(), shared()]), True),
    "shared": (shared, True),
    "spectral": (lambda: LAYERS.SpectralNormalization(LAYERS.Dense(4)), True),
    "own": (Own, False),
}
ATTENTION = {
    "attention": lambda: LAYERS.MultiHeadAttention(2, 3),
    "grouped attention": lambda: LAYERS.GroupQueryAttention(3, 4, 2),
}


def network(name):
    x = keras.Input((5, 4))
    h = ATTENTION[name]()(x, x) if name in ATTENTION else COMPOSITE[name][0]()(x)
    return keras.Model(x, LAYERS.Dense(3, name="head")(LAYERS.Flatten()(h)))


def chosen(model):
    generator = np.random.default_rng(0)
    return [generator.random(k.shape) < 0.5 for k in kernels(model)]


def data():
    generator = np.random.default_rng(1)
    return generator.normal(size=(32, 5, 4)).astype("float32"), np.arange(32) % 3


def fit(model):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.05), loss, run_eagerly=True)
    model.fit(*data(), 16, verbose=0)


def same(model, wanted):
    return [
        np.array_equal(found, mask)
        for found, mask in zip(masks.in_force(model), wanted, strict=True)
    ]


@pytest.mark.parametrize("name", [*COMPOSITE, *ATTENTION])
def test_masks_come_back_or_their_loss_was_announced(name, tmp_path):
    model = network(name)
    wanted = chosen(model)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        masks.apply(model, wanted)
    lost = masks.unsaved(model)
    assert (lost == []) == (name in COMPOSITE and COMPOSITE[name][1])
    assert "head/kernel" not in lost
    announced = [str(w.message) for w in said if "lost on saving" in str(w.message)]
    assert len(announced) == bool(lost)
    assert all(path in announced[0] for path in lost)
    fit(model)
    model.save(tmp_path / "model.keras")
    objects = {"Own": Own} if name == "own" else None
    loaded = keras.saving.load_model(tmp_path / "model.keras", custom_objects=objects)
    assert masks.outside(loaded) == []
    expected = [kernel.path not in lost for kernel in kernels(model)]
    assert same(loaded, wanted) == expected  # what was announced is lost, and nothing else
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        masks.apply(loaded, masks.nonzero(loaded))  # the one line that the docstring gives
    assert all(same(loaded, wanted))
    fit(loaded)
    assert masks.outside(loaded) == []
    for kernel, mask in zip(kernels(loaded), wanted, strict=True):
        assert np.mean(kernel.numpy()[mask] != 0) > 0.9


@pytest.mark.parametrize("name", ["bidirectional", "nested twice", "attention", "own"])
def test_stripped_there_is_nothing_of_ours_left(name, tmp_path):
    model = network(name)
    fit(model)
    model.save(tmp_path / "dense.keras")
    before = model.get_config()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        masks.apply(model, chosen(model))
    masks.strip(model)
    assert json.dumps(model.get_config(), default=str) == json.dumps(before, default=str)
    assert all(kernel.constraint is None for kernel in kernels(model))
    model.save(tmp_path / "stripped.keras")
    assert b"prosper" not in zipfile.ZipFile(tmp_path / "stripped.keras").read("config.json")
    sizes = [(tmp_path / f"{n}.keras").stat().st_size for n in ("dense", "stripped")]
    assert sizes[1] <= sizes[0]


PLAIN = """
import sys
sys.modules["prosper_utils"] = None  # an import of it fails
import keras, numpy as np
model = keras.saving.load_model(sys.argv[1])
x, y, expected = (np.load(sys.argv[2])[name] for name in ("x", "y", "expected"))
np.testing.assert_allclose(model(x), expected, rtol=1e-5, atol=1e-6)
print(int(model.optimizer.iterations), model.layers[1].kernel_constraint.max_value)
print(*(np.count_nonzero(w.numpy()) for w in model.weights))
model.fit(x, y, verbose=0)
"""


def test_a_stripped_model_loads_where_this_package_is_not(tmp_path):
    x = keras.Input((5, 4))
    limit = keras.constraints.MaxNorm(0.5)
    h = LAYERS.LSTM(3)(LAYERS.Dense(4, kernel_constraint=limit)(x))
    model = keras.Model(x, LAYERS.Dense(3)(h))
    masks.apply(model, chosen(model))
    fit(model)
    masks.strip(model)
    assert kernels(model)[0].constraint is model.layers[1].kernel_constraint is limit
    model.save(tmp_path / "model.keras")
    values = {"x": data()[0], "y": data()[1], "expected": model(data()[0]).numpy()}
    np.savez(tmp_path / "data.npz", **values)
    run = subprocess.run(
        [sys.executable, "-c", PLAIN, tmp_path / "model.keras", tmp_path / "data.npz"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"KERAS_BACKEND": "tensorflow"},
    )
    assert run.returncode == 0, run.stderr[-2000:]
    counts = [np.count_nonzero(w.numpy()) for w in model.weights]
    assert run.stdout.splitlines()[-2:] == ["2 0.5", " ".join(map(str, counts))]


def test_after_stripping_training_goes_on_with_the_same_optimizer_and_without_zeros():
    model = network("nested")
    masks.apply(model, chosen(model))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.05), loss, jit_compile=False)
    model.fit(*data(), 16, verbose=0)
    masks.strip(model)
    assert int(model.optimizer.iterations) == 2
    for a, b in zip(masks.nonzero(model), chosen(model), strict=True):
        np.testing.assert_array_equal(a, b)
    model.fit(*data(), 16, verbose=0)  # the compiled step takes notice
    assert all(np.count_nonzero(k.numpy() == 0) == 0 for k in kernels(model))


def test_a_subclassed_model_is_stripped_in_place_too():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = LAYERS.Dense(3)

        def call(self, x):
            return self.dense(x)

    model = Model()
    model(np.ones((1, 4)))
    with pytest.warns(UserWarning, match=r"lost on saving: model.*/dense.*/kernel$"):
        masks.apply(model, [np.eye(4, 3)])
    masks.strip(model)
    assert model.dense.kernel.constraint is model.dense.kernel_constraint is None
    assert np.count_nonzero(model.dense.kernel) == 3


class Secret(LAYERS.Dense):
    def get_config(self):
        raise TypeError("no configuration")


def test_a_model_that_cannot_be_saved_whole_has_its_masks_nowhere():
    model = keras.Sequential([keras.Input((4,)), LAYERS.Dense(3), Secret(2)])
    with pytest.warns(UserWarning, match=r"lost on saving: .*/dense.*/kernel, .*/secret.*/kernel$"):
        masks.apply(model, [np.eye(4, 3), np.eye(3, 2)])
    assert [np.count_nonzero(k) for k in kernels(model)] == [3, 2]


def test_weights_alone_carry_no_masks_and_it_can_be_told(tmp_path):
    """What is loaded into a masked model is right after the next update, and can be at once."""
    dense, model = network("nested"), network("nested")
    dense.save_weights(tmp_path / "dense.weights.h5")
    masks.apply(model, chosen(model))
    assert masks.outside(model) == []
    model.load_weights(tmp_path / "dense.weights.h5")
    expected = [np.count_nonzero(~mask) for mask in chosen(model)]
    assert masks.outside(model) == [
        (kernel.path, count) for kernel, count in zip(kernels(model), expected, strict=True)
    ]
    masks.apply(model, masks.in_force(model))
    assert masks.outside(model) == []
    model.load_weights(tmp_path / "dense.weights.h5")
    fit(model)
    assert masks.outside(model) == []
    model.save_weights(tmp_path / "sparse.weights.h5")
    other = network("nested")
    other.load_weights(tmp_path / "sparse.weights.h5")
    masks.apply(other, masks.nonzero(other))
    assert all(same(other, chosen(model)))


def test_a_clone_has_the_masks_and_new_weights():
    model = network("bidirectional")
    masks.apply(model, chosen(model))
    clone = keras.models.clone_model(model)
    assert all(same(clone, chosen(model)))
    assert masks.outside(clone) != []  # a clone draws its weights anew
    fit(clone)
    assert masks.outside(clone) == []
    masks.apply(model, [np.ones(m.shape) for m in chosen(model)])
    assert all(same(clone, chosen(model)))  # its masks are its own


def test_an_exported_model_has_the_zeros(tmp_path):
    model = network("nested")
    masks.apply(model, chosen(model))
    model.export(tmp_path / "exported", verbose=False)
    served = tf.saved_model.load(tmp_path / "exported")
    np.testing.assert_allclose(served.serve(data()[0]), model(data()[0]), rtol=1e-5, atol=1e-6)
    zeros = sum(np.count_nonzero(v.numpy() == 0) for v in served.variables if len(v.shape) > 1)
    assert zeros == sum(np.count_nonzero(~m) for m in chosen(model))


@pytest.mark.parametrize("whole", [True, False])
def test_checkpoints_of_a_masked_model(whole, tmp_path):
    model = network("nested")
    masks.apply(model, chosen(model))
    path = tmp_path / ("model.keras" if whole else "model.weights.h5")
    checkpoint = keras.callbacks.ModelCheckpoint(path, save_weights_only=not whole)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, run_eagerly=True)
    model.fit(*data(), 16, verbose=0, callbacks=[checkpoint])
    if whole:
        loaded = keras.saving.load_model(path)
        assert all(same(loaded, chosen(model)))
    else:
        loaded = network("nested")
        loaded.load_weights(path)
    for a, b in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("kind", "wanted"), [("mask", masks.Mask), ("earning", regrowth.Earning)])
def test_files_saved_before_the_package_had_wings_still_load(kind, wanted):
    """The names that Keras registered stay, wherever the classes are now."""
    model = keras.saving.load_model(HERE / f"saved_before_the_move_{kind}.keras")
    first, second = kernels(model)
    assert type(first.constraint) is type(second.constraint) is wanted
    assert first.constraint.inner.max_value == 1.0
    expected = [np.arange(30).reshape(6, 5) % 3 == 0, np.arange(15).reshape(5, 3) % 2 == 0]
    assert all(same(model, expected))
    assert getattr(first.constraint, "decay", 0.75) == 0.75
    assert all(np.array_equal(a, b) for a, b in zip(masks.nonzero(model), expected, strict=True))
    steps = int(model.optimizer.iterations)
    assert steps > 0
    x = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
    model.fit(x, np.arange(64) % 3, batch_size=16, verbose=0)
    assert int(model.optimizer.iterations) == steps + 4
    assert masks.outside(model) == []
