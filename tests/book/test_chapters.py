"""Chapters: both files of a pair agree, notebooks are stored executed, pictures have words."""

import copy
import re
import sys

import chapters
import nbformat
import openings
import pytest
import yaml
from conftest import ROOT, clock

STEMS = chapters.chapters()


def notebook(stem):
    return nbformat.read(ROOT / "notebooks" / f"{stem}.ipynb", as_version=4)


def code_cells(stem):
    return [c for c in notebook(stem).cells if c.cell_type == "code"]


def test_there_are_chapters_and_the_book_has_them_all():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    listed = [c["file"] for part in toc["parts"] for c in part["chapters"]]
    assert STEMS
    assert [f for f in listed if f.startswith("notebooks/")] == [
        f"notebooks/{stem}.ipynb" for stem in STEMS
    ]


@pytest.mark.parametrize("stem", STEMS)
def test_the_pair_agrees_cell_by_cell(stem):
    assert chapters.differences(stem) == []


def test_a_pair_that_differs_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(chapters, "NOTEBOOKS", tmp_path)
    for change in ("source", "tags", "mystnb", "type", "count"):
        whole = notebook(STEMS[0])
        nbformat.write(whole, tmp_path / "01_x.ipynb")
        text = (ROOT / "notebooks" / f"{STEMS[0]}.md").read_text()
        (tmp_path / "01_x.md").write_text(text)
        assert chapters.differences("01_x") == []
        cell = next(c for c in whole.cells if c.metadata.get("mystnb"))
        if change == "source":
            cell.source += "\n1 + 1"
        elif change == "tags":
            cell.metadata.tags = []
        elif change == "mystnb":
            cell.metadata.mystnb.image.alt = "other words"
        elif change == "type":
            cell.cell_type = "raw"
        else:
            whole.cells.pop()
        nbformat.write(whole, tmp_path / "01_x.ipynb")
        assert len(chapters.differences("01_x")) == 1, change


def status(monkeypatch, *arguments):
    """Return with what the command exits: 0, or what it says then; None if it does not exit."""
    monkeypatch.setattr(sys, "argv", ["chapters.py", *arguments])
    try:
        chapters.main()
    except SystemExit as end:
        return end.code
    return None


def test_a_check_fails_if_any_pair_differs_and_changes_nothing(monkeypatch):
    monkeypatch.setattr(chapters, "chapters", lambda: ["01_x", "02_y"])
    for name in ("sync", "execute", "open_chapter"):
        monkeypatch.setattr(chapters, name, lambda stem: pytest.fail("nothing is changed"))
    for broken in ([], ["01_x"], ["02_y"], ["01_x", "02_y"]):
        found = {stem: [f"{stem} differs"] if stem in broken else [] for stem in ("01_x", "02_y")}
        monkeypatch.setattr(chapters, "differences", found.get)
        said = "\n".join(f"{stem} differs" for stem in broken)
        assert status(monkeypatch, "--check") == (said or 0)
    assert status(monkeypatch, "--check", "01_x") == "01_x differs"
    assert status(monkeypatch, "03_z") == "no such chapter: 03_z; there are 01_x, 02_y"


def test_a_chapter_is_synced_opened_executed_and_opened_again(monkeypatch):
    """Its time is known at the end; a pair that cannot be made equal is not executed."""
    done = []
    monkeypatch.setattr(chapters, "chapters", lambda: ["01_x", "02_y"])
    for name in ("sync", "execute", "open_chapter"):
        monkeypatch.setattr(chapters, name, lambda stem, name=name: done.append((name, stem)))
    monkeypatch.setattr(chapters, "differences", lambda stem: [])
    assert status(monkeypatch, "02_y") is None
    order = ["sync", "open_chapter", "execute", "open_chapter"]
    assert done == [(name, "02_y") for name in order]
    monkeypatch.setattr(chapters, "differences", lambda stem: ["it differs"])
    done.clear()
    assert status(monkeypatch, "01_x") == "it differs"
    assert done == [("sync", "01_x")]
    monkeypatch.setattr(chapters, "differences", lambda stem: [f"{stem}: cell {i}" for i in (2, 5)])
    assert status(monkeypatch, "01_x") == "01_x: cell 2\n01_x: cell 5"


def test_without_names_all_chapters_are_executed_in_order(monkeypatch):
    done = []
    monkeypatch.setattr(chapters, "chapters", lambda: ["01_x", "02_y", "03_z"])
    for name in ("sync", "open_chapter"):
        monkeypatch.setattr(chapters, name, lambda stem: None)
    monkeypatch.setattr(chapters, "execute", done.append)
    monkeypatch.setattr(chapters, "differences", lambda stem: [])
    assert status(monkeypatch) is None
    assert done == ["01_x", "02_y", "03_z"]
    assert status(monkeypatch, "03_z", "01_x") is None
    assert done[3:] == ["03_z", "01_x"]
    named = "no such chapter: 04_a, 05_b; there are 01_x, 02_y, 03_z"
    assert status(monkeypatch, "05_b", "01_x", "04_a", "--check") == named


