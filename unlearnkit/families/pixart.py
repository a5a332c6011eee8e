"""PixArt-Sigma: a diffusion transformer with cross-attention to T5. The learned variance is cut off its output."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.utils import is_bs4_available, is_ftfy_available
from torch import Tensor

from . import stable_diffusion
from .common import NO_ATTENTION_MAPS, last_t5_token, latent_size, pack, token_count, unpack
from .common import classes as classes
from .common import cross_attention as cross_attention
from .common import decoded as decoded
from .common import guided as guided
from .common import posterior as posterior
from .common import saved as saved
from .schedules import Diffusion

TITLE = "PixArt-Sigma"
PIPELINES: tuple[str, ...] = ("PixArtSigmaPipeline",)
DENOISER = "transformer"
DEFAULTS: dict[str, Any] = NO_ATTENTION_MAPS
PARTS = stable_diffusion.PARTS
LACKS = {"attention": "a mask cuts every map at the prompt's end, and T5 has no start token"}
TOKENS = 300


def sampling(pipe: Any) -> tuple[int, float]:
    return 20, 4.5


def check(pipe: Any) -> None:
    """Every such pipeline can be edited."""


def belongs(part: str, name: str) -> bool:
    return stable_diffusion.belongs(part, name) and (
        part not in ("text", "values", "keys") or name.endswith(".weight")
    )


def encode(pipe: Any, prompt: str, device: torch.device) -> Tensor:
    encoded = _encoded(pipe, prompt, device)
    return pack(encoded[0][0], encoded[1][0])


def encode_many(pipe: Any, prompts: list[str], device: torch.device) -> Tensor:
    """The text states (n, tokens, width) of prompts, in one batch."""
    projected: Tensor = pipe.transformer.caption_projection(
        _encoded(pipe, prompts, device)[0].to(pipe.transformer.dtype)
    )
    return projected


def _encoded(pipe: Any, prompt: str | list[str], device: torch.device) -> Any:
    # cleaned as the pipeline does, which asks for it where it can be done
    clean = is_bs4_available() and is_ftfy_available()
    return pipe.encode_prompt(prompt, False, device=device, clean_caption=clean, max_sequence_length=TOKENS)


def text(pipe: Any, states: Tensor) -> Tensor:
    projected: Tensor = pipe.transformer.caption_projection(
        unpack(states, TOKENS)[0].to(pipe.transformer.dtype)
    )
    return projected


def last_token(pipe: Any, text: str) -> int:
    return last_t5_token(pipe, pipe.tokenizer, text)


def room(pipe: Any, text: str, tokens: int | None) -> tuple[int, int]:
    return token_count(pipe, pipe.tokenizer, text), TOKENS - 1


def shape(pipe: Any, size: int | None) -> tuple[int, int, int]:
    config = pipe.transformer.config
    stock = (config.sample_size, config.sample_size)
    return config.in_channels, *latent_size(pipe, size, stock, config.patch_size)


def schedule(pipe: Any, shape: tuple[int, int, int]) -> Diffusion:
    return Diffusion(pipe.scheduler)


def predict(pipe: Any, latents: Tensor, t: Tensor, states: Tensor) -> Tensor:
    text, mask = unpack(states, TOKENS)
    output: Tensor = pipe.transformer(
        latents,
        encoder_hidden_states=text,
        encoder_attention_mask=mask,
        timestep=t,
        added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        return_dict=False,
    )[0]
    return output[:, : latents.shape[1]]


def draw(pipe: Any, states: Tensor, negative: Tensor, guidance: float, **how: Any) -> Any:
    text, mask = unpack(states, TOKENS)
    null: tuple[Any, ...] = unpack(negative, TOKENS) if guidance > 1 else (None, None)
    return pipe(
        prompt_embeds=text,
        prompt_attention_mask=mask,
        negative_prompt=None,
        negative_prompt_embeds=null[0],
        negative_prompt_attention_mask=null[1],
        guidance_scale=guidance,
        use_resolution_binning=False,  # pictures have a size that the model is meant for, or was asked for
        **how,
    ).images
