"""Classifiers in a bare checkpoint: a timm vision transformer with its own head, such as UnlearnCanvas's.

Only ``.safetensors`` is read. A pickle (``.pth``) can run code, so its owner must convert it. The network is built of
torch's own layers, so neither timm nor torchvision is needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import InputError, ModelError, one_line, printable, quoted
from ..io.files import user_path
from .opening import SIDE, check_runs, refuse_nan
from .pixels import batches

__all__ = ["Checkpoint", "Device"]

Device = str | torch.device
HEAD, EPSILON = 64, 1e-6  # channels of one attention head, and the norms' epsilon, in every ViT of timm's


class Checkpoint:
    """A ViT whose weights have timm's names. words: its classes in order.

    Pictures are resized to the network's side and scaled to [-1, 1]. For UnlearnCanvas the network is
    ``vit_large_patch16_224.augreg_in21k`` at 224 pixels, as in its released evaluation.
    """

    def __init__(
        self, file: str | Path, kind: str, words: Sequence[str], *, device: Device = "cpu", batch: int = 32
    ) -> None:
        """Raises InputError where there are no words, ModelError for a file that is no such checkpoint."""
        from ..model.edit import digest

        if not words:
            raise InputError(
                f"{quoted(file)} is a bare checkpoint, and the suite does not name its classes: give a folder "
                "that transformers opens"
            )
        state = _state(Path(file))
        try:
            self.model = _Vit(state, len(words)).eval().requires_grad_(False)
        except (KeyError, RuntimeError, ValueError, IndexError) as error:
            raise ModelError(
                f"{quoted(file)} is no ViT with {len(words)} classes under timm's names: {one_line(error)}"
            ) from None
        for name, value in state.items():
            refuse_nan(value, f"{quoted(file)} is damaged: its weight {quoted(name)}")
        self.kinds, self.words, self.batch = (kind,), tuple(words), batch
        self.name = f"{printable(Path(file).stem)}@{digest(state.items())[:8]}"
        check_runs(str(file), self.classify)
        self.model.to(device)

    @torch.no_grad()
    def classify(self, pictures: Sequence[Image.Image]) -> list[dict[str, tuple[str, float]]]:
        side, seen = self.model.side, []
        for part in batches(pictures, self.batch):
            small = [np.asarray(one.resize((side, side), Image.Resampling.BILINEAR)) for one in part]
            pixels = torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2) / 127.5 - 1
            shares = self.model(pixels.to(self.model.norm.weight.device)).softmax(1).cpu()
            refuse_nan(shares, f"the output of {self.name}")
            for share in shares:
                best = int(share.argmax())
                seen.append({self.kinds[0]: (self.words[best], float(share[best]))})
        return seen


def _state(file: Path) -> dict[str, Tensor]:
    if file.suffix != ".safetensors":
        raise ModelError(
            f"{quoted(file)} is a pickle, which can run code and is never opened: convert it to .safetensors yourself, "
            "docs/evaluation.md has the three lines"
        )
    try:
        return {name: tensor.float() for name, tensor in load_file(user_path(file)).items()}
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{quoted(file)} is no file of safetensors: {one_line(error)}") from None


class _Vit(nn.Module):
    """The vision transformer of Dosovitskiy et al. (2020, arXiv:2010.11929), in the shapes of timm's checkpoint."""

    def __init__(self, state: dict[str, Tensor], classes: int) -> None:
        super().__init__()
        width, _, patch, _ = state["patch_embed.proj.weight"].shape
        hidden, spots = state["blocks.0.mlp.fc1.weight"].shape[0], state["pos_embed"].shape[1]
        layers = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
        self.side = patch * math.isqrt(max(0, spots - 1))
        if not 1 <= self.side <= SIDE or (self.side // patch) ** 2 != spots - 1:
            raise ValueError(f"{spots} positions and patches of {patch} pixels make no square picture")
        # without values: a file may claim shapes that no memory holds, and only its own tensors are taken
        with torch.device("meta"):
            self.patches = nn.Conv2d(3, width, patch, patch)
            self.cls_token, self.pos_embed = (
                nn.Parameter(torch.empty(1, count, width)) for count in (1, spots)
            )
            shape: dict[str, Any] = {"activation": "gelu", "norm_first": True, "batch_first": True}
            self.blocks = nn.ModuleList(
                nn.TransformerEncoderLayer(
                    width, max(1, width // HEAD), hidden, 0.0, layer_norm_eps=EPSILON, **shape
                )
                for _ in range(layers)
            )
            self.norm, self.head = nn.LayerNorm(width, eps=EPSILON), nn.Linear(width, classes)
        self.load_state_dict({_renamed(name): tensor for name, tensor in state.items()}, assign=True)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (n, classes) of pixels (n, 3, side, side) in [-1, 1]."""
        x = self.patches(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, 0]))  # type: ignore[no-any-return]


def _renamed(name: str) -> str:
    """A weight's name in timm as torch's layers call it."""
    for theirs, ours in (
        ("patch_embed.proj", "patches"),
        ("attn.qkv.", "self_attn.in_proj_"),
        ("attn.proj", "self_attn.out_proj"),
        ("mlp.fc1", "linear1"),
        ("mlp.fc2", "linear2"),
    ):
        name = name.replace(theirs, ours)
    return name
