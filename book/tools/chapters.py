"""A chapter is one document in two files: NN_name.md to review, NN_name.ipynb to run and read.

`python book/tools/chapters.py` brings each pair together (the newer file wins, as jupytext
decides), runs the notebook from a fresh kernel, and writes it back with its outputs and without
timing metadata.  Cells keep their ids, and the chapter gets its opening (see `openings`).
Names of chapters as arguments limit it to those.  With `--check`
nothing is changed: it says which pairs differ.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from prosper_utils.study import results

import jupytext
import nbclient
import nbformat
import openings
from tqdm import tqdm

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"


def chapters():
    """Return the stems of all chapters, in order: of every file of a pair, so none is missed."""
    files = [*NOTEBOOKS.glob("[0-9][0-9]_*.md"), *NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")]
    return sorted({file.stem for file in files})


def differences(stem):
    """Return where the two files of a chapter differ in type, source or tags of a cell."""
    pair = [jupytext.read(NOTEBOOKS / f"{stem}{suffix}") for suffix in (".md", ".ipynb")]
    if len(pair[0].cells) != len(pair[1].cells):
        return [f"{stem}: {len(pair[0].cells)} cells in .md, {len(pair[1].cells)} in .ipynb"]
    return [
        f"{stem}: cell {number} differs: {text.source[:60]!r}"
        for number, (text, notebook) in enumerate(zip(*(nb.cells for nb in pair), strict=True))
        if _content(text) != _content(notebook)
    ]


def _content(cell):
    shown = {key: cell.metadata.get(key) for key in ("tags", "mystnb")}
    return cell.cell_type, cell.source.strip(), shown


def sync(stem):
    """Make the two files of a chapter equal; the newer one wins."""
    file = NOTEBOOKS / f"{stem}.md"
    file = file if file.exists() else file.with_suffix(".ipynb")
    subprocess.run([sys.executable, "-m", "jupytext", "--quiet", "--sync", file], check=True)


def open_chapter(stem):
    """Bring the opening of a chapter up to date, in both files."""
    file = NOTEBOOKS / f"{stem}.ipynb"
    notebook = nbformat.read(file, as_version=4)
    openings.put(notebook, openings.seconds().get(stem))
    results.replace(file, nbformat.writes(notebook) + "\n")
    sync(stem)
    os.utime(NOTEBOOKS / f"{stem}.md")  # no older than its notebook: the text leads


def execute(stem):
    """Run a chapter from a fresh kernel, write its outputs into the notebook, note the time."""
    file = NOTEBOOKS / f"{stem}.ipynb"
    notebook = nbformat.read(file, as_version=4)
    start = time.perf_counter()
    nbclient.NotebookClient(
        notebook,
        timeout=1200,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": NOTEBOOKS}},
    ).execute()
    openings.record(stem, time.perf_counter() - start)
    notebook.metadata.pop("language_info", None)  # the Python it ran on is no part of the text
    results.replace(file, nbformat.writes(notebook) + "\n")


def main():
    """Open and execute the chapters named on the command line, or all; or only check them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, compare the pairs")
    parser.add_argument("chapter", nargs="*", help="the stem of a chapter; all, if none is given")
    given = parser.parse_args()
    if unknown := sorted(set(given.chapter) - set(chapters())):
        sys.exit(f"no such chapter: {', '.join(unknown)}; there are {', '.join(chapters())}")
    stems = given.chapter or chapters()
    if given.check:
        sys.exit("\n".join(d for stem in stems for d in differences(stem)) or 0)
    for stem in tqdm(stems, "chapters", unit="chapter"):
        sync(stem)
        if differences(stem):
            sys.exit("\n".join(differences(stem)))
        open_chapter(stem)
        execute(stem)
        open_chapter(stem)  # again: now its time is known


if __name__ == "__main__":
    main()
