"""Guards: an edit's actions while the model runs, as data. A file names one of ``HOOKS`` and holds no code.

``values`` removes from each token's value in cross-attention its component along an erased concept. With v the value of
a token (all heads in one vector) and v* that of a concept (AdaVD, arXiv 2412.06143):

    v - δ(v) <v, v*> / |v*|² v*            δ(v) = c σ(a (cos(v, v*) - b))

For several concepts, with the orthogonal basis u = P v* (Gram-Schmidt, rows of P), each v* in u is weighted by δ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ..errors import EditError, nearest, quoted
from ..io.reading import typed

__all__ = ["HOOKS", "Hook", "ValueGuard", "attached", "gram_schmidt"]

SPANNED = 1e-4  # of a row's squared length: less than that of it lies outside the span of others


class ValueGuard:
    """A forward hook of a value matrix.

    concepts: text states (k, width) of the erased concepts, which the matrix turns into their values v*.
    first: the index of the first token that it changes; 1 skips a start token.
    slope, middle, most: a, b and c of δ; slope 0 and most 2 is the plain projection.
    """

    SETTINGS: ClassVar[dict[str, Any]] = {"first": int, "slope": float, "middle": float, "most": float}
    TENSORS: ClassVar[dict[str, int]] = {"concepts": 2}

    def __init__(self, concepts: Tensor, *, first: int, slope: float, middle: float, most: float) -> None:
        self.concepts, self.first = concepts, first
        self.slope, self.middle, self.most = slope, middle, most
        # by layer: the concepts' values, and their directions, which are the same until the layer's weights change
        self._known: WeakKeyDictionary[Any, tuple[Tensor, tuple[Tensor, Tensor]]] = WeakKeyDictionary()

    def check(self, layer: nn.Module) -> None:
        """Raises EditError for a layer that reads states of another width."""
        width = getattr(layer, "in_features", None)
        if width != self.concepts.shape[1]:
            raise EditError(
                f"the guard was made for text states of {self.concepts.shape[1]} numbers, and the model's have "
                f"{width}: load the model that it was made from"
            )

    def __call__(self, layer: Any, inputs: Any, value: Tensor) -> Tensor:
        """The layer's output (n, tokens, width) without its components along the concepts."""
        concept_values = layer.forward(self.concepts.to(value)).float()
        if layer not in self._known or not torch.equal(self._known[layer][0], concept_values):
            self._known[layer] = concept_values.detach(), directions(concept_values)
        guarded = self.decomposed(value[:, self.first :].float(), concept_values, self._known[layer][1])
        return torch.cat([value[:, : self.first], guarded.to(value.dtype)], dim=1)

    def decomposed(self, v: Tensor, concepts: Tensor, found: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """v (..., d) without its component along each of the concepts' values (k, d). found: their ``directions``."""
        u, p = found or directions(concepts)
        share = v @ u.T / u.square().sum(1).clamp_min(torch.finfo(u.dtype).tiny)  # <v, u_i> / |u_i|²
        near = normalize(v, dim=-1) @ normalize(concepts, dim=-1).T  # cosines (..., k)
        shift = self.most * torch.sigmoid(self.slope * (near - self.middle))  # δ
        return v - (share @ p * shift) @ concepts


@torch.no_grad()
def directions(rows: Tensor) -> tuple[Tensor, Tensor]:
    """P ``rows`` (k, d) and P (k, k) of ``gram_schmidt``, as constants: no gradient passes through them."""
    exact = rows.cpu().double()  # not every device has this precision
    p = gram_schmidt(exact)
    return (p @ exact).to(rows), p.to(rows)


def gram_schmidt(rows: Tensor) -> Tensor:
    """P (k, k), lower triangular, so that the rows of P ``rows`` (k, d) are orthogonal. Its diagonal is 1.

    rows: float64, or too much is lost to rounding. A row that others span, but for rounding, would be a direction of
    noise: its row of P is 0. Each row is made orthogonal twice, because one pass over hundreds of near texts leaves
    what rounding makes of them.
    """
    p = torch.eye(len(rows), dtype=rows.dtype, device=rows.device)
    lengths = rows.square().sum(1)
    for i in range(1, len(rows)):
        u = p[:i] @ rows
        squares = u.square().sum(1).clamp_min(torch.finfo(rows.dtype).tiny)
        for _ in range(2):
            p[i] = p[i] - (u @ (p[i] @ rows) / squares) @ p[:i]
        if (p[i] @ rows).square().sum() < SPANNED * lengths[i]:
            p[i] = 0
    return p


# by name: the guard, and the part of the denoiser whose layers' outputs it changes
HOOKS: Mapping[str, tuple[type[ValueGuard], str]] = {"values": (ValueGuard, "values")}


@dataclass(frozen=True, eq=False)
class Hook:
    """One guard. name: in ``HOOKS``. settings: plain numbers. tensors: fp32 on the CPU.

    Raises EditError for an unknown name, and for settings or tensors that the guard does not take.
    """

    name: str
    settings: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        if self.name not in HOOKS:
            raise EditError(
                f"hook {quoted(self.name)} is unknown{nearest(self.name, HOOKS)}: this unlearnkit knows "
                f"{', '.join(HOOKS)}; use the version that made the edit"
            )
        kind, _ = HOOKS[self.name]
        typed(dict(self.settings), kind.SETTINGS, where=f"hook {quoted(self.name)}", error=EditError)
        odd = [
            name for name in (*self.settings, *self.tensors) if name not in (*kind.SETTINGS, *kind.TENSORS)
        ]
        if odd or set(self.tensors) != set(kind.TENSORS):
            raise EditError(f"hook {quoted(self.name)} does not take {quoted(odd or list(self.tensors))}")
        if self.settings["first"] < 0:
            raise EditError(f"hook {quoted(self.name)}: 'first' is {self.settings['first']}: use 0 or more")
        numbers = torch.tensor(list(self.settings.values()), dtype=torch.float64)
        if not all(torch.isfinite(one).all() for one in (numbers, *self.tensors.values())):
            raise EditError(f"hook {quoted(self.name)} holds a value that is not a finite number")
        for name, value in self.tensors.items():
            if value.dtype != torch.float32 or value.dim() != kind.TENSORS[name]:
                raise EditError(
                    f"tensor {quoted(name)} of hook {quoted(self.name)} is {value.dtype} {tuple(value.shape)}: it "
                    f"has float32 and {kind.TENSORS[name]} dimensions"
                )


@contextmanager
def attached(
    denoiser: nn.Module, hooks: tuple[Hook, ...], weights: Callable[[str], Iterable[str]]
) -> Iterator[None]:
    """Inside, the guards act, the first one first. weights: the full names of a part's weights, as ``Model.weights``.

    Raises InputError for a model without the layers they act on.
    """
    handles = []
    try:
        for hook in hooks:
            make, part = HOOKS[hook.name]
            guard = make(hook.tensors["concepts"], **hook.settings)
            layers = sorted({name.rpartition(".")[0].partition(".")[2] for name in weights(part)})
            for layer in layers:
                module = denoiser.get_submodule(layer)
                guard.check(module)
                handles.append(module.register_forward_hook(guard))
        yield
    finally:
        for handle in handles:
            handle.remove()
