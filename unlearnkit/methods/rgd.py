"""RGD: Boosting Alignment for Post-Unlearning Text-to-Image Generative Models (Ko et al. 2024, arXiv 2412.07808).

With l the usual denoising loss on the base model's images of prompt pairs, x_c with the concept and x without:

    L_f = -min(l(x_c), cap)         raises the concept's loss up to a cap
    L_r = λ l(x)                    retain loss; retain_target = teacher: the base model's prediction

The step is their restricted gradient (theorem 4, ``parts/combine.py``), with which neither loss rises. Both sets are
diverse: a grammar is filled in many ways, and the retain prompt is the erase prompt without the concept.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..data.grammar import pairs, read_without
from ..data.image_sets import ImageSet, noise_ratio
from ..data.prompts import neighbours, unerased
from ..errors import InputError
from ..model.model import Model
from ..parts import Losses
from ..parts.ascent import CapOn, ascent
from ..schema import Concept, Request
from ..settings import setting
from ..training.job import Run
from ..training.method import Trained
from ..training.net import Net, Step, mse
from ..training.settings import Combines, RetainTarget, Trains, default

__all__ = ["RGD"]


@dataclass(frozen=True)
class Sets:
    """unit: divides the concept's error, and so its cap."""

    erase: ImageSet
    retain: ImageSet
    unit: float


@dataclass(frozen=True)
class RGD(Trained[Sets]):
    name: ClassVar = "rgd"
    title: ClassVar = "Restricted gradient with diverse data"
    paper: ClassVar = "Ko et al. 2024, arXiv 2412.07808"
    summary: ClassVar = "The restricted gradient raises the concept's loss and lowers a diverse retain loss."

    trains: Trains = default("trains", "all", source="paper, SD: the whole U-Net")
    combine: Combines = default("combine", "restricted", source="paper; sum is its GradDiff on diverse data")
    steps: int = default("steps", 100, source="released code, SD: one pass over 800 pairs")
    lr: float = default("lr", 1e-5, source="paper")
    batch: int = default("batch", 8, source="released code, SD")
    retain_weight: float = default("retain_weight", 1.6, source="paper and code, SD; CIFAR-10: 5")
    cap: float = default("cap", 1.5, source="paper, appendix C, SD; its script: 1.1")
    cap_on: CapOn = default("cap_on", "batch", source="released code, SD; CIFAR-10: picture, with cap 0.1")
    relative_erase: bool = default(
        "relative_erase", False, source="ours, for concepts of small loss; paper: off"
    )
    pictures: int = default("pictures", 800, source="paper, SD")
    diverse: bool = setting(
        True, "fill a grammar; off: bare words, the retained ones in turn", source="paper", role="sentences"
    )
    grammar: str = default("grammar", "scenes", source="ours, after the paper")
    others: float = setting(
        0.5, "share of another word in the concept's place", low=0.0, high=1.0, source="ours; paper: 0 or 1"
    )
    neighbours: int = default("neighbours", 0, source="ours: 0 is the whole vocabulary; paper: balanced")
    retain_target: RetainTarget = default("retain_target", "noise", source="paper; teacher is ours")
    prompt_dropout: float = default("prompt_dropout", 0.0, source="ours; paper: none")
    retain_full_batch: bool = setting(
        False, "retain loss over all retain images at each step", source="released code: on for CIFAR-10"
    )

    def data(self, run: Run) -> Sets:
        erase, retain = zip(*self.sentences(run.model, run.request, seed=run.seed), strict=True)
        with_concept = run.images(erase, title="pictures to erase")
        without = run.images(retain, title="pictures to keep").with_prompt_dropout(self.prompt_dropout)
        unit = self._first_error(run, with_concept) if self.relative_erase else 1.0
        return Sets(with_concept, without, unit)

    def loss(self, net: Net, sets: Sets, step: Step) -> Losses:
        draws = step.stream("rgd")
        x_c = sets.erase.batch(self.batch, draws)
        if self.retain_full_batch:
            (eps_c,) = net.student([x_c.input])
            retain = self._full_retain_loss(net, sets.retain, draws)
        else:
            x = sets.retain.batch(self.batch, draws)
            target = x.noise if self.retain_target == "noise" else net.teacher([x.input])[0]
            eps_c, eps = net.student([x_c.input, x.input])
            retain = mse(eps, target)
        squares, ratio = (eps_c - x_c.noise).square() / sets.unit, noise_ratio(net.model, x_c.input.t)
        return {
            "erase": ascent(squares, self.cap, self.cap_on, ratio),  # L_f
            "retain": self.retain_weight * retain,  # L_r
        }

    def sentences(
        self, model: Model, request: Request, *, seed: int, held_out: bool = False
    ) -> list[tuple[str, str]]:
        """``pictures`` pairs of prompts a concept, (to erase, to keep).

        held_out: from the grammar's test pools, which share no word with those of training.
        """
        grammar, known = read_without(self.grammar, request.erased), unerased(model, request)
        sentences: list[tuple[str, str]] = []
        for concept in request.erase:
            others = self._others(model, request, concept, known[concept.kind])
            if self.diverse:
                pool, count = "test" if held_out else "train", self.pictures
                how: dict[str, Any] = {"count": count, "seed": seed, "pool": pool, "share": self.others}
                own = grammar if concept.instead is None else replace(grammar, others={})
                sentences += pairs(own, concept.kind, concept.wordings, others, known, **how)
            else:
                turns = zip(itertools.cycle(concept.wordings), itertools.cycle(others), strict=False)
                sentences += itertools.islice(turns, self.pictures)
        return sentences

    def _others(self, model: Model, request: Request, concept: Concept, known: list[str]) -> list[str]:
        """Words for the concept's place: its ``instead``, the request's retained words, or the vocabulary's."""
        if concept.instead is not None:
            return [concept.instead]
        if self.neighbours or request.keep:
            near = neighbours(model, request, self.neighbours)
            known = [word for other in near if other.kind == concept.kind for word in other.wordings]
        if not known:
            raise InputError(
                f"there is no word of the kind {concept.kind!r} to keep: give one with --keep, or raise neighbours"
            )
        return known

    def _first_error(self, run: Run, images: ImageSet) -> float:
        """The base model's mean squared error on the concept's images, each noised once."""
        draws, errors = run.stream("rgd first"), 0.0
        for which in torch.split(torch.arange(len(images)), self.batch):
            x = images.noisy_batch(which, draws)
            (eps,) = run.net.teacher([x.input])
            errors += len(which) * mse(eps, x.noise).item()
        return errors / len(images)

    def _full_retain_loss(self, net: Net, retain: ImageSet, draws: torch.Generator) -> Tensor:
        """The error over all retain images, with the activations of one batch at a time."""
        places = torch.split(torch.arange(len(retain)), self.batch)
        batches = [retain.noisy_batch(which, draws) for which in places]
        targets = [x.noise if self.retain_target == "noise" else net.teacher([x.input])[0] for x in batches]
        errors = [
            net.student_recomputed(x.input, partial(_summed_error, target=target))
            for x, target in zip(batches, targets, strict=True)
        ]
        return torch.stack(errors).sum() / len(retain)


def _summed_error(eps: Tensor, *, target: Tensor) -> Tensor:
    return (eps - target).square().mean(dim=(1, 2, 3)).sum()
