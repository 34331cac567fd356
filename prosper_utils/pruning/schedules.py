r"""Schedules: prune by magnitude while a network trains, all at once or little by little.

Gradual magnitude pruning (Zhu and Gupta, 2017) removes the smallest weights in n + 1 rounds,
:math:`\Delta t` steps of training apart, to the sparsity

.. math:: s_t &= s_f + (s_i - s_f) \left( 1 - \frac{t - t_0}{n \, \Delta t} \right)^3 , \\
          t &\in \{ t_0, \; t_0 + \Delta t, \; \ldots, \; t_0 + n \, \Delta t \} .

It removes much while there is much to choose from, and little at the end.  With n = 0 all is
removed at once, as is usual from a network that is trained, and then trained further.
"""

import warnings

from prosper_utils.pruning import masks
from prosper_utils.pruning.callbacks import Loop, LoopCallback
from prosper_utils.pruning.networks import kernels

import numpy as np
import tensorflow as tf


def cubic(step, *, begin, until, final, initial=0.0):
    """Return :math:`s_t`, the sparsity from `begin` to `until`, and the final one after it.

    It is rounded to six decimals, so that k does not hang on the last bit of a float.
    """
    if step >= until:
        return final
    left = 1 - (step - begin) / (until - begin)
    return round(final + (initial - final) * left**3, 6)


def prune(model, sparsity, *, optimizer=None, **choice):
    """Prune the smallest weights of a model, in place: one-shot magnitude pruning.

    What was pruned before stays pruned; the model is then trained further, as any pruned one.

    Args:
        model: a built Keras 3 model, trained.
        sparsity: the share to remove, in [0, 1), of all weights, those already removed included.
        optimizer: the one that trains the model, if it is not the compiled one.
        choice: `per_layer`, `floor` and `prune`, as for `masks.top_k`.

    Returns:
        The masks, as `masks.in_force` gives them.
    """
    chosen = smallest_out(model, sparsity, **choice)
    masks.apply(model, chosen, optimizer)
    return chosen


def smallest_out(model, sparsity, **choice):
    """Return masks without the smallest weights, and without what is pruned already."""
    kept, weights = masks.in_force(model), kernels(model)
    sizes = [
        tf.where(mask, tf.abs(k.value), -np.inf) for mask, k in zip(kept, weights, strict=True)
    ]
    chosen = masks.top_k(sizes, sparsity, **choice)
    return [new & old for new, old in zip(chosen, kept, strict=True)]


