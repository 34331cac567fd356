"""The front page: what its pictures show, and that every finding takes the rows that it speaks of.

`test_pages.py` compares the files as they are stored.  Here each function is given a few rows, with
others among them that it must leave out, and the whole text is written out.
"""

import front
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from conftest import tiny_loss
from matplotlib.colors import to_hex


@pytest.fixture
def store(monkeypatch):
    """Return a function that puts tables, and maybe a configuration, in place of the stored."""

    def put(configuration=None, **tables):
        frames = {name: pd.DataFrame(rows) for name, rows in tables.items()}
        origin = {"configuration": configuration}
        monkeypatch.setattr(front.results, "load", lambda name: (frames[name], origin))

    return put


@pytest.fixture
def axis():
    """Return an axis of a figure that is closed in the end."""
    figure, axis = plt.subplots()
    yield axis
    plt.close(figure)


def says(**texts):
    """Return functions by name, each of which returns its text, and takes nothing."""
    return {name: lambda text=text: text for name, text in texts.items()}


def over_seeds(errors, **entries):
    """Return a row for each seed, with an error and these entries."""
    return [{**entries, "seed": seed, "error": error} for seed, error in enumerate(errors)]


# What is shown -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kept", "steps", "rate"),
    [({}, 5, 3, 0.5), ({"kept": 2, "steps": 1, "rate": 0.1}, 2, 1, 0.1)],
)
def test_the_credit_of_the_network_is_minus_the_gradient_after_the_steps(
    reference, options, kept, steps, rate
):
    (*below, kernel, bias), batches, _ = reference
    floor = sorted(np.abs(kernel).ravel())[-kept]
    start = np.where(np.abs(kernel) >= floor, kernel, 0)
    with tf.GradientTape() as tape:
        last = tf.constant(start)
        tape.watch(last)
        weights = [*below, last, bias]
        for batch in batches[:steps]:
            with tf.GradientTape() as inner:
                inner.watch(weights)
                value = tiny_loss(weights, batch)
            slopes = inner.gradient(value, weights)
            weights = [w - rate * g for w, g in zip(weights, slopes, strict=True)]
        value = tiny_loss(weights, batches[steps])
    found, credit = front.network(**options)
    assert np.count_nonzero(found) == kept
    np.testing.assert_array_equal(found, start.ravel())
    np.testing.assert_allclose(credit, -np.ravel(tape.gradient(value, last)), rtol=1e-10)


def test_the_pieces_of_banana_have_these_weights_and_this_credit():
    pieces = ["b", "a", "n", "ba", "an", "na", "ban", "ana", "nan", "bana", "anan", "nana"]
    pieces += ["banan", "anana", "banana"]
    found = front.words()
    assert [*found] == pieces
    letters = {"b": 0.3, "a": 0.5, "n": 0.2}
    seen = {"ban": 169061.7, "ana": 202874.0, "nan": 253592.6, "bana": 118343.2, "nana": 177514.8}
    for piece, (weight, credit) in found.items():
        assert weight == letters.get(piece, 0.0)
        assert credit == pytest.approx(seen.get(piece, 0.0), rel=1e-6, abs=1e-6)


def test_the_credit_of_a_piece_is_what_is_above_average():
    """Here the goal is reached, and what is of no use to it is below average."""
    found = front.words("bab")
    assert [*found] == ["b", "a", "ba", "ab", "bab"]
    weights, credit = np.array([*found.values()]).T
    np.testing.assert_allclose(weights, [0.3, 0.5, 0, 0, 0])
    np.testing.assert_allclose(credit, [0.5, -0.5, 1.5, 1.5, 1.5], rtol=1e-4)


