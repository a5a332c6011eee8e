"""The evaluator that only evaluation may use: no method, part or loop may import this (import-linter holds it)."""

from __future__ import annotations

import functools

from . import WEIGHTS
from .classifier import CanvasClassifier

__all__ = ["judge"]


@functools.cache
def judge() -> CanvasClassifier:
    return CanvasClassifier.load(WEIGHTS / "judge")
