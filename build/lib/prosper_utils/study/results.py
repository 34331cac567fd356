"""Stored results: a plain CSV table, beside it a JSON file that says where it comes from.

What takes long is computed once, by one command, and kept under `book/studies/results/`; the
chapters load it.  The provenance holds the configuration, the versions, the
processor, and the time it took.
"""

import importlib.metadata
import json
import os
import platform
import time
from pathlib import Path

import pandas as pd

FOLDER = Path(__file__).parents[2] / "book" / "studies" / "results"
PACKAGES = ("tensorflow", "keras", "numpy")


def save(name, rows, configuration, *, seconds, packages=PACKAGES):
    """Store a list of dictionaries as NAME.csv, and its provenance as NAME.json.

    Args:
        name: the name of the result.
        rows: a list of dictionaries, one per row.
        configuration: whatever determined the result, as JSON can hold it.
        seconds: how long it took.
        packages: whose versions to note.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    _replace(f"{name}.csv", pd.DataFrame(rows).to_csv(index=False, float_format="%.6g"))
    describe(name, configuration, seconds=seconds, packages=packages)


def describe(name, configuration, *, seconds, packages=PACKAGES):
    """Store the provenance of a result as NAME.json; arguments as for `save`."""
    provenance = {
        "configuration": configuration,
        "versions": {p: importlib.metadata.version(p) for p in packages},
        "python": platform.python_version(),
        "processor": f"{os.cpu_count()} cores, {platform.machine()}",
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(seconds, 1),
    }
    _replace(f"{name}.json", json.dumps(provenance, indent=1) + "\n")


def _replace(filename, text):
    """Write a file whole or not at all."""
    part = FOLDER / f"{filename}.part"
    part.write_text(text)
    part.replace(FOLDER / filename)


def append(name, rows):
    """Add rows to NAME.csv; what a row does not have stays empty there.

    Raises:
        ValueError: if a row has a column that the file has not.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    path, table = FOLDER / f"{name}.csv", pd.DataFrame(rows)
    columns = list(pd.read_csv(path, nrows=0)) if path.exists() else list(table)
    if unknown := set(table) - set(columns):
        raise ValueError(f"{path.name}: expected columns {columns}, found {sorted(unknown)} too")
    table = table.reindex(columns=columns)
    table.to_csv(path, mode="a", header=not path.exists(), index=False, float_format="%.6g")


def resume(name):
    """Return what is stored of an unfinished NAME.csv, as a table; empty if nothing is.

    A last line that was half written when the machine stopped is cut off; whole lines are kept.
    """
    path = FOLDER / f"{name}.csv"
    if not path.is_file():
        return pd.DataFrame()
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        print(f"{path.name}: the last line was half written and is cut off")
        _replace(path.name, whole)
    return pd.read_csv(path) if whole else pd.DataFrame()


def load(name):
    """Return a stored result as (table, provenance).

    Raises:
        FileNotFoundError: if it has not been stored, with the command that stores it.
    """
    for suffix in (".csv", ".json"):
        if not (FOLDER / f"{name}{suffix}").is_file():
            raise FileNotFoundError(
                f"book/studies/results/{name}{suffix}: expected a stored result, found none: "
                "run `make bench` or `make results`"
            )
    provenance = json.loads((FOLDER / f"{name}.json").read_text())
    return pd.read_csv(FOLDER / f"{name}.csv"), provenance
