"""What is timed as the loop's cost: the same steps with and without it, and it does regrow."""

import functools

from prosper_utils.pruning import masks, regrowth
from prosper_utils.pruning.networks import dense_300_100, kernels
from prosper_utils.study import training

import bench
import bench_regrowth
import numpy as np
import pytest

KEPT = masks.kept(784 * 30 + 30 * 50 + 50 * 10, bench_regrowth.SPARSITY)


@pytest.fixture
def seen(monkeypatch):
    """Measure a small network; return (rows, what was trained, how much moved each time)."""
    small = functools.partial(dense_300_100, units=(30, 50))
    monkeypatch.setattr(bench, "NETWORKS", {"LeNet-300-100": small})
    monkeypatch.setattr(bench_regrowth, "EVERY", 5)
    trained, moved, trainer, regrow = [], [], training.trainer, regrowth.regrow

    def watched(model, optimizer):
        train = trainer(model, optimizer)

        def counted(data, **options):
            train(data, **options)
            earns = isinstance(kernels(model)[0].constraint, regrowth.Earning)
            kept = sum(int(np.sum(m)) for m in masks.in_force(model))
            trained.append((earns, int(optimizer.iterations), options["batch_size"], kept))
            assert (optimizer.momentum, float(optimizer.learning_rate)) == (0.9, np.float32(0.1))

        return counted

    monkeypatch.setattr(training, "trainer", watched)
    monkeypatch.setattr(regrowth, "regrow", lambda *given: moved.append(regrow(*given)))
    return bench_regrowth.measured(repeats=2), trained, moved


def test_the_loop_is_measured_against_the_same_steps(seen):
    rows, trained, moved = seen
    assert trained == 3 * [(False, 5, 128, KEPT), (True, 5, 128, KEPT)]
    assert moved == 3 * [int(0.3 * KEPT)]
    seconds = {row["what"]: row["seconds"] for row in rows}
    ahead = [f"lookahead, M = {steps}" for steps in bench_regrowth.AHEAD]
    assert list(seconds) == ["masked", "loop", "one batch", *ahead]
    for row in rows:
        assert row["ratio"] == row["seconds"] / seconds["masked"]
