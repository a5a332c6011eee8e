"""From a recipe to an edit, and from a recipe to a run folder.

A run folder holds, in the order in which they are written:

    recipe.toml        what is made, every default spelled out, before any work begins
    log.jsonl          one line a training step
    edit.safetensors   the changed weights, with the facts behind them
    pipeline/          the whole model with the edit in it, for plain diffusers
    grid.png           before and after, the same seeds
    run.json           versions, fingerprints, seconds: its presence says that the run is finished
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

from . import images, methods, processes
from .edit import Edit
from .errors import InputError
from .estimate import disk
from .files import existing, slug, write_text, writing
from .hints import GENERAL, Hints
from .model import Model, hints_of, load
from .recipes import dump_recipe, load_recipe
from .schema import Concept, Kind, Recipe, Request, folded
from .settings import build
from .versions import versions

__all__ = ["Tick", "check_folder", "default_folder", "erase", "is_finished", "request_for", "run_recipe"]

Tick = Callable[[str, int, int], None]
"""Called as ``tick(stage, done, total)``; stages are the method's own, then ``"drawing"`` (pictures)."""


def erase(
    model: Model | str | Path,
    concept: str | Concept | Request | Iterable[str | Concept],
    *,
    method: str = "esd",
    kind: str = "object",
    instead: str | None = None,
    keep: Iterable[str | Concept] = (),
    seed: int = 0,
    out: str | Path | None = None,
    **settings: Any,
) -> Edit:
    """Make the edit after which ``model`` no longer draws ``concept``; the model itself stays as it is.

    model: a loaded Model, or anything that ``load`` takes.
    concept, kind, instead, keep: as in ``request_for``.
    out: a folder for the whole run (see ``run_recipe``); without it nothing is written.
    settings: of the method, by name; ``unlearnkit methods NAME`` lists them.

    Raises UnlearnError for anything that cannot be used.
    """
    known = model.hints if isinstance(model, Model) else hints_of(model)
    request = request_for(concept, kind=kind, instead=instead, keep=keep, known=known)
    if out is not None:
        source = model.source if isinstance(model, Model) else str(model)
        recipe = Recipe(str(source), method, request, settings, seed)
        return run_recipe(recipe, out, model=model if isinstance(model, Model) else None)
    build(methods.find(method).settings, settings)
    loaded = model if isinstance(model, Model) else load(model)
    return methods.edit_for(loaded, request, method=method, settings=settings, seed=seed)


def request_for(
    concept: str | Concept | Request | Iterable[str | Concept],
    *,
    kind: str = "object",
    phrases: Iterable[str] = (),
    instead: str | None = None,
    keep: Iterable[str | Concept] = (),
    known: Hints = GENERAL,
) -> Request:
    """A Request from names: ``kind`` holds for every plain name, ``phrases`` and ``instead`` for a single one.

    A plain name to keep is of ``kind`` too, unless the model's hints know it only as the other kind.
    """
    phrases, keep = tuple(phrases), tuple(keep)
    if isinstance(concept, Request):
        if instead is not None or phrases or keep:
            raise InputError("a Request says everything itself: put phrases, instead and keep into it")
        return concept
    several = (concept,) if isinstance(concept, str | Concept) else tuple(concept)
    if (phrases or instead is not None) and [type(one) for one in several] != [str]:
        raise InputError(
            "phrases and 'instead' belong to a single concept given by name: for several, use Concept objects "
            "or a recipe file"
        )
    sort = cast(Kind, kind)  # Concept refuses any other
    return Request(
        tuple(
            one if isinstance(one, Concept) else Concept(one, sort, phrases=phrases, instead=instead)
            for one in several
        ),
        tuple(one if isinstance(one, Concept) else Concept(one, _kind(one, sort, known)) for one in keep),
    )


def _kind(name: str, kind: Kind, known: Hints) -> Kind:
    """The kind that the model knows the name as: the given one, if it knows it as both or as neither."""
    kinds: tuple[Kind, ...] = (kind, "object", "style")
    return next((k for k in kinds if folded(name) in map(folded, known.vocabulary(k))), kind)


def default_folder(recipe: Recipe) -> Path:
    """Where a run goes that names no folder: ``runs/esd-cat-0``."""
    names = "-".join(concept.name for concept in recipe.request.erase)
    return Path("runs") / f"{recipe.method}-{slug(names)}-{recipe.seed}"


