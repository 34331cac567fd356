"""The built book in a browser, opened from disk without network, as its readers meet it.

Every page is loaded twice, light and wide, then dark and narrow, and all tests of a page look at it
before the next one is loaded.  The browser is the Chromium of this machine, and none is ever
downloaded.
"""

import contextlib
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

from prosper_utils.blending import evolution
from prosper_utils.blending.evolution import Settings, Table
from prosper_utils.lookahead import streaming
from prosper_utils.lookahead.descent import loss_and_gradient
from prosper_utils.lookahead.meta_gradient import meta_gradient
from prosper_utils.study.checks import relative_error

import numpy as np
import pictures
import pytest
import tensorflow as tf
from conftest import ROOT, pages

DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
LIMIT = 2_000_000  # bytes that a page may load, besides MathJax
MADE = (
    "search",
    "genindex",
    "py-modindex",
    "_modules/index",
    "_modules/prosper_utils/pruning/scores",
)
FIGURES = {
    "fig-zero-weight": "book/index",
    "fig-two-weights-live": "notebooks/05_streaming_against_unrolled",
    "fig-words-live": "notebooks/13_big_sums",
}


def test_without_a_browser_no_picture_is_drawn_and_the_command_fails(monkeypatch):
    monkeypatch.setattr(pictures, "chromium", lambda: None)
    monkeypatch.setattr(pictures.results, "replace", lambda *_: pytest.fail("something is drawn"))
    with pytest.raises(SystemExit, match="none was found") as ended:
        pictures.main()
    assert ended.value.code


@pytest.mark.parametrize(
    ("found", "path"),
    [
        (["chromium", "chromium-browser", "google-chrome", "chrome"], "/bin/chromium"),
        (["chrome", "google-chrome", "chromium-browser"], "/bin/chromium-browser"),
        (["chrome", "google-chrome"], "/bin/google-chrome"),
        (["chrome"], "/bin/chrome"),
        (["firefox"], None),
    ],
)
def test_chromium_is_taken_before_chrome(monkeypatch, found, path):
    programs = {name: f"/bin/{name}" for name in found}
    monkeypatch.setattr(pictures, "shutil", SimpleNamespace(which=programs.get))
    assert pictures.chromium() == path


class Blank:
    """A page that notes what is asked of it, and draws a picture as the words that ask for it."""

    def __init__(self):
        self.asked = []

    def goto(self, address):
        self.asked.append(address)

    def add_script_tag(self, path):
        self.asked.append(path)

    def evaluate(self, words):
        return f"drawn by {words}"


STATIC = ROOT / "book" / "_static"
DRAWN = {
    STATIC / "two_weights.svg": "drawn by figures.picture(twoWeights)",
    STATIC / "words.svg": "drawn by figures.picture(bananaWords)",
    STATIC / "zero_weight.svg": "drawn by figures.picture(zeroWeight)",
}


def test_each_figure_is_drawn_by_its_own_script_on_an_empty_page():
    page = Blank()
    assert pictures.drawn(page) == DRAWN
    scripts = ["figures.js", "two_weights.js", "words.js", "zero_weight.js"]
    assert page.asked == ["about:blank", *(STATIC / name for name in scripts)]
    for path in DRAWN:
        script = path.with_suffix(".js").read_text()
        assert re.search(rf"^const {pictures.FIGURES[path.stem]} =", script, re.MULTILINE)


def test_the_command_stores_each_picture_and_closes_the_browser(monkeypatch):
    done, page = [], Blank()
    browser = SimpleNamespace(new_page=lambda: page, close=lambda: done.append("closed"))

    def launch(**options):
        done.append(options)
        return browser

    playwright = SimpleNamespace(chromium=SimpleNamespace(launch=launch))
    api = SimpleNamespace(sync_playwright=lambda: contextlib.nullcontext(playwright))
    monkeypatch.setitem(sys.modules, "playwright.sync_api", api)
    monkeypatch.setattr(pictures, "chromium", lambda: "/bin/chromium")
    monkeypatch.setattr(pictures.results, "replace", lambda *given: done.append(given))
    pictures.main()
    assert done == [{"executable_path": "/bin/chromium"}, *DRAWN.items(), "closed"]


