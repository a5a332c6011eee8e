"""``chain undo`` and ``chain drop``: revert requests. ``undo_plan`` says what that needs, before it is done.

Merged edits do not depend on each other, and the last edits of a sequence depend on nothing after them: to revert them
is exact. An edit that builds on a reverted request is made again without it, as in a new chain.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError, quoted
from ...io.files import user_path
from ...io.tick import Tick
from ...methods import Job
from ...metrics.evaluators import Evaluators
from ...model.model import Model
from ..edits import make_edit, stale
from ..evaluate import open_evaluators
from ..finish import base_model, finish, seconds_since
from ..ledger import Entry
from ..project import Project, Step, change_chain, open_chain
from ..weights import store_edit
from ..work import work

__all__ = ["UndoPlan", "drop", "undo", "undo_plan"]


@dataclass(frozen=True)
class UndoPlan:
    """The plan of an undo or drop. remade: requests whose edit is made again; that took ``seconds`` before."""

    removes: tuple[int, ...]
    remade: tuple[int, ...]
    seconds: float

    def __str__(self) -> str:
        what = f"takes back {_requests(self.removes)}"
        if not self.remade:
            return f"{what}: exact, nothing is trained again"
        it = "it" if len(self.removes) == 1 else "them"
        return f"{what} and trains {_requests(self.remade)} again without {it} (that took {self.seconds:.0f} s before)"


def _requests(numbers: Sequence[int]) -> str:
    return f"request{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"


def undo_plan(folder: str | Path, *, undo: int | None = None, drop: Sequence[int] = ()) -> UndoPlan:
    """What ``undo`` or ``drop`` would do, without doing it."""
    return _plan(open_chain(folder), undo, drop)


def _plan(project: Project, undo: int | None = None, drop: Sequence[int] = ()) -> UndoPlan:
    steps = project.steps
    if undo is not None:
        if type(undo) is not int or not 1 <= undo <= len(steps):
            allowed = f"use 1 to {len(steps)}" if steps else "there is nothing to undo"
            raise InputError(
                f"{quoted(undo)} requests cannot be undone: {len(steps)} are active in {quoted(project.folder)}: "
                f"{allowed}"
            )
        drop = [step.number for step in steps[len(steps) - undo :]]
    removes = tuple(sorted({project.step(number).number for number in drop}))
    again = stale(project, [step for step in steps if step.number not in removes])
    took = {change.number: change.edit_seconds for change in project.changes}
    return UndoPlan(removes, tuple(again), sum(took[number] for number in again))


def undo(folder: str | Path, count: int = 1, **options: Any) -> Entry:
    """Revert the last ``count`` requests. options: model, evaluators, device, tick; see ``add``."""
    return _revert(Path(folder), "undo", {"undo": count}, **options)


def drop(folder: str | Path, *numbers: int, **options: Any) -> Entry:
    """Revert requests by their numbers, in any position. options: as in ``undo``."""
    if not numbers:
        raise InputError("drop which request? name its number, as unlearnkit chain status shows it")
    return _revert(Path(folder), "drop", {"drop": numbers}, **options)


def _revert(
    folder: Path,
    kind: str,
    what: dict[str, Any],
    *,
    model: Model | None = None,
    evaluators: Evaluators | None = None,
    device: str | None = None,
    tick: Tick | None = None,
) -> Entry:
    with change_chain(user_path(folder)) as project:
        plan = _plan(project, **what)
        stays = [step for step in project.steps if step.number not in plan.removes]
        if evaluators is None:  # before any work, so that an error loses nothing
            evaluators = open_evaluators(project) if stays else Evaluators()
        model = base_model(project, model, device)
        started = time.monotonic()
        steps: list[Step] = []
        remade = []
        with work(project, {"kind": kind, "removes": list(plan.removes)}) as place:
            for step in stays:
                if step.number in plan.remade:
                    job = Job(folder=place / str(step.number), progress=tick)
                    made, instead = make_edit(project, model, steps, step.request, step.recipe, job=job)
                    edit = store_edit(project, made)
                    after = tuple(one.number for one in steps)
                    step = dataclasses.replace(step, edit=edit, after=after, instead=instead)
                    again = {"request": step.number, "edit": dataclasses.asdict(edit), "after": list(after)}
                    remade.append(again | {"instead": instead})
                steps.append(step)
        facts = {"removes": list(plan.removes), "remade": remade}
        facts |= {"making": seconds_since(started)}
        return finish(project, kind, facts, steps, model, place.name, evaluators, tick)
