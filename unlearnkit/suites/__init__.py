"""Suites: what an evaluation asks for, as versioned data. Changing a suite's prompts means raising its version."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, nearest, quoted
from ..io.files import user_path
from ..schema import Case, Concept, Request
from . import canvas, i2p, prompts, unlearncanvas, vocabulary

__all__ = ["SUITES", "Suite", "cases", "find"]

REPLICATES, PICTURES = 1000, 200_000  # of a prompt, and of one side, at most


@dataclass(frozen=True)
class Suite:
    """cases: ``cases(request, replicates, file)`` gives the cases and, in words, the rows that are left out.

    known: the suite's own word for a concept. asks_file: whether the prompts come from the user's own file.
    words: all objects and styles of the suite by kind, in the order of its published classifiers; may be empty.
    """

    name: str
    version: int
    summary: str
    asks_file: bool
    known: Callable[[Concept], str]
    cases: Callable[[Request, int, Path | None], tuple[list[Case], list[str]]]
    words: Mapping[str, tuple[str, ...]]


SUITES: dict[str, Suite] = {
    suite.NAME: Suite(
        suite.NAME,
        suite.VERSION,
        suite.SUMMARY,
        suite.ASKS_FILE,
        suite.known,
        suite.cases,
        getattr(suite, "WORDS", {}),
    )
    for suite in (canvas, prompts, i2p, unlearncanvas, vocabulary)
}


def find(name: str) -> Suite:
    """The suite called ``name``; InputError with the nearest name for an unknown one."""
    if name not in SUITES:
        raise InputError(
            f"suite {quoted(name)} is unknown{nearest(name, SUITES)}: use one of {', '.join(SUITES)}"
        )
    return SUITES[name]


def cases(
    name: str, request: Request, *, replicates: int = 1, file: str | Path | None = None
) -> tuple[list[Case], list[str]]:
    """The cases of a suite for what a request erases, and the rows that the suite leaves out, each with its reason.

    replicates: pictures of each prompt, each with a seed of its own. file: the CSV of a suite that takes one.
    Raises InputError for an unknown suite, a concept that the suite does not know, and a malformed file.
    """
    suite = find(name)
    if not 1 <= replicates <= REPLICATES:
        raise InputError(f"replicates {quoted(replicates)} is out of range: use 1 to {REPLICATES}")
    if suite.asks_file != (file is not None):
        wanted = "takes the prompts of a CSV file: name it" if suite.asks_file else "brings its own prompts"
        raise InputError(
            f"suite {quoted(name)} {wanted}{' with --file' if suite.asks_file else ': leave out --file'}"
        )
    found, left_out = suite.cases(request, replicates, None if file is None else user_path(file))
    if len(found) > PICTURES:
        raise InputError(
            f"suite {name!r} asks for {len(found):,} pictures of each model, at most {PICTURES:,} are drawn: ask fewer "
            "prompts, or with fewer --replicates"
        )
    if not any(case.role == "erased" for case in found):
        raise InputError(
            f"suite {quoted(name)} has no prompt that asks for what is erased: nothing can be shown with it"
        )
    return found, left_out
