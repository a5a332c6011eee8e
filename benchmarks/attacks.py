"""Methods under attack on the canvas: each method's edit of each target, each attack, each beside its control.

    python benchmarks/attacks.py run [--method esd ...] [--target cat ...] [--attack sdedit ...] [--budget quick|full]
    python benchmarks/attacks.py table         benchmarks/results/attacks.md and docs/attacks.png, from the rows

A row of ``results/attacks.jsonl`` is one attack on one edit; one that is there is not made again, and a killed one goes
on. Edits are those of ``methods.py``; the control on the never-knew model is made once for all methods.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from cells import RUNS, TARGETS, Cell, concept, made, made_of
from compared import lost
from rows import markdown, once, part, plain, read, share
from table import finder

from unlearnkit import load
from unlearnkit.attacks import ATTACKS, BUDGETS
from unlearnkit.evaluation.attacked.run import attack_weights
from unlearnkit.io.files import slug
from unlearnkit.methods import METHODS
from unlearnkit.model.model import Model
from unlearnkit.schema import Request

ROWS = Path(__file__).parent / "results" / "attacks.jsonl"
PAGE = ROWS.with_suffix(".md")
DOCS = Path(__file__).parents[1] / "docs"
EXAMPLE, PICTURE = DOCS / "attacks.md", DOCS / "attacks.png"
Row = Mapping[str, Any]
ABLATED = {"aegis": ("learned_target", "directional")}  # settings that have a row each in which they are off
MARK, END = "<!-- benchmarks/attacks.py makes these tables -->\n", "<!-- end -->\n"
DRAWN = {"inversion": "learned vectors", "sdedit": "noised pictures", "completion": "half-drawn pictures"}
HEAD = """# Methods under attack

Made by `benchmarks/attacks.py table`. Each cell is how much more often the attack brings the concept back than it finds
it in a model that never knew it, in points, with Newcombe's 95 % interval; the worst counted variant of each attack. In
brackets: the control is above 10 % in every variant, so nothing is counted. Then the denoising loss on pictures of the
concept. The control is the model that never knew it.
"""


def attacked(cell: Cell, name: str, budget: str, model: Model) -> dict[str, Any]:
    """The row of one attack, from the file or made now."""
    facts = made_of(cell, model) | {"attack": name, "budget": budget}
    return once(ROWS, facts, lambda: measured(cell, name, budget, model))


def measured(cell: Cell, name: str, budget: str, model: Model) -> dict[str, Any]:
    edit, _ = made(cell, model)
    folder = RUNS / f"attacked-{slug(cell.targets[0])}-{edit.hash()[:12]}-{budget}"
    request = Request((concept(cell.targets[0]),))
    (figures,) = attack_weights(folder, model, edit, request, attacks=[name], budget=budget).values()
    return {name: figures[name] for name in ("arms", "headline", "figures", "seconds")}


def variants(method: str) -> list[dict[str, Any]]:
    """The settings of a method's rows: its own, and those without one of its parts."""
    return [{}, *({name: False} for name in ABLATED.get(method, ()))]


def row_name(facts: Mapping[str, Any]) -> str:
    """The name of a row with these facts in its key."""
    off = [name for name in ABLATED.get(facts["method"], ()) if facts["settings"].get(name) is False]
    return " ".join([facts["method"], *(f"{name}=false" for name in off)])


def worst(row: Row) -> str:
    """The cell of an attack: its worst counted variant; in brackets the worst of those that are not counted."""
    arms = row["arms"]
    if not arms:
        return ""
    name = row["headline"] or max(arms, key=lambda arm: float(arms[arm]["after"]["value"]))
    change = arms[name]["difference"]
    text = f"{change['value'] * 100:+.0f} ({change['low'] * 100:+.0f} to {change['high'] * 100:+.0f})"
    return text if row["headline"] else f"[{text}]"


def by_method(rows: Sequence[Row], target: str, budget: str) -> dict[str, dict[str, Row]]:
    """The finished rows of a target and a budget: by the row's name, by attack."""
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        facts = row["key"]
        if "arms" in row and (facts["target"], facts["budget"]) == (target, budget):
            found.setdefault(row_name(facts), {})[facts["attack"]] = row
    return {name: found[name] for name in sorted(found, key=[*METHODS, *found].index)}


def results(rows: Sequence[Row]) -> Iterator[str]:
    """The lines of the page, two tables for each target and budget."""
    yield HEAD
    for target, budget in dict.fromkeys((row["key"]["target"], row["key"]["budget"]) for row in rows):
        found = by_method(rows, target, budget)
        yield f"\n## {target}, {budget} budget\n"
        names = [one for one in ATTACKS if any(own.get(one, {}).get("arms") for own in found.values())]
        own = ([one, *(worst(row) if (row := by.get(one)) else "" for by in found.values())] for one in names)
        yield from markdown(["attack", *found], own)
        yield ""
        yield from losses(found)


