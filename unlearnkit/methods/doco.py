"""DoCo: Unlearning Concepts in Diffusion Model via Concept Domain Correction (Wu et al. 2025, arXiv 2405.15304).

Not each prediction, but their distribution under the concept is made that of an anchor's, by a discriminator D. With
z_t a noised picture of the anchor, c the anchor's prompt and c* the same prompt with the concept, the domains are

    x0       ẑ(e) = (z_t - σ_t e) / α_t,  the picture that a predicted noise e implies
    eps      e itself

    L_D      = BCE(D(ẑ_θ*(c)), 0) + BCE(D(ẑ_θ(c*)), 1)
    L_adv    = BCE(D(ẑ_θ(c*)), 0)                             of the erasing side
    L_ret    = E ||ε - ε_θ(z_t, c, t)||²                      of the keeping side, on other anchors' pictures

D trains alone at first, then takes a step with each of the student's. L_adv's gradient loses, tensor by tensor, what
opposes L_ret's (``preserving`` in parts/combine.py), which itself is not followed. Only the abstract and the released
code could be read; released = true has the code's two slips: ``unscaled`` below, and the student's gradient in D's.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import seeds
from ..errors import InputError
from ..method import Method, Plan
from ..model import Model
from ..parts import Gradients, Losses
from ..parts.combine import sides
from ..parts.discriminator import Discriminator, Kinds
from ..schema import Request
from ..settings import setting
from ..training.anchors import anchored, phrased, retained
from ..training.attention import readable, start_held
from ..training.descend import Job, Objective, Student
from ..training.prompts import neighbours
from ..training.scenes import KeepTarget, aimed, counted, unprompted
from ..training.settings import Combines, Training, Trains, check, default
from ..training.train import Rows, plan_of, predict, train

__all__ = ["METHOD", "Settings", "unscaled"]


@dataclass(frozen=True)
class Settings(Training):
    trains: Trains = default("trains", "xattn-kv", source="released code")
    combine: Combines = default("combine", "preserving-tensor", source="released code")
    steps: int = default("steps", 1000, source="released code: 2000 less the warm-up")
    lr: float = default("lr", 4.8e-5, source="released code: 6e-6 for each of 8 pictures a step")
    batch: int = default("batch", 8, source="released code")
    domain: Literal["x0", "eps"] = setting(
        "x0",
        "what the discriminator sees: the picture that the predicted noise implies, or the predicted noise",
        source="x0: released code since November 2024; eps: its first version",
    )
    discriminator: Kinds = setting(
        "patchgan", "the released code's, or one that knows the time", source="released code; timed is ours"
    )
    discriminator_lr: float = setting(
        1e-4, "the discriminator's learning rate", low=0.0, source="released code, objects; 5e-4 for styles"
    )
    warm_up: int = setting(
        1000, "steps of the discriminator alone, before the others", low=0, source="released code"
    )
    teacher: Literal["frozen", "student"] = setting(
        "frozen", "who predicts for the anchor: the base model or the trained one", source="released code"
    )
    keep: float = setting(
        1.0,
        "weight of the retention loss; combine = preserving takes only its direction, unless adds is above 0",
        low=0.0,
        source="released code",
    )
    keep_target: KeepTarget = aimed(source="released code")
    untold: float = unprompted()
    pictures: int = setting(
        1000,
        "pictures of the anchor for each concept",
        low=1,
        source="released code, 200 prompts with 5 each",
    )
    neighbours: int = counted("neighbours", 0, source="released code: the anchors' pictures alone")
    grammar: str = phrased(source="ours; released code: 200 captions")
    hold_start: bool = setting(
        True, "keys and values learn nothing from the start token", source="released code"
    )
    released: bool = setting(
        False,
        "the released code's two slips: the surgery's scale, and D learning from the student's gradient",
        source="ours: off, what the paper means",
    )


def unscaled(step: int, losses: Losses, weights: Mapping[str, Tensor]) -> Gradients:
    """The surgery as released: both gradients are clipped to a norm of 1, and then for each tensor with cos < 0

        g_u - cos(g_u, g_r) g_r / |g_r|

    which lacks the factor |g_u|: as that is far below 1, such a tensor follows the retention loss.
    """
    g_u, g_r = (_clipped(side) for side in sides(losses, weights))
    for name, u in g_u.items():
        r = g_r[name] / (g_r[name].norm() + 1e-8)
        cos = torch.sum(u / (u.norm() + 1e-8) * r)
        u.sub_(cos.clamp_max(0) * r)
    return g_u


def _clipped(gradients: Gradients) -> Gradients:
    norm = torch.linalg.vector_norm(torch.stack([gradient.norm() for gradient in gradients.values()]))
    scale = (1 / (norm + 1e-6)).clamp_max(1)
    return {name: gradient * scale for name, gradient in gradients.items()}


@dataclass(frozen=True)
class _Step:
    """Rows for the trained network, the erased ones first; the anchors' domain; what is predicted for those kept."""

    rows: list[Rows]
    anchor: Tensor
    wanted: list[Tensor]


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
    critic = Discriminator(
        model.shape,
        kind=settings.discriminator,
        lr=settings.discriminator_lr,
        seed=seeds.derive(seed, "doco"),
        device=model.device,
    )
    figures: dict[str, float] = {}

    def domain(rows: Rows, eps: Tensor) -> Tensor:
        return model.clean(rows.x, eps, rows.t) if settings.domain == "x0" else eps

    def learn(rows: Rows, anchor: Tensor, target: Tensor, *, leak: bool) -> None:
        figures["discriminator"], figures["right"] = critic.learn(anchor, target, rows.t, leak=leak)

    def prepare(step: int, student: Student) -> _Step:
        batch = found.scene.batch(model, settings.batch, seeds.stream(seed, "doco", step))
        told = Rows(batch.rows.x, batch.rows.t, found.told[batch.which])
        if step < settings.warm_up:
            anchor, target = predict(model, [batch.rows, told])
            learn(told, domain(told, anchor), domain(told, target), leak=False)
            return _Step([], anchor, [])
        with student() if settings.teacher == "student" else nullcontext():
            (anchor,) = predict(model, [batch.rows])
        rows, wanted = [told], list[Tensor]()
        if kept is not None:
            other = kept.batch(model, settings.batch, seeds.stream(seed, "doco keep", step))
            rows.append(other.rows)
            wanted = predict(model, [other.rows]) if settings.keep_target == "teacher" else [other.noise]
        return _Step(rows, domain(told, anchor), wanted)

    def losses(given: _Step) -> dict[str, Tensor]:
        eps, *others = predict(model, given.rows, apart=settings.apart)
        target = domain(given.rows[0], eps)
        learn(given.rows[0], given.anchor, target, leak=settings.released)
        found = {"erase": F.softplus(critic.logits(target, given.rows[0].t)).mean()}
        for kept, wanted in zip(others, given.wanted, strict=True):
            found["keep"] = settings.keep * (kept - wanted).square().mean()
        return found

    objective = Objective(prepare, losses, held=critic, rests=settings.warm_up, figures=lambda: figures)
    combine = unscaled if settings.released else None
    with start_held(model, settings.hold_start):
        return train(model, request, settings, objective, seed=seed, job=job, combine=combine)


