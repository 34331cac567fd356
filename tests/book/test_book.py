"""The book builds without a warning from the stored outputs, and has a page for everything."""

import collections
import importlib
import re

import linkcheck
import pytest
from conftest import ROOT, pages


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
    package = ROOT / "prosper_utils"
    files = [path.relative_to(package).with_suffix("") for path in package.rglob("[a-z]*.py")]
    assert len(files) > 15
    for file in files:
        module = ".".join((package.name, *file.parts))
        assert f'id="module-{module}"' in article
        for name in public(importlib.import_module(module)):
            assert f'id="{module}.{name}"' in article
            assert f'href="../_modules/prosper_utils/{file}.html#{name}"' in article
    assert "`" not in article  # docutils takes one for text that follows a letter, or comes alone
    assert "Alias for field" not in article
    opening = collections.Counter(re.findall(r"<p>Returns? .*?</p>", article, re.DOTALL))
    assert [text for text, times in opening.items() if times > 1] == []  # as a partial's would be


def test_the_first_page_is_found(html):
    assert "book/index.html" in (html / "index.html").read_text()


def test_every_picture_in_a_chapter_has_alternative_text(html):
    for page in pages():
        for tag in (html / f"{page}.html").read_text().split("<img")[1:]:
            assert 'alt="' in tag.split(">")[0], page


def test_every_link_within_the_book_leads_somewhere(html):
    assert linkcheck.broken(html) == []
