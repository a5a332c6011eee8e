"""GradDiff: gradient difference: ascent on the concept plus descent on the retain set.

    L = -min(l(x_c), cap) + λ l(x)

with the denoising loss l on the base model's images of the concept and of retained words. From Liu et al. 2022 (arXiv
2203.12817), for classifiers; a baseline for diffusion models in Ko et al. 2024 (arXiv 2412.07808), whose GradDiff on
diverse data is ``rgd`` with ``combine = sum``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..data.image_sets import ImageSet, noise_ratio
from ..data.prompts import prompts_for, retain_concepts
from ..parts import Losses
from ..parts.ascent import CapOn, ascent
from ..training.job import Run
from ..training.method import Trained
from ..training.net import Net, Step, mse
from ..training.settings import Trains, default

__all__ = ["GradDiff"]


@dataclass(frozen=True)
class GradDiff(Trained[tuple[ImageSet, ImageSet]]):
    name: ClassVar = "graddiff"
    title: ClassVar = "Gradient difference"
    paper: ClassVar = "Liu et al. 2022, arXiv 2203.12817; for diffusion: Ko et al. 2024, arXiv 2412.07808"
    summary: ClassVar = "Baseline: the concept's loss is raised up to a cap while a retain loss is lowered."
    REPLACES: ClassVar = False

    trains: Trains = default("trains", "all", source="RGD's code for SD")
    steps: int = default("steps", 100, source="RGD's code for SD")
    batch: int = default("batch", 8, source="RGD's code for SD")
    retain_weight: float = default("retain_weight", 1.6, source="RGD's paper and code, SD")
    cap: float = default("cap", 1.5, source="RGD's paper, SD")
    cap_on: CapOn = default("cap_on", "batch", source="RGD's code for SD")
    pictures: int = default("pictures", 200, source="ours; RGD's paper: 800")
    neighbours: int = default("neighbours", 8, source="ours")
    retain_pictures: int = default("retain_pictures", 25, source="ours")

    def data(self, run: Run) -> tuple[ImageSet, ImageSet]:
        others = retain_concepts(run.model, run.request, self.neighbours)
        erase = [prompts_for(run.model, run.request, concept, self.pictures) for concept in run.request.erase]
        keep = [prompts_for(run.model, run.request, concept, self.retain_pictures) for concept in others]
        return (
            run.image_groups(erase, title="pictures to erase"),
            run.image_groups(keep, title="pictures to keep"),
        )

    def loss(self, net: Net, sets: tuple[ImageSet, ImageSet], step: Step) -> Losses:
        draws = step.stream("graddiff")
        x_c, x = (images.batch(self.batch, draws) for images in sets)
        eps_c, eps = net.student([x_c.input, x.input])
        squares, ratio = (eps_c - x_c.noise).square(), noise_ratio(net.model, x_c.input.t)
        return {
            "erase": ascent(squares, self.cap, self.cap_on, ratio),
            "retain": self.retain_weight * mse(eps, x.noise),
        }
