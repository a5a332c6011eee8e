"""DUGE: Continual Unlearning for Foundational Text-to-Image Models without Generalization Erosion (arXiv 2503.13769).

The trained θ attends to the concept as the frozen φ attends to nothing; with the i-th of M cross-attention maps

    A_i^θ  for θ on the concept's prompt,    A_i^φ  for φ on the empty prompt, at the same noised picture of the concept

    L_U   = 1/M Σ_i mean (A_i^θ - A_i^φ)²                   breaks the tie between words and picture
    L_pr  = E ||ε - ε_θ(x_t, c_pr, t)||²                    on related concepts' pictures and a memory bank's
    L_reg = mean (θ - φ)²                                   rule = l2sp, or distillation on the memory bank, or both
    L     = λ_U L_U + λ_pr L_pr + λ_reg L_reg

The paper's text could be read only at second hand: the first two losses are its own, the third is a reading of its one
line, and every number is ours (PAPERS.md). ``target``, ``instead`` and ``distil_weight`` are the other readings.
Attention alone may leave the concept in the values of the words: ``output_weight`` also moves the predicted noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..data.bank import memory_prompts
from ..data.image_sets import ImageSet, NoisyBatch
from ..data.prompts import retain_concepts
from ..data.wording import format_prompt, prefix_through
from ..errors import InputError
from ..models.model import Model
from ..parts import Losses
from ..settings import setting
from ..training.anchors import anchor, turns
from ..training.attention import Watch, distance, folds, steered, watched
from ..training.job import Run
from ..training.method import Trained
from ..training.net import Net, Step, mse
from ..training.settings import RetainTarget, Rules, Trains, default

__all__ = ["DUGE"]


@dataclass(frozen=True)
class Sets:
    """target: the conditioning (images, tokens, width) that each image's prompt is to be attended like.

    aligned: matrices (images, tokens, tokens) that bring the maps of both prompts to the same tokens, of the image's
    prompt first. retain: images of related concepts ("prior") and of the memory bank ("memory"). scale: λ_U, divided
    by the base model's loss with ``relative_erase``.
    """

    erase: ImageSet
    target: Tensor
    aligned: tuple[Tensor, Tensor] | None
    retain: dict[str, ImageSet]
    watch: Watch
    scale: float

    def batches(self, count: int, step: Step) -> tuple[NoisyBatch, list[NoisyBatch]]:
        x = self.erase.batch(count, step.stream("duge"))
        return x, [one.batch(count, step.stream("duge", name)) for name, one in self.retain.items()]

    def distance(self, maps: list[Tensor], target: list[Tensor], x: NoisyBatch) -> Tensor:
        """L_U = 1/M Σ_i mean (A_i^θ - A_i^φ)²."""
        if self.aligned is not None:
            align = self.aligned[0][x.which, None]
            maps = [one @ align for one in maps]
        return distance(maps, target)


@dataclass(frozen=True)
class DUGE(Trained[Sets]):
    name: ClassVar = "duge"
    title: ClassVar = "DUGE"
    paper: ClassVar = "2025, arXiv 2503.13769"
    summary: ClassVar = (
        "makes the concept's cross-attention that of no prompt; keeps related words and a bank"
    )

    trains: Trains = default("trains", "xattn", source="ours: maps hang on queries and keys")
    steps: int = default("steps", 300, source="ours; DUGE's is not known")
    rule: Rules = default("rule", ("l2sp",), source="our reading of DUGE's regularisation")
    target: Literal["null", "steered"] = setting(
        "null",
        "what the concept becomes: the empty prompt (or 'instead'), or from there steered away by eta",
        source="paper, at second hand; steered is another reading",
    )
    null: Literal["empty", "rest"] = default("null", "empty", source="paper: empty; rest: ours")
    eta: float = default("eta", 1.0, source="ours, with target = steered; 1.8 on the canvas")
    attention_weight: float = setting(
        1.0, "λ_U, weight of the attention loss", low=0.0, source="ours", role="attention"
    )
    relative_erase: bool = default("relative_erase", True, source="ours: the attention loss is tiny")
    output_weight: float = setting(
        0.0,
        "weight of a loss that draws the predicted noise to that of the empty prompt (or of 'instead')",
        low=0.0,
        source="paper: none; ours: 3 on the canvas, 1 where no attention can be read",
        role="output",
    )
    retain_weight: float = default("retain_weight", 1.0, source="ours, as in DreamBooth: λ_pr")
    retain_target: RetainTarget = default("retain_target", "noise", source="paper, at second hand")
    neighbours: int = default("neighbours", 8, source="ours: these are the related concepts")
    retain_pictures: int = default("retain_pictures", 25, source="ours: 200 in all")
    memory: int = setting(
        100,
        "pictures in the memory bank of unrelated prompts, 0 for none",
        low=0,
        source="ours",
        role="memory",
    )
    distil_weight: float = default(
        "distil_weight", 0.0, source="the other reading of L_reg; on the memory bank"
    )
    pictures: int = default("pictures", 200, source="ours: 20 prompts with 10 each")
    grammar: str = default("grammar", "", source="ours; for the concept and the related ones")

    def data(self, run: Run) -> Sets:
        if not self.attention_weight and not self.output_weight:
            raise InputError(
                "attention_weight=0 and output_weight=0 leave nothing that erases: choose one of them above 0"
            )
        if self.distil_weight and not self.memory:
            raise InputError(
                "distil_weight is for the memory bank, and memory=0 leaves it empty: choose memory above 0"
            )
        model, request = run.model, run.request
        watch = run.enter(watched(model, read=self._rows > 0))
        prompts: list[tuple[str, str, str | None]] = []  # form, word, and what stands there in the target
        for concept in request.erase:
            place = "" if self.null == "rest" else None
            if concept.instead is not None:
                place = anchor(model, request, concept)
            found = turns(model, request, concept, self.pictures, self.grammar)
            prompts += [(*pair, place) for pair in found]
        erase = run.images([format_prompt(form, word) for form, word, _ in prompts])
        texts = [
            "" if place is None else " ".join(format_prompt(form, place).split())
            for form, _, place in prompts
        ]
        aligned = None
        if self.attention_weight and any(place is not None for *_, place in prompts):
            each = [_aligned(model, *one) for one in prompts]
            first, second = (torch.stack(one).to(model.device) for one in zip(*each, strict=True))
            aligned = first, second
        sets = Sets(erase, run.encode(texts), aligned, self._retained(run), watch, self.attention_weight)
        if self.attention_weight and self.relative_erase:
            return replace(sets, scale=self.attention_weight / self._first(run, sets))
        return sets

    def loss(self, net: Net, sets: Sets, step: Step) -> Losses:
        x, retain = sets.batches(self.batch, step)
        a_phi, target, base = self._teacher(net, sets, x, retain)
        inputs = [x.input, *(one.input for one in retain)]
        (eps, *eps_retain), a_theta = net.student_attention(sets.watch, inputs, rows=self._rows)
        losses = {}
        if self.attention_weight:
            losses["erase"] = sets.scale * sets.distance(a_theta, a_phi, x)  # λ_U L_U
        if self.output_weight:
            losses["erase_output"] = self.output_weight * mse(eps, target)
        if self.retain_weight:
            targets = base if self.retain_target == "teacher" else [one.noise for one in retain]
            errors = [mse(one, true) for one, true in zip(eps_retain, targets, strict=True)]
            losses["keep"] = self.retain_weight * torch.stack(errors).mean()  # λ_pr L_pr
        if self.distil_weight:
            losses["keep_distil"] = self.distil_weight * mse(eps_retain[-1], base[-1])
        return losses

    @property
    def _rows(self) -> int:
        """Rows of a pass whose attention is read."""
        return self.batch if self.attention_weight else 0

    def _teacher(
        self, net: Net, sets: Sets, x: NoisyBatch, retain: list[NoisyBatch]
    ) -> tuple[list[Tensor], Tensor, list[Tensor]]:
        """The base model φ in one pass: A_φ of each layer, ε for the concept's rows, and ε for the retain rows."""
        inputs = [x.input.with_cond(sets.target[x.which])]
        if self.target == "steered":
            inputs.append(x.input)
        taught = retain if self.retain_target == "teacher" else retain[-1:] if self.distil_weight else []
        rows = self._rows * len(inputs)
        eps, maps = net.teacher_attention(sets.watch, [*inputs, *(one.input for one in taught)], rows=rows)
        if sets.aligned is not None:
            align = torch.cat([one[x.which, None] for one in reversed(sets.aligned)])[:rows]
            maps = [one @ align for one in maps]
        if self.target == "null":
            return maps, eps[0], eps[1:]
        maps = [steered(one, self.eta, maps=True) for one in maps]
        return maps, steered(torch.cat(eps[:2]), self.eta, maps=False), eps[2:]

    @torch.no_grad()
    def _first(self, run: Run, sets: Sets) -> float:
        """The attention loss of the base model itself on the images of the first step."""
        x, retain = sets.batches(self.batch, Step(0, run.seed))
        with run.model.frozen():
            a_phi, *_ = self._teacher(run.net, sets, x, retain)
            maps = run.net.teacher_attention(sets.watch, [x.input], rows=self._rows)[1]
        if (first := sets.distance(maps, a_phi, x).item()) == 0:
            raise InputError("the concept's attention already equals the target: nothing to erase is left")
        return first

    def _retained(self, run: Run) -> dict[str, ImageSet]:
        """Images of related concepts and of the memory bank, as far as a loss looks at them."""
        model, request, prompts = run.model, run.request, dict[str, list[str]]()
        related = retain_concepts(model, request, self.neighbours) if self.retain_weight else ()
        if self.retain_weight:
            pairs = [turns(model, request, one, self.retain_pictures, self.grammar) for one in related]
            prompts["prior"] = [format_prompt(*pair) for several in pairs for pair in several]
        if self.memory and (self.retain_weight or self.distil_weight):
            prompts["memory"] = list(memory_prompts(model, request, related, self.memory))
        return {name: run.images(one, title=name) for name, one in prompts.items()}


def _aligned(model: Model, form: str, word: str, place: str | None) -> tuple[Tensor, Tensor]:
    """The alignments of the maps of both prompts; nothing is moved where the target is the empty prompt."""
    tokens = model.text([""]).shape[1]
    if place is None:
        return torch.eye(tokens), torch.eye(tokens)
    start, end, other = (model.last_token(prefix_through(form, rest)) for rest in ("", word, place))
    return folds(tokens, start, end, other), folds(tokens, start, other, end)
