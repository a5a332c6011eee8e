"""Low-rank updates (LoRA, Hu et al. 2021, arXiv 2106.09685): W + B A with A (rank, in), B (out, rank), B = 0 at first.

The network wears the merged matrix, through which gradients reach A and B; so an edit holds plain weights, and nothing
that reads it knows of LoRA. The numbers are those of PEFT with ``lora_alpha = r`` (a test compares them).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from .. import seeds

__all__ = ["begin", "merged", "takes"]


def takes(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of the weights that get a low-rank update: the matrices."""
    return {name: weight for name, weight in weights.items() if weight.dim() == 2}


def begin(weights: Mapping[str, Tensor], rank: int, *, seed: int) -> dict[str, Tensor]:
    """``NAME.A`` and ``NAME.B`` in fp32 for every matrix; A is uniform in ±1/√in, as Kaiming with a = √5 gives."""
    found = {}
    for name, weight in takes(weights).items():
        out, width = weight.shape
        draws = torch.rand((rank, width), generator=seeds.stream(seed, "lora", name))
        found[f"{name}.A"] = ((2 * draws - 1) / math.sqrt(width)).to(weight.device)
        found[f"{name}.B"] = torch.zeros((out, rank), device=weight.device)
    return found


def merged(start: Mapping[str, Tensor], pairs: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The matrices W + B A in fp32 by name, one after the other: all at once they are as large as the part itself."""
    for name, weight in takes(start).items():
        yield name, weight.detach().float() + pairs[f"{name}.B"] @ pairs[f"{name}.A"]
