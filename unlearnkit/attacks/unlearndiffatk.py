"""UnlearnDiffAtk: To Generate or Not? (Zhang et al. 2024, arXiv 2310.11868).

The edited model is its own classifier: a prefix p of k words before a prompt c of the concept is sought under which it
explains pictures x of the concept, drawn by the untouched model, best:

    min over p   E over x, t, ε  | ε_θ(x_t, t, E(p + c)) - ε |²

p is a matrix of shares (k, m) over m words. A step draws one word for each row, takes the gradient through the draw as
if it were not there, clips it to ±1, steps with Adam, and puts the rows back on the simplex.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..model.encoders import placeholder
from .attack import Budget, Cost, Victim
from .learning import denoising_loss
from .words import Words, WordSearch, fits, sampled, simplex

__all__ = ["UnlearnDiffAtk"]

RATE = 0.01  # of Adam: the released code's


@dataclass(frozen=True)
class UnlearnDiffAtk(WordSearch):
    """length: words of a prefix. prompts: of the concept, each with a prefix of its own, which share the steps."""

    name: ClassVar = "unlearndiffatk"
    title: ClassVar = "UnlearnDiffAtk"
    paper: ClassVar = "Zhang et al. 2024, arXiv 2310.11868"
    summary: ClassVar = "Words before the prompt are learned from pictures of the concept."
    arm: ClassVar = "prefix"

    length: int = 5
    prompts: int = 4

    def cost(self, budget: Budget) -> Cost:
        return Cost(gradient=self.prompts * self._steps(budget) * budget.batch, examples=budget.examples)

    def text(self, prompt: str, words: str) -> str:
        return f"{words} {prompt}"

    def _steps(self, budget: Budget) -> int:
        return max(1, budget.steps // self.prompts)

    def find(self, victim: Victim, words: Words, prompt: str, number: int) -> Tensor:
        """The numbers (k,) of the prefix's words."""
        model, budget, draws = victim.model, victim.budget, victim.stream(self.name, number)
        k = fits(model, prompt, self.length)
        shares = torch.full((k, len(words)), 1 / len(words), device=model.device)
        adam = torch.optim.Adam([shares], lr=RATE)
        examples, text = victim.examples(), f"{placeholder(model.pipe, k)} {victim.read(prompt)[0]}"
        with model.frozen(), torch.enable_grad(), victim.edited():
            for step in range(self._steps(budget)):
                picked = sampled(shares, draws)
                x = examples[torch.randint(len(examples), (budget.batch,), generator=draws)]
                states = model.conditioning([text], words.vectors(picked))
                (gradient,) = torch.autograd.grad(denoising_loss(model, x, states, draws), picked)
                shares.grad = gradient.clamp(-1, 1)
                adam.step()
                shares.copy_(simplex(shares))
                victim.tick(number * self._steps(budget) + step + 1, self.prompts * self._steps(budget))
        return shares.argmax(1)
