"""The site in a headless browser: quiet, legible, reachable by keyboard, and its tables and explorer at work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, find_browser
from site_results import PATCHES, ROWS, SCALE, Here, add_verdicts, write_site_results

from visiontokens.report.site.build import build_site
from visiontokens.report.site.shell import PAGES

PROGRAM = find_browser()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium is installed")

EVERY = [*PAGES, "methods/stf"]
SMALLEST, CONTRAST = 14, 4.5
UNREADABLE = """
(() => {
  const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (color) => { pen.clearRect(0, 0, 1, 1); pen.fillStyle = color; pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data]; };
  const linear = (v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = (c) => { const [r, g, b] = c.map((v) => linear(v / 255)); return .2126 * r + .7152 * g + .0722 * b; };
  const ground = (node) => { for (let at = node; at; at = at.parentElement) {
    const c = rgb(getComputedStyle(at).backgroundColor); if (c[3] === 255) return c; } return rgb("Canvas"); };
  const bad = new Set(), walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !node.checkVisibility() || node.closest("script, .skip")) continue;
    const style = getComputedStyle(node);
    const [a, b] = [light(rgb(node.closest("svg") ? style.fill : style.color)), light(ground(node))];
    const contrast = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (parseFloat(style.fontSize) < %s || contrast < %s) {
      bad.add(`${node.tagName} ${style.fontSize} ${contrast.toFixed(1)} ${node.textContent.slice(0, 30)}`);
    }
  }
  return [...bad];
})()
"""
FOCUSED = """
((at) => at === document.body ? "" : at.id || at.textContent.trim() || at.type)(document.activeElement)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of made-up results with verdicts and a leaderboard."""
    root = write_site_results(tmp_path_factory.mktemp("site") / f"results/{SCALE}")
    add_verdicts(root)
    return build_site(Here.at(root), root / "site").parent


@pytest.fixture(scope="module")
def running() -> Iterator[Browser]:
    assert PROGRAM is not None
    browser = Browser(PROGRAM)
    yield browser
    browser.close()


@pytest.fixture
def browser(running: Browser) -> Iterator[Browser]:
    """A browser that must have been quiet when the test ends."""
    running.errors.clear()
    running.look(1280, "light")
    yield running
    assert running.errors == []


def tabbed(browser: Browser, most: int = 80) -> list[str]:
    """Return what the Tab key reaches, in order."""
    found: list[str] = []
    for _ in range(most):
        browser.press("Tab")
        at = browser.run(FOCUSED)
        if not at:
            break
        found.append(at)
    return found


def column(browser: Browser, grid: str, number: int) -> list[str]:
    """Return the cells of a column, of the rows that are shown."""
    rows = f"[...document.querySelectorAll('#{grid} tbody tr')].filter((row) => !row.hidden)"
    return list(browser.run(f"{rows}.map((row) => row.cells[{number}].textContent.trim())"))


def choose(browser: Browser, selector: str, value: str) -> None:
    """Choose an option as a reader does."""
    browser.run(
        f"(() => {{ const e = document.querySelector({selector!r}); e.value = {value!r};"
        " e.dispatchEvent(new Event('change', { bubbles: true })); })()"
    )


def wait_for(browser: Browser, script: str) -> None:
    """Wait until an expression is true; at most ten seconds."""
    done = browser.run(
        "new Promise((end) => { const start = Date.now(), look = () => { if ("
        + script
        + ") end(true); else if (Date.now() - start > 10000) end(false); else setTimeout(look, 20); }; look(); })"
    )
    assert done, script


@pytest.mark.parametrize("page", EVERY)
def test_a_page_is_legible_on_any_screen_in_any_light(browser: Browser, site: Path, page: str) -> None:
    for width in (1280, 390):
        for scheme in ("light", "dark"):
            browser.look(width, scheme)
            seconds = browser.open(site / f"{page}.html") / 1000
            print(f"{page} {width} {scheme}: {seconds:.2f} s from disk")
            browser.run("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
            assert browser.run("document.documentElement.scrollWidth") <= width
            assert browser.run(UNREADABLE % (SMALLEST, CONTRAST)) == [], (width, scheme)
            assert browser.run("document.querySelectorAll('h1').length") == 1
            assert browser.run("[...document.images].filter((i) => !i.alt).length") == 0


def test_the_keyboard_reaches_every_control_of_the_leaderboard_and_sorts(browser: Browser, site: Path) -> None:
    browser.open(site / "leaderboard.html")
    reached = tabbed(browser, 40)
    assert reached[0] == "Skip to the content"
    heads = browser.run("[...document.querySelectorAll('#rows th')].map((head) => head.textContent.trim())")
    assert [name for name in reached if name in heads][: len(heads)] == heads
    assert "search" in reached and len(set(PAGES.values()) & set(reached)) == len(PAGES)
    number = heads.index("Tokens")
    browser.run(f"document.querySelectorAll('#rows th button')[{number}].focus()")
    browser.press("Enter")
    assert browser.run(f"document.querySelectorAll('#rows th')[{number}].ariaSort") == "descending"
    tokens = [float(text) for text in column(browser, "rows", number)]
    assert tokens == sorted(tokens, reverse=True) and len(set(tokens)) > 2
    browser.press("Enter")
    assert browser.run(f"document.querySelectorAll('#rows th')[{number}].ariaSort") == "ascending"
    assert [float(text) for text in column(browser, "rows", number)] == sorted(tokens)


def test_filters_leave_the_rows_they_name(browser: Browser, site: Path) -> None:
    browser.open(site / "leaderboard.html")
    assert len(column(browser, "rows", 0)) == len(ROWS)
    choose(browser, "#rows select[data-facet='0']", "training-free")
    assert set(column(browser, "rows", 1)) == {"training-free"}
    choose(browser, "#rows select[data-facet='1']", "yes")
    assert column(browser, "rows", 0) == ["FastV, test only"]
    assert browser.run("document.querySelector('#rows output').textContent") == f"1 of {len(ROWS)} rows"
    for number in (0, 1):
        choose(browser, f"#rows select[data-facet='{number}']", "")
    choose(browser, "#rows select[data-facet='2']", "144")
    tokens = browser.run(
        "[...document.querySelectorAll('#rows tbody tr')].filter((r) => !r.hidden).map((r) => +r.dataset.facet2)"
    )
    assert 0 < len(tokens) < len(ROWS)
    choose(browser, "#field select[data-facet='0']", "trained")
    assert column(browser, "field", 0) == ["A"]


def test_verdicts_are_filtered(browser: Browser, site: Path) -> None:
    browser.open(site / "index.html")
    assert column(browser, "verdicts", 1) == ["PASS", "FAIL", "NOT RUN"]
    choose(browser, "#verdicts select", "FAIL")
    assert column(browser, "verdicts", 0) == ["C2"]
    choose(browser, "#verdicts select", "")
    browser.run("document.querySelector('#verdicts input').value = 'claim 3'")
    browser.run("document.querySelector('#verdicts input').dispatchEvent(new Event('input'))")
    assert column(browser, "verdicts", 0) == ["C3"]


def test_the_explorer_is_worked_with_keys_and_says_what_it_shows(browser: Browser, site: Path) -> None:
    browser.open(site / "explorer.html")
    wait_for(browser, "document.querySelector('#status').textContent !== ''")
    reached = tabbed(browser, 40)
    wanted = ["image", "question", "row", "layer", "attention", "patches"]
    assert [name for name in reached if name in wanted] == wanted
    assert "every patch is a token" in status(browser).lower()
    choose(browser, "#row", "vcc-2-8-test")
    wait_for(browser, "location.hash.includes('vcc-2-8-test')")
    browser.run("document.querySelector('#layer').focus()")
    browser.press("ArrowRight")
    assert status(browser).startswith(f"Layer 2: {PATCHES // 8} of {PATCHES} tokens. {PATCHES} patches are joined")
    browser.run("document.querySelector('#patches').focus()")
    browser.press("ArrowRight")
    told = browser.run("document.querySelector('#patch').textContent")
    assert "in one token with 7 more" in told and "row 13, column 13" in told
    browser.press("ArrowUp")
    assert "row 12, column 13" in browser.run("document.querySelector('#patch').textContent")


def test_the_address_keeps_what_is_shown(browser: Browser, site: Path) -> None:
    browser.open(site / "explorer.html", "#image=gqa-1&question=2&row=fastv-2-8-test&layer=3&attention=off")
    wait_for(browser, "document.querySelector('#status').textContent !== ''")
    assert status(browser).startswith(f"Layer 3: {PATCHES // 8} of {PATCHES} tokens. {PATCHES - PATCHES // 8} patches")
    assert browser.run("document.querySelector('#question').value") == "2"
    assert "wrong" in browser.run("document.querySelector('#answer').textContent")
    assert browser.run("document.querySelector('#attention').checked") is False
    line = browser.run("[...pen.getImageData(0, 20, 60, 1).data]")
    kept, gone = (line[4 * x : 4 * x + 3] for x in (20, 35))
    assert max(gone) < 60 and kept != gone, "patch 1 is dropped and covered, patch 0 is not"


def test_tokens_without_a_place_are_said_to_have_none(browser: Browser, site: Path) -> None:
    browser.open(site / "explorer.html", "#row=qformer-32&layer=2")
    wait_for(browser, "document.querySelector('#status').textContent !== ''")
    assert "32 of 576 tokens. Every token mixes the whole image" in status(browser)


def status(browser: Browser) -> str:
    return str(browser.run("document.querySelector('#status').textContent"))
