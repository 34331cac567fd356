r"""Regrowth: a sparse network whose zero weights earn weight while it trains.

It is the loop of `evolution` on a network.  The support is the set of kept weights, with mask
:math:`c`; the extra support is all the others.  A step of training takes w to

.. math:: u = w - \alpha \, \nabla L(w), \qquad w' = c \odot u,

where w itself is the persistence term, and u is not zero where w is: there it is what the weight
would have earned.  A mask that only masks throws this away.  `Earning` lets it add up,

.. math:: e' = d \, e + (1 - d) \, (1 - c) \odot u ,

and every so many steps `regrow` purges by weight and admits by credit: of the kept weights a share
with the smallest :math:`|w|` is dropped, and as many of the others with the largest :math:`|e|` are
grown, at the value zero and with fresh momentum.  The number of kept weights never changes.

Batch normalisation takes away the scale of the weights :math:`w_G` of a unit,
:math:`L(\kappa \, w_G) = L(w_G)` for :math:`\kappa > 0`.
So :math:`|w|` grows as :math:`\kappa` and e as :math:`1 / \kappa`, and neither compares weights of
different units: a unit with hardly any weight earns most.  What does not depend on the scale is

.. math:: \frac{|w|}{\lVert w_G \rVert} \quad \text{and} \quad |e| \, \lVert w_G \rVert ,

and `scale_free` purges and admits by these.

With chance in place of credit this is SET (Mocanu et al., 2018), with the gradient of one batch
RigL (Evci et al., 2020), with momentum near to sparse momentum (Dettmers and Zettlemoyer, 2019).
"""

import math
import re
import warnings
from fractions import Fraction
from pathlib import Path

from prosper_utils.lookahead.descent import batch_list, loss_and_gradient
from prosper_utils.lookahead.trajectory import pull_back, roll_out
from prosper_utils.pruning import channels, masks, mode, optimizers
from prosper_utils.pruning.callbacks import Loop, LoopCallback
from prosper_utils.pruning.networks import as_loss, kernel_indices, kernels

import keras
import numpy as np
import tensorflow as tf


@keras.saving.register_keras_serializable("prosper_utils")
class Earning(masks.Mask):
    """A mask that adds up what the weights it holds at zero would have earned.

    Args:
        mask, inner: as for `masks.Mask`.
        decay: how much of the credit stays in each step (d), in [0, 1).
    """

    def __init__(self, mask, inner=None, decay=0.98):
        super().__init__(mask, inner)
        self.decay = decay
        self.credit = tf.Variable(tf.zeros(self.mask.shape), trainable=False, name="credit")

    def __call__(self, w):
        now = tf.convert_to_tensor(w)
        self.credit.assign(_next_credit(self.credit, now, self.mask, self.decay))
        return super().__call__(w)

    def get_config(self):
        """Return the mask, the inner constraint and the decay; the credit is not part of it."""
        return super().get_config() | {"decay": self.decay}


@tf.function(jit_compile=True)  # one pass over memory in place of six
def _next_credit(credit, w, mask, decay):
    """Return d e + (1 - d) (1 - c) u."""
    earned = tf.where(mask, 0.0, tf.cast(w, tf.float32))
    return decay * credit + (1 - decay) * earned


