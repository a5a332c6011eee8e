"""Pictures without a model: smooth blobs by prompt and seed, and a toy classifier that looks at them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image

from unlearnkit.canvas.classifier import CanvasClassifier
from unlearnkit.metrics.evaluators import Evaluators, evaluators_of


def smooth(prompts: Any, seeds: Any) -> Iterator[Image.Image]:
    """A picture for each prompt and seed."""
    for prompt, seed in zip(prompts, seeds, strict=True):
        small = np.random.default_rng([seed, len(prompt)]).integers(0, 255, (3, 3, 3), np.uint8)
        yield Image.fromarray(small).resize((16, 16), Image.Resampling.BICUBIC)


def tools() -> Evaluators:
    """Evaluators with the untrained classifier of seed 0."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return evaluators_of(CanvasClassifier("plain", ["cat", "dog"], ["plain", "neon"]).eval(), "eye@0")
