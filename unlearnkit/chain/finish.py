"""The end of every change: compute the weights, evaluate them, and append an entry to the ledger."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import InputError, quoted
from ..io.tick import Tick
from ..io.versions import versions
from ..model.load import load
from ..model.model import Model
from ..model.restore import steady
from . import ledger
from .evaluate import evaluate_steps
from .ledger import Entry
from .project import Project, Step, project_of, sweep
from .weights import current_edit, drift

if TYPE_CHECKING:
    from ..metrics.evaluators import Evaluators

__all__ = ["base_model", "finish", "seconds_since", "stamp"]


def base_model(project: Project, model: Model | None, device: str | None = None) -> Model:
    """The base model of a chain: ``model``, or loaded if None. Raises InputError for a model with other weights."""
    options = project.options
    source, base = options.model, options.base
    if model is None:
        model = load(source, device=device, dtype=options.dtype, variant=options.variant)
    if model.fingerprint() != base:
        raise InputError(
            f"the chain in {quoted(project.folder)} was begun with the weights {base[:12]} of {quoted(source)}, and "
            f"{quoted(model.source)} has {model.fingerprint()[:12]}: put the base model back in its place"
        )
    return model


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
    """Compute and evaluate the weights, then append the entry. name: of the evaluation's folder."""
    edit = current_edit(project, model, steps)
    base = {**model.weights("all"), **model.values(edit.weights)}
    started = time.monotonic()
    seen = evaluate_steps(project, model, steps, edit, name, evaluators, tick=tick)
    with model.wearing(edit):
        printed = model.fingerprint()
    facts |= {
        "before": project.weights,
        "weights": printed,
        "drift": drift(base, edit.weights),
        "look": seen,
        "looking": seconds_since(started),
        **stamp(project.entries),
    }
    entry = ledger.new_entry(project.entries, kind, facts)
    after = project_of(project.folder, (*project.entries, entry))  # refuses what could not be read again
    ledger.append(project.folder, project.entries, entry)
    sweep(after)
    return entry


def stamp(entries: Sequence[Entry]) -> dict[str, Any]:
    """Time and versions. The time is never before that of the last entry, even if the clock went back."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"time": max([now, *(entry.facts["time"] for entry in entries[-1:])]), "versions": versions()}


def seconds_since(started: float) -> float:
    return round(time.monotonic() - started, 1)
