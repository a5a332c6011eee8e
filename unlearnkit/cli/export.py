"""The command ``unlearnkit export``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError, printable, quoted
from ..io.tick import stage
from . import complete
from .checks import known_edit
from .output import answer
from .terminal import Device, Variant, out, showing

if TYPE_CHECKING:
    from ..model.edit import Edit
    from ..model.model import Model

__all__ = ["export"]


def export(
    run: Annotated[
        Path,
        typer.Argument(
            help="A run folder, an edit.safetensors, or a chain's project.", autocompletion=complete.runs
        ),
    ],
    file: Annotated[Path, typer.Option("--out", help="The .safetensors file to write.")],
    into: Annotated[
        Path | None,
        typer.Option(
            help="Write a copy of this checkpoint of the model, with the edit in it (default: write a LoRA)."
        ),
    ] = None,
    rank: Annotated[
        int | None, typer.Option(min=1, help="A LoRA's largest rank (default: as many as needed).")
    ] = None,
    lose: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the change that the file may lose.")
    ] = 0.01,
    model: Annotated[
        str | None, typer.Option(help="The model (default: that of the run's recipe, or of the chain).")
    ] = None,
    device: Device = None,
    variant: Variant = None,
) -> None:
    """Write an edit for other tools: a LoRA, or a checkpoint with the changed weights.

    [bold]unlearnkit export runs/esd-cat-0 --out without-cat.safetensors[/bold]
    """
    if into is not None and rank is not None:
        raise InputError(
            "--rank is for a LoRA and --into for a checkpoint with full weights: give one of them"
        )
    known_edit(run)
    if file.suffix != ".safetensors":
        raise InputError(f"{quoted(file)} is no name that loaders accept: end it in .safetensors")

    from .. import export as exporting
    from ..export.report import output_path, percent
    from ..io.files import user_path

    file = output_path(file)
    loaded, edit = _opened(user_path(run), model, device, variant)
    if into is not None:
        report = exporting.save_checkpoint(loaded, edit, into, file, lose=lose)
        what = f"{printable(into.name)} with {report.tensors} weights changed"
    else:
        with showing() as tick:
            report = exporting.save_lora(
                loaded,
                edit,
                file,
                rank=rank,
                lose=lose,
                tick=stage(tick, "factoring"),
            )
        what = f"a LoRA of rank {report.rank} for {report.tensors} matrices"
    file = report.path
    answer({"kind": "lora" if into is None else "checkpoint", **vars(report), "bytes": file.stat().st_size})
    size, lost = file.stat().st_size / 1e6, percent(report.lost)
    out.print(f"{printable(str(file))}: {what}, {size:.3g} MB; {lost} of the change is lost", markup=False)
    if report.left_out:
        left = f"{len(report.left_out)} biases, norms and the like, such as {report.left_out[0]}"
        out.print(f"  no LoRA contains {left}", markup=False)
    if not report.kohya:
        out.print("  diffusers and ComfyUI know the names in it, sd-scripts do not", markup=False)
    elif report.outer:
        first, share = report.outer[0].removesuffix(".weight"), percent(report.outer_share)
        out.print(
            f"  {len(report.outer)} of these matrices, such as {first}, with {share} of the change, are outside the "
            "U-Net's blocks: ComfyUI and diffusers from 0.42 apply them, sd-scripts and diffusers up to 0.35 do not",
            markup=False,
        )


def _opened(run: Path, model: str | None, device: str | None, variant: str | None) -> tuple[Model, Edit]:
    """The model and the edit of it.

    The model that an edit names is shown but never opened: the file may come from a stranger.
    """
    from .. import chain
    from ..chain.finish import base_model
    from ..chain.ledger import LEDGER
    from ..chain.project import open_chain
    from ..io.files import user_path
    from ..model.edit import Edit
    from ..model.load import load
    from ..runs.recipes import load_recipe
    from ..runs.runfolder import EDIT, RECIPE

    if model:
        user_path(model)
    if _is(run / LEDGER, Path.is_file):
        project = open_chain(run)
        loaded = load(model, device=device, dtype=project.options.dtype, variant=variant) if model else None
        first = base_model(project, loaded, device)
        return first, chain.edit(run, model=first)
    path = run / EDIT if _is(run, Path.is_dir) else run
    edit, recipe = Edit.load(path), path.with_name(RECIPE)
    if model is None:
        source = edit.facts.get("source")
        by = f" (it says {quoted(source)})" if source else ""
        if not _is(recipe, Path.is_file):
            raise InputError(
                f"edit {quoted(path)} has no {RECIPE} in its folder: name its model{by} with --model"
            )
        if not edit.facts.get("base"):
            raise InputError(
                f"edit {quoted(path)} does not say the fingerprint of its model: name the model{by} with --model"
            )
        origin = load_recipe(recipe)
        model, variant = origin.model, variant or origin.variant
    return load(model, device=device, edit=edit, variant=variant), edit


def _is(path: Path, kind: Callable[[Path], bool]) -> bool:
    """Whether it exists. A path without permission counts as missing; its reader says why."""
    try:
        return kind(path)
    except OSError:
        return False
