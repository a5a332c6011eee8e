"""A newcomer's path through the studio in a real browser: erase, look, check, export; on the canvas, by the command."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_screenshots import FAINT, SMALL, WIDE

from browser import Browser, chromium

pytestmark = pytest.mark.skipif(chromium() is None, reason="there is no Chromium here")

TABS = ("erase", "look", "check", "requests", "ship")


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The address that the command prints."""
    words = [sys.executable, "-m", "unlearnkit", "studio", str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
            assert process.wait(60) == 0


class Page(Browser):
    """A browser that waits, types and presses what it finds by its text."""

    def until(self, script: str, seconds: float = 300) -> Any:
        """The value of a script, as soon as there is one."""
        end = time.monotonic() + seconds
        while not (value := self.ask(script)):
            assert time.monotonic() < end, (script, self.ask("document.body.innerText"))
            time.sleep(0.2)
        return value

    def choose(self, field: str, value: str) -> None:
        """Give a field a value, as a person does who leaves it afterwards."""
        self.ask(f"""(() => {{ const one = document.getElementById({field!r}); one.value = {value!r};
            for (const kind of ['input', 'change']) one.dispatchEvent(new Event(kind, {{bubbles: true}})); }})()""")

    def click(self, text: str) -> None:
        """Click the button, link or summary of this text, once the page's script has been read."""
        found = f"[...document.querySelectorAll('button, a, summary')].find(one => one.innerText.trim() === {text!r})"
        self.until(f"document.readyState === 'complete' && !!{found}", 60)
        self.ask(f"{found}.click()")

    def ended(self, title: str) -> str:
        """How the job of this title ended."""
        return str(
            self.until(f"""(() => {{ const job = document.querySelector('[data-job]');
            return job?.querySelector('h2').innerText === {title!r} ? job.dataset.ended : ''; }})()""")
        )


def test_a_newcomer_erases_looks_checks_and_exports(address: str, tmp_path: Path) -> None:
    with Page() as page:
        page.open(f"{address}", width=1280)
        assert page.ask("document.activeElement.id") == "concept"
        page.ask("document.querySelector('#more').open = true")
        page.choose("method", "uce")
        page.until("!!document.querySelector('#set-erase_weight')", 60)
        page.choose("pictures", "1")
        page.ask("document.querySelector('#concept').focus()")
        page.do("Input.insertText", text="cat")
        page.choose("set-sentences", "many")
        page.until("document.querySelector('#form .error').innerText.includes('it takes a whole number')", 60)
        page.choose("set-sentences", "40")
        command = (
            "unlearnkit erase canvas --concept cat --method uce --set sentences=40 --pictures 1 --no-pipeline"
        )
        page.until(f"document.querySelector('.command pre').innerText === {command!r}", 60)
        page.errors.clear()  # what is refused is an error of the network to the browser
        page.press("Enter", 13)
        page.do("Input.dispatchKeyEvent", type="char", text="\r")
        page.until("document.querySelector('progress')?.value > 0")
        assert page.ended("erase cat") == "done"
        [run] = (tmp_path / "runs").iterdir()

        page.click("Look at it")
        page.until("document.querySelectorAll('[data-picture] img[src^=blob]').length === 4")
        assert page.ask(DIFFERENT) == [True, True], "the edit changes nothing"
        assert page.ask("document.querySelector('#prompt').value") == "a picture of a cat"
        assert page.ask("document.querySelectorAll('.curtain').length") == 0, "the canvas is safe"

        page.click("Check")
        page.click("Evaluate, the quick way")
        page.until("document.querySelector('.job p')?.innerText.startsWith('drawing')")
        page.click("Stop")
        assert page.ended(f"evaluate runs/{run.name}") == "stopped"

        page.click("Ship")
        page.until("!!document.querySelector('#lose')", 60)
        page.choose("lose", "0")
        page.click("Export")
        assert page.ended(f"export runs/{run.name}") == "done"
        page.until("document.querySelector('#main').innerText.includes('A LoRA of rank')", 60)
        assert (tmp_path / "without-cat.safetensors").stat().st_size > 100_000

        for tab in TABS:
            page.open(f"{address}{tab}", width=390, dark=True)
            assert page.ask("document.documentElement.scrollWidth") <= 390, tab
            assert page.ask(WIDE) == [], f"{tab}: these stick out"
            assert page.ask(FAINT) == [], f"{tab}: text below the contrast of 4.5 that WCAG asks for"
            assert page.ask(SMALL) == [], f"{tab}: text smaller than 11 pixels"
        assert page.errors == []


# of each row: whether the picture after is another than before
DIFFERENT = """[...document.querySelectorAll('.look tr')].slice(1).map(row => {
  const seen = [...row.querySelectorAll('img')].map(one => { const place = document.createElement('canvas');
    place.width = one.naturalWidth; place.height = one.naturalHeight; const pen = place.getContext('2d');
    pen.drawImage(one, 0, 0); return place.toDataURL(); });
  return new Set(seen).size === 2;
})"""
