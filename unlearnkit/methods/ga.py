"""GA: gradient ascent, with a cap so that it does not destroy the model.

    L = -min(l(x_c), cap)

with the denoising loss l on the base model's images of the concept. There is no retain loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..data.image_sets import ImageSet, noise_ratio
from ..data.prompts import prompts_for
from ..parts import Losses
from ..parts.ascent import CapOn, ascent
from ..training.job import Run
from ..training.method import Trained
from ..training.net import Net, Step
from ..training.settings import Trains, default

__all__ = ["GA"]


@dataclass(frozen=True)
class GA(Trained[ImageSet]):
    name: ClassVar = "ga"
    title: ClassVar = "Gradient ascent"
    paper: ClassVar = "baseline; no paper of its own"
    summary: ClassVar = "Baseline: the concept's denoising loss is raised up to a cap, without a retain loss."
    REPLACES: ClassVar = False
    RETAINS: ClassVar = False

    trains: Trains = default("trains", "all", source="as RGD's code for SD")
    steps: int = default("steps", 100, source="as RGD's code for SD")
    batch: int = default("batch", 8, source="as RGD's code for SD")
    cap: float = default("cap", 1.5, source="as RGD's, SD")
    cap_on: CapOn = default("cap_on", "batch", source="as RGD's code for SD")
    pictures: int = default("pictures", 200, source="ours")

    def data(self, run: Run) -> ImageSet:
        groups = [
            prompts_for(run.model, run.request, concept, self.pictures) for concept in run.request.erase
        ]
        return run.image_groups(groups)

    def loss(self, net: Net, erase: ImageSet, step: Step) -> Losses:
        x = erase.batch(self.batch, step.stream("ga"))
        (eps,) = net.student([x.input])
        squares, ratio = (eps - x.noise).square(), noise_ratio(net.model, x.input.t)
        return {"erase": ascent(squares, self.cap, self.cap_on, ratio)}
