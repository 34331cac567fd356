"""Openings: the line on time and needs, and the cell that does something on Colab only."""

import copy
import datetime
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import chapters
import nbclient
import nbformat
import openings
import pytest
from conftest import ROOT

DETAILS = {"seconds": 11.2, "cores": 2}
URL = "https://github.com/OWNER/NAME"


def notebook(*code):
    cells = [nbformat.v4.new_markdown_cell("# A title\n\n**Overview.**\nWe begin.")]
    return nbformat.v4.new_notebook(cells=cells + [nbformat.v4.new_code_cell(c) for c in code])


def test_an_opening_is_written_once_and_replaced_when_the_time_changes():
    chapter = notebook("import math")
    openings.put(chapter, DETAILS)
    once = copy.deepcopy(chapter)
    openings.put(chapter, DETAILS)
    assert chapter == once
    assert chapter.cells[0].source == (
        "# A title\n\n*About 15 seconds on 2 cores; needs no data.*\n\n**Overview.**\nWe begin."
    )
    assert [openings.is_colab_cell(cell) for cell in chapter.cells] == [False, True, False]
    openings.put(chapter, DETAILS | {"seconds": 31.0})
    assert chapter.cells[0].source == once.cells[0].source.replace("15", "35")
    assert len(chapter.cells) == 3


def test_a_title_may_stand_alone():
    chapter = notebook("import math")
    chapter.cells[0].source = "# A title"
    for _ in range(2):
        openings.put(chapter, DETAILS)
        found = chapter.cells[0].source
        assert found == "# A title\n\n*About 15 seconds on 2 cores; needs no data.*"


def test_a_chapter_of_unknown_time_gets_its_cell_and_keeps_its_text():
    chapter = notebook("import math")
    openings.put(chapter, None)
    assert chapter.cells[0].source == notebook().cells[0].source
    assert openings.is_colab_cell(chapter.cells[1])


@pytest.mark.parametrize("first", ["No title", "## A section", "#No title", ""])
def test_a_chapter_begins_with_a_title(first):
    chapter = notebook("1")
    chapter.cells[0].source = f"{first}\n# A title"
    with pytest.raises(ValueError, match=f"first cell: expected a title, found '{first}'$"):
        openings.put(chapter, DETAILS)
    assert len(chapter.cells) == 2


def test_what_a_chapter_needs_is_read_from_its_code():
    assert openings.needs(notebook("1 + 1")) == "no data"
    data = "data = datasets.load()"
    assert openings.needs(notebook(data)) == "MNIST or scikit-learn's digits"
    assert openings.needs(notebook('datasets.load("digits")')) == "scikit-learn's digits"
    reads = 'Path("../tests/prospr_tiny.json")', 'results.load(f"proofs{kind}")'
    stored = [f"proofs{part}.csv" for part in ("", "_credit", "_domains", "_speed", "_tuning")]
    files = ", ".join(f"`{name}`" for name in (*stored, "prospr_tiny.json"))
    assert openings.needs(notebook(*reads)) == f"no data; reads {files}"
    assert openings.needs(notebook(data, 'results.load("pruning")')).endswith(
        "digits; reads `pruning.csv`"
    )
    carried = openings.needs(notebook("families = findings.families()"))
    names = ("colour", "pruning", "pruning_fashion", "regrowth", "regrowth_fashion")
    assert carried == "no data; reads " + ", ".join(f"`{name}.csv`" for name in names)


def test_what_the_helpers_of_a_chapter_read_is_needed_too():
    found = openings.needs(notebook("from prosper_utils.study import hopes, plots"))
    names = ("proofs", "proofs_credit", "proofs_domains", "pruning")
    assert found == "no data; reads " + ", ".join(f"`{name}.csv`" for name in names)
    many = "from prosper_utils.study import (\n    checks,\n    hopes,\n)"
    assert openings.needs(notebook(many)) == found


def test_times_are_stored_chapter_by_chapter(tmp_path, monkeypatch):
    monkeypatch.setattr(openings, "SECONDS", tmp_path / "seconds.json")
    assert openings.seconds() == {}
    for stem, taken in (("02_b", 3.21), ("01_a", 4), ("02_b", 5)):
        openings.record(stem, taken)
    found = openings.seconds()
    assert list(found) == ["01_a", "02_b"]
    assert found["02_b"]["seconds"] == 5
    assert found["01_a"]["data"] == "digits"  # what the tests run on


