"""Functions that several families share, and the layout of a prompt's conditioning in one tensor.

Methods pass the conditioning on as one tensor (n, rows, width). Its first rows are the tokens' states. Other inputs of
the network (a pooled vector, a mask, a number) come after them, in rows of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..errors import InputError, ModelError, quoted

__all__ = [
    "NO_ATTENTION_MAPS",
    "classes",
    "cross_attention",
    "decoded",
    "draw_with_pooled",
    "guided",
    "last_t5_token",
    "latent_size",
    "pack",
    "plain_attention",
    "posterior",
    "saved",
    "text",
    "token_count",
    "unpack",
]

# by role, without readable attention: no attention loss, only the loss on the output erases
NO_ATTENTION_MAPS: dict[str, Any] = {"attention": 0.0, "output": 1.0}
PROCESSORS = ("AttnProcessor2_0", "AttnProcessor")


def pack(tokens: Tensor, *others: Tensor) -> Tensor:
    """States (tokens + rows, width) of one prompt: tokens (tokens, width), and vectors (m,) padded with zeros."""
    width = tokens.shape[1]
    rows = [pad(one.to(tokens), (0, -len(one) % width)).view(-1, width) for one in others]
    return torch.cat([tokens, *rows])


def unpack(states: Tensor, *sizes: int) -> tuple[Tensor, ...]:
    """The inverse of ``pack``, for n prompts: tokens (n, tokens, width), and vectors (n, m) of these sizes."""
    vectors, end, width = list[Tensor](), states.shape[1], states.shape[2]
    for size in reversed(sizes):
        start = end - -(-size // width)
        vectors.append(states[:, start:end].flatten(1)[:, :size])
        end = start
    return states[:, :end], *reversed(vectors)


def guided(
    predict: Callable[[Tensor, Tensor, Tensor], Tensor],
    x: Tensor,
    t: Tensor,
    states: Tensor,
    null: Tensor,
    guidance: float,
) -> Tensor:
    """Classifier-free guidance: uncond + guidance (cond - uncond), of network outputs, fp32."""
    both = predict(torch.cat([x, x]), torch.cat([t, t]), torch.cat([null, states]))
    uncond, cond = both.float().chunk(2)
    return uncond + guidance * (cond - uncond)


def classes(pipe: Any) -> tuple[str, ...] | None:
    """None: the family has text prompts."""
    return None


def cross_attention(pipe: Any) -> dict[str, Any]:
    """No readable layers."""
    return {}


def saved(pipe: Any, folder: Path) -> None:
    """Nothing to add."""


def text(pipe: Any, states: Tensor) -> Tensor:
    """The states, which hold only tokens."""
    return states


def token_count(pipe: Any, tokenizer: Any, text: str) -> int:
    """The number of tokens of a text, without start and end tokens.

    A word of textual inversion with several vectors counts as that many tokens.
    """
    convert = getattr(pipe, "maybe_convert_prompt", None)
    if convert and any(word.endswith("_1") for word in tokenizer.get_added_vocab()):
        text = convert(text, tokenizer)
    return len(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)


def last_t5_token(pipe: Any, tokenizer: Any, text: str) -> int:
    """The index of the last of n tokens: n - 1 without a start token; 0, the end token, for the empty prompt."""
    return max(0, token_count(pipe, tokenizer, text) - 1)


def draw_with_pooled(
    pipe: Any, cond: tuple[Tensor, ...], null: tuple[Tensor, ...], guidance: float, **how: Any
) -> Any:
    """Images of a pipeline that takes text states and a pooled vector; null: both of the negative prompt."""
    uncond = null if guidance > 1 else (None, None)
    return pipe(
        prompt_embeds=cond[0],
        pooled_prompt_embeds=cond[1],
        negative_prompt_embeds=uncond[0],
        negative_pooled_prompt_embeds=uncond[1],
        guidance_scale=guidance,
        **how,
    ).images


def posterior(pipe: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the VAE's posterior, scaled and shifted for the denoiser."""
    vae = pipe.vae
    found = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist
    shift, scale = getattr(vae.config, "shift_factor", None), vae.config.scaling_factor
    return (found.mean - shift if shift else found.mean) * scale, found.std * scale


def decoded(pipe: Any, latents: Tensor) -> Tensor:
    """Pixels (n, 3, height, width) of latents by the VAE's decoder, which a half VAE does in full."""
    vae, dtype = pipe.vae, pipe.vae.dtype
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    upcast = dtype == torch.float16 and getattr(vae.config, "force_upcast", False)
    vae = vae.float() if upcast else vae
    pixels: Tensor = vae.decode(
        (latents / vae.config.scaling_factor + shift).to(vae.device, vae.dtype)
    ).sample
    if upcast:
        vae.to(dtype)
    return pixels


def latent_size(pipe: Any, size: int | None, stock: tuple[int, int], step: int = 1) -> tuple[int, int]:
    """Height and width of a latent: of images of ``size`` pixels, else ``stock``; a multiple of ``step``."""
    if size is None:
        return stock
    if size % (step * pipe.vae_scale_factor):
        raise InputError(
            f"pictures of {size} pixels cannot be made: use a multiple of {step * pipe.vae_scale_factor}"
        )
    return size // pipe.vae_scale_factor, size // pipe.vae_scale_factor


def plain_attention(layers: dict[str, Any]) -> dict[str, Any]:
    """These attention layers. Raises ModelError for one that is not softmax(Q Kᵀ / √d) V and a projection."""
    for name, layer in layers.items():
        kind = type(layer.processor).__name__
        if kind not in PROCESSORS:
            raise ModelError(
                f"attention layer {quoted(name)} has the processor {kind}: call set_default_attn_processor() first"
            )
        extras = (layer.group_norm, layer.spatial_norm, layer.norm_cross, layer.norm_q, layer.norm_k)
        if any(extras) or layer.residual_connection or layer.rescale_output_factor != 1:
            raise ModelError(
                f"attention layer {quoted(name)} is not plain attention: its maps cannot be read"
            )
    return layers
