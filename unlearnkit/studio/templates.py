"""The templates of the page."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..version import __version__

__all__ = ["PAGES", "REPORTS", "environment"]

PAGES = Path(__file__).parent / "pages"
REPORTS = Path(__file__).parents[1] / "evaluation" / "pages"  # the reports' own, for their style


def environment(**everywhere: Any) -> Environment:
    """The templates, with every value escaped; ``everywhere`` is known to all of them."""
    pages = Environment(
        loader=FileSystemLoader([PAGES, REPORTS]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {"size": size, "ago": ago, "pairs": pairs}
    pages.globals |= {"version": __version__, **everywhere}
    return pages


def size(number: float) -> str:
    """Bytes in words: ``1.2 MB``."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if number >= factor:
            return f"{number / factor:.3g} {unit}"
    return f"{max(1, round(number / 1e3))} kB"


def ago(when: float) -> str:
    """A time in seconds as ``3 min ago``; a day or more as the date."""
    seconds = time.time() - when
    if seconds < 90:
        return "just now"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min ago"
    if seconds < 86400:
        return f"{seconds / 3600:.0f} h ago"
    return time.strftime("%Y-%m-%d", time.localtime(when))


def pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """Names as the options of a list: value and text."""
    return [(name, name) for name in names]
