"""``chain report``: what was erased when, what relapsed, what eroded, and pictures over time."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import InputError, quoted
from ...evaluation import shapes
from ...evaluation.attacked.panel import attack_figures
from ...evaluation.folders import FOLDER
from ...evaluation.plan import AFTER, BEFORE
from ...evaluation.report import inline, page
from ...io.files import member, user_path, write_text
from ...io.reading import parse_json, read_bytes, read_lines, typed
from ...version import __version__
from ..facts import Added, Change, Reverted
from ..file_list import hash_error
from ..project import LOOKS, PAGES, Project, change_chain
from .status import LIMIT, status_of

__all__ = ["findings", "report"]

HTML, FACTS = PAGES
MADE = ("name", "head", "unlearnkit", HTML, "sha256")  # keys of "made" in report.json
STRIPS = 16  # rows of pictures
CASE = ("id", "role", "object", "concept", "prompt")  # keys of a case
AGAIN = "make it again with unlearnkit chain report"
LAYERS = 12  # listed layers, those with the largest change


def report(folder: str | Path) -> Path:
    """Write ``report.html`` and ``report.json`` into the chain's folder, and return the former; needs no model.

    Raises InputError for a chain without any evaluation, and for an attack whose files were changed.
    """
    with change_chain(user_path(folder)) as project:
        if not any(change.evaluation for change in project.changes):
            raise InputError(
                f"the chain in {quoted(project.folder)} has no evaluation: create a chain with pictures above 0"
            )
        text, facts = _pages(project, project.folder.resolve().name, attack_figures(project.folder))
        write_text(project.folder / HTML, text)
        write_text(project.folder / FACTS, facts)
        return project.folder / HTML


def findings(project: Project, *, again: bool) -> Iterator[str]:
    """What is wrong with the report, if there is one, by its own hashes.

    again: also make it again from the ledger as it was then, if this version made it.
    """
    here = [name for name in PAGES if (project.folder / name).exists()]
    if not here:
        return
    if len(here) == 1:
        yield f"{HTML} and {FACTS} belong together, and there is only {here[0]}: {AGAIN}"
        return
    try:
        raw = read_bytes(project.folder / FACTS, what=f"{FACTS},")
        facts = parse_json(raw, kind=dict, where=FACTS)
        made = typed(facts, {"made": dict}, where=FACTS)["made"]
        typed(made, dict.fromkeys(MADE, str), where=f"{FACTS}, 'made'")
    except InputError as error:
        yield f"{error}; {AGAIN}"
        return
    if raw != _sealed(facts, made).encode():
        yield f"{FACTS} was changed: {AGAIN}"
    elif wrong := hash_error(project.folder / HTML, made[HTML]):
        yield f"{HTML} {wrong}: {AGAIN}"
    elif (then := project.at_head(made["head"])) is None:
        yield f"{FACTS} was made from a ledger that ended with {quoted(made['head'])}, as this one never did: {AGAIN}"
    elif again and made["unlearnkit"] == __version__ and not _follows(then, facts, raw):
        yield f"{HTML} and {FACTS} do not follow from the ledger, the looks and the attacks: {AGAIN}"


def _follows(then: Project, facts: Mapping[str, Any], raw: bytes) -> bool:
    """Whether this is what ``report.json`` should be, with the attacks that it has: there may be more by now."""
    named = facts.get("attacks", {})
    try:
        shapes.check(named, shapes.Each({"attacks": [{"folder": str}]}), where=f"{FACTS}, 'attacks'")
    except InputError:
        return False
    folders = {each["folder"] for one in named.values() for each in one["attacks"]}
    return _pages(then, facts["made"]["name"], attack_figures(then.folder, folders))[1].encode() == raw


def _pages(project: Project, name: str, attacks: Mapping[str, Any]) -> tuple[str, str]:
    """The text of both files of the report. attacks: see ``attack_figures``."""
    looked = [change for change in project.changes if change.evaluation]
    now = status_of(project)
    facts: dict[str, Any] = {
        "now": [
            {"concept": line.concept, "request": line.step.number, "verdict": line.verdict}
            for line in now.lines
        ],
        "matrix": _matrix(project, looked),
        "curves": _curves(looked),
        "entries": [_row(project, change) for change in project.changes],
        "layers": _layers(project.changes[-1]),
    }
    text = page(
        "chain.html",
        name=name,
        options=project.options,
        steps=[change.number for change in looked],
        lines=now.lines,
        head=now.head,
        strips=_strips(project, looked),
        limit=LIMIT,
        attacks=attacks,
        resists={},
        found={each["folder"]: () for one in attacks.values() for each in one["attacks"]},
        **facts,
    )
    facts |= {"attacks": attacks} if attacks else {}
    made = {"name": name, "head": project.head, "unlearnkit": __version__, HTML: _hash(text)}
    return text, _sealed(facts, made)


def _sealed(facts: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    """The text of ``report.json``: the figures, what they were made from, and the hash of all of that."""
    facts = {name: value for name, value in facts.items() if name != "made"}
    made = {name: value for name, value in made.items() if name != "sha256"}
    seal = _hash(json.dumps([facts, made], sort_keys=True))
    return json.dumps({**facts, "made": {**made, "sha256": seal}}, indent=1, ensure_ascii=False) + "\n"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _matrix(project: Project, looked: Sequence[Change]) -> list[dict[str, Any]]:
    """For each erased concept the share of pictures that show it at each evaluation; None if not evaluated."""
    names = {
        concept.name: change.number
        for change in project.changes
        if isinstance(change, Added)
        for concept in change.request.erase
    }
    rows = []
    for name, number in names.items():
        seen = [change.evaluation.seen.get(name) for change in looked if change.evaluation]
        rates = [rate for rate in seen if rate]
        lowest = 1.0
        relapsed = []
        for rate in seen:
            relapsed.append(bool(rate and lowest <= LIMIT < rate.after.value))
            lowest = min(lowest, rate.after.value) if rate else 1.0
        rows.append(
            {
                "concept": name,
                "request": number,
                "before": dataclasses.asdict(rates[0].before) if rates else None,
                "cells": [dataclasses.asdict(rate.after) if rate else None for rate in seen],
                "relapsed": relapsed,
            }
        )
    return rows


def _curves(looked: Sequence[Change]) -> list[dict[str, Any]]:
    """Shares of right pictures by group, drift and KID over the evaluations, as points of drawings."""
    evaluations = [change.evaluation for change in looked if change.evaluation]
    groups = list(dict.fromkeys(group for evaluation in evaluations for group in evaluation.kept))
    curves = []
    for group in groups:
        rates = [evaluation.kept.get(group) for evaluation in evaluations]
        curves.append(
            {
                "name": f"{group}, right",
                "unit": "share",
                "before": next(rate.before.value for rate in rates if rate),
                "values": [rate.after.value if rate else None for rate in rates],
                "low": [rate.after.low if rate else None for rate in rates],
                "high": [rate.after.high if rate else None for rate in rates],
            }
        )
    for name, values in (
        ("drift of the whole network", [change.drift for change in looked]),
        ("KID to the base model on what stays", [evaluation.kid for evaluation in evaluations]),
    ):
        if any(value is not None for value in values):
            curves.append({"name": name, "unit": "", "before": None, "values": values, "low": [], "high": []})
    return [curve | {"points": _points(curve), "top": _top(curve)} for curve in curves]


def _top(curve: Mapping[str, Any]) -> float:
    values = [value for value in curve["values"] if value is not None]
    return 1.0 if curve["unit"] == "share" else max(*values, 1e-12) if len(values) > 1 else values[0] or 1e-12


def _points(curve: Mapping[str, Any]) -> list[dict[str, float]]:
    """Points of a drawing 100 wide and 40 high, with whiskers if there are intervals."""
    top, count = _top(curve), len(curve["values"])
    points = []
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
        points.append(point)
    return points


def _row(project: Project, change: Added | Reverted) -> dict[str, Any]:
    active = {step.number for step in project.steps}
    if isinstance(change, Added):
        what, method = ", ".join(concept.name for concept in change.request.erase), change.recipe["method"]
    else:
        what, method = f"request {', '.join(map(str, change.removes))}", ""
    return {
        "number": change.number,
        "kind": change.kind,
        "what": what,
        "method": method,
        "holds": isinstance(change, Reverted) or change.number in active,
        "making": change.edit_seconds,
        "looking": change.evaluation_seconds,
        "bytes": sum(edit.bytes for edit in change.made),
        "drift": change.drift,
        "time": change.time,
        "hash": change.hash,
    }


def _layers(change: Change) -> list[tuple[str, float]]:
    return sorted(change.layers.items(), key=lambda pair: -pair[1])[:LAYERS]


def _strips(project: Project, looked: Sequence[Change]) -> list[dict[str, Any]]:
    """One prompt with the same noise over time for each erased concept and each retained group."""
    rows: dict[str, dict[str, Any]] = {}
    folders = [
        project.folder / LOOKS / change.evaluation.folder / FOLDER for change in looked if change.evaluation
    ]
    for folder in reversed(folders):
        where = f"cases of {quoted(folder)}"
        for case in read_lines(folder / "cases.jsonl", what="cases"):
            typed(case, dict.fromkeys(CASE, str), where=where)
            erased = case["role"] == "erased"
            kind = "objects" if case["object"] else "styles"
            title = case["concept"] if erased else f"kept: {case['role']} {kind}"
            rows.setdefault(
                title, {"title": title, "prompt": case["prompt"], "id": case["id"], "kept": not erased}
            )
    chosen = sorted(rows.values(), key=lambda row: row["kept"])[:STRIPS]
    places = [folders[-1] / "pictures" / BEFORE, *(folder / "pictures" / AFTER for folder in folders)]
    for row in chosen:
        paths = [member(place, f"{row['id']}.png") for place in places]
        row["pictures"] = [inline(path) if path.is_file() else "" for path in paths]
    return chosen
