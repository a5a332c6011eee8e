"""``chain add``: erase one more request. The edit is made first, then the ledger gets its line.

Until that line is written nothing counts: a failed request, a kill or a full disk leaves the chain as it was. The same
call again resumes the request and gives the same weights.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import methods
from ...errors import InputError, quoted
from ...io.files import user_path
from ...io.tick import Tick
from ...methods import Job
from ...methods.checking import check_known
from ...model.model import Model
from ...model.places import hints_of
from ...model.restore import steady
from ...runs.requests import request_for
from ...schema import Concept, Request, as_seed, folded
from ...settings import build
from ..edits import guard_defaults, make_edit
from ..evaluate import open_evaluators
from ..finish import base_model, finish, seconds_since
from ..guards import Guards
from ..ledger import Entry
from ..project import Step, change_chain
from ..weights import store_edit
from ..work import work

if TYPE_CHECKING:
    from ...metrics.evaluators import Evaluators

__all__ = ["add", "refuse"]


@steady()
def add(
    folder: str | Path,
    concept: str | Concept | Request | Iterable[str | Concept],
    *,
    kind: str | None = None,
    phrases: Iterable[str] = (),
    instead: str | None = None,
    keep: Iterable[str | Concept] = (),
    method: str | None = None,
    settings: Mapping[str, Any] | None = None,
    guards: Mapping[str, Any] | None = None,
    seed: int = 0,
    model: Model | None = None,
    evaluators: Evaluators | None = None,
    device: str | None = None,
    force: bool = True,
    tick: Tick | None = None,
) -> Entry:
    """Erase one more request, and return its entry in the ledger.

    concept, kind, phrases, instead, keep: as in ``unlearnkit.erase``.
    method, settings, guards: default: the chain's; its settings are used only with its own method.
    model: the base model, if it is loaded already.
    force: False refuses a name outside the model's vocabulary that seems to mean nothing to it.
    Raises UnlearnError for unusable options, and if the erasing fails; the chain is then unchanged.
    """
    with change_chain(user_path(folder)) as project:
        steps, own = project.steps, project.options
        known = hints_of(own.model)
        request = request_for(concept, kind=kind, phrases=phrases, instead=instead, keep=keep, known=known)
        refuse(steps, request)
        seed = as_seed(seed)
        chosen = method or own.method
        chosen_settings = {**(own.settings if chosen == own.method else {}), **(settings or {})}
        build(methods.find(chosen), chosen_settings)
        guarded = build(Guards, {**own.guards, **(guards or {})})
        evaluators = evaluators or open_evaluators(project)  # before any work, so that an error loses nothing
        model = base_model(project, model, device)
        check_known(model, request, force=force)
        filled = methods.resolve(
            model, request, chosen, {**guard_defaults(chosen, guarded), **chosen_settings}
        )
        methods.check_replaces(filled, request)
        recipe = {
            "method": chosen,
            "settings": dataclasses.asdict(filled),
            "seed": seed,
            "guards": dataclasses.asdict(guarded),
        }
        facts: dict[str, Any] = {"request": dataclasses.asdict(request), "recipe": recipe}
        started = time.monotonic()
        with work(project, facts) as place:
            job = Job(folder=place, progress=tick)
            made, places = make_edit(project, model, steps, request, recipe, job=job)
            edit = store_edit(project, made)
        after = tuple(step.number for step in steps)
        facts |= {"edit": dataclasses.asdict(edit), "after": list(after), "instead": places}
        facts["making"] = seconds_since(started)
        new = Step(len(project.entries), request, recipe, edit, after, places)
        return finish(project, "add", facts, (*steps, new), model, place.name, evaluators, tick)


def refuse(steps: Sequence[Step], request: Request) -> None:
    """Raise InputError for a request that erases a word twice, or keeps or substitutes an erased word."""
    erased = {word: step.number for step in steps for word in step.request.erased}
    for concept in request.erase:
        for word in concept.wordings:
            if number := erased.get(folded(word)):
                raise InputError(f"{quoted(word)} is erased already, by request {number}: drop that first")
        if number := erased.get(folded(concept.instead or "")):
            raise InputError(
                f"{quoted(concept.instead)}, which should appear instead of {quoted(concept.name)}, was erased by "
                f"request {number}: give another"
            )
    for concept in request.keep:
        for word in concept.wordings:
            if number := erased.get(folded(word)):
                raise InputError(f"{quoted(word)} cannot be kept: request {number} erased it")