def test_weights_are_bars_zeros_are_hollow_and_credit_is_an_arrow(axis):
    weights, credit = np.array([0.5, 0, -0.2, 0, 0]), np.array([9, 4e-7, 8, -2, 1])
    axis.grid(True)
    front.draw(axis, weights, credit, longest=0.3)
    bars = [(b.get_x() + b.get_width() / 2, b.get_width(), b.get_height()) for b in axis.patches]
    assert bars == [(pytest.approx(i), pytest.approx(0.6), w) for i, w in enumerate(weights)]
    assert {to_hex(bar.get_facecolor()) for bar in axis.patches} == {front.WEIGHT.lower()}
    arrows = [(note.get_text(), note.xy, note.get_position()) for note in axis.texts]
    assert arrows == [("", (3, -0.3), (3, 0)), ("", (4, 0.15), (4, 0))]
    for note in axis.texts:
        assert (note.arrowprops["color"], note.arrowprops["arrowstyle"]) == (front.CREDIT, "-|>")
        assert note.arrowprops["shrinkA"] == note.arrowprops["shrinkB"] == 0
    hollow, ground = axis.lines
    np.testing.assert_array_equal(hollow.get_xydata(), [[1, 0], [3, 0], [4, 0]])
    assert (hollow.get_marker(), hollow.get_linestyle()) == ("o", "None")
    assert (hollow.get_color(), hollow.get_markeredgecolor()) == ("white", front.WEIGHT)
    assert not hollow.get_clip_on()
    assert hollow.get_zorder() > axis.patches[0].get_zorder() >= ground.get_zorder()
    np.testing.assert_array_equal(ground.get_ydata(), [0, 0])
    assert axis.get_xlim() == (-0.8, 4.8)
    assert (axis.get_ylabel(), [*axis.get_yticks()]) == ("weight", [0])
    shown = [side for side, spine in axis.spines.items() if spine.get_visible()]
    assert set(shown) <= {"top", "right"}
    assert not any(line.get_visible() for line in axis.get_xgridlines() + axis.get_ygridlines())
    for ticks in (axis.xaxis.get_tick_params(), axis.yaxis.get_tick_params()):
        assert (ticks["length"], ticks["pad"]) == (0, 5)


def test_a_trajectory_goes_forward_from_each_to_the_next_and_back_in_one(axis):
    front.trajectory(axis, ["A", "B"], "end", "on", "home")
    words = [t for t in axis.texts if t.get_text()]
    assert [(t.get_text(), t.get_position(), t.get_color()) for t in words] == [
        ("A", (0, 0), "black"),
        ("B", (1, 0), "black"),
        ("end", (2, 0), "black"),
        ("on", (0.5, 0.4), front.GREY),
        ("home", (1, -1.75), front.CREDIT),
    ]
    assert {t.get_horizontalalignment() for t in words} == {"center"}
    arrows = [t for t in axis.texts if not t.get_text()]
    assert [(a.get_position(), a.xy, a.arrowprops["color"]) for a in arrows] == [
        ((0, 0), (1, 0), front.GREY),
        ((1, 0), (2, 0), front.GREY),
        ((2, -0.35), (0, -0.35), front.CREDIT),
    ]
    assert [a.arrowprops["arrowstyle"] for a in arrows] == ["->", "->", "-|>"]
    assert [a.arrowprops["shrinkA"] for a in arrows] == [14, 14, 0]
    assert [a.arrowprops["shrinkB"] for a in arrows] == [14, 14, 0]
    assert arrows[-1].arrowprops["connectionstyle"] == "arc3,rad=-0.25"
    assert (axis.get_xlim(), axis.get_ylim()) == ((-0.4, 2.4), (-2.1, 0.9))
    assert not axis.axison


def test_a_canvas_has_a_title_and_a_low_axis_above_a_high_one():
    figure, (above, below) = front.canvas("a title")
    assert figure.get_suptitle() == "a title"
    assert [text.get_fontsize() for text in figure.texts] == [12]
    assert [*figure.get_size_inches()] == [4.4, 3.4]
    high, low = above.get_position(), below.get_position()
    assert high.y0 > low.y1
    assert low.height == pytest.approx(2 * high.height)
    plt.close(figure)


def test_a_figure_is_saved_for_sharp_screens_without_a_version_and_closed(monkeypatch, tmp_path):
    figure, other = plt.figure(), plt.figure()
    saved = []
    monkeypatch.setattr(figure, "savefig", lambda path, **options: saved.append((path, options)))
    front.save(figure, tmp_path / "a.png")
    assert saved == [(tmp_path / "a.png", {"dpi": 200, "metadata": {"Software": None}})]
    assert not plt.fignum_exists(figure.number)
    assert plt.fignum_exists(other.number)
    plt.close(other)


