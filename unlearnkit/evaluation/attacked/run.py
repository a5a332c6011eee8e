"""Attack a finished run, or a model beside its untouched base: which attacks bring back what was erased?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ... import attacks as known
from ...attacks import ATTACKS, BUDGETS, Attack, Budget
from ...errors import InputError, nearest, quoted
from ...io.files import member, user_path
from ...io.tick import Tick
from ...runs import runfolder
from ...schema import Concept, Request
from ..evaluate import canvas_evaluators_for, never_knows
from .carry_out import Target, carry_out
from .record import FOLDER, folder_of

if TYPE_CHECKING:
    from PIL import Image

    from ...metrics.evaluators import Evaluators
    from ...model.edit import Edit
    from ...model.model import Model, Weights

__all__ = ["Planned", "attack", "attack_weights", "chosen", "plan", "planned", "targets"]

Open = Callable[[torch.device], "Evaluators"]


@dataclass(frozen=True)
class Planned:
    """One attack's cost on this machine. why: the reason where the model's family refuses it."""

    name: str
    gradient: int
    forward: int
    pictures: int
    seconds: float
    why: str = ""


def attack(
    run: str | Path,
    *,
    attacks: Sequence[str] | None = None,
    budget: str = "quick",
    seed: int = 0,
    base: str | None = None,
    concepts: Sequence[Concept] = (),
    out: str | Path | None = None,
    evaluators: Open | None = None,
    device: str | None = None,
    dtype: str | None = None,
    tick: Tick | None = None,
) -> dict[str, dict[str, Any]]:
    """Attack a finished run, or any model, into ``RUN/attacks``; return the figures by the name of the attack's folder.

    run: the folder of a run; with ``base`` a model of the same kind, whose weights differ from the base's.
    attacks: names, default: all that fit the model. budget: ``quick`` or ``full``.
    concepts: what a model that was made elsewhere should not know any more. out: the folder for its attacks.
    evaluators: opens the classifiers on a device; default: the canvas's own, for the canvas.
    Raises InputError for unknown names, for what cannot be judged, and for a folder with another plan.
    """
    model, applied, request, folder = _opened(run, base, concepts, out, device, dtype)
    return attack_weights(
        *(folder, model, applied, request),
        attacks=attacks,
        budget=budget,
        seed=seed,
        evaluators=evaluators,
        tick=tick,
    )


def attack_weights(
    folder: Path,
    model: Model,
    applied: Edit | Weights,
    request: Request,
    *,
    attacks: Sequence[str] | None = None,
    budget: str = "quick",
    seed: int = 0,
    evaluators: Open | None = None,
    tick: Tick | None = None,
) -> dict[str, dict[str, Any]]:
    """As ``attack``, for an edit or weights of a model in memory."""
    from ...canvas import world
    from ...families.opening import quiet

    names, spent = chosen(model, attacks), _budget(budget)
    if evaluators is None and not world.knows(model.hints):
        raise InputError(
            f"{quoted(model.source)} is not the canvas: name a classifier with --objects, --styles or --nudenet"
        )
    with quiet():
        tools = evaluators(model.device) if evaluators else canvas_evaluators_for(model)
    figures = {}
    for target in targets(model, applied, request):
        for name in names:
            place = folder_of(folder, name, target.concept.name, len(request.erase) == 1)
            member(folder, FOLDER, place.name)
            figures[place.name] = carry_out(
                place, known.find(name), target, tools, budget=spent, seed=seed, tick=tick
            )
    return figures


def plan(
    run: str | Path,
    *,
    attacks: Sequence[str] | None = None,
    budget: str = "quick",
    base: str | None = None,
    concepts: Sequence[Concept] = (),
    out: str | Path | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> list[Planned]:
    """What ``attack`` with the same arguments would compute, with the attacks that the model's family refuses."""
    model, _, request, _ = _opened(run, base, concepts, out, device, dtype)
    return planned(model, attacks, budget, sides=2 * len(request.erase))


def chosen(model: Model, names: Sequence[str] | None) -> list[str]:
    """The attacks' names: these, or all that fit the model."""
    if names is None:
        return [name for name, one in ATTACKS.items() if one.refuses(model) is None]
    for name in names:
        if why := known.find(name).refuses(model):
            raise InputError(f"attack {name!r} is not possible: {why}")
    return list(dict.fromkeys(names))


