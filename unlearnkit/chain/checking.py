"""Is a chain what it says it is? Ledger, edits and evaluations against their hashes; with a model, the weights too."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

from ..edit import Edit
from ..errors import EditError, UnlearnError
from ..evaluation.draw import model_side
from ..evaluation.plan import AFTER
from ..evaluation.record import FOLDER, file_hash, stored
from ..evaluation.verify import LEVELS, levels_off
from ..evaluation.verify import verify as verify_look
from ..model import Model
from . import ledger
from .project import EDITS, LOOKS, Project, opened
from .steps import base_model
from .weights import current

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
    folder = Path(folder)
    if not (folder / ledger.LEDGER).is_file():
        opened(folder)
    wrong = list(ledger.findings(folder))
    if wrong:
        return wrong
    project = opened(folder)
    last = project.entries[-1].hash
    if head is not None and last != head:
        wrong.append(f"the ledger ends with {last}, not with {head}")
    wrong += [*_edits(project), *_looks(project)]
    if redraw and not wrong:
        wrong += _redrawn(project, base_model(project, model, device), redraw, seed, tick)
    return wrong


def _edits(project: Project) -> Iterator[str]:
    for name, wanted in project.edits().items():
        path = project.folder / EDITS / f"{name}.safetensors"
        where = f"{EDITS}/{path.name}"
        if not path.is_file():
            yield f"{where} is missing"
        elif file_hash(path) != wanted:
            yield f"{where} was changed"
        else:
            try:
                if Edit.load(path).hash() != name:
                    yield f"{where} holds other weights than its name says"
            except EditError as error:
                yield f"{where} cannot be read: {error}"


def _looks(project: Project) -> Iterator[str]:
    for name, entry in project.looks().items():
        where = f"{LOOKS}/{name}"
        path = project.folder / where / FOLDER / "evaluation.json"
        if not path.is_file():
            yield f"{where} is missing"
        elif file_hash(path) != entry.facts["look"]["sha256"]:
            yield f"{where}/{FOLDER}/evaluation.json was changed"
        else:
            try:
                yield from (f"{where}: {finding}" for finding in verify_look(project.folder / where))
            except UnlearnError as error:
                yield f"{where}: {error}"


def _redrawn(project: Project, model: Model, share: float, seed: int, tick: Tick | None) -> Iterator[str]:
    """The weights as they are put together now, and pictures of the last look drawn with them."""
    weights = current(project, model, project.steps)
    with model.wearing(weights):
        if model.fingerprint() != project.weights:
            yield "the weights that the edits give are not those that the ledger says"
            return
    last = project.entries[-1].facts.get("look")
    if not last:
        return
    folder = project.folder / LOOKS / last["folder"] / FOLDER
    cases = stored(folder)[1]
    side = model_side(AFTER, model, edit=Edit(weights, {"base": project.options["base"]}))
    chosen = random.Random(seed).sample(cases, max(1, round(share * len(cases))))
    for done, case in enumerate(chosen, 1):
        if levels_off(folder, side, case) > LEVELS:
            yield f"{LOOKS}/{last['folder']}: picture {case.id}.png came out differently"
        if tick:
            tick("drawing again", done, len(chosen))
