"""``unlearnkit canvas check``: what the evaluators and the models of the canvas can do, in figures and in a grid."""

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
from ..seeds import derive
from . import WEIGHTS, world
from .evaluators import Seen, alignment, held_out_classifier, validation_classifier

if TYPE_CHECKING:
    from ..models.model import Model

__all__ = [
    "Cell",
    "cells",
    "check",
    "check_never_knew",
    "clip_choices",
    "draw_cells",
    "few_cells",
    "look_all",
    "never_knew",
    "seen_right",
    "sheet",
]

Tick = Callable[[str, int, int], None]


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
    """Every object in every style, ``replicates`` times; a cell's seed depends on nothing but the cell."""
    grid = itertools.product(objects, styles, range(replicates))
    return [Cell(o, s, derive(world.VERSION, "cell", o, s, r)) for o, s, r in grid]


def few_cells() -> list[Cell]:
    """Every object once, and the styles in turn."""
    styles = itertools.cycle(world.STYLES)
    return [cell for name in world.OBJECTS for cell in cells(1, objects=[name], styles=[next(styles)])]


def never_knew(**options: Any) -> Model:
    """The canvas model with the U-Net that never saw ``world.NEVER_KNEW_OBJECTS`` and ``NEVER_KNEW_STYLES``."""
    from diffusers import UNet2DConditionModel

    from ..families.opening import quiet
    from ..models.load import load
    from ..models.model import Model

    canvas = load("canvas", **options)
    with quiet():
        unet = UNet2DConditionModel.from_pretrained(WEIGHTS / "never-knew").to(canvas.device, canvas.dtype)
    parts = canvas.pipe.components | {"unet": unet.eval()}
    pipe = type(canvas.pipe)(**parts, requires_safety_checker=False)
    return Model(pipe, source="never-knew", hints=canvas.hints)


def draw_cells(
    model: Model, wanted: Sequence[Cell], folder: Path, *, tick: Callable[[int, int], None] | None = None
) -> list[Image.Image]:
    """The cells' pictures, in order, each written to ``folder``; those that are there already are read."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{slug(c.object)}-{slug(c.style)}-{c.seed}.png" for c in wanted]
    missing = [i for i, path in enumerate(paths) if not path.is_file()]
    for start in range(0, len(missing), 60):
        part = missing[start : start + 60]
        chosen = [wanted[i] for i in part]
        images = model.sample(
            [c.object if model.classes else c.prompt for c in chosen], [c.seed for c in chosen], batch=60
        )
        for i, image in zip(part, images, strict=True):
            with atomic_file(paths[i]) as partial:
                image.save(partial, "PNG")
        if tick:
            tick(len(wanted) - len(missing) + start + len(part), len(wanted))
    return [read_picture(path).convert("RGB") for path in paths]


def sheet(wanted: Sequence[Cell], images: Sequence[Image.Image]) -> Image.Image:
    """One row an object, one column a style: the first picture of each cell."""
    objects = list(dict.fromkeys(c.object for c in wanted))
    styles = list(dict.fromkeys(c.style for c in wanted))
    page = Image.new("RGB", (len(styles) * 66, len(objects) * 66), "black")
    for cell, image in reversed(list(zip(wanted, images, strict=True))):
        page.paste(image, (styles.index(cell.style) * 66, objects.index(cell.object) * 66))
    return page


def _share(rows: Sequence[bool]) -> float:
    return round(100 * sum(rows) / len(rows), 2) if rows else 0.0


def _shares(rows: Sequence[bool], names: Sequence[str]) -> dict[str, float]:
    return {
        name: _share([row for row, other in zip(rows, names, strict=True) if other == name])
        for name in dict.fromkeys(names)
    }


def seen_right(wanted: Sequence[Cell], seen: Sequence[Seen]) -> dict[str, Any]:
    """Percentages of pictures with the right object and the right style, in all and by object and style."""
    objects = [c.object == s.object for c, s in zip(wanted, seen, strict=True)]
    styles = [c.style == s.style for c, s in zip(wanted, seen, strict=True)]
    return {
        "object": _share(objects),
        "style": _share(styles),
        "by object": _shares(objects, [c.object for c in wanted]),
        "by style": _shares(styles, [c.style for c in wanted]),
        "objects by style": _shares(objects, [c.style for c in wanted]),
    }


def clip_choices(wanted: Sequence[Cell], images: Sequence[Image.Image]) -> list[Seen]:
    """The CLIP as a zero-shot classifier: among all objects in the right style, then among styles."""
    objects, styles = list(world.OBJECTS), list(world.STYLES)
    by_object = alignment().choose(images, [[world.prompt(o, c.style) for o in objects] for c in wanted])
    by_style = alignment().choose(images, [[world.prompt(c.object, s) for s in styles] for c in wanted])
    return [Seen(objects[o], styles[s], 1.0, 1.0) for o, s in zip(by_object, by_style, strict=True)]


def look_all(wanted: Sequence[Cell], images: Sequence[Image.Image]) -> dict[str, list[Seen]]:
    """What every evaluator sees in the cells' pictures."""
    return {
        "judge": held_out_classifier().classify(images),
        "guide": validation_classifier().classify(images),
        "clip": clip_choices(wanted, images),
    }


