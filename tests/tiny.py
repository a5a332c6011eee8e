"""Pipelines of the real diffusers and transformers classes at toy size: they prove wiring, not forgetting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from unlearnkit.model.edit import Edit
from unlearnkit.model.hints import Hints
from unlearnkit.model.model import Model

WORDS = (
    *("cat", "dog", "bear", "car", "tree", "van", "gogh", "neon", "kitten"),
    *("an", "in", "of", "by", "the", "art", "photo", "image", "style", "picture", "painting"),
)
LENGTH = 12
WIDTH = 16
HINTS = Hints(
    steps=3,
    guidance=4.0,
    objects=("cat", "dog", "bear", "car"),
    styles=("van gogh", "neon"),
    templates={"object": ("a photo of a {}", "{} in a picture"), "style": ("art by {}",)},
)


def tokenizer(folder: Path) -> CLIPTokenizer:
    """A CLIP tokenizer of single letters and a few whole words, read from vocab.json and merges.txt."""
    letters = sorted(ByteLevel.alphabet())
    vocab = [*letters, *(letter + "</w>" for letter in letters)]
    merges = []
    for word in WORDS:
        left = word[0]
        for letter in [*word[1:-1], word[-1] + "</w>"]:
            if f"{left} {letter}" not in merges:
                merges.append(f"{left} {letter}")
                vocab.append(left + letter)
            left += letter
    vocab += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(vocab)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=LENGTH)


def clip(words: CLIPTokenizer, kind: type, **changes: Any) -> Any:
    """A text encoder of CLIP's, of a kind of transformers' classes."""
    return kind(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=LENGTH,
            bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
            **changes,
        )
    )


def vae(**changes: Any) -> AutoencoderKL:
    """An autoencoder of 16x16 pictures with 8x8 latents."""
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
        **changes,
    )


def moved(model: Model, edit: Edit) -> dict[str, float]:
    """How far an edit moves the prediction for a cat and for a dog: the mean squared change."""
    draws = torch.Generator().manual_seed(0)
    x, t = torch.randn((16, *model.shape), generator=draws), torch.arange(16) * 60
    found = {}
    for prompt in ("cat", "dog"):
        with torch.no_grad():
            before = model.eps(x, t, model.encode([prompt] * 16))
            with model.wearing(edit):
                after = model.eps(x, t, model.encode([prompt] * 16))
        found[prompt] = (after - before).square().mean().item()
    return found


def pipeline(folder: Path, *, prediction: str = "epsilon", seed: int = 0) -> StableDiffusionPipeline:
    """A Stable Diffusion pipeline with random weights: 16x16 pictures, 8x8 latents, two cross-attention blocks."""
    words = tokenizer(folder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        text = clip(words, CLIPTextModel)
        coder = vae()
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=WIDTH,
            attention_head_dim=2,
            norm_num_groups=4,
        )
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction,
    )
    return StableDiffusionPipeline(
        vae=coder.eval(),
        text_encoder=text.eval(),
        tokenizer=words,
        unet=unet.eval(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
