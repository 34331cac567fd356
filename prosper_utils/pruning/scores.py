r"""Scores: one number per connection that says how much it should be kept.

Every score is a function `(model, batches, *, sparsity=None, seed=0, **of_loss)` that returns one
tensor per kernel, larger for what to keep.  Those that look at data read off what a mask :math:`c`
on the weights would do:

.. math:: \text{SNIP} &= |\partial L(c \odot w) / \partial c| \\
          &= |w \odot \nabla L(w)|, \\
          \text{GraSP} &= w \odot H \nabla L(w), \\
          \text{ProsPr} &= |\partial L_M(w_M) / \partial c|.

SynFlow looks at no data; it is what SNIP gives for the sum over all paths (see `paths`) in place
of the loss.  `iterative` turns a rule into one that prunes in rounds.

The loss is the one that the model was compiled with, and the model is run with batch statistics
and without dropout; `of_loss` are options that say otherwise: `loss`, `loss_weights`,
`statistics`, `dropout`, `dtype` and `regularisation`, all as for `networks.as_loss`.  A score
changes nothing of the model.

Of batches that go on (an iterator, a generator, a data set without end) a score takes as many as
it needs.  Of batches that end (a list, stacked ones, a data set) those that look at one moment
(SNIP, in rounds too, and GraSP) take all and average over all examples; those that look ahead take
the first M + 1, since one step is one batch.

To add a score, write such a function and enter it in `SCORES`.
"""

import functools

from prosper_utils.lookahead import conditioning
from prosper_utils.lookahead.descent import (
    batch_list,
    ends,
    hessian_product,
    loss_and_gradient,
)
from prosper_utils.lookahead.meta_gradient import meta_gradient
from prosper_utils.lookahead.second_derivatives import check_structure
from prosper_utils.lookahead.streaming import (
    dense_diagonal,
    gauss_newton_diagonal,
    row_sums,
    streamed,
)
from prosper_utils.pruning.losses import is_cross_entropy
from prosper_utils.pruning.masks import top_k
from prosper_utils.pruning.mode import layers
from prosper_utils.pruning.networks import (
    as_logits,
    as_loss,
    kernel_indices,
    kernels,
)
from prosper_utils.pruning.paths import flow, passing

import keras
import numpy as np
import tensorflow as tf

OF_LOSS = {"loss", "loss_weights", "statistics", "dropout", "dtype", "regularisation"}


def random(model, batches=None, *, sparsity=None, seed=0, **of_loss):
    """Return uniform random scores: what any other score has to beat."""
    _expect_options(of_loss)
    generator = np.random.default_rng(seed)
    return [tf.constant(generator.random(k.shape), k.dtype) for k in kernels(model)]


def magnitude(model, batches=None, *, sparsity=None, seed=0, **of_loss):
    """Return `|w|`, the size of each weight as it is now."""
    _expect_options(of_loss)
    return [tf.abs(k.value) for k in kernels(model)]


def _expect_options(of_loss):
    """Raise a TypeError for an option that no score takes, where the score uses none of them."""
    unknown = set(of_loss) - OF_LOSS
    if unknown:
        raise TypeError(f"score: unexpected options {sorted(unknown)}, expected {sorted(OF_LOSS)}")


def snip(model, batches, *, sparsity=None, seed=0, **of_loss):
    r"""Return :math:`|w \odot \partial L / \partial w|`: SNIP (Lee et al., 2019), not normalised.

    Args:
        model, sparsity, seed, of_loss: as for `prospr`.
        batches: what ends, such as a list, is used to the end: the loss is the mean over all
            examples.  Of what does not end the first batch is used.
    """
    scored = kernel_indices(model)
    weights, loss = as_loss(model, **of_loss)
    listed = all_or_first(batches)
    check_structure(loss, weights, listed[0], order=1)
    gradient = mean(lambda batch: loss_and_gradient(loss, weights, batch)[1], listed)
    return [tf.abs(weights[i] * gradient[i]) for i in scored]