def plan(model: Model, request: Request, settings: Settings) -> Plan:
    _check(model, settings)
    n, total = settings.batch, max(1, settings.warm_up + settings.steps)
    asked = n * (1 + bool(settings.keep and settings.keep_target == "teacher"))
    return plan_of(
        model,
        settings,
        losses=_losses(settings),
        free=(settings.warm_up * 2 * n + settings.steps * asked) / total,
        rows=settings.steps * n * (1 + bool(settings.keep)) / total,
        sampled=settings.pictures
        * (len(request.erase) + bool(settings.keep and neighbours(model, request, settings.neighbours))),
        rests=settings.warm_up,
    )


def _check(model: Model, settings: Settings) -> None:
    check(settings, losses=_losses(settings))
    if settings.hold_start:
        readable(model)
    if settings.released and settings.combine != "preserving-tensor":
        raise InputError(
            f"released=true changes the surgery, and combine={settings.combine} has none: choose "
            "combine=preserving-tensor, or released=false"
        )


def _losses(settings: Settings) -> tuple[str, ...]:
    return ("erase", "keep") if settings.keep else ("erase",)


METHOD = Method(
    name="doco",
    title="Domain Correction",
    paper="Wu et al. 2025, arXiv 2405.15304",
    summary="a discriminator makes what is drawn for the concept look like what is drawn for an anchor",
    settings=Settings,
    run=run,
    plan=plan,
)
