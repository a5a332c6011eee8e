"""The command ``unlearnkit erase``. As in ``cli``, words in, calls out."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError, nearest
from ..errors import quoted as cut
from ..io.files import user_path
from .terminal import HOW, WHAT, WHERE, Device, Dtype, Seed, Variant, err, known_model, out, quoted, showing

if TYPE_CHECKING:
    from ..schema import Recipe

__all__ = ["erase"]

CLOSE = 0.85  # how alike two words are of which one is taken for a slip


def erase(
    model: Annotated[
        str | None, typer.Argument(help="canvas, a diffusers folder, a hub id or a file.")
    ] = None,
    concept: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="What to erase; several are erased together.", rich_help_panel=WHAT
        ),
    ] = None,
    kind: Annotated[
        str, typer.Option(metavar="KIND", help="object or style: what the concept is.", rich_help_panel=WHAT)
    ] = "object",
    phrase: Annotated[
        list[str] | None,
        typer.Option(help="Another wording to erase with it; may be repeated.", rich_help_panel=WHAT),
    ] = None,
    instead: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What is to appear in its place.", rich_help_panel=WHAT),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="What must stay; may be repeated.", rich_help_panel=WHAT),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A recipe.toml that says all of this, the method and the seed.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    method: Annotated[
        str, typer.Option(metavar="NAME", help="See 'unlearnkit methods'.", rich_help_panel=HOW)
    ] = "esd",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A setting of the method, see 'unlearnkit methods NAME'; may be repeated.",
            rich_help_panel=HOW,
        ),
    ] = None,
    trains: Annotated[
        str | None,
        typer.Option(
            metavar="PART",
            help="Weights that are trained: xattn-kv, xattn, not-xattn, all or lora.",
            rich_help_panel=HOW,
        ),
    ] = None,
    combine: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Erasing and keeping gradient: sum, restricted, preserving, preserving-tensor or pcgrad.",
            rich_help_panel=HOW,
        ),
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Weights that may move: none, saliency, dynamic or selft.",
            rich_help_panel=HOW,
        ),
    ] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="What holds the weights: l1sp, l2sp, project or none; may be repeated.",
            rich_help_panel=HOW,
        ),
    ] = None,
    seed: Seed = 0,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FOLDER",
            help="The run folder; by default runs/METHOD-CONCEPT-SEED.",
            rich_help_panel=WHERE,
        ),
    ] = None,
    pictures: Annotated[
        int,
        typer.Option(
            min=0, max=16, help="Pictures a row before and after; 0 draws none.", rich_help_panel=WHERE
        ),
    ] = 3,
    pipeline: Annotated[
        bool,
        typer.Option(
            help="Write the whole model beside the edit; --resume adds it later.", rich_help_panel=WHERE
        ),
    ] = True,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what would be done; write nothing.", rich_help_panel=WHERE),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the interrupted run in --out.", rich_help_panel=WHERE),
    ] = False,
    device: Device = None,
    dtype: Dtype = None,
    variant: Variant = None,
) -> None:
    """Erase concepts from a model and leave a run folder: recipe, log, edit, whole pipeline, before/after pictures."""
    folder = folder and user_path(folder)
    parts = {"trains": trains, "combine": combine, "mask": mask, "rule": ",".join(rule) if rule else None}
    own = recipe is None and resume and folder is not None and not concept
    own = own and folder is not None and (folder / "recipe.toml").is_file()
    if own and folder is not None:
        recipe = folder / "recipe.toml"
    if recipe is not None:
        told = model or concept or phrase or instead or keep or set_ or variant or any(parts.values())
        if told or (kind, method, seed) != ("object", "esd", 0):
            raise InputError(
                "a recipe says model, variant, concept, method, seed and settings itself: leave them out, or edit it"
            )
        from ..methods import find
        from ..oldnames import current
        from ..runs.recipes import load_recipe
        from ..settings import build

        wanted = load_recipe(recipe)
        if own:
            wanted = replace(wanted, settings=current(wanted.method, wanted.settings))
        build(find(wanted.method), wanted.settings)  # before anything heavy is loaded
        known_model(wanted.model)
    else:
        wanted = _recipe(model, concept, kind, phrase, instead, keep, method, set_, parts, seed)
        wanted = replace(wanted, variant=variant)

    from ..runs.run import default_folder, writes_pipeline

    _notes(wanted)
    folder = user_path(folder or default_folder(wanted))
    writes: dict[str, Any] = {"pictures": pictures, "pipeline": pipeline and writes_pipeline(wanted)}
    (_dry_run if dry_run else _run)(wanted, folder, resume=resume, device=device, dtype=dtype, **writes)


def _notes(recipe: Recipe) -> None:
    """Say what is easily meant otherwise; nothing is refused for it."""
    from ..models.load import note_of

    for concept in recipe.request.erase:
        if "," in concept.name:
            err.print(
                f"note: {concept.name!r} is one concept, a comma separates nothing: for several repeat --concept",
                markup=False,
            )
    if note := note_of(recipe.model):
        err.print(f"note: {note}", markup=False)


def _recipe(
    model: str | None,
    concept: list[str] | None,
    kind: str,
    phrase: list[str] | None,
    instead: str | None,
    keep: list[str] | None,
    method: str,
    pairs: list[str] | None,
    parts: dict[str, str | None],
    seed: int,
) -> Recipe:
    """A recipe from the command line's words, checked before anything heavy is loaded."""
    from ..schema import Recipe

    if model is None:
        raise InputError(
            "the model is missing: name canvas, a diffusers folder, a hub id or a .safetensors file"
        )
    if not concept:
        raise InputError("the concept is missing: name what shall be erased, for example --concept cat")
    from ..methods import find
    from ..models.load import hints_of
    from ..runs.requests import request_for

    known = hints_of(known_model(model))
    request = request_for(
        concept, kind=kind, phrases=phrase or (), instead=instead, keep=keep or (), known=known
    )
    for one in request.erase:
        words = known.vocabulary(one.kind)
        if one.name not in words and (close := nearest(one.name, words, cutoff=CLOSE)):
            err.print(f"note: the model's vocabulary does not have {cut(one.name)}{close}")
    settings = _settings(find(method), method, pairs or [], parts)
    return Recipe(model, method, request, settings, seed)


