"""What other tools call the layers of a U-Net and of text encoders in a LoRA file.

kohya's sd-scripts train Stable Diffusion 1 and 2 on diffusers' U-Net, and SDXL on the one of Stability's own code, with
``input_blocks``, ``middle_block`` and ``output_blocks``. ComfyUI knows both ways of naming, and diffusers translates
both into its own.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["blocks", "encoder", "is_outer", "kohya"]

# outside the blocks: sd-scripts and diffusers up to 0.35 read a LoRA of blocks only
OUTER = ("conv_in", "conv_out", "time_embedding", "add_embedding")
RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
AROUND = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
# of SDXL's size and crop: these alone diffusers does not find by its own names
LABELS = {name: front for name, front in AROUND.items() if name.startswith("add_embedding")}
MOST = 10  # blocks a side: diffusers takes input_blocks_10 for input_blocks_1


def is_outer(module: str) -> bool:
    """Whether a layer of a U-Net is outside its blocks."""
    return module.startswith(OUTER)


def kohya(module: str, fronts: dict[str, str]) -> str:
    """The name of a U-Net's layer in kohya's files; ``fronts`` are those of ``blocks``, for SDXL."""
    fronts = fronts or LABELS
    front = next((front for front in fronts if f"{module}.".startswith(f"{front}.")), "")
    if front:
        inside = module.removeprefix(front).removeprefix(".")
        if ".resnets." in front:
            inside = RESNET[inside]
        module = f"{fronts[front]}.{inside}".removesuffix(".")
    return f"lora_unet_{module.replace('.', '_')}"


def encoder(component: str, module: str, *, large: bool, peft: bool) -> str:
    """The name of a CLIP text encoder's layer: ``lora_te_text_model_...``, or PEFT's for a pipeline of a transformer.

    large: SDXL, whose two encoders are ``lora_te1`` and ``lora_te2``.
    """
    module = module if module.startswith("text_model.") else f"text_model.{module}"
    if peft:
        return f"{component}.{module}"
    number = {"text_encoder": "1", "text_encoder_2": "2"}[component] if large else ""
    return f"lora_te{number}_{module.replace('.', '_')}"


def blocks(unet: Any) -> dict[str, str]:
    """Stability's name of every block and outer layer of SDXL's U-Net, by the one that diffusers gives it.

    Nothing for a U-Net that is built in another way, which sd-scripts do not know.
    """
    layers = unet.config.layers_per_block
    if not isinstance(layers, int):
        return {}
    names, width = dict(AROUND), layers + 1
    for level in range(len(unet.down_blocks)):
        for layer in range(layers):
            names[f"down_blocks.{level}.resnets.{layer}"] = f"input_blocks.{width * level + layer + 1}.0"
            names[f"down_blocks.{level}.attentions.{layer}"] = f"input_blocks.{width * level + layer + 1}.1"
        names[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{width * (level + 1)}.0.op"
    for level, block in enumerate(unet.up_blocks):
        for layer in range(width):
            names[f"up_blocks.{level}.resnets.{layer}"] = f"output_blocks.{width * level + layer}.0"
            names[f"up_blocks.{level}.attentions.{layer}"] = f"output_blocks.{width * level + layer}.1"
        names[f"up_blocks.{level}.upsamplers.0.conv"] = f"output_blocks.{width * level + layers}.2.conv"
        if getattr(block, "upsamplers", None) and not getattr(block, "attentions", None):
            return {}  # there the upsampler has the attention's number, as which diffusers reads it
    numbers = [int(re.findall(r"\d+", name)[0]) for name in names.values() if "put_blocks." in name]
    fronts = tuple(f"{front}." for front in names)
    named = all(f"{name}.".startswith(fronts) for name, layer in unet.named_modules() if _has_matrix(layer))
    return names if named and max(numbers) < MOST else {}


def _has_matrix(layer: Any) -> bool:
    """Whether a LoRA can change the layer: it has a matrix or a convolution."""
    weight = getattr(layer, "weight", None)
    return weight is not None and weight.dim() > 1