def test_each_picture_has_its_title_its_trajectory_and_its_weights(monkeypatch, tmp_path):
    drawn, saved = [], {}

    def trajectory(axis, *given):
        drawn.append((axis, *given))

    def draw(axis, weights, credit, longest):
        drawn.append((axis, [*weights], [*credit], longest))

    def save(figure, path):
        above, below = figure.axes
        (_, *walk), (_, *bars) = drawn
        assert [axis for axis, *_ in drawn] == [above, below]
        ticks = [(t.get_text(), t.get_rotation()) for t in below.get_xticklabels()]
        saved[path] = figure.get_suptitle(), walk, bars, ticks, below.get_xlabel()
        drawn.clear()
        plt.close(figure)

    for name, stub in {"trajectory": trajectory, "draw": draw, "save": save}.items():
        monkeypatch.setattr(front, name, stub)
    monkeypatch.setattr(front, "network", lambda: (np.array([0.5, 0.0]), np.array([3.0, 4.0])))
    monkeypatch.setattr(front, "words", lambda: {"b": (1.0, 5.0), "ab": (0.0, 6.0)})
    front.pictures(tmp_path)
    back = "credit pulled back"
    assert saved == {
        tmp_path / "network.png": (
            "A network, pruned before training",
            [["$w_0$", "$w_1$", "$w_2$", "$w_3$"], "loss", "steps of training", back],
            [[0.5, 0.0], [3.0, 4.0], 0.35],
            [],
            "fifteen connections",
        ),
        tmp_path / "words.png": (
            "A distribution over words",
            [["$p_0$", "$p_1$", "$p_2$"], "goal", "steps of combining", back],
            [[1.0, 0.0], [5.0, 6.0], 0.35],
            [("b", 90), ("ab", 90)],
            "",
        ),
    }


def test_the_network_in_the_picture_has_fifteen_connections():
    weights, credit = front.network()
    assert weights.shape == credit.shape == (15,)


# What is said ------------------------------------------------------------------------------------


def test_a_span_is_from_the_smallest_to_the_largest():
    assert front.span([31.6, 12.4, 58.7, 20.0]) == "12 to 59"


def test_overlaps_are_means_over_seeds_at_ten_steps_of_one_learning_rate(store, monkeypatch):
    means = {
        "row sums": {"LeNet-300-100": (0.10, 0.30), "LeNet-5": (0.50, 0.40)},
        "first order": {"LeNet-300-100": (0.45, 0.35), "LeNet-5": (0.62, 0.55)},
        "diagonal": {"LeNet-300-100": (0.99, 0.01), "LeNet-5": (0.99, 0.01)},
    }
    rows = [
        {"network": network, "activation": activation, "alpha": 0.1, "steps": 10, "score": score}
        | {"seed": seed, "iou_98": mean + off, "iou_95": 0.9, "iou_99": 0.05}
        for score, by_network in means.items()
        for network, pair in by_network.items()
        for activation, mean in zip(("relu", "tanh"), pair, strict=True)
        for seed, off in enumerate((-0.04, -0.04, 0.08))
    ]
    others = [row | other for row in rows for other in ({"alpha": 0.3}, {"steps": 3})]
    others = [row | {"iou_98": 1 - 0.9 * row["iou_98"]} for row in others]
    store(streaming_errors=others + rows + others)
    monkeypatch.setattr(front, "exact", lambda: "And so on.")
    assert front.streamed() == (
        "**The exact score is affordable, and a running product gives other masks.**\n"
        "On MNIST we score connections by the loss ten training steps later, and keep the best 2% "
        "(two networks with two activations each, learning rate 0.1).\n"
        "An earlier attempt multiplies one number per weight and step, a running product; its "
        "masks overlap with the exact masks by 10 to 50%; those of a score without any second "
        "derivative overlap with them by 35 to 62% "
        "([](../notebooks/05_streaming_against_unrolled.ipynb)).\n"
        "And so on."
    )


