"""Carry out a sweep's cells: each is a run with its evaluation. What is finished is passed over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import UnlearnError
from ..evaluation.evaluate import evaluate_run
from ..evaluation.folders import FACTS, folder_of
from ..io.tick import Tick
from ..model.load import load
from ..runs.names import RECIPE, RUN
from ..runs.run import run_recipe
from .plan import Cell, Sweep, read_sweep

__all__ = ["carry_out", "evaluation_of", "is_done", "share"]


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
    models: dict[str, Any] = {}
    failed = {}
    for place, cell in enumerate(sweep.cells):
        if tick:
            tick("cells", place, len(sweep.cells))
        if place % workers == worker and not is_done(out / cell.name, sweep):
            try:
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


def is_done(folder: Path, sweep: Sweep) -> bool:
    """Whether a cell's run and evaluation are finished."""
    return (folder / RUN).is_file() and (evaluation_of(folder, sweep) / FACTS).is_file()


def _one(
    cell: Cell, folder: Path, sweep: Sweep, models: dict[str, Any], device: str | None, tick: Tick | None
) -> None:
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
