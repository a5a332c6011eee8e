"""``unlearnkit canvas check``: the accuracy of the canvas's models and classifiers, in figures and grids."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..io.files import atomic_file, slug
from ..io.reading import read_picture
from ..io.tick import Advance, Tick, stage
from ..seeds import derive
from . import WEIGHTS, world
from .evaluators import Prediction, alignment, held_out_classifier, validation_classifier

if TYPE_CHECKING:
    from ..model.model import Model

__all__ = [
    "Cell",
    "accuracy",
    "cells",
    "check",
    "check_never_knew",
    "classify_all",
    "clip_choices",
    "draw_cells",
    "few_cells",
    "never_knew",
    "sheet",
]


@dataclass(frozen=True)
class Cell:
    """One picture to draw: an object in a style, and its seed."""

    object: str
    style: str
    seed: int

    @property
    def prompt(self) -> str:
        return world.prompt(self.object, self.style)


def cells(
    replicates: int = 10,
    *,
    objects: Iterable[str] = tuple(world.OBJECTS),
    styles: Iterable[str] = world.STYLES,
) -> list[Cell]:
    """Every object in every style, ``replicates`` times; a cell's seed depends only on the cell."""
    grid = itertools.product(objects, styles, range(replicates))
    return [Cell(o, s, derive(world.VERSION, "cell", o, s, r)) for o, s, r in grid]


def few_cells() -> list[Cell]:
    """Every object once, with the styles in turn."""
    styles = itertools.cycle(world.STYLES)
    return [cell for name in world.OBJECTS for cell in cells(1, objects=[name], styles=[next(styles)])]


def never_knew(**options: Any) -> Model:
    """The canvas model with the U-Net that never saw ``world.NEVER_KNEW_OBJECTS`` and ``NEVER_KNEW_STYLES``."""
    from diffusers import UNet2DConditionModel

    from ..families.opening import quiet
    from ..model.load import load
    from ..model.model import Model

    canvas = load("canvas", **options)
    with quiet():
        unet = UNet2DConditionModel.from_pretrained(WEIGHTS / "never-knew").to(canvas.device, canvas.dtype)
    parts = canvas.pipe.components | {"unet": unet.eval()}
    pipe = type(canvas.pipe)(**parts, requires_safety_checker=False)
    return Model(pipe, source="never-knew", hints=canvas.hints)


