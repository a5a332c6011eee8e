"""The table and the curves of ``continual.py``, from its rows alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rows import markdown

from unlearnkit.metrics.stats import wilson

DOCS = Path(__file__).parent.parent / "docs"
ABOUT = """# Continual unlearning on the canvas

`benchmarks/continual.py table` writes this page from `benchmarks/results/continual.jsonl`. The canvas is {bases},
with {words} pictures of each word after each request. UA is the share of pictures of erased concepts in which the
held-out classifier does not see them. *Kept* is the number of correct pictures, divided by that of the base model.
Brackets, and the bands around the curves, are 95 % intervals (Wilson, over pictures). A contender with fewer requests
than the others collapsed (less than 30 % of the objects or styles kept), failed, or is not finished.

`benchmarks/continual.py` defines the contenders:

- *as shipped*: `chain add` with no options on the canvas: ESD, a memory bank and replay.
- *uce, whole*: UCE with the canvas's settings.
- *uce-diverse*: that method with replay; *joint*: from the base model, for all requests so far.
- *uce*: UCE with the smallest `erase_weight` of a list after which the validation classifier sees the concept in at
  most 5 % of 40 pictures.
- The others stop as soon as the validation classifier, every 20 steps, sees the concept in at most 5 % of 40 pictures.
- Rows with † are of the canvas's earlier sampler (DDIM, 25 steps).
- All rows are older than `instead = nearest`: nothing took an object's place, or the method's own choice.

The goal was that after twelve objects 95 % of all erased concepts are still gone, and 90 % of the other objects and of
the styles are kept. The best published result on twelve requests keeps about 60 % and 77 % (notes on Lee et al., arXiv
2511.07970). It is of another model and other pictures, so it gives only a direction. [chain.md](chain.md) explains
chains and guards. [many.md](many.md) has chains of 24 requests, by closed forms and by the default method.
"""
HEADS = (
    *("contender", "cells", "requests", "UA current", "UA past", "worst relapse"),
    *("kept objects", "kept styles"),
    *("neighbours", "alignment", "KID", "drift", "s a request", "MB"),
)
Row = Mapping[str, Any]
Rate = Mapping[str, int]
Interval = tuple[float, float, float]  # a share, and its interval of 95 %


def ranked(rows: Sequence[Row]) -> list[str]:
    """Contenders in order of the least of erased, kept objects and kept styles at the last request all were asked."""
    return sorted(
        dict.fromkeys(map(name, rows)), key=lambda one: -_score([row for row in rows if name(row) == one])
    )


def write(rows: Sequence[Row]) -> Path:
    """Write ``docs/continual.md`` and ``docs/continual.png``, and return the former."""
    rows = standing(rows)
    bases, words = (", ".join(sorted({str(row["key"][of]) for row in rows})) for of in ("base", "pictures"))
    text = [ABOUT.format(bases=bases, words=words)]
    for sequence in dict.fromkeys(row["key"]["cell"]["sequence"] for row in rows):
        part = [row for row in rows if row["key"]["cell"]["sequence"] == sequence]
        text += [f"## {sequence}", "", *_table(part), ""]
    text += ["![Erased and kept after every request](continual.png)", ""]
    _plot(rows, DOCS / "continual.png")
    (DOCS / "continual.md").write_text("\n".join(text), encoding="utf-8")
    return DOCS / "continual.md"


def standing(rows: Sequence[Row]) -> list[Row]:
    """Those that count: of the canvas's earlier sampler only what was not made again with the present one."""

    def asked(row: Row) -> tuple[str, str]:
        return row["key"]["cell"]["contender"], row["key"]["cell"]["sequence"]

    again = {asked(row) for row in rows if "drawn by" in row["key"]}
    return [row for row in rows if "drawn by" in row["key"] or asked(row) not in again]


def name(row: Row) -> str:
    """The contender; † where the canvas still drew by DDIM, and the bank's prompts were others at every request."""
    return str(row["key"]["cell"]["contender"]) + ("" if "drawn by" in row["key"] else " †")


def kept(row: Row, kind: str, *, near: bool | None = None) -> tuple[Rate, Rate]:
    """Right pictures of a kind that stays, before and after: near ones, the others, or all."""
    groups = [f"{role} {kind}s" for role in ("near", "unrelated") if near is None or near == (role == "near")]
    found = [row["kept"][group] for group in groups if group in row["kept"]]
    before, after = (
        {part: sum(one[side][part] for one in found) for part in ("k", "n")} for side in ("before", "after")
    )
    return before, after