def test_costs_are_those_of_the_reverse_sweep_without_momentum(store):
    times = {
        ("LeNet-300-100", 0, "reverse"): 2.94,
        ("LeNet-300-100", 0, "checkpointed"): 4.4,
        ("LeNet-300-100", 0.9, "reverse"): 2.6,
        ("LeNet-5", 0, "reverse"): 3.36,
        ("LeNet-5", 0, "unrolled"): 12.0,
        ("LeNet-5", 0.9, "reverse"): 3.1,
    }
    memory = {
        ("LeNet-5", 0, "unrolled", 100): 1216.0,
        ("LeNet-5", 0, "unrolled", 300): 3661.4,
        ("LeNet-5", 0, "reverse", 100): 27.0,
        ("LeNet-5", 0, "reverse", 300): 76.6,
        ("LeNet-5", 0, "checkpointed", 300): 16.0,
        ("LeNet-5", 0.9, "unrolled", 300): 5000.0,
        ("LeNet-5", 0.9, "reverse", 300): 90.0,
        ("LeNet-300-100", 0, "unrolled", 300): 9000.0,
        ("LeNet-300-100", 0, "reverse", 300): 318.0,
    }
    cell = ["network", "momentum", "method", "steps"]
    store(
        bench_times=[
            dict(zip(cell, key, strict=False)) | {"ratio": ratio, "seconds": 10 + ratio}
            for key, ratio in times.items()
        ],
        bench_memory=[
            dict(zip(cell, key, strict=True)) | {"added_mib": mib, "bytes_per_step_and_weight": 4.0}
            for key, mib in memory.items()
        ],
    )
    assert front.exact() == (
        "For fifty steps the exact score takes 2.9 times as long as the steps themselves on "
        "LeNet-300-100 and 3.4 times on LeNet-5; for 300 steps of LeNet-5 it adds 77 MiB of "
        "memory, where one tape over all of them adds 3,661 MiB "
        "([](../notebooks/07_exact_and_small.ipynb))."
    )


def spaced(text):
    """Return a text with its minus signs and spaces as the numbers of a difference have them."""
    return text.replace("-", "\N{MINUS SIGN}").replace(" ", "\N{NO-BREAK SPACE}")


def test_errors_of_pruned_networks_are_of_one_network_at_one_sparsity_as_scored(store):
    errors = {
        "relu": {"random": 70, "SNIP": 7, "ProsPr": 6, "iterative SNIP": 5, "SynFlow": 1},
        "tanh": {"random": 50, "SNIP": 9, "ProsPr": 9.5, "iterative SNIP": 4, "SynFlow": 2},
    }
    cell = {"network": "LeNet-300-100", "variant": "as scored", "sparsity": 0.99}
    off = {"ProsPr": (0.6, 0.3, -0.3)}
    rows = [
        row
        for activation, by_score in errors.items()
        for score, error in by_score.items()
        for row in over_seeds(
            error + np.array(off.get(score, (0.0, 0.3, 0.6))),
            **cell,
            activation=activation,
            score=score,
        )
    ]
    others = [
        row | other | {"error": 100 - row["error"]}
        for row in rows
        for other in ({"network": "LeNet-5"}, {"variant": "shuffled"}, {"sparsity": 0.98})
    ]
    store(pruning=others + rows)
    assert front.pruned() == (
        "**On MNIST, pruning in rounds lowers the error; a short look ahead makes no significant "
        "difference.**\n"
        "With 1% of the weights of LeNet-300-100 left, the test error on MNIST with ReLU is 70.3% "
        "for a random mask, 7.3% for SNIP, 6.2% for ProsPr and 5.3% for SNIP in rounds; "
        "with tanh it is 50.3%, 9.3%, 9.7% and 4.3%.\n"
        "The difference ProsPr minus SNIP, with its 95% interval, is "
        f"{spaced('-1.1 [-3.0, +0.8]')} points with ReLU and {spaced('+0.4 [-1.5, +2.3]')} with "
        "tanh ([](../notebooks/08_prune_dense.ipynb), [](../notebooks/10_sanity_checks.ipynb))."
    )


def test_goals_proved_are_means_of_two_steps_or_of_a_search_without_steps(store, monkeypatch):
    two = {
        "blend": (21, 22, 24),
        "identity": (18, 19, 20),
        "persistence without credit": (15, 16),
        "without persistence": (13, 14),
        "fixed": (2, 2, 3),
        "identity, without persistence": (12,),
        "blend, held out": (1,),
        "blend, goals stored": (24, 23),
    }
    none = {
        "breadth first": (13,),
        "breadth first, ten budgets": (20,),
        "breadth first, held out": (21,),
        "breadth first, goals stored": (23,),
        "light and short first": (15,),
        "genetic, smallness": (5, 6),
        "genetic, usefulness": (8, 9),
        "genetic, usefulness, goals stored": (17,),
        "genetic, similarity, held out": (18,),
    }
    rows = [
        {"arm": arm, "steps": steps, "seed": seed, "proved": proved, "held_out": 99}
        for steps, arms in ((2, two), (0, none), (1, dict.fromkeys(two, (10,))))
        for arm, by_seed in arms.items()
        for seed, proved in enumerate(by_seed)
    ]
    rows += [row | {"steps": 3, "proved": 1} for row in rows if row["steps"] == 1]
    store({"goals": [*"pqrst"], "budget": 12345}, proofs=rows)
    given = []
    monkeypatch.setattr(front, "stored_goals", lambda table: given.append(table) or "And stored")
    assert front.proved() == (
        "**Formulas without weight earn weight, and more theorems are proved with them.**\n"
        "Of 5 theorems, its goals, the blended loop proves 22.3 on average with 12,345 attempted "
        "inferences.\n"
        "It proves 19.0 if its sums do not reach beyond the formulas with weight, 15.5 if a "
        "formula gets no credit for having stayed, 13.5 if only the axioms stay from step to step, "
        "and 2.3 if no new formula may have weight; the best of our genetic algorithms proves 8.5 "
        "and the best of our plain searches 15.0.\n"
        "And stored "
        "([](../notebooks/15_proofs_found.ipynb), [](../notebooks/19_what_holds.ipynb))."
    )
    (table,) = given
    assert {*table.steps} == {0, 2}
    wanted = {arm for arm in {**two, **none} if "held out" not in arm and "budgets" not in arm}
    assert {*table.arm} == wanted


