"""Stable Diffusion XL: a U-Net with cross-attention to two text encoders, a pooled vector and sizes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .common import classes as classes
from .common import decoded as decoded
from .common import draw_with_pooled, pack, unpack
from .common import guided as guided
from .common import posterior as posterior
from .common import saved as saved
from .stable_diffusion import DENOISER as DENOISER
from .stable_diffusion import LACKS as LACKS
from .stable_diffusion import PARTS as PARTS
from .stable_diffusion import belongs as belongs
from .stable_diffusion import check as check
from .stable_diffusion import cross_attention as cross_attention
from .stable_diffusion import last_token as last_token
from .stable_diffusion import room as room
from .stable_diffusion import schedule as schedule
from .stable_diffusion import shape as shape

TITLE = "Stable Diffusion XL"
PIPELINES: tuple[str, ...] = ("StableDiffusionXLPipeline",)
DEFAULTS: dict[str, Any] = {"trains": "lora", "checkpointing": True}


def sampling(pipe: Any) -> tuple[int, float]:
    return 50, 5.0


def encode(pipe: Any, prompt: str, device: torch.device) -> Tensor:
    encoded = pipe.encode_prompt(prompt, device=device, do_classifier_free_guidance=False)
    states = pack(encoded[0][0], encoded[2][0])
    # without a prompt the pipeline uses zeros, not the encoded empty prompt
    return torch.zeros_like(states) if not prompt and pipe.config.force_zeros_for_empty_prompt else states


def encode_many(pipe: Any, prompts: list[str], device: torch.device) -> Tensor:
    """The text states (n, tokens, width) of prompts, in one batch."""
    states: Tensor = pipe.encode_prompt(prompts, device=device, do_classifier_free_guidance=False)[0]
    return states


def text(pipe: Any, states: Tensor) -> Tensor:
    return _unpack_states(pipe, states)[0]


def predict(pipe: Any, latents: Tensor, t: Tensor, states: Tensor) -> Tensor:
    text, pooled = _unpack_states(pipe, states)
    height, width = (side * pipe.vae_scale_factor for side in latents.shape[2:])
    sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=text.dtype, device=text.device)
    added = {"text_embeds": pooled, "time_ids": sizes.expand(len(latents), -1)}
    output: Tensor = pipe.unet(
        latents, t, encoder_hidden_states=text, added_cond_kwargs=added, return_dict=False
    )[0]
    return output


def draw(pipe: Any, states: Tensor, negative: Tensor, guidance: float, **how: Any) -> Any:
    return draw_with_pooled(
        pipe, _unpack_states(pipe, states), _unpack_states(pipe, negative), guidance, **how
    )


def _unpack_states(pipe: Any, states: Tensor) -> tuple[Tensor, ...]:
    """The text (n, tokens, width) and the pooled vector (n, size)."""
    return unpack(states, pipe.text_encoder_2.config.projection_dim)