def _score(rows: Sequence[Row]) -> float:
    last = max(row["key"]["request"] for row in rows)
    final = [row for row in rows if row["key"]["request"] == last]
    shares = [share(final) for share in SHARES.values()]
    return float(last + min(found[0] for found in shares if found))


def _table(rows: Sequence[Row]) -> list[str]:
    """A line a contender at its last request; rates in per cent of pictures, with 95 % intervals over all its cells."""
    lines = []
    for one in ranked(rows):
        own = [row for row in rows if name(row) == one]
        last = max(row["key"]["request"] for row in own)
        final = [row for row in own if row["key"]["request"] == last]
        cells = [
            one,
            str(len(final)),
            str(last + 1),
            _written(_gone(row["current"] for row in final if row["current"])),
            _written(_gone(row["past"] for row in final)),
            f"{100 * max(row['relapse'] for row in final):.0f}",
            _written(_left(final, "object")),
            _written(_left(final, "style")),
            _written(_left(final, "object", near=True)),
            *(_mean(final, figure) for figure in ("alignment", "kid", "drift")),
            _mean(own, "seconds", "{:.0f}"),
            f"{max(row['bytes'] for row in final) / 1e6:.1f}",
        ]
        lines.append(cells)
    return list(markdown(HEADS, lines))


def _sum(rates: Any) -> dict[str, int]:
    found = list(rates)
    return {part: sum(rate[part] for rate in found) for part in ("k", "n")}


def _gone(rates: Any) -> Interval | None:
    """The share of pictures on which what was erased is not seen."""
    rate = _sum(rates)
    if not rate["n"]:
        return None
    k = rate["n"] - rate["k"]
    return k / rate["n"], *wilson(k, rate["n"])


def _left(rows: Sequence[Row], kind: str, *, near: bool | None = None) -> Interval | None:
    """Right pictures of what stays, over those of the base model."""
    before, after = (_sum(part) for part in zip(*(kept(row, kind, near=near) for row in rows), strict=True))
    if not before["k"]:
        return None
    low, high = wilson(after["k"], after["n"])
    scale = after["n"] / before["k"]
    return after["k"] / before["k"], scale * low, scale * high


def _written(found: Interval | None) -> str:
    if found is None:
        return "–"
    value, low, high = (100 * one for one in found)
    return f"{value:.1f} ({low:.0f}–{high:.0f})"


def _mean(rows: Sequence[Row], figure: str, form: str = "{:.3g}") -> str:
    values = [row[figure] for row in rows if row[figure] is not None]
    return form.format(sum(values) / len(values)) if values else "–"


def _plot(rows: Sequence[Row], path: Path) -> None:
    """A row a sequence: erased, kept objects and kept styles by request; a line a contender, in its interval."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    sequences = list(dict.fromkeys(row["key"]["cell"]["sequence"] for row in rows))
    names = sorted({name(row) for row in rows})
    figure = Figure(figsize=(12, 3 * len(sequences)), layout="constrained")
    axes = figure.subplots(len(sequences), 3, squeeze=False)
    for sequence, line in zip(sequences, axes, strict=True):
        part = [row for row in rows if row["key"]["cell"]["sequence"] == sequence]
        for panel, (title, share) in zip(line, SHARES.items(), strict=True):
            panel.set(title=f"{sequence}: {title}, %", xlabel="requests", ylim=(0, 103))
            panel.grid(alpha=0.3)
            panel.xaxis.get_major_locator().set_params(integer=True)
            for colour, one in zip(colormaps["tab20"](range(20)), names, strict=False):
                own = [row for row in part if name(row) == one]
                numbers = sorted({row["key"]["request"] for row in own})
                found = {at + 1: share([row for row in own if row["key"]["request"] == at]) for at in numbers}
                points = [(at, *(100 * end for end in one)) for at, one in found.items() if one]
                at, value, low, high = zip(*points, strict=True) if points else ((),) * 4
                panel.plot(at, value, color=colour, marker=".", label=one)
                panel.fill_between(at, low, high, color=colour, alpha=0.07, linewidth=0)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right upper", fontsize=9)
    figure.savefig(path, dpi=110)


SHARES: dict[str, Callable[[Sequence[Row]], Interval | None]] = {
    "erased, of all so far": lambda part: _gone(row["all"] for row in part),
    "kept objects": lambda part: _left(part, "object"),
    "kept styles": lambda part: _left(part, "style"),
}
