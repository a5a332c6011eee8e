"""Files are written whole or not at all, and what a disk answers is said in one line."""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from .errors import InputError

__all__ = ["existing", "new_file", "new_folder", "shared", "slug", "whole", "write_text", "writing"]

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
}


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; it takes the place of ``path`` only if all went well."""
    partial = path.with_name(path.name + ".part")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def new_file(path: Path) -> None:
    """Raises InputError where something is at ``path`` already."""
    if path.exists():
        raise InputError(f"{str(path)!r} exists already: choose a new file")


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder beside ``folder`` to write to, which becomes it only if all went well.

    Raises InputError where it exists already or cannot be written.
    """
    if folder.exists():
        raise InputError(f"folder {str(folder)!r} exists already: choose a new one")
    partial = folder.with_name(folder.name + ".part")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        partial.replace(folder)
    except Exception as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError) or type(error).__name__ == "SafetensorError":
            raise InputError(f"folder {str(folder)!r} cannot be written: {error}") from None
        raise


def shared(path: Path) -> None:
    """Give a file the permissions of any new one: those that safetensors writes are for their owner alone."""
    beside = path.with_name(path.name + ".new")
    beside.touch()
    path.chmod(beside.stat().st_mode)
    beside.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a small UTF-8 text file whole or not at all."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn a full disk or a place that cannot be written into an InputError; ``folder`` is where we write."""
    try:
        yield
    except OSError as error:
        where = str(folder)
        if error.errno in _FULL:
            free = shutil.disk_usage(existing(folder)).free / 1e9
            raise InputError(
                f"the disk of {where!r} is full or a file on it grew too large ({free:.2f} GB free): make room and "
                f"try again; an interrupted run goes on with --resume"
            ) from error
        if error.errno in _REFUSED:
            raise InputError(
                f"{str(error.filename or folder)!r} cannot be written ({error.strerror}): choose a folder that can be"
            ) from error
        raise


def existing(path: Path) -> Path:
    """``path``, or the nearest folder above it that exists."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def slug(text: str, *, length: int = 60) -> str:
    """``text`` as part of a file name on any system: lower-case ASCII letters, digits and single dashes."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:length].strip("-") or "unnamed"
