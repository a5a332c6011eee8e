"""Erase a concept from the canvas, draw before and after with the same seeds, and ask the judge what it saw."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from unlearnkit.canvas.evaluators import judge
from unlearnkit.errors import UnlearnError
from unlearnkit.images import neighbours
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
    pictures: Annotated[
        int, typer.Option(min=1, help="Pictures a kept word; the erased one gets double.")
    ] = 20,
) -> None:
    """Erase CONCEPT from the canvas and say what the judge saw before and after."""
    begun = time.monotonic()
    out = out or Path("runs") / f"demo-{method}-{concept}"
    model = load("canvas")
    request = Request((Concept(concept),))
    with showing(notes) as tick:
        edit = run_recipe(Recipe("canvas", method, request), out, model=model, resume=True, tick=tick)
        near = [one for one in neighbours(model, request, near=4) if one.kind == "object"]
        styles = [Concept(style, "style") for style in model.hints.styles]
        asked = [(one, 2 * pictures) for one in request.erase]
        asked += [(one, pictures) for one in near] + [(one, max(1, pictures // 2)) for one in styles]
        words = [one for one, count in asked for _ in range(count)]
        templates = model.hints.templates
        prompts = [
            templates[one.kind][i % len(templates[one.kind])].replace("{}", one.name)
            for i, one in enumerate(words)
        ]
        seeds = range(1000, 1000 + len(prompts))
        half, all_of_them = len(prompts), 2 * len(prompts)
        before = model.sample(prompts, seeds, tick=lambda done, _: tick("judging", done, all_of_them))
        with model.wearing(edit):
            after = model.sample(
                prompts, seeds, tick=lambda done, _: tick("judging", half + done, all_of_them)
            )

    look = judge().look
    seen = [
        [getattr(one, word.kind) for one, word in zip(look(drawn), words, strict=True)]
        for drawn in (before, after)
    ]
    table = Table("asked for", "pictures", "seen before", "seen after", "most often seen after", box=None)
    for role, group in (("erased", request.erase), ("kept", near), ("kept", styles)):
        for one in group:
            places = [i for i, word in enumerate(words) if word is one]
            was, now = ([side[i] for i in places] for side in seen)
            most = ", ".join(f"{name} {count}" for name, count in Counter(now).most_common(3))
            table.add_row(
                f"{one.name} ({role})",
                str(len(places)),
                f"{was.count(one.name) / len(places):.0%}",
                f"{now.count(one.name) / len(places):.0%}",
                most,
            )
    console.print(table)
    console.print(f"\nbefore and after, the same seeds: {out / 'grid.png'}", markup=False)
    console.print(f"the edited model, for plain diffusers: {out / 'pipeline'}", markup=False)
    console.print(f"{time.monotonic() - begun:.0f} s in all")


if __name__ == "__main__":
    try:
        typer.run(main)
    except UnlearnError as error:
        notes.print(str(error), style="red", markup=False)
        sys.exit(2)
