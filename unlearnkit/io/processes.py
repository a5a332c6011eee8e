"""Several processes at one job, as ``accelerate launch`` starts them: they share the rows of every pass.

Each of them does everything: draws the same numbers, holds the same weights, finds the same losses. Only a pass through
the denoiser is divided by rows, and what comes out is put together again, so that every loss is whole everywhere. Its
gradient is then that of the own rows alone, and the sum over the processes is the gradient that one process finds.
The first of them writes the files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import InputError, quoted

__all__ = [
    "added",
    "ahead",
    "count",
    "device",
    "first",
    "gathered",
    "index",
    "part",
    "same",
    "shared",
    "wait",
]


def _number(name: str, default: int) -> int:
    """A whole number of the environment. Raises InputError for anything else."""
    text = os.environ.get(name, str(default))
    if not (text.isascii() and text.isdecimal()) or len(text) > 6:
        raise InputError(
            f"the environment variable {name} is {quoted(text)}: start with accelerate launch, or unset it"
        )
    return int(text)


def count() -> int:
    """How many processes there are."""
    return _number("WORLD_SIZE", 1)


def index() -> int:
    """Which of them this is."""
    return _number("RANK", 0) if count() > 1 else 0


def first() -> bool:
    """Whether this is the one that writes files and speaks."""
    return index() == 0


def wait() -> None:
    """Go on when all of them are here."""
    if count() > 1:
        _together().wait_for_everyone()


@contextmanager
def ahead() -> Iterator[None]:
    """The first process goes ahead; the others follow when it is through, and find what it wrote."""
    if not first():
        wait()
    yield
    if first():
        wait()


def device() -> str:
    """Where a process works if it is not told: on a GPU of its own, if there is one, else on the CPU."""
    return f"cuda:{_number('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"


def part(rows: int) -> Tensor:
    """Which of ``rows`` rows are this process's, as many as the others' have; the last one fills up."""
    size = -(-rows // count())
    return torch.arange(index() * size, (index() + 1) * size).clamp_max(rows - 1)


def gathered(mine: Tensor, rows: int) -> Tensor:
    """What the processes made of their parts, as ``rows`` rows; gradients go to the own part."""
    if count() == 1:
        return mine
    _together()
    everyone: Tensor = _Gather.apply(mine)  # type: ignore[no-untyped-call]
    return everyone[:rows]


def shared(run: Callable[..., Tensor], *rows: Tensor) -> Tensor:
    """``run(*rows)`` for a function that works row by row, each process with its part of the rows."""
    if count() == 1:
        return run(*rows)
    own = part(len(rows[0])).to(rows[0].device)
    return gathered(run(*(one[own] for one in rows)), len(rows[0]))


def added(gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The sum of the processes' gradients."""
    if count() > 1:
        _together()
        for gradient in gradients.values():
            dist.all_reduce(gradient)
    return dict(gradients)


def same(value: float) -> float:
    """The first process's number, for a decision that all must take alike."""
    if count() == 1:
        return value
    told: list[Any] = [value]
    _together()
    dist.broadcast_object_list(told)
    return float(told[0])


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mine: Tensor) -> Tensor:
        everyone = [torch.empty_like(mine) for _ in range(count())]
        dist.all_gather(everyone, mine.contiguous())
        return torch.cat(everyone)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].chunk(count())[index()]


def _together() -> Any:
    """The processes' meeting place, made when it is first needed."""
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available())
