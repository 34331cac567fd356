"""How fast proofs are looked for: what is counted as time, where it is said to go, and how much."""

import collections
import contextlib
import functools
import signal
import sys
import time
from types import SimpleNamespace

from prosper_utils.blending import detachment, distributions, evolution, search
from prosper_utils.blending.evolution import detachment_table
from prosper_utils.blending.kernel import COMPILED
from prosper_utils.study import results

import bench_proofs
import numpy as np
import pytest
import tensorflow as tf
from conftest import clock
from goals import GOALS


def busy(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def here(seconds):
    busy(seconds)


def there(seconds):
    busy(seconds)


def test_time_goes_where_the_processor_is():
    """Three parts to one, with a sleep that takes none of it."""

    def run():
        here(0.45)
        time.sleep(0.3)
        there(0.15)

    def place(frame):
        names = {"here", "there"}
        while frame and frame.f_code.co_name not in names:
            frame = frame.f_back
        return frame.f_code.co_name if frame else "else"

    found = bench_proofs.shares(run, place)
    assert sum(found.values()) == pytest.approx(1)
    assert found["here"] == pytest.approx(0.75, abs=0.1)
    assert found["there"] == pytest.approx(0.25, abs=0.1)


def test_a_frame_is_in_the_innermost_place_that_is_known():
    seen = collections.Counter()

    def look(frame, event, argument):
        if event == "call":
            seen[bench_proofs.place(frame)] += 1

    pairs = np.array([[0, 0], [1, 0]])
    detachment_table(limit=13, budget=50).at_once(pairs)  # or compiling would be looked at, too
    table = detachment_table(limit=13, budget=50)
    sys.setprofile(look)
    try:
        table.at_once(pairs)
        tf.constant([1.0]) + 1.0
    finally:
        sys.setprofile(None)
    assert {"table", "TensorFlow"} <= set(seen) <= set(bench_proofs.WHERE)
    assert ("unification" in seen) == (table.batch is not None)


def frames(*places):
    """Return the innermost of some frames, of (path, function), which are given from within."""
    back = None
    for path, function in reversed(places):
        code = SimpleNamespace(co_filename=path, co_name=function)
        back = SimpleNamespace(f_code=code, f_back=back)
    return back


BLENDING = "/a/prosper_utils/blending/"
OF_TENSORFLOW = "/a/site-packages/tensorflow/python/ops.py"


@pytest.mark.parametrize(
    ("expected", "file", "functions"),
    [
        ("unification", "kernel.py", ["unify", "anything"]),
        ("subsumption", "detachment.py", ["subsume", "add"]),
        ("table", "evolution.py", ["many", "at_once", "_enter"]),
        ("table", "distributions.py", ["pairs_at_once"]),
        ("rest", "detachment.py", ["theorem", "subsumes"]),
        ("rest", "evolution.py", ["evolve", "add"]),
        ("rest", "distributions.py", ["many"]),
        ("rest", "my_kernel.py", ["unify"]),
    ],
)
def test_a_place_is_known_by_the_file_and_its_function(expected, file, functions):
    for function in functions:
        assert bench_proofs.place(frames((BLENDING + file, function))) == expected


def test_of_places_within_each_other_the_innermost_counts():
    unknown, table = ("/a/b.py", "f"), (BLENDING + "evolution.py", "many")
    kernel, tensorflow = (BLENDING + "kernel.py", "g"), (OF_TENSORFLOW, "add")
    for expected, places in {
        "unification": (kernel, table),
        "table": (unknown, table, kernel),
        "TensorFlow": (unknown, tensorflow, table),
        "rest": (unknown, unknown),
    }.items():
        assert bench_proofs.place(frames(*places)) == expected
    assert bench_proofs.place(frames(table, tensorflow)) == "table"
    assert bench_proofs.place(frames(("/a/my_tensorflow/b.py", "f"))) == "rest"
    assert bench_proofs.place(None) == "rest"


def test_the_places_are_functions_that_there_are():
    of = {"evolution": evolution.Table, "detachment": detachment.Generals}
    of["distributions"] = distributions
    for known in bench_proofs.PLACES:
        file, _, function = known.partition(":")
        assert file == "kernel.py" or hasattr(of[file.removesuffix(".py")], function)
    names = ("unification", "table", "subsumption", "TensorFlow", "rest")
    assert names == bench_proofs.WHERE


@pytest.fixture
def looks(monkeypatch):
    """Let time pass, and looks be taken, by a call; return (pass, what was asked of the timer)."""
    now, asked = [5.0], []
    monkeypatch.setattr(bench_proofs.time, "process_time", lambda: now[0])
    monkeypatch.setattr(bench_proofs.signal, "setitimer", lambda *given: asked.append(given))

    def passes(seconds, frame=None):
        now[0] += seconds
        if frame:
            signal.getsignal(signal.SIGPROF)(signal.SIGPROF, frame)

    return passes, asked


def test_what_passed_since_the_last_look_goes_where_it_is_and_at_the_end_to_the_rest(looks):
    passes, asked = looks

    def run():
        for place, seconds in (("a", 1.0), ("b", 0.5), ("a", 2.0), ("rest", 0.25)):
            passes(seconds, place)
        passes(0.25)

    found = bench_proofs.shares(run, str)
    assert found == {"a": 0.75, "b": 0.125, "rest": 0.125}
    assert asked == [(signal.ITIMER_PROF, 0.002, 0.002), (signal.ITIMER_PROF, 0)]
    kernel = frames((BLENDING + "kernel.py", "f"))
    assert bench_proofs.shares(lambda: passes(1.0, kernel)) == {"unification": 1.0, "rest": 0.0}


@pytest.mark.parametrize("fails", [False, True])
def test_nobody_looks_any_more_once_it_has_ended(looks, fails):
    passes, asked = looks

    def other(*given):
        """Look, as somebody else did before."""

    def run():
        assert signal.getsignal(signal.SIGPROF) is not other
        passes(1.0)
        if fails:
            raise KeyError("an error")

    before = signal.signal(signal.SIGPROF, other)
    try:
        with pytest.raises(KeyError) if fails else contextlib.nullcontext():
            bench_proofs.shares(run)
        assert signal.getsignal(signal.SIGPROF) is other
    finally:
        signal.signal(signal.SIGPROF, before)
    assert asked[-1] == (signal.ITIMER_PROF, 0)


def test_what_is_asked_for_is_counted_whatever_is_known():
    table = detachment_table(limit=13, budget=50)
    asked = bench_proofs.counted(table)
    pairs = np.array([[0, 0], [1, 0]])
    for _ in range(3):
        table.at_once(pairs)
    assert asked == {"at_once": 6, "many": 2}


@pytest.mark.parametrize("arm", bench_proofs.ARMS)
def test_a_row_says_how_many_and_where(arm):
    row = bench_proofs.measured(arm, budget=2000, repeats=1)
    assert row["detachments"] == 2000 <= row["asked"]
    assert row["per_second"] == pytest.approx(2000 / row["seconds"])
    shares = [value for name, value in row.items() if name.startswith("share")]
    assert len(shares) == len(bench_proofs.WHERE)
    assert sum(shares) == pytest.approx(1)


def test_the_least_of_some_runs_after_a_short_one_stands(monkeypatch):
    """The look at where time goes is a run of its own, and is not timed."""
    now, made, searched = [0.0], [], []
    took = iter([50.0, 4.0, 2.0, 8.0, 90.0])

    def table(limit, budget):
        made.append((limit, budget))
        number = len(made)
        return SimpleNamespace(number=number, products=range(10 * number))

    def search(table, target):
        searched.append((table.number, target))
        now[0] += next(took)

    def counted(table):
        assert table.number == 5
        assert len(searched) == 4  # nothing has been asked yet
        return collections.Counter(many=70, at_once=30)

    def shares(run):
        run()
        return {"table": 0.75, "rest": 0.25}

    monkeypatch.setattr(bench_proofs.time, "process_time", lambda: now[0])
    monkeypatch.setitem(bench_proofs.ARMS, "an arm", search)
    monkeypatch.setattr(bench_proofs, "detachment_table", table)
    monkeypatch.setattr(bench_proofs, "goal_weights", lambda goals: frozenset(goals))
    monkeypatch.setattr(bench_proofs, "counted", counted)
    monkeypatch.setattr(bench_proofs, "shares", shares)
    row = bench_proofs.measured("an arm", budget=200, repeats=3)
    share = {"unification": 0.0, "table": 0.75, "subsumption": 0.0, "TensorFlow": 0.0, "rest": 0.25}
    assert row == {
        "arm": "an arm",
        "detachments": 40,
        "seconds": 2.0,
        "per_second": 20.0,
        "asked": 70,
    } | {f"share_{name}": value for name, value in share.items()}
    assert list(row) == list(results.load("proofs_speed")[0])
    assert made == [(25, 10), *[(25, 200)] * 4]
    assert searched == [(n, frozenset(GOALS)) for n in range(1, 6)]
    took = iter([1.0] * 11)
    made.clear()
    searched.clear()
    monkeypatch.setattr(bench_proofs, "counted", lambda table: collections.Counter(many=1))
    bench_proofs.measured("an arm")
    assert made == [(25, 10_000), *[(25, 200_000)] * 10]


def test_the_ways_are_those_of_their_names(monkeypatch):
    arms, asked = bench_proofs.ARMS, []

    def evolve(*given):
        asked.append(given)

    monkeypatch.setattr(bench_proofs, "evolve", evolve)
    arms["blend"]("a table", "a target")
    assert asked == [("a table", "a target", evolution.Settings(step_size=0.03, keep=150))]
    assert arms["breadth first"] is search.breadth_first
    for name, function, keywords in (
        ("breadth first, subsumption", search.breadth_first, {"subsumption": True}),
        ("light and short first", search.lightest_first, {"weight": search.size_and_proof}),
        (
            "light and short first, subsumption",
            search.lightest_first,
            {"weight": search.size_and_proof, "subsumption": True},
        ),
    ):
        assert (arms[name].func, arms[name].args, arms[name].keywords) == (function, (), keywords)


def test_the_command_stores_a_row_for_each_way(monkeypatch):
    saved, threads, spend = [], [], clock(monkeypatch, bench_proofs)

    def measured(arm):
        return spend(0.5, {"arm": arm, "threads": len(threads)})

    for kind in ("intra", "inter"):
        said = functools.partial(lambda kind, count: threads.append((kind, count)), kind)
        monkeypatch.setattr(tf.config.threading, f"set_{kind}_op_parallelism_threads", said)
    monkeypatch.setattr(bench_proofs, "measured", measured)
    monkeypatch.setattr(results, "save", lambda *given, **options: saved.append((given, options)))
    bench_proofs.main()
    (((name, rows, configuration), options),) = saved
    stored, provenance = results.load("proofs_speed")
    assert name == "proofs_speed"
    assert rows == [{"arm": arm, "threads": 2} for arm in stored.arm]
    assert configuration.pop("compiled") is COMPILED
    assert provenance["configuration"].pop("compiled") is True
    assert configuration == provenance["configuration"]
    assert configuration == {
        "budget": 200_000,
        "largest_formula": 25,
        "threads": 1,
        "step_size": 0.03,
        "keep": 150,
    }
    assert options == {"seconds": 0.5 * len(rows)}
    assert sorted(threads) == [("inter", 1), ("intra", 1)]


def test_what_is_stored_has_a_row_for_each_way():
    table, provenance = results.load("proofs_speed")
    assert list(table.arm) == list(bench_proofs.ARMS)
    assert set(table.detachments) == {provenance["configuration"]["budget"]}
    assert np.allclose(table.filter(like="share").sum(axis=1), 1, atol=1e-4)
