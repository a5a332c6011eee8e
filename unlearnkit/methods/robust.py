"""Robust anchoring: ours. Concept Ablation (arXiv 2303.13516) plus a loss on the concept's own noised pictures.

c is a prompt of the concept, a the same prompt with the anchor (for a style without it: the same picture in no style),
x_t a noised picture of c or a drawn by the base θ*:

    by name     1/u E ||ε_θ(x_t(a), c) - ε_θ*(x_t(a), a)||²      Concept Ablation
    latents     w/u E ||ε_θ(x_t(c), o) - e||²                    o: the empty prompt, c itself, in equal parts
                e = ε_θ*(x_t(c), a) + η (ε_θ*(x_t(c), a) - ε_θ*(x_t(c), c))
                u = E ||ε_θ*(x_t(c), c) - e||²                   the way to go, other for each concept
    retain      λ E ||ε_θ(x_t(r), r) - ε_θ*(x_t(r), r)||²        on pictures of the anchor and of near concepts

The second loss is about what no prompt reaches: a half-noised picture of the concept is finished as the anchor,
whatever the prompt says. Without it, partial denoising and inpainting bring the concept back from every other method.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..data.image_sets import DenoiserInput, ImageSet
from ..data.wording import format_prompt
from ..parts import Losses
from ..schema import NEAREST
from ..settings import setting
from ..training.anchors import Anchored, anchor, anchored, retained, templates_for
from ..training.job import Run
from ..training.method import Trained
from ..training.net import Net, Step, mse
from ..training.settings import Schedules, Trains, default

__all__ = ["Robust"]


@dataclass(frozen=True)
class Sets:
    """latents: pictures of the concepts. targets (pictures, tokens, width): their prompts with the anchor instead.

    unit: u, by which the erasing losses are divided.
    """

    anchors: Anchored
    retain: ImageSet
    latents: ImageSet | None
    targets: Tensor
    null: Tensor
    unit: float


@dataclass(frozen=True)
class Robust(Trained[Sets]):
    name: ClassVar = "robust"
    title: ClassVar = "Robust anchoring"
    paper: ClassVar = "ours, from Kumari et al. 2023, arXiv 2303.13516"
    summary: ClassVar = "The concept's prompts and its noised pictures are both denoised as an anchor."
    TARGET_PROMPT: ClassVar = "anchor"
    INSTEAD: ClassVar[Mapping[str, str]] = {
        "object": NEAREST,
        "style": "",
    }  # another style there rubs off on plain pictures

    trains: Trains = default("trains", "all", source="ours: with cross-attention alone latents bring it back")
    steps: int = default("steps", 400, source="ours, not tried on large models; canvas: 160")
    lr: float = default("lr", 1e-5, source="ours, not tried on large models; canvas: 3e-4")
    schedule: Schedules = default("schedule", "onecycle", source="ours")
    batch: int = default("batch", 6, source="ours")
    latent_weight: float = setting(
        1.0, "w, weight of the loss on noised pictures of the concept", low=0.0, source="ours"
    )
    relative_erase: bool = default("relative_erase", True, source="ours: one weight for every concept")
    eta: float = default("eta", 2.0, source="ours: a half-noised cat is a cat under any prompt")
    latent_pictures: int = setting(40, "pictures of each concept", low=1, source="ours")
    retain_weight: float = default("retain_weight", 60.0, source="ours")
    neighbours: int = default("neighbours", 32, source="ours")
    retain_pictures: int = default("retain_pictures", 4, source="ours")
    pictures: int = default("pictures", 40, source="ours")
    grammar: str = default("grammar", "", source="ours")
    prompt_dropout: float = default("prompt_dropout", 0.3, source="ours")

    def data(self, run: Run) -> Sets:
        anchors = anchored(run, self.pictures, grammar=self.grammar)
        count = self.retain_pictures * max(1, len(run.request.keep) or self.neighbours)
        retain = retained(run, anchors, count, nearest=self.neighbours, dropout=self.prompt_dropout)
        prompts, targets = list[list[str]](), list[str]()
        for concept in run.request.erase if self.latent_weight else ():
            pairs = templates_for(run.model, run.request, concept, self.latent_pictures, self.grammar)
            place = anchor(run.model, run.request, concept)
            prompts.append([format_prompt(form, word) for form, word in pairs])
            targets += [format_prompt(form, place) for form, _ in pairs]
        latents = run.image_groups(prompts, title="pictures to erase") if prompts else None
        goals = run.encode(targets or [""])
        unit = self._distance(run, latents, goals) if latents and self.relative_erase else 1.0
        return Sets(anchors, retain, latents, goals, run.encode([""]), unit)

    def loss(self, net: Net, sets: Sets, step: Step) -> Losses:
        x_a = sets.anchors.images.batch(self.batch, step.stream("robust"))
        x_r = sets.retain.batch(self.batch, step.stream("robust keep"))
        taught = [x_a.input, x_r.input]
        inputs = [x_a.input.with_cond(sets.anchors.concept_cond[x_a.which]), x_r.input]
        if sets.latents:
            own, *both = self._latents(sets, sets.latents, step.stream("robust latents"))
            inputs, taught = [*inputs, own], [*taught, *both]
        targets, eps = net.teacher(taught), net.student(inputs)
        if sets.latents:
            e_a, e_c = targets[2:]
            targets[2:] = [e_a + self.eta * (e_a - e_c)]  # e
        names = ("erase", "keep", "erase_latents")
        weights = {
            "erase": 1 / sets.unit,
            "keep": self.retain_weight,  # λ
            "erase_latents": self.latent_weight / sets.unit,  # w
        }
        return {
            name: weights[name] * mse(one, base) for name, one, base in zip(names, eps, targets, strict=False)
        }

    def _distance(self, run: Run, latents: ImageSet, goals: Tensor) -> float:
        """u, with each picture noised once: e - ε_θ*(x_t, c) is (1 + η) (e_a - e_c). 1 where nothing has to move."""
        draws, total = run.stream("robust first"), 0.0
        for which in torch.split(torch.arange(len(latents)), self.batch):
            x = latents.noisy_batch(which, draws)
            e_a, e_c = run.net.teacher([x.input.with_cond(goals[which]), x.input])
            total += len(which) * mse(e_a, e_c).item()
        return (1 + self.eta) ** 2 * total / len(latents) or 1.0

    def _latents(
        self, sets: Sets, latents: ImageSet, draws: torch.Generator
    ) -> tuple[DenoiserInput, DenoiserInput, DenoiserInput]:
        """Noised pictures of the concept under o, under the anchor's prompts, and under their own."""
        x = latents.batch(self.batch, draws)
        empty = torch.randint(2, (self.batch, 1, 1), generator=draws).bool().to(sets.null.device)
        cond = torch.where(empty, sets.null, x.input.cond)
        return x.input.with_cond(cond), x.input.with_cond(sets.targets[x.which]), x.input
