"""What the benchmark times and weighs is what its rows say; how long it takes is not asked here."""

import functools
import itertools
from types import SimpleNamespace

from prosper_utils.lookahead.descent import start
from prosper_utils.lookahead.meta_gradient import directional, meta_gradient
from prosper_utils.pruning.networks import resnet20
from prosper_utils.study import results
from prosper_utils.study.checks import relative_error

import bench
import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_loss


@pytest.fixture
def clock(monkeypatch):
    """Replace the clock by one that calls move on: `clock(seconds)` does."""
    now = [0.0]
    monkeypatch.setattr(bench.time, "perf_counter", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


@pytest.fixture(scope="module")
def tiny():
    """Return weights, loss and stacked batches of a network of 33 weights."""
    draw = np.random.default_rng(0).normal
    weights = [tf.constant(draw(size=shape), tf.float32) for shape in ((5, 4), (4,), (4, 3), (3,))]
    x, y = draw(size=(4, 6, 5)).astype("float32"), np.arange(24).reshape(4, 6) % 3
    return weights, tiny_loss, (tf.constant(x), tf.constant(y))


@pytest.mark.parametrize("name", bench.NETWORKS)
def test_a_problem_has_ten_batches_in_turn(name):
    weights, loss, (x, y) = bench.problem(name, 12, 7)
    channels = 1 if name in bench.GREY else 3
    assert x.shape[:2] == y.shape == (13, 7)
    assert x.shape[-1] == channels
    assert len(weights) == len(loss.names)
    for part in (x, y):
        np.testing.assert_array_equal(part[10:], part[:3])
        assert not np.array_equal(part[0], part[1])
    if name == "LeNet-300-100":
        assert bench.problem(name, 1, units=(75, 20))[0][0].shape[-1] == 75


def test_what_is_compared_takes_turns_and_the_first_call_counts_apart(clock):
    said = []
    took = {"a": iter([9.0, 3.0, 1.0, 8.0]), "b": iter([2.0, 4.0, 4.0, 5.0])}

    def run(name):
        said.append(name)
        clock(next(took[name]))

    found = bench.compare({name: functools.partial(run, name) for name in took}, 3)
    assert found == {"a": (9.0, 3.0), "b": (2.0, 4.0)}
    assert said == ["a", "b"] * 4


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_each_call_is_the_method_of_its_name_at_the_momentum_that_is_said(tiny, momentum):
    weights, loss, batches = tiny
    options = {"learning_rate": 0.1, "momentum": momentum}
    methods = ("reverse", "first_order")
    runs = bench.calls(weights, loss, batches, methods, momentum)
    assert list(runs) == ["plain steps", *methods]
    for method in methods:
        expected = meta_gradient(loss, weights, batches, method=method, **options)
        assert relative_error(runs[method](), expected) == 0
    state = start(weights, momentum)
    for m in range(3):
        state = bench.sgd(loss, 0.1, momentum)(state, tuple(part[m] for part in batches))
    assert relative_error(runs["plain steps"]()[0], state[0]) < 1e-6
    unit = [tf.one_hot([3] * 5, 4), *map(tf.zeros_like, weights[1:])]
    expected = directional(loss, weights, batches, unit, **options)
    np.testing.assert_allclose(bench.forward(*tiny, momentum)(), expected, rtol=1e-6)


def test_the_rows_of_a_comparison(clock):
    def run(seconds, value):
        clock(seconds)
        return [tf.constant([value])]

    runs = {
        "plain steps": lambda: clock(2.0),
        "reverse": lambda: run(3.0, 1.5),
        bench.FORWARD: lambda: run(1.0, 7.0),
    }
    rows = bench.compared("a network", 0.9, runs, [tf.constant([1.0])], 2)
    assert [row.pop("error") for row in rows] == [None, 0.5, None]
    assert [row.pop("ratio") for row in rows] == [1.0, 1.5, 0.5]
    assert [(row["method"], row["seconds"], row["first_call"]) for row in rows] == [
        (name, seconds, seconds) for name, seconds in zip(runs, (2.0, 3.0, 1.0), strict=True)
    ]
    assert {(row["network"], row["momentum"]) for row in rows} == {("a network", 0.9)}


@pytest.fixture
def nothing_is_timed(monkeypatch):
    """Let calls be made and no time be taken; return what they were made of."""
    made = []

    def calls(weights, loss, batches, methods, momentum=0.0):
        made.append((weights, batches, methods, momentum))
        return {name: lambda: [tf.ones(1)] for name in ("plain steps", *methods)}

    def compare(runs, repeats):
        return dict.fromkeys(runs, (2.0, 1.0))

    monkeypatch.setattr(bench, "calls", calls)
    monkeypatch.setattr(bench, "compare", compare)
    return made


def test_growth_is_against_what_it_says(nothing_is_timed):
    rows = bench.growth()
    expected, _ = results.load("bench_growth")
    keys = ["against", "x", "method"]
    assert [[row[key] for key in keys] for row in rows] == expected[keys].to_numpy().tolist()
    steps, size, weights = (
        [len(batches[0]) - 1 for _, batches, *_ in nothing_is_timed],
        [batches[0].shape[1] for _, batches, *_ in nothing_is_timed],
        [sum(int(tf.size(w)) for w in found) for found, *_ in nothing_is_timed],
    )
    by = [(row["against"], row["x"]) for row in rows if row["method"] == "plain steps"]
    of = {"steps M": steps, "batch size": size, "weights n": weights}
    assert all(of[against][i] == x for i, (against, x) in enumerate(by))
    for against, others in (("steps M", size), ("batch size", steps), ("weights n", size)):
        assert len({n for n, (a, _) in zip(others, by, strict=True) if a == against}) == 1


def test_times_and_colour_are_of_the_cases_that_are_stored(nothing_is_timed, monkeypatch):
    ones = [tf.ones(1)]
    runs = {name: lambda: ones for name in ("plain steps", "gauss_newton")}
    monkeypatch.setattr(bench, "gauss_newton", lambda _: (runs, ones))
    monkeypatch.setattr(bench, "memory", lambda cases: [{"memory of": case} for case in cases])
    stored, _ = results.load("bench_times")
    keys = ["network", "momentum", "method"]
    assert [[row[key] for key in keys] for row in bench.times()] == stored[keys].to_numpy().tolist()
    assert {(len(b[0]) - 1, momentum) for _, b, _, momentum in nothing_is_timed} == {
        (50, 0.0),
        (50, 0.9),
    }
    rows, (stored, _) = bench.colour(), results.load("bench_colour")
    timed = [(row["method"], row["steps"]) for row in rows if "method" in row]
    cases = [row["memory of"] for row in rows if "memory of" in row]
    of = stored[stored.seconds.notna()]
    assert timed == [*of[["method", "steps"]].itertuples(index=False, name=None)]
    of = stored[stored.added_mib.notna()][["network", "method", "steps", "momentum"]]
    assert cases == [*of.itertuples(index=False, name=None)]


def test_memory_is_of_the_cases_that_are_stored_each_in_a_process_of_its_own(monkeypatch):
    asked = []

    def run(command, **_):
        asked.append(command[2:])
        return SimpleNamespace(stdout=f"a line\n{len(asked) * bench.MIB}\n")

    monkeypatch.setattr(bench.subprocess, "run", run)
    rows, (stored, _) = bench.memory(), results.load("bench_memory")
    keys = ["network", "method", "steps", "momentum"]
    cases = [*stored[keys].itertuples(index=False, name=None)]
    assert [tuple(row[key] for key in keys) for row in rows] == cases
    assert asked == [["memory-of", *map(str, case)] for case in cases]
    assert [row["added_mib"] for row in rows] == [1.0 + i for i in range(len(rows))]
    row = bench.memory([("ResNet-20", "reverse", 10, 0.0)])[0]
    per = (len(rows) + 1) * bench.MIB / 10 / resnet20().count_params()
    assert row["bytes_per_step_and_weight"] == pytest.approx(per)


def test_resident_memory_is_in_bytes(monkeypatch):
    status = "VmPeak:\t   99 kB\nVmHWM:\t   12345 kB\nVmRSS:\t     678 kB\n"
    monkeypatch.setattr(bench.Path, "read_text", lambda path: status)
    assert [bench.resident(what) for what in ("VmRSS", "VmHWM")] == [678 * 1024, 12345 * 1024]


def test_memory_is_what_the_peak_grows_by_after_a_call_at_small_m(monkeypatch, tiny):
    said, sizes = [], itertools.count(100, 7)
    monkeypatch.setattr(bench, "problem", lambda name, steps: said.append(steps) or tiny)
    monkeypatch.setattr(bench, "resident", lambda what: said.append(what) or next(sizes))
    monkeypatch.setattr(bench.Path, "write_text", lambda path, text: said.append((path.name, text)))

    def meta(loss, weights, batches, **options):
        said.append((len(batches[0]), options))

    monkeypatch.setattr(bench, "meta_gradient", meta)
    monkeypatch.setattr(bench, "plain", lambda *_: lambda *_: said.append("steps"))
    options = {"learning_rate": 0.1, "method": "reverse", "momentum": 0.9}
    assert bench.memory_of("LeNet-5", "reverse", 30, 0.9) == 7
    call = 4, options
    assert said == [30, call, call, ("clear_refs", "5"), "VmRSS", call, "VmHWM"]
    said.clear()
    assert bench.memory_of("ResNet-20", "reverse", 3, 0.9) == 7
    assert said == [3, "steps", "steps", ("clear_refs", "5"), "VmRSS", call, "VmHWM"]


def test_the_diagonal_is_compared_with_the_exact_scores_over_few_steps():
    keras.utils.set_random_seed(0)
    runs, exact = bench.gauss_newton("LeNet-300-100", steps=1)
    assert list(runs) == ["plain steps", "gauss_newton"]
    keras.utils.set_random_seed(0)
    weights, loss, batches = bench.problem("LeNet-300-100", 1)
    assert relative_error(exact, meta_gradient(loss, weights, batches, learning_rate=0.1)) < 1e-5