def grasp(model, batches, *, sparsity=None, seed=0, temperature=200.0, **of_loss):
    r"""Return :math:`w \odot H g`: GraSP (Wang et al., 2020).

    To first order it is half of what the squared norm of the gradient, and with it the speed of
    training, loses when the weight goes to zero.  It keeps its sign: the most negative goes first.

    Args:
        model, sparsity, seed, of_loss: as for `prospr`.
        batches: as for `snip`.
        temperature: the logits are divided by it, which evens out the probabilities; 200 as in the
            authors' code.  For a loss that is no cross-entropy it has to be 1.
    """
    scored = kernel_indices(model)
    weights, loss = as_loss(model, temperature=temperature, **of_loss)
    listed = all_or_first(batches)
    check_structure(loss, weights, listed[0])
    gradient = mean(lambda batch: loss_and_gradient(loss, weights, batch)[1], listed)
    vector = [g if i in scored else tf.zeros_like(g) for i, g in enumerate(gradient)]
    product = mean(lambda batch: hessian_product(loss, weights, batch, vector), listed)
    return [weights[i] * product[i] for i in scored]


def all_or_first(batches):
    """Return all batches of what ends, and of what does not the first one."""
    return batch_list(batches, None if ends(batches) else 1)


def _runs(batches, steps):
    """Return the batches of each run of M steps, a list of lists of M + 1.

    One run, of the first ones; without steps, where a run is a batch, all of what ends.
    """
    if steps:
        return [batch_list(batches, steps + 1)]
    return [[batch] for batch in all_or_first(batches)]


def mean(function, listed):
    """Return the mean over all examples of what a function of a batch returns, a list."""
    sizes = [len(tf.nest.flatten(batch)[0]) for batch in listed]
    if len(listed) == 1:
        return function(listed[0])
    shares = [size / sum(sizes) for size in sizes]
    found = [[s * t for t in function(b)] for s, b in zip(shares, listed, strict=True)]
    return [tf.add_n(parts) for parts in zip(*found, strict=True)]


def synflow(model, batches=None, *, sparsity, seed=0, rounds=100, **of_loss):
    r"""Return :math:`|w| \odot \partial R / \partial |w|` in the last of many rounds: SynFlow.

    It looks at no data (Tanaka et al., 2020), and only the network's activations, not its biases,
    are taken away before R is computed: the data-free pass has neither (see `paths.flow`).

    Args:
        model: any model that `paths.flow` takes; its weights are not changed.
        batches, seed, of_loss: not used.
        sparsity: the share to remove at the end, in [0, 1).
        rounds: how many rounds; the share that is kept falls by the same factor in each.
    """
    _expect_options(of_loss)
    total = flow(model)
    sizes = [tf.abs(tf.cast(k.value, tf.float64)) for k in kernels(model)]
    parts = tf.function(lambda kept: passing(total, kept), autograph=False)  # traced once

    def rule(masks):
        return parts([w * m for w, m in zip(sizes, masks, strict=True)])

    return iterative(rule, [w.shape for w in sizes], sparsity, rounds)


def prospr(
    model,
    batches,
    *,
    sparsity=None,
    seed=0,
    steps=3,
    learning_rate=0.1,
    momentum=0.0,
    method="reverse",
    **of_loss,
):
    r"""Return :math:`|\partial L_M(w_M) / \partial c|`: ProsPr (Alizadeh et al., 2022).

    Args:
        model: any built Keras 3 model; its weights are not changed.
        batches: at least M + 1 batches, as a list, stacked, a data set, or anything endless; the
            first M + 1 of them are used.  Without steps it is SNIP, which takes all of what ends.
        sparsity, seed: not used; every score takes them.
        steps: how many inner steps to look ahead (M); 0 is SNIP.
        learning_rate, momentum, method: as for `meta_gradient`.
        of_loss: which loss, and how the model is run, as for `networks.as_loss`.

    Returns:
        One tensor per kernel; biases take part in the steps but are not scored.

    Warns:
        conditioning.UndeterminedMask: where the float type of the model cannot hold the score, so
            that the mask is not determined; `dtype="float64"` scores any model in float64.

    Raises:
        ValueError: for negative `steps`, fewer than M + 1 batches, and whatever
            `meta_gradient` refuses.
    """
    if steps < 0:
        raise ValueError(f"steps: expected M >= 0, found {steps}")
    scored = kernel_indices(model)
    weights, loss = as_loss(model, **of_loss)
    options = {"learning_rate": learning_rate, "momentum": momentum, "method": method}
    if steps and method in ("reverse", "checkpointed"):
        double = None  # what is scored in float64 needs no other sweep to judge it
        if weights[0].dtype != tf.float64:
            double = as_loss(model, **of_loss | {"dtype": "float64"})
        options |= {"scored": scored, "sparsity": sparsity, "double": double}
        gradient = conditioning.checked(loss, weights, batch_list(batches, steps + 1), **options)
    else:
        runs = _runs(batches, steps)
        gradient = mean(lambda run: meta_gradient(loss, weights, run, **options), runs)
    return [tf.abs(gradient[i]) for i in scored]


