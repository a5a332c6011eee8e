"""The networks of the canvas, untrained: one function a part, and how they become a ``StableDiffusionPipeline``."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from pictures import every_caption
from unlearnkit.io.files import write_text

__all__ = [
    "LENGTH",
    "WIDTH",
    "assemble",
    "make_alignment_clip",
    "make_image_tower",
    "make_scheduler",
    "make_text_tower",
    "make_tokenizer",
    "make_unet",
    "make_vae",
    "states",
    "token_ids",
]

LENGTH = 24  # tokens a prompt, start and end included
WIDTH = 128  # of a text state


def make_tokenizer(folder: Path) -> CLIPTokenizer:
    """The tokenizer of the folder's vocab.json and merges.txt; without them, learn both from the world's captions."""
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    if not (vocabulary.is_file() and merges.is_file()):
        symbols, rules = _learn_pairs(every_caption())
        folder.mkdir(parents=True, exist_ok=True)
        write_text(merges, "\n".join(["#version: 0.2", *rules]) + "\n")
        write_text(vocabulary, json.dumps({s: i for i, s in enumerate(symbols)}, ensure_ascii=False))
    return CLIPTokenizer(vocab=str(vocabulary), merges=str(merges), model_max_length=LENGTH)


def _learn_pairs(captions: list[str]) -> tuple[list[str], list[str]]:
    """Byte-pair symbols, in the order of their numbers, and merges; the same every time."""
    like = CLIPTokenizer().backend_tokenizer  # for CLIP's own way of splitting a text
    learned = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learned.normalizer, learned.pre_tokenizer = like.normalizer, like.pre_tokenizer
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    # numbered first: the trainer would number a word's last letter in the order of a hash, and break ties by it
    letters += [letter + "</w>" for letter in letters]  # all of them, so that any text can be written
    trainer = trainers.BpeTrainer(
        vocab_size=900, end_of_word_suffix="</w>", special_tokens=letters, show_progress=False
    )
    learned.train_from_iterator(captions, trainer)
    model = json.loads(learned.to_str())["model"]
    symbols = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return [*symbols, "<|startoftext|>", "<|endoftext|>"], [" ".join(pair) for pair in model["merges"]]


def make_vae() -> AutoencoderKL:
    """64 x 64 x 3 to 16 x 16 x 4 and back; ``scaling_factor`` is set once it is trained."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
        shift_factor=0.0,  # which only pipelines of flow transformers ask for
    )


def make_text_tower(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        projection_dim=WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel._from_config(config, attn_implementation="eager")


def _stage(inside: int, outside: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.GroupNorm(8, outside), nn.SiLU(),
        nn.Conv2d(outside, outside, 3, 1, 1, bias=False), nn.GroupNorm(8, outside), nn.SiLU(),
    )  # fmt: skip


def make_image_tower(width: int = WIDTH) -> nn.Module:
    """The text tower's partner in contrastive training (dropped afterwards): (n, 3, 64, 64) to (n, width)."""
    return nn.Sequential(
        _stage(3, 32, 2), _stage(32, 64, 2), _stage(64, 128, 2), _stage(128, 192, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(192, width),
    )  # fmt: skip


def make_unet() -> UNet2DConditionModel:
    """Epsilon predictor; no attention at 16 x 16. The last layer of every residual branch starts at zero."""
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 112, 160),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )
    for name, module in unet.named_modules():
        if name.endswith(("conv2", "proj_out", "conv_out")):
            nn.init.zeros_(module.weight)
    return unet


def make_scheduler() -> DPMSolverMultistepScheduler:
    """DPM-Solver++ of second order (Lu et al. 2022): ten steps draw what DDIM draws in 25."""
    return DPMSolverMultistepScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="leading",
        steps_offset=1,
        prediction_type="epsilon",
    )


def make_alignment_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """The evaluators' own CLIP: a plain transformers ``CLIPModel`` with a patch-8 vision transformer."""
    tokens = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    text = {
        "hidden_size": 96,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": LENGTH,
    }
    vision = {
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": 64,
        "patch_size": 8,
    }
    config = CLIPConfig(text_config=text | tokens, vision_config=vision, projection_dim=96)
    return CLIPModel._from_config(config, attn_implementation="eager")


def assemble(
    vae: nn.Module, text: nn.Module, tokenizer: CLIPTokenizer, unet: nn.Module
) -> StableDiffusionPipeline:
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def token_ids(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Token numbers of the captions, padded: (n, 24)."""
    ids: Tensor = tokenizer(
        captions, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
    ).input_ids
    return ids


@torch.no_grad()
def states(text: CLIPTextModel, tokenizer: CLIPTokenizer, captions: list[str], batch: int = 256) -> Tensor:
    """Last hidden states of the captions: (n, 24, 128)."""
    ids = torch.split(token_ids(tokenizer, captions), batch)
    return torch.cat([text(part.to(text.device))[0] for part in ids])
