"""Pictures of nothing that the world knows, from which the evaluators learn to say so.

An evaluator that must choose among the world's objects calls every blob one of them, and what is left of an erased
concept is overstated. So some of these pictures show no object of the world (other drawings, two drawings at once,
distorted ones, blobs, an empty sheet), some are in none of its styles (two at once, other filters), some both.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from painter import LARGE, finish, place
from pictures import UNKNOWN
from styles import STYLE_FILTERS, Array, Filter
from unlearnkit.canvas import world

__all__ = ["Unknown", "draw_unknown", "paint_unknown"]

ALIKE = ({"plain", "watercolor"}, {"plain", "pixel art"})  # styles between which there is nothing else to see


@dataclass(frozen=True)
class Unknown:
    """What one picture is made of; ``object`` and ``style`` are what an evaluator should see, ``seed`` fixes the rest.

    way: of drawing, one of ``WAYS`` or "known". glyphs: one drawing or two. filters: one style or two at once.
    """

    object: str
    style: str
    way: str
    glyphs: tuple[str, ...]
    filters: tuple[str, ...]
    background: str
    seed: int


def draw_unknown(rng: random.Random, *, held_out: bool = False) -> Unknown:
    """Choose what to paint: of six pictures three without a known object, two in no known style, one neither.

    held: with the drawings that are kept for tests.
    """
    what = rng.choice(["object"] * 3 + ["style"] * 2 + ["both"])
    thing = rng.choice(list(world.OBJECTS.values()))
    glyphs: tuple[str, ...] = (rng.choice(thing.glyphs),)
    way, name = "known", thing.name
    if what != "style":
        way, name = rng.choice(["glyph", "glyph", *WAYS]), world.NOTHING
        other = rng.choice([o for o in world.OBJECTS.values() if o is not thing])
        glyphs = (*glyphs, rng.choice(other.glyphs))
        if way == "glyph":
            glyphs = (rng.choice(UNKNOWN["held" if held_out else "seen"]),)
    filters: tuple[str, ...] = (rng.choice(world.STYLES),)
    style = filters[0]
    if what != "object":
        style, filters = world.NOTHING, _strange_filters(rng)
    return Unknown(
        name, style, way, glyphs, filters, rng.choice(list(world.BACKGROUNDS)), rng.getrandbits(48)
    )


def _strange_filters(rng: random.Random) -> tuple[str, ...]:
    if rng.random() < 0.4:
        return (rng.choice(list(STRANGE)),)
    while True:
        one, two = rng.sample(world.STYLES, 2)
        if {one, two} not in ALIKE:
            return one, two


def paint_unknown(picture: Unknown) -> NDArray[np.uint8]:
    """Paint one such picture: uint8 (64, 64, 3). Equal pictures give equal pixels."""
    rng = np.random.default_rng(picture.seed)
    drawn = WAYS.get(picture.way, _glyph)(picture.glyphs, rng)
    filters = [(STYLE_FILTERS | STRANGE)[name] for name in picture.filters]
    return finish(drawn, picture.background, _together(filters, rng.uniform(0.4, 0.6)), rng)


def _together(filters: list[Filter], share: float) -> Filter:
    if len(filters) == 1:
        return filters[0]
    one, two = filters
    return lambda rgb, alpha, rng: share * one(rgb, alpha, rng) + (1 - share) * two(rgb, alpha, rng)


def _glyph(glyphs: tuple[str, ...], rng: np.random.Generator) -> Array:
    return place(glyphs[0], rng)


def _mixed(one: Array, two: Array, share: Array | float) -> Array:
    """Two sheets (96, 96, 4) at once, each with its share of the paint."""
    weights = np.stack([one[..., 3] * share, two[..., 3] * (1 - share)])
    colour = (weights[..., None] * np.stack([one[..., :3], two[..., :3]])).sum(0)
    alpha = weights.sum(0)
    full = np.maximum(one[..., 3], two[..., 3])
    return np.concatenate([colour / (alpha[..., None] + 1e-6), full[..., None]], 2).astype(np.float32)


def _blend(glyphs: tuple[str, ...], rng: np.random.Generator) -> Array:
    """One drawing through another."""
    return _mixed(place(glyphs[0], rng), place(glyphs[1], rng), rng.uniform(0.4, 0.6))


def _smooth(blur: float, rng: np.random.Generator, parts: int = 1) -> Array:
    """Random fields (parts, 96, 96) with mean 0 and spread 1."""
    fields = ndimage.gaussian_filter(rng.standard_normal((parts, LARGE, LARGE)), (0, blur, blur))
    spread = fields.std((1, 2), keepdims=True)
    even: Array = (fields - fields.mean((1, 2), keepdims=True)) / spread
    return even


def _distorted(glyphs: tuple[str, ...], rng: np.random.Generator) -> Array:
    """A drawing bent beyond recognition."""
    drawn = place(glyphs[0], rng)
    far = _smooth(rng.uniform(5, 9), rng, 2) * rng.uniform(13, 19)
    places = np.mgrid[:LARGE, :LARGE] + far
    bent = [ndimage.map_coordinates(drawn[..., c], places, order=1, mode="nearest") for c in range(4)]
    return np.stack(bent, 2).astype(np.float32)


def _blob(glyphs: tuple[str, ...], rng: np.random.Generator) -> Array:
    """A shape without meaning in the colours of a drawing, now and then with lines in it."""
    source = place(glyphs[0], rng)
    colours = source[source[..., 3] > 0.5][:, :3]
    chosen = colours[rng.integers(len(colours), size=3)] if len(colours) else rng.random((3, 3))
    yy, xx = np.mgrid[:LARGE, :LARGE] - LARGE / 2
    radius = np.hypot(yy / rng.uniform(0.75, 1.25), xx / rng.uniform(0.75, 1.25))
    shape = rng.uniform(24, 36) + 6 * _smooth(rng.uniform(5, 10), rng)[0] - radius
    pattern = _smooth(rng.uniform(2, 8), rng, 3) * rng.uniform(0.5, 3)
    share = np.exp(pattern) / np.exp(pattern).sum(0)
    colour = np.einsum("khw,kc->hwc", share, chosen)
    if rng.random() < 0.6:
        line = np.abs(_smooth(rng.uniform(4, 9), rng)[0]) < rng.uniform(0.05, 0.2)
        colour = np.where(line[..., None], colour * rng.uniform(0, 0.4), colour)
    return np.concatenate([colour, np.clip(shape, 0, 1)[..., None]], 2).astype(np.float32)


def _empty(glyphs: tuple[str, ...], rng: np.random.Generator) -> Array:
    return np.zeros((LARGE, LARGE, 4), np.float32)


WAYS: dict[str, Callable[[tuple[str, ...], np.random.Generator], Array]] = {
    "glyph": _glyph,
    "blend": _blend,
    "distorted": _distorted,
    "blob": _blob,
    "empty": _empty,
}


def _negative(rgb: Array, alpha: Array, rng: np.random.Generator) -> Array:
    return 1 - rgb


def _two_tones(rgb: Array, alpha: Array, rng: np.random.Generator) -> Array:
    gray = rgb.mean(2, keepdims=True)
    dark, light = rng.uniform(0, 0.4, 3), rng.uniform(0.6, 1, 3)
    toned: Array = dark * (1 - gray) + light * gray
    return toned


def _relief(rgb: Array, alpha: Array, rng: np.random.Generator) -> Array:
    gray = ndimage.gaussian_filter(rgb.mean(2), 0.7)
    slope = ndimage.sobel(gray, 0) + ndimage.sobel(gray, 1)
    colour = rng.uniform(0.35, 0.65, 3).astype(np.float32)
    lit: Array = np.clip(colour + 0.6 * slope[..., None], 0, 1)
    return lit


def _stripes(rgb: Array, alpha: Array, rng: np.random.Generator) -> Array:
    yy, xx = np.mgrid[:LARGE, :LARGE]
    phase = (yy * rng.uniform(-1, 1) + xx * rng.uniform(-1, 1)) * rng.uniform(0.5, 1.2)
    striped: Array = np.clip(rgb * (0.75 + 0.35 * np.sign(np.sin(phase)))[..., None], 0, 1)
    return striped


def _solarised(rgb: Array, alpha: Array, rng: np.random.Generator) -> Array:
    """What is light turns dark, and light again."""
    turned: Array = np.abs(np.sin(np.pi * rgb * rng.uniform(1.2, 2.0)))
    return turned


STRANGE: dict[str, Filter] = {
    "negative": _negative,
    "two tones": _two_tones,
    "relief": _relief,
    "stripes": _stripes,
    "solarised": _solarised,
}
