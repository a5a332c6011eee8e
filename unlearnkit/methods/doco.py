"""DoCo: Unlearning Concepts in Diffusion Model via Concept Domain Correction (Wu et al. 2025, arXiv 2405.15304).

Not each prediction, but their distribution under the concept is made that of an anchor's, by a discriminator D. With
z_t a noised picture of the anchor, c the anchor's prompt and c* the same prompt with the concept, the domains are

    x0       ẑ(e) = (z_t - σ_t e) / α_t,  the picture that a predicted noise e implies
    eps      e itself

    L_D      = BCE(D(ẑ_θ*(c)), 0) + BCE(D(ẑ_θ(c*)), 1)
    L_adv    = BCE(D(ẑ_θ(c*)), 0)                             of the erasing side
    L_ret    = E ||ε - ε_θ(z_t, c, t)||²                      of the keeping side, on other anchors' pictures

D trains alone at first, then takes a step with each of the student's. L_adv's gradient loses, tensor by tensor, what
opposes L_ret's (``preserving`` in parts/combine.py), which itself is not followed. Only the abstract and the released
code could be read; released = true has the code's two slips: ``unscaled`` below, and the student's gradient in D's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import seeds
from ..errors import InputError
from ..method import Trained
from ..parts import Combine, Gradients, Losses
from ..parts.combine import sides
from ..parts.discriminator import Discriminator, Kinds
from ..settings import setting
from ..training.anchors import Anchored, anchored, retained
from ..training.attention import start_held
from ..training.image_sets import ImageSet
from ..training.job import Run
from ..training.net import DenoiserInput, Net, Step, mse
from ..training.settings import Combines, KeepTarget, Trains, aimed, counted, default, phrased, unprompted

__all__ = ["DoCo", "unscaled"]


def unscaled(step: int, losses: Losses, weights: Mapping[str, Tensor]) -> Gradients:
    """The surgery as released: both gradients are clipped to a norm of 1, and then for each tensor with cos < 0

        g_u - cos(g_u, g_r) g_r / |g_r|

    which lacks the factor |g_u|: as that is far below 1, such a tensor follows the retention loss.
    """
    g_u, g_r = (_clipped(side) for side in sides(losses, weights))
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
    summary: ClassVar = (
        "a discriminator makes what is drawn for the concept look like what is drawn for an anchor"
    )

    trains: Trains = default("trains", "xattn-kv", source="released code")
    combine: Combines = default("combine", "preserving-tensor", source="released code")
    steps: int = default("steps", 1000, source="released code: 2000 less the warm-up")
    lr: float = default("lr", 4.8e-5, source="released code: 6e-6 for each of 8 pictures a step")
    batch: int = default("batch", 8, source="released code")
    domain: Literal["x0", "eps"] = setting(
        "x0",
        "what the discriminator sees: the picture that the predicted noise implies, or the predicted noise",
        source="x0: released code since November 2024; eps: its first version",
    )
    discriminator: Kinds = setting(
        "patchgan", "the released code's, or one that knows the time", source="released code; timed is ours"
    )
    discriminator_lr: float = setting(
        1e-4, "the discriminator's learning rate", low=0.0, source="released code, objects; 5e-4 for styles"
    )
    warm_up: int = setting(
        1000, "steps of the discriminator alone, before the others", low=0, source="released code"
    )
    teacher: Literal["frozen", "student"] = setting(
        "frozen", "who predicts for the anchor: the base model or the trained one", source="released code"
    )
    keep: float = setting(
        1.0,
        "weight of the retention loss; combine = preserving takes only its direction, unless adds is above 0",
        low=0.0,
        source="released code",
    )
    keep_target: KeepTarget = aimed(source="released code")
    untold: float = unprompted()
    pictures: int = setting(
        1000,
        "pictures of the anchor for each concept",
        low=1,
        source="released code, 200 prompts with 5 each",
    )
    neighbours: int = counted("neighbours", 0, source="released code: the anchors' pictures alone")
    grammar: str = phrased(source="ours; released code: 200 captions")
    released: bool = setting(
        False,
        "the released code's two slips: the surgery's scale, and D learning from the student's gradient",
        source="ours: off, what the paper means",
    )

    @property
    def critic_warmup(self) -> int:
        return self.warm_up

    @property
    def combiner(self) -> Combine | None:
        return unscaled if self.released else None

    def data(self, run: Run) -> Sets:
        if self.released and self.combine != "preserving-tensor":
            raise InputError(
                f"released=true changes the surgery, and combine={self.combine} has none: choose "
                "combine=preserving-tensor, or released=false"
            )
        run.enter(start_held(run.model))
        anchors = anchored(run, self.pictures, grammar=self.grammar)
        retain = None
        if self.keep:
            retain = retained(run, anchors, self.pictures, nearest=self.neighbours, dropout=self.untold)
        run.state = critic = Discriminator(
            run.model.shape,
            kind=self.discriminator,
            lr=self.discriminator_lr,
            seed=seeds.derive(run.seed, "doco"),
            device=run.model.device,
        )
        return Sets(anchors, retain, critic)

    def loss(self, net: Net, sets: Sets, step: Step) -> Losses:
        z = sets.anchors.images.batch(self.batch, step.stream("doco"))
        concept = z.input.with_cond(sets.anchors.concept_cond[z.which])  # c*, where z.input has c
        if step.number < self.warm_up:
            eps_anchor, eps_concept = net.teacher([z.input, concept])
            real, fake = (self._domain(net, concept, eps) for eps in (eps_anchor, eps_concept))
            self._learn(sets, step, real, fake, concept.t)
            return {}
        predict = net.student_sg if self.teacher == "student" else net.teacher
        real = self._domain(net, concept, predict([z.input])[0])
        inputs, targets = [concept], list[Tensor]()
        if sets.retain is not None:
            other = sets.retain.batch(self.batch, step.stream("doco keep"))
            inputs.append(other.input)
            targets = net.teacher([other.input]) if self.keep_target == "teacher" else [other.noise]
        eps, *eps_retain = net.student(inputs)
        fake = self._domain(net, concept, eps)
        self._learn(sets, step, real, fake, concept.t, leak=self.released)
        losses = {"erase": F.softplus(sets.critic.logits(fake, concept.t)).mean()}  # L_adv
        for found, target in zip(eps_retain, targets, strict=True):
            losses["keep"] = self.keep * mse(found, target)  # L_ret
        return losses

    def _domain(self, net: Net, z: DenoiserInput, eps: Tensor) -> Tensor:
        return net.model.clean(z.x, eps, z.t) if self.domain == "x0" else eps

    def _learn(
        self, sets: Sets, step: Step, real: Tensor, fake: Tensor, t: Tensor, *, leak: bool = False
    ) -> None:
        """A step of the critic on L_D."""
        loss, right = sets.critic.learn(real, fake, t, leak=leak)
        step.log.update(discriminator=loss, right=right)
