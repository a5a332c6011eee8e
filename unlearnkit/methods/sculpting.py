"""Sculpting Memory: multi-concept forgetting with dynamic masks (Li et al. 2025, arXiv 2504.09039).

For each concept c_k in turn, with s_k its superclass, θ' the network as it was before c_k, x^f a picture of c_k and
x^s one of s_k without c_k:

    erase     |ε_θ(x_t^f, c_k) - ε_θ'(x_t^f, s_k)|²         take it for its superclass
    align     λ_a |ε_θ(x_t^s, s_k) - noise|²                the superclass stays what it is
    distil    λ_d |ε_θ(x_t^s, s_k) - ε_θ'(x_t^s, s_k)|²     and is drawn as before
    replay    λ_r |ε_θ(x_t^j, c_j) - ε_θ'(x_t^j, c_j)|²     concepts c_j that were erased earlier stay so

Where the superclass draws the concept too, ``away`` steers the first target on: ε_θ'(s) - η (ε_θ'(c) - ε_θ'(s)).

Cross-attention is trained under a mask that is gathered, chosen and changed as ``parts/mask.py`` says; its warm-up
looks at the denoising loss on x^f. Erase, align, distil and the mask are read in the released code; replay is our
reading of the abstract.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..errors import InputError
from ..method import Trained
from ..parts import Losses
from ..schema import Concept, Request, folded
from ..settings import setting
from ..training.image_sets import ImageSet
from ..training.job import Run
from ..training.net import DenoiserInput, Net, Step, mse
from ..training.prompts import prompts_for, swap_word, unerased
from ..training.settings import Masks, Schedules, Trains, default, unprompted
from ..training.superclasses import broader

__all__ = ["SculptingMemory"]


@dataclass(frozen=True)
class Sets:
    """x^f, x^s and x^j. target: for each concept its prompts with s_k in its place (prompts, tokens, width).

    past: images of concepts that were erased earlier; replay has all of them.
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
    summary: ClassVar = "turns concept after concept into its superclass, under masks that change on the way"

    trains: Trains = default("trains", "xattn", source="released code")
    mask: Masks = default("mask", "dynamic", source="paper")
    mask_warmup: int = default("mask_warmup", 50, source="released code")
    steps: int = default("steps", 450, source="released code, for each concept")
    lr: float = default("lr", 3e-6, source="released code")
    schedule: Schedules = default("schedule", "onecycle", source="released code")
    batch: int = default("batch", 2, source="released code")
    order: Literal["sequence", "joint"] = setting(
        "sequence",
        "one concept after the other, or all at once, in as many steps together",
        source="released code: sequence; joint on the canvas",
    )
    superclass: str | None = setting(
        None,
        "what takes the place of every concept without an 'instead'; none looks it up in a table",
        source="ours",
    )
    target: Literal["teacher", "student"] = setting(
        "teacher", "whose prediction for the superclass is followed", source="ours; released code: student"
    )
    away: float = setting(
        0.0,
        "η, how far the target is steered away from the concept, for a superclass that draws the concept too",
        low=0.0,
        source="ours; released code: 0",
    )
    align: float = setting(
        0.25, "λ_a, weight of the denoising loss on the superclass", low=0.0, source="released code"
    )
    aligned: Literal["superclass", "members", "all"] = setting(
        "superclass",
        "whose pictures align and distil look at: the superclass's, or besides those of the other words of the "
        "vocabulary that belong to it (to a style's: every other style), or of all words of the concept's kind",
        source="released code: superclass; others: ours",
    )
    distil: float = setting(
        0.25,
        "λ_d, weight of distillation on the superclass",
        low=0.0,
        source="released code, where it has no effect",
    )
    replay: float = setting(
        0.25,
        "λ_r, weight of distillation on concepts erased earlier",
        low=0.0,
        source="ours, after the abstract",
    )
    earlier: tuple[str, ...] = setting(
        (), "concepts erased from this model by earlier edits, to replay", source="ours", role="earlier"
    )
    untold: float = unprompted()
    pictures: int = setting(100, "pictures a concept, and of its superclass", low=1, source="released code")

    def stages(self, request: Request) -> Sequence[tuple[SculptingMemory, Request]]:
        count = len(request.erase)
        if self.order == "joint" or count == 1:
            return [(replace(self, steps=self.steps * count), request)]
        return [(self, Request((concept,), request.keep)) for concept in request.erase]

    def data(self, run: Run) -> Sets:
        erase, anchor, target = [], [], []
        for concept in run.request.erase:
            prompts, without = self._anchors(run, concept)
            erase.append(
                run.images(prompts_for(run.model, concept, self.pictures), title="pictures to erase")
            )
            wide = run.images(prompts, title="pictures of the superclass", negative=without)
            anchor.append(wide.with_prompt_dropout(self.untold))
            swapped = swap_word(run.model, concept, [self.superclass_of(concept)])
            target.append(run.encode([prompt for (prompt,) in swapped]))
        past = [
            run.images(prompts_for(run.model, Concept(name), self.pictures), title="pictures to replay")
            for name in (self.earlier if run.request.erase[0] == run.whole.erase[0] else ())
        ]
        return Sets(ImageSet.joined(erase), target, ImageSet.joined(anchor), past)

    def with_earlier(self, sets: Sets, earlier: Sequence[Sets]) -> Sets:
        past = [*(earlier[0].past if earlier else sets.past), *(one.erase for one in earlier)]
        return replace(sets, replay=ImageSet.joined(past) if past and self.replay else None)

    def loss(self, net: Net, sets: Sets, step: Step) -> Losses:
        draws = step.stream("sculpting")
        x_f = sets.erase.batch(self.batch, draws)
        x_s = sets.anchor.batch(self.batch, draws) if self.align or self.distil else None
        x_j = sets.replay.batch(self.batch, draws) if sets.replay else None
        targets = self._targets(net, sets, x_f.input, x_f.which)
        fixed = [x.input for x, wanted in ((x_s, self.distil), (x_j, 1)) if x is not None and wanted]
        if self.target == "student":
            found = net.student_sg(targets) + net.teacher(fixed)
        else:
            found = net.teacher([*targets, *fixed])
        wide, base = found[0], found[len(targets) :]
        if self.away:
            wide = wide + self.away * (wide - found[1])
        eps, *others = net.student([x.input for x in (x_f, x_s, x_j) if x is not None])
        losses = {"erase": mse(eps, wide)}
        if x_s is not None and self.align:
            losses["align"] = self.align * mse(others[0], x_s.noise)
        if x_s is not None and self.distil:
            losses["distil"] = self.distil * mse(others[0], base[0])
        if x_j is not None:
            losses["replay"] = self.replay * mse(others[-1], base[-1])
        return losses

    def saliency(self, net: Net, sets: Sets, step: Step) -> Losses:
        x = sets.erase.batch(self.batch, step.stream("sculpting warm-up"))
        (eps,) = net.student([x.input])
        return {"erase": mse(eps, x.noise)}

    def superclass_of(self, concept: Concept) -> str:
        """s_k, what takes the concept's place. Raises InputError where it is not known."""
        given = concept.instead or self.superclass or ("art" if concept.kind == "style" else None)
        found = given or broader(concept.name)
        if found is None:
            raise InputError(
                f"no superclass of {concept.name!r} is known: say what takes its place with --instead, for example a "
                "broader word, or with superclass=..."
            )
        if folded(found) in concept.folded:
            raise InputError(f"the superclass {found!r} is the concept itself: give another with --instead")
        return found

    def _targets(self, net: Net, sets: Sets, x: DenoiserInput, which: Tensor) -> list[DenoiserInput]:
        """The rows that the target is predicted on: under s_k, and with ``away`` under c_k too."""
        cond = []
        for image in which.tolist():
            concept, place = divmod(image, self.pictures)
            cond.append(sets.target[concept][place % len(sets.target[concept])])
        wide = x.with_cond(torch.stack(cond))
        return [wide, x] if self.away else [wide]

    def _anchors(self, run: Run, concept: Concept) -> tuple[tuple[str, ...], str]:
        """Prompts of the superclass, and as negative prompt all that is erased of it.

        Its members' are of its own word and of the other words of the vocabulary that share it, in turn; all are those
        of every word of the kind. What the request erases, or erased earlier, is none of them. Raises InputError where
        there is none.
        """
        model, request, wide = run.model, run.whole, self.superclass_of(concept)
        if self.aligned == "superclass":
            erased = [
                word for one in request.erase if self.superclass_of(one) == wide for word in one.wordings
            ]
            return prompts_for(model, Concept(wide, concept.kind), self.pictures), ", ".join(erased)
        before = tuple(Concept(word) for word in self.earlier if folded(word) not in request.erased)
        past = Request(before + request.erase)
        found = unerased(model, past)[concept.kind]
        if concept.kind != "style" and self.aligned == "members":
            shared = broader(concept.name)
            found = [word for word in found if shared and broader(word) == shared]
        if not found:
            raise InputError(
                f"no other word of the model's vocabulary is known to share a superclass with {concept.name!r}: "
                "leave aligned=superclass as it is"
            )
        each = [prompts_for(model, Concept(word, concept.kind), self.pictures) for word in (wide, *found)]
        return tuple(itertools.chain.from_iterable(zip(*each, strict=True)))[: self.pictures], ""
