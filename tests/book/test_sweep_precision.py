"""The study of precision: a row by hand, and its plan."""

import json

from prosper_utils.pruning import networks, scores
from prosper_utils.study import datasets, results

import numpy as np
import pandas as pd
import pytest
import sweep_colour
import sweep_precision
from conftest import clock


@pytest.fixture
def small(monkeypatch, digits):
    wide = datasets.in_colour(digits)
    wide = wide._replace(train=datasets.in_bytes(wide.train))
    monkeypatch.setattr(sweep_colour, "data", lambda: wide)
    monkeypatch.setattr(sweep_colour, "BATCH_SIZE", 16)
    monkeypatch.setitem(sweep_colour.NETWORKS, "small", build)


def build(**options):
    return networks.vgg(widths=(3,), shape=networks.COLOUR, **options)


def best(found, sparsity):
    """Return which weights a score keeps."""
    flat = np.concatenate([np.ravel(s) for s in found])
    return set(
        np.argsort(-np.abs(flat), kind="stable")[: -(-len(flat) // round(1 / (1 - sparsity)))]
    )


def test_a_row_is_what_the_scores_say(small):
    row = sweep_precision.run_case("small", 0.1, 2, seed=1)
    options = {"steps": 2, "learning_rate": 0.1, "dtype": "float64"}

    def of(score, **changes):
        return score(build(seed=1), sweep_colour.supply(1), **options | changes)

    exact, first = of(scores.prospr), of(scores.prospr, method="first_order")
    norms = [np.sqrt(sum(np.sum(np.square(s)) for s in found)) for found in (exact, first)]
    assert row["ratio"] == pytest.approx(norms[0] / norms[1], rel=1e-6)
    assert 1e-9 < row["error"] < 1e-2
    snip = scores.snip(build(seed=1), [next(sweep_colour.supply(1))], dtype="float64")
    for name, found in {"first_order": first, "snip": snip}.items():
        for sparsity in (0.9, 0.95, 0.98):
            kept, other = best(exact, sparsity), best(found, sparsity)
            shared = len(kept & other) / len(kept)
            assert row[f"{name}_{sparsity}"] == pytest.approx(shared)
    assert row["float32_0.9"] > 0.9
    assert row["snip_0.9"] < 1


def test_the_plan_has_every_case_once():
    cases = [tuple(case.values()) for case in sweep_precision.plan()]
    assert len(cases) == len(set(cases))
    assert {case[2] for case in cases} == set(sweep_precision.STEPS)
    stored, _ = results.load("precision")
    assert set(cases) >= {*stored[[*sweep_precision.CASE]].itertuples(index=False, name=None)}
    for steps in sweep_precision.STEPS:
        seeds = [0, 1, 2] if steps == 3 else [0]
        assert sorted({case[3] for case in cases if case[2] == steps}) == seeds
    assert [tuple(case.values()) for case in sweep_precision.plan()] == [
        (network, rate, steps, seed)
        for steps, seed in ((1, 0), (3, 0), (3, 1), (3, 2), (10, 0), (30, 0), (100, 0))
        for network in ("ResNet-8", "ResNet-20")
        for rate in (0.001, 0.01, 0.1)
    ]


def test_each_number_of_a_row_is_in_its_column(monkeypatch):
    """The scores are the numbers from 100 down to 1, in double precision in this order."""
    exact = np.arange(100.0, 0, -1)
    single, first_order, snip = exact.copy(), exact.copy(), -np.roll(exact, 1)
    single[[1, 7]] = single[[7, 1]]
    first_order[[4, 50, 3, 60]] = first_order[[50, 4, 60, 3]]
    found = {
        "float32": [single, exact[::-1], exact[::-1]],
        "float64": [exact, first_order / 4, snip],
    }
    asked = []

    def scores(*case):
        asked.append(case)
        return spend(0.75, found[case[-1]])

    spend = clock(monkeypatch, sweep_precision)
    monkeypatch.setattr(sweep_precision, "scores", scores)
    case = {"network": "ResNet-8", "learning_rate": 0.01, "steps": 3, "seed": 2}
    (row,) = sweep_precision.one(case)
    assert asked == [("ResNet-8", 0.01, 3, 2, dtype) for dtype in ("float32", "float64")]
    expected = case | {
        "ratio": pytest.approx(4),
        "error": pytest.approx(np.sqrt(2 * 6**2 / 338_350)),  # the sum of the squares up to 100
        **{"float32_0.9": 1, "float32_0.95": 4 / 5, "float32_0.98": 1 / 2},
        **{"first_order_0.9": 8 / 10, "first_order_0.95": 3 / 5, "first_order_0.98": 1},
        **{"snip_0.9": 9 / 10, "snip_0.95": 4 / 5, "snip_0.98": 1 / 2},
        "seconds": 1.5,
    }
    assert row == expected
    assert list(row) == list(expected) == list(results.load("precision")[0])


def test_a_problem_has_the_type_of_its_weights_and_a_batch_more_than_steps(small):
    for dtype in ("float32", "float64"):
        weights, _, batches, scored = sweep_precision.problem("small", 4, 3, dtype)
        assert {w.dtype.name for w in weights} == {dtype}
        assert len(batches) == 5
        assert scored == networks.kernel_indices(build(seed=3))
        for w, drawn in zip(weights, build(seed=3).trainable_variables, strict=True):
            np.testing.assert_array_equal(w, drawn)
        for (x, y), wanted in zip(batches, sweep_colour.supply(3), strict=False):
            np.testing.assert_array_equal(x, wanted[0])
            np.testing.assert_array_equal(y, wanted[1])


def test_a_case_that_is_stored_stands_for_no_other():
    ((name, (left, _)),) = sweep_precision.SWEEPS.items()
    cases = left(pd.DataFrame())
    assert name == "precision"
    assert cases == sweep_precision.plan()
    assert left(pd.DataFrame(cases[:7])) == cases[7:]


def test_the_stored_results_are_of_this_configuration():
    stored = results.load("precision")[1]["configuration"]
    expected = json.loads(json.dumps(sweep_precision.configuration()))
    assert stored == expected | {"data": "cifar10", "sha256": stored["sha256"]}
