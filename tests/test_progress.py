"""The progress bar: where a person watches, and nowhere else."""

import io
import sys
import types

from prosper_utils.progress import progress

import pytest


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_shows_only_where_a_person_watches(monkeypatch, terminal):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    assert list(progress(range(3), "training", "epoch")) == [0, 1, 2]
    assert bool(stream.getvalue()) == terminal


@pytest.mark.parametrize("found", [None, types.ModuleType("tqdm.auto")])
def test_without_tqdm_the_loop_runs_all_the_same(monkeypatch, found):
    """It is not installed, or what is installed cannot be used."""
    monkeypatch.setitem(sys.modules, "tqdm.auto", found)
    monkeypatch.setenv("JPY_SESSION_NAME", "watched")
    assert list(progress(range(3), "training", "epoch")) == [0, 1, 2]
