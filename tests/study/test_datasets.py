"""Data: what is taken from where, what a broken file says, and batches without end."""

import contextlib
import hashlib
import itertools
import os
import threading
import time
import types
import zipfile
import zlib

from prosper_utils.study import datasets

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from keras.src.utils import io_utils
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

TRAIN, TEST = 5100, 30


def arrays(shape=(28, 28), **changes):
    """Return a small file in Keras' layout, with changes."""
    generator = np.random.default_rng(0)
    made = {}
    for part, count in (("train", TRAIN), ("test", TEST)):
        made[f"x_{part}"] = generator.integers(0, 256, (count, *shape)).astype(np.uint8)
        made[f"y_{part}"] = generator.integers(0, 10, count).astype(np.uint8)
    return {k: v for k, v in {**made, **changes}.items() if v is not None}


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """Give Keras an empty cache and take every variable of ours away."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    for source in datasets.SOURCES.values():
        monkeypatch.delenv(source.variable, raising=False)
    monkeypatch.delenv("PROSPER_DATASET", raising=False)
    return tmp_path / "keras" / "datasets"


@pytest.fixture
def mnist_file(nowhere, monkeypatch, tmp_path):
    """Name a file in PROSPER_MNIST; the test writes it."""
    path = tmp_path / "some-mnist.npz"
    monkeypatch.setenv("PROSPER_MNIST", str(path))
    return path


def assert_well_formed(data):
    for x, y in (data.train, data.validation, data.test):
        assert (x.dtype.name, y.dtype.name) == ("float32", "int64")
        assert x.shape[1:] == (28, 28, 1)
        assert len(x) == len(y) > 0
        assert 0 <= float(np.min(x)) < float(np.max(x)) <= 1
        assert set(np.unique(y)) == set(range(10))


def test_the_embedded_digits(capsys):
    data = datasets.load("digits")
    assert capsys.readouterr().out == (
        "Data: scikit-learn's digits: 1,293 training, 144 validation, 360 test images.\n"
    )
    assert data.name == "digits"
    assert_well_formed(data)
    counts = np.bincount(data.validation[1])
    assert counts.max() - counts.min() <= 2  # stratified
    shares = np.bincount(data.test[1]) / np.bincount(np.concatenate([p[1] for p in data[1:]]))
    assert shares == pytest.approx([0.2] * 10, abs=0.01)
    border = np.array(data.train[0])
    border[:, 4:-4, 4:-4] = 0
    assert not border.any()


def test_mnist_from_a_file_holds_out_the_last_training_images(mnist_file, capsys):
    made = arrays()
    np.savez_compressed(mnist_file, **made)
    for name in ("auto", "mnist"):
        data = datasets.load(name)
        assert data.name == "mnist"
        assert_well_formed(data)
        assert [len(part[1]) for part in data[1:]] == [100, 5000, 30]
        np.testing.assert_array_equal(data.validation[1], made["y_train"][-5000:])
        np.testing.assert_allclose(np.array(data.test[0])[..., 0] * 255, made["x_test"], atol=1e-4)
    assert capsys.readouterr().out.splitlines() == 2 * [
        "Data: MNIST from the file in PROSPER_MNIST: "
        "100 training, 5,000 validation, 30 test images."
    ]


def test_the_environment_decides_for_auto_only(mnist_file, monkeypatch):
    np.savez_compressed(mnist_file, **arrays())
    monkeypatch.setenv("PROSPER_DATASET", "digits")
    assert datasets.load().name == "digits"
    assert datasets.load("mnist").name == "mnist"
    monkeypatch.setenv("PROSPER_DATASET", "mnist")
    assert datasets.load().name == "mnist"
    assert datasets.load("digits").name == "digits"
    monkeypatch.setenv("PROSPER_DATASET", "cifar")
    with pytest.raises(ValueError, match=r"one of mnist, fashion_mnist, .*; found 'cifar'"):
        datasets.load()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_test": None}, "expected x_train, y_train, x_test, y_test; found no x_test"),
        ({"x_train": np.zeros((TRAIN, 784), np.uint8)}, r"\(N, 28, 28\), found x \(5100, 784\)"),
        ({"x_test": np.zeros((TEST, 28, 27), np.uint8)}, r"x_test of shape .*\(30, 28, 27\)"),
        ({"x_train": np.zeros((TRAIN, 28, 28))}, "x_train of type uint8, found .*float64"),
        ({"y_train": np.zeros(TRAIN)}, "y_train of an integer type, found .*float64"),
        ({"y_train": np.zeros(TRAIN - 1, int)}, r"y_train of shape \(5100,\), found .*\(5099,\)"),
        ({"y_test": np.full(TEST, 10)}, "labels 0 to 9 in y_test"),
        ({"y_test": -np.eye(1, TEST, TEST - 1, dtype=int)[0]}, "labels 0 to 9 in y_test"),
        ({"y_train": np.eye(1, TRAIN, 0, dtype=int)[0] * 10}, "labels 0 to 9 in y_train"),
        (
            {"x_train": np.zeros((9, 28, 28), np.uint8), "y_train": np.zeros(9, int)},
            "at least 5001",
        ),
        ({"y_test": np.array([{}] * TEST)}, "expected a whole .npz file"),
        ({"y_train": np.zeros((TRAIN, 2), int)}, r"y_train of shape \(5100,\), .*\(5100, 2\)"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(mnist_file, changes, message):
    np.savez_compressed(mnist_file, **arrays(**changes))
    with pytest.raises(ValueError, match=f"some-mnist.npz: .*{message}"):
        datasets.load()


def test_one_training_image_has_to_be_left(mnist_file):
    """Behind those that are held out."""
    whole = arrays()
    for count in (5001, 5000):
        some = {f"{axis}_train": whole[f"{axis}_train"][:count] for axis in "xy"}
        np.savez(mnist_file, **arrays(**some))
        if count == 5001:
            assert [len(y) for _, y in datasets.load()[1:]] == [1, 5000, TEST]
            continue
        with pytest.raises(ValueError, match="at least 5001 images in x_train, found"):
            datasets.load()


def test_test_images_have_to_be_there(mnist_file):
    empty = {"x_test": np.zeros((0, 28, 28), np.uint8), "y_test": np.zeros(0, int)}
    np.savez(mnist_file, **arrays(**empty))
    with pytest.raises(ValueError, match="at least 1 images in x_test, found"):
        datasets.load()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_named(mnist_file, share):
    np.savez_compressed(mnist_file, **arrays())
    whole = mnist_file.read_bytes()
    mnist_file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"some-mnist.npz: expected a whole .npz file"):
        datasets.load()


def test_damaged_bytes_are_found(mnist_file):
    np.savez_compressed(mnist_file, **arrays())
    damaged = bytearray(mnist_file.read_bytes())
    damaged[5000:6000] = bytes(1000)
    mnist_file.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"some-mnist.npz: expected a whole .npz file"):
        datasets.load()


def test_a_file_that_is_no_archive_is_named(mnist_file):
    np.save(mnist_file.with_suffix(".npy"), np.zeros(3))
    mnist_file.with_suffix(".npy").rename(mnist_file)
    with pytest.raises(ValueError, match=r"some-mnist.npz: expected a whole .npz file"):
        datasets.load()


def test_a_missing_file_is_an_error_and_no_fallback(mnist_file):
    with pytest.raises(FileNotFoundError, match=r"some-mnist.npz: expected .* found no file"):
        datasets.load()


OTHERS = ["fashion_mnist", "cifar10"]


@pytest.mark.parametrize("name", OTHERS)
def test_other_data_sets_come_from_the_file_that_their_variable_names(
    nowhere, monkeypatch, tmp_path, capsys, name
):
    source = datasets.SOURCES[name]
    path = tmp_path / "some.npz"
    monkeypatch.setenv(source.variable, str(path))
    with pytest.raises(FileNotFoundError, match=f"some.npz: expected {source.title} .* no file"):
        datasets.load(name)
    made = arrays(source.shape)
    columns = {f"y_{part}": made[f"y_{part}"][:, None] for part in ("train", "test")}
    np.savez(path, **made | columns)  # as Keras has CIFAR's labels
    data = datasets.load(name)
    assert (
        f"Data: {source.title} from the file in {source.variable}: 100 " in capsys.readouterr().out
    )
    assert data.name == name
    assert [len(part[1]) for part in data[1:]] == [100, 5000, 30]
    assert data.train[0].shape[1:] == (*source.shape, 1)[:3]
    np.testing.assert_array_equal(data.test[1], made["y_test"])
    np.testing.assert_array_equal(data.train[1], made["y_train"][:100])
    x = np.array(data.validation[0]).reshape(-1, *source.shape) * 255
    np.testing.assert_allclose(x, made["x_train"][100:], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "shape", "found"),
    [
        ("cifar10", (28, 28), r"\(N, 32, 32, 3\), found x \(5100, 28, 28\)"),
        ("cifar10", (3, 32, 32), r"\(N, 32, 32, 3\), found x \(5100, 3, 32, 32\)"),
        ("fashion_mnist", (32, 32, 3), r"\(N, 28, 28\), found x \(5100, 32, 32, 3\)"),
    ],
)
def test_a_file_of_another_data_set_is_named(nowhere, monkeypatch, tmp_path, name, shape, found):
    monkeypatch.setenv(datasets.SOURCES[name].variable, str(tmp_path / "some.npz"))
    np.savez(tmp_path / "some.npz", **arrays(shape))
    with pytest.raises(ValueError, match=found):
        datasets.load(name)


@pytest.mark.parametrize("largest", [1, 127])
def test_images_in_another_range_are_named(mnist_file, largest):
    x = np.minimum(arrays()["x_train"], largest)
    np.savez(mnist_file, **arrays(x_train=x))
    with pytest.raises(ValueError, match=f"images from 0 to 255 in x_train, .* to {largest},"):
        datasets.load()


@pytest.mark.parametrize("name", OTHERS)
def test_a_download_of_another_data_set_is_kept_in_one_file(nowhere, monkeypatch, capsys, name):
    made = arrays(datasets.SOURCES[name].shape)
    pairs = [(made["x_train"], made["y_train"]), (made["x_test"], made["y_test"])]
    monkeypatch.setattr(getattr(keras.datasets, name), "load_data", lambda: pairs)
    assert datasets.load(name).name == name
    assert "from Keras' download" in capsys.readouterr().out
    monkeypatch.setattr(getattr(keras.datasets, name), "load_data", forbidden)
    assert datasets.load(name).name == name
    assert [file.name for file in nowhere.iterdir()] == [f"{name}.npz"]


@pytest.mark.parametrize("name", OTHERS)
def test_nothing_stands_in_for_another_data_set(nowhere, monkeypatch, name):
    def fails():
        raise OSError("no network")

    monkeypatch.setattr(getattr(keras.datasets, name), "load_data", fails)
    variable = datasets.SOURCES[name].variable
    with pytest.raises(
        FileNotFoundError, match=rf"failed \(OSError\); name a file .* in {variable}"
    ):
        datasets.load(name)


def test_grey_images_in_colour():
    data = datasets.digits()
    wide = datasets.in_colour(data)
    assert wide.name == "digits"
    for (x, y), (grey, labels) in zip(wide[1:], data[1:], strict=True):
        assert x.shape == (len(grey), 32, 32, 3)
        np.testing.assert_array_equal(y, labels)
        for channel in range(3):
            np.testing.assert_array_equal(x[:, 2:-2, 2:-2, channel], grey[..., 0])
        assert float(tf.reduce_sum(x)) == pytest.approx(3 * float(tf.reduce_sum(grey)), rel=1e-5)
    with pytest.raises(ValueError, match=r"shape \(N, 28, 28, 1\), found \(1293, 32, 32, 3\)"):
        datasets.in_colour(wide)


def test_keras_cache_is_used_before_any_download(nowhere, capsys, monkeypatch):
    monkeypatch.setattr(keras.datasets.mnist, "load_data", forbidden)
    nowhere.mkdir(parents=True)
    np.savez_compressed(nowhere / "mnist.npz", **arrays())
    assert datasets.load().name == "mnist"
    assert "MNIST from Keras' cache" in capsys.readouterr().out


def forbidden(path=None):
    raise AssertionError("tried a download")


def test_a_download_is_kept(nowhere, capsys, monkeypatch):
    def download(path):
        nowhere.mkdir(parents=True)
        np.savez_compressed(nowhere / "made.npz", **arrays())
        os.rename(nowhere / "made.npz", nowhere / path)

    monkeypatch.setattr(keras.datasets.mnist, "load_data", download)
    assert datasets.load().name == "mnist"
    assert capsys.readouterr().out.startswith("Data: MNIST from Keras' download: ")
    monkeypatch.setattr(keras.datasets.mnist, "load_data", forbidden)
    assert datasets.load().name == "mnist"


@pytest.mark.parametrize("name", datasets.SOURCES)
def test_a_download_that_breaks_off_is_not_taken_for_the_data_set(nowhere, monkeypatch, name):
    """Of what was written so far, the next call knows nothing."""
    source, written = datasets.SOURCES[name], []

    def breaks(target, **_):
        file = target if hasattr(target, "write") else (nowhere / target).open("wb")
        file.write(b"half of it")
        written.append(file.name)
        file.close()
        raise OSError("connection lost")

    nowhere.mkdir(parents=True)
    if name == "mnist":
        monkeypatch.setattr(keras.datasets.mnist, "load_data", breaks)
    else:
        made = arrays(source.shape)
        pairs = [(made["x_train"], made["y_train"]), (made["x_test"], made["y_test"])]
        monkeypatch.setattr(getattr(keras.datasets, name), "load_data", lambda: pairs)
        monkeypatch.setattr(np, "savez_compressed", breaks)
    for _ in range(2):
        with pytest.raises(FileNotFoundError, match=rf"{source.title}: .* failed"):
            datasets.load(name)
    assert len(written) == 1
    assert not (nowhere / f"{name}.npz").exists()


def failing(path):
    io_utils.print_msg("Downloading data from somewhere")  # as Keras does
    raise OSError("no network")


@pytest.mark.parametrize("kind", ["fails", "hangs"])
def test_a_download_that_does_not_come_falls_back_and_is_remembered(
    nowhere, capsys, monkeypatch, kind
):
    release = threading.Event()
    hanging = lambda path: release.wait(60)  # noqa: E731
    load_data = hanging if kind == "hangs" else failing
    monkeypatch.setattr(keras.datasets.mnist, "load_data", load_data)
    short = datasets.SOURCES["mnist"]._replace(seconds=0.5)
    monkeypatch.setitem(datasets.SOURCES, "mnist", short)
    start = time.monotonic()
    assert datasets.load().name == "digits"
    assert time.monotonic() - start < 10
    why = "no download within 0.5 seconds" if kind == "hangs" else "the download failed (OSError)"
    first = capsys.readouterr().out
    assert first.startswith(f"Data: scikit-learn's digits (MNIST: {why}): 1,293 training")
    assert first.count("\n") == 1

    monkeypatch.setattr(keras.datasets.mnist, "load_data", forbidden)
    assert datasets.load().name == "digits"
    assert "failed before; remove mnist.failed from Keras' cache" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match=r"failed before.*PROSPER_MNIST"):
        datasets.load("mnist")
    release.set()


def test_after_a_day_the_download_is_tried_again(nowhere, monkeypatch):
    calls = []
    monkeypatch.setattr(
        keras.datasets.mnist, "load_data", lambda path: calls.append(1) or failing(path)
    )
    datasets.load()
    datasets.load()
    assert len(calls) == 1
    for hours, expected in ((23, 1), (25, 2)):
        before = time.time() - 3600 * hours
        os.utime(nowhere / "mnist.failed", (before, before))
        datasets.load()
        assert len(calls) == expected


@given(st.integers(2, 60), st.integers(1, 20), st.integers(0, 100))
def test_batches_reshuffle_each_epoch_from_their_seed(size, batch_size, seed):
    data = np.arange(size), np.arange(size) + 1000
    if batch_size > size:
        with pytest.raises(ValueError, match=f"at most the {size} examples, found {batch_size}"):
            datasets.batches(data, batch_size)
        return
    whole = size // batch_size
    taken = list(itertools.islice(datasets.batches(data, batch_size, seed=seed), 3 * whole))
    again = list(itertools.islice(datasets.batches(data, batch_size, seed=seed), 3 * whole))
    for (x, y), (x_again, _) in zip(taken, again, strict=True):
        assert len(x) == batch_size
        np.testing.assert_array_equal(y, x + 1000)
        np.testing.assert_array_equal(x, x_again)
    epochs = [np.concatenate(taken[i * whole : (i + 1) * whole], axis=1)[0] for i in range(3)]
    assert all(len(set(e)) == whole * batch_size for e in epochs)  # no example twice
    if size >= 10:
        assert not np.array_equal(epochs[0], epochs[1])
        assert not np.array_equal(epochs[1], epochs[2])


def test_no_two_seeds_share_an_order():
    """Not in another epoch either, as they would if seed and epoch were added up."""
    data, size = (np.arange(30), np.arange(30)), 10
    orders = [
        tuple(np.concatenate([x for x, _ in epoch]).tolist())
        for seed in range(4)
        for taken in [list(itertools.islice(datasets.batches(data, size, seed=seed), 12))]
        for epoch in (taken[i : i + 3] for i in range(0, 12, 3))
    ]
    assert len(set(orders)) == len(orders) == 16
    first = tuple(datasets.epoch_order(30, size, seed=2, epoch=1).ravel().tolist())
    assert orders[2 * 4 + 1] == first


def test_a_fingerprint_is_of_name_images_and_labels():
    x, y = np.arange(6, dtype=np.float32).reshape(3, 2), np.array([0, 1, 2])
    made = [(x, y), (x, y[::-1]), (x[::-1], y), (np.flip(x), np.flip(y)), (x, y + 1)]
    found = [datasets.fingerprint(datasets.Data("a", pair, None, None)) for pair in made]
    assert len({f["sha256"] for f in found}) == len(made)
    assert found[0] == datasets.fingerprint(datasets.Data("a", (x.copy(), y.copy()), None, None))
    assert found[0] != datasets.fingerprint(datasets.Data("b", made[0], None, None))


@pytest.mark.parametrize(
    ("data", "batch_size", "message"),
    [
        ((np.ones(4), np.ones(3)), 2, "expected as many labels as examples, found 3 for 4"),
        ((np.ones(4), np.ones(4), np.ones(5)), 2, "expected as many labels .* found 5 for 4"),
        (({"a": np.ones(4), "b": np.ones(3)}, np.ones(4)), 2, "found 3 for 4"),
        ((np.ones(0), np.ones(0)), 1, "at most the 0 examples, found 1"),
        ((np.ones(4), np.ones(4)), 0, "found 0"),
        ((np.ones(4), np.ones(4)), -1, "found -1"),
    ],
)
def test_no_batches_is_an_error_at_once(data, batch_size, message):
    with pytest.raises(ValueError, match=message):
        datasets.batches(data, batch_size)


def test_batches_of_structures_keep_their_rows_together():
    x = {"a": np.arange(10.0), "b": np.arange(10.0) * 2}
    data = (x, [np.arange(10), np.arange(10) * 3], np.arange(10) / 10)
    for found, (y, z), weight in itertools.islice(datasets.batches(data, 4, seed=1), 7):
        assert len(y) == 4
        np.testing.assert_array_equal(found["a"], y)
        np.testing.assert_array_equal(found["b"], 2 * y.numpy())
        np.testing.assert_array_equal(z, 3 * y)
        np.testing.assert_allclose(weight, y / 10)
    pair = next(datasets.batches((np.arange(10), np.arange(10)), 4, seed=1))
    np.testing.assert_array_equal(pair[1], next(datasets.batches(data, 4, seed=1))[1][0])


class Numbered(keras.utils.PyDataset):
    """Three batches, whose order turns round after each epoch."""

    def __init__(self):
        super().__init__()
        self.order = [0, 1, 2]

    def __len__(self):
        return len(self.order)

    def __getitem__(self, m):
        return np.full(2, self.order[m]), np.zeros(2)

    def on_epoch_end(self):
        self.order.reverse()


def test_data_sets_are_gone_through_again_and_again():
    found = [int(x[0]) for x, _ in itertools.islice(datasets.batches(Numbered()), 8)]
    assert found == [0, 1, 2, 2, 1, 0, 0, 1]
    data = tf.data.Dataset.from_tensor_slices((np.arange(5), np.arange(5))).batch(2)
    found = [x.numpy().tolist() for x, _ in itertools.islice(datasets.batches(data), 5)]
    assert found == [[0, 1], [2, 3], [4], [0, 1], [2, 3]]
    for made in (data, Numbered()):
        with pytest.raises(ValueError, match="batch size: expected none for batches, found 3"):
            datasets.batches(made, 3)


def test_images_in_bytes_and_back(digits):
    x, y = datasets.in_bytes(digits.train)
    assert x.dtype == tf.uint8
    assert y is digits.train[1] or np.array_equal(y, digits.train[1])
    assert (
        float(tf.reduce_max(tf.abs(tf.cast(x, tf.float32) / 255 - digits.train[0]))) < 0.5001 / 255
    )
    whole = tf.constant(np.arange(256, dtype=np.float32).reshape(1, 16, 16, 1) / np.float32(255))
    assert np.array_equal(np.ravel(datasets.in_bytes((whole, [0]))[0]), np.arange(256))
    for wrong in (whole * 255, whole - 0.5, whole * np.nan):
        with pytest.raises(ValueError, match=r"expected values in \[0, 1\], found"):
            datasets.in_bytes((wrong, [0]))


def shifts(image, most):
    """Return all images that `augmented` may make of one, as bytes, flipped ones too."""
    padded = np.pad(image, ((most, most), (most, most), (0, 0)))
    height, width, _ = image.shape
    windows = [
        padded[i : i + height, j : j + width]
        for i, j in itertools.product(range(2 * most + 1), repeat=2)
    ]
    return [w.tobytes() for w in windows], [w[:, ::-1].tobytes() for w in windows]


def test_augmented_images_are_shifts_and_flips():
    """Every one is drawn, each image by itself, and half of them are flipped."""
    image = np.random.default_rng(0).random((5, 7, 3)).astype(np.float32)
    many = tf.repeat(image[None], 2000, axis=0)
    found = [x.tobytes() for x in datasets.augmented(many, [0, 0], most=1).numpy()]
    plain, flipped = shifts(image, 1)
    assert set(found) == {*plain, *flipped}
    assert 850 < sum(x in flipped for x in found) < 1150
    for shift in (*plain, *flipped):
        assert found.count(shift) > 2000 / 18 / 2


def test_by_default_shifts_are_of_up_to_four_pixels():
    image = np.random.default_rng(0).random((9, 6, 1)).astype(np.float32)
    many = tf.repeat(image[None], 2000, axis=0)
    found = {x.tobytes() for x in datasets.augmented(many, [0, 1]).numpy()}
    assert found == {window for windows in shifts(image, 4) for window in windows}


def test_by_default_batches_are_of_128():
    data = np.arange(300), np.arange(300)
    found = [x.numpy() for x, _ in itertools.islice(datasets.batches(data), 4)]
    assert [len(x) for x in found] == [128] * 4
    orders = [datasets.epoch_order(300, 128, 0, epoch) for epoch in range(2)]
    np.testing.assert_array_equal(found, np.concatenate(orders))


def test_the_seed_fixes_what_is_drawn():
    x = tf.constant(np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3)), tf.uint8)
    first, again, other, later = (
        datasets.augmented(x, seed).numpy() for seed in ([3, 5], [3, 5], [4, 5], [3, 6])
    )
    assert first.dtype == np.float32
    assert 0 <= first.min() < first.max() <= 1
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, later)
    floats = datasets.augmented(tf.cast(x, tf.float64) / 255, [3, 5])
    assert floats.dtype == tf.float64
    np.testing.assert_allclose(floats, first, atol=1e-6)


def test_a_fingerprint_is_of_every_row():
    x, y = np.zeros((2500, 2), np.float32), np.zeros(2500, int)
    found = {datasets.fingerprint(datasets.Data("a", (x, y), None, None))["sha256"]}
    for row in (0, 1100, 2499):
        other, labels = x.copy(), y.copy()
        other[row, 1], labels[row] = 1, 1
        for pair in ((other, y), (x, labels)):
            found.add(datasets.fingerprint(datasets.Data("a", pair, None, None))["sha256"])
    assert len(found) == 7


def test_training_images_are_the_first_ones_with_their_labels():
    x = np.arange(5100, dtype=np.float32)[:, None, None] * np.ones((1, 2, 2), np.float32)
    y = np.arange(5100)
    data = datasets._split("mnist", (x, y, x[:7], y[:7]))
    for part, rows in zip(data[1:], (y[:100], y[100:], y[:7]), strict=True):
        np.testing.assert_array_equal(part[1], rows)
        np.testing.assert_allclose(part[0][:, 0, 0, 0] * 255, rows, rtol=1e-5)


def test_the_digits_are_the_same_at_every_call():
    one, other = datasets.digits(), datasets.digits()
    for (x, y), (again, labels) in zip(one[1:], other[1:], strict=True):
        np.testing.assert_array_equal(x, again)
        np.testing.assert_array_equal(y, labels)


def test_a_variable_that_is_empty_names_no_file(nowhere, monkeypatch, capsys):
    monkeypatch.setenv("PROSPER_MNIST", "")
    monkeypatch.setattr(keras.datasets.mnist, "load_data", failing)
    assert datasets.load().name == "digits"
    assert "(MNIST: the download failed (OSError))" in capsys.readouterr().out


@pytest.mark.parametrize("error", [Exception, ValueError, KeyError, EOFError])
def test_whatever_the_network_did_the_digits_are_there(nowhere, monkeypatch, capsys, error):
    def breaks(path):
        raise error("URL fetch failure")  # as Keras says it

    monkeypatch.setattr(keras.datasets.mnist, "load_data", breaks)
    assert datasets.load().name == "digits"
    assert f"(MNIST: the download failed ({error.__name__}))" in capsys.readouterr().out
    assert (nowhere / "mnist.failed").read_text() == f"the download failed ({error.__name__})"


def test_where_nothing_can_be_kept_the_digits_are_there(nowhere, monkeypatch, tmp_path):
    """The folder of Keras is a file, so not even the failure can be noted."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(keras.datasets.mnist, "load_data", failing)
    assert datasets.load().name == "digits"


