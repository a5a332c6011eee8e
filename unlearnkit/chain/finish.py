"""The end of every change: the weights put together, the evaluation, and one line in the ledger, which counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import InputError, quoted
from ..io.versions import versions
from ..models.load import load
from ..models.model import Model
from ..models.restore import steady
from . import ledger
from .evaluate import look
from .ledger import Entry
from .project import Project, Step, project_of, swept
from .weights import current, drift

if TYPE_CHECKING:
    from ..metrics.evaluators import Evaluators

__all__ = ["Tick", "base_model", "finish", "seconds_since", "stamp"]

Tick = Callable[[str, int, int], None]


def base_model(project: Project, model: Model | None, device: str | None = None) -> Model:
    """The first model of a chain, loaded unless it is given. Raises InputError for another one."""
    begun = project.options
    source, told = begun.model, begun.base
    found = load(source, device=device, dtype=begun.dtype, variant=begun.variant) if model is None else model
    if found.fingerprint() != told:
        raise InputError(
            f"the chain in {quoted(project.folder)} was begun with the weights {told[:12]} of {quoted(source)}, and "
            f"{quoted(found.source)} has {found.fingerprint()[:12]}: put the first model back in its place"
        )
    return found


@steady()
def finish(
    project: Project,
    kind: str,
    facts: dict[str, Any],
    steps: Sequence[Step],
    model: Model,
    name: str,
    evaluators: Evaluators,
    tick: Tick | None,
) -> Entry:
    """Put together, look, and then the one step that counts: the line in the ledger. name: of the look's folder."""
    edit = current(project, model, steps)
    base = {**model.weights("all"), **model.values(edit.weights)}
    begun = time.monotonic()
    seen = look(project, model, steps, edit, name, evaluators, tick=tick)
    with model.wearing(edit):
        printed = model.fingerprint()
    facts |= {
        "before": project.weights,
        "weights": printed,
        "drift": drift(base, edit.weights),
        "look": seen,
        "looking": seconds_since(begun),
        **stamp(project.entries),
    }
    entry = ledger.sealed(project.entries, kind, facts)
    ledger.append(project.folder, project.entries, entry)
    swept(project_of(project.folder, (*project.entries, entry)))
    return entry


def stamp(entries: Sequence[Entry]) -> dict[str, Any]:
    """When and with what. A clock that went back stands still in the ledger until it is past the last entry."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"time": max([now, *(entry.facts["time"] for entry in entries[-1:])]), "versions": versions()}


def seconds_since(begun: float) -> float:
    return round(time.monotonic() - begun, 1)
