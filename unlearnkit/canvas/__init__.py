"""The canvas: a small world of objects in styles, a Stable Diffusion model that knows it, and evaluators that judge it."""

from pathlib import Path

__all__ = ["WEIGHTS"]

WEIGHTS = Path(__file__).parent / "weights"
