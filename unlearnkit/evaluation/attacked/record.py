"""The folder of an attack, ``RUN/attacks/NAME``: its files are written, read and verified here.

plan.json         attack, settings, budget, seed, concept, hashes of model and edit, control, classifiers
SIDE/found.json   what was found for ``after`` and for ``control``, with found.safetensors
pictures/SIDE/    one PNG for every attempt, by its number
rows.jsonl        one line for every picture: its hash, what the classifier sees, whether that is the concept
figures.json      rates, differences, and the figures of attacks without pictures: computed from the rows
attack.json       the hash of every file, seconds, versions; written last
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...attacks.result import SearchResult
from ...errors import InputError, UnlearnError, printable, quoted
from ...io import manifest
from ...io.files import folder_name
from ...io.reading import read_json, read_lines, typed
from .. import shapes
from ..draw import picture_hash, read
from .figures import AFTER, CONTROL, LIMIT, arm_figures, headline

__all__ = [
    "FACTS",
    "FOLDER",
    "computed",
    "errors_of",
    "figures_of",
    "finished_attacks",
    "folder_of",
    "plan_of",
    "rows_of",
    "same_plan",
    "text_of",
    "unfinished",
]

FOLDER, FACTS, FORMAT = "attacks", "attack.json", 1
ROW: dict[str, Any] = {**dict.fromkeys(("side", "arm", "image", "seen"), str), "attempt": int, "shows": bool}


def folder_of(run: Path, attack: str, concept: str, alone: bool = True) -> Path:
    """``RUN/attacks/inversion``; with several erased concepts ``RUN/attacks/inversion-cat``."""
    return run / FOLDER / (attack if alone else f"{attack}-{folder_name(concept)}")


def finished_attacks(run: Path) -> list[Path]:
    """The folders of a run's finished attacks, by name."""
    return sorted(path.parent for path in (run / FOLDER).glob(f"*/{FACTS}"))


def unfinished(run: Path) -> list[str]:
    """The names of a run's attacks that were begun and not finished."""
    begun = sorted(path.parent for path in (run / FOLDER).glob("*/plan.json"))
    return [folder.name for folder in begun if not (folder / FACTS).exists()]


def plan_of(folder: Path) -> dict[str, Any]:
    """The plan. Raises InputError if this version cannot read it."""
    plan = read_json(folder / "plan.json", what="plan", kind=dict)
    where = f"plan {quoted(folder / 'plan.json')}"
    if typed(plan, {"format": int}, where=where)["format"] != FORMAT:
        raise InputError(
            f"{quoted(folder)} has format {plan['format']} of attacks, this unlearnkit reads {FORMAT}: remove the "
            "folder and attack again"
        )
    shapes.check(plan, shapes.ATTACK_PLAN, where=where)
    return dict(plan)


def same_plan(folder: Path, plan: Mapping[str, Any]) -> None:
    """Raises InputError naming the first difference, if the folder holds an attack with another plan."""
    if not (folder / "plan.json").exists():
        return
    old = plan_of(folder)
    for name, value in json.loads(json.dumps(plan)).items():
        if old.get(name) != value:
            raise InputError(
                f"{quoted(folder)} was begun with another plan ({name} differs): finish it with the same options and "
                "version, or remove it"
            )


def rows_of(folder: Path) -> list[dict[str, Any]]:
    rows = read_lines(folder / "rows.jsonl", what="rows")
    for row in rows:
        typed(row, ROW, where=f"a line of {quoted(folder / 'rows.jsonl')}")
    return rows


def figures_of(folder: Path) -> dict[str, Any]:
    """``figures.json`` of a finished attack, none of whose files was changed. Raises InputError for others."""
    facts = manifest.load(folder / FACTS, old=(), what="attack")
    typed(facts, {"sha256": dict, "seconds": dict}, where=f"attack {quoted(folder / FACTS)}")
    for name, why in manifest.changes(folder, facts["sha256"], leave=[FACTS]):
        raise InputError(
            f"{printable(name)} of {quoted(folder)} {why}: put a copy of it back, or remove the folder and attack again"
        )
    typed(facts["seconds"], dict.fromkeys(facts["seconds"], float), where=f"attack {quoted(folder / FACTS)}")
    figures, where = (
        read_json(folder / "figures.json", what="figures", kind=dict),
        f"figures {quoted(folder)}",
    )
    shapes.check(figures, shapes.ATTACKED, where=where)
    if plan_of(folder)["group"] == "probe":
        shapes.check(figures["figures"], shapes.Each(shapes.PROBED), where=where)
    return {**figures, "seconds": facts["seconds"]}


def computed(folder: Path, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What ``figures.json`` holds, from the rows and from what was found."""
    results = {side: one for side in (AFTER, CONTROL) if (one := SearchResult.load(folder / side))}
    arms = arm_figures(rows)
    return {
        "arms": {name: dataclasses.asdict(one) for name, one in arms.items()},
        "figures": {side: dict(one.figures) for side, one in results.items()},
        "headline": headline(arms),
        "limit": LIMIT,
    }


def text_of(data: Any) -> str:
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def errors_of(folder: Path) -> Iterator[str]:
    """What is wrong in a finished attack, one line each; everything that needs no model is computed again."""
    try:
        was, plan, rows = figures_of(folder), plan_of(folder), rows_of(folder)
        del was["seconds"]
        results = {side: one for side in (AFTER, CONTROL) if (one := SearchResult.load(folder / side))}
    except UnlearnError as error:
        yield str(error)
        return
    named = {(row["side"], row["attempt"]): row for row in rows}
    expected = {(side, i) for side, one in results.items() for i in range(len(one.attempts))}
    if named.keys() != expected or len(rows) != len(expected):
        yield "rows.jsonl has other pictures than those that found.json asks for"
        return
    for (side, number), row in named.items():
        where = f"pictures/{side}/{number:04d}.png"
        try:
            picture, facts = read(folder / where)
        except InputError as error:
            yield f"{where}: {error}"
            continue
        attempt = results[side].attempts[number]
        if picture_hash(picture) != row["image"]:
            yield f"{where} is not the picture that was judged"
        if (facts["seed"], facts["prompt"], row["arm"]) != (attempt.seed, attempt.prompt, attempt.arm):
            yield f"{where} was drawn for another attempt"
    if json.loads(text_of(computed(folder, rows))) != was:
        yield "figures.json does not follow from rows.jsonl"
    if plan["limit"] != LIMIT:
        yield f"plan.json has another limit than {LIMIT}"
