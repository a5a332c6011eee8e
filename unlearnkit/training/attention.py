"""Cross-attention: how to record, align and compare what its layers compute. Recording does not change the output.

A layer's map is A = softmax(Q Kᵀ / √d), fp32, of shape (rows, heads, positions, tokens); it sums to 1 over the tokens.
Fused attention never computes it. So recorded rows use an explicit softmax, and all other rows and passes use the
layer's own processor. What the layer reads is A V, of shape (rows, heads, positions, d).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ..data.wording import prefix_through
from ..errors import InputError
from ..io import processes
from ..model.model import Model

__all__ = [
    "Alignment",
    "Attends",
    "AttentionRecorder",
    "alignment",
    "detach_bos",
    "map_distance",
    "record_attention",
    "steer",
    "steer_maps",
    "token_alignment",
]

Attends = Literal["maps", "output"]


@contextmanager
def record_attention(
    model: Model, *, enabled: bool = True, attends: Attends = "maps"
) -> Iterator[AttentionRecorder]:
    """Inside, the recorder can read all cross-attention layers. The processors are restored, on exceptions too.

    enabled: False changes nothing and accepts every model. attends: what is read, the map A or its product with the
    values A V. ``backward()`` must run inside too, because recomputed activations pass through the processors again.
    Raises InputError or ModelError for attention of another kind.
    """
    layers = _cross_attention(model) if enabled else {}
    recorder, before = (
        AttentionRecorder(model, enabled, attends),
        {name: layer.processor for name, layer in layers.items()},
    )
    try:
        for name, layer in layers.items():
            layer.processor = _RecordingProcessor(name, before[name], recorder)
        yield recorder
    finally:
        for name, layer in layers.items():
            layer.processor = before[name]


@contextmanager
def detach_bos(model: Model) -> Iterator[None]:
    """Inside, no gradient reaches keys and values from the start token, whose state is the same in every prompt.

    No number changes. Custom Diffusion's attention does this, and the released code of Concept Ablation and DoCo uses
    it. A model without separate cross-attention is left unchanged. ``backward()`` must run inside.
    """
    layers = () if "attention" in model.family.LACKS else _cross_attention(model).values()
    hooks = [
        part.register_forward_hook(_detach_first) for layer in layers for part in (layer.to_k, layer.to_v)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _detach_first(_: Any, __: Any, output: Tensor) -> Tensor:
    return torch.cat([output[:, :1].detach(), output[:, 1:]], dim=1)


def token_alignment(tokens: int, start: int, end: int, other: int) -> Tensor:
    """A matrix (tokens, tokens) that sums a word's columns of a map, so that maps of words of any length compare.

    The word has the tokens ``start + 1`` to ``end``; in the other prompt it ends at ``other``. Its columns become
    column ``start + 1``, the columns after it follow, and the last column sums what only one prompt has room for.
    """
    column = torch.arange(tokens)
    after = column - (end - start) + 1
    moved = torch.where(column <= start, column, torch.where(column <= end, start + 1, after))
    last = min(tokens, tokens + 1 - max(end, other) + start) - 1
    return one_hot(moved.clamp_max(last), tokens).float()


@dataclass(frozen=True)
class Alignment:
    """Matrices (n, tokens, tokens) that align the maps of n prompts with those of their n targets; None: identities."""

    prompts: Tensor | None = None
    targets: Tensor | None = None

    def distance(self, maps: list[Tensor], target: list[Tensor], which: Tensor) -> Tensor:
        """``map_distance`` of the maps of the prompts with these numbers (rows,) to aligned maps of their targets."""
        if self.prompts is not None:
            maps = [one @ self.prompts[which, None] for one in maps]
        return map_distance(maps, target)

    def of_targets(self, maps: list[Tensor], which: Tensor) -> list[Tensor]:
        """Aligned maps of the targets with these numbers; rows that follow, if any, are of the prompts themselves."""
        if self.prompts is None or self.targets is None or not maps:
            return maps
        matrices = torch.cat([self.targets[which, None], self.prompts[which, None]])[: len(maps[0])]
        return [one @ matrices for one in maps]


def alignment(model: Model, prompts: Sequence[tuple[str, str, str | None]]) -> Alignment:
    """Align the maps of prompts (template, word, the word in its place in the target).

    None in its place means that the target is the empty prompt; its maps need no alignment.
    """
    if all(place is None for *_, place in prompts):
        return Alignment()
    tokens = model.text([""]).shape[1]
    first, second = [], []
    for template, word, place in prompts:
        start, end, other = (
            model.last_token(prefix_through(template, part)) for part in ("", word, place or "")
        )
        whole = torch.eye(tokens)
        first.append(whole if place is None else token_alignment(tokens, start, end, other))
        second.append(whole if place is None else token_alignment(tokens, start, other, end))
    return Alignment(torch.stack(first).to(model.device), torch.stack(second).to(model.device))


def map_distance(maps: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """1/M Σ_i mean (A_i - B_i)² over M layers of any sizes."""
    return torch.stack([(a - b).square().mean() for a, b in zip(maps, target, strict=True)]).mean()


def steer(both: Tensor, eta: float) -> Tensor:
    """A_null - η (A_cond - A_null) of the two halves of the rows."""
    null, cond = both.chunk(2)
    return null - eta * (cond - null)


def steer_maps(both: Tensor, eta: float) -> Tensor:
    """``steer`` for maps: cut at 0, and summing to 1 over the tokens again."""
    away = steer(both, eta).clamp_min(0)
    return away / away.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(away.dtype).tiny)


class AttentionRecorder:
    """Passes through a model that also give what its layers attend to. Made by ``record_attention``."""

    def __init__(self, model: Model, enabled: bool, attends: Attends = "maps") -> None:
        self._model, self.enabled, self.attends = model, enabled, attends
        self._states: Tensor | None = None
        self._rows = 0
        self._maps: dict[str, Tensor] | None = None

    def eps(self, latents: Tensor, t: Tensor, states: Tensor, *, rows: int) -> tuple[Tensor, list[Tensor]]:
        """The predicted noise of every row, as in ``Model.eps``, and each layer's map of the first ``rows``.

        Shapes: latents (n, c, h, w), t (n,), states (n, tokens, width). A disabled recorder gives no maps.
        """
        rows = rows if self.enabled else 0
        model, rest = self._model, len(t) - rows
        read = processes.own_rows(rows)
        own = torch.cat([read, rows + processes.own_rows(rest)]).to(t.device)
        self._rows, self._maps = len(read), {}
        try:
            output = model.forward(latents[own], t[own], states[own])
            parts = zip(torch.split(output, [len(read), len(own) - len(read)]), (rows, rest), strict=True)
            whole = torch.cat([processes.gather_rows(part, count) for part, count in parts])
            noise = model.schedule.prediction(whole, latents, t)
            return noise, [processes.gather_rows(one, rows) for one in self._maps.values()]
        finally:
            self._maps = None

    def rows(self, states: Tensor | None) -> int:
        """How many rows of a pass with these states are recorded. A recomputation has the same tensor of states."""
        if self._maps is not None:
            self._states = states  # as the network passes it to its layers; it may differ from the one given
        return self._rows if states is self._states and states is not None else 0

    def record(self, name: str, probabilities: Tensor) -> None:
        """Store a layer's map, unless this is a recomputation."""
        if self._maps is not None:
            self._maps[name] = probabilities


