"""Shared by the commands: output, progress, and common options."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import math
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TextIO, cast

import typer
from rich.console import Console
from rich.text import Text

from ..errors import InputError, ModelError, nearest, printable, reason
from ..errors import quoted as cut
from ..io.files import user_path
from . import checks, complete

__all__ = [
    "HOW",
    "MACHINE",
    "MODE",
    "SILENT",
    "WHAT",
    "WHERE",
    "Device",
    "Dtype",
    "Safe",
    "Seed",
    "Variant",
    "err",
    "finite",
    "known_model",
    "note",
    "out",
    "quoted",
    "say",
    "showing",
    "streams",
]

WHAT, HOW, WHERE, MACHINE = "What to erase", "How", "Where it goes", "This machine"  # panels of --help
LEFT = {errno.EPIPE, errno.EIO, errno.EBADF, errno.ESHUTDOWN}  # the reader has closed the pipe


@dataclasses.dataclass
class Mode:
    """How the command in progress talks. json: one document instead of lines. quiet: no progress and no notes."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False


MODE = Mode()


class Safe(Console):
    """A console that prints control characters as escapes, so that each text is one line.

    The one of stdout prints nothing with ``--json``.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        if self.stderr or not MODE.json:
            super().print(*objects, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


# of several processes only the first prints
SILENT = os.environ.get("WORLD_SIZE", "1") != "1" and os.environ.get("RANK", "0").strip("0").isdecimal()
_PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False, "soft_wrap": True}
# a table in a pipe or a file is not folded
_SHOWN = "COLUMNS" in os.environ or (hasattr(sys.stdout, "isatty") and sys.stdout.isatty())
_WIDTH = None if _SHOWN else 1000
out = Safe(quiet=SILENT, width=_WIDTH, **_PLAIN)
err = Safe(stderr=True, quiet=SILENT, **_PLAIN)

Seed = Annotated[
    int,
    typer.Option(metavar="NUMBER", help="The same seed gives the same result.", rich_help_panel=HOW),
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        callback=checks.known_device,
        help="cpu, cuda or cuda:1 (default: a GPU if there is one).",
        rich_help_panel=MACHINE,
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        callback=checks.known_dtype,
        autocompletion=complete.named("dtype"),
        help="float32, float16 or bfloat16 (default: float32, or an edit's own).",
        rich_help_panel=MACHINE,
    ),
]
Variant = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The variant of the model's weight files, such as fp16 (default: none, or the only one).",
        rich_help_panel=MACHINE,
    ),
]


def finite(value: float | None) -> float | None:
    """An option's callback that refuses infinity and NaN."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


def known_model(source: str) -> str:
    """``source``. Raises ModelError, with the nearest name, if it must be a typing error."""
    from ..model.places import RELATIVES, folder_of

    user_path(source)
    place = folder_of(source)
    word = place.name == source  # a single word is never a hub id
    names = ["canvas", *RELATIVES] if word else []
    with contextlib.suppress(OSError, ValueError):  # the loader says why
        if source in RELATIVES or place.exists():
            return source
        if word or source.startswith((".", "/", "~")) or place.suffix == ".safetensors":
            names += [path.name for path in place.parent.iterdir()]
    if close := nearest(place.name, names):
        raise ModelError(f"model {cut(source)} was not found{close}")
    if word:
        raise ModelError(
            f"model {cut(source)} was not found: give 'canvas', a diffusers folder, a .safetensors file or a hub id"
        )
    return source


class _Stream:
    """stdout or stderr that escapes characters outside its encoding and survives a closed pipe."""

    def __init__(self, stream: TextIO, *, strict: bool) -> None:
        self._stream, self._strict = stream, strict

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._lasting():
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                encoding = self._stream.encoding
                self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        with self._lasting():
            self._stream.flush()

    @contextlib.contextmanager
    def _lasting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # discard all further output, also at exit
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            if (
                self._strict and error.errno not in LEFT and sys.platform != "win32"
            ):  # there a closed pipe gives EINVAL
                raise InputError(f"the output cannot be written: {reason(error)}") from None


class _Closed(io.TextIOBase):
    """A stdout that was closed before the command started (``>&-``): what is printed cannot be lost in silence."""

    def write(self, text: str) -> int:
        raise InputError("the output cannot be written: it is closed")


@contextlib.contextmanager
def streams() -> Iterator[None]:
    """Inside, stdout and stderr are wrapped in ``_Stream``."""
    before = sys.stdout, sys.stderr
    try:
        # they are None where they are closed, and in a process of Windows without a console
        if sys.stdout is not None:
            sys.stdout = cast(TextIO, _Stream(sys.stdout, strict=True))
        elif sys.platform != "win32":
            sys.stdout = cast(TextIO, _Closed())
        sys.stderr = cast(TextIO, _Stream(sys.stderr, strict=False)) if sys.stderr else sys.stderr
        yield
    finally:
        sys.stdout, sys.stderr = before


def showing(title: str = "") -> Any:
    """``with showing(title) as tick:`` shows progress on stderr; with ``--quiet`` nothing."""
    from ..io.progress import showing

    return contextlib.nullcontext(lambda *_: None) if MODE.quiet else showing(err, title)


def note(text: str) -> None:
    """Print a note on stderr, on input that may be a mistake; with ``--quiet`` nothing."""
    if not MODE.quiet:
        err.print(f"note: {text}", markup=False)


def quoted(path: Path) -> str:
    """A path, quoted for a shell."""
    return shlex.quote(str(path))


def say(text: str) -> None:
    """Print a line to stdout, as it is."""
    out.print(printable(text), markup=False)
