"""What happens where a caller says nothing: the defaults and the constants of the package.

Stored results and pages rest on them, so none changes but on purpose: in its module, and in
`defaults.json` beside this file.
"""

import functools
import importlib
import inspect
import json
import numbers
import pkgutil
from pathlib import Path

from prosper_utils import blending, lookahead, pruning, study

import pytest

DEFAULTS = json.loads(Path(__file__).with_name("defaults.json").read_text())


def simple(value):
    """Return whether a value is None, a number, a word, a function, or a tuple of them."""
    if isinstance(value, tuple):
        return all(map(simple, value))
    return value is None or inspect.isfunction(value) or isinstance(value, numbers.Number | str)


def written(value):
    """Return a value as it would be written, a function by its name."""
    return value.__name__ if inspect.isfunction(value) else repr(value)


def defaults(call):
    """Return the simple defaults of a call as they would be written, or nothing."""
    given = {p.name: p.default for p in inspect.signature(call).parameters.values()}
    return ", ".join(f"{name}={written(v)}" for name, v in given.items() if simple(v))


def parts(name, value):
    """Yield (name, what can be called or is a number) of what a module has by a name."""
    number = isinstance(value, numbers.Number) and not isinstance(value, bool)
    if inspect.isfunction(value) or (number and name.isupper()):
        yield name, value
    elif inspect.isclass(value) and not issubclass(value, Exception):
        own = {n: call for n, call in vars(value).items() if inspect.isfunction(call)}
        if {"__init__", "__new__"} & {*vars(value)}:  # else it is that of another package
            yield name, value
        yield from ((f"{name}.{n}", call) for n, call in own.items() if not n.startswith("_"))
    elif isinstance(value, dict):
        partial = {k: v for k, v in value.items() if isinstance(v, functools.partial)}
        yield from ((f"{name}[{key!r}]", call) for key, call in partial.items())


def found():
    """Return {name: its defaults or its value} of all that is public in the package."""
    lines = {}
    for package in (blending, lookahead, pruning, study):
        for entry in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(entry.name)
            _, short = entry.name.split(".", 1)
            for name, value in vars(module).items():
                if name.startswith("_") or getattr(value, "__module__", entry.name) != entry.name:
                    continue
                for part, what in parts(name, value):
                    words = defaults(what) if callable(what) else repr(what)
                    lines |= {f"{short}.{part}": words} if words else {}
    return lines


FOUND = found()


@pytest.mark.parametrize("name", sorted({*DEFAULTS, *FOUND}))
def test_a_default_changes_only_on_purpose(name):
    assert FOUND.get(name) == DEFAULTS.get(name)
