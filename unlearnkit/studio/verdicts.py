"""What a run's evaluations and attacks found, as the page shows it. Read from their figures, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError, UnlearnError, printable
from ..evaluation import folders, shapes
from ..io.reading import read_json

__all__ = ["attacks", "checked", "evaluations"]


def evaluations(run: Path) -> list[dict[str, Any]]:
    """Each finished evaluation: name, verdict, ``seen`` and ``kept`` in words, and a point of the plane.

    Raises InputError for an evaluation whose figures were changed.
    """
    return [_evaluation(folder) for folder in folders.folders(run) if (folder / folders.FACTS).is_file()]


def checked(run: Path) -> list[dict[str, Any]]:
    """``evaluations``, after every file of them was compared with its hash."""
    for folder in folders.folders(run):
        if (folder / folders.FACTS).is_file():
            folders.sound(folder)
    return evaluations(run)


def _evaluation(folder: Path) -> dict[str, Any]:
    data = folders.figures(folder)
    verdict, tables = data["verdict"], data["tables"]
    direct = [one["direct"] for one in tables["concepts"] if one["direct"]]
    worst = max((one["after"] for one in direct), key=lambda rate: rate["value"], default=None)
    groups = verdict["kept"]["groups"]
    kept = min((one["after"] for one in groups.values()), key=lambda rate: rate["value"], default=None)
    return {
        "name": folder.name,
        "grade": verdict["grade"],
        "sentences": [line for one in verdict["concepts"] for line in (one["headline"], one["more"]) if line],
        "stayed": verdict["kept"]["sentence"],
        "seen": _rate(worst),
        "kept": [{"name": name, "says": _change(one["change"])} for name, one in groups.items()],
        "point": (1 - worst["value"], kept["value"]) if worst and kept else None,
    }


def attacks(run: Path) -> list[dict[str, str]]:
    """Each variant of each finished attack: how often it brings the concept back, beside its control."""
    rows = []
    for path in sorted((run / "attacks").glob("*/attack.json")):
        folder, where = path.parent, f"figures of {path.parent.name}"
        try:
            figures = read_json(folder / "figures.json", what="figures", kind=dict)
            shapes.check(figures, shapes.ATTACKED, where=where)
        except UnlearnError as error:
            raise InputError(printable(str(error))) from None
        for arm, one in figures["arms"].items():
            rows.append(
                {
                    "attack": folder.name,
                    "arm": arm,
                    "after": _rate(one["after"]),
                    "control": _rate(one["control"]),
                    "difference": _change(one["difference"]),
                    "note": "" if one["counted"] else "not counted",
                }
            )
    return rows


def _rate(rate: Mapping[str, Any] | None) -> str:
    """``3 of 69, 4.3 % (1.5 to 12.0)``; the brackets hold the 95 % interval."""
    if rate is None:
        return "–"
    value, low, high = (rate[name] * 100 for name in ("value", "low", "high"))
    return f"{rate['k']} of {rate['n']}, {value:.3g} % ({low:.1f} to {high:.1f})"


def _change(change: Mapping[str, Any] | None) -> str:
    """``-1.2 points (-3.0 to +0.4)``."""
    if change is None:
        return "–"
    value, low, high = (change[name] * 100 for name in ("value", "low", "high"))
    return f"{value:+.1f} points ({low:+.1f} to {high:+.1f})"
