"""Components that the canvas's relatives share with the canvas: ``borrowed.json``, such as {"vae": "../pipeline/vae"}.

Only unlearnkit's own folders may do so. A saved pipeline is always whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from transformers import CLIPTextModel

from ..errors import ModelError, quoted
from ..io.reading import read_json
from .index import component_class

__all__ = ["BORROWED", "SHIPPED", "borrowed", "borrows", "opened"]

BORROWED = "borrowed.json"
SHIPPED = Path(__file__).parents[1] / "canvas" / "weights"
PROJECTION = "text_projection.weight"


def borrows(path: Path) -> dict[str, Path]:
    """The components that the folder borrows, with their folders. Raises ModelError for a folder that is not ours."""
    if not (path / BORROWED).exists():
        return {}
    if path.resolve().parent != SHIPPED.resolve():
        raise ModelError(
            f"model {quoted(path)} has a {BORROWED}, which only unlearnkit's own canvas may have: put the components "
            "themselves into the folder, and remove that file"
        )
    parts = read_json(path / BORROWED, what="the list of borrowed parts", kind=dict, error=ModelError)
    return {part: SHIPPED / "pipeline" / Path(str(place)).name for part, place in parts.items()}


def borrowed(path: Path, index: Mapping[str, Any], **how: Any) -> dict[str, Any]:
    """The components that the folder borrows, opened as its checked index names them; none without the file.

    how: for ``from_pretrained``. Two components of one class from one folder are one object.
    """
    opened_parts: dict[tuple[str, Path], Any] = {}
    parts = borrows(path)
    for part, place in parts.items():
        class_name = index[part][1]
        if (class_name, place) not in opened_parts:
            opened_parts[class_name, place] = opened(component_class(part, index[part]), place, **how)
    return {part: opened_parts[index[part][1], place] for part, place in parts.items()}


def opened(kind: Any, place: Path, **how: Any) -> Any:
    """A network or tokenizer of this class; a text encoder saved without projection gets the identity."""
    if not issubclass(kind, nn.Module):
        return kind.from_pretrained(place)
    network, info = kind.from_pretrained(place, **how, output_loading_info=True)
    missing = set(info["missing_keys"])
    if PROJECTION in missing:  # some releases of transformers look for the encoder under other names then
        tower, info = CLIPTextModel.from_pretrained(place, **how, output_loading_info=True)
        network.text_model.load_state_dict(getattr(tower, "text_model", tower).state_dict())
        nn.init.eye_(network.text_projection.weight)
        missing = set(info["missing_keys"])
    if missing:
        raise ModelError(f"{quoted(place)} has no value for {', '.join(sorted(missing))}")
    return network.eval()
