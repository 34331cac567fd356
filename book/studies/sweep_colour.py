"""The sweep behind chapter 12: residual networks with batch normalisation, on colour images.

A *case* is one network, arm, variant, sparsity and seed: initial weights, batch order, shifts and
flips are those of the seed, whatever the arm.  Every arm trains for the same number of steps by one
protocol, and so takes the same number of gradients, but for what its mask costs.  An arm is a score
whose mask stands from the start, or a way to prune while training; the units of "removed" are gone
before training.

Every choice is made on the validation images, on a seed of its own, at 95%: first the learning rate
of the dense network, which all arms then use, then three trials for each arm that has a choice.
Scores are taken in float64, so that no mask depends on rounding (`sweep_precision` shows what
float32 would do), of images as they are.

A case runs on one thread.  The images are held as bytes, and decoded, shifted and flipped batch by
batch.
"""

import functools
import itertools
import os
import time

from prosper_utils.pruning import budgets, gates, masks, networks, regrowth, schedules, units
from prosper_utils.pruning.paths import effective
from prosper_utils.pruning.scores import SCORES
from prosper_utils.study import controls, datasets, training

import keras
import numpy as np
import sweeps
import tensorflow as tf

EPOCHS, BATCH_SIZE, MOMENTUM, WEIGHT_DECAY, WARM_UP = 5, 128, 0.9, 5e-4, 0.1
NETWORKS = {"ResNet-8": networks.resnet8, "ResNet-20": networks.resnet20}
RATES = (0.05, 0.1, 0.2, 0.4, 0.8)
LOOP = {"share": 0.3, "decay": 0.98}
UNTIL = 0.75  # the part of the training in which masks change
TRIALS = {
    "SNIP": [{"batches": count} for count in (1, 8, 64)],
    "ProsPr": [{"learning_rate": alpha} for alpha in (0.001, 0.01, 0.1)],
    "gradual magnitude": [{"until": share} for share in (0.5, 0.75, 0.9)],
    "iterative SNIP": [{"rounds": r} for r in (3, 10, 30)],
    "SynFlow": [{"rounds": r} for r in (10, 30, 100)],
    "GraSP": [{"temperature": t} for t in (1.0, 20.0, 200.0)],
    "credit": [{"every": steps} for steps in (25, 50, 100)],
}
WHILE_TRAINING = ("credit", "gradual magnitude")
REMOVED = {  # units: scores of groups, per multiply-add but for the uniform control
    "removed by ProsPr": gates.prospr,
    "removed by SNIP": gates.snip,
    "removed uniformly": gates.uniform,
}
CASE = ("network", "arm", "variant", "sparsity", "seed")
OUTCOME = ("error", "loss", "kept", "on_a_path", "train_seconds")


@functools.cache
def data():
    """Return the data set, the training images as bytes, loaded once in each process."""
    found = datasets.load(os.environ.get("PROSPER_COLOUR", "cifar10"))
    if found.train[0].shape[-1] == 1:
        found = datasets.in_colour(found)
    return found._replace(train=datasets.in_bytes(found.train))


def trainer(model, rate, steps):
    """Return the compiled training of a model: a warm-up, then a cosine to zero."""
    for variable in model.trainable_variables:  # L2 in the loss: half the decay times w^2
        variable.regularizer = keras.regularizers.L2(WEIGHT_DECAY / 2)
    warm = int(WARM_UP * steps)
    rates = keras.optimizers.schedules.CosineDecay(
        0.0, steps - warm, warmup_target=rate, warmup_steps=warm
    )
    optimizer = keras.optimizers.SGD(rates, momentum=MOMENTUM)
    return training.trainer(model, optimizer, prepare=datasets.augmented)


