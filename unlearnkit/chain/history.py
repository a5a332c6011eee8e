"""The report of a chain: what was forgotten when, whether it came back, what eroded, and pictures over time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..evaluation.plan import AFTER, BEFORE
from ..evaluation.record import FOLDER
from ..evaluation.report import inline, page
from ..files import write_text, writing
from .ledger import Entry
from .project import LOOKS, Project, opened
from .standing import LIMIT, status

__all__ = ["report"]

STRIPS = 16  # concepts that are shown over time
LAYERS = 12  # layers that are listed, those that moved most


def report(folder: str | Path) -> Path:
    """Write ``report.html`` and ``report.json`` into the chain's folder, and return the former; no model is needed.

    Raises InputError for a chain without a look at any of its entries.
    """
    project = opened(folder)
    looked = [entry for entry in project.entries if entry.facts.get("look")]
    if not looked:
        raise InputError(f"nothing was looked at in {str(folder)!r}: begin a chain with pictures above 0")
    facts = {
        "matrix": _matrix(project, looked),
        "curves": _curves(looked),
        "entries": [_row(project, entry) for entry in project.entries[1:]],
        "layers": _layers(project.entries[-1]),
    }
    found = status(folder)
    with writing(project.folder):
        write_text(project.folder / "report.json", json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
        text = page(
            "chain.html",
            name=project.folder.resolve().name,
            options=project.options,
            steps=[entry.number for entry in looked],
            lines=found.lines,
            head=found.head,
            strips=_strips(project, looked),
            limit=LIMIT,
            **facts,
        )
        write_text(project.folder / "report.html", text)
    return project.folder / "report.html"


def _matrix(project: Project, looked: Sequence[Entry]) -> list[dict[str, Any]]:
    """For each concept that was ever erased: how often it is seen at each look, None where it did not hold."""
    names = {
        concept["name"]: entry.number
        for entry in project.entries
        for concept in entry.facts.get("request", {}).get("erase", ())
    }
    rows = []
    for name, number in names.items():
        seen = [entry.facts["look"]["seen"].get(name) for entry in looked]
        told = [rate for rate in seen if rate]
        cells = [rate[AFTER] if rate else None for rate in seen]
        lowest = 1.0
        relapsed = []
        for cell in cells:
            relapsed.append(bool(cell and lowest <= LIMIT < cell["value"]))
            lowest = min(lowest, cell["value"]) if cell else 1.0
        rows.append(
            {
                "concept": name,
                "request": number,
                "before": told[0][BEFORE] if told else None,
                "cells": cells,
                "relapsed": relapsed,
            }
        )
    return rows


def _curves(looked: Sequence[Entry]) -> list[dict[str, Any]]:
    """Shares of right pictures by group, and what else is followed over the looks, as points in [0, 1]."""
    groups = list(dict.fromkeys(group for entry in looked for group in entry.facts["look"]["kept"]))
    found = []
    for group in groups:
        rates = [entry.facts["look"]["kept"].get(group) for entry in looked]
        found.append(
            {
                "name": f"{group}, right",
                "unit": "share",
                "before": next(rate[BEFORE]["value"] for rate in rates if rate),
                "values": [rate[AFTER]["value"] if rate else None for rate in rates],
                "low": [rate[AFTER]["low"] if rate else None for rate in rates],
                "high": [rate[AFTER]["high"] if rate else None for rate in rates],
            }
        )
    for name, values in (
        ("drift of the whole network", [entry.facts["drift"]["total"] for entry in looked]),
        ("KID to the first model on what stays", [entry.facts["look"]["kid"] for entry in looked]),
    ):
        if any(value is not None for value in values):
            found.append({"name": name, "unit": "", "before": None, "values": values, "low": [], "high": []})
    return [one | {"points": _points(one), "top": _top(one)} for one in found]


def _top(curve: Mapping[str, Any]) -> float:
    values = [value for value in curve["values"] if value is not None]
    return 1.0 if curve["unit"] == "share" else max(*values, 1e-12) if len(values) > 1 else values[0] or 1e-12


def _points(curve: Mapping[str, Any]) -> list[dict[str, float]]:
    """Points for a drawing 100 wide and 40 high; whiskers where there are limits."""
    top, count = _top(curve), len(curve["values"])
    found = []
    for i, value in enumerate(curve["values"]):
        if value is None:
            continue
        x = 100 * (i + 0.5) / count
        point = {"x": round(x, 2), "y": round(40 - 40 * max(value, 0.0) / top, 2)}
        if curve["low"] and curve["low"][i] is not None:
            point |= {
                "low": round(40 - 40 * curve["low"][i], 2),
                "high": round(40 - 40 * curve["high"][i], 2),
            }
        found.append(point)
    return found


def _row(project: Project, entry: Entry) -> dict[str, Any]:
    facts = entry.facts
    held = {step.number for step in project.steps}
    if entry.kind == "add":
        what = ", ".join(concept["name"] for concept in facts["request"]["erase"])
    else:
        what = f"request {', '.join(map(str, facts['removes']))}"
    size = sum(edit["bytes"] for edit in entry.made())
    return {
        "number": entry.number,
        "kind": entry.kind,
        "what": what,
        "method": facts.get("recipe", {}).get("method", ""),
        "holds": entry.kind != "add" or entry.number in held,
        "making": facts["making"],
        "looking": facts["looking"],
        "bytes": size,
        "drift": facts["drift"]["total"],
        "time": facts["time"],
        "hash": entry.hash,
    }


def _layers(entry: Entry) -> list[tuple[str, float]]:
    layers = entry.facts.get("drift", {}).get("layers", {})
    return sorted(layers.items(), key=lambda pair: -pair[1])[:LAYERS]


def _strips(project: Project, looked: Sequence[Entry]) -> list[dict[str, Any]]:
    """The same prompt with the same noise over time: of each erased concept one, and of each group that stays."""
    rows: dict[str, dict[str, Any]] = {}
    for entry in reversed(looked):
        folder = project.folder / LOOKS / entry.facts["look"]["folder"] / FOLDER
        for line in (folder / "cases.jsonl").read_text(encoding="utf-8").splitlines():
            case = json.loads(line)
            erased = case["role"] == "erased"
            kind = "objects" if case["object"] else "styles"
            title = case["concept"] if erased else f"kept: {case['role']} {kind}"
            rows.setdefault(
                title, {"title": title, "prompt": case["prompt"], "id": case["id"], "kept": not erased}
            )
    chosen = sorted(rows.values(), key=lambda row: row["kept"])[:STRIPS]
    last = project.folder / LOOKS / looked[-1].facts["look"]["folder"] / FOLDER / "pictures"
    for row in chosen:
        places = [last / BEFORE] + [
            project.folder / LOOKS / entry.facts["look"]["folder"] / FOLDER / "pictures" / AFTER
            for entry in looked
        ]
        row["pictures"] = [
            inline(path) if (path := place / f"{row['id']}.png").is_file() else "" for place in places
        ]
    return chosen
