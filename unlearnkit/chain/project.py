"""The folder of a chain, and its state, which follows from the ledger's entries alone.

    ledger.jsonl, head.json   see ``ledger``
    edits/HASH.safetensors    every edit, named by the hash of its weights
    looks/ID/                 the evaluation after each entry: pictures, rows, figures, and a list of its files
    attacks/NAME/             what an attack on the chain's model found
    work/ID/                  an unfinished request, to resume after a kill; empty between requests
    report.html, report.json  see ``commands.report``
    .lock                     locked while a process writes

A change counts only when the ledger has its line.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import InputError, quoted
from ..io.files import PART, entries, member, user_path
from ..io.locks import locked
from ..io.reading import read_json, typed
from ..io.unfinished import remove
from ..schema import Request
from . import ledger
from .facts import Added, ChainOptions, Change, Evaluation, Reverted, Stored, changes, options_of
from .ledger import HEAD, LEDGER, Entry

__all__ = [
    "EDITS",
    "LOOKS",
    "PAGES",
    "REQUEST",
    "WORK",
    "Project",
    "Step",
    "change_chain",
    "identity",
    "open_chain",
    "project_of",
    "sweep",
]

EDITS, LOOKS, WORK = "edits", "looks", "work"
REQUEST = "request.json"  # in the folder of an unfinished request
PAGES = ("report.html", "report.json")
FORMER = "lock"  # the lock of earlier versions


@dataclass(frozen=True)
class Step:
    """An active request: added and not reverted.

    number: of its entry. recipe: method, settings, seed, guards.
    edit: its stored edit. after: numbers of the requests on which the edit builds. instead: see ``facts.Added``.
    """

    number: int
    request: Request
    recipe: Mapping[str, Any]
    edit: Stored
    after: tuple[int, ...]
    instead: Mapping[str, str]

    @property
    def title(self) -> str:
        """The names of its erased concepts."""
        return ", ".join(concept.name for concept in self.request.erase)


@dataclass(frozen=True)
class Project:
    """A chain, read from its ledger. entries: all lines; options: the first one; changes: the others, checked."""

    folder: Path
    entries: tuple[Entry, ...]
    options: ChainOptions
    changes: tuple[Added | Reverted, ...]

    @property
    def steps(self) -> tuple[Step, ...]:
        """The active requests, in order."""
        steps: dict[int, Step] = {}
        for change in self.changes:
            if isinstance(change, Added):
                steps[change.number] = Step(
                    change.number, change.request, change.recipe, change.edit, change.after, change.instead
                )
                continue
            for number in change.removes:
                del steps[number]
            for made in change.remade:
                old = steps[made.request]
                steps[old.number] = replace(old, edit=made.edit, after=made.after, instead=made.instead)
        return tuple(steps.values())

    @property
    def last(self) -> Change | None:
        """The last change; None before the first request."""
        return self.changes[-1] if self.changes else None

    @property
    def weights(self) -> str:
        """The fingerprint of the current model."""
        return self.last.weights if self.last else self.options.base

    @property
    def head(self) -> str:
        """The hash of the last entry."""
        return self.entries[-1].hash

    def made(self) -> list[Stored]:
        """Every edit that the ledger names, in order."""
        return [edit for change in self.changes for edit in change.made]

    def edits(self) -> dict[str, str]:
        """The sha256 of every edit's file that the ledger names, by the hash of its weights."""
        return {edit.hash: edit.sha256 for edit in self.made()}

    def evaluations(self) -> dict[str, Evaluation]:
        """Every evaluation, in order, by the name of its folder."""
        return {change.evaluation.folder: change.evaluation for change in self.changes if change.evaluation}

    def step(self, number: int) -> Step:
        """The request with this number. Raises InputError if it is not active."""
        for step in self.steps:
            if step.number == number:
                return step
        numbers = ", ".join(str(step.number) for step in self.steps)
        there = f"active are {numbers}" if numbers else "there are no active requests"
        raise InputError(f"request {number} is not active in {quoted(self.folder)}: {there}")

    def at_head(self, head: str) -> Project | None:
        """The chain as it was when its ledger ended with this hash; None if it never did."""
        ends = [entry.hash for entry in self.entries]
        return project_of(self.folder, self.entries[: ends.index(head) + 1]) if head in ends else None


def open_chain(folder: str | Path) -> Project:
    """The chain in ``folder``. Raises InputError if there is none, or its ledger was changed."""
    folder = user_path(folder)
    return project_of(folder, tuple(ledger.read(folder)))


def project_of(folder: Path, entries: tuple[Entry, ...]) -> Project:
    """A chain from its entries. Raises InputError for wrong facts, naming line and key."""
    return Project(folder, entries, options_of(entries), changes(entries))


@contextmanager
def change_chain(folder: Path) -> Iterator[Project]:
    """A context in which only this process may write the chain. Errors of the disk become InputError.

    Nothing is written through a symbolic link. Unfinished files of killed processes are removed, and
    their last write is completed.
    """
    if folder.is_dir() and not os.access(folder, os.W_OK):
        raise InputError(f"{quoted(folder)} cannot be written: no permission; the chain is unchanged")
    ledger.refuse_none(folder)  # otherwise locking would create the folder
    with locked(folder):
        for name in (LEDGER, HEAD, *PAGES):
            member(folder, name)
        for name in (EDITS, LOOKS, WORK):
            _cleared(member(folder, name))
        project = open_chain(folder)
        ledger.repair_head(folder, project.entries)
        if _abandoned(project):
            sweep(project)
        yield project


def _abandoned(project: Project) -> bool:
    """Whether there is unfinished work, all of it for an earlier state: a kill came while it was removed."""
    return (project.folder / WORK).is_dir() and not any(
        _head_of(place) in (project.head, None) for place in entries(project.folder / WORK)
    )


def _head_of(place: Path) -> str | None:
    """The head for which unfinished work was begun; empty if the work is half removed, None if it is damaged."""
    try:
        if not (place / REQUEST).exists():
            return ""
        request = read_json(place / REQUEST, what="request", kind=dict)
        return str(typed(request, {"head": str}, where=quoted(place / REQUEST))["head"])
    except InputError:
        return None


def _cleared(folder: Path) -> None:
    """Remove unfinished files below ``folder``. Raises InputError for a symbolic link."""
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            member(Path(place), name)
            if name.endswith(PART):
                remove(Path(place, name))


def identity(facts: Mapping[str, Any]) -> str:
    """A short hash of everything that the work depends on."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def sweep(project: Project) -> None:
    """Remove files that no entry names: those of abandoned work, and last the folder of the finished work.

    The work is last, because while it exists ``verify`` accepts edits and evaluations that no entry names.
    """
    known = {f"{name}.safetensors" for name in project.edits()}
    for path in entries(project.folder / EDITS):
        if path.name not in known:
            remove(path)
    for path in entries(project.folder / LOOKS):
        if path.name not in project.evaluations():
            remove(path)
    if (project.folder / FORMER).is_file():
        remove(project.folder / FORMER)
    remove(project.folder / WORK)
