"""Planted faults: which modules and tests they are of, what is counted, and one run of the tool."""

import sys

from prosper_utils.study import results

import mutants
import pandas as pd
import pytest
from conftest import ROOT


def test_every_module_has_tests_that_are_there():
    found = mutants.modules()
    wings = [ROOT / "prosper_utils" / wing for wing in mutants.WINGS]
    files = [f"{wing.name}/{p.stem}" for wing in wings for p in wing.glob("*.py")]
    assert {name for name in files if "__init__" not in name} <= set(found)
    for name, tests in found.items():
        assert (ROOT / mutants.source(name)).is_file()
        assert tests
        assert all((ROOT / test).is_file() for test in tests)
        assert any(test.startswith(f"tests/{name.split('/')[0]}/") for test in tests)


def survivors(*verdicts):
    return [
        {"module": "a/b", "where": "f", "line": f"x = {i}", "mutant": f"x = {i + 1}", "verdict": v}
        for i, v in enumerate(verdicts)
    ]


def test_what_does_the_same_is_not_counted():
    rows = survivors(mutants.OWED, "equivalent: x is not used", mutants.OWED)
    found = mutants.scored("a/b", 11, rows)
    assert found | {"date": ""} == {
        "module": "a/b",
        "date": "",
        "mutants": 11,
        "caught": 8,
        "equivalent": 1,
        "score": 80.0,
    }
    assert mutants.scored("a/b", 8, [])["score"] == 100
    assert mutants.scored("a/b", 1, survivors("equivalent: it is"))["score"] == 100


def test_a_score_has_fallen_only_if_chance_does_not_explain_it():
    table = pd.DataFrame({"caught": [90, 95], "mutants": [100, 102], "equivalent": [0, 2]})
    assert not mutants.fallen(100, 92, table)  # about what is stored, 92.5%
    assert not mutants.fallen(100, 87, table)
    assert mutants.fallen(100, 84, table)
    assert not mutants.fallen(0, 0, table)


def test_a_verdict_stays_with_its_line_and_other_modules_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(mutants, "PACKAGES", results.PACKAGES)
    columns = ("where", "line", "mutant", "operator")
    monkeypatch.setattr(mutants, "in_words", lambda work: dict(zip(columns, work, strict=True)))
    first, second = ("f", "x = 1", "x = 2", "Number"), ("g", "a < b", "a <= b", "Lt_LtE")
    mutants.store("a/b", range(10), [first, second], 2.5)
    mutants.store("c/d", range(5), [], 1.5)
    assert results.load(mutants.SCORES)[1]["seconds"] == 4
    table = mutants.stored(mutants.SURVIVORS)
    assert table.verdict.tolist() == [mutants.OWED] * 2
    table.loc[1, "verdict"] = "equivalent: they never agree"
    mutants.save(mutants.SURVIVORS, table)
    mutants.verdicts()
    assert mutants.stored(mutants.SCORES).equivalent.tolist() == [1, 0]
    mutants.store("a/b", range(11), [second])
    found = mutants.stored(mutants.SURVIVORS)
    assert found.verdict.tolist() == ["equivalent: they never agree"]
    scores = mutants.stored(mutants.SCORES).set_index("module")
    assert scores.caught.to_dict() == {"a/b": 10, "c/d": 5}
    assert scores.score.to_dict() == {"a/b": 100.0, "c/d": 100.0}
    mutants.store("a/b", range(11), [])
    assert mutants.stored(mutants.SURVIVORS).empty
    assert list(mutants.stored(mutants.SURVIVORS)) == mutants.COLUMNS[mutants.SURVIVORS]


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
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they take most of the time
    changes = {"core/ReplaceComparisonOperator_Gt_LtE", "core/ReplaceAndWithOr"}
    monkeypatch.setattr(mutants, "OPERATORS", changes)
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    monkeypatch.setattr(mutants, "WORK", tmp_path / "_build")
    monkeypatch.setattr(mutants, "modules", lambda: {"pruning/order": ["tests/test_order.py"]})
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    mutants.copy.cache_clear()
    yield tmp_path
    mutants.copy.cache_clear()


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["mutants.py", "--jobs", "1", *arguments])
    mutants.copy.cache_clear()
    return mutants.main()


def test_the_command_judges_each_mutant_once_and_goes_on_where_it_stopped(
    project, monkeypatch, capsys
):
    source = (project / "prosper_utils/pruning/order.py").read_text()
    assert run(monkeypatch, "--minutes", "0") == 0
    assert "pruning/order: not done yet" in capsys.readouterr().out
    assert mutants.stored(mutants.SCORES).empty
    assert run(monkeypatch) == 0
    (row,) = mutants.stored(mutants.SCORES).to_dict("records")
    found = mutants.stored(mutants.SURVIVORS)
    assert found["where"].tolist() == ["both"]
    assert found.mutant.tolist() == ["return a or b"]
    assert (row["mutants"], row["caught"], row["score"]) == (2, 1, 50.0)
    judged = []
    monkeypatch.setattr(mutants, "judge", lambda *case: judged.append(case))
    assert run(monkeypatch, "pruning/order") == 0
    assert judged == []
    assert (project / "prosper_utils/pruning/order.py").read_text() == source
    assert not (project / "_build" / "copies").exists()


def test_new_tests_are_tried_on_survivors_and_a_sample_says_if_the_score_falls(
    project, monkeypatch, capsys
):
    path = project / "tests" / "test_order.py"
    before = path.read_text()
    path.write_text(
        before.replace("larger\n", "both, larger\n", 1)
        + "\n\ndef test_both():\n    assert not both(True, False)\n    assert both(True, True)\n"
    )
    run(monkeypatch)
    assert mutants.stored(mutants.SCORES).score.tolist() == [100.0]
    assert run(monkeypatch, "--sample", "9") == 0
    assert "caught" in capsys.readouterr().out
    path.write_text(before)
    assert run(monkeypatch, "--sample", "9") == 1
    assert (
        "not caught: pruning/order both: return a and b -> return a or b" in capsys.readouterr().out
    )
    path.write_text("def test_nothing():\n    assert False\n")
    (project / "_build").rename(project / "old")
    with pytest.raises(ValueError, match="expected tests that pass, found"):
        run(monkeypatch)