def streamed_prospr(
    model, batches, *, curvature, sparsity=None, seed=0, steps=3, learning_rate=0.1, **of_loss
):
    r"""Return the streaming stand-in for ProsPr, :math:`|w \odot \prod_m \gamma_m \odot g|`.

    Args:
        curvature: function of the model that returns a curvature (see `streaming`).
        model, batches, sparsity, seed, steps, learning_rate, of_loss: as for `prospr`.
    """
    scored = kernel_indices(model)
    weights, loss = as_loss(model, **of_loss)
    taken = batch_list(batches, steps + 1)
    found = streamed(loss, weights, taken, learning_rate, curvature(model))
    return [tf.abs(found[i]) for i in scored]


def iterative_prospr(
    model,
    batches,
    *,
    sparsity,
    seed=0,
    rounds=5,
    steps=3,
    learning_rate=0.1,
    method="reverse",
    **of_loss,
):
    """Return the ProsPr score in the last of several rounds, the trajectory masked in between.

    In each round what earlier rounds have removed stays at zero through all M steps.

    Args:
        model, seed, steps, learning_rate, method, of_loss: as for `prospr`.
        batches: as for `prospr`; an endless supply gives new batches to every round, what ends
            the same ones.
        sparsity: the share to remove at the end, in [0, 1).
        rounds: how many rounds; the share that is kept falls by the same factor in each.
    """
    scored = kernel_indices(model)
    weights, loss = as_loss(model, **of_loss)
    in_force = [tf.Variable(tf.ones_like(w)) for w in weights]
    options = {"learning_rate": learning_rate, "method": method}
    masked_loss = _masked(loss, in_force)

    def rule(masks):
        for i, mask in zip(scored, masks, strict=True):
            in_force[i].assign(tf.cast(mask, weights[i].dtype))
        runs = _runs(batches, steps)
        gradient = mean(lambda run: meta_gradient(masked_loss, weights, run, **options), runs)
        return [tf.abs(gradient[i]) for i in scored]

    return iterative(rule, [weights[i].shape for i in scored], sparsity, rounds)


def _masked(loss, masks):
    """Return a loss of `networks.as_loss` in which the weights are multiplied by masks."""

    def masked(weights, batch):
        return loss([w * tf.cast(m, w.dtype) for w, m in zip(weights, masks, strict=True)], batch)

    masked.names, masked.layers = loss.names, loss.layers
    masked.in_float64 = lambda: _masked(loss.in_float64(), masks)
    return masked


def iterative_snip(model, batches, *, sparsity, seed=0, rounds=5, **of_loss):
    """Return the SNIP score in the last of several rounds.

    Such rounds are from de Jorge et al., 2021, and Verdenius et al., 2020.

    Args:
        model, sparsity, seed, rounds, of_loss: as for `iterative_prospr`.
        batches: as for `snip`, in each round: all of what ends, else the next one.
    """
    return iterative_prospr(
        model, batches, sparsity=sparsity, seed=seed, rounds=rounds, steps=0, **of_loss
    )


