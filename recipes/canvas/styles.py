"""The ten styles: each takes the drawing on its background and gives the picture in that style.

Every function maps (rgb, alpha, rng) to rgb: ``rgb`` is float32 (96, 96, 3) in [0, 1], ``alpha`` float32 (96, 96) in
[0, 1] says where the object is, ``rng`` is a numpy generator. The result is reduced to 64 x 64 by the painter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["STYLE_FILTERS", "Array", "Filter"]

Array = NDArray[np.floating[Any]]
Filter = Callable[[Array, Array, np.random.Generator], Array]

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def _cut(values: Array) -> Array:
    inside: Array = np.clip(values, 0, 1)
    return inside


def _luma(rgb: Array) -> Array:
    gray: Array = rgb @ _LUMA
    return gray


def _edges(rgb: Array) -> Array:
    """Strength of the strongest channel's gradient, about 0 to 1."""
    dx: Array = ndimage.sobel(rgb, axis=1)
    dy: Array = ndimage.sobel(rgb, axis=0)
    strongest: Array = np.hypot(dx, dy).max(axis=2)
    return _cut(strongest / 2.5)


def _saturate(rgb: Array, amount: float) -> Array:
    gray = _luma(rgb)[..., None]
    return _cut(gray + (rgb - gray) * amount)


def _noise(shape: tuple[int, ...], blur: float, rng: np.random.Generator) -> Array:
    field: Array = ndimage.gaussian_filter(rng.standard_normal(shape).astype(np.float32), blur)
    spread: np.floating[Any] = field.std()
    return field / (spread + 1e-6)


def plain(rgb: Array, alpha: Array, rng: np.random.Generator) -> Array:
    return rgb


def pixel_art(rgb: Array, alpha: Array, rng: np.random.Generator) -> Array:
    small: Array = rgb.reshape(16, 6, 16, 6, 3).mean(axis=(1, 3))
    flat: Array = np.round(_saturate(small, 1.3) * 5) / 5
    return flat.repeat(6, axis=0).repeat(6, axis=1)


def pencil_sketch(rgb: Array, alpha: Array, rng: np.random.Generator) -> Array:
    gray = _luma(rgb)
    blurred: Array = ndimage.gaussian_filter(1 - gray, 5)
    dodge = _cut(gray / (1 - blurred + 0.05))
    sketch = _cut(0.4 * dodge + 0.6 - 0.8 * _edges(rgb))
    grain = rng.standard_normal(gray.shape).astype(np.float32)
    sketch = sketch * (1 - 0.12 * alpha * (1 - gray)) + 0.03 * grain
    return _cut(sketch)[..., None].repeat(3, axis=2)


_POP = np.array(  # ink, shadow, middle, light: four screens
    [
        [[0.15, 0.0, 0.3], [0.9, 0.0, 0.45], [1.0, 0.55, 0.0], [1.0, 0.95, 0.2]],
        [[0.0, 0.05, 0.35], [0.0, 0.35, 0.9], [0.0, 0.8, 0.75], [0.95, 1.0, 0.55]],
        [[0.25, 0.0, 0.1], [0.85, 0.1, 0.1], [1.0, 0.45, 0.7], [0.75, 0.95, 1.0]],
        [[0.0, 0.2, 0.1], [0.45, 0.1, 0.75], [0.2, 0.8, 0.3], [1.0, 0.9, 0.35]],
    ],
    np.float32,
)
_POP_GROUND = np.array([[0.1, 0.75, 0.85], [1.0, 0.35, 0.6], [1.0, 0.85, 0.0], [1.0, 0.5, 0.1]], np.float32)


def pop_art(rgb: Array, alpha: Array, rng: np.random.Generator) -> Array:
    which = int(rng.integers(len(_POP)))
    gray = _luma(rgb)
    inside = gray[alpha > 0.5]
    low, high = np.quantile(inside, [0.03, 0.97]) if inside.size else (0.0, 1.0)
    level = np.clip((gray - low) / (high - low + 0.05), 0, 0.999)
    flat: Array = _POP[which][(level * 4).astype(int)]
    outline = ndimage.maximum_filter((alpha > 0.5).astype(np.float32), 4) - (alpha > 0.5)
    picture = np.where(alpha[..., None] > 0.5, flat, _POP_GROUND[which])
    return np.where(outline[..., None] > 0, _POP[which][0], picture)


def stained_glass(rgb: Array, alpha: Array, rng: np.random.Generator) -> Array:
    size, cells = rgb.shape[0], 11
    grid = (np.arange(cells) + 0.5) * size / cells
    seeds = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)
    seeds = seeds + rng.uniform(-0.38, 0.38, seeds.shape) * size / cells
    yy, xx = np.mgrid[:size, :size]
    distance = (yy[..., None] - seeds[:, 0]) ** 2 + (xx[..., None] - seeds[:, 1]) ** 2
    nearest = distance.argmin(-1)
    two = np.sqrt(np.partition(distance, 1, axis=-1)[..., :2])
    lead = (two[..., 1] - two[..., 0]) < 1.25
    counts = np.maximum(np.bincount(nearest.ravel(), minlength=len(seeds)), 1)
    means = np.stack(
        [np.bincount(nearest.ravel(), rgb[..., c].ravel(), len(seeds)) / counts for c in range(3)], -1
    ).astype(np.float32)
    light = rng.uniform(0.88, 1.08, len(seeds)).astype(np.float32)
    glass = _saturate(means, 1.6)[nearest] * light[nearest][..., None]
    return np.where(lead[..., None], np.float32(0.06), _cut(glass))


