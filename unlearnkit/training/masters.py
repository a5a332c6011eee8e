"""The fp32 master weights that are trained in place of a part's own weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..parts import lora

__all__ = ["MasterWeights"]


@dataclass(frozen=True)
class MasterWeights:
    """fp32 copies of the weights ``start``, or factors of low-rank updates of their matrices (``rank`` above 0)."""

    start: Mapping[str, Tensor]
    rank: int = 0

    def init(self, seed: int) -> dict[str, Tensor]:
        """The masters before the first step: leaf tensors by name. They share no memory with the model."""
        if self.rank:
            masters = lora.init(self.start, self.rank, seed=seed)
        else:
            masters = {name: w.detach().to(torch.float32, copy=True) for name, w in self.start.items()}
        return {name: master.requires_grad_() for name, master in masters.items()}

    def merged(self, masters: Mapping[str, Tensor]) -> Iterable[tuple[str, Tensor]]:
        """The trained weights themselves, fp32, one after the other."""
        return lora.merged(self.start, masters) if self.rank else masters.items()

    def cast_weights(self, masters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The trained weights in the model's dtype, cast one by one to save memory."""
        return {name: weight.to(self.start[name].dtype) for name, weight in self.merged(masters)}
