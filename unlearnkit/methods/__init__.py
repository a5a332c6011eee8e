"""The methods by name, and how to run them: from a request to an edit."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from ..data.grammar import read
from ..data.nearest import by_text, with_nearest
from ..errors import InputError, nearest, quoted
from ..families.components import check_finite
from ..io.versions import versions
from ..model import hints
from ..model.edit import Edit
from ..model.model import Model
from ..model.restore import steady
from ..schema import NEAREST, Request, as_seed, folded
from ..settings import build, with_role
from ..training.job import Job, Run
from ..training.method import Guard, Method, Plan
from ..training.net import Net
from ..training.state import CHECKPOINT
from .adavd import AdaVD
from .advunlearn import AdvUnlearn
from .aegis import AEGIS
from .ca import CA
from .casteer import CASteer
from .checking import check_moved, check_names
from .doco import DoCo
from .dp import DP
from .duge import DUGE
from .erasediff import EraseDiff
from .esd import ESD
from .finetune import FineTune
from .ga import GA
from .graddiff import GradDiff
from .oce import OCE
from .rece import RECE
from .rgd import RGD
from .robust import Robust
from .salun import SalUn
from .sculpting import SculptingMemory
from .selective_amnesia import SelectiveAmnesia
from .speed import SPEED
from .stereo import STEREO
from .uce import UCE
from .uce_diverse import DiverseUCE

__all__ = [
    "EDIT",
    "METHODS",
    "Guard",
    "Job",
    "Method",
    "Plan",
    "check_moved",
    "check_replaces",
    "default_instead",
    "edit_for",
    "family_settings",
    "find",
    "plan",
    "resolve",
    "unretained",
]

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        *(DUGE, RGD, DoCo, SculptingMemory),
        *(ESD, UCE, CA, SalUn, GA, GradDiff, FineTune, EraseDiff, SelectiveAmnesia, DiverseUCE, SPEED),
        *(AdvUnlearn, AdaVD, Robust, AEGIS, RECE, STEREO, DP, OCE, CASteer),
    )
}
SETTINGS = {field.name for method in METHODS.values() for field in dataclasses.fields(method)}
EDIT = "edit.safetensors"
LISTED = 100  # concepts of each side that an edit in a run folder names


def find(name: str) -> type[Method]:
    """The method called ``name``; InputError with the nearest name for an unknown one."""
    if name not in METHODS:
        raise InputError(
            f"method {quoted(name)} is unknown{nearest(name, METHODS)}: use one of {', '.join(METHODS)}"
        )
    return METHODS[name]


def resolve(model: Model, request: Request, method: str, settings: Mapping[str, Any]) -> Method:
    """The method with every setting spelled out.

    Each setting comes from the first of these that has it: the user; the model's hints for the method and the kind of
    the first erased concept; the model's hints for all training; the family; the general hints; the method. Low-rank
    updates are a default only if the other settings allow them. Raises InputError for an unknown name and for a value
    of the wrong type or out of range.
    """
    chosen = find(method)
    kind = request.erase[0].kind
    hinted, general = (one.settings(method, kind) for one in (model.hints, hints.GENERAL))
    known = {field.name for field in dataclasses.fields(chosen)}
    defaults = _family(model, chosen) | dict(model.hints.training)
    defaults = {name: value for name, value in defaults.items() if name in known or name not in SETTINGS}
    if getattr(chosen, "ENCODES", False):
        defaults.pop("trains", None)
    first = settings if hinted == general else {**hinted, **settings}
    filled = build(chosen, {**hinted, **defaults, **first})
    if defaults.get("trains") == "lora" and not getattr(filled, "low_rank", True):
        del defaults["trains"]
        filled = build(chosen, {**hinted, **defaults, **first})
    return filled


def family_settings(model: Model, method: str, chosen: Mapping[str, Any], filled: Any) -> dict[str, Any]:
    """The settings that come from the model's family, not from the user or the method."""
    stock = {field.name: field.default for field in dataclasses.fields(find(method))}
    return {
        name: value
        for name, value in _family(model, find(method)).items()
        if name not in chosen and getattr(filled, name) == value != stock[name]
    }


def _family(model: Model, method: type[Method]) -> dict[str, Any]:
    """The family's defaults for the settings of a method, by name."""
    roles = model.family.DEFAULTS.items()
    return {name: value for role, value in roles for name in with_role(method, role)}


def default_instead(model: Model, filled: Method) -> dict[str, str]:
    """By kind, what takes a concept's place where the request names nothing: the model's hints, else the method."""
    return {**filled.INSTEAD, **model.hints.instead(filled.name)}


def unretained(model: Model, filled: Method, request: Request) -> str:
    """A sentence where the request keeps concepts that a method with these settings does not look at; else ""."""
    default = default_instead(model, filled)
    places = {default.get(one.kind) if one.instead is None else one.instead for one in request.erase}
    if not request.keep or filled.retains or NEAREST in places:  # the nearest word is one that is kept
        return ""
    why = (
        "has no retain loss"
        if getattr(filled, "retain_weight", 1.0) > 0
        else "has no retain loss at retain_weight=0"
    )
    return f"{filled.name} {why}: what is kept is only drawn and evaluated"


