"""The tables of the page "Which method, when", every number from a stored result.

`python book/tools/methods.py` writes them to `book/front_page/`: what each way of pruning gave, by
weights and by whole units, and what it costs.
"""

from pathlib import Path

from prosper_utils.study import results
from prosper_utils.study.comparison import by_seed, paired, stated

import numpy as np

FOLDER = Path(__file__).parents[2] / "book" / "front_page"
DENSE, LENET, CLOTHES, RESNET = "LeNet-300-100", "LeNet-5", "clothes", "ResNet-8"
COLUMNS = [(network, sparsity) for network in (DENSE, LENET) for sparsity in (0.95, 0.99)]
COLUMNS += [(CLOTHES, 0.99), (RESNET, 0.95)]
ARMS = {
    "gradual magnitude": "gradual magnitude",
    "magnitude, after training": "magnitude",
    "regrowth by credit": "credit",
    "SynFlow": "SynFlow",
    "ProsPr in rounds": "iterative ProsPr",
    "ProsPr": "ProsPr",
    "SNIP": "SNIP",
}
NETWORKS = (DENSE, LENET, RESNET)
UNITS = {
    "whole": ("start", "none", "kept", 1.0),
    "¼ before: ProsPr": ("start", "ProsPr per multiply-add", "kept", 0.25),
    "¼ before: uniform": ("start", "uniform", "fresh", 0.25),
    "½ after: Taylor": ("trained", "Taylor per multiply-add", "kept", 0.5),
    "¼ after: Taylor, in rounds": ("trained", "Taylor per multiply-add, in rounds", "kept", 0.25),
}
ROUNDS = "SNIP", "iterative SNIP", "ProsPr", "iterative ProsPr"
FARTHER = "ProsPr, M = 10", "ProsPr, M = 100"
GAINS = {"¼: file, times smaller": "smaller", "¼: one image, times faster": "faster_1"}


def row(name, cells):
    """Return a row of a Markdown table."""
    return f"| {' | '.join([name, *cells])} |"


def table(name, title, heads, rows):
    """Return a Markdown table with a name to refer to and a title; heads go to the right."""
    rule = row("---", ["---:"] * len(heads))
    head = [f"```{{table}} {title}", f":name: {name}", ":class: names"]
    return "\n".join([*head, row("", heads), rule, *rows, "```"]) + "\n"


def mean(errors):
    """Return a mean error as a text, or a dash where there is none."""
    return f"{errors.mean():.1f}" if len(errors) else "–"


def steps(sweep):
    """Return for how many steps all networks of a stored sweep that are shown were trained."""
    configuration = results.load(sweep)[1]["configuration"]
    settings = {"units": "networks", "pruning": "protocol"}.get(sweep, "training")
    found = configuration[settings]
    each = [found[n] for n in NETWORKS] if sweep == "units" else [found]
    (count,) = {setting["steps"] for setting in each}
    return count


def weights():
    """Return the errors of networks pruned weight by weight."""
    names = ("regrowth", "regrowth_fashion", "colour")
    digits, clothes, colour = (results.load(name)[0] for name in names)
    digits = digits[digits.variant == "as is"]
    clothes = clothes[clothes.network == DENSE].assign(network=CLOTHES)
    colour = colour[(colour.variant == "as it is") & (colour.arm != "magnitude")]  # of w at start
    stored = {CLOTHES: clothes, RESNET: colour}

    def error(arm, network, sparsity):
        here = stored.get(network, digits)
        here = here[(here.network == network) & (here.sparsity == sparsity)]
        return mean(here[here.arm == arm].error)

    rows = [row(name, [error(arm, *column) for column in COLUMNS]) for name, arm in ARMS.items()]
    title = (
        "Test error in %, of networks pruned weight by weight to a sparsity of 95 and 99%; within "
        f"a column all trained for as long. Dense is {DENSE} with ReLU and conv is {LENET} with "
        "tanh, both on MNIST, and clothes is the dense one on Fashion-MNIST, after "
        f"{steps('regrowth'):,} steps, the mean of five seeds; colour is {RESNET} on CIFAR-10 "
        "after five epochs, the mean of at least three."
    )
    names = {DENSE: "dense", LENET: "conv", CLOTHES: CLOTHES, RESNET: "colour"}
    heads = [f"{names[network]}, {sparsity:.0%}" for network, sparsity in COLUMNS]
    return table("tab-methods-weights", title, heads, rows)


