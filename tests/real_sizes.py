"""Pipelines of Stable Diffusion 1.5 and XL with their own names and shapes, and no numbers but in chosen layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

import kinds
from unlearnkit import Edit

UNETS: dict[str, dict[str, Any]] = {
    "Stable Diffusion 1.5": {"cross_attention_dim": 768, "sample_size": 64},
    "Stable Diffusion XL": {
        "cross_attention_dim": 2048,
        "sample_size": 128,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
ENCODERS: dict[str, dict[str, Any]] = {
    "text_encoder": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    },
    "text_encoder_2": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "projection_dim": 1280,
        "hidden_act": "gelu",
    },
}


def pipeline(kind: str, words: Any) -> Any:
    """The pipeline: every weight has its shape, and all its numbers are one zero, so it takes no memory."""
    large = kind == "Stable Diffusion XL"
    with torch.device("meta"):
        unet = UNet2DConditionModel(**UNETS[kind]).eval()
        text = CLIPTextModel(CLIPTextConfig(**ENCODERS["text_encoder"])).eval()
        more = (
            CLIPTextModelWithProjection(CLIPTextConfig(**ENCODERS["text_encoder_2"])).eval()
            if large
            else None
        )
    for network in filter(None, (unet, text, more)):
        for name, weight in network.named_parameters():
            put(network, name, torch.zeros(1).expand(weight.shape))
    parts: dict[str, Any] = {"vae": kinds.vae(), "text_encoder": text, "tokenizer": words, "unet": unet}
    parts["scheduler"] = DDIMScheduler(**kinds.BETAS)
    if large:
        return StableDiffusionXLPipeline(
            **parts, text_encoder_2=more, tokenizer_2=words, add_watermarker=False
        )
    return StableDiffusionPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )


def put(network: torch.nn.Module, name: str, value: Tensor) -> None:
    """Set a network's weight."""
    module, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(module), leaf, torch.nn.Parameter(value, requires_grad=False))


def own(pipe: Any, name: str) -> Tensor:
    """The weight of this full name."""
    component, _, rest = name.partition(".")
    weight: Tensor = getattr(pipe, component).get_parameter(rest)
    return weight.detach()


def changed(pipe: Any, belongs: Callable[[str], bool] = lambda name: True) -> Edit:
    """An edit of one layer of every kind, and of cross-attention in every shape, by products of rank 2.

    The pipeline gets numbers there.
    """
    first: dict[tuple[Any, ...], str] = {}
    for component in ("unet", "text_encoder", "text_encoder_2"):
        network = getattr(pipe, component, None)
        for name, weight in network.named_parameters() if network is not None else ():
            if weight.dim() > 1 and belongs(name) and (component == "unet" or ".layers." in name):
                kind = ".".join(part for part in name.split(".")[1:] if not part.isdigit())
                shape = tuple(weight.shape) if ".attn2." in name else None
                first.setdefault((component, kind, shape), f"{component}.{name}")
    draws, weights = torch.Generator().manual_seed(0), {}
    for name in first.values():
        component, _, rest = name.partition(".")
        shape = own(pipe, name).shape
        put(getattr(pipe, component), rest, value := torch.randn(shape, generator=draws))
        flat = value.flatten(1)
        move = torch.randn((len(flat), 2), generator=draws) @ torch.randn((2, flat.shape[1]), generator=draws)
        weights[name] = (flat + 0.1 * move).view(shape)
    return Edit(weights, {"source": "numbers at random"})
