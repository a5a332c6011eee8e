"""Import a package's names when they are first used, and large libraries without the garbage collector."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

__all__ = ["importing", "lazily"]


@contextmanager
def importing() -> Iterator[None]:
    """Without the garbage collector inside: all that an import makes stays, so it would search for nothing."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def lazily(package: str, home: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package whose public names live in the modules of ``home``, by name.

    ``"module:other"``: the module's name for it is ``other``. A name that is its own home is the module itself.
    """

    def find(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        place, _, other = home[name].partition(":")
        value = importlib.import_module(f".{place}", package)
        if place != name:
            value = getattr(value, other or name)
        setattr(sys.modules[package], name, value)
        return value

    return find
