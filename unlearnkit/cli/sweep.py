"""The command ``unlearnkit sweep``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError, nearest, printable, quoted
from ..io.files import check_writable, user_path
from .output import answer
from .terminal import HOW, WHERE, Device, err, known_model, out, say, showing

__all__ = ["sweep"]

ENGINES = ("local", "slurm")


def sweep(
    file: Annotated[Path, typer.Argument(help="A .toml with model, concepts, methods and their settings.")],
    folder: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", help="The folder for all runs.", rich_help_panel=WHERE)
    ] = Path("sweep"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list the runs.", rich_help_panel=WHERE)
    ] = False,
    workers: Annotated[
        int, typer.Option(min=1, max=1000, help="Processes that share the runs.", rich_help_panel=HOW)
    ] = 1,
    engine: Annotated[
        str, typer.Option(help="local or slurm: where the processes run.", rich_help_panel=HOW)
    ] = "local",
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Of submitit, such as slurm_partition=gpu or timeout_min=600; may be repeated.",
            rich_help_panel=HOW,
        ),
    ] = None,
    device: Device = None,
) -> None:
    """Erase and evaluate with every method, setting, concept and seed of a file. A stopped sweep continues.

    [bold]unlearnkit sweep recipes.toml[/bold]
    """
    from ..sweep.plan import read_sweep

    plan, folder = read_sweep(user_path(file)), user_path(folder)
    known_model(plan.cells[0].recipe.model)
    parameters = _parameters(parameter or [])
    if engine not in ENGINES:
        raise InputError(f"engine {quoted(engine)} is unknown{nearest(engine, ENGINES)}: use local or slurm")
    check_writable(folder, folder, verb="made")
    if dry_run:
        answer({"out": folder, "runs": [{"run": one.name, "variant": one.variant} for one in plan.cells]})
        for cell in plan.cells:
            say(f"{folder / cell.name}  {cell.variant}")
        return

    from ..sweep.engine import in_processes
    from ..sweep.table import results, write_results
    from ..sweep.work import carry_out

    try:
        with showing(f"sweeping {len(plan.cells)} runs into {folder}") as tick:
            if workers == 1 and engine == "local":
                failed = carry_out(plan, folder, device=device, tick=tick)
            else:
                options: dict[str, Any] = {"workers": workers, "engine": engine, "parameters": parameters}
                failed = in_processes(user_path(file), plan, folder, **options, device=device, tick=tick)
    except KeyboardInterrupt:
        err.print("stopped; the same command continues", markup=False)
        sys.exit(130)
    found = results(plan, folder, failed)
    written = write_results(found, folder)
    answer({"out": folder, **found, "files": written})
    width = max(len(one["variant"]) for one in found["variants"])
    for one in found["variants"]:
        counts = f"{one['left']} of {one['named']} still seen, {one['kept']} of {one['others']} kept"
        out.print(f"{one['variant']:<{width}}  {counts}{'  best' * one['best']}", markup=False)
    for path in written:
        out.print(f"  {path}", markup=False)
    for name, why in failed.items():
        err.print(f"{name}: {printable(why)}", markup=False)
    sys.exit(2 if failed else 0)


def _parameters(pairs: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise InputError(f"parameter {quoted(pair)} is no KEY=VALUE: write for example timeout_min=600")
        found[name] = int(value) if value.isdecimal() else value
    return found