def test_the_time_of_a_chapter_is_stored_with_where_and_when_it_was(tmp_path, monkeypatch):
    class Day:
        today = staticmethod(lambda: datetime.date(2026, 1, 2))

    monkeypatch.setattr(openings, "SECONDS", tmp_path / "seconds.json")
    monkeypatch.setattr(openings, "datetime", SimpleNamespace(date=Day))
    monkeypatch.setattr(openings, "os", SimpleNamespace(environ={}, cpu_count=lambda: 6))
    monkeypatch.setattr(openings, "platform", SimpleNamespace(python_version=lambda: "3.11.7"))
    openings.record("02_b", 3.26)
    monkeypatch.setitem(openings.os.environ, "PROSPER_DATASET", "mnist")
    openings.record("01_a", 4)
    here = """{
  "cores": 6,
  "data": "%s",
  "date": "2026-01-02",
  "python": "3.11.7",
  "seconds": %s
 }"""
    first, second = here % ("mnist", "4"), here % ("auto", "3.3")
    text = f'{{\n "01_a": {first},\n "02_b": {second}\n}}\n'
    assert openings.SECONDS.read_text() == text
    assert openings.seconds() == json.loads(text)


def test_the_repository_is_read_from_the_configuration(tmp_path, monkeypatch):
    monkeypatch.setattr(openings, "ROOT", tmp_path)
    for url, named in (("''", ""), ("", ""), (URL, URL)):
        text = f"repository:\n  url: {url}\n  branch: stable\n"
        (tmp_path / "_config.yml").write_text(text)
        assert openings.repository() == (named, "stable")


def test_a_cell_for_colab_is_told_from_others_and_names_the_branch():
    for url in (URL, ""):
        cell = openings.colab_cell(url, "stable")
        assert openings.is_colab_cell(cell)
        assert ("stable" in cell.source) == bool(url)
        assert not openings.is_colab_cell(nbformat.v4.new_markdown_cell(cell.source))
    assert not openings.is_colab_cell(nbformat.v4.new_code_cell("import google.colab, sys"))


def test_the_cell_for_colab_stands_before_all_other_code_and_after_the_text_there():
    chapter = notebook("import math", "math.pi")
    chapter.cells.insert(1, nbformat.v4.new_markdown_cell("More."))
    text = [cell.source for cell in chapter.cells]
    openings.put(chapter, None)
    cell = openings.colab_cell(*openings.repository())
    assert [c.source for c in chapter.cells] == [*text[:2], cell.source, *text[2:]]
    assert chapter.cells[2].id == "colab"
    chapter.cells[2].update(source=f"{cell.source}\n...", metadata={"tags": ["mine"]})
    openings.put(chapter, None)
    assert (chapter.cells[2].source, chapter.cells[2].metadata) == (cell.source, cell.metadata)


def test_each_file_that_code_reads_is_named_once_in_order_if_it_is_there(tmp_path, monkeypatch):
    """What text tells of is not read, and neither are the helpers of another wing.

    Of a helper stored results count alone: a path is from where the chapter is, and what data a
    helper works on is what the chapter gives it.
    """
    results = tmp_path / "book" / "studies" / "results"
    study = tmp_path / "prosper_utils" / "study"
    for folder in (results, study, tmp_path / "tests"):
        folder.mkdir(parents=True)
    for name in ("a", "b", "bench_x", "bench_y", "told"):
        (results / f"{name}.csv").touch()
        (results / f"{name}.json").touch()
    (tmp_path / "tests" / "c.json").touch()
    (study / "helper.py").write_text(
        'results.load("b")\ndatasets.load("digits")\nPath("../tests/c.json")\n'
    )
    (study / "other.py").write_text('results.load("told")\n')
    monkeypatch.setattr(openings, "ROOT", tmp_path)
    chapter = notebook(
        'stored("a"), results.load("a"), results.load("none")',
        'Path("../tests/c.json"), Path("../tests/d.json"), restored("told")',
        "from prosper_utils.pruning import other",
    )
    chapter.cells.append(nbformat.v4.new_markdown_cell('`results.load("told")`'))
    assert openings.needs(chapter) == "no data; reads `a.csv`, `c.json`"
    chapter.cells[1].source += '\nresults.load(f"bench_{kind}")'
    read = "no data; reads `a.csv`, `bench_x.csv`, `bench_y.csv`, `c.json`"
    assert openings.needs(chapter) == read
    chapter = notebook("from prosper_utils.study import helper, none", "datasets.load()")
    assert openings.needs(chapter) == ("MNIST or scikit-learn's digits; reads `b.csv`")
    about = openings.line(chapter, {"seconds": 95.2, "cores": 3})
    assert about == f"*About 100 seconds on 3 cores; needs {openings.needs(chapter)}.*"


