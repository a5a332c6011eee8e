"""How a chain begins and grows. Every change is made whole beside it, and then one line in the ledger.

Until that line nothing counts: a failing request, a kill or a full disk leaves the chain as it was, and the same call
again goes on where it was stopped, to the same weights.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import methods
from ..errors import InputError, quoted
from ..files import writing
from ..methods import Job
from ..model import Model, hints_of, load
from ..run import request_for
from ..schema import Concept, Request, folded
from ..settings import build
from ..undisturbed import steady
from ..versions import versions
from . import ledger
from .guards import Guards
from .ledger import Entry
from .looking import look, tools
from .making import handed_over, make
from .merging import Merge
from .project import EDITS, WORK, Project, Step, identity, locked, opened, swept
from .weights import current, drift, kept

if TYPE_CHECKING:
    from ..metrics.instruments import Instruments

__all__ = ["REGIMES", "Tick", "add", "base_model", "changing", "init", "settled"]

REGIMES = ("sequential", "joint", "merged")
Tick = Callable[[str, int, int], None]


def init(
    folder: str | Path,
    model: Model | str | Path = "canvas",
    *,
    regime: str = "sequential",
    method: str = "esd",
    settings: Mapping[str, Any] | None = None,
    guards: Mapping[str, Any] | None = None,
    merge: Mapping[str, Any] | None = None,
    pictures: int = 5,
    objects: str | None = None,
    styles: str | None = None,
    clip: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> Project:
    """Begin a chain in a new or empty folder.

    model: a loaded Model, or anything that ``load`` takes. regime: ``sequential``, ``joint`` or ``merged``.
    method, settings, guards: what a request takes that says nothing else. merge: see ``Merge``.
    pictures: of each word of the model's vocabulary after each request; 0 looks at nothing.
    objects, styles, clip: what looks at them, as in ``evaluate``; for the canvas its own judge if none is named.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{str(folder)!r} is not empty: choose another folder for the chain")
    if regime not in REGIMES:
        raise InputError(f"regime {regime!r} is unknown: use one of {', '.join(REGIMES)}")
    if pictures < 0:
        raise InputError(f"pictures {pictures} is out of range: use 0 or more")
    build(methods.find(method), settings or {})
    loaded = model if isinstance(model, Model) else load(model, device=device, dtype=dtype)
    facts = {
        "format": 1,
        "model": _source(loaded.source),
        "base": loaded.fingerprint(),
        "weights": loaded.fingerprint(),
        "dtype": loaded.precision,
        "regime": regime,
        "method": method,
        "settings": dict(settings or {}),
        "guards": dataclasses.asdict(build(Guards, guards or {})),
        "merge": dataclasses.asdict(build(Merge, merge or {})),
        "looks": {"pictures": pictures, "objects": objects, "styles": styles, "clip": clip},
        **_stamp(),
    }
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        ledger.append(folder, (), ledger.sealed((), "init", facts))
    return opened(folder)


