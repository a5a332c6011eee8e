"""Robust anchoring: ours. Concept Ablation (arXiv 2303.13516) plus a loss on the concept's own noised pictures.

c is a prompt of the concept, a the same prompt with the anchor (for a style without it: the same picture in no style),
x a picture of c drawn by the base θ*, y one of a with the same seed, z others of a, r a prompt that is kept, x(r) its
picture, g the guidance scale (at least 1), λ(t) = (1 - ᾱ_t) / ᾱ_t (of a flow σ_t²), and for any prompt p

    ε_g(p) = ε_θ(x_t, ∅) + g (ε_θ(x_t, p) - ε_θ(x_t, ∅))                    and ε*_g(p) the same of θ*

    by name   1/u E ||ε_θ(z_t, c) - ε_θ*(z_t, a)||²           Concept Ablation; u = E ||ε_θ*(x_t, a) - ε_θ*(x_t, c)||²
    latents   w/v E min(λ(t), k) (||ε_θ(x_t, ∅) - ε_y||² + ||ε_g(c) - ε_y||² / g)     v = E ||x - y||²
              ε_y: the prediction that leads from x_t to y
    retain    λ_r/2 E (||ε_θ(x_t(r), ∅) - ε_θ*(x_t(r), ∅)||² + ||ε_g(r) - ε*_g(r)||² / g)

The second loss is about what no prompt reaches: a noised picture of the concept is denoised to the picture with the
anchor, both without a prompt and with guidance. If the prediction for c has moved less than that for ∅, guidance
multiplies the difference by g. So a loss on each prediction alone is not enough: the concept's own prompt still
finishes it. What is kept is kept in the same way, as sampling combines it. With the adversary, every second c of the
latents is a prompt of learned vectors under which the student still predicts what θ* predicts for c.

Flux takes the scale as an input; there ε_g is the prompt's prediction at scale 1, as in all training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..data.image_sets import DenoiserInput, ImageSet, noise_ratio
from ..data.prompts import neighbours, unerased
from ..data.wording import format_prompt
from ..model.model import Model
from ..parts import Losses
from ..schema import NEAREST
from ..settings import setting
from ..training.anchors import Anchored, anchor, anchored, retained, templates_for
from ..training.job import Run
from ..training.method import Trained
from ..training.net import Net, Step, mse
from ..training.settings import Adversaries, Schedules, Trains, default

__all__ = ["Robust"]


@dataclass(frozen=True)
class Latents:
    """x: pictures of the concepts under their prompts. y (pictures, c, h, w): latents of the same with the anchor."""

    x: ImageSet
    y: Tensor


@dataclass(frozen=True)
class Sets:
    """null: conditioning (1, tokens, width) of the empty prompt. units: u and v, which divide the erasing losses."""

    anchors: Anchored
    retain: ImageSet
    null: Tensor
    latents: Latents | None
    units: tuple[float, float]


@dataclass(frozen=True)
class Robust(Trained[Sets]):
    name: ClassVar = "robust"
    title: ClassVar = "Robust anchoring"
    paper: ClassVar = "ours, from Kumari et al. 2023, arXiv 2303.13516"
    summary: ClassVar = (
        "The concept's prompts and its noised pictures are both denoised to an anchor's picture."
    )
    TARGET_PROMPT: ClassVar = "anchor"
    INSTEAD: ClassVar[Mapping[str, str]] = {
        "object": NEAREST,
        "style": "",
    }  # another style there rubs off on plain pictures

    trains: Trains = default("trains", "all", source="ours: with cross-attention alone latents bring it back")
    steps: int = default("steps", 400, source="ours, not tried on large models; canvas: 200")
    lr: float = default("lr", 1e-5, source="ours, not tried on large models; canvas: 1.5e-4")
    schedule: Schedules = default("schedule", "onecycle", source="ours")
    batch: int = default("batch", 6, source="ours")
    latent_weight: float = setting(
        3.0, "w, weight of the loss on noised pictures of the concept", low=0.0, source="ours"
    )
    relative_erase: bool = default("relative_erase", True, source="ours: one weight for every concept")
    latent_pictures: int = setting(
        40, "pictures of each concept, and as many with the anchor", low=1, source="ours"
    )
    latent_from: float = setting(
        0.3,
        "the least noise of these pictures, as a share of the timesteps",
        low=0.0,
        high=0.95,
        source="ours",
    )
    latent_cap: float = setting(4.0, "k, the largest weight of a timestep", low=0.0, source="ours")
    retain_weight: float = default("retain_weight", 120.0, source="ours")
    retain_batch: int = setting(6, "retain images per step", low=1, high=1024, source="ours")
    neighbours: int = default("neighbours", 32, source="ours")
    retain_pictures: int = default("retain_pictures", 8, source="ours")
    pictures: int = default("pictures", 40, source="ours")
    grammar: str = default("grammar", "", source="ours")
    retain_grammar: str = setting(
        "plain", "grammar of the prompts that are kept; empty: the model's templates", source="ours"
    )
    adversary: Adversaries = default("adversary", "embedding", source="ours")
    adversary_steps: int = default("adversary_steps", 4, source="ours")
    adversary_every: int = default("adversary_every", 4, source="ours")

    def data(self, run: Run) -> Sets:
        # a class has no sentences, and a sentence needs words of both kinds
        able = run.model.classes is None and all(unerased(run.model, run.request).values())
        around = self.retain_grammar if able else ""
        anchors = anchored(run, self.pictures, grammar=self.grammar)
        count = self.retain_pictures * max(1, len(neighbours(run.model, run.request, self.neighbours)))
        retain = retained(run, anchors, count, nearest=self.neighbours, grammar=around)
        null, prompts, targets = run.encode([""]), list[list[str]](), list[list[str]]()
        for concept in run.request.erase if self.latent_weight else ():
            pairs = templates_for(run.model, run.request, concept, self.latent_pictures, self.grammar)
            place = anchor(run.model, run.request, concept)
            prompts.append([format_prompt(form, word) for form, word in pairs])
            targets.append([format_prompt(form, place) for form, _ in pairs])
        if not prompts:
            unit = self._unit(run, anchors.images, anchors.concept_cond) if self.relative_erase else 1.0
            return Sets(anchors, retain, null, None, (unit, 1.0))
        x = run.image_groups(prompts, title="pictures to erase")
        y = run.image_groups(targets, title="the same with the anchor", seeds_of=prompts)
        units = (1.0, 1.0)
        if self.relative_erase:
            units = self._unit(run, x, y.cond[y.prompt_index]), mse(x.latents, y.latents).item() or 1.0
        return Sets(anchors, retain, null, Latents(x, y.latents), units)

    def loss(self, net: Net, sets: Sets, step: Step) -> Losses:
        model, (u, v) = sets.retain.model, sets.units
        g = max(1.0, model.hints.guidance)
        z = sets.anchors.images.batch(self.batch, step.stream("robust"))
        x_r = sets.retain.batch(self.retain_batch, step.stream("robust keep"))
        kept = [x_r.input.with_cond(sets.null), x_r.input]
        erased = [z.input.with_cond(sets.anchors.concept_cond[z.which])]
        if latents := sets.latents:
            x = latents.x.batch(self.batch, step.stream("robust latents"), first=self.latent_from)
            erased = [x.input, x.input.with_cond(sets.null), *erased]  # the adversary changes the first
        e_a, *base = net.teacher([z.input, *kept])
        *own, e_c, none, prompt = net.student([*erased, *kept])
        guided = _guided(model, g, x_r.input, none, prompt) - _guided(model, g, x_r.input, *base)
        off = (none - base[0]).square().mean() + guided.square().mean() / g
        losses = {"erase": mse(e_c, e_a) / u, "retain": self.retain_weight / 2 * off}  # λ_r
        if latents:
            y, t, zeros = latents.y[x.which], x.input.t, torch.zeros_like(x.input.x)
            noise = (x.input.x - model.add_noise(y, zeros, t)) / model.add_noise(zeros, zeros + 1, t)
            goal = model.training_target(y, noise)  # ε_y
            w = self.latent_weight / v * noise_ratio(model, t).clamp_max(self.latent_cap)  # λ(t)
            guided = _guided(model, g, x.input, own[1], own[0])
            losses["erase_latents"] = (w * (own[1] - goal).square()).mean()
            losses["erase_guided"] = (w * (guided - goal).square()).mean() / g
        return losses

    def _unit(self, run: Run, images: ImageSet, other: Tensor) -> float:
        """u: the mean squared difference that another conditioning (images, tokens, width) makes; 1 if it makes none.

        Each picture is noised once.
        """
        draws, total = run.stream("robust first"), 0.0
        for which in torch.split(torch.arange(len(images)), self.batch):
            own = images.noisy_batch(which, draws)
            first, second = run.net.teacher([own.input.with_cond(other[which]), own.input])
            total += len(which) * mse(first, second).item()
        return total / len(images) or 1.0


def _guided(model: Model, g: float, rows: DenoiserInput, none: Tensor, prompt: Tensor) -> Tensor:
    """ε_g by the family's own rule, from the predictions that there are."""
    both = torch.cat([none, prompt])
    found: Tensor = model.family.guided(
        *(lambda some, *_: both[-len(some) :], rows.x, rows.t), *(rows.cond, rows.cond, g)
    )
    return found
