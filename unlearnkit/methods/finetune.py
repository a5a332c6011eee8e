"""Fine-tuning on retained concepts: a baseline that relies on the concept being forgotten.

    L = l(x)

with the denoising loss l on the base model's images of retained words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..data.image_sets import ImageSet
from ..data.prompts import prompts_for, retain_concepts
from ..parts import Losses
from ..training.job import Run
from ..training.method import Trained
from ..training.net import Net, Step, mse
from ..training.settings import Trains, default

__all__ = ["FineTune"]


@dataclass(frozen=True)
class FineTune(Trained[ImageSet]):
    name: ClassVar = "finetune"
    title: ClassVar = "Fine-tuning on what is kept"
    paper: ClassVar = "baseline; no paper of its own"
    summary: ClassVar = "Baseline: the model is trained on other words only."
    REPLACES: ClassVar = False

    trains: Trains = default("trains", "all", source="RGD's paper")
    steps: int = default("steps", 100, source="as RGD's code for SD")
    batch: int = default("batch", 8, source="as RGD's code for SD")
    neighbours: int = default("neighbours", 8, source="ours")
    retain_pictures: int = default("retain_pictures", 25, source="ours")

    def data(self, run: Run) -> ImageSet:
        others = retain_concepts(run.model, run.request, self.neighbours)
        return run.image_groups(
            [prompts_for(run.model, run.request, concept, self.retain_pictures) for concept in others]
        )

    def loss(self, net: Net, retain: ImageSet, step: Step) -> Losses:
        x = retain.batch(self.batch, step.stream("finetune"))
        (eps,) = net.student([x.input])
        return {"retain": mse(eps, x.noise)}