@pytest.mark.parametrize(
    ("blend", "said", "gain"),
    [
        ((6, 7, 7, 9), "the extra support makes a difference too", "+2.2 [+0.2, +4.3] *"),
        ((6, 5, 7, 5), "no difference is shown", "+0.8 [-0.8, +2.3]"),
    ],
)
def test_stored_goals_are_compared_setting_by_setting(blend, said, gain):
    """The rows of the second are in another order, and none of these settings is alone enough."""
    settings = [(0.01, 100, 0), (0.02, 100, 0), (0.01, 200, 0), (0.01, 100, 1)]
    rows = [
        dict(zip(("step_size", "keep", "seed"), setting, strict=True)) | {"arm": arm, "proved": n}
        for arm, proved in (
            ("blend, goals stored", blend),
            ("identity, goals stored", (5, 5, 5, 5)),
            ("blend", (1, 2, 3, 4)),
            ("identity", (4, 3, 2, 1)),
            ("all generated, goals stored", (0, 0, 0, 0)),
        )
        for setting, n in zip(settings, proved, strict=True)
    ]
    assert front.stored_goals(pd.DataFrame(rows)) == (
        f"If goals that are proved may be used in later proofs, {said}: {np.mean(blend):.1f} with "
        f"sums that reach further and 5.0 without, {spaced(gain)} within each of 4 settings"
    )


def test_the_finding_on_regrowth_names_its_arms_and_differences_in_order(monkeypatch):
    found = {
        ("regrowth",): (["1%", "2%", "3%", "4%"], "A"),
        ("regrowth_fashion",): (["5%", "6%", "7%", "8%"], "B"),
        ("regrowth_fashion", 0.95): (["9%"] * 4, "C"),
    }
    monkeypatch.setattr(front, "moving", lambda *given: found[given])
    monkeypatch.setattr(front, "on_colour", lambda: "And colour.")
    assert front.regrown() == (
        "**On MNIST, a very sparse network that may exchange its weights has lower error than with "
        "any fixed mask of this book; on other images, at some sparsities.**\n"
        "There we keep 1% of the weights of LeNet-300-100 from the first step to the last (ReLU).\n"
        "The test error is 1% if the lightest weights are dropped again and again and others grown "
        "by their credit, 2% with the best fixed mask and 3% if weights are grown at random; a "
        "dense network that is pruned while it trains reaches 4%.\n"
        "The difference between the first two, with its 95% interval, is A points "
        "([](../notebooks/17_does_it_pay.ipynb)).\n"
        "On clothes (Fashion-MNIST) the same four errors are 5%, 6%, 7% and 8%, and the difference "
        "is B points; at 5% of the weights it is C.\n"
        "And colour."
    )


@pytest.mark.parametrize(("given", "means"), [((), (3, 5, 4, 2)), ((0.95,), (6, 8, 7, 9))])
def test_a_moving_mask_is_compared_with_the_fixed_one_that_is_best_at_its_sparsity(
    store, given, means
):
    """The best fixed mask is SNIP's at the one sparsity and that of SynFlow at the other."""
    arms = ("credit", "SNIP", "random regrowth", "gradual magnitude", "SynFlow", "magnitude")
    cells = {0.99: (3, 5, 4, 2, 6, 1), 0.95: (6, 8.5, 7, 9, 8, 1)}
    rows = [
        row
        for sparsity, errors in cells.items()
        for arm, error in zip(arms, errors, strict=True)
        for row in over_seeds(
            error + np.array((0.0, 0.1, -0.1)),
            network="LeNet-300-100",
            arm=arm,
            variant="as is",
            sparsity=sparsity,
        )
    ]
    others = [
        row | other | {"error": 50 - 3 * row["error"]}
        for row in rows
        for other in ({"network": "LeNet-5"}, {"variant": "every 10"})
    ]
    store(wanted=others + rows, other=others)
    errors, less = front.moving("wanted", *given)
    assert errors == [f"{mean:.1f}%" for mean in means]
    assert less == spaced("-2.0 [-2.0, -2.0]")