def iterative(rule, shapes, sparsity, rounds):
    r"""Prune in rounds, keeping :math:`(1 - \text{sparsity})^{r / \text{rounds}}` after round r.

    Args:
        rule: function from the masks so far (float64, ones and zeros) to one score per kernel.
        shapes: the shapes of the kernels.
        sparsity: the share to remove at the end, in [0, 1).
        rounds: how many rounds, at least 1.

    Returns:
        The scores of the last round, with -inf for what earlier rounds have removed.

    Raises:
        ValueError: for less than one round, or a sparsity outside [0, 1) or not given.
    """
    if rounds < 1:
        raise ValueError(f"rounds: expected at least 1, found {rounds}")
    if sparsity is None or not 0 <= sparsity < 1:
        raise ValueError(f"sparsity: a score in rounds needs one in [0, 1), found {sparsity}")
    masks = [tf.ones(shape, tf.float64) for shape in shapes]
    for r in range(1, rounds + 1):
        found = rule(masks)
        scores = [
            tf.where(m > 0, tf.cast(s, tf.float64), -np.inf)
            for s, m in zip(found, masks, strict=True)
        ]
        if r < rounds:
            chosen = top_k(scores, 1 - (1 - sparsity) ** (r / rounds))
            masks = [tf.cast(c, tf.float64) for c in chosen]
    return scores


def diagonal(model, batches, *, sparsity=None, seed=0, steps=10, learning_rate=0.1, **of_loss):
    """Return the score streamed with the curvature diag H, or the nearest that there is to it.

    Args:
        model, batches, sparsity, seed, steps, learning_rate, of_loss: as for `streamed_prospr`.

    Raises:
        ValueError: for whatever `curvature_diagonal` refuses.
    """
    options = {"steps": steps, "learning_rate": learning_rate}
    curvature = functools.partial(curvature_diagonal, **of_loss)
    return streamed_prospr(model, batches, curvature=curvature, **options, **of_loss)


def curvature_diagonal(model, *, regularisation=True, **of_loss):
    """Return the curvature diag H of a chain of dense layers; else the Gauss-Newton diagonal.

    The second one equals the first for ReLU networks; with other activations it leaves out a part.

    Args:
        model: a built Keras model.
        regularisation, of_loss: as for `networks.as_loss`.

    Raises:
        ValueError: for a loss other than the mean softmax cross-entropy of logits, of which alone
            these are the curvatures, with nothing added to it; and for batch statistics or dropout,
            under which an example has no curvature of its own.
    """
    plain = is_cross_entropy(model, of_loss.pop("loss", None))
    if not plain or of_loss.pop("loss_weights", None) is not None:
        raise ValueError(
            f"diagonal: expected the softmax cross-entropy of logits, without loss weights, model "
            f"{model.name!r} has another loss: give "
            "loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)"
        )
    if regularisation and model.losses:
        raise ValueError(
            f"diagonal: expected nothing added to the loss, found a penalty of model "
            f"{model.name!r}: give regularisation=False"
        )
    try:
        exact = dense_diagonal(model)
    except ValueError:
        _expect_examples_apart(model, **of_loss)
        exact = gauss_newton_diagonal(as_logits(model, **of_loss)[1])

    def curvature(loss, weights, batch):
        if len(batch) != 2:
            raise ValueError("diagonal: expected batches (x, y), found sample weights")
        x, y = batch
        return exact(loss, weights, (x, tf.reshape(y, [-1])))

    return curvature


def _expect_examples_apart(model, statistics="batch", dropout=False, **_):
    """Raise a ValueError if what a model returns for one example depends on the others."""
    found = [la for la in layers(model) if isinstance(la, keras.layers.BatchNormalization)]
    if dropout or (found and statistics == "batch"):
        names = ", ".join(repr(layer.name) for layer in found) or "dropout"
        raise ValueError(
            f"diagonal: expected examples that do not depend on each other, found {names} of model "
            f"{model.name!r} run as in training: give statistics='moving' and no dropout"
        )


SCORES = {
    "random": random,
    "magnitude": magnitude,
    "SNIP": snip,
    "GraSP": grasp,
    "SynFlow": synflow,
    "ProsPr": prospr,
    "ProsPr, M = 10": functools.partial(prospr, steps=10),
    "ProsPr, M = 100": functools.partial(prospr, steps=100),
    "first order": functools.partial(prospr, steps=10, method="first_order"),
    "row sums": functools.partial(streamed_prospr, steps=10, curvature=lambda model: row_sums),
    "diagonal": diagonal,
    "iterative SNIP": iterative_snip,
    "iterative ProsPr": iterative_prospr,
}
