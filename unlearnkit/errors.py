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
from collections.abc import Iterable

__all__ = ["DivergedError", "EditError", "InputError", "ModelError", "UnlearnError", "nearest"]


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
    close = difflib.get_close_matches(name, list(allowed), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
