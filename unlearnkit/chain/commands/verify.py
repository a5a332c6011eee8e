"""Is a chain what it says it is? Every file against its hash, and the report against the ledger.

With a model, the weights are put together again and pictures are drawn with them.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from ...errors import EditError, InputError, UnlearnError, quoted, reason
from ...evaluation.draw import model_side
from ...evaluation.plan import AFTER
from ...evaluation.record import FOLDER, stored
from ...evaluation.verify import LEVELS, levels_off
from ...evaluation.verify import verify as verify_look
from ...io.files import entries, user_path
from ...models.edit import Edit
from ...models.model import Model
from .. import ledger
from ..file_list import changed, unlisted
from ..finish import base_model
from ..ledger import HEAD, LEDGER, Entry
from ..project import EDITS, FORMER, LOOKS, PAGES, WORK, Project, opened, project_of
from ..weights import current
from .report import findings as report_findings

__all__ = ["verify"]

Tick = Callable[[str, int, int], None]


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
    """What does not fit, and where, a line each; empty if everything does.

    head: the hash that the ledger must end with, kept elsewhere. redraw: above 0 the weights are put together again and
    compared, and this share of the last look's pictures is drawn again with them. Raises InputError where no chain is.
    """
    if not (math.isfinite(redraw) and 0 <= redraw <= 1):
        raise InputError(f"the share to redraw is {quoted(redraw)}: use 0 to 1")
    folder = user_path(folder)
    entries, wrong = ledger.examined(folder)
    if wrong:
        return wrong
    try:
        project = project_of(folder, tuple(entries))
    except InputError as error:
        return [str(error)]
    if head is not None and project.head != head:
        wrong.append(f"the ledger ends with {project.head}, not with {quoted(head)}")
    try:
        wrong += [*_clock(project.entries), *_edits(project), *_looks(project)]
        wrong += [*report_findings(project, again=not wrong), *_others(project)]
    except OSError as error:  # a folder that cannot be listed
        raise InputError(f"{quoted(error.filename or folder)} cannot be read: {reason(error)}") from None
    if redraw and not wrong:
        wrong += _redrawn(project, base_model(project, model, device), redraw, seed, tick)
    return wrong


def _clock(entries: tuple[Entry, ...]) -> Iterator[str]:
    for before, entry in itertools.pairwise(entries):
        if (now := entry.facts["time"]) < (was := before.facts["time"]):
            yield (
                f"{LEDGER}, line {entry.number + 1} is of {now}, the line before it of {was}: the clock went back, or "
                "the time was forged"
            )


def _edits(project: Project) -> Iterator[str]:
    for name, wanted in project.edits().items():
        path = project.folder / EDITS / f"{name}.safetensors"
        where = f"{EDITS}/{path.name}"
        if wrong := changed(path, wanted):
            yield f"{where} {wrong}"
            continue
        try:
            if Edit.load(path).hash() != name:
                yield f"{where} holds other weights than its name says"
        except EditError as error:
            yield f"{where} cannot be read: {error}"


def _looks(project: Project) -> Iterator[str]:
    for name, look in project.looks().items():
        folder, where = project.folder / LOOKS / name, f"{LOOKS}/{name}"
        if not folder.is_dir():
            yield f"{where} is missing"
            continue
        found = [f"{where}/{line}" for line in unlisted(folder, look)]
        if wrong := changed(folder / FOLDER / "evaluation.json", look.sha256):
            found.append(f"{where}/{FOLDER}/evaluation.json {wrong}")
        elif not found:
            try:
                found += [f"{where}: {line}" for line in verify_look(folder)]
            except UnlearnError as error:
                found.append(f"{where}: {error}")
        yield from dict.fromkeys(found)


def _others(project: Project) -> Iterator[str]:
    """Files that belong to nobody. While a request is under way, edits and looks that no entry names are its own."""
    folder = project.folder
    ours = {LEDGER, HEAD, EDITS, LOOKS, WORK, *PAGES, FORMER}
    yield from (
        f"{quoted(path.name)} is no part of a chain" for path in entries(folder) if path.name not in ours
    )
    if _unnamed(project):
        project = opened(folder)  # another process may have added them since
    if not (folder / WORK).exists():
        yield from (f"{one} is named by no entry of the ledger" for one in _unnamed(project))


def _unnamed(project: Project) -> list[str]:
    known = {EDITS: {f"{name}.safetensors" for name in project.edits()}, LOOKS: {*project.looks()}}
    return [
        f"{part}/{path.name}"
        for part, names in known.items()
        for path in entries(project.folder / part)
        if path.name not in names
    ]


def _redrawn(project: Project, model: Model, share: float, seed: int, tick: Tick | None) -> Iterator[str]:
    """The weights as they are put together now, and pictures of the last look drawn with them."""
    edit = current(project, model, project.steps)
    with model.wearing(edit):
        if model.fingerprint() != project.weights:
            yield "the weights that the edits give are not those that the ledger says"
            return
    if not (last := project.last) or not last.look:
        return
    folder = project.folder / LOOKS / last.look.folder / FOLDER
    cases = stored(folder)[1]
    side = model_side(AFTER, model, edit=edit)
    chosen = random.Random(seed).sample(cases, max(1, round(share * len(cases))))
    for done, case in enumerate(chosen, 1):
        if levels_off(folder, side, case) > LEVELS:
            yield f"{LOOKS}/{last.look.folder}: picture {case.id}.png came out differently"
        if tick:
            tick("drawing again", done, len(chosen))
