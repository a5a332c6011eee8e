"""Export an edit into a checkpoint of other tools: the same file except for the changed tensors.

Checkpoints name their tensors in many ways, and some join several matrices in one tensor. So a changed weight is found
by its value: a tensor of the file, or whole rows of it, that equals the base model's bit for bit. All other tensors of
the file stay the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import InputError, printable, quoted
from ..io.files import atomic_file, user_path, writing
from ..io.tensors import copied
from ..model.edit import Edit
from ..model.model import Model
from ..model.provenance import provenance
from .report import LOSE, ExportReport, base_values, check_loss, inner, output_path, percent, share_lost

__all__ = ["save_checkpoint"]

HEAD = 64  # bytes by which a row is looked up; a match is then compared in full
AVERAGES = "model_ema."  # some trainers store a second network of averaged weights


@dataclass(frozen=True)
class Place:
    """``count`` rows from ``row`` on of the tensor ``key`` in a file, read as a table of this width."""

    key: str
    width: int
    row: int
    count: int

    def read(self, tensor: Tensor) -> Tensor:
        return tensor.reshape(-1, self.width)[self.row : self.row + self.count]


def save_checkpoint(
    model: Model, edit: Edit, source: str | Path, path: str | Path, *, lose: float = LOSE
) -> ExportReport:
    """Write the safetensors file ``source`` to ``path`` with the edit in it, whole or not at all.

    source: a file that holds the model's denoiser, in any naming and dtype. lose: how much of the change (0 to 1) may
    be lost to the file's dtype. Raises InputError for a file that is damaged, that is not this model's, that contains a
    second copy of the network, if more would be lost, and if ``path`` exists; EditError for an edit of
    another model.
    """
    source, path, lose = user_path(source), output_path(path), check_loss(lose)
    base, values = base_values(model, edit), dict[str, Tensor]()
    explained = total = 0.0
    if source.exists() and not source.is_file():  # reading a pipe would block
        raise InputError(f"checkpoint {quoted(source)} is no file: give a .safetensors file")
    try:
        with safe_open(source, framework="pt") as file:
            keys = list(file.keys())
            if any(key.startswith(AVERAGES) for key in keys):
                raise InputError(
                    f"checkpoint {quoted(source)} has the network twice ({AVERAGES}...), and the second would keep "
                    "the concept: give one without averaged weights"
                )
            places = find(base, ((key, file.get_tensor(key)) for key in keys))
            if lacks := [name for name in base if name not in places]:
                raise InputError(
                    f"checkpoint {quoted(source)} is not of {model.source}: it lacks {len(lacks)} of the {len(base)} "
                    f"weights that change, such as {lacks[0]}; give the one that the model was made from"
                )
            for name, place in places.items():
                before = place.read(file.get_tensor(place.key))
                after = edit.weights[name].view_as(before)
                values[name] = after.to(before.dtype)
                if not torch.isfinite(values[name]).all():
                    raise InputError(
                        f"checkpoint {quoted(source)} cannot store {name}: a new value is too large for "
                        f"{str(before.dtype).removeprefix('torch.')}; give one in float32"
                    )
                change = after - before.float()
                explained += inner(values[name].float() - before.float(), change)
                total += inner(change, change)
    except FileNotFoundError:
        raise InputError(f"checkpoint {quoted(source)} was not found: give a .safetensors file") from None
    except (OSError, SafetensorError) as error:
        reason = printable(" ".join(str(error).split()))[:200]
        raise InputError(f"checkpoint {quoted(source)} cannot be read: {reason}") from None
    lost = share_lost(explained, total)
    if lost > lose:
        raise InputError(
            f"the precision of checkpoint {quoted(source)} loses {percent(lost)} of the change, more than "
            f"{percent(lose)}: let more be lost (lose), or give one in float32"
        )
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path, new=True) as partial, source.open("rb") as old, partial.open("wb") as new:
            copy(old, new, provenance(edit), places, values)
    return ExportReport(path, len(places), 0, lost)


def find(weights: Mapping[str, Tensor], stored: Iterable[tuple[str, Tensor]]) -> dict[str, Place]:
    """Each weight's place in a file. Raises InputError for a weight that is there more than once.

    Values are compared in the coarser dtype: the model's, or the file's where the model is in float32.
    """
    coarse = next(iter(weights.values())).dtype
    tables: dict[torch.dtype, Table] = {}
    places: dict[str, Place] = {}
    for key, tensor in stored:
        if not tensor.is_floating_point() or not tensor.dim():
            continue
        dtype = tensor.dtype if coarse == torch.float32 else coarse
        table = tables.get(dtype) or tables.setdefault(dtype, Table(weights, dtype))
        for name, place in table.places(key, tensor.to(dtype)):
            if name in places:
                raise InputError(
                    f"the checkpoint has the values of {name} twice, in {places[name].key} and {key}: the right one "
                    "is unknown"
                )
            places[name] = place
    return places


class Table:
    """Weights in one dtype, by the first bytes of their first row."""

    def __init__(self, weights: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        self.known: dict[tuple[bool, int], dict[bytes, list[tuple[str, Tensor]]]] = {}
        for name, weight in weights.items():
            rows = _rows(weight.to("cpu", dtype), len(weight) if weight.dim() > 1 else 1)
            heads = self.known.setdefault((weight.dim() > 1, weight.numel() // len(rows)), {})
            heads.setdefault(_heads(rows[:1])[0], []).append((name, rows))

    def places(self, key: str, tensor: Tensor) -> Iterator[tuple[str, Place]]:
        """The weights inside this tensor, in the same dtype: a vector may be a part of a longer one."""
        for (matrix, width), heads in self.known.items():
            if (
                not tensor.numel()
                or matrix != (tensor.dim() > 1)
                or tensor.numel() % width
                or (matrix and tensor[0].numel() != width)
            ):
                continue
            rows = _rows(tensor, tensor.numel() // width)
            for row, head in enumerate(_heads(rows)):
                for name, target in heads.get(head, ()):
                    if torch.equal(rows[row : row + len(target)], target):
                        yield name, Place(key, width, row, len(target))


def copy(
    old: BinaryIO,
    new: BinaryIO,
    facts: Mapping[str, Any],
    places: Mapping[str, Place],
    values: Mapping[str, Tensor],
) -> None:
    """A safetensors file, with these values in their places and these facts in its header."""
    header, start = copied(old, new, facts)
    for name, place in places.items():
        value = _rows(values[name], place.count)
        new.seek(start + header[place.key]["data_offsets"][0] + place.row * value.shape[1])
        new.write(value.numpy().tobytes())


def _rows(tensor: Tensor, count: int) -> Tensor:
    """The bytes (count, bytes of a row) of a tensor."""
    return tensor.detach().contiguous().view(-1).view(torch.uint8).view(count, -1)


def _heads(rows: Tensor) -> list[bytes]:
    return [head.tobytes() for head in rows[:, :HEAD].numpy()]
