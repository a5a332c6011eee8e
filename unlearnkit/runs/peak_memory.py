"""The peak memory of some work, from shapes alone: nothing is computed."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["peak_memory"]


def peak_memory(work: Callable[[], Any]) -> int:
    """Peak bytes of the tensors that ``work`` creates, plus the largest once more.

    A convolution copies its input into another memory layout. The created tensors have no values; existing ones, such
    as a network's weights, are not counted.
    """
    counter = _Counter()
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True), counter:
        work()
    return counter.most + counter.largest


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors that are created inside and still alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now, self.most, self.largest = 0, 0, 0
        self.known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in () if func.is_view else tree_leaves(made):
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage()) not in self.known:
                self.known.add(storage)
                self._add(storage.nbytes())
                weakref.finalize(storage, self._add, -storage.nbytes())
        return made

    def _add(self, size: int) -> None:
        self.now += size
        self.most, self.largest = max(self.most, self.now), max(self.largest, size)
