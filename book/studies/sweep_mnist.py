"""The pruning sweep behind chapters 08 to 10: what each score's mask is worth after training.

A *case* is one network, activation, score, variant and seed: initial weights and batch order are
those of the seed, whatever the score.  It is scored once, pruned to every sparsity, trained by the
one protocol below, and tested once.  Cases run in parallel through joblib, each on one thread; a
case that ends is stored at once, and the next run goes on with the rest.

With `PROSPER_DATASET=fashion_mnist` it is the sweep behind chapter 12: the same protocol on
clothes, the whole grid of LeNet-300-100 and the headline cells of LeNet-5, its results stored under
names of their own.

Choices (learning rate of the inner steps, temperature, rounds, size of the scored batch) are made
by `tune`, on the validation images, with equally many trials for every score.
"""

import functools
import itertools
import os
import time

from prosper_utils.pruning import masks, networks
from prosper_utils.pruning.paths import effective
from prosper_utils.pruning.scores import SCORES, prospr
from prosper_utils.study import datasets, training

import keras
import numpy as np
import sweeps

FASHION = os.environ.get("PROSPER_DATASET") == "fashion_mnist"
NETWORKS = {"LeNet-300-100": networks.dense_300_100, "LeNet-5": networks.lenet5}
SPARSITIES = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
PROTOCOL = {
    "steps": 4000,
    "batch_size": 100,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "learning_rate": 0.1,
    "times_0.1_at": [2400, 3400],
}
AHEAD = {f"ProsPr, M = {m}": functools.partial(prospr, steps=m) for m in (1, 30, 300, 1000)} | {
    "first order, M = 100": functools.partial(prospr, steps=100, method="first_order")
}
ROUNDS = ("iterative SNIP",)  # for comparison with iterative ProsPr, at high sparsities only
RULES = SCORES | AHEAD  # the scores of the package, and what we compare them with
TRIALS = {  # three for every score that has something to choose
    "SNIP": [{"batch_size": b} for b in (100, 1000, 10000)],
    "GraSP": [{"temperature": t} for t in (1.0, 20.0, 200.0)],
    "SynFlow": [{"rounds": r} for r in (10, 30, 100)],
    "iterative ProsPr": [{"rounds": r} for r in (3, 10, 30)],
    "iterative SNIP": [{"rounds": r} for r in (3, 10, 30)],
} | {
    score: [{"learning_rate": a} for a in (0.03, 0.1, 0.3)]
    for score in (
        "ProsPr",
        "ProsPr, M = 10",
        "ProsPr, M = 100",
        "first order",
        "row sums",
        "diagonal",
        *AHEAD,
    )
}
SMALL = {"learning_rate": 0.03}
FLOORS = {f"floor of {n}": n for n in (10, 30, 50)}
IN_ROUNDS = ("SynFlow", "iterative ProsPr", "iterative SNIP")  # scored again for every sparsity
CASE = ("network", "activation", "score", "variant", "seed")
OUTCOME = ("error", "loss", "kept", "on_a_path", "train_seconds")


def stored_as(name):
    """Return under which name a result is stored: that of Fashion-MNIST says so at its end."""
    return f"{name}_fashion" if FASHION else name


@functools.cache
def data():
    """Return the data set, loaded once in each process."""
    return datasets.load()


@functools.cache
def trained(network, activation):
    """Return (model, train), compiled once in each process."""
    model = NETWORKS[network](activation)
    for variable in model.trainable_variables:  # L2 in the loss: half the decay times w^2
        variable.regularizer = keras.regularizers.L2(PROTOCOL["weight_decay"] / 2)
    rate = PROTOCOL["learning_rate"]
    rates = keras.optimizers.schedules.PiecewiseConstantDecay(
        PROTOCOL["times_0.1_at"], [rate, 0.1 * rate, 0.01 * rate]
    )
    optimizer = keras.optimizers.SGD(rates, momentum=PROTOCOL["momentum"])
    return model, training.trainer(model, optimizer)


def score_of(model, score, seed, sparsity, **options):
    """Return (scores, seconds) of a model with its weights as they are."""
    batches = datasets.batches(data().train, options.pop("batch_size", 100), seed=seed)
    begin = time.perf_counter()
    found = RULES[score](model, batches, sparsity=sparsity, seed=seed, **options)
    return [np.asarray(s) for s in found], time.perf_counter() - begin


