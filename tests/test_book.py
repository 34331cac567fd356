"""The book builds without a warning from the stored outputs, and has a page for everything."""

import subprocess
import sys
from pathlib import Path

import linkcheck
import pytest
import yaml
from conftest import ROOT


def pages():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    files = [toc["root"]] + [c["file"] for part in toc["parts"] for c in part["chapters"]]
    return [file.removesuffix(".ipynb") for file in files]


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    """Build the book from what is stored: nbval has just executed it, make book executes too."""
    out = tmp_path_factory.mktemp("book")
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    config["execute"]["execute_notebooks"] = "off"
    (out / "_config.yml").write_text(yaml.safe_dump(config))
    command = [Path(sys.executable).with_name("jupyter-book"), "build", ROOT]
    command += ["--path-output", out, "--config", out / "_config.yml", "-W", "-n", "--keep-going"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    said = run.stdout + run.stderr
    warnings = [line for line in said.splitlines() if "WARNING" in line or "ERROR" in line]
    assert (run.returncode, warnings) == (0, []), "\n".join(warnings) or said[-2000:]
    return out / "_build" / "html"


@pytest.mark.parametrize("page", pages())
def test_every_page_exists(html, page):
    text = (html / f"{page}.html").read_text()
    assert "<h1>" in text
    assert "problematic" not in text  # what docutils calls a reference it could not resolve


def test_the_first_page_is_found(html):
    assert "book/index.html" in (html / "index.html").read_text()


def test_every_picture_in_a_chapter_has_alternative_text(html):
    for page in pages():
        for tag in (html / f"{page}.html").read_text().split("<img")[1:]:
            assert 'alt="' in tag.split(">")[0], page


def test_every_link_within_the_book_leads_somewhere(html):
    assert linkcheck.broken(html) == []
