"""What an attack is, what it may see, and what it may spend."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, Protocol, TypeVar

import torch
from PIL import Image
from torch import Tensor

from .. import seeds
from ..data import pictures
from ..data.wording import format_prompt
from ..errors import ModelError
from ..io import tensors
from ..io.tick import Advance
from ..model.edit import Edit
from ..model.model import Model, Weights
from ..schema import Concept
from .result import SearchResult

T = TypeVar("T")

__all__ = ["BUDGETS", "NO_TEXT", "Attack", "Budget", "Cost", "Group", "Victim"]

# no grade depends on a diagnosis
Group = Literal["wording", "prompts", "embeddings", "latents", "relearning", "weights", "probe", "diagnosis"]
NO_TEXT = "the model has classes in place of prompts, so it has no text to attack"


@dataclass(frozen=True)
class Budget:
    """What one attack may spend. steps: of gradient. batch: rows of one. candidates: prompts or starts tried.

    pictures: judged for each arm. examples: pictures of the concept by the untouched model.
    thorough: whether all variants of an attack are tried, or only those that find most within their control.
    """

    name: str
    steps: int
    batch: int
    candidates: int
    pictures: int
    examples: int
    thorough: bool = True

    def variants(self, every: Sequence[T], few: Sequence[T]) -> Sequence[T]:
        """``every`` variant of an attack if it is thorough, else the ``few``."""
        return every if self.thorough else few


BUDGETS = {
    "quick": Budget("quick", steps=200, batch=4, candidates=16, pictures=36, examples=24, thorough=False),
    "full": Budget("full", steps=1000, batch=4, candidates=64, pictures=100, examples=64),
}


@dataclass(frozen=True)
class Cost:
    """What a search computes: rows of the denoiser with gradient and without, and pictures, whole ones or shares.

    examples: pictures of the concept by the untouched model, which attacks and controls share.
    arms: variants of the attack, each of which has ``budget.pictures`` judged.
    """

    gradient: int = 0
    forward: int = 0
    pictures: float = 0
    examples: int = 0
    arms: int = 1


@dataclass
class Victim:
    """What an attack may see: one network, bare (the untouched base) or inside ``edited()`` (what is attacked).

    applied: the attacked edit, or weights. whole: they are a model of its own, not an edit of this one.
    filtered: a word that a filter strikes from prompts; pictures then have it as the negative prompt.
    shows: whether the validation classifier, where there is one, sees the concept in each picture.
    folder: for parts of a search that a killed command need not repeat. cache: of the base's pictures.
    """

    model: Model
    concept: Concept
    budget: Budget
    applied: Edit | Weights = field(default_factory=dict)
    seed: int = 0
    whole: bool = False
    filtered: str = ""
    shows: Callable[[Sequence[Image.Image]], Sequence[bool]] | None = None
    folder: Path | None = None
    cache: Path | None = None
    progress: Advance | None = None

    @contextmanager
    def edited(self, more: Mapping[str, Tensor] | None = None) -> Iterator[Model]:
        """The attacked model inside. more: weights on top of it."""
        with self.model.wearing(self.applied), self.model.wearing(more or {}):
            yield self.model

    def base_encoders(self) -> dict[str, Tensor]:
        """The untouched model's values of the text encoders' weights that the edit changes."""
        weights = self.applied.weights if isinstance(self.applied, Edit) else self.applied
        return self.model.values(name for name in weights if name.startswith("text_encoder"))

    def stream(self, *labels: str | int) -> torch.Generator:
        """A generator for the draw that these labels name."""
        return seeds.stream(self.seed, "attack", *labels)

    def seeds(self, *labels: str | int, count: int | None = None) -> list[int]:
        """Seeds of the pictures that are judged, ``budget.pictures`` of them."""
        return [seeds.derive(self.seed, "judged", *labels, i) for i in range(count or self.budget.pictures)]

    @property
    def prompt(self) -> str:
        """The concept in the model's first template."""
        return format_prompt(self.model.hints.templates[self.concept.kind][0], self.concept.name)

    def examples(self, count: int | None = None) -> Tensor:
        """Latents (n, c, h, w) of the concept, drawn by the untouched model with ``prompt``."""
        return pictures.draw(self.model, [self.prompt] * (count or self.budget.examples), folder=self.cache)

    def read(self, prompt: str) -> tuple[str, str]:
        """The prompt and the negative prompt that reach the model: a filter strikes its word."""
        pattern = re.compile(rf"\b{re.escape(self.filtered)}\b", re.IGNORECASE)
        if self.filtered and pattern.search(prompt):
            return pattern.sub("", prompt), self.filtered
        return prompt, ""

    def part(self, name: str, made: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """The tensors that ``made`` gives, by name; from the folder if a killed command left them there."""
        path = None if self.folder is None else self.folder / f"{name}.safetensors"
        if path is not None and path.is_file():
            stored, _ = tensors.read(path)
            return {key: one.to(self.model.device) for key, one in sorted(stored.items())}
        result = {key: one.detach().float() for key, one in sorted(made().items())}
        if not all(torch.isfinite(one).all() for one in result.values()):
            raise ModelError(f"the search for {name} gave a value that is not a finite number")
        if path is not None:
            tensors.write(path, {key: one.cpu() for key, one in result.items()}, {})
        return result

    def tick(self, done: int, total: int) -> None:
        if self.progress:
            self.progress(done, total)


class Attack(Protocol):
    """A search for pictures of a concept that an edit should have erased.

    paper: its source. summary: one sentence. group: what it may change.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    summary: ClassVar[str]
    group: ClassVar[Group]

    def refuses(self, model: Model) -> str | None:
        """Why it makes no sense for the model; None if it does."""

    def search(self, victim: Victim) -> SearchResult:
        """Look for what brings the concept back. The victim's model is unchanged afterwards."""

    def cost(self, budget: Budget) -> Cost:
        """What ``search`` computes; the pictures of its attempts are counted apart."""
