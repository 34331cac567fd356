"""A chapter is one document in two files: NN_name.md to review, NN_name.ipynb to run and read.

`python book/chapters.py` brings each pair together (the newer file wins, as jupytext decides), runs
the notebook from a fresh kernel, and writes it back with its outputs and without timing metadata.
Cells keep their ids.  Names of chapters as arguments limit it to those.
"""

import os
import subprocess
import sys
from pathlib import Path

import jupytext
import nbclient
import nbformat
from tqdm import tqdm

ROOT = Path(__file__).parent.parent
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


def execute(stem):
    """Run a chapter from a fresh kernel and write its outputs into the notebook."""
    file = NOTEBOOKS / f"{stem}.ipynb"
    notebook = nbformat.read(file, as_version=4)
    nbclient.NotebookClient(
        notebook,
        timeout=1200,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": NOTEBOOKS}},
    ).execute()
    notebook.metadata.pop("language_info", None)  # the Python it ran on is no part of the text
    nbformat.write(notebook, file)
    os.utime(NOTEBOOKS / f"{stem}.md")  # no older than its notebook: the text leads


def main():
    """Sync and execute the chapters named on the command line, or all."""
    unknown = set(sys.argv[1:]) - set(chapters())
    if unknown:
        sys.exit(
            f"no such chapter: {', '.join(sorted(unknown))}; there are {', '.join(chapters())}"
        )
    for stem in tqdm(sys.argv[1:] or chapters(), "chapters", unit="chapter"):
        sync(stem)
        if differences(stem):
            sys.exit("\n".join(differences(stem)))
        execute(stem)


if __name__ == "__main__":
    main()
