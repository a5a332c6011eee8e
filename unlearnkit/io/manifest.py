"""A folder's manifest: a JSON file, written last, with the hash and size of every other file and a hash over itself.

It finds damage and files that were exchanged. It is no signature: who writes a whole manifest anew writes what they
like, so ``verify`` also compares what the files say with each other.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, printable, quoted, reason
from .files import LOCK, PART
from .reading import parse_json, read_bytes, typed

__all__ = ["changes", "contents", "dump", "file_hash", "listing", "load", "no_links", "sealed", "tensor_hash"]

SEAL = "sealed"  # the entry with the hash of all the others


def dump(facts: Mapping[str, Any]) -> str:
    """The text of a manifest that says ``facts``: JSON, whose last entry is the hash of the others."""
    plain = {name: value for name, value in facts.items() if name != SEAL}
    text = json.dumps(plain, indent=1, ensure_ascii=False)
    seal = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return json.dumps({**plain, SEAL: seal}, indent=1, ensure_ascii=False) + "\n"


def load(path: Path, *, old: Collection[str], what: str) -> dict[str, Any]:
    """What a manifest says, byte for byte as it was written.

    old: the entries that older versions wrote, without a hash; what has only these is taken as it is.
    Raises InputError for a file that is missing or was changed.
    """
    data = read_bytes(path, what=what)
    facts = parse_json(data, kind=dict, where=f"{what} {quoted(path)}")
    if SEAL not in facts and facts.keys() <= set(old):
        return facts
    if dump(facts).encode("utf-8", "surrogatepass") != data:
        raise InputError(f"{what} {quoted(path)} was changed after it was written: put a copy of it back")
    return facts


def sealed(facts: Mapping[str, Any]) -> bool:
    """Whether a manifest that was loaded has a hash over itself: those of older versions have none."""
    return SEAL in facts


def contents(folder: Path, *, leave: Collection[str] = ()) -> dict[str, Path]:
    """Everything below ``folder`` but folders, by its path inside; links are named and never followed.

    leave: names directly in it that do not count. Locks and unfinished files never do.
    """
    found = {}
    for place, folders, files in os.walk(folder):
        here = Path(place)
        if here == folder:
            folders[:] = [name for name in folders if name not in leave]
            files = [name for name in files if name not in leave]
        folders[:] = sorted(name for name in folders if not name.endswith(PART))
        links = [name for name in folders if (here / name).is_symlink()]
        for name in sorted([*files, *links]):
            if name != LOCK and not name.endswith(PART):
                found[(here / name).relative_to(folder).as_posix()] = here / name
    return found


def listing(folder: Path, *, leave: Collection[str] = ()) -> dict[str, dict[str, Any]]:
    """Hash and size of every file below ``folder``, by its path inside. Raises InputError where one is a link."""
    no_links(folder)
    return {
        name: {"sha256": file_hash(path), "bytes": path.stat().st_size}
        for name, path in contents(folder, leave=leave).items()
    }


def changes(folder: Path, listed: Any, *, leave: Collection[str] = ()) -> Iterator[tuple[str, str]]:
    """What is not as ``listing`` said, as (path inside, what is wrong with it); a missing folder is one line."""
    wanted = typed(listed, {}, where="its list of files")
    there = contents(folder, leave=leave)
    links = tuple(f"{name}/" for name, path in there.items() if path.is_symlink())
    missing = [name for name in wanted if name not in there and not name.startswith(links)]
    folders = {name.partition("/")[0] for name in missing if "/" in name}
    gone = {one for one in folders if not any(name.partition("/")[0] == one for name in there)}
    yield from ((one, "is missing") for one in sorted(gone))
    yield from ((name, "is missing") for name in missing if name.partition("/")[0] not in gone)
    for name, path in there.items():
        if name not in wanted:
            yield name, "is a symbolic link" if path.is_symlink() else "was added later"
        elif why := _differs(path, wanted[name]):
            yield name, why


def no_links(folder: Path) -> None:
    """Raises InputError for a symbolic link anywhere below ``folder``: what is written there goes nowhere else."""
    for path in contents(folder).values():
        if path.is_symlink():
            raise InputError(
                f"{quoted(path)} is a symbolic link: a folder of ours holds none; put the file itself there"
            )


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensor_hash(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """sha256 of names, shapes, types and bytes of tensors, in the order in which they come."""
    total = hashlib.sha256()
    for name, value in tensors:
        total.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        total.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _differs(path: Path, wanted: Any) -> str:
    """How a file differs from its entry; nothing if it does not."""
    entry = (
        {"sha256": wanted} if isinstance(wanted, str) else typed(wanted, {"sha256": str}, where="its entry")
    )
    try:
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode):
            return "is a symbolic link"
        if not stat.S_ISREG(found.st_mode):
            return "is no regular file any more"
        if found.st_size != entry.get("bytes", found.st_size) or file_hash(path) != entry["sha256"]:
            return "was changed later"
    except OSError as error:
        return f"cannot be read: {printable(reason(error))}"
    return ""
