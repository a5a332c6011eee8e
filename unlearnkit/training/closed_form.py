"""A method that solves for its weights, and the look at held-out prompts that may follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from ..data.text_columns import target_of
from ..errors import InputError, quoted
from ..io import processes
from ..model.model import Model
from ..schema import Concept, Request
from .job import Run
from .method import Plan
from .net import CountingNet
from .panel import Panel, Reading

__all__ = ["ClosedForm", "escalate", "refuse_clashes"]

DOUBLINGS = 6  # of erase_weight, at most


class ClosedForm:
    """A method that solves for its weights. PART: the part of the model that it changes. reach: see ``Shared``."""

    PART: ClassVar[str] = "text"
    INSTEAD: ClassVar[Mapping[str, str]] = {}
    REPLACES: ClassVar[bool] = True
    RETAINS: ClassVar[bool] = True
    reach = 0.0

    @property
    def retains(self) -> bool:
        """Whether these settings look at the concepts that the request keeps."""
        return self.RETAINS and getattr(self, "retain_weight", 1.0) > 0

    def solve(self, run: Run) -> dict[str, Tensor]:
        """As ``solved``, and with ``reach`` a look at held-out prompts."""
        return escalate(run, lambda _: self.solved(run), target_of, reach=self.reach, brake=0.0, weight=None)

    def solved(self, run: Run) -> dict[str, Tensor]:
        """The new weights by name, fp32 on the CPU. Raises InputError for a request that has no solution."""
        raise NotImplementedError

    def plan(self, model: Model, request: Request) -> Plan:
        """No step, no pass: the part's size, and the pictures of the panel that is read afterwards."""
        weights, run = model.weights(self.PART), Run(model, request, CountingNet(model))
        numbers = sum(weight.numel() for weight in weights.values())
        if self.reach:
            Panel(run, lambda concept: "")
        return Plan(self.PART, len(weights), numbers, 0, (0.0, 0.0), 0, run.sampled)

    def change(self, run: Run, new: Callable[[str, Tensor], Tensor]) -> dict[str, Tensor]:
        """The part's weights as ``new(name, w)`` gives them, with w (rows, width) float64 on the CPU."""
        weights, matrices = dict[str, Tensor](), run.model.weights(self.PART)
        for name, weight in matrices.items():
            weights[name] = new(name, weight.detach().cpu().double()).float()
            run.progress("solving", len(weights), len(matrices))
        return weights


def refuse_clashes(names: Sequence[str], shares: Tensor, least: float) -> None:
    """Raise InputError for the names that have no share of at least ``least``, before anything is written.

    names: of n columns, of which a concept may have several. shares: (n,), how much of each column can be erased beside
    what is retained.
    """
    most: dict[str, float] = {}
    for name, share in zip(names, shares.tolist(), strict=True):
        most[name] = max(share, most.get(name, 0.0))
    clash = [name for name, share in most.items() if share < least]
    if clash:
        more = f" and {len(clash) - 5} more" if len(clash) > 5 else ""
        raise InputError(
            f"{', '.join(map(quoted, clash[:5]))}{more} {'lies' if len(clash) == 1 else 'lie'} in the span of what is "
            "retained: retain less, or lower neighbours or free"
        )


def escalate(
    run: Run,
    solve: Callable[[float], dict[str, Tensor]],
    place: Callable[[Concept], str | None],
    *,
    reach: float,
    brake: float,
    weight: float | None,
) -> dict[str, Tensor]:
    """Solve with ``weight``, twice that, and so on, until the slowest sentence of the panel has come ``reach``.

    solve: the new weights for an erase weight. weight: None for a method without one, whose panel is only read. It
    stays below what moves the retained words further than ``brake``. reach: 0 reads no panel. Adds to ``run.stopped``.
    """
    now = 1.0 if weight is None else weight
    weights = solve(now)
    if reach == 0:
        return weights
    panel = Panel(run, place)
    with run.model.wearing(weights):
        reading = panel.read()
    for _ in range(DOUBLINGS if weight else 0):
        if processes.broadcast(float(reading.come >= reach)):
            break
        more = solve(2 * now)
        with run.model.wearing(more):
            next_ = panel.read()
        if processes.broadcast(float(next_.moved > brake)):
            break
        weights, reading, now = more, next_, 2 * now
    why = f"erase_weight is {now:g}" if weight else "the equation has no strength to raise"
    run.stopped.append(_facts(panel, reading, reach, why))
    return weights


def read_again(
    run: Run, weights: dict[str, Tensor], place: Callable[[Concept], str | None], reach: float
) -> None:
    """After ``escalate``, where a method has changed its weights again: what the panel says of them now."""
    panel, why = Panel(run, place), run.stopped[-1]["why"]
    with run.model.wearing(weights):
        run.stopped[-1] = _facts(panel, panel.read(), reach, why)


def _facts(panel: Panel, reading: Reading, reach: float, why: str) -> dict[str, Any]:
    return {
        "step": 0,
        "of": 0,
        "converged": reading.come >= reach,
        "come": round(reading.come, 4),
        "moved": round(reading.moved, 4),
        "slowest": panel.prompts[reading.slowest],
        "why": why,
    }
