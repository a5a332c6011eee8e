"""UCE with more texts (ours): the diverse sentences of RGD (arXiv 2412.07808), and more words that are kept.

Of several concepts the sums over erased texts are means over the concepts, so that many do not outweigh what is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from ..settings import with_default
from ..training.job import Run
from .uce import UCE

__all__ = ["DiverseUCE"]


def _own(name: str, value: Any) -> Any:
    return with_default(UCE, name, value, source="ours, chosen by the canvas's validation classifier")


@dataclass(frozen=True)
class DiverseUCE(UCE):
    name: ClassVar = "uce-diverse"
    title: ClassVar = "Diverse UCE"
    paper: ClassVar = "ours: Gandikota et al. 2024 with the data of Ko et al. 2024"
    summary: ClassVar = "UCE is solved on diverse sentences of RGD's grammar, in seconds."

    erase_weight: float = _own("erase_weight", 10.0)
    ridge: float = _own("ridge", 0.1)
    tokens: Literal["last", "all"] = _own("tokens", "all")
    templates: bool = _own("templates", True)
    sentences: int = _own("sentences", 120)
    retain_sentences: int = _own("retain_sentences", 20)
    neighbours: int = _own("neighbours", 32)

    def sums(self, run: Run) -> tuple[Tensor, Tensor, Tensor]:
        """As UCE's, with those over erased texts divided by the number of concepts."""
        erased, towards, retained = super().sums(run)
        count = len(run.request.erase)
        return erased / count, towards / count, retained
