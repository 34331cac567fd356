r"""The earlier attempt and the paper: each statement of theirs, with its verdict.

The README of the attempt replaces the backpropagation through M training steps by a product of
factors.  On a network that the authors of the paper have scored it is evaluated as it is written,

.. math:: \frac{\partial L(w_M)}{\partial w_M} \, \gamma_1 \gamma_2 \cdots \gamma_M
          \cdot w_{\text{init}} ,

in both orders, and with the Hessian of each factor at every place that the README can mean.  The
other statements are decided by stored results, and no verdict is written here by hand.
"""

import functools
import itertools
from typing import NamedTuple

from prosper_utils.lookahead import streaming
from prosper_utils.lookahead.descent import loss_and_gradient
from prosper_utils.lookahead.meta_gradient import meta_gradient
from prosper_utils.lookahead.streaming import flat, streamed
from prosper_utils.pruning import networks
from prosper_utils.study import arms, verdicts
from prosper_utils.study.arms import BOTH, CELLS, DENSE, HIGH, LENET, LENET_CELLS, SPARSITIES
from prosper_utils.study.checks import relative_error
from prosper_utils.study.verdicts import claims, graded, untestable

import numpy as np
import tensorflow as tf

STREAMS = ("row sums", "diagonal")
EXACT = 1e-10  # what counts as equal, in float64


class Reference(NamedTuple):
    """A network that the authors' code has scored: its loss, weights, batches, and the cases."""

    loss: object
    weights: list
    batches: list
    cases: list


def reference(stored):
    """Return the `Reference` of a stored file of the authors' scores, in float64.

    Args:
        stored: its `"kernels"`, `"biases"`, `"batches"` and `"cases"`; two layers, tanh between.
    """
    pairs = zip(stored["kernels"], stored["biases"], strict=True)
    weights = [tf.constant(t, tf.float64) for pair in pairs for t in pair]
    batches = [
        (tf.constant(b["inputs"], tf.float64), tf.constant(b["labels"])) for b in stored["batches"]
    ]

    def loss(w, batch):
        hidden = tf.tanh(batch[0] @ w[0] + w[1])
        return networks.cross_entropy(hidden @ w[2] + w[3], batch[1])

    return Reference(loss, weights, batches, stored["cases"])


def off(known, momentum, **options):
    """Return the largest relative error of our meta-gradient from the authors' scores.

    Args:
        known: a `Reference`.
        momentum: that of the cases to compare.
        options: as for `meta_gradient`.
    """
    errors = []
    for case in known.cases:
        if (case["momentum"], case["method"]) == (momentum, "full"):
            few = known.batches[: case["steps"] + 1]
            at = {"learning_rate": case["learning_rate"], "momentum": momentum}
            ours = meta_gradient(known.loss, known.weights, few, **at, **options)
            errors.append(relative_error([tf.abs(ours[0]), tf.abs(ours[2])], case["scores"]))
    return max(errors)


def hessian(loss, weights, batch):
    """Return the Hessian of all weights together, n by n."""
    with tf.GradientTape() as outer:
        outer.watch(weights)
        with tf.GradientTape() as inner:
            inner.watch(weights)
            value = loss(weights, batch)
        slope = flat(inner.gradient(value, weights))
    blocks = [tf.reshape(b, [slope.shape[0], -1]) for b in outer.jacobian(slope, weights)]
    return tf.concat(blocks, axis=1)


