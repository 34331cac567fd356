"""Data: MNIST where it can be had, else the handwritten digits that scikit-learn carries.

Both come as images (N, 28, 28, 1) in [0, 1] with labels 0 to 9, split in three: every choice is
made on the validation part, the test part is for the end.  `load` says in one line what it took.
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

DOWNLOAD_SECONDS = 10
RETRY_SECONDS = 24 * 3600
HELD_OUT = 5000


class Data(NamedTuple):
    """A data set: three pairs (x, y), x float32 (N, 28, 28, 1) in [0, 1], y int64 (N,)."""

    name: str
    train: tuple
    validation: tuple
    test: tuple


def load(name="auto"):
    """Load a data set and print one line that says which.

    Args:
        name: `"mnist"`, `"digits"`, or `"auto"`: what the environment variable PROSPER_DATASET
            says, and where that is not set or `"auto"` too, MNIST if it can be had, else the
            digits.  MNIST is the file that PROSPER_MNIST names (an .npz in Keras' layout), else the
            file in Keras' cache, else Keras' download, which is given up after some seconds.

    Raises:
        ValueError: for another name, or a file that is broken or of the wrong shape or type.
        FileNotFoundError: if PROSPER_MNIST names no file, or MNIST is asked for by name and
            cannot be had.
    """
    if name == "auto":
        name = os.environ.get("PROSPER_DATASET", "auto")
    if name not in ("mnist", "digits", "auto"):
        raise ValueError(f"data set: expected 'mnist', 'digits' or 'auto', found {name!r}")
    path, source = (None, None) if name == "digits" else _mnist_file()
    if path is not None:
        data = _split_mnist(read_mnist(path))
    elif name == "mnist":
        raise FileNotFoundError(
            f"MNIST: {source}; name a file in Keras' layout in PROSPER_MNIST, or use the digits"
        )
    else:
        data = digits()
    missing = f" (MNIST: {source})" if path is None and source else ""
    origin = f"MNIST from {source}" if path is not None else f"scikit-learn's digits{missing}"
    sizes = (len(data.train[1]), len(data.validation[1]), len(data.test[1]))
    print("Data: {}: {:,} training, {:,} validation, {:,} test images.".format(origin, *sizes))
    return data


def fingerprint(data):
    """Return a data set's name and a short hash of its training part, for a stored result."""
    x, y = (np.ascontiguousarray(part) for part in data.train)
    return {"data": data.name, "sha256": hashlib.sha256(x.tobytes() + y.tobytes()).hexdigest()[:16]}


def _mnist_file():
    """Return (path, where it is from), or (None, why there is none)."""
    if os.environ.get("PROSPER_MNIST"):
        return Path(os.environ["PROSPER_MNIST"]), "the file in PROSPER_MNIST"
    cached = _cache() / "mnist.npz"
    if cached.exists():
        return cached, "Keras' cache"
    failed = _cache() / "mnist.failed"
    if failed.exists() and time.time() - failed.stat().st_mtime < RETRY_SECONDS:
        return (
            None,
            f"a download failed before; remove {failed.name} from Keras' cache to try again",
        )
    reason = _download(cached)
    if reason is None:
        return cached, "Keras' download"
    with contextlib.suppress(OSError):
        failed.parent.mkdir(parents=True, exist_ok=True)
        failed.write_text(reason)
    return None, reason


def _cache():
    return Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "datasets"


def _download(target, seconds=None):
    """Let Keras download MNIST to `target`; return None, or why it is not there in time.

    The file gets its name only when it is whole, so a download that is cut off leaves nothing
    that could be taken for MNIST.
    """
    seconds = DOWNLOAD_SECONDS if seconds is None else seconds
    part, errors = target.with_name("mnist.npz.part"), []

    def fetch():
        keras.config.disable_interactive_logging()  # in this thread only
        try:
            keras.datasets.mnist.load_data(part.name)
            part.replace(target)
        except Exception as error:  # whatever the network did, the digits are there
            errors.append(type(error).__name__)

    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        return f"no download within {seconds} seconds"
    return f"the download failed ({errors[0]})" if errors else None


def read_mnist(path):
    """Read an .npz file in Keras' layout and return its four checked arrays.

    Returns:
        x_train (N, 28, 28), y_train (N,), x_test, y_test, with images 0 to 255 and labels 0 to 9.

    Raises:
        FileNotFoundError, ValueError: naming the file, what was expected and what was found.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected an MNIST file in Keras' layout, found no file")
    names = ["x_train", "y_train", "x_test", "y_test"]
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in names if name in file}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"{path}: expected a whole .npz file, found one that breaks: {error}"
        ) from error
    missing = [name for name in names if name not in arrays]
    if missing:
        raise ValueError(f"{path}: expected {', '.join(names)}; found no {', '.join(missing)}")
    _check_images(path, "train", arrays["x_train"], arrays["y_train"], HELD_OUT + 1)
    _check_images(path, "test", arrays["x_test"], arrays["y_test"], 1)
    return [arrays[name] for name in names]


def _check_images(path, part, x, y, at_least):
    """Raise a ValueError unless x holds 28x28 grey images and y as many labels."""
    expected = {
        f"x_{part} of shape (N, 28, 28)": x.ndim == 3 and x.shape[1:] == (28, 28),
        f"x_{part} of type uint8": x.dtype == np.uint8,
        f"y_{part} of shape {x.shape[:1]}": y.shape == x.shape[:1],
        f"y_{part} of an integer type": np.issubdtype(y.dtype, np.integer),
        f"at least {at_least} images in x_{part}": len(x) >= at_least,
        f"labels 0 to 9 in y_{part}": y.size > 0 and y.min() >= 0 and y.max() <= 9,
    }
    for what, holds in expected.items():
        if not holds:
            found = f"x {x.shape} {x.dtype}, y {y.shape} {y.dtype}"
            raise ValueError(f"{path}: expected {what}, found {found}")


def _split_mnist(arrays):
    x, y, x_test, y_test = arrays
    return Data(
        "mnist",
        _as_pair(x[:-HELD_OUT, ..., None] / np.float32(255), y[:-HELD_OUT]),
        _as_pair(x[-HELD_OUT:, ..., None] / np.float32(255), y[-HELD_OUT:]),
        _as_pair(x_test[..., None] / np.float32(255), y_test),
    )


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