def _settings(cls: type, method: str, pairs: list[str], parts: dict[str, str | None]) -> dict[str, Any]:
    """The method's settings, from ``--set`` and from the options of the same names."""
    from ..settings import describe, parse_pairs

    known, found = {one.name for one in describe(cls)}, parse_pairs(pairs, cls)
    for name, text in parts.items():
        if text is None:
            continue
        if name not in known:
            raise InputError(
                f"--{name} is for methods that train, and {cut(method)} computes its weights without training: leave "
                "it out, or choose another method"
            )
        value = parse_pairs([f"{name}={text}"], cls)[name]
        if found.setdefault(name, value) != value:
            raise InputError(
                f"--{name} {cut(text)} and --set {name}=... say different things: give one of them"
            )
    return found


def _run(recipe: Recipe, folder: Path, **options: Any) -> None:
    from ..runs.run import is_finished, run_recipe

    names = ", ".join(concept.name for concept in recipe.request.erase)
    finished = options["resume"] and is_finished(folder, pipeline=options["pipeline"])
    try:
        title = f"erasing {names} from {recipe.model} with {recipe.method}; run folder: {folder}"
        with showing(title) as tick:
            edit = run_recipe(recipe, folder, tick=tick, **options)
    except KeyboardInterrupt:
        if (folder / "recipe.toml").exists():
            same = "" if options["pipeline"] else "--no-pipeline "
            err.print(f"stopped; go on with: unlearnkit erase --resume {same}--out {quoted(folder)}")
        else:
            err.print("stopped before anything was written")
        sys.exit(130)
    if finished:
        out.print(
            f"{folder} is finished already: nothing is left to do (edit {edit.hash()[:12]})", markup=False
        )
        return
    out.print(f"{names}: erased, edit {edit.hash()[:12]}")
    for path, what in (
        ("grid.png", "before and after, the same seeds"),
        ("edit.safetensors", "the edit alone: unlearnkit generate MODEL --edit ..."),
        ("pipeline", "the whole model, for plain diffusers"),
    ):
        if (folder / path).exists():
            out.print(f"  {folder / path}  {what}")


def _dry_run(
    recipe: Recipe, folder: Path, *, resume: bool, device: str | None, dtype: str | None, **writes: Any
) -> None:
    from ..models.load import load
    from ..runs.estimate import estimate
    from ..runs.run import check_folder

    check_folder(folder, resume=resume)
    model = load(recipe.model, device=device, dtype=dtype or recipe.dtype, variant=recipe.variant)
    for name, value in estimate(model, recipe, **writes).lines():
        out.print(f"{name:<12}{value}")
    out.print(f"{'run folder':<12}{folder} (nothing was written)")
