"""Pictures of the anchor that both sides train on, as latents for ours and as pixels for theirs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unlearnkit.data.image_sets import DenoiserInput, NoisyBatch
from unlearnkit.data.pictures import draw
from unlearnkit.data.wording import format_prompt
from unlearnkit.model.sampling import decoded
from unlearnkit.training.anchors import templates_for

from .work import Work, opened, request

__all__ = ["Fed", "Rows", "shown"]


def shown(work: Work, count: int) -> Mapping[str, Any]:
    """The pictures that our side trains on: ``pixels`` (n, 3, h, w) in [-1, 1], and n prompts: ``anchor`` is what each
    shows, a bear; ``concept`` has the cat in its place. Drawn at the first call."""
    file = work.pipeline.parent / f"shown-{count}.pt"
    if not file.exists():
        model, asked = opened(work), request("bear")
        pairs = templates_for(model, asked, asked.erase[0], count)
        anchor = [format_prompt(form, "bear") for form, _ in pairs]
        latents = draw(model, anchor, folder=work.pipeline.parent / "pictures")
        arrays = [np.asarray(picture, dtype=np.float32) for picture in decoded(model, latents)]
        pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2) / 127.5 - 1
        concept = [format_prompt(form, name) for form, name in pairs]
        torch.save({"pixels": pixels, "anchor": anchor, "concept": concept}, file)
    found: Mapping[str, Any] = torch.load(file)
    return found


@dataclass(frozen=True)
class Fed:
    """In an image set's place: one batch, the same each time."""

    input: DenoiserInput
    noise: Tensor

    def batch(self, count: int, draws: torch.Generator) -> NoisyBatch:
        return NoisyBatch(self.input, self.noise, torch.arange(len(self.noise)))

    def __len__(self) -> int:
        return len(self.noise)


class Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """What the training script of Concept Ablation and DoCo reads: pictures and tokens, nothing masked."""

    def __init__(self, work: Work, pictures: int, count: int, *, tokenizer: Any, **_: Any) -> None:
        def ids(prompts: list[str]) -> Tensor:
            found: Tensor = tokenizer(
                prompts, padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt"
            ).input_ids
            return found

        found = shown(work, pictures)
        self.pixels, self.concept, self.anchor = found["pixels"], ids(found["concept"]), ids(found["anchor"])
        self.mask, self.count = torch.ones(work.latent, work.latent), count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> dict[str, Any]:
        at = number % len(self.pixels)
        picture, anchor = self.pixels[at], self.anchor[at : at + 1]
        row = {"instance_images": picture, "mask": self.mask, "instance_anchor_prompt_ids": anchor}
        row |= {"instance_prompt_ids": self.concept[at : at + 1]}
        return row | {"class_images": picture, "class_mask": self.mask, "class_prompt_ids": anchor}
