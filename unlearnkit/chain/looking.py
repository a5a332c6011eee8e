"""What is seen after each entry: one panel of prompts, the same noise at every step, beside the first model."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..edit import Edit
from ..evaluation.draw import model_side
from ..evaluation.evaluate import evaluate
from ..evaluation.plan import AFTER, BEFORE, Rules, plan_for
from ..evaluation.record import FOLDER, file_hash
from ..model import Model
from ..suites.vocabulary import NAME, panel
from .project import LOOKS, Project, Step
from .screening import joined

if TYPE_CHECKING:
    from ..metrics.instruments import Instruments

__all__ = ["look", "tools"]

Tick = Callable[[str, int, int], None]


def tools(project: Project) -> Instruments:
    """What looks at the pictures: the canvas's own, or those that ``init`` was told, or nothing."""
    from ..families.opening import quiet
    from ..metrics.instruments import Instruments, canvas, local
    from ..model import is_canvas

    told = project.options["looks"]
    named = {name: told[name] for name in ("objects", "styles", "clip") if told[name]}
    if not told["pictures"]:
        return Instruments()
    with quiet():
        if is_canvas(project.options["model"]) and not named:
            return canvas()
        return local(**named)


def look(
    project: Project,
    model: Model,
    steps: Sequence[Step],
    weights: Mapping[str, Tensor],
    name: str,
    instruments: Instruments,
    *,
    tick: Tick | None = None,
) -> dict[str, Any] | None:
    """Evaluate what these requests made of the model, into ``looks/name``; None where nothing is asked."""
    each = project.options["looks"]["pictures"]
    if not steps or not each:
        return None
    request = joined([step.request for step in steps])
    cases = panel(request, model.hints, each)
    edit = Edit(dict(weights), {"base": project.options["base"]})
    sides = [model_side(BEFORE, model), model_side(AFTER, model, edit=edit)]
    plan = plan_for(NAME, request, cases, [], sides, instruments, Rules())
    folder = project.folder / LOOKS / name / FOLDER
    _share(project, folder, sides[0].identity)
    evaluate(folder, cases, sides, plan, instruments, tick=tick)
    tables = json.loads((folder / "tables.json").read_text(encoding="utf-8"))["tables"]
    return {
        "folder": name,
        "sha256": file_hash(folder / "evaluation.json"),
        "pictures": 2 * len(cases),
        **_summary(tables),
    }


def _share(project: Project, folder: Path, identity: str) -> None:
    """Take the first model's pictures from the last look, by hard links where the disk has them."""
    if not project.looks():
        return
    last = project.folder / LOOKS / list(project.looks())[-1] / FOLDER
    try:
        if json.loads((last / "plan.json").read_text(encoding="utf-8"))["sides"][BEFORE] != identity:
            return
    except (OSError, ValueError, KeyError):
        return
    (folder / "pictures" / BEFORE).mkdir(parents=True, exist_ok=True)
    for path in (last / "pictures" / BEFORE).glob("*.png"):
        place = folder / "pictures" / BEFORE / path.name
        if not place.exists():
            try:
                os.link(path, place)
            except OSError:
                shutil.copyfile(path, place)


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