def earn(model, chosen, decay=0.98):
    """Prune a model as `masks.apply` does; from now on its zero weights earn credit.

    Args:
        model: any built Keras 3 model.
        chosen: a list of tensors of zeros and ones, one per kernel.
        decay: how much of the credit stays in each step, in [0, 1).

    Raises:
        ValueError: for a decay outside [0, 1), or masks that do not fit.
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay: expected a number in [0, 1), found {decay}")
    masks.apply(model, chosen)
    for kernel in kernels(model):
        plain = kernel.constraint
        masks.constrain(model, kernel, Earning(plain.mask, plain.inner, decay))
    masks.rebuild(model)


def earned(model):
    """Return the credit of every weight, a list with one tensor per kernel.

    Raises:
        ValueError: if `earn` has not been called on the model.
    """
    constraints = [kernel.constraint for kernel in kernels(model)]
    if not all(isinstance(c, Earning) for c in constraints):
        raise ValueError(f"model {model.name!r}: expected weights that earn; call `earn` on it")
    return [tf.abs(c.credit) for c in constraints]


def gradient_credit(model, batch, **of_loss):
    """Return `|dL/dw|` on one batch for every weight of the kernels, those at zero included.

    `of_loss` are options of `networks.as_loss`: which loss, and how the model is run.
    """
    weights, loss = as_loss(model, **of_loss)
    _, gradient = loss_and_gradient(loss, weights, batch)
    return [tf.abs(gradient[i]) for i in kernel_indices(model)]


def lookahead_credit(model, batches, *, steps=3, learning_rate=0.1, **of_loss):
    r"""Return by how much the loss F after M steps falls as a mask entry opens.

    It is :math:`\max(-\partial F / \partial c, 0)`.
    The mask is that of the current weights and stays in force, :math:`w_0 = c \odot w`,
    :math:`w_{m+1} = w_m - \alpha \, c \odot \nabla L_m(w_m)`, so that a weight at zero has the
    slope :math:`-\alpha \sum_m g_m \odot v_{m+1}`.
    It is pulled back through states that are pairs (w, c).  Its sign is kept, since the weight's
    own steps are in it: where the loss would rise there is no credit.

    Args:
        model: a model with masks in force.
        batches: at least M + 1 batches, as a list or endless.
        steps: how many steps to look ahead (M), at least 1.
        learning_rate: the step size of these steps (alpha).
        of_loss: options of `networks.as_loss`: which loss, and how the model is run.
    """
    if steps < 1:
        raise ValueError(f"steps: expected M >= 1, found {steps}")
    weights, loss = as_loss(model, **of_loss)
    scored, taken = kernel_indices(model), batch_list(batches, steps + 1)
    chosen = [tf.ones_like(w) for w in weights]
    for i, mask in zip(scored, masks.in_force(model), strict=True):
        chosen[i] = tf.cast(mask, weights[i].dtype)

    def step(state, batch):
        w, c = state
        _, gradient = loss_and_gradient(loss, w, batch)
        moved = [a - learning_rate * b * g for a, b, g in zip(w, c, gradient, strict=True)]
        return moved, c

    states = roll_out(step, (weights, chosen), taken[:-1])
    _, gradient = loss_and_gradient(loss, states[-1][0], taken[-1])
    none = [tf.zeros_like(w) for w in weights]
    v, through_steps = pull_back(step, states, taken[:-1], (gradient, none))
    return [tf.nn.relu(-(weights[i] * v[i] + through_steps[i])) for i in scored]


def last_step(model, optimizer):
    """Return the size of the last step of every weight: of u what is left without persistence.

    Args:
        model: a model in training.
        optimizer: its built Keras SGD optimizer with momentum, whose buffers are the steps.

    Raises:
        ValueError: for an optimizer whose steps are more than that, or that is not built.
    """
    plain = isinstance(optimizer, keras.optimizers.SGD) and optimizer.momentum
    if not plain or optimizer.nesterov or optimizer.weight_decay or optimizer.use_ema:
        name = type(optimizer).__name__
        raise ValueError(f"optimizer: expected SGD with momentum and no more, found {name}")
    return [tf.abs(optimizers.slots(optimizer, k)["momentums"].value) for k in kernels(model)]


def scale_free(model, credit):
    r"""Return what neither depends on the scale of a unit: its weights, and their credit.

    A unit without a weight has no credit: normalised, its gradient would be divided by the square
    root of the layer's epsilon, and the first step would leave all others behind.

    Args:
        model: any built Keras 3 model.
        credit: a list of tensors, one per kernel, that are not negative.

    Returns:
        The sizes of the weights over the norm of their unit, and the credit times that norm, two
        lists as `credit` is.
    """
    norms, sizes = unit_norms(model), [tf.abs(kernel.value) for kernel in kernels(model)]
    weight = [tf.math.divide_no_nan(size, n) for size, n in zip(sizes, norms, strict=True)]
    return weight, [tf.cast(c, n.dtype) * n for c, n in zip(credit, norms, strict=True)]


def unit_norms(model):
    r"""Return :math:`\lVert w_G \rVert`, one tensor per kernel that broadcasts against it.

    A unit is what one number is computed by: a column of a dense kernel, a filter of a convolution.
    """
    owners = {id(v): layer for layer in mode.layers(model) for v in layer._trainable_variables}
    return [
        tf.sqrt(tf.reduce_sum(tf.square(k.value), _inputs(owners[id(k)], k), keepdims=True))
        for k in kernels(model)
    ]


def _inputs(layer, kernel):
    """Return the axes of a kernel that its units extend over."""
    rank = len(kernel.shape)
    if isinstance(layer, tuple(channels.DEPTHWISE)) or kernel.name == "depthwise_kernel":
        return list(range(rank - 2))
    if isinstance(layer, keras.layers.EinsumDense):
        read, own, written = re.split(",|->", layer.equation)
        return [axis for axis, x in enumerate(own) if x in read and x not in written]
    outputs = rank - 2 if isinstance(layer, tuple(channels.TRANSPOSED)) else rank - 1
    return [axis for axis in range(rank) if axis != outputs]


def normalises(model):
    """Return whether a model has a layer that takes the scale of single units away."""
    kinds = keras.layers.BatchNormalization, keras.layers.GroupNormalization
    return any(isinstance(layer, kinds) for layer in mode.layers(model))


def regrow(model, share, credit, optimizer=None, weight=None):
    """Drop a share of the kept weights, the lightest, and grow as many others by credit.

    Where fewer others have any credit, fewer are dropped.  The grown ones begin at zero.  What the
    optimizer remembers of the dropped ones is kept: it is the first that they earn.

    Args:
        model: a model with masks in force.
        share: the share of the kept weights to drop, in [0, 1).
        credit: a list of tensors, one per kernel, that are not negative.
        optimizer: a built Keras optimizer whose momentum of the grown weights is set to zero.
        weight: a list of tensors, one per kernel, to purge by in place of :math:`|w|`.

    Returns:
        How many weights were dropped, and grown.

    Raises:
        ValueError: for a share outside [0, 1), credit that does not fit or is NaN, infinite or
            negative, weights that are not finite, given ones that do not fit, weights that are not
            zero where the masks are, or an optimizer that was not built on the kernels or keeps its
            state in another form (see `optimizers.slots`); then nothing has been changed.
    """
    if not 0 <= share < 1:
        raise ValueError(f"share to drop: expected a number in [0, 1), found {share}")
    kept = [mask.numpy() for mask in masks.in_force(model)]
    sizes = [np.abs(kernel.numpy()) for kernel in kernels(model)]
    credit = [np.asarray(c, np.float64) for c in credit]
    heavy = sizes if weight is None else [np.asarray(v, np.float64) for v in weight]
    _check(model, kept, sizes, credit, heavy)
    optimizers.expect(optimizer, kernels(model))
    others = [np.where(k, -np.inf, c) for k, c in zip(kept, credit, strict=True)]
    count = sum(int(np.sum(k)) for k in kept)
    able = sum(int(np.sum(o > 0)) for o in others)
    moved = min(math.floor(Fraction(str(share)) * count), able)
    light = [np.where(k, s, -np.inf) for k, s in zip(kept, heavy, strict=True)]
    stay = masks.best(light, count - moved)
    grown = masks.best(others, moved)
    masks.apply(model, [a | b for a, b in zip(stay, grown, strict=True)], optimizer)
    if optimizer is not None:
        optimizers.forget(optimizer, kernels(model), grown)
    return moved


def _check(model, kept, sizes, credit, heavy):
    """Raise a ValueError unless credit fits, and weights are finite and zero outside the masks."""
    for name, given in (("credit", credit), ("weight", heavy)):
        if [g.shape for g in given] != [s.shape for s in sizes]:
            raise ValueError(
                f"{name}: expected shapes {[s.shape for s in sizes]}, "
                f"found {[g.shape for g in given]}"
            )
    for kernel, k, s, c, h in zip(kernels(model), kept, sizes, credit, heavy, strict=True):
        if not np.all((c >= 0) & (c < np.inf)):
            raise ValueError(f"credit of {kernel.path}: expected finite numbers >= 0, found others")
        if not np.all(np.isfinite(s)):
            raise ValueError(f"{kernel.path}: expected finite weights, found NaN or infinite ones")
        if not np.all(np.isfinite(h[k])):
            raise ValueError(f"weight of {kernel.path}: expected finite numbers, found others")
        if np.any(s[~k]):
            raise ValueError(
                f"{kernel.path}: expected zeros where its mask is, found {np.count_nonzero(s[~k])} "
                "other weights: the kernel has changed since the mask was made"
            )


class Regrowth(Loop):
    """The loop on one model: it counts the steps of training, and regrows when it is time.

    The share to drop falls from `share` to zero by a cosine.  Under `model.fit` give the loop to a
    `RegrowthCallback`; in a training of your own call `after` after every step.

    Args:
        model: any built Keras 3 model; it is pruned at once, and its zero weights begin to earn.
        chosen: the first masks, one per kernel.
        every: after how many steps to regrow.
        until: the last step at which to regrow.
        share: the share of the kept weights to drop at first, in [0, 1).
        decay: how much of the credit stays in each step, in [0, 1).
        credit: a function of the model that returns one tensor per kernel, not negative.
        weight: a function of the model and the optimizer that returns what to purge by, one tensor
            per kernel; by default the size of each weight.
        scale_free: whether to take credit, and the size of each weight, apart from the scale of its
            unit, as the function of this name does; by default where a model `normalises`.

    Attributes:
        moved: one pair (step, how many weights were dropped and grown) for each time.

    Raises:
        ValueError: for an interval or a last step below 1, a share or decay outside [0, 1), or
            masks that do not fit.
    """

    callback = "RegrowthCallback"

    def __init__(
        self,
        model,
        chosen,
        *,
        every=100,
        until,
        share=0.3,
        decay=0.98,
        credit=earned,
        weight=None,
        scale_free=None,
    ):
        for name, found in (("every", every), ("until", until)):
            if found < 1:
                raise ValueError(f"{name}: expected at least 1 step, found {found}")
        if not 0 <= share < 1:
            raise ValueError(f"share to drop: expected a number in [0, 1), found {share}")
        earn(model, chosen, decay)
        self.model, self.every, self.until = model, every, until
        self.share, self.credit, self.weight, self.moved = share, credit, weight, []
        self.scale_free = normalises(model) if scale_free is None else scale_free

    def after(self, step, optimizer):
        """Take note that a step of training has been made; regrow if it is time."""
        if step % self.every == 0 and step <= self.until:
            share = self.share * (1 + math.cos(math.pi * step / self.until)) / 2
            credit, weight = self.credit(self.model), None
            if self.scale_free:
                weight, credit = scale_free(self.model, credit)
            if self.weight is not None:
                weight = self.weight(self.model, optimizer)
            count = regrow(self.model, share, credit, optimizer, weight)
            self.moved.append((step, count))

    def save(self, path, optimizer):
        """Write weights, masks, credit and the optimizer's state to a file, an .npz.

        What a credit function of yours remembers, such as a random generator, is not part of it.
        The file is replaced only when the new one is complete.
        """
        arrays = {f"{kind}_{i}": v.numpy() for kind, i, v in self._variables(optimizer)}
        unfinished = Path(f"{path}.unfinished")
        with unfinished.open("wb") as file:
            np.savez(file, moved=np.array(self.moved, np.int64).reshape(-1, 2), **arrays)
        unfinished.replace(path)

    def load(self, path, optimizer):
        """Set the model and the optimizer to what `save` wrote; training can then go on.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is of another model or optimizer, or the optimizer is not built; then
                nothing has been changed.
        """
        if not optimizer.built:
            raise ValueError("optimizer: expected a built one, found one that is not: build it")
        variables = list(self._variables(optimizer))
        with np.load(path) as file:
            found = {name: file[name] for name in file.files}
        wanted = {f"{kind}_{i}": (tuple(v.shape), v.numpy().dtype) for kind, i, v in variables}
        kinds = {name: (a.shape, a.dtype) for name, a in found.items() if name != "moved"}
        if kinds != wanted or "moved" not in found:
            other = sorted(n for n in {*kinds, *wanted} if kinds.get(n) != wanted.get(n))
            raise ValueError(
                f"{Path(path).name}: expected the state of this model and optimizer, found other "
                f"shapes, types or names of {', '.join(other[:5]) or 'what was moved'}"
            )
        for kind, i, variable in variables:
            variable.assign(found[f"{kind}_{i}"])
        self.moved = [tuple(pair) for pair in found["moved"].tolist()]

    def _variables(self, optimizer):
        """Yield (kind, number, variable) for all that changes in training."""
        constraints = [kernel.constraint for kernel in kernels(self.model)]
        kinds = {
            "weight": self.model.variables,
            "mask": [c.mask for c in constraints],
            "credit": [c.credit for c in constraints],
            type(optimizer).__name__: optimizer.variables,
        }
        for kind, variables in kinds.items():
            for i, variable in enumerate(variables):
                yield kind, i, variable


class RegrowthCallback(LoopCallback):
    """The loop under plain `model.fit`, one update of the weights of which is one step.

    Where the optimizer overwrites the weights with their averages now and then, a weight at zero
    earns in such a step what its average would be.

    Args:
        loop: a `Regrowth` of the model that is fitted.

    Raises:
        ValueError: for anything but a `Regrowth`; in training, for one of another model.
    """

    kind = Regrowth

    def __init__(self, loop):
        super().__init__(loop)
        self.made, self.looked = 0, False

    def on_train_begin(self, logs=None):
        """Begin to count where the optimizer is.

        Raises:
            ValueError: if the loop could not see every step.
        """
        if self.model.steps_per_execution != 1:
            raise ValueError(
                "steps_per_execution: expected 1, for the loop looks after every step, "
                f"found {self.model.steps_per_execution}"
            )
        self.made, self.looked = int(self.model.optimizer.iterations), False

    def on_train_batch_begin(self, batch, logs=None):
        """Look, before the first step, whether another callback has restored only the weights.

        Raises:
            ValueError: if weights differ from zero outside the masks.
        """
        found = [] if self.looked else masks.outside(self.model)
        self.looked = True
        if found:
            raise ValueError(
                f"model: expected zeros outside the masks, found {found[0][1]} other weights in "
                f"{found[0][0]}: restore the weights of a loop with its masks, by `Regrowth.load`"
            )

    def on_train_batch_end(self, batch, logs=None):
        """Count a step if one has been made: a batch whose gradients are only added up is none."""
        step = int(self.model.optimizer.iterations)
        if step > self.made:
            self.made = step
            self.loop.after(step, self.model.optimizer)

    def on_train_end(self, logs=None):
        """Warn of a loop that has never regrown, for its training was shorter than an interval."""
        if not self.loop.moved:
            warnings.warn(
                f"regrowth: nothing was regrown in {self.made} steps of training, with "
                f"every={self.loop.every} and until={self.loop.until}",
                stacklevel=2,
            )
