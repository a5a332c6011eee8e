"""The model that a chain has made so far, as an edit of the first one or as a diffusers folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..edit import Edit
from ..files import writing
from ..model import Model
from .ledger import LEDGER
from .project import opened
from .steps import base_model
from .weights import current

__all__ = ["build", "edit"]

COPY = "unlearnkit-ledger.jsonl"


def edit(folder: str | Path, *, model: Model | None = None, device: str | None = None) -> Edit:
    """All requests that hold as one edit of the chain's first model, to be worn by it."""
    project = opened(folder)
    weights = current(project, base_model(project, model, device), project.steps)
    facts = {
        "base": project.options["base"],
        "source": project.options["model"],
        "chain": project.entries[-1].hash,
        "erased": [concept.name for step in project.steps for concept in step.request.erase],
    }
    return Edit(weights, facts)


def build(
    folder: str | Path, out: str | Path, *, model: Model | None = None, device: str | None = None
) -> Path:
    """Write the model as it is now as a whole pipeline, which plain diffusers opens, with a copy of the ledger in it.

    Raises InputError where ``out`` exists already or cannot be written.
    """
    found = base_model(opened(folder), model, device)
    out = Path(out)
    found.save(out, edit=edit(folder, model=found))
    with writing(out):
        shutil.copyfile(Path(folder) / LEDGER, out / COPY)
    return out
