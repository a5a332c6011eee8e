"""One process at a time in a folder."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError, quoted
from .files import LOCK, writing
from .unfinished import tidy

__all__ = ["locked"]


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Inside, no other process writes in ``folder``, which is created if needed.

    Unfinished files of killed processes are removed. Raises InputError if another process holds the lock (the message
    names it), or if the folder cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        place = folder / LOCK
        if place.exists() and not place.is_file():
            raise InputError(f"{quoted(place)} is no regular file: remove it, it is where a lock belongs")
        # not truncated before we hold the lock, and not through a symbolic link
        handle = os.open(place, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        with os.fdopen(handle, "r+", encoding="utf-8", errors="replace") as file:
            if not _lock(file):
                file.seek(1)
                holder = file.read(200).strip() or "of an unknown number"
                raise InputError(
                    f"another process ({holder}) is writing in {quoted(folder)}: wait until it is done, "
                    "or choose another folder"
                )
            try:
                file.truncate(0)
                file.write(f" {os.getpid()} on {socket.gethostname()}\n")
                file.flush()
                tidy(folder, exclusive=True)
                yield
            finally:
                _unlock(file)


def _lock(file: Any) -> bool:
    """Try to lock a file's first byte. Returns whether we hold the lock."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            return False
        raise
    return True


def _unlock(file: Any) -> None:
    if sys.platform == "win32":
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_UN)
