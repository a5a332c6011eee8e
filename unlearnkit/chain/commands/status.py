"""What a chain has erased, what that cost, and whether it still holds: from the ledger alone, without a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..facts import Rate
from ..ledger import Entry
from ..project import Project, Step, opened

__all__ = ["LIMIT", "Line", "Status", "log", "standing", "status"]

LIMIT = (
    0.10  # the largest share on which a concept may still be seen; that of ``plan.Rules``, which loads torch
)


@dataclass(frozen=True)
class Line:
    """One concept of a request that holds.

    seen: how often it was seen before anything was erased, when it was erased, and now; rates as plain data, or None.
    verdict: ``"holds"``, seldom seen now and more often before; ``"never shown"``, as seldom before; ``"relapsed"``,
    seldom seen once and not now; ``"still seen"``; empty where nothing can see it.
    """

    step: Step
    concept: str
    seconds: float
    time: str
    seen: tuple[Rate | None, Rate | None, Rate | None]

    @property
    def verdict(self) -> str:
        before, then, now = self.seen
        if now is None or before is None:
            return ""
        if now["value"] > LIMIT:
            return "relapsed" if then and then["value"] <= LIMIT else "still seen"
        return "holds" if before["value"] > LIMIT else "never shown"

    @property
    def holds(self) -> bool | None:
        """None where nothing is known: nothing can see it, or the first model never showed it."""
        return {"holds": True, "relapsed": False, "still seen": False}.get(self.verdict)


@dataclass(frozen=True)
class Status:
    """kept: shares of right pictures, before and now, by group. drift: of the whole network. head: the last hash."""

    project: Project
    lines: tuple[Line, ...]
    kept: Mapping[str, Mapping[str, Rate]]
    kid: float | None
    drift: float
    edits: int
    bytes: int
    seconds: float
    head: str


def status(folder: str | Path) -> Status:
    """What holds in the chain now. Raises InputError where there is none, or where its ledger was changed."""
    return standing(opened(folder))


def standing(project: Project) -> Status:
    """As ``status``, of a chain that is open."""
    last = project.last
    now = last.look if last else None
    added = {change.number: change for change in project.changes}
    lines = []
    for step in project.steps:
        change = added[step.number]
        for concept in step.request.erase:
            then = change.look.seen.get(concept.name) if change.look else None
            after = now.seen.get(concept.name) if now else None
            first = then or after
            seen = (first and first["before"], then and then["after"], after and after["after"])
            lines.append(Line(step, concept.name, change.making, change.time, seen))
    made = {edit.hash: edit.bytes for edit in project.made()}
    return Status(
        project=project,
        lines=tuple(lines),
        kept=now.kept if now else {},
        kid=now.kid if now else None,
        drift=last.drift if last else 0.0,
        edits=len(made),
        bytes=sum(made.values()),
        seconds=sum(change.making for change in project.changes),
        head=project.head,
    )


def log(folder: str | Path) -> tuple[Entry, ...]:
    """Everything that happened, in order."""
    return opened(folder).entries
