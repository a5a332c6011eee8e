"""SalUn: Gradient-Based Weight Saliency for Unlearning (Fan et al. 2024, arXiv 2310.12508).

Of all weights, the half whose summed gradient of the concept's own loss is largest may move (``mask = saliency``). They
are trained on random labels: on pictures of the concept c, to predict with c what they predict with another c',

    min  E_{c' ≠ c} |ε(x_t, c) - sg ε(x_t, c')|²  +  α l(x)

with the denoising loss l on pictures of kept words. sg ε(x_t, c') is of the network that is trained, as it is now.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .. import seeds
from ..method import Method, Plan
from ..model import Model
from ..schema import Concept, Request
from ..settings import setting
from ..training.descend import Job, Objective, Student
from ..training.scenes import Noised, counted, gallery, kept, retold
from ..training.settings import Masks, Training, Trains, check, default
from ..training.train import Rows, plan_of, predict, train

__all__ = ["METHOD", "Settings", "guided"]


@dataclass(frozen=True)
class Settings(Training):
    trains: Trains = default("trains", "all", source="released code: full")
    mask: Masks = default("mask", "saliency", source="paper")
    mask_warmup: int = default("mask_warmup", 100, source="released code: one pass over 800 pictures, by 8")
    steps: int = default("steps", 100, source="released code, nudity: one pass over 800 pictures, by 8")
    lr: float = default("lr", 1e-5, source="released code")
    batch: int = default("batch", 8, source="released code")
    keep_weight: float = setting(
        0.1, "α, weight of the keeping loss", low=0.0, source="released code, nudity; classes: 0.5"
    )
    target: Literal["student", "teacher"] = setting(
        "student", "whose prediction with the other word is followed", source="paper and released code"
    )
    saliency_guidance: float = setting(
        7.5,
        "w of the prediction (1 + w) ε(c) - w ε() that the mask is chosen by",
        low=0.0,
        source="released code",
    )
    pictures: int = counted("pictures", 200, source="ours; released code: 800")
    neighbours: int = setting(
        8,
        "if the request keeps nothing: so many nearest words are kept, and stand for c'",
        low=0,
        source="ours",
    )
    keep_pictures: int = counted("keep_pictures", 25, source="ours; released code: 800 in all")


@dataclass(frozen=True)
class _Step:
    erase: Noised
    keep: Noised | None
    wanted: Tensor


def guided(told: Tensor, null: Tensor, guidance: float) -> Tensor:
    """(1 + w) ε(c) - w ε()."""
    return (1 + guidance) * told - guidance * null


def run(model: Model, request: Request, settings: Settings, *, seed: int, job: Job) -> dict[str, Tensor]:
    """The trained weights of the part that ``settings.trains`` names."""
    check(settings, losses=_losses(settings))
    others = kept(model, request, settings.neighbours)
    erase = gallery(model, request.erase, settings.pictures, job=job, title="pictures to erase")
    keep = None
    if settings.keep_weight:
        keep = gallery(model, others, settings.keep_pictures, job=job, title="pictures to keep")
    labels = [retold(model, concept, _labels(concept, others)) for concept in request.erase]
    empty = model.encode([""])

    def label(which: int, spin: int) -> Tensor:
        """The prompt of a picture, with another word by chance."""
        concept, place = divmod(which, settings.pictures)
        words = labels[concept][place % len(labels[concept])]
        return words[spin % len(words)]

    def prepare(step: int, student: Student) -> _Step:
        draws = seeds.stream(seed, "salun", step)
        batch = erase.batch(model, settings.batch, draws)
        spins = torch.randint(2**31, (settings.batch,), generator=draws).tolist()
        states = [label(int(which), spin) for which, spin in zip(batch.which, spins, strict=True)]
        asked = [Rows(batch.rows.x, batch.rows.t, torch.stack(states))]
        if settings.target == "student":
            with student():
                (wanted,) = predict(model, asked)
        else:
            (wanted,) = predict(model, asked)
        return _Step(batch, keep.batch(model, settings.batch, draws) if keep else None, wanted)

    def losses(given: _Step) -> dict[str, Tensor]:
        rows = [given.erase.rows, *([given.keep.rows] if given.keep else [])]
        told = predict(model, rows, apart=settings.apart)
        found = {"erase": (told[0] - given.wanted).square().mean()}
        if given.keep:
            found["keep"] = settings.keep_weight * (told[1] - given.keep.noise).square().mean()
        return found

    def look(step: int, student: Student) -> Noised:
        return erase.batch(model, settings.batch, seeds.stream(seed, "salun saliency", step))

    def saliency(given: Noised) -> dict[str, Tensor]:
        rows = given.rows
        told, null = predict(model, [rows, Rows(rows.x, rows.t, empty.expand_as(rows.states))])
        return {"erase": (guided(told, null, settings.saliency_guidance) - given.noise).square().mean()}

    objective = Objective(prepare, losses, warm=Objective(look, saliency))
    return train(model, request, settings, objective, seed=seed, job=job)


def _losses(settings: Settings) -> tuple[str, ...]:
    return ("erase", "keep") if settings.keep_weight else ("erase",)


def _labels(concept: Concept, others: tuple[Concept, ...]) -> list[str]:
    """The words that stand for c': the concept's ``instead``, else what is kept."""
    return [other.name for other in others] if concept.instead is None else [concept.instead]


def plan(model: Model, request: Request, settings: Settings) -> Plan:
    losses = _losses(settings)
    sampled = settings.pictures * len(request.erase)
    if settings.keep_weight:
        sampled += settings.keep_pictures * len(kept(model, request, settings.neighbours))
    rows = settings.batch * len(losses)
    return plan_of(model, settings, losses=losses, free=settings.batch, rows=rows, sampled=sampled)


METHOD = Method(
    name="salun",
    title="Saliency unlearning",
    paper="Fan et al. 2024, arXiv 2310.12508",
    summary="trains the half of the weights that matter most to the concept, to take it for other words",
    settings=Settings,
    run=run,
    plan=plan,
)
