"""What is being written stands in a folder of its own until it is whole, and what killed processes left is removed."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

__all__ = ["PART", "beside", "removed", "swept"]

PART = ".part"  # how the names of unfinished files and folders end


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A new folder beside ``path`` that only this process may enter and holds a lock on, for as long as it is needed.

    Its name cannot be guessed, so that nobody puts a link there first.
    """
    while True:
        folder = Path(tempfile.mkdtemp(suffix=PART, prefix=_front(path), dir=path.parent))
        handle = _holding(folder)
        if handle is not None:
            break
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle >= 0:
            os.close(handle)


def _front(path: Path) -> str:
    """How the names of folders for what is unfinished of ``path`` begin."""
    return f".{zlib.crc32(os.fsencode(path.name)):08x}-"


def _holding(folder: Path) -> int | None:
    """A handle by which this process holds a lock on a folder, -1 without locks, None where another one has it."""
    if sys.platform == "win32":
        return -1
    import fcntl

    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(handle), folder.stat()):
            return handle
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:  # a file system that knows no locks
        return handle
    os.close(handle)
    return None


def swept(path: Path) -> None:
    """Remove what killed processes left unfinished of ``path``; what another process is writing stays."""
    for folder in path.parent.glob(f"{_front(path)}*{PART}"):
        handle = _holding(folder)
        if handle is not None and handle >= 0:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(handle)


def removed(path: Path) -> None:
    """Remove a file, a link or a whole folder, as far as that can be done."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
