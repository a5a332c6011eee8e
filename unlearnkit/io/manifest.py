"""A folder's manifest: a JSON file, written last, with the hash and size of every other file and a hash over itself.

It detects damage and exchanged files. It is no signature: anyone can write a new manifest, so ``verify`` also compares
the contents of the files with each other.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, printable, quoted, reason
from .files import LOCK, PART
from .reading import parse_json, read_bytes, typed

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "MISSING",
    "changes",
    "contents",
    "dump",
    "file_hash",
    "listing",
    "load",
    "no_links",
    "sealed",
    "sums",
    "tensor_hash",
]

MISSING = "is missing"  # what is said of a file that is not there
SEAL = "sealed"  # the entry with the hash of all the others


def dump(facts: Mapping[str, Any]) -> str:
    """The text of a manifest of ``facts``: JSON, whose last entry is the hash of the others."""
    entries = {name: value for name, value in facts.items() if name != SEAL}
    text = json.dumps(entries, indent=1, ensure_ascii=False)
    seal = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return json.dumps({**entries, SEAL: seal}, indent=1, ensure_ascii=False) + "\n"


def load(path: Path, *, old: Collection[str], what: str) -> dict[str, Any]:
    """The facts of a manifest.

    old: the entries of older versions, which wrote no hash; a manifest with only these is accepted without one.
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
    """Whether a loaded manifest has a hash over itself. Those of older versions have none."""
    return SEAL in facts


def contents(folder: Path, *, leave: Collection[str] = ()) -> dict[str, Path]:
    """All files and links below ``folder``, by relative path. Links are not followed.

    leave: names in ``folder`` itself to skip. Locks and unfinished files are always skipped.
    """
    paths = {}
    for root, folders, files in os.walk(folder):
        here = Path(root)
        if here == folder:
            folders[:] = [name for name in folders if name not in leave]
            files = [name for name in files if name not in leave]
        folders[:] = sorted(name for name in folders if not name.endswith(PART))
        links = [name for name in folders if (here / name).is_symlink()]
        for name in sorted([*files, *links]):
            if name != LOCK and not name.endswith(PART):
                paths[(here / name).relative_to(folder).as_posix()] = here / name
    return paths


def listing(folder: Path, *, leave: Collection[str] = ()) -> dict[str, dict[str, Any]]:
    """Hash and size of every file below ``folder``, by relative path. Raises InputError for a link."""
    no_links(folder)
    return {
        name: {"sha256": file_hash(path), "bytes": path.stat().st_size}
        for name, path in contents(folder, leave=leave).items()
    }


def changes(folder: Path, listed: Any, *, leave: Collection[str] = ()) -> Iterator[tuple[str, str]]:
    """Differences from ``listing``, as (relative path, what is wrong). A missing folder is one item."""
    entries = typed(listed, {}, where="its list of files")
    present = contents(folder, leave=leave)
    links = tuple(f"{name}/" for name, path in present.items() if path.is_symlink())
    missing = [name for name in entries if name not in present and not name.startswith(links)]
    folders = {name.partition("/")[0] for name in missing if "/" in name}
    gone = folders - {name.partition("/")[0] for name in present}
    yield from ((folder_name, MISSING) for folder_name in sorted(gone))
    yield from ((name, MISSING) for name in missing if name.partition("/")[0] not in gone)
    for name, path in present.items():
        if name not in entries:
            yield name, "is a symbolic link" if path.is_symlink() else "was added later"
        elif why := _differs(path, entries[name]):
            yield name, why


def no_links(folder: Path) -> None:
    """Raises InputError for a symbolic link anywhere below ``folder``: files must not be written elsewhere."""
    for path in contents(folder).values():
        if path.is_symlink():
            raise InputError(
                f"{quoted(path)} is a symbolic link: a folder of ours holds none; put the file itself there"
            )


def sums(path: Path) -> dict[str, str]:
    """The SHA-256 of each file that a list for ``sha256sum -c`` names."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, name in (line.split(maxsplit=1) for line in lines)}


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensor_hash(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """sha256 of names, shapes, types and bytes of tensors, in the given order."""
    import torch  # the rest of this file needs none

    total = hashlib.sha256()
    for name, value in tensors:
        total.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        total.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _differs(path: Path, expected: Any) -> str:
    """How a file differs from its entry; empty if it does not."""
    entry = (
        {"sha256": expected}
        if isinstance(expected, str)
        else typed(expected, {"sha256": str}, where="its entry")
    )
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            return "is a symbolic link"
        if not stat.S_ISREG(status.st_mode):
            return "is no regular file any more"
        if status.st_size != entry.get("bytes", status.st_size) or file_hash(path) != entry["sha256"]:
            return "was changed later"
    except OSError as error:
        return f"cannot be read: {printable(reason(error))}"
    return ""
