"""What runs elsewhere: workflows, pre-commit, Binder and containers run what is tested here."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from conftest import ROOT

FOLDER = ROOT / ".github" / "workflows"
TEXTS = {path.stem: path.read_text() for path in sorted(FOLDER.glob("*.yml"))}
WORKFLOWS = {name: yaml.safe_load(text) for name, text in TEXTS.items()}
JOBS = {(name, job): w["jobs"][job] for name, w in WORKFLOWS.items() for job in w["jobs"]}
STEPS = [(name, job, step) for (name, job), j in JOBS.items() for step in j["steps"]]
TARGETS = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()

# Only these may do more than read the repository, and only this.
MAY_WRITE = {
    ("publish", "deploy"): {"pages": "write", "id-token": "write"},
    ("weekly", "report"): {"issues": "write"},
}


def pythons():
    """Return the Pythons that pyproject.toml states."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))


def triggers(workflow):
    return workflow[True]  # YAML 1.1 takes the key "on" for a truth value


def test_there_are_three_workflows_with_their_triggers():
    found = {name: sorted(triggers(w)) for name, w in WORKFLOWS.items()}
    assert found == {
        "ci": ["pull_request", "push"],
        "publish": ["push", "workflow_dispatch"],
        "weekly": ["schedule", "workflow_dispatch"],
    }
    for name in ("ci", "publish"):
        assert triggers(WORKFLOWS[name])["push"] == {"branches": ["main"]}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_no_workflow_may_do_anything_by_itself_or_runs_beside_itself(name):
    assert WORKFLOWS[name]["permissions"] == {}
    assert WORKFLOWS[name]["concurrency"]["group"]
    assert "secrets." not in TEXTS[name]


@pytest.mark.parametrize(("name", "job"), JOBS)
def test_a_job_may_do_what_it_must_and_ends(name, job):
    found = JOBS[name, job]
    assert found["permissions"] == MAY_WRITE.get((name, job), {"contents": "read"})
    assert found["timeout-minutes"] <= 120
    assert re.fullmatch(r"ubuntu-\d\d\.04", found["runs-on"])


@pytest.mark.parametrize("name", TEXTS)
def test_every_action_is_pinned_by_its_commit_with_its_version_beside_it(name):
    lines = [line for line in TEXTS[name].splitlines() if "uses:" in line]
    pinned = r"\s+(- )?uses: actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+"
    assert lines
    assert [line for line in lines if not re.fullmatch(pinned, line)] == []


def test_an_action_is_of_one_version_everywhere():
    found = re.findall(r"uses: ([\w/-]+)@(.*)", "\n".join(TEXTS.values()))
    assert len({action for action, _ in found}) == len(set(found))


@pytest.mark.parametrize(("name", "job", "step"), STEPS)
def test_a_step_runs_targets_of_the_makefile(name, job, step):
    if (name, job) == ("weekly", "report"):
        assert re.findall(r"gh issue (\w+)", step["run"]) == ["list", "comment", "create"]
        assert "${{" not in step["run"]  # values come by the environment, not pasted into a script
    elif "run" in step:
        make, target = step["run"].split()
        assert (make, target in TARGETS) == ("make", True), step["run"]


def test_a_checkout_leaves_no_credentials_behind():
    found = [step["with"] for _, _, step in STEPS if "actions/checkout@" in step.get("uses", "")]
    assert found
    assert all(given == {"persist-credentials": False} for given in found)


def test_the_workflows_run_all_that_make_test_and_make_book_do():
    runs = {name: {s.get("run") for n, _, s in STEPS if n == name} for name in WORKFLOWS}
    assert runs["ci"] >= {"make lint", "make unit", "make nbval", "make book", "make linkcheck"}
    assert runs["publish"] >= {"make book", "make linkcheck"}
    assert runs["weekly"] >= {"make pins", "make test", "make book", "make links"}
    assert runs["weekly"] >= {"make sample", "make shuffled"}


def test_another_order_is_that_of_all_unit_tests_in_one_process():
    (line,) = [line for line in recipe("shuffled") if "pytest" in line]
    words = line.split()
    assert "tests" in words
    assert "no:xdist" in words
    assert any(word.startswith("--random-order-seed=") for word in words)


