"""Several concepts of the canvas erased at once by each closed form: what is left of them, and what is kept.

    python benchmarks/together.py run [--method uce ...] [--set twelve ...]
    python benchmarks/together.py table     the section of docs/continual.md is written by continual.py table

Each method runs with the settings that the canvas ships for it. The held-out classifier sees up to 60 pictures of each
form of prompt (name, unseen template, synonym, background), and 60 of each kind of neighbour and of other prompts.
Rows are appended to ``results/together.jsonl``, and one that is there is not made again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from cells import Cell, key, measured
from rows import once, plain, read

from unlearnkit import load
from unlearnkit.metrics.evaluators import canvas_evaluators
from unlearnkit.metrics.stats import wilson
from unlearnkit.model.model import Model

ROWS = Path(__file__).parent / "results" / "together.jsonl"
TWELVE = (
    *("cat", "frog", "owl", "car", "airplane", "rocket"),
    *("apple", "pizza", "tree", "cactus", "castle", "guitar"),
)
SETS: dict[str, tuple[str, ...]] = {
    "twelve": TWELVE,
    "twenty": (
        *TWELVE,
        "bear",
        "banana",
        "house",
        "trumpet",
        "pixel art",
        "pop art",
        "van gogh",
        "blueprint",
    ),
}
METHODS = ("uce-diverse", "uce", "dp", "speed", "oce", "rece", "casteer")
LEFT = ("name", "template")  # what counts as left: pictures of prompts that name the concept


def cells(methods: Sequence[str], sets: Sequence[str]) -> Iterator[tuple[str, Cell]]:
    for name in sets:
        for method in methods:
            yield name, Cell(method, SETS[name], size="together")


def line(title: str, row: Mapping[str, Any]) -> str:
    """A row of the table: left by name and in templates, in other forms, kept objects and styles of those before."""
    named, others = (_summed(row["left"], forms) for forms in (LEFT, [*set(row["left"]) - set(LEFT)]))
    kept = []
    for kind in ("objects", "styles"):
        parts = [
            row["kept"][f"{role} {kind}"] for role in ("near", "unrelated") if f"{role} {kind}" in row["kept"]
        ]
        before, after = (sum(part[side][0] for part in parts) for side in ("before", "after"))
        kept.append(f"{after} of {before} ({100 * after / before:.1f} %)")
    return f"| {title} | {_rate(*named)} | {_rate(*others)} | {' | '.join(kept)} | {row['seconds']:.0f} |"


def _summed(left: Mapping[str, Sequence[int]], forms: Sequence[str]) -> tuple[int, int]:
    counts = [left[form] for form in forms if form in left]
    return sum(k for k, _ in counts), sum(n for _, n in counts)


def _rate(k: int, n: int) -> str:
    low, high = wilson(k, n)
    return f"{k} of {n} ({100 * low:.1f} to {100 * high:.1f} %)" if n else ""


def table(model: Model) -> str:
    """The tables in Markdown, from the rows of today's settings."""
    tools, rows, lines = canvas_evaluators(), list(read(ROWS)), list[str]()
    for name in SETS:
        lines += [f"\n### {name} at once\n", f"{', '.join(SETS[name])}\n"]
        lines += [
            "| method | left | left, other prompts | objects kept | styles kept | s |",
            "|---" * 6 + "|",
        ]
        for _, cell in cells(METHODS, [name]):
            made = [row for row in rows if row["key"] == plain(key(cell, model, tools))]
            lines += [line(cell.method, row) for row in made]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("--method", action="append", choices=METHODS, help="default: all")
    parser.add_argument("--set", action="append", choices=list(SETS), dest="sets", help="default: all")
    given = parser.parse_args()
    torch.set_num_threads(1)
    opened = load("canvas")
    if given.what == "table":
        print(table(opened))
    else:
        looks = canvas_evaluators()
        for _, one in cells(given.method or METHODS, given.sets or list(SETS)):
            once(ROWS, key(one, opened, looks), lambda one=one: measured(one, opened, looks))
