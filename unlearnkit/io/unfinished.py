"""Where files and folders are written until they are whole: what a kill leaves of them is found and removed."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["PART", "space", "tidy"]

PART = ".part"  # how unfinished files and folders end


@contextlib.contextmanager
def space(folder: Path) -> Iterator[Path]:
    """Yield a new folder inside ``folder`` for what is unfinished; it is removed at the end, unless it was renamed.

    Its name cannot be guessed, so that nobody puts a link there first. While it is in use ``tidy`` leaves it.
    """
    while True:
        place = Path(tempfile.mkdtemp(suffix=PART, prefix=".", dir=folder))
        with _taken(place) as taken:
            if taken is False:  # by another process that tidies up
                continue
            try:
                yield place
            finally:
                _remove(place)
            return


def tidy(folder: Path, *, alone: bool = False) -> None:
    """Remove what killed processes left unfinished in ``folder``, and nothing that another process writes just now.

    alone: no other process writes here, as under ``locked``. Where others may, a file system that cannot lock folders
    (Windows has none that can) keeps the leftovers.
    """
    for path in folder.glob(f".*{PART}"):
        with _taken(path) as taken:
            if taken or (alone and taken is None):
                _remove(path)


@contextlib.contextmanager
def _taken(path: Path) -> Iterator[bool | None]:
    """Within this a folder is locked: whether it is ours, or None where it cannot be locked."""
    if sys.platform == "win32" or path.is_symlink() or not path.is_dir():
        yield None
        return
    import fcntl

    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        yield (
            False if error.errno == errno.ENOENT else None
        )  # another process was faster, or it is another user's
        return
    try:
        found: bool | None = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            found = False if error.errno in (errno.EAGAIN, errno.EACCES) else None
        # the lock of a folder that was removed meanwhile is no lock
        yield found and path.exists()
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
