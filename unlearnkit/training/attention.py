"""Cross-attention seen from outside: the maps of its layers, and an output that stays what it was.

A layer's map is A = softmax(Q Kᵀ / √d), fp32, of shape (rows, heads, positions, tokens): over the tokens it sums to 1.
Fused attention never holds it, so the rows that are read go through the softmax written out, and all other rows and
passes through the processor that was there. Nothing is kept that was not asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ..errors import InputError
from ..io import processes
from ..models.model import Model

__all__ = ["Watch", "distance", "folds", "readable", "start_held", "steered", "watched"]


@contextmanager
def watched(model: Model, *, read: bool = True) -> Iterator[Watch]:
    """Read the maps of all cross-attention inside; the processors are as before afterwards, on exceptions too.

    read: False reads nothing, of whatever model. ``backward()`` must run inside too, because recomputed activations go
    through the processors again. Raises InputError or ModelError for attention of another kind.
    """
    chosen = readable(model) if read else {}
    watch, before = Watch(model), {name: layer.processor for name, layer in chosen.items()}
    try:
        for name, layer in chosen.items():
            layer.processor = _Reader(name, before[name], watch)
        yield watch
    finally:
        for name, layer in chosen.items():
            layer.processor = before[name]


@contextmanager
def start_held(model: Model) -> Iterator[None]:
    """Inside, keys and values learn nothing at the start token, whose state is the same in every prompt.

    A model without cross-attention that can be read stays as it is.

    No number changes, only gradients stop there: so it is in Custom Diffusion's attention, which the released code of
    Concept Ablation and of DoCo uses. ``backward()`` must run inside.
    """
    layers = () if "attention" in model.family.LACKS else readable(model).values()
    hooks = [part.register_forward_hook(_held) for layer in layers for part in (layer.to_k, layer.to_v)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _held(_: Any, __: Any, output: Tensor) -> Tensor:
    return torch.cat([output[:, :1].detach(), output[:, 1:]], dim=1)


def folds(tokens: int, start: int, end: int, other: int) -> Tensor:
    """A matrix (tokens, tokens) that sums a word's columns of a map, so that words of other lengths fit beside it.

    The word has the tokens ``start + 1`` to ``end``, in the other prompt to ``other``. Its columns become column
    ``start + 1``, what follows it comes next, and the end is cut to what both prompts have, in one last column.
    """
    place = torch.arange(tokens)
    after = place - (end - start) + 1
    moved = torch.where(place <= start, place, torch.where(place <= end, start + 1, after))
    last = min(tokens, tokens + 1 - max(end, other) + start) - 1
    return one_hot(moved.clamp_max(last), tokens).float()


def distance(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """1/M Σ_i mean (A_i - B_i)² over M layers, whatever their sizes."""
    return torch.stack([(a - b).square().mean() for a, b in zip(found, wanted, strict=True)]).mean()


def steered(both: Tensor, eta: float, *, maps: bool) -> Tensor:
    """A_null - η (A_told - A_null) of the two halves; maps are then cut at 0, and sum to 1 over the tokens again."""
    null, told = both.chunk(2)
    away = null - eta * (told - null)
    if not maps:
        return away
    away = away.clamp_min(0)
    return away / away.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(away.dtype).tiny)


class Watch:
    """Passes through a model whose attention is read. Made by ``watched``."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._states: Tensor | None = None
        self._rows = 0
        self._found: dict[str, Tensor] | None = None

    def eps(self, latents: Tensor, t: Tensor, states: Tensor, *, rows: int) -> tuple[Tensor, list[Tensor]]:
        """The predicted noise of every row, as ``Model.eps`` gives it, and of the first ``rows`` each layer's map.

        Shapes: latents (n, c, h, w), t (n,), states (n, tokens, width).
        """
        model, rest = self._model, len(t) - rows
        read = processes.part(rows)
        own = torch.cat([read, rows + processes.part(rest)]).to(t.device)
        self._rows, self._found = len(read), {}
        try:
            output = model.forward(latents[own], t[own], states[own])
            parts = zip(torch.split(output, [len(read), len(own) - len(read)]), (rows, rest), strict=True)
            whole = torch.cat([processes.gathered(part, count) for part, count in parts])
            noise = model.schedule.prediction(whole, latents, t)
            return noise, [processes.gathered(one, rows) for one in self._found.values()]
        finally:
            self._found = None

    def rows(self, states: Tensor | None) -> int:
        """How many rows of a pass with these states are read: told by the tensor, so that a recomputation is too."""
        if self._found is not None:
            self._states = (
                states  # the one that the network hands to its layers, which may not be the one given to it
            )
        return self._rows if states is self._states and states is not None else 0

    def see(self, name: str, probabilities: Tensor) -> None:
        """Keep a layer's map, unless this is a recomputation."""
        if self._found is not None:
            self._found[name] = probabilities


class _Reader:
    """An attention processor: the softmax written out for the rows that are read, ``stock`` for the others."""

    def __init__(self, name: str, stock: Any, watch: Watch) -> None:
        self.name, self.stock, self.watch = name, stock, watch

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        rows = self.watch.rows(encoder_hidden_states)
        if encoder_hidden_states is None or rows == 0:
            plain: Tensor = self.stock(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
            return plain
        parts = []
        if rows < len(hidden_states):
            parts = [self.stock(attn, hidden_states[rows:], encoder_hidden_states[rows:], None, temb)]
        output = self._read(attn, hidden_states[:rows], encoder_hidden_states[:rows])
        return torch.cat([output, *parts])

    def _read(self, attn: Any, x: Tensor, states: Tensor) -> Tensor:
        def heads(y: Tensor) -> Tensor:
            return y.view(*y.shape[:-1], attn.heads, -1).transpose(1, 2)

        q, k, v = heads(attn.to_q(x)), heads(attn.to_k(states)), heads(attn.to_v(states))
        a = (q.float() @ k.float().transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1)
        output = (a.to(v.dtype) @ v).transpose(1, 2).flatten(2)
        self.watch.see(self.name, a)
        projected: Tensor = attn.to_out[1](attn.to_out[0](output))
        return projected


def readable(model: Model) -> dict[str, Any]:
    """The cross-attention layers by name. Raises InputError for a model whose attention cannot be read."""
    if reason := model.family.LACKS.get("attention"):
        raise InputError(f"{model.family.TITLE} has no cross-attention that can be read: {reason}")
    return model.family.cross_attention(model.pipe)
