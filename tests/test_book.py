"""The book builds without a warning from the stored outputs, and has a page for everything."""

import importlib
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


def public(module):
    """Return the names of the functions and classes that a module defines for others."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and callable(value)
        and getattr(value, "__module__", "") == module.__name__
    ]


def test_the_api_page_has_every_public_name_with_its_source(html):
    text = (html / "book" / "api.html").read_text()
    article = text.split('<article class="bd-article">')[1].split("</article>")[0]
    modules = [path.stem for path in (ROOT / "prosper_utils").glob("[a-z]*.py")]
    assert len(modules) > 15
    for stem in modules:
        module = f"prosper_utils.{stem}"
        assert f'id="module-{module}"' in article
        for name in public(importlib.import_module(module)):
            assert f'id="{module}.{name}"' in article
            assert f'href="../_modules/prosper_utils/{stem}.html#{name}"' in article
    assert "`" not in article  # docutils takes one for text that follows a letter, or comes alone
    assert "Alias for field" not in article


def test_the_first_page_is_found(html):
    assert "book/index.html" in (html / "index.html").read_text()


def test_every_picture_in_a_chapter_has_alternative_text(html):
    for page in pages():
        for tag in (html / f"{page}.html").read_text().split("<img")[1:]:
            assert 'alt="' in tag.split(">")[0], page


def test_every_link_within_the_book_leads_somewhere(html):
    assert linkcheck.broken(html) == []
