"""The sweep behind chapter 11: networks from which whole units are gone, and their controls.

A *case* is one network, moment, score, variant, share of the multiply-adds that is left, and seed.
The seed fixes initial weights, batch order and what a score looks at, whatever the arm.

At the start, the smaller network is trained in place of the large one, for the same number of
steps.  After training, the large one is trained, made smaller, and trained on for a quarter of the
steps; its control with fresh weights is trained for as long as both together.  The learning rates
are chosen on the validation images, on a seed of their own, for the large network at the start, and
for one that is halved after training.

The cases of one network and seed share the large network that is trained: the command keeps its
weights in a folder of its own until it ends.
"""

import functools
import itertools
import os
import tempfile
import time

from prosper_utils.pruning import budgets, gates, networks, units
from prosper_utils.study import controls, datasets, results, training

import joblib
import keras
import pandas as pd
import sweeps
from sweep_mnist import data

BATCH_SIZE, MOMENTUM, WARM_UP, SCORED = 128, 0.9, 100, 16
small_resnet = functools.partial(networks.resnet, 8, widths=(8, 16, 32), shape=networks.IMAGE)
NETWORKS = {  # how to make it, and for how many steps to train it
    "LeNet-300-100": (networks.dense_300_100, 1200),
    "LeNet-5": (networks.lenet5, 1200),
    "LeNet-5-Caffe": (networks.lenet5_caffe, 800),
    "ResNet-8": (small_resnet, 1200),
}
SCORES = {name: (score, {}) for name, score in gates.SCORES.items()}
SCORES["ProsPr, M = 10"] = (gates.prospr, {"steps": 10})
PER_COST, IN_ROUNDS, ROUNDS = " per multiply-add", ", in rounds", 5
VARIANTS = ("kept", "rescaled", "other channels", "fresh")
START, TRAINED = "start", "trained"
RATES = {START: (0.02, 0.05), TRAINED: (0.005, 0.02, 0.05)}
AFTER = ("LeNet-5", "ResNet-8")  # those that are also made smaller once they are trained
CACHE = "PROSPER_SWEEP_CACHE"  # where trained networks are kept; nowhere if it is not set
memory = joblib.Memory(os.environ.get(CACHE), verbose=0)
CASE = ("network", "when", "score", "variant", "share", "seed")
TRIAL = (*CASE, "rate")


def batches(seed, count):
    """Return the batches that a score looks at, a list of SCORED; ProsPr takes the first M + 1."""
    return list(
        itertools.islice(datasets.batches(data().train, BATCH_SIZE, seed=seed + 10_000), count)
    )


def rule_of(score, seed):
    """Return a score as a function of a model that returns one number for each group."""
    name = score.removesuffix(IN_ROUNDS)
    rule, options = SCORES[name.removesuffix(PER_COST)]

    def found(model):
        plain = rule(model, batches(seed, SCORED), seed=seed, **options)
        return budgets.per_cost(model, plain) if name.endswith(PER_COST) else plain

    return found


def smaller(model, score, variant, share, seed):
    """Return the model without the units that a score removes, or a control."""
    rule = rule_of(score, seed)
    if score.endswith(IN_ROUNDS):
        return budgets.in_rounds(model, rule, share=share, rounds=ROUNDS)
    keep = budgets.choose(model, rule(model), share=share)
    if variant == "other channels":
        keep = budgets.shuffled(model, keep, seed)
    small = units.shrink(model, keep)
    if variant == "fresh":
        return controls.fresh(small, seed + 1000)
    return controls.rescaled(small, model) if variant == "rescaled" else small


