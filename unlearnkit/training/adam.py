"""Adam without weight decay (Kingma and Ba 2014, arXiv 1412.6980), its two moments in float32 or in 8 bits.

8 bits are those of Dettmers et al. 2022 (arXiv 2110.02861): blocks of 256 numbers, each block with its largest size in
float32 and a code for every number's share of it, whose levels lie closer the nearer they are to zero. What is held of
the second moment is its root, which never becomes zero by rounding: no number takes a step far beyond Adam's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["Adam", "Adam8", "Optimiser"]

DECAY, EPS = 0.999, 1e-8
BLOCK = 256
HELD = ("first", "second", "first scale", "second scale")


class Optimiser(Protocol):
    """What moves masters by their gradients, and what it must remember for that."""

    def step(self, gradients: Mapping[str, Tensor], *, lr: float, beta: float) -> None:
        """One step, in place; beta is β₁."""

    def forget(self, opened: Mapping[str, Tensor]) -> None:
        """No momentum where an entry is closed, so that without a gradient it stays as it is, bit for bit."""

    def tensors(self) -> dict[str, Tensor]:
        """All that it remembers, as ``what/name``."""

    def restore(self, held: Mapping[str, Mapping[str, Tensor]], steps: int) -> None:
        """Take up what ``tensors`` gave after so many steps, by what and name."""


class Adam:
    """torch's. The moments are there from the start, as it would make them itself."""

    def __init__(self, masters: Mapping[str, Tensor]) -> None:
        self.masters = masters
        self.adam = torch.optim.Adam(masters.values(), fused=True)
        zeros = {name: torch.zeros_like(master) for name, master in masters.items()}
        self.restore({"first": zeros, "second": {name: zero.clone() for name, zero in zeros.items()}}, 0)

    def step(self, gradients: Mapping[str, Tensor], *, lr: float, beta: float) -> None:
        for group in self.adam.param_groups:
            group["lr"], group["betas"] = lr, (beta, DECAY)
        for name, master in self.masters.items():
            master.grad = _laid_out(gradients[name], master)
        self.adam.step()
        self.adam.zero_grad()

    def forget(self, opened: Mapping[str, Tensor]) -> None:
        for name, entries in opened.items():
            held = self.adam.state[self.masters[name]]
            held["exp_avg"].mul_(entries)
            held["exp_avg_sq"].mul_(entries)

    def tensors(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, master in self.masters.items():
            held = self.adam.state[master]
            found |= {f"first/{name}": held["exp_avg"], f"second/{name}": held["exp_avg_sq"]}
        return found

    def restore(self, held: Mapping[str, Mapping[str, Tensor]], steps: int) -> None:
        for name, master in self.masters.items():
            state: dict[str, Any] = {"step": torch.tensor(float(steps), device=master.device)}
            moments = (_laid_out(held[what][name], master) for what in ("first", "second"))
            state |= dict(zip(("exp_avg", "exp_avg_sq"), moments, strict=True))
            self.adam.state[master] = state


class Adam8:
    """Adam with codes of 8 bits: 2 bytes a number in place of 8. Only one tensor at a time is there in float32."""

    def __init__(self, masters: Mapping[str, Tensor]) -> None:
        self.masters, self.steps = masters, 0
        device = next(iter(masters.values())).device
        self.levels = {what: _levels(signed=what == "first").to(device) for what in ("first", "second")}
        self.held: dict[str, dict[str, Tensor]] = {what: {} for what in HELD}
        for name, master in masters.items():
            self._keep(name, torch.zeros_like(master), torch.zeros_like(master))

    @torch.no_grad()
    def step(self, gradients: Mapping[str, Tensor], *, lr: float, beta: float) -> None:
        self.steps += 1
        for name, master in self.masters.items():
            gradient = gradients[name]
            first = self._taken("first", name).lerp_(gradient, 1 - beta)
            root = self._taken("second", name).square_().mul_(DECAY)
            root.addcmul_(gradient, gradient, value=1 - DECAY).sqrt_()
            self._keep(name, first, root)
            size = root.div_((1 - DECAY**self.steps) ** 0.5).add_(EPS)
            master.addcdiv_(first, size, value=-lr / (1 - beta**self.steps))

    def forget(self, opened: Mapping[str, Tensor]) -> None:
        for what, levels in self.levels.items():
            nothing = int((levels == 0).nonzero())
            for name, entries in opened.items():
                self.held[what][name].masked_fill_(~entries.flatten(), nothing)

    def tensors(self) -> dict[str, Tensor]:
        return {f"{what}/{name}": tensor for what, by in self.held.items() for name, tensor in by.items()}

    def restore(self, held: Mapping[str, Mapping[str, Tensor]], steps: int) -> None:
        self.held, self.steps = {what: dict(held[what]) for what in HELD}, steps

    def _keep(self, name: str, first: Tensor, root: Tensor) -> None:
        for what, values in (("first", first), ("second", root)):
            blocks = pad(values.flatten(), (0, -values.numel() % BLOCK)).view(-1, BLOCK)
            scales = blocks.abs().amax(1, keepdim=True)
            levels = self.levels[what]
            shares = blocks / scales.clamp_min(torch.finfo(torch.float32).tiny)
            codes = torch.bucketize(shares, (levels[1:] + levels[:-1]) / 2, out_int32=True)
            if what == "second":
                codes = codes.maximum((blocks > 0).int())
            self.held[what][name] = codes.to(torch.uint8).flatten()[: values.numel()].clone()
            self.held[f"{what} scale"][name] = scales[:, 0]

    def _taken(self, what: str, name: str) -> Tensor:
        """The first moment or the second one's root, (as the master), in float32."""
        codes, master = self.held[what][name], self.masters[name]
        scales = self.held[f"{what} scale"][name].repeat_interleave(BLOCK)[: len(codes)]
        return (self.levels[what][codes.int()] * scales).view_as(master)


def _laid_out(tensor: Tensor, master: Tensor) -> Tensor:
    """The numbers in the master's layout in memory: torch's fused step goes through all four as they lie there."""
    return tensor if tensor.stride() == master.stride() else torch.empty_like(master).copy_(tensor)


def _levels(*, signed: bool) -> Tensor:
    """The 256 shares that a code can mean: 0, 1, and in each of seven decades twice as many as in the one below."""
    found = [0.0, 1.0]
    for decade in range(7):
        edges = torch.linspace(0.1, 1, 2 ** (decade + (not signed)) + 1, dtype=torch.float64)
        means = ((edges[1:] + edges[:-1]) / 2 * 10.0 ** (decade - 6)).tolist()
        found += means + [-mean for mean in means] * signed
    return torch.tensor(sorted(found), dtype=torch.float32)
