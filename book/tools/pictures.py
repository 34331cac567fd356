"""The still pictures of the interactive figures, drawn by the figures' own scripts.

A page that runs no scripts shows these, and so does a notebook.  `python book/tools/pictures.py`
opens an empty page in Chromium, lets each script draw its figure in its first state, and stores the
drawing.
"""

import shutil
import sys
from pathlib import Path

from prosper_utils.study import results

STATIC = Path(__file__).parents[1] / "_static"
FIGURES = {
    "two_weights": "twoWeights",
    "words": "bananaWords",
    "zero_weight": "zeroWeight",
}  # script: object


def chromium():
    """Return the path of a Chromium or Chrome of this machine, or None."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next(filter(None, map(shutil.which, names)), None)


def drawn(page):
    """Return {path: SVG text} for every interactive figure, drawn on a page of a browser."""
    page.goto("about:blank")
    for script in ("figures", *FIGURES):
        page.add_script_tag(path=STATIC / f"{script}.js")
    return {
        STATIC / f"{script}.svg": page.evaluate(f"figures.picture({name})")
        for script, name in FIGURES.items()
    }


def main():
    """Draw all pictures and store them."""
    if chromium() is None:
        sys.exit("the pictures are drawn by Chromium, and none was found on this machine")
    from playwright.sync_api import sync_playwright  # only here: the tests skip without it

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium())
        for path, text in drawn(browser.new_page()).items():
            results.replace(path, text)
        browser.close()


if __name__ == "__main__":
    main()
