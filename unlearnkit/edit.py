"""The result of unlearning, as data: the weights that changed, and the facts behind them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import tensors
from .errors import EditError, InputError, quoted

__all__ = ["Edit", "digest"]


@dataclass(frozen=True, eq=False)
class Edit:
    """New values for some weights of one pipeline.

    weights: by full name (``"unet.mid_block...to_k.weight"``), fp32 on the CPU, in the shapes of the model.
    facts: method, settings, request, seed, versions, ``base`` (fingerprint of the model that it was made from).
    """

    weights: dict[str, Tensor]
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in self.weights.items():
            if value.dtype != torch.float32 or value.device.type != "cpu":
                raise EditError(
                    f"weight {quoted(name)} is {value.dtype} on {value.device}: an edit holds float32 on the CPU"
                )
            if not torch.isfinite(value).all():
                raise EditError(
                    f"weight {quoted(name)} holds a value that is not a finite number: make the edit again"
                )

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, whole or not at all. Raises InputError where it cannot be written."""
        tensors.write(path, self.weights, self.facts)

    @classmethod
    def load(cls, path: str | Path) -> Edit:
        """Read a file that ``save`` wrote. Raises EditError for a missing, damaged or foreign file."""
        try:
            weights, facts = tensors.read(path)
        except InputError as error:
            raise EditError(f"edit {error}") from None
        return cls(weights, facts)

    def hash(self) -> str:
        """sha256 over names, shapes and values; the facts, and so the time, do not count."""
        return digest(self.weights.items())


def digest(weights: Iterable[tuple[str, Tensor]]) -> str:
    """sha256 over names, shapes and values as fp32, in order of name: alike for every dtype that holds the values."""
    total = hashlib.sha256()
    for name, value in sorted(weights, key=lambda pair: pair[0]):
        total.update(f"{name}{tuple(value.shape)}".encode())
        total.update(value.detach().to("cpu", torch.float32).contiguous().numpy().data)
    return total.hexdigest()
