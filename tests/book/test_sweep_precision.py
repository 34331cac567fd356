"""The study of precision: a row by hand, and its plan."""

from prosper_utils.pruning import networks, scores
from prosper_utils.study import datasets, results

import numpy as np
import pytest
import sweep_colour
import sweep_precision


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
