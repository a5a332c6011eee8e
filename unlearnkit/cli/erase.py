"""The command ``unlearnkit erase``."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError, listed
from ..errors import quoted as cut
from ..io.files import user_path
from . import complete
from .output import answer
from .request import NAMES, notes, recipe_of
from .terminal import HOW, WHAT, WHERE, Device, Dtype, Seed, Variant, err, known_model, out, quoted, showing

if TYPE_CHECKING:
    from ..schema import Recipe

__all__ = ["erase"]


def erase(
    model: Annotated[
        str | None,
        typer.Argument(
            help="canvas, a diffusers folder, a hub id or a file.", autocompletion=complete.models
        ),
    ] = None,
    concept: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="What to erase; several are erased together.", rich_help_panel=WHAT
        ),
    ] = None,
    concepts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Names to erase, one a line, or a .csv (name, kind, phrases, instead) or .toml ([\\[erase]]).",
            rich_help_panel=WHAT,
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            autocompletion=complete.kinds,
            help="object or style (default: what the model's hints say, else object).",
            rich_help_panel=WHAT,
        ),
    ] = None,
    phrase: Annotated[
        list[str] | None,
        typer.Option(help="Another wording of the concept; may be repeated.", rich_help_panel=WHAT),
    ] = None,
    instead: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What appears in its place: a word, nothing, or nearest.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A concept to retain; may be repeated.", rich_help_panel=WHAT),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A recipe.toml, with all of these, the method and the seed.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=complete.methods,
            help="See 'unlearnkit methods' (default: what the model's hints name, else esd).",
            rich_help_panel=HOW,
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            autocompletion=complete.settings,
            help="A setting of the method, see 'unlearnkit methods NAME'; may be repeated.",
            rich_help_panel=HOW,
        ),
    ] = None,
    trains: Annotated[
        str | None,
        typer.Option(
            metavar="PART",
            autocompletion=complete.value_of("trains"),
            help="The trained weights: xattn-kv, xattn, not-xattn, all, lora or text-encoder.",
            rich_help_panel=HOW,
        ),
    ] = None,
    combine: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=complete.value_of("combine"),
            help="How gradients are combined: sum, restricted, preserving, preserving-tensor or pcgrad.",
            rich_help_panel=HOW,
        ),
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=complete.value_of("mask"),
            help="Weights that may change: none, saliency, dynamic or selft.",
            rich_help_panel=HOW,
        ),
    ] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            autocompletion=complete.value_of("rule"),
            help="Constraints on the weights: l1sp, l2sp, project or none; may be repeated.",
            rich_help_panel=HOW,
        ),
    ] = None,
    adversary: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=complete.value_of("adversary"),
            help="Learn vectors that bring the concept back, and erase there too: none, embedding or prefix.",
            rich_help_panel=HOW,
        ),
    ] = None,
    seed: Seed = 0,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FOLDER",
            help="The run folder (default: runs/METHOD-CONCEPT-SEED).",
            rich_help_panel=WHERE,
        ),
    ] = None,
    pictures: Annotated[
        int,
        typer.Option(
            min=0, max=16, help="Pictures per row before and after; 0: no grid.", rich_help_panel=WHERE
        ),
    ] = 3,
    pipeline: Annotated[
        bool,
        typer.Option(help="Write the whole model too; --resume adds it later.", rich_help_panel=WHERE),
    ] = True,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show what would be done; write nothing.", rich_help_panel=WHERE),
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Erase a name even if the model does not seem to know it.",
            rich_help_panel=WHAT,
        ),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue the interrupted run in --out.", rich_help_panel=WHERE),
    ] = False,
    device: Device = None,
    dtype: Dtype = None,
    variant: Variant = None,
) -> None:
    """Erase concepts from a model and write a run folder: recipe, log, edit, pipeline, pictures before and after."""
    folder = folder and user_path(folder)
    parts = {
        "trains": trains,
        "combine": combine,
        "mask": mask,
        "adversary": adversary,
        "rule": ",".join(rule) if rule else None,
    }
    resumed = None
    if resume and not (recipe or concept or concepts):
        if folder is None:
            raise InputError("which run is to be resumed? name its folder with --out")
        resumed = folder / "recipe.toml"
        if not resumed.is_file():
            raise InputError(f"{cut(folder)} has no run to resume: name the folder of one with --out")
    recipe = recipe or resumed
    if recipe is not None:
        others = (model, concept, concepts, phrase, instead, keep, set_, variant, *parts.values())
        if any(others) or (kind, method, seed) != (None, None, 0):
            raise InputError(
                "a recipe has its own model, variant, concept, method, seed and settings: leave them out, or edit it"
            )
        from ..known import find
        from ..oldnames import current
        from ..runs.recipes import load_recipe
        from ..settings import build

        chosen = load_recipe(recipe)
        if resumed:
            chosen = replace(chosen, settings=current(chosen.method, chosen.settings))
        build(find(chosen.method), chosen.settings)  # before anything heavy is loaded
        known_model(chosen.model)
    else:
        chosen = recipe_of(model, concept, concepts, kind, phrase, instead, keep, method, set_, parts, seed)
        chosen = replace(chosen, variant=variant)

    from ..runs.names import check_folder, default_folder

    folder = user_path(folder or default_folder(chosen))
    check_folder(folder, resume=resume)  # before anything heavy is loaded
    notes(chosen)

    from ..runs.run import writes_pipeline

    writes: dict[str, Any] = {"pictures": pictures, "pipeline": pipeline and writes_pipeline(chosen)}
    writes |= {"resume": resume, "force": force, "device": device, "dtype": dtype}
    (_dry_run if dry_run else _run)(chosen, folder, **writes)


def _run(recipe: Recipe, folder: Path, **options: Any) -> None:
    from ..runs.run import is_finished, run_recipe
    from ..runs.stopped import sentences

    names = listed((concept.name for concept in recipe.request.erase), longest=NAMES)
    finished = options["resume"] and is_finished(folder, pipeline=options["pipeline"])
    try:
        title = f"erasing {names} from {recipe.model} with {recipe.method}; run folder: {folder}"
        with showing(title) as tick:
            edit = run_recipe(recipe, folder, tick=tick, **options)
    except KeyboardInterrupt:
        if (folder / "recipe.toml").exists():
            same = "" if options["pipeline"] else "--no-pipeline "
            err.print(f"stopped; continue with: unlearnkit erase --resume {same}--out {quoted(folder)}")
        else:
            err.print("stopped before anything was written")
        sys.exit(130)
    facts = {"run": folder, "edit": edit.hash(), "method": recipe.method, "was_finished": finished}
    facts |= {"concepts": [concept.name for concept in recipe.request.erase]}
    answer(
        facts
        | {"stopped": edit.facts.get("stopped"), "files": sorted(path.name for path in folder.glob("[!.]*"))}
    )
    if finished:
        out.print(f"{folder} is finished already (edit {edit.hash()[:12]})", markup=False)
        return
    out.print(f"{names}: erased, edit {edit.hash()[:12]}")
    for line in sentences(edit.facts):
        out.print(f"  {line}", markup=False)
    for path, what in (
        ("grid.png", "before and after, with the same seeds"),
        ("edit.safetensors", "the edit, for unlearnkit generate --edit and export"),
        ("pipeline", "the whole model, for plain diffusers"),
    ):
        if (folder / path).exists():
            out.print(f"  {folder / path}  {what}")
    out.print(f"  next: unlearnkit evaluate {quoted(folder)}", markup=False)


def _dry_run(
    recipe: Recipe,
    folder: Path,
    *,
    force: bool,
    device: str | None,
    dtype: str | None,
    pictures: int,
    pipeline: bool,
    **_: Any,
) -> None:
    from ..methods.checking import check_known
    from ..model.load import load
    from ..runs.estimate import estimate

    model = load(recipe.model, device=device, dtype=dtype or recipe.dtype, variant=recipe.variant)
    check_known(model, recipe.request, force=force)
    found = estimate(model, recipe, pictures=pictures, pipeline=pipeline)
    answer({"run": folder, **found.facts()})
    for name, value in found.lines():
        out.print(f"{name:<12}{value}")
    out.print(f"{'run folder':<12}{folder} (nothing was written)")
