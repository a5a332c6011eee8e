"""docs/methods.md and docs/methods.png, from the rows: every method on every target, every claim with its figure."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cells import ROWS, TARGETS, TUNED, Cell, key
from compared import FORMS, Row, beats, held, left, lost
from papers import CLAIMS, LOSSES, Find, duge_with
from rows import markdown, read
from scipy.stats import kendalltau

from unlearnkit import load
from unlearnkit.methods import METHODS
from unlearnkit.metrics.evaluators import canvas_evaluators
from unlearnkit.metrics.stats import wilson
from unlearnkit.model.model import Model
from unlearnkit.model.places import folder_of

__all__ = ["finder", "write"]

DOCS = Path(__file__).parents[1] / "docs"
# styles beyond the four targets, where settings were chosen by one of these
FURTHER = ("blueprint", "watercolor", "halftone")
HEAD = """# The methods side by side

`python benchmarks/methods.py table` writes this page from `benchmarks/results/methods.jsonl`. `measure` and `claims`
make the rows; `quick` makes the first of them in 20 minutes. Each method runs with the settings that the canvas ships
for it. The sampler is the canvas's, DPM-Solver++ in ten steps. A held-out classifier sees what is left and what is
kept. No training used it, but some of its rows led to new settings: "How the settings were chosen" lists these cases.
[settings.md](settings.md) lists every setting.

"""
CHOSEN = """## How the settings were chosen

`tune` chose them with the validation classifier on cat and van gogh. For styles, some were chosen again after a style
that had not been used in tuning failed:

- Sculpting Memory's, on blueprint and halftone: erasing neon had damaged other styles.
- DUGE's and RGD's, on watercolor and blueprint: erasing watercolor had damaged a tenth of van gogh. RGD's also on
  halftone, which had not been erased at all.
- DoCo's, on watercolor, which was left in 21 of 225 pictures. A first choice failed: after van gogh the held-out
  classifier found 5 points of the objects lost, where the validation classifier had found 2.

On car, the validation classifier judged trials of three choices: what replaces an object (ESD, DUGE, DoCo, Sculpting
Memory and the closed forms), how far DUGE steers (on bus, too), and how much DoCo retains (on guitar, too). It saw neon
for DUGE, Sculpting Memory, UCE, DP and `robust` only, and pixel art for DUGE. It did not see halftone for DUGE and
DoCo, watercolor for Sculpting Memory, or either of the two for ESD. But rows of the held-out classifier were the reason
to choose again: those of neon (an earlier setting of RGD left it in 199 of 225 pictures, and UCE a larger weight), of
watercolor and of halftone; those of pixel art and neon for DUGE's styles; those of owl, cactus and bus for DoCo. On the
canvas uce-diverse sets only what replaces an object. Its defaults were chosen on cat, guitar, apple, tree, van gogh and
pixel art, and the validation classifier saw neon once.

## How to read the tables

Rates are per cent of pictures, with Wilson's 95 % interval. Seeds 1 and 2 have fewer pictures (`quick`). Pictures of
several seeds are counted together, as if they were independent. Seconds are of one processor thread, include drawing
the pictures that a method trains on, and are not of the same machine in every row. The rows of neon by DoCo, CA, SalUn,
EraseDiff, Selective Amnesia and AdvUnlearn are older: some prompts of their retain set named neon. Older, too, are all
rows of AdaVD (before directions of rounding noise were left out) and SalUn's of styles (half of its labels were objects
then). Memory is what training needs in addition to the loaded model; it is missing where the process had not yet freed
as much from an earlier cell.

"""
FLOW = """
# On a flow transformer

The same cells on *canvas-flow* (`--model canvas-flow`), a small Stable Diffusion 3, with the settings that it ships.
The validation classifier chose them on these two concepts, in the end with as many pictures of the same prompts as the
held-out classifier then saw. Two things differ from the canvas:

- DUGE's attention loss has no counterpart where text and picture share one softmax. DUGE trains the prediction instead:
  its target is the prediction for the prompt without the concept, steered away from the concept
  (`attention_weight = 0`, `output_weight`).
- A style also reaches every layer through the pooled vector of the text, past all attention. For styles all weights are
  trained (`trains = all`). That would change the unconditional prediction, so a share of the retain images is trained
  with the empty prompt (`prompt_dropout`).

