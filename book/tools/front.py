"""The pictures and the findings of the front page, made from the package and the stored results.

`python book/tools/front.py` writes `book/front_page/`: two pictures that say "a weight at zero
still has a gradient", one of a network and one of a distribution, and `findings.md`, in which every
number is read from `book/studies/results/`.
"""

import json
from pathlib import Path

from prosper_utils.blending import distributions, evolution
from prosper_utils.lookahead.descent import loss_and_gradient, sgd, start
from prosper_utils.lookahead.trajectory import pull_back, roll_out
from prosper_utils.pruning.networks import cross_entropy
from prosper_utils.study import plots, results
from prosper_utils.study.comparison import by_seed, paired, stated
from prosper_utils.study.findings import best_frozen

import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "book" / "front_page"
DENSE = "LeNet-300-100"
STORED = ", goals stored"  # the end of the name of an arm of the search for proofs
WEIGHT, CREDIT, GREY = "#0072B2", "#D55E00", "#595959"


def network(kept=5, steps=3, rate=0.5):
    """Return the last weights of a small pruned network and their credit, two arrays.

    It is the network of chapter 3.  All but the largest of its last kernel are set to zero, and
    the gradient of the loss after some steps is pulled back to all of them; credit is minus that.
    """
    stored = json.loads((ROOT / "tests" / "prospr_tiny.json").read_text())
    pairs = zip(stored["kernels"], stored["biases"], strict=True)
    *below, kernel, bias = (tf.constant(t, tf.float64) for pair in pairs for t in pair)
    batches = [
        (tf.constant(b["inputs"], tf.float64), tf.constant(b["labels"])) for b in stored["batches"]
    ]

    def loss(weights, batch):
        hidden = tf.tanh(batch[0] @ weights[0] + weights[1])
        return cross_entropy(hidden @ weights[2] + weights[3], batch[1])

    least = np.sort(np.abs(kernel), axis=None)[-kept]
    pruned = tf.where(tf.abs(kernel) >= least, kernel, 0)
    step = sgd(loss, rate)
    states = roll_out(step, start([*below, pruned, bias]), batches[:steps])
    _, gradient = loss_and_gradient(loss, states[-1][0], batches[steps])
    (pulled,) = pull_back(step, states, batches[:steps], (tuple(gradient),))
    return np.ravel(pruned), -np.ravel(pulled[2])


def words(text="banana"):
    """Return the pieces of a word, their weights and their credit: {piece: (weight, credit)}.

    It is the evolution of chapter 13.  Only letters have weight, and the goal is the whole word,
    which may have none.  Credit is what is above average, and none for what the loop cannot see.
    """
    pieces = {text[i:j] for j in range(1, len(text) + 1) for i in range(j)}
    letters = {"b": 0.3, "a": 0.5, "n": 0.2}

    def joined(x, y):
        return x + y if x + y in pieces else None

    table = evolution.Table({x: x for x in letters}, joined)
    p = distributions.distribution(table.places, letters)
    loop = evolution.one_loop(table, p, {text: 1.0}, evolution.Settings(steps=2))
    weights, credit = loop.states[0].numpy(), loop.credit.numpy()
    above = np.zeros(len(weights))
    above[loop.extra] = (credit - weights @ credit)[loop.extra]
    found = {x: (weights[k], above[k]) for x, k in table.places.items()}
    order = sorted(pieces, key=lambda x: (len(x), text.index(x)))
    return {x: found.get(x, (0.0, 0.0)) for x in order}


