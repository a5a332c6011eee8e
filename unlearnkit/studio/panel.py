"""The job that a page shows: its progress, its curve, and what can be done next."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from .home import Home

__all__ = ["panel"]

TAIL = 200_000  # bytes of a training log that are read for its curve
POINTS = 200
ON_THE_PAGE = {  # an option that a refusal names, and where it is on the page
    "--out": "On this page: give it another name, under More.",
    "--force": "On this page: tick “Erase in any case”, under More.",
    "(lose)": "On this page: raise “May lose”, or copy a checkpoint instead.",
}


def panel(home: Home, tab: str) -> dict[str, Any]:
    """The newest job of a tab, its curve, and the job of another tab that is at work."""
    every = home.jobs.all()
    job = next((one for one in every if one.tab == tab), None)
    other = next((one for one in every if one.running and one.tab != tab), None)
    run = home.workspace().runs.get(job.folder) if job and job.folder else None
    return {
        "tab": tab,
        "job": job,
        "run": run,
        "curve": _curve(run.path) if job and run and job.tab == "erase" else None,
        "hint": next((hint for name, hint in ON_THE_PAGE.items() if job and name in job.says), ""),
        "other": other,
    }


def _curve(run: Path) -> dict[str, Any] | None:
    """The first number of the training log that changes, as points of a drawing 100 wide and 30 high."""
    logs = sorted(run.glob("stage-*/log.jsonl"), key=lambda path: (len(path.parent.name), path.parent.name))
    for log in [*logs, run / "log.jsonl"][::-1]:
        if log.is_file() and not log.is_symlink() and (curve := _points(_rows(log))):
            return curve
    return None


def _rows(log: Path) -> list[dict[str, Any]]:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL))
        lines = file.read(TAIL).split(b"\n")[:-1]
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue  # the line at which reading began
        rows += [row] if isinstance(row, dict) else []
    return rows


def _points(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    for name in rows[0] if rows else ():
        values = [row[name] for row in rows if type(row.get(name)) is float and math.isfinite(row[name])]
        if name == "seconds" or len(values) < 2:
            continue
        every = values[:: max(1, len(values) // POINTS)]
        low, high = min(every), max(every)
        points = [
            f"{100 * i / (len(every) - 1):.1f},{29 - 28 * (value - low) / ((high - low) or 1):.1f}"
            for i, value in enumerate(every)
        ]
        return {"name": name, "last": values[-1], "points": " ".join(points), "steps": len(values)}
    return None
