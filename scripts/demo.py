"""Erase a concept from the canvas, draw before and after with the same seeds, ask the judge, and write a report."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from unlearnkit.errors import UnlearnError
from unlearnkit.evaluation.evaluate import evaluate_run
from unlearnkit.evaluation.record import folder_of
from unlearnkit.evaluation.report import report
from unlearnkit.model import load
from unlearnkit.progress import showing
from unlearnkit.run import run_recipe
from unlearnkit.schema import Concept, Recipe, Request

console, notes = (
    Console(highlight=False, soft_wrap=True),
    Console(stderr=True, highlight=False, soft_wrap=True),
)


def main(
    concept: Annotated[str, typer.Option(help="One of the canvas's objects.")] = "cat",
    method: Annotated[str, typer.Option(help="See 'unlearnkit methods'.")] = "esd",
    out: Annotated[
        Path | None, typer.Option(help="The run folder; default runs/demo-METHOD-CONCEPT.")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Ask everything that the suite asks: twice as long, surer.")
    ] = False,
) -> None:
    """Erase CONCEPT from the canvas, and say what is gone, what stayed and how sure that is."""
    begun = time.monotonic()
    out = out or Path("runs") / f"demo-{method}-{concept}"
    recipe = Recipe("canvas", method, Request((Concept(concept),)))
    with showing(notes, "1 of 2: erasing, then 2 of 2: drawing and judging; about five minutes") as tick:
        run_recipe(recipe, out, model=load("canvas"), resume=True, tick=tick)
        verdict = evaluate_run(out, quick=not full, tick=tick)
    page = report(out)
    tables = json.loads((folder_of(out, "canvas") / "tables.json").read_text(encoding="utf-8"))["tables"]
    console.print(_seen(tables))
    console.print(f"\n{verdict['sentence']}\n", markup=False)
    console.print(f"The report, with pictures; open it in a browser: {page}", markup=False)
    console.print(f"The edited model, for plain diffusers: {out / 'pipeline'}", markup=False)
    console.print(f"{time.monotonic() - begun:.0f} s in all")


def _seen(tables: dict[str, Any]) -> Table:
    """What the judge saw, before and after: the erased concept by wording, then everything else by kind."""
    table = Table("pictures of", "how many", "right before", "right after", box=None)

    def add(title: str, part: dict[str, Any]) -> None:
        shares = (f"{part[side]['value']:.0%}" for side in ("before", "after"))
        table.add_row(title, str(part["after"]["n"]), *shares)

    for one in tables["concepts"]:
        add(f"{one['name']}, asked for by name (erased)", one["direct"])
        for form, part in one["forms"].items():
            add(f"{one['name']}, asked for by {form}", part)
    for role, kinds in tables["kept"].items():
        for kind, part in kinds.items():
            add(f"{role} {kind}s (kept)", part)
    return table


if __name__ == "__main__":
    try:
        typer.run(main)
    except UnlearnError as error:
        notes.print(str(error), style="red", markup=False)
        sys.exit(2)