"""
GLANCE = """

The first four columns: pictures in which the held-out classifier still sees the concept, for prompts that name it. The
next two: the largest drop in accuracy on the other objects and on the other styles after any of the four, in percentage
points, near and far ones together. Seconds are of one processor thread and include drawing the pictures to train on.

"""
CLAIMED = """## What the papers claim

A claim with a limit of its own is judged by the figure itself. A comparison adds two differences: how many points more
of the other objects and styles one side keeps, and how many points less of the erased concept it leaves, of all
prompts that ask for it. *reproduced*: the 95 % interval of the sum is above 0. *not reproduced*: it is below 3 points,
so a lead of 3 points is excluded. *too close to tell*: neither. *paired*: both sides drew the same prompts with the
same seeds, among them n pictures of retained prompts, and were compared one by one. One share against another is judged
by its difference in the same way.

"""
LOSSES_HEAD = """## DUGE's erasing losses

As shipped on the canvas, DUGE erases by two losses: the attention maps (`attention_weight` 0.05) and predicted noise
(`output_weight`, ours). *without attention*: `attention_weight` 0. *maps alone*: `output_weight` 0 and
`attention_weight` 1. *output alone*: the same with `attends = output`, so the maps' product with the values. *output
and noise*: `attends = output` and `attention_weight` 1, the rest as shipped. Left by name in per cent, lost in points
of the other objects and styles.

"""
INSTEAD_HEAD = """## What takes its place

Of the prompts that name the concept, seed 0, as the held-out classifier sees them: what is seen most, in how many
pictures nothing is recognised, and in how many the rest of the prompt is right (the style of an erased object, the
object of an erased style). *diversity*: how much the pictures of all erased prompts differ from each other; 100 is as
much as before. Rows that were measured before this was counted are missing.

"""
TARGET_HEADS = (
    *("method", "left by name", "synonyms", "templates", "backgrounds", "near objects", "near styles"),
    *("other objects", "other styles", "CLIP", "diversity", "KID to never-knew", "s", "MB", "seeds"),
)
LOSSES_HEADS = (
    *("variant", "cat, left", "objects lost", "styles lost"),
    *("van gogh, left", "objects lost", "styles lost"),
)
INSTEAD_HEADS = (
    *("target", "method", "seen most", "nothing recognised"),
    *("rest right, before", "after", "diversity, %"),
)
FREED = 30  # MB: no more is seen where the process still held what an earlier cell had freed
TICKS = (0, 1, 2, 5, 10, 20, 50, 100)
KEPT = ("near objects", "near styles", "unrelated objects", "unrelated styles")


def write() -> None:
    canvas = load("canvas")
    find = finder(canvas)
    paired, full, quick = (finder(canvas, (size,)) for size in ("paired", "full", "quick"))
    parts = [HEAD, _glance(full)]
    if any(_rows(find, method, target) for method in METHODS for target in TARGETS):
        _plot(find)
        parts.append("![What is left of a concept against what is kept](methods.png)\n\n")
    parts.append(CHOSEN)
    further = [one for one in FURTHER if any(_rows(find, method, one) for method in METHODS)]
    parts += [_target(find, target) for target in (*TARGETS, *further)]
    parts.append(_instead(full))
    parts += [_claims([paired, full, finder(canvas, ("full", "some"))]), _losses(paired)]
    parts.append(_ordering(full, quick))
    if folder_of("canvas-flow").is_dir():
        flow = finder(load("canvas-flow"))
        parts += [FLOW, *(_target(flow, target) for target in TUNED)]
    (DOCS / "methods.md").write_text("".join(parts), encoding="utf-8")
    print(DOCS / "methods.md")


def finder(model: Model, sizes: Sequence[str] = ("full", "some", "quick")) -> Find:
    tools = canvas_evaluators()
    known = {json.dumps(row["key"], sort_keys=True): row for row in read(ROWS)}

    def find(cell: Cell) -> Row | None:
        """The row of most pictures."""
        keys = (key(replace(cell, size=size), model, tools) for size in sizes)
        found = (known.get(json.dumps(facts, sort_keys=True)) for facts in keys)
        return next((row for row in found if row and "left" in row), None)

    return find


def _glance(full: Find) -> str:
    """A line a method, of what one seed left by name of each target, and of what else was lost; README has it too."""
    lines = []
    for method in METHODS:
        found = [full(Cell(method, (target,))) for target in TARGETS]
        measured = [row for row in found if row]
        if not measured:
            continue
        cells = ["{} of {}".format(*row["left"]["name"]) if row else "" for row in found]
        cells += [f"{max(lost(row, kind) for row in measured):.1f}" for kind in ("objects", "styles")]
        seconds = sorted(round(row["seconds"]) for row in measured)
        cells.append(" to ".join(map(str, dict.fromkeys((seconds[0], seconds[-1])))))
        lines.append([method, *cells])
    heads = ("method", *TARGETS, "objects lost", "styles lost", "seconds")
    return "\n".join(["## At a glance\n", *markdown(heads, lines)]) + GLANCE


def _rows(find: Find, method: str, target: str) -> list[Row]:
    """A method's rows on a target, one a seed."""
    return [row for seed in (0, 1, 2) if (row := find(Cell(method, (target,), seed=seed)))]


