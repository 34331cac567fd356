"""What is timed beside ours is the same computation, and without PyTorch nothing is stored."""

from types import SimpleNamespace

from prosper_utils.study import results
from prosper_utils.study.checks import relative_error

import bench_authors
import numpy as np
import pytest


def test_without_pytorch_nothing_is_stored(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench_authors, "torch_is_there", lambda: False)
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr("sys.argv", ["bench_authors.py"])
    bench_authors.main()
    assert "PyTorch is not installed" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_the_digits_stand_in_as_colour_images():
    weights, loss, (x, y) = bench_authors.problem("ResNet-20", 1, "float64")
    assert x.shape == (2, bench_authors.BATCH, 32, 32, 3)
    assert y.shape == x.shape[:2]
    np.testing.assert_array_equal(x[..., 0], x[..., 2])
    assert len(loss.names) == len(weights) == len(set(loss.names))
    assert {w.dtype.name for w in weights} == {"float64"}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_our_side_computes_in_the_type_that_is_asked_for(dtype):
    assert {score.dtype.name for score in bench_authors.ours("LeNet-300-100", 0, dtype)()} == {
        dtype
    }


def test_the_memory_of_a_step_is_a_difference_over_a_difference(monkeypatch):
    asked, mib = [], bench_authors.bench.MIB

    def process(target, args):
        _, *case = args
        asked.append((target, *case))
        return Side([])

    def pipe():  # 7 MiB a step, and what does not grow with the steps
        return SimpleNamespace(recv=lambda: (100 + 7 * asked[-1][-1]) * mib), None

    spawn = SimpleNamespace(Pipe=pipe, Process=process)
    monkeypatch.setattr(bench_authors.multiprocessing, "get_context", lambda _: spawn)
    for name, counts in bench_authors.MEMORY.items():
        asked.clear()
        assert bench_authors.mib_per_step("ours", name) == 7
        assert asked == [(bench_authors.grown, "ours", name, steps) for steps in counts]


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
    monkeypatch.setattr(threads, "set_intra_op_parallelism_threads", lambda count: None)
    bench_authors.work(pipe, "a side", "a network", 3, "float64")
    assert said == ["a result", 2.0, 2.0]


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


@pytest.mark.parametrize("name", ["LeNet-300-100", "LeNet-5", "ResNet-20"])
@pytest.mark.parametrize("steps", [0, 2])
def test_both_sides_compute_the_same(monkeypatch, name, steps):
    pytest.importorskip("torch", reason="PyTorch is for `make bench` alone")
    monkeypatch.setattr(bench_authors, "BATCH", 8)
    ours, theirs = (side(name, steps, "float64")() for side in bench_authors.SIDES.values())
    assert relative_error(ours, theirs) < (1e-11 if name == "ResNet-20" else 1e-13)
