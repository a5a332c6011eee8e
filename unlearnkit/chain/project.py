"""The folder of a chain, and what holds in it now: everything is the sum of the ledger's entries.

    ledger.jsonl, head.json   see ``ledger``
    edits/HASH.safetensors    every edit once, by the hash of its weights
    looks/ID/                 the evaluation after each entry: pictures, rows, figures
    work/ID/                  a request under way: what it takes up again after a kill; empty between requests
    lock                      held while a process writes

An entry is in the chain when the ledger has its line: until then nothing that is written counts.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import writing
from ..schema import Concept, Request
from . import ledger
from .ledger import Entry

__all__ = ["EDITS", "LOOKS", "WORK", "Project", "Step", "identity", "locked", "opened", "swept"]

EDITS, LOOKS, WORK, LOCK = "edits", "looks", "work", "lock"


@dataclass(frozen=True)
class Step:
    """A request that holds.

    number: of the entry that added it. recipe: method, settings, seed, guards.
    edit: hash of the weights, sha256 and bytes of the file. after: numbers of the requests that it was made on top of.
    """

    number: int
    request: Request
    recipe: Mapping[str, Any]
    edit: Mapping[str, Any]
    after: tuple[int, ...]

    @property
    def title(self) -> str:
        """What it erases, in words."""
        return ", ".join(concept.name for concept in self.request.erase)


@dataclass(frozen=True)
class Project:
    """A chain as its ledger tells it. entries: all of them, the first says what the chain is."""

    folder: Path
    entries: tuple[Entry, ...]

    @property
    def options(self) -> Mapping[str, Any]:
        """What ``init`` was told: model, base, regime, method, settings, guards, merge, looks."""
        return self.entries[0].facts

    @property
    def steps(self) -> tuple[Step, ...]:
        """The requests that hold, in order."""
        held: dict[int, Step] = {}
        for entry in self.entries[1:]:
            facts = entry.facts
            if entry.kind == "add":
                request, after = _request(facts["request"]), tuple(facts["after"])
                held[entry.number] = Step(entry.number, request, facts["recipe"], facts["edit"], after)
            for number in facts.get("removes", ()):
                del held[number]
            for made in facts.get("remade", ()):
                old = held[made["request"]]
                held[old.number] = Step(
                    old.number, old.request, old.recipe, made["edit"], tuple(made["after"])
                )
        return tuple(held.values())

    @property
    def weights(self) -> str:
        """The fingerprint of the model as it is now."""
        return str(self.entries[-1].facts["weights"])

    def made(self) -> list[Mapping[str, Any]]:
        """Every edit that the ledger names, in order: hash of its weights, sha256 and bytes of its file."""
        return [edit for entry in self.entries for edit in entry.made()]

    def edits(self) -> dict[str, str]:
        """The sha256 of every edit's file that the ledger names, by the hash of its weights."""
        return {edit["hash"]: edit["sha256"] for edit in self.made()}

    def looks(self) -> dict[str, Entry]:
        """The entry of every evaluation, by the name of its folder."""
        return {e.facts["look"]["folder"]: e for e in self.entries if e.facts.get("look")}

    def step(self, number: int) -> Step:
        """The request of this number. Raises InputError where it does not hold."""
        for step in self.steps:
            if step.number == number:
                return step
        numbers = ", ".join(str(step.number) for step in self.steps) or "none"
        raise InputError(f"request {number} does not hold in {str(self.folder)!r}: there are {numbers}")


def opened(folder: str | Path) -> Project:
    """The chain in ``folder``. Raises InputError where there is none, or where its ledger was changed."""
    return Project(Path(folder), tuple(ledger.read(Path(folder))))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Within this no other process writes the chain. Raises InputError where one does, or where nobody can write."""
    import fcntl

    with writing(folder), (folder / LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            other = file.read().strip() or "unknown"
            raise InputError(
                f"another process ({other}) is writing {str(folder)!r}: wait until it is done"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def identity(facts: Mapping[str, Any]) -> str:
    """A short name for all that a piece of work depends on."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def swept(project: Project) -> None:
    """Remove what no entry names: work that was done, and what abandoned work left behind."""
    shutil.rmtree(project.folder / WORK, ignore_errors=True)
    known = {f"{name}.safetensors" for name in project.edits()}
    for path in _there(project.folder / EDITS):
        if path.name not in known:
            path.unlink(missing_ok=True)
    for path in _there(project.folder / LOOKS):
        if path.name not in project.looks():
            shutil.rmtree(path, ignore_errors=True)


def _there(folder: Path) -> Sequence[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _request(data: Mapping[str, Any]) -> Request:
    """A Request from plain data, as ``dataclasses.asdict`` gives it."""
    erase, keep = (
        tuple(Concept(**{**one, "phrases": tuple(one["phrases"])}) for one in data[side])
        for side in ("erase", "keep")
    )
    return Request(erase, keep)
