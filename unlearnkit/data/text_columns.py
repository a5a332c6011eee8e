"""Text states as columns, as closed forms want them: float64 on the CPU, (width, tokens)."""

from __future__ import annotations

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

from ..models.model import Model
from ..schema import Concept
from .wording import fill, until

__all__ = ["centroids", "erased_columns", "retained_columns"]

INSTEAD = {"object": "", "style": "art"}  # what takes a concept's place unless the request says it


def erased_columns(
    model: Model, concept: Concept, form: str, wording: str, *, last: bool
) -> tuple[Tensor, Tensor]:
    """Columns c of a template with the concept, and g of the same with what takes its place, token by token.

    last: of the word's last token alone, or of that and all after it.
    """
    states, at = _states(model, form, wording)
    instead = INSTEAD[concept.kind] if concept.instead is None else concept.instead
    target, other = _states(model, form, instead)
    length = 1 if last else states.shape[1] - max(at, other)
    return states[:, at : at + length], target[:, other : other + length]


def retained_columns(model: Model, form: str, wording: str, *, last: bool) -> Tensor:
    """Columns of a template with a retained word. last: of the word's last token alone, or of every token."""
    states, at = _states(model, form, wording)
    return states[:, at : at + 1] if last else states


def centroids(columns: Tensor, count: int, seed: int) -> Tensor:
    """The centroids (width, count) of columns by k-means; the columns themselves where no more than that differ."""
    found = np.unique(columns.T.numpy(), axis=0)
    if len(found) > count:
        found, _ = kmeans2(found, count, minit="++", seed=seed % 2**32)
    return torch.from_numpy(found).T


def _states(model: Model, form: str, word: str) -> tuple[Tensor, int]:
    """The states of a filled template, and where the word's last token is."""
    states = model.text([fill(form, word)])[0].T.cpu().double()
    return states, model.last_token(until(form, word))
