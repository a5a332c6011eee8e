"""Progress of a long job: a bar on a terminal, otherwise a plain line every few seconds."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ..errors import printable
from .tick import Tick

__all__ = ["showing"]

SECONDS = (
    "UNLEARNKIT_PROGRESS_SECONDS"  # the variable that sets EVERY, for programs that show progress themselves
)
EVERY = 10.0  # seconds between plain lines


@contextlib.contextmanager
def showing(console: Console, title: str = "") -> Iterator[Tick]:
    """Yield ``tick(stage, done, total)``, which shows each stage as it advances, with an estimate of the rest.

    The title is printed with the first tick, so that a job that fails before it prints only its error.
    """
    stages = _bars(console) if console.is_terminal else contextlib.nullcontext(_lines(console))
    with stages as show:
        titles = [title] if title else []

        def tick(stage: str, done: int, total: int) -> None:
            while titles:
                console.print(printable(titles.pop()), markup=False, emoji=False)
            show(printable(stage), done, total)

        yield tick


@contextlib.contextmanager
def _bars(console: Console) -> Iterator[Tick]:
    title = TextColumn("{task.description}", markup=False)
    columns = (title, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, TaskID] = {}

        def tick(stage: str, done: int, total: int) -> None:
            if stage not in tasks or done < bars.tasks[tasks[stage]].completed:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield tick


def _lines(console: Console) -> Tick:
    every = EVERY
    with contextlib.suppress(ValueError):
        every = float(os.environ.get(SECONDS, EVERY))
    begun: dict[str, tuple[float, int]] = {}
    shown: dict[str, float] = {}
    last: dict[str, int] = {}

    def tick(stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done < last.get(stage, 0):  # the same stage for another piece of work: start again
            begun.pop(stage)
            shown.pop(stage)
        last[stage] = done
        start, first = begun.setdefault(stage, (now, done))
        if done < total and now - shown.get(stage, start - every) < every:
            return
        shown[stage] = now
        line = f"{stage} {done} of {total}"
        if first < done < total:
            left = round((now - start) / (done - first) * (total - done))
            line += f", about {left // 60}:{left % 60:02} min left"
        console.print(line, highlight=False, markup=False, emoji=False)

    return tick
