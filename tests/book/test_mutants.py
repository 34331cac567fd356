"""Planted faults: which modules and tests they are of, what is counted, and one run of the tool."""

import os
import shutil
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

from prosper_utils.study import results

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
    for name, tests in found.items():
        assert (ROOT / mutants.source(name)).is_file()
        assert tests
        assert all((ROOT / test).is_file() for test in tests)
        assert any(test.startswith(f"tests/{name.split('/')[0]}/") for test in tests)


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
    pytest.importorskip("cosmic_ray")
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


def forget():
    """Forget what was found out of the project: another run is another process."""
    for cached in (mutants.listed, mutants.copy_of):
        cached.cache_clear()


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["mutants.py", "--jobs", "1", *arguments])
    forget()
    return mutants.main()


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


def test_a_star_before_parameters_is_no_product(project, monkeypatch):
    monkeypatch.setattr(mutants, "OPERATORS", {"core/ReplaceBinaryOperator_Mul_Div"})
    path = project / mutants.source("pruning/order")
    path.write_text("def times(a, *, b=1):\n    return a * b\n")
    _, found = mutants.listed("pruning/order")
    assert [mutants.in_words(mutant)["mutant"] for mutant in found] == ["return a / b"]


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


def test_the_tests_of_a_module_are_timed_once(project, monkeypatch):
    asked, judged = [], []
    times = 7.0, {"seconds": {"test_larger": 0.5}, "called": {}}
    monkeypatch.setattr(mutants, "timed", lambda name: asked.append(name) or times)
    monkeypatch.setattr(mutants, "survives", lambda *case: judged.append(case))
    run(monkeypatch)
    assert asked == ["pruning/order"]
    assert judged == [("pruning/order", m, *times) for m in mutants.listed("pruning/order")[1]]


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


def test_other_operators_are_another_list(project, monkeypatch):
    state, _ = mutants.listed("pruning/order")
    monkeypatch.setattr(mutants, "OPERATORS", {"core/ReplaceAndWithOr"})
    forget()
    assert mutants.listed("pruning/order")[0] != state


def test_tests_have_far_longer_than_they_take(project, monkeypatch):
    """The machine may be busier later, and what does not end in time counts as caught."""
    times = iter([100.0, 107.0])
    monkeypatch.setattr(mutants, "time", SimpleNamespace(monotonic=lambda: next(times)))
    assert mutants.timed("pruning/order")[0] >= 30 + 7


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
    monkeypatch.setattr(mutants.os, "environ", {})
    assert run_only(monkeypatch, "--sample", "5", "--seed", "7", "--jobs", "3") == 0
    assert asked == [(5, "7", 3)]


def run_only(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["mutants.py", *arguments])
    return mutants.main()


@pytest.mark.parametrize("fails", [True, False])
def test_no_copy_outlives_the_command(tmp_path, monkeypatch, fails):
    folder = tmp_path / "copies"
    monkeypatch.setattr(mutants, "WORK", tmp_path)
    monkeypatch.setattr(mutants.os, "environ", {})
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
