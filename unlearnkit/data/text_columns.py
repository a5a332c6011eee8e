"""Text states as columns for closed-form methods: float64 on the CPU, (width, tokens).

A ``Text`` is a concept, a template and one of the concept's wordings in it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from ..io.tick import Advance
from ..model import batches
from ..model.batches import last_states, text_batches
from ..model.model import Model
from ..schema import Concept, Request
from .grammar import forms, read_without
from .prompts import texts, unerased
from .wording import format_prompt, prefix_through

__all__ = [
    "SOME",
    "Text",
    "bare_words",
    "centroids",
    "clip_scale",
    "concept_texts",
    "encoded",
    "erased_blocks",
    "erased_matrices",
    "last_columns",
    "retained_blocks",
    "retained_columns",
    "retained_matrix",
    "sentence_texts",
]

Text = tuple[Concept, str, str]

# what takes a concept's place in closed forms, unless the request says
INSTEAD = {"object": "", "style": "art"}
CLIP_LENGTH = 28.0  # the mean norm of CLIP ViT-L's text states
BLOCK, WHOLE = 2048, 128  # texts whose columns are in memory at once: one of each, or all
SOME = 64  # texts that are encoded one by one, as they are everywhere else
SHARED = 512  # targets whose columns stay in memory, all of each


def concept_texts(
    model: Model,
    concepts: Sequence[Concept],
    *,
    templates: bool,
    sentences: Mapping[str, Sequence[str]] = MappingProxyType({}),
    without: Collection[str] = (),
) -> list[Text]:
    """The texts of each concept: every wording bare and, with ``templates``, in every template of the kind.

    sentences: further templates, by kind. without: of ``texts``.
    """
    every = list[Text]()
    for one in concepts:
        more = [(form, word) for form in sentences.get(one.kind, ()) for word in one.wordings]
        found = texts(one, model.hints, templates=templates, without=without)
        every += [(one, *pair) for pair in dict.fromkeys([*found, *more])]
    return every


def sentence_texts(
    model: Model,
    request: Request,
    templates: bool,
    grammar: str,
    seed: int,
    concepts: Sequence[Concept],
    count: int,
) -> list[Text]:
    """``concept_texts`` with ``count`` sentences of a grammar (``grammar.read``) of each kind, without erased words."""
    kinds = {concept.kind for concept in concepts if count}
    known, words = read_without(grammar, request.erased) if kinds else None, unerased(model, request)
    sentences: dict[str, Sequence[str]] = {
        kind: forms(known, kind, words, count=count, seed=seed) for kind in kinds if known
    }
    return concept_texts(model, concepts, templates=templates, sentences=sentences, without=request.erased)


def bare_words(texts: Sequence[Text], of: Sequence[int]) -> list[int]:
    """Of columns, each of the text with this number, those of the last token of a word that stands alone."""
    return [n for n, text in enumerate(of) if texts[text][1] == "{}" and (n == 0 or of[n - 1] != text)]


def erased_matrices(
    model: Model, texts: Sequence[Text], *, last: bool
) -> tuple[Tensor, Tensor, list[Concept]]:
    """The columns of erased texts and of their targets, each (width, n), and the n concepts, see ``erased_blocks``."""
    c, g, of = zip(*erased_blocks(model, texts, last=last), strict=True)
    return torch.cat(c, dim=1), torch.cat(g, dim=1), [texts[place][0] for part in of for place in part]


def retained_matrix(model: Model, texts: Sequence[Text], *, last: bool) -> Tensor:
    """The columns (width, n) of all retained texts, see ``retained_blocks``; n is 0 without texts."""
    empty = model.text([""])[0, :0].T.cpu().double()
    return torch.cat([empty, *retained_blocks(model, texts, last=last)], dim=1)


def erased_blocks(
    model: Model, texts: Sequence[Text], *, last: bool, tick: Advance | None = None
) -> Iterator[tuple[Tensor, Tensor, list[int]]]:
    """Columns c of erased texts and g of their targets, and the number of each column's text, block by block.

    Columns are of the word's last token or, without ``last``, of that and all after it, aligned with the target's. More
    than ``SOME`` texts are encoded in batches. tick: called as tick(done, n) after each block.
    """
    ends = list(dict.fromkeys((form, target_of(one)) for one, form, _ in texts))
    batched, g = len(texts) > min(SOME, batches.MANY), dict[tuple[str, str], Tensor]()
    if batched and (last or len(ends) <= SHARED):  # many concepts have one target
        g = dict(zip(ends, _columns(model, ends, last=last, batched=True), strict=True))
    for start, part, batched in _blocks(texts, last, tick):
        c = _columns(model, [(form, word) for _, form, word in part], last=last, batched=batched)
        own = [(form, target_of(one)) for one, form, _ in part]
        targets = [g[one] for one in own] if g else _columns(model, own, last=last, batched=batched)
        counts = [min(one.shape[1], other.shape[1]) for one, other in zip(c, targets, strict=True)]
        # a word of more tokens than its target has fewer after it
        cut = [
            torch.cat([x[:, :n] for x, n in zip(side, counts, strict=True)], dim=1) for side in (c, targets)
        ]
        yield cut[0], cut[1], [start + place for place, n in enumerate(counts) for _ in range(n)]


def retained_blocks(
    model: Model, texts: Sequence[Text], *, last: bool, tick: Advance | None = None
) -> Iterator[Tensor]:
    """Columns of retained texts, of the word's last token or all tokens. The rest is as in ``erased_blocks``."""
    for _, part, batched in _blocks(texts, last, tick):
        pairs = [(form, word) for _, form, word in part]
        yield torch.cat(_columns(model, pairs, last=last, batched=batched, whole=True), dim=1)


