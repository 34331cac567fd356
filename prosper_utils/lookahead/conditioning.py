r"""Conditioning: how large an exact score is, how it grew, and whether its arithmetic can hold it.

The exact score is :math:`s = w \odot v_0` with :math:`v_m = J_m^\top v_{m+1}`, the first-order one
:math:`w \odot v_M`.  What the Jacobians between them do, and what rounding leaves, is seen in

.. math:: \text{ratio} &= \frac{\lVert w \odot v_0 \rVert}{\lVert w \odot v_M \rVert}, \\
          \text{growth}_m &= \frac{\lVert v_m \rVert}{\lVert v_{m+1} \rVert}, \\
          \text{error} &= \frac{\lVert s - s_{64} \rVert}{\lVert s_{64} \rVert}.

Ratio and growth come out of the sweep itself and cost nothing.  The error is measured, not
guessed, by a second sweep in float64, where reverse and unrolled agree to 1e-14.  A repetition in
the same float type would not do: with the weights moved by a unit in the last place, the loss
scaled or the examples in another order, it finds 1e-6 to 1e-2 on a small residual network with
ReLU where the error is 4e-3 to 0.9.  Rounding does two things that such a repetition seldom hits.
It carries a few of a million pre-activations to the other side of a kink, and each such change is
a jump of the gradient; and it errs the same way every time where thousands of equal terms are
summed, as in batch statistics over the empty margin of an image.

For the same reason *a ratio near one is no proof of a small error*.  So there is a second sign, at
the price of one gradient: its rounding error at the last weights.  On small networks without
normalisation the error in float32 is about 1e-6, with batch normalisation and tanh 1e-4; with ReLU
it grows with alpha, M and depth to the order of one, on ResNet-8 at alpha = 0.1 and M = 10 and on
ResNet-20 at M = 1.  The chapter
:doc:`/notebooks/07_exact_and_small` measures it.  The two signs together still miss a trajectory
that one kink decides; only a second sweep sees that.  What helps: float64, which costs about a
second sweep; a smaller learning rate; fewer steps; an activation without kinks.
"""

import math
import warnings
from fractions import Fraction
from typing import NamedTuple

from prosper_utils.lookahead.descent import batch_list, is_stacked, loss_and_gradient
from prosper_utils.lookahead.meta_gradient import cotangents

import numpy as np
import tensorflow as tf

RATIO = 1e-6  # a ratio times machine epsilon above it is suspect: from 8.4 on in float32
ROUNDING = 1e-4  # and so is a rounding error of one gradient above this
ENOUGH = 0.95  # share of the kept weights that float64 has to keep, too


class UndeterminedMask(UserWarning):
    """The arithmetic of a score does not decide which weights the mask keeps."""


class Conditioning(NamedTuple):
    r"""The report of one sweep; what was not measured is None.

    Attributes:
        scores: the meta-gradient itself, as `meta_gradient` returns it.
        ratio: size of the exact score over the first-order one.
        norms: :math:`\lVert v_0 \rVert, \dots, \lVert v_M \rVert`; growth is one over the next.
        rounding: relative error of :math:`w \odot v_M` against float64 at the same last weights.
        error: relative error of the scores against a sweep in float64.
        determined: share of the weights kept by these scores that float64 keeps, too.
    """

    scores: list
    ratio: float
    norms: np.ndarray
    rounding: float | None = None
    error: float | None = None
    determined: float | None = None


