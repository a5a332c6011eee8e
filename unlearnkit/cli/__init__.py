"""The command ``unlearnkit``: words in, calls out. No logic lives here, and nothing heavy is imported at the top."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.table import Table

from .. import __version__
from ..errors import UnlearnError
from . import chain, evaluate
from .erase import erase
from .export import export
from .signals import interruptible
from .terminal import Device, Dtype, Seed, err, out, showing

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
app.add_typer(evaluate.commands)
app.add_typer(chain.commands, name="chain")

SMALLER = "use --dtype bfloat16, or set a smaller batch, checkpointing=true or trains=lora; see --dry-run"
Source = Annotated[str, typer.Argument(help="canvas, a diffusers folder, a hub id or a .safetensors file.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 our bug (with its traceback), 2 unusable input, 130 stopped.

    SIGTERM and SIGHUP stop it as SIGINT does.
    """
    os.environ.setdefault(
        "TRANSFORMERS_VERBOSITY", "error"
    )  # its notes on absent options are not for our users
    try:
        with interruptible():
            app(args=None if arguments is None else list(arguments), prog_name="unlearnkit")
    except UnlearnError as error:
        _refuse(str(error))
    except RuntimeError as error:
        # torch's, by name: it may not be imported here
        if type(error).__name__ != "OutOfMemoryError" and "can't allocate memory" not in str(error):
            raise
        _refuse(f"the device has too little memory: {SMALLER} ({error})")


def _refuse(why: str) -> NoReturn:
    err.print(" ".join(why.split()), style="red", markup=False)
    sys.exit(2)


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Erase named concepts from a text-to-image diffusion model and leave everything else as it was."""
    if version:
        out.print(__version__)
        raise typer.Exit


app.command()(erase)
app.command()(export)


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
    from ..edit import Edit
    from ..images import draw
    from ..model import load, note_of

    if steps is None and (note := note_of(model)):
        err.print(f"note: {note}", markup=False)
    worn = None if edit is None else Edit.load(edit)
    loaded = load(model, device=device, dtype=dtype, edit=worn)
    with showing() as tick:
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
    from ..methods import METHODS, find

    if name is None:
        table = Table("name", "what it does", "paper", box=None, header_style="bold", pad_edge=False)
        for method in METHODS.values():
            table.add_row(method.name, _plain(method.summary), _plain(method.paper))
        out.print(table)
        return
    from rich.padding import Padding

    from ..settings import describe

    method = find(name)
    out.print(f"[bold]{_plain(method.title)}[/bold]\n{_plain(method.paper)}\n\n{_plain(method.summary)}\n")
    for one in describe(method):
        out.print(f"[bold]{one.name}[/bold] = {_plain(one.default)}")
        source = f" (default: {one.source})" if one.source else ""
        out.print(Padding(_plain(f"{one.doc}: {one.allowed}{source}"), (0, 0, 0, 4)), soft_wrap=False)


@canvas.command("check")
def canvas_check(
    folder: Annotated[Path, typer.Option("--out", help="The folder for the grid and the figures.")] = Path(
        "canvas-check"
    ),
    replicates: Annotated[
        int, typer.Option(min=1, max=1000, help="Pictures of each object in each style.")
    ] = 10,
    quick: Annotated[
        bool, typer.Option("--quick", help="One picture of each object: a minute, not an hour.")
    ] = False,
) -> None:
    """Measure the canvas models and their judges, in per cent, and write grids of what the models draw.

    The judges also look at painted pictures where the font of fonts-noto-color-emoji is installed.
    """
    from ..canvas.check import check
    from ..files import writing

    with writing(folder), showing() as tick:
        facts = check(folder, replicates=replicates, quick=quick, tick=tick)
    _figures(facts)
    out.print(f"grids and check.json: {folder}", markup=False)


@canvas.command("paint")
def canvas_paint(
    file: Annotated[Path, typer.Option("--out", help="The PNG file to write.")] = Path("painted.png"),
    seed: Seed = 0,
    scale: Annotated[int, typer.Option(min=1, max=8, help="Enlarge by this factor.")] = 1,
) -> None:
    """Paint every object in every style: what the canvas model was trained on. Needs fonts-noto-color-emoji."""
    from ..canvas.painter import painted_grid
    from ..files import writing
    from ..images import save_png

    with writing(file):
        save_png(painted_grid(seed, scale=scale), file)
    out.print(str(file), markup=False)


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
        value = ",".join(map(str, value)) or None
    return escape("none" if value is None else str(value).lower() if isinstance(value, bool) else str(value))
