"""The result of unlearning, as data: the weights that changed, and the facts behind them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import EditError, InputError, printable, quoted
from .io import tensors
from .io.reading import parse_json, typed

__all__ = ["Edit", "digest"]

# in the header beside the facts, and never among them afterwards: which form a sealed file has, and its seal
FORM, SEAL = "sealed-form", "sealed"
TYPES: dict[str, Any] = {
    **dict.fromkeys(("base", "source", "dtype", "method", "identity", "made", "chain"), str),
    **dict.fromkeys(("request", "settings", "versions", "beside"), dict),
    "seed": int,
    "erased": list,
}
CHANGED = "was changed after it was written, or is damaged: put a copy of it back, or make the edit again"


@dataclass(frozen=True, eq=False)
class Edit:
    """New values for some weights of one pipeline.

    weights: by full name (``"unet.mid_block...to_k.weight"``), fp32 on the CPU, in the shapes of the model.
    facts: method, settings, request, seed, versions, ``base`` (fingerprint of the model that it was made from).
    """

    weights: dict[str, Tensor]
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self.facts, "the edit")
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
        """Write one safetensors file, whole or not at all.

        Raises InputError where it cannot be written, EditError for facts that could not be read again.
        """
        facts = {**_plain(self.facts), FORM: 1}
        try:
            text = json.dumps(facts, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise EditError(f"the edit's facts are not plain data: {printable(str(error))}") from None
        parse_json(text, kind=dict, where="the edit", error=EditError)
        tensors.write(path, self.weights, {**facts, SEAL: _seal(self.hash(), facts)})

    @classmethod
    def load(cls, path: str | Path) -> Edit:
        """Read a file that ``save`` wrote.

        Raises EditError for a missing, damaged or foreign file, and for one whose weights or facts were changed. Files
        of versions that wrote no seal are taken as they are.
        """
        path = Path(path)
        try:
            weights, facts = tensors.read(path)
            sealed = FORM in facts or SEAL in facts
            if sealed and not tensors.canonical(path, facts):
                raise InputError(f"{quoted(path)} {CHANGED}")
            _check(facts, f"edit {quoted(path)}")
            json.dumps(facts, allow_nan=False)
        except ValueError:
            raise EditError(
                f"edit {quoted(path)} is damaged: its facts hold a number that is not finite"
            ) from None
        except InputError as error:
            raise EditError(f"edit {error}") from None
        edit = cls(weights, _plain(facts))
        seal = facts.pop(SEAL, None)
        if sealed and (facts.get(FORM) != 1 or seal != _seal(edit.hash(), facts)):
            raise EditError(f"edit {quoted(path)} {CHANGED}")
        return edit

    def hash(self) -> str:
        """sha256 over names, shapes and values; the facts, and so the time, do not count."""
        return digest(self.weights.items())

    def seal(self) -> str:
        """sha256 over weights and facts: two files with one seal say the same of the same weights."""
        return _seal(self.hash(), {**_plain(self.facts), FORM: 1})


def digest(weights: Iterable[tuple[str, Tensor]]) -> str:
    """sha256 over names, shapes and values as fp32, in order of name: alike for every dtype that holds the values."""
    total = hashlib.sha256()
    for name, value in sorted(weights, key=lambda pair: pair[0]):
        total.update(f"{name}{tuple(value.shape)}".encode())
        total.update(value.detach().to("cpu", torch.float32).contiguous().numpy().data)
    return total.hexdigest()


def _check(facts: Any, where: str) -> None:
    """Raises EditError for facts that are no table, or of which one has another type than the rest relies on."""
    here = TYPES if isinstance(facts, dict) else {}
    typed(facts, {name: kind for name, kind in here.items() if name in facts}, where=where, error=EditError)


def _plain(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts less what a sealed file says of itself."""
    return {name: value for name, value in facts.items() if name not in (FORM, SEAL)}


def _seal(weights: str, facts: dict[str, Any]) -> str:
    """sha256 over the hash of the weights and the facts in their one spelling."""
    return hashlib.sha256(f"{weights}\n{json.dumps(facts, sort_keys=True)}".encode()).hexdigest()
