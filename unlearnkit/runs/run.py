"""From a recipe to an edit, and from a recipe to a run folder.

A run folder holds, in the order in which they are written:

    recipe.toml        what is made, every default spelled out, before any work begins
    log.jsonl          one line a training step
    edit.safetensors   the changed weights, with the facts behind them
    pipeline/          the whole model with the edit in it, for plain diffusers
    grid.png           before and after, the same seeds
    run.json           versions, fingerprints, seconds, and a hash of every file: it says that the run is finished
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from .. import methods
from ..errors import InputError, quoted
from ..io import manifest, processes
from ..io.files import entries, existing, locked, resumable, slug, tidy, user_path, write_text, writing
from ..io.versions import versions
from ..models.edit import Edit
from ..models.hints import GENERAL, Hints
from ..models.load import hints_of, load
from ..models.model import Model
from ..oldnames import current
from ..schema import Concept, Kind, Recipe, Request, folded
from ..settings import build, changed
from . import images, runfolder
from .estimate import disk
from .recipes import dump_recipe, load_recipe, placed
from .runfolder import GRID, PIPELINE, RECIPE, RUN

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
    build(methods.find(method), settings)
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
    """Where a run goes that names no folder: ``runs/esd-cat-0``, with a short hash of whatever else was chosen."""
    request, names = recipe.request, "-".join(concept.name for concept in recipe.request.erase)
    filled: Any = build(methods.find(recipe.method), recipe.settings)
    given = {name: getattr(filled, name) for name in recipe.settings}
    if len(given) == len(dataclasses.fields(filled)) and not changed(filled):
        given = {}  # a recipe file with every default spelled out
    own = [[one.phrases, one.instead] for one in request.erase if one.phrases or one.instead]
    chosen = [given, own, [dataclasses.asdict(concept) for concept in request.keep]]
    short = hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:6]
    plain = f"{recipe.method}-{slug(names)}-{recipe.seed}"
    return Path("runs") / (f"{plain}-{short}" if any(chosen) else plain)


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
    resume: go on with a run that was interrupted; it must have the same recipe. A finished run is returned as is,
        after its files were compared with what ``run.json`` says of them.
    dtype: the recipe's unless told; a run is only resumed in its own.
    pictures: before/after pictures a row of grid.png; 0 draws none.
    pipeline: whether to write the whole model beside the edit; resuming a finished run adds it.

    Raises InputError if ``out`` already holds something else, cannot be written, another process writes in it, or the
    disk is full. Nothing that was in ``out`` before is lost: every file is written whole beside its place and then
    renamed.
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
        plan = methods.plan(model, recipe.request, method=recipe.method, settings=recipe.settings)
        _room(folder, disk(model, plan, pipeline=pipeline))
    begun = time.monotonic()
    with _alone(folder):
        if processes.first():
            if check_folder(folder, resume=resume) != resuming:
                raise InputError(f"another process used {quoted(folder)} meanwhile: choose another folder")
            manifest.no_links(folder)
            for stage in folder.glob(f"{runfolder.STAGE}*"):
                tidy(stage, exclusive=True)
            if not resuming:
                write_text(folder / RECIPE, dump_recipe(recipe, settings))
        processes.wait()  # before another one makes a folder there
        if resuming and (folder / RUN).exists():
            edit = Edit.load(
                folder / methods.EDIT
            )  # also of an earlier version, which named settings otherwise
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
            spent = round(time.monotonic() - begun, 1)
            _complete(folder, model, recipe.request, edit, pictures, pipeline, resuming, begun, spent, tick)
    return edit


def _complete(
    folder: Path,
    model: Model,
    request: Request,
    edit: Edit,
    pictures: int,
    pipeline: bool,
    resuming: bool,
    begun: float,
    spent: float,
    tick: Tick | None,
) -> None:
    """Write what a run has beside its edit, and ``run.json`` at last; what is there already stays as it is."""
    if pipeline:
        if (folder / PIPELINE).exists():
            runfolder.fits(folder, model, edit)
        else:
            model.save(folder / PIPELINE, edit=edit)
    if (folder / RUN).exists():
        facts = runfolder.read(folder)
    else:
        if pictures:
            drawing = (lambda done, total: tick("drawing", done, total)) if tick else None
            grid = images.before_and_after(model, request, edit, seeds=range(pictures), tick=drawing)
            images.save_png(grid, folder / GRID, facts={"edit": edit.hash()})
        facts = {
            "edit": edit.hash(),
            "base": model.fingerprint(),
            "seconds": round(time.monotonic() - begun, 1),
            **({} if resuming else {"method seconds": spent}),
            "resumed": resuming,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "device": str(model.device),
            "dtype": model.precision,
            "versions": versions(),
        }
    runfolder.finish(folder, facts, model)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Within this no other command writes in the folder; of several processes at one run the first holds the lock."""
    with (
        resumable(folder / RECIPE, "the run goes on with --resume"),
        writing(folder),
        locked(folder) if processes.first() else contextlib.nullcontext(),
    ):
        yield


def writes_pipeline(recipe: Recipe) -> bool:
    """Whether a run of the recipe can write a whole model: a guard is in no folder of weights."""
    return not issubclass(methods.find(recipe.method), methods.Guard)


def is_finished(folder: Path, *, pipeline: bool = True) -> bool:
    """Whether ``folder`` holds all of a run, and the whole model where it is wanted.

    Raises InputError where a file of a finished run is not as it was written.
    """
    return (folder / RUN).exists() and (runfolder.damage(folder) or not pipeline)


def check_folder(folder: Path, *, resume: bool) -> bool:
    """True if ``folder`` holds a run to go on with, False if it is free to be used, InputError otherwise."""
    if entries(folder):
        if not (folder / RECIPE).is_file():
            raise InputError(
                f"{quoted(folder)} is not empty and holds no run: choose another folder with --out"
            )
        if not resume:
            state = "a finished run" if (folder / RUN).exists() else "an unfinished run"
            raise InputError(
                f"{quoted(folder)} already holds {state}: choose another folder with --out, or add --resume"
            )
        return True
    parent = existing(folder)
    if not parent.is_dir():
        raise InputError(
            f"{quoted(folder)} cannot be made: {quoted(parent)} is a file; choose another folder"
        )
    if not os.access(parent, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise InputError(
            f"{quoted(folder)} cannot be written: no permission in {quoted(parent)}; choose another folder"
        )
    return False


def _room(folder: Path, needed: int) -> None:
    """Refuse a run that the disk has no room for."""
    free = shutil.disk_usage(existing(folder)).free
    if free < needed:
        raise InputError(
            f"the disk of {quoted(folder)} is full: the run needs about {needed / 1e6:,.0f} MB, {free / 1e6:,.0f} MB "
            f"are free; make room, or choose another disk with --out"
        )


def _same(old: Recipe, new: Recipe, settings: Any, folder: Path) -> None:
    """Refuse to resume a run with another recipe, naming the first difference."""
    was = {name: getattr(old, name) for name in ("model", "method", "seed", "request", "variant")}
    was |= {"model": placed(old.model), "dtype": old.dtype or new.dtype}  # older versions wrote no dtype
    now = {name: getattr(new, name) for name in was}
    if old.method == new.method:
        was |= dataclasses.asdict(build(type(settings), current(old.method, old.settings)))
        now |= dataclasses.asdict(settings)
    for name, value in now.items():
        if was[name] != value:
            raise InputError(
                f"{quoted(folder)} was begun with another recipe ({name} was {quoted(was[name])}, "
                f"now {quoted(value)}): resume it with its own recipe.toml, or choose another folder"
            )
