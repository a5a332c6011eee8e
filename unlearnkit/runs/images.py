"""Images for people: PNG files, and sheets of images before and after an edit with the same seeds."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from ..data.pictures import images
from ..data.prompts import neighbours as nearest
from ..data.superclasses import broader
from ..data.wording import format_prompt
from ..errors import InputError, quoted
from ..io.files import atomic_file, slug, tidy, writing
from ..io.tick import Advance, Tick, stage
from ..schema import Concept, Request, as_seed, check_unicode, folded

if TYPE_CHECKING:
    from ..model.edit import Edit
    from ..model.model import Model

__all__ = ["before_and_after", "draw", "neighbours", "save_png", "sheet", "shown"]

ROWS = 24  # of erased concepts in a grid, and of concepts that a request keeps
INK, PAPER, GAP, TEXT = "#1a1a1a", "#ffffff", 4, 16


def save_png(image: Image.Image, path: Path, *, facts: Mapping[str, Any] | None = None) -> None:
    """Write a PNG, complete or not at all; ``facts`` go into its text chunk ``unlearnkit`` as JSON."""
    notes = PngInfo()
    if facts:
        notes.add_itxt("unlearnkit", json.dumps(facts, ensure_ascii=False))
    with atomic_file(path) as partial:
        image.save(partial, format="PNG", pnginfo=notes)


def draw(
    model: Model,
    prompts: Sequence[str],
    folder: Path,
    *,
    seeds: Sequence[int] = (0,),
    steps: int | None = None,
    guidance: float | None = None,
    negative: str | None = None,
    edit: Edit | None = None,
    tick: Advance | None = None,
) -> list[Path]:
    """Draw every prompt with every seed into ``folder``, one PNG each, and return the paths, prompt by prompt.

    steps, guidance: None: the model's default. edit: applied while drawing.
    A PNG has prompt, seed and edit in its text chunk. Raises InputError for an empty prompt, a file that
    exists (none is overwritten) and a folder that cannot be written.
    """
    if not prompts or any(not prompt.strip() for prompt in prompts):
        raise InputError('the prompt is empty: say what to draw, for example --prompt "a picture of a dog"')
    for prompt in (*prompts, negative or ""):
        check_unicode(prompt)
    seeds = [as_seed(seed) for seed in seeds]
    cases = [(prompt, seed) for prompt in dict.fromkeys(prompts) for seed in seeds]
    names = [slug(prompt) for prompt in dict.fromkeys(prompts)]
    numbers = {
        prompt: f"-{i}" if names.count(name) > 1 else ""
        for i, (prompt, name) in enumerate(zip(dict.fromkeys(prompts), names, strict=True))
    }
    paths = [folder / f"{slug(prompt)}{numbers[prompt]}-{seed}.png" for prompt, seed in cases]
    if len({*paths}) < len(paths):
        raise InputError("two of the pictures would have one file name: draw these prompts in two commands")
    if taken := [path for path in paths if path.exists()]:
        raise InputError(f"{quoted(taken[0])} exists already: choose another folder with --out")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        tidy(folder)
        with contextlib.nullcontext() if edit is None else model.wearing(edit):
            pictures = model.sample(
                [prompt for prompt, _ in cases],
                [seed for _, seed in cases],
                steps=steps,
                guidance=guidance,
                negative=negative,
                tick=tick,
            )
        for (prompt, seed), picture, path in zip(cases, pictures, paths, strict=True):
            facts = {"prompt": prompt, "seed": seed, "edit": None if edit is None else edit.hash()}
            save_png(picture, path, facts=facts)
    return paths


def neighbours(model: Model, request: Request, *, near: int = 6, far: int = 2) -> list[Concept]:
    """The retained concepts that are shown next to the erased ones.

    First the request's own; then, from the model's vocabulary, the ``near`` words of the erased kinds and the ``far``
    words of the other kind whose text states are closest to the erased concepts. Words that share a superclass with an
    erased one come first: a text encoder may place a pizza closer to a cat than a dog.
    """
    kinds = {concept.kind for concept in request.erase}
    retained = {word for concept in request.keep for word in concept.folded}
    ranked = nearest(model, Request(request.erase), sys.maxsize)
    ranked = tuple(concept for concept in ranked if folded(concept.name) not in retained)
    within = {broader(wording) for concept in request.erase for wording in concept.wordings} - {None}
    close = [concept for concept in ranked if concept.kind in kinds]
    close.sort(key=lambda concept: broader(concept.name) not in within)
    other = [concept for concept in ranked if concept.kind not in kinds]
    return [*_sample(request.keep), *close[:near], *other[:far]]


def shown(request: Request) -> tuple[Concept, ...]:
    """The erased concepts with a row in the grid: all, or ``ROWS`` of them, evenly spaced from the first one on."""
    return _sample(request.erase)


def _sample(concepts: tuple[Concept, ...]) -> tuple[Concept, ...]:
    count = len(concepts)
    return concepts if count <= ROWS else tuple(concepts[place * count // ROWS] for place in range(ROWS))


def before_and_after(
    model: Model,
    request: Request,
    edit: Edit,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    tick: Tick | None = None,
) -> Image.Image:
    """One row for each erased concept and each retained neighbour: left before the edit, right after it.

    At most ``ROWS`` concepts of a side are shown, see ``shown``.

    Both halves of a row use the same seeds. The half before the edit comes from the cache of pictures if it is there.
    tick: called as tick("drawing", done, total).
    """
    concepts = [("erased", one) for one in shown(request)] + [
        ("kept", one) for one in neighbours(model, request)
    ]
    prompts = [format_prompt(model.hints.templates[one.kind][0], one.name) for _, one in concepts]
    cases = [prompt for prompt in prompts for _ in seeds]
    drawn = [seed for _ in prompts for seed in seeds]
    first, second = (stage(tick, "drawing", start, 2 * len(cases)) for start in (0, len(cases)))
    before = images(model, cases, drawn, tick=first)
    with model.wearing(edit):
        after = model.sample(cases, drawn, tick=second)
    width = len(seeds)
    rows = [
        (f"{role}: {prompt}", before[i * width : (i + 1) * width] + after[i * width : (i + 1) * width])
        for i, ((role, _), prompt) in enumerate(zip(concepts, prompts, strict=True))
    ]
    return sheet(rows, groups=("before", "after"))


def sheet(rows: Sequence[tuple[str, Sequence[Image.Image]]], *, groups: Sequence[str] = ("",)) -> Image.Image:
    """A contact sheet: per row a caption and images, in ``groups`` of equal size with a heading each.

    Images are scaled to 128 to 256 pixels, small ones by whole factors without smoothing.
    """
    first = rows[0][1][0]
    cell = _cell(max(first.size))
    each = len(rows[0][1]) // len(groups)
    font = ImageFont.load_default(size=TEXT)
    captions = [_wrapped(caption, font, 200) for caption, _ in rows]
    left = max(int(font.getlength(line)) for lines in captions for line in lines) + 4 * GAP
    top = TEXT + 3 * GAP
    group_width = each * (cell + GAP) + 4 * GAP
    page = Image.new("RGB", (left + len(groups) * group_width, top + len(rows) * (cell + GAP) + GAP), PAPER)
    pen = ImageDraw.Draw(page)
    for g, heading in enumerate(groups):
        pen.text((left + g * group_width, GAP), heading, fill=INK, font=font)
    for r, (_, pictures) in enumerate(rows):
        y = top + r * (cell + GAP)
        pen.multiline_text((2 * GAP, y + cell // 2), "\n".join(captions[r]), fill=INK, font=font, anchor="lm")
        for i, picture in enumerate(pictures):
            x = left + (i // each) * group_width + (i % each) * (cell + GAP)
            page.paste(_sized(picture, cell), (x, y))
    return page


def _cell(size: int) -> int:
    """Pixels of a picture on the sheet."""
    return min(256, size * max(1, -(-128 // size)))


def _sized(picture: Image.Image, cell: int) -> Image.Image:
    method = Image.Resampling.NEAREST if max(picture.size) <= cell else Image.Resampling.LANCZOS
    scale = cell / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.convert("RGB").resize(size, method)


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """``text`` in lines of at most ``width`` pixels; a longer word is not broken."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