def draw_cells(
    model: Model, expected: Sequence[Cell], folder: Path, *, tick: Advance | None = None
) -> list[Image.Image]:
    """The cells' pictures, in order. Each is written to ``folder``, or read from there if it exists."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{slug(c.object)}-{slug(c.style)}-{c.seed}.png" for c in expected]
    missing = [i for i, path in enumerate(paths) if not path.is_file()]
    for start in range(0, len(missing), 60):
        part = missing[start : start + 60]
        chosen = [expected[i] for i in part]
        images = model.sample(
            [c.object if model.classes else c.prompt for c in chosen], [c.seed for c in chosen], batch=60
        )
        for i, image in zip(part, images, strict=True):
            with atomic_file(paths[i]) as partial:
                image.save(partial, "PNG")
        if tick:
            tick(len(expected) - len(missing) + start + len(part), len(expected))
    return [read_picture(path).convert("RGB") for path in paths]


def sheet(expected: Sequence[Cell], images: Sequence[Image.Image]) -> Image.Image:
    """A row per object and a column per style: the first picture of each cell."""
    objects = list(dict.fromkeys(c.object for c in expected))
    styles = list(dict.fromkeys(c.style for c in expected))
    page = Image.new("RGB", (len(styles) * 66, len(objects) * 66), "black")
    for cell, image in reversed(list(zip(expected, images, strict=True))):
        page.paste(image, (styles.index(cell.style) * 66, objects.index(cell.object) * 66))
    return page


def _share(rows: Sequence[bool]) -> float:
    return round(100 * sum(rows) / len(rows), 2) if rows else 0.0


def _shares(rows: Sequence[bool], names: Sequence[str]) -> dict[str, float]:
    return {
        name: _share([row for row, other in zip(rows, names, strict=True) if other == name])
        for name in dict.fromkeys(names)
    }


def accuracy(expected: Sequence[Cell], seen: Sequence[Prediction]) -> dict[str, Any]:
    """Percentages of pictures with the right object and the right style: overall, by object and by style."""
    objects = [c.object == s.object for c, s in zip(expected, seen, strict=True)]
    styles = [c.style == s.style for c, s in zip(expected, seen, strict=True)]
    return {
        "object": _share(objects),
        "style": _share(styles),
        "by object": _shares(objects, [c.object for c in expected]),
        "by style": _shares(styles, [c.style for c in expected]),
        "objects by style": _shares(objects, [c.style for c in expected]),
    }


def clip_choices(expected: Sequence[Cell], images: Sequence[Image.Image]) -> list[Prediction]:
    """The CLIP as a zero-shot classifier: among all objects in the right style, then among styles."""
    objects, styles = list(world.OBJECTS), list(world.STYLES)
    by_object = alignment().choose(images, [[world.prompt(o, c.style) for o in objects] for c in expected])
    by_style = alignment().choose(images, [[world.prompt(c.object, s) for s in styles] for c in expected])
    return [Prediction(objects[o], styles[s], 1.0, 1.0) for o, s in zip(by_object, by_style, strict=True)]


def classify_all(expected: Sequence[Cell], images: Sequence[Image.Image]) -> dict[str, list[Prediction]]:
    """Every evaluator's predictions for the cells' pictures."""
    return {
        "judge": held_out_classifier().classify(images),
        "guide": validation_classifier().classify(images),
        "clip": clip_choices(expected, images),
    }


def _agreement(a: Sequence[Prediction], b: Sequence[Prediction]) -> dict[str, float]:
    return {
        "object": _share([x.object == y.object for x, y in zip(a, b, strict=True)]),
        "style": _share([x.style == y.style for x, y in zip(a, b, strict=True)]),
    }


def check(
    out: Path, *, replicates: int = 10, quick: bool = False, tick: Tick | None = None
) -> dict[str, Any]:
    """Draw every cell with all models and classify it. Writes ``check.json`` and grids into ``out``.

    replicates: pictures per cell. quick: ``few_cells`` instead. tick: called as ``tick(what, done, total)``. Returns
    the content of ``check.json``; all figures are percentages. Pictures that exist in ``out`` are not drawn again.
    """
    from ..model.load import load
    from ..model.places import RELATIVES, folder_of

    out.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {}
    expected = few_cells() if quick else cells(replicates)

    def draw(model: Model, name: str) -> list[Image.Image]:
        folder = out / f"{name}-{model.fingerprint()[:12]}"
        images = draw_cells(model, expected, folder, tick=stage(tick, name))
        sheet(expected, images).save(out / f"{name}.png")
        return images

    images = draw(load("canvas"), "canvas")
    predictions = classify_all(expected, images)
    facts["canvas"] = {name: accuracy(expected, seen) for name, seen in predictions.items()}
    facts["agreement"] = {
        f"{a} and {b}": _agreement(predictions[a], predictions[b])
        for a, b in (("judge", "guide"), ("judge", "clip"), ("guide", "clip"))
    }
    differing = [
        i
        for i, (a, b) in enumerate(zip(predictions["judge"], predictions["guide"], strict=True))
        if (a.object, a.style) != (b.object, b.style)
    ]
    _disagreements(expected, images, predictions, differing).save(out / "disagreements.png")
    if (WEIGHTS / "never-knew").is_dir():
        facts["never-knew"] = check_never_knew(
            expected, draw(never_knew(), "never-knew"), predictions["judge"]
        )
    for name in RELATIVES:
        if folder_of(name).is_dir():
            facts[name] = _check_relative(load(name), expected, draw, name)
    (out / "check.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return facts


def _check_relative(
    model: Model, expected: Sequence[Cell], draw: Callable[[Model, str], list[Image.Image]], name: str
) -> dict[str, Any]:
    """Accuracy by the held-out classifier; of a class-conditional model, which has no styles, only that of objects."""
    figures = accuracy(expected, held_out_classifier().classify(draw(model, name)))
    return {key: figures[key] for key in ("object", "by object")} if model.classes else figures


def check_never_knew(
    expected: Sequence[Cell], images: Sequence[Image.Image], base: Sequence[Prediction]
) -> dict[str, Any]:
    """How often missing concepts appear, and both models' accuracy on cells without missing concepts."""
    pairs = list(zip(expected, held_out_classifier().classify(images), strict=True))
    missing = {
        o: _share([s.object == o for c, s in pairs if c.object == o]) for o in world.NEVER_KNEW_OBJECTS
    }
    missing |= {t: _share([s.style == t for c, s in pairs if c.style == t]) for t in world.NEVER_KNEW_STYLES}
    rest = [
        i
        for i, c in enumerate(expected)
        if c.object not in world.NEVER_KNEW_OBJECTS and c.style not in world.NEVER_KNEW_STYLES
    ]
    others = [expected[i] for i in rest]
    return {
        "missing words yield": missing,
        "rest": accuracy(others, [pairs[i][1] for i in rest]),
        "rest of the canvas model": accuracy(others, [base[i] for i in rest]),
    }


def _disagreements(
    expected: Sequence[Cell],
    images: Sequence[Image.Image],
    predictions: dict[str, list[Prediction]],
    differing: Sequence[int],
) -> Image.Image:
    """Up to 48 pictures on which the two classifiers differ, with both predictions."""
    from PIL import ImageDraw

    sampled = random.Random(0).sample(list(differing), min(48, len(differing)))
    page = Image.new("RGB", (8 * 150, (len(sampled) + 7) // 8 * 170 + 20), "white")
    pen = ImageDraw.Draw(page)
    pen.text(
        (4, 4),
        f"{len(differing)} of {len(expected)} pictures on which held-out and validation classifier differ",
        fill="black",
    )
    for place, i in enumerate(sampled):
        x, y = place % 8 * 150, 20 + place // 8 * 170
        page.paste(images[i].resize((112, 112), Image.Resampling.NEAREST), (x, y))
        lines = [f"expected {expected[i].object}, {expected[i].style}"] + [
            f"{name} {predictions[name][i].object}, {predictions[name][i].style}"
            for name in ("judge", "guide")
        ]
        pen.multiline_text((x, y + 114), "\n".join(lines), fill="black", font_size=9)
    return page
