"""EraseDiff: Erasing Data Influence in Diffusion Models (Wu et al. 2024, arXiv 2401.05779).

Keep what is to be kept, among all networks that forget: min_θ L_r(θ) with θ in argmin L_f. Solved to first order by

    θ <- θ - lr (∇L_r + λ ∇g),        g(θ) = L_f(θ) - sg[L_f(θ_K)]

where θ_K is θ after K steps on L_f. L_f(θ_K) is a constant, so ∇g = ∇L_f, and the K steps change nothing but Adam's
momentum in the released code, where they leak into it: they are not taken here. λ sees to it that L_f falls:

    ratio     λ = max(0, η - <∇L_r, ∇g> / |∇g|²)         so that <∇L_r + λ ∇g, ∇g> >= η |∇g|²
    cosine    λ = max(0, η - cos(∇L_r, ∇g))              the released code, if its λ is below 0
    fixed     λ as given                                 the released code's recipes

    L_f = E ||ε_f - ε_θ(x_t, c_f, t)||²   x a picture of the concept c_f; ε_f predicted for an anchor, or uniform noise
    L_r = E ||ε - ε_θ(x_t, c_r, t)||²     x a picture of something kept
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .. import seeds
from ..method import Method, Plan
from ..model import Model
from ..parts import Combine, Gradients, Losses
from ..parts.combine import dot, mixed, sides
from ..schema import Request
from ..settings import setting
from ..training.anchors import anchor, turns
from ..training.descend import Job, Objective, Student
from ..training.scenes import Lesson, counted, gallery, kept, matched, scene
from ..training.settings import Training, Trains, check, default
from ..training.train import Rows, plan_of, predict, train
from ..wording import fill

__all__ = ["METHOD", "Settings", "balanced"]

LOSSES = ("erase", "keep")


@dataclass(frozen=True)
class Settings(Training):
    trains: Trains = default("trains", "all", source="released code for classes; nudity: not-xattn")
    steps: int = default("steps", 160, source="released code: enough for nudity, 60 for classes")
    lr: float = default("lr", 1e-5, source="released code")
    batch: int = default("batch", 16, source="released code")
    balance: Literal["ratio", "cosine", "fixed"] = setting(
        "ratio", "how the weight λ of forgetting is found", source="ratio: BOME, which the paper builds on"
    )
    eta: float = setting(
        0.1,
        "η of balance = ratio and cosine: how fast forgetting shall go on",
        low=0.0,
        source="released code",
    )
    weight: float = setting(
        1.0,
        "λ of balance = fixed, or with another combine",
        low=0.0,
        source="released code for Stable Diffusion",
    )
    target: Literal["anchor", "uniform"] = setting(
        "anchor",
        "what is predicted for the concept: what is predicted for an anchor, or noise uniform in [0, 1)",
        source="anchor: released code for Stable Diffusion; uniform: paper",
    )
    teacher: Literal["frozen", "student"] = setting(
        "frozen",
        "who predicts for the anchor: the base model or the trained one",
        source="ours; released code: student",
    )
    pictures: int = counted("pictures", 200, source="ours")
    neighbours: int = counted("neighbours", 8, source="ours")
    keep_pictures: int = counted("keep_pictures", 50, source="ours")

    @property
    def own(self) -> bool:
        """Whether the two gradients are weighed as the paper does, and not by ``combine``."""
        return self.combine == "sum" and self.balance != "fixed"

    @property
    def apart(self) -> bool:
        return self.own or super().apart


def balanced(eta: float, *, cosine: bool) -> Combine:
    """∇L_r + λ ∇L_f with λ found by η, over all weights as one vector."""

    def combine(step: int, losses: Losses, weights: Mapping[str, Tensor]) -> Gradients:
        g_f, g_r = sides(losses, weights)
        s, ff = dot(g_r, g_f), dot(g_f, g_f)
        scale = (ff * dot(g_r, g_r)).sqrt() if cosine else ff
        weight = torch.where(scale > 0, eta - s / scale, eta).clamp_min(0)
        return mixed([g_f, g_r], [weight, torch.ones_like(weight)])

    return combine


def run(model: Model, request: Request, settings: Settings, *, seed: int, job: Job) -> dict[str, Tensor]:
    """The trained weights. Raises InputError where nothing to keep or no anchor is found."""
    check(settings, losses=LOSSES)
    others = kept(model, request, settings.neighbours)
    words, instead = _prompts(model, request, settings)
    forget = scene(model, words, job=job)
    anchors = model.encode(instead) if instead else None
    remain = gallery(model, others, settings.keep_pictures, job=job, title="pictures to keep")

    def prepare(step: int, student: Student) -> Lesson:
        draws = seeds.stream(seed, "erasediff", step)
        batch = forget.batch(model, settings.batch, draws)
        other = remain.batch(model, settings.batch, seeds.stream(seed, "erasediff keep", step))
        if anchors is None:
            wanted = torch.rand(batch.noise.shape, generator=draws).to(model.device)
        else:
            asked = Rows(batch.rows.x, batch.rows.t, anchors[batch.which])
            with student() if settings.teacher == "student" else nullcontext():
                (wanted,) = predict(model, [asked])
        return Lesson([batch.rows, other.rows], [wanted, other.noise])

    def losses(given: Lesson) -> dict[str, Tensor]:
        return matched(model, given, apart=settings.apart, erase=1.0 if settings.own else settings.weight)

    combine = balanced(settings.eta, cosine=settings.balance == "cosine") if settings.own else None
    return train(model, request, settings, Objective(prepare, losses), seed=seed, job=job, combine=combine)


def _prompts(model: Model, request: Request, settings: Settings) -> tuple[list[str], list[str]]:
    """Prompts of the concepts, and the same with an anchor in the concept's place (none with target = uniform)."""
    words: list[str] = []
    instead: list[str] = []
    for concept in request.erase:
        found = turns(model, request, concept, settings.pictures)
        words += [fill(form, wording) for form, wording in found]
        if settings.target == "anchor":
            place = anchor(model, request, concept)
            instead += [fill(form, place) for form, _ in found]
    return words, instead


def plan(model: Model, request: Request, settings: Settings) -> Plan:
    _prompts(model, request, settings)
    others = len(kept(model, request, settings.neighbours))
    return plan_of(
        model,
        settings,
        losses=LOSSES,
        free=settings.batch if settings.target == "anchor" else 0,
        rows=2 * settings.batch,
        sampled=settings.pictures * len(request.erase) + others * settings.keep_pictures,
    )


METHOD = Method(
    name="erasediff",
    title="EraseDiff",
    paper="Wu et al. 2024, arXiv 2401.05779",
    summary="keeps what is kept, as far as forgetting goes on: the two gradients are weighed anew in every step",
    settings=Settings,
    run=run,
    plan=plan,
)
