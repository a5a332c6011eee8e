"""The result of unlearning as data: changed weights, guards, and facts about how it was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import EditError, InputError, printable, quoted
from ..io import tensors
from ..io.reading import parse_json, typed
from .hooks import Hook

__all__ = ["HOOKS", "Edit", "digest"]

# header entries of a sealed file, which are not among an edit's facts: the form's version, and the seal
FORM, SEAL = "sealed-form", "sealed"
HOOKS = "hooks"  # also a header entry; the tensors of the second guard are named "hooks.1...."
TYPES: dict[str, Any] = {
    **dict.fromkeys(("base", "source", "dtype", "method", "identity", "made", "chain"), str),
    **dict.fromkeys(("request", "settings", "versions", "beside", "fits"), dict),
    "seed": int,
    "erased": list,
}
CHANGED = "was changed after it was written, or is damaged: put a copy of it back, or make the edit again"


@dataclass(frozen=True, eq=False)
class Edit:
    """New values for some weights of one pipeline, and guards that act while it is used.

    weights: by full name (``"unet.mid_block...to_k.weight"``, ``"text_encoder..."``), fp32 on the CPU, in the shapes
        of the model.
    facts: method, settings, request, seed, versions, ``base`` (fingerprint of the denoiser that it was made from),
        ``fits`` (fingerprints of the text encoders that it changes, by component). In a run folder a request of more
        than 100 concepts is here as the first of them and the list's hash; ``recipe.toml`` has them all.
    hooks: guards, in the order in which they act.
    """

    weights: dict[str, Tensor]
    facts: dict[str, Any] = field(default_factory=dict)
    hooks: tuple[Hook, ...] = ()

    @property
    def components(self) -> tuple[str, ...]:
        """The components whose weights it changes, such as ``("text_encoder", "unet")``."""
        return tuple(sorted({name.partition(".")[0] for name in self.weights}))

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

        Raises InputError if it cannot be written, EditError for facts that could not be read again.
        """
        facts = {**self._all_facts(), FORM: 1}
        try:
            text = json.dumps(facts, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise EditError(f"the edit's facts are not plain data: {printable(str(error))}") from None
        parse_json(text, kind=dict, where="the edit", error=EditError)
        values = self.weights | {
            f"{HOOKS}.{number}.{name}": value
            for number, hook in enumerate(self.hooks)
            for name, value in hook.tensors.items()
        }
        tensors.write(path, values, {**facts, SEAL: _seal(self.hash(), facts)})

    @classmethod
    def load(cls, path: str | Path) -> Edit:
        """Read a file that ``save`` wrote.

        Raises EditError for a missing, damaged or foreign file, and for one whose weights or facts were changed. Files
        of versions that wrote no seal are accepted without one.
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
        hooks = _hooks(facts, weights, f"edit {quoted(path)}")
        edit = cls(weights, _own_facts(facts), hooks)
        seal = facts.pop(SEAL, None)
        if sealed and (facts.get(FORM) != 1 or seal != _seal(edit.hash(), facts)):
            raise EditError(f"edit {quoted(path)} {CHANGED}")
        return edit

    def hash(self) -> str:
        """sha256 over names, shapes, values and guards. The facts, such as the time, do not count."""
        weights_hash = digest(self.weights.items())
        if not self.hooks:
            return weights_hash
        hooks = [(hook.name, dict(hook.settings), digest(hook.tensors.items())) for hook in self.hooks]
        return hashlib.sha256(json.dumps([weights_hash, hooks], sort_keys=True).encode()).hexdigest()

    def seal(self) -> str:
        """sha256 over weights and facts: files with the same seal have the same weights and facts."""
        return _seal(self.hash(), {**self._all_facts(), FORM: 1})

    def _all_facts(self) -> dict[str, Any]:
        """The facts and the header entry of the guards."""
        hooks = [{"name": hook.name, "settings": dict(hook.settings)} for hook in self.hooks]
        return _own_facts(self.facts) | ({HOOKS: hooks} if hooks else {})


def digest(weights: Iterable[tuple[str, Tensor]]) -> str:
    """sha256 over names, shapes and values as fp32, in order of name: the same for every dtype that fits them."""
    total = hashlib.sha256()
    for name, value in sorted(weights, key=lambda pair: pair[0]):
        total.update(f"{name}{tuple(value.shape)}".encode())
        total.update(value.detach().to("cpu", torch.float32).contiguous().numpy().data)
    return total.hexdigest()


def _check(facts: Any, where: str) -> None:
    """Raises EditError for facts that are no table, or for one of another type."""
    here = TYPES if isinstance(facts, dict) else {}
    typed(facts, {name: kind for name, kind in here.items() if name in facts}, where=where, error=EditError)


def _own_facts(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts without the header entries of a sealed file."""
    return {name: value for name, value in facts.items() if name not in (FORM, SEAL, HOOKS)}


def _hooks(facts: dict[str, Any], values: dict[str, Tensor], where: str) -> tuple[Hook, ...]:
    """The guards of a file; their tensors are removed from ``values``. Raises EditError for an invalid one."""
    listed = typed(facts, {HOOKS: list} if HOOKS in facts else {}, where=where, error=EditError)
    hooks = []
    for number, entry in enumerate(listed.get(HOOKS, [])):
        typed(entry, {"name": str, "settings": dict}, where=where, error=EditError)
        front = f"{HOOKS}.{number}."
        own_tensors = {
            name.removeprefix(front): values.pop(name) for name in [*values] if name.startswith(front)
        }
        hooks.append(Hook(entry["name"], entry["settings"], own_tensors))
    return tuple(hooks)


def _seal(weights: str, facts: dict[str, Any]) -> str:
    """sha256 over the hash of the weights and the facts as canonical JSON."""
    return hashlib.sha256(f"{weights}\n{json.dumps(facts, sort_keys=True)}".encode()).hexdigest()
