"""Settings with which any method is quick on a toy, from what the method itself declares."""

from __future__ import annotations

import dataclasses
from typing import Any

from unlearnkit.methods import METHODS

__all__ = ["quick"]

FIXED: dict[str, Any] = {"lr": 1e-3, "batch": 2, "grammar": "plain", "mask_every": 3, "sentences": 5}
COUNTS = ("steps", "pictures", "retain_pictures", "memory", "start_steps")
FEW = ("discriminator_warmup", "mask_warmup", "fisher_pictures", "fisher_times", "copies", "retain_batch",
       "retain_sentences", "attack_steps", "attack_start", "latent_pictures", "rounds", "search_rounds", "search_steps",
       "inversion_steps", "anchors", "times")  # fmt: skip


def quick(method: str, count: int = 4, **changes: Any) -> dict[str, Any]:
    """Settings of a method: ``count`` steps and pictures; what is switched off by default stays off."""
    known = {one.name: one.default for one in dataclasses.fields(METHODS[method])}
    small = FIXED | dict.fromkeys(COUNTS, count) | dict.fromkeys(FEW, 2)
    return {name: value for name, value in small.items() if known.get(name)} | changes
