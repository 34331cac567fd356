"""Planted faults: which modules and tests they are of, what is counted, and one run of the tool."""

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import prosper_utils
from prosper_utils.study import results

import hypothesis
import joblib
import mutants
import pandas as pd
import psutil
import pytest
import trial
from conftest import ROOT
from scipy import stats


def test_every_module_has_tests_that_are_there():
    found = mutants.modules()
    wings = [ROOT / "prosper_utils" / wing for wing in mutants.WINGS]
    files = [f"{wing.name}/{p.stem}" for wing in wings for p in wing.glob("*.py")]
    assert {n for n in files if "__init__" not in n} - {*mutants.LOOKED_AT} == set(found)
    assert set(mutants.TESTS) <= set(found)
    for name, (*own, defaults, seeds) in found.items():
        assert (ROOT / mutants.source(name)).is_file()
        assert (defaults, seeds) == ("tests/test_defaults.py", "tests/test_seeds.py")
        assert own
        wing, module = name.split("/")
        assert all((ROOT / test).is_file() for test in own)
        assert all(test.startswith(f"tests/{wing}/") for test in own)
        assert name in mutants.TESTS or own == [f"tests/{wing}/test_{module}.py"]


def test_modules_are_those_of_the_wings_in_order(monkeypatch):
    package, glob = ROOT / "prosper_utils", Path.glob
    monkeypatch.setattr(Path, "glob", lambda *given: sorted(glob(*given), reverse=True))
    of_wings = {path.parent.name for path in package.glob("*/*.py")}
    assert of_wings == {"lookahead", "pruning", "blending", "study"}
    found = list(mutants.modules())
    wings = [name.split("/")[0] for name in found]
    assert list(dict.fromkeys(wings)) == ["lookahead", "pruning", "blending", "study"]
    assert wings == sorted(wings, key=wings.index)
    for wing in of_wings:
        names = [name for name in found if name.startswith(wing)]
        assert names == sorted(names)
    assert mutants.source("pruning/masks") == Path("prosper_utils/pruning/masks.py")


def survivors(*verdicts, first=1):
    return [
        {"module": "a/b", "place": first + i, "line": "x = 1", "mutant": f"x = {i}", "verdict": v}
        for i, v in enumerate(verdicts)
    ]


def test_what_does_the_same_is_not_counted():
    rows = survivors(mutants.OWED, "equivalent: x is not used", mutants.OWED)
    found = mutants.scored("a/b", "0123abcd", 11, 11, rows)
    assert found | {"date": ""} == {
        "module": "a/b",
        "date": "",
        "state": "0123abcd",
        "mutants": 11,
        "judged": 11,
        "caught": 8,
        "equivalent": 1,
        "score": 80.0,
        "at_least": 80.0,
    }
    assert list(found) == mutants.COLUMNS[mutants.SCORES]
    assert mutants.scored("a/b", "", 8, 8, [])["score"] == 100
    alone = mutants.scored("a/b", "", 1, 1, survivors("equivalent: it is"))
    assert (alone["score"], alone["at_least"]) == (100, 100)


def test_the_score_of_a_part_bounds_that_of_all():
    """So many caught have a chance of 5% if the share is the bound: n of n if it is 0.05^(1/n)."""
    assert mutants.at_least(20, 20) == pytest.approx(0.05 ** (1 / 20))
    bound = mutants.at_least(18, 20)
    assert stats.binom.sf(17, 20, bound) == pytest.approx(0.05)
    assert mutants.at_least(0, 5) == mutants.at_least(0, 0) == 0
    row = mutants.scored("a/b", "", 100, 21, survivors("equivalent: it is", *[mutants.OWED] * 2))
    assert (row["caught"], row["score"], row["at_least"]) == (18, 90.0, round(100 * bound, 1))


def test_a_survivor_counts_in_the_bound_though_it_is_tested_since():
    rows = survivors(mutants.TESTED, "equivalent: it is", mutants.OWED)
    found = mutants.scored("a/b", "", 100, 21, rows)
    assert (found["caught"], found["score"]) == (19, 95.0)
    assert found["at_least"] == round(100 * mutants.at_least(18, 20), 1)
    assert mutants.scored("a/b", "", 21, 21, rows)["at_least"] == 95.0


def test_only_what_has_been_judged_is_counted():
    """Verdicts of an earlier text wait at place 0, and a stop may leave a survivor too many."""
    waiting, beyond = survivors("equivalent: it was", first=0), survivors(mutants.OWED, first=5)
    assert mutants.scored("a/b", "", 9, 4, waiting + beyond)["caught"] == 4


def test_a_score_has_fallen_only_if_chance_does_not_explain_it():
    table = [
        {"caught": 90, "mutants": 500, "judged": 100, "equivalent": 0},
        {"caught": 95, "mutants": 102, "judged": 102, "equivalent": 2},
    ]
    assert not mutants.fallen(100, 92, table)  # about what is stored, 92.5%
    assert not mutants.fallen(100, 87, table)
    assert mutants.fallen(100, 84, table)
    assert not mutants.fallen(0, 0, table)


@pytest.fixture
def lists(tmp_path, monkeypatch):
    """Two modules whose mutants need no tool: {name: (state, mutants)}; a mutant is its words."""
    first = [("f", f"x = {i}", f"x = {i + 1}", "Number") for i in range(12)]
    found = {"a/b": ("12345678", [*first, first[1]]), "c/d": ("1e234567", first[:2])}
    columns = ("where", "line", "mutant", "operator")
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(mutants, "PACKAGES", results.PACKAGES)
    monkeypatch.setattr(mutants, "listed", found.get)
    monkeypatch.setattr(mutants, "in_words", lambda m: dict(zip(columns, m, strict=True)))
    return found


def column(table, name, column):
    return [row[column] for row in mutants.stored(table, name)]


def decide(place, verdict):
    """Write a verdict by hand."""
    path = results.FOLDER / f"{mutants.SURVIVORS}.csv"
    table = pd.read_csv(path).set_index("place")
    table.loc[place, "verdict"] = verdict
    table.reset_index()[mutants.COLUMNS[mutants.SURVIVORS]].to_csv(path, index=False)


def test_modules_take_turns(lists):
    assert mutants.left(lists) == [
        *(("a/b", place) for place in range(1, 11)),
        ("c/d", 1),
        ("c/d", 2),
        *(("a/b", place) for place in range(11, 14)),
    ]
    mutants.record("c/d", 1, False)
    assert mutants.left(lists, each=2) == [("a/b", 1), ("a/b", 2), ("c/d", 2)]
    assert mutants.left(["c/d"], each=1) == []


