"""The canvas: a small world of objects in styles, a Stable Diffusion model that knows it, and its evaluators."""

from pathlib import Path

__all__ = ["WEIGHTS"]

WEIGHTS = Path(__file__).parent / "weights"
