"""The methods by name, and the one way to run them: a request in, an edit out."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from .. import __version__, hints
from ..edit import Edit
from ..errors import InputError, nearest, quoted
from ..method import Method, Plan
from ..model import Model
from ..schema import Request
from ..settings import build
from ..training.descend import Job
from ..training.state import CHECKPOINT
from . import (
    ca,
    doco,
    duge,
    erasediff,
    esd,
    finetune,
    ga,
    graddiff,
    rgd,
    salun,
    sculpting,
    selective_amnesia,
    uce,
)

__all__ = ["EDIT", "METHODS", "Job", "Method", "Plan", "edit_for", "find", "of_the_family", "plan", "resolve"]

MODULES = (
    *(duge, rgd, doco, sculpting),
    *(esd, uce, ca, salun, ga, graddiff, finetune, erasediff, selective_amnesia),
)
METHODS: dict[str, Method] = {
    method.name: method for method in (*(module.METHOD for module in MODULES), uce.DIVERSE)
}
SETTINGS = {field.name for method in METHODS.values() for field in dataclasses.fields(method.settings)}
EDIT = "edit.safetensors"


def find(name: str) -> Method:
    """The method called ``name``; InputError with the nearest name for an unknown one."""
    if name not in METHODS:
        raise InputError(
            f"method {quoted(name)} is unknown{nearest(name, METHODS)}: use one of {', '.join(METHODS)}"
        )
    return METHODS[name]


def resolve(model: Model, request: Request, method: str, settings: Mapping[str, Any]) -> Any:
    """The method's settings with every default spelled out.

    What is given goes first, then what the model's own hints say of the method for the kind of the first erased
    concept, what they say of all training, the family's defaults, the general hints, and the method's defaults.
    Low-rank updates are a default of these only where the other settings let them. Raises InputError for an unknown
    name and a value of the wrong type or out of range.
    """
    chosen = find(method)
    kind = request.erase[0].kind
    hinted, general = (one.settings(method, kind) for one in (model.hints, hints.GENERAL))
    known = {field.name for field in dataclasses.fields(chosen.settings)}
    usual = model.family.DEFAULTS | dict(model.hints.training)
    own = {name: value for name, value in usual.items() if name in known or name not in SETTINGS}
    given = settings if hinted == general else {**hinted, **settings}
    filled: Any = build(chosen.settings, {**hinted, **own, **given})
    if own.get("trains") == "lora" and not getattr(filled, "low_rank", True):
        del own["trains"]
        filled = build(chosen.settings, {**hinted, **own, **given})
    return filled


def of_the_family(model: Model, method: str, given: Mapping[str, Any], filled: Any) -> dict[str, Any]:
    """Those of the settings that the model's family chose, neither the user nor the method itself."""
    stock = {field.name: field.default for field in dataclasses.fields(find(method).settings)}
    return {
        name: value
        for name, value in model.family.DEFAULTS.items()
        if name in stock and name not in given and getattr(filled, name) == value != stock[name]
    }


def plan(model: Model, request: Request, *, method: str, settings: Mapping[str, Any] | None = None) -> Plan:
    """What ``edit_for`` would do with the same arguments."""
    return find(method).plan(model, request, resolve(model, request, method, settings or {}))


def edit_for(
    model: Model,
    request: Request,
    *,
    method: str,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    job: Job | None = None,
) -> Edit:
    """Run a method on the model as it is worn now; the model itself is bitwise unchanged.

    With ``job.folder`` a killed run goes on from its checkpoint to the same bits, and the edit is kept there as
    ``edit.safetensors``; a run that is already finished there is read, not repeated.
    Raises InputError for a bad name, value or folder, DivergedError where training fails.
    """
    filled, job = resolve(model, request, method, settings or {}), job or Job()
    facts: dict[str, Any] = {
        "format": 1,
        "method": method,
        "settings": dataclasses.asdict(filled),
        "request": dataclasses.asdict(request),
        "seed": seed,
        "base": model.fingerprint(),
    } | ({"beside": job.beside.facts} if job.beside else {})
    text = json.dumps(facts, sort_keys=True)
    facts, identity = json.loads(text), hashlib.sha256(text.encode()).hexdigest()
    if finished := _finished(job.folder, identity):
        return finished
    weights = find(method).run(
        model, request, filled, seed=seed, job=dataclasses.replace(job, identity=identity)
    )
    before = model.weights("all")
    changed = {name: value for name, value in weights.items() if not _equal(value, before[name])}
    facts |= {
        "identity": identity,
        "source": model.source,
        "dtype": model.precision,
        "versions": {
            "unlearnkit": __version__,
            "python": platform.python_version(),
            **{library.__name__: library.__version__ for library in (torch, diffusers, transformers)},
        },
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    edit = Edit(changed, facts)
    if job.folder:
        edit.save(job.folder / EDIT)
        (job.folder / CHECKPOINT).unlink(missing_ok=True)
    return edit


def _finished(folder: Path | None, identity: str) -> Edit | None:
    if folder is None or not (folder / EDIT).exists():
        return None
    edit = Edit.load(folder / EDIT)
    if edit.facts.get("identity") != identity:
        raise InputError(f"folder {quoted(folder)} holds the edit of another run: choose another folder")
    return edit


def _equal(value: torch.Tensor, before: torch.Tensor) -> bool:
    return torch.equal(value, before.detach().float().cpu())
