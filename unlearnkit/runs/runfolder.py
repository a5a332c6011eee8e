"""A finished run folder: its manifest ``run.json``, and checks of its files."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from ..errors import EditError, InputError, UnlearnError, printable, quoted
from ..io import manifest
from ..io.files import entries, write_text
from ..io.reading import typed
from ..model.edit import Edit
from ..oldnames import current, removed
from ..schema import Recipe
from ..settings import build
from .names import EDIT, GRID, PIPELINE, RECIPE, RUN, no_run
from .recipes import load_recipe

if TYPE_CHECKING:
    from ..model.model import Model

__all__ = [
    "EDIT",
    "GRID",
    "PIPELINE",
    "RECIPE",
    "RUN",
    "damage",
    "findings",
    "finish",
    "fits",
    "misfits",
    "opened",
    "read",
    "remarks",
]

FORMAT = 2  # of run.json; the first format had no number and no list of files
OLD = ("edit", "base", "seconds", "method seconds", "resumed", "finished", "device", "dtype", "versions")
OWN = (RUN, RECIPE, EDIT, PIPELINE, GRID, "log.jsonl", "checkpoint.safetensors")
LATER = ("evaluation", "attacks", "report.html", "report.json")  # have their own manifests
LONGER = "text_model."  # prefix of CLIP's weights in files, as ``older`` writes them
STAGE = "stage-"  # prefix of the folders of a method that trains in stages
REMAKE = "remove the folder 'pipeline', and --resume writes it again"
COPY = "put a copy of it back, or make the run again in another folder"


def finish(folder: Path, facts: Mapping[str, Any], model: Model) -> None:
    """Write ``run.json``: the facts, and the hash and size of every file of the run."""
    edit = Edit.load(folder / EDIT)
    written: dict[str, Any] = {
        "format": FORMAT,
        **facts,
        "seal": edit.seal(),
    }
    if (folder / PIPELINE).is_dir():
        written |= _denoiser(model, edit)
    written["files"] = manifest.listing(folder, leave=[RUN, *_others(folder)])
    write_text(folder / RUN, manifest.dump(written))


def read(folder: Path) -> dict[str, Any]:
    """The content of ``run.json``. Raises InputError if it is missing or was changed."""
    facts = manifest.load(folder / RUN, old=OLD, what="run.json")
    types: dict[str, Any] = {"edit": str, "base": str}
    if manifest.sealed(facts):
        if facts.get("format") != FORMAT:
            raise InputError(
                f"{quoted(folder)} has format {quoted(facts.get('format'))} of runs, this unlearnkit reads "
                f"{FORMAT}: use the version that made it"
            )
        types |= {"files": dict, "seal": str}
    return dict(typed(facts, types, where=f"run.json of {quoted(folder)}"))


def opened(folder: Path) -> tuple[Recipe, Edit]:
    """Recipe and edit of a finished run. Raises InputError if it is none, or its edit is another's."""
    if not (folder / RUN).is_file():
        raise no_run(folder)
    recipe, edit = load_recipe(folder / RECIPE), Edit.load(folder / EDIT)
    if edit.hash() != read(folder)["edit"]:
        raise InputError(
            f"{EDIT} of {quoted(folder)} is not the edit that {RUN} names: put a copy of it back"
        )
    return recipe, edit


def fits(folder: Path, model: Model, edit: Edit) -> None:
    """Raise InputError if a saved pipeline is not the model with the edit."""
    for finding in misfits(folder, model, edit):
        raise InputError(f"{quoted(folder)}: {finding}; {REMAKE}")


def misfits(folder: Path, model: Model, edit: Edit) -> Iterator[str]:
    """The differences of a saved pipeline from the model with the edit."""
    if (folder / PIPELINE).is_dir():
        yield from _pipeline(folder / PIPELINE, _denoiser(model, edit), edit)


def damage(folder: Path) -> bool:
    """Raise InputError for the first changed file of a finished run.

    Returns whether the whole pipeline is there. A pipeline may be removed, or added after the run.
    """
    facts, has_pipeline = read(folder), (folder / PIPELINE).is_dir()
    whole = has_pipeline and ("denoiser" in facts or not manifest.sealed(facts))
    for name, why in _changed(folder, facts):
        if whole or name.partition("/")[0] != PIPELINE:
            out = REMAKE if name.startswith(f"{PIPELINE}/") else COPY
            raise InputError(f"{printable(name)} of {quoted(folder)} {why}: {out}")
    return whole


def findings(folder: Path) -> Iterator[str]:
    """What changed since the run, one line each, the file first."""
    if not (folder / RUN).exists():
        yield f"{RUN} is missing"
        return
    try:
        facts = read(folder)
        if changed := [
            f"{name} {why}"
            for name, why in _changed(folder, facts)
            if (name, why) != (PIPELINE, manifest.MISSING)
        ]:
            yield from changed
            return
        edit = Edit.load(folder / EDIT)
    except EditError as error:
        yield f"{EDIT}: {error}"
        return
    except InputError as error:
        yield f"{RUN}: {error}"
        return
    if (edit.hash(), edit.facts.get("base")) != (facts["edit"], facts["base"]):
        yield f"{EDIT} is not the edit in {RUN}"
    # the first runs with a seal have the hash of the whole file
    if facts.get("seal", seal := edit.seal()) not in (seal, manifest.file_hash(folder / EDIT)):
        yield f"{EDIT} has other facts than when {RUN} was written"
    yield from _recipe(folder, edit)
    if (folder / PIPELINE).is_dir():
        yield from _pipeline(folder / PIPELINE, facts, edit)


