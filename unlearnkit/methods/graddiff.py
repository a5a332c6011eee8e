"""GradDiff: gradient difference, ascent on the concept and descent on what is kept, simply added up.

    L = -min(l(x_c), cap) + λ l(x)

for the denoising loss l on pictures of the concept and of kept words that the base model drew. Liu et al. 2022
(arXiv 2203.12817) for classifiers; as a baseline for diffusion models in Ko et al. 2024 (arXiv 2412.07808), whose
GradDiff on diverse data is ``rgd`` with ``combine = sum``.
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
from ..training.scenes import Noised, counted, gallery, kept, noise_ratio
from ..training.settings import Training, Trains, check, default
from ..training.train import plan_of, predict, train

__all__ = ["METHOD", "Settings"]

LOSSES = ("erase", "keep")


@dataclass(frozen=True)
class Settings(Training):
    trains: Trains = default("trains", "all", source="RGD's code for SD")
    steps: int = default("steps", 100, source="RGD's code for SD")
    batch: int = default("batch", 8, source="RGD's code for SD")
    keep_weight: float = setting(
        1.6, "λ, weight of the keeping loss", low=0.0, source="RGD's paper and code, SD"
    )
    cap: float = setting(
        1.5,
        "error up to which the concept is unlearned; predicting nothing has 1",
        low=0.0,
        source="RGD's paper, SD",
    )
    cap_on: CapOn = setting(
        "batch",
        "what the cap is for: the batch's mean error, each error of the noise, or each error of the implied picture",
        source="RGD's code for SD",
    )
    pictures: int = counted("pictures", 200, source="ours; RGD's paper: 800")
    neighbours: int = counted("neighbours", 8, source="ours")
    keep_pictures: int = counted("keep_pictures", 25, source="ours")


def run(model: Model, request: Request, settings: Settings, *, seed: int, job: Job) -> dict[str, Tensor]:
    """The trained weights of the part that ``settings.trains`` names."""
    check(settings, losses=LOSSES)
    others = kept(model, request, settings.neighbours)
    erase = gallery(model, request.erase, settings.pictures, job=job, title="pictures to erase")
    keep = gallery(model, others, settings.keep_pictures, job=job, title="pictures to keep")

    def prepare(step: int, student: Student) -> tuple[Noised, Noised]:
        draws = seeds.stream(seed, "graddiff", step)
        return erase.batch(model, settings.batch, draws), keep.batch(model, settings.batch, draws)

    def losses(given: tuple[Noised, Noised]) -> dict[str, Tensor]:
        bad, good = given
        told, as_before = predict(model, [bad.rows, good.rows], apart=settings.apart)
        squares, ratio = (told - bad.noise).square(), noise_ratio(model, bad.rows.t)
        return {
            "erase": ascent(squares, settings.cap, settings.cap_on, ratio),
            "keep": settings.keep_weight * (as_before - good.noise).square().mean(),
        }

    return train(model, request, settings, Objective(prepare, losses), seed=seed, job=job)


def plan(model: Model, request: Request, settings: Settings) -> Plan:
    sampled = settings.keep_pictures * len(kept(model, request, settings.neighbours))
    sampled += settings.pictures * len(request.erase)
    return plan_of(model, settings, losses=LOSSES, free=0, rows=2 * settings.batch, sampled=sampled)


METHOD = Method(
    name="graddiff",
    title="Gradient difference",
    paper="Liu et al. 2022, arXiv 2203.12817; for diffusion: Ko et al. 2024, arXiv 2412.07808",
    summary="climbs the concept's denoising loss up to a cap while it descends that of kept words",
    settings=Settings,
    run=run,
    plan=plan,
)
