"""One tiny pipeline of the real classes for every family: they prove wiring, not forgetting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

import tiny
from unlearnkit.families.class_pipeline import ClassUNetPipeline

WIDTH = 16
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}


def clip(words: CLIPTokenizer, kind: type) -> Any:
    return tiny.clip(words, kind, projection_dim=WIDTH).eval()


def sentencepiece() -> T5Tokenizer:
    letters = [chr(number) for number in range(33, 127)]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    vocab += [(f"▁{word}", -1.0) for word in tiny.WORDS] + [(letter, -9.0) for letter in letters]
    return T5Tokenizer(vocab=vocab, extra_ids=0)


def t5(words: T5Tokenizer, width: int) -> T5EncoderModel:
    config = T5Config(
        vocab_size=len(words), d_model=width, d_kv=8, d_ff=16, num_layers=1, num_heads=2, pad_token_id=0
    )
    return T5EncoderModel(config).eval()


def vae(**changes: Any) -> AutoencoderKL:
    return tiny.vae(**changes).eval()


def stable_diffusion(folder: Path) -> Any:
    return tiny.pipeline(folder)


def sdxl(folder: Path, *, force_zeros: bool = True) -> StableDiffusionXLPipeline:
    words = tiny.tokenizer(folder)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=2 * WIDTH,
        attention_head_dim=2,
        norm_num_groups=4,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
    )
    return StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=clip(words, CLIPTextModel),
        text_encoder_2=clip(words, CLIPTextModelWithProjection),
        tokenizer=words,
        tokenizer_2=words,
        unet=unet.eval(),
        scheduler=EulerDiscreteScheduler(**BETAS, timestep_spacing="leading"),
        force_zeros_for_empty_prompt=force_zeros,
        add_watermarker=False,
    )


def sd3(folder: Path) -> StableDiffusion3Pipeline:
    words, pieces = tiny.tokenizer(folder), sentencepiece()
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=3 * WIDTH,
        caption_projection_dim=WIDTH,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=16,
        qk_norm="rms_norm",
        dual_attention_layers=(0,),
    )
    return StableDiffusion3Pipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(shift_factor=0.1, scaling_factor=1.5),
        text_encoder=clip(words, CLIPTextModelWithProjection),
        tokenizer=words,
        text_encoder_2=clip(words, CLIPTextModelWithProjection),
        tokenizer_2=words,
        text_encoder_3=t5(pieces, 3 * WIDTH),
        tokenizer_3=pieces,
    )


def flux(folder: Path, *, schnell: bool = False, single: int = 1) -> FluxPipeline:
    words, pieces = tiny.tokenizer(folder), sentencepiece()
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=single,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=not schnell,
        axes_dims_rope=(4, 6, 6),
    )
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            shift=1.0 if schnell else 3.0, use_dynamic_shifting=not schnell
        ),
        vae=vae(shift_factor=0.1, scaling_factor=0.5),
        text_encoder=clip(words, CLIPTextModel),
        tokenizer=words,
        text_encoder_2=t5(pieces, WIDTH),
        tokenizer_2=pieces,
        transformer=transformer.eval(),
    )


def pixart(folder: Path) -> PixArtSigmaPipeline:
    pieces = sentencepiece()
    transformer = PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        cross_attention_dim=WIDTH,
        sample_size=8,
        patch_size=2,
        caption_channels=WIDTH,
        use_additional_conditions=False,
    )
    return PixArtSigmaPipeline(
        tokenizer=pieces,
        text_encoder=t5(pieces, WIDTH),
        vae=vae(),
        transformer=transformer.eval(),
        scheduler=DDIMScheduler(clip_sample=False),
    )


CLASSES = {3: "dog", 7: "cat, kitten", 9: "bear", 12: "car"}


def dit(folder: Path) -> DiTPipeline:
    transformer = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=8,
        patch_size=2,
    )
    return DiTPipeline(
        transformer=transformer.eval(),
        vae=vae(),
        scheduler=DDIMScheduler(clip_sample=False, beta_schedule="linear"),
        id2label=CLASSES,
    )


def class_unet(folder: Path) -> ClassUNetPipeline:
    unet = UNet2DModel(
        sample_size=16,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
        norm_num_groups=4,
        num_class_embeds=14,
    )
    labels = {str(number): names for number, names in CLASSES.items()}
    return ClassUNetPipeline(unet.eval(), DDIMScheduler(), labels)


KINDS: dict[str, Callable[[Path], Any]] = {
    "Stable Diffusion 1.x/2.x": stable_diffusion,
    "Stable Diffusion XL": sdxl,
    "Stable Diffusion 3/3.5": sd3,
    "Flux.1": flux,
    "PixArt-Sigma": pixart,
    "class-conditional DiT": dit,
    "class-conditional U-Net": class_unet,
}


def pipeline(kind: str, folder: Path, **changes: Any) -> Any:
    """A pipeline of the family with this title; weights drawn from a fixed seed, no layer of it zero."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipe = KINDS[kind](folder, **changes)
        for network in pipe.components.values():
            if isinstance(network, torch.nn.Module):
                for weight in network.parameters():
                    if not weight.any():  # zero at first, so that nothing would come through
                        torch.nn.init.normal_(weight.data, std=0.1)
    return pipe
