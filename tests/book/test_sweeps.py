"""What the sweeps share: the command stores what is missing, once, and goes on where it stopped."""

import contextlib
import importlib
import json
import os
import runpy
import signal
import sys
import types

from prosper_utils.study import datasets, results

import joblib
import numpy as np
import pandas as pd
import pytest
import sweeps


def one(case):
    return [case | {"square": case["n"] ** 2, "seconds": 2.0}]


def left(stored):
    return sweeps.missing([{"n": n} for n in range(5)], stored, ("n",))


def test_what_is_stored_is_not_missing():
    cases = [{"a": a, "b": b} for a in "xy" for b in (1, 2)]
    assert sweeps.missing(cases, pd.DataFrame(), ("a", "b")) == cases
    assert sweeps.missing(cases, pd.DataFrame(cases[1:3]), ("a", "b")) == [cases[0], cases[3]]
    assert sweeps.missing(cases, pd.DataFrame(cases), ("a", "b")) == []
    found = [{"sparsities": (n,), "b": b, "a": a} for a in "xy" for n, b in enumerate((1, 2))]
    stored = pd.DataFrame([{"error": 3.0, "a": "y", "b": 1}, {"error": 4.0, "a": "x", "b": 2}])
    assert sweeps.missing(found, stored, ("a", "b")) == [found[0], found[3]]


def test_what_is_left_is_asked_of_the_plan_as_it_is_then():
    cases = []
    left = sweeps.left(lambda: cases, ("n",))
    assert left(pd.DataFrame()) == []
    cases += [{"n": 1, "m": 1}, {"n": 2, "m": 1}]
    assert left(pd.DataFrame()) == cases
    assert left(pd.DataFrame([{"n": 2, "m": 9}])) == cases[:1]
    with pytest.raises(KeyError, match="n"):  # rows that do not say which case they are
        left(pd.DataFrame([{"m": 9}]))


def test_every_case_is_run_once():
    def square(case):  # within the test: the processes import neither this file nor TensorFlow
        return [case["n"] ** 2]

    rows = list(sweeps.in_parallel(square, ({"n": n} for n in range(5)), jobs=2))
    assert sorted(rows) == [[0], [1], [4], [9], [16]]


def test_a_case_is_taken_when_a_process_is_free_and_yielded_as_it_ends():
    asked = []

    def cases():
        for n in range(5):
            asked.append(n)
            yield {"n": n}

    done = sweeps.in_parallel(one, cases(), 1)
    assert next(done) == [{"n": 0, "square": 0, "seconds": 2.0}]
    assert len(asked) < 5
    assert [row["square"] for (row,) in done] == [1, 4, 9, 16]
    assert list(sweeps.in_parallel(one, [])) == []


