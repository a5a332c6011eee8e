"""The evaluator that only evaluation may use: no method, part or loop may import this (import-linter holds it)."""

from __future__ import annotations

import functools

from . import WEIGHTS
from .classifier import Eye

__all__ = ["judge"]


@functools.cache
def judge() -> Eye:
    return Eye.load(WEIGHTS / "judge")
