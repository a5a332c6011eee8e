"""``unlearnkit attack`` on a chain: everything that it has erased, as its model is now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import InputError, quoted
from ...evaluation.attacked.run import Planned, attack_weights, planned
from ...io.tick import Tick
from ...model.model import Model
from ...schema import Request
from ..evaluate import open_evaluators
from ..finish import base_model
from ..project import Project, open_chain
from ..weights import current_edit

__all__ = ["attack", "plan"]


def attack(
    folder: str | Path,
    *,
    attacks: Sequence[str] | None = None,
    budget: str = "quick",
    seed: int = 0,
    model: Model | None = None,
    device: str | None = None,
    tick: Tick | None = None,
) -> dict[str, dict[str, Any]]:
    """Attack all active requests of a chain, into ``CHAIN/attacks``, as ``unlearnkit.attack`` does a run.

    Raises InputError for a chain that erases nothing, and for one without classifiers.
    """
    project = open_chain(folder)
    request, base = _request(project), base_model(project, model, device)
    tools = open_evaluators(project)
    return attack_weights(
        *(project.folder, base, current_edit(project, base, project.steps), request),
        attacks=attacks,
        budget=budget,
        seed=seed,
        evaluators=lambda _: tools,
        tick=tick,
    )


def plan(
    folder: str | Path,
    *,
    attacks: Sequence[str] | None = None,
    budget: str = "quick",
    device: str | None = None,
) -> list[Planned]:
    """What ``attack`` would compute."""
    project = open_chain(folder)
    request = _request(project)
    return planned(base_model(project, None, device), attacks, budget, sides=2 * len(request.erase))


def _request(project: Project) -> Request:
    concepts = [concept for step in project.steps for concept in step.request.erase]
    if not concepts:
        raise InputError(f"the chain in {quoted(project.folder)} erases nothing: add a request first")
    return Request(tuple(concepts))