@steady()
def add(
    folder: str | Path,
    concept: str | Concept | Request | Iterable[str | Concept],
    *,
    kind: str = "object",
    phrases: Iterable[str] = (),
    instead: str | None = None,
    keep: Iterable[str | Concept] = (),
    method: str | None = None,
    settings: Mapping[str, Any] | None = None,
    guards: Mapping[str, Any] | None = None,
    seed: int = 0,
    model: Model | None = None,
    instruments: Instruments | None = None,
    device: str | None = None,
    tick: Tick | None = None,
) -> Entry:
    """Erase one more request, and return its entry in the ledger.

    concept, kind, phrases, instead, keep: as in ``unlearnkit.erase``. method, settings, guards: in place of the
    chain's own, of which the settings hold for its own method only. model: the loaded first model, to save loading it.
    Raises UnlearnError for anything that cannot be used, and where the erasing fails; the chain is then as it was.
    """
    folder = Path(folder)
    known = hints_of(opened(folder).options["model"])
    request = request_for(concept, kind=kind, phrases=phrases, instead=instead, keep=keep, known=known)
    with changing(folder):
        project = opened(folder)
        steps = project.steps
        _refuse(project, steps, request)
        chosen = method or project.options["method"]
        own = project.options["settings"] if chosen == project.options["method"] else {}
        build(methods.find(chosen), {**own, **(settings or {})})
        guarded = build(Guards, {**project.options["guards"], **(guards or {})})
        model = base_model(project, model, device)
        told = {**handed_over(chosen, guarded), **own, **(settings or {})}
        filled = methods.resolve(model, request, chosen, told)
        recipe = {
            "method": chosen,
            "settings": dataclasses.asdict(filled),
            "seed": seed,
            "guards": dataclasses.asdict(guarded),
        }
        facts: dict[str, Any] = {"request": dataclasses.asdict(request), "recipe": recipe}
        work = identity(facts | {"head": project.entries[-1].hash})
        begun = time.monotonic()
        job = Job(folder=folder / WORK / work, progress=tick)
        edit = kept(project, make(project, model, steps, request, recipe, job=job))
        facts |= {
            "edit": edit,
            "after": [step.number for step in steps],
            "making": round(time.monotonic() - begun, 1),
        }
        made = Step(len(project.entries), request, recipe, edit, tuple(step.number for step in steps))
        return settled(project, "add", facts, (*steps, made), model, work, instruments, tick)


def base_model(project: Project, model: Model | None, device: str | None = None) -> Model:
    """The first model of a chain, loaded unless it is given. Raises InputError for another one."""
    source, told = project.options["model"], project.options["base"]
    found = load(source, device=device, dtype=project.options["dtype"]) if model is None else model
    if found.fingerprint() != told:
        raise InputError(
            f"the chain in {str(project.folder)!r} was begun with the weights {told[:12]} of {source!r}, and "
            f"{found.source!r} has {found.fingerprint()[:12]}: put the first model back in its place"
        )
    return found


@steady()
def settled(
    project: Project,
    kind: str,
    facts: dict[str, Any],
    steps: Sequence[Step],
    model: Model,
    work: str,
    instruments: Instruments | None,
    tick: Tick | None,
) -> Entry:
    """Put together, look, and then the one step that counts: the line in the ledger."""
    weights = current(project, model, steps)
    base = model.weights("all")
    begun = time.monotonic()
    seen = look(project, model, steps, weights, work, instruments or tools(project), tick=tick)
    with model.wearing(weights):
        printed = model.fingerprint()
    facts |= {
        "before": project.weights,
        "weights": printed,
        "drift": drift(base, weights),
        "look": seen,
        "looking": round(time.monotonic() - begun, 1),
        **_stamp(),
    }
    entry = ledger.sealed(project.entries, kind, facts)
    ledger.append(project.folder, project.entries, entry)
    swept(opened(project.folder))
    return entry


@contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Within this the chain is ours alone, and what a disk answers is said in one line."""
    if folder.is_dir() and not os.access(folder, os.W_OK):
        raise InputError(f"{str(folder)!r} cannot be written: no permission; the chain is as it was")
    with locked(folder):
        (folder / EDITS).mkdir(exist_ok=True)
        yield


def _refuse(project: Project, steps: Sequence[Step], request: Request) -> None:
    """Refuse to erase twice, to keep what is erased, and to put it in something's place."""
    erased = {word: step.number for step in steps for word in step.request.erased}
    for concept in request.erase:
        for word in concept.wordings:
            if number := erased.get(folded(word)):
                raise InputError(f"{quoted(word)} is erased already, by request {number}: drop that first")
        if number := erased.get(folded(concept.instead or "")):
            raise InputError(
                f"{quoted(concept.instead)}, which shall appear instead of {quoted(concept.name)}, was erased by "
                f"request {number}: give another"
            )
    for concept in request.keep:
        for word in concept.wordings:
            if number := erased.get(folded(word)):
                raise InputError(f"{quoted(word)} cannot be kept: request {number} erased it")


def _source(source: str) -> str:
    """A folder or file by its full path, so that the chain can be opened from anywhere."""
    path = Path(source).expanduser()
    return source if source == "canvas" or not path.exists() else str(path.resolve())


def _stamp() -> dict[str, Any]:
    return {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "versions": versions()}
