"""How a command answers: lines for people, or with ``--json`` one document; and how much it says on the way.

A command hands its facts to ``answer`` and prints its lines to ``out``. Without ``--json`` the facts are dropped, with
it the lines are. The document is printed when the command has ended, also after an error: ``{"error": "..."}``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import UnlearnError
from . import terminal

__all__ = ["OPTIONS", "answer", "answering", "emit", "failed", "of_settings"]


@dataclasses.dataclass
class _State:
    document: Mapping[str, Any] | None = None
    started: float = 0.0
    stdout: Any = None
    log: logging.Handler | None = None


_STATE = _State()


@contextlib.contextmanager
def answering(words: list[str]) -> Iterator[None]:
    """Inside, one command answers. words: its arguments, from which ``--json`` is read before any error in them.

    With ``--json`` whatever else is written to stdout goes to stderr.
    """
    mode, before = terminal.MODE, dataclasses.asdict(terminal.MODE)
    _STATE.document, _STATE.started, _STATE.stdout = None, time.monotonic(), sys.stdout
    words = words[: words.index("--")] if "--" in words else words
    mode.json = "--json" in words and "--help" not in words
    try:
        with contextlib.redirect_stdout(sys.stderr) if mode.json else contextlib.nullcontext():
            yield
    finally:
        for name, value in before.items():
            setattr(mode, name, value)
        if _STATE.log:
            logging.getLogger().removeHandler(_STATE.log)
            logging.getLogger().setLevel(logging.WARNING)
            _STATE.log = None


def answer(facts: Mapping[str, Any]) -> None:
    """The document of this command: printed at its end if ``--json`` was given, else dropped."""
    _STATE.document = facts


def emit(code: int) -> None:
    """Print the document, if one is asked for and there is one; a command that ends with an error always has one."""
    if terminal.MODE.verbose:
        _taken()
    if not terminal.MODE.json or terminal.SILENT:
        return
    if _STATE.document is None and code:
        _STATE.document = {"error": "stopped" if code == 130 else "the arguments are incomplete; see --help"}
    if _STATE.document is not None:
        text = json.dumps(_plain(_STATE.document), ensure_ascii=False, allow_nan=False, indent=1)
        print(text, file=_STATE.stdout, flush=True)
        _STATE.document = None  # a command may emit it before its end


def failed(why: str) -> None:
    """The document of a command that ends with this error, and with ``--verbose`` where it was raised."""
    if terminal.MODE.verbose and sys.exception() is not None:
        for line in traceback.format_exc().splitlines():
            terminal.err.print(line, markup=False)
    answer({"error": why})
    with contextlib.suppress(UnlearnError):  # stdout may be closed: then the error is about that
        emit(2)


def of_settings(described: Any) -> list[dict[str, Any]]:
    """The settings of ``settings.describe`` as plain facts."""
    return [
        {
            "name": one.name,
            "default": one.default,
            "type": one.type,
            "allowed": one.allowed,
            "meaning": one.doc,
            "source": one.source,
        }
        for one in described
    ]


def _plain(value: Any) -> Any:
    """A value as JSON has it: numbers that are not finite become null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    return (
        value if value is None or isinstance(value, bool | int | str) else value.item()
    )  # of torch and numpy


def _taken() -> None:
    """Seconds and memory that the command has taken."""
    text = f"took {time.monotonic() - _STATE.started:.1f} s"
    with contextlib.suppress(ImportError):  # not on Windows
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        unit = 1 if sys.platform == "darwin" else 1024
        text += f", {used.ru_utime + used.ru_stime:.1f} s of processor time"
        text += f", at most {used.ru_maxrss * unit / 1e6:,.0f} MB"
    terminal.err.print(text, markup=False)


def _quiet(value: bool) -> None:
    terminal.MODE.quiet = terminal.MODE.quiet or value


def _verbose(value: bool) -> None:
    if value and not terminal.MODE.verbose:
        terminal.MODE.verbose = True
        _STATE.log = logging.StreamHandler()
        _STATE.log.setFormatter(logging.Formatter("%(name)s: %(message)s"))
        logging.getLogger().addHandler(_STATE.log)
        logging.getLogger().setLevel(logging.INFO)


_app = typer.Typer(add_completion=False)
_PANEL = "Output"


@_app.command()
def _options(
    json: Annotated[
        bool,
        typer.Option(
            "--json",
            expose_value=False,
            help="Print one JSON document instead of text; see docs/command-line.md.",
            rich_help_panel=_PANEL,
        ),
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            callback=_quiet,
            expose_value=False,
            help="No progress and no notes on stderr, only errors.",
            rich_help_panel=_PANEL,
        ),
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            callback=_verbose,
            expose_value=False,
            help="Also the libraries' log, time and memory, and where an error was raised.",
            rich_help_panel=_PANEL,
        ),
    ] = False,
) -> None:
    """Options of every command."""


OPTIONS = [one for one in typer.main.get_command(_app).params if one.name in ("json", "quiet", "verbose")]