def _blocks(
    texts: Sequence[Text], last: bool, tick: Advance | None
) -> Iterator[tuple[int, Sequence[Text], bool]]:
    """The texts by blocks, each with its start and whether it is encoded in batches."""
    batched = len(texts) > min(SOME, batches.MANY)
    size = 1 if not batched else BLOCK if last else WHOLE
    for start in range(0, len(texts), size):
        yield start, (part := texts[start : start + size]), batched
        if tick:
            tick(start + len(part), len(texts))


def _columns(
    model: Model, texts: Sequence[tuple[str, str]], *, last: bool, batched: bool, whole: bool = False
) -> list[Tensor]:
    """For each pair (template, word) the columns from the word's last token on; with ``whole`` of all tokens."""
    if last and batched:
        return list(torch.split(last_columns(model, texts), 1, dim=1))
    prompts = [format_prompt(form, word) for form, word in texts]
    states: dict[str, Tensor] = {}
    unique = list(dict.fromkeys(prompts))
    for places, part in encoded(model, unique, batched=batched):
        states |= {unique[place]: one.T.cpu().double() for place, one in zip(places, part, strict=True)}
    starts = [model.last_token(prefix_through(form, word)) for form, word in texts]
    ends = [start + 1 if last else None for start in starts]
    starts = [0 if whole and not last else start for start in starts]
    return [states[one][:, start:end] for one, start, end in zip(prompts, starts, ends, strict=True)]


def encoded(
    model: Model, prompts: Sequence[str], *, batched: bool, through: Sequence[int] | None = None
) -> Iterator[tuple[list[int], Tensor]]:
    """What ``text_batches`` gives, or without ``batched`` the same prompt by prompt."""
    if batched:
        return text_batches(model, prompts, through)
    return (([place], model.text([prompt])) for place, prompt in enumerate(prompts))


def target_of(concept: Concept) -> str:
    """What replaces a concept: its ``instead``, else what closed forms take."""
    return INSTEAD[concept.kind] if concept.instead is None else concept.instead


def last_columns(model: Model, texts: Sequence[tuple[str, str]], tick: Advance | None = None) -> Tensor:
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
    (columns,) = _columns(model, [(form, wording)], last=last, batched=False, whole=True)
    return columns


def clip_scale(*columns: Tensor) -> Tensor:
    """What makes columns as long as CLIP ViT-L's text states, for papers that give absolute numbers."""
    scale: Tensor = CLIP_LENGTH / torch.cat(columns, dim=1).norm(dim=0).mean()
    return scale


def centroids(columns: Tensor, count: int, seed: int) -> Tensor:
    """The centroids (width, count) of columns by k-means; the distinct columns if there are at most ``count``."""
    from scipy.cluster.vq import kmeans2  # takes half a second

    unique = np.unique(columns.T.numpy(), axis=0)
    if len(unique) > count:
        unique, _ = kmeans2(unique, count, minit="++", seed=seed % 2**32)
    return torch.from_numpy(unique).T
