"""The folder of an evaluation: its files are written and read here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import suites
from ..errors import InputError, quoted
from ..io import manifest, tensors
from ..io.manifest import file_hash
from ..io.reading import read_json, read_lines, typed
from ..schema import Case, Score
from . import shapes
from .folders import FACTS
from .plan import Plan, cases_for

__all__ = [
    "plan_of",
    "same_plan",
    "stored",
    "write_facts",
    "write_features",
]

FORMAT = 2  # of plan.json
CASE: dict[str, Any] = {
    **dict.fromkeys(("id", "prompt_id", "prompt", "role", "form", "object", "style", "concept", "rest"), str),
    "seed": int,
}
SCORE: dict[str, Any] = {
    **dict.fromkeys(("case", "side", "image", "metric", "suite"), str),
    "value": (float, str),
}


def write_facts(folder: Path, facts: Mapping[str, Any]) -> str:
    """The text of ``evaluation.json``: the facts, and the hash of every other file of the evaluation."""
    manifest.no_links(folder)
    files = manifest.contents(folder, leave=[FACTS])
    return manifest.dump({"sha256": {name: file_hash(path) for name, path in files.items()}, **facts})


def plan_of(folder: Path) -> Plan:
    """The plan of a finished evaluation. Raises InputError if this version cannot read it."""
    where = f"plan {quoted(folder / 'plan.json')}"
    data = typed(read_json(folder / "plan.json", what="plan", kind=dict), {"format": int}, where=where)
    if data["format"] != FORMAT:
        raise InputError(
            f"{quoted(folder)} has format {quoted(data['format'])} of evaluations, this unlearnkit reads {FORMAT}: "
            "remove the folder and evaluate again"
        )
    shapes.check(data, shapes.PLAN, where=where)
    plan = Plan.of(data)
    if plan.suite in suites.SUITES and plan.suite_version > suites.find(plan.suite).version:
        raise InputError(
            f"{quoted(folder)} was made with version {plan.suite_version} of suite {plan.suite!r}: use a newer "
            "unlearnkit"
        )
    return plan


def stored(folder: Path) -> tuple[Plan, list[Case], list[Score], dict[str, NDArray[np.float32]]]:
    """Plan, cases, scores and features of a finished evaluation. Raises InputError if they cannot be read.

    The cases are those that were drawn: all, or those of the first round.
    """
    plan = plan_of(folder)
    cases = [Case(**_row(row, CASE, folder / "cases.jsonl")) for row in _rows(folder, "cases")]
    scores = [Score(**_row(row, SCORE, folder / "rows.jsonl")) for row in _rows(folder, "rows")]
    there = {score.case for score in scores}
    cases = cases[: next((end for end in plan.rounds if there <= {case.id for case in cases[:end]}), None)]
    _complete(folder, plan, cases, scores)
    features = {}
    if (folder / "features.safetensors").exists():
        features = {k: v.numpy() for k, v in tensors.read(folder / "features.safetensors")[0].items()}
    return plan, cases, scores, features


def same_plan(folder: Path, plan: Plan) -> None:
    """Refuse to resume an evaluation that has another plan, naming the first difference."""
    if not (folder / "plan.json").exists():
        return
    try:
        old = read_json(folder / "plan.json", what="plan", kind=dict)
    except InputError as error:
        raise InputError(f"{error}: remove {quoted(folder)} and evaluate again") from None
    for name, value in plan.data.items():
        if old.get(name) != value:
            raise InputError(
                f"{quoted(folder)} was begun with another plan ({name} differs): finish it with the same options "
                "and version, or remove it"
            )


def write_features(folder: Path, features: Mapping[str, NDArray[np.float32]]) -> None:
    """Features by ``side/network``, each (cases of the side, d); without features there is no file."""
    import torch

    if features:
        written = {name: torch.from_numpy(array) for name, array in features.items()}
        tensors.write(folder / "features.safetensors", written, {})


def _complete(folder: Path, plan: Plan, cases: list[Case], scores: list[Score]) -> None:
    """Raises InputError unless the rows are of exactly the pictures of the plan."""
    if file_hash(folder / "cases.jsonl") != plan.cases_sha256:
        raise InputError(f"{quoted(folder / 'cases.jsonl')} is damaged: it is not the one of the plan")
    for case_ in cases:
        if Path(case_.id).name != case_.id:
            raise InputError(
                f"{quoted(folder / 'cases.jsonl')} is damaged: {quoted(case_.id)} is no file name"
            )
    planned = {(side, case.id) for side in plan.sides for case in cases_for(plan, side, cases)}
    there = {(score.side, score.case) for score in scores}
    for side, case in sorted(planned - there):
        raise InputError(
            f"{quoted(folder / 'rows.jsonl')} is damaged: it has no row for {quoted(case)} of {side}"
        )
    for side, case in sorted(there - planned):
        raise InputError(
            f"{quoted(folder / 'rows.jsonl')} is damaged: it has a row for {quoted(case)} of {quoted(side)}, which "
            "is not in the plan"
        )
    erased = {concept.name for concept in plan.concepts}
    for case_ in cases:
        if case_.role == "erased" and case_.concept not in erased:
            raise InputError(
                f"{quoted(folder / 'cases.jsonl')} is damaged: {quoted(case_.concept)} is not erased by the plan"
            )


def _rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return read_lines(folder / f"{name}.jsonl", what=name)


def _row(row: dict[str, Any], types: dict[str, Any], path: Path) -> dict[str, Any]:
    """The row, checked to have exactly these keys."""
    where = f"a line of {quoted(path)}"
    typed(row, types, where=where)
    if extra := sorted(row.keys() - types.keys()):
        raise InputError(f"{where} is damaged: it has the unknown {quoted(extra[0])}")
    return row
