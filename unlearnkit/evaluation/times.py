"""How long a run took: the seconds of the method, and of the whole run with its pictures and its saving."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UnlearnError
from ..io.reading import read_lines

__all__ = ["log_rows", "times", "took"]


def times(run: Path, facts: Mapping[str, Any]) -> dict[str, float | None]:
    """``method`` and ``run`` in seconds, each None if the run folder does not have it.

    facts: of run.json. The method's seconds are its ``method seconds``, else those of the training logs. In a resumed
    run, ``seconds`` are those of its last part, so the whole is unknown.
    """
    whole = None if facts.get("resumed") else _number(facts.get("seconds"))
    own = _number(facts.get("method seconds"))
    if own is None:
        logs = [run / "log.jsonl", *run.glob("stage-*/log.jsonl")]
        spent = [_spent(log_rows(log)) for log in logs]
        own = sum(spent) if any(spent) else None
    return {"method": own, "run": whole}


def took(seconds: Mapping[str, float | None]) -> str:
    """``the method took 3.1 s, the whole run with its pictures and its saving 162 s``; empty if nothing is known."""
    own, whole = seconds["method"], seconds["run"]
    parts = [] if own is None else [f"the method took {_plain(own)} s"]
    if whole is not None:
        parts.append(
            f"the whole run with its pictures and its saving {'took ' * (own is None)}{_plain(whole)} s"
        )
    return ", ".join(parts)


def log_rows(log: Path) -> list[dict[str, Any]]:
    """The lines of a training log; none if it cannot be read: it is not part of the evaluation."""
    try:
        return read_lines(log, what="log") if log.exists() else []
    except UnlearnError:
        return []


def _spent(rows: list[dict[str, Any]]) -> float:
    """The seconds of a log, which begin again wherever a run was resumed."""
    total = last = 0.0
    for row in rows:
        now = _number(row.get("seconds"))
        if now is not None:
            total, last = total + (now - last if now >= last else now), now
    return total


def _number(value: Any) -> float | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and math.isfinite(value) and value >= 0 else None


def _plain(seconds: float) -> str:
    return f"{seconds:.1f}" if seconds < 10 else f"{seconds:.0f}"
