r"""Gradient descent as a step of a trajectory, and the batches that it takes.

A step of gradient descent with heavy-ball momentum maps a state and a batch to the next state,

.. math:: b_m &= \mu b_{m-1} + \nabla L_m(w_m), \quad b_{-1} = 0, \\
          w_{m+1} &= w_m - \alpha b_m.

Without momentum the state is the weights alone.  Everything here works on plain tensors and
changes nothing in place, so that it can be differentiated.
"""

import itertools

import keras
import numpy as np
import tensorflow as tf


def start(weights, momentum=0.0):
    """Return the first state of gradient descent: (weights,), or (weights, zeros) with momentum."""
    weights = tuple(weights)
    return (weights, tuple(tf.zeros_like(w) for w in weights)) if momentum else (weights,)


def sgd(loss, learning_rate, momentum=0.0):
    """Return one step of gradient descent as a function (state, batch) -> next state.

    The state is as `start` makes it: tuples, the weights first.
    """

    def step(state, batch):
        weights, *buffer = state
        _, update = loss_and_gradient(loss, weights, batch)
        if buffer:
            update = [momentum * b + g for b, g in zip(buffer[0], update, strict=True)]
        moved = tuple(w - learning_rate * u for w, u in zip(weights, update, strict=True))
        return (moved, tuple(update)) if buffer else (moved,)

    return step


def loss_and_gradient(loss, weights, batch):
    """Return the loss and its gradient, a list with one dense tensor per weight."""
    weights = apart(weights)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(weights)
        value = loss(weights, batch)
    gradient = tape.gradient(value, weights, unconnected_gradients="zero")
    return value, [tf.convert_to_tensor(g) for g in gradient]


def hessian_product(loss, weights, batch, vector):
    """Return H v, the gradient of <gradient, v> (Pearlmutter, 1994); two backward passes.

    Args:
        loss: function (weights, batch) -> scalar tensor.
        weights, vector: lists of tensors of equal shapes and types.
        batch: whatever the loss takes.

    Returns:
        A list of tensors with the shapes of the weights; zero where the loss is linear.
    """
    weights = apart(weights)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(weights)
        _, gradient = loss_and_gradient(loss, weights, batch)
    products = tape.gradient(gradient, weights, list(vector), unconnected_gradients="zero")
    return [tf.convert_to_tensor(p) for p in products]


def apart(weights):
    """Return the weights as a list of tensors, each an object of its own, as a tape tells them."""
    return [tf.identity(w) for w in weights]


def float_tensors(weights):
    """Return the weights as a list of tensors, as `apart` does.

    Raises:
        ValueError: unless they are of one float type.
    """
    tensors = apart(weights)
    types = sorted({w.dtype.name for w in tensors})
    if len(types) != 1 or not tensors[0].dtype.is_floating:
        raise ValueError(f"weights: expected tensors of one float type, found {types or 'none'}")
    return tensors


def batch_list(batches, count=None):
    """Return batches as a list; a batch is (x, y) or (x, y, sample weights).

    Args:
        batches: a list or tuple of batches, a `tf.data.Dataset` or `keras.utils.PyDataset` of
            them, or stacked ones (see `is_stacked`), whose slices are not copied; where `count` is
            given, any iterable, endless or not.
        count: how many batches to take, the first ones; None takes all.

    Raises:
        ValueError: if there are fewer than `count` batches, none at all, or an empty one, and for
            a tuple that is neither stacked nor batches beyond doubt; for Python's own floats in a
            batch, which TensorFlow takes as float32, whatever the weights are.
    """
    if is_stacked(batches):
        lengths = {len(part) for part in tf.nest.flatten(batches)}
        if len(lengths) != 1:
            raise ValueError(f"stacked batches: expected equal lengths, found {sorted(lengths)}")
        # A tensor's own slices are copies; those of an array over its memory are not.
        parts = tf.nest.map_structure(lambda p: _over(p) if tf.is_tensor(p) else p, batches)
        batches = [tf.nest.map_structure(lambda p, m=m: p[m], parts) for m in range(*lengths)]
    elif count is None and not ends(batches):
        raise ValueError(
            "batches: expected a list, a stacked pair or a data set that ends, found "
            f"{type(batches).__name__}"
        )
    elif isinstance(batches, keras.utils.PyDataset):
        batches = map(batches.__getitem__, _indices(batches))
    taken = [_without_none(batch) for batch in itertools.islice(batches, count)]
    if len(taken) < (count or 1):
        raise ValueError(f"batches: expected at least {count or 1} (M + 1), found {len(taken)}")
    for m, batch in enumerate(taken):
        if any(type(part) is float for part in tf.nest.flatten(batch)):
            raise ValueError(
                f"batch {m}: expected arrays or tensors, found a float of Python's, which would be "
                "taken in single precision: give np.array(...) or tf.constant(..., dtype)"
            )
        for shape in shapes(batch):
            if 0 in shape:
                raise ValueError(f"batch {m}: expected examples, found shape {shape}")
    return taken