class Gradual(Loop):
    """Gradual magnitude pruning of one model: it counts the steps of training, and prunes in time.

    Under `model.fit` give it to a `GradualCallback`; in a training of your own call `start` before
    the first step and `after` after every step.

    Args:
        model: any built Keras 3 model.
        sparsity: the final share to remove (:math:`s_f`), in [0, 1).
        until: the last step at which to prune, which reaches the final sparsity exactly.
        begin: the first one (:math:`t_0`), as the optimizer counts; equal to `until` it is the only
            one.
        every: how many steps lie between two of them (Delta t).
        initial: the sparsity at the first one (:math:`s_i`).
        choice: `per_layer`, `floor` and `prune`, as for `masks.top_k`.

    Attributes:
        pruned: one pair (step, how many weights were kept) for each time.

    Raises:
        ValueError: for steps or sparsities out of order, or an interval that does not divide them.
    """

    callback = "GradualCallback"

    def __init__(self, model, sparsity, *, until, begin=0, every=100, initial=0.0, **choice):
        if not 0 <= initial <= sparsity < 1:
            raise ValueError(
                "sparsity: expected 0 <= initial <= final < 1, "
                f"found initial {initial} and final {sparsity}"
            )
        if not 0 <= begin <= until or every < 1 or (until - begin) % every:
            raise ValueError(
                "steps: expected 0 <= begin <= until, a multiple of `every` apart, "
                f"found begin {begin}, until {until} and every {every}"
            )
        masks.apply(model, masks.in_force(model))
        self.model, self.sparsity, self.initial = model, sparsity, initial
        self.begin, self.until, self.every, self.choice = begin, until, every, choice
        self.pruned = []

    def due(self, step):
        """Return the last step up to this one at which to prune, or None."""
        if step < self.begin:
            return None
        return min(step - (step - self.begin) % self.every, self.until)

    def due_sparsity(self, step):
        """Return the sparsity that is due after so many steps."""
        due = self.due(step)
        if due is None:
            return 0.0
        return cubic(
            due, begin=self.begin, until=self.until, final=self.sparsity, initial=self.initial
        )

    def start(self, step, optimizer=None, *, at_once=1):
        """Take up a training in which so many steps have been made, and prune if it is time.

        A training that was interrupted may come back without its masks: its zeros tell them.

        Args:
            step: how many steps have been made.
            optimizer: as for `prune`.
            at_once: after how many steps at a time the schedule is asked to prune.

        Raises:
            ValueError: if the schedule should have begun earlier: what it should have pruned
                before this step is not zero.
        """
        before = self.due_sparsity(step - at_once)
        wanted = smallest_out(self.model, before, **self.choice)
        for kernel, mask in zip(kernels(self.model), wanted, strict=True):
            if np.any(kernel.numpy()[~mask.numpy()]):
                raise ValueError(
                    f"begin: expected at least {step}, the steps that have been made, or a model "
                    f"that they have pruned to {before}, found {self.begin} and more weights in "
                    f"{kernel.path}"
                )
        self.after(step, optimizer)

    def after(self, step, optimizer=None):
        """Take note that so many steps of training have been made; prune if it is time."""
        due = self.due(step)
        if due is None or (self.pruned and self.pruned[-1][0] == due):
            return
        chosen = prune(self.model, self.due_sparsity(due), optimizer=optimizer, **self.choice)
        self.pruned.append((due, sum(int(tf.math.count_nonzero(mask)) for mask in chosen)))


class GradualCallback(LoopCallback):
    """The schedule under plain `model.fit`, one update of the weights of which is one step.

    With `steps_per_execution` above 1 it prunes after each execution in which it was time.
    A training that goes on from a checkpoint, by `BackupAndRestore` or `load_weights`, needs a new
    schedule with the same arguments and no more, wherever it stands among the callbacks.

    Args:
        schedule: a `Gradual` of the model that is fitted.

    Raises:
        ValueError: for anything but a `Gradual`; in training, for one of another model.
    """

    kind = Gradual

    def __init__(self, schedule):
        super().__init__(schedule)
        self.schedule, self.started, self.warned, self.epoch = schedule, False, False, 0

    def on_train_begin(self, logs=None):
        """Begin to count where the optimizer is."""
        self.started = self.warned = False

    def on_epoch_begin(self, epoch, logs=None):
        """Note which epoch it is: a training that goes on does not begin with the first."""
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        """Start before the first step, when all callbacks have restored what they restore."""
        if not self.started:
            self.started, at_once = True, self.model.steps_per_execution
            at_once = at_once if isinstance(at_once, int) else self._step()  # "auto": any number
            self.schedule.start(self._step(), self.model.optimizer, at_once=at_once)
            self._warn_if_short()

    def on_train_batch_end(self, batch, logs=None):
        """Prune if it is time."""
        self.schedule.after(self._step(), self.model.optimizer)

    def on_train_end(self, logs=None):
        """Warn if the final sparsity has not been reached, unless that was known before."""
        if self._step() < self.schedule.until and not self.warned:
            reached = self.schedule.due_sparsity(self._step())
            self._warn(f"{self._step()}, which reach {reached}")

    def _warn_if_short(self):
        """Warn before training if it is known to be too short."""
        steps = self.params.get("steps")
        if steps is None:
            return
        last = self._step() + steps * (self.params["epochs"] - self.epoch)
        if last < self.schedule.until:
            self.warned = True
            self._warn(f"at most {last} in this training")

    def _warn(self, found):
        warnings.warn(
            f"schedule: expected {self.schedule.until} steps to reach a sparsity of "
            f"{self.schedule.sparsity}, found {found}",
            stacklevel=3,
        )

    def _step(self):
        return int(self.model.optimizer.iterations)
