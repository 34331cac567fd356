"""The Makefile: it lists its targets, and says in one sentence what Python it needs."""

import os
import re
import shutil
import subprocess

import pytest
from conftest import ROOT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(*arguments):
    """Run make outside of the make that may be running these tests."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    command = ["make", *arguments]
    return subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, check=False)


def test_help_lists_every_target():
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    listed = re.findall(r"^  make (\w+)  +\w", make("help").stdout, re.MULTILINE)
    assert sorted(listed) == sorted(phony[1].split())


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        (None, "needs Python 3.11, 3.12 or 3.13, and '.*python' was not found"),
        ('[ "$1" = --version ] && echo Python 3.9.2; exit 1', "needs .* is Python 3.9.2. If you"),
        ('case "$2" in *venv*) exit 1;; esac', "needs Python's venv module.*python3-venv"),
    ],
    ids=["none", "too old", "no venv"],
)
def test_a_python_that_will_not_do_gets_one_clear_sentence(tmp_path, script, sentence):
    python = tmp_path / "python"
    if script:
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
    run = make("venv", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}")
    assert run.returncode != 0
    assert re.search(sentence, run.stdout)
    assert len(run.stdout.strip().splitlines()) == 1
