"""Is an evaluation what it says it is? Every hash and figure is computed again from what is stored, without a model.

``redraw`` goes further: it draws a random share of the pictures again, with the models, and compares them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..errors import InputError
from ..schema import Case, Score
from . import claims
from .draw import Side, model_side, picture_hash, read
from .plan import AFTER, BEFORE, asked
from .record import FOLDER, file_hash, finished, stored
from .tables import tables

__all__ = ["LEVELS", "levels_off", "redraw", "verify"]

LEVELS = 1  # of 255: how far a pixel drawn again may be off, see Model.sample


def verify(run: str | Path) -> list[str]:
    """What does not fit in any evaluation of a run, a line each; empty if everything does.

    Raises InputError where there is no finished evaluation.
    """
    run = Path(run)
    return [_at(run, folder) + line for folder in finished(run) for line in _findings(run, folder)]


def _findings(run: Path, folder: Path) -> Iterator[str]:
    facts = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    for name, wanted in facts["sha256"].items():
        if not (folder / name).is_file():
            yield f"{name} is missing"
        elif file_hash(folder / name) != wanted:
            yield f"{name} was changed after the evaluation"
    try:
        plan, cases, scores, features = stored(folder)
    except InputError as error:
        yield str(error)
        return
    if file_hash(folder / "cases.jsonl") != plan["cases"]["sha256"]:
        yield "cases.jsonl is not the one of the plan"
    if (run / "edit.safetensors").is_file() and "edit" in plan:
        from ..edit import Edit

        if Edit.load(run / "edit.safetensors").hash() != plan["edit"]:
            yield "edit.safetensors is not the edit that was evaluated"
    yield from _pictures(folder, plan, cases, scores)
    try:
        found = tables(plan, cases, scores, features)
        again: Any = {"verdict": claims.verdict(plan, found), "tables": found}
    except (KeyError, ValueError, IndexError, TypeError) as error:
        yield f"the figures cannot be computed again from rows.jsonl ({type(error).__name__}: {error})"
        return
    was = json.loads((folder / "tables.json").read_text(encoding="utf-8"))
    if different := list(_differences(was, json.loads(json.dumps(again)))):
        more = f", and {len(different) - 3} more" if len(different) > 3 else ""
        made = plan["unlearnkit"]
        other = f" (made with unlearnkit {made}, this is {__version__})" if made != __version__ else ""
        yield f"tables.json does not follow from rows.jsonl: {'; '.join(different[:3])}{more}{other}"


def _pictures(folder: Path, plan: dict[str, Any], cases: list[Case], scores: list[Score]) -> Iterator[str]:
    """Every picture against the hash in its rows, and every row against the cases."""
    images = {(score.side, score.case): score.image for score in scores}
    known = {case.id: case for case in cases}
    for side in plan["sides"]:
        for case in asked(plan, side, cases):
            if (side, case.id) not in images:
                yield f"rows.jsonl has no row for case {case.id!r} of {side}"
    for (side, name), image in images.items():
        if name not in known or side not in plan["sides"]:
            yield f"rows.jsonl has a row for {name!r} of {side!r}, which the plan has not"
            continue
        try:
            picture, facts = read(folder / "pictures" / side / f"{name}.png")
        except InputError as error:
            yield str(error)
            continue
        if picture_hash(picture) != image:
            yield f"picture {side}/{name}.png is not the one that was scored"
        elif (facts["seed"], facts["prompt"]) != (known[name].seed, known[name].prompt):
            yield f"picture {side}/{name}.png was drawn for another prompt or seed"


def _differences(was: Any, now: Any, where: str = "") -> Iterator[str]:
    """Where two trees of plain data differ, as ``path: stored, computed``; numbers may differ in the eighth digit."""
    if isinstance(was, dict) and isinstance(now, dict):
        for name in sorted({*was, *now}):
            yield from _differences(was.get(name), now.get(name), f"{where} > {name}" if where else name)
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for i, (one, two) in enumerate(zip(was, now, strict=True)):
            yield from _differences(one, two, f"{where}[{i}]")
    elif isinstance(was, int | float) and isinstance(now, int | float) and not isinstance(was, bool):
        if abs(was - now) > 1e-8 * max(1.0, abs(was), abs(now)):
            yield f"{where} is stored as {was:g} and computed as {now:g}"
    elif was != now:
        yield f"{where} differs"


def redraw(
    run: str | Path,
    share: float,
    *,
    seed: int = 0,
    device: str | None = None,
    dtype: str | None = None,
    tick: Callable[[str, int, int], None] | None = None,
) -> tuple[int, list[str]]:
    """Draw a random ``share`` of the pictures before and after again: how many, and which came out differently."""
    from ..edit import Edit
    from ..model import load
    from ..recipes import load_recipe

    if not 0 < share <= 1:
        raise InputError(f"the share to redraw is {share:.2%}: use more than 0% and at most 100%")
    run = Path(run)
    cases = {folder: stored(folder)[1] for folder in finished(run)}
    edit = Edit.load(run / "edit.safetensors")
    model = load(load_recipe(run / "recipe.toml").model, device=device, dtype=dtype, edit=edit)
    sides = [model_side(BEFORE, model), model_side(AFTER, model, edit=edit)]
    all_ = [(folder, side, case) for folder, asked in cases.items() for side in sides for case in asked]
    chosen = random.Random(seed).sample(all_, max(1, round(share * len(all_))))
    found = []
    for done, (folder, side, case) in enumerate(chosen, 1):
        off = levels_off(folder, side, case)
        if off > LEVELS:
            name = f"{_at(run, folder)}picture {side.name}/{case.id}.png"
            found.append(f"{name} comes out differently, by up to {off} levels of 255")
        if tick:
            tick("redrawing", done, len(chosen))
    return len(chosen), found


def _at(run: Path, folder: Path) -> str:
    """Where a finding is: nothing to say for the only evaluation of a look."""
    return "" if folder == run / FOLDER else f"{folder.name}: "


def levels_off(folder: Path, side: Side, case: Case) -> int:
    """How far a picture of an evaluation is from what the side draws now: the largest difference, of 255."""
    picture = np.asarray(side.sample([case.prompt], [case.seed])[0].convert("RGB"), int)
    kept = np.asarray(read(folder / "pictures" / side.name / f"{case.id}.png")[0], int)
    return 255 if picture.shape != kept.shape else int(np.abs(picture - kept).max())
