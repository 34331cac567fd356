"""What works: every cell of the page is tried, and says today what is stored of it."""

import importlib.metadata

import pytest
import works

OUTCOMES = works.stored()["outcomes"]


@pytest.mark.parametrize("cell", works.CELLS, ids=" - ".join)
def test_a_cell_says_what_is_stored(cell):
    table, row, column = cell
    said = works.outcome(table, row, column)
    assert said == OUTCOMES[table][row][column], "the page is out of date: run `make works`"


def test_every_cell_is_stored_and_no_other():
    stored = [(t, r, c) for t, rows in OUTCOMES.items() for r, cells in rows.items() for c in cells]
    assert stored == works.CELLS


def test_the_versions_are_those_of_the_pins():
    versions = works.stored()["versions"]
    assert versions == {name: importlib.metadata.version(name) for name in versions}


def test_what_refuses_says_what_to_do_or_what_was_found():
    for _, rows in OUTCOMES.items():
        for row, cells in rows.items():
            for column, words in cells.items():
                refused = "expected " in words and "found " in words
                assert not words or refused or words.startswith("masks: "), (row, column, words)


def test_a_wrong_result_is_no_outcome(monkeypatch):
    monkeypatch.setattr(works.scores, "snip", lambda model, batches: works.scores.magnitude(model))
    with pytest.raises(AssertionError, match="expected a relative error below"):
        works.outcome("layers", "Dense", "SNIP")


def test_zeros_that_fill_are_no_outcome(monkeypatch):
    monkeypatch.setattr(works.masks, "apply", lambda model, masks: None)
    with pytest.raises(AssertionError, match="kernel"):
        works.outcome("optimizers", "SGD", "as it comes")
