"""The command ``unlearnkit export``. As in ``cli``, words in, calls out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .terminal import Device, out, showing

__all__ = ["export"]


def export(
    run: Annotated[Path, typer.Argument(help="A run folder, an edit.safetensors, or a chain's project.")],
    file: Annotated[Path, typer.Option("--out", help="The .safetensors file to write.")],
    into: Annotated[
        Path | None,
        typer.Option(
            help="A checkpoint of the model, of which a copy gets the edit; else a LoRA is written."
        ),
    ] = None,
    rank: Annotated[
        int | None, typer.Option(min=1, help="A LoRA's largest rank; by default what it takes.")
    ] = None,
    lose: Annotated[
        float, typer.Option(min=0, max=1, help="How much of the change the file may lose.")
    ] = 0.01,
    model: Annotated[
        str | None, typer.Option(help="The model; by default where the edit says it came from.")
    ] = None,
    device: Device = None,
) -> None:
    """Write an edit as other tools take it: a LoRA, or a checkpoint that they load with the changed weights in it.

    [bold]unlearnkit export runs/esd-cat-0 --out without-cat.safetensors[/bold]
    """
    if into is not None and rank is not None:
        raise InputError(
            "--rank is for a LoRA and --into for a checkpoint, which holds whole weights: give one of them"
        )
    from .. import chain
    from .. import export as exporting
    from ..chain.ledger import LEDGER
    from ..edit import Edit
    from ..export.held import percent
    from ..files import new_file
    from ..methods import EDIT
    from ..model import load

    new_file(file)
    if (run / LEDGER).is_file():
        edit = chain.edit(run, device=device)
    else:
        edit = Edit.load(run / EDIT if run.is_dir() else run)
    source = model or edit.facts.get("source")
    if source is None:
        raise InputError(f"edit {str(run)!r} does not say what model it was made from: name it with --model")
    loaded = load(source, device=device, edit=edit)
    if into is not None:
        held = exporting.save_checkpoint(loaded, edit, into, file, lose=lose)
        what = f"{into.name} with {held.tensors} weights changed"
    else:
        with showing() as tick:
            held = exporting.save_lora(
                *(loaded, edit, file),
                rank=rank,
                lose=lose,
                tick=lambda done, total: tick("factoring", done, total),
            )
        what = f"a LoRA of rank {held.rank} for {held.tensors} matrices"
    size, lost = file.stat().st_size / 1e6, percent(held.lost)
    out.print(f"{file}: {what}, {size:.3g} MB; {lost} of the change is lost", markup=False)
    if held.left_out:
        left = f"{len(held.left_out)} biases, norms and the like, such as {held.left_out[0]}"
        out.print(f"  no LoRA holds {left}", markup=False)
