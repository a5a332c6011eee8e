"""What users do to a model anyway. Does the concept come back without anybody looking for it?

Another precision, pruning or noise; more or less of the edit; the mean with an edit of another concept (by UCE); the
edit on a base that was trained on other pictures; other samplers, guidance and sizes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..families import any_size
from ..families.schedules import Diffusion
from ..methods import edit_for
from ..model.model import Model
from ..schema import Concept, Request, folded
from .attack import Budget, Cost, Group, Victim
from .latent_classifier import others
from .relearning import Relearning
from .result import Attempt, SearchResult
from .retraining import train_weights

__all__ = ["WeightChanges"]

CHANGES = {
    "8 bits": "bits 8",
    "4 bits": "bits 4",
    "bfloat16": "bfloat16",
    "30 % pruned": "prune 0.3",
    "noise of 5 %": "noise 0.05",
    "half the edit": "edit 0.5",
    "one and a half times the edit": "edit 1.5",
}
FEW = ("4 bits", "30 % pruned", "half the edit")
MEAN, TUNED, LARGER = "mean with another edit", "on a tuned base", "larger pictures"
SAMPLERS = {"DDIM": "DDIMScheduler", "Euler ancestral": "EulerAncestralDiscreteScheduler"}


@dataclass(frozen=True)
class WeightChanges:
    """guidance: scales, each an arm, as samplers are if a search is thorough. tuned: steps that the base is trained."""

    name: ClassVar = "weight_changes"
    title: ClassVar = "Everyday changes"
    paper: ClassVar = "ours"
    summary: ClassVar = "Fewer bits, pruning, noise, half the edit, merging, other samplers and sizes."
    group: ClassVar[Group] = "weights"

    guidance: tuple[float, ...] = (1.0, 15.0)
    tuned: int = 40

    def refuses(self, model: Model) -> str | None:
        return None

    def search(self, victim: Victim) -> SearchResult:
        model, thorough, tensors = victim.model, victim.budget.thorough, {}
        arms: dict[str, Any] = {arm: {"change": CHANGES[arm]} for arm in (CHANGES if thorough else FEW)}
        if other := _other(victim):
            request = Request((other,))
            edit = victim.part("other", lambda: dict(edit_for(model, request, method="uce").weights))
            tensors = {f"other/{name}": one for name, one in edit.items()}
            arms[MEAN] = {"change": "mean", "weights": "other"}
        if model.dtype != torch.float16:  # which cannot be trained
            base = victim.part("tuned", lambda: self._tuned(victim))
            tensors |= {f"tuned/{name}": one for name, one in base.items()}
            arms[TUNED] = {"change": "add", "weights": "tuned"}
        drawn = SAMPLERS.items() if thorough and isinstance(model.schedule, Diffusion) else ()
        arms |= {arm: {"scheduler": name} for arm, name in drawn}
        arms |= {f"guidance {scale:g}": {"guidance": scale} for scale in self.guidance if thorough}
        if thorough and any_size(model.family) and not model.classes:
            (c, h, w), n, draws = model.shape, victim.budget.pictures, victim.stream(self.name, LARGER)
            tensors["larger"] = torch.randn((n, c, 3 * h // 2, 3 * w // 2), generator=draws)
            arms[LARGER] = {"start": "larger"}
        attempts = [
            Attempt(arm, victim.prompt, seed, row=row if "start" in how else 0, **how)
            for arm, how in arms.items()
            for row, seed in enumerate(victim.seeds(self.name, arm))
        ]
        return SearchResult(tuple(attempts), tensors)

    def cost(self, budget: Budget) -> Cost:
        arms = 2 + (len([*CHANGES, *SAMPLERS, *self.guidance, LARGER]) if budget.thorough else len(FEW))
        return Cost(gradient=self.tuned * budget.batch, pictures=budget.examples, arms=arms)

    def _tuned(self, victim: Victim) -> dict[str, Tensor]:
        """The untouched model's matrices after low-rank updates by pictures of other words."""
        untouched = replace(victim, applied={})
        rank, rate = Relearning.rank, Relearning.low_rank_rate
        return train_weights(untouched, others(victim), [self.tuned], rank=rank, rate=rate)[self.tuned]


def _other(victim: Victim) -> Concept | None:
    """Another concept of the model's vocabulary, for an edit by UCE; None where UCE cannot make one."""
    model, own = victim.model, victim.concept.folded
    able = not model.classes and "text" not in model.family.LACKS
    words = (one for one in model.hints.words if able and folded(one.name) not in own)
    return min(words, key=lambda one: one.kind != victim.concept.kind, default=None)
