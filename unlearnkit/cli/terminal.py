"""What the commands share: where they print, how they show progress, and the options that mean the same everywhere."""

from __future__ import annotations

import contextlib
import errno
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

__all__ = [
    "HOW",
    "MACHINE",
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
    "out",
    "quoted",
    "showing",
    "streams",
]

WHAT, HOW, WHERE, MACHINE = "What to erase", "How", "Where it goes", "This machine"  # panels of --help
LEFT = {errno.EPIPE, errno.EIO, errno.EBADF, errno.ESHUTDOWN}  # nobody reads any more


class Safe(Console):
    """A console that shows control characters in any text as their escapes; a text is one line."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


# of several processes only the first one speaks
_QUIET = os.environ.get("WORLD_SIZE", "1") != "1" and os.environ.get("RANK", "0").strip("0").isdecimal()
_PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False, "soft_wrap": True}
out = Safe(quiet=_QUIET, **_PLAIN)
err = Safe(stderr=True, quiet=_QUIET, **_PLAIN)

Seed = Annotated[
    int,
    typer.Option(metavar="NUMBER", help="The same seed gives the same result.", rich_help_panel=HOW),
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="cpu, cuda or cuda:1; by default a GPU if there is one.", rich_help_panel=MACHINE
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="float32, float16 or bfloat16; by default float32, or an edit's own.",
        rich_help_panel=MACHINE,
    ),
]
Variant = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Of the model's weight files, such as fp16; by default the plain ones, or the only one.",
        rich_help_panel=MACHINE,
    ),
]


def finite(value: float | None) -> float | None:
    """The callback of an option that takes a number: infinity and NaN are none."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


def known_model(source: str) -> str:
    """``source``, unless it can only be a slip: then ModelError with the nearest model, folder or file."""
    from ..models.load import RELATIVES, folder_of

    user_path(source)
    place = folder_of(source)
    word = place.name == source  # a single word, which no pipeline on the hub has for an id
    names = ["canvas", *RELATIVES] if word else []
    with contextlib.suppress(OSError, ValueError):  # whoever opens it says why
        if source in RELATIVES or place.exists():
            return source
        if word or source.startswith((".", "/", "~")) or place.suffix == ".safetensors":
            names += [path.name for path in place.parent.iterdir()]
    if close := nearest(place.name, names):
        raise ModelError(f"model {cut(source)} was not found{close}")
    return source


class _Stream:
    """stdout or stderr: a letter that its encoding lacks comes as an escape, and a reader who left stops nothing."""

    def __init__(self, stream: TextIO, *, loud: bool) -> None:
        self._stream, self._loud = stream, loud

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
            # what is still to be written goes nowhere, also at exit
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            if self._loud and error.errno not in LEFT and sys.platform != "win32":  # there a pipe says EINVAL
                raise InputError(f"the output cannot be written: {reason(error)}") from None


@contextlib.contextmanager
def streams() -> Iterator[None]:
    """Within this, whatever is printed to stdout and stderr goes through ``_Stream``."""
    before = sys.stdout, sys.stderr
    try:
        # they are None in a process that was started without them
        sys.stdout = cast(TextIO, _Stream(sys.stdout, loud=True)) if sys.stdout else sys.stdout
        sys.stderr = cast(TextIO, _Stream(sys.stderr, loud=False)) if sys.stderr else sys.stderr
        yield
    finally:
        sys.stdout, sys.stderr = before


def showing(title: str = "") -> Any:
    """Within ``with showing(title) as tick:`` the job's progress is shown on stderr."""
    from ..io.progress import showing

    return showing(err, title)


def quoted(path: Path) -> str:
    """A path as a shell reads it."""
    return shlex.quote(str(path))
