"""What is timed beside ours is the same computation, and without PyTorch nothing is stored."""

import functools
import sys
from types import ModuleType, SimpleNamespace

from prosper_utils.lookahead.meta_gradient import meta_gradient
from prosper_utils.pruning import networks
from prosper_utils.study import results
from prosper_utils.study.checks import relative_error

import bench_authors
import like_torch
import numpy as np
import pytest
import tensorflow as tf
from conftest import clock


def test_without_pytorch_nothing_is_stored(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench_authors, "torch_is_there", lambda: False)
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr("sys.argv", ["bench_authors.py"])
    bench_authors.main()
    assert "PyTorch is not installed" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_pytorch_is_there_if_it_can_be_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    assert bench_authors.torch_is_there() is True
    monkeypatch.setitem(sys.modules, "torch", None)
    assert bench_authors.torch_is_there() is False


def test_what_is_measured_is_what_is_stored():
    table, provenance = results.load("bench_authors")
    assert [*table[["network", "steps"]].itertuples(index=False, name=None)] == bench_authors.CASES
    assert provenance["configuration"] == {"batch_size": 128, "threads": 2, "repeats": 7}
    assert (bench_authors.BATCH, bench_authors.THREADS, bench_authors.RATE) == (128, 2, 0.1)
    assert list(bench_authors.SIDES.items()) == [
        ("ours", bench_authors.ours),
        ("theirs", bench_authors.theirs),
    ]


def test_the_digits_stand_in_as_colour_images():
    weights, loss, (x, y) = bench_authors.problem("ResNet-20", 1, "float64")
    assert x.shape == (2, bench_authors.BATCH, 32, 32, 3)
    assert y.shape == x.shape[:2]
    np.testing.assert_array_equal(x[..., 0], x[..., 2])
    assert len(loss.names) == len(weights) == len(set(loss.names))
    assert {w.dtype.name for w in weights} == {"float64"}


def test_our_side_is_the_meta_gradient_in_the_type_that_is_asked_for(monkeypatch):
    monkeypatch.setattr(bench_authors, "BATCH", 8)
    weights, loss, batches = bench_authors.bench.problem("LeNet-300-100", 2, 8, dtype="float64")
    found = bench_authors.ours("LeNet-300-100", 2, "float64")()
    expected = meta_gradient(loss, weights, batches, learning_rate=0.1, method="unrolled")
    assert relative_error(found, expected) < 1e-12
    assert {(type(score), score.dtype.name) for score in found} == {(np.ndarray, "float64")}


def test_our_side_is_the_reverse_sweep_and_its_problem_is_made_before(monkeypatch):
    asked = []

    def problem(name, steps, dtype):
        asked.append((name, steps, dtype))
        return "weights", "loss", "batches"

    def meta(*given, method="reverse", **options):
        asked.append((given, method, options))
        return ()

    monkeypatch.setattr(bench_authors, "problem", problem)
    monkeypatch.setattr(bench_authors, "meta_gradient", meta)
    run = bench_authors.ours("a network", 3)
    assert asked == [("a network", 3, "float32")]
    run()
    assert asked[1:] == [(("loss", "weights", "batches"), "reverse", {"learning_rate": 0.1})]


def test_the_memory_of_a_step_is_a_difference_over_a_difference(monkeypatch):
    asked, mib = [], bench_authors.bench.MIB

    lives = []

    def pipe():  # 7 MiB a step, and what does not grow with the steps
        end = f"end {len(lives)}"
        return SimpleNamespace(recv=lambda: (100 + 7 * lives[-1].made[-1]) * mib), end

    spawn = SimpleNamespace(Pipe=pipe, Process=functools.partial(Process, lives))
    monkeypatch.setattr(
        bench_authors.multiprocessing, "get_context", lambda kind: asked.append(kind) or spawn
    )
    counts = {"LeNet-300-100": (10, 110), "LeNet-5": (10, 60), "ResNet-20": (1, 3)}
    assert counts == bench_authors.MEMORY
    for name, pair in counts.items():
        lives.clear()
        assert bench_authors.mib_per_step("ours", name) == 7
        made = [process.made for process in lives]
        assert made == [(bench_authors.grown, "ours", name, steps) for steps in pair]
        assert [p.life for p in lives] == [[f"end {n}", "start", "join"] for n in range(2)]
    assert asked == ["spawn"] * 3


class Side:
    """One side as a process and both ends of its pipe, which notes when it works."""

    def __init__(self, said):
        self.said, self.waits = said, True

    def send(self, go):
        self.said.append((id(self), "begin" if go else "end"))
        self.waits = go

    def recv(self):
        assert self.waits
        self.waits = False
        self.said.append((id(self), "done"))
        return np.ones(2)

    def start(self):
        self.said.append((id(self), "start"))

    join = start


