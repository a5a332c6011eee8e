"""The command ``unlearnkit``: words in, calls out. No logic lives here, and nothing heavy is imported at the top."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from . import __version__, cli_evaluate
from .errors import InputError, UnlearnError

if TYPE_CHECKING:
    from .schema import Recipe

__all__ = ["app", "main"]

app = typer.Typer(
    name="unlearnkit",
    no_args_is_help=True,
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
canvas = typer.Typer(
    help="The canvas: the small model and its judges that ship with unlearnkit.", no_args_is_help=True
)
app.add_typer(canvas, name="canvas")
app.add_typer(cli_evaluate.commands)

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

Source = Annotated[str, typer.Argument(help="canvas, a diffusers folder, a hub id or a .safetensors file.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same result.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1; by default a GPU if there is one.")]
Dtype = Annotated[
    str | None, typer.Option(help="float32, float16 or bfloat16; by default as the device likes it.")
]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 our bug (with its traceback), 2 unusable input, 130 interrupted."""
    os.environ.setdefault(
        "TRANSFORMERS_VERBOSITY", "error"
    )  # its notes on absent options are not for our users
    try:
        app(args=None if arguments is None else list(arguments), prog_name="unlearnkit")
    except UnlearnError as error:
        err.print(" ".join(str(error).split()), style="red", markup=False)
        sys.exit(2)


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Erase named concepts from a text-to-image diffusion model and leave everything else as it was."""
    if version:
        out.print(__version__)
        raise typer.Exit


@app.command()
def erase(
    model: Annotated[
        str | None, typer.Argument(help="canvas, a diffusers folder, a hub id or a file.")
    ] = None,
    concept: Annotated[
        list[str] | None, typer.Option(help="What to erase; several are erased together.")
    ] = None,
    kind: Annotated[str, typer.Option(help="object or style: what the concept is.")] = "object",
    phrase: Annotated[
        list[str] | None, typer.Option(help="Another wording to erase with it; may be repeated.")
    ] = None,
    instead: Annotated[str | None, typer.Option(help="What shall appear in its place.")] = None,
    keep: Annotated[list[str] | None, typer.Option(help="What must stay; may be repeated.")] = None,
    method: Annotated[str, typer.Option(help="See 'unlearnkit methods'.")] = "esd",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the method.")
    ] = None,
    seed: Seed = 0,
    folder: Annotated[
        Path | None, typer.Option("--out", help="The run folder; default runs/METHOD-CONCEPT-SEED.")
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="A recipe.toml that says all of the above.")] = None,
    pictures: Annotated[
        int, typer.Option(min=0, max=16, help="Pictures a row before and after; 0 draws none.")
    ] = 3,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the interrupted run in --out.")
    ] = False,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Erase concepts from a model and leave a run folder: recipe, log, edit, whole pipeline, before/after pictures.

    [bold]unlearnkit erase canvas --concept cat[/bold]
    """
    if (
        recipe is None
        and resume
        and folder is not None
        and not concept
        and (folder / "recipe.toml").is_file()
    ):
        recipe = folder / "recipe.toml"
    if recipe is not None:
        if model or concept or phrase or instead or keep or set_:
            raise InputError(
                "a recipe says model, concept and settings itself: leave them out, or edit the recipe"
            )
        from .settings import load_recipe

        wanted = load_recipe(recipe)
    else:
        wanted = _recipe(model, concept, kind, phrase, instead, keep, method, set_, seed)

    from .run import default_folder

    folder = folder or default_folder(wanted)
    if dry_run:
        _dry_run(wanted, folder, resume=resume, device=device, dtype=dtype, pictures=pictures)
    else:
        _run(wanted, folder, resume=resume, device=device, dtype=dtype, pictures=pictures)


