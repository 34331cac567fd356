"""Check that every link within the built book leads to a file, and to an id if it names one.

`python book/tools/linkcheck.py FOLDER` reads all pages below a folder and needs no network: links
to other hosts are left to `make links`.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

LINKS = ("href", "src", "poster", "data", "action")
TEMPLATES = "webpack-macros.html"  # the theme copies such along; they are no pages


class Page(NamedTuple):
    """What a page links to, and the ids that can be linked to."""

    links: list
    ids: set


class _Reader(HTMLParser):
    """Collect the links and ids of one page."""

    def __init__(self):
        super().__init__()
        self.page = Page([], set())

    def handle_starttag(self, tag, attrs):
        if tag == "meta" and dict(attrs).get("http-equiv", "").lower() == "refresh":
            self.page.links.extend(re.findall("(?i)url=(.*)", dict(attrs)["content"]))
        for name, value in attrs:
            if name == "id" or (tag == "a" and name == "name"):
                self.page.ids.add(value)
            elif name in LINKS and value:
                self.page.links.append(value)
            elif name == "srcset" and value:
                self.page.links.extend(x for part in value.split(",") for x in part.split()[:1])


def read(path):
    """Return the `Page` in a file."""
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader.page


def target(path, link, root):
    """Return (file, id) that a link on a page leads to, or None if it is to another place.

    Args:
        path: the file of the page.
        link: the link as it stands there.
        root: the folder of the book, where links that begin with a slash start.
    """
    scheme, host, name, _, anchor = urlsplit(link)
    if scheme or host:
        return None
    name = unquote(name)
    file = root / name.lstrip("/") if name.startswith("/") else path.parent / name
    file = file.resolve() if name else path
    return (file / "index.html" if file.is_dir() else file), unquote(anchor)


def broken(root):
    """Return one sentence for every link below a folder that leads nowhere.

    Raises:
        ValueError: if there are no pages.
    """
    root = Path(root).resolve()
    files = sorted(root.rglob("*.html"))
    pages = {path: read(path) for path in files if not path.name.endswith(TEMPLATES)}
    if not pages:
        raise ValueError(f"{root}: expected a built book, found no page: run `make book`")
    found = []
    for path, page in pages.items():
        for link in dict.fromkeys(page.links):
            where = target(path, link, root)
            if where is None:
                continue
            file, anchor = where
            if not (file.is_file() and file.is_relative_to(root)):
                found.append(f"{path.relative_to(root)}: {link}: there is no such file")
            elif anchor and file in pages and anchor not in pages[file].ids:
                found.append(f"{path.relative_to(root)}: {link}: there is no such id")
    return found


def main():
    """Check the folder named on the command line; say what is broken, and fail if anything is."""
    if len(sys.argv) != 2:
        sys.exit("usage: python book/tools/linkcheck.py FOLDER")
    try:
        found = broken(sys.argv[1])
    except ValueError as error:
        sys.exit(str(error))
    sys.exit("\n".join(found) or 0)


if __name__ == "__main__":
    main()
