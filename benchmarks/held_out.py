"""In how many training steps do both held-out losses fall, the erasing and the retain loss?"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from cells import ROWS, Cell, concept, made_of
from rows import keep, read

from unlearnkit import seeds
from unlearnkit.data.image_sets import NoisyBatch
from unlearnkit.methods import edit_for, resolve
from unlearnkit.model.model import Model
from unlearnkit.schema import Request
from unlearnkit.training.job import EarlyStopping, Job, Run
from unlearnkit.training.net import Net

__all__ = ["STEPS", "experiment"]

COUNT, SEEDS = 32, range(4)  # held-out images of each side
STEPS = "steps in which both held-out losses fall"


def experiment(model: Model) -> None:
    """Count the steps in which both held-out losses fall: for RGD, RGD with added gradients, and GradDiff."""
    contenders: tuple[tuple[str, dict[str, Any]], ...] = (
        ("rgd", {}),
        ("rgd", {"combine": "sum"}),
        ("graddiff", {}),
    )
    for seed, (method, changes) in itertools.product(SEEDS, contenders):
        cell = Cell(method, ("cat",), seed, settings=changes)
        facts = made_of(cell, model) | {"claim": STEPS, "held": COUNT}
        if any(row["key"] == facts for row in read(ROWS)):
            continue
        request = Request((concept("cat"),))
        losses = HeldOutLosses(model, request)
        job = Job(stop=EarlyStopping(losses.record, every=1, patience=10**9))
        edit_for(model, request, method=method, settings=cell.settings, seed=seed, job=job)
        both = [a < b and c < d for (b, d), (a, c) in zip(losses.values, losses.values[1:], strict=False)]
        keep(ROWS, {"key": facts, "both": [sum(both), len(both)]})


class HeldOutLosses:
    """The losses on held-out prompts after every step, (erasing, retaining), always with the same noise."""

    def __init__(self, model: Model, request: Request) -> None:
        method: Any = resolve(model, request, "rgd", {"pictures": COUNT, "diverse": True})
        pairs, run = method.sentences(model, request, seed=0, held_out=True), Run(model, request, Net(model))
        sets = [run.images(prompts) for prompts in zip(*pairs, strict=True)]
        every = torch.arange(COUNT)
        self.batches: list[NoisyBatch] = [
            one.noisy_batch(every, seeds.stream(0, "held out", place)) for place, one in enumerate(sets)
        ]
        self.values: list[tuple[float, float]] = []
        self.record(model, 0)

    @torch.no_grad()
    def record(self, model: Model, step: int) -> float:
        erasing, retaining = (
            (model.eps(one.input.x, one.input.t, one.input.cond) - one.noise).square().mean().item()
            for one in self.batches
        )
        self.values.append((-erasing, retaining))
        return 0.0