@app.command()
def generate(
    model: Source,
    prompt: Annotated[list[str], typer.Option(help="What to draw; may be repeated.")],
    count: Annotated[
        int, typer.Option(min=1, help="Pictures a prompt; their seeds count up from --seed.")
    ] = 1,
    seed: Seed = 0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Denoising steps; by default as the model likes it.")
    ] = None,
    guidance: Annotated[float | None, typer.Option(min=0, help="Classifier-free guidance; likewise.")] = None,
    negative: Annotated[str | None, typer.Option(help="What the picture shall not show.")] = None,
    edit: Annotated[Path | None, typer.Option(help="An edit.safetensors to wear while drawing.")] = None,
    folder: Annotated[Path, typer.Option("--out", help="The folder for the PNG files.")] = Path("pictures"),
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Draw pictures, with the plain model or with an edit worn.

    [bold]unlearnkit generate canvas --prompt "a picture of a cat" --edit runs/esd-cat-0/edit.safetensors[/bold]
    """
    from .edit import Edit
    from .images import draw
    from .model import load

    worn = None if edit is None else Edit.load(edit)
    loaded = load(model, device=device, dtype=dtype)
    with _progress() as tick:
        paths = draw(
            loaded,
            prompt,
            folder,
            seeds=range(seed, seed + count),
            steps=steps,
            guidance=guidance,
            negative=negative,
            edit=worn,
            tick=lambda done, total: tick("drawing", done, total),
        )
    for path in paths:
        out.print(str(path), markup=False)


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="Show this method and its settings.")] = None,
) -> None:
    """List the methods, or show one of them with every setting, its default, its range and where it comes from."""
    from .methods import METHODS, find

    if name is None:
        table = Table("name", "what it does", "paper", box=None, header_style="bold", pad_edge=False)
        for method in METHODS.values():
            table.add_row(method.name, _plain(method.summary), _plain(method.paper))
        out.print(table)
        return
    from rich.padding import Padding

    from .settings import describe

    method = find(name)
    out.print(f"[bold]{_plain(method.title)}[/bold]\n{_plain(method.paper)}\n\n{_plain(method.summary)}\n")
    for one in describe(method.settings):
        out.print(f"[bold]{one.name}[/bold] = {_plain(one.default)}")
        source = f" (default: {one.source})" if one.source else ""
        out.print(Padding(_plain(f"{one.doc}: {one.allowed}{source}"), (0, 0, 0, 4)), soft_wrap=False)


@canvas.command("check")
def canvas_check(
    folder: Annotated[Path, typer.Option("--out", help="The folder for the grid and the figures.")] = Path(
        "canvas-check"
    ),
    replicates: Annotated[int, typer.Option(min=1, help="Pictures of each object in each style.")] = 10,
) -> None:
    """Measure the canvas model and its judges, in per cent, and write grids of every object in every style."""
    from .canvas.check import check
    from .files import writing

    with writing(folder), _progress() as tick:
        facts = check(folder, replicates=replicates, tick=tick)
    _figures(facts)
    out.print(f"grids and check.json: {folder}", markup=False)


@canvas.command("paint")
def canvas_paint(
    file: Annotated[Path, typer.Option("--out", help="The PNG file to write.")] = Path("painted.png"),
    seed: Seed = 0,
    scale: Annotated[int, typer.Option(min=1, max=8, help="Enlarge by this factor.")] = 1,
) -> None:
    """Paint every object in every style: what the canvas model was trained on. Needs fonts-noto-color-emoji."""
    from .canvas.painter import painted_grid
    from .files import writing
    from .images import save_png

    with writing(file):
        save_png(painted_grid(seed, scale=scale), file)
    out.print(str(file), markup=False)


def _recipe(
    model: str | None,
    concept: list[str] | None,
    kind: str,
    phrase: list[str] | None,
    instead: str | None,
    keep: list[str] | None,
    method: str,
    pairs: list[str] | None,
    seed: int,
) -> Recipe:
    """A recipe from the command line's words, checked before anything heavy is loaded."""
    from .schema import Recipe
    from .settings import parse_pairs

    if model is None:
        raise InputError(
            "the model is missing: name canvas, a diffusers folder, a hub id or a .safetensors file"
        )
    if not concept:
        raise InputError("the concept is missing: name what shall be erased, for example --concept cat")
    from .methods import find
    from .run import request_for

    request = request_for(concept, kind=kind, phrases=phrase or (), instead=instead, keep=keep or ())
    settings = parse_pairs(pairs or (), find(method).settings)
    return Recipe(model, method, request, settings, seed)


def _run(recipe: Recipe, folder: Path, **options: Any) -> None:
    from .run import run_recipe

    names = ", ".join(concept.name for concept in recipe.request.erase)
    finished = (folder / "run.json").exists()
    try:
        title = f"erasing {names} from {recipe.model} with {recipe.method}; run folder: {folder}"
        with _progress(title) as tick:
            edit = run_recipe(recipe, folder, tick=tick, **options)
    except KeyboardInterrupt:
        if (folder / "recipe.toml").exists():
            err.print(f"stopped; go on with: unlearnkit erase --resume --out {_quoted(folder)}", markup=False)
        else:
            err.print("stopped before anything was written")
        sys.exit(130)
    if finished:
        out.print(
            f"{folder} is finished already: nothing is left to do (edit {edit.hash()[:12]})", markup=False
        )
        return
    out.print(f"{names}: erased, edit {edit.hash()[:12]}", markup=False)
    for path, what in (
        ("grid.png", "before and after, the same seeds"),
        ("edit.safetensors", "the changed weights alone: unlearnkit generate MODEL --edit ..."),
        ("pipeline", "the whole model, for plain diffusers"),
    ):
        if (folder / path).exists():
            out.print(f"  {folder / path}  {what}", markup=False)


def _dry_run(
    recipe: Recipe, folder: Path, *, resume: bool, device: str | None, dtype: str | None, pictures: int
) -> None:
    from .estimate import estimate
    from .model import load
    from .run import check_folder

    check_folder(folder, resume=resume)
    model = load(recipe.model, device=device, dtype=dtype)
    for name, value in estimate(model, recipe, pictures=pictures).lines():
        out.print(f"{name:<12}{value}", markup=False)
    out.print(f"{'run folder':<12}{folder} (nothing was written)", markup=False)


def _progress(title: str = "") -> Any:
    from .progress import showing

    return showing(err, title)


def _quoted(path: Path) -> str:
    import shlex

    return shlex.quote(str(path))


def _figures(facts: dict[str, Any], depth: int = 0) -> None:
    """Nested figures, the innermost of them on one line."""
    for name, value in facts.items():
        if not isinstance(value, dict) or not any(isinstance(inner, dict) for inner in value.values()):
            inner = value.items() if isinstance(value, dict) else [("", value)]
            value_text = ", ".join(f"{key} {one}".strip() for key, one in inner)
            out.print(f"{'  ' * depth}{name}: {value_text}", markup=False)
        else:
            out.print(f"{'  ' * depth}{name}", markup=False)
            _figures(value, depth + 1)


def _plain(value: Any) -> str:
    """A value as it is written after --set, safe from being read as markup."""
    from rich.markup import escape

    if isinstance(value, tuple):
        value = ",".join(map(str, value))
    return escape("none" if value is None else str(value).lower() if isinstance(value, bool) else str(value))
