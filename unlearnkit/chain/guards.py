"""What keeps a long chain from eroding the model: a memory bank, replay, a projection.

With θ⁰ the first model, θ' the one that the last request left, θ the one in training:

    bank       w E ||ε_θ⁰(x_t, c) - ε_θ(x_t, c)||²     c near to any request so far, or general; never an erased word
    replay     w E ||ε_θ'(x_t, c) - ε_θ(x_t, c)||²     c erased earlier: what the network does there, it goes on doing
    project    ΔW e = 0 for keys and values and protected text e: neighbours, earlier targets, general prompts

Pictures are drawn by θ⁰, so that nothing is learned from a copy of a copy. A method without training has no loss: there
the words of the bank and the earlier targets are kept concepts of the request, and the projection is done afterwards.
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
from ..models.model import Model
from ..parts import Rule
from ..parts.rules import Projection
from ..schema import Request
from ..settings import setting
from ..training.job import ExtraLosses, Job, Run
from ..training.net import Net, Step, mse
from .screening import banked, protected

__all__ = ["Guards", "beside", "closed", "projection"]


@dataclass(frozen=True)
class Guards:
    bank: int = setting(
        200,
        "prompts in the memory bank at most, as many of every word; 0 for none; with bank_near half of them near to "
        "requests, so it grows with them",
        low=0,
        source="notes on DUGE: 64 to 200; canvas",
    )
    bank_near: int = setting(
        0, "nearest words of every request that go into the bank first", low=0, source="ours; canvas: 0"
    )
    bank_weight: float = setting(5.0, "weight of the bank's loss", low=0.0, source="ours; canvas")
    replay: int = setting(
        10,
        "pictures of every concept erased earlier that are looked at again, 0 for none",
        low=0,
        source="ours, after Sculpting Memory's distillation",
    )
    replay_weight: float = setting(5.0, "weight of the replay's loss", low=0.0, source="ours; canvas")
    project: int = setting(
        0,
        "nearest words whose keys and values stay as they are, with all earlier targets; 0: no projection",
        low=0,
        source="Lee et al., arXiv 2511.07970",
    )
    general: int = setting(
        0, "with project: so many general prompts are protected, too", low=0, source="Lee et al.: 200 in all"
    )
    free: float = setting(
        0.3,
        "with project: the least share of a target that must lie outside what is protected",
        low=0.0,
        high=1.0,
        source="notes on Lee et al.",
    )


@dataclass(frozen=True)
class _Keeper:
    """A loss of the keeping side: rows for a step, what its teacher has otherwise than the model, the loss's weight."""

    name: str
    rows: Callable[[Step], DenoiserInput]
    teacher: Mapping[str, Tensor]
    weight: float

    def loss(self, net: Net, step: Step) -> Tensor:
        rows = self.rows(step)
        (base,) = net.teacher([rows], self.teacher)
        (eps,) = net.student([rows])
        return self.weight * mse(eps, base)


def beside(
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
    """What the guards add to a method that trains; None if they add nothing. The model wears θ'.

    base: all weights of θ⁰. changed: the names of those that θ' has otherwise. batch: rows a step for each guard.
    """
    first = {name: base[name] for name in changed}
    keepers = _keepers(model, request, earlier, first, guards, batch=batch, seed=seed, job=job)
    rules: list[Rule] = []
    if guards.project:
        rules.append(projection(model, request, earlier, guards))
    if not keepers and not rules:
        return None
    facts = {"guards": dataclasses.asdict(guards), "earlier": [dataclasses.asdict(one) for one in earlier]}
    return ExtraLosses(
        lambda net, step: {one.name: one.loss(net, step) for one in keepers},
        tuple(rules),
        json.loads(json.dumps(facts)),
    )


def closed(
    model: Model, request: Request, earlier: Sequence[Request], guards: Guards, nearest: int
) -> Request:
    """The request for a method without training: what the guards protect is kept.

    nearest: as many words as the method itself would keep.
    """
    if not guards.bank and not guards.replay:
        return request
    near = request.keep
    if not near and guards.bank:
        near = banked(model, request, earlier, guards.bank_near, guards.bank).concepts
    again = tuple(one for past in earlier for one in past.erase) if guards.replay else ()
    return Request(request.erase, (*(near or neighbours(model, request, nearest)), *again))


def projection(model: Model, request: Request, earlier: Sequence[Request], guards: Guards) -> Projection:
    """The rule that keeps the update off what is protected. Raises InputError where the target lies inside of that."""
    basis = protected(
        model, request, earlier, nearest=guards.project, general=guards.general, free=guards.free
    )
    return Projection(model.weights("text"), basis.to(model.device, torch.float32))


def _keepers(
    model: Model,
    request: Request,
    earlier: Sequence[Request],
    first: Mapping[str, Tensor],
    guards: Guards,
    *,
    batch: int,
    seed: int,
    job: Job,
) -> list[_Keeper]:
    found, run = [], Run(model, request, Net(model), seed, job)
    if guards.bank:
        bank = banked(model, request, earlier, guards.bank_near, guards.bank)
        rows = _pictures(run, bank.words, first, batch, "bank")
        found.append(_Keeper("keep_bank", rows, first, guards.bank_weight))
    past = [concept for one in earlier for concept in one.erase]
    if guards.replay and past:
        words = [prompts_for(model, concept, guards.replay) for concept in past]
        rows = _pictures(run, words, first, batch, "replay")
        found.append(_Keeper("keep_replay", rows, {}, guards.replay_weight))
    return found


def _pictures(
    run: Run, prompts: Sequence[Sequence[str]], first: Mapping[str, Tensor], batch: int, label: str
) -> Callable[[Step], DenoiserInput]:
    """Noised pictures that the first model drew of these prompts."""
    with run.model.wearing(first):
        drawn = run.image_groups(prompts, title=f"pictures for the {label}")
    return lambda step: drawn.batch(batch, seeds.stream(run.seed, "chain", label, step.number)).input