def test_keras_keeps_data_in_the_folder_of_the_user_unless_another_is_named(nowhere, monkeypatch):
    assert datasets._cache() == nowhere
    monkeypatch.delenv("KERAS_HOME")
    assert datasets._cache() == datasets.Path.home() / ".keras" / "datasets"


def test_a_fingerprint_is_a_hash_of_the_bytes():
    x, y = np.arange(6, dtype=np.float32).reshape(3, 2), np.array([0, 1, 2])
    found = datasets.fingerprint(datasets.Data("a", (x, y), None, None))
    digest = hashlib.sha256(x.tobytes() + y.tobytes()).hexdigest()
    assert found == {"data": "a", "sha256": digest[:16]}
    turned = datasets.Data("a", (np.asfortranarray(x), tf.constant(y)), None, None)
    assert datasets.fingerprint(turned) == found


def test_the_digits_are_those_of_scikit_learn_in_three_stratified_parts():
    images, labels = load_digits(return_X_y=True)
    rows, test = train_test_split(np.arange(1797), test_size=0.2, stratify=labels, random_state=0)
    train, validation = train_test_split(rows, test_size=0.1, stratify=labels[rows], random_state=0)
    for (x, y), chosen in zip(datasets.digits()[1:], (train, validation, test), strict=True):
        np.testing.assert_array_equal(y, labels[chosen])
        small = images[chosen].reshape(-1, 8, 8, 1) / 16
        inner = np.array(x)[:, 4:-4, 4:-4]
        np.testing.assert_allclose(inner, tf.image.resize(small, (20, 20)), atol=1e-6)
        np.testing.assert_allclose(inner.mean((1, 2)), small.mean((1, 2)), atol=0.05)


