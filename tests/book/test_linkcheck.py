"""Links within the book: a small site that is whole, and what is said of one that is broken."""

import linkcheck
import pytest

WHOLE = {
    "index.html": '<meta http-equiv="Refresh" content="0; url=book/a.html">',
    "book/a.html": '<h1 id="top">A</h1> <a href="#top">up</a> <a href="b.html#x%20y">B</a> '
    '<img src="../c.png?v=1" srcset="../c.png 2x"> <a href="https://example.org/none">out</a> '
    '<a href="mailto:a@example.org">mail</a> <a href="/book/">root</a> <a href="">self</a>',
    "book/b.html": '<p id="x y">B</p> <a href="..">up</a> <a name="old"></a> <a href="#old">o</a>',
    "book/index.html": "<p>B</p>",
    "c.png": "",
    "_static/webpack-macros.html": "<link href=\"{{ pathto('none') }}\">",
}


@pytest.fixture
def site(tmp_path):
    for name, text in WHOLE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_whole_site_has_no_broken_link(site):
    assert linkcheck.broken(site) == []


@pytest.mark.parametrize(
    ("link", "why"),
    [
        ('<a href="none.html">', "none.html: there is no such file"),
        ('<a href="b.html#none">', "b.html#none: there is no such id"),
        ('<a href="#none">', "#none: there is no such id"),
        ('<img src="none.png">', "none.png: there is no such file"),
        ('<img srcset="../c.png 1x, none.png 2x">', "none.png: there is no such file"),
        ('<script src="/none.js">', "/none.js: there is no such file"),
        ('<a href="../notebooks/">', "../notebooks/: there is no such file"),
        ('<meta http-equiv="refresh" content="0; url=none.html">', "none.html: there is no such"),
    ],
)
def test_what_leads_nowhere_is_named_with_its_page(site, link, why):
    page = site / "book" / "a.html"
    page.write_text(page.read_text() + link)
    (found,) = linkcheck.broken(site)
    assert found.startswith(f"book/a.html: {why}")


def test_a_folder_without_pages_is_no_book(tmp_path):
    with pytest.raises(ValueError, match=r"expected a built book, found no page: run `make book`"):
        linkcheck.broken(tmp_path)


def test_the_command_fails_where_a_link_does(site, monkeypatch):
    monkeypatch.setattr("sys.argv", ["linkcheck.py", str(site)])
    with pytest.raises(SystemExit) as whole:
        linkcheck.main()
    (site / "c.png").unlink()
    with pytest.raises(SystemExit, match=r"book/a.html: \.\./c\.png") as broken:
        linkcheck.main()
    assert (whole.value.code, bool(broken.value.code)) == (0, True)


def test_names_of_files_are_written_with_percent_signs_too(site):
    (site / "book" / "d e.html").write_text('<p id="p">D</p>')
    page = site / "book" / "a.html"
    page.write_text(page.read_text() + '<a href="d%20e.html#p">D</a>')
    assert linkcheck.broken(site) == []


@pytest.mark.parametrize(
    ("content", "wrong"),
    [("0; url=no.html", 1), ("0; URL=no.html", 1), ("5", 0), ("0;url=a.html", 0)],
)
def test_a_page_that_leads_on_leads_to_a_page(site, content, wrong):
    page = site / "book" / "leads_on.html"
    page.write_text(f'<meta http-equiv="Refresh" content="{content}">')
    assert len(linkcheck.broken(site)) == wrong


@pytest.mark.parametrize("attribute", ["href", "src", "srcset", "poster", "data", "action"])
def test_every_kind_of_link_is_followed(site, attribute):
    page = site / "book" / "a.html"
    page.write_text(page.read_text() + f'<object {attribute}="none.mp4">')
    assert linkcheck.broken(site) == ["book/a.html: none.mp4: there is no such file"]


def test_a_link_is_named_once_on_a_page_and_on_every_page(site):
    for name in ("a", "b"):
        page = site / "book" / f"{name}.html"
        page.write_text(page.read_text() + 2 * '<a href="none.html">')
    words = "none.html: there is no such file"
    assert linkcheck.broken(site) == [f"book/{name}.html: {words}" for name in ("a", "b")]


