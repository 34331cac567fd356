r"""Streaming: one elementwise factor per step in place of each Jacobian of the meta-gradient.

The meta-gradient multiplies by the matrices :math:`I - \alpha H_m` (see `meta_gradient`), last one
first, so it has to come back to every step.  Streaming replaces each matrix by the diagonal one of

.. math:: \gamma_m &= 1 - \alpha h_m, \\
          \text{score} &= w \odot \gamma_0 \odot \cdots \odot \gamma_{M-1} \\
                       & \quad \odot \nabla L_M(w_M),

which may be multiplied up in any order, so one pass in the direction of training and O(n) memory
are enough, whatever M is.  With :math:`h_m = \operatorname{diag} H_m` the score is exact if every
Hessian is diagonal, and an approximation otherwise.  What is taken for :math:`h_m` is a
*curvature*: a function (loss, weights, batch) -> list of tensors shaped like the weights.  Those of
this module are made of TensorFlow's operations, so a `tf.function` may call them too:
`streamed` runs steps and factors in compiled loops, where both share one gradient.
"""

import functools
import itertools
import math
from typing import NamedTuple

from prosper_utils.lookahead import loops
from prosper_utils.lookahead.chunks import (
    COPIED,
    chunks,
    fit,
    one,
    specs,
    stack,
    stacked_spec,
    uncopied,
)
from prosper_utils.lookahead.descent import (
    Packed,
    apart,
    batch_list,
    finite,
    float_tensors,
    hessian_product,
    is_stacked,
    loss_and_gradient,
    sgd,
)
from prosper_utils.lookahead.second_derivatives import check_structure
from prosper_utils.lookahead.trajectory import advance

import keras
import numpy as np
import tensorflow as tf

