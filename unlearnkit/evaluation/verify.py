"""Verify a run: every hash and figure is computed again from the stored files, without a model.

Compared are each file with its hash, the recipe with the edit's facts, the saved pipeline with the edit, the figures
and the pictures with the rows, and the report with the figures. ``redraw`` also opens the base model, compares its
weights with the pipeline's, draws a random share of the pictures again, and compares them.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, UnlearnError, quoted
from ..io import manifest
from ..io.files import user_path
from ..io.manifest import file_hash
from ..io.reading import typed
from ..io.tick import Tick
from ..runs import runfolder
from ..runs.names import no_run
from ..schema import Case, Score
from ..version import __version__
from . import claims
from .attacked import record as attacks
from .draw import Side, model_side, picture_hash, read
from .folders import FACTS, FOLDER, changes, facts_of, figures, finished, folders
from .plan import AFTER, BEFORE
from .record import stored
from .report import HTML, JSON, render
from .tables import tables

__all__ = ["LEVELS", "check", "levels_off", "redraw", "verify"]

LEVELS = 1  # of 255: the largest difference of a pixel that is drawn again, see Model.sample
REPORT = ("name", "run", "recipe", "evaluations", "pairs")  # the keys of report.json in older versions


def verify(run: str | Path) -> list[str]:
    """What is wrong in a run, its evaluations and its report, one line each; empty if nothing is.

    Raises InputError if there is neither a finished run nor a finished evaluation.
    """
    return check(run)[0]


def check(run: str | Path) -> tuple[list[str], list[str]]:
    """As ``verify``; the second list has what could not be checked or is not part of the run."""
    run = user_path(run)
    whole = (run / runfolder.RUN).exists()
    ready = [folder for folder in folders(run) if (folder / FACTS).exists()]
    if not whole and not ready:
        raise no_run(run)
    wrong, remarks = list[str](), list[str]()
    if whole or (run / runfolder.RECIPE).exists():  # the evaluations of a chain have neither
        wrong += runfolder.findings(run)
    if whole and not any(line.startswith(runfolder.RUN) for line in wrong):
        remarks += runfolder.remarks(run)
    damaged = bool(wrong)
    for folder in folders(run):
        where = folder.relative_to(run).as_posix()
        if folder in ready:
            lines = [f"{where}/{line}" for line in _evaluation(run, folder, edit=not damaged)]
            wrong += lines
            if not lines and (made := stored(folder)[0].data["unlearnkit"]) != __version__:
                remarks.append(
                    f"the verdict in {where} is by the rules of unlearnkit {made}; the figures agree"
                )
        else:
            remarks.append(f"{where} is not finished: unlearnkit evaluate continues it")
    for folder in attacks.finished_attacks(run):
        where = folder.relative_to(run).as_posix()
        wrong += [f"{where}/{line}" for line in attacks.errors_of(folder)]
    for name in attacks.unfinished(run):
        remarks.append(f"{attacks.FOLDER}/{name} is not finished: unlearnkit attack continues it")
    if not wrong and ((run / JSON).exists() or (run / HTML).exists()):
        for line, bad in _report(run):
            (wrong if bad else remarks).append(line)
    return wrong, remarks


def _evaluation(run: Path, folder: Path, *, edit: bool) -> Iterator[str]:
    """What is wrong in a finished evaluation, one line each, the file first. edit: whether to compare the edit, too."""
    try:
        facts = facts_of(folder)
    except InputError as error:
        yield f"{FACTS}: {error}"
        return
    if changed := [f"{name} {why}" for name, why in changes(folder, facts)]:
        yield from changed  # other findings would only follow from these
        return
    try:
        plan, cases, scores, features = stored(folder)
        was = figures(folder)
    except UnlearnError as error:
        yield f"{FACTS} fits, but not what it lists: {error}"
        return
    if edit and (run / runfolder.EDIT).is_file() and plan.data.get("edit", _hash(run)) != _hash(run):
        yield f"plan.json names another edit than {runfolder.EDIT}"
    yield from _pictures(folder, cases, scores)
    try:
        computed = tables(plan, cases, scores, features)
        again: Any = {"verdict": claims.verdict(plan, computed), "tables": computed}
        made = plan.data["unlearnkit"]
        early = (end for end in plan.rounds[:-1] if claims.decided(plan, cases[:end], scores))
        if made != __version__:  # its rules and words of the verdict may differ
            was, again = {"tables": was["tables"]}, {"tables": computed}
        elif next(early, plan.rounds[-1]) != len(cases):
            yield "rows.jsonl does not end with the round that decided"
    except (KeyError, ValueError, IndexError, TypeError) as error:
        yield f"the figures cannot be computed again from rows.jsonl ({type(error).__name__}: {error})"
        return
    if different := list(_differences(was, json.loads(json.dumps(again)))):
        more = f", and {len(different) - 3} more" if len(different) > 3 else ""
        other = f" (made with unlearnkit {made}, this is {__version__})" if made != __version__ else ""
        yield f"tables.json does not follow from rows.jsonl: {'; '.join(different[:3])}{more}{other}"


def _hash(run: Path) -> str:
    from ..model.edit import Edit

    return Edit.load(run / runfolder.EDIT).hash()


def _pictures(folder: Path, cases: list[Case], scores: list[Score]) -> Iterator[str]:
    """Compare every picture with the hash in its rows."""
    images = {(score.side, score.case): score.image for score in scores}
    known = {case.id: case for case in cases}
    for (side, name), image in images.items():
        where = f"pictures/{side}/{name}.png"
        try:
            picture, facts = read(folder / where)
            typed(facts, {"seed": int, "prompt": str}, where=f"what picture {quoted(folder / where)} says")
        except InputError as error:
            yield f"{where}: {error}"
            continue
        if picture_hash(picture) != image:
            yield f"{where} is not the picture that was scored"
        elif (facts["seed"], facts["prompt"]) != (known[name].seed, known[name].prompt):
            yield f"{where} was drawn for another prompt or seed"


def _report(run: Path) -> Iterator[tuple[str, bool]]:
    """What is wrong in a report, and whether it was changed; a report may also be older than an evaluation."""
    for name in (JSON, HTML):
        if not (run / name).is_file():
            yield f"{name} is missing: unlearnkit report writes it again", True
            return
    try:
        was = manifest.load(run / JSON, old=REPORT, what="report")
        if not manifest.sealed(was):
            yield f"{JSON} is of an older unlearnkit: unlearnkit report writes one that can be checked", False
            return
        typed(was, {"evaluations": dict, "sha256": dict, "unlearnkit": str}, where=JSON)
        there = {folder.name: folder for folder in folders(run) if (folder / FACTS).is_file()}
        for name in was["evaluations"].keys() - there.keys():
            yield f"{FOLDER}/{name}/{FACTS} is missing: {JSON} shows it", True
            return
        html, text = render(run)
    except InputError as error:
        yield f"{JSON}: {error}", True
        return
    now = json.loads(text)
    if file_hash(run / HTML) != was["sha256"].get(HTML):
        yield f"{HTML} was changed later: unlearnkit report writes it again", True
        return
    later = sorted(now["evaluations"].keys() - was["evaluations"].keys())
    now["evaluations"] = {name: facts for name, facts in now["evaluations"].items() if name not in later}
    fresh = was.get("attacks", {}) != now["attacks"] and _later_attacks(was, now)
    for name in ("run", "recipe", "evaluations", *(() if fresh or "attacks" not in was else ("attacks",))):
        if was.get(name) != now[name]:
            yield f"{JSON} does not follow from the run: its {name} differs", True
            return
    if later or fresh:
        newer = f"the evaluation {later[0]}" if later else "an attack"
        yield f"{HTML} is older than {newer}: unlearnkit report writes it again", False
    elif (
        was["unlearnkit"] == __version__
        and was.get("name") == now["name"]
        and hashlib.sha256(html.encode()).hexdigest() != was["sha256"][HTML]
    ):
        yield f"{HTML} does not follow from the figures: unlearnkit report writes it again", True


def _later_attacks(was: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether an attack is there that a report does not have."""
    names: list[set[str]] = [
        {one["folder"] for concept in each.get("attacks", {}).values() for one in concept["attacks"]}
        for each in (was, now)
    ]
    return bool(names[1] - names[0])


