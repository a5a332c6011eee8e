"""The weights of a chain: its stored edits, merged by the regime, and their distance to the base model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import EditError, quoted, reason
from ..io.manifest import file_hash
from ..io.tensors import read_header
from ..model.edit import HOOKS, Edit
from ..model.model import Model
from ..settings import build
from .facts import Stored
from .merging import Merge, merged
from .project import EDITS, Project, Step

__all__ = ["current_edit", "drift", "edit_of", "store_edit"]

CHUNK = 2**16  # numbers of a dot product


def store_edit(project: Project, edit: Edit) -> Stored:
    """Store an edit, if it is not stored already, and return its facts for the ledger."""
    name = edit.hash()
    path = project.folder / EDITS / f"{name}.safetensors"
    if not path.is_file() or project.edits().get(name, file_hash(path)) != file_hash(path):
        edit.save(path)
    return Stored(name, file_hash(path), path.stat().st_size)


def edit_of(project: Project, step: Step) -> Edit:
    """The stored edit of a request. Raises EditError if it is missing or was changed."""
    return Edit.load(_checked(project, step))


def _checked(project: Project, step: Step) -> Path:
    """The file of a stored edit, which has the hash that the ledger says."""
    path = project.folder / EDITS / f"{step.edit.hash}.safetensors"
    what = f"put a copy back, or drop request {step.number} and add it again"
    try:
        sha256 = file_hash(path)
    except FileNotFoundError:
        raise EditError(f"{quoted(path)} is missing: {what}") from None
    except OSError as error:
        raise EditError(f"{quoted(path)} cannot be read: {reason(error)}; {what}") from None
    if sha256 != step.edit.sha256:
        raise EditError(f"{quoted(path)} was changed: {what}")
    return path


def current_edit(project: Project, model: Model, steps: Sequence[Step]) -> Edit:
    """The edit of the model after these requests: weights, fp32 on the CPU, and hooks. model: without any edit.

    Its facts have only the fingerprints that it fits.
    """
    if project.options.regime == "merged":
        edits = [edit_of(project, step) for step in steps]
        base = model.values({name for edit in edits for name in edit.weights})
        weights = merged(base, [edit.weights for edit in edits], build(Merge, project.options.merge))
    else:
        edits = _last_of_each(project, steps[-1:] if project.options.regime == "joint" else steps)
        weights = {name: value for edit in edits for name, value in edit.weights.items()}
    hooks = tuple(hook for edit in edits for hook in edit.hooks)
    edit = Edit(weights, {"base": project.options.base}, hooks)
    if fits := model.encoder_fingerprints(edit):
        edit.facts["fits"] = fits
    return edit


def _last_of_each(project: Project, steps: Sequence[Step]) -> list[Edit]:
    """The edits, in order, that something is left of. One whose weights are all in later ones is not read further."""
    edits: list[Edit] = []
    replaced: set[str] = set()
    for step in reversed(steps):
        path = _checked(project, step)
        names, facts = read_header(path)
        if facts.get(HOOKS) or not names <= replaced:
            edits.insert(0, Edit.load(path))
            replaced |= edits[0].weights.keys()
    return edits


def drift(base: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """‖θ - θ⁰‖ / ‖θ⁰‖ of the whole network, and of every layer that changed, by the name of its module."""
    moved: dict[str, float] = {}
    sizes: dict[str, float] = {}
    for name, start in base.items():
        layer = ".".join(name.split(".")[:-2])
        sizes[layer] = sizes.get(layer, 0.0) + _square(start)
        if name in weights:
            way = weights[name].to(start.device, torch.float32) - start.detach().float()
            moved[layer] = moved.get(layer, 0.0) + _square(way)
    total = sum(moved.values()) / (sum(sizes.values()) or 1.0)
    layers = {layer: _short((way / (sizes[layer] or 1.0)) ** 0.5) for layer, way in moved.items()}
    return {"total": _short(total**0.5), "layers": layers}


def _square(values: Tensor) -> float:
    """The sum of squares: fp32 dot products of parts, summed in double precision."""
    parts = values.detach().float().flatten().split(CHUNK)  # type: ignore[no-untyped-call]
    return float(torch.stack([torch.dot(part, part) for part in parts]).sum(dtype=torch.float64))


def _short(value: float) -> float:
    return float(f"{value:.6g}")
