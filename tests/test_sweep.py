"""The pruning sweep: what is left to do, what a case returns, and whether a result is stale."""

import functools
import json
import os

from prosper_utils import results
from prosper_utils.networks import dense_300_100

import numpy as np
import pandas as pd
import pytest
import sweep_mnist
import sweeps
from conftest import ROOT


def test_what_is_stored_is_not_computed_again():
    cases = sweep_mnist.cases_of("LeNet-5", "tanh", ("SNIP", "random"), range(2), (0.9, 0.95))
    assert len(cases) == 4
    assert sweep_mnist.missing(cases, pd.DataFrame(), sweep_mnist.CASE) == cases
    rows = [{k: case[k] for k in sweep_mnist.CASE} for case in cases]
    stored = [row | {"sparsity": s} for row in rows[:2] for s in (0.9, 0.95)]
    stored += [rows[2] | {"sparsity": 0.95}]
    left = sweep_mnist.missing(cases, pd.DataFrame(stored), sweep_mnist.CASE)
    assert [case["sparsities"] for case in left] == [(0.9,), (0.9, 0.95)]
    assert [case["seed"] for case in left] == [1, 1]


@pytest.fixture
def short(monkeypatch, digits):
    """Make the sweep small: a few steps of a small network on the digits."""
    build = functools.partial(dense_300_100, units=(30, 10))
    monkeypatch.setattr(sweep_mnist, "NETWORKS", {"small": build})
    monkeypatch.setitem(sweep_mnist.PROTOCOL, "steps", 20)
    monkeypatch.setitem(sweep_mnist.PROTOCOL, "times_0.1_at", [12, 17])
    monkeypatch.setattr(sweep_mnist, "data", lambda: digits)
    sweep_mnist.trained.cache_clear()
    yield
    sweep_mnist.trained.cache_clear()


def test_a_case_gives_a_row_for_each_sparsity(short):
    settings = {"sparsities": (0.5, 0.9), "options": {}}
    rows = sweep_mnist.run_case("small", "relu", "SynFlow", "as scored", 0, **settings)
    again = sweep_mnist.run_case("small", "relu", "SynFlow", "as scored", 0, **settings)
    assert [row["sparsity"] for row in rows] == [0.5, 0.9]
    size = 784 * 30 + 30 * 10 + 10 * 10
    for row, twice in zip(rows, again, strict=True):
        kept = sum(map(int, row["kept"].split()))
        assert kept == round(size * (1 - row["sparsity"]))
        assert 0 < row["on_a_path"] <= kept
        assert row["error"] == twice["error"] < 90
        assert row["kept"] == twice["kept"]


def test_the_variants_are_what_they_say(short):
    settings = {"sparsities": (0.9,), "options": {}}
    rows = {
        variant: sweep_mnist.run_case("small", "tanh", "SNIP", variant, 0, **settings)[0]
        for variant in ("as scored", "shuffled", "inverted", "per layer", "re-initialised")
    }
    assert rows["shuffled"]["kept"] == rows["as scored"]["kept"] == rows["re-initialised"]["kept"]
    assert rows["inverted"]["kept"] != rows["as scored"]["kept"]
    assert rows["per layer"]["kept"] == "2352 30 10"
    assert len({row["loss"] for row in rows.values()}) == 5
    dense = sweep_mnist.run_case("small", "tanh", "dense", "as scored", 0, **settings)[0]
    assert dense["kept"] == "23520 300 100"


@pytest.mark.parametrize("name", sweep_mnist.SWEEPS)
def test_what_is_stored_is_not_stale(name):
    path = ROOT / "book" / "results" / f"{name}.json"
    if not path.exists():
        pytest.skip(f"{path.name} is not stored yet")
    stored = json.loads(path.read_text())["configuration"]
    now = json.loads(json.dumps(sweep_mnist.configuration()))
    assert {key: stored[key] for key in now} == now, f"{name} is stale: run `make results`"
    assert stored["data"] == "mnist"


def test_a_score_that_fails_is_a_row_without_an_error(short, monkeypatch):
    def broken(model, batches, *, sparsity=None, seed=0):
        return [np.full(shape, np.nan) for shape in ((784, 30), (30, 10), (10, 10))]

    monkeypatch.setitem(sweep_mnist.RULES, "broken", broken)
    settings = {"sparsities": (0.5, 0.9), "options": {}}
    rows = sweep_mnist.run_case("small", "relu", "broken", "as scored", 0, **settings)
    fine = sweep_mnist.run_case("small", "relu", "random", "as scored", 0, **settings)
    assert [row["sparsity"] for row in rows] == [0.5, 0.9]
    for row, other in zip(rows, fine, strict=True):
        assert row["error"] is None
        assert "NaN" in row["failure"]
        assert other["failure"] == ""
        assert list(row) == list(other)


def test_a_dask_cluster_gives_the_rows_that_joblib_gives(digits):
    from distributed import LocalCluster

    cases = sweep_mnist.cases_of("LeNet-300-100", "relu", ("random",), range(2), (0.9,))
    work = functools.partial(sweep_mnist.one, part="validation")
    expected = list(sweeps.in_parallel(work, cases, jobs=2))
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**options) as cluster, sweeps.on_dask(cluster, sweep_mnist.__file__):
        found = list(sweeps.in_parallel(work, cases))
    seconds = ("score_seconds", "train_seconds")
    by_seed = [
        sorted(({k: v for k, v in row.items() if k not in seconds} for (row,) in rows), key=str)
        for rows in (expected, found)
    ]
    assert by_seed[0] == by_seed[1]
    assert [row["seed"] for row in by_seed[0]] == [0, 1]


@pytest.mark.skipif(
    os.environ.get("PROSPER_DATASET") != "mnist", reason="the stored results are those of MNIST"
)
def test_a_stored_cell_comes_again():
    table, _ = results.load("pruning")
    key = ("LeNet-300-100", "relu", "SNIP", "as scored")
    rows = table.set_index(list(sweep_mnist.CASE[:4])).sort_index().loc[key]
    same = rows[rows.sparsity == 0.98]
    stored = same[same.seed == 0].iloc[0]
    case = dict(zip(sweep_mnist.CASE, (*key, 0), strict=True)) | {"sparsities": (0.98,)}
    (row,) = sweep_mnist.one(case, "test")
    assert row["kept"] == stored.kept
    assert abs(row["error"] - stored.error) < 3 * same.error.std()
