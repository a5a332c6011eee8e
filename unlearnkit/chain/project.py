"""The folder of a chain, and what holds in it now: everything is the sum of the ledger's entries.

    ledger.jsonl, head.json   see ``ledger``
    edits/HASH.safetensors    every edit once, by the hash of its weights
    looks/ID/                 the evaluation after each entry: pictures, rows, figures, and a list of its files
    work/ID/                  a request under way: what it takes up again after a kill; empty between requests
    report.html, report.json  see ``commands.report``
    .lock                     locked while a process writes

An entry is in the chain when the ledger has its line: until then nothing that is written counts.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, quoted
from ..io.files import PART, entries, locked, member, user_path
from ..io.reading import read_json, typed
from ..schema import Request
from . import ledger
from .facts import Added, Begun, Change, Look, Stored, Taken, begun, changes
from .ledger import HEAD, LEDGER, Entry

__all__ = [
    "EDITS",
    "LOOKS",
    "PAGES",
    "REQUEST",
    "WORK",
    "Project",
    "Step",
    "changing",
    "identity",
    "opened",
    "project_of",
    "swept",
]

EDITS, LOOKS, WORK = "edits", "looks", "work"
REQUEST = "request.json"  # in the folder of work: what is under way
PAGES = ("report.html", "report.json")
FORMER = "lock"  # what earlier versions locked


@dataclass(frozen=True)
class Step:
    """A request that holds.

    number: of the entry that added it. recipe: method, settings, seed, guards.
    edit: its stored edit. after: numbers of the requests that it was made on top of.
    """

    number: int
    request: Request
    recipe: Mapping[str, Any]
    edit: Stored
    after: tuple[int, ...]

    @property
    def title(self) -> str:
        """What it erases, in words."""
        return ", ".join(concept.name for concept in self.request.erase)


@dataclass(frozen=True)
class Project:
    """A chain as its ledger tells it. entries: all lines; options: the first one; changes: the others, checked."""

    folder: Path
    entries: tuple[Entry, ...]
    options: Begun
    changes: tuple[Added | Taken, ...]

    @property
    def steps(self) -> tuple[Step, ...]:
        """The requests that hold, in order."""
        found: dict[int, Step] = {}
        for change in self.changes:
            if isinstance(change, Added):
                found[change.number] = Step(
                    change.number, change.request, change.recipe, change.edit, change.after
                )
                continue
            for number in change.removes:
                del found[number]
            for made in change.remade:
                old = found[made.request]
                found[old.number] = Step(old.number, old.request, old.recipe, made.edit, made.after)
        return tuple(found.values())

    @property
    def last(self) -> Change | None:
        """The last change; None where nothing was asked yet."""
        return self.changes[-1] if self.changes else None

    @property
    def weights(self) -> str:
        """The fingerprint of the model as it is now."""
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

    def looks(self) -> dict[str, Look]:
        """Every evaluation, in order, by the name of its folder."""
        return {change.look.folder: change.look for change in self.changes if change.look}

    def step(self, number: int) -> Step:
        """The request of this number. Raises InputError where it does not hold."""
        for step in self.steps:
            if step.number == number:
                return step
        numbers = ", ".join(str(step.number) for step in self.steps) or "none"
        raise InputError(f"request {number} does not hold in {quoted(self.folder)}: there are {numbers}")

    def until(self, head: str) -> Project | None:
        """The chain as it was when its ledger ended with this hash; None where it never did."""
        ends = [entry.hash for entry in self.entries]
        return project_of(self.folder, self.entries[: ends.index(head) + 1]) if head in ends else None


def opened(folder: str | Path) -> Project:
    """The chain in ``folder``. Raises InputError where there is none, or where its ledger was changed."""
    folder = user_path(folder)
    return project_of(folder, tuple(ledger.read(folder)))


def project_of(folder: Path, entries: tuple[Entry, ...]) -> Project:
    """A chain from its entries. Raises InputError for facts that are none of ours, naming line and key."""
    return Project(folder, entries, begun(entries), changes(entries))


@contextmanager
def changing(folder: Path) -> Iterator[Project]:
    """Within this the chain is ours alone, as it is now, and what a disk answers is said in one line.

    Nothing is written through a symbolic link, and what killed processes left unfinished is removed or done.
    """
    if folder.is_dir() and not os.access(folder, os.W_OK):
        raise InputError(f"{quoted(folder)} cannot be written: no permission; the chain is as it was")
    ledger.refuse_none(folder)  # else a folder would be made where none is
    with locked(folder):
        for name in (LEDGER, HEAD, *PAGES):
            member(folder, name)
        for name in (EDITS, LOOKS, WORK):
            _cleared(member(folder, name))
        project = opened(folder)
        ledger.caught_up(folder, project.entries)
        if _abandoned(project):
            swept(project)
        yield project


def _abandoned(project: Project) -> bool:
    """Whether there is work, and all of it for the chain as it no longer is: a kill came while it was swept away."""
    return (project.folder / WORK).is_dir() and not any(
        _head_of(place) in (project.head, None) for place in entries(project.folder / WORK)
    )


def _head_of(place: Path) -> str | None:
    """The head of the chain that a piece of work is for, nothing where it is half removed; None if that is damaged."""
    try:
        if not (place / REQUEST).exists():
            return ""
        told = read_json(place / REQUEST, what="request", kind=dict)
        return str(typed(told, {"head": str}, where=quoted(place / REQUEST))["head"])
    except InputError:
        return None


def _cleared(folder: Path) -> None:
    """Remove unfinished files below ``folder``. Raises InputError where there is a symbolic link."""
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            member(Path(place), name)
            if name.endswith(PART):
                _remove(Path(place, name))


def identity(facts: Mapping[str, Any]) -> str:
    """A short name for all that a piece of work depends on."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def swept(project: Project) -> None:
    """Remove what no entry names: what abandoned work left behind, and last the work that was done.

    While there is work, other edits and looks belong to it: so ``verify`` knows them from files of nobody.
    """
    known = {f"{name}.safetensors" for name in project.edits()}
    for path in entries(project.folder / EDITS):
        if path.name not in known:
            _remove(path)
    for path in entries(project.folder / LOOKS):
        if path.name not in project.looks():
            _remove(path)
    if (project.folder / FORMER).is_file():
        _remove(project.folder / FORMER)
    _remove(project.folder / WORK)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
