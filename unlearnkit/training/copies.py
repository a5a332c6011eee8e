"""What is trained in place of a part's weights, and what the network wears for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..parts import lora

__all__ = ["Copies"]


@dataclass(frozen=True)
class Copies:
    """fp32 copies of the weights ``start``, or factors of low-rank updates of their matrices (``rank`` above 0)."""

    start: Mapping[str, Tensor]
    rank: int = 0

    def begin(self, seed: int) -> dict[str, Tensor]:
        """The masters before the first step: leaves, by name, that share no memory with the model."""
        if self.rank:
            found = lora.init(self.start, self.rank, seed=seed)
        else:
            found = {name: w.detach().to(torch.float32, copy=True) for name, w in self.start.items()}
        return {name: master.requires_grad_() for name, master in found.items()}

    def whole(self, masters: Mapping[str, Tensor]) -> Iterable[tuple[str, Tensor]]:
        """The trained weights themselves, fp32, one after the other."""
        return lora.merged(self.start, masters) if self.rank else masters.items()

    def worn(self, masters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The trained weights in the model's dtype: no more of them than the network wears, and none in fp32 beside."""
        return {name: weight.to(self.start[name].dtype) for name, weight in self.whole(masters)}
