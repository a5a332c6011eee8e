"""A device that is not the CPU, for machines without one: it computes on the CPU and mixes with nothing.

Its tensors wrap those that hold the numbers, and say that they are on ``PLACE``. As on a GPU an operation on tensors of
both devices is an error, but for copies, single numbers, and indices on the CPU. A machine with a GPU has the real one:
``UNLEARNKIT_TEST_DEVICE=cuda pytest tests/test_devices.py``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

__all__ = ["PLACE", "elsewhere"]

STAND_IN = "lazy:0"  # of torch's device types the one that asks for no library of its own
PLACE = torch.device(os.environ.get("UNLEARNKIT_TEST_DEVICE", STAND_IN))
MIXES = ("aten::copy_", "aten::index.Tensor", "aten::index_put", "aten::_index_put_impl_")


class Away(Tensor):
    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Away:
        how = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        found: Away = Tensor._make_wrapper_subclass(cls, inner.shape, device=PLACE, **how)  # type: ignore[attr-defined]
        found.inner = inner
        return found

    def tolist(self) -> Any:
        return self.inner.tolist()

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Away({self.inner})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Elsewhere(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    given: list[Tensor] = []
    each((args, kwargs), given.append)
    away = [isinstance(one, Away) for one in given]
    single = all(isinstance(one, Away) or one.dim() == 0 for one in given)
    if any(away) and not single and not str(func).replace(".", "::", 1).startswith(MIXES):
        shapes = [(tuple(one.shape), str(one.device)) for one in given]
        raise RuntimeError(f"{func}: tensors of two devices: {shapes}")
    there = any(away)
    if kwargs.get("device") is not None:
        there = torch.device(kwargs["device"]).type == PLACE.type
        kwargs = {**kwargs, "device": torch.device("cpu")}
    found = func(*each(args, _inner), **each(kwargs, _inner))
    if func._schema.is_mutable:
        return given[0] if isinstance(found, Tensor) else found
    return each(found, Away) if there else found


def each(nested: Any, change: Callable[[Tensor], Any]) -> Any:
    """Nested arguments or results with every tensor changed. PyTorch's ``tree_map`` takes ten times as long."""
    if isinstance(nested, Tensor):
        return change(nested)
    if type(nested) in (tuple, list):
        return type(nested)([each(one, change) for one in nested])
    if type(nested) is dict:
        return {name: each(one, change) for name, one in nested.items()}
    if isinstance(nested, tuple):  # of several results with names
        return tree_map(lambda one: change(one) if isinstance(one, Tensor) else one, nested)
    return nested


def _inner(one: Tensor) -> Tensor:
    return one.inner if isinstance(one, Away) else one


@contextmanager
def elsewhere() -> Iterator[torch.device]:
    """Within this block modules and tensors can be moved to the device that it gives."""
    if str(PLACE) != STAND_IN:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # products of ten bits, unless told
            yield PLACE
        return
    swaps, lifts = torch.__future__.get_swap_module_params_on_conversion(), torch._C._only_lift_cpu_tensors()
    torch.__future__.set_swap_module_params_on_conversion(True)
    torch._C._set_only_lift_cpu_tensors(True)  # else ``torch.tensor`` passes the mode by
    try:
        with _Elsewhere():
            yield PLACE
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swaps)
        torch._C._set_only_lift_cpu_tensors(lifts)
