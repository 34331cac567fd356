r"""Masks: keep the best k connections and hold all others at zero, on a built Keras 3 model.

Of n connections a sparsity s keeps

.. math:: k = \lceil n (1 - s) \rceil

in exact arithmetic, s read as the decimal it is written as.  A mask sits on its kernel as a Keras
constraint, so a pruned model trains under plain `model.fit` with any Keras optimizer, and after
every update its zeros are zero again, and so are those of the optimizer's running averages.
"""

import base64
import math
import re
import warnings
from fractions import Fraction

from prosper_utils.pruning import channels, optimizers
from prosper_utils.pruning.networks import kernels, trainable
from prosper_utils.pruning.paths import effective

import keras
import numpy as np
import tensorflow as tf


def kept(size, sparsity):
    r"""Return how many are kept, exactly; sparsity is a decimal in [0, 1).

    They are :math:`k = \lceil \text{size} \cdot (1 - \text{sparsity}) \rceil`.
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity: expected a number in [0, 1), found {sparsity}")
    return math.ceil(size * (1 - Fraction(str(sparsity))))


def top_k(scores, sparsity, *, per_layer=False, floor=0, prune=None):
    """Return the masks that keep the connections with the largest scores.

    Args:
        scores: a list of tensors, one per kernel; larger is better.  -inf, the logarithm of a
            score of zero, is the smallest.
        sparsity: the share to remove, in [0, 1); or a list of them, one per kernel.
        per_layer: keep the same share of every kernel instead of the best of all together.
        floor: keep at least that many of every kernel (or all, if it has fewer), so that none is
            left empty; the total stays the same.  Where the floor acts, it says so in a warning.
        prune: a list of booleans, one per kernel, such as `networks.select` gives.  Kernels with
            False keep all their weights, and the sparsity is that of the others.

    Returns:
        A list of boolean tensors with the shapes of the scores.  Of equal scores the one with the
        lower flat index wins (first kernel first, then row by row).

    Raises:
        ValueError: for a sparsity outside [0, 1) or one that leaves fewer weights than there are
            kernels, no scores, NaN or infinite ones, all zero, a floor that needs more weights
            than the sparsity leaves, or lists that do not have one entry per kernel.
    """
    scores = [np.asarray(s) for s in scores]
    places = _places(scores, prune)
    _check_scores(scores, places)
    if np.ndim(sparsity):
        if prune is not None or len(sparsity) != len(scores):
            raise ValueError(
                f"sparsity: expected a number, or one for each of {len(scores)} kernels and no "
                f"`prune` (0 keeps a kernel whole), found {len(sparsity)} of them"
            )
        groups = [([i], share) for i, share in zip(places, sparsity, strict=True)]
    else:
        groups = [([i], sparsity) for i in places] if per_layer else [(places, sparsity)]
    masks = [np.ones(score.shape, bool) for score in scores]
    for group, share in groups:
        found = _best_of_group([scores[i] for i in group], share, floor, group)
        for i, mask in zip(group, found, strict=True):
            masks[i] = mask
    return [tf.constant(mask) for mask in masks]


def _best_of_group(scores, sparsity, floor, names):
    """Return the masks of kernels that share one sparsity, each with its floor."""
    count = kept(sum(s.size for s in scores), sparsity)
    if count < len(scores):
        raise ValueError(
            f"sparsity: expected one that leaves at least a weight for each of {len(scores)} "
            f"kernels, found {sparsity}, which leaves {count}"
        )
    chosen = best(scores, count)
    least = [min(floor, s.size) for s in scores]
    short = [n for n, mask, f in zip(names, chosen, least, strict=True) if np.sum(mask) < f]
    if short:
        if sum(least) > count:
            raise ValueError(
                f"floor: expected at most the {count} weights that a sparsity of {sparsity} "
                f"leaves, found {sum(least)}: {floor} in each of {len(scores)} kernels"
                f"{f', in kernel {names[0]}' if len(scores) == 1 else ''}"
            )
        warnings.warn(f"the floor of {floor} acts in kernels {short}", stacklevel=3)
        first = [best([s], f)[0] for s, f in zip(scores, least, strict=True)]
        chosen = best([np.where(f, np.inf, s) for f, s in zip(first, scores, strict=True)], count)
    return chosen


def best(scores, count):
    """Return masks of the `count` largest scores of all arrays; of equal ones the first wins."""
    flat = np.concatenate([s.ravel() for s in scores])
    chosen = np.zeros(flat.size, bool)
    if count:
        last = np.sort(flat)[-count]  # the lowest to be chosen; with many zeros partition is slower
        chosen = flat > last
        chosen[np.flatnonzero(flat == last)[: count - np.sum(chosen)]] = True
    parts = np.split(chosen, np.cumsum([s.size for s in scores])[:-1])
    return [part.reshape(s.shape) for part, s in zip(parts, scores, strict=True)]


def connected(model, scores, sparsity, *, prune=None):
    """Return masks as `top_k` does, with a floor that leaves a path from input to output.

    The floor is the smallest of 0, 1, 2, 4, ... weights in every kernel with which some path has
    all its weights; where it acts, `top_k` says so in a warning.

    Args:
        model: a model that `paths.flow` takes.
        scores, sparsity, prune: as for `top_k`.

    Raises:
        ValueError: if no floor leaves a path, and as `top_k` and `paths.flow` do.
    """
    floor = 0
    while True:
        masks = top_k(scores, sparsity, floor=floor, prune=prune)
        if any(np.any(m) for m in effective(model, masks)):
            return masks
        floor = 2 * floor or 1


def shuffled(masks, seed=0):
    """Return masks that keep as many weights of every kernel, anywhere in it.

    What they lose is which weights a score chose; what they keep is how many of each layer.
    """
    generator = np.random.default_rng([seed, 1])
    values = [np.asarray(m) for m in masks]
    return [tf.constant(generator.permutation(v.ravel()).reshape(v.shape)) for v in values]


def _places(scores, prune):
    """Return the numbers of the kernels that are to be pruned."""
    if not scores:
        raise ValueError("scores: expected one tensor per kernel, found an empty list")
    if prune is None:
        return list(range(len(scores)))
    if len(prune) != len(scores) or not any(prune):
        raise ValueError(
            f"prune: expected a boolean for each of {len(scores)} kernels, some of them True, "
            f"found {list(prune)}"
        )
    return [i for i, chosen in enumerate(prune) if chosen]


def _check_scores(scores, places):
    for i in places:
        if not np.all(scores[i] < np.inf):
            bad = np.count_nonzero(~(scores[i] < np.inf))
            raise ValueError(f"scores[{i}]: expected finite numbers, found {bad} NaN or infinite")
    if not any(np.any(scores[i]) for i in places):
        raise ValueError("scores: expected some that differ from zero, found only zeros")


@keras.saving.register_keras_serializable("prosper_utils")
class Mask(keras.constraints.Constraint):
    """A constraint that multiplies a kernel by a mask, around one that was already there.

    The mask is a variable, so it can change between two fits without a new graph, and it is part
    of the configuration, so it is saved and loaded with its layer.

    Args:
        mask: array or tensor of zeros and ones; or what `get_config` made of one.
        inner: a constraint to apply to the kept weights as well, or None.

    Attributes:
        written: how often its configuration has been asked for, as on saving its layer.
    """

    def __init__(self, mask, inner=None):
        if isinstance(mask, dict):
            mask = _unpack(**mask)
        if isinstance(inner, dict):
            inner = keras.saving.deserialize_keras_object(inner)
        self.inner, self.written = inner, 0
        self.mask = tf.Variable(tf.cast(mask, tf.bool), trainable=False, name="mask")

    def __call__(self, w):
        self.hold(optimizers.average(optimizers.updating(w), w))
        w = self.masked(w)
        return w if self.inner is None else self.masked(self.inner(w))

    def masked(self, w):
        """Return w, a tensor or a variable, with zeros outside the mask."""
        w = tf.convert_to_tensor(w)
        return tf.where(self.mask, w, tf.zeros_like(w))

    def hold(self, variable):
        """Set a Keras variable to zero outside the mask; None is let pass."""
        if variable is not None:
            variable.assign(self.masked(variable))

    def get_config(self):
        """Return the mask, packed eight to a byte, and the inner constraint."""
        self.written += 1
        inner = keras.saving.serialize_keras_object(self.inner) if self.inner else None
        return {"mask": _pack(self.mask.numpy()), "inner": inner}


def _pack(mask):
    bits = base64.b64encode(np.packbits(mask)).decode("ascii")
    return {"shape": list(mask.shape), "bits": bits}


def _unpack(shape, bits):
    packed = np.frombuffer(base64.b64decode(bits), np.uint8)
    return np.unpackbits(packed, count=math.prod(shape)).reshape(shape).astype(bool)


def apply(model, masks, optimizer=None):
    """Prune a model: zero what the masks leave out, now and after every update to come.

    A compiled model stays compiled and keeps its optimizer, whose running averages of the weights
    are held at zero as well.  A `tf.function` of your own that was traced on the model before its
    first mask does not know of it: make such a function afterwards.

    A mask acts after an update of its kernel.  Weights that are written in another way, by
    `load_weights`, `clone_model` or an update of your own, may differ from zero until the next one:
    `outside` says where, and `apply(model, in_force(model))` corrects it at once.

    A saved model has its masks in the configuration of its layers.  Where one does not store its
    mask, as in attention or in a class that makes its own layers, a warning names the kernel; give
    it back right after loading with `apply(model, nonzero(model))`, which is exact unless a kept
    weight is exactly zero.

    Args:
        model: any built Keras 3 model; it is the one to fit, if models are nested.
        masks: a list of tensors of zeros and ones, one per kernel, in the order of `kernels`.
        optimizer: the one that trains the model, if it is not the compiled one.

    Raises:
        ValueError: if a mask does not fit its kernel, or the optimizer is none of Keras; then
            nothing has been changed.
    """
    variables = kernels(model)
    _check_masks(variables, masks)
    optimizers.expect(optimizer)
    fresh = [kernel for kernel in variables if not isinstance(kernel.constraint, Mask)]
    for kernel in fresh:
        constrain(model, kernel, Mask(tf.ones(kernel.shape), inner=kernel.constraint))
    for kernel, mask in zip(variables, masks, strict=True):
        kernel.constraint.mask.assign(tf.cast(mask, tf.bool))
        kernel.constraint.hold(kernel)
        for each in (optimizer, getattr(model, "optimizer", None)):
            kernel.constraint.hold(optimizers.average(each, kernel))
    if fresh:
        rebuild(model)
        _warn("not stored in the configuration of its layer, and lost on saving", unsaved(model))
    _warn("empty, nothing passes", empty_layers(model))


def _warn(what, paths):
    if paths:
        warnings.warn(f"masks: {what}: {', '.join(paths)}", stacklevel=3)


def strip(model):
    """Take the masks off a pruned model, in place: what is left is plain Keras.

    The zeros stay until the next training, and so do the other constraints, the optimizer and what
    was compiled.  Saved after this, the model loads without this package and takes no more space
    than it did before it was pruned.
    """
    for weight in model.weights:  # those of frozen layers too
        if isinstance(getattr(weight, "constraint", None), Mask):
            constrain(model, weight, weight.constraint.inner)
    rebuild(model)


def rebuild(model):
    """Let a model that is compiled take notice of new constraints; its optimizer is kept."""
    if getattr(model, "train_function", None) is not None:
        model.make_train_function(force=True)


def _check_masks(variables, masks):
    if len(masks) != len(variables):
        raise ValueError(f"masks: expected one per kernel, {len(variables)}, found {len(masks)}")
    for kernel, mask in zip(variables, masks, strict=True):
        values = np.asarray(mask)
        if values.shape != tuple(kernel.shape):
            raise ValueError(
                f"mask of {kernel.path}: expected shape {tuple(kernel.shape)}, found {values.shape}"
            )
        if not np.isin(values, (0, 1)).all():
            raise ValueError(f"mask of {kernel.path}: expected zeros and ones, found other values")


def constrain(model, kernel, constraint):
    """Put a constraint on a kernel, and on its layer, whose configuration is what gets saved."""
    kernel.constraint = constraint
    attribute = f"{kernel.name.removesuffix('_kernel')}_constraint"
    for layer in model._flatten_layers():
        if any(v is kernel for v in layer._trainable_variables):
            for name in (attribute, "depthwise_constraint"):
                if hasattr(layer, name):
                    setattr(layer, name, constraint)
                    break


def in_force(model):
    """Return the masks that `apply` put on the kernels; all ones where there is none."""
    return [
        tf.identity(k.constraint.mask)
        if isinstance(k.constraint, Mask)
        else tf.ones(k.shape, tf.bool)
        for k in kernels(model)
    ]


def nonzero(model):
    """Return the masks of the weights that are not zero now."""
    return [tf.not_equal(k.value, 0) for k in kernels(model)]


def outside(model):
    """Return (path, how many weights are not zero outside the mask) of every kernel with some.

    An empty list says that all masks hold.
    """
    pairs = zip(kernels(model), in_force(model), strict=True)
    counts = [(k.path, int(tf.math.count_nonzero(k.value[~mask]))) for k, mask in pairs]
    return [(path, count) for path, count in counts if count]


def unsaved(model):
    """Return the paths of the kernels whose masks are not in the model's configuration.

    Saving and loading, and `clone_model`, lose these masks.
    """
    masked = [k for k in kernels(model) if isinstance(k.constraint, Mask)]
    before = [k.constraint.written for k in masked]
    try:
        keras.saving.serialize_keras_object(model)
    except Exception:  # whatever a layer of one's own raises: such a model cannot be saved whole
        return [k.path for k in masked]
    return [k.path for k, n in zip(masked, before, strict=True) if k.constraint.written == n]


def per_layer(model):
    """Return, for each kernel, its (path, number of weights kept, number of weights)."""
    return [
        (kernel.path, int(tf.math.count_nonzero(mask)), int(tf.size(mask)))
        for kernel, mask in zip(kernels(model), in_force(model), strict=True)
    ]


def empty_layers(model):
    """Return the paths of the kernels that are left without a single weight."""
    return [path for path, count, _ in per_layer(model) if count == 0]


def dead(mask, inputs=(-2,), outputs=(-1,)):
    """Return how many inputs and how many outputs of a kernel have no weight left.

    Args:
        mask: a tensor of zeros and ones with the shape of the kernel.
        inputs, outputs: the axes that together number them; by default those of dense and
            convolution kernels.
    """
    mask = np.asarray(mask, bool)
    others = [set(range(mask.ndim)) - {a % mask.ndim for a in axes} for axes in (inputs, outputs)]
    return tuple(int(np.sum(~np.any(mask, tuple(axes)))) for axes in others)


def _dead(model, kernel, mask):
    """Return what `dead` does, with the axes that the layer of a kernel has."""
    layers = model._flatten_layers()
    layer = next((x for x in layers if any(v is kernel for v in x._trainable_variables)), None)
    if isinstance(layer, tuple(channels.TRANSPOSED)):
        return dead(mask, (-1,), (-2,))
    if isinstance(layer, tuple(channels.DEPTHWISE)) or kernel.name == "depthwise_kernel":
        return dead(mask, (-2,), (-2, -1))
    if isinstance(layer, keras.layers.EinsumDense):
        read, own, written = re.split(",|->", layer.equation)
        return dead(mask, *([own.index(x) for x in own if x in other] for other in (read, written)))
    groups = getattr(layer, "groups", 1)  # each has inputs of its own, and outputs
    return dead(tf.reshape(mask, (*mask.shape[:-1], groups, -1)), (-3, -2), (-2, -1))


def effective_sparsity(model):
    """Return the share of weights that are pruned or on no path from an input to an output.

    Raises:
        ValueError: for a model that `paths.flow` does not take.
    """
    passing = effective(model, in_force(model))
    size = sum(mask.shape.num_elements() for mask in passing)
    return 1 - sum(int(tf.math.count_nonzero(mask)) for mask in passing) / size


def report(model):
    """Return a text table: per kernel what is kept of how many, what is cut off, what is empty.

    A dead input or output of a kernel has no weight left in it.  "On a path" counts the kept
    weights that connect an input of the network to an output; a model that `paths.flow` does not
    take has a dash there.
    """
    masks = in_force(model)
    try:
        passing = [int(tf.math.count_nonzero(mask)) for mask in effective(model, masks)]
    except ValueError:
        passing = [None] * len(masks)
    rows = [
        (path.removeprefix(f"{model.name}/"), count, size, through, *_dead(model, kernel, mask))
        for (path, count, size), through, kernel, mask in zip(
            per_layer(model), passing, kernels(model), masks, strict=True
        )
    ]
    whole = None if None in passing else sum(passing)
    rows.append(("all kernels", sum(r[1] for r in rows), sum(r[2] for r in rows), whole, "", ""))
    width = max(len(row[0]) for row in rows)
    lines = [f"{'kernel':<{width}}{'kept':>9}{'of':>9}{'share':>9}  on a path  dead in  out"]
    for name, count, size, through, inputs, outputs in rows:
        through = "-" if through is None else f"{through:,}"
        line = f"{name:<{width}}{count:>9,}{size:>9,}{count / size:>9.2%}"
        lines.append(f"{line}{through:>11}{inputs:>9}{outputs:>5}".rstrip())
    lines += [f"not a kernel, so not pruned: {line}" for line in _left_out(model)]
    lines += [f"EMPTY, nothing passes: {path}" for path in empty_layers(model)]
    return "\n".join(lines)


def _left_out(model):
    """Return a line for each trainable matrix, or larger array, that is not taken for a kernel."""
    taken = {id(kernel) for kernel in kernels(model)}
    others = [v for v in trainable(model) if id(v) not in taken and len(v.shape) > 1]
    return [f"{v.path}, {math.prod(v.shape):,} weights" for v in others]
