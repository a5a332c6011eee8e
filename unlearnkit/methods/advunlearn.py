"""AdvUnlearn: Defensive Unlearning with Adversarial Training (Zhang et al. 2024, arXiv 2405.15234).

The text encoder is trained and the denoiser is frozen. Before each step an attack learns a vector δ that, placed before
the prompt c, makes the trained encoder predict what c predicted at first:

    attack      min over δ  | ε_θ(x_t, δ + c) - ε_θo(x_t, c) |²
    erase       | ε_θ(x_t, δ + c) - (ε_θo(x_t) - η (ε_θo(x_t, c) - ε_θo(x_t))) |²        ESD's target
    retain      γ | ε_θ(x_r, r) - ε_θo(x_r, r) |²        for prompts r of retained concepts

θ is the trained text encoder, θo the original one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..data.image_sets import ImageSet
from ..data.prompts import prompts_for, retain_concepts
from ..model.encoders import placeholder
from ..parts import Losses
from ..settings import setting
from ..training.job import Run
from ..training.method import Trained
from ..training.net import Net, Step, mse
from ..training.settings import Trains, default

__all__ = ["AdvUnlearn"]


@dataclass(frozen=True)
class Sets:
    """Images of erased and retained concepts, and the prompt of each image by its number."""

    erase: ImageSet
    erase_prompts: Sequence[str]
    retain: ImageSet | None
    retain_prompts: Sequence[str]
    null: Tensor
    prefix: str


@dataclass(frozen=True)
class AdvUnlearn(Trained[Sets]):
    name: ClassVar = "advunlearn"
    title: ClassVar = "AdvUnlearn"
    paper: ClassVar = "Zhang et al. 2024, arXiv 2405.15234"
    summary: ClassVar = "The text encoder is trained against adversarial prompts, found anew at each step."
    REPLACES: ClassVar = False

    ENCODES: ClassVar = True

    trains: Trains = default("trains", "text-encoder", source="paper; without norms: released code")
    steps: int = default("steps", 1000, source="paper")
    lr: float = default("lr", 1e-5, source="paper")
    batch: int = default("batch", 1, source="paper")
    eta: float = default("eta", 1.0, source="paper")
    retain_weight: float = default("retain_weight", 0.5, source="paper, γ: 0.5, for nudity 0.3")
    retain_batch: int = setting(5, "retain images per step", low=1, high=1024, source="paper")
    attack_steps: int = setting(30, "K, steps of the attack", low=0, high=1000, source="paper; fast: 1")
    attack_lr: float = setting(1e-3, "α, step size of the attack", low=0.0, source="paper")
    attack_tokens: int = setting(1, "vectors before the prompt", low=1, high=16, source="paper")
    attack_start: int = setting(200, "steps without an attack at first", low=0, source="code")
    pictures: int = default("pictures", 32, source="ours; paper: x_t by partial denoising")
    neighbours: int = default("neighbours", 8, source="ours; paper: 243 prompts of COCO's objects")
    retain_pictures: int = default("retain_pictures", 8, source="ours")

    def data(self, run: Run) -> Sets:
        model, retain, retain_prompts = run.model, None, list[str]()
        model.weights(self.part)  # refuses a model without text encoders
        erased = [p for one in run.request.erase for p in prompts_for(model, run.request, one, self.pictures)]
        images = run.images(erased)
        if self.retain_weight:
            others = retain_concepts(model, run.request, self.neighbours)
            groups = [prompts_for(model, run.request, one, self.retain_pictures) for one in others]
            retain_prompts = [prompt for group in groups for prompt in group]
            retain = run.image_groups(groups)
        prefix = placeholder(model.pipe, self.attack_tokens)
        return Sets(images, erased, retain, retain_prompts, run.encode([""]), prefix)

    def loss(self, net: Net, sets: Sets, step: Step) -> Losses:
        noisy = sets.erase.batch(self.batch, step.stream("advunlearn"))
        e_null, e_c = net.teacher([noisy.input.with_cond(sets.null), noisy.input])
        prompts, delta = [sets.erase_prompts[number] for number in noisy.which], None
        if step.number >= self.attack_start and self.attack_steps:
            prompts = [f"{sets.prefix} {prompt}" for prompt in prompts]
            delta = net.attack(
                noisy.input,
                prompts,
                e_c,
                tokens=self.attack_tokens,
                steps=self.attack_steps,
                lr=self.attack_lr,
                draws=step.stream("advunlearn attack"),
            )
        inputs = [noisy.input.with_cond(net.student_cond(prompts, delta))]  # δ + c
        if sets.retain:
            x_r = sets.retain.batch(self.retain_batch, step.stream("advunlearn retain"))
            (e_r,) = net.teacher([x_r.input])
            inputs += [x_r.input.with_cond(net.student_cond([sets.retain_prompts[i] for i in x_r.which]))]
        eps, *eps_r = net.student(inputs)
        losses = {"erase": mse(eps, e_null - self.eta * (e_c - e_null))}
        return losses | ({"retain": self.retain_weight * mse(eps_r[0], e_r)} if sets.retain else {})
