"""The text states of many prompts, encoded in batches.

Prompts are sorted by length. An encoder that reads from left to right (CLIP, with its causal mask) sees nothing behind
a token, so a batch is padded only to its own longest prompt. Other encoders (T5) read the padding too and get it all.

A batch is summed in another order than a single prompt, so the states differ from ``Model.text`` by about 1e-7 of their
size. The same list of prompts always gives the same bits. Nothing is cached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..families.opening import quiet
from ..io.tick import Advance
from ..schema import Concept, check_unicode
from . import restore
from .encoders import encoders, tokenizers
from .model import Model
from .restore import steady

__all__ = ["MANY", "last_states", "many", "text_batches"]

MANY = 256  # wordings in a request from which its texts are encoded in batches
TEXTS, TOKENS = 64, 4096  # of a batch at most
CAUSAL = ("CLIPTextModel", "CLIPTextModelWithProjection")


def many(concepts: Iterable[Concept]) -> bool:
    """Whether the concepts have more than ``MANY`` wordings, so that their texts are encoded in batches."""
    return sum(len(concept.wordings) for concept in concepts) > MANY


@steady()
@torch.no_grad()
def text_batches(
    model: Model, prompts: Sequence[str], through: Sequence[int] | None = None
) -> Iterator[tuple[list[int], Tensor]]:
    """Positions in ``prompts`` and their text states (b, tokens, width), as ``Model.text`` gives them, batch by batch.

    through: for each prompt the index of the last token that is needed. States behind it may be missing. Default: all.
    """
    for prompt in prompts:
        check_unicode(prompt)
    encode: Callable[..., Tensor] | None = getattr(model.family, "encode_many", None)
    if encode is None:
        for place, prompt in enumerate(prompts):
            yield [place], model.text([prompt])
        return
    # some pipelines have states of their own for the empty prompt
    if empty := [place for place, prompt in enumerate(prompts) if not prompt]:
        yield empty, model.text([""] * len(empty))
    causal = all(type(encoder).__name__ in CAUSAL for encoder in encoders(model.pipe).values())
    ends = through if through is not None and causal else None
    length = max(1, model.text([""]).shape[1])
    full = [place for place, prompt in enumerate(prompts) if prompt]
    order = sorted(full, key=lambda place: (ends[place] if ends else 0, prompts[place]))
    while order:
        # sorted, so the last one is the longest; its end token follows
        longest = length if ends is None else min(length, ends[order[-1]] + 2)
        count = max(1, min(TEXTS, TOKENS // longest))
        part, order = order[-count:], order[:-count]
        tokens = {"tokens": model.hints.tokens} if model.hints.tokens else {}
        with (
            model.onload(),
            restore.running(model.source),
            quiet(),
            _cut(model.pipe, longest, ends is not None),
        ):
            states = encode(model.pipe, [prompts[place] for place in part], model.device, **tokens)
        yield part, states


def last_states(
    model: Model,
    prompts: Sequence[str],
    places: Sequence[int],
    tick: Advance | None = None,
) -> Tensor:
    """The text states (n, width), float64 on the CPU, of n prompts, each at the index of one of its tokens.

    tick: called as tick(done, n) after each batch.
    """
    rows: list[Tensor | None] = [None] * len(prompts)
    done = 0
    for part, states in text_batches(model, prompts, places):
        chosen = states[torch.arange(len(part)), torch.tensor([places[place] for place in part])]
        for place, row in zip(part, chosen.double().cpu(), strict=True):
            rows[place] = row
        done += len(part)
        if tick:
            tick(done, len(prompts))
    return torch.stack([row for row in rows if row is not None])


@contextmanager
def _cut(pipe: Any, length: int, causal: bool) -> Iterator[None]:
    """Inside, the pipeline's tokenizers pad and cut to ``length`` tokens."""
    before = [(one, one.model_max_length) for one in tokenizers(pipe).values()] if causal else []
    try:
        for tokenizer, _ in before:
            tokenizer.model_max_length = length
        yield
    finally:
        for tokenizer, old in before:
            tokenizer.model_max_length = old
