"""The library versions that go into every record."""

from __future__ import annotations

import platform
from importlib.metadata import version

from ..version import __version__

__all__ = ["versions"]


def versions(*further: str) -> dict[str, str]:
    """Versions of unlearnkit, Python, torch, diffusers, transformers and further libraries."""
    libraries = ("torch", "diffusers", "transformers", *further)
    return {
        "unlearnkit": __version__,
        "python": platform.python_version(),
        **{library: version(library) for library in libraries},
    }
