"""``chain build``: the model of a chain, as one edit of the base model or as a diffusers folder."""

from __future__ import annotations

from pathlib import Path

from ...io.files import new_folder, user_path
from ...model.edit import Edit
from ...model.model import Model
from .. import ledger
from ..finish import base_model
from ..project import Project, open_chain
from ..weights import current_edit

__all__ = ["build", "edit"]

COPY = "unlearnkit-ledger.jsonl"


def edit(folder: str | Path, *, model: Model | None = None, device: str | None = None) -> Edit:
    """All active requests as one edit of the base model."""
    project = open_chain(folder)
    return _edit(project, base_model(project, model, device))


def build(
    folder: str | Path, out: str | Path, *, model: Model | None = None, device: str | None = None
) -> Path:
    """Write the current model as a pipeline that plain diffusers opens, with a copy of the ledger.

    Raises InputError if ``out`` exists already or cannot be written; then nothing is left there.
    """
    project, out = open_chain(folder), user_path(out)
    with new_folder(out) as partial:
        base = base_model(project, model, device)
        inner = partial / "pipeline"
        base.save(inner, edit=_edit(project, base))
        # the ledger as it was read; another process may have written it since
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
    merged = current_edit(project, model, project.steps)
    return Edit(merged.weights, merged.facts | facts, merged.hooks)
