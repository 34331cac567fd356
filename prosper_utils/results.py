"""Stored results: a plain CSV table, beside it a JSON file that says where it comes from.

What takes long is computed once, by one command, and kept under `book/results/`; the chapters load
it.  The provenance holds the configuration, the versions, the processor, and the time it took.
"""

import importlib.metadata
import json
import os
import platform
import time
from pathlib import Path

import pandas as pd

FOLDER = Path(__file__).parent.parent / "book" / "results"
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
    pd.DataFrame(rows).to_csv(FOLDER / f"{name}.csv", index=False, float_format="%.6g")
    provenance = {
        "configuration": configuration,
        "versions": {p: importlib.metadata.version(p) for p in packages},
        "python": platform.python_version(),
        "processor": f"{os.cpu_count()} cores, {platform.machine()}",
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(seconds, 1),
    }
    (FOLDER / f"{name}.json").write_text(json.dumps(provenance, indent=1) + "\n")


def load(name):
    """Return a stored result as (table, provenance).

    Raises:
        FileNotFoundError: if it has not been stored, with the command that stores it.
    """
    for suffix in (".csv", ".json"):
        if not (FOLDER / f"{name}{suffix}").is_file():
            raise FileNotFoundError(
                f"book/results/{name}{suffix}: expected a stored result, found none: "
                "run `make bench` or `make results`"
            )
    provenance = json.loads((FOLDER / f"{name}.json").read_text())
    return pd.read_csv(FOLDER / f"{name}.csv"), provenance
