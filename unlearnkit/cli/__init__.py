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

from ..errors import InputError, UnlearnError, printable, reason
from ..version import __version__
from . import chain, evaluate, output
from .attack import attack
from .doctor import doctor
from .erase import erase
from .export import export
from .generate import generate
from .methods import methods
from .output import answer
from .signals import interruptible
from .studio import studio
from .sweep import sweep
from .terminal import err, out, showing, streams

__all__ = ["app", "command", "main"]

app = typer.Typer(
    name="unlearnkit",
    no_args_is_help=True,
    invoke_without_command=True,
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
WORDS = {  # what an option takes, by its name in Python
    **dict.fromkeys(
        ("suite", "labels", "regime", "method", "instead", "keep", "concept", "budget", "engine"), "NAME"
    ),
    **dict.fromkeys(("objects", "styles"), "CLASSIFIER"),
    **dict.fromkeys(("clip", "features", "model"), "MODEL"),
    **dict.fromkeys(("file", "nudenet", "into", "concepts"), "FILE"),
    **{"kind": "KIND", "redraw": "SHARE", "share": "SHARE", "head": "HASH"},
}
LONGEST = 1000  # characters of an error line
SMALLER = "use --dtype bfloat16, or set a smaller batch, checkpointing=true or trains=lora; see --dry-run"
GENERATE = (
    'Example: unlearnkit generate canvas --prompt "a picture of a cat" --edit runs/esd-cat-0/edit.safetensors'
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 success, 1 our bug (with its traceback), 2 unusable input, 130 interrupted.

    SIGTERM and SIGHUP stop it as SIGINT does.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # its notes are not for our users
    words = sys.argv[1:] if arguments is None else list(arguments)
    with streams(), output.answering(words):
        sys.exit(_code(words))


def _code(arguments: list[str]) -> int:
    """Run a command and return its exit code; an error is printed in one line."""
    try:
        _check_folder()
        code = _ended(arguments)
        if code == 130:
            err.print("stopped")
        output.emit(code)
        return code
    except UnlearnError as error:
        return _refused(str(error))
    except USAGE as error:
        if str(error):
            return _refused(_usage(error))
        output.emit(2)  # no message: the help was shown
        return 2
    except MemoryError:
        return _refused(f"this machine has too little memory: {SMALLER}")
    except RuntimeError as error:
        # torch's error, by name: torch is not imported here
        if type(error).__name__ != "OutOfMemoryError" and "can't allocate memory" not in str(error):
            output.failed(f"a fault of unlearnkit: {error!r}")
            raise
        return _refused(f"the device has too little memory: {SMALLER} ({error})")
    except Exception as error:
        output.failed(f"a fault of unlearnkit: {error!r}")
        raise


def _ended(arguments: list[str]) -> int:
    """Run a command to its end; an interrupt gives 130."""
    try:
        with interruptible():
            return int(command().main(args=arguments, prog_name="unlearnkit", standalone_mode=False) or 0)
    except SystemExit as stopped:  # a command that ends with a code of its own has said why
        output.emit(int(stopped.code or 0))
        raise
    except (typer.Abort, KeyboardInterrupt):
        return 130


def _check_folder() -> None:
    """Raise InputError if the working folder was removed: PyTorch would end the process."""
    try:
        Path.cwd()
    except OSError as error:
        raise InputError(f"the working folder cannot be used ({reason(error)}): change to another") from None


def _refused(why: str) -> int:
    why = printable(" ".join(why[: 2 * LONGEST].split()))
    why = why if len(why) <= LONGEST else f"{why[: LONGEST - 1]}…"
    err.print(why, style="red")
    output.failed(why)
    return 2


def _usage(error: Any) -> str:
    """A usage error in one line, with the command of its help."""
    command = error.ctx.command_path if error.ctx else "unlearnkit"
    message = re.sub(r"'(.{80})[^']+'", r"'\1…'", error.format_message())  # cuts long values
    return f"{command}: {message.rstrip('.')}; see {command} --help"


@functools.cache
def command() -> Any:
    """The whole command line, as click has it."""
    return _tidy(typer.main.get_command(app))


def _tidy(command: Any) -> Any:
    """The command with the options of every command.

    Where typer shows Python's types of options, ``<list[str]>``, it has plain words.
    """
    for inner in getattr(command, "commands", {}).values():
        _tidy(inner)
    command.params += output.OPTIONS
    options = command.get_params(typer.Context(command))
    panels = [panel for option in options if (panel := getattr(option, "rich_help_panel", None))]
    for option in options:
        if option.name == "help" and panels:
            option.rich_help_panel = panels[-1]
        if option.param_type_name == "option":
            option.metavar = option.metavar or WORDS.get(option.name)
        word = TYPES.get(getattr(getattr(option, "type_descriptor", None), "annotation", None))
        if word is not None:
            option.display_type = lambda ctx, word=word: word
    return command


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Erase named concepts from a text-to-image diffusion model and preserve everything else."""
    if version:
        answer({"version": __version__})
        out.print(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        raise InputError("the command is missing; see unlearnkit --help")


app.command(epilog="Example: unlearnkit erase canvas --concept cat")(erase)
app.command(epilog="Example: unlearnkit attack runs/esd-cat-0")(attack)
app.command()(export)
app.command()(studio)
app.command(epilog=GENERATE)(generate)
app.command()(methods)
app.command()(doctor)
app.command()(sweep)


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
    answer({"folder": folder, "figures": facts})
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
