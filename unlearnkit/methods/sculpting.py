"""Sculpting Memory: multi-concept forgetting with dynamic masks (Li et al. 2025, arXiv 2504.09039).

For each concept c_k in turn, with s_k its superclass, θ' the network as it was before c_k, x^f a picture of c_k and
x^s one of s_k without c_k:

    erase     |ε_θ(x_t^f, c_k) - ε_θ'(x_t^f, s_k)|²         take it for its superclass
    align     λ_a |ε_θ(x_t^s, s_k) - noise|²                the superclass stays what it is
    distil    λ_d |ε_θ(x_t^s, s_k) - ε_θ'(x_t^s, s_k)|²     and is drawn as before
    replay    λ_r |ε_θ(x_t^j, c_j) - ε_θ'(x_t^j, c_j)|²     concepts c_j that were erased earlier stay so

Where the superclass draws the concept too, ``away`` steers the first target on: ε_θ'(s) - η (ε_θ'(c) - ε_θ'(s)).

Cross-attention is trained under a mask that is gathered, chosen and changed as ``parts/mask.py`` says; its warm-up
looks at the denoising loss on x^f. Erase, align, distil and the mask are read in the released code; replay is our
reading of the abstract.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from .. import seeds, tensors
from ..errors import InputError, quoted
from ..method import Method, Plan
from ..model import Model
from ..schema import Concept, Request
from ..settings import setting
from ..training.descend import Job, Objective, Student
from ..training.prompts import unerased
from ..training.scenes import Noised, Scene, joined, retold, scene, unprompted, untold, wordings
from ..training.settings import Masks, Schedules, Training, Trains, check, default
from ..training.state import CHECKPOINT
from ..training.superclasses import broader
from ..training.train import Rows, plan_of, predict, train

__all__ = ["METHOD", "Settings", "superclass"]

STAGES = "stages.safetensors"


@dataclass(frozen=True)
class Settings(Training):
    trains: Trains = default("trains", "xattn", source="released code")
    mask: Masks = default("mask", "dynamic", source="paper")
    mask_warmup: int = default("mask_warmup", 50, source="released code")
    steps: int = default("steps", 450, source="released code, for each concept")
    lr: float = default("lr", 3e-6, source="released code")
    schedule: Schedules = default("schedule", "onecycle", source="released code")
    batch: int = default("batch", 2, source="released code")
    order: Literal["sequence", "joint"] = setting(
        "sequence",
        "one concept after the other, or all at once, in as many steps together",
        source="released code: sequence; joint on the canvas",
    )
    superclass: str | None = setting(
        None,
        "what takes the place of every concept without an 'instead'; none looks it up in a table",
        source="ours",
    )
    target: Literal["teacher", "student"] = setting(
        "teacher", "whose prediction for the superclass is followed", source="ours; released code: student"
    )
    away: float = setting(
        0.0,
        "η, how far the target is steered away from the concept, for a superclass that draws the concept too",
        low=0.0,
        source="ours; released code: 0",
    )
    align: float = setting(
        0.25, "λ_a, weight of the denoising loss on the superclass", low=0.0, source="released code"
    )
    aligned: Literal["superclass", "members", "all"] = setting(
        "superclass",
        "whose pictures align and distil look at: the superclass's, or besides those of the other words of the "
        "vocabulary that belong to it (to a style's: every other style), or of all words of the concept's kind",
        source="released code: superclass; others: ours",
    )
    distil: float = setting(
        0.25,
        "λ_d, weight of distillation on the superclass",
        low=0.0,
        source="released code, where it has no effect",
    )
    replay: float = setting(
        0.25,
        "λ_r, weight of distillation on concepts erased earlier",
        low=0.0,
        source="ours, after the abstract",
    )
    earlier: tuple[str, ...] = setting(
        (), "concepts erased from this model by earlier edits, to replay", source="ours"
    )
    untold: float = unprompted()
    pictures: int = setting(100, "pictures a concept, and of its superclass", low=1, source="released code")


@dataclass(frozen=True)
class _Target:
    """A concept's pictures, what its prompts become (prompts, 1, tokens, width), and pictures of its superclass."""

    erase: Scene
    become: Tensor
    anchor: Scene


@dataclass(frozen=True)
class _Step:
    """Batches for the trained network by name, and what θ' says: of the superclass, on each but the first as told."""

    batches: dict[str, Noised]
    wanted: dict[str, Tensor]


