"""Every concept of the canvas, erased by every method with one default each: 24 objects and 9 styles.

The default is what the canvas ships, and for methods that train ``stop = converged``: training goes on, for at most
twice the steps, where the held-out prompts do not hold yet.

    python benchmarks/vocabulary.py run      all cells, in the order of the lot
    python benchmarks/vocabulary.py quick    six concepts, drawn by lot from those that no setting was chosen on
    python benchmarks/vocabulary.py table    docs/vocabulary.md and docs/vocabulary.png, from the rows that there are

``--method``, ``--concept`` and ``--share 0/4`` choose cells; ``--lot`` is the seed that orders and draws the concepts.
Rows are appended to ``results/vocabulary.jsonl``, and one that is there is not made again; a killed cell goes on.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from cells import Cell, key, measured
from compared import lost
from rows import markdown, once, part, plain, read, share

from unlearnkit import load
from unlearnkit.canvas import world
from unlearnkit.methods import METHODS as KNOWN
from unlearnkit.metrics.evaluators import canvas_evaluators
from unlearnkit.model.model import Model
from unlearnkit.training.settings import Training

ROWS = Path(__file__).parent / "results" / "vocabulary.jsonl"
DOCS = Path(__file__).parents[1] / "docs"
METHODS = ("duge", "rgd", "doco", "sculpting", "esd", "ca", "uce", "uce-diverse", "rece", "speed", "dp")
STYLES = tuple(style for style in world.STYLES if style != "plain")
CONCEPTS = (*world.OBJECTS, *STYLES)
# concepts on which a setting was chosen, or chosen again
TUNED = (
    "cat",
    "van gogh",
    "neon",
    "watercolor",
    "blueprint",
    "halftone",
    "pixel art",
    "guitar",
    "car",
    "bus",
    "owl",
    "cactus",
    "strawberry",
    "apple",
    "tree",
    "pop art",
    "stained glass",
    "mushroom",
)
SIZE, DRAWN = "quick", 6
WATCHED = {"stop": "converged", "stop_from": 1.0, "stop_most": 2, "stop_every": 10}  # of methods that train
BY_METHOD = ("method", "concepts", "at most 5 % left", "worst", "objects lost", "styles lost")
LEFT = ("name", "template")  # what counts as left: pictures of prompts that name the concept

HEAD = """# The whole vocabulary

`python benchmarks/vocabulary.py table` writes this page from `benchmarks/results/vocabulary.jsonl`. Every method erases
one concept of the canvas with the settings that the canvas ships. Where it trains, it ends by `stop = converged` (at
least its steps, at most twice as many). A held-out classifier, which no training used, judges two things. *Left*: at
most 24 prompts by name and 24 in unseen templates. *Lost*: 24 near and 24 other prompts, so one picture is two points.
Each concept is one edit with seed 0.

Concepts marked * were used to choose settings, so they are no independent test: {tuned}.
For all methods these are cat and van gogh. Further ones are, by method:

- DUGE, RGD, DoCo, Sculpting Memory: other styles, for some of them
- DUGE: car and bus
- DoCo: car, guitar, owl, cactus and bus
- uce-diverse: pixel art, guitar, apple, tree
- UCE's weight: neon, halftone, watercolor, pixel art
- DP: neon, watercolor, guitar
- SPEED: pop art, stained glass, mushroom
- `stop_reach`: halftone, watercolor, guitar
- the nearest word that takes a place (all but RGD, DoCo and CA): car, strawberry, guitar

