"""What every chapter begins with: a line on time and needs, and a cell that only Colab needs.

Both are written, never typed: the line from `book/chapter_seconds.json` and from what the
chapter reads, the cell from the repository that `_config.yml` names.  `put` writes them into a
notebook; where they are up to date it changes nothing.
"""

import datetime
import json
import math
import os
import platform
import re
from pathlib import Path

from prosper_utils.study import findings, results

import nbformat
import yaml

ROOT = Path(__file__).parents[2]
SECONDS = ROOT / "book" / "chapter_seconds.json"

ON_COLAB = """\
import sys

if "google.colab" in sys.modules:  # it has TensorFlow, but not our files
    url = "{url}"
    ref, book = "{branch}", "/content/book"
    !test -d {{book}} || git clone -q --depth 1 -b {{ref}} {{url}} {{book}}
    %cd -q {{book}}/notebooks
    sys.path.insert(0, book)"""

NOWHERE_TO_CLONE = """\
import sys

if "google.colab" in sys.modules:
    raise ImportError(
        "prosper_utils: expected a repository to take it from, found none; "
        "enter its url in _config.yml and run `make notebooks`"
    )"""


def repository():
    """Return (url, branch) of the repository that readers get the chapters from; url may be ''."""
    named = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]
    return named["url"] or "", named["branch"]


def colab_cell(url, branch):
    """Return the cell that fetches the helper package and the stored results, on Colab only.

    They are cloned and not installed by pip: chapters read stored results beside the package, and
    nothing that Colab has is touched.
    """
    source = ON_COLAB.format(url=url, branch=branch) if url else NOWHERE_TO_CLONE
    return nbformat.v4.new_code_cell(source, id="colab", metadata={"tags": ["remove-cell"]})


def is_colab_cell(cell):
    """Return whether a cell is the one for Colab, of whatever repository."""
    return cell.cell_type == "code" and '"google.colab" in sys.modules' in cell.source


def seconds():
    """Return how long each chapter took when it was last executed, and where: {stem: details}."""
    return json.loads(SECONDS.read_text()) if SECONDS.exists() else {}


def record(stem, taken):
    """Store that a chapter took so many seconds here and today."""
    details = {
        "seconds": round(taken, 1),
        "data": os.environ.get("PROSPER_DATASET", "auto"),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }
    text = json.dumps(seconds() | {stem: details}, indent=1, sort_keys=True)
    results.replace(SECONDS, text + "\n")


def needs(notebook):
    """Return what the code of a chapter reads: 'no data' or the data set, and the files."""
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    asked = code + "".join(_helpers(code))
    loaded = re.findall(r'(?:results\.load|\bstored)\(f?"([^"]+)"', asked)
    if "findings.families(" in code:
        loaded += [name for sweeps in findings.SWEEPS.values() for name in sweeps.values()]
    patterns = [f"book/studies/results/{re.sub(r'{.*?}', '*', name)}.csv" for name in loaded]
    patterns += re.findall(r'Path\("\.\./([^"]+)"\)', code)
    files = sorted({path.name for pattern in patterns for path in ROOT.glob(pattern)})
    digits = "scikit-learn's digits"
    choice = {'datasets.load("digits")': digits, "datasets.load()": f"MNIST or {digits}"}
    data = [name for call, name in choice.items() if call in code]
    read = f"; reads {', '.join(f'`{name}`' for name in files)}" if files else ""
    return (", ".join(data) or "no data") + read


def _helpers(code):
    """Return the sources of the modules of `study` that a chapter imports as modules."""
    lists = re.findall(r"^from prosper_utils\.study import (\([^)]*\)|.+)$", code, re.MULTILINE)
    names = re.findall(r"\w+", " ".join(lists))
    files = [ROOT / "prosper_utils" / "study" / f"{name}.py" for name in names]
    return [file.read_text() for file in files if file.exists()]


def line(notebook, details):
    """Return the line on time and needs; `details` are those that `seconds` has of the chapter."""
    about = math.ceil(details["seconds"] / 5) * 5
    return f"*About {about} seconds on {details['cores']} cores; needs {needs(notebook)}.*"


def put(notebook, details):
    """Write the line below the title of a notebook, and the cell for Colab before all other code.

    Args:
        notebook: a notebook whose first cell begins with its title; it is changed.
        details: what `seconds` has of it; if that is None, the text stays as it is.

    Raises:
        ValueError: if the first cell is not a title.
    """
    title, _, rest = notebook.cells[0].source.partition("\n")
    if not title.startswith("# "):
        raise ValueError(f"first cell: expected a title, found {title!r}")
    if details:
        rest = re.sub(r"\A\*About .*\*\n*", "", rest.lstrip("\n"))
        parts = [title, line(notebook, details), rest]
        notebook.cells[0].source = "\n\n".join(part for part in parts if part)
    cells, wanted = notebook.cells, colab_cell(*repository())
    place = next(i for i, cell in enumerate(cells) if cell.cell_type == "code")
    if not is_colab_cell(cells[place]):
        cells.insert(place, wanted)
    cells[place].update(source=wanted.source, metadata=wanted.metadata)
