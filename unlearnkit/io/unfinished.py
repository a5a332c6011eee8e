"""Temporary folders for unfinished files and folders. What a killed process leaves is found and removed."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["PART", "remove", "staging", "tidy"]

PREFIX, PART = ".unlearnkit-", ".part"  # of unfinished files and folders: nobody else's have both


@contextlib.contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Yield a new temporary folder inside ``folder``. It is removed at the end, unless it was renamed.

    Its name cannot be guessed, so nobody can put a link there first. ``tidy`` does not remove it while it is in use.
    """
    while True:
        place = Path(tempfile.mkdtemp(suffix=PART, prefix=PREFIX, dir=folder))
        with _taken(place) as taken:
            if taken is False:  # removed by another process's tidy
                continue
            try:
                yield place
            finally:
                remove(place)
            return


def tidy(folder: Path, *, exclusive: bool = False) -> None:
    """Remove temporary files of killed processes in ``folder``, not those that another process is writing now.

    exclusive: no other process writes here, as inside ``locked``. Otherwise the leftovers stay on file systems that
    cannot lock folders, such as those of Windows.
    """
    for path in folder.glob(f"{PREFIX}*{PART}"):
        with _taken(path) as taken:
            if taken or (exclusive and taken is None):
                remove(path)


@contextlib.contextmanager
def _taken(path: Path) -> Iterator[bool | None]:
    """Lock a folder: yields whether we hold the lock, or None if it cannot be locked."""
    if sys.platform == "win32" or path.is_symlink() or not path.is_dir():
        yield None
        return
    import fcntl

    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        yield (
            False if error.errno == errno.ENOENT else None
        )  # removed by another process, or another user's
        return
    try:
        locked: bool | None = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            locked = False if error.errno in (errno.EAGAIN, errno.EACCES) else None
        # a lock on a folder that was removed meanwhile does not count
        yield locked and path.exists()
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
