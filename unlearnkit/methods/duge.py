"""DUGE: Continual Unlearning for Foundational Text-to-Image Models without Generalization Erosion (arXiv 2503.13769).

The trained θ attends to the concept as the frozen φ attends to nothing; with the i-th of M cross-attention maps

    A_i^θ  for θ on the concept's prompt,    A_i^φ  for φ on the empty prompt, at the same noised picture of the concept

    L_U   = 1/M Σ_i mean (A_i^θ - A_i^φ)²                   breaks the tie between words and picture
    L_pr  = E ||ε - ε_θ(x_t, c_pr, t)||²                    on related concepts' pictures and a memory bank's
    L_reg = mean (θ - φ)²                                   rule = l2sp, or distillation on the memory bank, or both
    L     = λ_U L_U + λ_pr L_pr + λ_reg L_reg

The paper's text could be read only at second hand: the first two losses are its own, the third is a reading of its one
line, and every number is ours (PAPERS.md). ``target``, ``attends``, ``instead`` and ``distil`` are the other readings.
Attention alone may leave the concept in the values of the words: ``output`` also moves the predicted noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..errors import InputError
from ..method import Trained
from ..model import Model
from ..parts import Losses
from ..schema import Concept
from ..settings import setting
from ..training.anchors import anchor, turns
from ..training.attention import Watch, distance, folds, steered, watched
from ..training.image_sets import ImageSet, NoisyBatch
from ..training.job import Run
from ..training.memory import bank
from ..training.net import Net, Step, mse
from ..training.prompts import retain_concepts
from ..training.settings import KeepTarget, Rules, Trains, default, phrased
from ..wording import fill, until

__all__ = ["DUGE"]


@dataclass(frozen=True)
class Sets:
    """What DUGE trains on.

    target: the conditioning (images, tokens, width) that each image's prompt is to be attended like. aligned: matrices
    (images, tokens, tokens) that bring the maps of both prompts to the same tokens, of the image's prompt first.
    retain: images of related concepts ("prior") and of the memory bank ("memory"). scale: λ_U, divided by the loss of
    the base model where that is asked for.
    """

    erase: ImageSet
    target: Tensor
    aligned: tuple[Tensor, Tensor] | None
    retain: dict[str, ImageSet]
    watch: Watch
    scale: float


@dataclass(frozen=True)
class Targets:
    """A_φ of each layer, the matrix that aligns A_θ with it, ε of the erased rows, of the retained, and to distil."""

    maps: list[Tensor]
    align: Tensor | None
    eps: Tensor
    retain: list[Tensor]
    distil: Tensor | None


@dataclass(frozen=True)
class DUGE(Trained[Sets]):
    name: ClassVar = "duge"
    title: ClassVar = "DUGE"
    paper: ClassVar = "2025, arXiv 2503.13769"
    summary: ClassVar = (
        "the concept's cross-attention becomes that of no prompt; related concepts and a memory bank are kept"
    )

    trains: Trains = default("trains", "xattn", source="ours: maps hang on queries and keys")
    steps: int = default("steps", 300, source="ours; DUGE's is not known")
    rule: Rules = default("rule", ("l2sp",), source="our reading of DUGE's regularisation")
    target: Literal["null", "steered"] = setting(
        "null",
        "what is to be reached: the empty prompt (or 'instead'), or from there steered away from the concept",
        source="paper, at second hand; steered is another reading",
    )
    null: Literal["empty", "rest"] = setting(
        "empty",
        "what stands for no concept, unless 'instead' does: the empty prompt, or the concept's prompt less its word, "
        "so that what else it says is not steered away from",
        source="paper: empty; rest: ours",
    )
    eta: float = setting(1.0, "how far target = steered goes", low=0.0, source="ours; 1.8 on the canvas")
    attends: Literal["maps", "output"] = setting(
        "maps", "what A is: the softmax, or its product with the values", source="paper, at second hand"
    )
    layers: tuple[str, ...] = setting(
        (),
        "cross-attention layers, or how their names begin (mid_block, up_blocks.1); none: all",
        source="ours",
    )
    erase: float = setting(1.0, "λ_U, weight of the attention loss", low=0.0, source="ours", role="attention")
    erase_scale: Literal["first", "none"] = setting(
        "first", "first: λ_U is divided by the loss at the first step, which is tiny", source="ours"
    )
    output: float = setting(
        0.0,
        "weight of a loss that draws the predicted noise to that of the empty prompt (or of 'instead')",
        low=0.0,
        source="paper: none; ours: 3 on the canvas, 1 where no attention can be read",
        role="output",
    )
    prior: float = setting(
        1.0, "λ_pr, weight of prior preservation", low=0.0, source="ours, as in DreamBooth"
    )
    prior_target: KeepTarget = setting(
        "noise",
        "what it is drawn to: the true noise, or the base model's prediction",
        source="paper, at second hand",
    )
    related: int = setting(
        8,
        "if the request keeps nothing: so many nearest words are the related concepts",
        low=1,
        source="ours",
    )
    related_pictures: int = setting(25, "pictures for each related concept", low=1, source="ours: 200 in all")
    memory: int = setting(
        100,
        "pictures in the memory bank of unrelated prompts, 0 for none",
        low=0,
        source="ours",
        role="memory",
    )
    distil: float = setting(
        0.0, "weight of distilling the base on the memory bank", low=0.0, source="the other reading of L_reg"
    )
    pictures: int = setting(200, "pictures of each concept", low=1, source="ours: 20 prompts with 10 each")
    grammar: str = phrased(source="ours; for the concept and the related ones")

    def data(self, run: Run) -> Sets:
        self._check()
        layers = self.layers if self.erase else None
        watch = run.enter(watched(run.model, layers=layers, of=self.attends))
        prompts = [(*pair, concept) for concept in run.request.erase for pair in self._turns(run, concept)]
        erase = run.images([fill(form, word) for form, word, _ in prompts])
        places = [self._place(run, concept) for *_, concept in prompts]
        target = run.encode(
            [
                "" if place is None else " ".join(fill(form, place).split())
                for (form, *_), place in zip(prompts, places, strict=True)
            ]
        )
        aligned = None
        if self.erase and self.attends == "maps" and any(place is not None for place in places):
            each = [
                _aligned(run.model, *pair[:2], place) for pair, place in zip(prompts, places, strict=True)
            ]
            first, second = (torch.stack(one).to(run.model.device) for one in zip(*each, strict=True))
            aligned = first, second
        sets = Sets(erase, target, aligned, self._retained(run), watch, self.erase)
        return replace(sets, scale=self.erase / self._first(run, sets)) if self._unit else sets

    def loss(self, net: Net, sets: Sets, step: Step) -> Losses:
        x, retain = self._batches(sets, step)
        to = self._targets(net, sets, x, retain)
        inputs = [x.input, *(one.input for one in retain)]
        (eps, *eps_retain), maps = net.student_attention(sets.watch, inputs, rows=self._rows)
        losses = {}
        if self.erase:
            losses["erase"] = sets.scale * _attention(maps, to)  # λ_U L_U
        if self.output:
            losses["erase_output"] = self.output * mse(eps, to.eps)
        if self.prior:
            errors = [mse(found, target) for found, target in zip(eps_retain, to.retain, strict=True)]
            losses["keep"] = self.prior * torch.stack(errors).mean()  # λ_pr L_pr
        if to.distil is not None:
            losses["keep_distil"] = self.distil * mse(eps_retain[-1], to.distil)
        return losses

    @property
    def _rows(self) -> int:
        """Rows of a pass whose attention is read."""
        return self.batch if self.erase else 0

    @property
    def _unit(self) -> bool:
        return bool(self.erase) and self.erase_scale == "first"

    def _batches(self, sets: Sets, step: Step) -> tuple[NoisyBatch, list[NoisyBatch]]:
        x = sets.erase.batch(self.batch, step.stream("duge"))
        return x, [one.batch(self.batch, step.stream("duge", name)) for name, one in sets.retain.items()]

    def _targets(self, net: Net, sets: Sets, x: NoisyBatch, retain: list[NoisyBatch]) -> Targets:
        """What the base model φ says, in one pass."""
        inputs = [x.input.with_cond(sets.target[x.which])]
        if self.target == "steered":
            inputs.append(x.input)
        taught = retain if self.prior_target == "teacher" else retain[-1:] if self.distil else []
        rows = self._rows * len(inputs)
        every = [*inputs, *(one.input for one in taught)]
        eps, maps = net.teacher_attention(sets.watch, every, rows=rows)
        align = None
        if sets.aligned is not None:
            align, other = (one[x.which, None] for one in sets.aligned)
            both = torch.cat([other, align])[:rows]
            maps = [one @ both for one in maps]
        goal, predicted = eps[0], eps[len(inputs) :]
        if self.target == "steered":
            maps = [steered(one, self.eta, maps=self.attends == "maps") for one in maps]
            goal = steered(torch.cat(eps[:2]), self.eta, maps=False)
        targets = predicted if self.prior_target == "teacher" else [one.noise for one in retain]
        return Targets(maps, align, goal, targets, predicted[-1] if self.distil else None)

    @torch.no_grad()
    def _first(self, run: Run, sets: Sets) -> float:
        """The attention loss of the base model itself on the images of the first step."""
        x, retain = self._batches(sets, Step(0, run.seed))
        with run.model.frozen():
            to = self._targets(run.net, sets, x, retain)
            found = _attention(
                run.net.teacher_attention(sets.watch, [x.input], rows=self._rows)[1], to
            ).item()
        if found == 0:
            raise InputError("the concept's attention already equals the target: nothing to erase is left")
        return found

    def _turns(self, run: Run, concept: Concept) -> list[tuple[str, str]]:
        return turns(run.model, run.request, concept, self.pictures, self.grammar)

    def _place(self, run: Run, concept: Concept) -> str | None:
        """What stands in the concept's place in the target's prompt; None for the empty prompt."""
        if concept.instead is not None:
            return anchor(run.model, run.request, concept)
        return "" if self.null == "rest" else None

    def _retained(self, run: Run) -> dict[str, ImageSet]:
        """Images of related concepts and of the memory bank, as far as a loss looks at them."""
        found: dict[str, list[str]] = {}
        related: tuple[Concept, ...] = ()
        if self.prior:
            related = retain_concepts(run.model, run.request, self.related)
            found["prior"] = [
                fill(*pair)
                for one in related
                for pair in turns(run.model, run.request, one, self.related_pictures, self.grammar)
            ]
        if self.memory and (self.prior or self.distil):
            found["memory"] = list(bank(run.model, run.request, related, self.memory))
        return {name: run.images(prompts, title=name) for name, prompts in found.items()}

    def _check(self) -> None:
        if not self.erase and not self.output:
            raise InputError("erase=0 and output=0 leave nothing that erases: choose one of them above 0")
        if self.distil and not self.memory:
            raise InputError(
                "distil looks at the memory bank, and memory=0 leaves it empty: choose memory above 0"
            )


def _attention(maps: Sequence[Tensor], to: Targets) -> Tensor:
    """L_U = 1/M Σ_i mean (A_i^θ - A_i^φ)²."""
    return distance(maps if to.align is None else [one @ to.align for one in maps], to.maps)


def _aligned(model: Model, form: str, word: str, place: str | None) -> tuple[Tensor, Tensor]:
    """The alignments of the maps of both prompts; nothing is moved where the target is the empty prompt."""
    tokens = model.text([""]).shape[1]
    if place is None:
        return torch.eye(tokens), torch.eye(tokens)
    start, end, other = (model.last_token(until(form, rest)) for rest in ("", word, place))
    return folds(tokens, start, end, other), folds(tokens, start, other, end)
