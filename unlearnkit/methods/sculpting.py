"""Sculpting Memory: multi-concept forgetting with dynamic masks (Li et al. 2025, arXiv 2504.09039).

For each concept c_k in turn, with s_k its superclass, θ' the network before c_k was erased, x^f an image of c_k and
x^s one of s_k without c_k:

    erase     |ε_θ(x_t^f, c_k) - ε_θ'(x_t^f, s_k)|²         the concept becomes its superclass
    align     λ_a |ε_θ(x_t^s, s_k) - noise|²                the superclass stays what it is
    distil    λ_d |ε_θ(x_t^s, s_k) - ε_θ'(x_t^s, s_k)|²     and is predicted as before
    replay    λ_r |ε_θ(x_t^j, c_j) - ε_θ'(x_t^j, c_j)|²     concepts c_j erased earlier stay erased

Where the superclass shows the concept too, ``eta`` steers the first target: ε_θ'(s) + η (ε_θ'(s) - ε_θ'(c)).
Cross-attention is trained under a mask (``parts/mask.py``), whose warm-up uses the denoising loss on x^f. Erase, align,
distil and the mask follow the released code; replay is our reading of the abstract.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..data.image_sets import ImageSet
from ..data.prompts import prompts_for, swap_word
from ..data.superclasses import superclass_of, words_within
from ..parts import Losses
from ..parts.divergence import Divergence, divergence
from ..schema import Concept, Request, folded
from ..settings import setting
from ..training.job import Run
from ..training.method import Trained
from ..training.net import Net, Step, mse
from ..training.settings import Masks, Schedules, Trains, default

__all__ = ["SculptingMemory"]


@dataclass(frozen=True)
class Sets:
    """x^f, x^s and x^j. target: by concept, the conditioning (prompts, tokens, width) with s_k in its place.

    past: images of concepts that earlier edits erased; replay has all of x^j.
    """

    erase: ImageSet
    target: list[Tensor]
    anchor: ImageSet
    past: list[ImageSet]
    replay: ImageSet | None = None


@dataclass(frozen=True)
class SculptingMemory(Trained[Sets]):
    name: ClassVar = "sculpting"
    title: ClassVar = "Sculpting Memory"
    paper: ClassVar = "Li et al. 2025, arXiv 2504.09039"
    summary: ClassVar = "Each concept becomes its superclass, under a mask that changes during training."
    TARGET_PROMPT: ClassVar = "superclass"
    RETAINS: ClassVar = False

    trains: Trains = default("trains", "xattn", source="released code")
    mask: Masks = default("mask", "dynamic", source="paper")
    mask_warmup: int = default("mask_warmup", 50, source="released code")
    steps: int = default("steps", 450, source="released code, for each concept")
    lr: float = default("lr", 3e-6, source="released code")
    schedule: Schedules = default("schedule", "onecycle", source="released code")
    batch: int = default("batch", 2, source="released code")
    order: Literal["sequence", "joint"] = setting(
        "sequence", "one concept after the other, or all together", source="released code; canvas: joint"
    )
    superclass: str | None = setting(
        None, "replaces every concept without an 'instead'; none: from a table", source="ours"
    )
    teacher: Literal["frozen", "student"] = default("teacher", "frozen", source="ours; code: student")
    eta: float = default("eta", 0.0, source="ours, if the superclass shows the concept; released code: 0")
    divergence: Divergence = default("divergence", "mse", source="paper; others: f-DMU")
    divergence_scale: float = default("divergence_scale", 1.0, source="ours; f-DMU: of the step's covariance")
    retain_weight: float = default("retain_weight", 0.25, source="released code: λ_a, on the superclass")
    retain_set: Literal["superclass", "members", "all"] = setting(
        "superclass",
        "images of the retain and distillation losses: of the superclass, also of its other words (for a style: of "
        "all other styles), or of all words of the concept's kind",
        source="released code: superclass; others: ours",
    )
    distil_weight: float = default("distil_weight", 0.25, source="released code, where it has no effect: λ_d")
    replay_weight: float = setting(0.25, "λ_r, weight of replay", low=0.0, source="ours, after the abstract")
    earlier: tuple[str, ...] = setting((), "concepts erased by earlier edits", source="ours", role="earlier")
    prompt_dropout: float = default("prompt_dropout", 0.0, source="ours; paper: none")
    pictures: int = default("pictures", 100, source="released code: as many of the superclass")

    def stages(self, request: Request) -> Sequence[tuple[SculptingMemory, Request]]:
        if self.order == "joint" or len(request.erase) == 1:
            return [(replace(self, steps=self.steps * len(request.erase)), request)]
        return [(self, Request((concept,), request.keep)) for concept in request.erase]

    def data(self, run: Run) -> Sets:
        model, full = run.model, run.full_request
        erase, anchor, target = list[ImageSet](), list[ImageSet](), list[Tensor]()
        for concept in run.request.erase:
            own = prompts_for(model, full, concept, self.pictures)
            erase.append(run.images(own, title="pictures to erase"))
            prompts, negative = self._anchors(run, concept)
            wide = run.images(prompts, title="pictures of the superclass", negative=negative)
            anchor.append(wide.with_prompt_dropout(self.prompt_dropout))
            swapped = swap_word(model, full, concept, [superclass_of(concept, self.superclass)])
            target.append(run.encode([prompt for (prompt,) in swapped]))
        names = self.earlier if run.request.erase[0] == full.erase[0] else ()
        groups = [prompts_for(model, full, Concept(name), self.pictures) for name in names]
        past = [run.images(prompts, title="pictures to replay") for prompts in groups]
        return Sets(ImageSet.joined(erase), target, ImageSet.joined(anchor), past)

    def with_earlier(self, sets: Sets, earlier: Sequence[Sets]) -> Sets:
        past = [*(earlier[0].past if earlier else sets.past), *(one.erase for one in earlier)]
        return replace(sets, replay=ImageSet.joined(past) if past and self.replay_weight else None)

    def loss(self, net: Net, sets: Sets, step: Step) -> Losses:
        draws, align, distil = step.stream("sculpting"), self.retain_weight, self.distil_weight
        x_f = sets.erase.batch(self.batch, draws)
        x_s = sets.anchor.batch(self.batch, draws) if align or distil else None
        x_j = sets.replay.batch(self.batch, draws) if sets.replay else None
        targets = [x_f.input.with_cond(self._superclass(sets, x_f.which)), *([x_f.input] if self.eta else [])]
        fixed = [one.input for one in (x_s if distil else None, x_j) if one is not None]
        if self.teacher == "student":
            e_s, *rest = net.student_sg(targets) + net.teacher(fixed)
        else:
            e_s, *rest = net.teacher([*targets, *fixed])
        if self.eta:
            e_s, rest = e_s + self.eta * (e_s - rest[0]), rest[1:]
        eps, *others = net.student([x.input for x in (x_f, x_s, x_j) if x is not None])
        losses = {"erase": divergence(eps, e_s, self.divergence, self.divergence_scale)}
        if x_s is not None and align:
            losses["align"] = align * mse(others[0], x_s.noise)
        if x_s is not None and distil:
            losses["distil"] = distil * mse(others[0], rest[0])
        if x_j is not None:
            losses["replay"] = self.replay_weight * mse(others[-1], rest[-1])
        return losses

    def saliency(self, net: Net, sets: Sets, step: Step) -> Losses:
        x = sets.erase.batch(self.batch, step.stream("sculpting warm-up"))
        (eps,) = net.student([x.input])
        return {"erase": mse(eps, x.noise)}

    def _superclass(self, sets: Sets, which: Tensor) -> Tensor:
        """The conditioning of these images' prompts with s_k in the concept's place."""
        places = [divmod(image, self.pictures) for image in which.tolist()]
        return torch.stack([sets.target[k][at % len(sets.target[k])] for k, at in places])

    def _anchors(self, run: Run, concept: Concept) -> tuple[tuple[str, ...], str]:
        """Prompts for x^s, and their negative prompt: the erased words of s_k. Raises InputError for no words."""
        model, full, wide = run.model, run.full_request, superclass_of(concept, self.superclass)
        if self.retain_set == "superclass":
            same = [one for one in full.erase if superclass_of(one, self.superclass) == wide]
            erased = ", ".join(word for one in same for word in one.wordings)
            return prompts_for(model, full, Concept(wide, concept.kind), self.pictures), erased
        earlier = tuple(Concept(word) for word in self.earlier if folded(word) not in full.erased)
        gone, all_of_kind = Request(earlier + full.erase), self.retain_set == "all"
        words = [wide, *words_within(model, gone, concept, all_of_kind=all_of_kind)]
        each = [prompts_for(model, full, Concept(word, concept.kind), self.pictures) for word in words]
        return tuple(itertools.chain.from_iterable(zip(*each, strict=True)))[: self.pictures], ""
