"""The evaluator that methods may use, to stop early or to choose among checkpoints."""

from __future__ import annotations

import functools

from . import WEIGHTS
from .classifier import CanvasClassifier

__all__ = ["guide"]


@functools.cache
def guide() -> CanvasClassifier:
    return CanvasClassifier.load(WEIGHTS / "guide")
