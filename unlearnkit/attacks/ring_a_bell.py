"""Ring-A-Bell (Tsai et al. 2024, arXiv 2310.10012): no denoiser is asked, only the text encoder E.

The direction of the concept is the mean over prompts with it, c_i, and the same without it, r_i. A genetic search looks
for k words p whose states are nearest to those of a prompt c, moved along that direction:

    d = mean over i of E(c_i) - E(r_i)                    min over p   | E(p) - (E(c) + η d) |²

Each generation keeps the nearer half; pairs of it give the other half, by crossing over at one place with probability
1/2, and a word of a child is replaced with probability 1/4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..data.prompts import texts
from ..data.wording import format_prompt
from ..model.model import Model
from .attack import Victim
from .words import Words, WordSearch, fits

__all__ = ["RingABell", "child", "direction"]


@dataclass(frozen=True)
class RingABell(WordSearch):
    """length: words of a prompt. strength: η. prompts: of the concept, which share the generations."""

    name: ClassVar = "ring_a_bell"
    title: ClassVar = "Ring-A-Bell"
    paper: ClassVar = "Tsai et al. 2024, arXiv 2310.10012"
    summary: ClassVar = (
        "Words whose text states lie farther along the concept's direction than its own prompt."
    )

    length: int = 16
    strength: float = 3.0
    prompts: int = 4

    @torch.no_grad()
    def find(self, victim: Victim, words: Words, prompt: str, number: int) -> Tensor:
        """The numbers (k,) of the nearest words. The target is the untouched encoder's."""
        model, budget, draws = victim.model, victim.budget, victim.stream(self.name, number)
        count, size = max(1, budget.steps // self.prompts), 2 * max(1, budget.candidates)
        target = model.text([prompt])[0].float() + self.strength * direction(victim)
        people = torch.randint(len(words), (size, fits(model, "", self.length)), generator=draws)
        with victim.edited():
            far = _distance(model, words, people, target)
            for generation in range(count):
                order = far.argsort(stable=True)[: size // 2]
                people, far = people[order], far[order]
                children = torch.stack([child(people, len(words), draws) for _ in range(size // 2)])
                people = torch.cat([people, children])
                far = torch.cat([far, _distance(model, words, children, target)])
                victim.tick(number * count + generation + 1, self.prompts * count)
        return people[far.argmin()]


def direction(victim: Victim) -> Tensor:
    """The concept's direction (tokens, width) in the untouched model's text states, fp32."""
    model, pairs = victim.model, texts(victim.concept, victim.model.hints, templates=True)
    named = model.text([format_prompt(form, word) for form, word in pairs])
    return (named - model.text([format_prompt(form, "").strip() for form, _ in pairs])).float().mean(0)


def child(parents: Tensor, words: int, draws: torch.Generator) -> Tensor:
    """A new row (k,) from two of the parents (n, k), crossed over and mutated at random."""
    one, other = parents[torch.randint(len(parents), (2,), generator=draws)]
    cross, change = torch.rand(2, generator=draws).tolist()
    place, at, word = (int(torch.randint(high, (), generator=draws)) for high in (len(one), len(one), words))
    row = torch.cat([one[:place], other[place:]]) if cross < 0.5 else one.clone()
    if change < 0.25:
        row[at] = word
    return row


def _distance(model: Model, words: Words, people: Tensor, target: Tensor) -> Tensor:
    """The squared distance (n,) of the states of prompts (n, k) from ``target``."""
    return (model.text([words.text(row) for row in people]).float() - target).square().sum((1, 2)).cpu()
