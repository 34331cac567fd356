"""How far streamed scores are from the meta-gradient: the sweeps of chapters 05 and 06.

*Errors* (chapter 05): relative error, cosine and mask overlap of every streamed score against the
exact one, and what first order in alpha predicts for the error.  *Growth* (chapter 06): how the
logarithms of the streamed products and the norm of the exact meta-gradient grow with M, up to and
beyond the learning rate at which gradient descent is stable.  Both store every case as it is done
and go on where they stopped.
"""

import argparse
import functools
import itertools
import math
import time

from prosper_utils.lookahead import streaming
from prosper_utils.lookahead.chunks import chunks
from prosper_utils.lookahead.descent import loss_and_gradient, start
from prosper_utils.lookahead.meta_gradient import chunked, meta_gradient
from prosper_utils.pruning import masks, networks
from prosper_utils.study import datasets, results
from prosper_utils.study.checks import relative_error

import keras
import numpy as np
import sweeps
import tensorflow as tf
from tqdm import tqdm

LOOKAHEADS = (1, 3, 10, 30)
RATES = (0.03, 0.1, 0.3)
SPARSITIES = (0.9, 0.95, 0.98, 0.99)
SEEDS = (0, 1)
BATCH_SIZE = 128
NETWORKS = {"LeNet-300-100": networks.dense_300_100, "LeNet-5": networks.lenet5}
ACTIVATIONS = ("tanh", "relu")

LONG = (1, 3, 10, 30, 100, 300, 1000, 3000)
SHARPNESSES = (0.1, 0.5, 1.0, 1.9, 2.5, 4.0, 16.0)
POOL = 100
QUANTILES = {"lowest": 0, "q01": 0.01, "q50": 0.5, "q99": 0.99, "highest": 1}
LARGEST, SMALLEST = math.log(float(np.finfo(np.float32).max)), math.log(1.4e-45)


def exact_diagonal(model):
    """Return (name, curvature): diag H of the dense network, its Gauss-Newton part of LeNet-5."""
    if model.name == "lenet_5":
        return "Gauss-Newton", streaming.gauss_newton_diagonal(networks.as_logits(model)[1])
    return "diagonal", streaming.dense_diagonal(model)


def compiled(curvature, loss):
    """Return a compiled function (weights, batch) of a curvature."""
    return tf.function(lambda weights, batch: curvature(loss, weights, batch))


def flat(tensors):
    """Return the entries of all tensors as one NumPy vector in double precision."""
    return np.concatenate([np.ravel(t) for t in tensors]).astype(np.float64)


def cosine(a, b):
    """Return the cosine of the angle between two vectors."""
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def overlap(a, b, sparsity):
    """Return the share of weights that two scores both keep among those that either keeps (IoU)."""
    pairs = zip(masks.top_k(a, sparsity), masks.top_k(b, sparsity), strict=True)
    both, either = zip(*((np.sum(p & q), np.sum(p | q)) for p, q in pairs), strict=True)
    return sum(both) / sum(either)


def errors_of(name, activation, rate, seed, train):
    """Return the rows of one trajectory: every M and every score against the exact one."""
    model = NETWORKS[name](activation, seed=seed)
    initial, loss = networks.as_loss(model)
    diagonal, curvature = exact_diagonal(model)
    curvatures = {
        "row sums": compiled(streaming.row_sums, loss),
        diagonal: compiled(curvature, loss),
        "Hutchinson, 1": compiled(streaming.hutchinson(1, seed), loss),
        "Hutchinson, 10": compiled(streaming.hutchinson(10, seed), loss),
    }
    product = compiled(lambda loss, w, b: streaming.hessian_product(loss, w, b[0], b[1]), loss)
    steps = max(LOOKAHEADS)
    batches, others = (
        list(itertools.islice(datasets.batches(train, BATCH_SIZE, seed=s), steps + 1))
        for s in (2 * seed, 2 * seed + 1)
    )
    gammas = {gamma: [tf.ones_like(w) for w in initial] for gamma in curvatures}
    zero = [tf.zeros_like(w) for w in initial]
    sums = dict.fromkeys([*curvatures, "first order"], zero)
    weights, path, rows = initial, [], []
    for m, batch in enumerate(batches):
        _, g = loss_and_gradient(loss, weights, batch)
        if m in LOOKAHEADS:
            scores = {gamma: times(initial, factor, g) for gamma, factor in gammas.items()}
            exact = add_exact(scores, loss, initial, batches[: m + 1], others[: m + 1], rate)
            pulled = [product(w, (b, g)) for w, b in zip(path, batches, strict=False)]
            pulled = [sum(parts) for parts in zip(*pulled, strict=True)]  # sum of H_m g
            size = np.linalg.norm(flat(times(initial, g)))
            for score, found in scores.items():
                row = {
                    "network": name,
                    "activation": activation,
                    "alpha": rate,
                    "seed": seed,
                    "steps": m,
                    "score": score,
                    "error": relative_error(found, exact),
                    "predicted": None,
                }
                if score in sums:
                    streamed = times(sums[score], g)
                    missed = [h - d for h, d in zip(pulled, streamed, strict=True)]
                    row["predicted"] = rate * np.linalg.norm(flat(times(initial, missed))) / size
                rows.append(row | likeness(found, exact, networks.kernel_indices(model)))
        path.append(weights)
        for gamma, curvature in curvatures.items() if m < steps else ():
            h = curvature(weights, batch)
            sums[gamma] = [s + c for s, c in zip(sums[gamma], h, strict=True)]
            gammas[gamma] = times(gammas[gamma], [1 - rate * c for c in h])
        weights = [w - rate * d for w, d in zip(weights, g, strict=True)]
    return rows


