"""The house: arrows between the wings run one way, and a wing needs only what it says."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile

import pytest
from conftest import ROOT

PACKAGE = ROOT / "prosper_utils"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAY_USE = {
    "lookahead": set(),
    "pruning": {"lookahead"},
    "blending": {"lookahead"},
    "study": {"lookahead", "pruning"},
}
WINGS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
MODULES = sorted(PACKAGE.rglob("*.py"))
IMPORTED = {"scikit-learn": "sklearn", "matplotlib-inline": "matplotlib_inline"}
STUDY = [re.match(r"[\w-]+", line)[0] for line in PROJECT["optional-dependencies"]["study"]]
BLOCKED = [IMPORTED.get(name, name) for name in STUDY]
IMPORT_ALL = """
import importlib, json, sys
sys.modules.update(dict.fromkeys(json.loads(sys.argv[1])))  # an import of these now fails
for module in json.loads(sys.argv[2]):
    print(importlib.import_module(module).__file__, flush=True)
"""


def dotted(path):
    """Return the name by which a module of the package is imported."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(path):
    """Return the names that a module imports, as `package.module`, wherever it does so."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: expected absolute imports"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_these_are_the_wings():
    assert sorted(MAY_USE) == WINGS
    loose = {path.stem for path in PACKAGE.glob("*.py")}
    assert loose == {"__init__", "progress"}  # what belongs to no wing


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_arrows_run_one_way(path):
    own = [name.split(".") for name in imported(path) if name.startswith("prosper_utils.")]
    wings = {name[1] for name in own} & set(WINGS)
    here = path.parent.name
    assert wings <= MAY_USE.get(here, set()) | {here}
    assert here in WINGS or not own  # what belongs to no wing needs none


@pytest.mark.parametrize("wing", WINGS)
def test_a_wing_says_its_idea_its_equation_and_its_modules(wing):
    tree = ast.parse((PACKAGE / wing / "__init__.py").read_text())
    text = ast.get_docstring(tree)
    assert len(tree.body) == 1, "expected a docstring and no imports"
    assert ".. math::" in text
    lines = re.findall(r"^\* (.*?):", text, re.MULTILINE)
    listed = [name for line in lines for name in re.findall(r"`(\w+)`", line)]
    assert sorted(listed) == sorted(p.stem for p in (PACKAGE / wing).glob("[a-z]*.py"))


def test_only_study_needs_what_its_extra_brings():
    for path in MODULES:
        if path.parent.name != "study":
            needed = {name.split(".")[0] for name in imported(path)}
            assert needed & set(BLOCKED) <= ({"tqdm"} if path.stem == "progress" else set()), path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Return the wheel of the package, built from a copy: nothing is written into the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for path in [*MODULES, *(ROOT / n for n in ("pyproject.toml", "README.md", "LICENSE"))]:
        copy = source / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--no-index", "--wheel-dir", folder, source], check=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_every_module(wheel):
    with zipfile.ZipFile(wheel) as file:
        held = {name for name in file.namelist() if name.endswith(".py")}
        metadata = next(n for n in file.namelist() if n.endswith("METADATA"))
        lines = file.read(metadata).decode().splitlines()
    assert held == {path.relative_to(ROOT).as_posix() for path in MODULES}
    needed = [x.split(":")[1] for x in lines if x.startswith("Requires-Dist") and "extra" not in x]
    found = {re.match(r" ([\w-]+)", line)[1] for line in needed}
    assert found == {"keras", "numpy", "tensorflow"}


def test_three_wings_work_from_the_wheel_without_what_study_needs(wheel, tmp_path):
    """And what is blocked is missed: a module of study, the last one, cannot be imported."""
    with zipfile.ZipFile(wheel) as file:
        file.extractall(tmp_path / "installed")
    paths = [path for path in MODULES if path.parent.name != "study"]
    modules = [*map(dotted, paths), "prosper_utils.study.results"]
    command = [sys.executable, "-P", "-c", IMPORT_ALL, json.dumps(BLOCKED), json.dumps(modules)]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}
    options = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
    run = subprocess.run(command, check=False, **options)
    found = [str(tmp_path / "installed" / path.relative_to(ROOT)) for path in paths]
    assert run.stdout.splitlines() == found, run.stderr  # not those of the checkout
    assert "pandas" in run.stderr.splitlines()[-1]


def docstrings(path):
    """Return the docstrings of a module and of all that is in it."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]
    return [ast.get_docstring(node) or "" for node in nodes]


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_docstrings_set_values_as_code_and_formulas_as_mathematics(path):
    """Elsewhere the quotes of a value would be curled, and a formula be hard to read."""
    set_apart = r"`[^`]*`|\.\. math::.*\n(?:\n| +.*\n?)*"
    prose = [re.sub(set_apart, " ", text) for text in docstrings(path)]
    plain = r'=?"[\w.]+"|\w\^|\bsqrt\(|\b(?:gamma|[a-zA-Z])_[a-zA-Z0-9]\b|\bd[A-Z]\w*/d'
    assert [found for text in prose for found in re.findall(plain, text)] == []


def test_no_two_test_files_have_one_name():
    """pytest imports them by it, and stops where another is imported already."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert sorted(names) == sorted({*names})


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_no_first_line_of_returns_has_a_colon(path):
    """What stands before it would be shown as a type."""
    texts = docstrings(path)
    first = [line for text in texts for line in re.findall(r"^Returns:\n\s+(.*)", text, re.M)]
    assert [line for line in first if re.search(r"(?<!:):(?!:)", re.sub(r"`.*?`", "", line))] == []


@pytest.mark.parametrize(
    "path", sorted((ROOT / "book" / "tools").glob("*.py")), ids=lambda p: p.stem
)
def test_no_tool_writes_a_file_in_place(path):
    """One that is stopped halfway would leave half a file: `results.replace` leaves the old one."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert [ast.unparse(call.func) for call in calls if _writes_text(call)] == []


def _writes_text(call):
    """Return whether a call is of a path's or a file's method that writes text."""
    return isinstance(call.func, ast.Attribute) and call.func.attr in ("write_text", "write")


def test_a_file_written_in_place_is_seen():
    tree = ast.parse("p.write_text(x)\nf.write(x)\nresults.replace(p, x)\nwrite(x)")
    found = [_writes_text(line.value) for line in tree.body]
    assert found == [True, True, False, False]
