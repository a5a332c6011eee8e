"""Carry out a recipe: make the edit, and write a run folder.

A run folder contains, in the order of writing:

    recipe.toml        the recipe with every default, before any work starts
    log.jsonl          one line per training step
    edit.safetensors   the changed weights and how they were made
    pipeline/          the whole model with the edit, for plain diffusers
    grid.png           images before and after, with the same seeds
    run.json           versions, fingerprints, seconds, and a hash of every file; written when the run is finished
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .. import methods
from ..errors import InputError, quoted
from ..io import manifest, processes
from ..io.files import existing, resumable, tidy, user_path, write_text, writing
from ..io.locks import locked
from ..io.tick import Tick
from ..io.versions import versions
from ..methods.checking import check_known
from ..model.edit import Edit
from ..model.load import load
from ..model.model import Model
from ..model.places import hints_of
from ..oldnames import current
from ..schema import Concept, Recipe, Request
from ..settings import build, differences
from . import images, runfolder
from .estimate import disk
from .names import check_folder
from .recipes import dump_recipe, load_recipe, placed
from .requests import request_for
from .runfolder import GRID, PIPELINE, RECIPE, RUN

__all__ = ["erase", "is_finished", "run_recipe", "writes_pipeline"]


def erase(
    model: Model | str | Path,
    concept: str | Concept | Request | Iterable[str | Concept],
    *,
    method: str | None = None,
    kind: str | None = None,
    instead: str | None = None,
    keep: Iterable[str | Concept] = (),
    seed: int = 0,
    out: str | Path | None = None,
    **settings: Any,
) -> Edit:
    """Make an edit with which ``model`` no longer draws ``concept``. The model itself is unchanged.

    model: a loaded Model, or anything that ``load`` takes.
    concept: a name, a Concept, a Request, or several of the first two. kind: of plain names, ``object`` or ``style``;
    None: style for a name that the model's hints know only as a style, else object.
    instead: what appears in its place: a word, ``"nothing"`` or ``"nearest"``. keep: concepts to retain.
    out: a folder for the run (see ``run_recipe``); None: nothing is written.
    method: default: what the model's hints name, else esd.
    settings: of the method, by name; ``unlearnkit methods NAME`` lists them.

    Raises UnlearnError for unusable input.
    """
    known = model.hints if isinstance(model, Model) else hints_of(model)
    method = method or known.method
    request = request_for(concept, kind=kind, instead=instead, keep=keep, known=known)
    if out is not None:
        source = model.source if isinstance(model, Model) else str(model)
        recipe = Recipe(str(source), method, request, settings, seed)
        return run_recipe(recipe, out, model=model if isinstance(model, Model) else None)
    build(methods.find(method), settings)
    loaded = model if isinstance(model, Model) else load(model)
    return methods.edit_for(loaded, request, method=method, settings=settings, seed=seed)


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
    force: bool = True,
    tick: Tick | None = None,
) -> Edit:
    """Carry out a recipe and write a run folder: recipe, log, edit, pipeline, pictures, and at last ``run.json``.

    model: the recipe's model, if it is loaded already.
    resume: continue an interrupted run with the same recipe. A finished run's edit is returned after its files were
        checked against ``run.json``.
    dtype: default: the recipe's. A run can be resumed only with its own.
    pictures: images before and after per row of grid.png; 0: no grid.
    pipeline: whether to write the whole model too; resuming a finished run adds it.
    force: False refuses a name outside the model's vocabulary that seems to mean nothing to it; looking takes seconds.

    Raises InputError if ``out`` has other content, cannot be written, is used by another process, or the disk is full.
    Nothing in ``out`` is lost: each file is written under a temporary name and then renamed.
    """
    folder = user_path(out)
    build(methods.find(recipe.method), recipe.settings)
    pipeline = pipeline and writes_pipeline(recipe)
    resuming = check_folder(folder, resume=resume)
    finished = resuming and is_finished(folder, pipeline=pipeline)
    processes.wait()  # before one of them writes there
    if model is None:
        model = load(recipe.model, device=device, dtype=dtype or recipe.dtype, variant=recipe.variant)
    recipe = dataclasses.replace(
        recipe, model=placed(recipe.model), dtype=model.precision, variant=model.variant
    )
    settings = methods.resolve(model, recipe.request, recipe.method, recipe.settings)
    if resuming:
        _same(load_recipe(folder / RECIPE), recipe, settings, folder)
        if finished:
            return Edit.load(folder / methods.EDIT)
    else:
        check_known(model, recipe.request, force=force)
        plan = methods.plan(model, recipe.request, method=recipe.method, settings=recipe.settings)
        _room(folder, disk(model, plan, pipeline=pipeline))
    started = time.monotonic()
    with _locked(folder):
        if processes.first():
            if check_folder(folder, resume=resume) != resuming:
                raise InputError(f"another process has used {quoted(folder)} since: choose another folder")
            manifest.no_links(folder)
            for stage in folder.glob(f"{runfolder.STAGE}*"):
                tidy(stage, exclusive=True)
            if not resuming:
                write_text(folder / RECIPE, dump_recipe(recipe, settings))
        processes.wait()  # before another one makes a folder there
        if resuming and (folder / RUN).exists():
            edit = Edit.load(folder / methods.EDIT)  # also an earlier version's, with other settings
        else:
            edit = methods.edit_for(
                model,
                recipe.request,
                method=recipe.method,
                settings=dataclasses.asdict(settings),
                seed=recipe.seed,
                job=methods.Job(folder=folder, progress=tick),
            )
        if processes.first():
            spent = round(time.monotonic() - started, 1)
            _complete(folder, model, recipe.request, edit, pictures, pipeline, resuming, started, spent, tick)
    return edit


def _complete(
    folder: Path,
    model: Model,
    request: Request,
    edit: Edit,
    pictures: int,
    pipeline: bool,
    resuming: bool,
    started: float,
    spent: float,
    tick: Tick | None,
) -> None:
    """Write the run's other files, ``run.json`` last. Existing files are left unchanged."""
    if pipeline:
        if (folder / PIPELINE).exists():
            runfolder.fits(folder, model, edit)
        else:
            model.save(folder / PIPELINE, edit=edit)
    if (folder / RUN).exists():
        facts = runfolder.read(folder)
    else:
        if pictures:
            grid = images.before_and_after(model, request, edit, seeds=range(pictures), tick=tick)
            images.save_png(grid, folder / GRID, facts={"edit": edit.hash()})
        facts = {
            "edit": edit.hash(),
            "base": model.fingerprint(),
            "seconds": round(time.monotonic() - started, 1),
            **({} if resuming else {"method seconds": spent}),
            **({"stopped": edit.facts["stopped"]} if "stopped" in edit.facts else {}),
            "resumed": resuming,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "device": str(model.device),
            "dtype": model.precision,
            "versions": versions(),
        }
    runfolder.finish(folder, facts, model)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock the folder against other commands. Of a run's several processes, the first one has the lock."""
    with (
        resumable(folder / RECIPE, "--resume continues the run"),
        writing(folder),
        locked(folder) if processes.first() else contextlib.nullcontext(),
    ):
        yield