class _RecordingProcessor:
    """An attention processor: an explicit softmax for the recorded rows, ``stock`` for the others."""

    def __init__(self, name: str, stock: Any, recorder: AttentionRecorder) -> None:
        self.name, self.stock, self.recorder = name, stock, recorder

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        rows = self.recorder.rows(encoder_hidden_states)
        if encoder_hidden_states is None or rows == 0:
            plain: Tensor = self.stock(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
            return plain
        parts = []
        if rows < len(hidden_states):
            parts = [self.stock(attn, hidden_states[rows:], encoder_hidden_states[rows:], None, temb)]
        output = self._recorded(attn, hidden_states[:rows], encoder_hidden_states[:rows])
        return torch.cat([output, *parts])

    def _recorded(self, attn: Any, x: Tensor, states: Tensor) -> Tensor:
        def heads(y: Tensor) -> Tensor:
            return y.view(*y.shape[:-1], attn.heads, -1).transpose(1, 2)

        q, k, v = heads(attn.to_q(x)), heads(attn.to_k(states)), heads(attn.to_v(states))
        a = (q.float() @ k.float().transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1)
        read = a.to(v.dtype) @ v
        output = read.transpose(1, 2).flatten(2)
        self.recorder.record(self.name, a if self.recorder.attends == "maps" else read.float())
        projected: Tensor = attn.to_out[1](attn.to_out[0](output))
        return projected


def _cross_attention(model: Model) -> dict[str, Any]:
    """The cross-attention layers by name. Raises InputError for a model whose attention cannot be recorded."""
    if reason := model.family.LACKS.get("attention"):
        raise InputError(f"{model.family.TITLE} has no cross-attention that can be read: {reason}")
    return model.family.cross_attention(model.pipe)
