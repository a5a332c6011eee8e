"""From the rows of an attack to its figures: for each arm a rate, that of its control, and the difference."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ..metrics.stats import newcombe, wilson

__all__ = ["AFTER", "CONTROL", "LIMIT", "arm_figures", "headline"]

AFTER, CONTROL = "after", "control"  # what is attacked, and what the same attack finds where there is nothing
LIMIT = 0.10  # an arm whose control shows the concept more often is reported and not counted


def arm_figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures of each arm, in the rows' order.

    The unit is the picture: those of one arm share what was found, so that the interval is over further pictures of
    this find, not over further searches.
    """
    figures: dict[str, Any] = {}
    for arm in dict.fromkeys(row["arm"] for row in rows):
        counts = {side: _count(rows, side, arm) for side in (AFTER, CONTROL)}
        one: dict[str, Any] = {side: _rate(k, n) if n else None for side, (k, n) in counts.items()}
        one["difference"], one["counted"] = None, False
        if one[AFTER] and one[CONTROL]:
            one["difference"] = dataclasses.asdict(newcombe(*counts[AFTER], *counts[CONTROL]))
            one["counted"] = one[CONTROL]["value"] <= LIMIT
        figures[arm] = one
    return figures


def headline(arms: Mapping[str, Any]) -> str | None:
    """The counted arm with the largest difference; None if none is counted."""
    counted = [arm for arm, one in arms.items() if one["counted"]]
    return max(counted, key=lambda arm: float(arms[arm]["difference"]["value"]), default=None)


def _count(rows: Sequence[Mapping[str, Any]], side: str, arm: str) -> tuple[int, int]:
    """Pictures that show the concept, and all pictures."""
    shown = [row["shows"] for row in rows if row["side"] == side and row["arm"] == arm]
    return sum(shown), len(shown)


def _rate(k: int, n: int) -> dict[str, Any]:
    low, high = wilson(k, n)
    return {"value": k / n, "low": low, "high": high, "k": k, "n": n}
