"""Write files whole or not at all, by one process at a time, with one-line errors."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from ..errors import InputError, quoted, reason
from .unfinished import PART, staging, tidy

__all__ = [
    "LOCK",
    "PART",
    "FullError",
    "atomic_file",
    "check_writable",
    "entries",
    "existing",
    "folder_name",
    "member",
    "new_file",
    "new_folder",
    "resumable",
    "set_permissions",
    "slug",
    "tidy",
    "user_path",
    "write_text",
    "writing",
]

LOCK = ".lock"

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENOENT,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EMFILE,
    errno.ENFILE,
}


class FullError(InputError):
    """The disk is full."""


def user_path(path: str | Path) -> Path:
    """A user's path with ``~`` expanded. Raises InputError for one that no file system accepts."""
    try:
        path = Path(path).expanduser()
        if not os.fsencode(path).decode("utf-8", "ignore").encode() == os.fsencode(path):
            raise ValueError("its name is not UTF-8, which safetensors needs")
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            path.stat()  # some names are refused only when they are looked up
    except (OSError, ValueError, RuntimeError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise InputError(f"{quoted(path)} cannot be used: {why}; give another path") from None
    return path


def entries(folder: Path) -> list[Path]:
    """The sorted paths in ``folder``, without locks and unfinished files; empty if it does not exist."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.name != LOCK and not path.name.endswith(PART))


def member(folder: Path, *names: str) -> Path:
    """A path inside ``folder`` by plain names.

    Raises InputError if a part of it is a symbolic link or leads outside.
    """
    path = folder
    for name in names:
        if Path(name).name != name or name in ("", ".", ".."):
            raise InputError(f"{quoted(name)} is no plain file name")
        path = path / name
        if path.is_symlink():
            raise InputError(
                f"{quoted(path)} is a symbolic link: a folder of ours holds none; put the file itself there"
            )
    return path


@contextlib.contextmanager
def atomic_file(path: Path, *, new: bool = False) -> Iterator[Path]:
    """Yield the path of a file to write. It replaces ``path`` only if no error occurs.

    A link at ``path`` is replaced, not followed. new: raises InputError if another process made ``path`` meanwhile.
    """
    if new:  # a user's folder, which no other command tidies
        tidy(path.parent)
    with staging(path.parent) as place:
        partial = place / path.name
        yield partial
        if new:
            _claim(partial, path)
        else:
            partial.replace(path)


def _claim(partial: Path, path: Path) -> None:
    """Move a file to its path if nothing is there. Of two processes only one succeeds."""
    try:
        if sys.platform == "win32":
            partial.rename(path)  # refuses what exists
        else:
            os.link(partial, path)
    except FileExistsError:
        raise InputError(f"{quoted(path)} exists already: choose a new file") from None
    except OSError:  # a file system without links
        new_file(path)
        partial.replace(path)


def new_file(path: Path) -> None:
    """Raises InputError if ``path`` exists, or if no file can have that name."""
    if user_path(path).exists():
        raise InputError(f"{quoted(path)} exists already: choose a new file")


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder to write to. It becomes ``folder`` only if no error occurs.

    Raises InputError if ``folder`` exists or cannot be written.
    """
    if user_path(folder).exists():
        raise InputError(_exists(folder))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        tidy(folder.parent)
        with staging(folder.parent) as partial:
            partial.chmod(0o777 & ~_umask())
            yield partial
            partial.replace(folder)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            raise FullError(_full(folder)) from None
        if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST) and folder.exists():
            raise InputError(_exists(folder)) from None  # another process made it meanwhile
        if isinstance(error, OSError) or type(error).__name__ == "SafetensorError":
            why = reason(error) if isinstance(error, OSError) else error
            raise InputError(f"folder {quoted(folder)} cannot be written: {why}") from None
        raise


def _exists(folder: Path) -> str:
    return f"folder {quoted(folder)} exists already: choose a new one"


def set_permissions(path: Path) -> None:
    """Give a file the default permissions of a new one. A temporary file is for its owner only."""
    path.chmod(0o666 & ~_umask())


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Write a small UTF-8 text file whole or not at all."""
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn the errors of a full disk or unwritable path into an InputError; ``folder`` is where we write."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise FullError(_full(folder)) from error
        if error.errno in _REFUSED:
            raise InputError(
                f"{quoted(error.filename or folder)} cannot be written ({reason(error)}): choose a folder that can be"
            ) from error
        raise


@contextlib.contextmanager
def resumable(path: Path, how: str) -> Iterator[None]:
    """Add ``how`` to resume to a message about a full disk, if ``path`` (the record of what was begun) exists."""
    try:
        yield
    except FullError as error:
        raise FullError(f"{error}; {how}" if path.is_file() else str(error)) from None


def _full(folder: Path) -> str:
    free = shutil.disk_usage(existing(folder)).free / 1e9
    return (
        f"the disk of {quoted(folder)} is full or a file on it grew too large ({free:.2f} GB free): make room "
        "and try again"
    )


def existing(path: Path) -> Path:
    """``path``, or the nearest folder above it that exists."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def check_writable(path: Path, folder: Path, *, verb: str = "written") -> None:
    """Raise InputError if ``path`` cannot be made: ``folder``, or what exists above it, is a file or forbids it."""
    parent = existing(folder)
    if not parent.is_dir():
        raise InputError(
            f"{quoted(path)} cannot be {verb}: {quoted(parent)} is a file; choose another folder"
        )
    if not os.access(parent, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise InputError(
            f"{quoted(path)} cannot be written: no permission in {quoted(parent)}; choose another folder"
        )


def folder_name(text: str) -> str:
    """``slug``, with a short hash where the text has letters that it loses: two names in Chinese are two folders."""
    if text.isascii():
        return slug(text)
    return f"{slug(text)}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def slug(text: str, *, length: int = 60) -> str:
    """``text`` as part of a file name on any system: lower-case ASCII letters, digits and single dashes."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:length].strip("-") or "unnamed"
