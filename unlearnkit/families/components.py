"""The components of a model folder, each opened by its own class and held to what its loader says is missing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import ModelError, quoted
from .borrowing import borrowed
from .index import component_class, is_present

__all__ = ["check_finite", "networks", "variant_of"]

WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|model)(?:\.(?P<variant>[\w-]+?))?(?:-\d+-of-\d+)?\.safetensors"
)


def networks(folder: Path, index: Mapping[str, Any], variant: str | None, **how: Any) -> dict[str, Any]:
    """The networks that the index names, opened, in eval mode. how: for ``from_pretrained``.

    Raises ModelError where a weight has no value in the files, or one of another shape.
    """
    found = borrowed(folder, index, **how)
    for part, entry in index.items():
        if not is_present(entry) or part in found or part == "scheduler":
            continue
        kind = component_class(part, entry)
        if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
            continue
        place = folder / part
        loader: Any = kind
        network, said = loader.from_pretrained(
            place, variant=variant_of(place, variant), output_loading_info=True, **how
        )
        lacking = [*said.get("missing_keys", ()), *said.get("mismatched_keys", ())]
        if lacking:
            name = lacking[0] if isinstance(lacking[0], str) else lacking[0][0]
            raise ModelError(
                f"model {quoted(folder)} is incomplete: {part} has no value for {quoted(name)}"
                + (f" and {len(lacking) - 1} more" if len(lacking) > 1 else "")
            )
        found[part] = network.eval()
    return found


def variant_of(place: Path, wanted: str | None = None) -> str | None:
    """The variant of a component's weights: ``wanted`` if it is there, none where plain files are, else the only one.

    Raises ModelError where there is no safetensors file, or several variants to choose from.
    """
    matches = [WEIGHTS.fullmatch(file.name) for file in place.iterdir()]
    there = {match["variant"] for match in matches if match}
    if wanted in there or (wanted is not None and None in there):
        return wanted if wanted in there else None
    if not there:
        raise ModelError(
            f"folder {quoted(place)} has no .safetensors weights: convert them (pickles can run code)"
        )
    if None in there:
        return None
    if len(there) > 1 or wanted is not None:
        names = ", ".join(sorted(str(one) for one in there))
        raise ModelError(f"folder {quoted(place)} has the variants {names}: choose one of them with variant=")
    return next(iter(there))


def check_finite(source: str | Path, pipe: Any) -> None:
    """Raise ModelError for a network with a weight that is not a finite number."""
    for part, component in pipe.components.items():
        if not isinstance(component, nn.Module):
            continue
        for name, weight in component.named_parameters():
            if weight.device.type == "meta":
                raise ModelError(f"model {quoted(source)} is incomplete: {part} has no value for {name!r}")
            # one pass; a sum that overflows is looked at again
            if not torch.isfinite(weight.sum(dtype=torch.float32)) and not torch.isfinite(weight).all():
                raise ModelError(
                    f"model {quoted(source)} is damaged: {part} holds a value in {name!r} that is not a finite number"
                )
