"""Fine-tuning on what is kept: the baseline that hopes the concept fades by itself.

    L = l(x)

for the denoising loss l on pictures of kept words that the base model drew.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .. import seeds
from ..method import Method, Plan
from ..model import Model
from ..schema import Request
from ..training.descend import Job, Objective, Student
from ..training.scenes import Noised, counted, gallery, kept
from ..training.settings import Training, Trains, check, default
from ..training.train import plan_of, predict, train

__all__ = ["METHOD", "Settings"]

LOSSES = ("keep",)


@dataclass(frozen=True)
class Settings(Training):
    trains: Trains = default("trains", "all", source="RGD's paper")
    steps: int = default("steps", 100, source="as RGD's code for SD")
    batch: int = default("batch", 8, source="as RGD's code for SD")
    neighbours: int = counted("neighbours", 8, source="ours")
    keep_pictures: int = counted("keep_pictures", 25, source="ours")


def run(model: Model, request: Request, settings: Settings, *, seed: int, job: Job) -> dict[str, Tensor]:
    """The trained weights of the part that ``settings.trains`` names."""
    check(settings, losses=LOSSES)
    others = kept(model, request, settings.neighbours)
    keep = gallery(model, others, settings.keep_pictures, job=job)

    def prepare(step: int, student: Student) -> Noised:
        return keep.batch(model, settings.batch, seeds.stream(seed, "finetune", step))

    def losses(given: Noised) -> dict[str, Tensor]:
        (told,) = predict(model, [given.rows])
        return {"keep": (told - given.noise).square().mean()}

    return train(model, request, settings, Objective(prepare, losses), seed=seed, job=job)


def plan(model: Model, request: Request, settings: Settings) -> Plan:
    sampled = settings.keep_pictures * len(kept(model, request, settings.neighbours))
    return plan_of(model, settings, losses=LOSSES, free=0, rows=settings.batch, sampled=sampled)


METHOD = Method(
    name="finetune",
    title="Fine-tuning on what is kept",
    paper="baseline; no paper of its own",
    summary="trains on pictures of other words only, and hopes that the concept fades",
    settings=Settings,
    run=run,
    plan=plan,
)
