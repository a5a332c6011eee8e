"""Erase a concept from the canvas, draw before and after with the same seeds, ask the judge, and write a report."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from unlearnkit import suites
from unlearnkit.cli.signals import interruptible
from unlearnkit.errors import UnlearnError
from unlearnkit.evaluation.evaluate import evaluate_run
from unlearnkit.evaluation.folders import folder_of
from unlearnkit.evaluation.plan import thinned
from unlearnkit.evaluation.report import report
from unlearnkit.io.progress import showing
from unlearnkit.io.reading import read_json
from unlearnkit.io.tick import span
from unlearnkit.model.load import load
from unlearnkit.model.model import Model
from unlearnkit.runs import images
from unlearnkit.runs.estimate import estimate
from unlearnkit.runs.run import is_finished, run_recipe
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
    file: Annotated[
        Path | None, typer.Option(help="A CSV of prompts to ask instead, as in docs/evaluation.md.")
    ] = None,
) -> None:
    """Erase CONCEPT from the canvas, and say what is gone, what stayed and how sure that is."""
    begun, used = time.monotonic(), time.process_time()
    out = out or Path("runs") / f"demo-{method}-{concept}"
    recipe, suite = Recipe("canvas", method, Request((Concept(concept),))), "prompts" if file else "canvas"
    cases, _ = suites.cases(suite, recipe.request, file=file)
    model = load("canvas")
    if not is_finished(out):
        cases, first = (cases, len(cases)) if full else thinned(cases)
        _say_how_long(model, recipe, 2 * first, more=first < len(cases))
    try:
        with interruptible(), showing(notes, "1 of 2: erasing, then 2 of 2: drawing and judging") as tick:
            run_recipe(recipe, out, model=model, resume=True, tick=tick)
            verdict = evaluate_run(out, suite=suite, file=file, quick=not full, tick=tick)
    except KeyboardInterrupt:
        notes.print("stopped; the same command continues", markup=False)
        sys.exit(130)
    page = report(out)
    tables = read_json(folder_of(out, suite, file) / "tables.json", what="figures", kind=dict)["tables"]
    console.print(_seen(tables))
    console.print(f"\n{verdict['sentence']}\n", markup=False)
    console.print(f"The report, with pictures; open it in a browser: {page}", markup=False)
    console.print(f"The edited model, for plain diffusers: {out / 'pipeline'}", markup=False)
    taken = time.monotonic() - begun
    console.print(f"{taken:.0f} s in all, {time.process_time() - used:.0f} s of processor time")


def _say_how_long(model: Model, recipe: Recipe, asked: int, *, more: bool) -> None:
    """Measure a few passes and say how long all of it will take on this machine, as busy as it is now.

    more: whether a second round of pictures may follow those that are asked for.
    """
    found = estimate(model, recipe)
    drawn = 2 * 3 * (len(recipe.request.erase) + len(images.neighbours(model, recipe.request)))
    judging = asked * found.drawing / drawn
    notes.print(
        f"about {span(found.erasing + found.drawing + judging)} on this machine, as busy as it is now: "
        f"{span(found.erasing + found.drawing)} to erase, {span(judging)} to draw and judge {asked} pictures"
        f"{', more if they decide nothing' if more else ''}"
    )


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
