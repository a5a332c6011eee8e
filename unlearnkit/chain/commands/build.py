"""The model that a chain has made so far, as an edit of the first one or as a diffusers folder."""

from __future__ import annotations

from pathlib import Path

from ...io.files import new_folder, user_path
from ...models.edit import Edit
from ...models.model import Model
from .. import ledger
from ..finish import base_model
from ..project import Project, opened
from ..weights import current

__all__ = ["build", "edit"]

COPY = "unlearnkit-ledger.jsonl"


def edit(folder: str | Path, *, model: Model | None = None, device: str | None = None) -> Edit:
    """All requests that hold as one edit of the chain's first model, to be worn by it."""
    project = opened(folder)
    return _edit(project, base_model(project, model, device))


def build(
    folder: str | Path, out: str | Path, *, model: Model | None = None, device: str | None = None
) -> Path:
    """Write the model as it is now as a whole pipeline, which plain diffusers opens, with a copy of the ledger in it.

    Whole or not at all. Raises InputError where ``out`` exists already or cannot be written.
    """
    project, out = opened(folder), user_path(out)
    with new_folder(out) as partial:
        found = base_model(project, model, device)
        inner = partial / "pipeline"
        found.save(inner, edit=_edit(project, found))
        # as it was read, not as another process may have written it since
        (inner / COPY).write_text(ledger.text(project.entries), encoding="utf-8")
        for path in inner.iterdir():
            path.replace(partial / path.name)
        inner.rmdir()
    return out


def _edit(project: Project, model: Model) -> Edit:
    facts = {
        "base": project.options.base,
        "source": project.options.model,
        "chain": project.head,
        "erased": [concept.name for step in project.steps for concept in step.request.erase],
    }
    found = current(project, model, project.steps)
    return Edit(found.weights, found.facts | facts, found.hooks)
