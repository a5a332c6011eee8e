"""Erase named concepts from a text-to-image diffusion model and leave everything else as it was.

    import unlearnkit
    edit = unlearnkit.erase("canvas", "cat")

Names are imported when they are first used, so that ``import unlearnkit`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .io.lazy import lazily
from .version import __version__

if TYPE_CHECKING:
    from . import chain, export
    from .attacks import ATTACKS
    from .errors import DivergedError, EditError, InputError, ModelError, UnlearnError
    from .evaluation.attacked.run import attack
    from .evaluation.evaluate import evaluate_run as evaluate
    from .export import save_checkpoint, save_lora
    from .methods import METHODS
    from .model.edit import Edit
    from .model.load import load
    from .model.model import Model
    from .runs.run import erase, run_recipe
    from .schema import Concept, Recipe, Request

__all__ = [
    "ATTACKS",
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
    "attack",
    "chain",
    "erase",
    "evaluate",
    "export",
    "load",
    "run_recipe",
    "save_checkpoint",
    "save_lora",
]

_HOME = {
    "ATTACKS": "attacks",
    "METHODS": "methods",
    "Concept": "schema",
    "DivergedError": "errors",
    "Edit": "model.edit",
    "EditError": "errors",
    "InputError": "errors",
    "Model": "model.model",
    "ModelError": "errors",
    "Recipe": "schema",
    "Request": "schema",
    "UnlearnError": "errors",
    "attack": "evaluation.attacked.run",
    "chain": "chain",
    "erase": "runs.run",
    "evaluate": "evaluation.evaluate:evaluate_run",
    "export": "export",
    "load": "model.load",
    "run_recipe": "runs.run",
    "save_checkpoint": "export",
    "save_lora": "export",
}


__getattr__ = lazily(__name__, _HOME)


def __dir__() -> list[str]:
    return sorted(__all__)
