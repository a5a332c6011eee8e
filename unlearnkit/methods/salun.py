"""SalUn: Gradient-Based Weight Saliency for Unlearning (Fan et al. 2024, arXiv 2310.12508).

Only the half of the weights with the largest summed gradient of the concept's loss is trained (``mask = saliency``), on
random labels: on images of the concept c, the target is the network's own prediction for another concept c',

    min  E_{c' ≠ c} |ε(x_t, c) - sg ε(x_t, c')|²  +  α l(x)

with the denoising loss l on images of retained words. sg ε(x_t, c') is the trained network's current prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..data.image_sets import ImageSet
from ..data.prompts import prompts_for, retain_concepts, swap_word
from ..parts import Losses
from ..schema import Concept
from ..training.anchors import anchor
from ..training.job import Run
from ..training.method import Trained
from ..training.net import Net, Step, mse
from ..training.settings import Masks, Trains, default

__all__ = ["SalUn"]

GUIDANCE = 7.5  # w of the prediction (1 + w) ε(c) - w ε() for the mask, as in the released code


@dataclass(frozen=True)
class Sets:
    """labels: for each concept and each of its prompts, the conditioning (words, tokens, width) with other words."""

    erase: ImageSet
    retain: ImageSet | None
    labels: list[list[Tensor]]
    empty: Tensor


@dataclass(frozen=True)
class SalUn(Trained[Sets]):
    name: ClassVar = "salun"
    title: ClassVar = "Saliency unlearning"
    paper: ClassVar = "Fan et al. 2024, arXiv 2310.12508"
    summary: ClassVar = (
        "The most salient half of the weights learns other words' predictions for the concept."
    )

    trains: Trains = default("trains", "all", source="released code: full")
    mask: Masks = default("mask", "saliency", source="paper")
    mask_warmup: int = default("mask_warmup", 100, source="released code: one pass over 800 pictures, by 8")
    steps: int = default("steps", 100, source="released code, nudity: one pass over 800 pictures, by 8")
    lr: float = default("lr", 1e-5, source="released code")
    batch: int = default("batch", 8, source="released code")
    retain_weight: float = default("retain_weight", 0.1, source="released code, nudity; classes: 0.5")
    teacher: Literal["frozen", "student"] = default("teacher", "student", source="paper and released code")
    pictures: int = default("pictures", 200, source="ours; released code: 800")
    neighbours: int = default("neighbours", 8, source="ours; these words stand for c' too")
    retain_pictures: int = default("retain_pictures", 25, source="ours; released code: 800 in all")

    @property
    def retains(self) -> bool:
        """Always: retained words stand for c'."""
        return True

    def data(self, run: Run) -> Sets:
        others = retain_concepts(run.model, run.request, self.neighbours)
        erase = [prompts_for(run.model, run.request, concept, self.pictures) for concept in run.request.erase]
        retain = [prompts_for(run.model, run.request, concept, self.retain_pictures) for concept in others]
        labels = [
            [
                run.encode(words)
                for words in swap_word(run.model, run.request, concept, _others(run, concept, others))
            ]
            for concept in run.request.erase
        ]
        return Sets(
            run.image_groups(erase, title="pictures to erase"),
            run.image_groups(retain, title="pictures to keep") if self.retain_weight else None,
            labels,
            run.encode([""]),
        )

    def loss(self, net: Net, sets: Sets, step: Step) -> Losses:
        draws = step.stream("salun")
        x = sets.erase.batch(self.batch, draws)
        spins = torch.randint(2**31, (self.batch,), generator=draws).tolist()
        other = torch.stack(
            [self._label(sets, int(at), spin) for at, spin in zip(x.which, spins, strict=True)]
        )
        predict = net.student_sg if self.teacher == "student" else net.teacher
        (target,) = predict([x.input.with_cond(other)])  # sg ε(x_t, c')
        retain = sets.retain.batch(self.batch, draws) if sets.retain else None
        eps, *eps_retain = net.student([x.input, *([retain.input] if retain else [])])
        losses = {"erase": mse(eps, target)}
        if retain:
            losses["retain"] = self.retain_weight * mse(eps_retain[0], retain.noise)
        return losses

    def saliency(self, net: Net, sets: Sets, step: Step) -> Losses:
        x = sets.erase.batch(self.batch, step.stream("salun saliency"))
        cond, null = net.student([x.input, x.input.with_cond(sets.empty)], joint=True)
        return {"erase": mse((1 + GUIDANCE) * cond - GUIDANCE * null, x.noise)}

    def _label(self, sets: Sets, which: int, spin: int) -> Tensor:
        """The prompt of an image, with another word by chance."""
        concept, place = divmod(which, self.pictures)
        words = sets.labels[concept][place % len(sets.labels[concept])]
        return words[spin % len(words)]


def _others(run: Run, concept: Concept, retained: Sequence[Concept]) -> list[str]:
    """The words for the concept's place: its ``instead``, else retained words of its kind, else its anchor."""
    own = [one.name for one in retained if one.kind == concept.kind]
    return own if own and concept.instead is None else [anchor(run.model, run.request, concept)]
