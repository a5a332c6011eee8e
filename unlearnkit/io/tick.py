"""How a long job says how far it is."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Advance", "Tick", "span", "stage"]

Advance = Callable[[int, int], None]  # done, total
Tick = Callable[[str, int, int], None]  # stage, done, total


def stage(tick: Tick | None, name: str, start: int = 0, total: int | None = None) -> Advance | None:
    """The progress of a stage, or of a part of it that begins at ``start`` of ``total``."""
    if tick is None:
        return None
    return lambda done, of: tick(name, start + done, of if total is None else total)


def span(seconds: float) -> str:
    """A duration for people: "40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
