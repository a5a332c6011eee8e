"""A pipeline's folder that leaves some parts to another folder: ``borrowed.json``, such as {"vae": "../pipeline/vae"}.

The relatives of the canvas share its autoencoder and text tower in this way; what is saved is always whole.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from transformers import CLIPTextModel

__all__ = ["BORROWED", "borrowed", "borrows", "opened"]

BORROWED = "borrowed.json"
PROJECTION = "text_projection.weight"


def borrows(path: Path) -> dict[str, str]:
    """Which part the folder borrows, and from where, relative to it."""
    try:
        parts: dict[str, str] = json.loads((path / BORROWED).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return parts


def borrowed(path: Path, index: Mapping[str, Any], **how: Any) -> dict[str, Any]:
    """The parts that the folder borrows, opened as its ``model_index.json`` names them; none without the file.

    how: for ``from_pretrained``. Two parts of one class from one place are one object.
    """
    found: dict[tuple[str, str], Any] = {}
    parts = borrows(path)
    for part, place in parts.items():
        library, name = index[part]
        if (name, place) not in found:
            kind = getattr(importlib.import_module(library), name)
            found[name, place] = opened(kind, path / place, **how)
    return {part: found[index[part][1], place] for part, place in parts.items()}


def opened(kind: Any, place: Path, **how: Any) -> Any:
    """A network or tokenizer of this class; a text tower saved without projection gets that of the identity."""
    if not issubclass(kind, nn.Module):
        return kind.from_pretrained(place)
    network, told = kind.from_pretrained(place, **how, output_loading_info=True)
    missing = set(told["missing_keys"])
    if (
        PROJECTION in missing
    ):  # some releases of transformers look for all of the tower under other names then
        tower, told = CLIPTextModel.from_pretrained(place, **how, output_loading_info=True)
        network.text_model.load_state_dict(getattr(tower, "text_model", tower).state_dict())
        nn.init.eye_(network.text_projection.weight)
        missing = set(told["missing_keys"])
    if missing:
        raise ValueError(f"{str(place)!r} lacks {', '.join(sorted(missing))}")
    return network.eval()