def test_the_best_trial_has_the_lowest_mean_and_a_failure_counts_as_chance(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    errors = {("a", 0): (3, 5), ("a", 1): (1, None), ("a", 2): (4, 4.5), ("b", 7): (1, 1)}
    rows = [
        {"arm": arm, "trial": trial, "seed": seed, "error": error}
        for (arm, trial), pair in errors.items()
        for seed, error in enumerate(pair)
    ]
    results.append("tuning", rows)
    assert sweeps.best("tuning", "trial", {"arm": "a"}) == 0
    assert sweeps.best("tuning", "trial") == 7
    assert sweeps.best("tuning", "trial", {"arm": "a", "seed": 0}) == 1
    assert sweeps.best("tuning", "trial", {"seed": 1, "arm": "a"}) == 2
    assert sweeps.best("tuning", "arm", {"seed": 0}) == "b"


def test_nothing_that_is_stored_to_choose_from_is_said_with_what_was_asked_for(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    said = "tuning: expected stored trials of {}, found none: run it first"
    for where, kind in ((None, "any kind"), ({"arm": "a", "seed": 9}, "arm a, seed 9")):
        with pytest.raises(LookupError) as stopped:
            sweeps.best("tuning", "trial", where)
        assert str(stopped.value) == said.format(kind)


@pytest.mark.parametrize("where", [{"arm": "c"}, {"arm": "a", "seed": 9}])
@pytest.mark.parametrize("stored", [False, True])
def test_no_trial_is_not_taken_for_a_training_that_failed(where, stored, tmp_path, monkeypatch):
    """A sweep stores a ValueError as the outcome of its case."""
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    if stored:
        results.append("tuning", [{"arm": "a", "trial": 0, "seed": 0, "error": 1.0}])
    with pytest.raises(LookupError, match=r"tuning: expected stored trials of arm .*, found none"):
        sweeps.best("tuning", "trial", where)
    assert not issubclass(LookupError, ValueError)


@pytest.mark.parametrize(
    ("sweep", "chosen", "arguments", "stored"),
    [
        ("sweep_colour", "chosen_rate", (), "colour_rates"),
        ("sweep_colour", "chosen_options", ("SNIP",), "colour_tuning"),
        ("sweep_mnist", "chosen_options", ("LeNet-5", "tanh", "ProsPr"), "pruning_tuning"),
        ("sweep_regrowth", "chosen_options", ("LeNet-300-100", "credit"), "regrowth_tuning"),
        ("sweep_units", "chosen_rates", ("LeNet-5",), "units_tuning"),
    ],
)
def test_no_sweep_chooses_where_nothing_is_stored(
    sweep, chosen, arguments, stored, tmp_path, monkeypatch
):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    with pytest.raises(LookupError, match=f"{stored}.*: expected stored trials of .*, found none"):
        getattr(importlib.import_module(sweep), chosen)(*arguments)


SLOW = """
import os, time

def slowly(case):
    time.sleep(0.3)
    return [case | {"square": case["n"] ** 2, "process": os.getpid()}]
"""


def test_a_worker_that_is_killed_loses_nothing(tmp_path, monkeypatch):
    """Its case runs again on another one, and no row is twice."""
    from distributed import LocalCluster

    (tmp_path / "slow_sweep.py").write_text(SLOW)
    (tmp_path / "sweeps.py").write_text("")  # is sent with it: ours would import TensorFlow there
    monkeypatch.setattr(sweeps, "__file__", str(tmp_path / "sweeps.py"))
    monkeypatch.syspath_prepend(tmp_path)
    script = importlib.import_module("slow_sweep")
    cases, options = [{"n": n} for n in range(8)], {"n_workers": 2, "threads_per_worker": 1}
    with (
        LocalCluster(dashboard_address=None, silence_logs=50, **options) as cluster,
        sweeps.on_dask(cluster, script.__file__),
    ):
        done = sweeps.in_parallel(script.slowly, cases)
        (first,) = next(done)
        os.kill(first["process"], signal.SIGKILL)
        rows = [first, *(row for (row,) in done)]
    del sys.modules["slow_sweep"]
    assert sorted(row["square"] for row in rows) == [n**2 for n in range(8)]


ONE = """
import helper

def one(case):
    return [case | {"square": helper.square(case["n"]), "seconds": 2.0}]

SWEEPS = {"squares": (helper.left, one)}
"""
HELPER = """
import sweeps

def square(n):
    return n**2

def left(stored):
    return sweeps.missing([{"n": n} for n in range(3)], stored, ("n",))
"""


def test_machines_elsewhere_get_a_script_and_what_it_imports(tmp_path, monkeypatch):
    """The scheduler and its worker are processes of their own, which have no script of ours."""
    from distributed.deploy.subprocess import SubprocessCluster

    (tmp_path / "a_sweep.py").write_text(ONE)
    (tmp_path / "helper.py").write_text(HELPER)
    (tmp_path / "not_imported.py").write_text("raise ImportError")
    options = {"worker_kwargs": {"nthreads": 1}, "scheduler_kwargs": {"dashboard": False}}
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    before = vars(sweeps).copy()
    with SubprocessCluster(n_workers=1, silence_logs=50, **options) as cluster:
        monkeypatch.syspath_prepend(tmp_path)
        script = importlib.import_module("a_sweep")
        names = [path.name for path in sweeps.scripts(script)]
        monkeypatch.setattr(sys, "argv", ["a_sweep.py", "--dask", cluster.scheduler_address])
        sweeps.command(script, script.SWEEPS, lambda: {})
    assert names == ["a_sweep.py", "helper.py"]
    assert sorted(results.load("squares")[0].square) == [0, 1, 4]
    assert all(vars(sweeps)[name] is value for name, value in before.items())  # not loaded again
    for name in ("a_sweep", "helper"):
        del sys.modules[name]


def test_minutes_threads_and_processes_are_what_the_command_line_says(tmp_path, monkeypatch):
    """A case takes 40 seconds, so that in one minute two are begun."""
    seen, now = [], [1000.0]

    def slow(case):
        now[0] += 40
        return one(case)

    def in_parallel(one, cases, jobs):
        seen.append(jobs)
        return map(one, cases)

    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(sweeps, "in_parallel", in_parallel)
    clock = types.SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr(sweeps, "time", clock)
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "3")
    monkeypatch.delenv("TF_NUM_INTEROP_THREADS", raising=False)
    monkeypatch.setattr(sys, "argv", ["sweep.py", "--jobs", "7", "--minutes", "1"])
    sweeps.command(sweeps, {"squares": (left, slow)}, lambda: {})
    assert results.resume("squares").n.tolist() == [0, 1]
    assert seen == [7]
    assert [os.environ[name] for name in sweeps.THREADS] == ["3", "1"]


def test_what_took_time_is_added_up_whatever_it_is_called(tmp_path, monkeypatch):
    def rows(case):
        return [case | {"train_seconds": 1.0, "seconds": 2.0, "seconds_per_step": 50.0}]

    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["sweep.py", "--jobs", "1"])
    sweeps.command(sweeps, {"squares": (left, rows)}, lambda: {})
    assert results.load("squares")[1]["seconds"] == 15


