"""Masks: which entries of the weights may change, chosen by gradients and, if dynamic, chosen again during training.

In the warm-up the weights do not change and gradients are summed, A = Σ g; an entry's score is |A|. Then a share of the
entries opens. Saliency (SalUn, arXiv 2310.12508): the largest of all weights together, once. SelFT (as Lee et al. use
it, arXiv 2511.07970): the same by |A θ|, about how much the loss would change without the entry. Dynamic (Sculpting
Memory, arXiv 2504.09039, released code): the largest of each matrix, and every ``mask_every`` steps

    drop    the n open entries of smallest |A|          A = Σ g since the last choice, of closed entries too
    grow    as many closed entries of largest |A|       n = τ · open entries, τ = swap · (1 + cos π·progress) / 2

so that the number of open entries stays. Tensors of fewer than two dimensions are fully open in this mode.
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
    """A boolean vector of the ``count`` largest entries of a vector; exactly ``count``, with ties too."""
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
    """Which entries may change.

    share: of open entries. warmup: steps without changes, in which gradients are summed. steps: of the whole run,
        warm-up included. every: steps between two choices, 0 for one choice only.
    swap: initial share of the open entries that are swapped; it falls to 0 as a cosine. swap_span: share of the
        run in which the mask changes. Both as in Sculpting Memory's code.
    per_matrix: the share is of each matrix, or of all weights together.
    scale: factors of the scores by weight, None for 1.
    A closed entry does not change at all. In the released code its gradient is zero, and Adam's momentum moves it.
    """

    share: float
    warmup: int
    steps: int
    every: int = 0
    swap: float = 0.2
    swap_span: float = 0.8
    per_matrix: bool = True
    scale: Mapping[str, Tensor] | None = None
    opened: dict[str, Tensor] = field(default_factory=dict)
    sums: dict[str, Tensor] = field(default_factory=dict)

    def accumulate(self, step: int, gradients: Gradients) -> None:
        """Add the gradients of this step, if a later choice needs them."""
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
        """Open and close entries if it is time, after step ``step``. Returns whether it was."""
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
        """What a resumed run needs: open entries and summed gradients."""
        tensors = {f"open/{name}": opened for name, opened in self.opened.items()}
        return tensors | {f"sum/{name}": total for name, total in self.sums.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what ``tensors`` gave."""
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
        """The next step, at or after ``step``, after which entries are chosen; None if there is none."""
        if not self.every:
            return None
        next_step = -(-(step + 1) // self.every) * self.every - 1
        return next_step if next_step < self.swap_span * self.steps else None

    def _swap(self, step: int) -> float:
        return self.swap * 0.5 * (1 + math.cos(math.pi * (step + 1) / self.steps))