def times(*lists):
    """Return the product of lists of tensors, entry by entry."""
    return [math.prod(factors) for factors in zip(*lists, strict=True)]


def add_exact(scores, loss, weights, batches, others, rate):
    """Add the scores that are not streamed, and return the exact one, by an unrolled tape."""
    run = functools.partial(meta_gradient, loss, weights, learning_rate=rate)
    scores["first order"] = run(batches, method="first_order")
    scores["reverse"] = run(batches, method="reverse")
    scores["other batches"] = run(others)
    return run(batches, method="unrolled")


def likeness(found, exact, kernels):
    """Return the cosine of two scores and the overlap of their masks at every sparsity."""
    a, b = ([abs(s[i]) for i in kernels] for s in (found, exact))
    overlaps = {f"iou_{100 * s:.0f}": overlap(a, b, s) for s in SPARSITIES}
    return {"cosine": cosine(flat(found), flat(exact))} | overlaps


def largest_eigenvalue(product, weights, rounds=60):
    """Return the eigenvalue of H of largest size, by power iteration; product(w, v) is H v."""
    vector = [tf.ones_like(w) + tf.cast(tf.range(w.shape[-1]), w.dtype) for w in weights]
    for _ in range(rounds):
        size = tf.linalg.global_norm(vector)
        vector = [v / size for v in vector]
        image = product(weights, vector)
        value = sum(tf.reduce_sum(v * i) for v, i in zip(vector, image, strict=True))
        vector = image
    return float(value)


def growth_of(activation, sharpness, train, full=False):
    """Return the rows of one long trajectory: what the products and the exact gradient grow to."""
    options = {} if full else {"units": (30, 10), "dtype": "float64"}
    model = networks.dense_300_100(activation, **options)
    initial, loss = networks.as_loss(model)
    kind = initial[0].dtype
    pool = itertools.islice(datasets.batches(train, BATCH_SIZE, seed=0), POOL + 1)
    *pool, outer = [(tf.cast(x, kind), y) for x, y in pool]
    hvp = compiled(lambda loss, w, v: streaming.hessian_product(loss, w, pool[0], v), loss)
    eigenvalue = largest_eigenvalue(hvp, initial)
    rate = tf.constant(0.1 if full else sharpness / eigenvalue, kind)
    curvatures = {"row sums": streaming.row_sums, "diagonal": streaming.dense_diagonal(model)}

    @tf.function
    def advance(weights, logs, signs, batch):
        for name, curvature in curvatures.items():
            gamma = [1 - rate * c for c in curvature(loss, weights, batch)]
            logs = logs | {
                name: [s + tf.math.log(tf.abs(p)) for s, p in zip(logs[name], gamma, strict=True)]
            }
            signs = signs | {
                name: [s * tf.sign(p) for s, p in zip(signs[name], gamma, strict=True)]
            }
        _, g = loss_and_gradient(loss, weights, batch)
        return [w - rate * d for w, d in zip(weights, g, strict=True)], logs, signs

    weights, rows = initial, []
    logs = {name: [tf.zeros_like(w) for w in initial] for name in curvatures}
    signs = {name: [tf.ones_like(w) for w in initial] for name in curvatures}
    for m in range(max(LONG) + 1):
        if m in LONG:
            value, g = loss_and_gradient(loss, weights, outer)
            # v is dL/dw_0; meta_gradient would give w * v, whose entries at w = 0 say nothing
            parts = chunks([*(pool[i % POOL] for i in range(m)), outer])
            rates = (rate, tf.zeros_like(rate))
            found, finite = chunked("checkpointed", loss, rates, start(initial), parts, outer)
            v = found.first
            common = {
                "network": "LeNet-300-100" if full else "784-30-10-10",
                "activation": activation,
                "sharpness": float(rate) * eigenvalue,
                "alpha": float(rate),
                "steps": m,
                "loss": float(value),
                "finite": finite,
                "sharpness_now": float(rate) * largest_eigenvalue(hvp, weights),
                "gradient": log_norm(g),
                "pulled": log_norm(v),
                "exact": log_norm([w * p for w, p in zip(initial, v, strict=True)]),
                "first_order": log_norm([w * d for w, d in zip(initial, g, strict=True)]),
            }
            for name in curvatures:
                rows.append(common | {"gamma": name} | spread(logs[name], signs[name], initial, g))
        weights, logs, signs = advance(weights, logs, signs, pool[m % POOL])
    return rows