def test_a_case_that_ends_is_stored_before_the_next_is_asked_for(tmp_path, monkeypatch):
    stored = []

    def in_parallel(one, cases, jobs):
        for case in cases:
            stored.append(len(results.resume("squares")))
            yield one(case)

    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(sweeps, "in_parallel", in_parallel)
    monkeypatch.setattr(sys, "argv", ["sweep.py"])
    sweeps.command(sweeps, {"squares": (left, one)}, lambda: {})
    assert stored == [0, 1, 2, 3, 4]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Run in this process; return a function that runs a command line, and how cases were run."""
    given = []

    def in_parallel(one, cases, jobs):
        given.append(jobs)
        return map(one, cases)

    def run(squares, *arguments):
        monkeypatch.setattr(sys, "argv", ["sweep.py", *arguments])
        sweeps.command(sweeps, squares, lambda: {})

    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(sweeps, "in_parallel", in_parallel)
    return run, given


def test_the_sweeps_that_are_named_are_run_or_all_in_their_order(here):
    run, jobs = here
    ran = []
    two = sweeps.left(lambda: [{"n": 1}, {"n": 2}], ("n",))
    three = {
        name: (two, lambda case, name=name: ran.append((name, case["n"])) or one(case))
        for name in ("b", "c", "a")
    }
    run(three, "c")
    assert ran == [("c", 1), ("c", 2)]
    run(three)
    assert ran[2:] == [("b", 1), ("b", 2), ("a", 1), ("a", 2)]
    assert jobs == 4 * [joblib.cpu_count()]


def test_the_minutes_are_those_of_all_sweeps_together(here, monkeypatch):
    """A case takes 40 seconds: in four minutes six are begun, five of the first sweep."""
    now = [1000.0]

    def slow(case):
        now[0] += 40
        return one(case)

    monkeypatch.setattr(sweeps, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    here[0]({"first": (left, slow), "second": (left, slow)}, "--minutes", "4")
    assert [len(results.resume(name)) for name in ("first", "second")] == [5, 1]


def test_the_bar_says_which_sweep_it_is_and_how_many_cases_are_left(here, monkeypatch):
    bars = []

    def tqdm(done, desc, total, **style):
        bars.append((desc, total))
        return done

    monkeypatch.setattr(sweeps, "tqdm", tqdm)
    results.append("second", one({"n": 3}))
    here[0]({"first": (left, one), "second": (left, one)})
    assert bars == [("first", 5), ("second", 4)]


def test_the_scheduler_and_the_scripts_are_handed_on(here, monkeypatch):
    given = []

    @contextlib.contextmanager
    def on_dask(cluster, *files):
        given.append((cluster, files))
        yield

    monkeypatch.setattr(sweeps, "on_dask", on_dask)
    monkeypatch.setattr(sweeps, "scripts", lambda script: [script.__name__, "beside.py"])
    here[0]({"squares": (left, one)}, "--dask", "tcp://there:8786")
    here[0]({"squares": (left, one)})
    assert given == [(at, ("sweeps", "beside.py")) for at in ("tcp://there:8786", None)]


def test_a_row_without_its_seconds_adds_none(here):
    def rows(case):
        return [case | {"seconds": 2.0 if case["n"] else None}]

    here[0]({"squares": (left, rows)})
    assert results.load("squares")[1]["seconds"] == 8


def test_a_script_is_sent_though_nothing_has_imported_it(tmp_path):
    script = types.ModuleType("alone")
    script.__file__ = str(tmp_path / "alone.py")
    assert sweeps.scripts(script) == [tmp_path.resolve() / "alone.py"]


STORED = {"steps": 3, "loop": {"purge": 0.1, "every": [1, 2]}}


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"steps": 4}, ["steps = 4 in place of 3"]),
        ({"steps": 3, "loop": {"purge": 0.2}}, ["loop.purge = 0.2 in place of 0.1"]),
        ({"loop": {"every": (1, 3)}}, ["loop.every = [1, 3] in place of [1, 2]"]),
        ({"loop": None}, ["loop = None in place of"]),
        ({"steps": 4, "loop": {"every": []}}, ["steps = 4", "; ", "loop.every = []"]),
    ],
)
def test_rows_of_two_configurations_are_not_mixed(tmp_path, monkeypatch, capsys, now, said):
    def run(configuration):
        monkeypatch.setattr(sys, "argv", ["sweep.py", "--jobs", "1"])
        sweeps.command(sweeps, {"squares": (left, one)}, lambda: configuration)

    monkeypatch.setattr(results, "FOLDER", tmp_path)
    results.append("squares", one({"n": 3}))
    results.describe("squares", STORED, seconds=0)
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    with pytest.raises(SystemExit) as stopped:
        run(now)
    assert stopped.value.code == 2
    shown = capsys.readouterr().err
    assert all(words in shown for words in ["squares: expected", "squares.json", *said])
    assert before == {path.name: path.read_text() for path in tmp_path.iterdir()}
    run({"steps": 3, "loop": {"every": (1, 2)}, "later": 5})  # what one of them lacks may differ
    assert len(results.resume("squares")) == 5
    run(now)  # no case is left that could be mixed


def test_a_difference_is_said_with_its_whole_path_what_is_and_what_was():
    stored = {"b": {"c": {"d": 1, "e": 2}, "gone": 0}, "a": [1], "same": None}
    now = {"same": None, "a": [2], "b": {"c": {"d": 3, "e": 2, "new": 0}}}
    assert list(sweeps.differences(stored, now)) == [
        "a = [2] in place of [1]",
        "b.c.d = 3 in place of 1",
    ]
    assert list(sweeps.differences({"b": 1}, {"b": {"c": 1}})) == ["b = {'c': 1} in place of 1"]
    assert list(sweeps.differences(stored, stored)) == []


def test_the_command_goes_on_where_it_stopped(tmp_path, monkeypatch):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["sweep.py", "--jobs", "1", *arguments])
        sweeps.command(sweeps, {"squares": (left, one)}, lambda: {"known": True})

    monkeypatch.setattr(results, "FOLDER", tmp_path)
    run("--minutes", "0")
    assert not list(tmp_path.iterdir())
    results.append("squares", one({"n": 3}))
    first = (tmp_path / "squares.csv").read_text()
    run("squares")
    second = (tmp_path / "squares.csv").read_text()
    assert second.startswith(first)
    table, provenance = results.load("squares")
    assert table.n.tolist() == [3, 0, 1, 2, 4]
    np.testing.assert_array_equal(table.square, table.n**2)
    assert provenance["configuration"] == {"known": True}
    assert provenance["seconds"] == 10
    run()
    assert (tmp_path / "squares.csv").read_text() == second


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("sweep_colour", "colour"),
        ("sweep_domains", "proofs_domains"),
        ("sweep_mnist", "pruning"),
        ("sweep_precision", "precision"),
        ("sweep_proofs", "proofs"),
        ("sweep_regrowth", "regrowth"),
        ("sweep_units", "units"),
    ],
)
def test_what_is_stored_is_of_the_present_configuration_and_nothing_is_left_out(name, table):
    """But for the data set, which the machine may not have."""
    stored = results.load(table)[1]["configuration"]
    now = json.loads(json.dumps(importlib.import_module(name).configuration()))
    for key in ("data", "sha256"):
        stored.pop(key, None)
        now.pop(key, None)
    assert stored == now
    assert stored


OF_IMAGES = ["colour", "mnist", "precision", "regrowth", "units"]


@pytest.mark.parametrize("name", [*OF_IMAGES, "domains", "proofs"])
def test_a_command_hands_on_its_script_its_sweeps_and_what_determines_them(monkeypatch, name):
    """What trains on images says on which; trained networks of units are kept while it runs."""
    seen = []

    def command(script, named, configuration):
        seen.append((script, named, configuration(), os.environ.get("PROSPER_SWEEP_CACHE")))
        assert name != "units" or os.path.isdir(seen[-1][-1])

    module = importlib.import_module(f"sweep_{name}")
    of_images = {"data": "some", "sha256": "12"} if name in OF_IMAGES else {}
    monkeypatch.setattr(sweeps, "command", command)
    monkeypatch.setattr(datasets, "fingerprint", lambda data: {"data": data, "sha256": "12"})
    for of_it in ("sweep_mnist", "sweep_colour"):
        monkeypatch.setattr(importlib.import_module(of_it), "data", lambda: "some")
    monkeypatch.setenv("PROSPER_SWEEP_CACHE", "set, so that it is put back")
    monkeypatch.delenv("PROSPER_SWEEP_CACHE")
    runpy.run_path(module.__file__, run_name="__main__")
    ((script, named, configuration, cache),) = seen
    assert script is module
    assert named is module.SWEEPS
    choices = ["tuning" in each or "rates" in each for each in named]
    assert choices == sorted(choices, reverse=True), "choices are made before they are used"
    assert configuration == module.configuration() | of_images
    assert (cache is None) == (name != "units")
    assert cache is None or not os.path.exists(cache)