def readings(known, learning_rate=0.5, steps=3):
    """Return the relative error of the README's formula in each of its readings, {reading: error}.

    The readings are `"last first"` and `"first first"` (the order of the factors), `"after the
    update"` and `"counted from 1"` (where each Hessian is taken), `"running product"` (one matrix
    that takes in a factor a step), `"column by column"` and `"two tapes"` (how the diagonal of the
    first factor is computed); and `"entries"` is how many numbers there are if "·" is a product of
    a row and a column.

    Args:
        known: a `Reference`.
        learning_rate, steps: of the descent.
    """
    loss, weights, batches = known.loss, known.weights, known.batches[: steps + 1]
    path, w_init = [weights], flat(weights).numpy()
    for batch in batches[:-1]:
        _, slope = loss_and_gradient(loss, path[-1], batch)
        path.append([w - learning_rate * s for w, s in zip(path[-1], slope, strict=True)])
    g = flat(loss_and_gradient(loss, path[-1], batches[-1])[1]).numpy()
    exact = flat(meta_gradient(loss, weights, batches, learning_rate=learning_rate))
    of = tf.function(functools.partial(hessian, loss))

    def factor(w, batch):
        return np.eye(len(g)) - learning_rate * of(w, batch).numpy()

    def error(factors):
        return relative_error([functools.reduce(np.matmul, factors, g) * w_init], [exact])

    *before, late = [factor(w, b) for w, b in zip(path, batches, strict=True)]
    after = [factor(w, b) for w, b in zip(path[1:], batches[:-1], strict=True)]
    running = functools.reduce(lambda product, gamma: gamma @ product, before)
    diagonals = [
        1 - learning_rate * flat(curvature(loss, weights, batches[0])).numpy()
        for curvature in (streaming.diagonal, streaming.row_sums)
    ]
    by_columns, by_tapes = (relative_error([d], [np.diag(before[0])]) for d in diagonals)
    return {
        "last first": error(before[::-1]),
        "first first": error(before),
        "after the update": error(after[::-1]),
        "counted from 1": error([*before[1:], late][::-1]),
        "running product": relative_error([g @ running * w_init], [exact]),
        "column by column": by_columns,
        "two tapes": by_tapes,
        "entries": np.size(g @ running @ w_init),
    }


def exact_where_diagonal(seed=0, outputs=10, steps=3):
    """Return whether streaming is exact for one weight per output and one loss per output."""
    draw = np.random.default_rng(seed)
    weights = [tf.constant(draw.normal(size=outputs))]
    pairs = [
        (draw.normal(size=(64, outputs)), draw.integers(0, outputs, 64)) for _ in range(steps + 1)
    ]

    def logistic(w, batch):
        x, y = batch
        bits = tf.one_hot(y, outputs, dtype=tf.float64)
        each = tf.nn.sigmoid_cross_entropy_with_logits(bits, w[0] * x)
        return tf.reduce_mean(tf.reduce_sum(each, axis=1))

    whole = meta_gradient(logistic, weights, pairs, learning_rate=0.5)
    return all(
        relative_error(streamed(logistic, weights, pairs, 0.5, curvature), whole) < EXACT
        for curvature in (streaming.row_sums, streaming.diagonal)
    )


def memory(away):
    """Return the verdict: must the algorithm keep everything?

    Args:
        away: {method: how far it is from the authors' scores}.
    """
    stored = arms.stored("bench_memory")
    stored = stored[(stored.network == LENET) & (stored.momentum == 0)]
    stored = stored[stored.steps == 300].set_index("method")
    copies = stored.bytes_per_step_and_weight / 4
    evidence = "LeNet-5, M = 300, copies of the weights a step: "
    evidence += ", ".join(f"{name} {copies[name]:.2g}" for name in away)
    less = copies.checkpointed < copies.reverse < 2 < copies.unrolled
    if less and max(away.values()) < EXACT:
        return verdicts.Verdict("fails", "checkpoints suffice", evidence)
    return graded({"": True}, evidence)


def formula(condition, right, wrong, what="at M = 3"):
    """Return the verdict: exact on a condition, with its error, and off if read otherwise."""
    evidence = f"else {wrong:.0%} off, {what}"
    return graded({condition: right < EXACT, "": wrong < EXACT}, evidence)


def released(plain, momentum, constant):
    """Return the verdict: does the public code compute the meta-gradient?

    Args:
        plain, momentum: how far ours is from the authors' scores without and with momentum.
        constant: the same with momentum, where the first buffer is held constant.
    """
    evidence = f"μ = 0.9: ours is off by up to {momentum:.0%}, and by "
    evidence += f"{constant:.0e} with its first buffer held constant"
    return graded({"μ = 0": plain < EXACT, "μ = 0.9": momentum < EXACT}, evidence)


def stand_in(in_one_pass, where_diagonal):
    """Return the verdict: may a running product stand for the product of Jacobians?

    Args:
        in_one_pass: whether the running product of matrices is exact.
        where_diagonal: whether streaming is, where every Hessian is diagonal.
    """
    stored = arms.stored("streaming_errors")
    score = stored.score.replace("Gauss-Newton", "diagonal")
    at = ["network", "activation", "alpha", "steps"]
    share = stored.groupby([*at, score]).iou_98.mean().unstack()
    streams = share.xs(30, level="steps")[[*STREAMS]]
    evidence = "elementwise, on our networks, M = 30, at 98%: at most "
    evidence += f"{streams.max().max():.0%} of the exact mask"
    equal = {"γ is n by n": in_one_pass, "every Hessian is diagonal": where_diagonal}
    return graded(equal | {"elementwise": streams.min().min() > 0.99}, evidence)


