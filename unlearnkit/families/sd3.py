"""Stable Diffusion 3 and 3.5: rectified flow by an MMDiT, conditioned on three text encoders."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError
from . import mmdit
from .common import classes as classes
from .common import cross_attention as cross_attention
from .common import decoded as decoded
from .common import draw_with_pooled, latent_size, pack, token_count, unpack
from .common import guided as guided
from .common import posterior as posterior
from .common import saved as saved
from .mmdit import DEFAULTS as DEFAULTS
from .mmdit import DENOISER as DENOISER
from .mmdit import PARTS as PARTS
from .mmdit import belongs as belongs
from .schedules import Flow
from .stable_diffusion import last_token as last_token
from .stable_diffusion import room as clip_room

TITLE = "Stable Diffusion 3/3.5"
PIPELINES: tuple[str, ...] = ("StableDiffusion3Pipeline",)
TOKENS = 256  # of T5
LACKS = mmdit.LACKS | {
    "text": "tokens of CLIP and of T5 stand one after the other, so a word has no single position to edit"
}


def sampling(pipe: Any) -> tuple[int, float]:
    return 28, 7.0


def check(pipe: Any) -> None:
    if pipe.text_encoder is None or pipe.text_encoder_2 is None:
        raise ModelError("a CLIP text encoder is missing: load the pipeline with both (T5 may be left out)")


def encode(pipe: Any, prompt: str, device: torch.device, *, tokens: int = TOKENS) -> Tensor:
    how = {"device": device, "do_classifier_free_guidance": False, "max_sequence_length": tokens}
    encoded = pipe.encode_prompt(prompt, None, None, **how)
    return pack(encoded[0][0], encoded[2][0])


def encode_many(pipe: Any, prompts: list[str], device: torch.device, *, tokens: int = TOKENS) -> Tensor:
    """The text states (n, tokens, width) of prompts, in one batch."""
    how = {"device": device, "do_classifier_free_guidance": False, "max_sequence_length": tokens}
    states: Tensor = pipe.encode_prompt(prompts, None, None, **how)[0]
    return states


def text(pipe: Any, states: Tensor) -> Tensor:
    return _unpack_states(pipe, states)[0]


def room(pipe: Any, text: str, tokens: int | None) -> tuple[int, int]:
    if pipe.text_encoder_3 is None:
        return clip_room(pipe, text, None)
    return token_count(pipe, pipe.tokenizer_3, text), (tokens or TOKENS) - 1


def shape(pipe: Any, size: int | None) -> tuple[int, int, int]:
    config = pipe.transformer.config
    stock = (config.sample_size, config.sample_size)
    return config.in_channels, *latent_size(pipe, size, stock, config.patch_size)


def schedule(pipe: Any, shape: tuple[int, int, int]) -> Flow:
    patch = pipe.transformer.config.patch_size
    mu = mmdit.shift_of(pipe.scheduler.config, (shape[1] // patch) * (shape[2] // patch), 1.16)
    return Flow(pipe.scheduler, mu=mu)


def predict(pipe: Any, latents: Tensor, t: Tensor, states: Tensor) -> Tensor:
    text, pooled = _unpack_states(pipe, states)
    output: Tensor = pipe.transformer(
        hidden_states=latents,
        timestep=t,
        encoder_hidden_states=text,
        pooled_projections=pooled,
        return_dict=False,
    )[0]
    return output


def draw(pipe: Any, states: Tensor, negative: Tensor, guidance: float, **how: Any) -> Any:
    return draw_with_pooled(
        pipe, _unpack_states(pipe, states), _unpack_states(pipe, negative), guidance, **how
    )


def _unpack_states(pipe: Any, states: Tensor) -> tuple[Tensor, ...]:
    """The text (n, tokens, width) and the pooled vector (n, size)."""
    return unpack(states, pipe.transformer.config.pooled_projection_dim)
