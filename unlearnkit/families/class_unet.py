"""A class-conditional U-Net on pixels: ``UNet2DModel`` in the pipeline of ``class_pipeline.py``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, ModelError
from . import class_pipeline
from .class_conditional import DEFAULTS as DEFAULTS
from .class_conditional import LACKS as LACKS
from .class_conditional import PARTS as PARTS
from .class_conditional import belongs as belongs
from .class_conditional import class_names, class_numbers, class_state
from .class_conditional import last_token as last_token
from .common import cross_attention as cross_attention
from .common import guided as guided
from .schedules import Diffusion

TITLE = "class-conditional U-Net"
PIPELINES: tuple[str, ...] = ("ClassUNetPipeline",)
DENOISER = "unet"


def sampling(pipe: Any) -> tuple[int, float]:
    return 50, 1.0


def check(pipe: Any) -> None:
    if not pipe.unet.config.num_class_embeds:
        raise ModelError("the denoiser knows no classes: use a UNet2DModel with num_class_embeds")


def classes(pipe: Any) -> tuple[str, ...]:
    return class_names(pipe.labels, _count(pipe))


def encode(pipe: Any, prompt: str, device: torch.device) -> Tensor:
    return class_state(pipe.labels, _count(pipe), prompt, device)


def room(pipe: Any, text: str, tokens: int | None) -> tuple[int, int]:
    class_state(pipe.labels, _count(pipe), text, torch.device("cpu"))
    return 1, 1


def text(pipe: Any, states: Tensor) -> Tensor:
    embedded: Tensor = pipe.unet.class_embedding(states[:, :, 0].long())
    return embedded


def shape(pipe: Any, size: int | None) -> tuple[int, int, int]:
    stock = pipe.unet.config.sample_size
    height, width = (stock, stock) if isinstance(stock, int) else stock
    if size not in (None, height):
        raise InputError(f"pictures of {size} pixels cannot be made: this model has one size, leave it out")
    return pipe.unet.config.in_channels, height, width


def posterior(pipe: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    latents = pixels.to(pipe.unet.device)
    return latents, torch.zeros_like(latents)


def decoded(pipe: Any, latents: Tensor) -> Tensor:
    return latents


def schedule(pipe: Any, shape: tuple[int, int, int]) -> Diffusion:
    return Diffusion(pipe.scheduler)


def predict(pipe: Any, latents: Tensor, t: Tensor, states: Tensor) -> Tensor:
    output: Tensor = pipe.unet(latents, t, states[:, 0, 0].long(), return_dict=False)[0]
    return output


def saved(pipe: Any, folder: Path) -> None:
    shutil.copyfile(class_pipeline.__file__, folder / "pipeline.py")


def draw(pipe: Any, states: Tensor, negative: Tensor, guidance: float, **how: Any) -> Any:
    options = {name: how[name] for name in ("generator", "num_inference_steps", "output_type")}
    return pipe(class_numbers(states, negative, _count(pipe)), guidance, **options).images


def _count(pipe: Any) -> int:
    """The number of classes, which is also the number of the null class."""
    return int(pipe.unet.config.num_class_embeds) - 1
