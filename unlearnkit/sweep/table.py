"""The results of a sweep: ``sweep.json``, ``sweep.md``, ``sweep.html``, and ``pareto.png`` with matplotlib."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..evaluation.compare import figures_of
from ..evaluation.record import stored
from ..evaluation.report import inline, page, read_run
from ..evaluation.rows import gather, right
from ..io.files import atomic_file, write_text
from .plan import Cell, Sweep
from .work import evaluation_of, is_done

__all__ = ["results", "write_results"]


def results(sweep: Sweep, out: Path, failed: Mapping[str, str]) -> dict[str, Any]:
    """What the finished cells show, as plain data.

    cells: for each its run's name, variant, concept, seed, grade, and counts of pictures: ``left`` of ``named`` that
    still show the concept, ``kept`` of ``others`` that are right; failed cells have ``error``.
    variants: the same counts over all concepts and seeds, and whether no other one erases and keeps more (``best``).
    """
    cells = [_cell(cell, sweep, out, failed) for cell in sweep.cells]
    variants = []
    for variant in dict.fromkeys(cell.variant for cell in sweep.cells):
        mine = [cell for cell in cells if cell["variant"] == variant and "left" in cell]
        counts = {name: sum(cell[name] for cell in mine) for name in ("left", "named", "kept", "others")}
        variants.append({"variant": variant, "cells": len(mine), **counts, **_shares(counts)})
    points = [
        (one["erased"], one["retained"]) for one in variants if None not in (one["erased"], one["retained"])
    ]
    for one in variants:
        mine_ = (one["erased"], one["retained"])
        one["best"] = mine_ in points and not any(
            other != mine_ and other[0] >= mine_[0] and other[1] >= mine_[1] for other in points
        )
    return {"cells": cells, "variants": variants}


def write_results(found: Mapping[str, Any], out: Path) -> list[Path]:
    """Write the files and return their paths."""
    write_text(out / "sweep.json", json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    write_text(out / "sweep.md", _markdown(found))
    written = [out / "sweep.json", out / "sweep.md"]
    if _plot(found["variants"], out / "pareto.png"):
        written.append(out / "pareto.png")
    picture = inline(out / "pareto.png") if out / "pareto.png" in written else None
    write_text(out / "sweep.html", page("sweep.html", **found, picture=picture))
    return [*written, out / "sweep.html"]


def _cell(cell: Cell, sweep: Sweep, out: Path, failed: Mapping[str, str]) -> dict[str, Any]:
    (concept,) = cell.recipe.request.erase
    facts = {"run": cell.name, "variant": cell.variant, "concept": concept.name, "seed": cell.recipe.seed}
    if not is_done(cell, out / cell.name, sweep):
        return facts | {"error": failed.get(cell.name, "not finished")}
    run = read_run(out / cell.name)
    one = figures_of(
        "", out / cell.name, {**run, **run["evaluations"][evaluation_of(out / cell.name, sweep).name]}
    )
    _, cases, scores, _ = stored(evaluation_of(out / cell.name, sweep))
    pictures = gather(scores)
    others = [
        right(case, pictures["after", case.id])
        for case in cases
        if case.role != "erased" and any(getattr(case, kind) for kind in pictures["after", case.id].words)
    ]
    seen = one["seen"] or {"k": 0, "n": 0}
    counts = {"left": seen["k"], "named": seen["n"]}
    counts |= {"kept": sum(others), "others": len(others)}
    return facts | {"grade": one["grade"], **counts, **_shares(counts)}


def _shares(counts: Mapping[str, int]) -> dict[str, float | None]:
    return {
        "erased": 1 - counts["left"] / counts["named"] if counts["named"] else None,
        "retained": counts["kept"] / counts["others"] if counts["others"] else None,
    }


def _markdown(found: Mapping[str, Any]) -> str:
    rows = ["| variant | cells | still seen | kept | best |", "|---|---|---|---|---|"]
    for one in found["variants"]:
        counts = f"{one['left']} of {one['named']} | {one['kept']} of {one['others']}"
        rows.append(
            f"| {_safe(one['variant'])} | {one['cells']} | {counts} | {'yes' if one['best'] else ''} |"
        )
    rows += ["", "| run | concept | seed | still seen | kept | grade |", "|---|---|---|---|---|---|"]
    for one in found["cells"]:
        counts = (
            f"{one['left']} of {one['named']} | {one['kept']} of {one['others']}" if "left" in one else " | "
        )
        grade = one.get("grade") or one["error"]
        rows.append(f"| {one['run']} | {_safe(one['concept'])} | {one['seed']} | {counts} | {_safe(grade)} |")
    return "\n".join(rows) + "\n"


def _safe(text: str) -> str:
    return text.replace("|", "\\|")


def _plot(variants: Iterable[Mapping[str, Any]], path: Path) -> bool:
    """Erased against kept, the best joined by a line. False if matplotlib is missing or there is nothing to draw."""
    points = [one for one in variants if one["erased"] is not None and one["retained"] is not None]
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    if not points:
        return False
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    best = sorted((one["erased"], one["retained"]) for one in points if one["best"])
    axes.plot([100 * x for x, _ in best], [100 * y for _, y in best], color="#999999", linewidth=1)
    same: dict[tuple[float, float], list[str]] = {}
    for one in points:
        place = (100 * one["erased"], 100 * one["retained"])
        axes.plot(*place, "o", color="#1f5fa8" if one["best"] else "#b0b0b0")
        same.setdefault(place, []).append(one["variant"])
    for place, names in same.items():
        text = "\n".join(names)
        axes.annotate(text, place, xytext=(4, 4), textcoords="offset points", fontsize=8)
    axes.set(
        xlabel="pictures without the concept, of those that name it (%)", ylabel="other pictures kept (%)"
    )
    axes.margins(0.15)
    with atomic_file(path) as partial:
        figure.savefig(partial, format="png", dpi=120, metadata={"Software": None})
    return True
