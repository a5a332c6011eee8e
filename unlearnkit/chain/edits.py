"""The edit of one request, in each of the three regimes.

sequential   from what the requests before it left; earlier words are screened out of the vocabulary
joint        from the first model, on everything that is asked so far
merged       from the first model, alone; ``weights.current`` merges the edits
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from .. import methods
from ..errors import InputError
from ..methods import Job
from ..models.edit import Edit
from ..models.model import Model
from ..models.selection import TEXT_ENCODER
from ..schema import Request
from ..settings import build, with_role
from ..training.settings import Training
from .guards import Guards, beside, closed, projection
from .project import Project, Step
from .screening import joined, screened
from .weights import current

__all__ = ["handed_over", "make", "stale"]


def stale(project: Project, steps: Sequence[Step]) -> list[int]:
    """The numbers of those of the requests whose edit must be made again once only these hold."""
    regime, numbers = project.options.regime, [step.number for step in steps]
    fits = [list(step.after) == numbers[:i] for i, step in enumerate(steps)]
    if regime == "merged" or all(fits):
        return []
    if regime == "joint":
        return [] if fits[-1] else numbers[-1:]
    return numbers[fits.index(False) :]


def handed_over(method: str, guards: Guards) -> dict[str, Any]:
    """What a method is set to by default, because the guards do it.

    A method's own memory (DUGE's) would be pictures and predictions of the last model: a copy of a copy.
    """
    return dict.fromkeys(with_role(methods.find(method), "memory"), 0) if guards.bank else {}


def make(
    project: Project,
    model: Model,
    steps: Sequence[Step],
    request: Request,
    recipe: Mapping[str, Any],
    *,
    job: Job,
) -> Edit:
    """The edit for a request after ``steps``; the model wears nothing, and is bitwise unchanged."""
    regime = project.options.regime
    if regime == "joint":
        request, steps = joined([*(step.request for step in steps), request]), ()
    elif regime == "merged":
        steps = ()
    worn = current(project, model, steps)
    base = {**model.weights("all"), **model.values(worn.weights)}
    earlier = [step.request for step in steps]
    own = screened(model, earlier)
    guards = build(Guards, recipe["guards"])
    method, settings = methods.find(recipe["method"]), _with_earlier(recipe, earlier)
    with model.wearing(worn):
        if not issubclass(method, Training):
            return _closed(own, request, earlier, recipe, guards, job)
        filled: Any = methods.resolve(own, request, method.name, settings)
        if filled.part == TEXT_ENCODER:
            base |= own.weights(filled.part)
            if guards.project:
                raise InputError(
                    f"guard project holds keys and values, and {method.name} trains the text encoder, from which they "
                    "read: leave it out, or choose another method"
                )
        added = beside(
            own,
            request,
            earlier,
            base,
            list(worn.weights),
            guards,
            batch=filled.batch,
            seed=recipe["seed"],
            job=job,
        )
        job = dataclasses.replace(job, auxiliary=added)
        return methods.edit_for(
            own, request, method=method.name, settings=settings, seed=recipe["seed"], job=job
        )


def _closed(
    model: Model,
    request: Request,
    earlier: Sequence[Request],
    recipe: Mapping[str, Any],
    guards: Guards,
    job: Job,
) -> Edit:
    """The edit of a method that computes its weights; the projection comes after it."""
    settings = recipe["settings"]
    nearest = [settings.get(name, 0) for name in with_role(methods.find(recipe["method"]), "neighbours")]
    request = closed(model, request, earlier, guards, sum(nearest))
    edit = methods.edit_for(
        model, request, method=recipe["method"], settings=settings, seed=recipe["seed"], job=job
    )
    if not guards.project:
        return edit
    weights: dict[str, Tensor] = {name: value.clone() for name, value in edit.weights.items()}
    projection(model, request, earlier, guards).project_weights(weights)
    projected = Edit(weights, edit.facts | {"guards": dataclasses.asdict(guards)}, edit.hooks)
    methods.check_moved(model, request, projected)
    return projected


def _with_earlier(recipe: Mapping[str, Any], earlier: Sequence[Request]) -> dict[str, Any]:
    """The settings; one with the role ``earlier`` lists what was erased before, unless the recipe does."""
    settings = dict(recipe["settings"])
    erased = tuple(one.name for past in earlier for one in past.erase if one.kind == "object")
    for name in with_role(methods.find(recipe["method"]), "earlier"):
        settings[name] = settings.get(name) or erased
    return settings
