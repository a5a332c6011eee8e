"""Every error a user can cause, as one tree.

    UnlearnError
    ├── InputError        a name, value, file or combination that cannot be used
    ├── ModelError        a model that cannot be loaded or edited
    ├── EditError         an edit that is damaged or made from another model
    └── DivergedError     training produced a loss that is not a finite number

A message is one line: what came, what is allowed, what to do. The command line prints it and exits with 2. Any other
exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
import errno
import itertools
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any

__all__ = [
    "DivergedError",
    "EditError",
    "InputError",
    "ModelError",
    "UnlearnError",
    "listed",
    "nearest",
    "one_line",
    "printable",
    "quoted",
    "reason",
]

LONGEST = 80  # characters of a value that a message quotes
LIST = 400  # characters of a list of allowed values
MANY = 10_000  # the most allowed names that are searched for the nearest
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
    """A model that cannot be loaded or edited."""


class EditError(UnlearnError):
    """An edit that is damaged or made from another model."""


class DivergedError(UnlearnError):
    """Training produced a loss that is not a finite number."""


def nearest(name: str, allowed: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return ``" (did you mean 'x'?)"`` for the closest allowed name in any case, or an empty string."""
    if len(name) > LONGEST:
        return ""
    names = {one.casefold(): one for one in itertools.islice(allowed, MANY) if len(one) <= LONGEST}
    close = difflib.get_close_matches(name.casefold(), names, n=1, cutoff=cutoff)
    return f" (did you mean {quoted(names[close[0]])}?)" if close else ""


def listed(names: Iterable[str], longest: int = LIST) -> str:
    """``"x, y, z"`` for a message, cut after ``longest`` characters to ``"x, y and 7 more"``."""
    names, shown, length = list(names), list[str](), 0
    for one in names:
        shown.append(printable(one) if len(one) <= LONGEST else quoted(one))
        length += len(shown[-1]) + 2
        if length > longest:
            break
    left = len(names) - len(shown)
    return ", ".join(shown) + (f" and {left} more" if left else "")


def quoted(value: Any, longest: int = LONGEST) -> str:
    """``repr(value)`` for a message, cut to ``longest`` characters, with control characters escaped.

    A path is cut in the middle, so that the file name stays. A tuple of texts or numbers is written as after ``--set``:
    ``'l1sp,l2sp'``.
    """
    if isinstance(value, tuple) and all(isinstance(one, str | int | float) for one in value):
        value = ",".join(map(str, value))
    try:
        text = repr(str(value) if isinstance(value, PurePath) else value)
    except (ValueError, RecursionError):  # a whole number of over 4,300 digits, or endless nesting
        text = f"a {type(value).__name__} that is too large to print"
    path = isinstance(value, PurePath)
    longest = max(longest, 2 * LONGEST) if path else longest
    text = printable(text[: 4 * longest])
    if len(text) > longest and path:
        return text[: longest // 4] + "…" + text[longest // 4 + 1 - longest :]
    return text if len(text) <= longest else text[: longest - 1] + "…"


def printable(text: str) -> str:
    """``text`` on one line, with control and invisible characters escaped."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def one_line(error: BaseException, longest: int = 200) -> str:
    """The message of another library's error on one line, shortened; without one its class."""
    text = printable(" ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= longest else text[: longest - 1] + "…"


def reason(error: OSError) -> str:
    """Why a file or folder cannot be used, in words, such as ``"no permission"``."""
    return _REASONS.get(error.errno or 0) or error.strerror or printable(str(error))
