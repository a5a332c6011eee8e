"""The list of all files of an evaluation in a chain, with their hashes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from ..errors import reason
from ..io.files import write_text
from ..io.manifest import contents, file_hash
from ..io.reading import read_json
from .facts import Evaluation

__all__ = ["FILES", "hash_error", "list_errors", "unchanged_files", "write_list"]

FILES = "files.json"


def write_list(folder: Path) -> str:
    """Write the list of the files in ``folder`` there, and return its own sha256."""
    hashes = {name: file_hash(folder / name) for name in contents(folder) if name != FILES}
    write_text(folder / FILES, json.dumps(hashes, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    return file_hash(folder / FILES)


def list_errors(folder: Path, evaluation: Evaluation) -> Iterator[str]:
    """Differences of an evaluation's folder from its list; none for older evaluations without a list."""
    if not evaluation.files:
        return
    if wrong := hash_error(folder / FILES, evaluation.files):
        yield f"{FILES} {wrong}"
        return
    listed = read_json(folder / FILES, what="list", kind=dict)
    for name in sorted({*listed, *contents(folder)} - {FILES}):
        if name not in listed:
            yield f"{name} is not part of it"
        elif wrong := hash_error(folder / name, listed[name]):
            yield f"{name} {wrong}"


def unchanged_files(folder: Path, evaluation: Evaluation) -> list[str]:
    """The names of the listed files of an evaluation that are unchanged."""
    if not evaluation.files or hash_error(folder / FILES, evaluation.files):
        return []
    listed = read_json(folder / FILES, what="list", kind=dict)
    return [name for name, sha256 in listed.items() if not hash_error(folder / name, sha256)]


def hash_error(path: Path, sha256: str) -> str:
    """What is wrong with a file that must have this sha256; empty if nothing is."""
    try:
        if path.is_symlink():
            return "is a symbolic link"
        if path.exists() and not path.is_file():
            return "is no regular file"
        return "" if file_hash(path) == sha256 else "was changed"
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    except OSError as error:
        return f"cannot be read: {reason(error)}"
