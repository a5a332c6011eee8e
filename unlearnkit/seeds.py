"""The only place where a random generator is made.

A draw is named by its labels, ``stream(seed, "esd", step)``: adding a new draw shifts no old one, and noise is made
on the CPU, so that it is alike on every device. No global seed is read or set.
"""

from __future__ import annotations

import hashlib

import torch

__all__ = ["derive", "plain", "stream"]


def derive(seed: int, *labels: str | int) -> int:
    """A seed in [0, 2**63) that depends on ``seed`` and on every label, in order."""
    text = "\x1f".join([str(seed), *(f"{type(label).__name__}:{label}" for label in labels)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(seed: int, *labels: str | int) -> torch.Generator:
    """A fresh CPU generator for the draw that these labels name."""
    return torch.Generator("cpu").manual_seed(derive(seed, *labels))


def plain(seed: int) -> torch.Generator:
    """A CPU generator of just this seed, as users of diffusers make it: for pictures that others can draw again."""
    return torch.Generator("cpu").manual_seed(seed)