def superclass(concept: Concept, settings: Settings) -> str:
    """What takes the concept's place. Raises InputError where it is not known."""
    given = concept.instead or settings.superclass or ("art" if concept.kind == "style" else None)
    found = given or broader(concept.name)
    if found is None:
        raise InputError(
            f"no superclass of {quoted(concept.name)} is known: say what takes its place with --instead, for example a "
            "broader word, or with superclass=..."
        )
    if found.lower() in {word.lower() for word in concept.wordings}:
        raise InputError(f"the superclass {quoted(found)} is the concept itself: give another with --instead")
    return found


def run(model: Model, request: Request, settings: Settings, *, seed: int, job: Job) -> dict[str, Tensor]:
    """The trained weights of the part that ``settings.trains`` names."""
    check(settings, losses=_losses(settings))
    targets = [_target(model, request, concept, settings, job) for concept in request.erase]
    past = [
        scene(model, wordings(model, Concept(name), settings.pictures), job=job, title="pictures to replay")
        for name in settings.earlier
    ]
    if settings.order == "joint" or len(targets) == 1:
        settings = replace(settings, steps=settings.steps * len(targets))
        objective = _objective(model, targets, past, settings, seed=seed)
        return train(model, request, settings, objective, seed=seed, job=job)
    return _in_turn(model, request, targets, past, settings, seed=seed, job=job)


def _in_turn(
    model: Model,
    request: Request,
    targets: Sequence[_Target],
    past: list[Scene],
    settings: Settings,
    *,
    seed: int,
    job: Job,
) -> dict[str, Tensor]:
    """One stage a concept, each with the network of the stage before as θ'. A killed run goes on in its stage."""
    weights, done = _finished(job)
    for stage, (concept, target) in enumerate(zip(request.erase, targets, strict=True)):
        if stage >= done:
            folder, own = job.folder and job.folder / f"stage-{stage + 1}", seeds.derive(seed, "stage", stage)
            part = Request((concept,), request.keep)
            with model.wearing(weights):
                objective = _objective(model, [target], past, settings, seed=own)
                weights = train(model, part, settings, objective, seed=own, job=replace(job, folder=folder))
            if job.folder and folder:
                tensors.write(job.folder / STAGES, weights, {"identity": job.identity, "done": stage + 1})
                (folder / CHECKPOINT).unlink(missing_ok=True)
        past = [*past, target.erase]
    return weights


def _finished(job: Job) -> tuple[dict[str, Tensor], int]:
    """The weights after the last finished stage, and how many are finished."""
    if job.folder is None or not (job.folder / STAGES).exists():
        return {}, 0
    weights, facts = tensors.read(job.folder / STAGES)
    if facts.get("identity") != job.identity:
        raise InputError(
            f"{quoted(job.folder)} holds stages of a run with other settings: choose another folder"
        )
    return weights, facts["done"]


def _target(model: Model, request: Request, concept: Concept, settings: Settings, job: Job) -> _Target:
    words = wordings(model, concept, settings.pictures)
    anchors, without = _anchors(model, request, concept, settings)
    erase = scene(model, words, job=job, title="pictures to erase")
    wide = scene(model, anchors, job=job, negative=without, title="pictures of the superclass")
    become = retold(model, concept, [superclass(concept, settings)])
    return _Target(erase, become, untold(model, wide, settings.untold))


def _anchors(
    model: Model, request: Request, concept: Concept, settings: Settings
) -> tuple[tuple[str, ...], str]:
    """Prompts of the superclass, and as negative prompt all that is erased of it.

    Its members' are of its own word and of the other words of the vocabulary that share it, in turn; all are those of
    every word of the kind. What the request erases, or erased earlier, is none of them. Raises InputError where there
    is none.
    """
    wide = superclass(concept, settings)
    if settings.aligned == "superclass":
        erased = [word for one in request.erase if superclass(one, settings) == wide for word in one.wordings]
        return wordings(model, Concept(wide, concept.kind), settings.pictures), ", ".join(erased)
    past = Request(tuple(Concept(word) for word in settings.earlier) + request.erase)
    found = unerased(model, past)[concept.kind]
    if concept.kind != "style" and settings.aligned == "members":
        shared = broader(concept.name)
        found = [word for word in found if shared and broader(word) == shared]
    if not found:
        raise InputError(
            f"no other word of the model's vocabulary is known to share a superclass with {quoted(concept.name)}: "
            "leave aligned=superclass as it is"
        )
    each = [wordings(model, Concept(word, concept.kind), settings.pictures) for word in (wide, *found)]
    return tuple(itertools.chain.from_iterable(zip(*each, strict=True)))[: settings.pictures], ""