def run_recipe(
    recipe: Recipe,
    out: str | Path,
    *,
    model: Model | None = None,
    resume: bool = False,
    device: str | None = None,
    dtype: str | None = None,
    pictures: int = 3,
    pipeline: bool = True,
    tick: Tick | None = None,
) -> Edit:
    """Carry out a recipe and leave a run folder (see the top of this file).

    model: the loaded model of the recipe, to save loading it again.
    resume: go on with a run that was interrupted; it must have the same recipe. A finished run is returned as is.
    pictures: before/after pictures a row of grid.png; 0 draws none.
    pipeline: whether to write the whole model beside the edit; resuming a finished run adds it.

    Raises InputError if ``out`` already holds something else, cannot be written, or the disk is full. Nothing that
    was in ``out`` before is lost: every file is written whole beside its place and then renamed.
    """
    folder = Path(out)
    build(methods.find(recipe.method).settings, recipe.settings)
    resuming = check_folder(folder, resume=resume)
    processes.wait()  # before one of them writes there
    model = load(recipe.model, device=device, dtype=dtype) if model is None else model
    settings = methods.resolve(model, recipe.request, recipe.method, recipe.settings)
    if resuming:
        _same(load_recipe(folder / "recipe.toml"), recipe, settings, folder)
        if is_finished(folder, pipeline=pipeline):
            return Edit.load(folder / "edit.safetensors")
    else:
        plan = methods.plan(model, recipe.request, method=recipe.method, settings=recipe.settings)
        _room(folder, disk(model, plan, pipeline=pipeline))
    begun = time.monotonic()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not resuming and processes.first():
            write_text(folder / "recipe.toml", dump_recipe(recipe, settings))
        edit = methods.edit_for(
            model,
            recipe.request,
            method=recipe.method,
            settings=dataclasses.asdict(settings),
            seed=recipe.seed,
            job=methods.Job(folder=folder, progress=tick),
        )
        if not processes.first():
            return edit
        if pipeline and not (folder / "pipeline").exists():
            model.save(folder / "pipeline", edit=edit)
        if is_finished(folder, pipeline=pipeline):
            return edit
        if pictures:
            drawing = (lambda done, total: tick("drawing", done, total)) if tick else None
            grid = images.before_and_after(model, recipe.request, edit, seeds=range(pictures), tick=drawing)
            images.save_png(grid, folder / "grid.png", facts={"edit": edit.hash()})
        facts = {
            "edit": edit.hash(),
            "base": model.fingerprint(),
            "seconds": round(time.monotonic() - begun, 1),
            "resumed": resuming,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "device": str(model.device),
            "dtype": model.precision,
            "versions": versions(),
        }
        write_text(folder / "run.json", json.dumps(facts, indent=2) + "\n")
    return edit


def is_finished(folder: Path, *, pipeline: bool = True) -> bool:
    """Whether ``folder`` holds all of a run, and the whole model where it is wanted."""
    return (folder / "run.json").exists() and (not pipeline or (folder / "pipeline").exists())


def check_folder(folder: Path, *, resume: bool) -> bool:
    """True if ``folder`` holds a run to go on with, False if it is free to be used, InputError otherwise."""
    if folder.is_dir() and any(not path.name.endswith(".part") for path in folder.iterdir()):
        if not (folder / "recipe.toml").is_file():
            raise InputError(
                f"{str(folder)!r} is not empty and holds no run: choose another folder with --out"
            )
        if not resume:
            state = "a finished run" if (folder / "run.json").exists() else "an unfinished run"
            raise InputError(
                f"{str(folder)!r} already holds {state}: choose another folder with --out, or add --resume"
            )
        return True
    parent = existing(folder)
    if not parent.is_dir():
        raise InputError(f"{str(folder)!r} cannot be made: {str(parent)!r} is a file; choose another folder")
    if not os.access(parent, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise InputError(
            f"{str(folder)!r} cannot be written: no permission in {str(parent)!r}; choose another folder"
        )
    return False


def _room(folder: Path, needed: int) -> None:
    """Refuse a run that the disk has no room for."""
    free = shutil.disk_usage(existing(folder)).free
    if free < needed:
        raise InputError(
            f"the disk of {str(folder)!r} is full: the run needs about {needed / 1e6:,.0f} MB, {free / 1e6:,.0f} MB "
            f"are free; make room, or choose another disk with --out"
        )


def _same(old: Recipe, new: Recipe, settings: Any, folder: Path) -> None:
    """Refuse to resume a run with another recipe, naming the first difference."""
    was = {name: getattr(old, name) for name in ("model", "method", "seed", "request")}
    now = {name: getattr(new, name) for name in was}
    if old.method == new.method:
        was |= dataclasses.asdict(build(type(settings), old.settings))
        now |= dataclasses.asdict(settings)
    for name, value in now.items():
        if was[name] != value:
            raise InputError(
                f"{str(folder)!r} was begun with another recipe ({name} was {was[name]!r}, now {value!r}): resume "
                f"it with its own recipe.toml, or choose another folder"
            )