def _differences(was: Any, now: Any, where: str = "") -> Iterator[str]:
    """The differences of two trees of plain data, as ``path: stored, computed``; numbers equal to 1e-8 are equal."""
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
    tick: Tick | None = None,
) -> tuple[int, list[str]]:
    """Draw a random ``share`` (0 to 1) of the pictures before and after again; return their number and the differences.

    Weights of the saved pipeline that the edit does not change are compared with the base model's, too.
    """
    from ..model.load import load

    if not 0 < share <= 1:
        raise InputError(f"the share to redraw is {share:.2%}: use more than 0% and at most 100%")
    run = user_path(run)
    cases = {folder: stored(folder)[1] for folder in finished(run)}
    recipe, edit = runfolder.opened(run)
    model = load(recipe.model, device=device, dtype=dtype, edit=edit, variant=recipe.variant)
    sides = [model_side(BEFORE, model), model_side(AFTER, model, edit=edit)]
    all_ = [(folder, side, case) for folder, listed in cases.items() for side in sides for case in listed]
    chosen = random.Random(seed).sample(all_, max(1, round(share * len(all_))))
    differences = list(runfolder.misfits(run, model, edit))
    for done, (folder, side, case) in enumerate(chosen, 1):
        off = levels_off(folder, side, case)
        if off > LEVELS:
            name = (folder / "pictures" / side.name / f"{case.id}.png").relative_to(run).as_posix()
            differences.append(f"{name} comes out differently, by up to {off} levels of 255")
        if tick:
            tick("drawing again", done, len(chosen))
    return len(chosen), differences


def levels_off(folder: Path, side: Side, case: Case) -> int:
    """The largest difference, of 255, between a stored picture and the picture that the side draws now."""
    picture = np.asarray(side.sample([case.prompt], [case.seed])[0].convert("RGB"), int)
    stored_picture = np.asarray(read(folder / "pictures" / side.name / f"{case.id}.png")[0], int)
    return 255 if picture.shape != stored_picture.shape else int(np.abs(picture - stored_picture).max())
