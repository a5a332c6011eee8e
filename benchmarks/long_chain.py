"""A chain of 24 requests on the canvas, 18 objects and 6 styles: what is gone, what is kept, and how fast.

    python benchmarks/long_chain.py run [--contender "uce-diverse, joint" ...] [--order 0 ...]    resumable

After 12 and 24 requests the held-out classifier (``--eye guide``: the validation classifier, for choosing) looks at
four pictures of every word that was erased and eight of every word that was not, always the same prompts and seeds.
Seconds are of one processor thread: making a request's edit and writing it down, without the look. Rows are appended to
``results/long_chain.jsonl``; ``together.py table`` writes docs/many.md from them.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from cells import concept, sampler
from rows import keep, markdown, plain, read

from unlearnkit import chain, load
from unlearnkit.canvas.held_out import held_out_classifier
from unlearnkit.canvas.validation import validation_classifier
from unlearnkit.chain.project import open_chain
from unlearnkit.errors import UnlearnError
from unlearnkit.io.files import slug
from unlearnkit.methods import resolve
from unlearnkit.metrics.stats import wilson
from unlearnkit.model.model import Model
from unlearnkit.schema import Request
from unlearnkit.settings import changed
from unlearnkit.suites.vocabulary import panel

ROWS = Path(__file__).parent / "results" / "long_chain.jsonl"
RUNS = Path("runs") / "long_chain"
ORDERS, LOOKS = (0, 1, 2, 3, 4), (12, 24)
ERASED, KEPT = 4, 8  # pictures of a word
REQUESTS = (
    *(
        "cat",
        "van gogh",
        "car",
        "apple",
        "pixel art",
        "tree",
        "castle",
        "watercolor",
        "owl",
        "pop art",
        "frog",
    ),
    *(
        "airplane",
        "rocket",
        "pizza",
        "blueprint",
        "cactus",
        "guitar",
        "bear",
        "halftone",
        "fish",
        "bus",
        "banana",
    ),
    *("flower", "trumpet"),
)
CONTENDERS: dict[str, dict[str, Any]] = {
    "uce-diverse, joint": {"method": "uce-diverse", "regime": "joint"},
    "uce-diverse, joint, 40 sentences": {
        "method": "uce-diverse",
        "regime": "joint",
        "settings": {"sentences": 40, "erase_weight": 30.0},  # as much as 120 with 10
    },
    "uce-diverse": {"method": "uce-diverse"},
    "uce, joint": {"method": "uce", "regime": "joint"},
    "as shipped": {"method": "esd"},  # with the guards that a chain has by default
    "uce": {"method": "uce"},
    "uce, anchor": {"method": "uce", "guards": {"anchor": True, "free": 0.0}},
    "uce, history": {"method": "uce", "guards": {"history": 0.9, "free": 0.0}},
    "uce, anchor, history": {"method": "uce", "guards": {"anchor": True, "history": 0.9, "free": 0.0}},
    "dp": {"method": "dp"},
}


def requests(order: int) -> list[str]:
    """The names in this order; order 0 is as they are written."""
    found = list(REQUESTS)
    if order:
        random.Random(order).shuffle(found)
    return found


def run(contender: str, order: int, model: Model, eye: str) -> None:
    """Go on with a chain, and append a row for each look that is not there."""
    made, names = CONTENDERS[contender], requests(order)
    folder = RUNS / f"{slug(contender)}-{order}"
    if not folder.exists():
        chain.init(folder, model, pictures=0, **made)
    there = [row["key"] for row in read(ROWS)]
    for number, name in enumerate(names, 1):
        if len(open_chain(folder).steps) < number:
            began = time.process_time()
            try:
                chain.add(folder, concept(name), model=model)
            except UnlearnError as error:
                print(f"{contender}, order {order}: failed at request {number}, {name}: {error}", flush=True)
                return
            with (folder / "seconds").open("a", encoding="utf-8") as file:
                file.write(f"{time.process_time() - began:.3f}\n")
        if number not in LOOKS:
            continue
        filled = resolve(model, Request((concept(name),)), made["method"], made.get("settings", {}))
        key = {"contender": contender, "made": made, "settings": changed(filled), "order": order, "of": names}
        key |= {"base": model.fingerprint()[:12], "drawn by": sampler(model), "requests": number, "eye": eye}
        if plain(key) not in there and number == len(open_chain(folder).steps):
            took = [float(line) for line in (folder / "seconds").read_text().split()]
            size = sum(path.stat().st_size for path in (folder / "edits").iterdir())
            facts = {"seconds": round(mean(took), 3), "slowest": max(took), "edits MB": round(size / 1e6, 2)}
            keep(ROWS, {"key": plain(key), **look(folder, names[:number], model, eye), **facts})


def look(folder: Path, names: Sequence[str], model: Model, eye: str) -> dict[str, Any]:
    """Shares [k, n] of pictures: of erased words that are gone, of others that are right, before and after."""
    request = Request(tuple(map(concept, names)))
    gone = [case for case in panel(request, model.hints, ERASED) if case.role == "erased"]
    rest = [case for case in panel(request, model.hints, KEPT) if case.role != "erased"]
    sees = (held_out_classifier if eye == "judge" else validation_classifier)()
    edit = chain.edit(folder, model=model)

    def seen(cases: Sequence[Any]) -> list[Any]:
        texts, seeds = [case.prompt for case in cases], [case.seed for case in cases]
        return sees.classify(model.sample(texts, seeds, batch=50))

    before = seen(rest)
    with model.wearing(edit):
        left, after = seen(gone), seen(rest)
    still: dict[str, int] = {}
    for case, found in zip(gone, left, strict=True):
        if getattr(found, concept(case.concept).kind) == case.concept:
            still[case.concept] = still.get(case.concept, 0) + 1
    figures: dict[str, Any] = {"gone": [len(gone) - sum(still.values()), len(gone)], "still seen": still}
    for kind in ("object", "style"):
        told = [(getattr(case, kind), place) for place, case in enumerate(rest) if getattr(case, kind)]
        counts = [sum(getattr(side[n], kind) == word for word, n in told) for side in (before, after)]
        figures[f"kept {kind}s"] = {"before": [counts[0], len(told)], "after": [counts[1], len(told)]}
    return figures


def _cells(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A row of the table: all orders together, and the worst of them."""
    gone = [sum(column) for column in zip(*(row["gone"] for row in rows), strict=True)]
    shares = [row["gone"][0] / row["gone"][1] for row in rows]
    cells = [rows[0]["key"]["contender"], str(len(rows)), f"{_share(*gone)}, worst {100 * min(shares):.1f}"]
    for kind in ("kept objects", "kept styles"):
        kept = [row[kind]["after"][0] / row[kind]["before"][0] for row in rows]
        after, before = (sum(row[kind][side][0] for row in rows) for side in ("after", "before"))
        cells.append(f"{after} of {before} ({100 * after / before:.1f} %), worst {100 * min(kept):.1f}")
    cells += [f"{mean(row['seconds'] for row in rows):.2f}", f"{max(row['slowest'] for row in rows):.2f}"]
    return [*cells, f"{max(row['edits MB'] for row in rows):.1f}"]


def _share(k: int, n: int) -> str:
    low, high = wilson(k, n)
    return f"{100 * k / n:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def table(count: int) -> str:
    """The table in Markdown, of the judge's rows after so many requests."""
    heads = ("contender", "orders", "gone", "objects kept", "styles kept", "s a request", "slowest", "MB")
    found = []
    for contender in CONTENDERS:
        rows = [
            row
            for row in read(ROWS)
            if (row["key"]["contender"], row["key"]["requests"], row["key"]["eye"])
            == (contender, count, "judge")
        ]
        found += [_cells(rows)] if rows else []
    return "\n".join(markdown(heads, found)) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["run"])
    parser.add_argument("--contender", action="append", choices=list(CONTENDERS), help="default: all")
    parser.add_argument("--order", action="append", type=int, choices=ORDERS, help="default: all")
    parser.add_argument("--eye", default="judge", choices=["judge", "guide"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    opened = load("canvas")
    for turn in given.order or ORDERS:
        for one in given.contender or CONTENDERS:
            run(one, turn, opened, given.eye)
