"""The provenance of a file that is passed on to others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..io.versions import versions
from .edit import Edit

__all__ = ["FILE", "provenance"]

FILE = "unlearnkit.json"  # in a pipeline's folder


def provenance(edit: Edit) -> dict[str, Any]:
    """The facts of an edit, its hash and its seal. Of a model's folder only the name is kept.

    The time is that of the edit, so that the same edit always gives the same file.
    """
    facts = {"versions": versions(), **edit.facts, "edit": edit.hash(), "seal": edit.seal()}
    source = facts.get("source")
    if isinstance(source, str) and Path(source).is_absolute():
        facts["source"] = Path(source).name
    return facts
