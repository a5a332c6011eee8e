"""The two classifiers' network: the object and the style that a 64 x 64 picture shows, or that neither is known.

``form`` is the architecture: "plain" is a stack of 3 x 3 convolutions with pooling, "residual" has strides and
shortcuts. The validation and the held-out classifier share no weights, seed or architecture.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import ModelError
from . import world

__all__ = ["CanvasClassifier", "Prediction", "pixels"]

WIDTHS = {"plain": 160, "residual": 128}  # of the last layer
SURE = 0.35  # a lower probability counts as nothing known; chosen on pictures of ``canvas check``


@dataclass(frozen=True)
class Prediction:
    """A classifier's object and style for a picture, each with its probability in [0, 1]."""

    object: str
    style: str
    object_confidence: float
    style_confidence: float


def _convolution(inside: int, outside: int, size: int, stride: int) -> nn.Sequential:
    kernel = nn.Conv2d(inside, outside, size, stride, size // 2, bias=False)
    return nn.Sequential(kernel, nn.BatchNorm2d(outside), nn.ReLU())


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_convolution(width, width, 3, 1), _convolution(width, width, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = x + self.body(x)
        return added


def _body(form: str) -> nn.Sequential:
    width = WIDTHS[form]
    if form == "plain":
        return nn.Sequential(
            _convolution(3, 32, 3, 2),
            *(_convolution(32, 64, 3, 1), nn.MaxPool2d(2)),
            *(_convolution(64, 96, 3, 1), _convolution(96, 96, 3, 1), nn.MaxPool2d(2)),
            *(_convolution(96, width, 3, 1), _convolution(width, width, 3, 1), nn.MaxPool2d(2)),
        )
    return nn.Sequential(
        *(_convolution(3, 24, 5, 2), _Residual(24)),
        *(_convolution(24, 56, 3, 2), _Residual(56)),
        *(_convolution(56, 112, 3, 2), _Residual(112)),
        *(_convolution(112, width, 3, 2), _Residual(width)),
    )


class CanvasClassifier(nn.Module):
    """(n, 3, 64, 64) in [-1, 1] to (object logits (n, objects), style logits (n, styles))."""

    def __init__(self, form: str, objects: Sequence[str], styles: Sequence[str]) -> None:
        super().__init__()
        self.form, self.objects, self.styles = form, tuple(objects), tuple(styles)
        self.body = _body(form)
        self.object_head = nn.Linear(2 * WIDTHS[form], len(self.objects))
        self.style_head = nn.Linear(2 * WIDTHS[form], len(self.styles))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.body(images)
        x = torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)
        return self.object_head(x), self.style_head(x)

    @torch.no_grad()
    def classify(self, images: Sequence[Image.Image], batch: int = 256) -> list[Prediction]:
        """What each picture shows. Pictures are scaled to 64 x 64 first.

        The likeliest of what is known is named if its probability is at least ``SURE``, else ``world.NOTHING``.
        """
        predictions: list[Prediction] = []
        for start in range(0, len(images), batch):
            objects, styles = self(pixels(images[start : start + batch]))
            for o, s in zip(objects.softmax(1), styles.softmax(1), strict=True):
                i, j = _choice(o, self.objects), _choice(s, self.styles)
                predictions.append(Prediction(self.objects[i], self.styles[j], float(o[i]), float(s[j])))
        return predictions

    @classmethod
    def load(cls, folder: Path) -> CanvasClassifier:
        """Load a saved classifier. Raises ModelError if the folder is not one."""
        try:
            facts = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            classifier = cls(facts["form"], facts["objects"], facts["styles"])
            classifier.load_state_dict(load_file(str(folder / "model.safetensors")))
        except Exception as error:
            raise ModelError(f"no evaluator in {folder} ({error}): reinstall the package") from error
        return classifier.eval().requires_grad_(False)


def _choice(probabilities: Tensor, names: tuple[str, ...]) -> int:
    known = [i for i, name in enumerate(names) if name != world.NOTHING]
    best = known[int(probabilities[known].argmax())]
    if len(known) < len(names) and probabilities[best] < SURE:
        return names.index(world.NOTHING)
    return best


def pixels(images: Sequence[Image.Image]) -> Tensor:
    """PIL pictures to (n, 3, 64, 64) float32 in [-1, 1]."""
    return torch.from_numpy(np.stack([_small(i) for i in images])).permute(0, 3, 1, 2).float() / 127.5 - 1


def _small(image: Image.Image) -> NDArray[np.uint8]:
    image = image.convert("RGB")
    return np.asarray(image if image.size == (64, 64) else image.resize((64, 64), Image.Resampling.BICUBIC))
