"""Several processes for one job, as ``accelerate launch`` starts them: each takes some rows of every batch.

Every process draws the same random numbers and has the same weights and losses. Only a pass through the denoiser is
divided by rows, and the outputs are gathered, so that every process has the whole loss. Its gradient is that of the
process's own rows, and the sum over the processes is the gradient of a single process. The first process writes the
files.
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
    "broadcast",
    "by_rows",
    "count",
    "device",
    "first",
    "first_goes_ahead",
    "gather_rows",
    "index",
    "own_rows",
    "sum_gradients",
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
    """The number of processes."""
    return _number("WORLD_SIZE", 1)


def index() -> int:
    """The number of this process, from 0."""
    return _number("RANK", 0) if count() > 1 else 0


def first() -> bool:
    """Whether this is the process that writes files and prints."""
    return index() == 0


def wait() -> None:
    """Wait for all processes."""
    if count() > 1:
        _state().wait_for_everyone()


@contextmanager
def first_goes_ahead() -> Iterator[None]:
    """The first process runs the block, then the others do and find its files."""
    if not first():
        wait()
    yield
    if first():
        wait()


def device() -> str:
    """The default device of a process: a GPU of its own, if there is one, else the CPU."""
    return f"cuda:{_number('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"


def own_rows(rows: int) -> Tensor:
    """The indices of this process's rows of ``rows``: equally many in each process, so the last repeats one."""
    size = -(-rows // count())
    return torch.arange(index() * size, (index() + 1) * size).clamp_max(rows - 1)


def gather_rows(mine: Tensor, rows: int) -> Tensor:
    """The processes' outputs for their rows, as ``rows`` rows. Gradients go to the own rows."""
    if count() == 1:
        return mine
    _state()
    everyone: Tensor = _Gather.apply(mine)  # type: ignore[no-untyped-call]
    return everyone[:rows]


def by_rows(run: Callable[..., Tensor], *rows: Tensor) -> Tensor:
    """``run(*rows)`` for a function that works row by row; each process computes its own rows."""
    if count() == 1:
        return run(*rows)
    which = own_rows(len(rows[0])).to(rows[0].device)
    return gather_rows(run(*(one[which] for one in rows)), len(rows[0]))


def sum_gradients(gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The gradients, summed over the processes."""
    if count() > 1:
        _state()
        for gradient in gradients.values():
            dist.all_reduce(gradient)
    return dict(gradients)


def broadcast(value: float) -> float:
    """The first process's value, for a decision that must be the same everywhere."""
    if count() == 1:
        return value
    values: list[Any] = [value]
    _state()
    dist.broadcast_object_list(values)
    return float(values[0])


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mine: Tensor) -> Tensor:
        everyone = [torch.empty_like(mine) for _ in range(count())]
        dist.all_gather(everyone, mine.contiguous())
        return torch.cat(everyone)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].chunk(count())[index()]


def _state() -> Any:
    """accelerate's state of the processes, created when it is first needed."""
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available())
