"""What happens to weights in use: fewer bits, pruning, noise, an edit at another strength or merged with another one.

Each change is a pure function of weights; ``changed`` applies it by its name to the weights of a victim.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import diffusers
import torch
from torch import Tensor

from .. import seeds
from ..errors import InputError, quoted
from ..model.edit import Edit
from ..model.model import Model, Weights
from .attack import Victim

__all__ = ["changed", "other_scheduler", "pruned", "quantised", "scaled", "with_noise"]

BLOCK = 64  # entries that share a scale


def quantised(weight: Tensor, bits: int) -> Tensor:
    """The weight rounded to ``2^bits - 1`` equal steps around 0, whose size is that of the largest of 64 entries."""
    flat, most = weight.float().flatten(), 2 ** (bits - 1) - 1
    blocks = torch.nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    step = blocks.abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / most
    rounded: Tensor = ((blocks / step).round() * step).flatten()[: len(flat)]
    return rounded.view_as(weight)


def pruned(weight: Tensor, share: float) -> Tensor:
    """The weight with its ``share`` of smallest entries at 0."""
    flat = weight.float().flatten()
    gone = flat.abs().argsort(stable=True)[: round(share * len(flat))]
    return flat.index_fill(0, gone, 0.0).view_as(weight)


def with_noise(weight: Tensor, share: float, draws: torch.Generator) -> Tensor:
    """The weight plus normal noise of ``share`` of its standard deviation."""
    noise = torch.randn(weight.shape, generator=draws).to(weight.device)
    return weight.float() + share * weight.float().std(correction=0) * noise


def scaled(base: Weights, edited: Weights, strength: float) -> dict[str, Tensor]:
    """``base + strength (edited - base)`` of each weight."""
    return {name: base[name].float() + strength * (one.float() - base[name]) for name, one in edited.items()}


def changed(victim: Victim, how: str, other: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights to put on top of the victim's.

    how: ``bits N``, ``prune SHARE`` and ``noise SHARE`` change the denoiser's matrices, ``bfloat16`` all its weights;
        ``edit STRENGTH`` scales the attacked edit's weights, ``mean`` gives its mean with the edit ``other``, ``add``
        their sum. Guards stay as they are. A model of its own has no edit to scale: it stays, and the mean is with it.
    Raises InputError for any other.
    """
    model, (kind, _, number) = victim.model, how.partition(" ")
    applied = victim.applied.weights if isinstance(victim.applied, Edit) else victim.applied
    base = {name: one.detach() for name, one in model.values({**applied, **other}).items()}
    with victim.edited():
        edited = {name: one.detach() for name, one in model.values({**applied, **other}).items()}
        every = {name: one.detach() for name, one in model.weights("all").items()}
    unedited = edited if victim.whole else base
    if kind == "edit" and number:
        return scaled(unedited, {name: edited[name] for name in applied}, float(number))
    if kind in ("mean", "add"):
        there = {name: one.to(base[name].device) for name, one in other.items()}
        both = {name: edited[name].float() + there.get(name, base[name]) - base[name] for name in edited}
        return scaled(unedited, both, 0.5 if kind == "mean" else 1.0)
    if kind == "bfloat16":
        return {name: one.bfloat16().float() for name, one in every.items()}
    matrices = {name: one for name, one in every.items() if one.dim() > 1}
    if kind == "bits" and number:
        return {name: quantised(one, int(number)) for name, one in matrices.items()}
    if kind == "prune" and number:
        return {name: pruned(one, float(number)) for name, one in matrices.items()}
    if kind == "noise" and number:
        draws = {name: seeds.stream(0, "noise on weights", name) for name in matrices}
        return {name: with_noise(one, float(number), draws[name]) for name, one in matrices.items()}
    raise InputError(f"the change of weights {quoted(how)} is unknown: what was found is damaged")


@contextmanager
def other_scheduler(model: Model, name: str) -> Iterator[None]:
    """The pipeline with the diffusers scheduler of this name inside, with its own settings where they fit."""
    own = model.pipe.scheduler
    if name:
        kind: Any = getattr(diffusers, name, None)
        if kind is None or not name.endswith("Scheduler"):
            raise InputError(f"{quoted(name)} is no scheduler of diffusers: what was found is damaged")
        model.pipe.scheduler = kind.from_config(own.config)
    try:
        yield
    finally:
        model.pipe.scheduler = own
