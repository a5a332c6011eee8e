"""How a long job says how far it is."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Advance", "Tick", "stage"]

Advance = Callable[[int, int], None]  # done, total
Tick = Callable[[str, int, int], None]  # stage, done, total


def stage(tick: Tick | None, name: str, start: int = 0, total: int | None = None) -> Advance | None:
    """The progress of a stage, or of a part of it that begins at ``start`` of ``total``."""
    if tick is None:
        return None
    return lambda done, of: tick(name, start + done, of if total is None else total)
