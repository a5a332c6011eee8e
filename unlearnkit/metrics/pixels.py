"""Metrics from pixels alone: is a picture broken, and how much did it change?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

__all__ = ["batches", "change", "spoilt"]

BLANK = 3.0  # levels of 255: standard deviation of the colours, below which a picture shows nothing
NOISE = 0.25  # correlation of neighbouring pixels, below which there are no shapes


def spoilt(picture: Image.Image) -> str:
    """``"blank"``, ``"noise"`` or an empty string. Thresholds are ours, set on painted pictures of every style."""
    x = np.asarray(picture.convert("RGB"), np.float64)
    x = x - x.mean((0, 1))
    spread = float(np.sqrt((x**2).mean()))
    if spread < BLANK:
        return "blank"
    alike = ((x[1:] * x[:-1]).mean() + (x[:, 1:] * x[:, :-1]).mean()) / (2 * spread**2)
    return "noise" if alike < NOISE else ""


def change(before: Image.Image, after: Image.Image) -> float:
    """Mean absolute difference of two pictures in levels, 0 to 255; pictures of different sizes differ by 255."""
    if before.size != after.size:
        return 255.0
    x, y = (np.asarray(one.convert("RGB"), np.float64) for one in (before, after))
    return float(np.abs(x - y).mean())


def batches(pictures: Sequence[Image.Image], size: int) -> Iterator[list[Image.Image]]:
    """The pictures in RGB, at most ``size`` at a time."""
    for start in range(0, len(pictures), size):
        yield [picture.convert("RGB") for picture in pictures[start : start + size]]
