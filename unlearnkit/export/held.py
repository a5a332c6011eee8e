"""How much of a change a file holds: another form may be narrower than the edit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import EditError, InputError, quoted
from ..io.files import existing, new_file, user_path
from ..models.edit import Edit
from ..models.model import Model

__all__ = ["LOSE", "Held", "changes", "checked", "inner", "missing", "percent", "target"]

LOSE = 0.01  # of a change; on the canvas erasure and what stays are then as with the whole
NOTHING = 1e-6  # what rounding to float32 takes at most


@dataclass(frozen=True)
class Held:
    """A file that was written.

    tensors: of the model, that it changes. rank: the largest of a LoRA's, 0 of a checkpoint. lost: 1 - <d', d> / |d|²
    of the change d and the change d' that the file makes, over all weights. left_out: changed weights that it leaves.
    outer: changed layers of a U-Net outside its blocks, which not every tool takes from a LoRA. outer_share: of |d|².
    kohya: whether kohya's sd-scripts know the names in the file.
    """

    path: Path
    tensors: int
    rank: int
    lost: float
    left_out: tuple[str, ...] = ()
    outer: tuple[str, ...] = ()
    outer_share: float = 0.0
    kohya: bool = True


def inner(a: Tensor, b: Tensor) -> float:
    """<a, b> over all entries, in float64."""
    return float(a.double().flatten() @ b.double().flatten())


def changes(model: Model, edit: Edit) -> Mapping[str, Tensor]:
    """The model's own values of the weights that the edit changes; the model wears nothing.

    Raises EditError for an edit of another model, also by names or shapes, and for one that changes nothing.
    """
    model.check(edit)
    if edit.hooks:
        raise EditError(
            "a guard acts while the model runs, and a file of weights cannot hold it: draw with unlearnkit generate "
            "--edit, or choose a method that changes weights"
        )
    own = model.values(edit.weights)
    for name, value in edit.weights.items():
        if value.shape != own[name].shape:
            here = tuple(own[name].shape)
            raise EditError(
                f"weight {quoted(name)} of the edit is {tuple(value.shape)}, the model's is {here}"
            )
    found = {name: weight.detach() for name, weight in own.items()}
    if all(
        torch.equal(edit.weights[name].to(weight.device), weight.float()) for name, weight in found.items()
    ):
        raise EditError("the edit changes no weight: there is nothing to export")
    return found


def target(path: str | Path) -> Path:
    """The safetensors file to write, with ``~`` expanded. Raises InputError, before any work, where it cannot be."""
    path = user_path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"{quoted(path)} is no name that loaders take: let it end in .safetensors")
    new_file(path)
    parent = existing(path.parent)
    if not parent.is_dir():
        raise InputError(
            f"{quoted(path)} cannot be written: {quoted(parent)} is a file; choose another folder"
        )
    if not os.access(parent, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise InputError(
            f"{quoted(path)} cannot be written: no permission in {quoted(parent)}; choose another folder"
        )
    return path


def checked(lose: float) -> float:
    """What may be lost, and no less than rounding takes. Raises InputError out of range."""
    if not 0 <= lose <= 1:
        raise InputError(f"lose {lose:g} is out of range: use 0 to 1")
    return max(lose, NOTHING)


def missing(held: float, whole: float) -> float:
    """``Held.lost`` of <d', d> and |d|²."""
    return max(0.0, 1.0 - held / whole) if whole else 0.0


def percent(share: float) -> str:
    return f"{100 * share:.3g} %" if share >= NOTHING else "nothing"
