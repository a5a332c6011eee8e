"""The one training loop: losses -> gradients -> combine -> rules -> mask -> step -> rules.

There is one network. Outside ``student()`` it is the frozen base model, inside it wears the trained fp32 copies.
Draws are named by their step, and a checkpoint holds the copies, the optimiser's state and all that the mask and the
objective hold: a killed run goes on to the same bits. Several processes share the rows of each pass (``processes``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from .. import processes
from ..errors import DivergedError, ModelError, quoted
from ..model import Model
from ..parts import Combine, Gradients, Held, Losses, Rule
from ..parts.combine import summed
from ..parts.mask import Mask
from .adam import Adam, Adam8
from .copies import Copies
from .state import CHECKPOINT, Clock, Log, State

__all__ = [
    "Beside",
    "Job",
    "Objective",
    "Progress",
    "Stop",
    "Student",
    "constant",
    "descend",
    "onecycle",
]

Student = Callable[[], AbstractContextManager[Any]]
T = TypeVar("T")
Progress = Callable[[str, int, int], None]
Schedule = Callable[[float], tuple[float, float]]


@dataclass(frozen=True)
class Stop:
    """Stop early by a score, and keep the weights that scored best.

    score: called as ``score(model, step)`` with the trained weights worn; lower is better.
    every: steps between two looks. patience: looks without a better score before training ends.
    enough: a score that is no higher ends it at once.
    """

    score: Callable[[Model, int], float]
    every: int = 50
    patience: int = 3
    enough: float = -math.inf


@dataclass(frozen=True)
class Beside:
    """What a chain of requests adds to whatever method carries out the next one.

    objective: takes the method's objective and gives one with further losses. rules: come after the method's own.
    facts: all that both depend on, as JSON can hold it.
    """

    objective: Callable[[Objective[Any]], Objective[Any]]
    rules: tuple[Rule, ...]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Job:
    """How a run is carried out: nothing here changes the edit, except stopping early and what stands beside.

    folder: gets ``log.jsonl``, ``checkpoint.safetensors`` and at last ``edit.safetensors``; a run killed there goes
        on from its checkpoint to the same bits. None keeps nothing.
    progress: called as ``progress(stage, done, total)``.
    checkpoint_every: steps between checkpoints; 0 means by the clock, once a minute and for at most 5 % of the time.
    stop: early stopping, None for all steps.
    cache: where pictures of the base model are kept; None is the user's cache folder.
    identity: what a checkpoint must agree with to be taken up; set by ``edit_for``.
    beside: what a chain adds to a method that trains.
    """

    folder: Path | None = None
    progress: Progress | None = None
    checkpoint_every: int = 0
    stop: Stop | None = None
    cache: Path | None = None
    identity: str = ""
    beside: Beside | None = None


@dataclass(frozen=True)
class Objective(Generic[T]):
    """What a method wants, in two halves.

    prepare: ``prepare(step, student)`` runs without gradients on the base model and gives all that the losses need;
        within ``with student():`` the model is the trained one.
    losses: ``losses(prepared)`` runs on the trained model with gradients and gives named scalars, already weighted.
    warm: what the warm-up of a mask looks at instead; needed only with a mask.
    held: state of the method's own that must survive a kill.
    rests: so many first steps in which only ``prepare`` is called, and the weights rest.
    figures: gives further numbers of the step just done, for the log.
    """

    prepare: Callable[[int, Student], T]
    losses: Callable[[T], Losses]
    warm: Objective[Any] | None = None
    held: Held | None = None
    rests: int = 0
    figures: Callable[[], Mapping[str, float]] = dict


def constant(progress: float) -> tuple[float, float]:
    """Adam's usual run: the share of the learning rate, and β₁, for a progress in [0, 1]."""
    return 1.0, 0.9


def onecycle(progress: float) -> tuple[float, float]:
    """One cycle (torch's OneCycleLR with its defaults): up from 1/25 in 30 % of the way, then down; β₁ opposite."""
    first, last = 1 / 25, 1 / 25 * 1e-4
    if progress <= 0.3:
        risen = _eased(progress / 0.3)
        return first + (1 - first) * risen, 0.95 - 0.1 * risen
    fallen = _eased((progress - 0.3) / 0.7)
    return 1 - (1 - last) * fallen, 0.85 + 0.1 * fallen


def _eased(way: float) -> float:
    return (1 - math.cos(math.pi * way)) / 2


