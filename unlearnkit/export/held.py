"""How much of a change a file holds: another form may be narrower than the edit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..edit import Edit
from ..errors import EditError, InputError
from ..model import Model

__all__ = ["LOSE", "Held", "Tally", "changes", "checked", "facts_of", "percent"]

LOSE = 0.01  # of a change; on the canvas erasure and what stays are then as with the whole
NOTHING = 1e-6  # what rounding to float32 takes at most


@dataclass(frozen=True)
class Held:
    """A file that was written.

    tensors: of the model, that it changes. rank: the largest of a LoRA's, 0 of a checkpoint. lost: 1 - <d', d> / |d|²
    of the change d and the change d' that the file makes, over all weights. left_out: changed weights that it leaves.
    """

    path: Path
    tensors: int
    rank: int
    lost: float
    left_out: tuple[str, ...] = ()


class Tally:
    """<d', d> and |d|² summed over weights, in float64."""

    def __init__(self) -> None:
        self.held, self.whole = 0.0, 0.0

    def add(self, held: Tensor, change: Tensor) -> None:
        """What a file makes of a weight's change."""
        change = change.double().flatten()
        self.held += float(held.double().flatten() @ change)
        self.whole += float(change @ change)

    @property
    def lost(self) -> float:
        return max(0.0, 1.0 - self.held / self.whole) if self.whole else 0.0


def changes(model: Model, edit: Edit) -> Mapping[str, Tensor]:
    """The model's own values of the weights that the edit changes; the model wears nothing.

    Raises EditError for an edit of another model, and for one that changes nothing.
    """
    model.check(edit)
    if not edit.weights:
        raise EditError("the edit changes no weight: there is nothing to export")
    own = model.weights("all")
    return {name: own[name].detach() for name in edit.weights}


def facts_of(edit: Edit) -> dict[str, Any]:
    """What a file's header says of where it comes from."""
    return edit.facts | {"edit": edit.hash()}


def checked(lose: float) -> float:
    """What may be lost, and no less than rounding takes. Raises InputError out of range."""
    if not 0 <= lose <= 1:
        raise InputError(f"lose {lose:g} is out of range: use 0 to 1")
    return max(lose, NOTHING)


def percent(share: float) -> str:
    return f"{100 * share:.3g} %"
