"""Adam without weight decay (Kingma and Ba 2014, arXiv 1412.6980), with a state that can be saved and loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["Adam"]

DECAY = 0.999


class Adam:
    """torch's Adam for named master weights. The moments exist from the start, with torch's initial values."""

    def __init__(self, masters: Mapping[str, Tensor]) -> None:
        self.masters = masters
        self.adam = torch.optim.Adam(masters.values(), fused=True)
        zeros = {name: torch.zeros_like(master) for name, master in masters.items()}
        self.restore({"first": zeros, "second": {name: zero.clone() for name, zero in zeros.items()}}, 0)

    def step(self, gradients: Mapping[str, Tensor], *, lr: float, beta: float) -> None:
        """One step, in place; beta is β₁."""
        for group in self.adam.param_groups:
            group["lr"], group["betas"] = lr, (beta, DECAY)
        for name, master in self.masters.items():
            master.grad = _like(gradients[name], master)
        self.adam.step()
        self.adam.zero_grad()

    def forget(self, opened: Mapping[str, Tensor]) -> None:
        """Clear the moments of closed entries, so that without a gradient they stay unchanged bit for bit."""
        for name, entries in opened.items():
            state = self.adam.state[self.masters[name]]
            state["exp_avg"].mul_(entries)
            state["exp_avg_sq"].mul_(entries)

    def tensors(self) -> dict[str, Tensor]:
        """Both moments, as ``what/name``."""
        moments: dict[str, Tensor] = {}
        for name, master in self.masters.items():
            state = self.adam.state[master]
            moments |= {f"first/{name}": state["exp_avg"], f"second/{name}": state["exp_avg_sq"]}
        return moments

    def restore(self, saved: Mapping[str, Mapping[str, Tensor]], steps: int) -> None:
        """Load what ``tensors`` gave after this many steps, by moment and name."""
        for name, master in self.masters.items():
            state: dict[str, Any] = {"step": torch.tensor(float(steps), device=master.device)}
            moments = (_like(saved[what][name], master) for what in ("first", "second"))
            state |= dict(zip(("exp_avg", "exp_avg_sq"), moments, strict=True))
            self.adam.state[master] = state


def _like(tensor: Tensor, master: Tensor) -> Tensor:
    """The tensor in the master's memory layout, which torch's fused step requires."""
    return tensor if tensor.stride() == master.stride() else torch.empty_like(master).copy_(tensor)
