"""A memory bank: prompts that have nothing to do with what is erased, no more than a budget of them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from .. import seeds
from ..errors import InputError
from ..models.model import Model
from ..schema import Concept, Request, folded
from .wording import fill

__all__ = ["bank", "holds"]


def bank(model: Model, request: Request, related: Sequence[Concept], budget: int) -> tuple[str, ...]:
    """``budget`` prompts of the model's vocabulary: every word in turn, in an order of no meaning, then again.

    Each word begins with another template, and has the next one at its next turn.

    related: concepts that are looked after elsewhere, and so are left out; no prompt holds an erased wording as words
    of its own. Raises InputError where no word of the vocabulary is left.
    """
    erased = [wording for concept in request.erase for wording in concept.wordings]
    taken = {wording for concept in related for wording in concept.folded}
    words = [
        word for word in model.hints.words if folded(word.name) not in taken and not holds(word.name, erased)
    ]
    draws = seeds.stream(0, "memory", *(word.name for word in words))
    order = torch.randperm(len(words), generator=draws).tolist()
    found: dict[str, None] = {}
    for turn in range(max((len(forms) for forms in model.hints.templates.values()), default=0)):
        for first, word in enumerate(words[place] for place in order):
            forms = model.hints.templates.get(word.kind, ("{}",))
            prompt = fill(forms[(first + turn) % len(forms)], word.name)
            if not holds(prompt, erased):
                found[prompt] = None
    if not found:
        raise InputError(
            "the model's vocabulary leaves no word for the memory: choose memory=0, or lengthen the vocabulary in "
            "the model's unlearnkit.toml"
        )
    prompts = tuple(found)
    return tuple(prompts[place % len(prompts)] for place in range(budget))


def holds(text: str, wordings: Sequence[str]) -> bool:
    """Whether one of the wordings stands in the text as words of its own."""
    text = folded(text)
    return any(re.search(rf"(?<!\w){re.escape(folded(wording))}(?!\w)", text) for wording in wordings)