def conditioning(
    loss,
    weights,
    batches,
    *,
    learning_rate,
    momentum=0.0,
    method="reverse",
    scored=None,
    sparsity=0.9,
    double=None,
    always=True,
):
    """Return the meta-gradient with its `Conditioning`: one sweep, or two with `double`.

    Args:
        loss, weights, batches, learning_rate, momentum: as for `meta_gradient`.
        method: `"reverse"` or `"checkpointed"`; `"unrolled"` gives of the norms only the two ends.
        scored: indices of the weights that are scored and pruned; None takes all.
        sparsity: the share that the mask removes, in [0, 1), for `determined`.
        double: the same loss and weights in float64, a pair (weights, loss); with it the errors
            are measured.  A loss that takes weights of any float type is its own double, with
            `[tf.cast(w, tf.float64) for w in weights]`.
        always: False makes the second sweep only where the ratio or the rounding is suspect.

    Returns:
        A `Conditioning`; all but the scores and the norms is taken over what is scored.

    Raises:
        ValueError: as `meta_gradient` does, for a sparsity outside [0, 1), and where the weights
            of `double` are not float64 or not those of `weights`.
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity: expected a number in [0, 1), found {sparsity}")
    options = {"learning_rate": learning_rate, "momentum": momentum, "method": method}
    scored = range(len(weights)) if scored is None else list(scored)
    batches = batches if is_stacked(batches) else batch_list(batches)  # once: they may be shuffled
    found = cotangents(loss, weights, batches, **options)
    scores = [w * v for w, v in zip(weights, found.first, strict=True)]
    ends = [vector(weights, end, scored) for end in (found.first, found.last)]
    report = Conditioning(scores, relative(*ends), found.norms)
    if double is None:
        return report
    fine, fine_loss = double
    check_double(weights, fine)
    last = [tf.cast(w, tf.float64) for w in found.weights]
    _, gradient = loss_and_gradient(fine_loss, last, batch_list(batches)[-1])
    exact = vector(fine, gradient, scored)
    report = report._replace(rounding=relative_error(ends[1], exact))
    if not (always or suspect(report)):
        return report
    exact = vector(fine, cotangents(fine_loss, fine, batches, **options).first, scored)
    error, same = relative_error(ends[0], exact), agreement(ends[0], exact, sparsity)
    return report._replace(error=error, determined=same)


def checked(loss, weights, batches, *, sparsity=None, always=False, **options):
    """Return what `meta_gradient` does, and warn where its arithmetic does not determine the mask.

    Without `double` only the ratio is looked at.  With it one gradient in float64 is added, and a
    second sweep only where ratio or rounding demand it, or where asked to.

    Args:
        loss, weights, batches, always, options: as for `conditioning`.
        sparsity: as for `conditioning`; None judges the mask at 90%.

    Returns:
        A list of tensors, one per weight and of its shape, the meta-gradient.

    Warns:
        UndeterminedMask: if of the weights kept float64 keeps less than 95%, or if the ratio is
            suspect and there is no `double` to measure with.
    """
    sparsity = 0.9 if sparsity is None else sparsity
    report = conditioning(loss, weights, batches, sparsity=sparsity, always=always, **options)
    unknown = report.determined is None and suspect(report)
    if unknown or (report.determined is not None and report.determined < ENOUGH):
        warnings.warn(advice(report, sparsity), UndeterminedMask, stacklevel=2)
    return report.scores


def suspect(report):
    """Return whether what is cheap to know of a sweep asks for a second one in float64."""
    resolved = float(np.finfo(report.scores[0].dtype.as_numpy_dtype).eps)
    return report.ratio * resolved > RATIO or (report.rounding or 0) > ROUNDING


def advice(report, sparsity):
    """Return the sentence of the warning: what was found, and what helps."""
    kind = report.scores[0].dtype.name
    if report.determined is None:
        found = f"whether {kind} can hold it was not measured"
    else:
        found = (
            f"its relative error in {kind} is {report.error:.2g}, and of the weights that it keeps "
            f"at sparsity {sparsity} float64 keeps {report.determined:.1%}"
        )
    return (
        f"mask not determined: the exact score is {report.ratio:.3g} times as large as the "
        f"first-order one, {found}; score in float64, or with a smaller learning rate or M"
    )


def vector(weights, cotangent, scored):
    r"""Return :math:`w \odot v` of what is scored as one float64 array."""
    parts = [np.ravel(weights[i] * cotangent[i]) for i in scored]
    return np.concatenate(parts).astype(np.float64)


def relative(a, b):
    """Return the norm of a over that of b; one of two zeros."""
    top, bottom = np.linalg.norm(a), np.linalg.norm(b)
    return float(top / bottom) if bottom else (math.inf if top else 1.0)


def relative_error(found, exact):
    """Return the norm of the error over that of what is exact; zero where there is no error."""
    return 0.0 if np.array_equal(found, exact) else relative(found - exact, exact)


def agreement(a, b, sparsity):
    r"""Return which share of the k largest of a, in size, b has, too.

    Here :math:`k = \lceil n (1 - \text{sparsity}) \rceil`.
    """
    count = math.ceil(len(a) * (1 - Fraction(str(sparsity))))
    kept = [set(np.argsort(-np.abs(s), kind="stable")[:count]) for s in (a, b)]
    return len(kept[0] & kept[1]) / count


def check_double(weights, fine):
    """Raise a ValueError unless `fine` are the given weights in float64."""
    types = sorted({tf.as_dtype(w.dtype).name for w in fine})
    if types != ["float64"]:
        raise ValueError(f"double: expected weights in float64, found {', '.join(types)}")
    shapes = [[tuple(w.shape) for w in part] for part in (weights, fine)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"double: expected shapes {shapes[0]}, found {shapes[1]}")
    for i, (w, d) in enumerate(zip(weights, fine, strict=True)):
        if not np.array_equal(w, tf.cast(d, w.dtype)):
            raise ValueError(f"double: expected the values of weights[{i}], found others")
