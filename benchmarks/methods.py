"""The methods side by side on the canvas, and what their papers claim.

    python benchmarks/methods.py tune       the tries of tries.toml: few pictures, seen by the guide
    python benchmarks/methods.py measure    the settings that the canvas ships, many pictures, seen by the judge
    python benchmarks/methods.py claims     further cells that a paper's claim needs (papers.py)
    python benchmarks/methods.py quick      cat alone, few pictures, the four methods and their rivals: 20 minutes
    python benchmarks/methods.py table      docs/methods.md and docs/methods.png, from the rows that there are

``--method``, ``--target`` and ``--seed`` choose cells, in any order and by several machines; ``--share 0/4`` takes
every fourth, for processes side by side. Rows are appended to ``results/methods.jsonl``, and one that is there is not
made again.
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from cells import SIZES, TARGETS, TUNED, Cell, looked_at
from held_out import experiment
from papers import EXPERIMENTS
from rows import part, share
from table import write

from unlearnkit import load
from unlearnkit.methods import METHODS

FOUR, RIVALS = ("duge", "rgd", "doco", "sculpting"), ("esd", "ca", "salun", "graddiff")
QUICK = (*FOUR, "esd", "uce", "salun", "graddiff")
SEEDS = (0, 1, 2)  # of the four and their rivals; the others are made once
TRIES = 8


def tries(methods: Sequence[str], targets: Sequence[str]) -> Iterator[Cell]:
    """At most eight settings a method, each on an object and a style."""
    table = tomllib.loads((Path(__file__).parent / "tries.toml").read_text(encoding="utf-8"))
    for method in methods:
        for settings in table.get(method, [])[:TRIES]:
            for target in targets:
                yield Cell(method, (target,), settings=settings, size="few", eye="guide")


def cells(
    methods: Sequence[str], targets: Sequence[str], seeds: Sequence[int], size: str | None = None
) -> Iterator[Cell]:
    """Seed by seed, so that every method has been measured once before any is measured again, with fewer pictures."""
    for seed in seeds:
        for target in targets:
            for method in methods:
                if seed == 0 or method in (*FOUR, *RIVALS):
                    yield Cell(method, (target,), seed=seed, size=size or ("quick" if seed else "full"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["tune", "measure", "claims", "quick", "table"])
    parser.add_argument("--method", action="append", choices=list(METHODS), help="default: all")
    parser.add_argument("--target", action="append", help=f"{', '.join(TARGETS)} by default")
    parser.add_argument("--seed", action="append", type=int, help="0, 1 and 2 by default")
    parser.add_argument("--model", default="canvas", choices=["canvas", "canvas-flow"])
    parser.add_argument("--size", choices=list(SIZES), help="pictures a cell: full for seed 0, else quick")
    parser.add_argument("--share", type=share, default=(0, 1), help="of the cells, such as 0/4")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.what == "table":
        write()
    else:
        model = load(given.model)
        methods, seeds = given.method or list(METHODS), given.seed or SEEDS
        if given.what == "tune":
            found = tries(methods, given.target or TUNED)
        elif given.what == "quick":
            chosen = [method for method in QUICK if method in methods]
            found = cells(chosen, given.target or ["cat"], given.seed or [0], "quick")
        elif given.what == "claims":
            asked = [cell for cell in EXPERIMENTS if cell.method in methods]
            found = (replace(cell, size=given.size or cell.size) for cell in asked)
        else:
            found = cells(methods, given.target or TARGETS, seeds, given.size)
        for cell in part(found, given.share):
            looked_at(cell, model)
        if given.what == "claims" and given.share[0] == 0 and {"rgd", "graddiff"} & set(methods):
            experiment(model)
