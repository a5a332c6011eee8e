"""Train the attacked model with the ordinary denoising loss, and keep its weights after several numbers of steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..data import pictures
from ..data.image_sets import DenoiserInput
from ..model.model import Model
from ..parts import Losses
from ..parts.lora import matrices
from ..training.descend import Objective, descend
from ..training.job import EarlyStopping, Job
from ..training.net import Net, Step, mse
from .attack import Victim

__all__ = ["train_weights"]


def train_weights(
    victim: Victim, prompts: Sequence[str], counts: Sequence[int], *, rank: int, rate: float
) -> dict[int, dict[str, Tensor]]:
    """The weights, fp32 on the CPU, after each number of steps on the untouched model's pictures of the prompts.

    rank: of updates of the matrices of cross-attention, or of all in a family without it; 0: all weights are trained.
    """
    model, size = victim.model, victim.budget.batch
    part = "xattn" if rank and "xattn" not in model.family.LACKS else "all"
    x, seen = pictures.draw(model, prompts, folder=victim.cache), dict[int, dict[str, Tensor]]()

    def loss(net: Net, step: Step) -> Losses:
        draws = victim.stream("relearning", rank, step.number)
        which = torch.randint(len(x), (size,), generator=draws)
        t = torch.randint(model.num_timesteps, (size,), generator=draws).to(x.device)
        noise = torch.randn((size, *model.shape), generator=draws).to(x.device)
        (eps,) = net.student([DenoiserInput(model.add_noise(x[which], noise, t), t, states[which])])
        return {"learn": mse(eps, model.training_target(x[which], noise))}

    def keep(model: Model, step: int) -> float:
        if step in counts:
            weights = model.weights(part)
            copied = matrices(weights) if rank else weights
            seen[step] = {name: one.detach().float().cpu().clone() for name, one in copied.items()}
        victim.tick(step, max(counts))
        return -step

    with victim.edited():
        states = model.encode(prompts)
        job = Job(stop=EarlyStopping(keep, every=math.gcd(*counts), patience=max(counts)))
        descend(
            Net(model),
            part,
            Objective(loss),
            steps=max(counts),
            lr=rate,
            job=job,
            rank=rank,
            seed=victim.seed,
        )
    return seen
