"""The book builds without a warning from the stored outputs, and has a page for everything."""

import pytest
from conftest import pages


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
