"""The most memory that some work would hold, told by shapes alone: nothing is computed."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["footprint"]


def footprint(work: Callable[[], Any]) -> int:
    """Bytes that tensors made in ``work`` hold at once at most, and the largest once more.

    Convolutions bring what they are given into another order and hold both. What ``work`` makes has no values, and
    the tensors that it finds, such as a network's weights, are not counted.
    """
    held = _Held()
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True), held:
        work()
    return held.most + held.largest


class _Held(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of all that is made while it is open, and not yet gone."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now, self.most, self.largest = 0, 0, 0
        self.seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in () if func.is_view else tree_leaves(made):
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage()) not in self.seen:
                self.seen.add(storage)
                self._add(storage.nbytes())
                weakref.finalize(storage, self._add, -storage.nbytes())
        return made

    def _add(self, size: int) -> None:
        self.now += size
        self.most, self.largest = max(self.most, self.now), max(self.largest, size)