def run_case(network, activation, score, variant, seed, *, sparsities, options, part="test"):
    """Return the rows of one case, one per sparsity.

    Variants: "as scored", "small steps" (at SMALL instead of the learning rate that was chosen),
    "per layer", "floor" (the least that keeps a path), those of FLOORS, and the sanity checks
    "shuffled", "re-initialised", "inverted" and "other batches".

    A score that fails, because its inner loop diverges or all its entries are the same, is a
    result: a row without an error of the network.
    """
    case = dict(zip(CASE, (network, activation, score, variant, seed), strict=True))
    model, _ = trained(network, activation)
    plain = NETWORKS[network](activation, seed=seed)  # what is scored: the loss without the decay
    initial = plain.get_weights()
    drawn = seed + 10_000 if variant == "other batches" else seed
    everything = [np.ones(k.shape) for k in networks.kernels(model)]
    rows, found, seconds = [], None, 0.0
    for sparsity in sparsities:
        model.set_weights(initial)
        chosen, failure, outcome = everything, "", {}
        try:
            if score != "dense":
                if found is None or score in IN_ROUNDS:
                    found, seconds = score_of(plain, score, drawn, sparsity, **options)
                chosen = choose(model, found, sparsity, variant, seed)
            outcome = train_and_test(case, chosen, part)
        except ValueError as error:
            failure = str(error)
        said = " ".join(f"{name}={value}" for name, value in options.items())
        row = {"sparsity": sparsity, "options": said, **dict.fromkeys(OUTCOME), **outcome}
        rows.append(case | row | {"score_seconds": seconds, "failure": failure})
    return rows


def train_and_test(case, chosen, part):
    """Return the outcome of one cell: the model of the case, pruned, trained and tested."""
    network, activation, _, variant, seed = (case[key] for key in CASE)
    model, train = trained(network, activation)
    if variant == "re-initialised":
        model.set_weights(NETWORKS[network](activation, seed=seed + 10_000).get_weights())
    masks.apply(model, chosen)
    begin = time.perf_counter()
    loss = train(
        data().train, steps=PROTOCOL["steps"], batch_size=PROTOCOL["batch_size"], seed=seed
    )[-1]
    error = training.error(model, getattr(data(), part))
    kept = " ".join(str(int(np.sum(m))) for m in chosen)
    on_a_path = sum(int(np.sum(m)) for m in effective(model, chosen))
    outcome = (error, loss, kept, on_a_path, time.perf_counter() - begin)
    return dict(zip(OUTCOME, outcome, strict=True))


def choose(model, found, sparsity, variant, seed):
    """Return the masks of a variant."""
    if variant == "inverted":
        found = [-s for s in found]
    if variant == "floor":
        return masks.connected(model, found, sparsity)
    if variant in FLOORS:
        return masks.top_k(found, sparsity, floor=FLOORS[variant])
    chosen = masks.top_k(found, sparsity, per_layer=variant == "per layer")
    return masks.shuffled(chosen, seed) if variant == "shuffled" else chosen


def chosen_options(network, activation, score):
    """Return the options of a score that did best on the validation images, {} if none are open."""
    if score not in TRIALS:
        return {}
    where = dict(zip(CASE, (network, activation, score), strict=False))
    return TRIALS[score][int(sweeps.best(stored_as("pruning_tuning"), "trial", where))]


def cases_of(network, activation, scores, seeds, sparsities, variants=("as scored",)):
    """Return the cases of a part of the grid, seed by seed."""
    grid = itertools.product(seeds, scores, variants)
    keys = [(network, activation, score, variant, seed) for seed, score, variant in grid]
    return [dict(zip(CASE, key, strict=True)) | {"sparsities": sparsities} for key in keys]


EXACT = tuple(f"ProsPr, M = {m}" for m in (1, 10, 30, 100, 300))
HEADLINE = ("random", "SNIP", "ProsPr", "ProsPr, M = 100")
REST = tuple(score for score in SCORES if score not in (*HEADLINE, *ROUNDS))


