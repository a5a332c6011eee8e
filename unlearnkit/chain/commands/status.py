"""``chain status`` and ``chain log``: erased concepts, cost, and relapses; from the ledger alone, without a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..facts import Rate, Rates
from ..ledger import Entry
from ..places import displaced
from ..project import Project, Step, open_chain

__all__ = ["LIMIT", "Line", "Status", "log", "status", "status_of"]

LIMIT = 0.10  # the largest share of pictures that may show an erased concept; as in ``plan.Rules``, which loads torch


@dataclass(frozen=True)
class Line:
    """One concept of an active request.

    seen: the share of its pictures in the base model, after its own request, and now; None if not evaluated.
    seconds: of making the request's edit. time: when it was made.
    verdict: ``"holds"``: at most LIMIT now, above it before; ``"never shown"``: at most LIMIT before, too;
    ``"relapsed"``: at most LIMIT after its request, above it now; ``"still seen"``; empty if not evaluated.
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
        if now.value > LIMIT:
            return "relapsed" if then and then.value <= LIMIT else "still seen"
        return "holds" if before.value > LIMIT else "never shown"

    @property
    def holds(self) -> bool | None:
        """None if unknown: not evaluated, or never shown by the base model."""
        return {"holds": True, "relapsed": False, "still seen": False}.get(self.verdict)


@dataclass(frozen=True)
class Status:
    """kept: shares of right pictures, before and now, by group. kid: to the base model on what is retained.

    displaced: by the name of an erased concept, the erased word that it shows. Requests of older versions say nothing.
    drift: of the whole network. edits, bytes: of all stored edits. seconds: of all requests. head: the last hash.
    """

    project: Project
    lines: tuple[Line, ...]
    kept: Mapping[str, Rates]
    kid: float | None
    displaced: Mapping[str, str]
    drift: float
    edits: int
    bytes: int
    seconds: float
    head: str


def status(folder: str | Path) -> Status:
    """The state of a chain. Raises InputError if there is none, or its ledger was changed."""
    return status_of(open_chain(folder))


def status_of(project: Project) -> Status:
    """The status of an open chain."""
    last = project.last
    now = last.evaluation if last else None
    added = {change.number: change for change in project.changes}
    lines = []
    for step in project.steps:
        change = added[step.number]
        for concept in step.request.erase:
            then = change.evaluation.seen.get(concept.name) if change.evaluation else None
            after = now.seen.get(concept.name) if now else None
            first = then or after
            seen = (
                first.before if first else None,
                then.after if then else None,
                after.after if after else None,
            )
            lines.append(Line(step, concept.name, change.edit_seconds, change.time, seen))
    made = {edit.hash: edit.bytes for edit in project.made()}
    return Status(
        project=project,
        lines=tuple(lines),
        kept=now.kept if now else {},
        kid=now.kid if now else None,
        displaced=displaced(project.steps),
        drift=last.drift if last else 0.0,
        edits=len(made),
        bytes=sum(made.values()),
        seconds=sum(change.edit_seconds for change in project.changes),
        head=project.head,
    )


def log(folder: str | Path) -> tuple[Entry, ...]:
    """All entries of the ledger, in order."""
    return open_chain(folder).entries
