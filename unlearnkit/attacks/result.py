"""What an attack found, as data: the pictures to draw, and the tensors that they need."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import InputError, quoted
from ..io import tensors
from ..io.files import write_text
from ..io.reading import read_json, typed

__all__ = ["Attempt", "SearchResult"]

JSON, TENSORS = "found.json", "found.safetensors"


@dataclass(frozen=True)
class Attempt:
    """One picture to draw with the victim. Names are those of tensors in ``SearchResult.tensors``.

    arm: the variant of the attack that it belongs to; each arm has a rate of its own.
    vectors: ``{vectors}.{text encoder}`` (k, width) in place of the prompt's first k tokens.
    states: conditioning (1, rows, width) in place of the prompt's.
    encoder: whose text encoder reads the prompt, ``"victim"`` or ``"base"``.
    weights: ``{weights}/{full name}``, weights on top of the victim's.
    start, row: x (n, c, h, w), of which the row is where sampling goes on, at step ``at``.
    mask: (h, w), 1 where the row of ``start`` (latents without noise) is kept through all steps.
    steps, guidance: None: the model's hints'. eta: of DDIM, 0: the model's own sampler. noise_scale: of
        the noise of each step with ``eta``.
    scheduler: name of a diffusers scheduler, empty: the model's own.
    change: of the victim's weights, as ``changes.changed`` reads it; with ``weights`` for its other edit.
    """

    arm: str
    prompt: str
    seed: int
    vectors: str = ""
    states: str = ""
    encoder: str = "victim"
    weights: str = ""
    start: str = ""
    row: int = 0
    at: int = 0
    mask: str = ""
    steps: int | None = None
    guidance: float | None = None
    eta: float = 0.0
    noise_scale: float = 1.0
    scheduler: str = ""
    change: str = ""

    def __post_init__(self) -> None:
        if not self.arm or self.encoder not in ("victim", "base") or not 0 <= self.seed < 2**63:
            raise InputError(f"an attempt has arm {quoted(self.arm)}, seed {self.seed}: it is damaged")

    @property
    def batch_key(self) -> Attempt:
        """The same for attempts that can be drawn in one batch: without prompt, seed and row."""
        return dataclasses.replace(self, prompt="", seed=0, row=0)


TYPES: dict[str, Any] = {
    **dict.fromkeys(
        ("arm", "prompt", "vectors", "states", "encoder", "weights", "start", "mask", "scheduler", "change"),
        str,
    ),
    **dict.fromkeys(("seed", "row", "at"), int),
    **dict.fromkeys(("eta", "noise_scale"), float),
    **{"steps": (int, type(None)), "guidance": (float, type(None))},
}


@dataclass(frozen=True, eq=False)
class SearchResult:
    """attempts: the pictures to ask for, in order. tensors: fp32 on the CPU. figures: what needs no picture."""

    attempts: tuple[Attempt, ...] = ()
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def arms(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one.arm for one in self.attempts))

    def group(self, name: str, mark: str = ".") -> dict[str, Tensor]:
        """The tensors of a group, such as the vectors by text encoder."""
        front = name + mark
        return {key.removeprefix(front): one for key, one in self.tensors.items() if key.startswith(front)}

    def save(self, folder: Path) -> None:
        """Write ``found.json`` and ``found.safetensors``; the latter first, so that a json has its tensors."""
        tensors.write(folder / TENSORS, {name: one.float().cpu() for name, one in self.tensors.items()}, {})
        rows = [dataclasses.asdict(one) for one in self.attempts]
        text = json.dumps({"attempts": rows, "figures": dict(self.figures)}, indent=1, ensure_ascii=False)
        write_text(folder / JSON, text + "\n")

    @classmethod
    def load(cls, folder: Path) -> SearchResult | None:
        """What ``save`` wrote, or None if nothing was. Raises InputError for damaged files."""
        if not (folder / JSON).is_file():
            return None
        where = quoted(folder / JSON)
        data = read_json(folder / JSON, what="what was found", kind=dict)
        typed(data, {"attempts": list, "figures": dict}, where=where)
        stored, _ = tensors.read(folder / TENSORS)
        result = cls(tuple(_attempts(data["attempts"], where)), stored, data["figures"])
        result.check(where)
        return result

    def check(self, where: str) -> None:
        """Raises InputError for an attempt that names a tensor which is not there."""
        for one in self.attempts:
            lacking = [
                name for name in (one.states, one.start, one.mask) if name and name not in self.tensors
            ]
            lacking += [name for name in [one.vectors] if name and not self.group(name)]
            lacking += [name for name in [one.weights] if name and not self.group(name, "/")]
            if lacking:
                raise InputError(f"{where} is damaged: there is no tensor {quoted(lacking[0])}")
            if one.start and not 0 <= one.row < len(self.tensors[one.start]):
                raise InputError(f"{where} is damaged: {quoted(one.start)} has no row {one.row}")


def _attempts(rows: Sequence[Any], where: str) -> list[Attempt]:
    names = {one.name for one in dataclasses.fields(Attempt)}
    attempts = []
    for row in rows:
        typed(row, TYPES, where=where)
        if extra := sorted(row.keys() - names):
            raise InputError(f"{where} is damaged: it has the unknown {quoted(extra[0])}")
        attempts.append(Attempt(**row))
    return attempts