def draw(axis, weights, credit, longest):
    """Draw weights as bars, and from each that is zero an arrow along the credit that it gets."""
    places, zero = np.arange(len(weights)), weights == 0
    axis.bar(places, weights, 0.6, color=WEIGHT)
    lengths = longest * credit / np.abs(credit[zero]).max()
    for x, length in zip(places[zero], lengths[zero], strict=True):
        if abs(length) > 1e-6:
            look = {"color": CREDIT, "arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, "lw": 1.8}
            axis.annotate("", (x, length), (x, 0), arrowprops=look)
    hollow = {"color": "white", "markeredgecolor": WEIGHT, "markersize": 4.5}
    axis.plot(places[zero], weights[zero], "o", zorder=3, clip_on=False, **hollow)
    axis.axhline(0, color="black", linewidth=0.8, zorder=1)
    axis.set(xlim=(-0.8, len(weights) - 0.2), yticks=[0], ylabel="weight")
    axis.spines[["bottom", "left"]].set_visible(False)
    axis.tick_params(length=0, pad=5)
    axis.grid(False)


def trajectory(axis, states, end, forward, back):
    """Draw states in a row with arrows forward, and one arrow back from what is at the end."""
    last = len(states)
    for i, name in enumerate([*states, end]):
        axis.text(i, 0, name, ha="center", va="center")
        if i:
            look = {"arrowstyle": "->", "color": GREY, "shrinkA": 14, "shrinkB": 14}
            axis.annotate("", (i, 0), (i - 1, 0), arrowprops=look)
    look = {"arrowstyle": "-|>", "color": CREDIT, "lw": 1.8, "shrinkA": 0, "shrinkB": 0}
    look["connectionstyle"] = f"arc3,rad={-0.5 / last}"
    axis.annotate("", (0, -0.35), (last, -0.35), arrowprops=look)
    axis.text((last - 1) / 2, 0.4, forward, ha="center", color=GREY)
    axis.text(last / 2, -1.75, back, ha="center", va="center", color=CREDIT)
    axis.set(xlim=(-0.4, last + 0.4), ylim=(-2.1, 0.9))
    axis.axis("off")


def pictures(folder):
    """Write `network.png` and `words.png` to a folder."""
    weights, credit = network()
    figure, (above, below) = canvas("A network, pruned before training")
    states = [f"$w_{m}$" for m in range(4)]
    trajectory(above, states, "loss", "steps of training", "credit pulled back")
    draw(below, weights, credit, longest=0.35)
    below.set_xticks([])
    below.set_xlabel("fifteen connections")
    save(figure, folder / "network.png")

    found = words()
    weights, credit = np.array(list(found.values())).T
    figure, (above, below) = canvas("A distribution over words")
    states = [f"$p_{m}$" for m in range(3)]
    trajectory(above, states, "goal", "steps of combining", "credit pulled back")
    draw(below, weights, credit, longest=0.35)
    below.set_xticks(range(len(found)), found, rotation=90)
    save(figure, folder / "words.png")


def canvas(title):
    """Return a figure with a title and two axes, a low one above a high one."""
    size = {"figsize": (4.4, 3.4), "height_ratios": [1, 2]}
    figure, axes = plt.subplots(2, 1, **size)
    figure.suptitle(title, fontsize=12)
    return figure, axes


def save(figure, path):
    """Write a figure as a PNG file, at twice the resolution for sharp screens."""
    figure.savefig(path, dpi=200, metadata={"Software": None})
    plt.close(figure)


def streamed():
    """Return what a streamed product is worth, and what the exact meta-gradient costs."""
    table, _ = results.load("streaming_errors")
    there = table[(table.alpha == 0.1) & (table.steps == 10)]
    overlap = there.groupby(["score", "network", "activation"]).iou_98.mean()
    rows, first = (span(100 * overlap[name]) for name in ("row sums", "first order"))
    return (
        "**The exact score is affordable, and a running product gives other masks.**\n"
        "On MNIST we score connections by the loss ten training steps later, and keep the best 2% "
        "(two networks with two activations each, learning rate 0.1).\n"
        "An earlier attempt multiplies one number per weight and step, a running product; its "
        f"masks overlap with the exact masks by {rows}%; those of a score without any second "
        f"derivative overlap with them by {first}% "
        "([](../notebooks/05_streaming_against_unrolled.ipynb)).\n"
    ) + exact()


def span(values):
    """Return the smallest and the largest of some values as a text, "from to to"."""
    return f"{min(values):.0f} to {max(values):.0f}"


def exact():
    """Return what the exact meta-gradient costs, in time and in memory."""
    times, _ = results.load("bench_times")
    times = times[(times.method == "reverse") & (times.momentum == 0)]
    ratio = times.set_index("network").ratio
    memory, _ = results.load("bench_memory")
    memory = memory[(memory.network == "LeNet-5") & (memory.momentum == 0) & (memory.steps == 300)]
    added = memory.set_index("method").added_mib
    return (
        f"For fifty steps the exact score takes {ratio[DENSE]:.1f} times as long as the steps "
        f"themselves on {DENSE} and {ratio['LeNet-5']:.1f} times on LeNet-5; for 300 steps of "
        f"LeNet-5 it adds {added['reverse']:,.0f} MiB of memory, where one tape over all of them "
        f"adds {added['unrolled']:,.0f} MiB ([](../notebooks/07_exact_and_small.ipynb))."
    )


def pruned():
    """Return the test errors of pruned networks, and what looking ahead is worth in one shot."""
    table, _ = results.load("pruning")
    table = table[(table.network == DENSE) & (table.variant == "as scored")]
    arms = ("random", "SNIP", "ProsPr", "iterative SNIP")
    means, ahead = {}, {}
    for activation in ("relu", "tanh"):
        where = {"activation": activation, "sparsity": 0.99}
        errors = [by_seed(table, score=arm, **where) for arm in arms]
        means[activation] = [f"{np.mean(list(seeds.values())):.1f}%" for seeds in errors]
        ahead[activation] = stated(paired(errors[2], errors[1]))
    relu, tanh = means["relu"], means["tanh"]
    return (
        "**On MNIST, pruning in rounds lowers the error; a short look ahead makes no significant "
        "difference.**\n"
        f"With 1% of the weights of {DENSE} left, the test error on MNIST with ReLU is {relu[0]} "
        f"for a random mask, {relu[1]} for SNIP, {relu[2]} for ProsPr and {relu[3]} for SNIP in "
        "rounds; "
        f"with tanh it is {tanh[0]}, {tanh[1]}, {tanh[2]} and {tanh[3]}.\n"
        f"The difference ProsPr minus SNIP, with its 95% interval, is {ahead['relu']} points with "
        f"ReLU and {ahead['tanh']} with tanh "
        "([](../notebooks/08_prune_dense.ipynb), [](../notebooks/10_sanity_checks.ipynb))."
    )


def proved():
    """Return how many goals the ways of searching for proofs prove."""
    table, origin = results.load("proofs")
    goals, budget = len(origin["configuration"]["goals"]), origin["configuration"]["budget"]
    table = table[table.steps.isin((0, 2)) & ~table.arm.str.contains("held out|budgets")]
    mean = table.groupby("arm").proved.mean()
    other = mean[~mean.index.str.contains(STORED)]
    plain, bred = (other[other.index.str.contains(name)].max() for name in ("first", "genetic"))
    return (
        "**Formulas without weight earn weight, and more theorems are proved with them.**\n"
        f"Of {goals} theorems, its goals, the blended loop proves {mean['blend']:.1f} on average "
        f"with {budget:,} attempted inferences.\n"
        f"It proves {mean['identity']:.1f} if its sums do not reach beyond the formulas with "
        f"weight, {mean['persistence without credit']:.1f} if a formula gets no credit for having "
        f"stayed, {mean['without persistence']:.1f} if only the axioms stay from step to step, and "
        f"{mean['fixed']:.1f} if no new formula may have weight; the best of our genetic "
        f"algorithms proves {bred:.1f} and the best of our plain searches {plain:.1f}.\n"
        + stored_goals(table)
        + " "
        "([](../notebooks/15_proofs_found.ipynb), [](../notebooks/19_what_holds.ipynb))."
    )


def stored_goals(table):
    """Return a sentence on the extra support where goals may be stored, as the runs have it."""
    arms = [table[table.arm == arm + STORED] for arm in ("blend", "identity")]
    kept = [arm.set_index(["step_size", "keep", "seed"]).proved.to_dict() for arm in arms]
    gain, means = paired(*kept), [arm.proved.mean() for arm in arms]
    if gain.low > 0 or gain.high < 0:
        said = "the extra support makes a difference too"
    else:
        said = "no difference is shown"
    return (
        f"If goals that are proved may be used in later proofs, {said}: {means[0]:.1f} with sums "
        f"that reach further and {means[1]:.1f} without, {stated(gain)} within each of "
        f"{len(arms[0])} settings"
    )


def regrown():
    """Return the test errors of a dense network whose mask moves, beside those of other arms."""
    means, less = moving("regrowth")
    clothes, gain = moving("regrowth_fashion")
    _, at_95 = moving("regrowth_fashion", 0.95)
    return (
        "**On MNIST, a very sparse network that may exchange its weights has lower error than with "
        "any fixed mask of this book; on other images, at some sparsities.**\n"
        f"There we keep 1% of the weights of {DENSE} from the first step to the last (ReLU).\n"
        f"The test error is {means[0]} if the lightest weights are dropped again and again and "
        f"others grown by their credit, {means[1]} with the best fixed mask and {means[2]} if "
        f"weights are grown at random; a dense network that is pruned while it trains reaches "
        f"{means[3]}.\n"
        f"The difference between the first two, with its 95% interval, is {less} points "
        "([](../notebooks/17_does_it_pay.ipynb)).\n"
        "On clothes (Fashion-MNIST) the same four errors are "
        f"{', '.join(clothes[:3])} and {clothes[3]}, and the difference is {gain} points; at 5% of "
        f"the weights it is {at_95}.\n"
    ) + on_colour()


def moving(name, sparsity=0.99):
    """Return the mean errors of a stored sweep, and credit minus the best fixed mask.

    The four errors, as texts, are those by credit, of the fixed mask with the lowest one, with
    random regrowth, and with gradual magnitude.
    """
    table, _ = results.load(name)
    table = table[(table.network == DENSE) & (table.variant == "as is")]
    table = table[table.sparsity == sparsity]
    best, less = lead(table)
    arms = ("credit", best, "random regrowth", "gradual magnitude")
    errors = [by_seed(table, arm=arm) for arm in arms]
    return [f"{np.mean(list(seeds.values())):.1f}%" for seeds in errors], less


def on_colour():
    """Return the test errors of a residual network on colour images, and what the loop is worth."""
    table, _ = results.load("colour")
    table = table[table.network == "ResNet-8"]
    plain = table[table.variant == "as it is"]
    (best, less), (other, at_98) = (lead(plain[plain.sparsity == s]) for s in (0.95, 0.98))
    table, plain = (t[t.sparsity == 0.95] for t in (table, plain))
    errors = [by_seed(plain, arm=arm) for arm in ("credit", best, "SNIP", "gradual magnitude")]
    errors.append(by_seed(table[table.variant == "shuffled"], arm="SNIP"))
    means = [f"{np.mean(list(seeds.values())):.1f}%" for seeds in errors]
    return (
        "On colour images (CIFAR-10), with 5% of the weights of a residual network and five epochs "
        f"of training, the error is {means[0]} by credit, {means[1]} with the best fixed mask, "
        f"that of {best}, {means[2]} with that of SNIP, {means[4]} with SNIP's shuffled in each "
        f"layer, and {means[3]} if a dense network is pruned while it trains; the difference "
        f"between the first two is {less} points, and with 2% of the weights, against {other}, it "
        f"is {at_98} "
        "([](../notebooks/12_colour_images.ipynb))."
    )


def lead(table):
    """Return the fixed mask with the lowest mean error of one cell, and credit minus it."""
    errors = {arm: by_seed(table, arm=arm) for arm in table.arm.unique()}
    best = best_frozen(errors)
    return best, stated(paired(errors["credit"], errors[best]), star=False)


def findings():
    """Return the findings as a numbered list in Markdown, every number from a stored result."""
    items = [finding().replace("\n", "\n   ") for finding in (streamed, pruned, proved, regrown)]
    return "\n".join(f"{n}. {item}" for n, item in enumerate(items, 1)) + "\n"


def main():
    """Write both pictures and the findings."""
    plots.use_style()
    FOLDER.mkdir(exist_ok=True)
    pictures(FOLDER)
    results.replace(FOLDER / "findings.md", findings())


if __name__ == "__main__":
    main()
