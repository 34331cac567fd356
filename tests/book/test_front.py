"""The front page: what its pictures show, and that every finding takes the rows that it speaks of.

`test_pages.py` compares the files as they are stored.  Here each function is given a few rows, with
others among them that it must leave out, and the numbers in its text are compared.
"""

import itertools
import re

import front
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from conftest import tiny_loss
from PIL import Image


@pytest.fixture
def store(monkeypatch):
    """Return a function that puts tables, and maybe a configuration, in place of the stored."""

    def put(configuration=None, **tables):
        frames = {name: pd.DataFrame(rows) for name, rows in tables.items()}
        origin = {"configuration": configuration}
        monkeypatch.setattr(front.results, "load", lambda name: (frames[name], origin))

    return put


def decimals(text):
    """Return the numbers of a text that have decimals, in order, with their signs."""
    return re.findall(r"[+\N{MINUS SIGN}]?\d+\.\d+", text)


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
    assert {piece: weight for piece, (weight, _) in found.items() if weight} == letters
    credit = {piece: c for piece, (_, c) in found.items() if abs(c) > 1e-6}
    assert min(credit.values()) > 0
    assert sorted(credit, key=credit.get) == ["bana", "ban", "nana", "ana", "nan"]


def test_the_credit_of_a_piece_is_what_is_above_average():
    """Here the goal is reached, and what is of no use to it is below average."""
    found = front.words("bab")
    assert [*found] == ["b", "a", "ba", "ab", "bab"]
    weights, credit = np.array([*found.values()]).T
    np.testing.assert_allclose(weights, [0.3, 0.5, 0, 0, 0])
    np.testing.assert_allclose(credit, [0.5, -0.5, 1.5, 1.5, 1.5], rtol=1e-4)


def test_weights_are_bars_zeros_are_hollow_and_credit_is_an_arrow(axis):
    weights, credit = np.array([0.5, 0, -0.2, 0, 0]), np.array([9, 4e-7, 8, -2, 1])
    front.draw(axis, weights, credit, longest=0.3)
    bars = [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in axis.patches]
    assert bars == [(pytest.approx(i), weight) for i, weight in enumerate(weights)]
    arrows = [(note.get_position(), note.xy) for note in axis.texts]
    assert arrows == [((3, 0), (3, -0.3)), ((4, 0), (4, 0.15))]
    assert all(note.arrowprops["arrowstyle"].endswith(">") for note in axis.texts)
    (hollow,) = (line for line in axis.lines if line.get_marker() == "o")
    np.testing.assert_array_equal(hollow.get_xydata(), [[1, 0], [3, 0], [4, 0]])
    assert hollow.get_linestyle() == "None"
    assert hollow.get_markerfacecolor() != hollow.get_markeredgecolor()
    assert axis.get_ylabel() == "weight"


def test_a_trajectory_goes_forward_from_each_to_the_next_and_back_in_one(axis):
    front.trajectory(axis, ["A", "B"], "end", "on", "home")
    at = {text.get_text(): text.get_position() for text in axis.texts if text.get_text()}
    row = [at["A"], at["B"], at["end"]]
    assert row == sorted(row)
    (level,) = {y for _, y in row}
    assert at["on"][1] > level > at["home"][1]
    *forward, back = (text for text in axis.texts if not text.get_text())
    assert [(arrow.get_position(), arrow.xy) for arrow in forward] == [*itertools.pairwise(row)]
    assert (back.get_position()[0], back.xy[0]) == (at["end"][0], at["A"][0])
    assert at["home"][1] < back.xy[1] < level
    assert all(arrow.arrowprops["arrowstyle"].endswith(">") for arrow in (*forward, back))
    assert {arrow.arrowprops["color"] for arrow in forward} != {back.arrowprops["color"]}


def test_a_canvas_has_a_title_and_a_low_axis_above_a_high_one():
    figure, (above, below) = front.canvas("a title")
    assert figure.get_suptitle() == "a title"
    high, low = above.get_position(), below.get_position()
    assert high.y0 > low.y1
    assert low.height > high.height
    plt.close(figure)