def steps_of_all():
    """Return for how many steps every arm trains."""
    return EPOCHS * (len(data().train[0]) // BATCH_SIZE)


def supply(seed):
    """Yield endless batches of the images as they are, in the order of a seed."""
    for x, y in datasets.batches(data().train, BATCH_SIZE, seed=seed):
        yield tf.cast(x, tf.float32) / 255, y


def scores_of(model, arm, sparsity, seed, batches=1, **options):
    """Return the scores of a model in float64; SNIP takes the mean over so many batches."""
    found = supply(seed)
    if arm == "SNIP":
        found = list(itertools.islice(found, batches))
    options = options | {"sparsity": sparsity, "seed": seed, "dtype": "float64"}
    return [np.asarray(s) for s in SCORES[arm](model, found, **options)]


def run_case(network, arm, variant, sparsity, seed, *, rate, options, part="test"):
    """Return the row of one case.

    Variants: "as it is"; "shuffled", as many weights of each layer anywhere in it; "by size",
    regrowth that compares weights of units of any scale; and "fresh", what is left of the units
    with new weights.  A training that diverges, or a score that fails, is a result: a row without
    an error of the network.
    """
    case = dict(zip(CASE, (network, arm, variant, sparsity, seed), strict=True))
    keras.utils.clear_session(free_memory=True)
    model, begin = NETWORKS[network](seed=seed), time.perf_counter()
    failure, outcome = "", dict.fromkeys(OUTCOME)
    try:
        if arm in REMOVED:
            model = smaller(model, arm, variant, sparsity, seed)
        trained, loss = prune_and_train(model, case, rate, options)
        now = [v.numpy() != 0 for v in networks.kernels(trained)]
        kept = " ".join(str(int(m.sum())) for m in now)
        found = (training.error(trained, getattr(data(), part), chunk=500), loss, kept)
        on_a_path = sum(int(np.sum(m)) for m in effective(model, now))
        seconds = time.perf_counter() - begin
        outcome = dict(zip(OUTCOME, (*found, on_a_path, seconds), strict=True))
    except ValueError as error:
        failure = str(error)
    said = " ".join(f"{name}={value}" for name, value in options.items())
    cost = {"rate": rate, "options": said, "multiply_adds": budgets.cost(model)}
    return case | cost | outcome | {"failure": failure}


def smaller(model, arm, variant, share, seed):
    """Return the model without a share of its multiply-adds, its units chosen by a score."""
    options = chosen_options("ProsPr") if arm == "removed by ProsPr" else {}
    listed = list(itertools.islice(supply(seed), 16))
    found = REMOVED[arm](model, listed, seed=seed, dtype="float64", **options)
    if arm != "removed uniformly":
        found = budgets.per_cost(model, found)
    small = units.shrink(model, budgets.choose(model, found, share=1 - share))
    return controls.fresh(small, seed + 1000) if variant == "fresh" else small


def prune_and_train(model, case, rate, options):
    """Return (the trained model, its last mean loss): pruned and trained by the arm of a case."""
    _, arm, variant, sparsity, seed = (case[key] for key in CASE)
    trained, steps = training.fused(model), steps_of_all()
    train = functools.partial(
        trainer(trained, rate, steps), data().train, steps=steps, batch_size=BATCH_SIZE, seed=seed
    )
    if arm == "gradual magnitude":
        until = int(options.get("until", UNTIL) * steps)
        after = functools.partial(prune_gradually, trained, sparsity, until)
        return trained, train(every=steps // 50 or 1, after=after)[-1]
    if arm == "credit":
        snip = scores_of(model, "SNIP", sparsity, seed, **chosen_options("SNIP"))
        how = LOOP | {"until": int(UNTIL * steps), "scale_free": variant != "by size"} | options
        loop = regrowth.Regrowth(trained, masks.top_k(snip, sparsity), **how)
        return trained, train(every=loop.every, after=loop.after)[-1]
    if arm not in ("dense", *REMOVED):
        chosen = masks.top_k(scores_of(model, arm, sparsity, seed, **options), sparsity)
        masks.apply(trained, masks.shuffled(chosen, seed) if variant == "shuffled" else chosen)
    return trained, train()[-1]


def prune_gradually(model, sparsity, until, step, optimizer):
    """Prune the lightest weights to what the cubic schedule asks for after a step."""
    now = schedules.cubic(step, begin=0, until=until, final=sparsity)
    schedules.prune(model, now, optimizer=optimizer)


def chosen_rate():
    """Return the learning rate that did best for the dense network."""
    return float(sweeps.best("colour_rates", "rate"))


def chosen_options(arm):
    """Return the options of an arm that were chosen, {} if none are open."""
    if arm not in TRIALS:
        return {}
    where = {"arm": arm, "variant": "as it is"}
    return TRIALS[arm][int(sweeps.best("colour_tuning", "trial", where))]


def cases_of(network, arms, sparsities, seeds, variants=("as it is",)):
    """Return the cases of a part of the grid, seed by seed."""
    grid = itertools.product(seeds, sparsities, arms, variants)
    return [
        dict(zip(CASE, (network, arm, variant, sparsity, seed), strict=True))
        for seed, sparsity, arm, variant in grid
    ]


HEADLINE = ("SNIP", "ProsPr", *WHILE_TRAINING)
REST = ("iterative SNIP", "magnitude", "SynFlow", "GraSP")


def plan():
    """Return every case, headline cells first."""
    small, few = functools.partial(cases_of, "ResNet-8"), range(3)
    cases = []
    for seed in few:
        cases += small(("dense",), (0.0,), [seed]) + small(HEADLINE, (0.95,), [seed])
        cases += small(("SNIP", "ProsPr"), (0.95,), [seed], ("shuffled",))
    cases += small(("iterative SNIP", "magnitude"), (0.95,), few)
    cases += small(("SNIP", "ProsPr", "credit"), (0.95,), range(3, 5))
    cases += small(("SNIP", "ProsPr"), (0.95,), range(3, 5), ("shuffled",))
    cases += small(tuple(REMOVED), (0.5,), few)
    cases += small(("removed by ProsPr",), (0.5,), few, ("fresh",))
    cases += small(HEADLINE, (0.98,), few)
    cases += cases_of("ResNet-20", ("SNIP", "ProsPr"), (0.95,), range(1))
    cases += small(("SynFlow",), (0.95,), range(5)) + small(("SynFlow",), (0.98,), few)
    cases += small(("removed uniformly", "removed by ProsPr"), (0.75,), few)
    cases += small(("GraSP",), (0.95,), few)
    cases += small(("removed by SNIP",), (0.75,), few)
    cases += small(("removed by ProsPr",), (0.75,), few, ("fresh",))
    cases += small(("credit",), (0.95,), few, ("by size",))
    cases += small(HEADLINE, (0.9,), few)
    cases += small(("SNIP", "ProsPr"), (0.98,), few, ("shuffled",))
    cases += small(("iterative SNIP", "magnitude", "GraSP"), (0.98,), few)
    return cases + small(REST, (0.9,), few)


def rates():
    """Return the trials of the learning rate, on the dense network."""
    cases = cases_of("ResNet-8", ("dense",), (0.0,), (100,))
    return [case | {"rate": rate} for case, rate in itertools.product(cases, RATES)]


def tuning():
    """Return the trials of the arms that have a choice."""
    return [
        case | {"trial": trial}
        for arm, trials in TRIALS.items()
        for trial in range(len(trials))
        for case in cases_of("ResNet-8", (arm,), (0.95,), (100,))
    ]


def one(case):
    """Return the rows of one case with its options; runs in a process of its own."""
    case = dict(case)
    if "rate" in case:
        return [run_case(**case, options={}, part="validation")]
    if "trial" not in case:
        return [run_case(**case, rate=chosen_rate(), options=chosen_options(case["arm"]))]
    trial = case.pop("trial")
    found = {"rate": chosen_rate(), "options": TRIALS[case["arm"]][trial], "part": "validation"}
    return [run_case(**case, **found) | {"trial": trial}]


def configuration():
    """Return what determines the results."""
    training_of_all = {"epochs": EPOCHS, "batch_size": BATCH_SIZE, "momentum": MOMENTUM}
    training_of_all |= {"weight_decay": WEIGHT_DECAY, "warm_up": WARM_UP, "rates": RATES}
    return {"training": training_of_all, "loop": LOOP, "until": UNTIL, "trials": TRIALS}


SWEEPS = {
    "colour_rates": (sweeps.left(rates, (*CASE, "rate")), one),
    "colour_tuning": (sweeps.left(tuning, (*CASE, "trial")), one),
    "colour": (sweeps.left(plan, CASE), one),
}


if __name__ == "__main__":
    import sweep_colour  # by its name, under which the processes of joblib can import it

    sweeps.command(
        sweep_colour,
        sweep_colour.SWEEPS,
        lambda: sweep_colour.configuration() | datasets.fingerprint(sweep_colour.data()),
    )