@pytest.fixture(scope="module")
def remote(tmp_path_factory):
    """Return the address of a small repository with a package of our name."""
    folder = tmp_path_factory.mktemp("remote")
    for name in ("prosper_utils/__init__.py", "notebooks/01_a.md"):
        (folder / name).parent.mkdir()
        (folder / name).write_text("cloned = True\n")
    who = ["-c", "user.name=a reader", "-c", "user.email=reader@example.org"]
    for command in (["init", "-q", "-b", "main"], ["add", "."], [*who, "commit", "-q", "-m", "A"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder.as_uri()


SCRIPT = """
import os, sys, types
from IPython.core.interactiveshell import InteractiveShell

if {on_colab}:
    sys.modules["google.colab"] = types.ModuleType("google.colab")
before = os.getcwd(), list(sys.path)
InteractiveShell().run_cell({source!r}).raise_error()
print("unchanged" if (os.getcwd(), sys.path) == before else os.getcwd())
if {on_colab}:
    import prosper_utils
    assert prosper_utils.cloned
"""


def run(source, tmp_path, *, on_colab):
    """Run a cell in a fresh IPython, with `tmp_path` in place of Colab's /content."""
    script = SCRIPT.format(source=source.replace("/content", str(tmp_path)), on_colab=on_colab)
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)


def test_on_colab_the_cell_brings_the_package_and_goes_where_the_chapters_are(tmp_path, remote):
    cell = openings.colab_cell(remote, "main").source
    for _ in range(2):  # a reader may run it again
        found = run(cell, tmp_path, on_colab=True)
        assert found.returncode == 0, found.stderr
        assert found.stdout.splitlines()[-1] == str(tmp_path / "book" / "notebooks")
        assert "fatal" not in found.stdout + found.stderr


@pytest.mark.parametrize("url", [URL, ""])
def test_elsewhere_the_cell_does_nothing(tmp_path, url):
    found = run(openings.colab_cell(url, "main").source, tmp_path, on_colab=False)
    assert (found.returncode, found.stdout) == (0, "unchanged\n"), found.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_a_repository_colab_is_told_what_is_missing(tmp_path):
    found = run(openings.colab_cell("", "main").source, tmp_path, on_colab=True)
    assert found.returncode != 0
    assert "expected a repository to take it from, found none" in found.stdout + found.stderr


@pytest.mark.parametrize("url", [URL, ""])
def test_the_cell_is_in_the_style_of_the_chapters(tmp_path, url):
    file = tmp_path / "cell.ipynb"
    nbformat.write(notebook(openings.colab_cell(url, "main").source), file)
    ruff = Path(sys.executable).with_name("ruff")
    config = ROOT / "notebooks" / "ruff.toml"
    for command in (["check"], ["format", "--check"]):
        found = subprocess.run([ruff, *command, "--config", config, file], check=False)
        assert found.returncode == 0


def test_the_cell_for_colab_follows_the_repository(monkeypatch):
    chapter = notebook("import math")
    for url in ("https://example.org/a", "https://example.org/b", ""):
        monkeypatch.setattr(openings, "repository", lambda url=url: (url, "main"))
        openings.put(chapter, DETAILS)
        assert len(chapter.cells) == 3
        assert chapter.cells[1].source == openings.colab_cell(url, "main").source
        assert chapter.cells[1].metadata == {"tags": ["remove-cell"]}
        chapter.cells[1].metadata = {"tags": ["hide-cell"]}


def test_a_chapter_with_one_file_alone_is_a_chapter(tmp_path, monkeypatch):
    monkeypatch.setattr(chapters, "NOTEBOOKS", tmp_path)
    for name in ("02_y.ipynb", "01_x.md", "03_z.md", "03_z.ipynb", "notes.md"):
        (tmp_path / name).touch()
    assert chapters.chapters() == ["01_x", "02_y", "03_z"]


def test_after_its_opening_the_text_of_a_chapter_leads(tmp_path, monkeypatch):
    monkeypatch.setattr(chapters, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(chapters, "sync", lambda stem: None)
    monkeypatch.setattr(openings, "SECONDS", tmp_path / "seconds.json")
    nbformat.write(notebook("1 + 1"), tmp_path / "01_x.ipynb")
    (tmp_path / "01_x.md").touch()
    os.utime(tmp_path / "01_x.md", (0, 0))
    chapters.open_chapter("01_x")
    times = [(tmp_path / f"01_x{suffix}").stat().st_mtime for suffix in (".md", ".ipynb")]
    assert times[0] >= times[1]


def test_a_chapter_that_fails_is_not_stored_and_has_no_time(tmp_path, monkeypatch):
    monkeypatch.setattr(chapters, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(openings, "SECONDS", tmp_path / "seconds.json")
    file = tmp_path / "01_x.ipynb"
    for code, works in (("1 / 0", False), ("1 + 1", True)):
        nbformat.write(notebook(code), file)
        before = file.read_text()
        if works:
            chapters.execute("01_x")
            (cell,) = (c for c in nbformat.read(file, 4).cells if c.cell_type == "code")
            assert cell.outputs[0].data["text/plain"] == "2"
            assert "execution" not in cell.metadata
            assert "language_info" not in nbformat.read(file, 4).metadata
            assert list(openings.seconds()) == ["01_x"]
        else:
            with pytest.raises(nbclient.exceptions.CellExecutionError):
                chapters.execute("01_x")
            assert file.read_text() == before
            assert openings.seconds() == {}


def test_only_the_line_below_the_title_is_replaced():
    own = "**Overview.**\nWe begin.\n\n*About time* and *About 5 seconds on 9 cores; needs it.*"
    chapter = notebook("import math")
    chapter.cells[0].source = f"# A title\n\n{own}"
    for taken, said in ((11.2, 15), (15.0, 15), (15.1, 20)):
        openings.put(chapter, DETAILS | {"seconds": taken})
        line = f"*About {said} seconds on 2 cores; needs no data.*"
        assert chapter.cells[0].source == f"# A title\n\n{line}\n\n{own}"


def test_all_data_that_a_chapter_loads_are_named():
    found = openings.needs(notebook('datasets.load("digits")', "datasets.load()"))
    assert found == "scikit-learn's digits, MNIST or scikit-learn's digits"


@pytest.fixture
def pair(tmp_path, monkeypatch):
    """Return the stem of a chapter in a folder of its own, of which only the notebook is there."""
    monkeypatch.setattr(chapters, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(openings, "SECONDS", tmp_path / "seconds.json")
    whole = notebook("1 + 1")
    whole.metadata["jupytext"] = {"formats": "ipynb,md:myst"}
    nbformat.write(whole, tmp_path / "01_x.ipynb")
    return "01_x"


def test_the_opening_of_a_chapter_is_in_both_files(tmp_path, pair):
    openings.record(pair, 11.2)
    chapters.open_chapter(pair)
    assert chapters.differences(pair) == []
    for suffix in (".md", ".ipynb"):
        text = (tmp_path / f"{pair}{suffix}").read_text()
        assert "*About 15 seconds on " in text
        assert "google.colab" in text


def test_a_chapter_that_cannot_be_read_is_not_synced(tmp_path, pair):
    chapters.sync(pair)
    (tmp_path / "01_x.ipynb").write_text("{")
    with pytest.raises(subprocess.CalledProcessError):
        chapters.sync(pair)


def test_a_chapter_runs_in_the_folder_of_the_chapters(tmp_path, pair):
    nbformat.write(notebook("import os\n\nos.getcwd()"), tmp_path / f"{pair}.ipynb")
    chapters.execute(pair)
    stored = nbformat.read(tmp_path / f"{pair}.ipynb", 4)
    assert stored.cells[-1].outputs[0].data["text/plain"] == repr(str(tmp_path))


def test_the_repository_is_that_of_the_project_wherever_one_is(tmp_path, monkeypatch):
    expected = openings.repository()
    (tmp_path / "_config.yml").write_text("repository: {url: another, branch: another}\n")
    monkeypatch.chdir(tmp_path)
    assert openings.repository() == expected
