"""The edit of one request, in each of the three regimes.

sequential   from the model after the earlier requests; their words are removed from the vocabulary
joint        from the base model, for all requests so far together
merged       from the base model, for this request alone; ``weights.current_edit`` merges the edits
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from .. import methods
from ..data.nearest import with_nearest
from ..errors import InputError
from ..methods import Job
from ..model.edit import Edit
from ..model.model import Model
from ..model.selection import TEXT_ENCODER
from ..schema import Request
from ..settings import build, with_role
from ..training.method import Trained
from ..training.settings import Training
from .guards import Guards, closed_form_request, guard_losses, projection
from .places import again, shown, without
from .project import Project, Step
from .screening import join, screen
from .weights import current_edit

__all__ = ["guard_defaults", "make_edit", "stale"]


def stale(project: Project, steps: Sequence[Step]) -> list[int]:
    """The numbers of the requests whose edit must be made again if only these requests are active."""
    regime, numbers = project.options.regime, [step.number for step in steps]
    fits = [list(step.after) == numbers[:i] for i, step in enumerate(steps)]
    if regime == "merged" or all(fits):
        return []
    if regime == "joint":
        return [] if fits[-1] else numbers[-1:]
    return numbers[fits.index(False) :]


def guard_defaults(method: str, guards: Guards) -> dict[str, Any]:
    """Defaults for settings of a method whose task the guards have.

    A method's own memory (DUGE's) would have pictures and predictions of the last model: a copy of a copy.
    """
    return dict.fromkeys(with_role(methods.find(method), "memory"), 0) if guards.bank else {}


def make_edit(
    project: Project,
    model: Model,
    steps: Sequence[Step],
    request: Request,
    recipe: Mapping[str, Any],
    *,
    job: Job,
) -> tuple[Edit, dict[str, str]]:
    """The edit for a request after ``steps``, and by concept what took its place.

    model: the base model without an edit; it is bitwise unchanged.
    """
    regime, every = project.options.regime, [step.request for step in steps]
    if regime == "joint":
        request, every = join([*every, request]), []
    before = steps if regime == "sequential" else ()
    once_more = again(before, request)
    request = Request((*request.erase, *once_more), request.keep)
    applied = current_edit(project, model, before)
    base = {**model.weights("all"), **model.values(applied.weights)}
    past = [step.request for step in before]
    own, vocabulary, earlier = screen(model, past), screen(model, every), without(past, once_more)
    method, settings = methods.find(recipe["method"]), _with_earlier(recipe, earlier)
    if not method.REPLACES:  # a stored request may name a word that the method has never looked at
        request = Request(
            tuple(dataclasses.replace(one, instead=None) for one in request.erase), request.keep
        )
    guards = build(Guards, recipe["guards"])
    with model.wearing(applied):
        filled: Any = methods.resolve(own, request, method.name, settings)
        request = with_nearest(vocabulary, request, methods.default_instead(model, filled))
        if not issubclass(method, Training):
            edit = _closed(own, request, earlier, base, recipe, guards, job)
            return edit, _places(filled, own, request, shown(steps))
        if filled.part == TEXT_ENCODER:
            base |= own.weights(filled.part)
            if guards.projects:
                raise InputError(
                    f"guards project, anchor and history protect keys and values, and {method.name} trains the text "
                    "encoder, their input: leave them out, or choose another method"
                )
        added = guard_losses(
            own,
            request,
            earlier,
            base,
            list(applied.weights),
            guards,
            batch=filled.batch,
            seed=recipe["seed"],
            job=job,
        )
        job = dataclasses.replace(job, auxiliary=added)
        edit = methods.edit_for(
            own, request, method=method.name, settings=settings, seed=recipe["seed"], job=job
        )
        return edit, _places(filled, own, request, shown(steps))


def _places(filled: Any, model: Model, request: Request, before: Mapping[str, str]) -> dict[str, str]:
    """By the name of each concept: the word that takes its place, where there is one; an anchor, too.

    before: the places until now; where one is given up for nothing, the word is empty.
    """
    if isinstance(filled, Trained):
        words = {one.name: filled.place(model, request, one) for one in request.erase}
    else:
        words = {one.name: one.instead for one in request.erase}
    return {name: word or "" for name, word in words.items() if word or before.get(name)}


def _closed(
    model: Model,
    request: Request,
    earlier: Sequence[Request],
    base: Mapping[str, Tensor],
    recipe: Mapping[str, Any],
    guards: Guards,
    job: Job,
) -> Edit:
    """The edit of a closed-form method; the projection is applied afterwards."""
    settings = recipe["settings"]
    nearest = [settings.get(name, 0) for name in with_role(methods.find(recipe["method"]), "neighbours")]
    request = closed_form_request(model, request, earlier, guards, sum(nearest))
    edit = methods.edit_for(
        model, request, method=recipe["method"], settings=settings, seed=recipe["seed"], job=job
    )
    if not guards.projects:
        return edit
    if edit.weights and not edit.weights.keys() & model.weights("text").keys():
        raise InputError(
            f"guards project, anchor and history protect keys and values, and {edit.facts['method']} changes neither: "
            "leave them out, or choose another method"
        )
    weights: dict[str, Tensor] = {name: value.clone() for name, value in edit.weights.items()}
    projection(model, request, earlier, base, guards).project_weights(weights)
    projected = Edit(weights, edit.facts | {"guards": dataclasses.asdict(guards)}, edit.hooks)
    methods.check_moved(model, request, projected)
    return projected


def _with_earlier(recipe: Mapping[str, Any], earlier: Sequence[Request]) -> dict[str, Any]:
    """The settings; one with the role ``earlier`` defaults to the objects that were erased before."""
    settings = dict(recipe["settings"])
    erased = tuple(one.name for past in earlier for one in past.erase if one.kind == "object")
    for name in with_role(methods.find(recipe["method"]), "earlier"):
        settings[name] = settings.get(name) or erased
    return settings