def targets(model: Model, applied: Edit | Weights, request: Request) -> Iterator[Target]:
    """What is attacked, for each erased concept. The canvas has a model that never knew some, and a classifier."""
    from ... import suites
    from ...canvas import world

    if isinstance(applied, Mapping):
        applied = _constant(applied)
    canvas = world.knows(model.hints)
    weights: Mapping[str, torch.Tensor] | None = None
    if model.source == "canvas" and never_knows(request):
        from ...canvas.check import never_knew
        from ...families.opening import quiet

        with quiet():
            twin = never_knew(device=model.device, dtype=model.dtype)
        weights = _constant(twin.weights("all"))
    for concept in request.erase:
        name = suites.find("canvas").own_name(concept) if canvas else concept.name
        yield Target(
            model, concept, applied, name, weights, shows=_shows(concept.kind, name) if canvas else None
        )


def _constant(weights: Weights) -> dict[str, torch.Tensor]:
    """The weights without their gradients' history, which a search would go through again at each step."""
    return {name: value.detach() for name, value in weights.items()}


def planned(model: Model, names: Sequence[str] | None, budget: str, *, sides: int = 2) -> list[Planned]:
    """What each attack will compute for one concept, and the seconds that takes, measured on a few rows."""
    spent, rows, shared = _budget(budget), list[Planned](), 0
    picture = _seconds(lambda: model.sample([_example(model)] * 2, [0, 1])) / 2
    forward = picture / (2 * model.hints.steps)
    for name in names or ATTACKS:
        one: Attack = known.find(name)
        if why := one.refuses(model):
            rows.append(Planned(name, 0, 0, 0, 0.0, why))
            continue
        cost = one.cost(spent)
        drawn = sides * (cost.pictures + cost.arms * spent.pictures) + max(0, cost.examples - shared)
        shared = max(shared, cost.examples)
        seconds = sides * (3 * cost.gradient + cost.forward) * forward + drawn * picture
        rows.append(Planned(name, sides * cost.gradient, sides * cost.forward, round(drawn), seconds))
    return rows


def _opened(
    source: str | Path,
    base: str | None,
    concepts: Sequence[Concept],
    out: str | Path | None,
    device: str | None,
    dtype: str | None,
) -> tuple[Model, Edit | Weights, Request, Path]:
    """The untouched model, what is applied, the request, and the folder for ``attacks``."""
    from ...model.load import load

    if base is not None:
        if not concepts or out is None:
            raise InputError(
                "a model beside its base needs --concept, what it should not know, and --out, a folder"
            )
        return *_difference(base, str(source), device, dtype), Request(tuple(concepts)), user_path(out)
    if concepts or out is not None:
        raise InputError("--concept and --out belong to --base: a run has its own")
    run = user_path(source)
    recipe, edit = runfolder.opened(run)
    model = load(recipe.model, device=device, dtype=dtype, edit=edit, variant=recipe.variant)
    return model, edit, recipe.request, run


def _difference(base: str, source: str, device: str | None, dtype: str | None) -> tuple[Model, Weights]:
    """The base, and the weights of another model that differ from its own. Raises InputError where there are none."""
    from ...model.load import load

    other = load(source, device=device, dtype=dtype)
    values = {name: value.detach().cpu() for name, value in other.swap.weights().items()}
    model = load(base, device=device, dtype=dtype)
    own = model.swap.weights()
    if own.keys() != values.keys() or any(own[name].shape != one.shape for name, one in values.items()):
        raise InputError(
            f"{quoted(source)} has other weights than {quoted(base)}: name the model it was made from"
        )
    changed = {name: one for name, one in values.items() if not torch.equal(one, own[name].detach().cpu())}
    if not changed:
        raise InputError(f"{quoted(source)} has the weights of {quoted(base)}: there is nothing to attack")
    return model, changed


def _shows(kind: str, name: str) -> Callable[[Sequence[Image.Image]], list[bool]]:
    """Whether the validation classifier, which is not the one that judges, sees the concept."""
    from ...canvas.validation import validation_classifier

    def seen(pictures: Sequence[Image.Image]) -> list[bool]:
        return [getattr(one, kind) == name for one in validation_classifier().classify(pictures)]

    return seen


def _budget(name: str) -> Budget:
    if name not in BUDGETS:
        raise InputError(
            f"budget {quoted(name)} is unknown{nearest(name, BUDGETS)}: use {' or '.join(BUDGETS)}"
        )
    return BUDGETS[name]


def _example(model: Model) -> str:
    return model.classes[0] if model.classes else ""


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
