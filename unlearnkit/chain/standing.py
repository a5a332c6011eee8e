"""What a chain has erased, what that cost, and whether it still holds: from the ledger alone, without a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .ledger import Entry
from .project import Project, Step, opened

__all__ = ["LIMIT", "Line", "Status", "log", "status"]

LIMIT = (
    0.10  # the largest share on which a concept may still be seen; that of ``plan.Rules``, which loads torch
)


@dataclass(frozen=True)
class Line:
    """One concept of a request that holds.

    seen: how often it was seen before anything was erased, when it was erased, and now; rates as plain data, or None.
    holds: seldom seen now; None where nothing can see it. relapsed: it was seldom seen once and is not now.
    """

    step: Step
    concept: str
    seconds: float
    time: str
    seen: tuple[Mapping[str, Any] | None, Mapping[str, Any] | None, Mapping[str, Any] | None]

    @property
    def holds(self) -> bool | None:
        return None if self.seen[2] is None else bool(self.seen[2]["value"] <= LIMIT)

    @property
    def relapsed(self) -> bool:
        then, now = self.seen[1:]
        return bool(then and now and then["value"] <= LIMIT < now["value"])


@dataclass(frozen=True)
class Status:
    """kept: shares of right pictures, before and now, by group. drift: of the whole network. head: the last hash."""

    project: Project
    lines: tuple[Line, ...]
    kept: Mapping[str, Mapping[str, Any]]
    kid: float | None
    drift: float
    edits: int
    bytes: int
    seconds: float
    head: str


def status(folder: str | Path) -> Status:
    """What holds in the chain now. Raises InputError where there is none, or where its ledger was changed."""
    project = opened(folder)
    last = project.entries[-1].facts
    now = last.get("look") or {}
    lines = []
    for step in project.steps:
        added = project.entries[step.number].facts
        then = added["look"] or {}
        for concept in step.request.erase:
            at, after = then.get("seen", {}).get(concept.name), now.get("seen", {}).get(concept.name)
            seen = (at and at["before"], at and at["after"], after and after["after"])
            lines.append(Line(step, concept.name, added["making"], added["time"], seen))
    made = {edit["hash"]: edit["bytes"] for edit in project.made()}
    return Status(
        project=project,
        lines=tuple(lines),
        kept=now.get("kept", {}),
        kid=now.get("kid"),
        drift=last.get("drift", {}).get("total", 0.0),
        edits=len(made),
        bytes=sum(made.values()),
        seconds=sum(entry.facts.get("making", 0.0) for entry in project.entries),
        head=project.entries[-1].hash,
    )


def log(folder: str | Path) -> tuple[Entry, ...]:
    """Everything that happened, in order."""
    return opened(folder).entries