def log_norm(tensors):
    """Return the logarithm to base 10 of a norm, -inf for zero."""
    with np.errstate(divide="ignore"):
        return float(np.log10(np.linalg.norm(flat(tensors))))


def spread(logs, signs, initial, g):
    """Return quantiles of log|product of gamma|, what float32 loses of it, and the score's norm."""
    whole = flat(logs)
    row = {name: float(np.quantile(whole, q)) for name, q in QUANTILES.items()}
    row |= {
        "underflow": float(np.mean(whole < SMALLEST)),
        "overflow": float(np.mean(whole > LARGEST)),
        "negative": float(np.mean(flat(signs) < 0)),
    }
    with np.errstate(divide="ignore"):
        size = whole + np.log(np.abs(flat(initial))) + np.log(np.abs(flat(g)))
    return row | {"streamed": float(np.logaddexp.reduce(2 * size)) / 2 / math.log(10)}


def errors_cases():
    """Return the cases of the first sweep."""
    names = ("seed", "name", "activation", "rate")
    grid = itertools.product(SEEDS, NETWORKS, ACTIVATIONS, RATES)
    return [dict(zip(names, case, strict=True)) for case in grid]


def growth_cases():
    """Return the cases of the second sweep: the small network, and the full one once."""
    grid = itertools.product(ACTIVATIONS, SHARPNESSES)
    cases = [{"activation": a, "sharpness": s} for a, s in grid]
    return [*cases, {"activation": "tanh", "sharpness": None, "full": True}]


SWEEPS = {
    "errors": (errors_of, errors_cases),
    "growth": (growth_of, growth_cases),
}


def configuration(what, data):
    """Return what determines the results of a sweep, its cases apart."""
    found = datasets.fingerprint(data) | {"batch_size": BATCH_SIZE}
    if what == "growth":
        return found | {"pool": POOL, "seed": 0, "steps": LONG}
    return found | {"steps": LOOKAHEADS, "sparsities": SPARSITIES}


def stored(name):
    """Return (rows, cases done, seconds) of what is stored of a sweep."""
    try:
        table, provenance = results.load(name)
    except FileNotFoundError:
        return [], [], 0.0
    return table.to_dict("records"), provenance["configuration"]["cases"], provenance["seconds"]


def main():
    """Run the sweeps named on the command line, or both, and store each case as it is done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=list(SWEEPS))
    tf.get_logger().setLevel("ERROR")  # one graph per case is meant
    data = datasets.load()
    for what in parser.parse_args().what:
        function, cases = SWEEPS[what]
        name = f"streaming_{what}"
        rows, done, seconds = stored(name)
        left = [case for case in cases() if case not in done]
        settings = configuration(what, data)
        sweeps.expect_same(name, settings if left else {})
        for case in tqdm(left, what, unit="case"):
            begin = time.perf_counter()
            rows += functools.partial(function, train=data.train)(**case)
            done.append(case)
            seconds += time.perf_counter() - begin
            results.save(name, rows, settings | {"cases": done}, seconds=seconds)
            keras.backend.clear_session()


if __name__ == "__main__":
    main()
