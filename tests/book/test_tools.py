"""What could go wrong in the commands without a word."""

import os

from prosper_utils.study import results

import chapters
import front
import methods
import mutants
import nbclient
import nbformat
import openings
import pandas as pd
import pytest
from test_openings import DETAILS, notebook


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


def test_networks_that_were_trained_for_different_times_have_no_one_time(monkeypatch):
    for last in (5, 7):
        steps = dict(zip(methods.NETWORKS, (5, 5, last), strict=True))
        found = {"networks": {name: {"steps": n} for name, n in steps.items()}}
        monkeypatch.setattr(
            results, "load", lambda name, found=found: (None, {"configuration": found})
        )
        if last == 5:
            assert methods.steps("units") == 5
        else:
            with pytest.raises(ValueError, match="unpack"):
                methods.steps("units")


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


def test_what_does_the_same_is_no_reason_for_a_lower_score():
    table = [{"caught": 80, "mutants": 100, "judged": 100, "equivalent": 20}]
    assert mutants.fallen(100, 97, table)  # all that could be caught were
    assert not mutants.fallen(100, 100, table)


def test_the_cell_for_colab_follows_the_repository(monkeypatch):
    chapter = notebook("import math")
    for url in ("https://example.org/a", "https://example.org/b", ""):
        monkeypatch.setattr(openings, "repository", lambda url=url: (url, "main"))
        openings.put(chapter, DETAILS)
        assert len(chapter.cells) == 3
        assert chapter.cells[1].source == openings.colab_cell(url, "main").source
        assert chapter.cells[1].metadata == {"tags": ["remove-cell"]}
