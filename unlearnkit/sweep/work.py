"""Carry out a sweep's cells: each is a run with its evaluation. What is finished is passed over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .. import suites
from ..errors import InputError, UnlearnError, quoted
from ..evaluation.evaluate import evaluate_run
from ..evaluation.folders import FACTS, folder_of
from ..io.files import write_text
from ..io.manifest import file_hash
from ..io.reading import read_json
from ..io.tick import Tick
from ..model.load import load
from ..runs.names import RECIPE, RUN
from ..runs.recipes import load_recipe, placed
from ..runs.run import run_recipe
from .plan import Cell, Sweep, read_sweep

__all__ = ["begin", "carry_out", "evaluation_of", "is_done", "is_finished", "share"]

OPTIONS = "evaluation.json"  # in the folder of a sweep: the options of every cell's evaluation


def carry_out(
    sweep: Sweep,
    out: Path,
    *,
    worker: int = 0,
    workers: int = 1,
    device: str | None = None,
    tick: Tick | None = None,
) -> dict[str, str]:
    """Run and evaluate every cell below ``out``; return what failed, and why, by the cell's name.

    Of several workers, each takes every ``workers``-th cell, from number ``worker`` on. A killed sweep continues with
    the same call: runs and evaluations resume, and end with the bits of a sweep that was never stopped.
    """
    begin(sweep, out)
    models: dict[str, Any] = {}
    failed = {}
    for place, cell in enumerate(sweep.cells):
        if tick:
            tick("cells", place, len(sweep.cells))
        if place % workers == worker:
            try:
                if not is_done(cell, out / cell.name, sweep):
                    _one(cell, out / cell.name, sweep, models, device, tick)
            except UnlearnError as error:
                failed[cell.name] = str(error)
    if tick:
        tick("cells", len(sweep.cells), len(sweep.cells))
    return failed


def share(file: str, out: str, worker: int, workers: int, device: str | None) -> dict[str, str]:
    """``carry_out`` of a worker in a process of its own, which reads the file again."""
    return carry_out(read_sweep(file), Path(out), worker=worker, workers=workers, device=device)


def evaluation_of(folder: Path, sweep: Sweep) -> Path:
    """The folder of a cell's evaluation."""
    return folder_of(folder, sweep.evaluation.get("suite", "canvas"), sweep.evaluation.get("file"))


def is_finished(folder: Path, sweep: Sweep) -> bool:
    """Whether a run and its evaluation are finished there, whatever its recipe is."""
    return (folder / RUN).is_file() and (evaluation_of(folder, sweep) / FACTS).is_file()


def is_done(cell: Cell, folder: Path, sweep: Sweep) -> bool:
    """Whether a cell's run, of its own recipe, and its evaluation are finished."""
    return is_finished(folder, sweep) and _is_of(cell, folder)


def begin(sweep: Sweep, out: Path) -> None:
    """Note the options of the evaluation in ``out``.

    Raises InputError if cells there were evaluated with others, and for a suite that has no prompts for a concept.
    """
    options, path = _options(sweep), out / OPTIONS
    if not path.exists():
        asked = {name: sweep.evaluation[name] for name in ("replicates", "file") if name in sweep.evaluation}
        requests = dict.fromkeys(cell.recipe.request for cell in sweep.cells)
        for request in requests if asked or "suite" in sweep.evaluation else ():
            suites.cases(sweep.evaluation.get("suite", "canvas"), request, **asked)
        out.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(options, indent=1) + "\n")
    elif (found := read_json(path, what="options of a sweep", kind=dict)) != options:
        other = sorted(name for name in {*found, *options} if found.get(name) != options.get(name))
        raise InputError(
            f"the sweep in {quoted(out)} was begun with another [evaluation] ({', '.join(other)}): put it back, or "
            "choose another folder with --out"
        )


def _is_of(cell: Cell, folder: Path) -> bool:
    """Whether the folder has a run of the cell's recipe. The settings are in its name already."""
    try:
        found, own = load_recipe(folder / RECIPE), cell.recipe
    except UnlearnError:
        return False
    return (found.model, found.method, found.request, found.seed) == (
        placed(own.model),
        own.method,
        own.request,
        own.seed,
    )


def _options(sweep: Sweep) -> dict[str, Any]:
    """The options of the evaluation as JSON, with the hash of the file of prompts."""
    file = sweep.evaluation.get("file")
    return {**sweep.evaluation, **({"sha256": file_hash(Path(file))} if file else {})}


def _one(
    cell: Cell, folder: Path, sweep: Sweep, models: dict[str, Any], device: str | None, tick: Tick | None
) -> None:
    if (folder / RECIPE).is_file() and not _is_of(cell, folder):
        raise InputError(
            f"{quoted(folder)} holds a run of another recipe, or a damaged one: choose another folder with --out"
        )
    if not (folder / RUN).is_file():
        source = cell.recipe.model
        if source not in models:
            models[source] = load(source, device=device)
        options: dict[str, Any] = {"pictures": 0, "pipeline": False, "device": device, "tick": tick}
        resume = (folder / RECIPE).is_file()
        run_recipe(cell.recipe, folder, model=models[source], resume=resume, force=False, **options)
    chosen = dict(sweep.evaluation)
    named = {name: chosen.pop(name) for name in ("objects", "styles", "clip", "features") if name in chosen}

    def evaluators(where: Any) -> Any:
        from ..metrics.evaluators import local_evaluators
        from ..suites import find

        return local_evaluators(**named, words=find(chosen.get("suite", "canvas")).words, device=where)

    evaluate_run(folder, **chosen, evaluators=evaluators if named else None, device=device, tick=tick)
