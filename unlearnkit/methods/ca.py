"""CA: Ablating Concepts in Text-to-Image Diffusion Models (Kumari et al. 2023, arXiv 2303.13516).

x is a picture of an anchor c (for "grumpy cat": "cat"), x_t the picture with noise ε, c* the same prompt with the
concept in the anchor's place:

    model    L = E ||sg[ε_θ*(x_t, c, t)] - ε_θ(x_t, c*, t)||²
    noise    L = E ||ε - ε_θ(x_t, c*, t)||²

and, where names overlap, the usual denoising loss on (x, c) beside it. θ* is the pretrained network, as the paper
derives it (least KL divergence to the chain under c); the released code takes the trained one (teacher = student).
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from .. import seeds
from ..method import Method, Plan
from ..model import Model
from ..schema import Request
from ..settings import setting
from ..training.anchors import anchor, anchored, phrased, retained
from ..training.attention import readable, start_held
from ..training.descend import Job, Objective, Student
from ..training.prompts import neighbours
from ..training.scenes import KeepTarget, Lesson, aimed, counted, matched, unprompted
from ..training.settings import Training, Trains, check, default
from ..training.train import Rows, plan_of, predict, train

__all__ = ["METHOD", "Settings"]


@dataclass(frozen=True)
class Settings(Training):
    trains: Trains = default("trains", "xattn-kv", source="paper")
    steps: int = default("steps", 100, source="released code, on two GPUs with 4 pictures each")
    lr: float = default("lr", 1.6e-5, source="released code: 2e-6 for each of 8 pictures a step")
    batch: int = default("batch", 8, source="released code: 4 on each of two GPUs")
    target: Literal["model", "noise"] = setting(
        "model",
        "what is predicted for the concept: the anchor's prediction, or the true noise",
        source="paper",
    )
    teacher: Literal["frozen", "student"] = setting(
        "frozen",
        "whose prediction that is: the base model's, or the trained one's as it is",
        source="frozen: paper's derivation; student: released code",
    )
    keep: float = setting(
        0.0,
        "weight of the retention loss, on the anchors' pictures and those of what is kept",
        low=0.0,
        source="paper: only where names overlap; 0.2 in the released code",
    )
    keep_target: KeepTarget = aimed(source="released code")
    untold: float = unprompted()
    neighbours: int = counted("neighbours", 0, source="released code: the anchors' pictures alone")
    pictures: int = counted("anchors", 1000, source="released code, 200 prompts with 5 each")
    grammar: str = phrased(source="ours; released code: 200 captions")
    hold_start: bool = setting(
        True, "keys and values learn nothing from the start token", source="released code"
    )


def run(model: Model, request: Request, settings: Settings, *, seed: int, job: Job) -> dict[str, Tensor]:
    """The trained weights. Raises InputError for a concept without an anchor of its own."""
    _check(model, settings)
    found = anchored(model, request, settings.pictures, job=job, grammar=settings.grammar)
    kept = None
    if settings.keep:
        kept = retained(
            *(model, request, found, settings.pictures),
            job=job,
            nearest=settings.neighbours,
            share=settings.untold,
        )

    def prepare(step: int, student: Student) -> Lesson:
        batch = found.scene.batch(model, settings.batch, seeds.stream(seed, "ca", step))
        rows, wanted = [Rows(batch.rows.x, batch.rows.t, found.told[batch.which])], [batch.noise]
        if settings.target == "model":
            with student() if settings.teacher == "student" else nullcontext():
                wanted = predict(model, [batch.rows])
        if kept is not None:
            other = kept.batch(model, settings.batch, seeds.stream(seed, "ca keep", step))
            rows.append(other.rows)
            wanted += predict(model, [other.rows]) if settings.keep_target == "teacher" else [other.noise]
        return Lesson(rows, wanted)

    def losses(given: Lesson) -> dict[str, Tensor]:
        return matched(model, given, apart=settings.apart, keep=settings.keep)

    with start_held(model, settings.hold_start):
        return train(model, request, settings, Objective(prepare, losses), seed=seed, job=job)


def plan(model: Model, request: Request, settings: Settings) -> Plan:
    _check(model, settings)
    for concept in request.erase:
        anchor(model, request, concept)
    n = settings.batch
    return plan_of(
        model,
        settings,
        losses=_losses(settings),
        free=n * ((settings.target == "model") + bool(settings.keep and settings.keep_target == "teacher")),
        rows=n * (1 + bool(settings.keep)),
        sampled=settings.pictures
        * (len(request.erase) + bool(settings.keep and neighbours(model, request, settings.neighbours))),
    )


def _check(model: Model, settings: Settings) -> None:
    check(settings, losses=_losses(settings))
    if settings.hold_start:
        readable(model)


def _losses(settings: Settings) -> tuple[str, ...]:
    return ("erase", "keep") if settings.keep else ("erase",)


METHOD = Method(
    name="ca",
    title="Concept Ablation",
    paper="Kumari et al. 2023, arXiv 2303.13516",
    summary="trains the network to predict for the concept what it predicts for an anchor, on pictures of the anchor",
    settings=Settings,
    run=run,
    plan=plan,
)
