"""Merge independent edits into one: mean, task arithmetic, TIES.

With δ_i = θ_i - θ⁰, the change of edit i (0 for a weight that it does not change), n edits and a scale λ:

    mean         θ = θ⁰ + λ/n Σ_i δ_i
    arithmetic   θ = θ⁰ + λ Σ_i δ_i                   Ilharco et al. 2023, arXiv 2212.04089
    ties         θ = θ⁰ + λ mean of those trimmed δ̂_i that are not 0 and have the sign of Σ_i δ̂_i, entry by entry;
                 trimmed: the share of largest |δ_i| of every tensor stays, the rest is 0
                                                      Yadav et al. 2023, arXiv 2306.01708

Sums are taken in float64 in the order of the requests, so the same requests give the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..parts.mask import top
from ..settings import setting

__all__ = ["Merge", "combined", "merged", "trimmed"]


@dataclass(frozen=True)
class Merge:
    """How edits are merged. For n edits the n-th value of a list is used; the last one also for all larger n."""

    rule: Literal["ties", "arithmetic", "mean"] = setting(
        "ties", "how independent edits are merged", source="Lee et al., arXiv 2511.07970: ties"
    )
    scale: tuple[float, ...] = setting(
        (1.0, 1.25, 1.25, 1.75, 1.75, 1.75, 2.25, 2.25, 2.25, 2.25, 2.75),
        "λ for 1, 2, 3, ... edits",
        low=0.0,
        min_items=1,
        source="Lee et al., code: 1.25, 1.75, 2.25, 2.75, the last two steps at 2 to 3 and 11 to 12; between: ours",
    )
    trim: tuple[float, ...] = setting(
        (1.0, 0.5),
        "ties: share of every tensor's entries that are kept, for 1, 2, 3, ... edits",
        low=0.0,
        high=1.0,
        min_items=1,
        source="ours; Lee et al., code: 0.2 to 0.8",
    )


def merged(
    base: Mapping[str, Tensor], edits: Sequence[Mapping[str, Tensor]], merge: Merge
) -> dict[str, Tensor]:
    """The merged weights, fp32 on the CPU, that any edit changes. base: the weights from which all were made."""
    weights = {}
    for name in sorted({name for edit in edits for name in edit}):
        start = base[name].detach().cpu().double()
        changes = [edit[name].double() - start for edit in edits if name in edit]
        weights[name] = (start + combined(changes, len(edits), merge)).float()
    return weights


def combined(changes: Sequence[Tensor], count: int, merge: Merge) -> Tensor:
    """The merged change of a weight from those of some of ``count`` edits; the others do not change it."""
    scale = _for(merge.scale, count)
    if merge.rule == "mean":
        return scale / count * _total(changes)
    if merge.rule == "arithmetic":
        return scale * _total(changes)
    trimmed_changes = [trimmed(change, _for(merge.trim, count)) for change in changes]
    sign = _total(trimmed_changes).sign()
    agree = [torch.where(change.sign() == sign, change, 0.0) for change in trimmed_changes]
    voices = _total([(change != 0).double() for change in agree])
    return scale * _total(agree) / voices.clamp_min(1)


def trimmed(change: Tensor, share: float) -> Tensor:
    """The ``share`` of entries that are largest in absolute value, at least one; 0 elsewhere."""
    flat = change.flatten()
    stays = top(flat.abs(), max(1, round(share * len(flat))))
    return torch.where(stays, flat, 0.0).view_as(change)


def _total(changes: Sequence[Tensor]) -> Tensor:
    total = torch.zeros_like(changes[0])
    for change in changes:
        total = total + change
    return total


def _for(values: Sequence[float], count: int) -> float:
    return values[min(count, len(values)) - 1]
