"""What both sides are given, and what is read off them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from unlearnkit import Concept, load
from unlearnkit.methods import Job, edit_for
from unlearnkit.model.edit import Edit
from unlearnkit.model.model import Model
from unlearnkit.parts import Losses
from unlearnkit.parts.combine import summed
from unlearnkit.schema import Request
from unlearnkit.training.net import Net

__all__ = ["Peer", "Seen", "Work", "difference", "erased", "gradient", "opened", "request", "watched"]


@dataclass(frozen=True)
class Work:
    """checkout: of their code. pipeline: the model's folder, as diffusers saves it. out: an empty folder.

    steps: of training. latent: height and width of the latents. size: of the pictures, in pixels.
    """

    checkout: Path
    pipeline: Path
    out: Path
    steps: int
    latent: int
    size: int


@dataclass(frozen=True)
class Peer:
    """One method, as its authors' code and ours have it.

    repo: owner/name; the checkout's folder has the name alone. ran: what of theirs runs, and what was changed for it.
    same: the work that both do. theirs, ours: do it, and give the new weights by name.
    agrees: what is compared, and its largest relative difference. latent: smallest that theirs can take.
    """

    method: str
    repo: str
    ran: str
    same: str
    theirs: Callable[[Work], Mapping[str, Tensor]]
    ours: Callable[[Work], Mapping[str, Tensor]]
    agrees: Callable[[Work], tuple[str, float]]
    latent: int = 16


@dataclass
class Seen:
    """Of a side while it trains: (seconds of processor time, weights) after each optimiser step, the gradients of the
    first step, and the arguments of the denoiser's passes (x, t, cond, with gradient)."""

    ticks: list[tuple[float, int]] = field(default_factory=list)
    gradients: dict[str, Tensor] = field(default_factory=dict)
    passes: list[tuple[Tensor, Tensor, Tensor, bool]] = field(default_factory=list)

    def step(self, weights: int) -> float:
        """Mean seconds of a step, but for the first, of the optimiser that has about so many weights."""
        own = min((count for _, count in self.ticks), key=lambda count: abs(count - weights))
        times = [when for when, count in self.ticks if count == own]
        return (times[-1] - times[0]) / (len(times) - 1)


@contextmanager
def watched(*, passes: bool = False) -> Iterator[Seen]:
    """What the side that runs inside does. passes: record also gradients and the denoiser's arguments."""
    seen, students, forward = Seen(), list[Any](), UNet2DConditionModel.forward

    def count(optimizer: torch.optim.Optimizer) -> int:
        return sum(weight.numel() for group in optimizer.param_groups for weight in group["params"])

    def tick(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        seen.ticks.append((time.process_time(), count(optimizer)))

    def before(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        mine = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
        for name, weight in () if seen.gradients else students[-1].named_parameters():
            if id(weight) in mine:
                gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad.detach().clone()
                seen.gradients[f"unet.{name}"] = gradient

    def noted(
        self: Any, sample: Tensor, timestep: Any, encoder_hidden_states: Tensor, *a: Any, **k: Any
    ) -> Any:
        if torch.is_grad_enabled():
            students.append(self)
        t = torch.as_tensor(timestep).expand(len(sample)).clone()
        seen.passes.append((sample.detach(), t, encoder_hidden_states.detach(), torch.is_grad_enabled()))
        return forward(self, sample, timestep, encoder_hidden_states, *a, **k)

    hooks = [register_optimizer_step_post_hook(tick)]
    if passes:
        hooks.append(register_optimizer_step_pre_hook(before))
        UNet2DConditionModel.forward = noted
    try:
        yield seen
    finally:
        UNet2DConditionModel.forward = forward
        for hook in hooks:
            hook.remove()


def opened(work: Work) -> Model:
    return load(str(work.pipeline))


def request(instead: str | None = None, *keep: str) -> Request:
    """Erase the cat, keep these objects."""
    return Request((Concept("cat", instead=instead),), tuple(Concept(name) for name in keep))


def erased(work: Work, method: str, settings: Mapping[str, Any], asked: Request) -> Mapping[str, Tensor]:
    """Our side from the folder to the file of the edit."""
    job = Job(cache=work.pipeline.parent / "pictures")
    edit: Edit = edit_for(opened(work), asked, method=method, settings=settings, job=job)
    edit.save(work.out / "edit.safetensors")
    return edit.weights


def gradient(net: Net, part: str, loss: Callable[[], Losses]) -> Mapping[str, Tensor]:
    """The gradient of our summed losses, for the untouched weights of a part."""
    masters = {name: w.detach().clone().requires_grad_() for name, w in net.model.weights(part).items()}
    net.begin_step(lambda: masters)
    with torch.enable_grad(), net.model.frozen():
        losses = loss()
        with net.as_student():
            return summed(0, losses, masters)


def difference(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> float:
    """The largest over all tensors of |theirs - ours| / |ours|, by their norms."""
    if theirs.keys() != ours.keys():
        raise LookupError(f"not the same weights: {sorted(theirs.keys() ^ ours.keys())[:3]}")
    return max(
        float((theirs[name].double() - one.double()).norm() / one.double().norm().clamp_min(1e-30))
        for name, one in ours.items()
    )
