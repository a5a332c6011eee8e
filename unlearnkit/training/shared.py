"""Settings that several methods have, described once; a method takes those that it needs with ``default``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..parts.ascent import CapOn
from ..parts.divergence import Divergence
from ..settings import setting

__all__ = ["RetainTarget", "Shared", "Tokens"]

RetainTarget = Literal["noise", "teacher"]
Tokens = Literal["last", "all"]


@dataclass(frozen=True)
class Shared:
    """Settings that several methods share. ``default`` declares one with a method's own default."""

    erase_weight: float = setting(1.0, "weight of the erasing loss", low=0.0)
    relative_erase: bool = setting(
        False, "divide the erasing loss, and its cap, by the base model's loss on the concept"
    )
    retain_weight: float = setting(1.0, "weight of the retain loss", low=0.0)
    retain_target: RetainTarget = setting(
        "noise", "target of the retain loss: the true noise, or the base model's prediction"
    )
    distil_weight: float = setting(
        0.0, "weight of distillation from the base model on the retain set", low=0.0
    )
    prompt_dropout: float = setting(
        0.0,
        "share of retain pictures trained with the empty prompt, to preserve the unconditional prediction",
        low=0.0,
        high=0.9,
    )
    eta: float = setting(1.0, "η, how far the target is steered away from the concept", low=0.0)
    divergence: Divergence = setting(
        "mse",
        "distance of the concept's prediction from its target; hellinger: samples that are far off count less; chi2: "
        "they count more",
    )
    divergence_scale: float = setting(
        1.0, "k, how much more or less they count with divergence = hellinger and chi2", low=1e-6, high=1e6
    )
    null: Literal["empty", "rest"] = setting(
        "empty",
        "prompt without the concept, if there is no 'instead': the empty prompt, or the concept's prompt less its word",
    )
    teacher: Literal["frozen", "student"] = setting(
        "frozen", "predicts the target: the frozen base model, or the network in training"
    )
    cap: float = setting(
        1.5, "largest error to which the concept's loss is raised; a prediction of 0 has error 1", low=0.0
    )
    cap_on: CapOn = setting(
        "batch",
        "what the cap limits: the batch's mean error, each error of the noise, or each error of the implied image",
    )
    pictures: int = setting(
        200, "images drawn for each concept: of it, of its anchor, or pairs, as the method needs", low=1
    )
    retain_pictures: int = setting(25, "images of each retained word", low=1)
    neighbours: int = setting(
        8, "number of nearest words to retain if the request keeps nothing", low=0, role="neighbours"
    )
    grammar: str = setting(
        "",
        "grammar of the prompts: plain, people, scenes, or a TOML file; empty (not rgd, uce): the model's templates",
    )
    tokens: Tokens = setting(
        "last", "text states of a concept: of its last token, or of this and all later tokens"
    )
    templates: bool = setting(False, "use the concept's words in the model's templates, not only bare")
    free: float = setting(
        0.01,
        "smallest share of a concept that can be erased beside what is retained; one with less is refused by name",
        low=0.0,
        high=1.0,
    )
    reach: float = setting(
        0.0,
        "how far the prediction of the least erased held-out prompt must come; 0: as the base model, 1: all the way to "
        "the target; below it erase_weight is doubled, where the method has one; 0: not looked at",
        low=0.0,
        high=10.0,
    )
    brake: float = setting(
        0.1,
        "with reach: how far retained words may move; erase_weight is not doubled beyond it",
        low=0.0,
        high=100.0,
    )
