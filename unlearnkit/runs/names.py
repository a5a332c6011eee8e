"""Names of run folders and their files, and whether a folder can be used; known before torch is imported."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from ..errors import InputError, quoted
from ..io.files import check_writable, entries, folder_name, slug
from ..known import find
from ..schema import Recipe
from ..settings import build, changed

__all__ = ["EDIT", "GRID", "PIPELINE", "RECIPE", "RUN", "check_folder", "default_folder", "no_run"]

RUN, RECIPE, EDIT, PIPELINE, GRID = "run.json", "recipe.toml", "edit.safetensors", "pipeline", "grid.png"
LONG = 60  # characters of the names in a folder's name


def no_run(folder: Path) -> InputError:
    """The error for a folder without a finished run."""
    if (folder / RECIPE).is_file():
        return InputError(
            f"{quoted(folder)} has an unfinished run: continue it with unlearnkit erase --resume --out {quoted(folder)}"
        )
    if not folder.exists():
        return InputError(f"{quoted(folder)} does not exist: name the folder of a finished run")
    return InputError(f"{quoted(folder)} is no finished run: make one with unlearnkit erase")


def default_folder(recipe: Recipe) -> Path:
    """The default folder of a run: ``runs/esd-cat-0``, with a short hash of all settings that are not defaults.

    A long list of concepts gives ``runs/uce-cat-and-999-more-0`` and a hash of the whole list.
    """
    request, every = recipe.request, [concept.name for concept in recipe.request.erase]
    names = "-".join(every)
    long = len(every) > 1 and len(slug(names, length=10 * LONG)) > LONG
    if long:  # cut, two lists could have one name
        names = f"{slug(every[0], length=LONG // 2)}-and-{len(every) - 1}-more"
    filled: Any = build(find(recipe.method), recipe.settings)
    settings = {name: getattr(filled, name) for name in recipe.settings}
    if len(settings) == len(dataclasses.fields(filled)) and not changed(filled):
        settings = {}  # a recipe file with every default
    words = [[one.phrases, one.instead] for one in request.erase if one.phrases or one.instead]
    chosen = [settings, words, [dataclasses.asdict(concept) for concept in request.keep]]
    if long:
        chosen.append([[one.name, one.kind] for one in request.erase])
    short = hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:6]
    plain = f"{recipe.method}-{folder_name(names)}-{recipe.seed}"
    return Path("runs") / (f"{plain}-{short}" if any(chosen) else plain)


def check_folder(folder: Path, *, resume: bool) -> bool:
    """True if ``folder`` has a run to resume, False if it can be used for a new one. Raises InputError otherwise."""
    if entries(folder):
        if not (folder / RECIPE).is_file():
            raise InputError(
                f"{quoted(folder)} is not empty and has no run: choose another folder with --out"
            )
        if not resume:
            state = "a finished run" if (folder / RUN).exists() else "an unfinished run"
            raise InputError(
                f"{quoted(folder)} already has {state}: choose another folder with --out, or add --resume"
            )
        return True
    check_writable(folder, folder, verb="made")
    return False