def fit(model, rate, steps, seed):
    """Train a model in place: SGD with momentum, a short warm-up, cosine decay to zero.

    Without the warm-up networks of two or three channels may die in their first steps.
    """
    warm = min(WARM_UP, steps // 4)
    decay = keras.optimizers.schedules.CosineDecay(
        0.0, steps - warm, warmup_target=rate, warmup_steps=warm
    )
    train = training.trainer(model, keras.optimizers.SGD(decay, momentum=MOMENTUM))
    train(data().train, steps=steps, batch_size=BATCH_SIZE, seed=seed)
    return model


@memory.cache
def trained_weights(network, rate, seed, name):
    """Return the weights of the large network, trained on the data of a name, a list of arrays."""
    assert name == data().name
    make, steps = NETWORKS[network]
    return fit(make("relu", seed=seed), rate, steps, seed).get_weights()


def dense(network, rate, seed):
    """Return the large network, trained."""
    model = NETWORKS[network][0]("relu", seed=seed)
    model.set_weights(trained_weights(network, rate, seed, data().name))
    return model


def run_case(network, when, score, variant, share, seed, *, rates, part="test"):
    """Return the row of one case; a training that diverges is a row without an error."""
    case = dict(zip(CASE, (network, when, score, variant, share, seed), strict=True))
    (make, steps), begin = NETWORKS[network], time.perf_counter()
    unknown = dict.fromkeys(("error", "multiply_adds", "parameters", "widths"))
    row = case | {"rate": rates[when]} | unknown
    try:
        if score == "none":
            model = dense(network, rates[START], seed)
        elif when == START:
            model = smaller(make("relu", seed=seed), score, variant, share, seed)
            fit(model, rates[START], steps, seed)
        else:
            model = smaller(dense(network, rates[START], seed), score, variant, share, seed)
            if variant == "fresh":  # as long as both trainings together
                fit(model, rates[START], steps + steps // 4, seed)
            else:
                fit(model, rates[TRAINED], steps // 4, seed + 1)
        row |= {"error": training.error(model, getattr(data(), part))}
        row |= {"multiply_adds": budgets.cost(model), "parameters": model.count_params()}
        row |= {"widths": " ".join(str(k.shape[-1]) for k in networks.kernels(model))}
        failure = ""
    except ValueError as error:
        failure = str(error)
    return row | {"train_seconds": time.perf_counter() - begin, "failure": failure}


def chosen_rates(network):
    """Return {moment: the learning rate that did best on the validation images}."""
    tables = [results.resume(name) for name in ("units_tuning", "units_tuning_after")]
    parts = [table[table.network == network] for table in tables if len(table)]
    if not any(len(part) for part in parts):
        said = f"network {network}, found none: run it first"
        raise LookupError(f"units_tuning: expected stored trials of {said}")
    table = pd.concat(parts)
    best = table.error.fillna(100).groupby([table.when, table.rate]).mean()
    return {when: float(best[when].idxmin()) for when in best.index.unique("when")}


def cases_of(network, when, scores, variants, shares, seeds=range(5)):
    """Return the cases of a part of the grid, all seeds of an arm together."""
    grid = itertools.product([network], [when], scores, variants, shares, seeds)
    return [dict(zip(CASE, case, strict=True)) for case in grid]


def plan():
    """Return every case, headline cells first."""
    first = ("SNIP", "ProsPr", f"ProsPr{PER_COST}")
    more = ("magnitude", "random", f"SNIP{PER_COST}", "ProsPr, M = 10")
    at_end = ("uniform", f"Taylor{PER_COST}", "Taylor", f"magnitude{PER_COST}", f"ProsPr{PER_COST}")
    few = (f"ProsPr{PER_COST}", "uniform"), ("kept", "fresh")
    changed = (f"Taylor{PER_COST}",), ("other channels", "fresh"), (0.5,)
    cases = []
    for network in ("LeNet-300-100", "LeNet-5"):
        cases += cases_of(network, START, ("none",), ("kept",), (1.0,))
        cases += cases_of(network, START, first, VARIANTS, (0.25,))
        cases += cases_of(network, START, ("uniform",), ("kept", "rescaled", "fresh"), (0.25,))
    cases += cases_of("LeNet-5", TRAINED, at_end, ("kept",), (0.5, 0.25, 0.1))
    cases += cases_of("LeNet-5", TRAINED, *changed)
    cases += cases_of("ResNet-8", START, ("none",), ("kept",), (1.0,))
    cases += cases_of("ResNet-8", TRAINED, at_end[:3], ("kept",), (0.5, 0.25, 0.1))
    cases += cases_of("ResNet-8", TRAINED, *changed)
    for network in AFTER:
        in_rounds = (f"Taylor{PER_COST}{IN_ROUNDS}",)
        cases += cases_of(network, TRAINED, in_rounds, ("kept",), (0.25, 0.1))
    cases += cases_of("LeNet-5-Caffe", START, ("none",), ("kept",), (1.0,))
    cases += cases_of("LeNet-5-Caffe", START, *few, (0.25, 0.1))
    for network in ("LeNet-5", "LeNet-300-100"):
        cases += cases_of(network, START, (*first, "uniform"), ("kept", "fresh"), (0.1,))
        cases += cases_of(network, START, more, ("kept", "fresh"), (0.25,))
    return cases


def tuning(when, score, share, of, seeds):
    """Return the trials of some networks, on seeds of their own."""
    cases = [c for n in of for c in cases_of(n, when, (score,), ("kept",), (share,), seeds)]
    return [case | {"rate": rate} for case, rate in itertools.product(cases, RATES[when])]


def one(case):
    """Return the rows of one case; runs in a process of its own."""
    case = dict(case)
    if "rate" not in case:
        return [run_case(**case, rates=chosen_rates(case["network"]))]
    rate = case.pop("rate")
    rates = {case["when"]: rate}
    if case["when"] == TRAINED:
        rates[START] = chosen_rates(case["network"])[START]
    return [run_case(**case, rates=rates, part="validation")]


def configuration():
    """Return what determines the results."""
    networks_of = {name: {"steps": steps} for name, (_, steps) in NETWORKS.items()}
    found = {"networks": networks_of, "batch_size": BATCH_SIZE, "momentum": MOMENTUM}
    found |= {"warm_up": WARM_UP, "scored_batches": SCORED}
    return found | {"rates": RATES, "rounds": ROUNDS}


SWEEPS = {
    "units_tuning": (sweeps.left(lambda: tuning(START, "none", 1.0, NETWORKS, (100,)), TRIAL), one),
    "units_tuning_after": (
        sweeps.left(lambda: tuning(TRAINED, f"Taylor{PER_COST}", 0.5, AFTER, (100,)), TRIAL),
        one,
    ),
    "units": (sweeps.left(plan, CASE), one),
}


if __name__ == "__main__":
    import sweep_units  # by its name, under which the processes of joblib can import it

    with tempfile.TemporaryDirectory() as folder:
        os.environ[CACHE] = folder
        sweeps.command(
            sweep_units,
            sweep_units.SWEEPS,
            lambda: sweep_units.configuration() | datasets.fingerprint(data()),
        )