def writes_pipeline(recipe: Recipe) -> bool:
    """Whether the recipe's run can write a whole model; weights alone cannot express a guard."""
    return not issubclass(methods.find(recipe.method), methods.Guard)


def is_finished(folder: Path, *, pipeline: bool = True) -> bool:
    """Whether ``folder`` has a finished run, and its whole model if ``pipeline``.

    Raises InputError if a file of a finished run was changed.
    """
    return (folder / RUN).exists() and (runfolder.damage(folder) or not pipeline)


def _room(folder: Path, needed: int) -> None:
    """Raise InputError if the disk has too little space for a run."""
    free = shutil.disk_usage(existing(folder)).free
    if free < needed:
        raise InputError(
            f"the disk of {quoted(folder)} is full: the run needs about {needed / 1e6:,.0f} MB, {free / 1e6:,.0f} MB "
            f"are free; make room, or choose another disk with --out"
        )


def _same(old: Recipe, new: Recipe, settings: Any, folder: Path) -> None:
    """Raise InputError if a run would be resumed with another recipe; names the first difference."""
    was = {name: getattr(old, name) for name in ("model", "method", "seed", "request", "variant")}
    was |= {"model": placed(old.model), "dtype": old.dtype or new.dtype}  # older versions wrote no dtype
    now = {name: getattr(new, name) for name in was}
    was["request"], now["request"] = dataclasses.asdict(old.request), dataclasses.asdict(new.request)
    if old.method == new.method:
        was |= dataclasses.asdict(build(type(settings), current(old.method, old.settings)))
        now |= dataclasses.asdict(settings)
    for name, former, value in differences(was, now):
        raise InputError(
            f"{quoted(folder)} was started with another recipe ({name} was {quoted(former)}, now {quoted(value)}): "
            "resume it with its own recipe.toml, or choose another folder"
        )
