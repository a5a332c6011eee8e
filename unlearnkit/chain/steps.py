"""How a chain begins and grows. Every change is made whole beside it, and then one line in the ledger.

Until that line nothing counts: a failing request, a kill or a full disk leaves the chain as it was, and the same call
again goes on where it was stopped, to the same weights.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import methods
from ..errors import InputError, nearest, quoted
from ..io.files import locked, there, user_path, writing
from ..io.versions import versions
from ..methods import Job
from ..models.load import hints_of, is_canvas, load
from ..models.model import Model
from ..models.restore import steady
from ..runs.run import request_for
from ..schema import Concept, Request, folded
from ..settings import build
from . import ledger
from .facts import REGIMES
from .guards import Guards
from .ledger import Entry
from .looking import found_at, look, tools
from .making import handed_over, make
from .merging import Merge
from .project import Project, Step, changing, opened, project_of, swept
from .underway import work
from .weights import current, drift, kept

if TYPE_CHECKING:
    from ..metrics.instruments import Instruments

__all__ = ["Tick", "add", "base_model", "init", "settled"]

MOST = 10_000  # pictures of a word
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
    variant: str | None = None,
) -> Project:
    """Begin a chain in a new or empty folder.

    model: a loaded Model, or anything that ``load`` takes. regime: ``sequential``, ``joint`` or ``merged``.
    method, settings, guards: what a request takes that says nothing else. merge: see ``Merge``.
    pictures: of each word of the model's vocabulary after each request; 0 looks at nothing.
    objects, styles, clip: what looks at them, as in ``evaluate``; for the canvas its own judge if none is named.
    device, dtype, variant: as in ``load``.
    """
    folder = user_path(folder)
    _empty(folder)
    if regime not in REGIMES:
        raise InputError(
            f"regime {quoted(regime)} is unknown{nearest(regime, REGIMES)}: use one of {', '.join(REGIMES)}"
        )
    if not 0 <= pictures <= MOST:
        raise InputError(f"pictures {quoted(pictures)} is out of range: use 0 to {MOST}")
    build(methods.find(method), settings or {})
    readers = {"objects": objects, "styles": styles, "clip": clip}
    readers = {name: source and found_at(source) for name, source in readers.items()}
    loaded = model if isinstance(model, Model) else load(model, device=device, dtype=dtype, variant=variant)
    facts = {
        "format": 1,
        "model": _source(loaded.source),
        "base": loaded.fingerprint(),
        "weights": loaded.fingerprint(),
        "dtype": loaded.precision,
        **({"variant": loaded.variant} if loaded.variant else {}),
        "regime": regime,
        "method": method,
        "settings": dict(settings or {}),
        "guards": dataclasses.asdict(build(Guards, guards or {})),
        "merge": dataclasses.asdict(build(Merge, merge or {})),
        "looks": {"pictures": pictures, **readers},
        **_stamp(()),
    }
    entry = ledger.sealed((), "init", facts)
    begun = project_of(folder, (entry,))
    tools(begun)  # what cannot look is said before there is a chain
    with locked(folder):
        _empty(folder)  # two may begin at once
        ledger.append(folder, (), entry)
    return begun


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
    project = opened(folder)
    known = hints_of(project.options.model)
    request = request_for(concept, kind=kind, phrases=phrases, instead=instead, keep=keep, known=known)
    with changing(project.folder) as project:
        steps, own = project.steps, project.options
        _refuse(project, steps, request)
        chosen = method or own.method
        told = {**(own.settings if chosen == own.method else {}), **(settings or {})}
        build(methods.find(chosen), told)
        guarded = build(Guards, {**own.guards, **(guards or {})})
        instruments = instruments or tools(project)  # before work that it would be too late for
        model = base_model(project, model, device)
        filled = methods.resolve(model, request, chosen, {**handed_over(chosen, guarded), **told})
        recipe = {
            "method": chosen,
            "settings": dataclasses.asdict(filled),
            "seed": seed,
            "guards": dataclasses.asdict(guarded),
        }
        facts: dict[str, Any] = {"request": dataclasses.asdict(request), "recipe": recipe}
        begun = time.monotonic()
        with work(project, facts) as place:
            job = Job(folder=place, progress=tick)
            edit = kept(project, make(project, model, steps, request, recipe, job=job))
        after = tuple(step.number for step in steps)
        facts |= {"edit": dataclasses.asdict(edit), "after": list(after), "making": _seconds(begun)}
        made = Step(len(project.entries), request, recipe, edit, after)
        return settled(project, "add", facts, (*steps, made), model, place.name, instruments, tick)


def base_model(project: Project, model: Model | None, device: str | None = None) -> Model:
    """The first model of a chain, loaded unless it is given. Raises InputError for another one."""
    begun = project.options
    source, told = begun.model, begun.base
    found = load(source, device=device, dtype=begun.dtype, variant=begun.variant) if model is None else model
    if found.fingerprint() != told:
        raise InputError(
            f"the chain in {quoted(project.folder)} was begun with the weights {told[:12]} of {quoted(source)}, and "
            f"{quoted(found.source)} has {found.fingerprint()[:12]}: put the first model back in its place"
        )
    return found


@steady()
def settled(
    project: Project,
    kind: str,
    facts: dict[str, Any],
    steps: Sequence[Step],
    model: Model,
    name: str,
    instruments: Instruments,
    tick: Tick | None,
) -> Entry:
    """Put together, look, and then the one step that counts: the line in the ledger. name: of the look's folder."""
    edit = current(project, model, steps)
    base = {**model.weights("all"), **model.values(edit.weights)}
    begun = time.monotonic()
    seen = look(project, model, steps, edit, name, instruments, tick=tick)
    with model.wearing(edit):
        printed = model.fingerprint()
    facts |= {
        "before": project.weights,
        "weights": printed,
        "drift": drift(base, edit.weights),
        "look": seen,
        "looking": _seconds(begun),
        **_stamp(project.entries),
    }
    entry = ledger.sealed(project.entries, kind, facts)
    ledger.append(project.folder, project.entries, entry)
    swept(project_of(project.folder, (*project.entries, entry)))
    return entry


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


def _empty(folder: Path) -> None:
    """Raises InputError where something is in the folder, or it is none."""
    with writing(folder):
        if folder.exists() and (not folder.is_dir() or there(folder)):
            raise InputError(f"{quoted(folder)} is not empty: choose another folder for the chain")


def _source(source: str) -> str:
    """A folder or file by its full path, so that the chain can be opened from anywhere."""
    return source if is_canvas(source) else found_at(source, must=False)


def _stamp(entries: Sequence[Entry]) -> dict[str, Any]:
    """When and with what. A clock that went back stands still in the ledger until it is past the last entry."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"time": max([now, *(entry.facts["time"] for entry in entries[-1:])]), "versions": versions()}


def _seconds(begun: float) -> float:
    return round(time.monotonic() - begun, 1)