def test_errors_on_colour_images_are_of_one_network_at_two_sparsities(store):
    arms = ("credit", "SynFlow", "SNIP", "gradual magnitude", "ProsPr")
    cells = {0.95: (38, 40, 42, 34, 41), 0.98: (50, 53, 52.5, 45, 52)}
    cell = {"network": "ResNet-8", "variant": "as it is"}
    rows = [
        row
        for sparsity, errors in cells.items()
        for arm, error in zip(arms, errors, strict=True)
        for row in over_seeds([error, error, error + 0.3], **cell, arm=arm, sparsity=sparsity)
    ]
    for arm, sparsity, error in (("SNIP", 0.95, 44), ("ProsPr", 0.95, 30), ("SNIP", 0.98, 60)):
        entries = cell | {"variant": "shuffled", "arm": arm, "sparsity": sparsity}
        rows += over_seeds([error, error, error + 0.3], **entries)
    others = [
        row | other | {"error": 90 - row["error"]}
        for row in rows
        for other in ({"network": "ResNet-20"}, {"variant": "fresh"})
    ]
    store(colour=others + rows)
    assert front.on_colour() == (
        "On colour images (CIFAR-10), with 5% of the weights of a residual network and five epochs "
        "of training, the error is 38.1% by credit, 40.1% with the best fixed mask, that of "
        "SynFlow, 42.1% with that of SNIP, 44.1% with SNIP's shuffled in each layer, and 34.1% if "
        "a dense network is pruned while it trains; the difference between the first two is "
        f"{spaced('-2.0 [-2.0, -2.0]')} points, and with 2% of the weights, against ProsPr, it is "
        f"{spaced('-2.0 [-2.0, -2.0]')} ([](../notebooks/12_colour_images.ipynb))."
    )


def test_the_lead_is_credit_minus_the_best_fixed_mask_without_a_star():
    errors = {"SNIP": (4.0, 5.0, 6.0), "SynFlow": (7.0, 7.0, 7.0), "credit": (2.0, 3.0, 5.0)}
    rows = [row for arm, of_arm in errors.items() for row in over_seeds(of_arm, arm=arm)]
    assert front.lead(pd.DataFrame(rows)) == ("SNIP", spaced("-1.7 [-3.1, -0.2]"))


def test_findings_are_a_numbered_list_whose_lines_stand_under_one_another(monkeypatch):
    texts = says(streamed="a\nb", pruned="c", proved="d\ne\nf", regrown="g")
    for name, finding in texts.items():
        monkeypatch.setattr(front, name, finding)
    assert front.findings() == "1. a\n   b\n2. c\n3. d\n   e\n   f\n4. g\n"


@pytest.mark.parametrize("there", [False, True])
def test_pictures_and_findings_are_written_in_the_style_of_the_book(monkeypatch, tmp_path, there):
    folder, done = tmp_path / "front_page", []
    if there:
        folder.mkdir()
    monkeypatch.setattr(front, "FOLDER", folder)
    monkeypatch.setattr(front.plots, "use_style", lambda: done.append("style"))
    monkeypatch.setattr(
        front, "pictures", lambda where: done.append(("pictures", where, where.is_dir()))
    )
    monkeypatch.setattr(front, "findings", lambda: "1. all\n")
    monkeypatch.setattr(front.results, "replace", lambda *given: done.append(given))
    front.main()
    assert done == [
        "style",
        ("pictures", folder, True),
        (folder / "findings.md", "1. all\n"),
    ]


def test_what_is_read_and_written_is_in_the_book():
    front_page = front.ROOT / "book" / "front_page"
    assert front_page == front.FOLDER
    assert (front.ROOT / "_toc.yml").is_file()
    assert (front.WEIGHT, front.CREDIT, front.GREY) == ("#0072B2", "#D55E00", "#595959")
