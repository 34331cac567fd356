"""Data: images of digits, clothes and things, all in one form, from a file, a cache or Keras.

MNIST (LeCun et al., 1998), Fashion-MNIST (Xiao et al., 2017) and CIFAR-10 (Krizhevsky, 2009) come
as images (N, height, width, channels) in [0, 1] with labels 0 to 9, split in three: every choice is
made on the validation part, the test part is for the end.  The handwritten digits that scikit-learn
carries stand in where MNIST is not available.  `load` says in one line what it took.
"""

import contextlib
import hashlib
import itertools
import os
import threading
import time
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

RETRY_SECONDS = 24 * 3600
HELD_OUT = 5000
IN_KERAS_LAYOUT = "x_train", "y_train", "x_test", "y_test"


class Source(NamedTuple):
    """Where a data set is from: its title, the variable that names a file of it, and its images.

    A download by Keras is given up after some seconds.
    """

    title: str
    variable: str
    shape: tuple
    seconds: float


SOURCES = {
    "mnist": Source("MNIST", "PROSPER_MNIST", (28, 28), 10),
    "fashion_mnist": Source("Fashion-MNIST", "PROSPER_FASHION_MNIST", (28, 28), 30),
    "cifar10": Source("CIFAR-10", "PROSPER_CIFAR10", (32, 32, 3), 120),
}


class Data(NamedTuple):
    """A data set: three pairs (x, y), x float32 (N, ...) in [0, 1], y int64 (N,)."""

    name: str
    train: tuple
    validation: tuple
    test: tuple


def load(name="auto"):
    """Load a data set and print one line that says which.

    Args:
        name: `"mnist"`, `"fashion_mnist"`, `"cifar10"`, `"digits"`, or `"auto"`: what the
            environment variable PROSPER_DATASET says, and where that is not set or `"auto"` too,
            MNIST where available, else the digits.  A data set is the file that its variable names
            (PROSPER_MNIST, PROSPER_FASHION_MNIST, PROSPER_CIFAR10: an .npz in Keras' layout), else
            the file in Keras' cache, else Keras' download, which is given up after some seconds.

    Raises:
        ValueError: for another name, or a file that is broken or of the wrong shape or type.
        FileNotFoundError: if the variable names no file, or a data set is asked for by name and
            not available.
    """
    if name == "auto":
        name = os.environ.get("PROSPER_DATASET", "auto")
    choices = (*SOURCES, "digits", "auto")
    if name not in choices:
        raise ValueError(f"data set: expected one of {', '.join(choices)}; found {name!r}")
    wanted = "mnist" if name == "auto" else name
    path, source = (None, None) if wanted == "digits" else _file(wanted)
    if path is not None:
        data = _split(wanted, read(wanted, path))
    elif name in SOURCES:
        title, variable, *_ = SOURCES[name]
        raise FileNotFoundError(
            f"{title}: {source}; name a file in Keras' layout in {variable}, or use the digits"
        )
    else:
        data = digits()
    missing = f" (MNIST: {source})" if path is None and source else ""
    origin = f"{SOURCES[wanted].title} from {source}" if path else f"scikit-learn's digits{missing}"
    sizes = (len(data.train[1]), len(data.validation[1]), len(data.test[1]))
    print("Data: {}: {:,} training, {:,} validation, {:,} test images.".format(origin, *sizes))
    return data


def fingerprint(data):
    """Return a data set's name and a short hash of its training part, for a stored result."""
    x, y = (np.ascontiguousarray(part) for part in data.train)
    return {"data": data.name, "sha256": hashlib.sha256(x.tobytes() + y.tobytes()).hexdigest()[:16]}


def _file(name):
    """Return (path, where it is from), or (None, why there is none)."""
    variable = SOURCES[name].variable
    if os.environ.get(variable):
        return Path(os.environ[variable]), f"the file in {variable}"
    cached = _cache() / f"{name}.npz"
    if cached.exists():
        return cached, "Keras' cache"
    failed = _cache() / f"{name}.failed"
    if failed.exists() and time.time() - failed.stat().st_mtime < RETRY_SECONDS:
        return (
            None,
            f"a download failed before; remove {failed.name} from Keras' cache to try again",
        )
    reason = _download(name, cached)
    if reason is None:
        return cached, "Keras' download"
    with contextlib.suppress(OSError):
        failed.parent.mkdir(parents=True, exist_ok=True)
        failed.write_text(reason)
    return None, reason


def _cache():
    return Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "datasets"


def _download(name, target):
    """Let Keras download a data set to `target`; return None, or why it is not there in time.

    The file gets its name only when it is whole, so a download that is cut off leaves nothing
    that could be taken for the data set.
    """
    seconds, errors = SOURCES[name].seconds, []

    def fetch():
        keras.config.disable_interactive_logging()  # in this thread only
        try:
            _fetch(name, target)
        except Exception as error:  # whatever the network did, the digits are there
            errors.append(type(error).__name__)

    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        return f"no download within {seconds} seconds"
    return f"the download failed ({errors[0]})" if errors else None


