"""What is timed as the loop's cost: the same steps with and without it, and it does regrow."""

import functools

from prosper_utils.pruning import masks, regrowth, scores
from prosper_utils.pruning.networks import dense_300_100, kernels
from prosper_utils.study import datasets, results, training

import bench
import bench_regrowth
import numpy as np
import pytest
from conftest import clock

KEPT = masks.kept(784 * 30 + 30 * 50 + 50 * 10, bench_regrowth.SPARSITY)


@pytest.fixture
def seen(monkeypatch):
    """Measure a small network; return (rows, what was trained, how much moved each time)."""
    small = functools.partial(dense_300_100, units=(30, 50))
    monkeypatch.setitem(bench.NETWORKS, "LeNet-300-100", small)
    monkeypatch.setattr(bench, "GREY", ("LeNet-300-100",))
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


def test_the_networks_and_calls_are_those_that_are_stored(monkeypatch):
    asked = []

    def compare(runs, repeats):
        asked.append(repeats)
        return {what: (100.0, 2.0 + n) for n, what in enumerate(runs)}

    whats = ["masked", "loop", "one batch", "lookahead, M = 3", "lookahead, M = 10"]
    monkeypatch.setattr(bench_regrowth, "calls", lambda name: dict.fromkeys(whats, name))
    monkeypatch.setattr(bench, "compare", compare)
    rows = bench_regrowth.measured()
    assert rows == [
        {"network": name, "what": what, "seconds": 2.0 + n, "ratio": 1.0 + n / 2}
        for name in ("LeNet-300-100", "LeNet-5")
        for n, what in enumerate(whats)
    ]
    assert asked == [15, 15]
    stored, _ = results.load("bench_regrowth")
    keys = ["network", "what"]
    assert [[row[key] for key in keys] for row in rows] == stored[keys].to_numpy().tolist()
    images = datasets.digits().train[0][:1]  # what the loop is trained on, and so what it must fit
    for name in bench.GREY:
        assert bench.NETWORKS[name]().input_shape[1:] == images.shape[1:]


@pytest.mark.parametrize(
    ("name", "activation"), [("LeNet-300-100", "relu"), ("LeNet-5", "tanh"), ("other", "tanh")]
)
def test_what_is_pruned_is_a_network_with_the_masks_of_snip(monkeypatch, name, activation):
    made = []

    def network(activation):
        made.append(activation)
        return dense_300_100(activation, units=(30, 50))

    monkeypatch.setitem(bench.NETWORKS, name, network)
    x, y = (part[:40] for part in datasets.digits().train)
    batches = [(x[:20], y[:20]), (x[20:], y[20:])]
    model, chosen, _ = bench_regrowth.pruned(name, batches)
    assert made == [activation]
    expected = masks.top_k(scores.snip(model, batches), 0.99)
    for found, mask in zip(chosen, expected, strict=True):
        np.testing.assert_array_equal(found, mask)


def test_a_call_does_what_it_is_named_after(monkeypatch):
    """Two networks: one with frozen masks, whose credit is timed too, and one that regrows."""
    said, made = [], []
    small = functools.partial(dense_300_100, units=(30, 50))
    monkeypatch.setitem(bench.NETWORKS, "LeNet-300-100", small)

    def trainer(model, optimizer):
        made.append(model)
        number = len(made)
        return lambda data, **options: said.append((number, data, options))

    monkeypatch.setattr(training, "trainer", trainer)
    for name in ("gradient_credit", "lookahead_credit"):
        monkeypatch.setattr(regrowth, name, lambda *given, **options: said.append((given, options)))
    runs = bench_regrowth.calls("LeNet-300-100")
    for run in runs.values():
        run()
    masked, loop, one, *ahead = said
    frozen, moving = made
    x, y = datasets.digits().train
    for number, (found, data, options) in enumerate((masked, loop), 1):
        assert found == number
        np.testing.assert_array_equal(data[0], x)
        np.testing.assert_array_equal(data[1], y)
        assert (options.pop("steps"), options.pop("batch_size")) == (100, 128)
    assert masked[2] == {}
    after = loop[2].pop("after")
    assert loop[2] == {"every": 100}
    rule = after.__self__
    assert after == rule.after
    assert rule.model is moving
    assert (rule.every, rule.share, rule.scale_free) == (100, 0.3, False)
    assert rule.until >= 10**8
    assert rule.credit is regrowth.earned
    batches = ahead[0][0][1]
    assert len(batches) == 11
    drawn = datasets.batches((x, y), 128)
    for batch, expected in zip(batches, drawn, strict=False):
        np.testing.assert_array_equal(batch[0], expected[0])
        np.testing.assert_array_equal(batch[1], expected[1])
    assert one[0][0] is frozen
    assert one[0][1] is batches[0]
    assert one[1] == {}
    for (given, options), steps in zip(ahead, (3, 10), strict=True):
        assert given[0] is frozen
        assert given[1] is batches
        assert options == {"steps": steps, "learning_rate": 0.1}
    for model, kind in ((frozen, masks.Mask), (moving, regrowth.Earning)):
        assert all(type(kernel.constraint) is kind for kernel in kernels(model))


def test_the_command_stores_the_rows_with_what_they_were_made_with(monkeypatch):
    saved, spend = [], clock(monkeypatch, bench_regrowth)
    monkeypatch.setattr(bench_regrowth, "measured", lambda: spend(4.5, ["the rows"]))
    monkeypatch.setattr(results, "save", lambda *given, **options: saved.append((given, options)))
    bench_regrowth.main()
    configuration = {"every": 100, "sparsity": 0.99, "batch_size": 128, "learning_rate": 0.1}
    assert saved == [(("bench_regrowth", ["the rows"], configuration), {"seconds": 4.5})]
    assert results.load("bench_regrowth")[1]["configuration"] == configuration