def _objective(
    model: Model, targets: Sequence[_Target], past: Sequence[Scene], settings: Settings, *, seed: int
) -> Objective[_Step]:
    erase, anchor = (joined([getattr(one, name) for one in targets]) for name in ("erase", "anchor"))
    earlier = joined(past) if past and settings.replay else None

    def become(which: int) -> Tensor:
        """The superclass's prompt for a picture of a concept."""
        target, place = divmod(which, settings.pictures)
        return targets[target].become[place % len(targets[target].become), 0]

    def prepare(step: int, student: Student) -> _Step:
        draws = seeds.stream(seed, "sculpting", step)
        batches = {"erase": erase.batch(model, settings.batch, draws)}
        if settings.align or settings.distil:
            batches["anchor"] = anchor.batch(model, settings.batch, draws)
        if earlier:
            batches["replay"] = earlier.batch(model, settings.batch, draws)
        own = batches["erase"]
        aims = [Rows(own.rows.x, own.rows.t, torch.stack([become(int(at)) for at in own.which]))]
        aims += [own.rows] if settings.away else []
        asked = {
            n: b.rows for n, b in batches.items() if n == "replay" or (n == "anchor" and settings.distil)
        }
        if settings.target == "student":
            with student():
                found = predict(model, aims)
            found += predict(model, list(asked.values())) if asked else []
        else:
            found = predict(model, [*aims, *asked.values()])
        wide, *told = found[: len(aims)]
        goal = wide + settings.away * (wide - told[0]) if told else wide
        return _Step(batches, {"erase": goal, **dict(zip(asked, found[len(aims) :], strict=True))})

    def losses(given: _Step) -> dict[str, Tensor]:
        rows = [batch.rows for batch in given.batches.values()]
        told = dict(zip(given.batches, predict(model, rows, apart=settings.apart), strict=True))
        apart = {name: (told[name] - wanted).square().mean() for name, wanted in given.wanted.items()}
        found = {"erase": apart["erase"]}
        if settings.align:
            found["align"] = settings.align * (told["anchor"] - given.batches["anchor"].noise).square().mean()
        if settings.distil:
            found["distil"] = settings.distil * apart["anchor"]
        if earlier:
            found["replay"] = settings.replay * apart["replay"]
        return found

    def look(step: int, student: Student) -> Noised:
        return erase.batch(model, settings.batch, seeds.stream(seed, "sculpting warm-up", step))

    def denoise(given: Noised) -> dict[str, Tensor]:
        (told,) = predict(model, [given.rows])
        return {"erase": (told - given.noise).square().mean()}

    return Objective(prepare, losses, warm=Objective(look, denoise))


def _losses(settings: Settings) -> tuple[str, ...]:
    """The losses of every stage; replay joins them from the second on."""
    weights = {"align": settings.align, "distil": settings.distil}
    weights["replay"] = settings.replay if settings.earlier else 0.0
    return ("erase", *(name for name, weight in weights.items() if weight))


def plan(model: Model, request: Request, settings: Settings) -> Plan:
    for concept in request.erase:
        _anchors(model, request, concept, settings)
    losses, count = _losses(settings), len(request.erase)
    stages, turns = (count, 1) if settings.order == "sequence" else (1, count)
    anchor = bool(settings.align or settings.distil)
    share = 1.0 if settings.earlier else (stages - 1) / stages  # of the stages that replay
    replayed = share if settings.replay else 0.0
    one = plan_of(
        model,
        replace(settings, steps=settings.steps * turns),
        losses=losses,
        free=settings.batch * (1 + bool(settings.away) + bool(settings.distil) + replayed),
        rows=settings.batch * (1 + anchor + replayed),
        sampled=settings.pictures * (2 * count + len(settings.earlier)),
    )
    return replace(one, steps=one.steps * stages)


METHOD = Method(
    name="sculpting",
    title="Sculpting Memory",
    paper="Li et al. 2025, arXiv 2504.09039",
    summary="turns concept after concept into its superclass, under masks that change on the way",
    settings=Settings,
    run=run,
    plan=plan,
)
