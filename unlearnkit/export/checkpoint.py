"""An edit put into the checkpoint that other tools load: the same file but for the changed tensors.

Checkpoints name their tensors in many ways, and some hold several of a model's matrices in one. So a changed weight is
found by its value: where a tensor of the file, or whole rows of it, equals what the model had before, to the last bit.
Everything else stays as it was, byte for byte.
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
from ..models.edit import Edit
from ..models.model import Model
from ..models.provenance import provenance
from .held import LOSE, Held, changes, checked, inner, missing, percent, target

__all__ = ["save_checkpoint"]

HEAD = 64  # bytes of a row by which it is looked up; what is found is then compared whole
AVERAGES = "model_ema."  # some trainers leave a second network in the file, of averaged weights


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
) -> Held:
    """Write the safetensors file ``source`` to ``path`` with the edit in it, whole or not at all.

    source: a file that holds the model's denoiser, in any naming and dtype. lose: how much of the change (0 to 1) may
    be lost to the file's dtype. Raises InputError for a file that is damaged, that is not this model's, that holds a
    second copy of the network, where more would be lost, and where ``path`` exists already; EditError for an edit of
    another model.
    """
    source, path, lose = user_path(source), target(path), checked(lose)
    own, values = changes(model, edit), dict[str, Tensor]()
    held = moved = 0.0
    if source.exists() and not source.is_file():  # a pipe would be waited for
        raise InputError(f"checkpoint {quoted(source)} is no file: give a .safetensors file")
    try:
        with safe_open(source, framework="pt") as file:
            keys = list(file.keys())
            if any(key.startswith(AVERAGES) for key in keys):
                raise InputError(
                    f"checkpoint {quoted(source)} holds the network twice ({AVERAGES}...), and the second would still "
                    "know what was erased: give one without averaged weights"
                )
            places = find(own, ((key, file.get_tensor(key)) for key in keys))
            if lacks := [name for name in own if name not in places]:
                raise InputError(
                    f"checkpoint {quoted(source)} is not of {model.source}: it lacks {len(lacks)} of the {len(own)} "
                    f"weights that change, such as {lacks[0]}; give the one that the model was made from"
                )
            for name, place in places.items():
                before = place.read(file.get_tensor(place.key))
                wanted = edit.weights[name].view_as(before)
                values[name] = wanted.to(before.dtype)
                if not torch.isfinite(values[name]).all():
                    raise InputError(
                        f"checkpoint {quoted(source)} cannot hold {name}: a new value is too large for "
                        f"{str(before.dtype).removeprefix('torch.')}; give one in float32"
                    )
                change = wanted - before.float()
                held += inner(values[name].float() - before.float(), change)
                moved += inner(change, change)
    except FileNotFoundError:
        raise InputError(f"checkpoint {quoted(source)} was not found: give a .safetensors file") from None
    except (OSError, SafetensorError) as error:
        reason = printable(" ".join(str(error).split()))[:200]
        raise InputError(f"checkpoint {quoted(source)} cannot be read: {reason}") from None
    lost = missing(held, moved)
    if lost > lose:
        raise InputError(
            f"the precision of checkpoint {quoted(source)} loses {percent(lost)} of the change, more than "
            f"{percent(lose)}: let more be lost (lose), or give one in float32"
        )
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path, new=True) as partial, source.open("rb") as old, partial.open("wb") as new:
            copy(old, new, provenance(edit), places, values)
    return Held(path, len(places), 0, lost)


def find(own: Mapping[str, Tensor], stored: Iterable[tuple[str, Tensor]]) -> dict[str, Place]:
    """Where in a file each of the weights stands. Raises InputError for one that stands there more than once.

    Values are compared in the coarser dtype: the model's, or the file's where the model is in float32.
    """
    coarse = next(iter(own.values())).dtype
    tables: dict[torch.dtype, Table] = {}
    found: dict[str, Place] = {}
    for key, tensor in stored:
        if not tensor.is_floating_point() or not tensor.dim():
            continue
        dtype = tensor.dtype if coarse == torch.float32 else coarse
        table = tables.get(dtype) or tables.setdefault(dtype, Table(own, dtype))
        for name, place in table.places(key, tensor.to(dtype)):
            if name in found:
                raise InputError(
                    f"the checkpoint has the values of {name} twice, in {found[name].key} and {key}: which of them is "
                    "meant cannot be told"
                )
            found[name] = place
    return found


class Table:
    """Weights in one dtype, by the first bytes of their first row."""

    def __init__(self, own: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        self.known: dict[tuple[bool, int], dict[bytes, list[tuple[str, Tensor]]]] = {}
        for name, weight in own.items():
            rows = _rows(weight.to("cpu", dtype), len(weight) if weight.dim() > 1 else 1)
            heads = self.known.setdefault((weight.dim() > 1, weight.numel() // len(rows)), {})
            heads.setdefault(_heads(rows[:1])[0], []).append((name, rows))

    def places(self, key: str, tensor: Tensor) -> Iterator[tuple[str, Place]]:
        """The weights that stand in this tensor, in the same dtype: a vector may be a part of a longer one."""
        for (matrix, width), heads in self.known.items():
            if (
                matrix != (tensor.dim() > 1)
                or tensor.numel() % width
                or (matrix and tensor[0].numel() != width)
            ):
                continue
            rows = _rows(tensor, tensor.numel() // width)
            for row, head in enumerate(_heads(rows)):
                for name, wanted in heads.get(head, ()):
                    if torch.equal(rows[row : row + len(wanted)], wanted):
                        yield name, Place(key, width, row, len(wanted))


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
