"""The two evaluators' networks: what object and what style does a 64 x 64 picture show?

``Eye`` is the one class; its ``form`` chooses the architecture, so that guide and judge share neither weights, seed
nor shape: "plain" is a stack of 3 x 3 convolutions, "separable" is residual with depthwise 5 x 5 convolutions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import ModelError
from . import world

__all__ = ["Eye", "Seen", "pixels"]


@dataclass(frozen=True)
class Seen:
    """What an evaluator sees in a picture, each with its probability in [0, 1]."""

    object: str
    style: str
    object_confidence: float
    style_confidence: float


def _plain(inside: int, outside: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU(),
        nn.Conv2d(outside, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU(), nn.MaxPool2d(2),
    )  # fmt: skip


class _Separable(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 5, padding=2, groups=width, bias=False), nn.BatchNorm2d(width),
            nn.Conv2d(width, 2 * width, 1), nn.SiLU(), nn.Conv2d(2 * width, width, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def _separable(inside: int, outside: int, stride: int) -> nn.Module:
    reduce = nn.Conv2d(inside, outside, stride, stride)
    return nn.Sequential(reduce, nn.BatchNorm2d(outside), _Separable(outside), _Separable(outside))


class Eye(nn.Module):
    """(n, 3, 64, 64) in [-1, 1] to (object logits (n, objects), style logits (n, styles))."""

    def __init__(self, form: str, objects: Sequence[str], styles: Sequence[str]) -> None:
        super().__init__()
        self.form, self.objects, self.styles = form, tuple(objects), tuple(styles)
        if form == "plain":
            self.body: nn.Module = nn.Sequential(_plain(3, 24), _plain(24, 48), _plain(48, 96), _plain(96, 160))
            width = 160
        else:
            self.body = nn.Sequential(_separable(3, 48, 2), _separable(48, 80, 2), _separable(80, 128, 2), _separable(128, 192, 2))
            width = 192
        self.object_head = nn.Linear(width * 2, len(self.objects))
        self.style_head = nn.Linear(width * 2, len(self.styles))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.body(images)
        x = torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)
        return self.object_head(x), self.style_head(x)

    @torch.no_grad()
    def look(self, images: Sequence[Image.Image], batch: int = 256) -> list[Seen]:
        """What each picture shows. Pictures of another size are reduced or enlarged to 64 x 64 first."""
        seen: list[Seen] = []
        for start in range(0, len(images), batch):
            objects, styles = self(pixels(images[start : start + batch]))
            for o, s in zip(objects.softmax(1), styles.softmax(1), strict=True):
                i, j = int(o.argmax()), int(s.argmax())
                seen.append(Seen(self.objects[i], self.styles[j], float(o[i]), float(s[j])))
        return seen

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        half = {k: v.half() if v.is_floating_point() else v for k, v in self.state_dict().items()}
        save_file(half, str(folder / "model.safetensors"))
        facts = {"form": self.form, "objects": self.objects, "styles": self.styles, "world": world.VERSION}
        (folder / "config.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Eye:
        """Read a saved evaluator. Raises ModelError when the folder is not one."""
        try:
            facts = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            eye = cls(facts["form"], facts["objects"], facts["styles"])
            eye.load_state_dict(load_file(str(folder / "model.safetensors")))
        except Exception as error:
            raise ModelError(f"no evaluator in {folder} ({error}): train it or reinstall the package") from error
        return eye.eval().requires_grad_(False)


def pixels(images: Sequence[Image.Image]) -> Tensor:
    """PIL pictures to (n, 3, 64, 64) float32 in [-1, 1]."""
    arrays = [np.asarray(i.convert("RGB").resize((64, 64), Image.Resampling.BICUBIC) if i.size != (64, 64) else i.convert("RGB")) for i in images]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 127.5 - 1
