"""The command ``unlearnkit``. It only parses and calls; heavy modules are imported inside the commands."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.table import Table

from ..errors import InputError, UnlearnError, printable, reason
from ..version import __version__
from . import chain, evaluate
from .attack import attack
from .erase import erase
from .export import export
from .signals import interruptible
from .studio import studio
from .terminal import (
    HOW,
    WHERE,
    Device,
    Dtype,
    Seed,
    Variant,
    err,
    finite,
    known_model,
    out,
    showing,
    streams,
)

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
    help="The canvas: the small model and its classifiers that ship with unlearnkit.", no_args_is_help=True
)
app.add_typer(canvas, name="canvas")
app.add_typer(evaluate.commands)
app.add_typer(chain.commands, name="chain")

# of typer's own click or of the other one: every usage error
USAGE = cast(type[Exception], typer.BadParameter.__mro__[2])
TYPES: dict[Any, str] = {
    **{bool: "", int: "NUMBER", float: "NUMBER", str: "TEXT", Path: "PATH"},
    **{list[int]: "NUMBER", list[str]: "TEXT", list[Path]: "PATH"},
}
LONGEST = 1000  # characters of an error line
SMALLER = "use --dtype bfloat16, or set a smaller batch, checkpointing=true or trains=lora; see --dry-run"
DRAW = "What to draw"
GENERATE = (
    'Example: unlearnkit generate canvas --prompt "a picture of a cat" --edit runs/esd-cat-0/edit.safetensors'
)
Source = Annotated[str, typer.Argument(help="canvas, a diffusers folder, a hub id or a .safetensors file.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 success, 1 our bug (with its traceback), 2 unusable input, 130 interrupted.

    SIGTERM and SIGHUP stop it as SIGINT does.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # its notes are not for our users
    with streams():
        sys.exit(_code(None if arguments is None else list(arguments)))


def _code(arguments: list[str] | None) -> int:
    """Run a command and return its exit code; an error is printed in one line."""
    try:
        _check_folder()
        with interruptible():
            code = _command().main(args=arguments, prog_name="unlearnkit", standalone_mode=False)
    except UnlearnError as error:
        return _refused(str(error))
    except USAGE as error:
        return _refused(_usage(error)) if str(error) else 2  # no message: the help was shown
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except MemoryError:
        return _refused(f"this machine has too little memory: {SMALLER}")
    except RuntimeError as error:
        # torch's error, by name: torch is not imported here
        if type(error).__name__ != "OutOfMemoryError" and "can't allocate memory" not in str(error):
            raise
        return _refused(f"the device has too little memory: {SMALLER} ({error})")
    if code == 130:
        err.print("stopped")
    return code or 0


def _check_folder() -> None:
    """Raise InputError if the working folder was removed: PyTorch would end the process."""
    try:
        Path.cwd()
    except OSError as error:
        raise InputError(f"the working folder cannot be used ({reason(error)}): change to another") from None


def _refused(why: str) -> int:
    why = printable(" ".join(why[: 2 * LONGEST].split()))
    err.print(why if len(why) <= LONGEST else f"{why[: LONGEST - 1]}…", style="red")
    return 2


def _usage(error: Any) -> str:
    """A usage error in one line, with the command of its help."""
    command = error.ctx.command_path if error.ctx else "unlearnkit"
    message = re.sub(r"'(.{80})[^']+'", r"'\1…'", error.format_message())  # cuts long values
    return f"{command}: {message.rstrip('.')}; see {command} --help"


@functools.cache
def _command() -> Any:
    return _tidy(typer.main.get_command(app))


def _tidy(command: Any) -> Any:
    """The command with plain words for its options' types, where typer shows Python's: ``<list[str]>``."""
    for inner in getattr(command, "commands", {}).values():
        _tidy(inner)
    options = command.get_params(typer.Context(command))
    panels = [panel for option in options if (panel := getattr(option, "rich_help_panel", None))]
    for option in options:
        if option.name == "help" and panels:
            option.rich_help_panel = panels[-1]
        word = TYPES.get(getattr(getattr(option, "type_descriptor", None), "annotation", None))
        if word is not None:
            option.display_type = lambda ctx, word=word: word
    return command


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Erase named concepts from a text-to-image diffusion model and preserve everything else."""
    if version:
        out.print(__version__)
        raise typer.Exit


