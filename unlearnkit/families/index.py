"""A model folder's index and configurations, checked before a loader sees them. Only expected classes are opened.

A folder's ``model_index.json`` names a class for every component, and loaders import what it names. So each component
has a list of allowed classes here. Any other class, code in the folder and configurations of enormous size are refused
in one line, in every release of diffusers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ModelError, quoted, reason
from ..io.lazy import importing
from ..io.reading import read_json
from .bounds import check_config, check_shards

__all__ = ["INDEX", "REQUIRED", "checked_index", "checked_parts", "component_class", "is_present"]

INDEX = "model_index.json"
CONFIGS = ("config.json", "scheduler_config.json", "preprocessor_config.json", "generation_config.json")
UNET, TRANSFORMER = ("UNet2DConditionModel", "UNet2DModel"), "Transformer2DModel"
ENCODERS = ("CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel")
TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast", "T5Tokenizer", "T5TokenizerFast")
NUMBERED = ("text_encoder", "tokenizer")  # these come as text_encoder_2 and so on, too
# the classes of each component, by the library that the index names
ALLOWED: dict[str, dict[str, tuple[str, ...]]] = {
    "unet": {"diffusers": UNET},
    "transformer": {
        "diffusers": (TRANSFORMER, *(f"{kind}{TRANSFORMER}" for kind in ("SD3", "Flux", "PixArt", "DiT")))
    },
    "vae": {"diffusers": ("AutoencoderKL",)},
    "text_encoder": {"transformers": ENCODERS},
    "tokenizer": {"transformers": TOKENIZERS},
    "image_encoder": {"transformers": ("CLIPVisionModelWithProjection", "SiglipVisionModel")},
    "feature_extractor": {
        "transformers": (
            *(
                "CLIPImageProcessor",
                "CLIPImageProcessorPil",
                "CLIPImageProcessorFast",
                "CLIPFeatureExtractor",
            ),
            *("SiglipImageProcessor", "SiglipImageProcessorPil", "SiglipImageProcessorFast"),
        )
    },
    "safety_checker": {"stable_diffusion": ("StableDiffusionSafetyChecker",)},
}
BOTH = ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")
# the components that each pipeline needs
REQUIRED: dict[str, tuple[str, ...]] = {
    "StableDiffusionPipeline": ("unet", "vae", "text_encoder", "tokenizer", "scheduler"),
    "StableDiffusionXLPipeline": ("unet", *BOTH),
    "StableDiffusion3Pipeline": ("transformer", *BOTH),
    "FluxPipeline": ("transformer", *BOTH),
    "PixArtSigmaPipeline": ("transformer", "vae", "text_encoder", "tokenizer", "scheduler"),
    "DiTPipeline": ("transformer", "vae", "scheduler"),
    "ClassUNetPipeline": ("unet", "scheduler"),
}


def checked_index(path: Path, source: str | Path) -> dict[str, Any]:
    """The ``model_index.json`` of a folder. Raises ModelError for one that must not be opened."""
    index = read_json(path, what="the index", kind=dict, error=ModelError)
    name = index.get("_class_name")
    if isinstance(name, list):
        raise ModelError(f"model {quoted(source)} names a pipeline in code of its own, which is never run")
    if not isinstance(name, str) or name not in REQUIRED:
        allowed = ", ".join(REQUIRED)
        raise ModelError(
            f"model {quoted(source)} is a {quoted(name)}, which is not supported: use one of {allowed}"
        )
    for part, value in index.items():
        if isinstance(value, list):
            _check_entry(source, part, value)
    for part in REQUIRED[name]:
        if not is_present(index.get(part)):
            raise ModelError(
                f"model {quoted(source)} has no {part} ({INDEX} says {quoted(index.get(part))}): save or fetch it whole"
            )
    return index


def is_present(entry: Any) -> bool:
    """Whether an entry of the index names a component."""
    return isinstance(entry, list) and entry != [None, None]


def component_class(part: str, entry: list[str]) -> Any:
    """The class of a checked entry. Raises ModelError if the installed library lacks it."""
    import diffusers
    import transformers
    from diffusers.pipelines import stable_diffusion

    library, name = entry
    known = {"diffusers": diffusers, "transformers": transformers, "stable_diffusion": stable_diffusion}
    with importing():
        cls = getattr(known[library], name, None)
    if cls is None or (part == "scheduler" and not issubclass(cls, diffusers.SchedulerMixin)):
        raise ModelError(f"component {part} is {quoted(name)}, which the installed {library} does not have")
    return cls


def checked_parts(folder: Path, parts: Mapping[str, Any], source: str | Path) -> None:
    """Raise ModelError for components' folders with code, and for configurations that are damaged or enormous."""
    for part, entry in parts.items():
        if not is_present(entry):
            continue
        place = folder / part
        try:
            files = sorted(place.iterdir()) if place.is_dir() else []
        except OSError as error:
            raise ModelError(f"folder {quoted(place)} cannot be read: {reason(error)}") from None
        if not files:
            raise ModelError(f"model {quoted(source)} is incomplete: its folder {part} is missing or empty")
        for file in files:
            if not os.access(file, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
                raise ModelError(f"file {quoted(file)} cannot be read: no permission")
            if not file.is_file() and not file.is_dir():  # reading a pipe would block
                raise ModelError(f"file {quoted(file)} cannot be read: it is no regular file")
            if file.suffix in (".py", ".pyc", ".so"):
                raise ModelError(
                    f"model {quoted(source)} has code ({part}/{file.name}), which is never run: remove the file if you "
                    "trust its weights"
                )
            if file.name == "adapter_config.json":
                raise ModelError(
                    f"model {quoted(source)} has an adapter ({part}/{file.name}): merge it into the weights, or "
                    "remove it"
                )
            if file.name.endswith(".json") and ".safetensors.index" in file.name:
                listed = read_json(file, what="the list of shards", kind=dict, error=ModelError)
                check_shards(listed, file)
        for name in CONFIGS:
            if (place / name).exists():
                check_config(
                    read_json(place / name, what="the configuration", kind=dict, error=ModelError),
                    place / name,
                    component_class(part, entry),
                )
        if part.startswith("tokenizer"):
            _check_tokenizer(place, source, part)


def _check_entry(source: str | Path, part: str, entry: list[Any]) -> None:
    """Raise ModelError for a component of an unexpected class."""
    if part.startswith("_"):
        raise ModelError(
            f"model {quoted(source)}: {INDEX} has {quoted(part)} = {quoted(entry)}: a text belongs there"
        )
    if entry == [None, None]:
        return
    if len(entry) != 2 or not all(isinstance(one, str) for one in entry):
        raise ModelError(
            f"model {quoted(source)}: {INDEX} names {part} as {quoted(entry)}: it takes a library and a class"
        )
    library, name = entry
    kind = next((kind for kind in NUMBERED if part in (kind, f"{kind}_2", f"{kind}_3")), part)
    if kind == "scheduler":
        allowed = library == "diffusers" and name.isidentifier() and name.endswith("Scheduler")
    else:
        allowed = name in ALLOWED.get(kind, {}).get(library, ())
    if not allowed:
        raise ModelError(
            f"model {quoted(source)} names {quoted(name)} of {quoted(library)} as its {quoted(part)}, which is not "
            "supported: unlearnkit opens only diffusers' and transformers' own classes, and no code of a model folder"
        )


def _check_tokenizer(place: Path, source: str | Path, part: str) -> None:
    # without its files transformers makes a tokenizer of three tokens
    if not any((place / name).is_file() for name in ("tokenizer.json", "vocab.json", "spiece.model")):
        raise ModelError(f"model {quoted(source)} is incomplete: its folder {part} has no tokenizer file")
    for name in ("tokenizer.json", "vocab.json", "tokenizer_config.json", "special_tokens_map.json"):
        if (place / name).exists():
            # the length may be 10^30, which means "no limit" in transformers
            config = read_json(
                place / name, what="the tokenizer", kind=dict, largest=10**40, error=ModelError
            )
            if "auto_map" in config:
                raise ModelError(
                    f"{quoted(place / name)} asks for code of its own (auto_map), which is never run"
                )