@pytest.fixture(scope="module")
def browser():
    """Return the Chromium of this machine."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = pictures.chromium()
    if path is None:
        pytest.skip("neither Chromium nor Chrome is installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def tab(browser, html):
    """Return a tab without network, with the errors it reported and the addresses it asked for."""
    context = browser.new_context(viewport=DESK, offline=True, reduced_motion="reduce")
    context.set_default_timeout(60_000)  # the machine may be busy
    tab = SimpleNamespace(page=context.new_page(), html=html, errors=[], addresses=set())
    tab.page.on("pageerror", lambda error: tab.errors.append(str(error)))
    tab.page.on("request", lambda request: tab.addresses.add(request.url))
    tab.page.on("console", lambda m: tab.errors.append(m.text) if m.type == "error" else None)
    return tab


def visit(tab, name, size=DESK, theme="light"):
    """Load a page of the book into the tab, and wait until its mathematics is set."""
    tab.page.set_viewport_size(size)
    tab.page.emulate_media(color_scheme=theme)
    tab.errors.clear()
    tab.addresses.clear()
    tab.page.goto((tab.html / f"{name}.html").as_uri())
    tab.page.evaluate("async () => { await globalThis.MathJax?.startup.promise; }")


@pytest.fixture(scope="module", params=[*pages(), *MADE])
def wide(request, tab):
    """Return the tab with one page after the other, light and as wide as on a desk."""
    visit(tab, request.param)
    tab.name = request.param
    tab.on_load = [*tab.errors], {*tab.addresses}  # before other tests look for more
    return tab


@pytest.fixture(scope="module")
def narrow(wide):
    """Return the tab with the same page loaded again, dark and as wide as a phone."""
    visit(wide, wide.name, PHONE, "dark")
    return wide


def test_a_page_reports_no_error(wide):
    errors, _ = wide.on_load
    assert errors == []


def test_a_page_asks_nothing_of_another_host(wide):
    _, addresses = wide.on_load
    assert addresses
    assert [url for url in addresses if not url.startswith(("file:", "data:"))] == []


def test_mathematics_is_rendered(wide):
    found = wide.page.evaluate("""() => {
        const main = document.querySelector("main").cloneNode(true);
        main.querySelectorAll("pre, code, script, mjx-container").forEach((e) => e.remove());
        const bare = (e) => !e.querySelector("mjx-container");
        return {
            rendered: document.querySelectorAll(".math mjx-container").length,
            bare: [...document.querySelectorAll(".math")].filter(bare).length,
            errors: document.querySelectorAll("mjx-merror").length,
            text: main.textContent,
        };
    }""")
    assert (found["bare"], found["errors"]) == (0, 0)
    assert found["rendered"] > 0 or not wide.name.startswith("notebooks/")
    assert re.findall(r"\$[^$\n]*\$|\\[a-zA-Z(\[]+|\{(?:eq|numref|cite)\}", found["text"]) == []


def test_images_load(wide):
    broken = wide.page.evaluate("""async () => {
        const load = (image) => image.decode().then(() => null, () => image.src);
        return (await Promise.all([...document.images].map(load))).filter(Boolean);
    }""")
    assert broken == []


def test_a_page_is_light(wide):
    loaded = {Path(unquote(urlsplit(url).path)) for url in wide.addresses if "file:" in url}
    own = {path for path in loaded if "mathjax" not in path.parts}
    assert wide.html / f"{wide.name}.html" in own
    assert sum(path.stat().st_size for path in own) < LIMIT


# Contrast takes axe-core longest, and most of a page is text of a few looks: of one colour, size
# and weight on one ground.  Five of each are compared; in code the others become part of the text
# around them.  Of formulas axe-core sees only a hidden copy, in the same colour.
CHECK = """async () => {
    const [met, grounds] = [new Map(), new Map([[null, ""]])];
    const often = (kind) => met.set(kind, (met.get(kind) ?? 0) + 1).get(kind) > 5;
    for (const token of document.querySelectorAll("pre span:not(.unbroken), .sig span")) {
        if (often(token.className)) token.replaceWith(...token.childNodes);
    }
    const own = (e) => {
        const { backgroundColor, backgroundImage, opacity } = getComputedStyle(e);
        return `${ground(e.parentElement)} ${backgroundColor} ${backgroundImage} ${opacity}`;
    };
    const ground = (e) => grounds.get(e) ?? grounds.set(e, own(e)).get(e);
    const look = (e) => {
        const { color, fontSize, fontWeight } = getComputedStyle(e);
        return `${ground(e)} ${color} ${fontSize} ${fontWeight}`;
    };
    for (const e of document.body.querySelectorAll(":not(:empty, mjx-container *), input")) {
        const text = [...e.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.data.trim());
        const shown = e.checkVisibility({ visibilityProperty: true });
        const said = shown && (text || e.matches("input, select"));
        e.toggleAttribute("data-compared", said && !often(look(e)));
    }
    axe.configure({ rules: [{ id: "color-contrast", selector: "[data-compared]" }] });
    return (await axe.run({ resultTypes: ["violations"] })).violations;
}"""


def findings(page):
    """Return what axe-core calls serious or critical on a page, and headings out of order."""
    axe = pytest.importorskip("axe_playwright_python.base")
    page.evaluate(axe.AXE_SCRIPT)
    return [
        f"{each['id']}: {node['target']}: {node['failureSummary']}"
        for each in page.evaluate(CHECK)
        if each["impact"] in ("serious", "critical") or each["id"] == "heading-order"
        for node in each["nodes"]
    ]


def test_a_page_is_accessible_when_light_and_wide(wide):
    assert findings(wide.page) == []


# Everything is measured that a page shows, or shows when it is unfolded; pages differ in nothing
# else for which a fault is known, so a list of what is wrong says where.
FAULTS = """() => {
    for (const fold of document.querySelectorAll("article details")) fold.open = true;
    for (const fold of document.querySelectorAll(".toggle-hidden")) {
        fold.classList.remove("toggle-hidden");
    }
    const article = document.querySelector("article") ?? document.body;
    const edge = Math.ceil(article.getBoundingClientRect().right) + 1;
    const all = (selector) => [...article.querySelectorAll(selector)];
    const box = (e) => e.getBoundingClientRect();
    const said = (e) => (e.textContent || e.alt || "").trim().slice(0, 80);
    const scrolls = (e) => ["auto", "scroll"].includes(getComputedStyle(e).overflowX);
    const boxed = (e) => e !== article && (scrolls(e) || boxed(e.parentElement));
    const beyond = (e) => box(e).right > edge && !e.closest("aside") && !boxed(e);
    const visible = all("p, pre, table, img, svg, mjx-math, figure, li, dt, dd, code, h1, h2, h3")
        .filter((e) => e.checkVisibility() && box(e).width);
    const cut = (e) => box(e.querySelector("mjx-math")).right > box(e).right + 2;
    const touching = /^[^\\s\\p{L}\\p{N}]/u;
    const alone = (e) => {
        const after = (e.closest(".unbroken") ?? e).nextSibling;
        if (!(after instanceof Text && touching.test(after.data))) return false;
        const mark = document.createRange();
        mark.setStart(after, 0);
        mark.setEnd(after, 1);
        return box(mark).top > box(e).bottom - 2;
    };
    const glued = (e) => box(e).top - box(e.previousElementSibling).bottom < 8;
    const tiny = (e) => e.clientWidth < Math.min(parseFloat(e.style.width), 500);
    const hyphened = (e) => e.getClientRects().length > 1;
    const texts = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
    const elsewhere = "code, pre:not(.cell_output pre), .math, .citation a, script, svg";
    const halves = (text) => [...text.data.matchAll(/-[\\d>]/g)].filter(({ index }) => {
        const two = document.createRange();
        two.setStart(text, index);
        two.setEnd(text, index + 2);
        return two.getClientRects().length > 1;
    });
    const halved = [];
    while (texts.nextNode()) {
        const text = texts.currentNode;
        if (!text.parentElement.closest(elsewhere) && halves(text).length) {
            halved.push(text.data.trim().slice(0, 80));
        }
    }
    return {
        beyond: visible.filter(beyond).map(said),
        cut: all("span.math").filter((e) => e.checkVisibility() && cut(e)).map(said),
        alone: all("span.math, :is(p, li) > code").filter(alone).map(said),
        glued: all(".cell_output > .output + .output").filter(glued).map(said),
        tiny: all(".cell_output img").filter(tiny).map(said),
        hyphened: all("td .unbroken, th .unbroken").filter(hyphened).map(said),
        halved,
    };
}"""
KINDS = ("beyond", "cut", "alone", "glued", "tiny", "hyphened", "halved")
NO_FAULTS = {kind: [] for kind in KINDS}


def test_everything_has_its_room_on_a_desk(wide):
    assert wide.page.evaluate(FAULTS) == NO_FAULTS


def test_a_formula_and_what_is_to_be_copied_need_no_scrolling_on_a_desk(wide):
    scrolling = wide.page.evaluate("""() => {
        const copied = "div:is(.highlight-text, .highlight-bash, .highlight-bibtex) pre";
        const boxes = document.querySelectorAll(`article :is(div.math > mjx-container, ${copied})`);
        const hides = (e) => e.checkVisibility() && e.scrollWidth > e.clientWidth + 1;
        return [...boxes].filter(hides).map((e) => e.textContent.trim().slice(0, 80));
    }""")
    assert scrolling == []


def test_a_page_is_accessible_when_dark_and_narrow(narrow):
    assert narrow.page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert findings(narrow.page) == []


def test_everything_has_its_room_on_a_phone(narrow):
    assert narrow.page.evaluate(FAULTS) == NO_FAULTS


def test_a_picture_has_the_ground_of_its_page_and_turns_its_inks_in_the_dark(narrow):
    looks = """all => all.map((e) => {
        const { backgroundColor, filter } = getComputedStyle(e);
        return [e.classList.contains("own-colours"), backgroundColor, filter];
    })"""
    for own, *look in narrow.page.locator("article img").evaluate_all(looks):
        turned = ["rgba(0, 0, 0, 0)", "invert(1) hue-rotate(180deg)"]
        assert look == (["rgb(255, 255, 255)", "none"] if own else turned)


def test_html_that_a_cell_shows_is_dark_too(tab):
    visit(tab, "book/works", PHONE, "dark")
    looks = tab.page.evaluate("""() => {
        const cell = document.createElement("div");
        cell.className = "cell_output";
        cell.innerHTML = '<div class="output text_html"><ol><li><code>words</code></li></ol></div>';
        document.querySelector("article section").append(cell);
        const look = getComputedStyle(cell.firstChild);
        return [look.backgroundColor, look.color, getComputedStyle(cell).color];
    }""")
    assert looks[0] == "rgba(0, 0, 0, 0)"
    assert looks[1] == looks[2]


def test_a_page_fits_a_phone(narrow):
    assert narrow.page.evaluate("document.scrollingElement.scrollWidth") <= PHONE["width"]


def test_what_scrolls_on_a_phone_fades_out_and_takes_the_keyboard(narrow):
    silent = narrow.page.evaluate("""() => {
        const scrolls = (e) => ["auto", "scroll"].includes(getComputedStyle(e).overflowX);
        const wide = (e) => e.scrollWidth > e.clientWidth + 1 && scrolls(e) && e.checkVisibility();
        const shown = (e) => e.classList.contains("more-right") && e.tabIndex === 0;
        const boxes = [...document.querySelectorAll("main, main *")].filter(wide);
        return boxes.filter((e) => !shown(e)).map((e) => e.outerHTML.slice(0, 200));
    }""")
    assert silent == []


def test_a_formula_of_a_chapter_needs_no_scrolling_on_a_phone(narrow):
    wide = narrow.page.locator("article div.math > mjx-container").evaluate_all(
        "all => all.filter((e) => e.scrollWidth > e.clientWidth + 1).map((e) => e.textContent)"
    )
    assert wide == [] or not narrow.name.startswith("notebooks/")


def test_the_names_of_a_wide_table_stay_beside_its_numbers(narrow):
    hidden = narrow.page.evaluate("""() => {
        const boxes = [...document.querySelectorAll(".cell_output > .output:has(tbody th)")];
        return boxes.filter((box) => {
            if (!box.checkVisibility() || box.scrollWidth <= box.clientWidth + 1) return false;
            box.scrollLeft = box.scrollWidth;
            const left = box.getBoundingClientRect().left - 1;
            const names = [...box.querySelectorAll("tbody th:last-of-type")];
            const away = names.some((name) => name.getBoundingClientRect().left < left);
            box.scrollLeft = 0;
            return away;
        }).map((box) => box.textContent.trim().slice(0, 80));
    }""")
    assert hidden == []


def test_a_wide_formula_scrolls_by_keyboard(tab):
    visit(tab, "notebooks/02_equation_10", PHONE | {"width": 240})
    formula = tab.page.locator("article mjx-container.more-right").first
    formula.evaluate("(e) => { e.id = 'chosen'; e.focus(); }")
    tab.page.keyboard.press("ArrowRight")
    tab.page.locator("#chosen.more-left").wait_for()


def test_the_theme_switches(tab):
    visit(tab, pages()[0])
    colours = {}
    for _ in range(3):  # light, dark, and as the system is
        tab.page.locator(".theme-switch-button").first.click()
        theme = tab.page.evaluate("document.documentElement.dataset.theme")
        colours[theme] = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert set(colours) == {"light", "dark"}
    light, dark = (sum(map(int, re.findall(r"\d+", colours[t])[:3])) for t in ("light", "dark"))
    assert light > 3 * 200
    assert dark < 3 * 60


def search(tab, word):
    """Search for a word as a reader does; return the links that are found, and their pages."""
    visit(tab, pages()[0])
    tab.page.locator(".search-button__button:visible").first.click()
    tab.page.keyboard.type(word)
    tab.page.keyboard.press("Enter")
    tab.page.locator("#search-results li a").first.wait_for()
    tab.page.get_by_text("Search finished").wait_for()
    links = tab.page.locator("#search-results li a")
    found = [urlsplit(link).path for link in links.evaluate_all("all => all.map((a) => a.href)")]
    return links, [path.split("/")[-1].removesuffix(".html") for path in found]


WORDS = {
    "BatchNorm": {"works", "18_prune_your_model"},
    "TFLite": {"18_prune_your_model"},
    "softmax": {"18_prune_your_model", "troubleshooting"},
    "regression": {"18_prune_your_model", "works"},
    "EMA": {"18_prune_your_model", "works"},
}


@pytest.mark.parametrize("word", WORDS)
def test_search_leads_from_a_readers_word_to_its_pages(tab, word):
    _, found = search(tab, word)
    assert WORDS[word] & set(found[:3])
    assert WORDS[word] <= set(found)


def test_search_finds_the_hessian(tab):
    links, found = search(tab, "Hessian")
    assert set(found) >= {"02_equation_10", "notation"}
    links.get_by_text("Equation 10").first.click()
    assert "Hessian" in tab.page.locator("article").inner_text()
    assert tab.errors == []


def look(page, figure):
    """Return the drawing of a figure, and what it says in words."""
    drawing = page.locator(f"#{figure} svg").first.inner_html()
    return drawing, page.locator(f"#{figure} [aria-live]").inner_text()


@pytest.mark.parametrize("figure", FIGURES)
def test_every_control_changes_the_figure_from_the_keyboard(tab, figure):
    visit(tab, FIGURES[figure])
    controls = tab.page.locator(f"#{figure} .live-control").all()
    assert len(controls) == (1 if figure == "fig-zero-weight" else 3)
    for control in controls:
        before = look(tab.page, figure)
        tab.page.get_by_label(control.locator("label").inner_text(), exact=True).focus()
        kind = tab.page.evaluate("document.activeElement.type")
        tab.page.keyboard.press("Space" if kind == "checkbox" else "ArrowDown")
        after = look(tab.page, figure)
        assert before[0] != after[0], control.inner_text()
        assert before[1] != after[1], control.inner_text()
    assert tab.errors == []


@pytest.mark.parametrize("figure", FIGURES)
def test_a_figure_has_room_for_its_text_on_a_phone(tab, figure):
    visit(tab, FIGURES[figure], PHONE)
    outside = tab.page.evaluate(
        """(figure) => {
            const svg = document.querySelector(`#${figure} svg`);
            const { left, right } = svg.getBoundingClientRect();
            const boxes = [...svg.querySelectorAll("text")].map((e) => e.getBoundingClientRect());
            return boxes.filter((box) => box.left < left - 1 || box.right > right + 1).length;
        }""",
        figure,
    )
    assert outside == 0


@pytest.mark.parametrize("figure", FIGURES)
def test_without_scripts_the_picture_stands(browser, html, figure):
    page = browser.new_context(java_script_enabled=False, offline=True).new_page()
    page.goto((html / f"{FIGURES[figure]}.html").as_uri())
    picture = page.locator(f"#{figure} img")
    assert picture.is_visible()
    assert picture.bounding_box()["width"] > 300
    assert len(picture.get_attribute("alt")) > 40
    assert page.locator(".live-figure").count() == 0


def test_the_stored_pictures_are_what_the_figures_draw(tab):
    for path, drawing in pictures.drawn(tab.page).items():
        assert path.read_text() == drawing, "python book/tools/pictures.py draws it again"
        assert len(drawing) < 60_000


def valley(angle):
    """Return the matrix with eigenvalues 2 and 0.15 that is turned by an angle in degrees."""
    turned = np.radians(angle)
    c, s = np.cos(turned), np.sin(turned)
    return np.array([[c, -s], [s, c]]) @ np.diag([2.0, 0.15]) @ np.array([[c, s], [-s, c]])


def quadratic(weights, batch):
    """Return the loss of two weights in a valley."""
    curvature, minimum = batch
    away = weights[0] - minimum
    return tf.reduce_sum(away * tf.linalg.matvec(curvature, away)) / 2


@pytest.mark.parametrize(
    ("alpha", "steps", "angle"), [(0.25, 0, -30), (0.25, 5, -30), (0.9, 3, 45), (0.01, 20, 0)]
)
def test_the_two_weights_have_the_scores_of_the_package(tab, alpha, steps, angle):
    pictures.drawn(tab.page)  # leaves a page with the scripts and nothing else
    state = {"alpha": alpha, "steps": steps, "angle": angle}
    found = tab.page.evaluate("(state) => twoWeights.scores(state)", state)
    weights = [tf.constant([1.2, 1.0], tf.float64)]
    batches = [(valley(angle), np.array([0.2, -0.2]))] * (steps + 1)
    expected = {
        "exact": meta_gradient(quadratic, weights, batches, learning_rate=alpha),
        "row sums": streaming.streamed(quadratic, weights, batches, alpha, streaming.row_sums),
        "diagonal": streaming.streamed(quadratic, weights, batches, alpha, streaming.diagonal),
    }
    assert found.keys() == expected.keys()
    for name, scores in expected.items():
        assert relative_error([np.array(found[name])], scores) < 1e-10, name


def test_the_weight_at_zero_moves_as_under_a_mask(tab):
    pictures.drawn(tab.page)
    found = tab.page.evaluate("zeroWeight.path(16)")
    batch = (np.array([[1, -0.4], [-0.4, 1.2]]), np.array([1.4, 0.8]))
    weights, pulls = [tf.constant([0.1, 0.0], tf.float64)], []
    for m in range(17):
        loss, (gradient,) = loss_and_gradient(quadratic, weights, batch)
        assert found[m] == pytest.approx(weights[0].numpy(), abs=1e-12)
        assert tab.page.evaluate(f"zeroWeight.loss({found[m]})") == pytest.approx(float(loss))
        pulls.append(-float(gradient[1]))
        weights = [(weights[0] - 0.3 * gradient) * ([1, 0] if m < 6 else [1, 1])]
    assert [w[1] for w in found[:7]] == [0] * 7
    assert min(pulls[:7]) > 0.4  # at zero, and not without a gradient
    assert all(w[1] > 0 for w in found[7:])


def value(tab):
    return int(tab.page.locator("#fig-zero-weight input").input_value())


def test_a_figure_is_stepped_where_motion_is_unwanted(tab):
    visit(tab, FIGURES["fig-zero-weight"])
    assert value(tab) == 4
    tab.page.get_by_role("button", name="next step").focus()
    for due in (5, 6):
        tab.page.keyboard.press("Enter")
        assert value(tab) == due
    tab.page.wait_for_timeout(1000)
    assert value(tab) == 6


def test_a_figure_plays_once_when_it_is_seen_and_can_be_paused(browser, html):
    page = browser.new_context(viewport=DESK, offline=True).new_page()
    page.goto((html / "book/index.html").as_uri())
    figure = page.locator("#fig-zero-weight")
    figure.scroll_into_view_if_needed()
    figure.get_by_role("button", name="pause").click()
    at = figure.locator("svg").first.inner_html()
    page.wait_for_timeout(300)
    assert figure.locator("svg").first.inner_html() == at
    figure.get_by_role("button", name="play").click()
    page.wait_for_function("document.querySelector('#fig-zero-weight input').value === '16'")
    figure.get_by_role("button", name="play").wait_for()


def in_order(values, table, words):
    """Return what the package has for each of the words, 0 for those it has not met."""
    return [float(values[table.places[x]]) if x in table.places else 0.0 for x in words]


def advantage(loop, table, goal):
    """Return the largest credit above or below average of the words that may have weight."""
    p, credit = loop.states[0].numpy(), loop.credit.numpy()
    free = [k for k in {*np.flatnonzero(p), *loop.extra} if table.objects[k] != goal]
    return np.abs(credit[free] - p @ credit).max()


@pytest.mark.parametrize("goal", ["banana", "nana"])
@pytest.mark.parametrize("extended", [True, False])
def test_the_words_evolve_as_in_the_package(tab, goal, extended):
    pictures.drawn(tab.page)
    words = tab.page.evaluate("bananaWords.WORDS")
    table = Table({x: x for x in "ban"}, lambda x, y: x + y if x + y in words else None)
    credit = "support" if extended else "identity"
    settings = Settings(credit=credit, loops=21, purge_every=100)
    for n, loop in enumerate(evolution.loops(table, {goal: 1.0}, settings)):
        state = {"goal": goal, "extended": extended, "loops": n}
        found = tab.page.evaluate("(state) => bananaWords.run(state)", state)
        for name, values in [("p", loop.states[0]), ("image", loop.states[-1])]:
            assert found[name] == pytest.approx(in_order(values, table, words), abs=1e-9)
        credit = in_order(loop.credit, table, words)
        assert found["credit"] == pytest.approx(credit, abs=1e-9 * (1 + max(credit)))
        if not any(found["change"]):  # at rest: what is left in the package is rounding
            assert advantage(loop, table, goal) <= 1e-9 * max(credit)
            break
    assert (n > 0) == (extended or goal == "nana")
