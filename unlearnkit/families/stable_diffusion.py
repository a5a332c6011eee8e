"""Stable Diffusion 1.x and 2.x: a U-Net with cross-attention to one text encoder, epsilon or v-prediction."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from ..errors import ModelError

TITLE = "Stable Diffusion 1.x/2.x"
PIPELINES: tuple[str, ...] = ("StableDiffusionPipeline",)
DENOISER = "unet"
PROCESSORS = ("AttnProcessor2_0", "AttnProcessor")
PARTS = {
    "xattn-kv": "keys and values of cross-attention",
    "xattn": "all of cross-attention",
    "not-xattn": "everything but cross-attention",
    "all": "the whole denoiser",
}


def check(pipe: Any) -> None:
    kind = pipe.scheduler.config.get("prediction_type", "epsilon")
    if kind not in ("epsilon", "v_prediction"):
        raise ModelError(f"prediction type {kind!r} is not supported: use a model of epsilon or v_prediction")
    if pipe.unet.config.in_channels != pipe.vae.config.latent_channels:
        raise ModelError(
            f"the denoiser takes {pipe.unet.config.in_channels} channels and the latents have "
            f"{pipe.vae.config.latent_channels}: inpainting and depth models are not supported"
        )


def belongs(part: str, name: str) -> bool:
    cross = ".attn2." in name
    if part == "xattn-kv":
        return cross and (".to_k." in name or ".to_v." in name)
    return part == "all" or cross == (part == "xattn")


def encode(pipe: Any, prompt: str, device: torch.device) -> Tensor:
    states: Tensor = pipe.encode_prompt(prompt, device, 1, False)[0][0]
    return states


def last_token(pipe: Any, text: str) -> int:
    # the start token is at 0, so the number of tokens is the index of the last one; the end token keeps a place
    room = pipe.tokenizer.model_max_length - 2
    return len(pipe.tokenizer(text, add_special_tokens=False, truncation=True, max_length=room).input_ids)


def shape(pipe: Any) -> tuple[int, int, int]:
    size = pipe.unet.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    return pipe.unet.config.in_channels, height, width


def latents(pipe: Any, pixels: Tensor) -> Tensor:
    mean = pipe.vae.encode(pixels.to(pipe.vae.device, pipe.vae.dtype)).latent_dist.mean
    scaled: Tensor = mean * pipe.vae.config.scaling_factor
    return scaled


def schedule(pipe: Any) -> Any:
    # DDIM clips by default, which is meant for pixels: only a model whose own scheduler clips is sampled so
    clip = pipe.scheduler.config.get("clip_sample", False)
    return DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=clip)


def noised(schedule: Any, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    signal, spread = _scales(schedule, t)
    return signal * latents.float() + spread * noise.float()


def predict(pipe: Any, latents: Tensor, t: Tensor, states: Tensor) -> Tensor:
    output: Tensor = pipe.unet(latents, t, encoder_hidden_states=states, return_dict=False)[0]
    return output


def eps(schedule: Any, output: Tensor, latents: Tensor, t: Tensor) -> Tensor:
    if schedule.config.prediction_type == "epsilon":
        return output.float()
    signal, spread = _scales(schedule, t)  # v = signal * noise - spread * picture
    return signal * output.float() + spread * latents.float()


def cross_attention(pipe: Any) -> dict[str, Any]:
    found = {name: layer for name, layer in pipe.unet.named_modules() if name.endswith(".attn2")}
    for name, layer in found.items():
        kind = type(layer.processor).__name__
        if kind not in PROCESSORS:
            raise ModelError(
                f"attention layer {name!r} has the processor {kind}: call unet.set_default_attn_processor() first"
            )
        extras = (layer.group_norm, layer.spatial_norm, layer.norm_cross, layer.norm_q, layer.norm_k)
        if any(extras) or layer.residual_connection or layer.rescale_output_factor != 1:
            raise ModelError(f"attention layer {name!r} is not plain attention: its maps cannot be read")
    return found


def draw(
    pipe: Any,
    states: Tensor,
    negative: Tensor,
    generators: list[torch.Generator],
    *,
    steps: int,
    guidance: float,
    output: str,
) -> Any:
    return pipe(
        prompt_embeds=states,
        negative_prompt_embeds=negative if guidance > 1 else None,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=generators,
        output_type=output,
    ).images


def _scales(schedule: Any, t: Tensor) -> tuple[Tensor, Tensor]:
    """The shares of picture and noise at times t (n,), each (n, 1, 1, 1)."""
    kept = schedule.alphas_cumprod.to(t.device)[t].float().view(-1, 1, 1, 1)
    return kept.sqrt(), (1 - kept).sqrt()