@pytest.mark.parametrize(
    ("added", "broken"),
    [
        ('<a href="//example.org/none.html">', []),  # another host, by the same scheme
        ('<meta name="viewport"><a href="#viewport">', ["#viewport: there is no such id"]),
        ('<a name="old"></a><a href="#old">', []),
        ('<img srcset="../c.png 1x, none.png 2x, ">', ["none.png: there is no such file"]),
        ('<a href="../../README.md">', ["../../README.md: there is no such file"]),
        ('<a href="/../README.md">', ["/../README.md: there is no such file"]),
        ('<a href="/book/#none">', ["/book/#none: there is no such id"]),
        ('<a href="../c.png#none">', []),  # a picture has no ids that we know of
        ("<a href><img srcset><a name>", []),
        ('<h2 id="own">', []),
        ('<form name="own"><a href="#own">', ["#own: there is no such id"]),
        ('<a href="b.html?n=1#none">', ["b.html?n=1#none: there is no such id"]),
        (
            '<a href="none.html"><a href="/no.html">',
            [f"{x}.html: there is no such file" for x in ("none", "/no")],
        ),
    ],
)
def test_what_is_in_the_book_and_what_is_not(site, added, broken):
    (site.parent / "README.md").touch()  # it is on this machine, and not on that of a reader
    page = site / "book" / "a.html"
    page.write_text(page.read_text() + added)
    assert linkcheck.broken(site) == [f"book/a.html: {words}" for words in broken]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [([], "usage: "), (["", ""], "usage: "), ([""], "expected a built book, found no page")],
)
def test_the_command_fails_where_nothing_could_be_checked(tmp_path, monkeypatch, arguments, said):
    folders = [str(tmp_path / name) for name in arguments]
    monkeypatch.setattr("sys.argv", ["linkcheck.py", *folders])
    with pytest.raises(SystemExit, match=said):
        linkcheck.main()


def test_what_a_page_links_to_is_read_in_order_with_its_ids(tmp_path):
    (tmp_path / "a.html").write_text(
        '<a\nid="one" name="two"\nhref="b.html"></a><p name="three" id="four">'
        '<a href><a href=""><img srcset=""><img src="c.png"'
        ' srcset="d.png 1x, e.png 2x" alt="f.png"><a href="b.html">Ä</a>'
        '<META HTTP-EQUIV="Refresh" CONTENT="3; URL=g.html"><meta name="x" content="url=h.html">',
        encoding="utf-8",
    )
    links = ["b.html", "c.png", "d.png", "e.png", "b.html", "g.html"]
    assert linkcheck.read(tmp_path / "a.html") == (links, {"one", "two", "four"})


@pytest.mark.parametrize(
    ("link", "file", "anchor"),
    [
        ("", "book/a.html", ""),
        ("#x%20y", "book/a.html", "x y"),
        ("b.html?n=1#y", "book/b.html", "y"),
        ("/c%20d.png", "c d.png", ""),
        ("/book", "book/index.html", ""),
        ("..#top", "index.html", "top"),
        ("../book/./b.html", "book/b.html", ""),
    ],
)
def test_a_link_leads_to_a_file_and_an_id(site, link, file, anchor):
    found = linkcheck.target(site / "book" / "a.html", link, site)
    assert found == (site / file, anchor)


@pytest.mark.parametrize(
    "link", ["https://example.org/a", "//example.org/a", "mailto:a@b", "data:,"]
)
def test_a_link_to_another_place_leads_nowhere_in_the_book(site, link):
    assert linkcheck.target(site / "book" / "a.html", link, site) is None


def test_the_folder_may_be_named_from_where_one_is(site, monkeypatch):
    page = site / "book" / "a.html"
    page.write_text(page.read_text() + '<a href="none.html"><img src="/none.png">')
    monkeypatch.chdir(site.parent)
    assert linkcheck.broken(site.name) == [
        "book/a.html: none.html: there is no such file",
        "book/a.html: /none.png: there is no such file",
    ]


def test_the_command_says_all_that_is_broken_a_line_each(site, monkeypatch):
    found = linkcheck.Path.rglob
    monkeypatch.setattr(linkcheck.Path, "rglob", lambda *given: sorted(found(*given), reverse=True))
    for name in ("a", "b"):
        page = site / "book" / f"{name}.html"
        page.write_text(page.read_text() + '<a href="#none">')
    monkeypatch.setattr("sys.argv", ["linkcheck.py", str(site)])
    with pytest.raises(SystemExit) as ended:
        linkcheck.main()
    assert ended.value.code == "\n".join(
        f"book/{name}.html: #none: there is no such id" for name in ("a", "b")
    )
