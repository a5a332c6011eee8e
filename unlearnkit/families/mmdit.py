"""What MMDiT models share: transformers in which text and image tokens attend jointly."""

from __future__ import annotations

from typing import Any

from .common import NO_ATTENTION_MAPS

__all__ = ["DEFAULTS", "DENOISER", "LACKS", "PARTS", "belongs", "shift_of"]

DENOISER = "transformer"
DEFAULTS: dict[str, Any] = NO_ATTENTION_MAPS | {"trains": "lora", "checkpointing": True}
PARTS = {
    "xattn-kv": "the text's keys and values in joint attention",
    "xattn": "all of joint attention",
    "not-xattn": "everything but joint attention",
    "all": "the whole denoiser",
}
LACKS = dict.fromkeys(
    ("attention", "values", "keys", "outputs"),
    "text and picture share one softmax, and the text itself changes from layer to layer",
)


def shift_of(config: Any, patches: int, most: float) -> float:
    """The shift mu of a scheduler for pictures of this many patches, as in both pipelines.

    It is linear in the patches. most: the largest shift, where the scheduler's configuration names none.
    """
    few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", most)
    slope = (high - low) / (many - few)
    return float(patches * slope + (low - slope * few))


def belongs(part: str, name: str) -> bool:
    if part == "xattn-kv":
        return ".add_k_proj." in name or ".add_v_proj." in name
    if part == "text":
        return name.endswith(".context_embedder.weight")
    return part == "all" or (".attn." in name) == (part == "xattn")
