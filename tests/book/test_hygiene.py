"""What the files of the project must not hold, and what the pins must."""

import itertools
import re
import subprocess
import tomllib

import pytest
from conftest import ROOT


def tracked():
    run = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / line for line in run.stdout.splitlines() if (ROOT / line).is_file()]


def test_no_paths_of_a_machine_and_no_registries():
    forbidden = re.compile(r"/(home|root|Users)/\w|pypi\.org|pythonhosted|npmjs")
    for path in tracked():
        if path.name != "test_hygiene.py":
            found = forbidden.search(path.read_text(errors="replace"))
            assert not found, f"{path.name}: {found[0]}"


def test_every_requirement_is_pinned_exactly_and_covers_the_project():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.match(r"[\w.-]+==[\w.+!]+( ;.*)?$", pin) for pin in pins)
    pinned = {pin.split("==")[0] for pin in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    lines = itertools.chain(project["dependencies"], *optional.values())
    wanted = {re.match(r"[\w-]+", line)[0] for line in lines}
    # Pinned by their extras: what one command alone takes, and a runtime that nothing here needs.
    apart = {name: optional[name][0] for name in ("torch", "mutants", "order", "lite")}
    assert all("==" in line for line in apart.values())
    names = {line.split("==")[0] for line in apart.values()}
    assert wanted - {project["name"], *names} <= pinned
