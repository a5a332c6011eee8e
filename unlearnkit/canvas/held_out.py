"""The held-out classifier: only evaluation may import it (import-linter checks this)."""

from __future__ import annotations

import functools

from . import WEIGHTS
from .classifier import CanvasClassifier

__all__ = ["held_out_classifier"]


@functools.cache
def held_out_classifier() -> CanvasClassifier:
    return CanvasClassifier.load(WEIGHTS / "judge")
