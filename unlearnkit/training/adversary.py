"""An adversary beside any method that trains: it looks for a prompt under which the student still knows the concept.

    v = argmin |ε_θ(x_t, v) - ε_θ*(x_t, c)|²        θ the student, θ* the base model, c a prompt of a concept

v is made of k vectors in place of token embeddings, alone (``embedding``) or before the concept's name (``prefix``). In
every second row of the erasing side v then replaces c, so that the method's own erasing loss is taken there too. The
search is that of AdvUnlearn (arXiv 2405.15234), which does this for the text encoder; here any weights are trained.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..data.image_sets import DenoiserInput
from ..errors import InputError
from ..model.encoders import embedding_spread, encoders, placeholder
from ..model.model import Model
from ..schema import Request
from .net import CountingNet, Net, Step
from .settings import Training

__all__ = ["Adversary", "adversary_of"]

LR = 0.1  # Adam's learning rate, in standard deviations of the token embeddings


def adversary_of(model: Model, request: Request, settings: Training) -> Adversary | None:
    """The adversary that the settings ask for; None for adversary=none.

    Raises InputError for a model without text encoders, and with ``prefix`` for a request of several concepts.
    """
    if settings.adversary == "none":
        return None
    if not encoders(model.pipe):
        raise InputError(
            f"adversary={settings.adversary} learns vectors in place of words, and {model.source} reads none: "
            "choose adversary=none"
        )
    if settings.adversary == "prefix" and len(request.erase) > 1:
        raise InputError(
            "adversary=prefix looks for what stands before one name: erase one concept at a time, or choose embedding"
        )
    return Adversary(model, request.erase[0].name, settings)


class Adversary:
    """The search, and the vectors (k, width) by text encoder that it found last. They are saved in checkpoints."""

    def __init__(self, model: Model, concept: str, settings: Training) -> None:
        self.settings, self.vectors = settings, dict[str, Tensor]()
        word = placeholder(model.pipe, settings.adversary_vectors)
        self.prompt = f"{word} {concept}" if settings.adversary == "prefix" else word

    def attach(self, net: Net, step: Step) -> None:
        """Let the adversary change the first input of the student's next pass."""
        net.adversary = lambda rows: self.attacked(net, rows, step)

    def attacked(self, net: Net, rows: DenoiserInput, step: Step) -> DenoiserInput:
        """The rows, every second under the conditioning found; with a search first if one is due."""
        n, own = len(rows.t), self.settings
        if isinstance(net, CountingNet):
            net.free += n / own.adversary_every
            net.rows += n * own.adversary_steps / own.adversary_every
            return rows
        if not self.vectors or step.number % own.adversary_every == 0:
            (target,) = net.teacher([rows])
            spread = embedding_spread(net.model.pipe)
            self.vectors = net.attack(
                rows,
                [self.prompt] * n,
                target,
                tokens=own.adversary_vectors,
                steps=own.adversary_steps,
                lr={name: LR * one for name, one in spread.items()},
                draws=step.stream("adversary"),
                start=self.vectors,
                radius=own.adversary_radius,
            )
        with torch.no_grad():
            found = net.model.conditioning([self.prompt], self.vectors)
        second = (torch.arange(n, device=found.device) + step.number) % 2 == 1
        return rows.with_cond(torch.where(second.view(-1, 1, 1), found, rows.cond))

    def tensors(self) -> dict[str, Tensor]:
        """The vectors by text encoder."""
        return self.vectors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what ``tensors`` gave."""
        self.vectors = dict(tensors)
