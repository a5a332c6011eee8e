"""The list of all files of a look, with their hashes: what its evaluation says of itself, and every picture's bytes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import reason
from ..evaluation.record import file_hash
from ..io.files import LOCK, PART, write_text
from ..io.reading import read_json
from .facts import Look

__all__ = ["FILES", "as_listed", "changed", "inside", "listed", "unlisted"]

FILES = "files.json"


def listed(folder: Path) -> str:
    """Write the list of the files in ``folder`` there, and return its own sha256."""
    found = {name: file_hash(folder / name) for name in inside(folder) if name != FILES}
    write_text(folder / FILES, json.dumps(found, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    return file_hash(folder / FILES)


def unlisted(folder: Path, look: Look) -> Iterator[str]:
    """What in the folder of a look is not as it was listed; nothing for one that was made before there was a list."""
    if not look.files:
        return
    if wrong := changed(folder / FILES, look.files):
        yield f"{FILES} {wrong}"
        return
    listed = read_json(folder / FILES, what="list", kind=dict)
    for name in sorted({*listed, *inside(folder)} - {FILES}):
        if name not in listed:
            yield f"{name} is no part of it"
        elif wrong := changed(folder / name, listed[name]):
            yield f"{name} {wrong}"


def as_listed(folder: Path, look: Look) -> list[str]:
    """The names of those files of a look that are as they were listed."""
    if not look.files or changed(folder / FILES, look.files):
        return []
    listed = read_json(folder / FILES, what="list", kind=dict)
    return [name for name, wanted in listed.items() if not changed(folder / name, wanted)]


def changed(path: Path, wanted: str) -> str:
    """What is wrong with a file that has this sha256; nothing if it has."""
    try:
        if path.is_symlink():
            return "is a symbolic link"
        return "" if file_hash(path) == wanted else "was changed"
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    except OSError as error:
        return f"cannot be read: {reason(error)}"


def inside(folder: Path) -> Iterator[str]:
    """The names of all files below ``folder``, links too, in order; no locks and no unfinished files."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.endswith(PART))
        links = [name for name in folders if Path(place, name).is_symlink()]
        for name in sorted([*files, *links]):
            if name != LOCK and not name.endswith(PART):
                yield Path(place, name).relative_to(folder).as_posix()
