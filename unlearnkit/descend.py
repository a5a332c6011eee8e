"""The one training loop: losses -> gradients -> combine -> mask -> rules -> step.

There is one network. Outside ``student()`` it is the frozen base model, inside it wears the trained fp32 copies.
Draws are named by their step and a checkpoint holds copies and optimiser state: a killed run goes on to the same bits.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from . import tensors
from .errors import DivergedError, InputError, ModelError
from .files import write_text
from .model import Model
from .parts import Combine, Losses, Mask, Rule
from .parts.combine import summed

__all__ = ["CHECKPOINT", "LOG", "Job", "Objective", "Progress", "Stop", "Student", "descend"]

CHECKPOINT = "checkpoint.safetensors"
LOG = "log.jsonl"

Student = Callable[[], AbstractContextManager[Any]]
T = TypeVar("T")
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Stop:
    """Stop early by a score, and keep the weights that scored best.

    score: called as ``score(model, step)`` with the trained weights worn; lower is better.
    every: steps between two looks. patience: looks without a better score before training ends.
    """

    score: Callable[[Model, int], float]
    every: int = 50
    patience: int = 3


@dataclass(frozen=True)
class Job:
    """How a run is carried out: nothing here changes the edit, except stopping early.

    folder: gets ``log.jsonl``, ``checkpoint.safetensors`` and at last ``edit.safetensors``; a run killed there goes
        on from its checkpoint to the same bits. None keeps nothing.
    progress: called as ``progress(stage, done, total)``.
    checkpoint_every: steps between checkpoints; 0 means by the clock, once a minute and for at most 5 % of the time.
    stop: early stopping, None for all steps.
    cache: where pictures of the base model are kept; None is the user's cache folder.
    identity: what a checkpoint must agree with to be taken up; set by ``edit_for``.
    """

    folder: Path | None = None
    progress: Progress | None = None
    checkpoint_every: int = 0
    stop: Stop | None = None
    cache: Path | None = None
    identity: str = ""


@dataclass(frozen=True)
class Objective(Generic[T]):
    """What a method wants, in two halves.

    prepare: ``prepare(step, student)`` runs without gradients on the base model and gives all that the losses need;
        within ``with student():`` the model is the trained one.
    losses: ``losses(prepared)`` runs on the trained model with gradients and gives named scalars, already weighted.
    """

    prepare: Callable[[int, Student], T]
    losses: Callable[[T], Losses]


@dataclass
class _State:
    """Everything a checkpoint holds."""

    masters: dict[str, Tensor]
    optimiser: torch.optim.Adam
    done: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    best_score: float = math.inf
    waited: int = 0


def descend(
    model: Model,
    part: str,
    objective: Objective[T],
    *,
    steps: int,
    lr: float,
    job: Job,
    checkpointing: bool = False,
    combine: Combine = summed,
    masks: Iterable[Mask] = (),
    rules: Iterable[Rule] = (),
) -> dict[str, Tensor]:
    """Train fp32 copies of a part of the denoiser with Adam, and give them back, on the CPU.

    The model is bitwise as it was, on success and on every exception. Raises DivergedError at the first loss that is
    not a finite number, ModelError for a float16 model, InputError for a folder that holds another run's checkpoint.
    """
    if model.dtype == torch.float16:
        raise ModelError("training in float16 loses small gradients: load the model in bfloat16 or float32")
    masters = {
        name: weight.detach().float().clone().requires_grad_() for name, weight in model.weights(part).items()
    }
    state = _State(masters, torch.optim.Adam(masters.values(), lr=lr, fused=True))
    if job.folder:
        job.folder.mkdir(parents=True, exist_ok=True)
        _resume(job.folder / CHECKPOINT, job, state)
    clock = _Clock(job.checkpoint_every)
    stages = tuple(masks), tuple(rules)

    def student() -> AbstractContextManager[Any]:
        return model.wearing(masters)

    with model.frozen(), model.checkpointing(checkpointing), _Log(job.folder, after=state.done) as log:
        while state.done < steps and not _patience_is_over(state, job):
            step = state.done
            with torch.no_grad():
                prepared = objective.prepare(step, student)
            with student(), torch.enable_grad():
                losses = objective.losses(prepared)
                values = _finite(losses, step)
                gradients = combine(losses, masters)
            for mask in stages[0]:
                gradients = mask(step, gradients)
            for rule in stages[1]:
                gradients = rule(masters, gradients)
            for name, master in masters.items():
                master.grad = gradients[name]
            state.optimiser.step()
            state.done = step + 1
            if job.stop and state.done % job.stop.every == 0:
                with torch.no_grad(), student():
                    values["score"] = _look(state, job.stop.score(model, state.done))
            log.line(state.done, values)
            if job.folder and state.done < steps and clock.due(state.done):
                _checkpoint(job.folder / CHECKPOINT, job, state)
                clock.reset()
            if job.progress:
                job.progress("training", state.done, steps)
    weights = state.best or masters
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
    return job.stop is not None and state.waited >= job.stop.patience


def _checkpoint(path: Path, job: Job, state: _State) -> None:
    held = {f"weight/{name}": master for name, master in state.masters.items()}
    for name, master in state.masters.items():
        adam = state.optimiser.state[master]
        held |= {f"first/{name}": adam["exp_avg"], f"second/{name}": adam["exp_avg_sq"]}
    held |= {f"best/{name}": weight for name, weight in state.best.items()}
    facts = {
        "identity": job.identity,
        "done": state.done,
        "waited": state.waited,
        "best_score": state.best_score,
    }
    tensors.write(path, held, facts)


def _resume(path: Path, job: Job, state: _State) -> None:
    """Take up the checkpoint at ``path`` if there is one."""
    if not path.exists():
        return
    held, facts = tensors.read(path, device=next(iter(state.masters.values())).device)
    names = {name.partition("/")[2] for name in held}
    if facts.get("identity") != job.identity or names != set(state.masters):
        raise InputError(
            f"{str(path)!r} belongs to a run with other settings: choose another folder, or delete it"
        )
    state.done, state.waited, state.best_score = facts["done"], facts["waited"], facts["best_score"]
    for name, master in state.masters.items():
        with torch.no_grad():
            master.copy_(held[f"weight/{name}"])
        state.optimiser.state[master] = {
            "step": torch.tensor(float(state.done), device=master.device),
            "exp_avg": held[f"first/{name}"],
            "exp_avg_sq": held[f"second/{name}"],
        }
    state.best = {name: held[f"best/{name}"] for name in state.masters if f"best/{name}" in held}


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
        self.path, self.after, self.start = folder and folder / LOG, after, time.monotonic()

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
