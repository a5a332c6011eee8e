"""A pipeline that can be edited, and what an edit is.

Names are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..io.lazy import lazily

if TYPE_CHECKING:
    from .edit import Edit
    from .load import load
    from .model import Model

__all__ = ["Edit", "Model", "load"]

__getattr__ = lazily(__name__, {"Edit": "edit", "Model": "model", "load": "load"})
