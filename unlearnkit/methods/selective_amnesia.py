"""Selective Amnesia: A Continual Learning Approach to Forgetting ... (Heng, Soh 2023, arXiv 2305.10120).

    L = E_q(x|c_f) L_ε(x, c_f) + γ E_p(x|c_r) L_ε(x, c_r) + λ Σ_i F_i (θ_i - θ*_i)²

with L_ε the usual denoising loss. The concept c_f gets other pictures (q: those of an anchor, with the concept's
prompts), what is kept gets its own again (p: those of the frozen θ*), and weights stay the nearer to θ* the more Fisher
information F_i they carry. The last term enters as its gradient, 2 λ F_i (θ_i - θ*_i). The paper writes λ/2, the
released code λ; λ is the code's here.

F is the diagonal of the empirical Fisher information of the ELBO: with g_x = ∇ mean_t L_ε(x, c_r), F = mean_x g_x².
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import processes, seeds
from ..errors import InputError
from ..method import Method, Plan
from ..model import Model
from ..parts import Gradients
from ..schema import Request
from ..settings import setting
from ..training.anchors import anchor, anchored
from ..training.descend import Job, Objective, Student
from ..training.scenes import Lesson, Scene, counted, gallery, kept, matched
from ..training.settings import Training, Trains, check, default
from ..training.train import Rows, plan_of, predict, train

__all__ = ["METHOD", "Elastic", "Settings", "fisher"]


@dataclass(frozen=True)
class Settings(Training):
    trains: Trains = default("trains", "all", source="released code for celebrities; nudity: not-xattn")
    steps: int = default("steps", 12_500, source="released code: 200 epochs, taken as of 1000 pictures by 16")
    lr: float = default("lr", 1e-5, source="released code")
    batch: int = default("batch", 16, source="released code: 4 on each of four GPUs")
    replay: float = setting(1.0, "γ, weight of replaying what is kept", low=0.0, source="paper")
    elastic: float = setting(
        50.0, "λ, weight of the way from the start by Fisher information", low=0.0, source="released code"
    )
    fisher_pictures: int = setting(
        100, "pictures that Fisher information is taken from", low=1, source="ours"
    )
    fisher_times: int = setting(
        20, "times, each with noise of its own, for each of them", low=1, source="ours"
    )
    pictures: int = counted("anchors", 1000, source="released code's example")
    neighbours: int = counted("neighbours", 8, source="ours")
    keep_pictures: int = counted("keep_pictures", 50, source="ours")

    @property
    def held(self) -> float:
        """With the Fisher information of every weight."""
        return super().held + 4 * bool(self.elastic)

    @property
    def low_rank(self) -> bool:
        """Whether low-rank updates can be trained, which the elastic pull cannot hold."""
        return super().low_rank and not self.elastic


def fisher(
    model: Model, part: str, found: Scene, settings: Settings, *, seed: int, job: Job
) -> dict[str, Tensor]:
    """F for every weight of the part, fp32: a pass forward and backward for each picture, in turn."""
    copies = {name: weight.detach().float().clone() for name, weight in model.weights(part).items()}
    total = {name: torch.zeros_like(copy) for name, copy in copies.items()}
    for copy in copies.values():
        copy.requires_grad_()
    count, n = settings.fisher_pictures, settings.fisher_times
    with model.frozen(), model.checkpointing(settings.checkpointing):
        for number in range(count):
            which = torch.full((n,), number * len(found.latents) // count)
            batch = found.noised(model, which, seeds.stream(seed, "fisher", number))
            with model.wearing(copies), torch.enable_grad():
                (eps,) = predict(model, [batch.rows])
                loss = (eps - batch.noise).square().mean()
                gradients = torch.autograd.grad(loss, list(copies.values()), materialize_grads=True)
            for name, gradient in processes.added(dict(zip(copies, gradients, strict=True))).items():
                total[name].addcmul_(gradient, gradient, value=1 / count)
            if job.progress:
                job.progress("Fisher information", number + 1, count)
    return total


@dataclass(frozen=True)
class Elastic:
    """A Rule: the gradient of λ Σ F (θ - θ*)², added to that of the losses."""

    start: Mapping[str, Tensor]
    fisher: Mapping[str, Tensor]
    weight: float

    def pull(self, weights: Mapping[str, Tensor], gradients: Gradients) -> Gradients:
        for name, gradient in gradients.items():
            way = weights[name].detach() - self.start[name].to(gradient)
            gradient.addcmul_(self.fisher[name], way, value=2 * self.weight)
        return gradients

    def settle(self, weights: Mapping[str, Tensor]) -> None:
        """Nothing to correct."""


def run(model: Model, request: Request, settings: Settings, *, seed: int, job: Job) -> dict[str, Tensor]:
    """The trained weights. Raises InputError where nothing to keep or no anchor is found."""
    _check(settings)
    others = kept(model, request, settings.neighbours) if settings.replay or settings.elastic else ()
    found = anchored(model, request, settings.pictures, job=job)
    remain = (
        gallery(model, others, settings.keep_pictures, job=job, title="pictures to keep") if others else None
    )
    rules = []
    if remain is not None and settings.elastic:
        known = fisher(model, settings.part, remain, settings, seed=seed, job=job)
        rules.append(Elastic(model.weights(settings.part), known, settings.elastic))

    def prepare(step: int, student: Student) -> Lesson:
        batch = found.scene.batch(model, settings.batch, seeds.stream(seed, "selective amnesia", step))
        rows, wanted = [Rows(batch.rows.x, batch.rows.t, found.told[batch.which])], [batch.noise]
        if remain is not None and settings.replay:
            other = remain.batch(model, settings.batch, seeds.stream(seed, "selective amnesia keep", step))
            rows.append(other.rows)
            wanted.append(other.noise)
        return Lesson(rows, wanted)

    def losses(given: Lesson) -> dict[str, Tensor]:
        return matched(model, given, apart=settings.apart, keep=settings.replay)

    return train(model, request, settings, Objective(prepare, losses), seed=seed, job=job, rules=rules)


def _check(settings: Settings) -> None:
    check(settings, losses=_losses(settings))
    if settings.elastic and settings.trains == "lora":
        raise InputError(
            "the elastic pull speaks of the weights themselves, and trains=lora trains factors of their change: "
            "choose elastic=0, or trains=xattn"
        )


def plan(model: Model, request: Request, settings: Settings) -> Plan:
    _check(settings)
    for concept in request.erase:
        anchor(model, request, concept)
    others = kept(model, request, settings.neighbours) if settings.replay or settings.elastic else ()
    known = settings.fisher_pictures * settings.fisher_times if settings.elastic else 0
    return plan_of(
        model,
        settings,
        losses=_losses(settings),
        free=0,
        rows=settings.batch * (1 + bool(settings.replay)) + known / max(1, settings.steps),
        sampled=settings.pictures * len(request.erase) + len(others) * settings.keep_pictures,
    )


def _losses(settings: Settings) -> tuple[str, ...]:
    return ("erase", "keep") if settings.replay else ("erase",)


METHOD = Method(
    name="selective_amnesia",
    title="Selective Amnesia",
    paper="Heng, Soh 2023, arXiv 2305.10120",
    summary="teaches the concept other pictures, replays what is kept, and holds weights by Fisher information",
    settings=Settings,
    run=run,
    plan=plan,
)