def _target(find: Find, target: str) -> str:
    lines = [_cells(method, found) for method in METHODS if (found := _rows(find, method, target))]
    if not lines:
        return f"## {target}\n\nNot measured yet.\n\n"
    return "\n".join([f"## {target}\n", *markdown(TARGET_HEADS, [_before(find, target), *lines])]) + "\n\n"


def _before(find: Find, target: str) -> list[str]:
    """The untouched model's line, which every row has."""
    row = next(found[0] for method in METHODS if (found := _rows(find, method, target)))
    cells = [_rate(row["known before"]), "", "", ""]
    cells += [_rate(row["kept"].get(group, {}).get("before", [0, 0])) for group in KEPT]
    cells += [_number(row, "clip", "before"), _number(row, "diversity", "before")]
    cells += [_never_knew(row, "before"), "", "", ""]
    return ["*untouched*", *cells]


def _cells(method: str, found: Sequence[Row]) -> list[str]:
    cells = [_rate(_sum(row["left"].get(form, [0, 0]) for row in found)) for form in FORMS]
    cells += [_rate(_sum(row["kept"].get(group, {}).get("after", [0, 0]) for row in found)) for group in KEPT]
    cells += [_number(found[0], "clip", "after"), _number(found[0], "diversity", "after")]
    cells += [_never_knew(found[0], "after")]
    cells += [f"{sum(row['seconds'] for row in found) / len(found):.0f}"]
    peak = max(row["peak MB above the model"] for row in found)
    return [method, *cells, str(peak) if peak > FREED else "", str(len(found))]


def _sum(counts: Iterable[Sequence[int]]) -> list[int]:
    return [sum(column) for column in zip(*counts, strict=True)]


def _rate(counts: Sequence[int]) -> str:
    k, n = counts
    if not n:
        return ""
    low, high = wilson(k, n)
    return f"{100 * k / n:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _number(row: Row, name: str, side: str) -> str:
    return f"{row[name][side]:.3f}" if name in row else ""


def _never_knew(row: Row, side: str) -> str:
    kid: Mapping[str, Any] = row.get("never-knew", {}).get("kid", {})
    floor = f" (floor {kid['floor']:.3f})" if kid and side == "before" else ""
    return f"{kid[side]:.3f}{floor}" if kid else ""


def _claims(finds: Sequence[Find]) -> str:
    """What the rows say, of one size where there are all of one: like is held against like."""
    lines = []
    verdicts = {True: "reproduced", False: "not reproduced", None: "too close to tell"}
    for claim, judged in CLAIMS.items():
        said = next((found for find in finds if (found := judged(find))), None)
        holds = verdicts[said[0]] if said else "not measured yet"
        lines.append([claim, holds, said[1] if said else ""])
    return CLAIMED + "\n".join(markdown(("claim", "here", "figure"), lines)) + "\n\n"


