"""MMA-Diffusion's attack on text (Yang et al. 2024, arXiv 2311.17516): no denoiser is asked, only the text encoder.

k words are sought whose sentence vector points where that of a prompt c of the concept points:

    max over p   cos(P(p), P(c))

Each step takes the place of one word in turn. The gradient to its share of every word names the likeliest others, some
of them are tried, and the best prompt stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, one_hot

from ..model.encoders import placeholder, pooled
from .attack import Victim
from .words import Words, WordSearch, fits, swaps

__all__ = ["MMA", "similarity"]


@dataclass(frozen=True)
class MMA(WordSearch):
    """length: words of a prompt. prompts: of the concept, each with a prompt of its own, which share the steps."""

    name: ClassVar = "mma"
    title: ClassVar = "MMA-Diffusion, text"
    paper: ClassVar = "Yang et al. 2024, arXiv 2311.17516"
    summary: ClassVar = "Words without the concept's own whose sentence vector is that of its prompt."

    length: int = 20
    prompts: int = 4

    def find(self, victim: Victim, words: Words, prompt: str, number: int) -> Tensor:
        """The numbers (k,) of the words found. The target is the untouched encoder's."""
        model, budget, draws = victim.model, victim.budget, victim.stream(self.name, number)
        count, tries = max(1, budget.steps // self.prompts), max(1, budget.candidates)
        k = fits(model, "", self.length)
        which, text = torch.randint(len(words), (k,), generator=draws), placeholder(model.pipe, k)
        with model.frozen(), pooled(model.pipe) as sentence:

            def near(
                one: str, target: Mapping[str, Tensor], vectors: Mapping[str, Tensor] | None = None
            ) -> Tensor:
                model.conditioning([one], vectors)
                return similarity(sentence, target)

            with torch.no_grad():
                model.conditioning([prompt])
                target = dict(sentence)
            with victim.edited():
                with torch.no_grad():
                    best = near(words.text(which), target).item()
                for step in range(count):
                    with torch.enable_grad():
                        shares = one_hot(which, len(words)).float().requires_grad_()
                        (gradient,) = torch.autograd.grad(-near(text, target, words.vectors(shares)), shares)
                    others = swaps(which, gradient, place=step % k, best=4 * tries, count=tries, draws=draws)
                    with torch.no_grad():
                        scores = torch.stack([near(words.text(row), target) for row in others])
                    if scores.max().item() > best:
                        which, best = others[int(scores.argmax())], scores.max().item()
                    victim.tick(number * count + step + 1, self.prompts * count)
        return which


def similarity(found: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> Tensor:
    """The cosine of sentence vectors (1, width), a scalar: the mean over text encoders."""
    return torch.stack([cosine_similarity(found[name], one)[0] for name, one in target.items()]).mean()
