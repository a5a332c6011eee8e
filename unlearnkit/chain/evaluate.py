"""The evaluation after each entry: one panel of prompts with the same noise every time, against the base model."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..canvas.world import of_canvas
from ..errors import InputError, quoted
from ..evaluation.draw import model_side
from ..evaluation.evaluate import evaluate
from ..evaluation.folders import FOLDER
from ..evaluation.plan import AFTER, BEFORE, Rules, plan_for
from ..io.files import atomic_file, user_path
from ..io.manifest import file_hash
from ..io.reading import read_json
from ..io.tick import Tick
from ..model.edit import Edit
from ..model.model import Model
from ..suites.vocabulary import NAME, panel
from .file_list import unchanged_files, write_list
from .project import LOOKS, Project, Step
from .screening import join

if TYPE_CHECKING:
    from ..metrics.evaluators import Evaluators

__all__ = ["evaluate_steps", "open_evaluators", "resolved"]

WEIGHTS = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")  # suffixes of files with weights


def open_evaluators(project: Project) -> Evaluators:
    """The canvas's evaluators, or those of ``init``, or none if the chain has no pictures.

    Raises UnlearnError if they cannot be opened.
    """
    from ..families.opening import quiet
    from ..metrics.evaluators import Evaluators, canvas_evaluators, local_evaluators

    options = project.options
    if not options.pictures:
        return Evaluators()
    named: dict[str, Any] = {
        name: resolved(source, project.folder) for name, source in options.evaluators.items()
    }
    with quiet():
        if of_canvas(resolved(options.model, project.folder, must=False)) and not named:
            return canvas_evaluators()
        return local_evaluators(**named)


def resolved(source: str, folder: Path | None = None, *, must: bool = True) -> str:
    """The full path of a file or folder; any other name, such as a hub id, unchanged.

    folder: of a chain. The name is searched there, in the folder above, and in the working directory.
    must: raise InputError for a name that can only be a path and does not exist.
    """
    for start in (folder, folder.parent) if folder else ():
        if (start / source).exists():
            return str((start / source).resolve())
    path = user_path(source)
    if path.exists():
        return str(path.resolve())
    if must and (path.is_absolute() or source.startswith(".") or path.suffix in WEIGHTS):
        raise InputError(f"{quoted(source)} does not exist: give a folder, a file or a hub id that does")
    return source


def evaluate_steps(
    project: Project,
    model: Model,
    steps: Sequence[Step],
    edit: Edit,
    name: str,
    evaluators: Evaluators,
    *,
    tick: Tick | None = None,
) -> dict[str, Any] | None:
    """Evaluate the model after these requests, into ``looks/name``; None if there are no requests or no pictures."""
    each = project.options.pictures
    if not steps or not each:
        return None
    request = join([step.request for step in steps])
    cases = panel(request, model.hints, each)
    sides = [model_side(BEFORE, model), model_side(AFTER, model, edit=edit)]
    plan = plan_for(NAME, request, cases, [], sides, evaluators, Rules())
    folder = project.folder / LOOKS / name / FOLDER
    _reuse_base_pictures(project, folder, sides[0].identity)
    evaluate(folder, cases, sides, plan, evaluators, tick=tick)
    tables = read_json(folder / "tables.json", what="figures", kind=dict)["tables"]
    return {
        "folder": name,
        "sha256": file_hash(folder / "evaluation.json"),
        "files": write_list(folder.parent),
        "pictures": 2 * len(cases),
        **_summary(tables),
    }


def _reuse_base_pictures(project: Project, folder: Path, identity: str) -> None:
    """Link or copy the base model's pictures from the last evaluation. Changed pictures are drawn again."""
    if not project.evaluations():
        return
    previous = list(project.evaluations().values())[-1]
    last = project.folder / LOOKS / previous.folder
    good = unchanged_files(last, previous)
    if f"{FOLDER}/plan.json" not in good:
        return
    sides = read_json(last / FOLDER / "plan.json", what="plan", kind=dict).get("sides")
    if not isinstance(sides, dict) or sides.get(BEFORE) != identity:
        return
    (folder / "pictures" / BEFORE).mkdir(parents=True, exist_ok=True)
    for name in good:
        path = last / name
        place = folder / "pictures" / BEFORE / path.name
        if path.parent == last / FOLDER / "pictures" / BEFORE and not place.exists():
            try:
                os.link(path, place)
            except OSError:
                with atomic_file(place) as partial:
                    shutil.copyfile(path, partial)


def _summary(tables: Mapping[str, Any]) -> dict[str, Any]:
    """The figures for the ledger: how often each concept is seen, the retention, the distance to the base model."""
    kept = {
        f"{role} {kind}s": {side: _rate(figures[side]) for side in (BEFORE, AFTER)}
        for role, kinds in tables["kept"].items()
        for kind, figures in kinds.items()
    }
    seen = {
        concept["name"]: {side: _rate(concept["direct"][side]) for side in (BEFORE, AFTER)}
        for concept in tables["concepts"]
        if concept["direct"]
    }
    kid = tables["distances"].get("kept", {}).get("kid", {}).get("value")
    clip = tables["clip"].get("change", {}).get("value")
    return {"seen": seen, "kept": kept, "kid": kid, "clip": clip, "failed": _rate(tables["failed"][AFTER])}


def _rate(rate: Mapping[str, Any]) -> dict[str, Any]:
    return {name: rate[name] for name in ("k", "n", "value", "low", "high")}