def _instead(full: Find) -> str:
    """What the erased prompts show, of the rows that say it."""
    lines = []
    for target, method in itertools.product(TARGETS, METHODS):
        row = full(Cell(method, (target,)))
        if not (found := row.get("instead") if row else None):
            continue
        (most, count), *_ = found["seen"]
        cells = [f"{most}, {count} of {found['of']}", str(found["nothing"])]
        right, apart = found.get("rest right"), found.get("diversity")
        cells += ["{} of {}".format(*right[side]) if right else "" for side in ("before", "after")]
        cells.append(f"{100 * apart['after'] / apart['before']:.0f}" if apart else "")
        lines.append([target, method, *cells])
    return INSTEAD_HEAD + "\n".join(markdown(INSTEAD_HEADS, lines)) + "\n\n" if lines else ""


def _losses(paired: Find) -> str:
    """DUGE with some of its erasing losses, and which it needs."""
    lines = []
    for name in ("", *LOSSES):
        found = [paired(duge_with(name, target)) for target in TUNED]
        cells = [
            [_rate(row["left"]["name"]), *(f"{lost(row, kind):.1f}" for kind in ("objects", "styles"))]
            if row
            else [""] * 3
            for row in found
        ]
        if any(found):
            lines.append([name or "as shipped", *itertools.chain(*cells)])
    return LOSSES_HEAD + "\n".join(markdown(LOSSES_HEADS, lines)) + "\n\n" if lines else ""


def _ordering(full: Find, quick: Find) -> str:
    """Whether `quick` puts the methods in the order of the full measurement, on cat: kept less left, in points."""
    cells = {method: Cell(method, ("cat",)) for method in METHODS}
    both = {
        method: (one, two) for method, cell in cells.items() if (one := full(cell)) and (two := quick(cell))
    }
    if len(both) < 3:
        return ""
    points = {method: [held(row) - left(row) for row in rows] for method, rows in both.items()}
    ranks = [sorted(points, key=lambda method: -points[method][side]) for side in (0, 1)]
    agreed = kendalltau(*zip(*points.values(), strict=True)).statistic
    lines = ["## Quick mode\n", "The score is kept minus left by name, in points, on cat with seed 0.\n"]
    cells_of = [
        [method, *(f"{score:.1f}" for score in points[method]), *(rank.index(method) + 1 for rank in ranks)]
        for method in ranks[0]
    ]
    lines += markdown(("method", "full", "quick", "place, full", "place, quick"), cells_of)
    lines += ["", f"Kendall's tau between the two orders: {agreed:.2f}."]
    pairs = [
        (points[a], points[b])
        for a, b in itertools.combinations(both, 2)
        if beats(both[a][0], both[b][0]) or beats(both[b][0], both[a][0])
    ]
    same = sum((a[0] > b[0]) == (a[1] > b[1]) for a, b in pairs)
    told = f"The full measurement distinguishes {len(pairs)} of {math.comb(len(both), 2)} pairs (95 %);"
    lines.append(f"{told} quick has {same} of these in the same order.")
    return "\n".join(lines) + "\n\n"


def _plot(find: Find) -> None:
    """Left against kept, a panel a target, all seeds of a method together; the best place is the upper right."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 9), layout="constrained")
    axes = figure.subplots(2, 2, sharey=True)
    for panel, target in zip(axes.flat, TARGETS, strict=True):
        panel.set_xscale("symlog", linthresh=2, linscale=0.6)
        panel.set_xticks(TICKS, [f"{tick}" for tick in TICKS])
        panel.set(title=target, xlabel="left by name, %", ylabel="kept, %", xlim=(120, -0.3))
        panel.grid(alpha=0.3)
        for colour, method in zip(colormaps["tab20"](range(20)), METHODS, strict=False):
            if not (found := _rows(find, method, target)):
                continue
            k, n = _sum(row["left"]["name"] for row in found)
            x, y = 100 * k / n, sum(map(held, found)) / len(found)
            low, high = wilson(k, n)
            bars = [[x - 100 * low], [100 * high - x]]
            panel.errorbar(x, y, xerr=bars, fmt="o", color=colour, markersize=5, linewidth=0.8, label=method)
    told: dict[str, Any] = {}
    for panel in axes.flat:
        told |= dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    figure.legend(told.values(), told, loc="outside right upper", fontsize=9)
    figure.savefig(DOCS / "methods.png", dpi=110)
