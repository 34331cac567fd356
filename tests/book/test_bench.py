"""What the benchmark times and weighs is what its rows say; how long it takes is not asked here."""

import functools
import itertools
import sys
from types import SimpleNamespace

from prosper_utils.lookahead.descent import start
from prosper_utils.lookahead.meta_gradient import directional, meta_gradient
from prosper_utils.lookahead.streaming import gauss_newton_diagonal, streamed
from prosper_utils.pruning.networks import as_logits, as_loss, dense_300_100, lenet5, resnet20
from prosper_utils.study import datasets, results
from prosper_utils.study.checks import relative_error

import bench
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


@pytest.fixture
def small(monkeypatch):
    """Let LeNet-300-100 be a small network of its kind."""
    network = functools.partial(dense_300_100, units=(6, 5))
    monkeypatch.setitem(bench.NETWORKS, "LeNet-300-100", network)
    return network


@pytest.mark.parametrize(
    ("name", "network", "in_colour"),
    [
        ("LeNet-300-100", dense_300_100, False),
        ("LeNet-5", lenet5, False),
        ("ResNet-20", resnet20, True),
    ],
)
def test_a_problem_is_a_network_and_ten_training_batches_in_turn(name, network, in_colour):
    weights, loss, (x, y) = bench.problem(name, 12, 7)
    model = network()
    assert len(weights) == len(model.trainable_variables)
    assert loss.names == [v.path for v in model.trainable_variables]
    for found, expected in zip(weights, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(found, expected)
    data = datasets.in_colour(datasets.digits()) if in_colour else datasets.digits()
    assert x.shape[:2] == y.shape == (13, 7)
    for m, batch in zip(range(10), datasets.batches(data.train, 7), strict=False):
        np.testing.assert_array_equal(x[m], batch[0])
        np.testing.assert_array_equal(y[m], batch[1])
    for part in (x, y):
        np.testing.assert_array_equal(part[10:], part[:3])


@pytest.mark.parametrize("steps", [0, 9, 10, 20])
def test_a_problem_has_one_batch_more_than_steps_and_hands_options_on(steps):
    weights, _, (x, y) = bench.problem("LeNet-300-100", steps, units=(7, 5), dtype="float64")
    assert [w.shape[-1] for w in weights] == [7, 7, 5, 5, 10, 10]
    assert {w.dtype.name for w in weights} == {"float64"}
    assert x.shape == (steps + 1, 128, 28, 28, 1)
    assert y.shape == (steps + 1, 128)


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
    if not momentum:  # which is the default
        again = bench.calls(weights, loss, batches, methods)
        assert relative_error(again["reverse"](), runs["reverse"]()) == 0
        assert relative_error(again["plain steps"]()[0], runs["plain steps"]()[0]) == 0
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


def test_plain_steps_are_one_compiled_loop(tiny):
    """It is traced once, and the loss in it as often for two steps as for three."""
    weights, loss, batches = tiny
    counts = []
    for steps in (3, 2):
        called = []
        run = bench.plain(lambda *given, called=called: called.append(given) or loss(*given), 0.0)
        inner = tuple(part[:steps] for part in batches)
        run(weights, inner)
        counts.append(len(called))
        run(weights, inner)
        counts.append(len(called))
    assert len(set(counts)) == 1
    assert counts[0] > 0


def test_the_rows_of_a_comparison(clock):
    said = []

    def run(name, first, later, value):
        clock(later if name in said else first)
        said.append(name)
        return value

    runs = {
        "plain steps": functools.partial(run, "plain steps", 9.0, 2.0, None),
        "reverse": functools.partial(run, "reverse", 5.0, 3.0, [tf.constant([1.5])]),
        "forward, one group": functools.partial(run, "forward", 4.0, 1.0, [tf.constant([7.0])]),
    }
    rows = bench.compared("a network", 0.9, runs, [tf.constant([1.0])], 3)
    same = {"network": "a network", "momentum": 0.9}
    plain = {"method": "plain steps", "seconds": 2.0, "ratio": 1.0, "first_call": 9.0}
    reverse = {"method": "reverse", "seconds": 3.0, "ratio": 1.5, "first_call": 5.0}
    forward = {"method": "forward, one group", "seconds": 1.0, "ratio": 0.5, "first_call": 4.0}
    assert rows == [
        same | plain | {"error": None},
        same | reverse | {"error": 0.5},
        same | forward | {"error": None},
    ]
    assert said == ["plain steps", "reverse", "forward"] * 4 + ["reverse"]


@pytest.fixture
def nothing_is_timed(monkeypatch):
    """Let calls be made and no time be taken; return what they were made of."""
    made = []

    def calls(weights, loss, batches, methods, momentum=0.0):
        made.append((weights, batches, methods, momentum))
        return {name: lambda: [tf.ones(1)] for name in ("plain steps", *methods)}

    def compare(runs, repeats):
        assert repeats == 3
        return {name: (9.0, 1.0 + n) for n, name in enumerate(runs)}

    monkeypatch.setattr(bench, "calls", calls)
    monkeypatch.setattr(bench, "compare", compare)
    return made


def test_growth_is_against_what_it_says(nothing_is_timed):
    rows = bench.growth()
    expected, _ = results.load("bench_growth")
    keys = ["against", "x", "method"]
    assert [[row[key] for key in keys] for row in rows] == expected[keys].to_numpy().tolist()
    assert [row["seconds"] for row in rows] == [1.0, 2.0, 3.0] * 16
    shapes = [[tuple(w.shape) for w in found] for found, *_ in nothing_is_timed]
    assert {shape[0] for shape in shapes[:11]} == {(5, 5, 1, 6)}  # of LeNet-5
    assert {shape[2][1] for shape in shapes[11:]} == {100}
    assert {methods for *_, methods, _ in nothing_is_timed} == {("reverse", "checkpointed")}
    assert {momentum for *_, momentum in nothing_is_timed} == {0.0}
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


@pytest.fixture
def recorded(monkeypatch):
    """Let no problem be made and nothing be run; return what was compared, whole."""
    found = []

    def calls(weights, loss, batches, methods, momentum=0.0):
        def made(method):
            return lambda: f"{method} of {weights}, {loss}, {batches}, {momentum}"

        return {name: made(name) for name in ("plain steps", *methods)}

    def compared(name, momentum, runs, exact, repeats):
        said = {method: run() for method, run in runs.items()}
        found.append((name, momentum, said, exact, repeats))
        return [{"network": name, "momentum": momentum, "method": method} for method in runs]

    def forward(weights, loss, batches, momentum):
        return lambda: f"forward of {weights}, {loss}, {batches}, {momentum}"

    def gauss_newton(name):
        runs = {"plain steps": lambda: "few steps", "gauss_newton": lambda: "the diagonal"}
        return runs, f"exact of {name}"

    monkeypatch.setattr(bench, "problem", lambda *given: ("w", "L", " ".join(map(str, given))))
    monkeypatch.setattr(bench, "calls", calls)
    monkeypatch.setattr(bench, "compared", compared)
    monkeypatch.setattr(bench, "forward", forward)
    monkeypatch.setattr(bench, "gauss_newton", gauss_newton)
    return found


def test_times_are_of_the_cases_that_are_stored(recorded):
    rows, (stored, _) = bench.times(), results.load("bench_times")
    keys = ["network", "momentum", "method"]
    assert [[row[key] for key in keys] for row in rows] == stored[keys].to_numpy().tolist()
    exact = ("plain steps", "reverse", "checkpointed", "first_order", "unrolled")
    expected = []
    for name in ("LeNet-300-100", "LeNet-5"):
        for momentum in (0.0, 0.9):
            of = f"of w, L, {name} 50, {momentum}"
            said = {method: f"{method} {of}" for method in exact}
            said["forward, one group"] = f"forward {of}"
            streamed = () if momentum else ("row_sums", "hutchinson")
            said |= {method: f"{method} {of}" for method in streamed}
            expected.append((name, momentum, said, f"unrolled {of}", 7))
        few = {"plain steps": "few steps", "gauss_newton": "the diagonal"}
        expected.append((name, 0.0, few, f"exact of {name}", 2))
    assert recorded == expected
    recorded.clear()
    bench.times(2)
    assert [repeats for *_, repeats in recorded] == 2 * [2, 2, 2]
    recorded.clear()
    bench.times(11)
    assert [repeats for *_, repeats in recorded] == 2 * [11, 11, 2]


def test_colour_is_of_the_cases_that_are_stored(recorded, monkeypatch):
    monkeypatch.setattr(bench, "memory", lambda cases: [{"memory of": case} for case in cases])
    rows, (stored, _) = bench.colour(), results.load("bench_colour")
    keys = ["network", "momentum", "method", "steps"]
    timed = [tuple(row[key] for key in keys) for row in rows if "method" in row]
    of = stored[stored.seconds.notna()]
    assert timed == [*of[keys].itertuples(index=False, name=None)]
    cases = [row["memory of"] for row in rows[len(timed) :]]
    of = stored[stored.added_mib.notna()][["network", "method", "steps", "momentum"]]
    assert cases == [*of.itertuples(index=False, name=None)]
    expected = []
    for steps in (3, 10):
        of = f"of w, L, ResNet-20 {steps}, 0.0"
        methods = ("plain steps", "first_order", "reverse", "checkpointed")
        said = {method: f"{method} {of}" for method in methods}
        expected.append(("ResNet-20", 0.0, said, f"reverse {of}", 5))
    assert recorded == expected
    recorded.clear()
    bench.colour(4)
    assert [repeats for *_, repeats in recorded] == [4, 4]


def test_memory_is_of_the_cases_that_are_stored_each_in_a_process_of_its_own(monkeypatch):
    asked = []

    def run(command, **options):
        assert command[:2] == [sys.executable, bench.__file__]
        assert options == {"capture_output": True, "text": True, "check": True}
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
    weights, loss, batches = tiny
    longer = tuple(tf.concat([part, part], 0) for part in batches)  # M = 7
    problem = weights, loss, longer
    monkeypatch.setattr(bench, "problem", lambda *given: said.append(given) or problem)
    monkeypatch.setattr(bench, "resident", lambda what: said.append(what) or next(sizes))
    monkeypatch.setattr(bench.Path, "write_text", lambda path, text: said.append((path.name, text)))

    def meta(loss, weights, batches, **options):
        said.append((len(batches[0]), options))

    def plain(loss, momentum):
        return lambda weights, inner: said.append(("steps", len(inner[0]), momentum))

    monkeypatch.setattr(bench, "meta_gradient", meta)
    monkeypatch.setattr(bench, "plain", plain)
    options = {"learning_rate": 0.1, "method": "reverse", "momentum": 0.9}
    assert bench.memory_of("LeNet-5", "reverse", 30, 0.9) == 7
    small, call, steps = (4, options), (8, options), ("steps", 3, 0.9)
    begin, end = [("clear_refs", "5"), "VmRSS"], [call, "VmHWM"]
    assert said == [("LeNet-5", 30), small, small, *begin, *end]
    said.clear()
    assert bench.memory_of("ResNet-20", "reverse", 3, 0.9) == 7
    assert said == [("ResNet-20", 3), steps, steps, *begin, *end]


def test_the_diagonal_is_compared_with_the_exact_scores_over_few_steps(small):
    weights, loss = as_loss(small())
    batches = bench.problem("LeNet-300-100", 5)[2]
    runs, exact = bench.gauss_newton("LeNet-300-100")
    assert list(runs) == ["plain steps", "gauss_newton"]
    unrolled = meta_gradient(loss, weights, batches, learning_rate=0.1, method="unrolled")
    assert relative_error(exact, unrolled) < 1e-6
    curvature = gauss_newton_diagonal(as_logits(small())[1])
    expected = streamed(loss, weights, batches, 0.1, curvature)
    assert relative_error(runs["gauss_newton"](), expected) < 1e-6
    state = start(weights, 0.0)
    for m in range(5):
        state = bench.sgd(loss, 0.1, 0.0)(state, tuple(part[m] for part in batches))
    assert relative_error(runs["plain steps"]()[0], state[0]) < 1e-5


@pytest.fixture
def command(monkeypatch, clock):
    """Return a function that runs the command and returns what it stored."""
    saved = []
    monkeypatch.setattr(results, "save", lambda *given, **options: saved.append((given, options)))
    for n, name in enumerate(("times", "memory", "growth", "colour"), 1):
        measure = functools.partial(lambda n: clock(n) or [{"row": n}], n)
        monkeypatch.setitem(bench.MEASUREMENTS, name, measure)

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["bench.py", *arguments])
        saved.clear()
        bench.main()
        return saved

    return run


def test_the_command_stores_each_measurement_under_its_name(command):
    for arguments, names in (
        ((), ("times", "memory", "growth", "colour")),
        (("growth",), ("growth",)),
        (("colour", "times"), ("colour", "times")),
    ):
        numbers = {"times": 1, "memory": 2, "growth": 3, "colour": 4}
        assert command(*arguments) == [
            (
                (
                    f"bench_{name}",
                    [{"row": numbers[name]}],
                    {"learning_rate": 0.1, "batch_size": 128},
                ),
                {"seconds": float(numbers[name])},
            )
            for name in names
        ]


def test_the_command_for_one_number_prints_it_and_stores_nothing(command, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(bench, "memory_of", lambda *given: asked.append(given) or 12345)
    assert command("memory-of", "LeNet-5", "reverse", "30", "0.9") == []
    assert asked == [("LeNet-5", "reverse", 30, 0.9)]
    assert capsys.readouterr().out.split() == ["12345"]


def test_a_measurement_is_the_function_of_its_name():
    for name in ("times", "memory", "growth", "colour"):
        assert bench.MEASUREMENTS[name] is getattr(bench, name)