def watercolor(rgb: Array, alpha: Array, rng: np.random.Generator) -> Array:
    wet: Array = ndimage.median_filter(rgb, size=(5, 5, 1))
    wet = ndimage.gaussian_filter(wet, (0.9, 0.9, 0))
    paper = _noise(rgb.shape[:2], 7, rng)[..., None] * 0.05 + _noise(rgb.shape[:2], 1, rng)[..., None] * 0.012
    pale = 1 - (1 - _saturate(wet, 1.1)) * 0.66
    return _cut(pale + paper)


def halftone(rgb: Array, alpha: Array, rng: np.random.Generator) -> Array:
    size, pitch = rgb.shape[0], 6
    tone: Array = ndimage.uniform_filter(rgb, (pitch, pitch, 1))
    darkness = (1 - _luma(tone)) * 0.75 + 0.25 * ndimage.uniform_filter(alpha, pitch)
    darkness = np.where(alpha > 0.5, 0.35 + 0.65 * darkness, darkness * 0.35)
    centre = pitch // 2
    yy, xx = np.mgrid[:size, :size]
    cy, cx = yy // pitch * pitch + centre, xx // pitch * pitch + centre
    radius = np.sqrt(_cut(darkness[cy, cx]) / np.pi) * pitch * 1.05
    dot = _cut(radius - np.hypot(yy - cy + 0.5, xx - cx + 0.5) + 0.5)[..., None]
    ink = _saturate(tone[cy, cx], 1.8) * 0.62
    return (0.97 - 0.02) * (1 - dot) + dot * ink


def neon(rgb: Array, alpha: Array, rng: np.random.Generator) -> Array:
    on_black = rgb * alpha[..., None] + 0.25 * (1 - alpha[..., None])
    strength = np.maximum(_edges(on_black), _edges(alpha[..., None].repeat(3, 2)) * 0.8)
    core = _cut(strength * 1.8 - 0.25)
    colour = ndimage.maximum_filter(_saturate(rgb, 2.5) * alpha[..., None], (5, 5, 1))
    colour = colour / (colour.max(axis=2, keepdims=True) + 1e-3)
    light = core[..., None] * colour
    glow = ndimage.gaussian_filter(light, (3, 3, 0)) * 1.1
    return _cut(light + glow + 0.35 * (core[..., None] ** 3))


def van_gogh(rgb: Array, alpha: Array, rng: np.random.Generator) -> Array:
    size = rgb.shape[0]
    gray = ndimage.gaussian_filter(_luma(rgb), 1.8)
    gy, gx = ndimage.sobel(gray, 0), ndimage.sobel(gray, 1)
    yy, xx = np.mgrid[:size, :size].astype(np.float32)
    swirl = np.zeros((2, size, size), np.float32)
    for _ in range(3):
        y0, x0, turn = rng.uniform(0, size), rng.uniform(0, size), rng.choice([-1.0, 1.0])
        fall = np.exp(-((yy - y0) ** 2 + (xx - x0) ** 2) / (2 * (size / 3) ** 2))
        swirl += turn * fall * np.stack([xx - x0, -(yy - y0)]) / size
    swirl /= np.abs(swirl).max() + 1e-6
    ty, tx = gx * 8 + swirl[0] * 0.6, -gy * 8 + swirl[1] * 0.6
    norm = np.hypot(ty, tx) + 1e-6
    ty, tx = ty / norm, tx / norm
    grain = rng.standard_normal((size, size)).astype(np.float32)
    textured = np.clip(rgb + 0.55 * ndimage.gaussian_filter(grain, 0.9)[..., None], -0.3, 1.3)
    total = np.zeros_like(rgb)
    for sign in (1.0, -1.0):
        y, x = yy.copy(), xx.copy()
        for _ in range(4):
            iy = np.clip(np.rint(y), 0, size - 1).astype(int)
            ix = np.clip(np.rint(x), 0, size - 1).astype(int)
            total += textured[iy, ix]
            y, x = y + sign * ty[iy, ix], x + sign * tx[iy, ix]
    strokes = total / 8
    strokes = 0.5 + (strokes - 0.5) * 1.25
    return _cut(_saturate(strokes, 1.35) * np.array([0.98, 0.98, 1.05], np.float32))


def blueprint(rgb: Array, alpha: Array, rng: np.random.Generator) -> Array:
    size = rgb.shape[0]
    paper = np.broadcast_to(np.array([0.1, 0.27, 0.62], np.float32), rgb.shape).copy()
    offset = int(rng.integers(12))
    yy, xx = np.mgrid[:size, :size]
    grid = (((yy + offset) % 12) < 1.5) | (((xx + offset) % 12) < 1.5)
    paper[grid] += 0.13
    shape = _edges(alpha[..., None].repeat(3, 2))
    lines = _cut(np.maximum(_edges(rgb) * 1.2, shape * 1.1) - 0.15)
    lines = np.where(ndimage.maximum_filter(alpha, 3) > 0.3, lines, 0)
    return _cut(paper + lines[..., None] * np.array([0.85, 0.7, 0.38], np.float32) * 1.1)


STYLE_FILTERS: dict[str, Filter] = {
    "plain": plain,
    "pixel art": pixel_art,
    "pencil sketch": pencil_sketch,
    "pop art": pop_art,
    "stained glass": stained_glass,
    "watercolor": watercolor,
    "halftone": halftone,
    "neon": neon,
    "van gogh": van_gogh,
    "blueprint": blueprint,
}