MOST_WEIGHTS = 2000
COUPLED = (
    "gauss_newton_diagonal: expected logits of one example that do not depend on the others in the "
    "batch, found some that do, as with batch normalisation by batch statistics or with dropout: "
    "take as_outputs(model, statistics='moving'), or another curvature"
)
ELEMENTWISE = {"linear", "relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "mish"}
ELEMENTWISE |= {"tanh", "sigmoid", "hard_sigmoid", "softplus", "softsign", "exponential"}


def row_sums(loss, weights, batch):
    """Return H 1, the sum of each row of the Hessian: *not* its diagonal.

    It is what the gradient of the gradient comes to, `tape.gradient(tape.gradient(L, w), w)`,
    because a tape differentiates the sum of what it is given.
    """
    return hessian_product(loss, weights, batch, [tf.ones_like(w) for w in weights])


def diagonal(loss, weights, batch):
    """Return diag H, exactly, by one Hessian product for each of the n weights.

    Raises:
        ValueError: for more than 2,000 weights, because it takes n Hessian products.
    """
    size = sum(w.shape.num_elements() for w in weights)
    if size > MOST_WEIGHTS:
        raise ValueError(
            f"diagonal: expected at most {MOST_WEIGHTS:,} weights for one Hessian product each, "
            f"found {size:,}: take dense_diagonal, gauss_newton_diagonal or hutchinson"
        )
    return split(_diagonal(loss, list(weights), batch), weights)


@loops.function(autograph=False)
def _diagonal(loss, weights, batch):
    """Return diag H as one vector: entry j of H times the unit vector j, for all j in one loop."""
    size = sum(w.shape.num_elements() for w in weights)

    def entry(j):
        unit = tf.one_hot(j, size, dtype=weights[0].dtype)
        return flat(hessian_product(loss, weights, batch, split(unit, weights)))[j]

    return tf.map_fn(entry, tf.range(size), fn_output_signature=weights[0].dtype)


def hutchinson(probes, seed):
    r"""Return a curvature: diag H as the mean of :math:`z \odot H z` (Hutchinson, 1990).

    The entries of a probe z are 1 or -1 with equal chance, so the estimate has the mean
    :math:`H_{ii}` and the variance :math:`\sum_{j \ne i} H_{ij}^2 / \text{probes}`.

    Args:
        probes: how many Hessian products to average, at least 1.
        seed: fixes the sequence of probes; every call draws the next ones.

    Raises:
        ValueError: for less than one probe.
    """
    if probes < 1:
        raise ValueError(f"hutchinson: expected at least 1 probe, found {probes}")
    generator = tf.random.Generator.from_seed(seed)

    def probe(weight):
        return tf.cast(2 * generator.uniform(weight.shape, 0, 2, tf.int32) - 1, weight.dtype)

    def curvature(loss, weights, batch):
        total = [tf.zeros_like(w) for w in weights]
        for _ in range(probes):
            z = [probe(w) for w in weights]
            product = hessian_product(loss, weights, batch, z)
            total = [t + s * p for t, s, p in zip(total, z, product, strict=True)]
        return [t / probes for t in total]

    curvature.generator = generator
    return curvature


@functools.cache
def _one_probe():
    return hutchinson(probes=1, seed=0)


def one_probe():
    """Return `hutchinson` with one probe and the seed 0, at the beginning of its sequence.

    It is the same function each time, so that loops which are compiled for it serve again.
    """
    _one_probe().generator.reset_from_seed(0)
    return _one_probe()


def gauss_newton_diagonal(logits):
    r"""Return a curvature: the diagonal of the Gauss-Newton matrix of the mean cross-entropy.

    For one example with logits z and probabilities p the softmax has the Hessian
    :math:`\operatorname{diag} p - p p^\top = \sum_y f_y f_y^\top` with
    :math:`f_y = \sqrt{p_y} (e_y - p)`, so the diagonal is
    :math:`\sum_y (\partial (f_y^\top z) / \partial w)^2` with :math:`f_y` held fixed: one backward
    pass per class and example.  It is never negative.  It equals diag H where the logits are
    piecewise linear in every single weight, as those of ReLU networks are, with convolutions and
    pooling too.

    Args:
        logits: function (weights, x) -> (B, classes), as `networks.as_outputs` gives it for a
            model that ends in logits.

    Returns:
        A curvature.  It takes x from the batch (x, y) and does not look at the loss, which has to
        be the mean softmax cross-entropy of these logits.  It raises a ValueError (inside a
        `tf.function` an InvalidArgumentError) where the logits of an example depend on the other
        examples, as with batch statistics: then no example has a Gauss-Newton matrix of its own.
    """

    def curvature(loss, weights, batch):
        squares, coupled = _squared_gradients(logits, list(weights), batch[0])
        _refuse(coupled, COUPLED)
        return squares

    return curvature


def _refuse(wrong, message):
    """Raise an error with the message if something is wrong, a boolean tensor."""
    if not tf.executing_eagerly():
        tf.debugging.Assert(~wrong, [message])
    elif wrong:
        raise ValueError(message)


@loops.function(autograph=False)
def _squared_gradients(logits, weights, x):
    """Return (the mean over examples of the sum over y of the squares, whether they are coupled).

    One example is taken at a time.  They are coupled if the logits of any are not those that it has
    in the batch.
    """
    together = logits(weights, x)
    bound = 1e-3 * tf.reduce_max(tf.abs(together))

    def add(found, i):
        total, coupled = found
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(weights)
            z = logits(weights, tf.nest.map_structure(lambda part: tf.gather(part, [i]), x))[0]
            p = tf.stop_gradient(tf.nn.softmax(z))
            along = tf.sqrt(p) * (z - tf.tensordot(p, z, 1))  # f_y . z for every class y
        rows = tape.jacobian(along, weights, unconnected_gradients="zero")
        total = [t + tf.reduce_sum(r**2, axis=0) for t, r in zip(total, rows, strict=True)]
        return total, coupled | (tf.reduce_max(tf.abs(z - together[i])) > bound)

    count = tf.shape(tf.nest.flatten(x)[0])[0]
    start = [tf.zeros_like(w) for w in weights], tf.constant(False)
    total, coupled = tf.foldl(add, tf.range(count), start)
    return [t / tf.cast(count, t.dtype) for t in total], coupled


def dense_diagonal(model):
    r"""Return a curvature: diag H of a chain of dense layers, by second-order backpropagation.

    With the sums :math:`z = W^\top a` plus biases of a layer, its activation :math:`\varphi` and
    :math:`\delta = \partial L / \partial z` of one example, the Hessian with respect to z follows
    from that of the next layer, whose quantities carry a plus:

    .. math:: H_z = {} & (\varphi'(z) \varphi'(z)^\top) \odot (W_+ H_+ W_+^\top) \\
                    & + \operatorname{diag}(\varphi''(z) \odot W_+ \delta_+),

    and then :math:`\partial^2 L / \partial W_{ij}^2 = a_i^2 (H_z)_{jj}`, all averaged over examples
    (after Becker and LeCun, 1989, who keep only the diagonal of :math:`H_z`; kept whole it is
    exact).

    Args:
        model: a built `keras.Sequential` of Flatten and Dense layers, with elementwise activations,
            that ends in the logits.

    Returns:
        A curvature.  It raises a ValueError (inside a `tf.function` an InvalidArgumentError) where
        the loss is not the mean softmax cross-entropy of the model, as with a penalty added.

    Raises:
        ValueError: for any other layer or activation, or weights that are not trained.
    """
    layers = _dense_layers(model)
    flatten = [layer for layer in model.layers if layer not in layers]

    def curvature(loss, weights, batch):
        x, labels = batch
        kernels, start = [], 0
        for layer in layers:
            kernels.append(weights[start])
            start += 1 + layer.use_bias
        a = functools.reduce(lambda a, layer: layer.call(a), flatten, tf.cast(x, weights[0].dtype))
        inputs, sums, logits = _forward(layers, weights, a)
        _refuse_other(loss(list(weights), batch), logits, labels)
        p = tf.nn.softmax(logits)
        slope = p - tf.one_hot(tf.cast(labels, tf.int64), p.shape[-1], dtype=p.dtype)
        hessian = tf.linalg.diag(p) - p[:, :, None] * p[:, None, :]
        found = []
        for i, layer in reversed(list(enumerate(layers))):
            if i < len(layers) - 1:  # from the next sums back to the output of this layer
                slope = slope @ tf.transpose(kernels[i + 1])
                hessian = tf.einsum("iu,buv,jv->bij", kernels[i + 1], hessian, kernels[i + 1])
            first, second = _derivatives(layer.activation, sums[i])
            hessian = first[:, :, None] * hessian * first[:, None, :]
            hessian += tf.linalg.diag(second * slope)
            slope = first * slope
            found = _moments(inputs[i], tf.linalg.diag_part(hessian), layer.use_bias) + found
        return found

    return curvature


def _dense_layers(model):
    """Return the Dense layers of a Sequential; raise a ValueError if it has anything else."""
    if not isinstance(model, keras.Sequential) or not model.built:
        raise ValueError("dense_diagonal: expected a built keras.Sequential")
    layers = [layer for layer in model.layers if type(layer) is not keras.layers.Flatten]
    for layer in layers:
        if type(layer) is not keras.layers.Dense or len(layer.input.shape) != 2:
            raise ValueError(
                "dense_diagonal: expected Flatten and then Dense layers only, "
                f"found {type(layer).__name__} {layer.name!r}"
            )
        if getattr(layer.activation, "__name__", "") not in ELEMENTWISE:
            raise ValueError(
                f"dense_diagonal: expected an elementwise activation in {layer.name!r}, one of "
                f"{', '.join(sorted(ELEMENTWISE))}; found {layer.activation}"
            )
        if not layer.trainable:
            raise ValueError(f"dense_diagonal: expected trainable weights in {layer.name!r}")
    return layers


def _refuse_other(value, logits, labels):
    """Raise an error unless the value of a loss is the mean softmax cross-entropy of the logits."""
    labels = tf.cast(labels, tf.int64)
    mean = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    _refuse(
        tf.abs(tf.cast(value, mean.dtype) - mean) > 1e-4 * tf.abs(mean) + 1e-6,
        "dense_diagonal: expected the mean softmax cross-entropy of the model's logits as loss, "
        "found another value, as with a penalty: take as_loss(model, regularisation=False), or "
        "another curvature",
    )


def _forward(layers, weights, a):
    """Return the inputs and the sums (before activation) of each layer, and the logits."""
    weights, inputs, sums = list(weights), [], []
    for layer in layers:
        inputs.append(a)
        z = a @ weights.pop(0)
        sums.append(z + weights.pop(0) if layer.use_bias else z)
        a = layer.activation(sums[-1])
    return inputs, sums, a


def _derivatives(activation, z):
    """Return the first and the second derivative of an elementwise function at z."""
    with tf.GradientTape() as outer:
        outer.watch(z)
        with tf.GradientTape() as inner:
            inner.watch(z)
            a = activation(z)
        first = inner.gradient(a, z)
    return first, outer.gradient(first, z, unconnected_gradients="zero")


def _moments(a, curved, use_bias):
    """Return diag H of kernel and bias from the inputs a and the diagonal of each :math:`H_z`."""
    kernel = tf.transpose(a**2) @ curved / len(a)
    return [kernel, tf.reduce_mean(curved, axis=0)] if use_bias else [kernel]


class Running(NamedTuple):
    """The product of the factors so far in both forms, lists of tensors shaped like the weights."""

    products: list
    signs: list
    logs: list


def factors(loss, weights, batch, learning_rate, curvature):
    r"""Return :math:`\gamma_m = 1 - \alpha h_m`, a list of tensors shaped like the weights.

    Raises:
        ValueError: if the curvature does not fit the weights.
    """
    curved = [tf.convert_to_tensor(c) for c in curvature(loss, list(weights), batch)]
    shapes = [w.shape for w in weights], [c.shape for c in curved]
    if len(curved) != len(shapes[0]) or not all(map(tf.TensorShape.is_compatible_with, *shapes)):
        expected, found = ([tuple(s) for s in part] for part in shapes)
        raise ValueError(f"curvature: expected shapes {expected}, found {found}")
    return [
        1 - learning_rate * tf.ensure_shape(c, s) for c, s in zip(curved, shapes[0], strict=True)
    ]


def times(running, gamma):
    """Return the `Running` product with one factor more."""
    product, sign, log = (zip(part, gamma, strict=True) for part in running)
    return Running(
        # no_nan: zero even where the product has overflowed
        [tf.math.multiply_no_nan(p, f) for p, f in product],
        [s * tf.sign(f) for s, f in sign],
        [total + tf.math.log(tf.abs(f)) for total, f in log],
    )


@functools.lru_cache(maxsize=16)
def compiled(loss, curvature, weights, batch):
    """Return one compiled loop that makes the steps of a chunk and takes up their factors.

    Gradient and curvature stand in one graph, so what they have in common is computed once:
    for a Hessian product that is the whole gradient.

    Args:
        loss, curvature: the functions.
        weights, batch: a `tf.TensorSpec` for each tensor of the weights, and of a batch.
    """
    rate, running = tf.TensorSpec([], weights[0].dtype), Running(*[list(weights)] * 3)
    whole = loss.restore if isinstance(loss, Packed) else lambda parts: parts
    loss = loss.loss if isinstance(loss, Packed) else loss

    @loops.function(
        input_signature=[
            rate,
            (weights, running),
            tf.nest.map_structure(stacked_spec, batch),
        ]
    )
    def follow(rate, state, part):
        def step(state, parts):
            (weights, running), batch = state, whole(parts)
            gamma = factors(loss, weights, batch, rate, curvature)
            (moved,) = sgd(loss, rate)((weights,), batch)
            return moved, times(running, gamma)

        return advance(step, state, part)

    return follow


class StreamingGamma:
    r"""The running product of :math:`\gamma_m = 1 - \alpha h_m`, and its logarithm.

    The product and the sum of :math:`\log |\gamma_m|` with the sign say the same until the product
    leaves the range of its float type; the sum does not leave it.  A factor of zero makes the
    product zero, the sign zero and the sum -inf, and they stay so.

    Args:
        loss: function (weights, batch) -> scalar tensor.
        weights: list of tensors; only their shapes and float type matter here.
        learning_rate: the step size of the inner steps (alpha).
        curvature: function (loss, weights, batch) -> list of tensors shaped like the weights.
    """

    def __init__(self, loss, weights, learning_rate, curvature):
        weights = float_tensors(weights)
        self.loss, self.learning_rate, self.curvature = loss, learning_rate, curvature
        self.steps = 0
        ones = [tf.ones_like(w) for w in weights]
        self._running = Running(ones, ones, [tf.zeros_like(w) for w in weights])

    def update(self, weights, batch):
        """Take up the factor of the step that is about to be made, before the weights move.

        Args:
            weights: :math:`w_m`, from which the step on this batch starts.
            batch: the batch of the step.

        Raises:
            ValueError: if the curvature does not fit the weights, or is NaN or infinite, and for
                a call from inside a `tf.function`.
        """
        loops.expect_eager("StreamingGamma.update")
        weights = self._fitting(weights)
        gamma = factors(self.loss, weights, batch, self.learning_rate, self.curvature)
        for i, factor in enumerate(gamma):
            if not tf.reduce_all(tf.math.is_finite(factor)):
                raise ValueError(
                    f"curvature: expected finite numbers for weights[{i}] in step {self.steps}, "
                    "found NaN or infinite ones: try a smaller learning rate"
                )
        self._running = times(self._running, gamma)
        self.steps += 1

    def follow(self, weights, batches, count=None):
        r"""Make one step of gradient descent per batch, and take up the factor of each.

        It does what `update` and a step in turn do, in compiled loops (see `chunks`), in which
        gradient and curvature share what they have in common.  So the curvature has to be made of
        TensorFlow's operations: other Python code in it runs once, not in every step.

        Args:
            weights: :math:`w_m`, a list of tensors, from which the first step starts.
            batches: batches in any form that `meta_gradient` takes.
            count: how many of them, the first ones; None takes all.

        Returns:
            The weights after the last step, a list.

        Raises:
            ValueError: as `update` does, for a count of more batches than there are, or if the
                curvature cannot be traced; nothing is taken up then.
        """
        loops.expect_eager("StreamingGamma.follow")
        loops.expect_compiled()
        first, given = tuple(self._fitting(weights)), batch_list(batches)
        loss, batches, listed = fit(self.loss, batches, given)
        count = len(listed) if count is None else count
        if not 0 <= count <= len(listed):
            raise ValueError(f"count: expected a number from 0 to {len(listed)}, found {count}")
        rate, failed = tf.constant(self.learning_rate, first[0].dtype), None
        state = first, self._running
        try:
            at_least = count if uncopied(batches) else COPIED
            for part in map(stack, chunks(batches, end=count, at_least=at_least)):
                run = compiled(loss, self.curvature, specs(first), one(part))
                state = run(rate, state, part)
        except tf.errors.InvalidArgumentError as problem:
            failed = problem
        except (AttributeError, NotImplementedError, TypeError) as problem:
            raise ValueError(
                "curvature: expected a function that a tf.function can trace, found one that ends "
                f"in {type(problem).__name__}: write it with TensorFlow's operations, or take "
                "`update`, step by step"
            ) from problem
        last, running = state
        # A factor that is NaN or infinite leaves such a sum; one of zero leaves -inf.
        if failed or not all(tf.reduce_all(total < math.inf) for total in running.logs):
            self._explain(first, given[:count])
            raise ValueError(
                f"curvature: expected {count} finite ones, found NaN or infinite numbers, or none "
                "(see above): try a smaller learning rate"
            ) from failed
        self._running, self.steps = running, self.steps + count
        return list(last)

    def _fitting(self, given, name="weights"):
        """Return weights, or a gradient, as tensors; raise a ValueError unless they fit."""
        tensors = apart(given)
        expected, found = (
            ", ".join(f"{tuple(t.shape)} of {t.dtype.name}" for t in part) or "none"
            for part in (self._running.products, tensors)
        )
        if found != expected:
            raise ValueError(f"{name}: expected tensors {expected}, found {found}")
        return tensors

    def _read(self, weights_0, gradient):
        return self._fitting(weights_0, "weights_0"), self._fitting(gradient, "gradient")

    def _explain(self, weights, batches):
        """Repeat the steps one at a time, so that the one that fails raises its own ValueError."""
        again = StreamingGamma(self.loss, weights, self.learning_rate, self.curvature)
        again.steps, step = self.steps, sgd(self.loss, self.learning_rate)
        for batch in batches:
            again.update(weights, batch)
            (weights,) = step((weights,), batch)

    def product(self):
        """Return the product of all factors so far; it may have under- or overflowed."""
        return list(self._running.products)

    def sign(self):
        """Return the sign of the product: -1, 0 or 1."""
        return list(self._running.signs)

    def log_product(self):
        r"""Return :math:`\sum_m \log |\gamma_m|`: log of the size of the product, -inf for zero."""
        return list(self._running.logs)

    def scores(self, weights_0, gradient):
        r"""Return the streamed stand-in for the meta-gradient, with its sign.

        It is :math:`w \odot \prod_m \gamma_m \odot g`.

        Raises:
            ValueError: if weights or gradient do not fit the product.
        """
        terms = zip(*self._read(weights_0, gradient), self._running.products, strict=True)
        return [tf.math.multiply_no_nan(p, w * g) for w, g, p in terms]

    def log_scores(self, weights_0, gradient):
        r"""Return the logarithm of the size of `scores`: rank by it; -inf for a score of zero.

        It is :math:`\log |w| + \log |g| + \sum_m \log |\gamma_m|`.

        Raises:
            ValueError: as `scores` does.
        """
        terms = zip(*self._read(weights_0, gradient), self._running.logs, strict=True)
        return [tf.math.log(tf.abs(w)) + tf.math.log(tf.abs(g)) + s for w, g, s in terms]


def streamed(loss, weights, batches, learning_rate, curvature):
    r"""Return the streaming stand-in for the meta-gradient: M steps of SGD, gamma alongside.

    Args:
        loss: function (weights, batch) -> scalar tensor.
        weights: list of tensors, all of one float type: the initial weights, biases included.
        batches: M + 1 batches as for `meta_gradient`; the last one is the outer batch.
        learning_rate: the step size of the inner steps (alpha).
        curvature: function (loss, weights, batch) -> list of tensors shaped like the weights.

    Returns:
        A list of tensors, one per weight and of its shape,
        :math:`w \odot \prod_m \gamma_m \odot g`.

    Raises:
        ValueError: for bad weights or batches, for what `second_derivatives.check_structure`
            refuses, where curvature, loss or gradient are not finite, and for a call from inside
            a `tf.function`.
    """
    loops.expect_eager("streamed")
    initial, listed = float_tensors(weights), batch_list(batches)
    count = len(listed) - 1
    check_structure(loss, initial, listed[-1], order=min(count + 1, 2))
    gamma = StreamingGamma(loss, initial, learning_rate, curvature)
    last = gamma.follow(initial, batches if is_stacked(batches) else listed, count)
    value, gradient = loss_and_gradient(loss, last, listed[-1])
    if not finite(value, *gradient):
        raise ValueError(
            f"expected a finite outer loss and gradient, found the loss {float(value)} after "
            f"{count} inner steps: try a smaller learning rate, and look for NaN in the batch"
        )
    return gamma.scores(initial, gradient)


def step_errors(loss, weights, batches, learning_rate, curvature):
    r"""Return what each step adds to the relative error of `streamed`; the sum is a bound on it.

    With :math:`\Gamma_m = \gamma_0 \odot \cdots \odot \gamma_{m-1}` and the exact cotangents
    :math:`v_m = (I - \alpha H_m) v_{m+1}` the scores :math:`w \odot \Gamma_m \odot v_m` go from the
    exact one at m = 0 to the streamed one at m = M, one factor at a time.  So the norms of their
    differences add up to a bound on its distance, which needs no small learning rate:

    .. math:: & \lVert \text{streamed} - \text{exact} \rVert \\
              & \le \sum_m \alpha \, \lVert w \odot \Gamma_m \\
              & \quad \odot (H_m - \operatorname{diag} h_m) \, v_{m+1} \rVert .

    Args:
        loss, weights, batches, learning_rate, curvature: as for `streamed`.  The 2 M lists of
            weights and factors of all steps are kept.

    Returns:
        An array of M numbers, the terms of the sum divided by the norm of the exact score.

    Raises:
        ValueError: as `streamed` does for weights, batches and curvature, and where a term or the
            quotient is not finite.
    """
    loops.expect_eager("step_errors")
    initial, listed = float_tensors(weights), batch_list(batches)
    check_structure(loss, initial, listed[-1], order=min(len(listed), 2))
    step, path, gammas = sgd(loss, learning_rate), [tuple(initial)], []
    for batch in listed[:-1]:
        gammas.append(factors(loss, path[-1], batch, learning_rate, curvature))
        path += step((path[-1],), batch)
    _, v = loss_and_gradient(loss, path.pop(), listed[-1])
    streams = list(itertools.accumulate(gammas, _product, initial=initial))  # w * Gamma_m
    terms = []
    for m in reversed(range(len(gammas))):
        curved = hessian_product(loss, path[m], listed[m], v)
        before = [a - learning_rate * h for a, h in zip(v, curved, strict=True)]
        missed = [a - b for a, b in zip(_product(gammas[m], v), before, strict=True)]
        terms.append(tf.linalg.global_norm(_product(streams[m], missed)))
        v = before
    size = tf.linalg.global_norm(_product(initial, v)).numpy()
    if size == 0 or not np.all(np.isfinite([size, *terms])):
        raise ValueError(
            "step_errors: expected finite terms, and an exact score that is not zero, found "
            f"{np.array(terms[::-1])}, and {size}: try a smaller learning rate"
        )
    return np.array(terms[::-1]) / size


def _product(a, b):
    """Return the product of two lists of tensors, entry by entry."""
    return [x * y for x, y in zip(a, b, strict=True)]


def flat(tensors):
    """Return the entries of all tensors as one vector."""
    return tf.concat([tf.reshape(t, [-1]) for t in tensors], axis=0)


def split(vector, tensors):
    """Return the entries of one vector as a list of tensors shaped like `tensors`."""
    parts = tf.split(vector, [t.shape.num_elements() for t in tensors])
    return [tf.reshape(p, t.shape) for p, t in zip(parts, tensors, strict=True)]