def test_a_turn_is_timed_from_its_message_to_its_result(monkeypatch):
    now, asked = [0.0], iter([True, True, False])

    def passes(seconds, value):
        now[0] += seconds
        return value

    def made(*given):
        assert given == ("a network", 3, "float64")
        return passes(50.0, lambda: passes(2.0, "a result"))

    said = []
    pipe = SimpleNamespace(send=said.append, recv=lambda: passes(7.0, next(asked)))
    monkeypatch.setattr(bench_authors.time, "perf_counter", lambda: now[0])
    monkeypatch.setitem(bench_authors.SIDES, "a side", made)
    threads = bench_authors.tf.config.threading
    monkeypatch.setattr(threads, "set_intra_op_parallelism_threads", said.append)
    bench_authors.work(pipe, "a side", "a network", 3, "float64")
    assert said == [2, "a result", 2.0, 2.0]


def test_the_sides_are_timed_in_turn_and_never_at_the_same_time(monkeypatch):
    said, sides = [], []

    def pipe():
        sides.append(Side(said))
        return sides[-1], None

    spawn = SimpleNamespace(Pipe=pipe, Process=lambda **_: Side([]))
    monkeypatch.setattr(bench_authors.multiprocessing, "get_context", lambda _: spawn)
    seconds, _ = bench_authors.together("LeNet-5", 1, 3)
    assert {side: len(turns) for side, turns in seconds.items()} == dict.fromkeys(seconds, 3)
    ours, theirs = map(id, sides)
    turn = [(side, word) for side in (ours, theirs) for word in ("begin", "done")]
    first = [(ours, "done"), (theirs, "done")]
    assert said == first + turn * 3 + [(ours, "end"), (theirs, "end")]


class Process:
    """A process that notes what it was made with, and its life, in a list."""

    def __init__(self, lives, target, args, daemon=False):
        lives.append(self)
        self.made, self.life = (target, *args[1:]), [args[0]]

    def start(self):
        self.life.append("start")

    def join(self):
        self.life.append("join")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_each_side_says_its_result_then_its_seconds(monkeypatch, dtype):
    lives, sent, kinds = [], [], []
    answers = {"ours": [[np.array([3.0])], 1.0, 2.0], "theirs": [[np.array([2.0])], 4.0, 8.0]}

    def pipe():
        side = ("ours", "theirs")[len(sent)]
        sent.append([])
        return SimpleNamespace(recv=lambda: answers[side].pop(0), send=sent[-1].append), f"{side}'s"

    spawn = SimpleNamespace(Pipe=pipe, Process=functools.partial(Process, lives))
    monkeypatch.setattr(
        bench_authors.multiprocessing, "get_context", lambda kind: kinds.append(kind) or spawn
    )
    options = {} if dtype == "float32" else {"dtype": dtype}
    found = bench_authors.together("LeNet-5", 10, 2, **options)
    assert found == ({"ours": [1.0, 2.0], "theirs": [4.0, 8.0]}, 0.5)
    assert kinds == ["spawn"]  # a fork would share the threads of TensorFlow
    assert sent == 2 * [[True, True, False]]
    for process, side in zip(lives, ("ours", "theirs"), strict=True):
        assert process.made == (bench_authors.work, side, "LeNet-5", 10, dtype)
        assert process.life == [f"{side}'s", "start", "join"]


@pytest.mark.parametrize(("steps", "before"), [(110, 2), (1, 1), (3, 2)])
def test_memory_is_what_the_peak_grows_by_at_the_second_call(monkeypatch, steps, before):
    said, sizes = [], {"VmRSS": 100, "VmHWM": 170}

    def side(name, steps):
        said.append(("made", name, steps))
        return lambda: said.append(("run", steps))

    def resident(what):
        said.append(what)
        return sizes[what]

    monkeypatch.setitem(bench_authors.SIDES, "a side", side)
    monkeypatch.setattr(bench_authors.bench, "resident", resident)
    monkeypatch.setattr(
        bench_authors.Path, "write_text", lambda path, text: said.append((str(path), text))
    )
    threads = bench_authors.tf.config.threading
    monkeypatch.setattr(threads, "set_intra_op_parallelism_threads", said.append)
    pipe = SimpleNamespace(send=lambda found: said.append(("sent", found)))
    bench_authors.grown(pipe, "a side", "a network", steps)
    warm = [2, ("made", "a network", before), ("run", before), ("made", "a network", steps)]
    begin = [("/proc/self/clear_refs", "5"), "VmRSS"]
    assert said == [*warm, *begin, ("run", steps), "VmHWM", ("sent", 70)]


