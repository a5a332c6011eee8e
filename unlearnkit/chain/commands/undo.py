"""How requests are taken back: what has to be done for it is said before it is done.

Merged edits do not depend on each other, and the last edits of a sequence depend on nothing after them: taking these
back is exact. What was trained on top of a request is trained again without it, as a fresh chain would.
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
from ...methods import Job
from ...metrics.evaluators import Evaluators
from ...models.model import Model
from ..edits import make, stale
from ..evaluate import tools
from ..finish import Tick, base_model, finish
from ..ledger import Entry
from ..project import Project, Step, changing, opened
from ..weights import kept
from ..work import work

__all__ = ["Back", "back", "drop", "undo"]


@dataclass(frozen=True)
class Back:
    """What taking requests back would do. remade: requests whose edit is trained again, which took ``seconds``."""

    removes: tuple[int, ...]
    remade: tuple[int, ...]
    seconds: float

    def __str__(self) -> str:
        what = f"takes back request {', '.join(map(str, self.removes))}"
        if not self.remade:
            return f"{what}: exact, nothing is trained again"
        again = ", ".join(map(str, self.remade))
        return f"{what} and trains request {again} again without it (that took {self.seconds:.0f} s before)"


def back(folder: str | Path, *, undo: int = 0, drop: Sequence[int] = ()) -> Back:
    """What ``undo`` or ``drop`` would do, without doing it."""
    return _plan(opened(folder), undo, drop)


def _plan(project: Project, undo: int = 0, drop: Sequence[int] = ()) -> Back:
    steps = project.steps
    if undo:
        if not 1 <= undo <= len(steps):
            raise InputError(
                f"{quoted(undo)} requests cannot be undone: {len(steps)} hold in {quoted(project.folder)}"
            )
        drop = [step.number for step in steps[len(steps) - undo :]]
    removes = tuple(sorted({project.step(number).number for number in drop}))
    again = stale(project, [step for step in steps if step.number not in removes])
    took = {change.number: change.making for change in project.changes}
    return Back(removes, tuple(again), sum(took[number] for number in again))


def undo(folder: str | Path, count: int = 1, **options: Any) -> Entry:
    """Take back the last ``count`` requests. options: model, instruments, device, tick, as in ``add``."""
    return _taken(Path(folder), "undo", {"undo": count}, **options)


def drop(folder: str | Path, *numbers: int, **options: Any) -> Entry:
    """Take back requests by their numbers, wherever they stand. options: as in ``undo``."""
    if not numbers:
        raise InputError("drop which request? name its number, as unlearnkit chain status shows it")
    return _taken(Path(folder), "drop", {"drop": numbers}, **options)


def _taken(
    folder: Path,
    kind: str,
    what: dict[str, Any],
    *,
    model: Model | None = None,
    evaluators: Evaluators | None = None,
    device: str | None = None,
    tick: Tick | None = None,
) -> Entry:
    with changing(user_path(folder)) as project:
        plan = _plan(project, **what)
        stays = [step for step in project.steps if step.number not in plan.removes]
        if evaluators is None:  # before work that it would be too late for
            evaluators = tools(project) if stays else Evaluators()
        model = base_model(project, model, device)
        begun = time.monotonic()
        steps: list[Step] = []
        remade = []
        with work(project, {"kind": kind, "removes": list(plan.removes)}) as place:
            for step in stays:
                if step.number in plan.remade:
                    job = Job(folder=place / str(step.number), progress=tick)
                    edit = kept(project, make(project, model, steps, step.request, step.recipe, job=job))
                    after = tuple(one.number for one in steps)
                    step = dataclasses.replace(step, edit=edit, after=after)
                    again = {"request": step.number, "edit": dataclasses.asdict(edit), "after": list(after)}
                    remade.append(again)
                steps.append(step)
        facts = {"removes": list(plan.removes), "remade": remade}
        facts |= {"making": round(time.monotonic() - begun, 1)}
        return finish(project, kind, facts, steps, model, place.name, evaluators, tick)
