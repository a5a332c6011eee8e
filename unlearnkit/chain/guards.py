"""Guards against the erosion of a model in a long chain: a memory bank, replay, a projection.

θ⁰ is the base model, θ' the model after the last request, θ the model in training:

    bank       w E ||ε_θ⁰(x_t, c) - ε_θ(x_t, c)||²     c near to any request so far, or general; no erased word
    replay     w E ||ε_θ'(x_t, c) - ε_θ(x_t, c)||²     c erased earlier: the network keeps its output there
    project    ΔW e = 0 for keys and values and protected text e: neighbours, earlier targets, general prompts
    anchor     ΔW e = 0 for what takes a concept's place, of this and all earlier requests
    history    ΔW v = 0 for the leading directions v of what earlier requests changed, W - W⁰

θ⁰ draws the pictures, so nothing is learned from a copy of a copy. A closed-form method has no loss: with ``bank_near``
the words near to requests, and with replay the earlier targets, become retained concepts of its request, and the
projection is applied afterwards.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import seeds
from ..data.image_sets import DenoiserInput
from ..data.prompts import neighbours, prompts_for
from ..data.text_columns import target_of
from ..model.model import Model
from ..parts import Rule
from ..parts.rules import Projection, span_basis
from ..schema import Request
from ..settings import setting
from ..training.job import ExtraLosses, Job, Run
from ..training.net import Net, Step, mse
from .screening import memory_bank, protected_texts, refuse_protected

__all__ = ["Guards", "closed_form_request", "guard_losses", "projection"]


@dataclass(frozen=True)
class Guards:
    bank: int = setting(
        200,
        "largest number of prompts in the memory bank, equally many of every word; 0: none; with bank_near half "
        "of them are near to requests, so the bank grows with them",
        low=0,
        source="notes on DUGE: 64 to 200; canvas",
    )
    bank_near: int = setting(
        0,
        "number of nearest words of every request that enter the bank first",
        low=0,
        source="ours; canvas: 0",
    )
    bank_weight: float = setting(5.0, "weight of the bank loss", low=0.0, source="ours; canvas")
    replay: int = setting(
        10,
        "pictures of every earlier erased concept for the replay loss; 0: none",
        low=0,
        source="ours, after Sculpting Memory's distillation",
    )
    replay_weight: float = setting(5.0, "weight of the replay loss", low=0.0, source="ours; canvas")
    project: int = setting(
        0,
        "number of nearest words whose keys and values do not change, with all earlier targets; 0: no projection",
        low=0,
        source="Lee et al., arXiv 2511.07970",
    )
    general: int = setting(
        0,
        "with project: number of general prompts that are protected, too",
        low=0,
        source="Lee et al.: 200 in all",
    )
    anchor: bool = setting(
        False,
        "what takes a concept's place, in every template, joins the text whose keys and values do not change",
        source="CEASE, arXiv 2610.01989",
    )
    history: float = setting(
        0.0,
        "directions with this share of the energy of earlier changes are left alone by a new one; 0: none",
        low=0.0,
        high=1.0,
        source="CEASE, arXiv 2610.01989: all",
    )
    free: float = setting(
        0.3,
        "with project, anchor, history: the smallest share of a target that must lie outside of what is protected",
        low=0.0,
        high=1.0,
        source="notes on Lee et al.",
    )

    @property
    def projects(self) -> bool:
        """Whether the update of keys and values is projected."""
        return bool(self.project or self.anchor or self.history)


@dataclass(frozen=True)
class _GuardLoss:
    """A retain loss. rows: the batch of a step. teacher: weights in which its teacher differs from the model."""

    name: str
    rows: Callable[[Step], DenoiserInput]
    teacher: Mapping[str, Tensor]
    weight: float

    def loss(self, net: Net, step: Step) -> Tensor:
        rows = self.rows(step)
        (base,) = net.teacher([rows], self.teacher)
        (eps,) = net.student([rows])
        return self.weight * mse(eps, base)


def guard_losses(
    model: Model,
    request: Request,
    earlier: Sequence[Request],
    base: Mapping[str, Tensor],
    changed: Sequence[str],
    guards: Guards,
    *,
    batch: int,
    seed: int,
    job: Job,
) -> ExtraLosses | None:
    """The losses and rules that the guards add to a method that trains; None if there are none. The model has θ'.

    base: all weights of θ⁰. changed: the names of the weights in which θ' differs. batch: rows of each guard per step.
    """
    first = {name: base[name] for name in changed}
    losses = _losses(model, request, earlier, first, guards, batch=batch, seed=seed, job=job)
    rules: list[Rule] = []
    if guards.projects:
        rules.append(projection(model, request, earlier, base, guards))
    if not losses and not rules:
        return None
    facts = {"guards": dataclasses.asdict(guards), "earlier": [dataclasses.asdict(one) for one in earlier]}
    return ExtraLosses(
        lambda net, step: {one.name: one.loss(net, step) for one in losses},
        tuple(rules),
        json.loads(json.dumps(facts)),
    )


def closed_form_request(
    model: Model, request: Request, earlier: Sequence[Request], guards: Guards, nearest: int
) -> Request:
    """The request for a closed-form method: it also retains words near to any request, and earlier targets.

    nearest: the number of words that the method itself would retain.
    """
    bank_near = guards.bank_near if guards.bank else 0
    if not bank_near and not guards.replay:
        return request
    near = request.keep
    if not near and bank_near:
        near = memory_bank(model, request, earlier, bank_near, guards.bank).concepts
    again = tuple(one for past in earlier for one in past.erase) if guards.replay else ()
    return Request(request.erase, (*(near or neighbours(model, request, nearest)), *again))


def projection(
    model: Model, request: Request, earlier: Sequence[Request], base: Mapping[str, Tensor], guards: Guards
) -> Projection:
    """The rule that projects the update off what is protected. base: all weights of θ⁰; the model has θ'.

    Raises InputError if the target is protected itself.
    """
    states = protected_texts(
        model,
        request,
        earlier,
        nearest=guards.project,
        general=guards.general if guards.project else 0,
        places=target_of if guards.anchor else None,
    )
    matrices, bases = model.weights("text"), dict[str, Tensor]()
    for name, weight in matrices.items():
        past = leading((weight - base[name]).detach().cpu().double(), guards.history)
        bases[name] = span_basis(torch.cat([states, states.norm(dim=1).mean() * past]))
    refuse_protected(model, request, bases.values(), guards.free)
    return Projection(matrices, {name: one.to(model.device, torch.float32) for name, one in bases.items()})


def leading(change: Tensor, share: float) -> Tensor:
    """The fewest right singular vectors (k, width) that hold the share of the energy of a change (rows, width)."""
    _, size, v = torch.linalg.svd(change, full_matrices=False)
    energy = size.square().cumsum(0)
    # a vector is needed if those before it have too little
    rows: Tensor = v[(energy - size.square() < share * energy[-1]) & (size > 1e-6 * size[0])]
    return rows


def _losses(
    model: Model,
    request: Request,
    earlier: Sequence[Request],
    first: Mapping[str, Tensor],
    guards: Guards,
    *,
    batch: int,
    seed: int,
    job: Job,
) -> list[_GuardLoss]:
    losses, run = [], Run(model, request, Net(model), seed, job)
    if guards.bank:
        bank = memory_bank(model, request, earlier, guards.bank_near, guards.bank)
        rows = _pictures(run, bank.words, first, batch, "bank")
        losses.append(_GuardLoss("keep_bank", rows, first, guards.bank_weight))
    past = [concept for one in earlier for concept in one.erase]
    if guards.replay and past:
        words = [prompts_for(model, request, concept, guards.replay) for concept in past]
        rows = _pictures(run, words, first, batch, "replay")
        losses.append(_GuardLoss("keep_replay", rows, {}, guards.replay_weight))
    return losses


def _pictures(
    run: Run, prompts: Sequence[Sequence[str]], first: Mapping[str, Tensor], batch: int, label: str
) -> Callable[[Step], DenoiserInput]:
    """For a step a noisy batch of pictures of these prompts, drawn by the base model."""
    with run.model.wearing(first):
        drawn = run.image_groups(prompts, title=f"pictures for the {label}")
    return lambda step: drawn.batch(batch, seeds.stream(run.seed, "chain", label, step.number)).input
