"""``chain add --each``: a request for every concept of a list, in order; a stopped list continues where it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...io.files import user_path
from ...io.tick import Tick
from ...methods.checking import check_lengths
from ...model.model import Model
from ...schema import Concept, Request
from ..evaluate import open_evaluators
from ..finish import base_model
from ..ledger import Entry
from ..project import open_chain
from .add import add, refuse

if TYPE_CHECKING:
    from ...metrics.evaluators import Evaluators

__all__ = ["add_each"]


def add_each(
    folder: str | Path,
    concepts: Sequence[Concept],
    *,
    model: Model | None = None,
    evaluators: Evaluators | None = None,
    device: str | None = None,
    tick: Tick | None = None,
    done: Callable[[Entry], None] | None = None,
    **options: Any,
) -> list[Entry]:
    """Erase each concept by a request of its own, and return the new entries.

    A concept that an active request erases already is passed over, so the same call continues a stopped list, and the
    chain ends as if it had never stopped.

    done: called after each. options: of ``add``: ``keep``, ``method``, ``settings``, ``guards``, ``seed``, ``force``.
    Raises UnlearnError as ``add`` does. A clash with the chain's requests, and a name that is too long for the text
    encoder, are refused before anything is erased.
    """
    project = open_chain(user_path(folder))
    erased = {concept.meaning for step in project.steps for concept in step.request.erase}
    left = [concept for concept in Request(tuple(concepts)).erase if concept.meaning not in erased]
    if not left:
        return []
    request = Request(tuple(left))
    refuse(project.steps, request)
    model = base_model(project, model, device)
    check_lengths(model, request)
    evaluators = evaluators or open_evaluators(project)
    entries = []
    for place, concept in enumerate(left, len(concepts) - len(left)):
        if tick:
            tick("requests", place, len(concepts))
        entry = add(folder, concept, model=model, evaluators=evaluators, tick=tick, **options)
        entries.append(entry)
        if done:
            done(entry)
    if tick:
        tick("requests", len(concepts), len(concepts))
    return entries
