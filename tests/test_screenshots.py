"""The pages as people meet them: in a real browser, on a desktop, on a phone, in the dark, by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from browser import Browser, chromium
from unlearnkit.evaluation.compare import compare
from unlearnkit.evaluation.report import report

pytestmark = pytest.mark.skipif(chromium() is None, reason="there is no Chromium here")

WIDTHS = {"desktop": 1280, "phone": 390}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(evaluated: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    other = tmp_path_factory.mktemp("comparison")
    return {"report": report(evaluated), "compare": compare([evaluated, evaluated], other)}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize("name", ["report", "compare"])
def test_a_page_fits_and_can_be_read(
    browser: Browser, pages: dict[str, Path], tmp_path: Path, name: str, width: int, dark: bool
) -> None:
    browser.errors.clear()
    browser.open(pages[name], width=width, dark=dark)
    assert browser.errors == []
    assert browser.ask("document.documentElement.scrollWidth") <= width, "it scrolls sideways"
    assert browser.ask(WIDE) == [], "these stick out"
    assert browser.ask(FAINT) == [], "text below the contrast of 4.5 that WCAG asks for"
    assert browser.ask(SMALL) == [], "text smaller than 11 pixels"
    browser.picture(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as picture:
        corner = picture.convert("L").getpixel((2, 2))
    assert isinstance(corner, int)
    assert (corner < 60) == dark


def test_the_slider_moves_by_keyboard(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["report"], width=1280)
    browser.ask("document.querySelectorAll('.curtain').forEach(one => one.click())")
    at = "getComputedStyle(document.querySelector('.stage')).getPropertyValue('--x')"
    start = browser.ask(at)
    for _ in range(60):
        browser.press("Tab", 9)
        if browser.ask("document.activeElement.type") == "range":
            break
    else:
        pytest.fail("no slider can be reached with the tab key")
    assert browser.ask("getComputedStyle(document.activeElement.parentNode).outlineStyle") != "none"
    for _ in range(10):
        browser.press("ArrowRight", 39)
    assert start.strip() == "50%"
    assert browser.ask(at).strip() == "60%"


def test_a_curtain_goes_by_keyboard(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["report"], width=390)
    count: Any = browser.ask("document.querySelectorAll('.curtain').length")
    assert count > 0, "the user's own prompts are covered"
    browser.ask("document.querySelector('.curtain').focus()")
    browser.press("Enter", 13)
    browser.do("Input.dispatchKeyEvent", type="char", text="\r")
    assert browser.ask("document.querySelectorAll('.curtain').length") == count - 1
    assert browser.ask("document.querySelectorAll('.stage.hidden').length") == count - 1


WIDE = """[...document.querySelectorAll('body *')].filter(one => {
  const box = one.getBoundingClientRect();
  const placed = getComputedStyle(one).position === 'absolute' || one.closest('.scroll, pre, svg');
  return box.right > innerWidth + 1 && !placed;
}).map(one => one.outerHTML.slice(0, 80))"""

SMALL = """[...document.querySelectorAll('body *')].filter(one => {
  const own = [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim());
  return own && !one.closest('svg') && parseFloat(getComputedStyle(one).fontSize) < 11;
}).map(one => one.outerHTML.slice(0, 80))"""

FAINT = """(() => {
  const parts = text => { const p = text.match(/[\\d.]+/g).map(Number); return p.length < 4 ? [...p, 1] : p; };
  const over = (top, low) => [0, 1, 2].map(i => top[i] * top[3] + low[i] * (1 - top[3])).concat(1);
  const shine = c => { const [r, g, b] = c.slice(0, 3).map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
  const behind = one => { let found = [255, 255, 255, 1]; const line = [];
    for (let at = one; at; at = at.parentElement) line.unshift(at);
    for (const at of line) found = over(parts(getComputedStyle(at).backgroundColor), found); return found; };
  return [...document.querySelectorAll('body *')].filter(one => {
    const own = [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!own || one.closest('script, style') || one.closest('.stage')) return false;
    const style = getComputedStyle(one), back = behind(one);
    const ink = one.closest('svg') ? style.fill : style.color;
    const a = shine(over(parts(ink), back)), b = shine(back);
    return (Math.max(a, b) + .05) / (Math.min(a, b) + .05) < 4.5;
  }).map(one => one.outerHTML.slice(0, 80));
})()"""
