"""Flux.1 (dev and schnell): rectified flow on packed latents, conditioned on T5 and a pooled vector of CLIP.

The dev model is guidance-distilled: it takes the guidance scale as an input, in place of a second pass. Partial
denoising passes the requested guidance scale, every other pass 1, as ESD's released code trains Flux.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError
from . import mmdit
from .common import classes as classes
from .common import cross_attention as cross_attention
from .common import decoded as decoded
from .common import last_t5_token, latent_size, pack, token_count, unpack
from .common import posterior as posterior
from .common import saved as saved
from .mmdit import DEFAULTS as DEFAULTS
from .mmdit import DENOISER as DENOISER
from .mmdit import LACKS as LACKS
from .mmdit import belongs as belongs
from .schedules import Flow

TITLE = "Flux.1"
PIPELINES: tuple[str, ...] = ("FluxPipeline",)
PARTS = mmdit.PARTS | {"text": "the matrix that reads the text: its embedder, before the first layer"}
TOKENS = 512  # of T5
TRUE_GUIDANCE = 4.0  # with a negative prompt: a second pass, as diffusers' examples do


def sampling(pipe: Any) -> tuple[int, float]:
    return (28, 3.5) if pipe.transformer.config.guidance_embeds else (4, 0.0)


def check(pipe: Any) -> None:
    if pipe.text_encoder is None or pipe.text_encoder_2 is None:
        raise ModelError("a text encoder is missing: load the pipeline with both")


def encode(pipe: Any, prompt: str, device: torch.device, *, tokens: int = TOKENS) -> Tensor:
    text, pooled, _ = pipe.encode_prompt(prompt, None, device=device, max_sequence_length=tokens)
    return pack(text[0], pooled[0], torch.ones(1, device=device))


def encode_many(pipe: Any, prompts: list[str], device: torch.device, *, tokens: int = TOKENS) -> Tensor:
    """The text states (n, tokens, width) of prompts, in one batch."""
    states: Tensor = pipe.encode_prompt(prompts, None, device=device, max_sequence_length=tokens)[0]
    return states


def text(pipe: Any, states: Tensor) -> Tensor:
    return _unpack_states(pipe, states)[0]


def last_token(pipe: Any, text: str) -> int:
    return last_t5_token(pipe, pipe.tokenizer_2, text)


def room(pipe: Any, text: str, tokens: int | None) -> tuple[int, int]:
    return token_count(pipe, pipe.tokenizer_2, text), (tokens or TOKENS) - 1


def shape(pipe: Any, size: int | None) -> tuple[int, int, int]:
    stock = 2 * (pipe.default_sample_size // 2)
    return pipe.transformer.config.in_channels // 4, *latent_size(pipe, size, (stock, stock), 2)


def schedule(pipe: Any, shape: tuple[int, int, int]) -> Flow:
    mu = mmdit.shift_of(pipe.scheduler.config, (shape[1] // 2) * (shape[2] // 2), 1.15)
    return Flow(pipe.scheduler, mu=mu, even=True)


def predict(pipe: Any, latents: Tensor, t: Tensor, states: Tensor) -> Tensor:
    text, pooled, guidance = _unpack_states(pipe, states)
    n, channels, height, width = latents.shape
    patches = pipe._pack_latents(latents.contiguous(), n, channels, height, width)
    places = pipe._prepare_latent_image_ids(n, height // 2, width // 2, latents.device, latents.dtype)
    output = pipe.transformer(
        hidden_states=patches,
        timestep=t.to(latents.dtype) / 1000,
        guidance=guidance[:, 0].float() if pipe.transformer.config.guidance_embeds else None,
        pooled_projections=pooled,
        encoder_hidden_states=text,
        txt_ids=torch.zeros(text.shape[1], 3, device=text.device, dtype=text.dtype),
        img_ids=places,
        return_dict=False,
    )[0]
    return _unpack_latents(pipe, output, height, width)


def guided(
    predict: Callable[[Tensor, Tensor, Tensor], Tensor],
    x: Tensor,
    t: Tensor,
    states: Tensor,
    null: Tensor,
    guidance: float,
) -> Tensor:
    cond = states.clone()
    cond[:, -1, 0] = guidance
    return predict(x, t, cond).float()


def draw(pipe: Any, states: Tensor, negative: Tensor, guidance: float, **how: Any) -> Any:
    text, pooled, _ = _unpack_states(pipe, states)
    if not torch.equal(negative[0], encode(pipe, "", negative.device, tokens=text.shape[1])):
        uncond = _unpack_states(pipe, negative)
        how |= {"negative_prompt_embeds": uncond[0], "negative_pooled_prompt_embeds": uncond[1]}
        how |= {"true_cfg_scale": TRUE_GUIDANCE}
    images = pipe(prompt_embeds=text, pooled_prompt_embeds=pooled, guidance_scale=guidance, **how).images
    if how["output_type"] != "latent":
        return images
    size = how.get("height", pipe.default_sample_size * pipe.vae_scale_factor)
    side = 2 * (size // (2 * pipe.vae_scale_factor))
    return _unpack_latents(pipe, images, side, side)


def _unpack_latents(pipe: Any, patches: Tensor, height: int, width: int) -> Tensor:
    """Latents (n, c, height, width) of patches (n, places, 4 c)."""
    factor = pipe.vae_scale_factor
    latents: Tensor = pipe._unpack_latents(patches, height * factor, width * factor, factor)
    return latents


def _unpack_states(pipe: Any, states: Tensor) -> tuple[Tensor, ...]:
    """The text (n, tokens, width), the pooled vector (n, size) and the guidance (n, 1)."""
    return unpack(states, pipe.transformer.config.pooled_projection_dim, 1)
