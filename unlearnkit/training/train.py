"""A method's objective put together with the parts that its settings name, and its plan."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..errors import InputError
from ..method import Plan
from ..model import Model
from ..parts import Combine, Losses, Rule, erasing, lora
from ..parts.combine import pcgrad, preserving, restricted, summed
from ..parts.mask import Mask
from ..parts.rules import Project, Pull, directions
from ..schema import Request
from ..wording import fill, until
from .descend import Job, Objective, Stop, constant, descend, onecycle
from .prompts import neighbours, texts
from .settings import Training, check

__all__ = ["Rows", "plan_of", "predict", "train"]

T = TypeVar("T")


def train(
    model: Model,
    request: Request,
    settings: Training,
    objective: Objective[Any],
    *,
    seed: int,
    job: Job,
    combine: Combine | None = None,
    rules: Sequence[Rule] = (),
) -> dict[str, Tensor]:
    """Run the training loop on the objective with the parts that the settings name: the new weights, on the CPU.

    combine: the method's own, in place of the one that the settings name. rules: the method's own, before theirs.
    A mask's warm-up looks at ``objective.warm``, else at the erasing losses of the objective itself.
    """
    if settings.stop != "none":
        from .stopping import (  # the canvas is opened by those who ask for it
            score_by_guide,
            seen_by_guide,
        )

        every, patience = settings.stop_every, settings.stop_patience
        stop = (
            Stop(score_by_guide(model, request), every, patience)
            if settings.stop == "guide"
            else Stop(seen_by_guide(model, request), every, settings.steps, settings.stop_at)
        )
        job = dataclasses.replace(job, stop=stop)
    if settings.mask != "none" and objective.warm is None:
        objective = dataclasses.replace(objective, warm=_erasing(objective))
    beside: tuple[Rule, ...] = ()
    if job.beside:
        if job.beside.rules and settings.trains == "lora":
            raise InputError(
                "trains=lora trains factors, which no rule of a chain can hold: choose another part"
            )
        objective, beside = job.beside.objective(objective), job.beside.rules
    return descend(
        model,
        settings.part,
        objective,
        steps=settings.steps,
        lr=settings.lr,
        job=job,
        schedule=onecycle if settings.schedule == "onecycle" else constant,
        checkpointing=settings.checkpointing,
        combine=combine or _combine(settings, seed),
        mask=_mask(model, settings),
        rules=[*rules, *_rules(model, request, settings), *beside],
        rank=settings.updates,
        eight_bits=settings.optimiser == "adam8",
        seed=seed,
    )


@dataclass(frozen=True)
class Rows:
    """Rows for the network: latents x (n, c, h, w), times t (n,) and text states (n, tokens, width)."""

    x: Tensor
    t: Tensor
    states: Tensor


def predict(model: Model, rows: Sequence[Rows], *, apart: bool = False) -> list[Tensor]:
    """The predicted noise for each of the rows: in one pass, or in a pass and so a graph for each."""
    if apart:
        return [model.eps(one.x, one.t, one.states) for one in rows]
    x, t, states = (torch.cat([getattr(one, name) for one in rows]) for name in ("x", "t", "states"))
    return list(torch.split(model.eps(x, t, states), [len(one.t) for one in rows]))


def plan_of(
    model: Model,
    settings: Training,
    *,
    losses: Sequence[str],
    free: float,
    rows: float,
    sampled: int,
    rests: int = 0,
) -> Plan:
    """The Plan of a method that trains. free, rows: rows a step without gradients, and forward and backward (a mean).

    rests: the objective's first steps, in which the weights rest.
    """
    check(settings, losses=losses)
    weights = model.weights(settings.part)
    if settings.trains == "lora":
        weights = lora.takes(weights)
    warmup = settings.mask_warmup if settings.mask != "none" else 0
    return Plan(
        part=settings.part,
        tensors=len(weights),
        weights=sum(weight.numel() for weight in weights.values()),
        steps=settings.steps + warmup + rests,
        passes=(float(free), float(rows)),
        batch=settings.batch,
        sampled_images=sampled,
    )


def _erasing(objective: Objective[T]) -> Objective[T]:
    def losses(prepared: T) -> Losses:
        return {name: loss for name, loss in objective.losses(prepared).items() if erasing(name)}

    return Objective(objective.prepare, losses)


def _combine(settings: Training, seed: int) -> Combine:
    if settings.combine == "restricted":
        return restricted
    if settings.combine == "pcgrad":
        return pcgrad(seed)
    if settings.combine == "sum":
        return summed
    return preserving(per_tensor=settings.combine == "preserving-tensor", adds=settings.adds)


def _mask(model: Model, settings: Training) -> Mask | None:
    if settings.mask == "none":
        return None
    dynamic = settings.mask == "dynamic"
    return Mask(
        share=settings.mask_share,
        warmup=settings.mask_warmup,
        steps=settings.mask_warmup + settings.steps,
        every=settings.mask_every if dynamic else 0,
        swap=settings.mask_swap,
        until=settings.mask_until,
        per_matrix=dynamic,
        hard=settings.mask_gate == "weights",
        scale=model.weights(settings.part) if settings.mask == "selft" else None,
    )


def _rules(model: Model, request: Request, settings: Training) -> list[Rule]:
    start = model.weights(settings.part)
    rules: list[Rule] = []
    if "l1sp" in settings.rule:
        rules.append(Pull(start, settings.l1sp, 1))
    if "l2sp" in settings.rule:
        rules.append(Pull(start, settings.l2sp, 2))
    if "project" in settings.rule:
        basis = directions(_protected(model, request, settings)).to(model.device, torch.float32)
        rules.append(Project(model.weights("text"), basis))
    return rules


def _protected(model: Model, request: Request, settings: Training) -> Tensor:
    """Text states (n, width) of what is protected, at the last token of each wording, bare and in the templates."""
    kept = neighbours(model, request, settings.protect)
    words = [text for concept in kept for text in texts(concept, model.hints, templates=True)]
    if not words:
        raise InputError("rule=project finds nothing to protect: keep at least one concept")
    states = model.text([fill(form, word) for form, word in words])
    ends = [model.last_token(until(form, word)) for form, word in words]
    return torch.stack([row[end] for row, end in zip(states, ends, strict=True)])