def plan():
    """Return every case, headline cells first."""
    dense = [functools.partial(cases_of, "LeNet-300-100", a) for a in ("relu", "tanh")]
    lenet = functools.partial(cases_of, "LeNet-5", "tanh")
    few, five, two = range(5), SPARSITIES[1:], (0.98, 0.99)
    streams = ("row sums", "diagonal")
    insane = ("shuffled", "re-initialised", "inverted", "other batches")
    cases = []
    for part in dense:
        cases += part(("dense",), few, (0.0,)) + part(HEADLINE, few, SPARSITIES)
        cases += part(HEADLINE, range(5, 10), two)
    for part in dense:
        cases += part(REST, few, SPARSITIES)
    for part in dense:
        cases += part((*AHEAD, *ROUNDS), few, SPARSITIES[3:])
        cases += part(streams, few, SPARSITIES, ("shuffled",))
        cases += part(("SNIP", "ProsPr"), few, two, insane)
        cases += part(("SynFlow",), few, two, insane[:2])  # no batches; in rounds, no inverse
        cases += part(("ProsPr", *EXACT), few, SPARSITIES[3:], ("small steps",))
    for part in dense:
        cases += part(("random", "magnitude"), few, SPARSITIES, ("per layer",))
    cases += lenet(("dense",), few, (0.0,)) + lenet(HEADLINE, few, five)
    if FASHION:
        return sorted(cases, key=later)
    cases += lenet(HEADLINE[1:], range(5, 10), two)
    cases += lenet(("SNIP", "ProsPr", "magnitude"), few, (0.99, 0.995), ("floor",))
    cases += lenet(("iterative ProsPr",), few, five)
    cases += lenet(("SNIP", "ProsPr"), few, five[-1:], tuple(FLOORS))
    last = ("ProsPr, M = 10", "first order")
    others = [score for score in REST if score not in ("iterative ProsPr", *last)]
    cases += lenet(others, few, five)
    cases += cases_of("LeNet-5", "relu", HEADLINE[1:], range(10), two)
    cases += lenet(streams, few, five, ("shuffled",)) + lenet(last, few, five)
    return cases + cases_of("LeNet-5", "relu", HEADLINE[:1], few, two)


def later(case):
    """Return 0 for a case on clothes that chapter 12 cannot do without, 1 for LeNet-5, else 2."""
    said = (*HEADLINE, "dense", "SynFlow", *ROUNDS)
    if case["score"] not in said or case["variant"] not in ("as scored", "shuffled"):
        return 2
    if case["network"] == "LeNet-5":
        return 1
    return 0 if case["activation"] == "relu" else 2


def tuning():
    """Return the trials: every option of every score on two seeds of their own, at 98%."""
    arms = [("LeNet-300-100", a, score) for a in ("relu", "tanh") for score in TRIALS]
    scores = HEADLINE if FASHION else (*HEADLINE, *REST)
    arms += [("LeNet-5", "tanh", score) for score in TRIALS if score in scores]
    if not FASHION:
        arms += [("LeNet-5", "relu", score) for score in HEADLINE if score in TRIALS]
    cases = [
        case | {"trial": trial}
        for (network, activation, score), trial in itertools.product(arms, range(3))
        for case in cases_of(network, activation, (score,), (100, 101), (0.98,))
    ]
    return sorted(cases, key=later) if FASHION else cases


def one(case, part):
    """Return the rows of one case with its options; runs in a process of its own."""
    case = dict(case)
    trial = case.pop("trial", None)
    if trial is None:
        small = case["variant"] == "small steps"
        options = SMALL if small else chosen_options(*(case[key] for key in CASE[:3]))
        return run_case(**case, options=options, part=part)
    rows = run_case(**case, options=TRIALS[case["score"]][trial], part=part)
    return [row | {"trial": trial} for row in rows]


def missing(cases, stored, keys):
    """Return the cases with the sparsities that are not stored yet, without those that are done."""
    done = (
        set() if stored.empty else set(zip(*(stored[k] for k in (*keys, "sparsity")), strict=True))
    )
    left = []
    for case in cases:
        key = tuple(case[k] for k in keys)
        open_ones = tuple(s for s in case["sparsities"] if (*key, s) not in done)
        if open_ones:
            left.append(case | {"sparsities": open_ones})
    return left


def configuration():
    """Return what determines the results."""
    return {"protocol": PROTOCOL, "trials": TRIALS, "small_steps": SMALL}


SWEEPS = {
    stored_as("pruning_tuning"): (
        lambda stored: missing(tuning(), stored, (*CASE, "trial")),
        functools.partial(one, part="validation"),
    ),
    stored_as("pruning"): (
        lambda stored: missing(plan(), stored, CASE),
        functools.partial(one, part="test"),
    ),
}


if __name__ == "__main__":
    import sweep_mnist  # by its name, under which the processes of joblib can import it

    sweeps.command(
        sweep_mnist,
        sweep_mnist.SWEEPS,
        lambda: sweep_mnist.configuration() | datasets.fingerprint(sweep_mnist.data()),
    )
