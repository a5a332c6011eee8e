"""A tiny pipeline saved as a folder with hints, made once a session."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import tiny

HINTS = """
[sampling]
steps = 2
guidance = 2.0
[vocabulary]
objects = ["cat", "dog", "bear", "car", "tree"]
styles = ["van gogh", "neon"]
[templates]
object = ["a {}", "my {}"]
style = ["{} art"]
"""


@functools.cache
def folder() -> Path:
    """The folder of a diffusers pipeline; treat it as read-only."""
    made = Path(tempfile.mkdtemp(prefix="unlearnkit-"))
    tiny.pipeline(made / "tokenizer-files").save_pretrained(made / "model")
    (made / "model" / "unlearnkit.toml").write_text(HINTS)
    return made / "model"
