"""What an exported file contains, and what share of the edit's change it loses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import EditError, InputError, quoted
from ..io.files import check_writable, new_file, user_path
from ..model.edit import Edit
from ..model.model import Model

__all__ = [
    "LOSE",
    "ExportReport",
    "base_values",
    "check_loss",
    "inner",
    "output_path",
    "percent",
    "share_lost",
]

LOSE = 0.01  # of a change; on the canvas this alters neither erasure nor retention
NOTHING = 1e-6  # the most that rounding to float32 loses


@dataclass(frozen=True)
class ExportReport:
    """What was written to a file.

    tensors: number of changed tensors. rank: a LoRA's largest; 0 for a checkpoint. lost: 1 - <d', d> / |d|² of the
    edit's change d and the file's change d', over all weights, in [0, 1]. left_out: changed weights not in the file.
    outer: changed layers outside the U-Net's blocks, which some tools ignore in a LoRA. outer_share: their share of
    |d|². kohya: whether kohya's sd-scripts know the names in the file.
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


def base_values(model: Model, edit: Edit) -> Mapping[str, Tensor]:
    """The base model's values of the weights that the edit changes.

    Raises EditError for an edit of another model, also by names or shapes, and for one that changes nothing.
    """
    model.check(edit)
    if edit.hooks:
        raise EditError(
            "a guard acts at inference, and a file of weights cannot contain it: draw with unlearnkit generate "
            "--edit, or choose a method that changes weights"
        )
    base = model.values(edit.weights)
    for name, value in edit.weights.items():
        if value.shape != base[name].shape:
            here = tuple(base[name].shape)
            raise EditError(
                f"weight {quoted(name)} of the edit is {tuple(value.shape)}, the model's is {here}: give the model "
                "that the edit was made for"
            )
    base = {name: weight.detach() for name, weight in base.items()}
    if all(
        torch.equal(edit.weights[name].to(weight.device), weight.float()) for name, weight in base.items()
    ):
        raise EditError("the edit changes no weight: there is nothing to export")
    return base


def output_path(path: str | Path) -> Path:
    """The safetensors file to write, with ``~`` expanded. Raises InputError if it cannot be written."""
    path = user_path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"{quoted(path)} is no name that loaders accept: end it in .safetensors")
    new_file(path)
    check_writable(path, path.parent)
    return path


def check_loss(lose: float) -> float:
    """The share that may be lost, at least what rounding loses. Raises InputError out of range."""
    if not 0 <= lose <= 1:
        raise InputError(f"lose {lose:g} is out of range: use 0 to 1")
    return max(lose, NOTHING)


def share_lost(explained: float, total: float) -> float:
    """``ExportReport.lost`` of <d', d> and |d|²."""
    return max(0.0, 1.0 - explained / total) if total else 0.0


def percent(share: float) -> str:
    return f"{100 * share:.3g} %" if share >= NOTHING else "nothing"
