"""``chain verify``: compare every file with its hash, and the report with the ledger.

With ``redraw`` the weights are computed again, and pictures are drawn with them.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from pathlib import Path

from ...errors import EditError, InputError, UnlearnError, quoted, reason
from ...evaluation.attacked import record
from ...evaluation.draw import model_side
from ...evaluation.folders import FOLDER
from ...evaluation.plan import AFTER
from ...evaluation.record import stored
from ...evaluation.verify import LEVELS, levels_off
from ...evaluation.verify import verify as verify_evaluation
from ...io.files import entries, user_path
from ...io.tick import Tick
from ...model.edit import Edit
from ...model.model import Model
from .. import ledger
from ..file_list import hash_error, list_errors
from ..finish import base_model
from ..ledger import HEAD, LEDGER, Entry
from ..project import EDITS, FORMER, LOOKS, PAGES, WORK, Project, open_chain, project_of
from ..weights import current_edit
from .report import findings as report_findings

__all__ = ["verify"]


def verify(
    folder: str | Path,
    *,
    head: str | None = None,
    redraw: float = 0.0,
    seed: int = 0,
    model: Model | None = None,
    device: str | None = None,
    tick: Tick | None = None,
) -> list[str]:
    """What is wrong, and where, one line each; empty if nothing is.

    head: the hash that the ledger must end with, from your own copy. redraw: 0 to 1; above 0 the weights are computed
    and compared, and this share of the last pictures is drawn again. Raises InputError if there is no chain.
    """
    if not (math.isfinite(redraw) and 0 <= redraw <= 1):
        raise InputError(f"the share to redraw is {quoted(redraw)}: use 0 to 1")
    folder = user_path(folder)
    entries, wrong = ledger.check_ledger(folder)
    if wrong:
        return wrong
    try:
        project = project_of(folder, tuple(entries))
    except InputError as error:
        return [str(error)]
    if head is not None and project.head != head:
        wrong.append(f"the ledger ends with {project.head}, not with {quoted(head)}")
    try:
        wrong += [*_time_errors(project.entries), *_edit_errors(project), *_evaluation_errors(project)]
        for place in record.finished_attacks(project.folder):
            wrong += [f"{record.FOLDER}/{place.name}/{line}" for line in record.errors_of(place)]
        wrong += [*report_findings(project, again=not wrong), *_foreign_files(project)]
    except OSError as error:  # a folder that cannot be listed
        raise InputError(f"{quoted(error.filename or folder)} cannot be read: {reason(error)}") from None
    if redraw and not wrong:
        wrong += _redrawn(project, base_model(project, model, device), redraw, seed, tick)
    return wrong


def _time_errors(entries: tuple[Entry, ...]) -> Iterator[str]:
    for before, entry in itertools.pairwise(entries):
        if (now := entry.facts["time"]) < (was := before.facts["time"]):
            yield (
                f"{LEDGER}, line {entry.number + 1} is of {now}, the line before it of {was}: the clock went back, or "
                "the time was forged"
            )


def _edit_errors(project: Project) -> Iterator[str]:
    for name, sha256 in project.edits().items():
        path = project.folder / EDITS / f"{name}.safetensors"
        where = f"{EDITS}/{path.name}"
        if wrong := hash_error(path, sha256):
            yield f"{where} {wrong}"
            continue
        try:
            if Edit.load(path).hash() != name:
                yield f"{where} holds other weights than its name says"
        except EditError as error:
            yield f"{where} cannot be read: {error}"


def _evaluation_errors(project: Project) -> Iterator[str]:
    for name, evaluation in project.evaluations().items():
        folder, where = project.folder / LOOKS / name, f"{LOOKS}/{name}"
        if not folder.is_dir():
            yield f"{where} is missing"
            continue
        lines = [f"{where}/{line}" for line in list_errors(folder, evaluation)]
        if wrong := hash_error(folder / FOLDER / "evaluation.json", evaluation.sha256):
            lines.append(f"{where}/{FOLDER}/evaluation.json {wrong}")
        elif not lines:
            try:
                lines += [f"{where}: {line}" for line in verify_evaluation(folder)]
            except UnlearnError as error:
                lines.append(f"{where}: {error}")
        yield from dict.fromkeys(lines)


def _foreign_files(project: Project) -> Iterator[str]:
    """Files that are not of the chain. During a request, edits and evaluations that no entry names belong to it."""
    folder = project.folder
    ours = {LEDGER, HEAD, EDITS, LOOKS, WORK, record.FOLDER, *PAGES, FORMER}
    yield from (
        f"{quoted(path.name)} is no part of a chain" for path in entries(folder) if path.name not in ours
    )
    if _unnamed(project):
        project = open_chain(folder)  # another process may have added them since
    if not (folder / WORK).exists():
        yield from (f"{one} is named by no entry of the ledger" for one in _unnamed(project))


def _unnamed(project: Project) -> list[str]:
    known = {EDITS: {f"{name}.safetensors" for name in project.edits()}, LOOKS: {*project.evaluations()}}
    return [
        f"{part}/{path.name}"
        for part, names in known.items()
        for path in entries(project.folder / part)
        if path.name not in names
    ]


def _redrawn(project: Project, model: Model, share: float, seed: int, tick: Tick | None) -> Iterator[str]:
    """Compute the weights again and compare them; draw pictures of the last evaluation again and compare them."""
    edit = current_edit(project, model, project.steps)
    with model.wearing(edit):
        if model.fingerprint() != project.weights:
            yield "the weights that the edits give are not those that the ledger says"
            return
    if not (last := project.last) or not last.evaluation:
        return
    folder = project.folder / LOOKS / last.evaluation.folder / FOLDER
    cases = stored(folder)[1]
    side = model_side(AFTER, model, edit=edit)
    chosen = random.Random(seed).sample(cases, max(1, round(share * len(cases))))
    for done, case in enumerate(chosen, 1):
        if levels_off(folder, side, case) > LEVELS:
            yield f"{LOOKS}/{last.evaluation.folder}: picture {case.id}.png came out differently"
        if tick:
            tick("drawing again", done, len(chosen))
