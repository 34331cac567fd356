"""Stored results: a plain CSV table, beside it a JSON file that says where it comes from.

What takes long is computed once, by one command, and kept under `book/studies/results/`; the
chapters load it.  The provenance holds the configuration, the versions, the
processor, and the time it took.
"""

import importlib.metadata
import io
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
    replace(FOLDER / f"{name}.csv", pd.DataFrame(rows).to_csv(index=False, float_format="%.6g"))
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
    replace(FOLDER / f"{name}.json", json.dumps(provenance, indent=1) + "\n")


def replace(path, text):
    """Write a file whole or not at all, beside the old one until it is done."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def append(name, rows):
    """Add rows to NAME.csv; what a row does not have stays empty there.

    A last row, or a header, that was half written when the machine stopped is cut off before.

    Raises:
        ValueError: if a row has a column that the file has not; then nothing is added.
    """
    if not rows:
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    path, table, stored = FOLDER / f"{name}.csv", pd.DataFrame(rows), _whole(name)
    columns = list(pd.read_csv(io.StringIO(stored), nrows=0)) if stored else list(table)
    if unknown := set(table) - set(columns):
        raise ValueError(f"{path.name}: expected columns {columns}, found {sorted(unknown)} too")
    table = table.reindex(columns=columns)
    table.to_csv(path, mode="a", header=not stored, index=False, float_format="%.6g")


def resume(name):
    """Return what is stored of an unfinished NAME.csv, as a table; empty if nothing is.

    A last row that was half written when the machine stopped is cut off; whole rows are kept.
    """
    whole = _whole(name)
    return pd.read_csv(io.StringIO(whole)) if whole else pd.DataFrame()


def _whole(name):
    """Return the text of NAME.csv up to its last whole row; what is behind is cut off the file."""
    path = FOLDER / f"{name}.csv"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    end = text.rfind("\n") + 1
    while text.count('"', 0, end) % 2:  # the end of a line within a quoted entry
        end = text.rfind("\n", 0, end - 1) + 1
    if end < len(text):
        print(f"{path.name}: the last row was half written and is cut off")
        replace(path, text[:end])
    return text[:end]


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
    provenance = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return pd.read_csv(FOLDER / f"{name}.csv"), provenance
