"""The painter: from a :class:`Picture` to 64 x 64 pixels, the same every time.

The drawings are the glyphs of Noto Color Emoji (Debian package ``fonts-noto-color-emoji``, SIL Open Font License). The
font is needed to paint and to train only; the shipped models and evaluators never open it.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pictures import Picture
from styles import STYLE_FILTERS, Array, Filter
from unlearnkit.canvas import world
from unlearnkit.errors import InputError

__all__ = ["FONT", "LARGE", "NEEDED", "SIZE", "finish", "paint", "paint_many", "painted_grid", "place"]

T = TypeVar("T")

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
NEEDED = f"the painter needs the font {FONT}: run 'apt-get install fonts-noto-color-emoji'"
SIZE = 64
LARGE = 96  # painted at this size, then reduced
_GLYPH = 109  # the font's only bitmap size


@functools.lru_cache(maxsize=256)
def _glyph(character: str) -> Image.Image:
    if not FONT.is_file():
        raise InputError(NEEDED)
    font = ImageFont.truetype(str(FONT), _GLYPH)
    sheet = Image.new("RGBA", (2 * _GLYPH, 2 * _GLYPH))
    ImageDraw.Draw(sheet).text((_GLYPH // 2, _GLYPH // 2), character, font=font, embedded_color=True)
    box = sheet.getbbox()
    if box is None:
        raise InputError(f"the font {FONT} has no drawing for {character!r}: install a newer one")
    return sheet.crop(box)


def place(character: str, rng: np.random.Generator) -> Array:
    """The drawing somewhere on an empty sheet, scaled, tilted, perhaps mirrored: float32 (96, 96, 4) in [0, 1]."""
    glyph = _glyph(character)
    scale = rng.uniform(0.70, 0.90) * LARGE / max(glyph.size)
    size = max(1, round(glyph.width * scale)), max(1, round(glyph.height * scale))
    glyph = glyph.resize(size, Image.Resampling.LANCZOS)
    if rng.random() < 0.5:
        glyph = glyph.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    glyph = glyph.rotate(rng.uniform(-12, 12), Image.Resampling.BICUBIC, expand=True)
    glyph.thumbnail((LARGE, LARGE))
    room = np.array([LARGE - glyph.width, LARGE - glyph.height])
    corner = (room * rng.uniform(0.2, 0.8, 2)).astype(int)
    sheet = Image.new("RGBA", (LARGE, LARGE))
    sheet.paste(glyph, (int(corner[0]), int(corner[1])))
    return np.asarray(sheet, np.float32) / 255


def finish(drawn: Array, background: str, style: Filter, rng: np.random.Generator) -> NDArray[np.uint8]:
    """What is drawn on a sheet (96, 96, 4), on its background and in its style: uint8 (64, 64, 3)."""
    alpha = drawn[..., 3]
    ground = np.array(world.BACKGROUNDS[background], np.float32) / 255
    ground = ground + rng.normal(0, 0.03, 3).astype(np.float32)
    rgb = np.clip(drawn[..., :3] * alpha[..., None] + ground * (1 - alpha[..., None]), 0, 1)
    styled = style(rgb, alpha, rng).astype(np.float32)
    full = Image.fromarray((np.clip(styled, 0, 1) * 255 + 0.5).astype(np.uint8))
    return np.asarray(full.resize((SIZE, SIZE), Image.Resampling.BOX))


def paint(picture: Picture) -> NDArray[np.uint8]:
    """Paint one picture: uint8 (64, 64, 3). Equal pictures give equal pixels."""
    rng = np.random.default_rng(picture.seed)
    drawn = place(picture.glyph, rng)
    return finish(drawn, picture.background, STYLE_FILTERS[picture.style], rng)


def paint_many(
    pictures: Sequence[T],
    by: Callable[[T], NDArray[np.uint8]],
    *,
    processes: int | None = None,
    tick: Callable[[int, int], None] | None = None,
) -> NDArray[np.uint8]:
    """Paint all pictures with ``by``: uint8 (n, 64, 64, 3), in order, whatever the number of processes.

    processes: as many as there are processors by default.
    """
    out = np.empty((len(pictures), SIZE, SIZE, 3), np.uint8)
    if processes == 1:
        for i, picture in enumerate(pictures):
            out[i] = by(picture)
        return out
    with ProcessPoolExecutor(processes) as pool:
        for i, pixels in enumerate(pool.map(by, pictures, chunksize=64)):
            out[i] = pixels
            if tick and (i + 1) % 1000 == 0:
                tick(i + 1, len(pictures))
    return out


def painted_grid(seed: int = 0, scale: int = 1) -> Image.Image:
    """One row an object, one column a style: what the world looks like."""
    rng = random.Random(seed)
    sheet = Image.new("RGB", (len(world.STYLES) * (SIZE + 2), len(world.OBJECTS) * (SIZE + 2)), "black")
    for row, thing in enumerate(world.OBJECTS.values()):
        for column, style in enumerate(world.STYLES):
            background, glyph = rng.choice(list(world.BACKGROUNDS)), rng.choice(thing.glyphs)
            one = Picture(thing.name, style, background, glyph, rng.getrandbits(48))
            sheet.paste(Image.fromarray(paint(one)), (column * (SIZE + 2), row * (SIZE + 2)))
    return sheet.resize((sheet.width * scale, sheet.height * scale), Image.Resampling.NEAREST)
