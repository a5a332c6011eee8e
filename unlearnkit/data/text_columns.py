"""Text states as columns for closed-form methods: float64 on the CPU, (width, tokens)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..model.batches import last_states
from ..model.model import Model
from ..schema import Concept
from .wording import format_prompt, prefix_through

__all__ = ["centroids", "erased_columns", "last_columns", "retained_columns", "target_of"]

INSTEAD = {"object": "", "style": "art"}  # what replaces a concept by default


def erased_columns(
    model: Model, concept: Concept, form: str, wording: str, *, last: bool
) -> tuple[Tensor, Tensor]:
    """Columns c of a template with the concept, and g of the template with its replacement, token by token.

    last: only the word's last token, or that and all after it.
    """
    states, start = _states(model, form, wording)
    target, other_start = _states(model, form, target_of(concept))
    length = 1 if last else states.shape[1] - max(start, other_start)
    return states[:, start : start + length], target[:, other_start : other_start + length]


def target_of(concept: Concept) -> str:
    """What replaces a concept: its ``instead``, else the method's default."""
    return INSTEAD[concept.kind] if concept.instead is None else concept.instead


def last_columns(
    model: Model, texts: Sequence[tuple[str, str]], tick: Callable[[int, int], None] | None = None
) -> Tensor:
    """Columns (width, n) at the last token of the word, of n pairs (template, word), encoded in batches.

    They differ from those of the other functions here by about 1e-7 of their size, see ``model.batches``.
    """
    unique = list(dict.fromkeys(texts))
    prompts = [format_prompt(form, word) for form, word in unique]
    places = [model.last_token(prefix_through(form, word)) for form, word in unique]
    rows = last_states(model, prompts, places, tick)
    index = {text: place for place, text in enumerate(unique)}
    return rows[[index[text] for text in texts]].T


def retained_columns(model: Model, form: str, wording: str, *, last: bool) -> Tensor:
    """Columns of a template with a retained word. last: only the word's last token, or every token."""
    states, at = _states(model, form, wording)
    return states[:, at : at + 1] if last else states


def centroids(columns: Tensor, count: int, seed: int) -> Tensor:
    """The centroids (width, count) of columns by k-means; the distinct columns if there are at most ``count``."""
    from scipy.cluster.vq import kmeans2  # takes half a second

    unique = np.unique(columns.T.numpy(), axis=0)
    if len(unique) > count:
        unique, _ = kmeans2(unique, count, minit="++", seed=seed % 2**32)
    return torch.from_numpy(unique).T


def _states(model: Model, form: str, word: str) -> tuple[Tensor, int]:
    """The states of a prompt, and the index of the word's last token."""
    states = model.text([format_prompt(form, word)])[0].T.cpu().double()
    return states, model.last_token(prefix_through(form, word))
