"""Stable Diffusion 1.x and 2.x: a U-Net with cross-attention to one text encoder, epsilon or v-prediction."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError, quoted
from .common import classes as classes
from .common import decoded as decoded
from .common import guided as guided
from .common import latent_size, plain_attention, token_count
from .common import posterior as posterior
from .common import saved as saved
from .common import text as text
from .schedules import Diffusion

TITLE = "Stable Diffusion 1.x/2.x"
PIPELINES: tuple[str, ...] = ("StableDiffusionPipeline",)
DENOISER = "unet"
DEFAULTS: dict[str, Any] = {}
LACKS: dict[str, str] = {}
CONDITIONS = ("addition_embed_type", "class_embed_type", "num_class_embeds", "encoder_hid_dim_type")
ADDED = {"StableDiffusionXLPipeline": "text_time"}  # by pipeline: what its U-Net expects besides the text
PARTS = {
    "xattn-kv": "keys and values of cross-attention",
    "xattn": "all of cross-attention",
    "not-xattn": "everything but cross-attention",
    "all": "the whole denoiser",
    "text": "the matrices that read the text: keys and values of cross-attention",
    "values": "the value matrices of cross-attention",
    "keys": "the key matrices of cross-attention",
    "outputs": "the output matrices of cross-attention",
}


def sampling(pipe: Any) -> tuple[int, float]:
    return 50, 7.5


def check(pipe: Any) -> None:
    if pipe.unet.config.in_channels != pipe.vae.config.latent_channels:
        raise ModelError(
            f"the denoiser takes {pipe.unet.config.in_channels} channels and the latents have "
            f"{pipe.vae.config.latent_channels}: inpainting and depth models are not supported"
        )
    if pipe.unet.config.get("time_cond_proj_dim"):
        raise ModelError(
            "the denoiser takes its guidance as a condition (time_cond_proj_dim, as LCM has it), which is not "
            "supported: use the model that it was distilled from, or one distilled without"
        )
    extra = {name: pipe.unet.config.get(name) for name in CONDITIONS}
    if extra["addition_embed_type"] == ADDED.get(type(pipe).__name__):
        del extra["addition_embed_type"]
    if names := [name for name, value in extra.items() if value is not None]:
        raise ModelError(
            f"the denoiser takes more than text ({names[0]} = {quoted(extra[names[0]])}), such as pictures or "
            "classes, which is not supported: unload its adapter or use a plain text-to-image model"
        )


def belongs(part: str, name: str) -> bool:
    cross = ".attn2." in name
    if part in ("xattn-kv", "text"):
        return cross and (".to_k." in name or ".to_v." in name)
    if part in ("values", "keys"):
        return cross and (".to_v." if part == "values" else ".to_k.") in name
    if part == "outputs":
        return cross and name.endswith(".to_out.0.weight")
    return part == "all" or cross == (part == "xattn")


def encode(pipe: Any, prompt: str, device: torch.device) -> Tensor:
    states: Tensor = pipe.encode_prompt(prompt, device, 1, False)[0][0]
    return states


def encode_many(pipe: Any, prompts: list[str], device: torch.device) -> Tensor:
    """The text states (n, tokens, width) of prompts, in one batch."""
    states: Tensor = pipe.encode_prompt(prompts, device, 1, False)[0]
    return states


def last_token(pipe: Any, text: str) -> int:
    # the start token is at 0, so the number of tokens is the index of the last one; the end token needs a position
    return min(room(pipe, text, None))


def room(pipe: Any, text: str, tokens: int | None) -> tuple[int, int]:
    return token_count(pipe, pipe.tokenizer, text), pipe.tokenizer.model_max_length - 2


def shape(pipe: Any, size: int | None) -> tuple[int, int, int]:
    stock = pipe.unet.config.sample_size
    return (
        pipe.unet.config.in_channels,
        *latent_size(pipe, size, (stock, stock) if isinstance(stock, int) else stock),
    )


def schedule(pipe: Any, shape: tuple[int, int, int]) -> Diffusion:
    return Diffusion(pipe.scheduler)


def predict(pipe: Any, latents: Tensor, t: Tensor, states: Tensor) -> Tensor:
    output: Tensor = pipe.unet(latents, t, encoder_hidden_states=states, return_dict=False)[0]
    return output


def cross_attention(pipe: Any) -> dict[str, Any]:
    return plain_attention(
        {name: layer for name, layer in pipe.unet.named_modules() if name.endswith(".attn2")}
    )


def draw(pipe: Any, states: Tensor, negative: Tensor, guidance: float, **how: Any) -> Any:
    return pipe(
        prompt_embeds=states,
        negative_prompt_embeds=negative if guidance > 1 else None,
        guidance_scale=guidance,
        **how,
    ).images
