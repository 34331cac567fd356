"""The sweep behind chapter 17: sparse training that regrows, against masks that do not move.

A *case* is one network, arm, variant, sparsity and seed: initial weights and batch order are those
of the seed, whatever the arm.  Every arm trains for the same number of steps, and so takes the same
number of gradients, but for what its mask costs; one arm, labelled so, takes twice as many.

Each arm chooses learning rate, its schedule and weight decay by the same trials, on the validation
images, at 99% sparsity.  With `PROSPER_DATASET=fashion_mnist` all arms run on clothes at 95 and
99%, for chapter 12, with the choices made anew.
"""

import functools
import itertools
import time

from prosper_utils.pruning import masks, networks, regrowth, schedules, scores
from prosper_utils.study import datasets, training

import keras
import numpy as np
import sweep_mnist
import sweeps
from sweep_mnist import FASHION, NETWORKS, data, stored_as

STEPS, BATCH_SIZE, MOMENTUM = 6000, 100, 0.9
LOOP = {"every": 100, "until": STEPS * 3 // 4, "share": 0.3, "decay": 0.98}
FROZEN = ("SNIP", "ProsPr", "iterative ProsPr", "SynFlow")
MAGNITUDE = ("magnitude", "magnitude, twice the cost")  # trained densely first
ARMS = (*FROZEN, *MAGNITUDE, "gradual magnitude", "random regrowth", "credit")
VARIANTS = {  # of the arm "credit", each one change
    "one batch": {"credit": "batch"},
    "one step": {"decay": 0.0},
    "lookahead, M = 3": {"credit": "lookahead", "ahead": 3},
    "lookahead, M = 10": {"credit": "lookahead", "ahead": 10},
    "no persistence": {"persistence": False},
    "every 10": {"every": 10},
    "every 50": {"every": 50},
    "every 500": {"every": 500},
    "from random": {"start": "random"},
    "from ProsPr": {"start": "ProsPr"},
    "from iterative ProsPr": {"start": "iterative ProsPr"},
}
TRIALS = {
    "LeNet-300-100": [
        {"rate": rate, "schedule": "cosine", "weight_decay": decay}
        for rate, decay in itertools.product((0.05, 0.1, 0.2), (0.0, 5e-4))
    ]
    + [{"rate": 0.1, "schedule": "steps", "weight_decay": 5e-4}],
    "LeNet-5": [
        {"rate": rate, "schedule": "cosine", "weight_decay": 5e-4} for rate in (0.05, 0.1, 0.2)
    ],
}
ACTIVATION = {"LeNet-300-100": "relu", "LeNet-5": "tanh"}
CASE = ("network", "arm", "variant", "sparsity", "seed")
OUTCOME = ("error", "loss", "kept", "stayed", "moved", "train_seconds")


def trained(network, rate, schedule, weight_decay, steps):
    """Return a new model and its compiled training loop."""
    model = NETWORKS[network](ACTIVATION[network])
    for variable in model.trainable_variables:  # L2 in the loss: half the decay times w^2
        variable.regularizer = keras.regularizers.L2(weight_decay / 2)
    if schedule == "cosine":
        rates = keras.optimizers.schedules.CosineDecay(rate, steps)
    else:
        drops = [steps * 60 // 100, steps * 85 // 100]
        values = [rate, 0.1 * rate, 0.01 * rate]
        rates = keras.optimizers.schedules.PiecewiseConstantDecay(drops, values)
    return model, training.trainer(model, keras.optimizers.SGD(rates, momentum=MOMENTUM))


def first_masks(model, score, network, sparsity, seed):
    """Return the masks of a score, with the options that chapters 08 and 09 chose for it."""
    options = sweep_mnist.chosen_options(network, ACTIVATION[network], score)
    found, _ = sweep_mnist.score_of(model, score, seed, sparsity, **options)
    return masks.top_k(found, sparsity)


def run_case(network, arm, variant, sparsity, seed, *, options, part="test"):
    """Return the row of one case; a training that diverges is a row without an error."""
    case = dict(zip(CASE, (network, arm, variant, sparsity, seed), strict=True))
    steps = STEPS // 2 if arm == "magnitude" else STEPS
    model, train = trained(network, steps=steps, **options)
    masks.apply(model, [np.ones(k.shape) for k in networks.kernels(model)])
    model.set_weights(NETWORKS[network](ACTIVATION[network], seed=seed).get_weights())
    begin, failure, outcome = time.perf_counter(), "", dict.fromkeys(OUTCOME)
    train = functools.partial(train, data().train, steps=steps, batch_size=BATCH_SIZE, seed=seed)
    try:
        first, moved, losses = prune_and_train(model, train, case)
        now = masks.in_force(model)
        kept, stayed = (sum(int(np.sum(a)) for a in m) for m in (now, both(first, now)))
        found = (training.error(model, getattr(data(), part)), losses[-1], kept, stayed, moved)
        outcome = dict(zip(OUTCOME, (*found, time.perf_counter() - begin), strict=True))
    except ValueError as error:
        failure = str(error)
    said = " ".join(f"{name}={value}" for name, value in options.items())
    return case | {"options": said} | outcome | {"failure": failure}


def both(first, second):
    """Return what two lists of masks have in common."""
    return [np.logical_and(a, b) for a, b in zip(first, second, strict=True)]


def prune_and_train(model, train, case):
    """Train by the arm of a case; return (first masks, how many weights were moved, losses)."""
    network, arm, variant, sparsity, seed = (case[key] for key in CASE)
    if arm in MAGNITUDE:
        train()
        first = masks.top_k(scores.magnitude(model), sparsity)
        masks.apply(model, first)
        return first, 0, train()
    if arm == "gradual magnitude":
        first = masks.in_force(model)
        after = functools.partial(prune_gradually, model, sparsity)
        return first, 0, train(every=LOOP["every"], after=after)
    changes = VARIANTS.get(variant, {})
    score = arm if arm in FROZEN else changes.get("start", "SNIP")
    first = first_masks(model, score, network, sparsity, seed)
    if arm in FROZEN:
        masks.apply(model, first)
        return first, 0, train()
    changes = changes | ({"credit": "random"} if arm == "random regrowth" else {})
    loop = regrowth.Regrowth(model, first, **loop_options(changes, seed))
    losses = train(every=loop.every, after=loop.after)
    return first, sum(count for _, count in loop.moved), losses


def loop_options(changes, seed):
    """Return the arguments of `Regrowth` for a variant."""
    options = LOOP | {key: changes[key] for key in ("every", "decay") if key in changes}
    supply = datasets.batches(data().train, BATCH_SIZE, seed=seed + 10_000)
    generator = np.random.default_rng([seed, 2])
    plain = {"regularisation": False}  # credit is for the data, not for the decay
    credits = {
        "batch": lambda model: regrowth.gradient_credit(model, next(supply), **plain),
        "lookahead": lambda model: regrowth.lookahead_credit(
            model, supply, steps=changes["ahead"], **plain
        ),
        "random": lambda model: [generator.random(k.shape) for k in networks.kernels(model)],
    }
    if "credit" in changes:
        options["credit"] = credits[changes["credit"]]
    if not changes.get("persistence", True):
        options["weight"] = regrowth.last_step
    return options


def prune_gradually(model, sparsity, step, optimizer):
    """Prune the lightest weights to what the cubic schedule asks for after a step."""
    now = schedules.cubic(step, begin=0, until=LOOP["until"], final=sparsity)
    schedules.prune(model, now, optimizer=optimizer)


def chosen_options(network, arm):
    """Return the trial of an arm that did best on the validation images."""
    where = {"network": network, "arm": arm}
    return TRIALS[network][int(sweeps.best(stored_as("regrowth_tuning"), "trial", where))]


def cases_of(network, arms, sparsities, seeds, variants=("as is",)):
    """Return the cases of a part of the grid, seed by seed."""
    grid = itertools.product(seeds, sparsities, arms, variants)
    return [
        dict(zip(CASE, (network, arm, variant, sparsity, seed), strict=True))
        for seed, sparsity, arm, variant in grid
    ]


LENET_ARMS = (
    *("SNIP", "iterative ProsPr", "SynFlow"),
    *("gradual magnitude", "random regrowth", "credit"),
)


def plan():
    """Return every case, headline cells first."""
    dense = functools.partial(cases_of, "LeNet-300-100")
    if FASHION:
        cases = dense(ARMS, (0.99, 0.95), range(5))
        return cases + cases_of("LeNet-5", LENET_ARMS, (0.99, 0.95), range(5))
    cases = dense(ARMS, (0.99, 0.995), range(5)) + dense(ARMS, (0.9, 0.95, 0.98), range(5))
    cases += dense(("credit",), (0.99,), range(5), list(VARIANTS))
    return cases + cases_of("LeNet-5", LENET_ARMS, (0.99, 0.95), range(5))


def tuning():
    """Return the trials: each on seeds of its own, at 99%."""
    arms = [("LeNet-300-100", arm, (100, 101)) for arm in ARMS]
    arms += [("LeNet-5", arm, (100,)) for arm in LENET_ARMS]
    return [
        case | {"trial": trial}
        for network, arm, seeds in arms
        for trial in range(len(TRIALS[network]))
        for case in cases_of(network, (arm,), (0.99,), seeds)
    ]


def one(case):
    """Return the rows of one case with its options; runs in a process of its own."""
    case = dict(case)
    if "trial" not in case:
        return [run_case(**case, options=chosen_options(case["network"], case["arm"]))]
    trial = case.pop("trial")
    options = TRIALS[case["network"]][trial]
    return [run_case(**case, options=options, part="validation") | {"trial": trial}]


def configuration():
    """Return what determines the results, the scores' own options apart."""
    training_of_all = {"steps": STEPS, "batch_size": BATCH_SIZE, "momentum": MOMENTUM}
    found = {"training": training_of_all, "activations": ACTIVATION, "loop": LOOP}
    return found | {"variants": VARIANTS, "trials": TRIALS}


SWEEPS = {
    stored_as("regrowth_tuning"): (sweeps.left(tuning, (*CASE, "trial")), one),
    stored_as("regrowth"): (sweeps.left(plan, CASE), one),
}


if __name__ == "__main__":
    import sweep_regrowth  # by its name, under which the processes of joblib can import it

    sweeps.command(
        sweep_regrowth,
        sweep_regrowth.SWEEPS,
        lambda: sweep_regrowth.configuration() | datasets.fingerprint(data()),
    )
