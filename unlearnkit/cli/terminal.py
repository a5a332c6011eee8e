"""What the commands share: where they print, how they show progress, and the options that mean the same everywhere."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

__all__ = ["Device", "Dtype", "Seed", "err", "out", "quoted", "showing"]

_QUIET = os.environ.get("RANK", "0") != "0"  # of several processes only the first one speaks
out = Console(highlight=False, soft_wrap=True, quiet=_QUIET)
err = Console(stderr=True, highlight=False, soft_wrap=True, quiet=_QUIET)

Seed = Annotated[int, typer.Option(help="The same seed gives the same result.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1; by default a GPU if there is one.")]
Dtype = Annotated[
    str | None, typer.Option(help="float32, float16 or bfloat16; by default float32, or an edit's own.")
]


def showing(title: str = "") -> Any:
    """Within ``with showing(title) as tick:`` the job's progress is shown on stderr."""
    from ..progress import showing

    return showing(err, title)


def quoted(path: Path) -> str:
    """A path as a shell reads it."""
    return shlex.quote(str(path))
