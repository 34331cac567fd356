"""The sweep of streamed scores: what a row says, and what an interrupted one goes on with."""

import functools

from prosper_utils.pruning import networks
from prosper_utils.study import results

import numpy as np
import pytest
import sweep_streaming


@pytest.fixture
def rows(monkeypatch, digits):
    """The rows of one short trajectory of a small network in double precision."""
    build = functools.partial(networks.dense_300_100, units=(6, 5), dtype="float64")
    monkeypatch.setattr(sweep_streaming, "NETWORKS", {"small": build})
    monkeypatch.setattr(sweep_streaming, "LOOKAHEADS", (1, 3))

    def give(rate):
        found = sweep_streaming.errors_of("small", "tanh", rate, 0, digits.train)
        return {(row["steps"], row["score"]): row for row in found}

    return give


def test_the_error_is_to_first_order_what_is_predicted(rows):
    found = rows(1e-3)
    predicted = {key for key, row in found.items() if row["predicted"] is not None}
    streamed = ("row sums", "diagonal", "Hutchinson, 1", "Hutchinson, 10", "first order")
    assert predicted == {(m, score) for m in (1, 3) for score in streamed}
    for key in predicted:
        assert found[key]["error"] == pytest.approx(found[key]["predicted"], rel=0.05)
    for m in (1, 3):
        exact = found[m, "reverse"]
        assert exact["error"] < 1e-10
        assert exact["cosine"] == pytest.approx(1)
        assert exact["iou_98"] == 1
        assert found[m, "other batches"]["error"] > 1e-3


def test_only_a_sweep_of_the_same_configuration_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    assert sweep_streaming.stored("some", {"seed": 0}) == ([], [], 0.0)
    results.save("some", [{"error": 0.5}], {"seed": 0, "cases": [{"n": 1}]}, seconds=3)
    assert sweep_streaming.stored("some", {"seed": 0}) == ([{"error": 0.5}], [{"n": 1}], 3.0)
    for other in ({"seed": 1}, {"seed": 0, "pool": 2}, {}):
        assert sweep_streaming.stored("some", other) == ([], [], 0.0)


def test_slow_descent_turns_no_sign(monkeypatch, digits):
    """Of the diagonal, whose entries are at most the largest eigenvalue."""
    monkeypatch.setattr(sweep_streaming, "LONG", (1, 3))
    monkeypatch.setattr(sweep_streaming, "POOL", 2)
    found = sweep_streaming.growth_of("tanh", 0.1, digits.train)
    slow = {row["steps"]: row for row in found if row["gamma"] == "diagonal"}
    for m, row in slow.items():
        assert row["negative"] == row["underflow"] == row["overflow"] == 0
        assert m * np.log(0.85) < row["lowest"] <= row["highest"] < m * np.log(1.15)
        assert row["sharpness"] == pytest.approx(0.1)
        assert row["finite"]
