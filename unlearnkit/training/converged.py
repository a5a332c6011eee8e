"""Training until erasing has converged (``stop = converged``): the panel is read again and again until it holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..io import processes
from .panel import Panel, Reading

__all__ = ["Convergence"]


class Convergence:
    """Decides when training ends. Its state is saved in checkpoints.

    every: steps between two readings. least: the fewest steps. cycle: the length of a learning rate cycle, at whose end
    alone training may end; 0 without one. reach: how far the slowest sentence must have come. brake: the most that
    retained words may have moved. patience: readings one after the other in which both must hold; a cycle's end needs
    one.
    """

    def __init__(
        self,
        panel: Panel,
        *,
        every: int,
        reach: float,
        brake: float,
        patience: int,
        least: int = 0,
        cycle: int = 0,
    ) -> None:
        self.panel, self.every, self.least, self.cycle = panel, cycle or every, least, cycle
        patience = 1 if cycle else patience
        self.reach, self.brake, self.patience = reach, brake, patience
        self.passed, self.done, self.last = 0, 0, Reading(0.0, 0, 0.0)

    @property
    def over(self) -> bool:
        """Whether training ends."""
        return self.passed >= self.patience and self.done >= self.least

    def due(self, done: int) -> bool:
        """Whether to read the panel after ``done`` steps."""
        return done % self.every == 0 and done > self.least - self.every * self.patience

    def readings(self, steps: int) -> int:
        """How often ``steps`` steps read the panel at most."""
        return sum(self.due(done) for done in range(self.every, steps + 1, self.every))

    def read(self, done: int) -> dict[str, float]:
        """Read the panel after ``done`` steps, with the weights that the model has now; the numbers for the log."""
        now = self.panel.read()
        holds = now.come >= self.reach and now.moved <= self.brake
        self.passed = self.passed + 1 if processes.broadcast(float(holds)) else 0
        self.last, self.done = now, done
        return {"come": now.come, "moved": now.moved}

    def facts(self, steps: int) -> dict[str, Any]:
        """Where training stopped, and why: plain data for the edit and the report."""
        last, slowest = self.last, self.panel.prompts[self.last.slowest]
        reasons = [] if last.come >= self.reach else [f"“{slowest}” has come {last.come:.2f} of the way"]
        reasons += [] if last.moved <= self.brake else [f"retained words have moved by {last.moved:.2f}"]
        return {
            "step": self.done if self.over else steps,
            "of": steps,
            "converged": self.over,
            "come": round(last.come, 4),
            "moved": round(last.moved, 4),
            "slowest": slowest,
            "why": "converged"
            if self.over
            else "; ".join(reasons) or f"{self.passed} of {self.patience} readings passed",
        }

    def tensors(self) -> dict[str, Tensor]:
        """The number of readings that passed, and the last one."""
        last = self.last
        return {
            "numbers": torch.tensor(
                [float(self.passed), float(self.done), last.come, float(last.slowest), last.moved]
            )
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what ``tensors`` gave."""
        passed, done, come, slowest, moved = tensors["numbers"].tolist()
        self.passed, self.done, self.last = int(passed), int(done), Reading(come, int(slowest), moved)
