"""The networks of a model folder, each opened by its own class; a missing weight is an error."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel

from ..errors import ModelError, quoted
from .borrowing import borrowed
from .index import component_class, is_present

__all__ = ["check_finite", "chosen_variant", "networks", "variant_of", "variants"]

# such as model.safetensors, model.fp16-00001-of-00002.safetensors and, older, model-00001-of-00002.fp16.safetensors
_NAME, _VARIANT = r"(?:diffusion_pytorch_model|model)", r"(?:\.(?P<{}>[A-Za-z0-9_-]+?))?"
WEIGHTS = re.compile(
    rf"{_NAME}{_VARIANT.format('before')}(?:-\d+-of-\d+)?{_VARIANT.format('after')}\.safetensors"
)
SHARDS = re.compile(
    rf"{_NAME}{_VARIANT.format('before')}\.safetensors\.index{_VARIANT.format('after')}\.json"
)
SMALL = 2**24  # numbers that are always fine to allocate
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5")


def networks(folder: Path, index: Mapping[str, Any], variant: str | None, **how: Any) -> dict[str, Any]:
    """The networks that the index names, opened, in eval mode. how: for ``from_pretrained``.

    Raises ModelError for a weight that is missing in the files or has another shape.
    """
    opened = borrowed(folder, index, **how)
    kinds = {
        part: component_class(part, entry)
        for part, entry in index.items()
        if is_present(entry) and part not in opened and part != "scheduler"
    }
    kinds = {part: kind for part, kind in kinds.items() if issubclass(kind, nn.Module)}
    chosen_of = {part: variant_of(folder / part, variant) for part in kinds}
    if variant is not None and variant not in chosen_of.values():
        raise ModelError(
            f"model {quoted(folder)} has no weights of the variant {quoted(variant)}: leave it out"
        )
    for part, kind in kinds.items():
        place, chosen, loader = folder / part, chosen_of[part], kind
        _check_size(loader, place, chosen, f"model {quoted(folder)}: {part}")
        network, info = loader.from_pretrained(place, variant=chosen, output_loading_info=True, **how)
        lacking = [*info.get("missing_keys", ()), *info.get("mismatched_keys", ())]
        if lacking:
            name = lacking[0] if isinstance(lacking[0], str) else lacking[0][0]
            raise ModelError(
                f"model {quoted(folder)} is incomplete: {part} has no value for {quoted(name)}"
                + (f" and {len(lacking) - 1} more" if len(lacking) > 1 else "")
            )
        opened[part] = network.eval()
    return opened


def _check_size(kind: Any, place: Path, variant: str | None, where: str) -> None:
    """Raise ModelError if the settings describe far more weights than the files hold, before any is allocated."""
    stored = 0
    for name, one in variants(file.name for file in place.iterdir()).items():
        if one == variant and name.endswith(".safetensors"):
            with safe_open(place / name, framework="pt") as file:
                for weight in file.keys():  # noqa: SIM118 - it is no mapping
                    stored += math.prod(file.get_slice(weight).get_shape())
    with torch.device("meta"):  # shapes without values
        if issubclass(kind, PreTrainedModel):
            network = kind(kind.config_class.from_pretrained(place, local_files_only=True))
        else:
            network = kind.from_config(kind.load_config(place, local_files_only=True))
    described = sum(weight.numel() for weight in network.parameters())
    if described > 2 * stored + SMALL:
        raise ModelError(
            f"{where} has settings of {described:,} numbers and weights of {stored:,}: they do not belong together"
        )


def variant_of(place: Path, variant: str | None = None) -> str | None:
    """The variant of a component's weights in this folder, see ``chosen_variant``."""
    return chosen_variant((file.name for file in place.iterdir()), variant, f"folder {quoted(place)}")


def variants(names: Iterable[str]) -> dict[str, str | None]:
    """The files that hold a network's weights or list their shards, each with its variant or None."""
    matches = {name: WEIGHTS.fullmatch(name) or SHARDS.fullmatch(name) for name in names}
    return {name: match["before"] or match["after"] for name, match in matches.items() if match}


def chosen_variant(names: Iterable[str], variant: str | None, where: str) -> str | None:
    """The variant to open: ``variant`` if it is there, else the plain files, else the only variant.

    Raises ModelError for no safetensors file, and for several variants to choose from.
    """
    names = list(names)
    available = set(variants(names).values())
    if variant in available or None in available:
        return variant if variant in available else None
    known = sorted(one for one in available if one)
    if variant is None and len(known) == 1:
        return known[0]
    if known:
        others = f"the variants {', '.join(known)}"
        what = f"not {quoted(variant)}, but {others}" if variant else others
        raise ModelError(f"{where} has {what}: choose one of them with --variant (in Python variant=)")
    if any(name.endswith(PICKLES) for name in names):
        raise ModelError(f"{where} has no .safetensors weights: convert them (pickles can run code)")
    raise ModelError(
        f"{where} has no .safetensors weights: its files are damaged or missing, fetch them again"
    )


def check_finite(source: str | Path, pipe: Any) -> None:
    """Raise ModelError for a network with a weight that is not a finite number."""
    for part, component in pipe.components.items():
        if not isinstance(component, nn.Module):
            continue
        for name, weight in component.named_parameters():
            if weight.device.type == "meta":
                raise ModelError(f"model {quoted(source)} is incomplete: {part} has no value for {name!r}")
            # one pass; a sum that overflows is checked again
            if not torch.isfinite(weight.sum(dtype=torch.float32)) and not torch.isfinite(weight).all():
                raise ModelError(
                    f"model {quoted(source)} is damaged: {part} holds a value in {name!r} that is not a finite number"
                )
