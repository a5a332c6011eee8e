"""Named tensors on disk: safetensors with facts in the header, written whole or not at all, never pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from . import processes
from .errors import InputError, quoted
from .files import shared, whole
from .reading import parse_json

__all__ = ["read", "write"]

HEADER = "unlearnkit"


def write(path: str | Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write ``tensors`` and JSON-able ``facts`` to ``path`` by way of a temporary file and a rename.

    What was at ``path`` stays whole until the new file is complete. Of several processes only the first one writes.
    Raises InputError where it cannot be written.
    """
    if not processes.first():
        return
    path = Path(path)
    plain = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as partial:
            save_file(plain, partial, {HEADER: json.dumps(facts, sort_keys=True)})
            shared(partial)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{quoted(path)} cannot be written: {error}; free space or choose another folder"
        ) from None


def read(path: str | Path, *, device: torch.device | str = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and facts of a file made by ``write``. Raises InputError for anything else."""
    try:
        with safe_open(Path(path), framework="pt", device=str(device)) as file:
            text, where = (file.metadata() or {})[HEADER], f"the header of {quoted(path)}"
            facts = parse_json(text, kind=dict, where=where)
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118
    except OSError as error:
        raise InputError(f"{quoted(path)} cannot be read: {error.strerror or error}") from None
    except KeyError:
        raise InputError(f"{quoted(path)} was not written by unlearnkit: its header has no facts") from None
    except (SafetensorError, ValueError) as error:
        raise InputError(f"{quoted(path)} is damaged: {' '.join(str(error).split())}") from None
