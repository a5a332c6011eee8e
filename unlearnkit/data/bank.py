"""A memory bank: a limited number of prompts that do not concern the erased concepts."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .. import seeds
from ..errors import InputError
from ..model.model import Model
from ..schema import Concept, Request, folded
from .wording import contains_word, format_prompt

__all__ = ["memory_prompts"]


def memory_prompts(
    model: Model, request: Request, related: Sequence[Concept], budget: int
) -> tuple[str, ...]:
    """``budget`` prompts of the model's vocabulary: every word once, in random order, then every word again.

    Each word starts with another template and takes the next one in each cycle. No prompt contains an erased wording.

    related: concepts that other prompts cover, so they are left out.
    Raises InputError if no word of the vocabulary is left.
    """
    erased = [wording for concept in request.erase for wording in concept.wordings]
    excluded = {wording for concept in related for wording in concept.folded}
    words = [
        word
        for word in model.hints.words
        if folded(word.name) not in excluded and not contains_word(word.name, erased)
    ]
    draws = seeds.stream(0, "memory", *(word.name for word in words))
    order = torch.randperm(len(words), generator=draws).tolist()
    unique: dict[str, None] = {}
    for cycle in range(max((len(forms) for forms in model.hints.templates.values()), default=0)):
        for start, word in enumerate(words[index] for index in order):
            forms = model.hints.templates.get(word.kind, ("{}",))
            prompt = format_prompt(forms[(start + cycle) % len(forms)], word.name)
            if not contains_word(prompt, erased):
                unique[prompt] = None
    if not unique:
        raise InputError(
            "the model's vocabulary leaves no word for the memory: choose memory=0, or lengthen the vocabulary in "
            "the model's unlearnkit.toml"
        )
    prompts = tuple(unique)
    return tuple(prompts[index % len(prompts)] for index in range(budget))