def growth():
    """Return the stored norms of streamed and exact scores, without the run whose network dies."""
    rows = arms.stored("streaming_growth")
    return rows[rows.first_order > -99]  # a power of ten


def logarithms(seed=0):
    """Return the verdict: do sums of logarithms prevent underflow?"""
    draw = np.random.default_rng(seed)
    rates = draw.uniform(0.97, 0.985, size=(1, 100))  # one for each weight
    factors = rates * draw.uniform(0.999, 1.001, size=(10_000, 100))
    logs = np.sum(np.log(factors.astype("float32")), axis=0)
    best = [{*np.argsort(x)[-10:]} for x in (logs, np.prod(factors, axis=0))]
    end = growth()[growth().steps == 3000].set_index("gamma")
    share = end.underflow["row sums"]
    evidence = f"row sums, M = 3,000: {share.min():.0%} to "
    evidence += f"{share.max():.0%} of the products underflow"
    safe = {"one ranks by the sums": best[0] == best[1]}
    return graded(safe | {"one takes their exponential": np.any(np.exp(logs))}, evidence)


def explosions():
    """Return the verdict: does streaming meet no collapse and no explosion?"""
    rows = growth()
    end = rows[rows.steps == 3000].set_index("gamma")
    ends = {g: end.streamed[g] for g in STREAMS} | {"exact": end.exact["diagonal"]}
    evidence = "norm after 3,000 steps, powers of ten: " + "; ".join(
        f"{name} {e.min():.0f} to {e.max():.0f}" for name, e in ends.items()
    )
    sizes = rows.groupby("gamma").streamed
    tame = (sizes.max() < 1) & (sizes.min() > -4)
    return graded({f"γ has the {name}": tame[name] for name in STREAMS}, evidence)


def beats(kind, network, activations, sparsities):
    """Return the verdict: do both streamed masks have lower error than random ones?

    Args:
        kind: `"random"`, over all weights, or `"shuffled"`, of the same counts in each layer.
        network, activations, sparsities: where.
    """
    family, cells = {}, list(itertools.product(activations, sparsities))
    for (a, s), name in itertools.product(cells, STREAMS):
        rival = (name, "shuffled") if kind == "shuffled" else (kind,)
        family[a, s, name] = arms.minus((network, a, name), (network, a, *rival), s)
    found, means = verdicts.lower(family), [f.mean for f in family.values()]
    both = {c: verdicts.together(found[*c, name] for name in STREAMS) for c in cells}
    ends = f"{min(means):+.1f} to {max(means):+.1f}"
    return graded(both, f"streams − {kind}: points from {ends}", arms.in_words)


def looking_ahead(network):
    """Return the verdict: has looking ahead in one shot a lower error than SNIP?"""
    lengths = {"M = 3": "ProsPr", "M = 100": "ProsPr, M = 100"}
    high = HIGH if network == DENSE else HIGH[:2]
    family = {
        (network, a, m, s): arms.minus((network, a, lengths[m]), (network, a, "SNIP"), s)
        for a, m, s in itertools.product(BOTH, lengths, high)
    }
    return arms.lower(family, "ProsPr − SNIP")


def first_order():
    """Return the verdict: is leaving out the Hessians cheap, and does the mask stay?"""
    stored = arms.stored("streaming_errors")
    stored = stored[stored.score == "first order"]
    at = ["alpha", "steps", "network", "activation"]
    share = stored.groupby(at).iou_98.mean().groupby(at[:2]).min()
    share.index = [f"α = {a:g} and M = {m}" for a, m in share.index]
    times = arms.stored("bench_times")
    price = times[times.momentum == 0].groupby("method").ratio.max()
    evidence = f"{price['first_order']:.1f} times plain steps (exact: "
    evidence += f"{price['reverse']:.1f}); of the exact mask at 98% "
    evidence += f"{share.max():.0%} down to {share.min():.0%}"
    return graded((share > 0.8) & (price["first_order"] < 1.5), evidence)


