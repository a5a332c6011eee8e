"""Every error a user can cause, as one tree.

    UnlearnError
    ├── InputError        a name, value, file or combination that cannot be used
    ├── ModelError        a model that cannot be loaded, or must not be edited as it is
    ├── EditError         an edit that is damaged, or does not belong to this model
    └── DivergedError     training produced a loss that is not a finite number

A message says what came, what is allowed and what to do, in one line. The command line prints it and
exits with 2; any other exception is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any

__all__ = [
    "DivergedError",
    "EditError",
    "InputError",
    "ModelError",
    "UnlearnError",
    "nearest",
    "printable",
    "quoted",
    "reason",
]

LONGEST = 80  # characters of a value that a message quotes
_REASONS = {
    errno.ENOENT: "it does not exist",
    errno.ENOTDIR: "a part of its path is a file",
    errno.EISDIR: "it is a folder",
    errno.EACCES: "no permission",
    errno.EPERM: "no permission",
    errno.EROFS: "the disk is read-only",
    errno.ENAMETOOLONG: "the name is too long for the file system",
    errno.ELOOP: "it is a symbolic link where none is allowed, or a loop of them",
    errno.EMFILE: "this process has too many open files",
    errno.ENFILE: "this machine has too many open files",
}


class UnlearnError(Exception):
    """Root of everything that unlearnkit raises on purpose."""


class InputError(UnlearnError):
    """A name, value, file or combination that cannot be used."""


class ModelError(UnlearnError):
    """A model that cannot be loaded, or must not be edited as it is."""


class EditError(UnlearnError):
    """An edit that is damaged, or does not belong to this model."""


class DivergedError(UnlearnError):
    """Training produced a loss that is not a finite number."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the closest allowed name, or an empty string."""
    close = difflib.get_close_matches(name, list(allowed), n=1) if len(name) <= LONGEST else []
    return f" (did you mean {close[0]!r}?)" if close else ""


def quoted(value: Any, longest: int = LONGEST) -> str:
    """``repr(value)`` for a message, cut to ``longest`` characters; control characters come escaped.

    A path is cut in the middle: its end is the file's name.
    """
    try:
        text = repr(str(value) if isinstance(value, PurePath) else value)
    except (ValueError, RecursionError):  # a whole number of over 4,300 digits, or nesting without end
        text = f"a {type(value).__name__} that is too large to print"
    text = printable(text)
    if len(text) <= longest:
        return text
    end = longest * 3 // 4 if isinstance(value, PurePath) else 0
    return f"{text[: longest - 1 - end]}…{text[len(text) - end :]}"


def printable(text: str) -> str:
    """``text`` on one line: characters that would move the cursor or hide text come as their escapes."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def reason(error: OSError) -> str:
    """Why a file or folder cannot be used, in words, such as ``"no permission"``."""
    return _REASONS.get(error.errno or 0) or error.strerror or printable(str(error))
