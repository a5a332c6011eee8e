"""Sculpting Memory: multi-concept forgetting with dynamic masks (Li et al. 2025, arXiv 2504.09039).

For each concept c_k in turn, with s_k its superclass, θ' the network as it was before c_k, x^f a picture of c_k and
x^s one of s_k without c_k:

    erase     |ε_θ(x_t^f, c_k) - ε_θ'(x_t^f, s_k)|²         take it for its superclass
    align     λ_a |ε_θ(x_t^s, s_k) - noise|²                the superclass stays what it is
    distil    λ_d |ε_θ(x_t^s, s_k) - ε_θ'(x_t^s, s_k)|²     and is drawn as before
    replay    λ_r |ε_θ(x_t^j, c_j) - ε_θ'(x_t^j, c_j)|²     concepts c_j that were erased earlier stay so

Where the superclass draws the concept too, ``eta`` steers the first target on: ε_θ'(s) - η (ε_θ'(c) - ε_θ'(s)).

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

from ..data.image_sets import ImageSet
from ..data.prompts import prompts_for, swap_word, unerased
from ..data.superclasses import broader
from ..errors import InputError
from ..parts import Losses
from ..schema import Concept, Request, folded
from ..settings import setting
from ..training.job import Run
from ..training.method import Trained
from ..training.net import Net, Step, mse
from ..training.settings import Masks, Schedules, Trains, default

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
    teacher: Literal["frozen", "student"] = default(
        "teacher", "frozen", source="ours; released code: student"
    )
    eta: float = default(
        "eta", 0.0, source="ours, for a superclass that draws the concept too; released code: 0"
    )
    retain_weight: float = default("retain_weight", 0.25, source="released code: λ_a, on the superclass")
    retain_set: Literal["superclass", "members", "all"] = setting(
        "superclass",
        "pictures of the retain and distillation losses: the superclass's, also those of the words that belong to it "
        "(for a style: all other styles), or of all words of the concept's kind",
        source="released code: superclass; others: ours",
    )
    distil_weight: float = default("distil_weight", 0.25, source="released code, where it has no effect: λ_d")
    replay_weight: float = setting(
        0.25,
        "λ_r, weight of distillation on concepts erased earlier",
        low=0.0,
        source="ours, after the abstract",
    )
    earlier: tuple[str, ...] = setting(
        (), "concepts erased from this model by earlier edits, to replay", source="ours", role="earlier"
    )
    prompt_dropout: float = default("prompt_dropout", 0.0, source="ours; paper: none")
    pictures: int = default("pictures", 100, source="released code: as many of the superclass")

    def stages(self, request: Request) -> Sequence[tuple[SculptingMemory, Request]]:
        count = len(request.erase)
        if self.order == "joint" or count == 1:
            return [(replace(self, steps=self.steps * count), request)]
        return [(self, Request((concept,), request.keep)) for concept in request.erase]

    def data(self, run: Run) -> Sets:
        erase, anchor, target = [], [], []
        for concept in run.request.erase:
            found = prompts_for(run.model, concept, self.pictures)
            erase.append(run.images(found, title="pictures to erase"))
            found, negative = self._anchors(run, concept)
            wide = run.images(found, title="pictures of the superclass", negative=negative)
            anchor.append(wide.with_prompt_dropout(self.prompt_dropout))
            swapped = swap_word(run.model, concept, [self.superclass_of(concept)])
            target.append(run.encode([prompt for (prompt,) in swapped]))
        names = self.earlier if run.request.erase[0] == run.whole.erase[0] else ()
        groups = [prompts_for(run.model, Concept(name), self.pictures) for name in names]
        past = [run.images(prompts, title="pictures to replay") for prompts in groups]
        return Sets(ImageSet.joined(erase), target, ImageSet.joined(anchor), past)

    def with_earlier(self, sets: Sets, earlier: Sequence[Sets]) -> Sets:
        past = [*(earlier[0].past if earlier else sets.past), *(one.erase for one in earlier)]
        return replace(sets, replay=ImageSet.joined(past) if past and self.replay_weight else None)

    def loss(self, net: Net, sets: Sets, step: Step) -> Losses:
        draws = step.stream("sculpting")
        x_f = sets.erase.batch(self.batch, draws)
        x_s = sets.anchor.batch(self.batch, draws) if self.retain_weight or self.distil_weight else None
        x_j = sets.replay.batch(self.batch, draws) if sets.replay else None
        wide = x_f.input.with_cond(self._superclass(sets, x_f.which))
        targets = [wide, x_f.input] if self.eta else [wide]
        fixed = [x_s.input] if x_s is not None and self.distil_weight else []
        fixed += [x_j.input] if x_j is not None else []
        if self.teacher == "student":
            e_s, *rest = net.student_sg(targets) + net.teacher(fixed)
        else:
            e_s, *rest = net.teacher([*targets, *fixed])
        if self.eta:
            e_s, rest = e_s + self.eta * (e_s - rest[0]), rest[1:]
        eps, *others = net.student([x.input for x in (x_f, x_s, x_j) if x is not None])
        losses = {"erase": mse(eps, e_s)}
        if x_s is not None and self.retain_weight:
            losses["align"] = self.retain_weight * mse(others[0], x_s.noise)
        if x_s is not None and self.distil_weight:
            losses["distil"] = self.distil_weight * mse(others[0], rest[0])
        if x_j is not None:
            losses["replay"] = self.replay_weight * mse(others[-1], rest[-1])
        return losses

    def saliency(self, net: Net, sets: Sets, step: Step) -> Losses:
        x = sets.erase.batch(self.batch, step.stream("sculpting warm-up"))
        (eps,) = net.student([x.input])
        return {"erase": mse(eps, x.noise)}

    def superclass_of(self, concept: Concept) -> str:
        """s_k, what takes the concept's place. Raises InputError where it is not known."""
        given = concept.instead or self.superclass or ("art" if concept.kind == "style" else None)
        if (found := given or broader(concept.name)) is None:
            raise InputError(
                f"no superclass of {concept.name!r} is known: say what takes its place with --instead, for example a "
                "broader word, or with superclass=..."
            )
        if folded(found) in concept.folded:
            raise InputError(f"the superclass {found!r} is the concept itself: give another with --instead")
        return found

    def _superclass(self, sets: Sets, which: Tensor) -> Tensor:
        """The conditioning of these images' prompts with s_k in the concept's place."""
        places = [divmod(image, self.pictures) for image in which.tolist()]
        return torch.stack([sets.target[k][at % len(sets.target[k])] for k, at in places])

    def _anchors(self, run: Run, concept: Concept) -> tuple[tuple[str, ...], str]:
        """Prompts of the retain set, none of a word that is erased, and as negative prompt all that is erased of s_k.

        Raises InputError where no word is left.
        """
        model, request, wide = run.model, run.whole, self.superclass_of(concept)
        if self.retain_set == "superclass":
            same = [one for one in request.erase if self.superclass_of(one) == wide]
            erased = ", ".join(word for one in same for word in one.wordings)
            return prompts_for(model, Concept(wide, concept.kind), self.pictures), erased
        before = tuple(Concept(word) for word in self.earlier if folded(word) not in request.erased)
        words = unerased(model, Request(before + request.erase))[concept.kind]
        if concept.kind != "style" and self.retain_set == "members":
            shared = broader(concept.name)
            words = [word for word in words if shared and broader(word) == shared]
        if not words:
            raise InputError(
                f"no other word of the model's vocabulary is known to share a superclass with {concept.name!r}: "
                "leave retain_set=superclass as it is"
            )
        each = [prompts_for(model, Concept(word, concept.kind), self.pictures) for word in (wide, *words)]
        return tuple(itertools.chain.from_iterable(zip(*each, strict=True)))[: self.pictures], ""
