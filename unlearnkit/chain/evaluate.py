"""What is seen after each entry: one panel of prompts, the same noise at every step, beside the first model."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, quoted
from ..evaluation.draw import model_side
from ..evaluation.evaluate import evaluate
from ..evaluation.plan import AFTER, BEFORE, Rules, plan_for
from ..evaluation.record import FOLDER, file_hash
from ..io.files import atomic_file, user_path
from ..io.reading import read_json
from ..models.edit import Edit
from ..models.model import Model
from ..suites.vocabulary import NAME, panel
from .file_list import as_listed, listed
from .project import LOOKS, Project, Step
from .screening import joined

if TYPE_CHECKING:
    from ..metrics.evaluators import Evaluators

__all__ = ["found_at", "look", "tools"]

WEIGHTS = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")  # how the names of files of weights end
Tick = Callable[[str, int, int], None]


def tools(project: Project) -> Evaluators:
    """What looks at the pictures: the canvas's own, or those that ``init`` was given, or nothing.

    Raises UnlearnError for what cannot be opened.
    """
    from ..families.opening import quiet
    from ..metrics.evaluators import Evaluators, canvas_evaluators, local_evaluators
    from ..models.load import is_canvas

    options = project.options
    if not options.pictures:
        return Evaluators()
    named: dict[str, Any] = {
        name: found_at(source, project.folder) for name, source in options.readers.items()
    }
    with quiet():
        if is_canvas(options.model) and not named:
            return canvas_evaluators()
        return local_evaluators(**named)


def found_at(source: str, folder: Path | None = None, *, must: bool = True) -> str:
    """A file or folder by its full path; any other name, such as a hub id, as it is.

    folder: of a chain that holds the name as it was typed: from there, from the folder above or from here it is found.
    must: raises InputError for what can only be a path, and is not there.
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


def look(
    project: Project,
    model: Model,
    steps: Sequence[Step],
    edit: Edit,
    name: str,
    evaluators: Evaluators,
    *,
    tick: Tick | None = None,
) -> dict[str, Any] | None:
    """Evaluate what these requests made of the model, into ``looks/name``; None where nothing is asked."""
    each = project.options.pictures
    if not steps or not each:
        return None
    request = joined([step.request for step in steps])
    cases = panel(request, model.hints, each)
    sides = [model_side(BEFORE, model), model_side(AFTER, model, edit=edit)]
    plan = plan_for(NAME, request, cases, [], sides, evaluators, Rules())
    folder = project.folder / LOOKS / name / FOLDER
    _share(project, folder, sides[0].identity)
    evaluate(folder, cases, sides, plan, evaluators, tick=tick)
    tables = read_json(folder / "tables.json", what="figures", kind=dict)["tables"]
    return {
        "folder": name,
        "sha256": file_hash(folder / "evaluation.json"),
        "files": listed(folder.parent),
        "pictures": 2 * len(cases),
        **_summary(tables),
    }


def _share(project: Project, folder: Path, identity: str) -> None:
    """Take the first model's pictures from the last look, by hard links where the disk has them.

    Only those that are as they were listed: any other is drawn again.
    """
    if not project.looks():
        return
    seen = list(project.looks().values())[-1]
    last = project.folder / LOOKS / seen.folder
    good = as_listed(last, seen)
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
    """The figures that the ledger keeps: how often each concept is seen, what stayed, how far the pictures went."""
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
