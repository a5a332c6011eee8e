"""Where a model is, and what its folder says about it, without opening it or importing torch."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import ModelError, quoted
from . import hints
from .hints import Hints

__all__ = ["CANVAS", "RELATIVES", "folder_of", "hints_of", "is_canvas"]

CANVAS = Path(__file__).parents[1] / "canvas" / "weights" / "pipeline"
RELATIVES = ("canvas-flow", "canvas-classes")  # in folders next to it


def is_canvas(source: str | Path) -> bool:
    """Whether this names the canvas or one of its relatives, for which the canvas's evaluators are made."""
    return str(source) in ("canvas", *RELATIVES)


def folder_of(source: str | Path) -> Path:
    """The path of a model in a folder. The canvas and its relatives are in the package."""
    if not isinstance(source, str | os.PathLike):
        raise ModelError(f"model {quoted(source)} is no name: give canvas, a folder, a hub id or a file")
    if str(source) in RELATIVES:
        return CANVAS.with_name(str(source).removeprefix("canvas-"))
    return CANVAS if str(source) == "canvas" else Path(source).expanduser()


def hints_of(source: str | Path) -> Hints:
    """The model's hints, without opening it. Raises ModelError for invalid hints."""
    folder = folder_of(source)
    try:
        return hints.read(folder) if folder.is_dir() else hints.GENERAL
    except PermissionError:
        raise ModelError(f"there is no permission to read the model {str(folder)!r}: give another") from None
