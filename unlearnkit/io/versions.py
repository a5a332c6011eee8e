"""Which versions made something: a line in every record that is kept."""

from __future__ import annotations

import platform
from importlib.metadata import version

from .. import __version__

__all__ = ["versions"]


def versions(*further: str) -> dict[str, str]:
    """Versions of unlearnkit, Python, torch, diffusers, transformers, and of the further libraries."""
    libraries = ("torch", "diffusers", "transformers", *further)
    return {
        "unlearnkit": __version__,
        "python": platform.python_version(),
        **{library: version(library) for library in libraries},
    }
