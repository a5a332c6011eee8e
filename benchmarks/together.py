"""Several concepts of the canvas erased at once by each closed form: what is left of them, and what is kept.

    python benchmarks/together.py run [--method uce ...] [--set twelve ...]
    python benchmarks/together.py table     docs/many.md, from the rows of this, long_chain.py and many.py

Each method runs with the settings that the canvas ships for it. The held-out classifier sees 60 pictures of prompts
that name one of them, 60 of unseen templates, and up to 40 of each kind of neighbour and of other prompts. Rows are
appended to ``results/together.jsonl``, and one that is there is not made again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import long_chain
import many
import torch
from cells import Cell, key, measured
from rows import markdown, once, read

from unlearnkit import load
from unlearnkit.metrics.evaluators import canvas_evaluators
from unlearnkit.metrics.stats import wilson

ROWS = Path(__file__).parent / "results" / "together.jsonl"
PAGE = Path(__file__).parents[1] / "docs" / "many.md"
HEAD = """# Many concepts

`python benchmarks/together.py table` writes this page from the rows in `benchmarks/results`. Closed forms take
seconds, so they suit long lists and long chains. The canvas shows what they erase and keep; matrices of Stable
Diffusion 1.5's size with random weights show time, memory and disk.

## Several of the canvas at once

`benchmarks/together.py run`. *left*: pictures in which the held-out classifier still sees what was asked for, of
prompts by name and in unseen templates, with the 95 % interval. *kept*: how many pictures are right after the edit, of
how many were right before; above 100 % where a picture that was wrong before is right after. *s*: of one processor
thread on a machine that did other work too. Each method has the settings that the canvas ships. CASteer first draws 100
pictures for each concept; the others draw none. As the canvas ships it, DP is for one concept: of several it keeps
little, with `tokens=all` nearly all (PAPERS.md).
"""
CHAINS = """
## A chain of 24 requests on the canvas

`benchmarks/long_chain.py run`. 18 of 24 objects and 6 of 9 styles, one request each, in several orders. *gone*:
pictures of all words erased so far in which the held-out classifier does not see them, with the 95 % interval.
*joint*: each edit is made from the base model for all requests so far. *as shipped*: ESD with the guards that a chain
has by default; one order was run, so its *worst* is that order. Seconds are of one processor thread on a machine that
did other work too, and without the evaluation.
"""
REAL = """
## At the size of Stable Diffusion 1.5

`benchmarks/many.py`: random weights, a text encoder of CLIP ViT-L's size, 32 matrices. *text*: encoding the names once.
*in all*: everything after loading, text and the check of the finished edit included. With one thread, seconds
are of the processor. With two, they are elapsed time on an idle machine with two cores. *GB*: how far memory rose above
that of the loaded model. *LoRA*: the least rank at which a LoRA loses at most 1e-6 of the squared change. Every method
takes the names alone, without templates.
"""
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


def _cells(title: str, row: Mapping[str, Any]) -> list[str]:
    """A row of the table: what is left, by name and in templates, and kept objects and styles of those before."""
    counts = [row["left"][form] for form in LEFT if form in row["left"]]
    k, n = (sum(column) for column in zip(*counts, strict=True))
    low, high = wilson(k, n)
    cells = [title, f"{k} of {n} ({100 * low:.1f} to {100 * high:.1f} %)"]
    for kind in ("objects", "styles"):
        parts = [part for group, part in row["kept"].items() if group.endswith(kind)]
        before, after = (sum(part[side][0] for part in parts) for side in ("before", "after"))
        cells.append(f"{after} of {before} ({100 * after / before:.1f} %)" if before else "")
    return [*cells, f"{row['seconds']:.0f}"]


def several(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    """The table of a set in Markdown; the last row of each method counts."""
    target = " + ".join(SETS[name])
    found = []
    for method in METHODS:
        own = [row for row in rows if (row["key"]["method"], row["key"]["target"]) == (method, target)]
        if own and "refused" in own[-1]:
            found.append([method, f"refused: {own[-1]['refused']}", "", "", ""])
        elif own:
            found.append(_cells(method, own[-1]))
    return "\n".join(markdown(("method", "left", "objects kept", "styles kept", "s"), found))


def sizes(rows: Sequence[Mapping[str, Any]], *, chain: bool) -> str:
    """The table of many.py: of all concepts at once, or of a chain of them. The last row of each kind counts."""
    kinds: dict[tuple[Any, ...], Mapping[str, Any]] = {
        tuple(row["key"].values()): row for row in rows if row["key"]["chain"] == chain
    }
    heads = ["s a request", "slowest", "MB a request"] if chain else ["s, text", "s, in all", "GB", "LoRA"]
    columns = ["method", "concepts", "retained", "threads", *heads]
    found = []
    for row in kinds.values():
        told = row["key"]
        figures = (
            [row["seconds a request"], row["slowest"], row["MB a request"]]
            if chain
            else [
                row["seconds"]["text alone"],
                row["seconds"]["edit, all of it"],
                row["GB beyond the model"],
                row["rank"],
            ]
        )
        found.append([*(told[name] for name in columns[:4]), *figures])
    return "\n".join(markdown(columns, found))


def page() -> str:
    """docs/many.md."""
    rows, real = list(read(ROWS)), list(read(many.ROWS))
    parts = [HEAD]
    for name, words in SETS.items():
        if any(row["key"]["target"] == " + ".join(words) for row in rows):
            parts += [f"### {name.capitalize()} at once\n\n{', '.join(words)}\n", several(rows, name) + "\n"]
    parts += [CHAINS]
    for count in long_chain.LOOKS:
        if "\n| " in (made := long_chain.table(count)):
            parts += [f"### After {count} requests\n", made]
    parts += [REAL] if real else []
    for chain, title in ((False, "All at once:\n"), (True, "One request after another:\n")):
        if any(row["key"]["chain"] == chain for row in real):
            parts += [title, sizes(real, chain=chain) + "\n"]
    return "\n".join(parts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("--method", action="append", choices=METHODS, help="default: all")
    parser.add_argument("--set", action="append", choices=list(SETS), dest="sets", help="default: all")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.what == "table":
        PAGE.write_text(page(), encoding="utf-8")
    else:
        opened, looks = load("canvas"), canvas_evaluators()
        for _, one in cells(given.method or METHODS, given.sets or list(SETS)):
            once(ROWS, key(one, opened, looks), partial(measured, one, opened, looks))