def cells(*sources):
    """Return a notebook of Markdown cells, and one of code at its end."""
    made = [nbformat.v4.new_markdown_cell(source) for source in sources[:-1]]
    return nbformat.v4.new_notebook(cells=[*made, nbformat.v4.new_code_cell(sources[-1])])


def test_a_difference_names_the_chapter_the_cell_and_how_its_text_begins(monkeypatch):
    pair, long = {}, "a line of more than sixty characters, of which so many are shown and no more"
    monkeypatch.setattr(chapters.jupytext, "read", lambda path: pair[path.suffix])
    pair[".md"], pair[".ipynb"] = cells("# A", long, "1 + 1"), cells("# A ", "two", "1 + 2")
    assert chapters.differences("01_x") == [
        f"01_x: cell 1 differs: {long[:60]!r}",
        "01_x: cell 2 differs: '1 + 1'",
    ]
    pair[".md"], pair[".ipynb"] = cells("# A", "1"), cells("# A\n", "\n1\n")
    assert chapters.differences("01_x") == []
    for cell in pair[".ipynb"].cells:
        cell.metadata["slideshow"] = "is of no matter"
    assert chapters.differences("01_x") == []
    pair[".ipynb"].cells[0].metadata["tags"] = ["remove-cell"]
    assert chapters.differences("01_x") == ["01_x: cell 0 differs: '# A'"]
    pair[".ipynb"] = cells("# A", "one more", "1")
    assert chapters.differences("01_x") == ["01_x: 2 cells in .md, 3 in .ipynb"]