def test_each_mutant_is_stored_as_soon_as_it_is_judged(lists):
    for place, survived in [(1, False), (2, True), (3, False)]:
        mutants.record("a/b", place, survived, 2.5)
        mutants.record("c/d", min(place, 2), False, 0.5)
        assert mutants.so_far("a/b")[0] == place
    assert results.load(mutants.SCORES)[1]["seconds"] == 9
    assert column(mutants.SURVIVORS, "a/b", "place") == [2]
    assert column(mutants.SURVIVORS, None, "verdict") == [mutants.OWED]
    assert column(mutants.SCORES, None, "caught") == [2, 2]
    assert column(mutants.SCORES, None, "score") == [66.7, 100.0]
    assert column(mutants.SCORES, None, "at_least") == [13.5, 100.0]


def test_a_stop_between_the_two_tables_leaves_nothing_twice(lists, monkeypatch):
    mutants.record("a/b", 1, False)
    with monkeypatch.context() as stop:
        stop.setattr(mutants, "scored", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            mutants.record("a/b", 2, True)
    assert mutants.so_far("a/b") == (1, [])
    mutants.record("a/b", 2, True)
    assert column(mutants.SURVIVORS, "a/b", "place") == [2]


def test_a_verdict_stays_with_its_line_though_the_module_changes(lists):
    for place in (1, 2, 3):
        mutants.record("a/b", place, True)
    decide(2, "equivalent: they never agree")
    decide(3, "equivalent: no one asks")
    mutants.verdicts()
    assert column(mutants.SCORES, "a/b", "equivalent") == [2]
    lists["a/b"] = "changed", lists["a/b"][1][1:5]
    assert mutants.left(["a/b"]) == [("a/b", place) for place in range(1, 5)]
    mutants.record("a/b", 1, True)  # the line that was at place 2
    verdicts = ["equivalent: no one asks", "equivalent: they never agree"]
    assert column(mutants.SURVIVORS, "a/b", "place") == [0, 1]
    assert column(mutants.SURVIVORS, "a/b", "verdict") == verdicts
    assert column(mutants.SCORES, "a/b", "equivalent") == [1]
    for place in (2, 3, 4):
        mutants.record("a/b", place, False)
    assert column(mutants.SURVIVORS, "a/b", "place") == [1]
    assert column(mutants.SCORES, "a/b", "state") == ["changed"]


def test_survivors_that_are_owed_a_test_are_judged_again(lists):
    """Two mutants may be the same in words: what is stored of one does not change the other."""
    for place in range(1, 14):
        mutants.record("a/b", place, place in (2, 5, 13))
    decide(5, "equivalent: it is")
    assert mutants.left(["a/b"], again=True) == [("a/b", 2), ("a/b", 13)]
    mutants.record("a/b", 2, False)
    mutants.record("a/b", 13, True)
    verdicts = [mutants.TESTED, "equivalent: it is", mutants.OWED]
    assert column(mutants.SURVIVORS, "a/b", "place") == [2, 5, 13]
    assert column(mutants.SURVIVORS, "a/b", "verdict") == verdicts
    assert mutants.left(lists, again=True) == [("a/b", 13)]
    assert column(mutants.SCORES, "a/b", "caught") == [11]
    mutants.record("a/b", 13, False)
    assert column(mutants.SURVIVORS, "a/b", "verdict") == [*verdicts[:2], mutants.TESTED]
    assert column(mutants.SCORES, "a/b", "score") == [100.0]
    mutants.record("a/b", 13, True)  # the test is gone again
    assert column(mutants.SURVIVORS, "a/b", "verdict") == verdicts
    lists["a/b"] = "changed", lists["a/b"][1]
    assert [row["verdict"] for row in mutants.so_far("a/b")[1]] == ["equivalent: it is"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of one module with two functions, one of which its test does not look at."""
    files = {
        "prosper_utils/__init__.py": "",
        "prosper_utils/pruning/__init__.py": "",
        "prosper_utils/pruning/order.py": "def larger(a, b):\n    return a > b\n\n\n"
        "def both(a, b):\n    return a and b\n",
        "tests/test_order.py": "from prosper_utils.pruning.order import larger\n\n\n"
        "def test_larger():\n    assert [larger(n, 1) for n in range(3)] == [False, False, True]\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "")
    for name, value in mutants.SETTINGS.items():
        monkeypatch.setenv(name, value)  # so that they are not set for other tests
    changes = {"core/ReplaceComparisonOperator_Gt_LtE", "core/ReplaceAndWithOr"}
    monkeypatch.setattr(mutants, "OPERATORS", changes)
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    monkeypatch.setattr(mutants, "WORK", tmp_path / "_build")
    monkeypatch.setattr(mutants, "modules", lambda: {"pruning/order": ["tests/test_order.py"]})
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    yield tmp_path
    forget()


CACHED = mutants.listed, mutants.copy_of


@pytest.fixture
def planter():
    """What plants faults, if it is installed."""
    pytest.importorskip("cosmic_ray")


def forget():
    """Forget what was found out of the project: another run is another process."""
    for cached in CACHED:
        cached.cache_clear()


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["mutants.py", "--jobs", "1", *arguments])
    forget()
    return mutants.main()


@pytest.mark.usefixtures("planter")
def test_the_list_is_shuffled_and_follows_from_the_text(project, monkeypatch):
    path = project / mutants.source("pruning/order")
    path.write_text("".join(f"def f{i}(a, b):\n    return a > b\n\n\n" for i in range(20)))
    state, found = mutants.listed("pruning/order")
    counts = [mutant.occurrence for mutant in found]
    assert sorted(counts) == list(range(20)) != counts
    assert mutants.in_words(found[0])["where"] == f"f{counts[0]}"
    forget()
    assert mutants.listed("pruning/order") == (state, found)
    forget()
    path.write_text(path.read_text() + "NAME = 1\n")
    other, again = mutants.listed("pruning/order")
    assert other != state
    assert [mutant.occurrence for mutant in again] != counts


@pytest.mark.usefixtures("planter")
def test_a_star_before_parameters_is_no_product(project, monkeypatch):
    monkeypatch.setattr(mutants, "OPERATORS", {"core/ReplaceBinaryOperator_Mul_Div"})
    path = project / mutants.source("pruning/order")
    path.write_text("def times(a, *, b=1):\n    return a * b\n")
    _, found = mutants.listed("pruning/order")
    assert [mutants.in_words(mutant)["mutant"] for mutant in found] == ["return a / b"]


@pytest.mark.usefixtures("planter")
def test_the_command_judges_each_mutant_once_and_goes_on_where_it_stopped(
    project, monkeypatch, capsys
):
    source = (project / "prosper_utils/pruning/order.py").read_text()
    assert run(monkeypatch, "--minutes", "0") == 0
    assert mutants.stored(mutants.SCORES) == []
    assert run(monkeypatch, "--each", "1") == 0
    assert "pruning/order: 1 of 2 judged" in capsys.readouterr().out
    assert run(monkeypatch) == 0
    assert "pruning/order: 2 of 2 judged, 50.0% caught" in capsys.readouterr().out
    assert column(mutants.SURVIVORS, "pruning/order", "where") == ["both"]
    assert column(mutants.SURVIVORS, "pruning/order", "mutant") == ["return a or b"]
    judged = []
    monkeypatch.setattr(mutants, "survives", lambda *case: judged.append(case))
    assert run(monkeypatch, "pruning/order") == 0
    assert judged == []
    assert (project / "prosper_utils/pruning/order.py").read_text() == source
    assert not (project / "_build" / "copies").exists()


@pytest.mark.usefixtures("planter")
def test_the_tests_of_a_module_are_timed_once(project, monkeypatch):
    asked, judged = [], []
    times = 7.0, {"seconds": {"test_larger": 0.5}, "called": {}}
    monkeypatch.setattr(mutants, "timed", lambda name: asked.append(name) or times)
    monkeypatch.setattr(mutants, "survives", lambda *case: judged.append(case))
    run(monkeypatch)
    assert asked == ["pruning/order"]
    assert judged == [("pruning/order", m, *times) for m in mutants.listed("pruning/order")[1]]


@pytest.mark.usefixtures("planter")
def test_new_tests_are_tried_on_survivors_and_a_sample_says_if_the_score_falls(
    project, monkeypatch, capsys
):
    path = project / "tests" / "test_order.py"
    before = path.read_text()
    run(monkeypatch)
    path.write_text(
        before.replace("larger\n", "both, larger\n", 1)
        + "\n\ndef test_both():\n    assert not both(True, False)\n    assert both(True, True)\n"
    )
    run(monkeypatch, "--again")
    assert column(mutants.SCORES, "pruning/order", "score") == [100.0]
    assert column(mutants.SURVIVORS, None, "verdict") == [mutants.TESTED]
    assert run(monkeypatch, "--sample", "9") == 0
    assert "caught" in capsys.readouterr().out
    path.write_text(before)
    assert run(monkeypatch, "--sample", "9") == 1
    assert (
        "not caught: pruning/order both: return a and b -> return a or b" in capsys.readouterr().out
    )
    path.write_text("def test_nothing():\n    assert False\n")
    (project / "results").rename(project / "old")
    with pytest.raises(ValueError, match="expected tests that pass, found"):
        run(monkeypatch)


MODULE, TEST = "prosper_utils/pruning/order.py", "tests/test_order.py"


def passes(project, *given, **changed):
    return mutants.passes("pruning/order", project, *given, **changed)[0]


def test_tests_of_another_package_do_not_pass(project):
    """The package of this project can be imported, too, and has no mutant in it."""
    (project / TEST).write_text("def test_nothing():\n    pass\n")
    assert passes(project)
    shutil.rmtree(project / "prosper_utils")
    with pytest.raises(ValueError, match=f"expected the package in .*found .*{ROOT.name}"):
        mutants.timed("pruning/order")


def test_mutants_of_one_second_are_not_mistaken_for_each_other(project):
    """Python takes compiled code for that of a file of the same size and second."""
    path, times = project / MODULE, {"test_larger": 1}
    for sign, right in ((">", True), ("<", False), (">", True)):
        path.write_text(path.read_text().replace(">", sign).replace("<", sign))
        os.utime(path, (1e9, 1e9))
        assert passes(project, order=times) is right


def test_what_does_not_end_is_stopped_with_all_that_it_started(project):
    text = """
import subprocess, time
def test_long():
    open("started.txt", "w").write(str(subprocess.Popen(["sleep", "600"]).pid))
    time.sleep(600)
"""
    (project / TEST).write_text(text)
    before = time.monotonic()
    assert not passes(project, limit=8)
    assert time.monotonic() - before < 300
    assert not runs(int((project / "started.txt").read_text()))


ASK = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import mutants, trial
trial.THEIRS[:] = ["pytest", "hypothesis"]
mutants.modules = lambda: {"pruning/order": ["tests/test_order.py"]}
mutants.passes("pruning/order", Path(sys.argv[2]))
"""


@pytest.mark.parametrize("stop", ["terminate", "kill"])
def test_a_trial_ends_with_the_command_however_it_is_stopped(project, stop):
    started = project / "started.txt"
    text = """
import os, subprocess
def test_endless():
    child = subprocess.Popen(["sleep", "600"]).pid
    open("new.txt", "w").write(f"{os.getpid()} {child}")
    os.rename("new.txt", "started.txt")
    while True:
        pass
"""
    (project / TEST).write_text(text)
    command = [sys.executable, "-c", ASK, ROOT / "book" / "tools", project]
    with subprocess.Popen(command) as process:
        wait_until(started.exists, 120)
        pids = [int(pid) for pid in started.read_text().split()]
        assert all(map(runs, pids))
        getattr(process, stop)()
    wait_until(lambda: not any(map(runs, pids)), 20)


def wait_until(happened, seconds):
    """Wait until something has happened, and fail if it does not."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def runs(pid):
    """Return whether a process goes on: one that has ended may be there until its end is read."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_process_that_goes_on_is_told_from_one_that_was_stopped():
    process = subprocess.Popen(["sleep", "600"])
    assert runs(process.pid)
    process.kill()
    time.sleep(0.5)
    assert not runs(process.pid)
    process.wait()
    assert not runs(process.pid)


def test_a_call_of_a_method_is_noted_under_its_own_name_and_others_are_not():
    plugin = trial.Plugin({})

    def call(file, name):
        code = SimpleNamespace(co_filename=file, co_name=name, co_qualname=f"A.made.{name}")
        plugin.note(SimpleNamespace(f_code=code), "call", None)

    call("/x/prosper_utils/a.py", "before any test")
    plugin.pytest_runtest_logstart("t")
    call("/x/prosper_utils/a.py", "method")
    call("/x/keras/a.py", "another")
    plugin.pytest_runtest_logstart("another")
    call("/x/prosper_utils/a.py", "second")
    assert plugin.called == {"t": {"method": 1}, "another": {"second": 1}}


def ids(*names):
    return [f"tests/test_order.py::test_{name}" for name in names]


@pytest.mark.usefixtures("planter")
def test_what_calls_the_function_goes_first_and_of_that_what_is_short(project):
    text = """
import time
from pathlib import Path
from prosper_utils.pruning.order import both, larger
def test_other():
    Path("other.txt").touch()
    assert larger(2, 1)
def test_long():
    time.sleep(0.2)
    Path("long.txt").touch()
    assert not both(True, False)
def test_short():
    assert not both(True, False)
"""
    (project / TEST).write_text(text)
    limit, noted = mutants.timed("pruning/order")
    other, long, short = ids("other", "long", "short")
    assert noted["seconds"][long] > 0.2 > noted["seconds"][short]
    assert [list(noted["called"][t]) for t in (other, short)] == [["larger"], ["both"]]
    folder = mutants.copy_of(threading.get_ident())
    for name in ("other.txt", "long.txt"):
        (folder / name).unlink()
    (mutation,) = [m for m in mutants.listed("pruning/order")[1] if "And" in m.operator_name]
    noted["seconds"][other] = 0
    assert not mutants.survives("pruning/order", mutation, limit, noted)
    assert not (folder / "other.txt").exists()
    assert not (folder / "long.txt").exists()


@pytest.mark.usefixtures("planter")
def test_what_has_caught_a_mutant_goes_earlier(project):
    """Of two tests that both catch it the second, once it counts for half as long."""
    text = """
from prosper_utils.pruning.order import both
def test_first():
    assert not both(True, False)
def test_second():
    assert not both(False, True)
"""
    (project / TEST).write_text(text)
    (mutation,) = [m for m in mutants.listed("pruning/order")[1] if "And" in m.operator_name]
    first, second = ids("first", "second")
    noted = {"seconds": {first: 0.5, second: 0.4}, "called": {}}
    for expected in (0.2, 0.1):
        assert not mutants.survives("pruning/order", mutation, 60, noted)
        assert noted["seconds"] == {first: 0.5, second: expected}


def test_one_failure_is_enough(project):
    """Nothing is spent on the smallest example, though the tests have settings of their own."""
    own = "from hypothesis import settings\nsettings.register_profile('own', max_examples=3)\n"
    (project / "tests" / "conftest.py").write_text(own + "settings.load_profile('own')\n")
    text = """
from hypothesis import Phase, given, settings, strategies
@given(strategies.integers())
def test_phases(n):
    assert settings.default.max_examples == 3
    assert not {Phase.shrink, Phase.explain} & set(settings.default.phases)
"""
    (project / TEST).write_text(text)
    assert passes(project)


def test_what_does_the_same_is_not_in_a_sample(lists, monkeypatch):
    asked = []
    monkeypatch.setattr(
        mutants,
        "in_order",
        lambda waiting, jobs, end: asked.extend(waiting) or [True] * len(waiting),
    )
    for place in range(1, 5):
        mutants.record("a/b", place, place == 3)
    decide(3, "equivalent: it is")
    judged, caught, missed = mutants.sample(9, 0, 1, float("inf"))
    lines = sorted(mutation[1] for _, mutation in asked)
    assert lines == ["x = 0", "x = 1", "x = 3"]
    assert (judged, caught, len(missed)) == (3, 0, 3)


def test_a_sample_leaves_out_a_module_that_has_changed(lists, monkeypatch):
    asked = []
    monkeypatch.setattr(mutants, "in_order", lambda waiting, *_: asked.extend(waiting) or [False])
    for place in (1, 2):
        mutants.record("a/b", place, False)
        mutants.record("c/d", place, False)
    lists["a/b"] = "changed", lists["a/b"][1]
    mutants.sample(9, "seed", 1, 0)
    assert {name for name, _ in asked} == {"c/d"}
    assert not mutants.fallen(0, 0, [])


def test_what_does_the_same_is_no_reason_for_a_lower_score():
    table = [{"caught": 80, "mutants": 100, "judged": 100, "equivalent": 20}]
    assert mutants.fallen(100, 97, table)  # all that could be caught were
    assert not mutants.fallen(100, 100, table)


@pytest.mark.usefixtures("planter")
def test_other_operators_are_another_list(project, monkeypatch):
    state, _ = mutants.listed("pruning/order")
    monkeypatch.setattr(mutants, "OPERATORS", {"core/ReplaceAndWithOr"})
    forget()
    assert mutants.listed("pruning/order")[0] != state


def test_tests_have_far_longer_than_they_take(tmp_path, monkeypatch):
    """The machine may be busier later, and what does not end in time counts as caught."""
    times, asked = iter([100.0, 107.0, 200.0]), []
    monkeypatch.setattr(mutants, "time", SimpleNamespace(monotonic=lambda: next(times)))
    monkeypatch.setattr(mutants, "copy_of", lambda thread: tmp_path)
    monkeypatch.setattr(mutants, "modules", lambda: {"a/b": ["one.py", "two.py"]})
    passed = iter([True, False])
    monkeypatch.setattr(
        mutants, "passes", lambda *given: asked.append(given) or (next(passed), {"failed": None})
    )
    assert mutants.timed("a/b") == (30 + 3 * 7, {"failed": None})
    (tmp_path / "said.txt").write_text("begun\n" + "x" * 1991 + "the error")
    with pytest.raises(ValueError, match=r"x{1991}the error") as failed:
        mutants.timed("a/b")
    assert str(failed.value).startswith("one.py, two.py: expected tests that pass, found\nxxx")
    assert asked == [("a/b", tmp_path)] * 2  # no limit, and in the order of the files


def test_each_mutant_is_stored_with_its_own_seconds(lists, monkeypatch):
    times = iter([100, 103, 110, 111, 115])
    clock = SimpleNamespace(monotonic=lambda: next(times), strftime=lambda form: "2026-01-02")
    monkeypatch.setattr(mutants, "time", clock)
    monkeypatch.setattr(mutants, "in_order", lambda waiting, *_: [False] * len(waiting))
    mutants.run(["a/b", "c/d"], 2, 1, 0)
    assert results.load(mutants.SCORES)[1]["seconds"] == 15


def test_a_verdict_is_on_one_module_and_not_on_an_equal_line_of_another(lists, monkeypatch):
    asked = []
    monkeypatch.setattr(mutants, "in_order", lambda waiting, *_: asked.extend(waiting) or [False])
    mutants.record("a/b", 1, True)
    mutants.record("c/d", 1, False)
    decide(1, "equivalent: it is")
    mutants.sample(9, 0, 1, float("inf"))
    assert [(name, mutation[1]) for name, mutation in asked] == [("c/d", "x = 0")]


def test_counting_verdicts_again_does_not_change_when_a_module_was_judged(lists):
    mutants.record("a/b", 1, True)
    (row,) = mutants.stored(mutants.SCORES)
    mutants.replace(mutants.SCORES, "a/b", [row | {"date": "2026-01-02"}])
    decide(1, "equivalent: it is")
    mutants.verdicts()
    assert mutants.stored(mutants.SCORES) == [
        row | {"date": "2026-01-02", "equivalent": 1, "score": 100.0, "at_least": 0.0}
    ]


def test_the_seed_draws_the_sample_and_comes_from_the_command(lists, monkeypatch):
    drawn = []
    monkeypatch.setattr(mutants, "in_order", lambda waiting, *_: drawn.append(waiting) or [False])
    for place in range(1, 14):
        mutants.record("a/b", place, False)
    for seed in ("2026-01", "2026-01", "2026-02"):
        mutants.sample(5, seed, 1, 0)
    assert drawn[0] == drawn[1] != drawn[2]
    asked = []
    monkeypatch.setattr(mutants, "sample", lambda *given: asked.append(given[:3]) or (0, 0, []))
    monkeypatch.setattr(mutants, "modules", dict)
    monkeypatch.setattr(mutants, "os", SimpleNamespace(environ={}))
    assert run_only(monkeypatch, "--sample", "5", "--seed", "7", "--jobs", "3") == 0
    assert asked == [(5, "7", 3)]


def run_only(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["mutants.py", *arguments])
    return mutants.main()


@pytest.mark.parametrize("fails", [True, False])
def test_no_copy_outlives_the_command(tmp_path, monkeypatch, fails):
    folder = tmp_path / "copies"
    monkeypatch.setattr(mutants, "WORK", tmp_path)
    monkeypatch.setattr(mutants, "os", SimpleNamespace(environ={}))
    monkeypatch.setattr(mutants, "stored", lambda *_: [])

    def judge(names, each, jobs, end, again):
        assert not folder.exists()  # of a command that was killed
        assert (names, each, jobs, again) == (["pruning/masks"], 4, 3, True)
        folder.mkdir()
        if fails:
            raise ValueError("expected tests that pass")

    folder.mkdir()
    monkeypatch.setattr(mutants, "run", judge)
    options = ["--each", "4", "--jobs", "3", "--again", "pruning/masks"]
    if fails:
        with pytest.raises(ValueError, match="expected tests that pass"):
            run_only(monkeypatch, *options)
    else:
        assert run_only(monkeypatch, *options) == 0
    assert not folder.exists()


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """In place of what plants faults, one that lists nodes of ours, and a project of one file.

    Return (the nodes, what was planted where); a node says at how many places an operator fits.
    """
    nodes, planted = [], []

    class Operator:
        def __init__(self, name):
            self.name = name

        def mutation_positions(self, node):
            return [((i, 0), (i, 9)) for i in range(node.places.get(self.name, 0))]

    @contextlib.contextmanager
    def use(path, operator, count):
        planted.append((path, operator.name, count))
        yield
        planted.append("restored")

    modules = {
        "ast": {"get_ast": str.split, "ast_nodes": lambda words: nodes if words else []},
        "ast.ast_query": {
            "ASTQuery": lambda node: SimpleNamespace(get_definition_name=lambda: node.where)
        },
        "plugins": {"get_operator": lambda name: functools.partial(Operator, name)},
        "work_item": {"MutationSpec": lambda *given: SimpleNamespace(**spec(*given))},
        "mutating": {
            "mutate_code": lambda text, operator, count: text.replace(operator.name, str(count)),
            "use_mutation": use,
        },
    }
    for name, found in modules.items():
        monkeypatch.setitem(sys.modules, f"cosmic_ray.{name}", SimpleNamespace(**found))
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    (tmp_path / MODULE).parent.mkdir(parents=True)
    (tmp_path / MODULE).write_text("x = 1\n")
    forget()
    yield nodes, planted
    forget()


def spec(path, operator, occurrence, start, end, arguments, where):
    return {
        "module_path": path,
        "operator_name": operator,
        "occurrence": occurrence,
        "lines": (start, end, arguments),
        "definition_name": where,
    }


def test_a_list_holds_every_place_of_every_operator_once(stand_in, monkeypatch):
    """They are counted as the tool counts them, which takes a bare star for a product."""
    monkeypatch.setattr(mutants, "OPERATORS", {"core/B", "core/A"})
    nodes, _ = stand_in
    plain = SimpleNamespace(type="file_input")
    star = {"type": "operator", "parent": SimpleNamespace(type="parameters"), "where": "f"}
    nodes += [
        SimpleNamespace(type="name", parent=plain, where="f", places={"core/A": 2}),
        SimpleNamespace(**star, places={"core/A": 1, "core/B": 1}),
        SimpleNamespace(type="name", parent=plain, where=None, places={"core/B": 2, "core/A": 1}),
    ]

    def digest(text):
        return hashlib.sha256(text.encode()).hexdigest()

    state, found = mutants.listed("pruning/order")
    assert state == digest("x = 1\ncore/A core/B")[:8]
    first, second = ((0, 0), (0, 9), {}), ((1, 0), (1, 9), {})
    expected = [
        ("core/A", 0, first, "f"),
        ("core/A", 1, second, "f"),
        ("core/A", 3, first, None),
        ("core/B", 1, first, None),
        ("core/B", 2, second, None),
    ]
    expected.sort(key=lambda case: digest(f"{state} {case[0]} {case[1]}"))
    assert [(m.operator_name, m.occurrence, m.lines, m.definition_name) for m in found] == expected
    assert {m.module_path for m in found} == {Path(MODULE)}


@pytest.mark.parametrize(
    ("node", "parent", "bare"),
    [
        ("operator", "parameters", True),
        ("operator", "term", False),
        ("param", "parameters", False),
        ("name", "term", False),
    ],
)
def test_only_an_operator_among_parameters_is_a_bare_star(node, parent, bare):
    found = SimpleNamespace(type=node, parent=SimpleNamespace(type=parent))
    assert mutants.is_bare_star(found) is bare


@pytest.mark.parametrize(
    ("text", "line", "mutant"),
    [
        ("def f(a):\n    return a + @\n\n\n", "return a + @", "return a + 7"),
        ("def f(a):\n    a = @\n    b = 0\n    c = @\n", "a = @ c = @", "a = 7 c = 7"),
        ("def f(a):\n    return a\n", "", ""),
    ],
)
def test_a_mutant_in_words_is_the_lines_that_differ(stand_in, tmp_path, text, line, mutant):
    (tmp_path / MODULE).write_text(text)
    for where in ("f", None):
        mutation = SimpleNamespace(**spec(Path(MODULE), "@", 7, 0, 0, {}, where))
        row = {"where": where or "", "line": line, "mutant": mutant, "operator": "@"}
        assert mutants.in_words(mutation) == row
        assert list(row) == mutants.COLUMNS[mutants.SURVIVORS][2:-1]
    mutation.operator_name = "core/@"
    assert mutants.in_words(mutation)["operator"] == "@"


def test_a_line_that_is_gone_has_no_other(stand_in, tmp_path, monkeypatch):
    (tmp_path / MODULE).write_text("@cache\ndef f():\n    pass\n")
    monkeypatch.setattr(
        sys.modules["cosmic_ray.mutating"], "mutate_code", lambda text, *_: text[len("@cache\n") :]
    )
    found = mutants.in_words(SimpleNamespace(**spec(Path(MODULE), "x", 0, 0, 0, {}, "f")))
    assert (found["line"], found["mutant"]) == ("@cache", "")


def test_each_thread_has_one_copy_without_what_no_test_reads(tmp_path, monkeypatch):
    monkeypatch.setattr(mutants, "ROOT", tmp_path / "project")
    monkeypatch.setattr(mutants, "WORK", tmp_path / "work")
    left_out = [".git", ".venv", "_build", "notebooks", "__pycache__", ".hypothesis"]
    for name in (*left_out, "tests", "tests/__pycache__", "book/notebooks"):
        (tmp_path / "project" / name).mkdir(parents=True)
        (tmp_path / "project" / name / "a.py").write_text(name)
    forget()
    for thread in (7, 7, 8):
        folder = mutants.copy_of(thread)
        assert folder == tmp_path / "work" / "copies" / str(thread)
        files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
        assert files == [Path("tests/a.py")]
    forget()


@pytest.mark.parametrize("status", [0, 1, -9])
@pytest.mark.parametrize("ended", [True, False])
def test_tests_run_in_a_process_that_is_ended_with_all_it_started(
    tmp_path, monkeypatch, status, ended
):
    """What an earlier trial noted is not taken for what this one notes."""
    done, folder = [], tmp_path
    (folder / "found.json").write_text('{"failed": "in the trial before"}')

    class Process:
        pid, exitcode = 77, status

        def __init__(self, target, args):
            done.append((target, args))

        def start(self):
            done.append("started")
            assert not (folder / "found.json").exists()
            if status >= 0:
                (folder / "found.json").write_text('{"failed": "now"}')

        def join(self, limit=None):
            done.append(("joined", limit))

    def kill(pid, number):
        done.append(("killed", pid, number))
        if ended:
            raise ProcessLookupError

    server = SimpleNamespace(set_forkserver_preload=done.append, Process=Process)
    monkeypatch.setattr(
        mutants, "multiprocessing", SimpleNamespace(get_context={"forkserver": server}.get)
    )
    monkeypatch.setattr(mutants, "os", SimpleNamespace(killpg=kill))
    monkeypatch.setattr(mutants, "modules", lambda: {"a/b": ["one.py"], "c/d": ["two.py"]})
    found = mutants.passes("c/d", folder, 5, {"t": 1})
    assert found == (status == 0, {"failed": "now"} if status >= 0 else {})
    assert done == [
        trial.THEIRS,
        (trial.run, (folder, ["two.py"], {"t": 1})),
        "started",
        ("joined", 5),
        ("killed", 77, signal.SIGKILL),
        ("joined", None),
    ]


def test_what_is_imported_once_can_be_imported_and_is_not_ours():
    """What cannot be imported is silently left out, and each trial would import it anew."""
    assert {"tensorflow", "keras", "pytest", "hypothesis", "pandas"} <= set(trial.THEIRS)
    for name in trial.THEIRS:
        assert importlib.util.find_spec(name)
        assert not name.startswith("prosper_utils")


def test_a_mutant_stands_in_the_copy_of_its_thread_while_tests_run(stand_in, monkeypatch):
    _, planted = stand_in
    outcomes = iter([(False, {"failed": "b"}), (False, {"failed": "conftest"}), (True, {})])
    asked = []

    def passes(*given):
        asked.append(given)
        assert planted[-1] != "restored"
        return next(outcomes)

    monkeypatch.setattr(mutants, "passes", passes)
    monkeypatch.setattr(mutants, "copy_of", lambda thread: Path("copy") / str(thread))
    folder = Path("copy") / str(threading.get_ident())
    mutation = SimpleNamespace(**spec(Path(MODULE), "core/A", 4, 0, 0, {}, "f"))
    noted = {"seconds": {"a": 1.5, "b": 0.5, "c": 3.0}, "called": {"b": {"f": 1}, "c": {"g": 1}}}
    for survived in (False, False, True):
        assert mutants.survives("pruning/order", mutation, 60, noted) is survived
        assert noted["seconds"] == {"a": 1.5, "b": 0.25, "c": 3.0}
    order = {"a": 1_000_001.5, "b": 0.5, "c": 1_000_003.0}
    assert asked == [
        ("pruning/order", folder, 60, order),
        *[("pruning/order", folder, 60, order | {"b": 0.25})] * 2,
    ]
    assert planted == [(folder / MODULE, "core/A", 4), "restored"] * 3


@pytest.fixture
def worked(monkeypatch):
    """Note what `in_order` times and judges, a second each, and with how many jobs."""
    found = SimpleNamespace(timed=[], judged=[], jobs=[], now=0.0)

    def one(into, case, outcome):
        into.append(case)
        found.now += 1
        return outcome

    def parallel(jobs, parallel=joblib.Parallel, **options):
        found.jobs.append(jobs)
        return parallel(jobs, **options)

    monkeypatch.setattr(joblib, "Parallel", parallel)
    monkeypatch.setattr(mutants, "time", SimpleNamespace(monotonic=lambda: found.now))
    monkeypatch.setattr(mutants, "timed", lambda name: one(found.timed, name, (ord(name), {})))
    monkeypatch.setattr(
        mutants, "survives", lambda *case: one(found.judged, case, case[1] in (2, 3))
    )
    return found


WAITING = [("b", 1), ("a", 2), ("b", 3), ("a", 4)]


def test_modules_are_timed_once_and_mutants_judged_in_order(worked):
    assert list(mutants.in_order(WAITING, 1, float("inf"))) == [False, True, True, False]
    assert worked.timed == ["b", "a"]
    assert worked.judged == [("b", 1, 98, {}), ("a", 2, 97, {}), ("b", 3, 98, {}), ("a", 4, 97, {})]
    assert worked.jobs == [1, 1]


def test_so_many_mutants_are_judged_at_a_time_as_there_are_jobs(worked):
    """They are judged by threads of this process, or none would be noted here."""
    assert list(mutants.in_order(WAITING, 2, float("inf"))) == [False, True, True, False]
    assert worked.jobs == [2, 2]
    assert (len(worked.timed), len(worked.judged)) == (2, 4)


@pytest.mark.parametrize(
    ("end", "modules", "count"), [(0, 0, 0), (1, 1, 0), (2, 2, 0), (3, 2, 1), (4, 2, 2), (9, 2, 4)]
)
def test_nothing_is_begun_after_the_end(worked, end, modules, count):
    assert list(mutants.in_order(WAITING, 1, end)) == [False, True, True, False][:count]
    assert (len(worked.timed), len(worked.judged)) == (modules, count)


def test_a_run_judges_what_is_left_of_each_module_and_stores_it(lists, monkeypatch):
    asked = []
    monkeypatch.setattr(
        mutants, "in_order", lambda *given: asked.append(given) or iter([True, False])
    )
    mutants.record("a/b", 1, False)
    (_, first), (_, second) = lists["a/b"], lists["c/d"]
    mutants.run(["a/b", "c/d"], 3, 2, 5.0)
    waiting = [("a/b", first[1]), ("a/b", first[2]), ("c/d", second[0]), ("c/d", second[1])]
    assert mutants.so_far("c/d") == (0, [])  # the time was over
    assert mutants.so_far("a/b")[0] == 3
    assert column(mutants.SURVIVORS, None, "place") == [2]
    mutants.run(["c/d", "a/b"], 3, 1, 6.0, True)
    assert asked == [(waiting, 2, 5.0), ([("a/b", first[1])], 1, 6.0)]


def test_both_tables_are_stored_in_order_with_what_determines_them(lists, monkeypatch):
    day = SimpleNamespace(strftime={"%Y-%m-%d": "2026-01-02"}.get)
    monkeypatch.setattr(mutants, "time", day)
    monkeypatch.setattr(mutants, "PACKAGES", ("pandas",))
    for name, place, seconds in (("c/d", 2, 1.5), ("a/b", 3, 2.0), ("a/b", 1, 0.5)):
        mutants.record(name, place, True, seconds)
    stored = {name: results.FOLDER / f"{name}.csv" for name in ("mutants", "mutants_survivors")}
    assert stored["mutants_survivors"].read_text().splitlines() == [
        "module,place,where,line,mutant,operator,verdict",
        "a/b,1,f,x = 0,x = 1,Number,a test is owed",
        "a/b,3,f,x = 2,x = 3,Number,a test is owed",
        "c/d,2,f,x = 1,x = 2,Number,a test is owed",
    ]
    assert stored["mutants"].read_text().splitlines() == [
        "module,date,state,mutants,judged,caught,equivalent,score,at_least",
        "a/b,2026-01-02,12345678,13,3,1,0,33.3,1.7",
        "c/d,2026-01-02,1e234567,2,2,1,0,50,50",
    ]
    for path in stored.values():
        provenance = json.loads(path.with_suffix(".json").read_text())
        assert provenance["seconds"] == 4.0
        assert list(provenance["versions"]) == ["pandas"]
        assert provenance["configuration"] == {
            "operators": sorted(mutants.OPERATORS),
            "tests": mutants.modules(),
        }


def test_what_is_stored_says_the_operators_and_the_version_of_what_plants():
    _, provenance = results.load(mutants.SCORES)
    assert provenance["configuration"]["operators"] == sorted(mutants.OPERATORS)
    assert tuple(provenance["versions"]) == mutants.PACKAGES


def test_verdicts_are_counted_for_the_module_that_they_are_on(lists):
    mutants.record("a/b", 5, True)
    for place in (1, 2):
        mutants.record("c/d", place, True)
    decide(5, "equivalent: it is")
    mutants.verdicts()
    assert column(mutants.SCORES, None, "module") == ["a/b", "c/d"]
    assert column(mutants.SCORES, None, "equivalent") == [1, 0]
    assert column(mutants.SCORES, None, "caught") == [4, 0]
    assert results.load(mutants.SCORES)[1]["seconds"] == 0


def test_what_a_sample_missed_is_in_words_and_what_was_not_judged_is_not_counted(
    lists, monkeypatch
):
    asked = []
    monkeypatch.setattr(
        mutants, "in_order", lambda *given: asked.append(given) or iter([False, True, False])
    )
    for place in range(1, 7):
        mutants.record("a/b", place, place == 2)
    decide(2, "equivalent: it is")
    judged, caught, missed = mutants.sample(6, "seed", 3, 7.0)
    ((waiting, jobs, end),) = asked
    assert len(waiting) == 5  # of which three were judged in time
    assert (judged, caught, jobs, end) == (3, 2, 3, 7.0)
    words = dict(zip(("where", "line", "mutant", "operator"), waiting[1][1], strict=True))
    assert missed == [{"module": "a/b"} | words]


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Note what the command calls, at the time 100; nothing is judged and nothing is stored."""
    found = SimpleNamespace(ran=[], sampled=[], counted=[], environment={"HOME": "here"})
    rows = {name: [] for name in mutants.modules()}
    rows["pruning/masks"] = [
        {"module": "pruning/masks", "judged": 9, "mutants": 99, "score": 87.654}
    ]
    clock = SimpleNamespace(monotonic=lambda: 100.0, strftime="week {}".format)
    monkeypatch.setattr(mutants, "time", clock)
    monkeypatch.setattr(mutants, "WORK", tmp_path)
    monkeypatch.setattr(mutants, "os", SimpleNamespace(environ=found.environment))
    monkeypatch.setattr(mutants, "stored", lambda table, name: rows[name])
    monkeypatch.setattr(mutants, "run", lambda *given: found.ran.append(given))
    monkeypatch.setattr(mutants, "verdicts", lambda: found.counted.append(True))
    monkeypatch.setattr(mutants, "unchanged", lambda: ["the table"])
    row = {"module": "a/b", "where": "f", "line": "x = 1", "mutant": "x = 2"}
    monkeypatch.setattr(
        mutants, "sample", lambda *given: found.sampled.append(given) or (5, 4, [row])
    )
    return found


def test_without_options_every_mutant_of_every_module_is_judged(command, monkeypatch, capsys):
    assert run_only(monkeypatch) == 0
    assert command.ran == [(list(mutants.modules()), None, 2, float("inf"), False)]
    assert capsys.readouterr().out == "pruning/masks: 9 of 99 judged, 87.7% caught\n"
    assert (command.sampled, command.counted) == ([], [])
    assert command.environment == {
        "HOME": "here",
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }


def test_every_option_of_the_command_arrives(command, monkeypatch, capsys):
    names = ["pruning/scores", "pruning/masks"]
    options = ["--each", "30", "--minutes", "1.5", "--jobs", "4", "--again"]
    assert run_only(monkeypatch, *names, *options) == 0
    assert command.ran == [(names, 30, 4, 190.0, True)]
    monkeypatch.setattr(mutants, "fallen", lambda *_: False)
    assert run_only(monkeypatch, "--sample", "6", "--minutes", "2") == 0
    assert run_only(monkeypatch, "--sample", "7", "--seed", "of mine", "--jobs", "3") == 0
    assert command.sampled == [(6, "week %G-%V", 2, 220.0), (7, "of mine", 3, float("inf"))]
    assert len(command.ran) == 1


def test_verdicts_alone_are_counted_without_judging(command, monkeypatch):
    assert run_only(monkeypatch, "--verdicts") == 0
    assert command.counted == [True]
    assert (command.ran, command.sampled) == ([], [])


def test_a_module_that_is_not_there_is_refused(command, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        run_only(monkeypatch, "pruning/none", "pruning/masks", "a/b")
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert f"expected some of {', '.join(mutants.modules())}; found a/b, pruning/none\n" in said
    assert command.ran == []


@pytest.mark.parametrize("low", [True, False])
def test_a_sample_says_what_was_missed_and_fails_if_the_score_has_fallen(
    command, monkeypatch, capsys, low
):
    asked = []
    monkeypatch.setattr(mutants, "fallen", lambda *given: asked.append(given) or low)
    assert run_only(monkeypatch, "--sample", "5") == int(low)
    assert asked == [(5, 4, ["the table"])]
    said = "not caught: a/b f: x = 1 -> x = 2\n4 of 5 caught"
    assert capsys.readouterr().out == said + (": the score has fallen\n" if low else "\n")


def test_what_comes_first_in_an_order_goes_first_and_the_rest_stays():
    plugin = trial.Plugin({"late": 3, "early": 1, "middle": 2})
    items = [SimpleNamespace(nodeid=name) for name in ("late", "x", "middle", "early", "a")]
    plugin.pytest_collection_modifyitems(items)
    assert [item.nodeid for item in items] == ["x", "a", "early", "middle", "late"]


def test_a_test_takes_as_long_as_its_parts_and_a_failure_of_any_is_noted():
    plugin = trial.Plugin({})
    assert plugin.failed is None
    for name, seconds, failed in [("a", 1, False), ("a", 2, True), ("a", 4, False), ("b", 8, 0)]:
        plugin.pytest_runtest_logreport(
            SimpleNamespace(nodeid=name, duration=seconds, failed=failed)
        )
    assert (plugin.seconds, plugin.failed) == ({"a": 7, "b": 8}, "a")


@pytest.mark.parametrize("order", [None, {}, {"t": 2.0}])
def test_a_trial_goes_to_its_folder_and_leaves_what_it_found(tmp_path, monkeypatch, order):
    done = []

    def tests(folder, names, plugin):
        done.append((folder, names, plugin.order))
        assert Path.cwd() == tmp_path
        plugin.seconds["t"] += 1.5
        plugin.called["t"] = {"f": 1}
        plugin.failed = "t"
        return 3

    calls = {
        name: lambda *given, name=name: done.append((name, *given)) for name in ("setsid", "dup2")
    }
    system = SimpleNamespace(**calls, chdir=monkeypatch.chdir, O_WRONLY=1, O_CREAT=2, O_TRUNC=4)
    system.open = lambda name, how: done.append((Path(name).absolute(), how)) or 77
    python = SimpleNamespace(exit=sys.exit, dont_write_bytecode=None)
    python.settrace = lambda note: done.append(note and note.__name__)
    monkeypatch.chdir(tmp_path.parent)
    monkeypatch.setattr(trial, "os", system)
    monkeypatch.setattr(trial, "sys", python)
    monkeypatch.setattr(trial, "_pytest", tests)
    watched, processes = [], SimpleNamespace(parent_process=lambda: "the command")
    monkeypatch.setattr(trial, "multiprocessing", processes)
    monkeypatch.setattr(trial, "end_with", watched.append)
    with pytest.raises(SystemExit) as ended:
        trial.run(tmp_path, ["one.py"], order)
    assert ended.value.code == 3
    wait_until(lambda: watched == ["the command"], 10)
    first = order is None
    assert done == [
        ("setsid",),
        (tmp_path / "said.txt", 1 | 2 | 4),
        ("dup2", 77, 1),
        ("dup2", 77, 2),
        "note" if first else None,
        (str(tmp_path), ["one.py"], order or {}),
    ]
    assert python.dont_write_bytecode is not first
    assert json.loads((tmp_path / "found.json").read_text()) == {
        "seconds": {"t": 1.5},
        "called": {"t": {"f": 1}},
        "failed": "t",
    }


@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_trial_imports_the_package_of_its_folder_anew(monkeypatch, capsys, elsewhere):
    ours = Path(prosper_utils.__file__).parents[1]
    folder, asked, profiles = str(ours / "copy") if elsewhere else str(ours), [], []
    loaded = ("prosper_utils", "prosper_utils.pruning", "prosper_utils_other", "keras")
    found = SimpleNamespace(modules=dict.fromkeys(loaded), path=["before"])
    environment = SimpleNamespace(environ={})
    settings = SimpleNamespace(
        register_profile=lambda name, phases: profiles.append((name, [p.name for p in phases])),
        load_profile=profiles.append,
    )
    monkeypatch.setattr(trial, "sys", found)
    monkeypatch.setattr(trial, "os", environment)
    monkeypatch.setattr(hypothesis, "settings", settings)
    monkeypatch.setattr(pytest, "main", lambda *given, **more: asked.append((given, more)) or 4)
    plugin = trial.Plugin({})
    assert trial._pytest(folder, ["one.py", "two.py"], plugin) == (1 if elsewhere else 4)
    said = f"expected the package in {folder}, found {prosper_utils.__file__}\n"
    assert capsys.readouterr().out == (said if elsewhere else "")
    assert list(found.modules) == ["prosper_utils_other", "keras"]
    assert found.path == [folder, "before"]
    assert environment.environ == {"PYTHONPATH": folder}
    assert profiles == [("trial", ["explicit", "reuse", "generate", "target"]), "trial"]
    options = ["-x", "-q", "--tb=short", "-p", "no:cacheprovider", "-o", "addopts="]
    assert asked == [(([*options, "one.py", "two.py"],), {"plugins": [plugin]})]


def test_a_trial_ends_with_the_first_failure_and_takes_no_options_of_the_project(project):
    """It says which test that was, and leaves nothing that another trial would begin with."""
    (project / "pyproject.toml").write_text('[tool.pytest.ini_options]\naddopts = "--unknown"\n')
    (project / TEST).write_text("""
import os, subprocess, sys
def test_first():
    print("a line for said.txt", file=sys.stderr)
    code = "import prosper_utils; print(prosper_utils.__file__)"
    found = subprocess.check_output([sys.executable, "-c", code], cwd="/", text=True)
    assert found.strip() == os.path.join(os.getcwd(), "prosper_utils", "__init__.py")
    assert False, "a reason"
def test_second():
    pass
""")
    passed, found = mutants.passes("pruning/order", project)
    first, second = ids("first", "second")
    assert not passed
    assert found["failed"] == first
    assert second not in found["seconds"]
    said = (project / trial.SAID).read_text()
    assert "a line for said.txt" in said
    assert "AssertionError: a reason" in said
    assert not (project / ".pytest_cache").exists()