def is_stacked(batches):
    """Return whether batches are stacked: one tuple (x, y) or (x, y, sample weights) of arrays.

    Batch m is entry m of each array; x, y and weights may be dictionaries of arrays, too.  A tuple
    of tuples holds batches.  Where x or y is a list, the two cannot be told apart.

    Raises:
        ValueError: for a tuple of two or three of which some are lists, or some but not all tuples.
    """
    if not isinstance(batches, tuple) or not 2 <= len(batches) <= 3:
        return False
    if all(isinstance(part, tuple) for part in batches):
        return False
    parts = [v for p in batches for v in (p.values() if isinstance(p, dict) else [p])]
    if all(hasattr(part, "shape") for part in parts):
        return True
    raise ValueError(
        "batches: expected a list of batches, or a tuple of arrays stacked along their first axis, "
        f"found a tuple of {', '.join(type(part).__name__ for part in batches)}, which may be "
        "either: give a list of batches"
    )


def _over(tensor):
    """Return an array over the memory of a tensor; of a type that Python has not, a copy."""
    try:
        return np.asarray(memoryview(tensor))
    except ValueError:
        return tensor.numpy()


def _without_none(batch):
    """Return a batch without sample weights that are None, as Keras takes it."""
    triple = isinstance(batch, tuple | list) and len(batch) == 3
    return batch[:2] if triple and batch[2] is None else batch


class Packed:
    """A loss of batches whose parts stand in one tuple, made of a loss of structured ones.

    Two of them are equal if loss and structure are, so that what is compiled for one serves both.
    """

    def __init__(self, loss, batch):
        self.loss = loss
        self.structure = tf.nest.map_structure(lambda _: 0, batch)

    def __call__(self, weights, parts):
        return self.loss(weights, self.restore(parts))

    def restore(self, parts):
        """Return the batch in the structure it came in."""
        return tf.nest.pack_sequence_as(self.structure, list(parts))

    def __eq__(self, other):
        return isinstance(other, Packed) and self._key() == other._key()

    def __hash__(self):
        return hash(self._key())

    def _key(self):
        return self.loss, repr(self.structure)


def packed(loss, listed):
    """Return a loss and batches without dictionaries, which compiled loops do not take.

    Raises:
        ValueError: if there are dictionaries, and a batch has other parts than the first one.
    """
    if not any(isinstance(part, dict) for batch in listed for part in _parts(batch)):
        return loss, listed
    first, *others = ([path for path, _ in keras.tree.flatten_with_path(b)] for b in listed)
    for m, paths in enumerate(others, 1):
        if paths != first:
            raise ValueError(f"batch {m}: expected the parts of batch 0, {first}, found {paths}")
    return Packed(loss, listed[0]), [tuple(tf.nest.flatten(batch)) for batch in listed]


def _parts(batch):
    """Yield a batch, its parts, and theirs."""
    yield batch
    if isinstance(batch, tuple | list):
        for part in batch:
            yield from _parts(part)


def ends(batches):
    """Return whether batches are known to end: those of a list, stacked ones, or a data set."""
    if isinstance(batches, tf.data.Dataset):
        return int(batches.cardinality()) >= 0
    if isinstance(batches, keras.utils.PyDataset):
        return batches.num_batches is not None
    return isinstance(batches, list | tuple)


def _indices(batches):
    """Return the numbers of the batches of a `keras.utils.PyDataset`, which may not end."""
    count = batches.num_batches
    return itertools.count() if count is None else range(count)


def shapes(batch):
    """Return the shapes of the parts of a batch."""
    return [tuple(np.shape(part)) for part in tf.nest.flatten(batch)]


def finite(*tensors):
    """Return whether no entry of the tensors is NaN or infinite."""
    return all(bool(tf.reduce_all(tf.math.is_finite(t))) for t in tensors)


def divergence(loss, rates, state, batches):
    """Return a sentence that names the first step whose result is NaN or infinite."""
    advice = "try a smaller learning rate, and look for NaN in the batch"
    steps, step = len(batches) - 1, sgd(loss, *rates)
    if not finite(*state[0]):
        return "weights: expected finite numbers, found NaN or infinite ones"
    for m, batch in enumerate(batches[:-1]):
        state = step(state, batch)
        if not finite(*state[0]):
            return f"inner step {m} of {steps}: expected finite weights, found others: {advice}"
    value = float(loss(list(state[0]), batches[-1]))
    found = f"found the loss {value} and its gradient"
    return f"after {steps} inner steps: expected a finite meta-gradient, {found}: {advice}"
