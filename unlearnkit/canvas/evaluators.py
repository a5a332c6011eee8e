"""The evaluators: validation and held-out classifier, and a CLIP that scores how well a picture fits its prompt."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..errors import ModelError
from . import WEIGHTS
from .classifier import CanvasClassifier, Prediction, pixels
from .held_out import held_out_classifier
from .validation import validation_classifier

__all__ = [
    "Alignment",
    "CanvasClassifier",
    "Prediction",
    "alignment",
    "held_out_classifier",
    "validation_classifier",
]


class Alignment:
    """The evaluators' CLIP, which shares nothing with the pipeline's text encoder."""

    def __init__(self) -> None:
        from transformers import CLIPModel, CLIPTokenizer

        try:
            clip = CLIPModel.from_pretrained(WEIGHTS / "clip", dtype=torch.float32)
            self.clip = clip.eval().requires_grad_(False)
            self.tokenizer = CLIPTokenizer.from_pretrained(WEIGHTS / "clip")
        except (OSError, ValueError) as error:
            raise ModelError(f"no CLIP in {WEIGHTS / 'clip'} ({error}): reinstall the package") from error

    @torch.no_grad()
    def images(self, images: Sequence[Image.Image], batch: int = 256) -> Tensor:
        """Unit vectors (n, 96) of pictures."""
        parts = [
            self.clip.visual_projection(
                self.clip.vision_model(pixel_values=pixels(images[i : i + batch])).pooler_output
            )
            for i in range(0, len(images), batch)
        ]
        return F.normalize(torch.cat(parts), dim=1)

    @torch.no_grad()
    def texts(self, prompts: Sequence[str], batch: int = 256) -> Tensor:
        """Unit vectors (n, 96) of prompts; each distinct prompt is computed once."""
        number = {text: i for i, text in enumerate(dict.fromkeys(prompts))}
        tokens = self.tokenizer(
            list(number),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        parts = [
            self.clip.text_projection(self.clip.text_model(input_ids=ids).pooler_output)
            for ids in tokens.split(batch)
        ]
        return F.normalize(torch.cat(parts), dim=1)[[number[text] for text in prompts]]

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """Cosine in [-1, 1] of each picture with its own prompt: (n,)."""
        return (self.images(images) * self.texts(prompts)).sum(1)

    def choose(self, images: Sequence[Image.Image], prompts: Sequence[Sequence[str]]) -> list[int]:
        """For each picture the index of the prompt, among its own list, that fits best."""
        vectors = self.images(images)
        flat = self.texts([text for row in prompts for text in row])
        chosen, start = [], 0
        for row, vector in zip(prompts, vectors, strict=True):
            chosen.append(int((flat[start : start + len(row)] @ vector).argmax()))
            start += len(row)
        return chosen


@functools.cache
def alignment() -> Alignment:
    return Alignment()
