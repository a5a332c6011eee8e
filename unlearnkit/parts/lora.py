"""Low-rank updates (LoRA, Hu et al. 2021, arXiv 2106.09685): W + B A with A (rank, in), B (out, rank), B = 0 initially.

The network uses the merged matrix, and gradients reach A and B through it. So an edit holds plain weights. The numbers
are those of PEFT with ``lora_alpha = r`` (a test compares them).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from .. import seeds

__all__ = ["init", "matrices", "merged"]


def matrices(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights that get a low-rank update: those of two dimensions."""
    return {name: weight for name, weight in weights.items() if weight.dim() == 2}


def init(weights: Mapping[str, Tensor], rank: int, *, seed: int) -> dict[str, Tensor]:
    """``NAME.A`` and ``NAME.B`` in fp32 for every matrix; A is uniform in ±1/√in, as Kaiming with a = √5 gives."""
    pairs = {}
    for name, weight in matrices(weights).items():
        out, width = weight.shape
        draws = torch.rand((rank, width), generator=seeds.stream(seed, "lora", name))
        pairs[f"{name}.A"] = ((2 * draws - 1) / math.sqrt(width)).to(weight.device)
        pairs[f"{name}.B"] = torch.zeros((out, rank), device=weight.device)
    return pairs


def merged(start: Mapping[str, Tensor], pairs: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The matrices W + B A in fp32 by name, one at a time, to save memory."""
    for name, weight in matrices(start).items():
        yield name, weight.detach().float() + pairs[f"{name}.B"] @ pairs[f"{name}.A"]
