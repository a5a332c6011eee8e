"""Exported LoRAs in kohya's own loader, at the sizes of Stable Diffusion 1.5 and XL.

It is not part of this repository. ``UNLEARNKIT_KOHYA`` names a folder with the sources of sd-scripts, in an environment
with what they require; without it everything is skipped.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import real_sizes
import tiny
from unlearnkit import Model, save_lora
from unlearnkit.export.names import blocks, encoder, kohya

KOHYA = os.environ.get("UNLEARNKIT_KOHYA")
pytestmark = [
    pytest.mark.skipif(not KOHYA, reason="UNLEARNKIT_KOHYA names no folder with sd-scripts"),
    pytest.mark.filterwarnings("ignore"),
]
# outside the blocks, where sd-scripts train nothing
OUTER = ("conv_in", "conv_out", "time_embedding", "add_embedding")


def theirs(pipe: Any) -> tuple[Any, list[nn.Module]]:
    """sd-scripts' own U-Net on the meta device, and the text encoders under the names that they had there."""
    assert KOHYA
    sys.path.insert(0, KOHYA)
    large = hasattr(pipe, "text_encoder_2")
    with torch.device("meta"):
        if large:
            unet = importlib.import_module("library.sdxl_original_unet").SdxlUNet2DConditionModel()
        else:
            maker = importlib.import_module("library.original_unet").UNet2DConditionModel
            unet = maker(sample_size=64, attention_head_dim=8, cross_attention_dim=768)
    texts = [pipe.text_encoder, pipe.text_encoder_2] if large else [pipe.text_encoder]
    return unet, [text if hasattr(text, "text_model") else under_text_model(text) for text in texts]


def loader() -> Any:
    """sd-scripts' networks/lora.py."""
    assert KOHYA
    spec = importlib.util.spec_from_file_location("kohya_lora", Path(KOHYA) / "networks" / "lora.py")
    assert spec and spec.loader
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    return module


def under_text_model(text: nn.Module) -> nn.Module:
    """transformers 5 leaves out the level ``text_model``, which sd-scripts' transformers has."""
    outer = nn.Module()
    outer.text_model = text
    return outer


@pytest.mark.parametrize("kind", real_sizes.UNETS)
def test_kohya_knows_and_merges_all_of_a_lora(kind: str, words: Path, tmp_path: Path):
    pipe = real_sizes.pipeline(kind, tiny.tokenizer(words))
    edit = real_sizes.changed(pipe, lambda name: not name.startswith(OUTER))
    base = {name: real_sizes.own(pipe, name).clone() for name in edit.weights}
    save_lora(Model(pipe), edit, tmp_path / "lora.safetensors", lose=0)
    unet, texts = theirs(pipe)
    lora = loader()
    network, tensors = lora.create_network_from_weights(
        1.0, str(tmp_path / "lora.safetensors"), None, texts, unet, for_inference=True
    )
    modules = {one.lora_name: one for one in network.text_encoder_loras + network.unet_loras}
    assert {name.split(".")[0] for name in tensors} == set(modules)
    assert len(modules) == len(edit.weights) > 30
    large = hasattr(pipe, "text_encoder_2")
    for name, value in edit.weights.items():
        component, _, rest = name.partition(".")
        module = rest.removesuffix(".weight")
        if component == "unet":
            layer = kohya(module, blocks(pipe.unet) if large else {})
        else:
            layer = encoder(component, module, large=large, peft=False)
        target = modules[layer].org_module
        assert target.weight.shape == value.shape
        real_sizes.put(target, "weight", base[name])
        own = {end.split(".", 1)[1]: one for end, one in tensors.items() if end.split(".")[0] == layer}
        modules[layer].merge_to(own, torch.float32, "cpu")
        assert (target.weight - value).abs().max() <= 1e-6 * value.abs().max(), name
    assert set(load_file(tmp_path / "lora.safetensors")) == set(tensors)


@pytest.mark.parametrize("kind", real_sizes.UNETS)
def test_kohya_has_every_layer_by_its_name(kind: str, words: Path):
    pipe = real_sizes.pipeline(kind, tiny.tokenizer(words))
    unet, texts = theirs(pipe)
    lora = loader()
    network = lora.LoRANetwork(
        texts if len(texts) > 1 else texts[0], unet, conv_lora_dim=1, conv_alpha=1, is_sdxl=len(texts) > 1
    )
    shapes = {
        one.lora_name: one.org_module.weight.shape for one in network.text_encoder_loras + network.unet_loras
    }
    large = len(texts) > 1
    fronts, ours = blocks(pipe.unet) if large else {}, {}
    for name, weight in pipe.unet.named_parameters():
        if weight.dim() > 1 and not name.startswith(OUTER):
            ours[kohya(name.removesuffix(".weight"), fronts)] = weight.shape
    for component in ("text_encoder", "text_encoder_2")[: len(texts)]:
        for name, weight in getattr(pipe, component).named_parameters():
            if ".layers." in f".{name}" and weight.dim() > 1:
                ours[encoder(component, name.removesuffix(".weight"), large=large, peft=False)] = weight.shape
    assert ours == shapes