def units():
    """Return the errors of networks without some units, and what their files gain."""
    stored, _ = results.load("units")

    def error(network, when, score, variant, share):
        here = stored[(stored.network == network) & (stored.when == when)]
        here = here[(here.variant == variant) & (here.share == share)]
        return mean(here[here.score == score].error)

    bench, _ = results.load("bench_units")
    bench = bench[(bench.form == "LiteRT") & (bench.model == "a quarter")].set_index("network")
    rows = [
        *(row(n, [error(network, *of) for network in NETWORKS]) for n, of in UNITS.items()),
        *(row(n, [f"{bench[of][network]:.1f}" for network in NETWORKS]) for n, of in GAINS.items()),
    ]
    title = (
        "Test error in %, the mean of five seeds, on MNIST, of networks cut to a quarter (¼) or a "
        f"half (½) of their multiply-adds, after a short training of {steps('units'):,} steps, and "
        "a quarter of that again for what was cut after it; and what a quarter gains in a LiteRT "
        "file."
    )
    return table("tab-methods-units", title, NETWORKS, rows)


def costs():
    """Return sentences on what looking ahead and regrowth cost, and what rounds are worth."""
    times, _ = results.load("bench_times")
    ahead = times[(times.method == "reverse") & (times.momentum == 0)].set_index("network").ratio
    loop, _ = results.load("bench_regrowth")
    loop = loop[loop.what == "loop"].set_index("network").ratio
    pruning, _ = results.load("pruning")
    where = {"network": DENSE, "activation": "relu", "variant": "as scored", "sparsity": 0.99}
    of = {score: by_seed(pruning, score=score, **where) for score in (*ROUNDS, *FARTHER)}
    error = {score: f"{np.mean(list(of[score].values())):.1f}%" for score in ROUNDS}
    farther = [stated(paired(of[score], of["ProsPr"]), star=False) for score in FARTHER]
    return (
        "- *Looking ahead*: the reverse sweep takes "
        f"{ahead[DENSE]:.1f} times as long as its $M$ steps on {DENSE}, {ahead[LENET]:.1f} times "
        f"on {LENET} ([](../notebooks/07_exact_and_small.ipynb)).\n"
        f"- *Regrowth by credit*: a step of training takes {loop[DENSE]:.2f} and "
        f"{loop[LENET]:.2f} times as long as a masked one "
        "([](../notebooks/17_does_it_pay.ipynb)).\n"
        f"- *Rounds*: at 99% on {DENSE}, after {steps('pruning'):,} steps, the error is "
        f"{error['SNIP']} for SNIP and "
        f"{error['iterative SNIP']} for SNIP in rounds, {error['ProsPr']} for ProsPr and "
        f"{error['iterative ProsPr']} for ProsPr in rounds "
        "([](../notebooks/10_sanity_checks.ipynb)).\n"
        "- *A farther look*: there the error of ProsPr with $M = 10$ minus that with $M = 3$ is "
        f"{farther[0]} points, and with $M = 100$ it is {farther[1]} "
        "([](../notebooks/10_sanity_checks.ipynb)).\n"
    )


PARTS = {"methods_weights": weights, "methods_units": units, "methods_costs": costs}


def main():
    """Write all parts."""
    for name, part in PARTS.items():
        results.replace(FOLDER / f"{name}.md", part())


if __name__ == "__main__":
    main()