@pytest.mark.parametrize(("arguments", "repeats"), [([], 7), (["--repeats", "3"], 3)])
def test_a_row_says_how_both_sides_do(monkeypatch, arguments, repeats):
    asked, saved, spend = [], [], clock(monkeypatch, bench_authors)
    ours, theirs = [1.0, 8.0, 3.0], [2.0, 2.0, 2.0]

    def together(*given):
        asked.append(given)
        spend(5)
        return {"ours": ours, "theirs": theirs}, 1e-9 if len(given) == 4 else 0.1

    def mib_per_step(side, name):
        asked.append((side, name))
        spend(0.5)
        return {"ours": 10.0, "theirs": 20.0}[side] + len(name)

    monkeypatch.setattr("sys.argv", ["bench_authors.py", *arguments])
    monkeypatch.setattr(bench_authors, "torch_is_there", lambda: True)
    monkeypatch.setattr(bench_authors, "together", together)
    monkeypatch.setattr(bench_authors, "mib_per_step", mib_per_step)
    monkeypatch.setattr(results, "save", lambda *given, **options: saved.append((given, options)))
    bench_authors.main()
    assert asked == [
        ("LeNet-300-100", 10, repeats),
        ("LeNet-300-100", 3, 0, "float64"),
        ("ours", "LeNet-300-100"),
        ("theirs", "LeNet-300-100"),
        ("LeNet-300-100", 50, repeats),
        ("LeNet-300-100", 3, 0, "float64"),
        ("LeNet-5", 10, repeats),
        ("LeNet-5", 3, 0, "float64"),
        ("ours", "LeNet-5"),
        ("theirs", "LeNet-5"),
        ("LeNet-5", 50, repeats),
        ("LeNet-5", 3, 0, "float64"),
        ("ResNet-20", 3, repeats),
        ("ResNet-20", 3, 0, "float64"),
        ("ours", "ResNet-20"),
        ("theirs", "ResNet-20"),
    ]
    (((name, rows, configuration), options),) = saved
    assert name == "bench_authors"
    cases = [("LeNet-300-100", 10), ("LeNet-300-100", 50), ("LeNet-5", 10), ("LeNet-5", 50)]
    times = {"error": 1e-9, "ours": 3.0, "theirs": 2.0, "ratio": 1.5, "least": 0.5, "most": 4.0}
    assert rows == [
        {"network": network, "steps": steps}
        | times
        | {"ours_mib_per_step": 10.0 + len(network), "theirs_mib_per_step": 20.0 + len(network)}
        for network, steps in [*cases, ("ResNet-20", 3)]
    ]
    assert list(rows[0]) == list(results.load("bench_authors")[0])
    assert configuration == {"batch_size": 128, "threads": 2, "repeats": repeats}
    packages = ("torch", "tensorflow", "keras", "numpy")
    assert options == {"seconds": 10 * 5 + 6 * 0.5, "packages": packages}


def test_a_kernel_of_a_convolution_changes_its_layout_and_back(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", like_torch.modules(None, [])["torch"])
    kernel = np.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    found = bench_authors.to_torch(kernel)
    assert found.shape == (5, 4, 2, 3)  # out, in, rows, columns
    assert found.numpy()[4, 3, 1, 2] == kernel[1, 2, 3, 4]
    assert found.numpy()[0, 1, 0, 2] == kernel[0, 2, 1, 0]
    np.testing.assert_array_equal(bench_authors.to_numpy(found), kernel)
    for other in (kernel[0, 0], kernel[0, 0, 0]):
        found = bench_authors.to_torch(other)
        np.testing.assert_array_equal(found.numpy(), other)
        np.testing.assert_array_equal(bench_authors.to_numpy(found), other)


def narrow(name, steps, dtype):
    """Return a problem with the layers of ResNet-20, of few units each, on small images."""
    shape = (8, 8, 3)
    model = networks.resnet20(dtype=dtype, widths=(2, 3, 4), shape=shape)
    x = np.random.default_rng(0).normal(size=(steps + 1, bench_authors.BATCH, *shape))
    y = np.arange(x[..., 0, 0, 0].size).reshape(x.shape[:2]) % 10
    return (*networks.as_loss(model), (tf.constant(x, dtype), tf.constant(y)))


@pytest.mark.parametrize(
    ("name", "steps"), [("LeNet-300-100", 2), ("LeNet-5", 0), ("LeNet-5", 2), ("ResNet-20", 0)]
)
def test_their_side_is_the_meta_gradient_too(monkeypatch, name, steps):
    """With TensorFlow in place of PyTorch, whose own arithmetic is another test's."""
    monkeypatch.setattr(bench_authors, "BATCH", 8)
    if name == "ResNet-20":
        monkeypatch.setattr(bench_authors, "problem", narrow)
    weights, loss, batches = bench_authors.problem(name, steps, "float64")
    threads = []
    with tf.GradientTape(persistent=True) as tape:
        for module, found in like_torch.modules(tape, threads).items():
            monkeypatch.setitem(sys.modules, module, found)
        run = bench_authors.theirs(name, steps, "float64")
        found, again = run(), run()
    expected = meta_gradient(loss, weights, batches, learning_rate=0.1, method="unrolled")
    assert threads == [2]
    assert {score.dtype.name for score in found} == {"float64"}
    assert relative_error(found, expected) < 1e-11
    assert relative_error(again, found) == 0


@pytest.mark.parametrize("name", ["LeNet-300-100", "LeNet-5", "ResNet-20"])
@pytest.mark.parametrize("steps", [0, 2])
def test_both_sides_compute_the_same(monkeypatch, name, steps):
    pytest.importorskip("torch", reason="PyTorch is for `make bench` alone")
    monkeypatch.setattr(bench_authors, "BATCH", 8)
    ours, theirs = (side(name, steps, "float64")() for side in bench_authors.SIDES.values())
    assert relative_error(ours, theirs) < (1e-11 if name == "ResNet-20" else 1e-13)
