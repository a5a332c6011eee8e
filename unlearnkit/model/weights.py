"""The weights of networks by name, and swapping them for other values without copying the network."""

from __future__ import annotations

import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import EditError, nearest, quoted
from .edit import digest

__all__ = ["WeightSwap", "component"]

STATES = 4  # a base model, and it with the edits of a chain's last requests


class WeightSwap:
    """The weights of networks by component. Full names start with the component: ``"unet.mid_block...weight"``."""

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        self._slots = {
            ".".join(filter(None, (component, path, leaf))): (module._parameters, leaf)
            for component, network in networks.items()
            for path, module in network.named_modules()
            for leaf, weight in module._parameters.items()
            if weight is not None
        }
        # of the last states of each component: marks of its weights, and the fingerprint
        self._fingerprints: dict[str, deque[tuple[list[tuple[Any, ...]], str]]] = {}
        self.replaced: Counter[str] = Counter()  # the number of swapped weights by component

    def weights(self, belongs: Callable[[str], bool] = lambda name: True) -> dict[str, Tensor]:
        """The present weights whose names belong."""
        return {name: slot[leaf] for name, (slot, leaf) in self._slots.items() if belongs(name)}

    def values(self, names: Iterable[str]) -> dict[str, Tensor]:
        """The present weights of these names. Raises EditError for a name that no network has."""
        return {name: slot[leaf] for name in names for slot, leaf in [self._slot(name)]}

    @contextmanager
    def swapped(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Other values for some weights inside, cast to the weights' dtype and device. It nests.

        Raises EditError for a name or a shape that the network does not have.
        """
        replaced: list[tuple[dict[str, Any], str, Tensor]] = []
        try:
            for name, value in weights.items():
                slot, leaf = self._slot(name)
                original = slot[leaf]
                if value.shape != original.shape:
                    raise EditError(
                        f"weight {quoted(name)} is {tuple(value.shape)}, the model's is {tuple(original.shape)}"
                    )
                replaced.append((slot, leaf, original))
                slot[leaf] = _trainable(value.to(original.device, original.dtype))
            self.replaced.update(counts := Counter(map(component, weights)))
            try:
                yield
            finally:
                self.replaced.subtract(counts)
        finally:
            for slot, leaf, original in reversed(replaced):
                slot[leaf] = original

    def fingerprint(self, of: str) -> str:
        """sha256 over names, shapes and present values of a component; cached for its last ``STATES`` states."""
        weights = self.weights(lambda name: component(name) == of)
        known = self._fingerprints.setdefault(of, deque(maxlen=STATES))
        for marks, fingerprint in known:
            if _same(marks, weights.values()):
                return fingerprint
        fingerprint = digest(weights.items())
        known.append(([_mark(weight) for weight in weights.values()], fingerprint))
        return fingerprint

    def _slot(self, name: str) -> tuple[dict[str, Any], str]:
        if name not in self._slots:
            raise EditError(f"weight {quoted(name)} is not in this model{nearest(name, self._slots)}")
        return self._slots[name]


def component(name: str) -> str:
    """The component of a weight by its full name."""
    return name.partition(".")[0]


def _trainable(value: Tensor) -> Tensor:
    """The value, or a copy if it was made inside ``torch.inference_mode``."""
    if not value.is_inference():
        return value
    with torch.inference_mode(False), torch.no_grad():
        return value.clone()


def _mark(weight: Tensor) -> tuple[Any, ...]:
    return weakref.ref(weight), weight._version, weight.data_ptr(), weight.dtype


def _same(marks: list[tuple[Any, ...]], weights: Iterable[Tensor]) -> bool:
    return all(
        mark[0]() is weight and mark[1:] == _mark(weight)[1:]
        for mark, weight in zip(marks, weights, strict=True)
    )
