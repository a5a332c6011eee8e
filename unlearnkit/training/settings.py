"""The settings that training methods share.

A method extends ``Training`` and declares its paper's values as its defaults:

    class ESD(Trained[Sets]):
        trains: Trains = default("trains", "xattn-kv", source="the paper")
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ..settings import setting, with_default
from .shared import RetainTarget, Shared, Tokens

__all__ = [
    "Combines",
    "Masks",
    "RetainTarget",
    "Rules",
    "Schedules",
    "Tokens",
    "Training",
    "Trains",
    "default",
]

Trains = Literal["xattn-kv", "xattn", "not-xattn", "all", "lora", "text-encoder"]
Combines = Literal["sum", "restricted", "preserving", "preserving-tensor", "pcgrad"]
Masks = Literal["none", "saliency", "dynamic", "selft"]
Rules = tuple[Literal["l1sp", "l2sp", "project"], ...]
Schedules = Literal["constant", "onecycle"]
Adversaries = Literal["none", "embedding", "prefix"]

LORA = "xattn"  # the part whose matrices get low-rank updates


@dataclass(frozen=True)
class Training:
    ENCODES: ClassVar[bool] = False  # whether the loss encodes prompts with the student's text encoders
    INSTEAD: ClassVar[Mapping[str, str]] = {}
    REPLACES: ClassVar[bool] = True
    RETAINS: ClassVar[bool] = True  # whether the losses may look at what the request keeps
    # what gives the erasing loss its target: the prediction with the anchor, without the word, or with the superclass
    TARGET_PROMPT: ClassVar[Literal["anchor", "null", "superclass"] | None] = None

    trains: Trains = setting(
        "xattn",
        "the trained weights; lora: low-rank updates of cross-attention's matrices; text-encoder: the layers of all "
        "text encoders, without norms and embeddings",
        source="ours",
        role="trains",
    )
    rank: int = setting(8, "rank of the updates with trains = lora", low=1, high=4096, source="ours")
    combine: Combines = setting(
        "sum",
        "how erasing and retain gradients are combined; sum: added; restricted: neither loss rises; preserving: "
        "without the part that opposes the retain gradient, over all weights or per tensor; pcgrad: all loss pairs",
        source="none: losses are added",
    )
    adds: float = setting(
        0.0,
        "factor of the retain gradient that is added with combine = preserving",
        low=0.0,
        source="DoCo's code: 0",
    )
    mask: Masks = setting(
        "none",
        "which entries may change; none: all; saliency: chosen once by gradients; selft: by gradients times weights; "
        "dynamic: chosen again during training, per matrix",
        source="none: all may change",
    )
    mask_share: float = setting(
        0.5,
        "share of the entries that may change under a mask",
        low=0.0,
        high=1.0,
        source="SalUn, Sculpting Memory",
    )
    mask_warmup: int = setting(
        50,
        "first steps, in which only the mask's gradients are summed",
        low=1,
        source="Sculpting Memory",
    )
    mask_every: int = setting(
        100, "steps between two choices of a dynamic mask", low=1, source="Sculpting Memory's code"
    )
    rule: Rules = setting(
        (),
        "l1sp, l2sp: penalties on the distance to the initial weights; project: keys and values of protected text stay "
        "unchanged",
        source="none: no constraint",
    )
    l1sp: float = setting(
        50.0, "weight of rule = l1sp, for a mean over entries", low=0.0, source="Lee et al., code"
    )
    l2sp: float = setting(25_000.0, "weight of rule = l2sp, for a mean", low=0.0, source="Lee et al., code")
    protect: int = setting(
        20,
        "with rule = project: number of nearest words to protect if the request keeps nothing",
        low=1,
        source="ours",
    )
    adversary: Adversaries = setting(
        "none",
        "look for vectors that bring the concept back while training, and erase there too; embedding: in place of the "
        "whole prompt; prefix: before the concept's name",
        source="the search: AdvUnlearn, STEREO",
        role="adversary",
    )
    adversary_steps: int = setting(
        10, "steps of each search", low=1, high=10_000, source="ours; AdvUnlearn: 30"
    )
    adversary_every: int = setting(5, "steps between two searches", low=1, source="ours; AdvUnlearn: 1")
    adversary_vectors: int = setting(
        4, "number of vectors that it learns", low=1, high=16, source="ours; AdvUnlearn: 1"
    )
    adversary_radius: float = setting(
        0.0,
        "longest vector, in lengths of a random token embedding; 0: any",
        low=0.0,
        source="AdvUnlearn: none",
    )
    steps: int = setting(500, "optimiser steps", low=0, source="ours")
    lr: float = setting(1e-5, "Adam's learning rate", low=0.0, source="ours")
    schedule: Schedules = setting(
        "constant",
        "learning rate schedule; onecycle: up from 1/25 in 30 % of the steps, then down",
        source="as most papers",
    )
    batch: int = setting(4, "images per step, of each side", low=1, high=1024, source="ours")
    reencode: bool = setting(
        False,
        "train on drawn images that were decoded and encoded again, with latents drawn from the VAE's distribution in "
        "each step; off: on the latents as they were drawn",
        source="ours: off; released code: on",
    )
    checkpointing: bool = setting(
        False, "recompute activations: less memory, more time", source="ours", role="checkpointing"
    )
    stop: Literal["none", "converged", "guide", "erased"] = setting(
        "none",
        "when training ends before all steps; converged: when the predictions on held-out prompts say so (stop_reach, "
        "stop_brake, stop_patience); by the canvas's validation classifier: guide: keep the weights with the best "
        "score; erased: when the share of pictures that show the concept is at most stop_at",
        source="papers: none",
    )
    stop_every: int = setting(20, "with stop: steps between two scores", low=1, source="ours")
    stop_at: float = setting(
        0.05,
        "with stop = erased: share of pictures that show the concept",
        low=0.0,
        high=1.0,
        source="ours: unlearning accuracy 95 %",
    )

    stop_reach: float = setting(
        0.5,
        "with stop = converged: how far the prediction of the least erased held-out prompt must come; 0: as the base "
        "model, 1: all the way to the target",
        low=0.0,
        high=10.0,
        source="ours: with less, the canvas still drew some",
    )
    stop_from: float = setting(
        0.0,
        "with stop = converged: share of the steps that is trained in any case",
        low=0.0,
        high=1.0,
        source="ours; canvas: 1",
    )
    stop_most: int = setting(
        1,
        "with stop = converged: how many times the steps may pass; a onecycle schedule spans the steps once, starts "
        "again with them, and training ends only where it ends",
        low=1,
        high=100,
        source="ours; canvas: 2",
    )
    stop_brake: float = setting(
        0.2,
        "with stop = converged: how far predictions for retained words may move, as a share of what leaving the words "
        "out changes",
        low=0.0,
        high=100.0,
        source="ours, measured on the canvas",
    )
    stop_patience: int = setting(
        2,
        "with stop = converged: readings one after the other that must hold",
        low=1,
        high=1000,
        source="ours",
    )

    @property
    def most_steps(self) -> int:
        """Optimiser steps at most."""
        return self.steps * (self.stop_most if self.stop == "converged" else 1)

    @property
    def retains(self) -> bool:
        """Whether these settings look at the concepts that the request keeps."""
        retain_loss = self.RETAINS and getattr(self, "retain_weight", 1.0) > 0
        return retain_loss or "project" in self.rule or self.stop == "converged"

    @property
    def separate(self) -> bool:
        """Whether each loss has a gradient, and so a graph, of its own."""
        return self.combine != "sum"

    @property
    def state_bytes(self) -> int:
        """Bytes per trained number between steps: its master copy, two moments, and the mask's entry."""
        return 12 + (self.mask != "none")

    def peak_bytes(self, numbers: int, passing: int) -> int:
        """Peak bytes of a step with this many trained numbers; passing: what a pass needs besides.

        A pass ends with the gradients of all numbers, of both sides if these are separate. A mask sums gradients and
        then has both the sums and the masked gradients; to rank all numbers together it joins them in one vector.
        """
        peak = passing + 4 * numbers * (1 + self.separate)
        if self.mask != "none":
            ranked = 0 if self.mask == "dynamic" else 4 + 12 * self.mask_share
            peak = max(peak + 4 * numbers, round((8 + ranked) * numbers))
        return self.state_bytes * numbers + peak

    @property
    def low_rank(self) -> bool:
        """Whether low-rank updates can be trained: masks and rules need the weights themselves."""
        return self.mask == "none" and not self.rule

    @property
    def updates(self) -> int:
        """The rank of the low-rank updates; 0 for none."""
        return self.rank if self.trains == "lora" else 0

    @property
    def part(self) -> str:
        """The part of the denoiser that is trained."""
        return LORA if self.trains == "lora" else self.trains


def default(name: str, value: Any, *, source: str) -> Any:
    """The setting ``name`` of ``Training`` or ``Shared`` with a method's own default and its source."""
    cls = Training if hasattr(Training, name) else Shared
    return with_default(cls, name, value, source=source)
