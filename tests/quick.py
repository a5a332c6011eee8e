"""Settings with which any method or attack is quick on a toy, from what it declares itself."""

from __future__ import annotations

import dataclasses
from typing import Any

from unlearnkit.attacks import find
from unlearnkit.methods import METHODS

__all__ = ["brief", "quick"]

FIXED: dict[str, Any] = {"lr": 1e-3, "batch": 2, "mask_every": 3, "sentences": 5}
COUNTS = ("steps", "pictures", "retain_pictures", "memory", "start_steps")
FEW = ("discriminator_warmup", "mask_warmup", "fisher_pictures", "fisher_times", "copies", "retain_batch",
       "retain_sentences", "attack_steps", "attack_start", "latent_pictures", "rounds", "search_rounds", "search_steps",
       "inversion_steps", "anchors", "times")  # fmt: skip


def quick(method: str, count: int = 4, **changes: Any) -> dict[str, Any]:
    """Settings of a method: ``count`` steps and pictures; what is switched off by default stays off."""
    known = {one.name: one.default for one in dataclasses.fields(METHODS[method])}
    small = FIXED | dict.fromkeys(COUNTS, count) | dict.fromkeys(FEW, 2)
    return {name: value for name, value in small.items() if known.get(name)} | changes


BRIEF: dict[str, dict[str, Any]] = {
    "relearning": {"full": (1, 2, 3), "low_rank": (1, 2, 3), "benign": 2},
    "weight_changes": {"tuned": 2},
    "probe": {"times": 2},
}


def brief(attack: str) -> Any:
    """An attack that trains a few steps only."""
    return dataclasses.replace(find(attack), **BRIEF.get(attack, {}))
