"""The training loop: losses -> gradients -> combine -> rules -> mask -> step -> rules.

Each random draw is named by its step. A checkpoint holds the master weights and the state of the optimiser, the mask
and the method. So a killed run resumes and ends with the same bits. Several processes share the rows of each pass
(``processes``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import DivergedError, ModelError, quoted
from ..io import processes
from ..model.selection import TEXT_ENCODER
from ..parts import Combine, Gradients, Losses, Rule, Stateful
from ..parts.combine import summed
from ..parts.mask import Mask
from .adam import Adam
from .converged import Convergence
from .job import Job
from .masters import MasterWeights
from .net import Net, Step
from .state import CHECKPOINT, CheckpointTimer, Log, State

__all__ = ["Objective", "constant", "descend", "onecycle"]

Schedule = Callable[[float], tuple[float, float]]
Loss = Callable[[Net, Step], Losses]


@dataclass(frozen=True)
class Objective:
    """What is minimised.

    loss: ``loss(net, step)`` gives named scalars, already weighted; called with gradients enabled.
    saliency: the losses of a mask's warm-up; needed only with a mask.
    state: the method's own state, saved in each checkpoint. adversary: the adversary's.
    panel: ends training when erasing has converged.
    critic_warmup: number of first steps in which ``loss`` trains only a critic and returns no losses.
    """

    loss: Loss
    saliency: Loss | None = None
    state: Stateful | None = None
    adversary: Stateful | None = None
    critic_warmup: int = 0
    panel: Convergence | None = None


def constant(progress: float) -> tuple[float, float]:
    """A constant learning rate: its factor (1) and β₁ for a progress in [0, 1]."""
    return 1.0, 0.9


def onecycle(progress: float) -> tuple[float, float]:
    """One cycle (torch's OneCycleLR with its defaults): up from 1/25 in the first 30 %, then down; β₁ opposite."""
    first, last = 1 / 25, 1 / 25 * 1e-4
    if progress <= 0.3:
        up = _eased(progress / 0.3)
        return first + (1 - first) * up, 0.95 - 0.1 * up
    down = _eased((progress - 0.3) / 0.7)
    return 1 - (1 - last) * down, 0.85 + 0.1 * down


def _eased(progress: float) -> float:
    return (1 - math.cos(math.pi * progress)) / 2


def descend(
    net: Net,
    part: str,
    objective: Objective,
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
    """Train fp32 copies of a part of ``net.model`` with Adam and return them, on the CPU.

    schedule: factor of ``lr``, and β₁, by progress. mask: its warm-up runs after the critic's and before ``steps``.
    rank: of low-rank updates of the part's matrices, trained in place of the weights themselves; 0: none.
    seed: of the updates' initial values.
    The model is unchanged bit for bit, on success and on every exception. Raises DivergedError at the first loss that
    is not finite, ModelError for a float16 model, InputError for a folder that holds another run's checkpoint.
    """
    model = net.model
    if model.dtype == torch.float16:
        raise ModelError("training in float16 loses small gradients: load the model in bfloat16 or float32")
    trained = MasterWeights(model.weights(part), rank)
    masters = trained.init(seed)
    panel = objective.panel
    parts = {"mask": mask, "objective": objective.state, "adversary": objective.adversary, "panel": panel}
    stateful = {name: part for name, part in parts.items() if part is not None}
    state = State(masters, stateful, Adam(masters))
    critic_warmup, rules = objective.critic_warmup, tuple(rules)
    before = critic_warmup + (mask.warmup if mask else 0)
    if job.folder:
        job.folder.mkdir(parents=True, exist_ok=True)
        state.resume(job.folder / CHECKPOINT, job.identity, before)
    timer = CheckpointTimer(job.checkpoint_every)

    with (
        model.frozen(),
        model.offload() if part != TEXT_ENCODER else nullcontext(),
        model.checkpointing(checkpointing),
        Log(job.folder, after=state.done) as log,
    ):
        while (
            state.done < before + steps and not (panel and panel.over) and not _patience_is_over(state, job)
        ):
            done, warming = state.done, state.done < before
            values, gradients = dict[str, float](), Gradients()
            step = Step(done, seed)
            saliency = objective.saliency if critic_warmup <= done < before else None
            with torch.enable_grad():
                net.begin_step(lambda: trained.cast_weights(masters))
                losses = (saliency or objective.loss)(net, step)
                if done >= critic_warmup:
                    values = _finite(losses, done)
                    with net.as_student():
                        gradients = (summed if warming else combine)(done, losses, masters)
            del losses
            net.begin_step()
            if mask and done >= critic_warmup:
                mask.accumulate(done - critic_warmup, gradients)
            if not warming:
                for rule in rules:
                    gradients = rule.regularize_grad(masters, gradients)
                cycle = (panel and panel.cycle) or steps
                share, beta = schedule((done - before) % cycle / max(1, cycle - 1))
                state.optimiser.step(mask.gated(gradients) if mask else gradients, lr=share * lr, beta=beta)
                for rule in rules:
                    rule.project_weights(masters)
            if mask and done >= critic_warmup and mask.choose(done - critic_warmup):
                state.optimiser.forget(mask.opened)
            state.done = done + 1
            if job.stop and not warming and state.done % job.stop.every == 0:
                with torch.no_grad(), model.wearing(trained.cast_weights(masters)):
                    values["score"] = state.score(processes.broadcast(job.stop.score(model, state.done)))
            if panel and not warming and panel.due(state.done - before):
                with torch.no_grad(), model.wearing(trained.cast_weights(masters)):
                    values |= panel.read(state.done - before)
            log.line(state.done, {**values, **step.log})
            if job.folder and state.done < before + steps and timer.due(state.done):
                state.save(job.folder / CHECKPOINT, job.identity)
                timer.reset()
            if job.progress:
                job.progress("warm-up" if warming else "training", state.done, before + steps)
    weights: dict[str, Tensor] = {}
    with torch.no_grad():
        for name, weight in trained.merged(state.best or masters):
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
