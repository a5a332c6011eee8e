"""Recognise a single .safetensors file of Stable Diffusion 1.x, 2.x or XL in the original layout, or say what it is."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..errors import ModelError, quoted, reason
from . import hub
from .index import INDEX, checked_index, checked_parts, is_present

__all__ = ["V1", "XL", "recognised"]

V1 = "model.diffusion_model.output_blocks.11.0.skip_connection.weight"
V2 = "model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight"
XL = "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias"
FIRST = "model.diffusion_model.input_blocks.0.0.weight"
# the repository with the settings of each, as in diffusers
SETTINGS = {
    "StableDiffusionXLPipeline": "stabilityai/stable-diffusion-xl-base-1.0",
    "v2": "stabilityai/stable-diffusion-2-1",
    "v1": "stable-diffusion-v1-5/stable-diffusion-v1-5",
}
# kinds of files by a part of their weights' names; the first that fits counts
OTHER_KINDS = (
    (
        ("lora_up", "lora_down", ".lora_A.", ".lora_B.", "lora_unet_", "lora.up.", ".hada_w", ".lokr_w"),
        "is a LoRA",
    ),
    (("control_model.", "controlnet_", "control_layers.", "control_all_"), "is a ControlNet"),
    (("motion_modules.",), "is a motion module of AnimateDiff"),
    (
        ("single_stream_modulation", "early_stream_modulations"),
        "is of a newer Flux, which is not supported",
    ),
    (("double_blocks.", "single_blocks."), "is a single file of Flux.1, which is not supported"),
    (("joint_blocks.",), "is a single file of Stable Diffusion 3, which is not supported"),
    (
        ("conditioner.embedders.0.model.transformer",),
        "is the refiner of Stable Diffusion XL, which is not supported",
    ),
    (("edm_mean",), "is a single file of Playground 2.5, which is not supported"),
    (("emb_params", "string_to_param", "clip_l", "clip_g"), "is an embedding (textual inversion)"),
)
SINGLE_NETWORKS = (
    (("down_blocks.", "transformer_blocks."), "is the denoiser of a diffusers folder alone"),
    (("text_model.", "encoder.layers.", "encoder.block."), "is a text encoder alone"),
    (("decoder.up", "encoder.down"), "is a VAE alone"),
    (("model.diffusion_model.",), "is a denoiser alone, or of a kind that is not supported"),
)
ONLY = "single files are read of whole Stable Diffusion 1.x, 2.x and XL checkpoints only"


def recognised(path: Path) -> tuple[str, Path]:
    """The pipeline class of a single file, and the folder with its settings, which come from the hub or its cache.

    Raises ModelError for a file of another kind. The settings are checked like those of any folder before anything is
    opened: diffusers would look for them in the working folder first.
    """
    where = f"file {quoted(path)}"
    if path.suffix != ".safetensors":
        raise ModelError(f"{where} is not supported: convert it to .safetensors (pickled files can run code)")
    kind = _kind(path, where)
    try:
        settings = _settings(SETTINGS[kind])
    except ModelError as error:
        raise ModelError(f"{where} needs settings from the hub: {error}") from None
    return (kind if kind.startswith("Stable") else "StableDiffusionPipeline"), settings


def _kind(path: Path, where: str) -> str:
    """Which of ``SETTINGS`` the file is read with."""
    try:
        with safe_open(path, framework="pt") as stored:
            names, facts = set(stored.keys()), stored.metadata() or {}
            second = V2 in names and stored.get_slice(V2).get_shape()[-1] == 1024
            channels = stored.get_slice(FIRST).get_shape()[1:2] if FIRST in names else [4]
    except OSError as error:
        raise ModelError(f"{where} cannot be read: {reason(error)}") from None
    except SafetensorError as error:
        raise ModelError(
            f"{where} is damaged or no .safetensors file: {' '.join(str(error).split())}"
        ) from None
    if "unlearnkit" in facts:
        raise ModelError(
            f"{where} is an edit of unlearnkit: give the model that it was made from, and it with --edit"
        )
    for words, what in OTHER_KINDS:
        if _any(names, words):
            raise ModelError(f"{where} {what}: {ONLY}, anything else as a diffusers folder or hub id")
    if channels != [4]:
        raise ModelError(
            f"{where} is a model that takes more than a latent: inpainting, depth and editing models are not supported"
        )
    if XL in names:
        return "StableDiffusionXLPipeline"
    if V1 in names:
        return "v2" if second else "v1"
    for parts, what in SINGLE_NETWORKS:
        if _any(names, parts):
            raise ModelError(f"{where} {what}: {ONLY}")
    first = quoted(min(names)) if names else "none"
    raise ModelError(
        f"{where} is no checkpoint of Stable Diffusion, by the names of its weights ({first}): {ONLY}"
    )


def _any(names: Collection[str], words: tuple[str, ...]) -> bool:
    return any(word in name for name in names for word in words)


def _settings(source: str) -> Path:
    """The folder of this repository's settings and tokenizers without any weights, each checked."""
    local = hub.is_unreachable(source)
    file = hub.download(source, INDEX, local=local)
    folder = file.parent
    index = {p: entry for p, entry in checked_index(file, source).items() if p != "safety_checker"}
    for part, entry in index.items():
        if is_present(entry):
            for name in _files(part):
                hub.download(source, f"{part}/{name}", folder.name, local=local)
    checked_parts(folder, index, source)
    return folder


def _files(part: str) -> tuple[str, ...]:
    if part.startswith("tokenizer"):
        return "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json"
    if part == "scheduler":
        return ("scheduler_config.json",)
    return ("preprocessor_config.json",) if part == "feature_extractor" else ("config.json",)
