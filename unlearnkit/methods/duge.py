"""DUGE: Continual Unlearning for Foundational Text-to-Image Models without Generalization Erosion (arXiv 2503.13769).

The trained θ attends to the concept as the frozen φ attends to nothing. A_i is the i-th of M cross-attention maps, of
θ on the concept's prompt and of φ on the empty prompt, at the same noised image x_t of the concept:

    L_U   = 1/M Σ_i mean (A_i^θ - A_i^φ)²                   breaks the link between word and image
    L_pr  = E ||ε - ε_θ(x_t, c_pr, t)||²                    on images of related concepts and of a memory bank
    L_reg = mean (θ - φ)²                                   rule = l2sp, or distillation on the memory bank, or both
    L     = λ_U L_U + λ_pr L_pr + λ_reg L_reg

The paper's numbers are not known to us, and L_reg is our reading of one line (PAPERS.md). Maps alone leave the concept
in the values of the words. With ``attends = output`` A_i is the map's product with the values, and ``output_weight``
also moves the predicted noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..data.bank import memory_prompts
from ..data.image_sets import ImageSet, NoisyBatch
from ..data.prompts import retain_concepts
from ..data.wording import format_prompt, target_prompt
from ..errors import InputError
from ..parts import Losses
from ..parts.divergence import Divergence, divergence
from ..settings import setting
from ..training import attention
from ..training.anchors import target_pairs, templates_for
from ..training.job import Run
from ..training.method import Trained
from ..training.net import Net, Step, mse
from ..training.settings import RetainTarget, Rules, Trains, default

__all__ = ["DUGE"]


@dataclass(frozen=True)
class Sets:
    """target: conditioning (images, tokens, width) of the target prompts. retain: "prior" and "memory" images."""

    erase: ImageSet
    target: Tensor
    alignment: attention.Alignment
    retain: dict[str, ImageSet]
    recorder: attention.AttentionRecorder
    scale: float

    def batches(self, count: int, step: Step) -> tuple[NoisyBatch, list[NoisyBatch]]:
        x = self.erase.batch(count, step.stream("duge"))
        return x, [images.batch(count, step.stream("duge", name)) for name, images in self.retain.items()]


@dataclass(frozen=True)
class DUGE(Trained[Sets]):
    name: ClassVar = "duge"
    title: ClassVar = "DUGE"
    paper: ClassVar = "2025, arXiv 2503.13769"
    summary: ClassVar = "The concept's attention maps become those of the empty prompt."
    TARGET_PROMPT: ClassVar = "null"

    trains: Trains = default("trains", "xattn", source="ours: maps depend on queries and keys")
    steps: int = default("steps", 300, source="ours; DUGE's is not known")
    rule: Rules = default("rule", ("l2sp",), source="our reading of DUGE's regularisation")
    target: Literal["null", "steered"] = setting(
        "null",
        "the empty prompt (or 'instead'), or steered away from there by eta",
        source="paper, at second hand",
    )
    null: Literal["empty", "rest"] = default("null", "empty", source="paper: empty; rest: ours")
    eta: float = default("eta", 1.0, source="ours, with target = steered; canvas: 1.8, styles 0.5")
    attends: attention.Attends = setting(
        "maps",
        "what A is: the softmax, or its product with the values",
        source="paper, at second hand; output: ours",
    )
    attention_weight: float = setting(1.0, "λ_U, attention loss", low=0.0, source="ours", role="attention")
    relative_erase: bool = default("relative_erase", True, source="ours: the attention loss is tiny")
    output_weight: float = setting(
        0.0, "weight of a loss on predicted noise", low=0.0, role="output", source="paper: none; canvas: 3"
    )
    divergence: Divergence = default("divergence", "mse", source="paper; others: f-DMU")
    divergence_scale: float = default("divergence_scale", 1.0, source="ours; f-DMU: of the step's covariance")
    retain_weight: float = default("retain_weight", 1.0, source="ours, as in DreamBooth: λ_pr")
    retain_target: RetainTarget = default("retain_target", "noise", source="paper, at second hand")
    neighbours: int = default("neighbours", 8, source="ours: these are the related concepts")
    retain_pictures: int = default("retain_pictures", 25, source="ours: 200 in all")
    memory: int = setting(100, "images in the bank of unrelated prompts", low=0, source="ours", role="memory")
    distil_weight: float = default("distil_weight", 0.0, source="another reading of L_reg: on the bank")
    pictures: int = default("pictures", 200, source="ours: 20 prompts with 10 each")
    grammar: str = default("grammar", "", source="ours; for the concept and the related ones")

    def data(self, run: Run) -> Sets:
        model, request, attend = run.model, run.request, self.attention_weight
        if not attend and not self.output_weight:
            raise InputError("attention_weight=0 and output_weight=0 erase nothing: set one of them above 0")
        if self.distil_weight and not self.memory:
            raise InputError("distil_weight needs a memory bank, and memory=0 makes none: set memory above 0")
        pairs = target_pairs(model, request, self.pictures, self.grammar, null=self.null)
        mapped = attend and self.attends == "maps"  # values have no columns to align
        sets = Sets(
            erase=run.images([format_prompt(form, word) for form, word, _ in pairs]),
            target=run.encode([target_prompt(form, place) for form, _, place in pairs]),
            alignment=attention.alignment(model, pairs) if mapped else attention.Alignment(),
            retain=self._retain(run),
            recorder=run.enter(attention.record_attention(model, enabled=attend > 0, attends=self.attends)),
            scale=attend,
        )
        relative = attend and self.relative_erase
        return replace(sets, scale=attend / self._base_loss(run, sets)) if relative else sets

    def loss(self, net: Net, sets: Sets, step: Step) -> Losses:
        x, retain = sets.batches(self.batch, step)
        a_phi, e_phi, e_phi_retain = self._teacher(net, sets, x, retain)
        inputs = [x.input, *(one.input for one in retain)]
        (eps, *eps_retain), a_theta = net.student_attention(sets.recorder, inputs, rows=self.batch)
        losses = {}
        if self.attention_weight:  # λ_U L_U
            losses["erase"] = sets.scale * sets.alignment.distance(a_theta, a_phi, x.which)
        if self.output_weight:
            output = divergence(eps, e_phi, self.divergence, self.divergence_scale)
            losses["erase_output"] = self.output_weight * output
        if self.retain_weight:  # λ_pr L_pr
            noise = e_phi_retain if self.retain_target == "teacher" else [one.noise for one in retain]
            errors = [mse(one, true) for one, true in zip(eps_retain, noise, strict=True)]
            losses["retain"] = self.retain_weight * torch.stack(errors).mean()
        if self.distil_weight:
            losses["keep_distil"] = self.distil_weight * mse(eps_retain[-1], e_phi_retain[-1])
        return losses

    def _teacher(
        self, net: Net, sets: Sets, x: NoisyBatch, retain: list[NoisyBatch]
    ) -> tuple[list[Tensor], Tensor, list[Tensor]]:
        """One pass of φ: each A_i^φ, the target noise of the concept's rows, and the noise of the retain rows."""
        steered, inputs = self.target == "steered", [x.input.with_cond(sets.target[x.which])]
        inputs += [x.input] if steered else []
        taught = retain if self.retain_target == "teacher" else retain[-1:] if self.distil_weight else []
        rows, inputs = self.batch * len(inputs), [*inputs, *(one.input for one in taught)]
        (e, *others), maps = net.teacher_attention(sets.recorder, inputs, rows=rows)
        maps = sets.alignment.of_targets(maps, x.which)
        if steered:  # away from the concept by η
            e, others = e - self.eta * (others[0] - e), others[1:]
            away = attention.steer_maps if self.attends == "maps" else attention.steer
            maps = [away(one, self.eta) for one in maps]
        return maps, e, others

    def _base_loss(self, run: Run, sets: Sets) -> float:
        """L_U of the base model itself on the images of the first step."""
        x, retain = sets.batches(self.batch, Step(0, run.seed))
        with run.model.frozen():
            a_phi, *_ = self._teacher(run.net, sets, x, retain)
            _, maps = run.net.teacher_attention(sets.recorder, [x.input], rows=self.batch)
        if (loss := sets.alignment.distance(maps, a_phi, x.which).item()) == 0:
            raise InputError("the concept's attention already equals the target: nothing to erase is left")
        return loss

    def _retain(self, run: Run) -> dict[str, ImageSet]:
        model, request, n = run.model, run.request, self.retain_pictures
        related = retain_concepts(model, request, self.neighbours) if self.retain_weight else ()
        pairs = [pair for one in related for pair in templates_for(model, request, one, n, self.grammar)]
        prompts = {"prior": [format_prompt(*pair) for pair in pairs]}
        if self.memory and (self.retain_weight or self.distil_weight):
            prompts["memory"] = list(memory_prompts(model, request, related, self.memory))
        return {name: run.images(one, title=name) for name, one in prompts.items() if one}
