"""The one training loop: losses -> gradients -> combine -> rules -> mask -> step -> rules.

There is one network. Outside ``student()`` it is the frozen base model, inside it wears the trained fp32 copies.
Draws are named by their step, and a checkpoint holds the copies, the optimiser's state and all that the mask and the
objective hold: a killed run goes on to the same bits. Several processes share the rows of each pass (``processes``).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from .. import processes, tensors
from ..errors import DivergedError, InputError, ModelError
from ..files import write_text
from ..model import Model
from ..parts import Combine, Held, Losses, Rule, lora
from ..parts.combine import summed
from ..parts.mask import Mask

__all__ = [
    "CHECKPOINT",
    "LOG",
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

CHECKPOINT = "checkpoint.safetensors"
LOG = "log.jsonl"

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


class _State:
    """Everything a checkpoint holds. Adam's moments are there from the start, as it would make them itself."""

    def __init__(self, masters: dict[str, Tensor], held: Mapping[str, Held]) -> None:
        self.masters, self.held = masters, held
        self.optimiser = torch.optim.Adam(masters.values(), fused=True)
        self.done, self.best, self.best_score, self.waited = 0, dict[str, Tensor](), math.inf, 0
        for master in masters.values():
            self.take(master, 0, torch.zeros_like(master), torch.zeros_like(master))

    def take(self, master: Tensor, steps: int, first: Tensor, second: Tensor) -> None:
        """Adam's state of one copy after ``steps`` steps."""
        counter = torch.tensor(float(steps), device=master.device)
        self.optimiser.state[master] = {"step": counter, "exp_avg": first, "exp_avg_sq": second}

    def step(self, gradients: Mapping[str, Tensor], *, lr: float, beta: float) -> None:
        """One step of Adam."""
        for group in self.optimiser.param_groups:
            group["lr"], group["betas"] = lr, (beta, 0.999)
        for name, master in self.masters.items():
            master.grad = gradients[name]
        self.optimiser.step()
        self.optimiser.zero_grad()

    def hold(self, opened: Mapping[str, Tensor]) -> None:
        """Without momentum a closed entry, whose gradient is zero, stays as it is, bit for bit."""
        for name, entries in opened.items():
            adam = self.optimiser.state[self.masters[name]]
            adam["exp_avg"].mul_(entries)
            adam["exp_avg_sq"].mul_(entries)


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
    seed: int = 0,
) -> dict[str, Tensor]:
    """Train fp32 copies of a part of the denoiser with Adam, and give them back, on the CPU.

    schedule: the share of ``lr``, and β₁, by progress. mask: its warm-up comes before the ``steps``, after the
        steps in which the objective rests.
    rank: of low-rank updates of the part's matrices, which are trained in place of the weights themselves; 0 for none.
    seed: of these updates' first values.
    The model is bitwise as it was, on success and on every exception. Raises DivergedError at the first loss that is
    not a finite number, ModelError for a float16 model, InputError for a folder that holds another run's checkpoint.
    """
    if model.dtype == torch.float16:
        raise ModelError("training in float16 loses small gradients: load the model in bfloat16 or float32")
    start = model.weights(part)
    copies = lora.begin(start, rank, seed=seed) if rank else {k: w.detach().float() for k, w in start.items()}
    masters = {name: copy.clone().requires_grad_() for name, copy in copies.items()}
    named = {"mask": mask, "objective": objective.held}
    state = _State(masters, {name: held for name, held in named.items() if held is not None})
    rests, warmup, rules = objective.rests, mask.warmup if mask else 0, tuple(rules)
    before = rests + warmup
    if job.folder:
        job.folder.mkdir(parents=True, exist_ok=True)
        _resume(job.folder / CHECKPOINT, job, state, before)
    clock = _Clock(job.checkpoint_every)

    def worn(copies: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return lora.merged(start, copies) if rank else copies

    def student() -> AbstractContextManager[Any]:
        return model.wearing(worn(masters))

    with (
        model.frozen(),
        model.alone(),
        model.checkpointing(checkpointing),
        _Log(job.folder, after=state.done) as log,
    ):
        while state.done < before + steps and not _patience_is_over(state, job):
            step, values = state.done, dict[str, float]()
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
                state.step(mask.gated(gradients) if mask else gradients, lr=share * lr, beta=beta)
                for rule in rules:
                    rule.settle(masters)
            if mask and not resting and mask.choose(step - rests) and mask.hard:
                state.hold(mask.opened)
            state.done = step + 1
            if job.stop and not warming and state.done % job.stop.every == 0:
                with torch.no_grad(), student():
                    values["score"] = _look(state, processes.same(job.stop.score(model, state.done)))
            log.line(state.done, {**values, **objective.figures()})
            if job.folder and state.done < before + steps and clock.due(state.done):
                _checkpoint(job.folder / CHECKPOINT, job, state)
                clock.reset()
            if job.progress:
                job.progress("warm-up" if warming else "training", state.done, before + steps)
    with torch.no_grad():
        weights = worn(state.best or masters)
    if not all(torch.isfinite(weight).all() for weight in weights.values()):
        raise DivergedError(
            f"after step {state.done} a weight is not a finite number: lower lr (it is {lr:g})"
        )
    return {name: weight.detach().cpu() for name, weight in weights.items()}


def _finite(losses: Losses, step: int) -> dict[str, float]:
    values = dict(zip(losses, torch.stack([loss.detach() for loss in losses.values()]).tolist(), strict=True))
    for name, value in values.items():
        if not math.isfinite(value):
            raise DivergedError(
                f"at step {step + 1} the loss {name!r} is {value}: lower the learning rate (lr)"
            )
    return values


def _look(state: _State, score: float) -> float:
    state.waited += 1
    if score < state.best_score:
        state.best_score, state.waited = score, 0
        state.best = {name: master.detach().clone() for name, master in state.masters.items()}
    return score


def _patience_is_over(state: _State, job: Job) -> bool:
    stop = job.stop
    return stop is not None and (state.waited >= stop.patience or state.best_score <= stop.enough)


def _checkpoint(path: Path, job: Job, state: _State) -> None:
    held = {f"weight/{name}": master for name, master in state.masters.items()}
    for name, master in state.masters.items():
        adam = state.optimiser.state[master]
        held |= {f"first/{name}": adam["exp_avg"], f"second/{name}": adam["exp_avg_sq"]}
    held |= {f"best/{name}": weight for name, weight in state.best.items()}
    for owner, part in state.held.items():
        held |= {f"{owner}/{name}": tensor for name, tensor in part.tensors().items()}
    facts = {
        "identity": job.identity,
        "done": state.done,
        "waited": state.waited,
        "best_score": state.best_score,
    }
    tensors.write(path, held, facts)


def _resume(path: Path, job: Job, state: _State, before: int) -> None:
    """Take up the checkpoint at ``path`` if there is one."""
    if not path.exists():
        return
    held, facts = tensors.read(path, device=next(iter(state.masters.values())).device)
    by: dict[str, dict[str, Tensor]] = {}
    for key, tensor in held.items():
        owner, _, name = key.partition("/")
        by.setdefault(owner, {})[name] = tensor
    if facts.get("identity") != job.identity or by.get("weight", {}).keys() != state.masters.keys():
        raise InputError(
            f"{str(path)!r} belongs to a run with other settings: choose another folder, or delete it"
        )
    state.done, state.waited, state.best_score = facts["done"], facts["waited"], facts["best_score"]
    for name, master in state.masters.items():
        with torch.no_grad():
            master.copy_(by["weight"][name])
        state.take(master, max(0, state.done - before), by["first"][name], by["second"][name])
    state.best = by.get("best", {})
    for owner, part in state.held.items():
        part.restore(by.get(owner, {}))


class _Clock:
    """When the next checkpoint is due: every so many steps, or each minute and for at most 5 % of the time."""

    def __init__(self, every: int) -> None:
        self.every, self.pause, self.last = every, 60.0, time.monotonic()
        self.asked = self.last

    def due(self, done: int) -> bool:
        self.asked = time.monotonic()
        return done % self.every == 0 if self.every else self.asked - self.last >= self.pause

    def reset(self) -> None:
        self.last = time.monotonic()
        self.pause = max(60.0, 20 * (self.last - self.asked))


class _Log:
    """``log.jsonl``: one line a step; lines after the checkpoint are dropped, so that no step appears twice."""

    def __init__(self, folder: Path | None, *, after: int) -> None:
        self.path = folder / LOG if folder and processes.first() else None
        self.after, self.start = after, time.monotonic()

    def __enter__(self) -> _Log:
        if self.path:
            write_text(self.path, "".join(line for line in _lines(self.path) if _step(line) <= self.after))
            self.file = self.path.open("a", encoding="utf-8", buffering=1)
        return self

    def __exit__(self, *_: object) -> None:
        if self.path:
            self.file.close()

    def line(self, step: int, values: Mapping[str, float]) -> None:
        if self.path:
            facts = {"step": step, **values, "seconds": round(time.monotonic() - self.start, 3)}
            self.file.write(json.dumps(facts) + "\n")


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []


def _step(line: str) -> float:
    """The step of a log line; a line cut short by a kill belongs to none."""
    try:
        return float(json.loads(line)["step"]) if line.endswith("\n") else math.inf
    except (ValueError, KeyError):
        return math.inf
