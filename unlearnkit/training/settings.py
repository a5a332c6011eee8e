"""The settings that every method that trains has in common, and which of them make sense together.

A method's ``Settings`` extends ``Training``, and names what its paper does as its own defaults:

    class Settings(Training):
        trains: Trains = default("trains", "xattn-kv", source="the paper")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ..errors import InputError
from ..parts import erasing
from ..parts.ascent import CapOn
from ..settings import setting, with_default

__all__ = [
    "Combines",
    "Masks",
    "RetainTarget",
    "Rules",
    "Schedules",
    "Shared",
    "Tokens",
    "Training",
    "Trains",
    "check",
    "default",
]

RetainTarget = Literal["noise", "teacher"]
Trains = Literal["xattn-kv", "xattn", "not-xattn", "all", "lora", "text-encoder"]
Combines = Literal["sum", "restricted", "preserving", "preserving-tensor", "pcgrad"]
Masks = Literal["none", "saliency", "dynamic", "selft"]
Rules = tuple[Literal["l1sp", "l2sp", "project"], ...]
Schedules = Literal["constant", "onecycle"]
Tokens = Literal["last", "all"]

LORA = "xattn"  # the part whose matrices get low-rank updates


@dataclass(frozen=True)
class Training:
    ENCODES: ClassVar[bool] = (
        False  # whether the method's loss encodes prompts with the student's text encoders
    )

    trains: Trains = setting(
        "xattn",
        "weights that are trained; lora: low-rank updates of cross-attention's matrices; text-encoder: the layers of "
        "all text encoders, less norms and embeddings",
        source="ours",
        role="trains",
    )
    rank: int = setting(8, "rank of the updates with trains = lora", low=1, high=4096, source="ours")
    combine: Combines = setting(
        "sum",
        "how the erasing and the keeping gradient become one: added up; restricted: neither side rises; preserving: "
        "what opposes keeping is left out, over all weights or for each tensor; pcgrad: every loss against every other",
        source="none: losses are added up",
    )
    adds: float = setting(
        0.0,
        "how much of the keeping gradient joins the step with combine = preserving",
        low=0.0,
        source="DoCo's code: 0",
    )
    mask: Masks = setting(
        "none",
        "which entries may move: all; saliency: chosen once by gradients, selft: by gradients times weights; dynamic: "
        "chosen again on the way, for each matrix",
        source="none: all may move",
    )
    mask_share: float = setting(
        0.5,
        "share of the entries that a mask leaves open",
        low=0.0,
        high=1.0,
        source="SalUn, Sculpting Memory",
    )
    mask_warmup: int = setting(
        50,
        "steps before the others in which only a mask's gradients are gathered",
        low=1,
        source="Sculpting Memory",
    )
    mask_every: int = setting(
        100, "steps between two choices of a dynamic mask", low=1, source="Sculpting Memory's code"
    )
    rule: Rules = setting(
        (),
        "l1sp, l2sp: penalties on the way from the start; project: keys and values answer protected text as before",
        source="none: nothing else holds the weights",
    )
    l1sp: float = setting(
        50.0, "weight of rule = l1sp, for a mean over entries", low=0.0, source="Lee et al., code"
    )
    l2sp: float = setting(25_000.0, "weight of rule = l2sp, for a mean", low=0.0, source="Lee et al., code")
    protect: int = setting(
        20,
        "with rule = project, if the request keeps nothing: number of nearest words that are protected",
        low=1,
        source="ours",
    )
    steps: int = setting(500, "optimiser steps", low=0, source="ours")
    lr: float = setting(1e-5, "Adam's learning rate", low=0.0, source="ours")
    schedule: Schedules = setting(
        "constant",
        "how the learning rate goes: onecycle rises from 1/25 for 30 % of the steps, then falls",
        source="constant: as most papers",
    )
    batch: int = setting(4, "pictures a step, of each of the two sides", low=1, high=1024, source="ours")
    checkpointing: bool = setting(
        False, "recompute activations: less memory, more time", source="ours", role="checkpointing"
    )
    stop: Literal["none", "guide", "erased"] = setting(
        "none",
        "stop early: guide: and keep the weights that the canvas's guide (never the judge) scores best; erased: as "
        "soon as it sees no more of the concept than stop_at",
        source="ours",
    )
    stop_every: int = setting(20, "with stop: steps between two looks", low=1, source="ours")
    stop_at: float = setting(
        0.05,
        "with stop = erased: share of pictures of the concept",
        low=0.0,
        high=1.0,
        source="ours: UA 95 %",
    )

    @property
    def separate(self) -> bool:
        """Whether the gradients of the losses are taken one by one, so that each loss wants a graph of its own."""
        return self.combine != "sum"

    @property
    def held(self) -> int:
        """Bytes that every trained number takes all the while: its copy, two moments, what a mask has opened."""
        return 12 + (self.mask != "none")

    def most(self, numbers: int, passing: int) -> int:
        """Bytes that the fullest step with so many trained numbers holds; passing: what a pass holds besides.

        A pass ends with the gradients of all numbers, of either side where these are taken apart. A mask adds some up
        and then holds them with those that it lets through; to rank all numbers together takes them in a row.
        """
        fullest = passing + 4 * numbers * (1 + self.separate)
        if self.mask != "none":
            ranked = 0 if self.mask == "dynamic" else 4 + 12 * self.mask_share
            fullest = max(fullest + 4 * numbers, round((8 + ranked) * numbers))
        return round(self.held * numbers) + fullest

    @property
    def low_rank(self) -> bool:
        """Whether low-rank updates can be trained: masks and rules speak of the weights themselves."""
        return self.mask == "none" and not self.rule

    @property
    def updates(self) -> int:
        """The rank of the low-rank updates that are trained in place of weights; 0 for none."""
        return self.rank if self.trains == "lora" else 0

    @property
    def part(self) -> str:
        """The part of the denoiser that is trained."""
        return LORA if self.trains == "lora" else self.trains


@dataclass(frozen=True)
class Shared:
    """Settings that mean the same in several methods; ``default`` gives a method its own default of one."""

    erase_weight: float = setting(1.0, "weight of the erasing loss", low=0.0)
    relative_erase: bool = setting(
        False, "divide the erasing loss, and its cap, by what the base model's loss on the concept is"
    )
    retain_weight: float = setting(1.0, "weight of the retain loss", low=0.0)
    retain_target: RetainTarget = setting(
        "noise", "what the retain loss predicts: the true noise, or the base model's prediction"
    )
    distil_weight: float = setting(
        0.0, "weight of a loss that keeps the base model's predictions on the retain set", low=0.0
    )
    prompt_dropout: float = setting(
        0.0,
        "share of retain pictures trained with the empty prompt, to preserve the unconditional prediction",
        low=0.0,
        high=0.9,
    )
    eta: float = setting(1.0, "η, how far the target is steered away from the concept", low=0.0)
    null: Literal["empty", "rest"] = setting(
        "empty",
        "what stands for no concept, unless 'instead' does: the empty prompt, or the concept's prompt less its word, "
        "so that what else the prompt says is not steered away from",
    )
    teacher: Literal["frozen", "student"] = setting(
        "frozen", "whose prediction is the target: the base model's, or that of the network in training"
    )
    cap: float = setting(
        1.5, "error up to which the loss on the concept is raised; predicting nothing has 1", low=0.0
    )
    cap_on: CapOn = setting(
        "batch",
        "what the cap is for: the batch's mean error, each error of the noise, or each error of the implied picture",
    )
    pictures: int = setting(
        200, "pictures drawn for each concept: of it, of its anchor, or pairs, as the method trains on", low=1
    )
    retain_pictures: int = setting(25, "pictures of each word that is kept", low=1)
    neighbours: int = setting(
        8, "if the request keeps nothing: number of nearest words that are kept", low=0, role="neighbours"
    )
    grammar: str = setting(
        "",
        "a grammar for the prompts: plain, people, scenes, or a TOML file's path; empty (not rgd, uce): the model's "
        "templates",
    )
    tokens: Tokens = setting(
        "last", "text states of a concept: of its last token, or of that and all after it"
    )
    templates: bool = setting(False, "put the concept's words in the model's templates too, not only bare")


def default(name: str, value: Any, *, source: str) -> Any:
    """The setting ``name`` of ``Training`` or ``Shared`` with a method's own default and its source."""
    cls = Training if hasattr(Training, name) else Shared
    return with_default(cls, name, value, source=source)