def without_hessians():
    """Return first order minus exact, {(activation, M, sparsity): `Interval`}, at one rate."""
    names = {"M = 10": "first order", "M = 100": "first order, M = 100"}
    return {
        (a, m, s): arms.minus((DENSE, a, names[m]), (DENSE, a, f"ProsPr, {m}", "small steps"), s)
        for a, m, s in itertools.product(BOTH, names, HIGH)
    }


README = """
R1.1 It holds an attempt at ProsPr in TensorFlow | -
R1.2 It mainly follows the paper's mathematics | -
R1.3 For want of means: MNIST, a dense network and LeNet-5 | -
R1.4 It reuses code of a book | -
R2.1 It is an alternative version of the paper's algorithm | -
R2.2 The paper makes M steps, then takes the gradient by c | 03 live
R2.3 For that, all variables and steps must be kept | 03 07 bench_memory
R2.4a It is the last gradient, a row, times all Jacobians γ … | 02 live
R2.4b … in a product from m = 1 to M … | 02 live
R2.4c … and then "·" the initial weights | 02 live
R2.5a A step's γ can be computed after its update … | 02 live
R2.5b … and only the product of all kept … | 05 streaming_errors
R2.5c … or logarithms, against underflow | 04 streaming_growth
R2.6a Autodiff gives γ = 1 − α ∂²L/∂w² … | 04 live
R2.6b … at the weights and batch numbered m: R2.4's γ | 02 live
R2.7 Gradients then neither collapse nor explode | 06 streaming_growth
R3.1 The author hopes it is correct, and cannot check it | -
R3.2a It definitely beats random pruning, LeNet-300-100 | 08 10 pruning
R3.2b The same, LeNet-5 | 09 10 pruning
R3.2c (ours) And random of the same counts, LeNet-300-100 | 10 pruning
R3.2d (ours) The same, LeNet-5 | 10 pruning
"""
PAPER = """
A1 The public code has the meta-gradient | 03 live
A2 Looking ahead beats SNIP, LeNet-300-100 | 08 pruning
A3 Looking ahead beats SNIP, LeNet-5 | 09 pruning
A4 One shot is enough | 10 pruning
A5 Little data is enough | 08 pruning
A6 First order has nearly the same mask | 05 streaming_errors
A7 First order is no worse after training | 10 pruning
"""


def readme(known):
    """Return the `Claim` list of the README, from a `Reference` and the stored results."""
    away = {m: off(known, 0, method=m) for m in ("unrolled", "reverse", "checkpointed")}
    error = readings(known)
    right, one_number = error["last first"], error["entries"] == 1
    number = "as a product of a row and a column it is one number"
    grid = (DENSE, BOTH, SPARSITIES), (LENET, BOTH[1:], SPARSITIES[1:])
    return claims(
        README,
        untestable("the page is here, the code is not"),
        untestable("an intention; what is followed is R2.4 to R2.6"),
        untestable("a choice, which is ours, too"),
        untestable("the code is not here"),
        untestable("a name; whether it computes the same is R2.5b"),
        graded({"": away["unrolled"] < EXACT}, "their scores, to 1e-10"),
        memory(away),
        graded({"": right < EXACT}, "read as below: exact to 1e-10"),
        formula("the last factor is on the left", right, error["first first"]),
        graded({"it is entry by entry": right < EXACT, "": not one_number}, number),
        formula("the old weights are kept", right, error["after the update"]),
        stand_in(error["running product"] < EXACT, exact_where_diagonal()),
        logarithms(),
        formula("taken column by column", error["column by column"], error["two tapes"], "step 0"),
        formula("m counts from 0", right, error["counted from 1"]),
        explosions(),
        untestable("a hope; this book is the check"),
        *(beats(k, *g) for k in ("random", "shuffled") for g in grid),
    )


def paper(known):
    """Return the `Claim` list of the paper, from a `Reference` and the stored results."""
    held = off(known, 0.9, momentum_start="as_released")
    rounds = arms.versus("ProsPr", "iterative ProsPr", [*CELLS, *LENET_CELLS])
    return claims(
        PAPER,
        released(off(known, 0, method="reverse"), off(known, 0.9), held),
        *(looking_ahead(DENSE), looking_ahead(LENET)),
        arms.no_worse(rounds, "once − in rounds"),
        arms.no_worse(arms.versus("ProsPr", "SNIP", CELLS), "ProsPr − SNIP"),
        first_order(),
        arms.no_worse(without_hessians(), "first order − exact"),
    )
