"""Diverse UCE, ours: UCE's closed form (arXiv 2308.14761) on the diverse sentences of RGD (arXiv 2412.07808).

Equation and code are UCE's (``uce.py``). A closed form moves what it is shown and nothing else, so it is shown more:
the concept in many sentences of a grammar, and the words around it, which stay, in many more. So the concept goes in
wordings that no template holds, too, and it still takes seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ..method import Method
from ..settings import inherited
from . import uce

__all__ = ["METHOD", "Settings"]


def _own(name: str, value: Any) -> Any:
    return inherited(uce.Settings, name, value, source="ours, chosen on the canvas by the guide")


@dataclass(frozen=True)
class Settings(uce.Settings):
    erase_scale: float = _own("erase_scale", 10.0)
    ridge: float = _own("ridge", 0.1)
    tokens: Literal["last", "all"] = _own("tokens", "all")
    templates: bool = _own("templates", True)
    sentences: int = _own("sentences", 120)
    keep_sentences: int = _own("keep_sentences", 20)
    neighbours: int = _own("neighbours", 32)


METHOD = Method(
    name="uce-diverse",
    title="Diverse UCE",
    paper="ours: Gandikota et al. 2024 with the data of Ko et al. 2024",
    summary="UCE's closed form on sentences of RGD's grammar: in seconds, in wordings that no template holds too",
    settings=Settings,
    run=uce.run,
    plan=uce.plan,
)
