"""The canvas's relatives: other families of model that know the same world, with its autoencoder and text tower.

``canvas-flow`` is a ``StableDiffusion3Pipeline``: rectified flow by a small transformer with joint attention; both of
its CLIP encoders are the canvas's text tower, T5 is left out. ``canvas-classes`` is a ``DiTPipeline`` that is told one
of the objects.
"""

from __future__ import annotations

import torch
from diffusers import (
    DiTPipeline,
    DiTTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

import networks
from networks import LENGTH, WIDTH
from unlearnkit.canvas import world

__all__ = [
    "NULL",
    "assemble_classes",
    "assemble_flow",
    "make_classes",
    "make_flow",
    "told",
    "with_t5",
]

NULL = 1000  # DiTPipeline's class for none


def make_flow() -> SD3Transformer2DModel:
    """Velocity predictor of 4.4 M weights on 8 x 8 patches."""
    flow = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=6,
        attention_head_dim=36,
        num_attention_heads=4,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=144,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=8,
        qk_norm="rms_norm",
    )
    _begin(flow, ("norm1.linear", "norm1_context.linear", "norm_out.linear", "proj_out"))
    return flow


def make_classes() -> DiTTransformer2DModel:
    """Epsilon predictor on 8 x 8 patches. The objects are the first of its 1,000 classes, in the world's order."""
    classes = DiTTransformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=6,
        attention_head_dim=32,
        num_attention_heads=4,
        num_embeds_ada_norm=NULL,
    )
    _begin(classes, ("norm1.linear", "proj_out_1", "proj_out_2"))
    for block in classes.transformer_blocks:
        block.norm1.emb.class_embedder.dropout_prob = 0.0  # each layer would drop other classes than the next
    return classes


def _begin(network: nn.Module, zero: tuple[str, ...]) -> None:
    """First weights of a diffusion transformer: Glorot's, and every residual branch at zero (Peebles and Xie 2022)."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
            if name.endswith(zero):
                nn.init.zeros_(module.weight)


def assemble_flow(
    vae: nn.Module, text: CLIPTextModelWithProjection, tokenizer: CLIPTokenizer, flow: nn.Module
) -> StableDiffusion3Pipeline:
    return StableDiffusion3Pipeline(
        vae=vae,
        text_encoder=text,
        text_encoder_2=text,
        text_encoder_3=None,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        tokenizer_3=None,
        transformer=flow,
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )


def assemble_classes(vae: nn.Module, classes: nn.Module) -> DiTPipeline:
    return DiTPipeline(
        transformer=classes,
        vae=vae,
        scheduler=networks.make_scheduler(),
        id2label=dict(enumerate(world.OBJECTS)),
    )


@torch.no_grad()
def told(pipe: StableDiffusion3Pipeline, captions: list[str]) -> tuple[Tensor, Tensor]:
    """What the flow is told of captions: states (n, 24, 256) and pooled (n, 256), in bfloat16."""
    found = pipe.encode_prompt(captions, None, None, do_classifier_free_guidance=False)
    return found[0][:, :LENGTH].bfloat16(), found[2].bfloat16()


def with_t5(states: Tensor) -> Tensor:
    """States as the pipeline has them with as many tokens of T5, which are zeros: (n, 48, 256).

    It is drawn from with as many, the hints' ``tokens``: 256, the pipeline's own number, draw the attention away.
    """
    return torch.cat([states, torch.zeros_like(states)], dim=1)