def test_a_data_set_without_an_end_is_gone_through_once():
    class Endless(Numbered):
        num_batches = None

        def __getitem__(self, m):
            return np.full(2, m), np.zeros(2)

    found = [int(x[0]) for x, _ in itertools.islice(datasets.batches(Endless()), 5)]
    assert found == [0, 1, 2, 3, 4]


def test_lists_of_numbers_are_arrays_and_lists_of_arrays_are_structures():
    x, y = {"a": np.zeros((3, 2)), "b": {"c": [0.5, 1.5, 2.5]}}, (np.arange(3), np.ones(3))
    found, labels, weights = datasets.check_parts((x, y, [1, 2, 3]), 3)
    assert found["b"]["c"].numpy().tolist() == [0.5, 1.5, 2.5]
    assert isinstance(labels, tuple)
    assert [part.shape.as_list() for part in (*labels, weights)] == [[3]] * 3
    mixed = datasets._tensors([np.float32(1), 2.0])  # of which one has a shape
    assert mixed.shape == (2,)


def test_a_file_is_read_by_its_name_into_four_arrays(tmp_path):
    made = arrays()
    np.savez(tmp_path / "some.npz", **made | {"y_train": made["y_train"][:, None]}, other=[1])
    found = datasets.read("mnist", str(tmp_path / "some.npz"))
    for array, name in zip(found, ("x_train", "y_train", "x_test", "y_test"), strict=True):
        np.testing.assert_array_equal(array, made[name])


