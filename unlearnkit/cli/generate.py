"""The command ``unlearnkit generate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..io.tick import stage
from . import complete
from .checks import known_edit
from .output import answer
from .terminal import HOW, WHERE, Device, Dtype, Seed, Variant, finite, known_model, note, out, showing

__all__ = ["generate"]

DRAW = "What to draw"
Source = Annotated[
    str,
    typer.Argument(
        help="canvas, a diffusers folder, a hub id or a .safetensors file.", autocompletion=complete.models
    ),
]


def generate(
    model: Source,
    prompt: Annotated[list[str], typer.Option(help="What to draw; may be repeated.", rich_help_panel=DRAW)],
    negative: Annotated[str | None, typer.Option(help="The negative prompt.", rich_help_panel=DRAW)] = None,
    edit: Annotated[
        Path | None,
        typer.Option(
            metavar="EDIT", help="An edit.safetensors to apply, or its run folder.", rich_help_panel=DRAW
        ),
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
    known_model(model)
    if edit is not None:
        edit = known_edit(edit)

    from ..model.edit import Edit
    from ..model.load import load, note_of
    from ..runs.images import draw

    if steps is None and (text := note_of(model)):
        note(text)
    loaded_edit = None if edit is None else Edit.load(edit)
    loaded = load(model, device=device, dtype=dtype, edit=loaded_edit, variant=variant)
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
            tick=stage(tick, "drawing"),
        )
    for path in paths:
        out.print(str(path))
    answer({"pictures": paths, "edit": None if loaded_edit is None else loaded_edit.hash()})
