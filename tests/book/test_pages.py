"""The pages around the chapters say what the code, the stored results and the chapters say."""

import ast
import csv
import functools
import itertools
import math
import re
import statistics
import warnings

from prosper_utils.lookahead import conditioning, meta_gradient, streaming
from prosper_utils.pruning import masks, networks, scores
from prosper_utils.study import datasets, findings, plots, results, verdicts

import drawings
import front
import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import yaml
from conftest import ROOT
from matplotlib.patches import ArrowStyle
from matplotlib.testing.compare import compare_images
from PIL import Image

BOOK, NOTEBOOKS = ROOT / "book", ROOT / "notebooks"
CHAPTERS = {path.stem: path.read_text() for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.md"))}
PICTURES = ("network.png", "words.png")
PROBABILITIES = "sparse_categorical_crossentropy"
LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def page(name):
    return (BOOK / f"{name}.md").read_text()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Make the front page's files anew, in a folder of their own."""
    folder = tmp_path_factory.mktemp("front_page")
    with pytest.MonkeyPatch.context() as patch, plt.rc_context():
        patch.setattr(front, "FOLDER", folder)
        front.main()
    return folder


def test_the_findings_are_those_of_the_stored_results(made):
    stored = (front.FOLDER / "findings.md").read_text()
    assert (made / "findings.md").read_text() == stored, "out of date: run `make front`"
    assert "{include} front_page/findings.md" in page("index")
    assert not re.search(r"\d\.\d|\d%", page("index"))  # no number is typed on the page itself


@pytest.mark.parametrize("name", [*CHAPTERS, *(path.stem for path in BOOK.glob("*.md"))])
def test_a_styled_table_scrolls_on_a_phone_as_others_do(name):
    """Only a table of verdicts has another class: there its cells stand below one another."""
    text = CHAPTERS.get(name) or page(name)
    cells = re.findall(r"^```\{code-cell\}.*?^```", text, re.DOTALL | re.MULTILINE)
    for cell in cells:
        if ".style" in cell:
            assert "set_table_attributes('class=\"dataframe\"')" in cell


@pytest.mark.parametrize("name", PICTURES)
def test_the_pictures_are_up_to_date_and_small(made, name):
    assert compare_images(front.FOLDER / name, made / name, tol=5) is None
    assert (front.FOLDER / name).stat().st_size < 100_000
    assert f"{{image}} front_page/{name}\n:alt: " in page("index")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Make the drawings of the chapters anew, in a folder of their own."""
    folder = tmp_path_factory.mktemp("drawings")
    with pytest.MonkeyPatch.context() as patch, plt.rc_context():
        patch.setattr(drawings, "FOLDER", folder)
        drawings.main()
    return folder


@pytest.mark.parametrize("draw", drawings.DRAWINGS)
def test_the_drawings_are_up_to_date_and_small(drawn, draw):
    name = f"{draw.__name__}.png"
    assert compare_images(drawings.FOLDER / name, drawn / name, tol=5) is None
    assert (drawings.FOLDER / name).stat().st_size < 100_000
    shown = [text for text in CHAPTERS.values() if f"{{figure}} ../book/drawings/{name}" in text]
    assert len(shown) == 1
    about = shown[0].partition(f"drawings/{name}\n")[2].partition("```")[0]
    assert re.match(r":name: fig-\S+\n:width: 430px\n:alt: .{40,}\n\n\w.{40,}\.\n", about)


@pytest.fixture
def axis():
    """Return an axis to draw on, in the style of the figures."""
    with plt.rc_context():
        plots.use_style()
        figure, axis = plt.subplots(figsize=(4, 3))
        yield axis
        plt.close(figure)


def words(axis):
    """Return the words on an axis: {words: (x, y)}."""
    found = [text for text in axis.texts if text.get_text()]
    assert len({text.get_text() for text in found}) == len(found)
    return {text.get_text(): text.get_position() for text in found}


def arrows(axis):
    """Return the arrows on an axis: [(from where, to where)]."""
    found = [text for text in axis.texts if not text.get_text()]
    for arrow in found:
        assert type(arrow.arrow_patch.get_arrowstyle()) is ArrowStyle.get_styles()["-|>"]
    return [(arrow.xyann, arrow.xy) for arrow in found]


def joined(axis):
    """Return which words arrows go from and to; None for an end where there are none."""
    places = words(axis)

    def near(end):
        nearest = min(places, key=lambda name: math.dist(places[name], end))
        return nearest if math.dist(places[nearest], end) < 0.25 else None

    return [(near(start), near(end)) for start, end in arrows(axis)]


def row(axis, names):
    """Return the height of words, which stand in one row from left to right."""
    places = [words(axis)[name] for name in names]
    assert places == sorted(places)
    (height,) = {y for _, y in places}
    return height


def test_words_stand_where_they_belong_and_an_arrow_ends_at_its_end(axis):
    drawings.say(axis, 1, 2, "plain")
    drawings.say(axis, 3, 4, "special", drawings.FORWARD, ha="left")
    drawings.box(axis, 5, 6, "framed")
    drawings.arrow(axis, (0, 1), (2, 3), drawings.BACK)
    drawings.arrow(axis, (4, 5), (6, 7), drawings.GREY, bend=0.5)
    assert words(axis) == {"plain": (1, 2), "special": (3, 4), "framed": (5, 6)}
    assert arrows(axis) == [((0, 1), (2, 3)), ((4, 5), (6, 7))]
    plain, special, framed, *_ = axis.texts
    assert (plain.get_ha(), framed.get_ha(), special.get_ha()) == ("center", "center", "left")
    assert plain.get_bbox_patch() is None
    assert framed.get_bbox_patch().get_facecolor()[3] == 0  # the ground shows through


def test_the_factors_stand_between_the_states_and_the_gradients(axis):
    drawings.factors(axis)
    names = "c", "w_0", "w_1", "w_2", "w_3", "F"
    states = [f"${name}$" for name in names]
    slopes = [rf"$\frac{{\partial F}}{{\partial {name}}}$" for name in names[:-1]] + ["1"]
    factors = [r"$w_{\mathrm{init}}\!\odot$", "$J_0$", "$J_1$", "$J_2$", r"$\nabla L_3$"]
    assert row(axis, states) > row(axis, factors) > row(axis, slopes)
    places = words(axis)
    for i, factor in enumerate(factors):
        assert places[states[i]][0] < places[factor][0] < places[states[i + 1]][0]
    for state, slope in zip(states, slopes, strict=True):
        assert places[state][0] == places[slope][0]
    on, back = itertools.pairwise(states), itertools.pairwise(reversed(slopes))
    assert sorted(joined(axis)) == sorted([*on, *back])
    assert [text.get_text() for text in axis.texts if text.get_bbox_patch()] == factors
    assert places["forwards: $J_0$ first, $J_2$ last"][1] > row(axis, states)
    assert places["backwards: $J_2$ first, $J_0$ last"][1] < row(axis, slopes)


@pytest.mark.parametrize(("given", "steps"), [((), 3), ((4,), 4)])
def test_the_cone_holds_what_has_weight_and_the_paths_back(axis, given, steps):
    drawings.cone(axis, *given)
    edge, *paths = (line for line in axis.lines if len(line.get_xdata()) > 1)
    assert edge.get_xdata().tolist() == edge.get_ydata().tolist() == [*range(steps + 1)]
    assert len({path.get_linestyle() for path in paths}) == len(paths) == 3
    marks = {
        line.get_ydata()[0]: line.get_marker() for line in axis.lines if len(line.get_xdata()) == 1
    }
    assert marks == {steps + 1: "*", steps + 2: "*", steps + 3: "*", 2 * steps + 1: "x"}
    places = words(axis)
    for rounds, path in enumerate(paths):
        late = [steps + i for i in range(1, rounds + 2)]
        assert path.get_ydata().tolist() == [steps] * (steps - rounds) + late
        assert places[f"goal, $k = {rounds}$"][1] == late[-1]
    assert places["out of reach"][1] == 2 * steps + 1
    weight, beyond = (area.get_paths()[0] for area in axis.collections)
    for area, other, inside in (
        (weight, beyond, [places["weight in $p_t$"], (steps - 0.1, 0.1)]),
        (beyond, weight, [places["no weight,\nin the cone"], (steps - 0.1, 2 * steps - 0.2)]),
    ):
        assert area.contains_points(inside).all()
        assert not other.contains_points(inside).any()
        assert not area.contains_point((1, steps + 1.1))
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("step $t$", "depth")
    assert axis.get_xticks().tolist() == [*range(steps + 1)]


def test_the_loop_goes_forwards_above_and_back_below(axis):
    drawings.loop(axis)
    states, slopes = (["$p_0$", "$p_1$", "$p_2$"], ["$w_0$", "$w_1$", "$w_2$"])
    above, below, places = row(axis, states), row(axis, slopes), words(axis)
    assert above > places["$S$"][1] > below
    for state, slope in zip(states, slopes, strict=True):
        assert places[state][0] == places[slope][0]
    ends = joined(axis)
    assert sorted(end for end in ends if None not in end) == sorted(
        [
            *itertools.pairwise(states),
            *itertools.pairwise(reversed(slopes)),
            ("$p_2$", "$S$"),
            ("$p_2$", "$w_2$"),
            ("$w_0$", "$p_0$"),
        ]
    )
    (used,) = (i for i, end in enumerate(ends) if None in end)
    assert ends[used] == ("$S$", None)  # between two states: in what propagates
    x, y = arrows(axis)[used][1]
    assert places["$p_0$"][0] < x < places["$p_1$"][0]
    assert y == above
    assert places["1 propagate, 3 recompute with $S$"][1] > above
    assert above > places["2 support\nof the image"][1] > below
    assert places["5 pull back: credit"][1] < below
    assert places["4 feedback"][0] > places["$p_2$"][0]
    assert places["6 move\n7 at times,\npurge"][0] < places["$p_0$"][0]


def test_each_drawing_is_stored_under_its_name_in_its_size(tmp_path, monkeypatch):
    """It has the style of the figures, and nothing of the program that drew it."""
    seen = []

    def mine(axis):
        seen.append((axis.get_figure().get_size_inches().tolist(), "styled" in seen))

    monkeypatch.setattr(drawings, "FOLDER", tmp_path / "drawings")
    monkeypatch.setattr(drawings, "DRAWINGS", {mine: (1, 0.5)})
    monkeypatch.setattr(plots, "use_style", lambda: seen.append("styled"))
    before = plt.get_fignums()
    with plt.rc_context({"savefig.bbox": None}):
        for _ in range(2):
            drawings.main()
    assert seen == ["styled", ([1, 0.5], True)] * 2
    assert [path.name for path in (tmp_path / "drawings").iterdir()] == ["mine.png"]
    with Image.open(tmp_path / "drawings" / "mine.png") as stored:
        assert stored.size == (220, 110)
        assert "Software" not in stored.info
    assert plt.get_fignums() == before


@pytest.mark.parametrize("path", [*BOOK.glob("drawings/*.png"), *BOOK.glob("front_page/*.png")])
def test_the_ground_of_a_picture_is_transparent(path):
    assert plt.imread(path)[0, 0, 3] == 0


def rows(name):
    with (results.FOLDER / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def test_findings_counted_by_hand(made):
    text = (made / "findings.md").read_text()
    proved = [int(r["proved"]) for r in rows("proofs") if (r["arm"], r["steps"]) == ("blend", "2")]
    assert f"blended loop proves {statistics.mean(proved):.1f} on average" in text
    wanted = {"network": "LeNet-300-100", "activation": "relu", "variant": "as scored"}
    wanted |= {"score": "SNIP", "sparsity": "0.99"}
    errors = [float(r["error"]) for r in rows("pruning") if wanted.items() <= r.items()]
    assert f"{statistics.mean(errors):.1f}% for SNIP," in text
    wanted = {"network": "LeNet-5", "method": "unrolled", "steps": "300"}
    (added,) = (float(r["added_mib"]) for r in rows("bench_memory") if wanted.items() <= r.items())
    assert f"one tape over all of them adds {added:,.0f}" in text


def test_the_words_of_the_findings_hold():
    table = results.load("streaming_errors")[0]
    there = table[(table.alpha == 0.1) & (table.steps == 10)].set_index(["network", "activation"])
    overlap = there.groupby(["score", *there.index.names]).iou_98.mean()
    assert (overlap["row sums"] < overlap["first order"]).all()
    assert overlap["first order"].max() < 2 / 3

    table = results.load("pruning")[0]
    where = "network == @front.DENSE and variant == 'as scored' and sparsity == 0.99"
    error = table.query(where).groupby(["score", "activation"]).error.mean().unstack(0)
    assert (error["iterative SNIP"] < error[["SNIP", "ProsPr"]].min(axis=1)).all()
    assert (abs(error["ProsPr"] - error["SNIP"]) < 1).all()

    for name in ("regrowth", "regrowth_fashion"):
        table = results.load(name)[0]
        table = table.query("network == @front.DENSE and variant == 'as is' and sparsity == 0.99")
        error = table.groupby("arm").error.mean()
        frozen = [
            arm for arm in error.index if arm in ("SNIP", "ProsPr", "iterative ProsPr", "SynFlow")
        ]
        assert len(frozen) == 4
        assert error["credit"] < error[[*frozen, "random regrowth"]].min()

    table = results.load("colour")[0]
    table = table.query("network == 'ResNet-8' and variant == 'as it is' and sparsity == 0.95")
    error = table.groupby("arm").error.mean()
    assert error["gradual magnitude"] < error["credit"] < error[["SNIP", "ProsPr"]].min()

    table = results.load("proofs")[0]
    mean = table[table.steps.isin((0, 2))].groupby("arm").proved.mean()
    others = [arm for arm in mean.index if not arm.startswith(("blend", "purge", "a = 0."))]
    assert mean["blend"] > max(mean[arm] for arm in others if "stored" not in arm)
    assert abs(mean["blend, goals stored"] - mean["identity, goals stored"]) < 1


def test_what_chapter_12_says_of_clothes_and_colour_holds():
    found = findings.families()
    sure = {key: verdicts.lower(cells) for key, cells in found.items() if cells}

    def shown(finding, data="Fashion-MNIST", network=""):
        cells = sure[finding, data].items()
        return sorted(s for (of, s), outcome in cells if outcome is True and network in of)

    dense, lenet5 = "LeNet-300-100", "LeNet-5"
    ahead = "ProsPr, M = 3, beats SNIP"
    assert shown("SNIP beats random", network=dense) == [0.98, 0.99, 0.995]
    means = [i.mean for (of, _), i in found[ahead, "Fashion-MNIST"].items() if dense in of]
    assert len(means) == 6
    assert max(means) < 0
    assert len(shown(ahead)) == len(shown(ahead, network=dense)) == 1
    assert not shown(ahead, "CIFAR-10")
    assert shown("SNIP beats random", network=lenet5) == [0.98]
    assert not [f for f, data in sure if data == "Fashion-MNIST" and 0.99 in shown(f, data, lenet5)]
    assert all(sure["SynFlow beats SNIP", "Fashion-MNIST"].values())
    for score in ("SNIP", "ProsPr"):
        finding = f"{score} beats {score} shuffled"
        assert {network for (network, _), o in sure[finding, "MNIST"].items() if o} == {
            "LeNet-300-100, ReLU"
        }
        assert {*sure[finding, "Fashion-MNIST"].values()} == {None}
        assert {*sure[finding, "CIFAR-10"].values()} == {False}
    loop = "regrowth by credit beats the best frozen mask"
    assert shown(loop) == [0.99]
    assert shown(loop, "CIFAR-10") == [0.95]
    assert abs(found[loop, "CIFAR-10"]["ResNet-8", 0.98].mean) < 0.5
    assert shown("SynFlow beats SNIP", "CIFAR-10") == [0.95, 0.98]
    assert all(sure[loop, "MNIST"].values())
    assert (
        findings.best_frozen(cell_of("regrowth_fashion", "LeNet-300-100", 0.95))
        == "iterative ProsPr"
    )
    for sparsity in (0.95, 0.98):
        assert findings.best_frozen(cell_of("colour", "ResNet-8", sparsity)) == "SynFlow"
    for data in ("Fashion-MNIST", "CIFAR-10"):
        assert all(sure["gradual magnitude beats credit", data].values())


def cell_of(name, network, sparsity):
    """Return {arm: {seed: error}} of a stored sweep of one network at a sparsity."""
    table = findings.arms(results.resume(name))
    table = table[(table.network == network) & (table.sparsity == sparsity)]
    return {
        arm: dict(zip(rows.seed, rows.error, strict=True)) for arm, rows in table.groupby("arm")
    }


def entries():
    """Return {term: its text} of the glossary."""
    inside = page("glossary").split("```{glossary}")[1]
    return dict(re.findall(r"^(\S.*)\n  (.+)$", inside, re.MULTILINE))


def test_the_glossary_has_every_term_that_a_page_refers_to():
    used = set()
    for text in [*CHAPTERS.values(), *(path.read_text() for path in BOOK.glob("*.md"))]:
        used |= set(re.findall(r"\{term\}`(?:[^`<]*<)?([^`>]+)>?`", text))
    assert used
    assert used <= set(entries())


def test_every_term_is_a_word_of_the_chapter_that_it_names():
    assert 30 <= len(entries()) <= 60
    for term, text in entries().items():
        (chapter,) = re.findall(r"\[\]\(\.\./notebooks/(\w+)\.ipynb\)\.$", text)
        prose = re.sub(r"[*`]", "", CHAPTERS[chapter]).lower()
        words = term.lower().removeprefix("pruning ")
        assert re.search(rf"\b{words}", prose), f"{term}: not in {chapter}"


GREEK = "alpha beta gamma delta Delta epsilon varepsilon eta theta Theta kappa lambda Lambda mu nu"
GREEK = set(f"{GREEK} xi rho sigma tau phi varphi Phi chi psi omega ell".split())


def letters(text):
    """Return the letters, Latin and Greek, that the mathematics of a text uses."""
    text = re.sub(r"```\{code-cell\}.*?\n```", "", text, flags=re.DOTALL)
    found = set()
    for pair in re.findall(r"\$\$(.*?)\$\$|(?<![\\$])\$([^$]+)\$", text, flags=re.DOTALL):
        plain = re.sub(
            r"\\(text|texttt|operatorname|mathbf|begin|end)\{[^}]*\}", " ", "".join(pair)
        )
        names = (name.lstrip("\\") for name in re.findall(r"\\[A-Za-z]+|[A-Za-z]", plain))
        found |= {name for name in names if len(name) == 1 or name in GREEK}
    return found


def test_the_notation_has_every_letter_and_no_chapter_borrows_one_in_vain():
    shared, borrowed = page("notation").split(":name: tab-borrowed")
    of_chapter = dict.fromkeys(CHAPTERS, "")
    for line in borrowed.splitlines():
        if named := re.search(r"notebooks/(\w+)\.ipynb", line):
            of_chapter[named[1]] = line
    for chapter, text in CHAPTERS.items():
        own = letters(of_chapter[chapter])
        assert letters(text) - letters(shared) <= own, f"{chapter}: not in the notation"
        assert own <= letters(text), f"{chapter}: borrowed and not used"


def test_the_names_in_the_notation_are_names_in_the_code():
    code = "\n".join(path.read_text() for path in (ROOT / "prosper_utils").rglob("*.py"))
    cells = re.findall(r"\|([^|\n]*`[^|\n]*)\|$", page("notation"), re.MULTILINE)
    names = [name for cell in cells for name in re.findall(r"`(\w+)", cell)]
    assert len(names) > 30
    assert [name for name in names if not re.search(rf"\b{name}\b", code)] == []


# A surname, perhaps a second author or "et al.", perhaps a title, and a year.
PAPER = re.compile(
    r"([A-Z][\w'-]+)(?: and [A-Z][\w'-]+| et al\.)?,? (?:\"[^\"]*\", )?\(?((?:19|20)\d\d)\b"
)
NOT_ONLINE = {("Huet", "1976")}  # a thesis on paper


def papers(text):
    """Return the papers that a text names, {(surname of the first author, year)}."""
    return set(PAPER.findall(" ".join(text.split())))


def docstrings():
    for path in sorted((ROOT / "prosper_utils").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                yield ast.get_docstring(node) or ""


def references():
    """Return the entries of the references, {(surname of the first author, year): (key, text)}."""
    found = {}
    for entry in (BOOK / "references.bib").read_text().split("\n@"):
        fields = dict(re.findall(r"^  (\w+) *= \{(.*)\},$", entry, re.MULTILINE))
        surname = re.sub(r"\W", " ", fields["author"].partition(",")[0]).split()[-1]
        found[surname, fields.get("year")] = entry.partition("{")[2].partition(",")[0], fields
    return found


@pytest.mark.parametrize(
    ("text", "paper"),
    [
        ("the rule (Holm, 1979).", ("Holm", "1979")),
        ("as Okabe and Ito (2008) say", ("Okabe", "2008")),
        ("after de Jorge\n    et al., 2021, who", ("Jorge", "2021")),
        ('(Gadgil, "Blending pruning and backprop", 2015)', ("Gadgil", "2015")),
    ],
)
def test_a_paper_in_a_docstring_is_seen(text, paper):
    assert papers(text) == {paper}


def test_every_paper_that_a_docstring_names_is_among_the_references_with_a_link():
    known, named = references(), papers("\n\n".join(docstrings()))
    assert len(named) > 25
    assert named - set(known) == set(), "not in book/references.bib"
    unlinked = {name for name in named if not {"doi", "eprint", "url"} & set(known[name][1])}
    assert unlinked == NOT_ONLINE


def test_every_reference_is_on_the_page_and_is_cited_or_named():
    assert ":all:" in page("references")
    named = papers("\n\n".join(docstrings()))
    written = "".join(path.read_text() for path in BOOK.glob("*.md")) + "".join(CHAPTERS.values())
    cited = set(
        re.findall(r"[\w]+", " ".join(re.findall(r"\{cite\w*(?::\w+)?\}`([^`]*)`", written)))
    )
    idle = [
        key for name, (key, _) in references().items() if name not in named and key not in cited
    ]
    assert idle == []


def test_the_citation_is_that_of_the_citation_file():
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    fields = dict(re.findall(r"^  (\w+) += \{+(.*?)\}+,$", page("references"), re.MULTILINE))
    assert fields["author"] == " and ".join(author["name"] for author in cff["authors"])
    assert (fields["title"], fields["version"]) == (cff["title"], cff["version"])
    assert fields["license"].split(" and ") == cff["license"]
    (paper,) = cff["references"]
    assert f"title     = {{{paper['title']}}}" in (BOOK / "references.bib").read_text()
    assert re.search(rf"^## {re.escape(cff['version'])}\b", page("changelog"), re.MULTILINE)
    assert f'__version__ = "{cff["version"]}"' in (ROOT / "prosper_utils/__init__.py").read_text()
    assert f'version = "{cff["version"]}"' in (ROOT / "pyproject.toml").read_text()


def diverging():
    """Take two inner steps whose weights leave the floats at the second."""

    def loss(weights, _):
        return tf.reduce_sum(weights[0] ** 4)

    batches = [(np.ones(1), np.ones(1))] * 3
    meta_gradient.meta_gradient(loss, [tf.constant([1e6])], batches, learning_rate=1e6)


def diagonal():
    weights, loss = networks.as_loss(networks.dense_300_100())
    streaming.diagonal(loss, weights, None)


def compiled():
    """Ask for a meta-gradient while a function is traced."""
    batches = [(np.ones(1), np.ones(1))] * 2
    score = functools.partial(meta_gradient.meta_gradient, None, [1.0], batches, learning_rate=0.1)
    tf.function(score, autograph=False)()


def growing():
    """Score where every step doubles the weights, and with them the cotangent."""

    def loss(weights, _):
        return -tf.reduce_sum(weights[0] ** 2) / 2

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        weights = [tf.constant([1.0, 2.0])]
        conditioning.checked(loss, weights, [np.zeros(1)] * 11, learning_rate=1.0)


def classifier(output=None, hidden="relu", loss=None):
    """Return a function that looks three steps ahead, on a small classifier with this loss."""

    def score():
        layers = [keras.layers.Dense(8, hidden, name="hidden")]
        layers = [keras.Input((4,)), *layers, keras.layers.Dense(3, output, name="output")]
        model = keras.Sequential(layers, name="classifier")
        if loss:
            model.compile(loss=loss)
        scores.prospr(model, [(np.ones((2, 4), np.float32), np.zeros(2, int))] * 4)

    return score


def two_outputs():
    """Score a model whose loss is that of one of its two outputs."""
    x = keras.Input((4,))
    model = keras.Model(x, {name: keras.layers.Dense(3, name=name)(x) for name in ("y", "extra")})
    model.compile(loss={"y": LOGITS})
    labels = dict.fromkeys(("y", "extra"), np.zeros(2, int))
    scores.snip(model, [(np.ones((2, 4), np.float32), labels)])


def attention():
    """Put masks on a layer that makes its own layers."""
    x = keras.Input((5, 8))
    model = keras.Model(x, keras.layers.MultiHeadAttention(2, 4, name="attention")(x, x))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        masks.apply(model, masks.top_k(scores.magnitude(model), 0.5))


def mnist(content):
    """Return a function that reads mnist.npz with this content, in the folder of the test."""

    def read():
        if content is not None:
            np.savez("mnist.npz", y_train=np.zeros(3))
            with open("mnist.npz", "r+b") as file:
                file.truncate(content or None)
        datasets.read("mnist", "mnist.npz")

    return read


def mnist_by_name():
    datasets.load("mnist")


SEEN = {
    "no file": (mnist(None), FileNotFoundError),
    "a file that was cut off": (mnist(100), ValueError),
    "a download that does not come": (mnist_by_name, FileNotFoundError),
    "a result that is not stored": (lambda: results.load("proofs"), FileNotFoundError),
    "steps that diverge": (diverging, ValueError),
    "a diagonal of many weights": (diagonal, ValueError),
    "a softmax without a loss": (classifier("softmax"), ValueError),
    "logits and a loss of probabilities": (classifier(loss=PROBABILITIES), ValueError),
    "a softmax and a loss of logits": (classifier("softmax", loss=LOGITS), ValueError),
    "a second derivative that is missing": (classifier(hidden="softsign"), ValueError),
    "an output without a loss": (two_outputs, ValueError),
    "masks that are not saved": (attention, UserWarning),
    "a sweep inside a function": (compiled, ValueError),
    "a mask that is not determined": (growing, conditioning.UndeterminedMask),
}


@pytest.mark.parametrize("case", SEEN)
def test_the_messages_of_troubleshooting_are_those_that_are_seen(case, tmp_path, monkeypatch):
    action, kind = SEEN[case]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(datasets, "_download", lambda *_: "no download within 10 seconds")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("PROSPER_MNIST", raising=False)
    with pytest.raises(kind) as raised:
        action()
    assert f"{kind.__name__}: {raised.value}\n" in page("troubleshooting")


def test_the_line_of_troubleshooting_about_the_digits(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("PROSPER_DATASET", "auto")
    monkeypatch.delenv("PROSPER_MNIST", raising=False)
    monkeypatch.setattr(datasets, "_download", lambda *_: "the download failed (URLError)")
    said = [(datasets.load(), capsys.readouterr().out)[1] for _ in range(2)]
    assert said[1] in page("troubleshooting")
    assert (tmp_path / "datasets" / "mnist.failed").exists()


def test_one_sentence_per_line_on_pages():
    for path in BOOK.glob("*.md"):
        for line in re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL).splitlines():
            assert not re.search(r"[a-z)$]\. [A-Z][a-z]+ ", line), f"{path.name}: {line}"


def test_pages_name_chapters_by_their_titles():
    """The numbers of chapters are in the names of their files only."""
    for path in BOOK.glob("*.md"):
        assert not re.search(r"[Cc]hapters? \d", path.read_text()), path.name


def test_the_status_page_runs():
    """Only `make book` executes it, and tests build the pages without executing them."""
    found = {}
    cells = re.findall(r"```\{code-cell\}.*?\n\n(.*?)```", page("status"), re.DOTALL)
    assert len(cells) == 3
    for cell in cells:
        exec(cell, found)
    assert set(found["rows"]) == {path.stem for path in results.FOLDER.glob("*.csv")}
    assert {"jupyter-book", "prosper_utils", "tensorflow"} <= set(found["versions"])
    assert len(found["mutants"]) >= 1
    assert found["mutants"].score.between(found["mutants"].at_least, 100).all()
    assert (found["mutants"].caught <= found["mutants"].judged).all()
    assert (found["mutants"].judged <= found["mutants"].mutants).all()


def rows_of(arm, proved):
    return [
        {"arm": arm + front.STORED, "step_size": 0.03, "keep": k, "seed": 0, "proved": n}
        for k, n in enumerate(proved)
    ]


@pytest.mark.parametrize(
    ("blend", "said"),
    [((9, 9, 10), True), ((1, 1, 2), True), ((5, 4, 6), False)],
)
def test_a_difference_is_one_in_either_direction(blend, said):
    table = pd.DataFrame(rows_of("blend", blend) + rows_of("identity", (5, 5, 5)))
    found = front.stored_goals(table)
    assert ("makes a difference" in found) == said
    assert ("no difference is shown" in found) != said


def test_the_lead_is_over_the_fixed_mask_with_the_lowest_mean():
    errors = {"credit": 1.0, "SNIP": 2.0, "SynFlow": 3.0, "random regrowth": 0.0}
    rows = [{"arm": a, "seed": s, "error": e + s} for a, e in errors.items() for s in range(3)]
    best, less = front.lead(pd.DataFrame(rows))
    assert best == "SNIP"
    assert less.startswith("\N{MINUS SIGN}1.0")


def test_the_longest_arrow_is_as_long_as_asked_for_and_only_zeros_have_one():
    figure, axis = plt.subplots()
    front.draw(axis, np.array([0.5, 0.0, 0.0, 0.0]), np.array([9.0, 1.0, -2.0, 0.0]), 0.3)
    assert [(note.xy, note.get_position()) for note in axis.texts] == [
        ((1, pytest.approx(0.15)), (1, 0)),
        ((2, pytest.approx(-0.3)), (2, 0)),
    ]
    plt.close(figure)
