"""The training recipe's loop: steps with a cosine schedule, progress with an estimate, resumable after a kill.

Every batch is a function of (stage, step), so a resumed stage sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unlearnkit.errors import DivergedError
from unlearnkit.io.files import atomic_file

__all__ = ["Average", "LossOf", "train_averaged", "train_stage"]

LOOK = 50  # steps between two looks at the figures, after which a checkpoint may be due
SAVE_EVERY = 60.0  # seconds
LossOf = Callable[[int], tuple[Tensor, Mapping[str, Tensor]]]  # of a step: the loss, and figures to log
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class Average:
    """Exponential moving average of a network's weights, with a short memory at the start."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.shadow = {name: p.detach().clone() for name, p in network.named_parameters()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        keep = min(self.decay, (step + 1) / (step + 10))
        params = [p.detach() for _, p in network.named_parameters()]
        torch._foreach_lerp_(list(self.shadow.values()), params, 1 - keep)


def rate(step: int, steps: int, warm: int) -> float:
    """Learning-rate factor: linear warm-up, then a cosine down to 2 %."""
    if step < warm:
        return (step + 1) / warm
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _save(
    path: Path, network: nn.Module, optimiser: torch.optim.Optimizer, average: Average | None, step: int
) -> None:
    tensors: dict[str, Tensor] = {f"w.{k}": v.detach().contiguous() for k, v in network.state_dict().items()}
    for i, p in enumerate(p for group in optimiser.param_groups for p in group["params"]):
        tensors |= {f"o.{i}.{k}": optimiser.state[p][k] for k in _MOMENTS if k in optimiser.state[p]}
    if average:
        tensors |= {f"a.{k}": v for k, v in average.shadow.items()}
    with atomic_file(path) as partial:
        save_file(tensors, str(partial), metadata={"step": str(step)})


def _restore(
    path: Path, network: nn.Module, optimiser: torch.optim.Optimizer, average: Average | None
) -> int:
    """Put a checkpoint back in place; returns the number of steps that are done."""
    tensors = load_file(str(path))
    network.load_state_dict({k[2:]: v for k, v in tensors.items() if k.startswith("w.")})
    for i, p in enumerate(p for group in optimiser.param_groups for p in group["params"]):
        optimiser.state[p] = {
            k: tensors[f"o.{i}.{k}"].to(p.device if k != "step" else "cpu") for k in _MOMENTS
        }
    if average:
        average.shadow = {name: tensors[f"a.{name}"].to(old.device) for name, old in average.shadow.items()}
    with safe_open(str(path), "pt") as file:
        return int(file.metadata()["step"])


def train_stage(
    name: str,
    network: nn.Module,
    loss_of: LossOf,
    *,
    steps: int,
    learning_rate: float,
    folder: Path,
    decay: float = 0.0,
    weight_decay: float = 0.01,
    warm: int = 100,
) -> Average | None:
    """Train ``network`` for ``steps`` steps of AdamW; ``loss_of(step)`` gives the loss and figures to log.

    decay: of the moving average of the weights; 0 keeps none. Returns the average. A checkpoint
    ``folder/NAME.safetensors`` is written every minute and picked up again; ``folder/NAME.jsonl`` is the log.
    """
    optimiser = torch.optim.AdamW(network.parameters(), learning_rate, (0.9, 0.99), weight_decay=weight_decay)
    average = Average(network, decay) if decay else None
    path, first = folder / f"{name}.safetensors", 0
    if path.is_file():
        first = _restore(path, network, optimiser, average)
        print(f"{name}: resumed at step {first} of {steps}", flush=True)
    network.train()
    began = saved = time.monotonic()
    mean: dict[str, Tensor] = {}
    for step in range(first, steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * rate(step, steps, warm)
        loss, figures = loss_of(step)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        if average:
            average.update(network, step)
        for key, value in {"loss": loss, **figures}.items():
            value = value.detach()
            mean[key] = mean.get(key, value).lerp(value, 0.02)
        done, now = step + 1, time.monotonic()
        if done % LOOK == 0 or done == steps:  # a GPU is asked for numbers no more often than that
            pace, seen = (now - began) / (done - first), {key: value.item() for key, value in mean.items()}
            if not math.isfinite(seen["loss"]):
                raise DivergedError(
                    f"{name}: the loss is {seen['loss']} by step {done}: lower the learning rate"
                )
            row = {"step": done, "seconds_a_step": round(pace, 3)} | {k: round(v, 5) for k, v in seen.items()}
            with (folder / f"{name}.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{name} {done}/{steps} {row} left {pace * (steps - done) / 60:.1f} min", flush=True)
            if now - saved > SAVE_EVERY or done == steps:
                _save(path, network, optimiser, average, done)
                saved = now
    network.eval()
    return average


def train_averaged(
    name: str,
    network: Any,
    loss_of: LossOf,
    *,
    folder: Path,
    decay: float,
    **how: Any,
) -> None:
    """Train a diffusers network and save the moving average of its weights as ``folder/NAME``."""
    average = train_stage(f"{name}-run", network, loss_of, folder=folder, decay=decay, **how)
    if average:
        network.load_state_dict({**network.state_dict(), **average.shadow})
    network.save_pretrained(folder / name)
