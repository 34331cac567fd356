"""Stored results: they come back as they went in, with their provenance, and say when missing."""

import json
from pathlib import Path

from prosper_utils.study import results

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT


def test_a_result_comes_back_with_its_provenance(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    rows = [{"method": "reverse", "error": 1.25e-7}, {"method": "unrolled", "error": None}]
    results.save("some", rows, {"steps": 3}, seconds=1.23)
    table, provenance = results.load("some")
    assert list(table.method) == ["reverse", "unrolled"]
    assert table.error[0] == 1.25e-7
    assert table.error.isna()[1]
    assert provenance["configuration"] == {"steps": 3}
    assert set(provenance["versions"]) == {"tensorflow", "keras", "numpy"}
    assert provenance["seconds"] == 1.2


def test_a_result_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    """The disk is full while a file is written: what was stored before is still there."""
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    results.save("some", [{"seed": 0}], {"first": True}, seconds=1)
    write = Path.write_text

    def fails(path, text, **options):
        write(path, text[: len(text) // 2], **options)
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_text", fails)
    with pytest.raises(OSError, match="no space"):
        results.save("some", [{"seed": 1}], {"first": False}, seconds=2)
    with pytest.raises(OSError, match="no space"):
        results.describe("some", {"first": False}, seconds=2)
    table, provenance = results.load("some")
    assert table.seed.tolist() == [0]
    assert provenance["configuration"] == {"first": True}


def test_six_digits_are_kept_and_the_folder_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path / "not" / "there")
    results.append("first", [{"error": 0.123456789, "seed": 123456}])
    assert results.resume("first").to_numpy().tolist() == [[0.123457, 123456]]
    monkeypatch.setattr(results, "FOLDER", tmp_path / "nor" / "there")
    results.save("second", [{"error": 0.123456789}], {}, seconds=1)
    assert results.load("second")[0].error.tolist() == [0.123457]


def test_the_versions_are_those_that_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    results.save("some", [{"seed": 0}], {}, seconds=1, packages=("numpy", "pandas"))
    versions = {"numpy": np.__version__, "pandas": pd.__version__}
    assert results.load("some")[1]["versions"] == versions


def test_values_go_into_their_own_columns(tmp_path, monkeypatch):
    """Whatever the order in which a row has them, and whether it has all."""
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    results.append("some", [{"seed": 0, "error": 1.5, "kept": 7}])
    results.append("some", [{"kept": 8, "error": 2.5, "seed": 1}])
    results.append("some", [{"kept": 9, "seed": 2}])
    table = results.resume("some")
    assert list(table) == ["seed", "error", "kept"]
    np.testing.assert_array_equal(table, [[0, 1.5, 7], [1, 2.5, 8], [2, np.nan, 9]])


def test_a_missing_result_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"none.csv: .* run `make bench` or `make results`"):
        results.load("none")
    results.append("none", [{"seed": 0}])  # a sweep that is not done yet
    with pytest.raises(FileNotFoundError, match=r"none.json: .* run `make bench` or"):
        results.load("none")


def test_a_half_written_line_is_cut_off_and_nothing_else(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    assert results.resume("some").empty
    results.append("some", [{"seed": 0, "error": 1.5}, {"seed": 1, "error": 2.5}])
    results.append("some", [{"seed": 2, "error": 3.5}])
    path = tmp_path / "some.csv"
    whole = path.read_text()
    assert list(results.resume("some").error) == [1.5, 2.5, 3.5]
    assert capsys.readouterr().out == ""
    for cut in range(1, 6):
        path.write_text(whole[:-cut])
        assert list(results.resume("some").error) == [1.5, 2.5]
        assert "half written" in capsys.readouterr().out
        results.append("some", [{"seed": 2, "error": 3.5}])
        assert path.read_text() == whole
    results.append("some", [{"seed": 3}])
    assert results.resume("some").error.isna().tolist() == [False, False, False, True]
    with pytest.raises(ValueError, match=r"some.csv: expected columns .* found \['loss'\] too"):
        results.append("some", [{"seed": 4, "loss": 1.0}])
    path.write_text("seed,er")
    assert results.resume("some").empty


def test_rows_go_on_wherever_the_machine_stopped(tmp_path, monkeypatch):
    """The file cut after any character: whole rows are kept, and the missing ones are added."""
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    rows = [
        {"seed": 0, "failure": ""},
        {"seed": 1, "failure": 'expected "a, b"\nfound NaN\n'},
        {"seed": 2, "failure": "none"},
    ]
    path = tmp_path / "some.csv"
    results.append("some", rows)
    whole = path.read_text()
    ends = [len(pd.DataFrame(rows[:n]).to_csv(index=False)) for n in range(1, 4)]
    assert ends[-1] == len(whole)
    for cut in range(len(whole) + 1):
        path.write_text(whole[:cut])
        count = sum(end <= cut for end in ends)
        if cut % 2:  # `append` has to find out for itself
            assert len(results.resume("some")) == count
        results.append("some", rows[count:])
        assert path.read_text() == whole


def test_every_stored_table_has_its_provenance():
    tables = sorted((ROOT / "book" / "studies" / "results").glob("*.csv"))
    assert tables
    for path in tables:
        provenance = json.loads(path.with_suffix(".json").read_text())
        assert {"configuration", "versions", "python", "processor", "seconds"} <= set(provenance)


def test_rows_with_a_column_too_many_leave_the_file_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    results.append("some", [{"seed": 0, "error": 1.5}])
    before = (tmp_path / "some.csv").read_text()
    with pytest.raises(ValueError, match=r"found \['loss'\] too"):
        results.append("some", [{"seed": 1, "error": 2.5}, {"seed": 2, "loss": 1.0}])
    assert (tmp_path / "some.csv").read_text() == before


def test_where_nothing_is_added_nothing_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    for rows in ([], [{"seed": 0}]):
        results.append("some", rows)
        before = results.resume("some")
        results.append("some", [])
        pd.testing.assert_frame_equal(results.resume("some"), before)
        assert len(before) == len(rows)


def test_words_are_read_as_they_were_written(tmp_path, monkeypatch):
    """Wherever the encoding of the machine is another one."""
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    read, words = Path.read_text, "found −1 ≤ ∂L"
    monkeypatch.setattr(Path, "read_text", lambda path, encoding="latin-1": read(path, encoding))
    for seed in range(2):
        results.append("some", [{"seed": seed, "failure": words}])
    with (tmp_path / "some.csv").open("a") as file:
        file.write("2,half")
    for _ in range(2):
        assert results.resume("some").failure.tolist() == [words] * 2


def test_a_provenance_says_where_when_and_with_what(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(results.os, "cpu_count", lambda: 7)
    monkeypatch.setattr(results.platform, "machine", lambda: "abacus")
    monkeypatch.setattr(results.platform, "python_version", lambda: "3.99.1")
    monkeypatch.setattr(results.time, "strftime", lambda form: f"the day as {form}")
    expected = {
        "configuration": {"μ": [0, 0.9]},
        "versions": {"numpy": np.__version__},
        "python": "3.99.1",
        "processor": "7 cores, abacus",
        "date": "the day as %Y-%m-%d",
        "seconds": 12.3,
    }
    for store in (results.describe, lambda name, *rest, **of: results.save(name, [], *rest, **of)):
        store("some", {"μ": [0, 0.9]}, seconds=12.345, packages=("numpy",))
        text = (tmp_path / "some.json").read_text(encoding="utf-8")
        assert list(json.loads(text).items()) == list(expected.items())
        assert text.startswith('{\n "configuration"')
        assert text.endswith("\n}\n")
        (tmp_path / "some.json").unlink()
