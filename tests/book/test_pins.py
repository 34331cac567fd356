"""The pins: on every Python and system that we state, one version of each package that is needed.

No registry is asked: what a package requires is read from the packages that are installed here.
"""

import functools
import importlib.metadata
import itertools
import re
import tomllib

import pytest
from conftest import ROOT
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LINES = [x for x in (ROOT / "requirements.txt").read_text().splitlines() if x[:1] not in ("", "#")]
PINS = [Requirement(line) for line in LINES]

PYTHONS = [
    classifier.rpartition(" ")[2]
    for classifier in PROJECT["classifiers"]
    if re.fullmatch(r"Programming Language :: Python :: \d\.\d+", classifier)
]
SYSTEMS = {
    "Linux": {"os_name": "posix", "sys_platform": "linux", "platform_machine": "x86_64"},
    "Darwin": {"os_name": "posix", "sys_platform": "darwin", "platform_machine": "arm64"},
    "Windows": {"os_name": "nt", "sys_platform": "win32", "platform_machine": "AMD64"},
}
ENVIRONMENTS = list(itertools.product(PYTHONS, SYSTEMS))


def environment(python, system):
    """Return what markers are evaluated in: CPython on a system."""
    full = f"{python}.7"
    return (
        default_environment()
        | {"implementation_name": "cpython", "platform_python_implementation": "CPython"}
        | {"python_version": python, "python_full_version": full, "implementation_version": full}
        | {"platform_system": system}
        | SYSTEMS[system]
    )


def holds(requirement, where, extra=""):
    return requirement.marker is None or requirement.marker.evaluate(where | {"extra": extra})


def pinned(where):
    """Return {name: version} of what is installed in an environment; a name comes once."""
    chosen = [pin for pin in PINS if holds(pin, where)]
    names = [canonicalize_name(pin.name) for pin in chosen]
    assert sorted(names) == sorted(set(names)), f"pinned twice in {where}"
    versions = (next(iter(pin.specifier)).version for pin in chosen)
    return dict(zip(names, versions, strict=True))


@functools.cache
def installed(name, version):
    """Return the metadata of a package if this very version of it is installed here."""
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    return found.metadata if found.version == version else None


def of_the_project(*extras):
    """Return what the project requires with these extras and those that they include."""
    optional = PROJECT["optional-dependencies"]
    found = [Requirement(r) for part in (optional[e] for e in extras) for r in part]
    own = [r for r in found if r.name == PROJECT["name"]]
    others = [r for r in found if r.name != PROJECT["name"]]
    base = [Requirement(r) for r in PROJECT["dependencies"]]
    return others + (of_the_project(*(e for r in own for e in r.extras)) if own else base)


def needed(where, versions):
    """Yield (who, requirement) for all that the project needs, and what that needs in turn."""
    waiting = [("pyproject.toml", r) for r in of_the_project("book") if holds(r, where)]
    seen = set()
    while waiting:
        who, requirement = waiting.pop()
        yield who, requirement
        name = canonicalize_name(requirement.name)
        metadata = installed(name, versions.get(name))
        for extra in {"", *requirement.extras}:
            if metadata is None or (name, extra) in seen:
                continue
            seen.add((name, extra))
            for text in metadata.get_all("Requires-Dist", []):
                if holds(Requirement(text), where, extra):
                    waiting.append((name, Requirement(text)))


def test_every_line_pins_one_version():
    for pin in PINS:
        (specifier,) = pin.specifier
        assert specifier.operator == "=="
        assert "*" not in specifier.version
        assert not pin.extras
        assert pin.url is None


def test_what_we_state_of_python_is_the_same_everywhere():
    assert PYTHONS == ["3.11", "3.12", "3.13"]
    stated = f"Python {', '.join(PYTHONS[:-1])} or {PYTHONS[-1]}"
    for name in ("README.md", "Makefile", "book/running.md"):
        assert stated in (ROOT / name).read_text(), name
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"
    first, last = (tuple(map(int, PYTHONS[i].split("."))) for i in (0, -1))
    assert f"{first} <= sys.version_info[:2] <= {last}" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize(("python", "system"), ENVIRONMENTS)
def test_everything_that_is_needed_is_pinned_to_a_version_that_will_do(python, system):
    where = environment(python, system)
    versions = pinned(where)
    for who, requirement in needed(where, versions):
        version = versions.get(canonicalize_name(requirement.name))
        assert version, f"{who} needs {requirement.name}, which is not pinned"
        assert requirement.specifier.contains(version, prereleases=True), (
            f"{who} needs {requirement}, pinned is {version}"
        )


@pytest.mark.parametrize(("python", "system"), ENVIRONMENTS)
def test_the_pins_run_on_the_python(python, system):
    for name, version in pinned(environment(python, system)).items():
        metadata = installed(name, version)
        if metadata and metadata.get("Requires-Python"):
            runs_on = SpecifierSet(metadata["Requires-Python"])
            assert runs_on.contains(f"{python}.7"), f"{name}=={version} needs Python {runs_on}"