@pytest.mark.parametrize(
    ("name", "job", "target"),
    [("ci", "unit", "unit"), ("weekly", "latest", "test"), ("publish", "build", "book")],
)
def test_exported_proofs_are_checked_by_others_wherever_tests_run(name, job, target):
    runs = [step.get("run") for step in JOBS[name, job]["steps"]]
    assert runs.index("make checker") < runs.index(f"make {target}")
    assert "metamath" in (ROOT / ".ci" / "run").read_text()
    assert any("apt-get install" in line and "metamath" in line for line in recipe("checker"))


def test_every_python_that_we_state_is_tested():
    assert JOBS["ci", "unit"]["strategy"]["matrix"]["python"] == pythons()
    (used,) = {
        step["with"]["python-version"]
        for _, _, step in STEPS
        if "actions/setup-python@" in step.get("uses", "")
    } - {"${{ matrix.python }}"}
    assert used in pythons()


def test_reports_of_what_failed_are_kept():
    kept = {(n, job): s for n, job, s in STEPS if "upload-artifact@" in s.get("uses", "")}
    assert set(kept) == {("ci", "book"), ("weekly", "latest")}
    for step in kept.values():
        assert step["if"] == "failure()"
        assert "_build/html/reports" in step["with"]["path"].split()


def test_only_main_is_published_and_only_failures_are_reported():
    assert JOBS["publish", "deploy"]["if"] == "github.ref == 'refs/heads/main'"
    assert JOBS["publish", "deploy"]["needs"] == "build"
    report = JOBS["weekly", "report"]
    assert report["if"] == "failure()"
    assert set(report["needs"]) == set(WORKFLOWS["weekly"]["jobs"]) - {"report"}


def test_a_chapter_that_fails_leaves_a_report_and_no_book(tmp_path):
    """What `if: failure()` uploads is there: the traceback, though the build has failed."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    mine = {"execute": config["execute"], "sphinx": {"config": {}}, "only_build_toc_files": True}
    for key in ("nb_execution_raise_on_error", "nb_merge_streams"):
        mine["sphinx"]["config"][key] = config["sphinx"]["config"][key]
    cells = [nbformat.v4.new_markdown_cell("# A"), nbformat.v4.new_code_cell("1 / 0")]
    python3 = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=python3), tmp_path / "a.ipynb")
    (tmp_path / "_config.yml").write_text(yaml.safe_dump(mine))
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: a\n")
    rule = re.search(r"\$\(BIN\)/(jupyter-book build \..*)", (ROOT / "Makefile").read_text())[1]
    command, *rest = shlex.split(rule)
    run = [Path(sys.executable).with_name(command), *rest]
    failed = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert failed.returncode != 0
    assert "ZeroDivisionError" in (tmp_path / "_build/html/reports/a.err.log").read_text()


def recipe(target):
    """Return the commands that make would run for a target, in an environment that is ready."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "-n", "-o", ".venv/ready", target]
    return subprocess.run(
        command, cwd=ROOT, env=clean, capture_output=True, text=True, check=True
    ).stdout.splitlines()


def test_pre_commit_runs_what_make_lint_runs():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"  # the project's own environment, so no other version
    hooks = repository["hooks"]
    assert [hook["entry"] for hook in hooks] == recipe("lint")
    assert all(h["language"] == "system" and h["pass_filenames"] is False for h in hooks)


def test_the_ruff_that_they_run_is_the_one_that_is_pinned():
    ruff = Path(sys.executable).with_name("ruff")
    version = subprocess.run([ruff, "--version"], capture_output=True, text=True, check=True)
    pin = version.stdout.strip().replace(" ", "==")
    assert pin in (ROOT / "requirements.txt").read_text().splitlines()


def test_binder_builds_the_pins_and_the_package():
    folder = ROOT / ".binder"
    included = re.findall(r"^-r (.*)$", (folder / "requirements.txt").read_text(), re.MULTILINE)
    assert [(folder / name).resolve() for name in included] == [ROOT / "requirements.txt"]
    assert (folder / "runtime.txt").read_text().strip() in [f"python-{p}" for p in pythons()]
    assert os.access(folder / "postBuild", os.X_OK)
    assert "--no-deps --no-build-isolation --editable ." in (folder / "postBuild").read_text()


def test_the_container_has_a_python_that_we_state_and_is_made_ready_by_make():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert re.fullmatch(r"python:(3\.\d+)-\w+", container["image"])[1] in pythons()
    make, target = container["postCreateCommand"].split()
    assert (make, target in TARGETS) == ("make", True)
