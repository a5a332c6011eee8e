"""Text states as columns for closed-form methods: float64 on the CPU, (width, tokens).

A ``Text`` is a concept, a template and one of the concept's wordings in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from ..model.batches import last_states, many
from ..model.model import Model
from ..schema import Concept
from .prompts import texts
from .wording import format_prompt, prefix_through

__all__ = [
    "Text",
    "centroids",
    "concept_texts",
    "erased_blocks",
    "erased_columns",
    "erased_matrices",
    "last_columns",
    "retained_blocks",
    "retained_columns",
    "retained_matrix",
]

Text = tuple[Concept, str, str]
Tick = Callable[[int, int], None]

INSTEAD = {"object": "", "style": "art"}  # what replaces a concept by default
BLOCK = 2048  # texts whose columns are in memory at once


def concept_texts(
    model: Model,
    concepts: Sequence[Concept],
    *,
    templates: bool,
    sentences: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> list[Text]:
    """The texts of each concept: every wording bare and, with ``templates``, in every template of the kind.

    sentences: further templates, by kind.
    """
    every = list[Text]()
    for one in concepts:
        more = [(form, word) for form in sentences.get(one.kind, ()) for word in one.wordings]
        pairs = dict.fromkeys([*texts(one, model.hints, templates=templates), *more])
        every += [(one, *pair) for pair in pairs]
    return every


def erased_matrices(
    model: Model, texts: Sequence[Text], *, last: bool
) -> tuple[Tensor, Tensor, list[Concept]]:
    """The columns of erased texts and of their targets, each (width, n), and the n concepts, see ``erased_blocks``."""
    batched = last and _many(texts)
    blocks = [*erased_blocks(model, texts, last=last, batched=batched)]
    counts = [1] * len(texts) if batched else [c.shape[1] for c, _ in blocks]
    c, g = (torch.cat(side, dim=1) for side in zip(*blocks, strict=True))
    return c, g, [concept for (concept, _, _), n in zip(texts, counts, strict=True) for _ in range(n)]


def retained_matrix(model: Model, texts: Sequence[Text], *, last: bool) -> Tensor:
    """The columns (width, n) of all retained texts, see ``retained_blocks``; n is 0 without texts."""
    empty = model.text([""])[0, :0].T.cpu().double()
    blocks = retained_blocks(model, texts, last=last, batched=last and _many(texts))
    return torch.cat([empty, *blocks], dim=1)


def erased_blocks(
    model: Model, texts: Sequence[Text], *, last: bool, batched: bool, tick: Tick | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Columns c of erased texts and g of their targets, text by text, as ``erased_columns`` gives them.

    batched: ``BLOCK`` texts at a time, encoded in batches, each with one column, at the word's last token.
    tick: called as tick(done, n) after each block.
    """
    for part in _blocks(texts, batched, tick):
        if batched:
            c = last_columns(model, [(form, word) for _, form, word in part])
            yield c, last_columns(model, [(form, target_of(concept)) for concept, form, _ in part])
        else:
            yield erased_columns(model, *part[0], last=last)


def retained_blocks(
    model: Model, texts: Sequence[Text], *, last: bool, batched: bool, tick: Tick | None = None
) -> Iterator[Tensor]:
    """Columns of retained texts, as ``retained_columns`` gives them. The rest is as in ``erased_blocks``."""
    for part in _blocks(texts, batched, tick):
        if batched:
            yield last_columns(model, [(form, word) for _, form, word in part])
        else:
            yield retained_columns(model, *part[0][1:], last=last)


def _blocks(texts: Sequence[Text], batched: bool, tick: Tick | None) -> Iterator[Sequence[Text]]:
    """The texts ``BLOCK`` at a time, or one by one."""
    size = BLOCK if batched else 1
    for start in range(0, len(texts), size):
        yield (part := texts[start : start + size])
        if tick:
            tick(start + len(part), len(texts))


def _many(texts: Sequence[Text]) -> bool:
    return many(dict.fromkeys(concept for concept, _, _ in texts))


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


def last_columns(model: Model, texts: Sequence[tuple[str, str]], tick: Tick | None = None) -> Tensor:
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
