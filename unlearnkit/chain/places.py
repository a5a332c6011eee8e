"""What the erased concepts of a chain show, and which of that is erased too.

Where "dog" took the place of "cat", "cat" shows dogs. It still does after a later request erased "dog", which only
changed what "dog" shows. So that request erases "cat" again, with another place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ..schema import Concept, Request, folded
from .project import Project, Step, project_of

__all__ = ["again", "displaced", "replaced", "shown", "without"]


def displaced(steps: Sequence[Step], request: Request | None = None) -> dict[str, str]:
    """By the name of each erased concept: what it shows, where ``request`` erases that, or if None any of the steps."""
    requests = [request] if request else [step.request for step in steps]
    erased = frozenset(word for one in requests for word in one.erased)
    return {name: place for name, place in shown(steps).items() if folded(place) in erased}


def replaced(project: Project) -> dict[str, tuple[str, str]]:
    """By the name of a concept whose place the last entry changed: the former place and the present one, or ""."""
    before = project_of(project.folder, project.entries[:-1] or project.entries)
    was, now = shown(before.steps), shown(project.steps)
    return {name: (was[name], now[name]) for name in was if name in now and was[name] != now[name]}


def shown(steps: Sequence[Step]) -> dict[str, str]:
    """What takes the place of each erased concept, where the ledger knows it."""
    places: dict[str, str] = {}
    for step in steps:
        places |= step.instead
    return places


def again(steps: Sequence[Step], request: Request) -> tuple[Concept, ...]:
    """The concepts of earlier requests that show what this one erases; their place is chosen anew."""
    names = displaced(steps, request)
    return tuple(
        dataclasses.replace(one, instead=None)
        for step in steps
        for one in step.request.erase
        if one.name in names
    )


def without(requests: Sequence[Request], concepts: Sequence[Concept]) -> list[Request]:
    """The requests without these concepts, and without requests of which nothing is left."""
    names = {one.name for one in concepts}
    rest = [
        (tuple(one for one in request.erase if one.name not in names), request.keep) for request in requests
    ]
    return [Request(erase, keep) for erase, keep in rest if erase]
