"""The table and the curves of ``continual.py``, from its rows alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unlearnkit.stats import wilson

DOCS = Path(__file__).parent.parent / "docs"
ABOUT = """# Continual unlearning on the canvas

Made by `benchmarks/continual.py table` from `benchmarks/results/continual.jsonl`; the canvas is {bases}, with {words}
pictures of each word after each request. UA is the share of pictures of erased concepts on which the judge does not see
them; kept is the number of right pictures over that of the first model. Brackets hold 95 % intervals (Wilson, over
pictures). A contender with fewer requests has collapsed (less than 30 % of the objects or styles kept) or failed, or is
not done.

`benchmarks/continual.py` says what each contender is. *as shipped* is what `chain add` does on the canvas when
nothing is told: ESD, a memory bank and replay; *uce, whole* is UCE with the canvas's settings, *uce-diverse* that
method with replay, or, *joint*, from the first model on all requests so far. The others stop at the first look, each
20 steps, at which the guide sees the requested concept in no more than 5 % of 40 pictures; *uce* takes the first
scale of a ladder that gets there. Rows with † are of the canvas's earlier sampler (DDIM, 25 steps).

The goal was 95 % of all that was erased still gone after twelve objects, and 90 % of the other objects and of the
styles kept. The best that was published on twelve requests keeps about 60 % and 77 % (another model and other pictures,
so no more than a direction; from notes on Lee et al., arXiv 2511.07970).
"""
Row = Mapping[str, Any]
Rate = Mapping[str, int]


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
    shares = [_share(_sum(row["all"] for row in final), wrong=True)]
    for kind in ("object", "style"):
        before, after = (_sum(part) for part in zip(*(kept(row, kind) for row in final), strict=True))
        shares.append(after["k"] / max(1, before["k"]))
    return last + min(shares)


def _table(rows: Sequence[Row]) -> list[str]:
    """A line a contender at its last request; rates in per cent of pictures, with 95 % intervals over all its cells."""
    head = "| contender | cells | requests | UA current | UA past | worst relapse | kept objects | kept styles | "
    head += "neighbours | alignment | KID | drift | s a request | MB |"
    lines = [head, "|" + "---|" * 14]
    for one in ranked(rows):
        own = [row for row in rows if name(row) == one]
        last = max(row["key"]["request"] for row in own)
        final = [row for row in own if row["key"]["request"] == last]
        cells = [
            one,
            str(len(final)),
            str(last + 1),
            _percent(_sum(row["current"] for row in final if row["current"]), wrong=True),
            _percent(_sum(row["past"] for row in final), wrong=True),
            f"{100 * max(row['relapse'] for row in final):.0f}",
            _ratio(final, "object"),
            _ratio(final, "style"),
            _ratio(final, "object", near=True),
            *(_mean(final, figure) for figure in ("alignment", "kid", "drift")),
            _mean(own, "seconds", "{:.0f}"),
            f"{max(row['bytes'] for row in final) / 1e6:.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _sum(rates: Any) -> dict[str, int]:
    found = list(rates)
    return {part: sum(rate[part] for rate in found) for part in ("k", "n")}


def _share(rate: Rate, *, wrong: bool) -> float:
    if not rate["n"]:
        return 1.0 if wrong else 0.0
    return 1 - rate["k"] / rate["n"] if wrong else rate["k"] / rate["n"]


def _percent(rate: Rate, *, wrong: bool) -> str:
    if not rate["n"]:
        return "–"
    k = rate["n"] - rate["k"] if wrong else rate["k"]
    low, high = wilson(k, rate["n"])
    return f"{100 * k / rate['n']:.1f} ({100 * low:.0f}–{100 * high:.0f})"


def _ratio(rows: Sequence[Row], kind: str, *, near: bool | None = None) -> str:
    before, after = (_sum(part) for part in zip(*(kept(row, kind, near=near) for row in rows), strict=True))
    if not before["k"]:
        return "–"
    low, high = wilson(after["k"], after["n"])
    scale = 100 * after["n"] / before["k"]
    return f"{100 * after['k'] / before['k']:.1f} ({scale * low:.0f}–{scale * high:.0f})"


def _mean(rows: Sequence[Row], figure: str, form: str = "{:.3g}") -> str:
    values = [row[figure] for row in rows if row[figure] is not None]
    return form.format(sum(values) / len(values)) if values else "–"


def _plot(rows: Sequence[Row], path: Path) -> None:
    """A row a sequence: erased, kept objects and kept styles by request; a line a contender."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sequences = list(dict.fromkeys(row["key"]["cell"]["sequence"] for row in rows))
    names = sorted({name(row) for row in rows})
    figure, axes = pyplot.subplots(
        len(sequences), 3, figsize=(12, 3 * len(sequences)), layout="constrained", squeeze=False
    )
    for sequence, line in zip(sequences, axes, strict=True):
        part = [row for row in rows if row["key"]["cell"]["sequence"] == sequence]
        for panel, (title, share) in zip(line, SHARES.items(), strict=True):
            panel.set(title=f"{sequence}: {title}, %", xlabel="requests", ylim=(0, 103))
            panel.grid(alpha=0.3)
            panel.xaxis.get_major_locator().set_params(integer=True)
            for colour, one in zip(pyplot.get_cmap("tab20").colors, names, strict=False):
                own = [row for row in part if name(row) == one]
                numbers = sorted({row["key"]["request"] for row in own})
                found = [100 * share([row for row in own if row["key"]["request"] == at]) for at in numbers]
                panel.plot([at + 1 for at in numbers], found, color=colour, marker=".", label=one)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right upper", fontsize=9)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _kept_share(rows: Sequence[Row], kind: str) -> float:
    before, after = (_sum(part) for part in zip(*(kept(row, kind) for row in rows), strict=True))
    return after["k"] / max(1, before["k"])


SHARES: dict[str, Callable[[Sequence[Row]], float]] = {
    "erased, of all so far": lambda part: _share(_sum(row["all"] for row in part), wrong=True),
    "kept objects": lambda part: _kept_share(part, "object"),
    "kept styles": lambda part: _kept_share(part, "style"),
}