def test_a_figure_is_saved_without_the_version_of_what_drew_it_and_closed(tmp_path):
    figure, other = plt.figure(), plt.figure()
    front.save(figure, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as stored:
        assert "Software" not in stored.info
    assert not plt.fignum_exists(figure.number)
    assert plt.fignum_exists(other.number)
    plt.close(other)


def test_each_picture_has_a_trajectory_above_its_weights_and_their_credit(monkeypatch, tmp_path):
    drawn, saved = [], {}

    def trajectory(axis, states, *labels):
        drawn.append((axis, len(states)))

    def draw(axis, weights, credit, longest):
        drawn.append((axis, [*weights], [*credit]))

    def save(figure, path):
        above, below = figure.axes
        (_, states), (_, *bars) = drawn
        assert [axis for axis, *_ in drawn] == [above, below]
        ticks = [label.get_text() for label in below.get_xticklabels()]
        saved[path] = states, bars, ticks
        drawn.clear()
        plt.close(figure)

    for name, stub in {"trajectory": trajectory, "draw": draw, "save": save}.items():
        monkeypatch.setattr(front, name, stub)
    monkeypatch.setattr(front, "network", lambda: (np.array([0.5, 0.0]), np.array([3.0, 4.0])))
    monkeypatch.setattr(front, "words", lambda: {"b": (1.0, 5.0), "ab": (0.0, 6.0)})
    front.pictures(tmp_path)
    assert saved == {
        tmp_path / "network.png": (4, [[0.5, 0.0], [3.0, 4.0]], []),
        tmp_path / "words.png": (3, [[1.0, 0.0], [5.0, 6.0]], ["b", "ab"]),
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
    text = front.streamed()
    assert re.findall(r"(\d+) to (\d+)%", text) == [("10", "50"), ("35", "62")]
    assert re.search(r"a running product\D+10 to 50\D+without any second derivative\D+35", text)
    assert text.endswith("And so on.")


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
    text = front.exact()
    assert decimals(text) == ["2.9", "3.4"]
    assert re.findall(r"([\d,]+) MiB", text) == ["77", "3,661"]
    assert re.search(r"2.9 times\D+LeNet-300-100 and 3.4 times\D+LeNet-5", text)
    assert re.search(r"adds 77\D+one tape\D+3,661", text)


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
    text, minus = front.pruned(), "\N{MINUS SIGN}"
    relu, tanh = ["70.3", "7.3", "6.2", "5.3"], ["50.3", "9.3", "9.7", "4.3"]
    gains = [f"{minus}1.1", f"{minus}3.0", "+0.8", "+0.4", f"{minus}1.5", "+2.3"]
    assert decimals(text) == [*relu, *tanh, *gains]
    assert re.search(r"ReLU\D+70.3\D+random\D+7.3\D+SNIP\D+6.2\D+ProsPr\D+5.3\D+rounds", text)
    assert re.search(r"tanh it is 50.3\D+9.3\D+9.7\D+4.3\D+ProsPr minus SNIP\D+95% interval", text)


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
    text = front.proved()
    assert re.findall(r"\b\d[\d.,]*\b", text) == [
        "5",
        "22.3",
        "12,345",
        "19.0",
        "15.5",
        "13.5",
        "2.3",
        "8.5",
        "15.0",
    ]
    said = r"blended\D+22.3\D+12,345\D+19.0 if its sums\D+15.5\D+credit\D+13.5\D+only the axioms\D+"
    assert re.search(rf"{said}2.3\D+no new\D+8.5\D+plain searches\D+15.0", text)
    assert "And stored" in text
    (table,) = given
    assert {*table.steps} == {0, 2}
    wanted = {arm for arm in {**two, **none} if "held out" not in arm and "budgets" not in arm}
    assert {*table.arm} == wanted


@pytest.mark.parametrize(
    ("blend", "shown", "numbers"),
    [
        ((6, 7, 7, 9), True, "7.2 5.0 +2.2 +0.2 +4.3"),
        ((6, 5, 7, 5), False, "5.8 5.0 +0.8 -0.8 +2.3"),
    ],
)
def test_stored_goals_are_compared_setting_by_setting(blend, shown, numbers):
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
    text = front.stored_goals(pd.DataFrame(rows))
    assert decimals(text) == numbers.replace("-", "\N{MINUS SIGN}").split()
    assert ("no difference" in text) != shown
    assert "4 settings" in text


def test_the_finding_on_regrowth_names_its_arms_and_differences_in_order(monkeypatch):
    found = {
        ("regrowth",): (["1.1%", "1.2%", "1.3%", "1.4%"], "+1.5"),
        ("regrowth_fashion",): (["2.1%", "2.2%", "2.3%", "2.4%"], "+2.5"),
        ("regrowth_fashion", 0.95): (["9.9%"] * 4, "+3.5"),
    }
    monkeypatch.setattr(front, "moving", lambda *given: found[given])
    monkeypatch.setattr(front, "on_colour", lambda: "And colour.")
    text = front.regrown()
    first, second = ["1.1", "1.2", "1.3", "1.4", "+1.5"], ["2.1", "2.2", "2.3", "2.4", "+2.5"]
    assert decimals(text) == [*first, *second, "+3.5"]
    assert re.search(r"1.1\D+lightest\D+1.2\D+fixed mask\D+1.3\D+random; a dense\D+1.4", text)
    assert re.search(r"at 5% of the weights it is \+3.5", text)
    assert text.endswith("And colour.")


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
    text, gain = front.on_colour(), ["\N{MINUS SIGN}2.0"] * 3
    assert decimals(text) == ["38.1", "40.1", "42.1", "44.1", "34.1", *gain, *gain]
    assert re.findall("SynFlow|ProsPr", text) == ["SynFlow", "ProsPr"]
    said = r"38.1\D+credit\D+40.1\D+fixed\D+42.1\D+SNIP\D+44.1\D+shuffled\D+34.1\D+dense"
    assert re.search(said, text)


def test_the_lead_is_credit_minus_the_best_fixed_mask_without_a_star():
    errors = {"SNIP": (4.0, 5.0, 6.0), "SynFlow": (7.0, 7.0, 7.0), "credit": (2.0, 3.0, 5.0)}
    rows = [row for arm, of_arm in errors.items() for row in over_seeds(of_arm, arm=arm)]
    assert front.lead(pd.DataFrame(rows)) == ("SNIP", spaced("-1.7 [-3.1, -0.2]"))


def test_findings_are_a_numbered_list_whose_lines_stand_under_one_another(monkeypatch):
    texts = {"streamed": "a\nb", "pruned": "c", "proved": "d\ne\nf", "regrown": "g"}
    for name, text in texts.items():
        monkeypatch.setattr(front, name, lambda text=text: text)
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
