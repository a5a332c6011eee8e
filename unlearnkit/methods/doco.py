"""DoCo: Unlearning Concepts in Diffusion Model via Concept Domain Correction (Wu et al. 2025, arXiv 2405.15304).

A discriminator D makes the distribution of the concept's predictions equal to an anchor's. z_t is a noised image of
the anchor, c the anchor's prompt, c* the same prompt with the concept, and

    ẑ(e) = (z_t - σ_t e) / α_t                                the image that a predicted noise e implies

    L_D      = BCE(D(ẑ_θ*(c)), 0) + BCE(D(ẑ_θ(c*)), 1)
    L_adv    = BCE(D(ẑ_θ(c*)), 0)                             the erasing loss
    L_ret    = E ||ε - ε_θ(z_t, c, t)||²                      the retain loss, on other anchors' images

D is trained alone at first, then one step with each of the student's. The part of L_adv's gradient that opposes L_ret's
is removed per tensor (``preserving`` in parts/combine.py); L_ret's gradient is not added. We could read the abstract
and the released code only. released = true has the code's two errors: ``unscaled``, and D's use of the student's graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import seeds
from ..data.image_sets import ImageSet
from ..errors import InputError
from ..parts import Combine, Gradients, Losses
from ..parts.combine import side_gradients
from ..parts.discriminator import Discriminator
from ..settings import setting
from ..training.anchors import Anchored, anchored, retained
from ..training.attention import detach_bos
from ..training.job import Run
from ..training.method import Trained
from ..training.net import Net, Step, mse
from ..training.settings import Combines, RetainTarget, Trains, default

__all__ = ["DoCo", "unscaled"]


def unscaled(step: int, losses: Losses, weights: Mapping[str, Tensor]) -> Gradients:
    """The surgery as released: both gradients are clipped to a norm of 1, and then for each tensor with cos < 0

        g_u - cos(g_u, g_r) g_r / |g_r|

    which lacks the factor |g_u|: as that is far below 1, such a tensor follows the retention loss.
    """
    g_u, g_r = (_clipped(side) for side in side_gradients(losses, weights))
    for name, u in g_u.items():
        r = g_r[name] / (g_r[name].norm() + 1e-8)
        cos = torch.sum(u / (u.norm() + 1e-8) * r)
        u.sub_(cos.clamp_max(0) * r)
    return g_u


def _clipped(gradients: Gradients) -> Gradients:
    norm = torch.linalg.vector_norm(torch.stack([gradient.norm() for gradient in gradients.values()]))
    scale = (1 / (norm + 1e-6)).clamp_max(1)
    return {name: gradient * scale for name, gradient in gradients.items()}


@dataclass(frozen=True)
class Sets:
    anchors: Anchored
    retain: ImageSet | None
    critic: Discriminator


@dataclass(frozen=True)
class DoCo(Trained[Sets]):
    name: ClassVar = "doco"
    title: ClassVar = "Domain Correction"
    paper: ClassVar = "Wu et al. 2025, arXiv 2405.15304"
    summary: ClassVar = "A discriminator makes the concept's predictions resemble an anchor's."
    TARGET_PROMPT: ClassVar = "anchor"

    trains: Trains = default("trains", "xattn-kv", source="released code")
    combine: Combines = default("combine", "preserving-tensor", source="released code")
    steps: int = default("steps", 1000, source="released code: 2000 less the warm-up")
    lr: float = default("lr", 4.8e-5, source="released code: 6e-6 for each of 8 pictures a step")
    batch: int = default("batch", 8, source="released code")
    discriminator_lr: float = setting(
        1e-4, "the discriminator's learning rate", low=0.0, source="released code, objects; 5e-4 for styles"
    )
    discriminator_warmup: int = setting(
        1000, "steps of the discriminator alone, before the others", low=0, source="released code"
    )
    teacher: Literal["frozen", "student"] = default("teacher", "frozen", source="released code")
    retain_weight: float = default("retain_weight", 1.0, source="released code: only a direction if adds = 0")
    retain_target: RetainTarget = default("retain_target", "noise", source="released code")
    prompt_dropout: float = default("prompt_dropout", 0.0, source="ours; paper: none")
    pictures: int = default("pictures", 1000, source="released code, 200 prompts with 5 each")
    neighbours: int = default("neighbours", 0, source="released code: the anchors' pictures alone")
    grammar: str = default("grammar", "", source="ours; released code: 200 captions")
    released: bool = setting(
        False,
        "the released code's two slips: the surgery's scale, and D learning from the student's gradient",
        source="ours: off, what the paper means",
    )

    @property
    def critic_warmup(self) -> int:
        return self.discriminator_warmup

    @property
    def combiner(self) -> Combine | None:
        return unscaled if self.released else None

    def data(self, run: Run) -> Sets:
        if self.released and self.combine != "preserving-tensor":
            raise InputError(
                f"released=true changes the surgery, and combine={self.combine} has none: choose "
                "combine=preserving-tensor, or released=false"
            )
        run.enter(detach_bos(run.model))
        anchors = anchored(run, self.pictures, grammar=self.grammar)
        retain = None
        if self.retain_weight:
            n, share = self.neighbours, self.prompt_dropout
            retain = retained(run, anchors, self.pictures, nearest=n, dropout=share)
        run.state = critic = Discriminator(
            run.model.shape,
            lr=self.discriminator_lr,
            seed=seeds.derive(run.seed, "doco"),
            device=run.model.device,
        )
        return Sets(anchors, retain, critic)

    def loss(self, net: Net, sets: Sets, step: Step) -> Losses:
        z = sets.anchors.images.batch(self.batch, step.stream("doco"))
        concept = z.input.with_cond(sets.anchors.concept_cond[z.which])  # c*, where z.input has c
        clean = partial(net.model.predicted_x0, z.input.x, t=z.input.t)  # ẑ
        if step.number < self.discriminator_warmup:
            eps_anchor, eps_concept = net.teacher([z.input, concept])
            self._learn(sets, step, clean(eps_anchor), clean(eps_concept))
            return {}
        predict = net.student_sg if self.teacher == "student" else net.teacher
        real = clean(predict([z.input])[0])
        inputs, targets = [concept], list[Tensor]()
        if sets.retain is not None:
            other = sets.retain.batch(self.batch, step.stream("doco keep"))
            inputs.append(other.input)
            targets = net.teacher([other.input]) if self.retain_target == "teacher" else [other.noise]
        eps, *eps_retain = net.student(inputs)
        fake = clean(eps)
        self._learn(sets, step, real, fake, leak=self.released)
        losses = {"erase": F.softplus(sets.critic.logits(fake)).mean()}  # L_adv
        for one, target in zip(eps_retain, targets, strict=True):
            losses["retain"] = self.retain_weight * mse(one, target)  # L_ret
        return losses

    def _learn(self, sets: Sets, step: Step, real: Tensor, fake: Tensor, *, leak: bool = False) -> None:
        """A step of the critic on L_D."""
        loss, right = sets.critic.learn(real, fake, leak=leak)
        step.log.update(discriminator=loss, right=right)