def check(settings: Training, *, losses: Sequence[str]) -> None:
    """Raise InputError for parts that make no sense together, or with a method that gives these losses."""
    erase, keep = any(map(erasing, losses)), not all(map(erasing, losses))
    trains, combine, mask, rule = settings.trains, settings.combine, settings.mask, settings.rule
    given = f"this method gives only {', '.join(losses)}"
    if (trains == "text-encoder") != settings.ENCODES:
        only = (
            "this method trains the text encoder"
            if settings.ENCODES
            else "only advunlearn encodes prompts anew"
        )
        raise InputError(f"trains={trains} is not for this method: {only}; leave the setting out")
    if combine != "sum" and not (erase and keep):
        raise InputError(
            f"combine={combine} sets an erasing loss against a keeping one, and {given} with these settings: "
            "choose combine=sum, or a keeping loss"
        )
    if settings.adds and not combine.startswith("preserving"):
        raise InputError(f"adds belongs to combine=preserving, not to combine={combine}: leave it out")
    if mask != "none" and not erase:
        raise InputError(f"mask={mask} ranks weights by an erasing loss, and {given}: choose mask=none")
    if mask != "none" and trains == "lora":
        raise InputError(
            f"mask={mask} opens single weights, and every weight of a low-rank update hangs on others: "
            "choose mask=none, or trains=xattn"
        )
    if rule and trains == "lora":
        raise InputError(
            f"rule={','.join(rule)} speaks of the weights themselves, and trains=lora trains factors of their "
            "change: choose no rule, or trains=xattn"
        )
    if "project" in rule and mask != "none":
        raise InputError(
            f"rule=project moves whole rows of a matrix, and mask={mask} holds single entries of them: choose one"
        )
    if "project" in rule and trains in ("not-xattn", "text-encoder"):
        raise InputError(
            f"rule=project holds keys and values, and trains={trains} leaves them alone: choose trains=xattn-kv, or "
            "leave the rule out"
        )
