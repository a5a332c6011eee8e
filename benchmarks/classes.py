"""RGD's class-wise experiment (Ko et al. 2024, table 1) on canvas-classes: ten classes, each erased from the base.

    python benchmarks/classes.py run [--class cat ...] [--contender RGD ...]
    python benchmarks/classes.py table         docs/classes.md, from the rows that there are

A row of ``results/classes.jsonl`` is one contender on one class; one that is there is not made again. Every contender
sees the same pictures, as many of each class that is kept, but for "two nearest classes", which sees only those. The
judge counts: UA is the share of the erased class's pictures that do not show it, RA that of the others' that are right.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from cells import RUNS, Cell, figures, made, made_of
from rows import markdown, once, part, read, share

from unlearnkit import load
from unlearnkit.evaluation.draw import model_side
from unlearnkit.evaluation.evaluate import evaluate
from unlearnkit.evaluation.plan import Rules, plan_for
from unlearnkit.io.files import slug
from unlearnkit.metrics.evaluators import Evaluators, canvas_evaluators
from unlearnkit.model.model import Model
from unlearnkit.suites.vocabulary import panel

ROWS = Path(__file__).parent / "results" / "classes.jsonl"
DOCS = Path(__file__).parents[1] / "docs"
CLASSES = ("cat", "frog", "owl", "car", "rocket", "apple", "pizza", "tree", "house", "guitar")
ERASED, KEPT = 50, 4  # pictures of the erased class, and of each other

ALL = {"steps": 150, "batch": 16, "lr": 1e-4}
APART = ALL | {"pictures": 100, "neighbours": 23, "retain_pictures": 10}
PAIRS = ALL | {"pictures": 230, "cap": 0.1, "cap_on": "picture", "retain_weight": 5.0}
CONTENDERS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "Finetune": ("finetune", ALL | {"neighbours": 23, "retain_pictures": 10}),
    "SalUn": ("salun", APART | {"mask_warmup": 10}),
    "Selective Amnesia": ("selective_amnesia", APART | {"fisher_pictures": 20, "fisher_times": 8}),
    "EraseDiff": ("erasediff", APART),
    "GradDiff": ("rgd", PAIRS | {"combine": "sum"}),
    "GradDiff, whole keep set": ("rgd", PAIRS | {"combine": "sum", "retain_full_batch": True}),
    "RG": ("rgd", PAIRS),
    "RGD (RG, whole keep set)": ("rgd", PAIRS | {"retain_full_batch": True}),
    "RGD, two nearest classes": ("rgd", PAIRS | {"retain_full_batch": True, "neighbours": 2}),
}
PAPER = {
    "Finetune": "0.211, 0.791, 4.25",
    "SalUn": "0.512, 0.434, 14.40",
    "GradDiff": "1.000, 0.734, 14.09",
    "RG": "1.000, 0.752, 9.81",
    "RGD (RG, whole keep set)": "1.000, 0.771, 6.54",
}
HEAD = """# Classes: RGD's experiment

`python benchmarks/classes.py table` writes this page from `benchmarks/results/classes.jsonl`. Each of ten classes is
erased from *canvas-classes*. The table has mean and standard deviation over the classes (their number is in a column),
from {erased} pictures of the erased class and {kept} of each other one, judged by the held-out classifier:

- UA: the share of pictures of the erased class that do not show it.
- RA: the accuracy on the other classes (untouched: {base}).
- KID: between the other classes' pictures and the untouched model's with the same noise, by the classifier's features.
- The paper's figures are of CIFAR-10 with another model, and its last column is FID. Compare orders, not values.

"""
HEADS = ("contender", "UA", "RA", "KID", "seconds", "classes", "paper: UA, RA, FID")
FOOT = """
Reproduced: with the same data the restricted gradient erases more than the sum of both gradients (RG against GradDiff),
and fine-tuning on the rest hardly erases.

Not reproduced: the whole keep set at every step keeps no more than a batch of it, takes six times as long, and leaves
one class of ten, *frog*, as it was, however the gradients are combined. With the two nearest classes alone, accuracy
on the others is the same as with all classes, but their pictures change more (KID).
"""


def looked_at(name: str, erased: str, model: Model, tools: Evaluators) -> dict[str, Any]:
    """The row of a contender on a class, from the file or made now."""
    method, settings = CONTENDERS[name]
    cell = Cell(method, (erased,), settings=settings)
    facts = made_of(cell, model) | {"contender": name}
    facts |= {"evaluators": tools.names, "pictures": [ERASED, KEPT]}
    return once(ROWS, facts, lambda: measured(cell, model, tools))


def measured(cell: Cell, model: Model, tools: Evaluators) -> dict[str, Any]:
    edit, cost = made(cell, model)
    asked = panel(cell.request, model.hints, 1, replicates=ERASED)
    cases = [case for case in asked if case.role == "erased" or int(case.id.rpartition("-")[2]) < KEPT]
    sides = [model_side("before", model, batch=64), model_side("after", model, edit=edit, batch=64)]
    told = plan_for("vocabulary", cell.request, cases, [], sides, tools, Rules())
    folder = RUNS / f"classes-{slug(cell.targets[0])}-{edit.hash()[:8]}"
    evaluate(folder, cases, sides, told, tools)
    tables = json.loads((folder / "tables.json").read_text(encoding="utf-8"))["tables"]
    return figures(tables) | {"kid": tables["distances"]["kept"]["kid"]["value"]} | cost


def page() -> str:
    """docs/classes.md."""
    found: dict[str, list[Mapping[str, Any]]] = {name: [] for name in CONTENDERS}
    for row in read(ROWS):
        if "left" in row:
            found[row["key"]["contender"]].append(row)
    every = [row for group in found.values() for row in group]
    base = f"{_mean([_kept(row, 'before') for row in every])}" if every else "not measured"
    cells = [
        [
            name,
            _mean([1 - row["left"]["name"][0] / row["left"]["name"][1] for row in group]),
            _mean([_kept(row, "after") for row in group]),
            _mean([row["kid"] for row in group], 2),
            f"{statistics.mean(row['seconds'] for row in group):.0f}",
            len(group),
            PAPER.get(name, ""),
        ]
        for name, group in found.items()
        if group
    ]
    lines = markdown(HEADS, cells)
    return HEAD.format(erased=ERASED, kept=KEPT, base=base) + "\n".join(lines) + "\n" + FOOT


def _kept(row: Mapping[str, Any], side: str) -> float:
    counts = [sides[side] for sides in row["kept"].values()]
    return float(sum(k for k, _ in counts) / sum(n for _, n in counts))


def _mean(values: Sequence[float], digits: int = 3) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} ± {spread:.{digits}f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("--class", dest="classes", action="append", choices=CLASSES)
    parser.add_argument("--contender", action="append", choices=list(CONTENDERS))
    parser.add_argument("--share", type=share, default=(0, 1), help="of the cells, such as 0/4")
    given = parser.parse_args()
    if given.what == "table":
        (DOCS / "classes.md").write_text(page(), encoding="utf-8")
        print(DOCS / "classes.md")
    else:
        torch.set_num_threads(1)
        opened, looks = load("canvas-classes"), canvas_evaluators()
        pairs = itertools.product(given.classes or CLASSES, given.contender or CONTENDERS)
        for one, contender in part(pairs, given.share):
            looked_at(contender, one, opened, looks)