app.command(epilog="Example: unlearnkit erase canvas --concept cat")(erase)
app.command(epilog="Example: unlearnkit attack runs/esd-cat-0")(attack)
app.command()(export)
app.command()(studio)


@app.command(epilog=GENERATE)
def generate(
    model: Source,
    prompt: Annotated[list[str], typer.Option(help="What to draw; may be repeated.", rich_help_panel=DRAW)],
    negative: Annotated[str | None, typer.Option(help="The negative prompt.", rich_help_panel=DRAW)] = None,
    edit: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="An edit.safetensors to apply.", rich_help_panel=DRAW),
    ] = None,
    count: Annotated[
        int,
        typer.Option(
            min=1,
            max=10_000,
            help="Pictures per prompt, with seeds from --seed upwards.",
            rich_help_panel=HOW,
        ),
    ] = 1,
    seed: Seed = 0,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Denoising steps (default: the model's own).", rich_help_panel=HOW),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1000,
            callback=finite,
            help="Guidance scale (default: the model's own).",
            rich_help_panel=HOW,
        ),
    ] = None,
    folder: Annotated[
        Path,
        typer.Option("--out", metavar="FOLDER", help="The folder for the PNG files.", rich_help_panel=WHERE),
    ] = Path("pictures"),
    device: Device = None,
    dtype: Dtype = None,
    variant: Variant = None,
) -> None:
    """Draw pictures with a model, with or without an edit."""
    from ..model.edit import Edit
    from ..model.load import load, note_of
    from ..runs.images import draw

    if steps is None and (note := note_of(model)):
        err.print(f"note: {note}", markup=False)
    loaded_edit = None if edit is None else Edit.load(edit)
    loaded = load(known_model(model), device=device, dtype=dtype, edit=loaded_edit, variant=variant)
    with showing() as tick:
        paths = draw(
            loaded,
            prompt,
            folder,
            seeds=range(seed, seed + count),
            steps=steps,
            guidance=guidance,
            negative=negative,
            edit=loaded_edit,
            tick=lambda done, total: tick("drawing", done, total),
        )
    for path in paths:
        out.print(str(path))


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="Show this method and its settings.")] = None,
) -> None:
    """List the methods, or show one with all its settings: default, range and source."""
    from .. import known

    if name is None:
        table = Table("name", "what it does", "paper", box=None, header_style="bold", pad_edge=False)
        for method in known.methods().values():
            table.add_row(method.name, method.summary, method.paper)
        out.print(table)
        return
    from rich.markup import escape
    from rich.padding import Padding

    from ..settings import describe

    method = known.find(name)
    out.print(method.title, style="bold")
    for line in (method.paper, "", method.summary, ""):
        out.print(line)
    for one in describe(method):
        out.print(f"[bold]{one.name}[/bold] = {escape(_plain(one.default))}", markup=True)
        source = f" (source: {one.source})" if one.source else ""
        out.print(Padding(f"{one.doc}: {one.allowed}{source}", (0, 0, 0, 4)), soft_wrap=False)


@canvas.command("check")
def canvas_check(
    folder: Annotated[Path, typer.Option("--out", help="The folder for the grid and the figures.")] = Path(
        "canvas-check"
    ),
    replicates: Annotated[int, typer.Option(min=1, max=1000, help="Pictures per object and style.")] = 10,
    quick: Annotated[
        bool, typer.Option("--quick", help="One picture per object: a minute, not an hour.")
    ] = False,
) -> None:
    """Measure the canvas's models and classifiers in per cent, and write grids of pictures."""
    from ..canvas.check import check
    from ..io.files import writing

    with writing(folder), showing() as tick:
        facts = check(folder, replicates=replicates, quick=quick, tick=tick)
    _figures(facts)
    out.print(f"grids and check.json: {folder}")


def _figures(facts: dict[str, Any], depth: int = 0) -> None:
    """Print nested figures, the innermost on one line."""
    for name, value in facts.items():
        if not isinstance(value, dict) or not any(isinstance(inner, dict) for inner in value.values()):
            inner = value.items() if isinstance(value, dict) else [("", value)]
            value_text = ", ".join(f"{key} {one}".strip() for key, one in inner)
            out.print(f"{'  ' * depth}{name}: {value_text}")
        else:
            out.print(f"{'  ' * depth}{name}")
            _figures(value, depth + 1)


def _plain(value: Any) -> str:
    """A value as written after --set."""
    if isinstance(value, tuple):
        value = ",".join(map(str, value)) or None
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