def check_replaces(filled: Method | type[Method], request: Request) -> None:
    """Raises InputError for an ``instead`` that the method ignores, or that is erased itself."""
    named = [] if filled.REPLACES else [one for one in request.erase if one.instead is not None]
    if named:
        raise InputError(
            f"{filled.name} puts nothing in the place of {quoted(named[0].name)}: leave 'instead' out, or choose "
            "another method, for example esd"
        )
    for one in request.erase:
        if one.instead not in (None, NEAREST) and folded(one.instead or "") in request.erased:
            raise InputError(
                f"{quoted(one.instead)} takes the place of {quoted(one.name)} and is erased too: give another 'instead'"
            )


@steady()
def plan(model: Model, request: Request, *, method: str, settings: Mapping[str, Any] | None = None) -> Plan:
    """What ``edit_for`` would do with the same arguments. Raises InputError for what that would refuse."""
    filled = resolve(model, request, method, settings or {})
    check_replaces(filled, request)
    request = with_nearest(model, request, default_instead(model, filled), counting=True)
    check_names(model, request)
    return filled.plan(model, request)


@steady()
@torch.enable_grad()
def edit_for(
    model: Model,
    request: Request,
    *,
    method: str,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    job: Job | None = None,
) -> Edit:
    """Run a method on the model with the edits that it has now. The model is unchanged bit for bit.

    With ``job.folder`` a killed run resumes from its checkpoint and ends with the same bits. The edit is saved there as
    ``edit.safetensors``; a finished run's edit is read from there.
    Raises InputError for a bad name, value or folder, ModelError for a model whose weights are not finite,
    DivergedError where training fails, and InputError for an edit that moves no prediction for what it erases.
    """
    seed = as_seed(seed)
    filled, job = resolve(model, request, method, settings or {}), job or Job()
    check_replaces(filled, request)
    instead = default_instead(model, filled)
    counted = with_nearest(model, request, instead, counting=True)
    check_names(model, counted)
    facts: dict[str, Any] = {
        "format": 1,
        "method": method,
        "settings": dataclasses.asdict(filled),
        "request": dataclasses.asdict(request),
        "seed": seed,
        "base": model.fingerprint(),
    } | ({"beside": job.auxiliary.facts} if job.auxiliary else {})
    facts |= {"instead by kind": instead} if instead != filled.INSTEAD else {}
    text = json.dumps(facts, sort_keys=True)
    facts, identity = json.loads(text), hashlib.sha256((text + _inputs(model, filled)).encode()).hexdigest()
    former = hashlib.sha256(text.encode()).hexdigest()  # before it had what the data depend on
    if finished := _finished(job.folder, (identity, former)):
        return finished
    check_finite(model.source, model.pipe)
    job = dataclasses.replace(job, identity=identity)
    original, request = request, counted if by_text(request) else with_nearest(model, request, instead)
    run = Run(model, request, Net(model), seed, job)
    weights = filled.solve(run)
    before = model.values(weights)
    changed = {name: value for name, value in weights.items() if not _equal(value, before[name])}
    facts |= {
        "identity": identity,
        "source": model.source,
        "dtype": model.precision,
        "versions": versions(),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    } | ({"stopped": run.stopped} if run.stopped else {})
    if original != request:
        facts["instead"] = {one.name: one.instead for one in request.erase}
    if job.folder:
        facts |= _shortened(facts)
    edit = Edit(changed, facts, filled.hooks(run) if isinstance(filled, Guard) else ())
    if fits := model.encoder_fingerprints(edit):
        edit.facts["fits"] = fits
    check_moved(model, request, edit)
    if job.folder:
        edit.save(job.folder / EDIT)
        (job.folder / CHECKPOINT).unlink(missing_ok=True)
    return edit


def _inputs(model: Model, filled: Method) -> str:
    """What the training data also depend on: the model's hints, and the sentences of a grammar."""
    names = [
        value for name, value in dataclasses.asdict(filled).items() if name.endswith("grammar") and value
    ]
    known = dataclasses.replace(model.hints, text="", recognition={})
    return repr((known, [read(name) for name in names]))


def _shortened(facts: dict[str, Any]) -> dict[str, Any]:
    """A long request as its first concepts, the number of all, and the hash of the list, which the run folder holds."""
    request = facts["request"]
    if max(map(len, request.values())) <= LISTED:
        return {}
    whole = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
    first = {side: concepts[:LISTED] for side, concepts in request.items()}
    counts = {side: len(concepts) for side, concepts in request.items()}
    short: dict[str, Any] = {"request": {**first, "concepts": counts, "sha256": whole}}
    if "instead" in facts:
        short["instead"] = dict(list(facts["instead"].items())[:LISTED])
    return short


def _finished(folder: Path | None, identities: tuple[str, ...]) -> Edit | None:
    if folder is None or not (folder / EDIT).exists():
        return None
    edit = Edit.load(folder / EDIT)
    if edit.facts.get("identity") not in identities:
        raise InputError(f"folder {quoted(folder)} has the edit of another run: choose another folder")
    return edit


def _equal(value: torch.Tensor, before: torch.Tensor) -> bool:
    return torch.equal(value, before.detach().float().cpu())
