"""Named tensors on disk: safetensors with facts in the header, written whole or not at all, never pickled."""

from __future__ import annotations

import contextlib
import json
import shutil
import stat
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import InputError, printable, quoted, reason
from . import processes
from .files import atomic_file, set_permissions
from .reading import parse_json

__all__ = ["HEADER", "canonical", "copied", "read", "read_header", "renamed", "stamp", "write"]

HEADER = "unlearnkit"
ENTRIES = "__metadata__"  # safetensors' own name for the part of a header that is about the file
ALIGN = 8  # a header is padded with blanks to a multiple of this many bytes


def write(
    path: str | Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], *, new: bool = False
) -> None:
    """Write ``tensors`` and JSON-able ``facts`` to a temporary file, then rename it to ``path``.

    An old file at ``path`` stays until the new one is complete. Of several processes only the first one writes.
    Raises InputError if it cannot be written, and with ``new`` if ``path`` exists.
    """
    if not processes.first():
        return
    path = Path(path)
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path, new=new) as partial:
            save_file(contiguous, partial, {HEADER: json.dumps(facts, sort_keys=True)})
            set_permissions(partial)
    except (OSError, SafetensorError) as error:
        why = reason(error) if isinstance(error, OSError) else printable(str(error))
        raise InputError(
            f"{quoted(path)} cannot be written: {why}; free space or choose another folder"
        ) from None


def read(path: str | Path, *, device: torch.device | str = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and facts of a file made by ``write``. Raises InputError for anything else."""
    with _opened(path, device) as (file, facts):
        return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118


def read_header(path: str | Path) -> tuple[set[str], dict[str, Any]]:
    """The names of the tensors, and the facts, of a file made by ``write``. Raises InputError for anything else."""
    with _opened(path, "cpu") as (file, facts):
        return set(file.keys()), facts


@contextlib.contextmanager
def _opened(path: str | Path, device: torch.device | str) -> Iterator[tuple[Any, dict[str, Any]]]:
    where = quoted(Path(path))
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise InputError(f"{where} cannot be read: it is no regular file")
        with safe_open(Path(path), framework="pt", device=str(device)) as file:
            yield file, parse_json((file.metadata() or {})[HEADER], kind=dict, where=where)
    except OSError as error:
        raise InputError(f"{where} cannot be read: {reason(error)}") from None
    except KeyError:
        raise InputError(f"{where} was not written by unlearnkit: its header has no facts") from None
    except (SafetensorError, ValueError) as error:
        raise InputError(f"{where} is damaged: {printable(' '.join(str(error).split()))[:200]}") from None


def canonical(path: Path, facts: Mapping[str, Any]) -> bool:
    """Whether the header of a file is, byte for byte, what ``write`` writes for these facts.

    JSON can write one value in several ways, such as 1e-05 and 1E-05. This finds such changes.
    """
    with path.open("rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        raw = file.read(size)
    header = parse_json(raw, kind=dict, where=quoted(path))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    filled = text + b" " * (-len(text) % ALIGN)
    return raw == filled and header.get(ENTRIES) == {HEADER: json.dumps(facts, sort_keys=True)}


def stamp(path: Path, facts: Mapping[str, Any]) -> None:
    """Add facts to the header of a safetensors file of another program. Everything else stays."""
    with atomic_file(path) as partial, path.open("rb") as old, partial.open("wb") as new:
        copied(old, new, facts)


def renamed(path: Path, name: Callable[[str], str]) -> None:
    """Rename every tensor in a safetensors file of another program. Everything else stays."""
    with atomic_file(path) as partial, path.open("rb") as old, partial.open("wb") as new:
        header = _header(old)
        entries = {key if key == ENTRIES else name(key): value for key, value in header.items()}
        _put(new, entries)
        shutil.copyfileobj(old, new, 2**24)


def copied(old: BinaryIO, new: BinaryIO, facts: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """Copy a safetensors file with these facts in its header. Returns the header and the data's offset in ``new``.

    Header entries of other programs stay, sorted by name.
    """
    header = _header(old)
    entries = (header.pop(ENTRIES, None) or {}) | {HEADER: json.dumps(facts, sort_keys=True)}
    header = {ENTRIES: dict(sorted(entries.items())), **header}
    _put(new, header)
    start = new.tell()
    shutil.copyfileobj(old, new, 2**24)
    return header, start


def _header(file: BinaryIO) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    return header


def _put(file: BinaryIO, header: Mapping[str, Any]) -> None:
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGN)
    file.write(struct.pack("<Q", len(text)) + text)
