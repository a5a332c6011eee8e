"""Which model this is: fingerprints of its weights, and whether an edit was made from it."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from ..errors import EditError, printable
from .edit import Edit
from .encoders import encoders

if TYPE_CHECKING:
    from .model import Model

__all__ = ["check", "encoder_fingerprints", "fingerprint"]


def encoder_fingerprints(model: Model, edit: Edit) -> dict[str, str]:
    """The fingerprints of the text encoders that the edit changes, by component: what its fact ``fits`` says."""
    return {name: model.fingerprint(name) for name in edit.components if name in encoders(model.pipe)}


def check(model: Model, edit: Edit) -> None:
    """Raises EditError for an edit made from another denoiser, or from another text encoder where it changes one."""
    source = printable(str(edit.facts.get("source", "another model")))[:80]
    denoiser = model.family.DENOISER
    encoders_changed = {name for name in edit.components if name in encoders(model.pipe)}
    fits = {name: edit.facts.get("fits", {}).get(name, "") for name in sorted(encoders_changed)}
    if edit.hooks or not encoders_changed or set(edit.components) - encoders_changed:
        fits[denoiser] = edit.facts.get("base", "")
    for name, base in fits.items():
        here = model.fingerprint(None if name == denoiser else name)
        if base not in ("", here, *model.earlier_fingerprints):
            raise EditError(
                f"the edit was made from {source} ({base[:12]}), not from {model.source} ({here[:12]}): load that "
                "one, or apply edit.weights without this check"
            )


def fingerprint(model: Model, part: str | None) -> str:
    """What ``Model.fingerprint`` gives."""
    swap = model.swap
    if part is not None:
        return swap.fingerprint(part)
    denoiser = swap.fingerprint(model.family.DENOISER)
    changed = [name for name in sorted(encoders(model.pipe)) if swap.replaced[name]]
    if not changed and not model.hooks:
        return denoiser
    hooks = Edit({}, hooks=tuple(model.hooks)).hash()
    text = json.dumps([denoiser, [swap.fingerprint(name) for name in changed], hooks])
    return hashlib.sha256(text.encode()).hexdigest()
