"""What keeps a long chain from eroding the model: a memory bank, replay, ties to the first model, a projection.

With θ⁰ the first model, θ' the one that the last request left, θ the one in training:

    bank       w E ||ε_θ⁰(x_t, c) - ε_θ(x_t, c)||²     c near to any request so far, or general; never an erased word
    replay     w E ||ε_θ'(x_t, c) - ε_θ(x_t, c)||²     c erased earlier: what the network does there, it goes on doing
    l1sp, l2sp to θ⁰                                    see ``parts.rules``; those to θ' are settings of the method
    project    ΔW e = 0 for keys and values and protected text e: neighbours, earlier targets, general prompts

Pictures are drawn by θ⁰, so that nothing is learned from a copy of a copy. A method without training has no loss: there
the words of the bank and the earlier targets are kept concepts of the request, and the projection is done afterwards.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from .. import seeds
from ..errors import InputError
from ..model import Model
from ..parts import Rule
from ..parts.rules import Project, Pull
from ..schema import Request
from ..settings import setting
from ..training.descend import Beside, Job, Objective, Student
from ..training.prompts import neighbours
from ..training.scenes import gathered, wordings
from ..training.train import Rows, predict
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
    bank_holds: Literal["pictures", "prompts"] = setting(
        "pictures",
        "what it holds: pictures of the first model, or prompts only, then looked at in pure noise",
        source="pictures: DUGE; prompts: ours",
    )
    bank_weight: float = setting(5.0, "weight of the bank's loss", low=0.0, source="ours; canvas")
    replay: int = setting(
        10,
        "pictures of every concept erased earlier that are looked at again, 0 for none",
        low=0,
        source="ours, after Sculpting Memory's distillation",
    )
    replay_weight: float = setting(5.0, "weight of the replay's loss", low=0.0, source="ours; canvas")
    l1sp_first: float = setting(0.0, "weight of L1-SP to the first model, for a mean", low=0.0, source="ours")
    l2sp_first: float = setting(0.0, "weight of L2-SP to the first model, for a mean", low=0.0, source="ours")
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
    """A loss of the keeping side: rows for a step, the weights that its teacher wears, and the loss's weight."""

    name: str
    rows: Callable[[int], Rows]
    teacher: Mapping[str, Tensor]
    weight: float


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
) -> Beside | None:
    """What the guards add to a method that trains; None if they add nothing. The model wears θ'.

    base: all weights of θ⁰. changed: the names of those that θ' has otherwise. batch: rows a step for each guard.
    """
    first = {name: base[name] for name in changed}
    keepers = _keepers(model, request, earlier, first, guards, batch=batch, seed=seed, job=job)
    rules: list[Rule] = []
    for weight, power in ((guards.l1sp_first, 1), (guards.l2sp_first, 2)):
        if weight:
            rules.append(Pull(base, weight, power))
    if guards.project:
        rules.append(projection(model, request, earlier, guards))
    if not keepers and not rules:
        return None
    facts = {"guards": dataclasses.asdict(guards), "earlier": [dataclasses.asdict(one) for one in earlier]}
    return Beside(
        lambda objective: _joined(model, objective, keepers), tuple(rules), json.loads(json.dumps(facts))
    )


def closed(
    model: Model, request: Request, earlier: Sequence[Request], guards: Guards, nearest: int
) -> Request:
    """The request for a method without training: what the guards protect is kept.

    nearest: as many words as the method itself would keep. Raises InputError for guards that need training.
    """
    for name in ("l1sp_first", "l2sp_first"):
        if getattr(guards, name):
            raise InputError(
                f"guard {name} is a penalty on the way of training, which this method does not do"
            )
    if not guards.bank and not guards.replay:
        return request
    near = request.keep
    if not near and guards.bank:
        near = banked(model, request, earlier, guards.bank_near, guards.bank).concepts
    again = tuple(one for past in earlier for one in past.erase) if guards.replay else ()
    return Request(request.erase, (*(near or neighbours(model, request, nearest)), *again))


def projection(model: Model, request: Request, earlier: Sequence[Request], guards: Guards) -> Project:
    """The rule that keeps the update off what is protected. Raises InputError where the target lies inside of that."""
    basis = protected(
        model, request, earlier, nearest=guards.project, general=guards.general, free=guards.free
    )
    return Project(model.weights("text"), basis.to(model.device, torch.float32))


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
    found = []
    if guards.bank:
        bank = banked(model, request, earlier, guards.bank_near, guards.bank)
        rows = (
            _noise(model, bank.prompts, batch, seed)
            if guards.bank_holds == "prompts"
            else _pictures(model, bank.words, first, batch, seed, "bank", job)
        )
        found.append(_Keeper("keep_bank", rows, first, guards.bank_weight))
    past = [concept for one in earlier for concept in one.erase]
    if guards.replay and past:
        words = [wordings(model, concept, guards.replay) for concept in past]
        rows = _pictures(model, words, first, batch, seed, "replay", job)
        found.append(_Keeper("keep_replay", rows, {}, guards.replay_weight))
    return found


def _pictures(
    model: Model,
    words: Sequence[Sequence[str]],
    first: Mapping[str, Tensor],
    batch: int,
    seed: int,
    label: str,
    job: Job,
) -> Callable[[int], Rows]:
    """Noised pictures that the first model drew of these prompts."""
    with model.wearing(first):
        drawn = gathered(model, words, job=job, title=f"pictures for the {label}")
    return lambda step: drawn.batch(model, batch, seeds.stream(seed, "chain", label, step)).rows


def _noise(model: Model, words: Sequence[str], batch: int, seed: int) -> Callable[[int], Rows]:
    """Pure noise at the noisier half of the times, where the prompt decides what becomes of it (ours)."""
    states = model.encode(words)

    def rows(step: int) -> Rows:
        draws = seeds.stream(seed, "chain", "prompts", step)
        which = torch.randint(len(words), (batch,), generator=draws)
        t = torch.randint(model.times // 2, model.times, (batch,), generator=draws).to(model.device)
        x = torch.randn((batch, *model.shape), generator=draws).to(model.device)
        return Rows(x, t, states[which])

    return rows


def _joined(model: Model, own: Objective[Any], keepers: Sequence[_Keeper]) -> Objective[Any]:
    """The method's objective with the guards' losses beside its own."""

    def prepare(step: int, student: Student) -> tuple[Any, list[tuple[Rows, Tensor]]]:
        told = []
        for keeper in keepers:
            rows = keeper.rows(step)
            with model.wearing(keeper.teacher):
                told.append((rows, predict(model, [rows])[0]))
        return own.prepare(step, student), told

    def losses(prepared: tuple[Any, list[tuple[Rows, Tensor]]]) -> dict[str, Tensor]:
        given, told = prepared
        found = dict(own.losses(given))
        for keeper, (rows, wanted) in zip(keepers, told, strict=True):
            (eps,) = predict(model, [rows])
            found[keeper.name] = keeper.weight * (eps - wanted).square().mean()
        return found

    return dataclasses.replace(own, prepare=prepare, losses=losses) if keepers else own
