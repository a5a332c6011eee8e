"""Pipelines with random weights whose denoiser has the real size, or a fraction of it that a CPU can train.

The denoisers are those of Stable Diffusion 1.5, Stable Diffusion XL and Flux.1 dev, by their published configurations.
Text encoders and autoencoder are stand-ins of the real classes, a layer deep and of the widths that the denoiser reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from unlearnkit.model.hints import GENERAL
from unlearnkit.model.model import Model
from unlearnkit.model.places import CANVAS

__all__ = ["SIZES", "opened"]

BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
CROSS, PLAIN = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D"), ("DownBlock2D", "UpBlock2D")
FEW = replace(GENERAL, steps=2)  # of denoising: the pictures that a training starts from are not timed


def unet_of_sd(reduced: bool) -> UNet2DConditionModel:
    width, words = (32, 96) if reduced else (320, 768)
    return UNet2DConditionModel(
        sample_size=8 if reduced else 64,
        block_out_channels=(width, 2 * width, 4 * width, 4 * width),
        down_block_types=(CROSS[0], CROSS[0], CROSS[0], PLAIN[0]),
        up_block_types=(PLAIN[1], CROSS[1], CROSS[1], CROSS[1]),
        layers_per_block=1 if reduced else 2,
        attention_head_dim=8,
        cross_attention_dim=words,
    )


def unet_of_sdxl(reduced: bool) -> UNet2DConditionModel:
    width, first, second, time = (32, 96, 160, 32) if reduced else (320, 768, 1280, 256)
    return UNet2DConditionModel(
        sample_size=8 if reduced else 128,
        block_out_channels=(width, 2 * width, 4 * width),
        down_block_types=(PLAIN[0], CROSS[0], CROSS[0]),
        up_block_types=(CROSS[1], CROSS[1], PLAIN[1]),
        layers_per_block=1 if reduced else 2,
        transformer_layers_per_block=(1, 1, 2) if reduced else (1, 2, 10),
        attention_head_dim=(1, 2, 4) if reduced else (5, 10, 20),
        cross_attention_dim=first + second,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=time,
        projection_class_embeddings_input_dim=6 * time + second,
    )


def transformer_of_flux(reduced: bool) -> FluxTransformer2DModel:
    pooled, words = (64, 64) if reduced else (768, 4096)
    return FluxTransformer2DModel(
        in_channels=64,
        num_layers=1 if reduced else 19,
        num_single_layers=2 if reduced else 38,
        attention_head_dim=32 if reduced else 128,
        num_attention_heads=4 if reduced else 24,
        joint_attention_dim=words,
        pooled_projection_dim=pooled,
        guidance_embeds=True,
        axes_dims_rope=(8, 12, 12) if reduced else (16, 56, 56),
    )


def stable_diffusion(reduced: bool) -> StableDiffusionPipeline:
    unet = unet_of_sd(reduced)
    words = unet.config.cross_attention_dim
    return StableDiffusionPipeline(
        vae=_vae(4),
        text_encoder=_clip(CLIPTextModel, words),
        tokenizer=_words(),
        unet=unet,
        scheduler=DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl(reduced: bool) -> StableDiffusionXLPipeline:
    unet = unet_of_sdxl(reduced)
    second = unet.config.projection_class_embeddings_input_dim - 6 * unet.config.addition_time_embed_dim
    first = unet.config.cross_attention_dim - second
    return StableDiffusionXLPipeline(
        vae=_vae(4),
        text_encoder=_clip(CLIPTextModel, first),
        text_encoder_2=_clip(CLIPTextModelWithProjection, second),
        tokenizer=_words(),
        tokenizer_2=_words(),
        unet=unet,
        scheduler=EulerDiscreteScheduler(**BETAS, timestep_spacing="leading"),
        add_watermarker=False,
    )


def flux(reduced: bool) -> FluxPipeline:
    transformer = transformer_of_flux(reduced)
    pooled, words = transformer.config.pooled_projection_dim, transformer.config.joint_attention_dim
    pieces = _pieces()
    pipe = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=_vae(16),
        text_encoder=_clip(CLIPTextModel, pooled),
        tokenizer=_words(),
        text_encoder_2=T5EncoderModel(
            T5Config(vocab_size=len(pieces), d_model=words, d_kv=64, d_ff=64, num_layers=1, num_heads=1)
        ),
        tokenizer_2=pieces,
        transformer=transformer,
    )
    pipe.default_sample_size = 8 if reduced else 64  # pictures of 64, of 512
    return pipe


SIZES: dict[str, Callable[[bool], Any]] = {"SD 1.5": stable_diffusion, "SDXL": sdxl, "Flux.1 dev": flux}


def opened(size: str, *, reduced: bool) -> Model:
    """The model: on the GPU in bfloat16, or reduced, on the CPU in float32. The same weights every time."""
    device, dtype = ("cpu", torch.float32) if reduced else ("cuda", torch.bfloat16)
    with torch.random.fork_rng(), _made_on(device, dtype):
        torch.manual_seed(0)
        pipe = SIZES[size](reduced)
    return Model(pipe.to(device), source=f"{size} with random weights", hints=FEW)


@contextmanager
def _made_on(device: str, dtype: torch.dtype) -> Iterator[None]:
    """New weights are made there at once: twelve billion of them fit in no float32 beside others."""
    found = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(found)


def _words() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(CANVAS / "tokenizer", model_max_length=77)


def _pieces() -> T5Tokenizer:
    """A tokenizer of single letters."""
    letters = [(chr(number), -1.0) for number in range(33, 127)]
    return T5Tokenizer(
        vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *letters], extra_ids=0
    )


def _clip(kind: type, width: int) -> Any:
    words = _words()
    ends = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id}
    return kind(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=width,
            intermediate_size=width,
            projection_dim=width,
            num_hidden_layers=1,
            num_attention_heads=2,
            pad_token_id=words.pad_token_id,
            **ends,
        )
    )


def _vae(channels: int) -> AutoencoderKL:
    """Eight pixels a latent, as the real ones."""
    return AutoencoderKL(
        block_out_channels=(8,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=channels,
        norm_num_groups=4,
    )
