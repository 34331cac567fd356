"""How far ahead a meta-gradient means anything on a deep network with batch normalisation.

For each learning rate alpha and number of steps M the exact scores of one network at its initial
weights are computed twice, in float32 and in float64, where they are right to 1e-10 and better.
A row says how far the two are apart, how large the exact score has grown over the first-order one,
which share of the mask float32 shares with float64, and which share of the exact mask SNIP and the
first-order score keep, too.  The batches are those of a seed, whatever alpha and M.
"""

import itertools
import time

from prosper_utils.lookahead.conditioning import agreement, relative, vector
from prosper_utils.lookahead.descent import loss_and_gradient
from prosper_utils.lookahead.meta_gradient import cotangents
from prosper_utils.pruning import networks
from prosper_utils.study import datasets

import sweep_colour
import sweeps

SPARSITIES = (0.9, 0.95, 0.98)
RATES = (0.001, 0.01, 0.1)
STEPS = (1, 3, 10, 30, 100)
CASE = ("network", "learning_rate", "steps", "seed")


def problem(network, steps, seed, dtype):
    """Return (weights, loss, M + 1 batches, which weights are scored)."""
    model = sweep_colour.NETWORKS[network](seed=seed)
    weights, loss = networks.as_loss(model, dtype=dtype)
    taken = list(itertools.islice(sweep_colour.supply(seed), steps + 1))
    return weights, loss, taken, networks.kernel_indices(model)


def scores(network, learning_rate, steps, seed, dtype):
    """Return the exact scores, the first-order ones, and those of SNIP, as vectors."""
    weights, loss, batches, scored = problem(network, steps, seed, dtype)
    found = cotangents(loss, weights, batches, learning_rate=learning_rate)
    _, gradient = loss_and_gradient(loss, weights, batches[0])
    return [vector(weights, end, scored) for end in (found.first, found.last, gradient)]


def run_case(network, learning_rate, steps, seed):
    """Return the row of one case."""
    case, begin = (network, learning_rate, steps, seed), time.perf_counter()
    single, *_ = scores(*case, "float32")
    exact, first_order, snip = scores(*case, "float64")
    row = dict(zip(CASE, case, strict=True))
    row |= {"ratio": relative(exact, first_order), "error": relative(single - exact, exact)}
    others = {"float32": single, "first_order": first_order, "snip": snip}
    for (name, other), sparsity in itertools.product(others.items(), SPARSITIES):
        row[f"{name}_{sparsity}"] = agreement(exact, other, sparsity)
    return row | {"seconds": time.perf_counter() - begin}


def plan():
    """Return every case, short ones first; three seeds for the three steps of the paper."""
    seeds = [(steps, seed) for steps in STEPS for seed in range(3 if steps == 3 else 1)]
    grid = itertools.product(seeds, sweep_colour.NETWORKS, RATES)
    keys = [(network, rate, steps, seed) for (steps, seed), network, rate in grid]
    return [dict(zip(CASE, key, strict=True)) for key in keys]


def one(case):
    """Return the rows of one case; runs in a process of its own."""
    return [run_case(**case)]


def configuration():
    """Return what determines the results."""
    return {"batch_size": sweep_colour.BATCH_SIZE, "sparsities": SPARSITIES}


SWEEPS = {"precision": (sweeps.left(plan, CASE), one)}


if __name__ == "__main__":
    import sweep_precision  # by its name, under which the processes of joblib can import it

    sweeps.command(
        sweep_precision,
        sweep_precision.SWEEPS,
        lambda: sweep_precision.configuration() | datasets.fingerprint(sweep_colour.data()),
    )
