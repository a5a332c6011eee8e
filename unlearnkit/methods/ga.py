"""GA: gradient ascent, the plainest way to unlearn, with a cap so that it does not destroy the model.

    L = -min(l(x_c), cap)

for the denoising loss l on pictures of the concept that the base model drew. Nothing holds what shall be kept.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .. import seeds
from ..method import Method, Plan
from ..model import Model
from ..parts.ascent import CapOn, ascent
from ..schema import Request
from ..settings import setting
from ..training.descend import Job, Objective, Student
from ..training.scenes import Noised, counted, gallery, noise_ratio
from ..training.settings import Training, Trains, check, default
from ..training.train import plan_of, predict, train

__all__ = ["METHOD", "Settings"]

LOSSES = ("erase",)


@dataclass(frozen=True)
class Settings(Training):
    trains: Trains = default("trains", "all", source="as RGD's code for SD")
    steps: int = default("steps", 100, source="as RGD's code for SD")
    batch: int = default("batch", 8, source="as RGD's code for SD")
    cap: float = setting(
        1.5,
        "error up to which the concept is unlearned; predicting nothing has 1",
        low=0.0,
        source="as RGD's, SD",
    )
    cap_on: CapOn = setting(
        "batch",
        "what the cap is for: the batch's mean error, each error of the noise, or each error of the implied picture",
        source="as RGD's code for SD",
    )
    pictures: int = counted("pictures", 200, source="ours")


def run(model: Model, request: Request, settings: Settings, *, seed: int, job: Job) -> dict[str, Tensor]:
    """The trained weights of the part that ``settings.trains`` names."""
    check(settings, losses=LOSSES)
    erase = gallery(model, request.erase, settings.pictures, job=job)

    def prepare(step: int, student: Student) -> Noised:
        return erase.batch(model, settings.batch, seeds.stream(seed, "ga", step))

    def losses(given: Noised) -> dict[str, Tensor]:
        (told,) = predict(model, [given.rows])
        squares = (told - given.noise).square()
        return {"erase": ascent(squares, settings.cap, settings.cap_on, noise_ratio(model, given.rows.t))}

    return train(model, request, settings, Objective(prepare, losses), seed=seed, job=job)


def plan(model: Model, request: Request, settings: Settings) -> Plan:
    sampled = settings.pictures * len(request.erase)
    return plan_of(model, settings, losses=LOSSES, free=0, rows=settings.batch, sampled=sampled)


METHOD = Method(
    name="ga",
    title="Gradient ascent",
    paper="baseline; no paper of its own",
    summary="climbs the concept's denoising loss up to a cap, and keeps nothing",
    settings=Settings,
    run=run,
    plan=plan,
)
