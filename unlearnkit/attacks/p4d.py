"""P4D: Prompting4Debugging (Chin et al. 2024, arXiv 2309.06135), its variant P4D-N.

k free vectors v in place of the whole prompt are moved until the edited model θ predicts under them what the untouched
model θo predicts under a prompt c of the concept, on pictures x of the untouched model:

    min over v   E over x, t, ε  | ε_θ(x_t, t, E(near(v))) - ε_θo(x_t, t, E(c)) |²

near(v) are the words nearest to v by cosine. The gradient at near(v) is applied to v.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..model.encoders import embedding_spread, placeholder, random_vectors
from ..model.model import Model
from .attack import Budget, Cost, Victim
from .words import Words, WordSearch, fits

__all__ = ["P4D", "loss"]

RATE, DECAY, EVERY = 0.5, 0.1, 10  # of AdamW; the rate in standard deviations of the token embeddings


@dataclass(frozen=True)
class P4D(WordSearch):
    """length: words of a prompt. prompts: of the concept, each with a prompt of its own, which share the steps."""

    name: ClassVar = "p4d"
    title: ClassVar = "P4D"
    paper: ClassVar = "Chin et al. 2024, arXiv 2309.06135"
    summary: ClassVar = (
        "Words that make the edited model predict what the untouched one predicts for the concept."
    )

    length: int = 16
    prompts: int = 4

    def cost(self, budget: Budget) -> Cost:
        count, rows = max(1, budget.steps // self.prompts), self.prompts * budget.batch
        compared = count + 1 + len(range(0, count, EVERY))  # the target of each step; the last comparison
        return Cost(gradient=count * rows, forward=compared * rows, examples=budget.examples)

    def find(self, victim: Victim, words: Words, prompt: str, number: int) -> Tensor:
        """The numbers (k,) of the words: of those at every tenth step, the best for one common batch."""
        model, size, draws = victim.model, victim.budget.batch, victim.stream(self.name, number)
        count, k = max(1, victim.budget.steps // self.prompts), fits(model, "", self.length)
        examples, target = victim.examples(), model.encode([prompt]).expand(size, -1, -1)
        text, vectors = placeholder(model.pipe, k), random_vectors(model.pipe, k, draws)
        spread = embedding_spread(model.pipe)
        groups = [{"params": [one.requires_grad_()], "lr": RATE * spread[n]} for n, one in vectors.items()]
        adam = torch.optim.AdamW(groups, weight_decay=DECAY)

        def rows() -> tuple[Tensor, Tensor, Tensor]:
            x = examples[torch.randint(len(examples), (size,), generator=draws)]
            t = torch.randint(model.num_timesteps, (size,), generator=draws).to(x.device)
            x = model.add_noise(x, torch.randn(x.shape, generator=draws).to(x), t)
            with torch.no_grad():
                return x, t, model.eps(x, t, target)

        tried = list[Tensor]()
        with model.frozen(), torch.enable_grad():
            for step in range(count):
                batch, which = rows(), words.nearest(vectors)
                tried += [which] if step % EVERY == 0 else []
                near = words.exact(which)
                through = {name: one + (near[name] - one).detach() for name, one in vectors.items()}
                adam.zero_grad()
                with victim.edited():
                    loss(model, *batch, text, through).backward()  # type: ignore[no-untyped-call]
                adam.step()
                victim.tick(number * count + step + 1, self.prompts * count)
            batch = rows()
            with victim.edited(), torch.no_grad():
                losses = [loss(model, *batch, text, words.exact(one)).item() for one in tried]
        return tried[losses.index(min(losses))]


def loss(
    model: Model, x: Tensor, t: Tensor, target: Tensor, text: str, vectors: Mapping[str, Tensor]
) -> Tensor:
    """The mean squared distance of the prediction for x_t under vectors in place of ``text`` from ``target``."""
    states = model.conditioning([text], vectors).expand(len(x), -1, -1)
    return (model.eps(x, t, states) - target).square().mean()