def losses(found: Mapping[str, Mapping[str, Row]]) -> Iterator[str]:
    """The denoising loss after each method, of the untouched model, and of the control."""
    probed = {name: own["probe"]["figures"] for name, own in found.items() if "probe" in own}
    if not probed:
        return
    one = next(iter(probed.values()))
    sides = {"untouched": (one["after"], "untouched")}
    sides |= {name: (figures["after"], "after") for name, figures in probed.items()}
    sides |= {"control": (one["control"], "after")} if "control" in one else {}
    cells = list[list[str]]()
    for caption in ("own caption", "no caption"):
        known = [side[f"{caption}, {state}"]["value"] for side, state in sides.values()]
        cells.append([caption, *(f"{value:.3f}" for value in known)])
    yield from markdown(["denoising loss", *sides], cells)


def counts(found: Mapping[str, Mapping[str, Row]]) -> Iterator[str]:
    """Pictures that show the concept, by variant; in brackets those of variants that are not counted."""
    cells = list[list[str]]()
    for attack in ATTACKS:
        here = {name: own[attack]["arms"] for name, own in found.items() if attack in own}
        for arm in dict.fromkeys(arm for arms in here.values() for arm in arms):
            one = next(arms[arm] for arms in here.values() if arm in arms)
            said = "{}" if one["counted"] else "({})"
            shown = [said.format(here[name][arm]["after"]["k"]) if name in here else "" for name in found]
            cells.append([f"`{attack}`: {arm}", *shown, str(one["control"]["k"])])
    yield from markdown(["attack", *found, "control"], cells)


def both(found: Mapping[str, Mapping[str, Row]]) -> str:
    """The tables of the documentation."""
    return "\n".join([*counts(found), "", *losses(found), ""])


def picture(rows: Sequence[Row], model: Model, target: str = "cat") -> None:
    """What three attacks bring back, above the control, against what the edit lost: best is the lower left."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    find = finder(model, ("full",))
    figure = Figure(figsize=(12, 4), layout="constrained")
    axes = figure.subplots(1, len(DRAWN), sharey=True)
    for axis, (attack, title) in zip(axes, DRAWN.items(), strict=True):
        axis.margins(x=0.3)
        axis.set(title=title, xlabel="points lost: objects or styles, the larger")
        for colour, method in zip(colormaps["tab20"](range(20)), METHODS, strict=False):
            cell = Cell(method, (target,))
            facts = plain(made_of(cell, model) | {"attack": attack, "budget": "quick"})
            row = next((row for row in rows if row["key"] == facts and row.get("headline")), None)
            if row is None or (judged := find(cell)) is None:
                continue
            change = row["arms"][row["headline"]]["difference"]
            low, value, high = (100 * change[name] for name in ("low", "value", "high"))
            x = max(lost(judged, kind) for kind in ("objects", "styles"))
            axis.errorbar(x, value, [[value - low], [high - value]], fmt="o", capsize=2, color=colour)
            axis.annotate(method, (x, value), xytext=(4, 3), textcoords="offset points")
    axes[0].set_ylabel(f"brings {target} back, points above the control")
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("--method", action="append", choices=list(METHODS))
    parser.add_argument("--target", action="append", choices=TARGETS)
    parser.add_argument("--attack", action="append", choices=list(ATTACKS))
    parser.add_argument("--budget", choices=list(BUDGETS), default="quick")
    parser.add_argument("--share", type=share, default=(0, 1), help="of the cells, such as 0/4")
    given = parser.parse_args()
    opened = load("canvas")
    if given.what == "table":
        rows = list(read(ROWS))
        PAGE.write_text("\n".join(results(rows)) + "\n", encoding="utf-8")
        example = by_method(rows, "cat", "quick")
        head, _, rest = EXAMPLE.read_text(encoding="utf-8").partition(MARK)
        EXAMPLE.write_text(f"{head}{MARK}{both(example)}{END}{rest.partition(END)[2]}", encoding="utf-8")
        picture(rows, opened)
        print(PAGE)
    else:
        torch.set_num_threads(1)
        cells = itertools.product(given.target or TARGETS, given.method or METHODS, given.attack or ATTACKS)
        for target, method, name in part(cells, given.share):
            for settings in variants(method):
                attacked(Cell(method, (target,), settings=settings), name, given.budget, opened)