def _agreement(a: Sequence[Seen], b: Sequence[Seen]) -> dict[str, float]:
    return {
        "object": _share([x.object == y.object for x, y in zip(a, b, strict=True)]),
        "style": _share([x.style == y.style for x, y in zip(a, b, strict=True)]),
    }


def check(
    out: Path, *, replicates: int = 10, quick: bool = False, tick: Tick | None = None
) -> dict[str, Any]:
    """Draw every cell with all models and let every evaluator look. Writes ``check.json`` and grids into ``out``.

    replicates: pictures a cell. quick: ``few_cells`` instead. tick: called as ``tick(what, done, total)``. Returns what
    ``check.json`` holds; all figures are percentages. The pictures stay in ``out``, by model, and none that is there is
    drawn again.
    """
    from ..models.load import RELATIVES, folder_of, load

    out.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {}
    wanted = few_cells() if quick else cells(replicates)

    def draw(model: Model, name: str) -> list[Image.Image]:
        folder = out / f"{name}-{model.fingerprint()[:12]}"
        images = draw_cells(model, wanted, folder, tick=(lambda i, n: tick(name, i, n)) if tick else None)
        sheet(wanted, images).save(out / f"{name}.png")
        return images

    images = draw(load("canvas"), "canvas")
    looks = look_all(wanted, images)
    facts["canvas"] = {name: seen_right(wanted, seen) for name, seen in looks.items()}
    facts["agreement"] = {
        f"{a} and {b}": _agreement(looks[a], looks[b])
        for a, b in (("judge", "guide"), ("judge", "clip"), ("guide", "clip"))
    }
    apart = [
        i
        for i, (a, b) in enumerate(zip(looks["judge"], looks["guide"], strict=True))
        if (a.object, a.style) != (b.object, b.style)
    ]
    _disagreements(wanted, images, looks, apart).save(out / "disagreements.png")
    if (WEIGHTS / "never-knew").is_dir():
        facts["never-knew"] = check_never_knew(wanted, draw(never_knew(), "never-knew"), looks["judge"])
    for name in RELATIVES:
        if folder_of(name).is_dir():
            facts[name] = _check_relative(load(name), wanted, draw, name)
    (out / "check.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return facts


def _check_relative(
    model: Model, wanted: Sequence[Cell], draw: Callable[[Model, str], list[Image.Image]], name: str
) -> dict[str, Any]:
    """What the judge sees. A model that is told a class gets the cells' objects; its styles are its own choice."""
    seen = held_out_classifier().classify(draw(model, name))
    found = seen_right(wanted, seen)
    return {key: found[key] for key in ("object", "by object")} if model.classes else found


def check_never_knew(
    wanted: Sequence[Cell], images: Sequence[Image.Image], base: Sequence[Seen]
) -> dict[str, Any]:
    """What the missing words yield, and how both models do on the cells that touch none of the missing concepts."""
    pairs = list(zip(wanted, held_out_classifier().classify(images), strict=True))
    gone = {o: _share([s.object == o for c, s in pairs if c.object == o]) for o in world.NEVER_KNEW_OBJECTS}
    gone |= {t: _share([s.style == t for c, s in pairs if c.style == t]) for t in world.NEVER_KNEW_STYLES}
    rest = [
        i
        for i, c in enumerate(wanted)
        if c.object not in world.NEVER_KNEW_OBJECTS and c.style not in world.NEVER_KNEW_STYLES
    ]
    kept = [wanted[i] for i in rest]
    return {
        "missing words yield": gone,
        "rest": seen_right(kept, [pairs[i][1] for i in rest]),
        "rest of the canvas model": seen_right(kept, [base[i] for i in rest]),
    }


def _disagreements(
    wanted: Sequence[Cell], images: Sequence[Image.Image], looks: dict[str, list[Seen]], apart: Sequence[int]
) -> Image.Image:
    """Up to 48 pictures on which judge and guide differ, with what each of them says."""
    from PIL import ImageDraw

    shown = random.Random(0).sample(list(apart), min(48, len(apart)))
    page = Image.new("RGB", (8 * 150, (len(shown) + 7) // 8 * 170 + 20), "white")
    pen = ImageDraw.Draw(page)
    pen.text((4, 4), f"{len(apart)} of {len(wanted)} pictures on which judge and guide differ", fill="black")
    for place, i in enumerate(shown):
        x, y = place % 8 * 150, 20 + place // 8 * 170
        page.paste(images[i].resize((112, 112), Image.Resampling.NEAREST), (x, y))
        asked = f"asked {wanted[i].object}, {wanted[i].style}"
        lines = [asked] + [
            f"{name} {looks[name][i].object}, {looks[name][i].style}" for name in ("judge", "guide")
        ]
        pen.multiline_text((x, y + 114), "\n".join(lines), fill="black", font_size=9)
    return page
