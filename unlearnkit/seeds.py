"""The only place where random generators are made.

A draw is named by its labels, ``stream(seed, "esd", step)``, so a new draw does not change the others. Noise is drawn
on the CPU, so it is the same on every device. No global seed is read or set.
"""

from __future__ import annotations

import hashlib

import torch

__all__ = ["derive", "generator", "stream"]


def derive(seed: int, *labels: str | int) -> int:
    """A seed in [0, 2**63) that depends on ``seed`` and on every label, in order."""
    text = "\x1f".join([str(seed), *(f"{type(label).__name__}:{label}" for label in labels)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(seed: int, *labels: str | int) -> torch.Generator:
    """A fresh CPU generator for the draw that these labels name."""
    return torch.Generator("cpu").manual_seed(derive(seed, *labels))


def generator(seed: int) -> torch.Generator:
    """A CPU generator with this seed, as users of diffusers make it, for images that plain diffusers can reproduce."""
    return torch.Generator("cpu").manual_seed(seed)