{headline}
"""


def cells(methods: Sequence[str], concepts: Sequence[str], lot: int) -> Iterator[Cell]:
    """Concept by concept, in the order of the lot, so that any beginning is a fair sample."""
    order = sorted(CONCEPTS)
    random.Random(lot).shuffle(order)
    for concept in (one for one in order if one in concepts):
        for method in methods:
            trains = issubclass(KNOWN[method], Training)
            yield Cell(method, (concept,), settings=WATCHED if trains else {}, size=SIZE)


def drawn(lot: int, count: int = DRAWN) -> list[str]:
    """Concepts by lot, without those that a setting was chosen on: two objects for each style."""
    chance = random.Random(lot)
    styles = [style for style in STYLES if style not in TUNED]
    objects = [name for name in world.OBJECTS if name not in TUNED]
    count_styles = min(len(styles), count // 3)
    return chance.sample(objects, count - count_styles) + chance.sample(styles, count_styles)


def left_of(row: Mapping[str, Any]) -> tuple[int, int]:
    """Pictures that still show the concept, and all: by name and in templates."""
    counts = [row["left"][form] for form in LEFT if form in row["left"]]
    return sum(k for k, _ in counts), sum(n for _, n in counts)


def page(rows: Mapping[tuple[str, str], Mapping[str, Any]]) -> str:
    """The page. rows: by method and concept."""
    shares = {at: k / n for at, row in rows.items() for k, n in [left_of(row)]}
    if not rows:
        return HEAD.format(tuned=", ".join(TUNED), headline="No cell has been measured yet.")
    worst = max(shares, key=lambda at: shares[at])
    k, n = left_of(rows[worst])
    worst_said = f"Worst cell of {len(rows)}: {worst[0]} on {worst[1]}, left in {k} of {n} pictures."
    none = f"In the {len(rows)} cells that were measured, no picture still shows the concept."
    headline = (
        f"**{worst_said if k else none}** "
        f"{len(METHODS) * len(CONCEPTS) - len(rows)} of {len(METHODS) * len(CONCEPTS)} cells are not measured yet, so "
        "this page compares no methods."
    )
    lines = [HEAD.format(tuned=", ".join(TUNED), headline=headline)]
    by_method = []
    for method in METHODS:
        own = {concept: row for (name, concept), row in rows.items() if name == method}
        if not own:
            continue
        here = {concept: shares[method, concept] for concept in own}
        bad = max(here, key=lambda concept: here[concept])
        few = sum(value <= 0.05 for value in here.values())
        harm = []
        for kind in ("objects", "styles"):
            each = {concept: lost(row, kind) for concept, row in own.items()}
            most = max(each, key=lambda concept: each[concept])
            harm.append(f"{mean(each.values()):z.1f}, most {each[most]:.1f} ({most})")
        said = f"{bad}: {100 * here[bad]:.0f} %" if here[bad] else "0 %"
        by_method.append([method, len(own), few, said, *harm])
    lines += ["## By method\n", *markdown(BY_METHOD, by_method)]
    lines.append(
        "\n*lost*: points of accuracy on the other concepts, mean and most over the concepts (below 0: gained).\n"
    )
    lines.append("![What is left of every concept](vocabulary.png)\n\n## Left, and lost\n")
    lines.append(
        "Pictures that still show the concept, in per cent / points lost of the other objects and styles.\n"
    )
    found = []
    for concept in CONCEPTS:
        entries = [_entry(rows.get((method, concept))) for method in METHODS]
        if any(entries):
            found.append([concept + " *" * (concept in TUNED), *entries])
    return "\n".join([*lines, *markdown(["", *METHODS], found)]) + "\n"


def _entry(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    k, n = left_of(row)
    return f"{100 * k / n:.0f} / {max(lost(row, kind) for kind in ('objects', 'styles')):.0f}"


def _share(row: Mapping[str, Any] | None) -> float:
    k, n = left_of(row) if row else (0, 0)
    return 100 * k / n if n else float("nan")


def found(model: Model) -> dict[tuple[str, str], dict[str, Any]]:
    """The rows of today's defaults, by method and concept."""
    tools, rows = canvas_evaluators(), {}
    for row in read(ROWS):
        method, target = row["key"]["method"], row["key"]["target"]
        for cell in cells([method], [target], 0):
            if "left" in row and row["key"] == plain(key(cell, model, tools)):
                rows[method, target] = row
    return rows


def picture(rows: Mapping[tuple[str, str], Mapping[str, Any]]) -> None:
    """Concepts by methods: white nothing left, dark all left, grey not measured."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 10), layout="constrained")
    axes = figure.subplots()
    grid = [[_share(rows.get((method, concept))) for method in METHODS] for concept in CONCEPTS]
    colours = colormaps["Reds"].copy()
    colours.set_bad("lightgrey")
    shown = axes.imshow(grid, cmap=colours, vmin=0, vmax=100, aspect="auto")
    axes.set_xticks(range(len(METHODS)), METHODS, rotation=60, ha="right")
    axes.set_yticks(range(len(CONCEPTS)), [f"{c} *" if c in TUNED else c for c in CONCEPTS])
    figure.colorbar(shown, label="left, % of pictures; grey: not measured", shrink=0.6)
    figure.savefig(DOCS / "vocabulary.png", dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["run", "quick", "table"])
    parser.add_argument("--method", action="append", choices=METHODS, help="default: all")
    parser.add_argument("--concept", action="append", choices=CONCEPTS, help="default: all")
    parser.add_argument("--lot", type=int, default=0, help="the seed that orders and draws concepts")
    parser.add_argument("--share", type=share, default=(0, 1), help="of the cells, such as 0/4")
    given = parser.parse_args()
    torch.set_num_threads(1)
    opened = load("canvas")
    if given.what == "table":
        measured_rows = found(opened)
        (DOCS / "vocabulary.md").write_text(page(measured_rows), encoding="utf-8")
        picture(measured_rows)
    else:
        looks = canvas_evaluators()
        names = given.concept or (drawn(given.lot) if given.what == "quick" else CONCEPTS)
        for one in part(cells(given.method or METHODS, names, given.lot), given.share):
            once(ROWS, key(one, opened, looks), partial(measured, one, opened, looks))
