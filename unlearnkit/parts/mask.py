"""Masks: which entries of the weights may move, chosen by gradients and, if dynamic, chosen again on the way.

In the warm-up the weights rest and gradients are added up, A = Σ g; an entry matters as much as |A| is large. Then a
share of the entries opens. Saliency (SalUn, arXiv 2310.12508): the largest of all weights together, once. SelFT (as
Lee et al. use it, arXiv 2511.07970): the same by |A θ|, about what the loss would change by without the entry. Dynamic
(Sculpting Memory, arXiv 2504.09039, released code): the largest of every matrix by itself, and from time to time

    drop    the n open entries of smallest |A|          A = Σ g since the last choice, of closed entries too
    grow    as many closed entries of largest |A|       n = τ · open entries, τ = swap · (1 + cos π·progress) / 2

so that as many are open as before. Tensors of fewer than two dimensions are then open as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from . import Gradients

__all__ = ["Mask", "swapped", "top"]


def top(scores: Tensor, count: int) -> Tensor:
    """Exactly ``count`` entries of a vector as a boolean vector: the largest, whatever the ties."""
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    chosen[scores.topk(count).indices] = True
    return chosen


def swapped(opened: Tensor, scores: Tensor, count: int) -> Tensor:
    """The vector ``opened`` with its ``count`` smallest scores closed and as many of the largest others opened."""
    count = min(count, int(opened.sum()), int((~opened).sum()))
    drop = top(torch.where(opened, -scores, -math.inf), count)
    grow = top(torch.where(opened, -math.inf, scores), count)
    return opened & ~drop | grow


@dataclass
class Mask:
    """Which entries may move.

    share: of the entries that are open. warmup: steps in which nothing moves and gradients are gathered.
    steps: of the whole run, warm-up included. every: steps between two choices, 0 for one choice only.
    swap: share of the open entries that is swapped at first, falling to 0 as a cosine. until: share of the run in which
        the mask changes. Both as in Sculpting Memory's code.
    per_matrix: the share is of every matrix by itself, or of all weights together.
    scale: by which an entry's gradients are multiplied to see how much it matters, None for 1.
    A closed entry does not move at all; in the released code its gradient is zero and Adam's momentum moves it on.
    """

    share: float
    warmup: int
    steps: int
    every: int = 0
    swap: float = 0.2
    until: float = 0.8
    per_matrix: bool = True
    scale: Mapping[str, Tensor] | None = None
    opened: dict[str, Tensor] = field(default_factory=dict)
    sums: dict[str, Tensor] = field(default_factory=dict)

    def gather(self, step: int, gradients: Gradients) -> None:
        """Add up the gradients of this step, where a later choice will ask for them."""
        if step >= self.warmup and self._next_choice(step) is None:
            return
        for name, gradient in gradients.items():
            if name in self.sums:
                self.sums[name] += gradient
            elif not self.per_matrix or gradient.dim() >= 2:
                self.sums[name] = gradient.clone()

    def gated(self, gradients: Gradients) -> Gradients:
        """The gradients with zeros where an entry is closed."""
        return {
            name: torch.where(self.opened[name], gradient, 0.0) if name in self.opened else gradient
            for name, gradient in gradients.items()
        }

    def choose(self, step: int) -> bool:
        """Open and close entries if it is time, after step ``step``; whether it was."""
        if step + 1 == self.warmup:
            self._open()
        elif step >= self.warmup and self._next_choice(step) == step:
            for name, opened in self.opened.items():
                count = max(1, int(self._swap(step) * int(opened.sum())))
                self.opened[name] = swapped(opened.flatten(), self._scores(name), count).view_as(opened)
        else:
            return False
        self.sums = {}
        return True

    def tensors(self) -> dict[str, Tensor]:
        """What a resumed run needs: open entries and gathered gradients."""
        held = {f"open/{name}": opened for name, opened in self.opened.items()}
        return held | {f"sum/{name}": total for name, total in self.sums.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what ``tensors`` gave."""
        for name, tensor in tensors.items():
            kind, _, weight = name.partition("/")
            (self.opened if kind == "open" else self.sums)[weight] = tensor

    def _open(self) -> None:
        names = list(self.sums)
        if self.per_matrix:
            for name in names:
                scores = self._scores(name)
                self.opened[name] = top(scores, self._count(len(scores))).view_as(self.sums[name])
            return
        scores = torch.cat([self._scores(name) for name in names])
        sizes = [self.sums[name].numel() for name in names]
        chosen = torch.split(top(scores, self._count(len(scores))), sizes)
        self.opened = {
            name: part.view_as(self.sums[name]).clone() for name, part in zip(names, chosen, strict=True)
        }

    def _count(self, entries: int) -> int:
        return max(1, int(self.share * entries))

    def _scores(self, name: str) -> Tensor:
        scale = 1.0 if self.scale is None else self.scale[name].detach().to(self.sums[name])
        return (self.sums[name] * scale).abs().flatten()

    def _next_choice(self, step: int) -> int | None:
        """The step after which entries are chosen next, at or after ``step``; None if never again."""
        if not self.every:
            return None
        found = -(-(step + 1) // self.every) * self.every - 1
        return found if found < self.until * self.steps else None

    def _swap(self, step: int) -> float:
        return self.swap * 0.5 * (1 + math.cos(math.pi * (step + 1) / self.steps))
