"""Adam without weight decay (Kingma and Ba 2014, arXiv 1412.6980), as a run's state: it can be saved and taken up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["Adam"]

DECAY = 0.999


class Adam:
    """torch's, of masters by name. The moments are there from the start, as it would make them itself."""

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
            master.grad = _laid_out(gradients[name], master)
        self.adam.step()
        self.adam.zero_grad()

    def forget(self, opened: Mapping[str, Tensor]) -> None:
        """No momentum where an entry is closed, so that without a gradient it stays as it is, bit for bit."""
        for name, entries in opened.items():
            held = self.adam.state[self.masters[name]]
            held["exp_avg"].mul_(entries)
            held["exp_avg_sq"].mul_(entries)

    def tensors(self) -> dict[str, Tensor]:
        """Both moments, as ``what/name``."""
        found: dict[str, Tensor] = {}
        for name, master in self.masters.items():
            held = self.adam.state[master]
            found |= {f"first/{name}": held["exp_avg"], f"second/{name}": held["exp_avg_sq"]}
        return found

    def restore(self, held: Mapping[str, Mapping[str, Tensor]], steps: int) -> None:
        """Take up what ``tensors`` gave after this many steps, by what and name."""
        for name, master in self.masters.items():
            state: dict[str, Any] = {"step": torch.tensor(float(steps), device=master.device)}
            moments = (_laid_out(held[what][name], master) for what in ("first", "second"))
            state |= dict(zip(("exp_avg", "exp_avg_sq"), moments, strict=True))
            self.adam.state[master] = state


def _laid_out(tensor: Tensor, master: Tensor) -> Tensor:
    """The numbers in the master's layout in memory: torch's fused step goes through all four as they lie there."""
    return tensor if tensor.stride() == master.stride() else torch.empty_like(master).copy_(tensor)
