"""Erase named concepts from a text-to-image diffusion model and leave everything else as it was.

    import unlearnkit
    edit = unlearnkit.erase("canvas", "cat")

Names are imported when they are first used, so that ``import unlearnkit`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .io.lazy import lazily

if TYPE_CHECKING:
    from .edit import Edit
    from .errors import DivergedError, EditError, InputError, ModelError, UnlearnError
    from .export import save_checkpoint, save_lora
    from .methods import METHODS
    from .model import Model, load
    from .run import erase, run_recipe
    from .schema import Concept, Recipe, Request

__version__ = "0.1.0"

__all__ = [
    "METHODS",
    "Concept",
    "DivergedError",
    "Edit",
    "EditError",
    "InputError",
    "Model",
    "ModelError",
    "Recipe",
    "Request",
    "UnlearnError",
    "__version__",
    "erase",
    "load",
    "run_recipe",
    "save_checkpoint",
    "save_lora",
]

_HOME = {
    "METHODS": "methods",
    "Concept": "schema",
    "DivergedError": "errors",
    "Edit": "edit",
    "EditError": "errors",
    "InputError": "errors",
    "Model": "model",
    "ModelError": "errors",
    "Recipe": "schema",
    "Request": "schema",
    "UnlearnError": "errors",
    "erase": "run",
    "load": "model",
    "run_recipe": "run",
    "save_checkpoint": "export",
    "save_lora": "export",
}


__getattr__ = lazily(__name__, _HOME)


def __dir__() -> list[str]:
    return sorted(__all__)
