"""The sweep around the canvas defaults of ESD and UCE, and the measurement of what was chosen.

    python benchmarks/canvas_defaults.py sweep      every setting below, few pictures, seen by the guide
    python benchmarks/canvas_defaults.py measure    the shipped defaults, many pictures, seen by the judge

Rows are appended to benchmarks/results/canvas_defaults.jsonl; a row that is there is not made again. ``measure`` draws
200 pictures of the erased concept by name and every other cell of the world (as often as --replicates says), before
and after, with the same seeds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from unlearnkit import Concept, load
from unlearnkit.canvas import world
from unlearnkit.canvas.check import Cell, cells, sheet
from unlearnkit.canvas.evaluators import Eye, guide, judge
from unlearnkit.methods import edit_for
from unlearnkit.model import Model
from unlearnkit.schema import Request
from unlearnkit.seeds import derive

RESULTS = Path(__file__).parent / "results" / "canvas_defaults.jsonl"
TARGETS = (Concept("cat"), Concept("van gogh", "style"))

SWEEP: dict[str, dict[str, list[Any]]] = {
    "esd": {
        "trains": ["xattn"],
        "start": ["pictures"],
        "steps": [120],
        "batch": [8],
        "lr": [5e-4],
        "eta": [1.0, 1.3, 2.0],
        "keep": [1.0, 3.0],
        "keep_pictures": [10],
        "pictures": [27],
        "templates": [True],
    },
    "uce": {
        "ridge": [0.03, 0.1],
        "neighbours": [16, 32],
        "erase_scale": [1.0, 5.0],
        "tokens": ["all"],
        "templates": [True],
    },
}


def erased_cells(concept: Concept, count: int) -> list[Cell]:
    """``count`` cells of the concept: an object in all styles in turn, a style of all objects in turn."""
    if concept.kind == "object":
        pairs = itertools.cycle((concept.name, style) for style in world.STYLES)
    else:
        pairs = itertools.cycle((name, concept.name) for name in world.OBJECTS)
    chosen = enumerate(itertools.islice(pairs, count))
    return [Cell(o, s, derive(7, "erased", o, s, i)) for i, (o, s) in chosen]


def kept_cells(concept: Concept, replicates: int, every: int = 1) -> list[Cell]:
    """Cells that do not touch the concept: all of them, or a spread of one in ``every``."""
    kept = [c for c in cells(replicates) if concept.name not in (c.object, c.style)]
    return [c for i, c in enumerate(kept) if (i // replicates) % every == i % replicates % every]


def share(wanted: Sequence[Cell], images: Sequence[Image.Image], eye: Eye, kind: str) -> float:
    seen = eye.look(images)
    right = [getattr(s, kind) == getattr(c, kind) for c, s in zip(wanted, seen, strict=True)]
    return round(100 * sum(right) / len(right), 2)


def draw(model: Model, wanted: Sequence[Cell]) -> list[Image.Image]:
    return model.sample([c.prompt for c in wanted], [c.seed for c in wanted], batch=50)


def figures(model: Model, concept: Concept, gone: list[Cell], kept: list[Cell], eye: Eye) -> dict[str, float]:
    left, rest = draw(model, gone), draw(model, kept)
    other = "style" if concept.kind == "object" else "object"
    return {
        "erased left": share(gone, left, eye, concept.kind),
        "kept objects": share(kept, rest, eye, "object"),
        "kept styles": share(kept, rest, eye, "style"),
        "the other kind on erased prompts": share(gone, left, eye, other),
    }


def done_already() -> dict[str, dict[str, Any]]:
    lines = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.is_file() else []
    return {json.dumps(row["key"], sort_keys=True): row for row in map(json.loads, lines)}


def row(key: dict[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    found = done_already().get(json.dumps(key, sort_keys=True))
    if found is None:
        found = {"key": key, **make()}
        RESULTS.parent.mkdir(exist_ok=True)
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
    print(json.dumps(found), flush=True)
    return found


def grid(method: str) -> Iterator[dict[str, Any]]:
    names = SWEEP[method]
    for values in itertools.product(*names.values()):
        yield dict(zip(names, values, strict=True))


@dataclass(frozen=True)
class Trial:
    """One concept and the pictures by which its erasure is judged."""

    model: Model
    concept: Concept
    gone: list[Cell]
    kept: list[Cell]
    eye: Eye

    def before(self) -> dict[str, Any]:
        return figures(self.model, self.concept, self.gone, self.kept, self.eye)

    def after(self, method: str, settings: dict[str, Any], page: Path | None = None) -> dict[str, Any]:
        began = time.monotonic()
        edit = edit_for(self.model, Request((self.concept,)), method=method, settings=settings)
        seconds = round(time.monotonic() - began, 1)
        with self.model.wearing(edit):
            if page:
                sheet(cells(1), draw(self.model, cells(1))).save(page)
            return self.before() | {"seconds": seconds}


def sweep(model: Model, methods: Sequence[str]) -> None:
    printed = model.fingerprint()[:12]
    for concept in TARGETS:
        trial = Trial(model, concept, erased_cells(concept, 40), kept_cells(concept, 1, every=3), guide())
        about = {"base": printed, "concept": concept.name}
        row(about, trial.before)
        for method in methods:
            for settings in grid(method):
                key = about | {"method": method, "settings": settings}
                row(key, partial(trial.after, method, settings))


def measure(model: Model, methods: Sequence[str], replicates: int, out: Path) -> None:
    printed = model.fingerprint()[:12]
    out.mkdir(parents=True, exist_ok=True)
    for concept in TARGETS:
        trial = Trial(model, concept, erased_cells(concept, 200), kept_cells(concept, replicates), judge())
        about = {"base": printed, "concept": concept.name, "measured": replicates}
        row(about, trial.before)
        for method in methods:
            key = about | {"method": method, "hints": model.hints.settings(method, concept.kind)}
            page = out / f"{method}-{concept.name.replace(' ', '-')}.png"
            row(key, partial(trial.after, method, {}, page))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["sweep", "measure"])
    parser.add_argument("--method", action="append", choices=list(SWEEP))
    parser.add_argument("--replicates", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/canvas_defaults"))
    given = parser.parse_args()
    opened = load("canvas")
    if given.what == "sweep":
        sweep(opened, given.method or list(SWEEP))
    else:
        measure(opened, given.method or list(SWEEP), given.replicates, given.out)