def _fetch(name, target):
    """Let Keras load a data set, and keep it in one file; Keras keeps the others in several."""
    part = target.with_name(f"{name}.npz.part")
    if name == "mnist":
        keras.datasets.mnist.load_data(part.name)
    else:
        pairs = getattr(keras.datasets, name).load_data()
        arrays = [array for pair in pairs for array in pair]
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            np.savez_compressed(file, **dict(zip(IN_KERAS_LAYOUT, arrays, strict=True)))
    part.replace(target)


def read(name, path):
    """Read an .npz file in Keras' layout and return its four checked arrays.

    Args:
        name: which data set it should be, a key of `SOURCES`.
        path: the file.

    Returns:
        x_train (N, 28, 28) or (N, 32, 32, 3), y_train (N,), x_test, y_test, with images 0 to 255
        and labels 0 to 9.

    Raises:
        FileNotFoundError, ValueError: naming the file, what was expected and what was found.
    """
    path, (title, _, shape, _) = Path(path), SOURCES[name]
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected {title} in Keras' layout, found no file")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {part: file[part] for part in IN_KERAS_LAYOUT if part in file}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"{path}: expected a whole .npz file, found one that breaks: {error}"
        ) from error
    missing = [part for part in IN_KERAS_LAYOUT if part not in arrays]
    if missing:
        raise ValueError(
            f"{path}: expected {', '.join(IN_KERAS_LAYOUT)}; found no {', '.join(missing)}"
        )
    for part, at_least in (("train", HELD_OUT + 1), ("test", 1)):
        y = arrays[f"y_{part}"]
        arrays[f"y_{part}"] = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
        _check_images(path, part, arrays[f"x_{part}"], arrays[f"y_{part}"], shape, at_least)
    return [arrays[part] for part in IN_KERAS_LAYOUT]


def _check_images(path, part, x, y, shape, at_least):
    """Raise a ValueError unless x holds images of a shape, 0 to 255, and y as many labels."""
    written = ", ".join(map(str, ("N", *shape)))
    expected = {
        f"x_{part} of shape ({written})": x.shape[1:] == shape,
        f"x_{part} of type uint8": x.dtype == np.uint8,
        f"y_{part} of shape {x.shape[:1]}": y.shape == x.shape[:1],
        f"y_{part} of an integer type": np.issubdtype(y.dtype, np.integer),
        f"at least {at_least} images in x_{part}": len(x) >= at_least,
        f"images from 0 to 255 in x_{part}": x.size > 0 and x.max() > 127,
        f"labels 0 to 9 in y_{part}": y.size > 0 and y.min() >= 0 and y.max() <= 9,
    }
    for what, holds in expected.items():
        if not holds:
            span = f", from {x.min()} to {x.max()}" if x.size else ""
            found = f"x {x.shape} {x.dtype}{span}, y {y.shape} {y.dtype}"
            raise ValueError(f"{path}: expected {what}, found {found}")


def _split(name, arrays):
    """Return the arrays as `Data`, the last training images held out."""
    x, y, x_test, y_test = arrays
    return Data(
        name,
        _as_images(x[:-HELD_OUT], y[:-HELD_OUT]),
        _as_images(x[-HELD_OUT:], y[-HELD_OUT:]),
        _as_images(x_test, y_test),
    )


def _as_images(x, y):
    x = x[..., None] if x.ndim == 3 else x
    return _as_pair(x / np.float32(255), y)


def digits():
    """Return scikit-learn's 1,797 handwritten digits, 8x8, brought to 28x28.

    As in MNIST the digit fills 20x20 pixels in the middle.  A stratified fifth is for testing and
    a stratified tenth of the rest for validation.
    """
    images, labels = load_digits(return_X_y=True)
    small = images.reshape(-1, 8, 8, 1) / 16.0
    x = np.pad(tf.image.resize(small, (20, 20)).numpy(), ((0, 0), (4, 4), (4, 4), (0, 0)))
    x, x_test, y, y_test = train_test_split(
        x, labels, test_size=0.2, stratify=labels, random_state=0
    )
    x, x_valid, y, y_valid = train_test_split(x, y, test_size=0.1, stratify=y, random_state=0)
    return Data("digits", _as_pair(x, y), _as_pair(x_valid, y_valid), _as_pair(x_test, y_test))


def in_colour(data):
    """Return grey images of 28x28 as colour images of 32x32, for a network that takes such ones.

    They get a margin of two pixels, and three equal channels.
    """

    def widened(pair):
        x, y = pair
        return tf.repeat(tf.pad(x, [[0, 0], [2, 2], [2, 2], [0, 0]]), 3, axis=-1), y

    if data.train[0].shape[1:] != (28, 28, 1):
        found = tuple(data.train[0].shape)
        raise ValueError(f"in_colour: expected images of shape (N, 28, 28, 1), found {found}")
    return Data(data.name, *map(widened, data[1:]))


