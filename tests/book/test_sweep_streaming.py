"""The sweep of streamed scores: what a row says, and what an interrupted one goes on with."""

import functools
import json
import sys
import types

from prosper_utils.pruning import networks
from prosper_utils.study import datasets, results

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


def test_the_likeness_of_scores_by_hand():
    """Signs and weights without a mask count in the cosine; a layer counts as often as it has."""
    exact = [np.arange(1.0, 301), np.ones(2), np.array([301.0, 0.5])]
    other = [np.where(exact[0] > 285, 0.0, -exact[0]), np.ones(2), exact[2]]
    kernels = [0, 2]
    found = sweep_streaming.likeness(other, exact, kernels)
    a, b = np.concatenate(other), np.concatenate(exact)
    assert found["cosine"] == pytest.approx(a @ b / np.sqrt(a @ a * (b @ b)))
    assert found["cosine"] < 0
    # At 90% are kept 271 to 301, and 256 to 285 with 301; at 99% three beside the 301.
    assert found["iou_90"] == 16 / 46
    assert found["iou_99"] == 1 / 7


def test_scores_that_are_not_streamed_are_what_they_are_called(monkeypatch):
    given = {"learning_rate": 0.1}
    monkeypatch.setattr(sweep_streaming, "meta_gradient", lambda *args, **options: (args, options))
    scores = {}
    exact = sweep_streaming.add_exact(scores, "loss", "weights", "batches", "others", 0.1)
    ours = "loss", "weights", "batches"
    assert exact == (ours, given | {"method": "unrolled"})
    assert scores == {
        "first order": (ours, given | {"method": "first_order"}),
        "reverse": (ours, given | {"method": "reverse"}),
        "other batches": (("loss", "weights", "others"), given),
    }


def test_what_is_said_of_a_product_by_hand():
    g, initial = [np.array([2.0, 0.5]), np.array([1.0])], [np.array([1.0, -3.0]), np.array([0.25])]
    gamma = [np.array([1e3, -1e-46]), np.array([1e39])]
    logs = [np.log(np.abs(part)) for part in gamma]
    found = sweep_streaming.spread(logs, [np.sign(part) for part in gamma], initial, g)
    score = np.concatenate([w * p * q for w, p, q in zip(initial, gamma, g, strict=True)])
    assert found["streamed"] == pytest.approx(np.log10(np.linalg.norm(score)))
    assert found["underflow"] == found["overflow"] == found["negative"] == 1 / 3
    assert found["lowest"] == np.log(1e-46)
    assert found["q50"] == np.log(1e3)
    assert found["highest"] == np.log(1e39)


def test_the_cases_of_growth_are_those_that_are_stored():
    stored, _ = results.load("streaming_growth")
    full = [case for case in sweep_streaming.growth_cases() if case.get("full")]
    small = [case for case in sweep_streaming.growth_cases() if not case.get("full")]
    by = stored.groupby("network").groups
    assert len(by) == 2
    found = [stored.loc[by[name]] for name in sorted(by, key=lambda name: len(by[name]))]
    assert {*found[0].activation} == {case["activation"] for case in full}
    keys = ["activation", "sharpness"]
    assert {*found[1][keys].itertuples(index=False, name=None)} == {
        (case["activation"], case["sharpness"]) for case in small
    }


@pytest.fixture
def command(tmp_path, monkeypatch, digits):
    """The command, with cases that are done in no time; it returns those that it ran."""
    ran = []

    def one(n, train):
        ran.append(n)
        return [{"n": n, "images": len(train)}]

    def run():
        ran.clear()
        monkeypatch.setattr(sys, "argv", ["sweep_streaming.py"])
        sweep_streaming.main()
        return [*ran]

    cases = [{"n": n} for n in range(3)]
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(datasets, "load", lambda: digits)
    monkeypatch.setattr(sweep_streaming, "SWEEPS", {"growth": (one, lambda: [*cases])})
    return types.SimpleNamespace(run=run, cases=cases)


def test_it_goes_on_with_the_cases_that_are_not_stored(command, digits):
    del command.cases[1:]
    assert command.run() == [0]
    path = results.FOLDER / "streaming_growth.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds": 1000.0}))
    command.cases += [{"n": 1}, {"n": 2}]
    assert command.run() == [1, 2]
    table, provenance = results.load("streaming_growth")
    assert table.n.tolist() == [0, 1, 2]
    assert set(table.images) == {len(digits.train)}
    assert 1000 <= provenance["seconds"] < 1500
    assert provenance["configuration"]["cases"] == [{"n": 0}, {"n": 1}, {"n": 2}]


@pytest.mark.parametrize("name", ["POOL", "BATCH_SIZE", "LONG"])
def test_no_rows_are_added_to_those_of_other_settings(command, monkeypatch, name):
    assert command.run() == [0, 1, 2]
    monkeypatch.setattr(sweep_streaming, name, 7)
    assert command.run() == []  # nothing is left that could be mixed
    command.cases.append({"n": 3})
    before = results.load("streaming_growth")
    with pytest.raises(ValueError, match="streaming_growth: expected the configuration"):
        command.run()
    after = results.load("streaming_growth")
    assert before[0].equals(after[0])
    assert before[1] == after[1]


@pytest.mark.parametrize("what", sweep_streaming.SWEEPS)
def test_what_is_stored_is_of_the_present_settings(what, digits):
    """But for the data set, which the machine may not have."""
    stored = results.load(f"streaming_{what}")[1]["configuration"]
    now = json.loads(json.dumps(sweep_streaming.configuration(what, digits)))
    for each in (stored, now):
        for key in ("data", "sha256", "cases"):
            each.pop(key, None)
    assert stored == now


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


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ("errors", "LOOKAHEADS"),
        ("errors", "SPARSITIES"),
        ("errors", "BATCH_SIZE"),
        ("growth", "POOL"),
        ("growth", "LONG"),
        ("growth", "BATCH_SIZE"),
    ],
)
def test_what_determines_the_results_is_in_the_configuration(monkeypatch, digits, what, name):
    before = sweep_streaming.configuration(what, digits)
    monkeypatch.setattr(sweep_streaming, name, "changed")
    assert sweep_streaming.configuration(what, digits) != before


def test_what_is_measured_is_measured_in_double_precision():
    found = sweep_streaming.flat([np.float32([[1e30, 0.1]]), np.float32([2.0])])
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, np.float64(np.float32([1e30, 0.1, 2.0])))
    assert np.isfinite(np.linalg.norm(found))