def remarks(folder: Path) -> Iterator[str]:
    """What the manifest does not cover, one line each."""
    if not (folder / RUN).exists():
        return
    facts = read(folder)
    if "denoiser" in facts and not (folder / PIPELINE).exists():
        yield f"{PIPELINE} was removed: unlearnkit erase --resume --out writes it again"
    if not manifest.sealed(facts):
        yield (
            f"{RUN} is of an older unlearnkit and has no hashes: only the edit, and what recipe and pipeline say "
            "of it, could be compared"
        )
    for name in _others(folder):
        if name not in LATER:
            yield f"{name} is no part of the run"


def _changed(folder: Path, facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What differs from the manifest, as (path inside, what is wrong)."""
    if not manifest.sealed(facts):
        return
    yield from manifest.changes(folder, facts["files"], leave=[RUN, *_others(folder)])


def _others(folder: Path) -> list[str]:
    """Names in a run folder that the run did not write: evaluation, report, and users' files."""
    names = [path.name for path in entries(folder)]
    return [name for name in names if name not in OWN and not name.startswith(STAGE)]


def _recipe(folder: Path, edit: Edit) -> Iterator[str]:
    """The differences between ``recipe.toml`` and the edit's facts."""
    from ..methods import find  # imports diffusers, which a report does not need

    try:
        recipe = load_recipe(folder / RECIPE)
        cls = find(recipe.method)
        now = {
            "method": recipe.method,
            "seed": recipe.seed,
            "request": dataclasses.asdict(recipe.request),
            "settings": _settings(cls, recipe.settings),
        }
    except UnlearnError as error:
        yield f"{RECIPE}: {error}"
        return
    for name, value in json.loads(json.dumps(now)).items():
        was = edit.facts.get(name)
        if name == "settings" and isinstance(was, dict):  # another version may have more or fewer settings
            was = current(recipe.method, was)
            different = [one for one in value if one in was and was[one] != value[one]]
            if different:
                yield f"{RECIPE} has another {different[0]} than {EDIT}"
        elif was != value:
            yield f"{RECIPE} has another {name} than {EDIT}"


def _settings(cls: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a method from a recipe's, which may be an earlier version's."""
    values = current(cls.name, settings)
    old = {name: value for name, value in values.items() if removed(cls.name, name)}
    known = {name: value for name, value in values.items() if name not in old}
    return dataclasses.asdict(build(cls, known)) | old


def _pipeline(folder: Path, facts: Mapping[str, Any], edit: Edit) -> Iterator[str]:
    """The differences of a saved denoiser, or changed text encoder, from the base model with the edit."""
    denoiser = facts.get("denoiser") or next(iter(edit.weights), "").partition(".")[0]
    for part in dict.fromkeys((denoiser, *edit.components)):
        if not isinstance(part, str) or part not in [path.name for path in entries(folder)]:
            yield f"{PIPELINE} has no {quoted(part)}"
            return
        start, where = f"{part}.", f"{PIPELINE}/{part}"
        edited = {k.removeprefix(start): value for k, value in edit.weights.items() if k.startswith(start)}
        try:
            with contextlib.ExitStack() as opened:
                places: dict[str, Any] = {}
                for path in sorted((folder / part).glob("*.safetensors")):
                    file = opened.enter_context(safe_open(path, framework="pt"))
                    places |= dict.fromkeys(file.keys(), file)
                for name, value in edited.items():
                    stored = name if name in places else f"{LONGER}{name}"
                    saved = places[stored].get_tensor(stored) if stored in places else None
                    if saved is None or not torch.equal(value.to(saved.dtype), saved):
                        yield f"{where} does not have {quoted(name)} as {EDIT} has it"
                        return
                rest = (name for name in sorted(places) if name not in edited)
                left = manifest.tensor_hash((name, places[name].get_tensor(name)) for name in rest)
        except (SafetensorError, OSError, ValueError) as error:
            yield f"{where} cannot be read: {' '.join(str(error).split())}"
            return
        if part == denoiser and facts.get("rest", left) != left:
            yield f"{where} differs from the base model where {EDIT} changes nothing"


def _denoiser(model: Model, edit: Edit) -> dict[str, Any]:
    """The denoiser's name, and a hash of its weights that the edit does not change."""
    name, weights = model.family.DENOISER, model.denoiser.state_dict()
    left = (one for one in sorted(weights) if f"{name}.{one}" not in edit.weights)
    return {"denoiser": name, "rest": manifest.tensor_hash((one, weights[one]) for one in left)}