def test_a_pair_is_synced_from_its_text_and_from_its_notebook_if_that_is_alone(
    tmp_path, monkeypatch
):
    asked = []
    monkeypatch.setattr(chapters, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(
        chapters.subprocess, "run", lambda command, **options: asked.append((command, options))
    )
    (tmp_path / "01_x.ipynb").touch()
    chapters.sync("01_x")
    (tmp_path / "01_x.md").touch()
    chapters.sync("01_x")
    command = [sys.executable, "-m", "jupytext", "--quiet", "--sync"]
    assert asked == [
        ([*command, tmp_path / name], {"check": True}) for name in ("01_x.ipynb", "01_x.md")
    ]


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """Return the notebook file of a chapter of its own, and what is done with it."""
    done = []
    monkeypatch.setattr(chapters, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(openings, "SECONDS", tmp_path / "seconds.json")
    monkeypatch.setattr(chapters, "sync", lambda stem: done.append(("synced", stem)))
    monkeypatch.setattr(chapters.os, "utime", lambda path: done.append(("touched", path)))
    file = tmp_path / "01_x.ipynb"
    nbformat.write(cells("# A title", "1 + 1"), file)
    put, replace = openings.put, chapters.results.replace

    def noted_put(notebook, details):
        done.append(("put", details))
        put(notebook, details)

    def noted_replace(path, text):
        done.append(("replaced", path))
        assert text.endswith("\n}\n")
        replace(path, text)

    monkeypatch.setattr(openings, "put", noted_put)
    monkeypatch.setattr(chapters.results, "replace", noted_replace)
    return file, done


def test_an_opening_is_put_stored_and_only_then_synced(alone):
    file, done = alone
    text = file.with_suffix(".md")
    openings.SECONDS.write_text('{"01_x": {"seconds": 3, "cores": 4}, "02_y": {}}')
    chapters.open_chapter("01_x")
    assert done == [
        ("put", {"seconds": 3, "cores": 4}),
        ("replaced", file),
        ("synced", "01_x"),
        ("touched", text),
    ]
    title = nbformat.read(file, 4).cells[0].source
    assert title == "# A title\n\n*About 5 seconds on 4 cores; needs no data.*"
    openings.SECONDS.unlink()
    chapters.open_chapter("01_x")
    assert done[4] == ("put", None)
    assert nbformat.read(file, 4).cells[0].source == title


def test_a_chapter_is_executed_without_timing_and_its_seconds_are_noted(alone, monkeypatch):
    file, done = alone
    spend = clock(monkeypatch, chapters)

    class Client:
        def __init__(self, notebook, **options):
            self.notebook = notebook
            assert options["record_timing"] is False
            assert options["resources"]["metadata"]["path"] == file.parent

        def execute(self):
            spend(7.5)
            self.notebook.cells[1].execution_count = 1
            self.notebook.metadata["language_info"] = {"version": "3.11.7"}

    monkeypatch.setattr(chapters.nbclient, "NotebookClient", Client)
    monkeypatch.setattr(openings, "record", lambda *given: done.append(("noted", *given)))
    chapters.execute("01_x")
    assert done == [("noted", "01_x", 7.5), ("replaced", file)]
    stored = nbformat.read(file, 4)
    assert stored.cells[1].execution_count == 1
    assert "language_info" not in stored.metadata


@pytest.mark.parametrize("stem", STEMS)
def test_the_chapter_begins_with_its_time_its_needs_and_the_cell_for_colab(stem):
    details = openings.seconds().get(stem)
    assert details, f"{openings.SECONDS.name}: expected the time of {stem}: run `make notebooks`"
    stored = notebook(stem)
    opened = copy.deepcopy(stored)
    openings.put(opened, details)
    assert opened == stored, f"{stem}: its opening is not up to date: run `make notebooks`"


@pytest.mark.parametrize("stem", STEMS)
def test_the_notebook_is_stored_executed_in_order_without_timing(stem):
    cells = code_cells(stem)
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
    assert not any("execution" in c.metadata for c in cells)
    assert len({c.id for c in notebook(stem).cells}) == len(notebook(stem).cells)
    for cell in cells:
        assert not cell.source.rstrip().endswith(";")
        assert not any(o.output_type == "error" for o in cell.outputs)
        assert not any(o.get("name") == "stderr" for o in cell.outputs)
        assert not any("WARNING:" in o.get("text", "") for o in cell.outputs)


@pytest.mark.parametrize("stem", STEMS)
def test_every_picture_has_a_caption_and_alternative_text(stem):
    for cell in code_cells(stem):
        pictures = [o for o in cell.outputs if any("image" in k for k in o.get("data", {}))]
        if pictures:
            assert len(pictures) == 1
            assert len(cell.metadata.mystnb.image.alt) > 40
            assert len(cell.metadata.mystnb.figure.caption) > 40
            assert len(pictures[0].data["image/png"]) * 3 / 4 < 150_000


@pytest.mark.parametrize("stem", STEMS)
def test_most_cells_are_compared_and_cells_are_short(stem):
    cells = code_cells(stem)
    ignored = [c for c in cells if "nbval-ignore-output" in c.metadata.get("tags", [])]
    assert len(ignored) <= len(cells) / 2
    assert any(o.get("text", "").startswith("✓") for o in cells[-1].outputs)  # the closing check
    shown = [c for c in notebook(stem).cells if "remove-cell" not in c.metadata.get("tags", [])]
    assert 15 <= len(shown) <= (30 if stem[:2] == "15" else 40)
    assert max(len(c.source.splitlines()) for c in cells) <= 35


@pytest.mark.parametrize("stem", STEMS)
def test_pictures_whose_light_and_dark_say_something_keep_their_colours(stem):
    for cell in code_cells(stem):
        image = cell.metadata.get("mystnb", {}).get("image", {})
        is_map = re.search(r"\.(imshow|matshow|pcolor\w*)\(", cell.source) is not None
        assert (image.get("classes") == "own-colours") == is_map, cell.source


@pytest.mark.parametrize("stem", STEMS)
def test_no_legend_stands_to_the_right_of_its_picture(stem):
    """On a phone a picture scrolls, and its left side is what is seen first."""
    assert [c.source for c in code_cells(stem) if "bbox_to_anchor=(1," in c.source] == []


@pytest.mark.parametrize("stem", STEMS)
def test_titles_of_exercises_have_one_form(stem):
    text = "\n".join(c.source for c in notebook(stem).cells if c.cell_type == "markdown")
    titles = re.findall(r"^\*\*\d.*", text.partition("## Exercises")[2], re.MULTILINE)
    kinds = r"( \((proof|computational|proof, computational|exploration)\))?"
    form = rf"\*\*\d\. [A-Z][^*()]*?({kinds}\.|\?)\*\*"
    assert len(titles) >= 3
    assert [title for title in titles if not re.match(form, title)] == []
    assert [title for title in titles if re.match(r".*\?[^*]*\(.*\*\*", title)] == []


@pytest.mark.parametrize("stem", STEMS)
def test_exercises_have_a_proof_and_a_computation_that_is_checked(stem):
    text = (ROOT / "notebooks" / f"{stem}.md").read_text().partition("## Exercises")[2]
    exercises = re.split(r"\n(?=\*\*\d\. )", text)[1:]
    assert [e for e in exercises if "```{admonition} Solution\n:class: dropdown" not in e] == []
    assert any("proof" in e.splitlines()[0] for e in exercises)
    computed = [e for e in exercises if "computational" in e.splitlines()[0]]
    assert any(re.search(r"```\{code-cell\}.*\bcheck\w*\(", e, re.DOTALL) for e in computed)


@pytest.mark.parametrize("stem", STEMS)
def test_prose_has_one_sentence_per_line(stem):
    for cell in notebook(stem).cells:
        if cell.cell_type == "markdown":
            for line in cell.source.splitlines():
                assert not re.search(r"[a-z)$]\. [A-Z][a-z]+ ", line), line
