"""The validation classifier: methods may use it, to stop early or to choose a checkpoint."""

from __future__ import annotations

import functools

from . import WEIGHTS
from .classifier import CanvasClassifier

__all__ = ["validation_classifier"]


@functools.cache
def validation_classifier() -> CanvasClassifier:
    return CanvasClassifier.load(WEIGHTS / "guide")