def in_bytes(pair):
    """Return images (x, y) with x as uint8, 0 to 255: a quarter of the memory, for `augmented`.

    Raises:
        ValueError: if x is not in [0, 1].
    """
    x, y = check_pair(pair)
    low, high = float(tf.reduce_min(x)), float(tf.reduce_max(x))
    if not 0 <= low <= high <= 1:
        raise ValueError(f"images: expected values in [0, 1], found {low:.3g} to {high:.3g}")
    return tf.cast(tf.round(x * 255), tf.uint8), y


def augmented(images, seed, *, most=4):
    """Return images shifted by up to so many pixels each way, half of them flipped, in [0, 1].

    What comes in at a margin is black.

    Args:
        images: (B, height, width, channels), uint8 as from `in_bytes`, or floats in [0, 1].
        seed: a pair of integers; the same one draws the same shifts and flips.
        most: the largest shift.

    Returns:
        A tensor of the shape of the images, float32, or of their float type.
    """
    if images.dtype == tf.uint8:
        images = tf.cast(images, tf.float32) / 255
    count, height, width = (tf.shape(images)[axis] for axis in range(3))
    margin = [most, most]
    padded = tf.pad(images, [[0, 0], margin, margin, [0, 0]])
    for_shifts, for_flips = tf.unstack(tf.random.split(seed, 2))
    first = tf.random.stateless_uniform((2, count, 1), for_shifts, 0, 2 * most + 1, tf.int32)
    rows, columns = first[0] + tf.range(height), first[1] + tf.range(width)
    shifted = tf.gather(padded, rows, axis=1, batch_dims=1)
    shifted = tf.gather(shifted, columns, axis=2, batch_dims=1)
    flipped = tf.random.stateless_uniform((count, 1, 1, 1), for_flips) < 0.5
    return tf.where(flipped, shifted[:, :, ::-1], shifted)


def _as_pair(x, y):
    return tf.constant(x, tf.float32), tf.constant(y, tf.int64)


def batches(data, batch_size=None, *, seed=0):
    """Return an endless iterator of batches, of arrays reshuffled in every epoch from the seed.

    What is left of arrays at the end of an epoch, less than a batch, is not used in that epoch.

    Args:
        data: (x, y) or (x, y, sample weights) of equal length, each an array or tensor or a
            structure of them; or batches already: a `tf.data.Dataset` or `keras.utils.PyDataset`,
            which is gone through again and again, in the order in which it gives them.
        batch_size: examples per batch, from 1 to the length of the data; 128 if not given.
        seed: fixes the order of every epoch; not used for batches that are given.

    Raises:
        ValueError: if x and y differ in length, or no whole batch can be taken, or a batch size is
            given for what is in batches already.
    """
    if isinstance(data, tf.data.Dataset | keras.utils.PyDataset):
        if batch_size is not None:
            raise ValueError(f"batch size: expected none for batches, found {batch_size}")
        return _again_and_again(data)
    size = 128 if batch_size is None else batch_size
    return _endless(check_parts(data, size), size, seed)


def check_pair(data, batch_size=1):
    """Return (x, y) as tensors; raise a ValueError unless they make at least one whole batch."""
    x, y = data
    return check_parts((x, y), batch_size)


def check_parts(data, batch_size):
    """Return x, y and what else there is as tensors, of equal length, at least one whole batch."""
    parts = tuple(map(_tensors, data))
    count, *others = (len(part) for part in tf.nest.flatten(parts))
    for other in others:
        if other != count:
            raise ValueError(
                f"data: expected as many labels as examples, found {other} for {count}"
            )
    if not 1 <= batch_size <= count:
        raise ValueError(
            f"batch size: expected at least 1 and at most the {count} examples, found {batch_size}"
        )
    return parts


def _tensors(part):
    """Return an array as a tensor, and a dictionary, list or tuple of arrays with such in it."""
    if isinstance(part, dict):
        return {name: _tensors(inner) for name, inner in part.items()}
    if isinstance(part, list | tuple) and all(hasattr(inner, "shape") for inner in part):
        return type(part)(map(tf.convert_to_tensor, part))
    return tf.convert_to_tensor(part)


def _endless(parts, batch_size, seed):
    size = len(tf.nest.flatten(parts)[0])
    for epoch in itertools.count():
        for rows in epoch_order(size, batch_size, seed, epoch):
            yield tf.nest.map_structure(lambda part, rows=rows: tf.gather(part, rows), parts)


def _again_and_again(data):
    """Yield the batches of a data set, epoch after epoch, as `fit` takes them."""
    by_number = isinstance(data, keras.utils.PyDataset)
    while True:
        if by_number:
            count = data.num_batches
            yield from map(data.__getitem__, itertools.count() if count is None else range(count))
            data.on_epoch_end()
        else:
            yield from data


def epoch_order(size, batch_size, seed, epoch):
    """Return the rows of every batch of one epoch, an integer array (batches, batch_size)."""
    order = np.random.default_rng([seed, epoch]).permutation(size)
    whole = size // batch_size
    return order[: whole * batch_size].reshape(whole, batch_size)