def descend(
    model: Model,
    part: str,
    objective: Objective[T],
    *,
    steps: int,
    lr: float,
    job: Job,
    schedule: Schedule = constant,
    checkpointing: bool = False,
    combine: Combine = summed,
    mask: Mask | None = None,
    rules: Iterable[Rule] = (),
    rank: int = 0,
    eight_bits: bool = False,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Train fp32 copies of a part of the denoiser with Adam, and give them back, on the CPU.

    schedule: the share of ``lr``, and β₁, by progress. mask: its warm-up comes before the ``steps``, after the
        steps in which the objective rests.
    rank: of low-rank updates of the part's matrices, which are trained in place of the weights themselves; 0 for none.
    eight_bits: Adam's moments are held in 8 bits a number. seed: of the updates' first values.
    The model is bitwise as it was, on success and on every exception. Raises DivergedError at the first loss that is
    not a finite number, ModelError for a float16 model, InputError for a folder that holds another run's checkpoint.
    """
    if model.dtype == torch.float16:
        raise ModelError("training in float16 loses small gradients: load the model in bfloat16 or float32")
    copies = Copies(model.weights(part), rank)
    masters = copies.begin(seed)
    named = {"mask": mask, "objective": objective.held}
    held = {name: one for name, one in named.items() if one is not None}
    state = State(masters, held, Adam8(masters) if eight_bits else Adam(masters))
    rests, warmup, rules = objective.rests, mask.warmup if mask else 0, tuple(rules)
    before = rests + warmup
    if job.folder:
        job.folder.mkdir(parents=True, exist_ok=True)
        state.resume(job.folder / CHECKPOINT, job.identity, before)
    clock = Clock(job.checkpoint_every)

    def student() -> AbstractContextManager[Any]:
        return model.wearing(copies.worn(masters))

    with (
        model.frozen(),
        model.alone(),
        model.checkpointing(checkpointing),
        Log(job.folder, after=state.done) as log,
    ):
        while state.done < before + steps and not _patience_is_over(state, job):
            step, values, gradients = state.done, dict[str, float](), Gradients()  # the last step's are gone
            resting, warming = step < rests, step < before
            aim: Objective[Any] = (objective.warm or objective) if warming and not resting else objective
            with torch.no_grad():
                prepared = aim.prepare(step, student)
            if not resting:
                with student(), torch.enable_grad():
                    losses = aim.losses(prepared)
                    values = _finite(losses, step)
                    gradients = (summed if warming else combine)(step, losses, masters)
                del losses
                if mask:
                    mask.gather(step - rests, gradients)
            del prepared
            if not warming:
                for rule in rules:
                    gradients = rule.pull(masters, gradients)
                share, beta = schedule((step - before) / max(1, steps - 1))
                state.optimiser.step(mask.gated(gradients) if mask else gradients, lr=share * lr, beta=beta)
                for rule in rules:
                    rule.settle(masters)
            if mask and not resting and mask.choose(step - rests) and mask.hard:
                state.optimiser.forget(mask.opened)
            state.done = step + 1
            if job.stop and not warming and state.done % job.stop.every == 0:
                with torch.no_grad(), student():
                    values["score"] = state.score(processes.same(job.stop.score(model, state.done)))
            log.line(state.done, {**values, **objective.figures()})
            if job.folder and state.done < before + steps and clock.due(state.done):
                state.save(job.folder / CHECKPOINT, job.identity)
                clock.reset()
            if job.progress:
                job.progress("warm-up" if warming else "training", state.done, before + steps)
    weights: dict[str, Tensor] = {}
    with torch.no_grad():
        for name, weight in copies.whole(state.best or masters):
            if not torch.isfinite(weight).all():
                raise DivergedError(
                    f"after step {state.done} a weight is not a finite number: lower lr (it is {lr:g})"
                )
            weights[name] = weight.detach().cpu()
    return weights


def _finite(losses: Losses, step: int) -> dict[str, float]:
    values = dict(zip(losses, torch.stack([loss.detach() for loss in losses.values()]).tolist(), strict=True))
    for name, value in values.items():
        if not math.isfinite(value):
            raise DivergedError(
                f"at step {step + 1} the loss {quoted(name)} is {value}: lower the learning rate (lr)"
            )
    return values


def _patience_is_over(state: State, job: Job) -> bool:
    stop = job.stop
    return stop is not None and (state.waited >= stop.patience or state.best_score <= stop.enough)