def test_each_data_set_has_the_variable_that_the_book_tells():
    assert {name: source.variable for name, source in datasets.SOURCES.items()} == {
        "mnist": "PROSPER_MNIST",
        "fashion_mnist": "PROSPER_FASHION_MNIST",
        "cifar10": "PROSPER_CIFAR10",
    }


@pytest.mark.parametrize("name", datasets.SOURCES)
def test_a_download_is_given_the_seconds_of_its_data_set(nowhere, monkeypatch, name):
    waited = []

    class Waiting:
        def __init__(self, target, daemon):
            assert daemon  # or the program would not end before the download does

        def start(self):
            pass

        def join(self, timeout):
            waited.append(timeout)

        def is_alive(self):
            return True

    monkeypatch.setattr(datasets, "threading", types.SimpleNamespace(Thread=Waiting))
    seconds = datasets.SOURCES[name].seconds
    assert datasets._file(name) == (None, f"no download within {seconds} seconds")
    assert waited == [seconds]
    assert (nowhere / f"{name}.failed").read_text() == f"no download within {seconds} seconds"


@pytest.mark.parametrize(
    "error", [zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, TypeError]
)
def test_whatever_breaks_in_a_file_it_is_named(mnist_file, monkeypatch, error):
    """In the archive or in one of its parts."""

    class Broken(dict):
        def __getitem__(self, part):
            raise error("it breaks here")

    for opened in (contextlib.nullcontext(Broken(arrays())), None):

        def load(path, *, allow_pickle, opened=opened):
            assert not allow_pickle
            if opened is None:
                raise error("it breaks here")
            return opened

        monkeypatch.setattr(np, "load", load)
        mnist_file.touch()
        message = r"some-mnist.npz: expected a whole .npz file, found one that breaks: it breaks"
        with pytest.raises(ValueError, match=message):
            datasets.load()
