"""The file of a sweep, and its cells.

model = "canvas"
seeds = [0, 1]                 # default: [0]
concepts = "names.csv"         # a list of concepts, and/or tables [[erase]] as in a recipe
keep = ["dog"]

[[methods]]
name = "esd"
settings = { steps = [100, 200], lr = 1e-5 }   # a list: one cell for each value

[evaluation]                   # options of unlearnkit evaluate; default: quick = true
suite = "prompts"
file = "prompts.csv"
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, UnlearnError, quoted
from ..io.csv_files import SIZE
from ..io.reading import read_text, read_toml
from ..known import check_name, find
from ..model.places import hints_of
from ..runs.concept_files import read_concepts
from ..runs.names import default_folder
from ..runs.recipes import checked_table, concept_table, placed
from ..runs.requests import request_for
from ..schema import Concept, Recipe, Request
from ..settings import build

__all__ = ["Cell", "Sweep", "read_sweep"]

MOST = 10_000  # cells
_FILE: dict[str, Any] = {
    **{"model": str, "seeds": tuple[int, ...], "concepts": str, "erase": list, "keep": tuple[str, ...]},
    **{"methods": list, "evaluation": dict},
}
_EVALUATION: dict[str, Any] = {
    **dict.fromkeys(("suite", "file", "objects", "styles", "clip", "features"), str),
    **{"replicates": int, "quick": bool},
}


@dataclass(frozen=True)
class Cell:
    """One run. name: of its folder. variant: its method, with the settings that the sweep varies."""

    name: str
    variant: str
    recipe: Recipe


@dataclass(frozen=True)
class Sweep:
    """evaluation: options of ``evaluate_run``, and the classifiers of ``local_evaluators``."""

    cells: tuple[Cell, ...]
    evaluation: Mapping[str, Any]


def read_sweep(path: str | Path) -> Sweep:
    """The cells of a file, in order. Raises InputError that names what cannot be used, before any work."""
    path = Path(path)
    where, folder = f"sweep {quoted(path)}", path.parent
    top = checked_table(read_toml(path, what="sweep"), _FILE, where, required=("model", "methods"))
    model = placed(top["model"], folder)
    known = hints_of(model)
    concepts = [
        Concept(**concept_table(one, f"{where}, [[erase]] number {number}"))
        for number, one in enumerate(top.get("erase", ()), 1)
    ]
    if "concepts" in top:
        concepts += read_concepts(folder / top["concepts"], known=known)
    if not concepts:
        raise InputError(f"{where} erases nothing: add [[erase]] or concepts = FILE")
    requests = [
        request_for(one, keep=top.get("keep", ()), known=known) for one in Request(tuple(concepts)).erase
    ]
    cells = []
    for number, one in enumerate(top["methods"], 1):
        place = f"{where}, [[methods]] number {number}"
        table = checked_table(one, {"name": str, "settings": dict}, place, required=("name",))
        for variant, settings in _variants(table["name"], table.get("settings", {}), place):
            for request, seed in itertools.product(requests, top.get("seeds", (0,))):
                recipe = Recipe(model, table["name"], request, settings, seed)
                cells.append(Cell(default_folder(recipe).name, variant, recipe))
    if not cells:
        raise InputError(f"{where} has no cell: give at least one method, seed and value of each setting")
    if len(cells) > MOST:
        raise InputError(f"{where} has {len(cells):,} cells: at most {MOST:,} are run")
    names = Counter(cell.name for cell in cells)
    if twice := [name for name, count in names.items() if count > 1]:
        raise InputError(
            f"{where} has the cell {quoted(twice[0])} twice: leave out one of the equal methods or concepts"
        )
    return Sweep(tuple(cells), _evaluation(top.get("evaluation", {}), where, folder))


def _variants(method: str, settings: Mapping[str, Any], where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every combination of the settings' values, and its name: ``"esd steps=100"``."""
    varied = {name: value if isinstance(value, list) else [value] for name, value in settings.items()}
    if empty := [name for name, values in varied.items() if not values]:
        raise InputError(f"{where}: setting {quoted(empty[0])} has an empty list: give one value or more")
    for values in itertools.product(*varied.values()):
        chosen = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in zip(varied, values, strict=True)
        }
        try:
            build(find(method), chosen)
        except UnlearnError as error:
            raise InputError(f"{where}: {error}") from None
        shown = [f"{name}={value}" for name, value in chosen.items() if len(varied[name]) > 1]
        yield " ".join([method, *shown]), chosen


def _evaluation(data: Mapping[str, Any], where: str, folder: Path) -> dict[str, Any]:
    chosen = checked_table(data, _EVALUATION, f"{where}, [evaluation]", required=())
    if "suite" in chosen:
        check_name("suite", chosen["suite"])
    for name in ("file", "objects", "styles", "clip", "features"):
        if name in chosen:
            chosen[name] = placed(chosen[name], folder)
    if "file" in chosen:
        try:
            read_text(Path(chosen["file"]), what="file", most=SIZE)
        except UnlearnError as error:
            raise InputError(f"{where}, [evaluation]: {error}") from None
    if (replicates := chosen.get("replicates", 1)) < 1:
        raise InputError(f"{where}, [evaluation]: replicates {replicates} is out of range: use 1 or more")
    return {"quick": True, **chosen}
