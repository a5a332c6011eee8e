"""Suites: the prompts of an evaluation, as versioned data. A change of a suite's prompts raises its version."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, nearest, quoted
from ..io.files import user_path
from ..schema import Case, Concept, Request
from . import canvas, duge, i2p, prompts, unlearncanvas, vocabulary

__all__ = ["SUITES", "Suite", "cases", "find"]

REPLICATES, PICTURES = 1000, 200_000  # of a prompt, and of one side, at most


@dataclass(frozen=True)
class Suite:
    """cases: ``cases(request, replicates, file)`` gives the cases, and a line for each row that is left out.

    own_name: the suite's name of a concept; default: the concept's name. needs_file: whether the user brings a file.
    words: all objects and styles of the suite by kind, in the order of its published classifiers; may be empty.
    """

    name: str
    version: int
    summary: str
    needs_file: bool
    own_name: Callable[[Concept], str]
    cases: Callable[[Request, int, Path | None], tuple[list[Case], list[str]]]
    words: Mapping[str, tuple[str, ...]]


SUITES: dict[str, Suite] = {
    suite.NAME: Suite(
        suite.NAME,
        suite.VERSION,
        suite.SUMMARY,
        suite.NEEDS_FILE,
        getattr(suite, "own_name", operator.attrgetter("name")),
        suite.cases,
        getattr(suite, "WORDS", {}),
    )
    for suite in (canvas, prompts, i2p, unlearncanvas, duge, vocabulary)
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
    """The cases of a suite for a request, and the rows that the suite leaves out, each with its reason.

    replicates: pictures of each prompt, with different seeds. file: the CSV of a suite that takes one.
    Raises InputError for an unknown suite, a concept that the suite does not know, and a malformed file.
    """
    suite = find(name)
    if not 1 <= replicates <= REPLICATES:
        raise InputError(f"replicates {quoted(replicates)} is out of range: use 1 to {REPLICATES}")
    if suite.needs_file != (file is not None):
        needs = "takes the prompts of a CSV file: name it with --file"
        raise InputError(
            f"suite {quoted(name)} {needs if suite.needs_file else 'brings its own prompts: leave out --file'}"
        )
    drawn, left_out = suite.cases(request, replicates, None if file is None else user_path(file))
    if len(drawn) > PICTURES:
        raise InputError(
            f"suite {name!r} needs {len(drawn):,} pictures of each model, at most {PICTURES:,} are drawn: use fewer "
            "prompts or --replicates"
        )
    if not any(case.role == "erased" for case in drawn):
        raise InputError(
            f"suite {quoted(name)} has no prompt of an erased concept: nothing can be shown with it"
        )
    return drawn, left_out
