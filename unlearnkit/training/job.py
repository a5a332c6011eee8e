"""How a run is carried out, and what a method may do in it: draw images, encode prompts, keep state, count."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import seeds
from ..data import pictures
from ..data.image_sets import ImageSet
from ..errors import InputError
from ..models.model import Model
from ..parts import Losses, Rule, Stateful
from ..schema import Request
from .net import CountingNet, Net, Step

__all__ = ["Beside", "Job", "Progress", "Run", "Stop"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Stop:
    """Stop early by a score, and keep the weights that scored best.

    score: called as ``score(model, step)`` with the trained weights in the model; lower is better.
    every: steps between two looks. patience: looks without a better score before training ends.
    enough: a score that is no higher ends it at once.
    """

    score: Callable[[Model, int], float]
    every: int = 50
    patience: int = 3
    enough: float = -math.inf


@dataclass(frozen=True)
class Beside:
    """What a chain of requests adds to whatever method carries out the next one.

    losses: ``losses(net, step)`` gives further losses. rules: come after the method's own.
    facts: all that both depend on, as JSON can hold it.
    """

    losses: Callable[[Net, Step], Losses]
    rules: tuple[Rule, ...]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Job:
    """How a run is carried out: nothing here changes the edit, except stopping early and what stands beside.

    folder: gets ``log.jsonl``, ``checkpoint.safetensors`` and at last ``edit.safetensors``; a run killed there goes
        on from its checkpoint to the same bits. None keeps nothing.
    progress: called as ``progress(stage, done, total)``.
    checkpoint_every: steps between checkpoints; 0 means by the clock, once a minute and for at most 5 % of the time.
    stop: early stopping, None for all steps.
    cache: where pictures of the base model are kept; None is the user's cache folder.
    identity: what a checkpoint must agree with to be taken up; set by ``edit_for``.
    beside: what a chain adds to a method that trains.
    """

    folder: Path | None = None
    progress: Progress | None = None
    checkpoint_every: int = 0
    stop: Stop | None = None
    cache: Path | None = None
    identity: str = ""
    beside: Beside | None = None


@dataclass
class Run:
    """One run of a method on a model: what its ``data`` may use.

    net: what its loss will see. full: all that is erased, where ``request`` is one stage's part of it.
    sampled: images that were drawn, or would be unless they are in the cache.
    state: what ``data`` makes that must survive a kill. rules: what it makes to hold the weights.
    contexts: what it holds open until the run is over.
    """

    model: Model
    request: Request
    net: Net
    seed: int = 0
    job: Job = field(default_factory=Job)
    sampled: int = 0
    state: Stateful | None = None
    rules: list[Rule] = field(default_factory=list)
    full: Request | None = None
    contexts: ExitStack = field(default_factory=ExitStack)

    @property
    def whole(self) -> Request:
        """All that is erased, of which a stage's request may be a part."""
        return self.full or self.request

    @property
    def counting(self) -> bool:
        """Whether this is a dry run: nothing is drawn, encoded or computed, but counted."""
        return isinstance(self.net, CountingNet)

    def stream(self, *labels: str | int) -> torch.Generator:
        """A generator for what is drawn once a run, outside of its steps."""
        return seeds.stream(self.seed, *labels)

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """The conditioning (n, tokens, width) of prompts."""
        if self.counting:
            return self.model.encode([""]).expand(len(prompts), -1, -1)
        return self.model.encode(prompts)

    def images(self, prompts: Sequence[str], *, title: str = "pictures", negative: str = "") -> ImageSet:
        """One image of the base model for each prompt, from the cache where it is there; see ``pictures.draw``."""
        return self.image_groups([prompts], title=title, negative=negative)

    def image_groups(
        self, groups: Sequence[Sequence[str]], *, title: str = "pictures", negative: str = ""
    ) -> ImageSet:
        """The images of several lists of prompts, one after the other.

        Each list is drawn by itself, so that the cache has its images for whoever asks for that list again.
        Raises InputError where there is no prompt.
        """
        if not groups or not all(groups):
            raise InputError(
                "there is no prompt to draw pictures of: name something to keep, or raise neighbours"
            )
        total, done, sets = sum(map(len, groups)), 0, []
        if self.model.classes is not None:
            negative = ""  # a model that knows classes and no words shows no other class
        for prompts in [list(chain.from_iterable(groups))] if self.counting else groups:
            latents = self._latents(prompts, negative, title, done, total)
            place = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
            index = torch.tensor([place[prompt] for prompt in prompts])
            sets.append(ImageSet(self.model, latents, self.encode(list(place)), index))
            done += len(prompts)
        return ImageSet.joined(sets)

    def enter(self, context: AbstractContextManager[Any]) -> Any:
        """Hold a context open until the run is over."""
        return self.contexts.enter_context(context)

    def progress(self, title: str, done: int, total: int) -> None:
        if self.job.progress and not self.counting:
            self.job.progress(title, done, total)

    def _latents(self, prompts: Sequence[str], negative: str, title: str, before: int, total: int) -> Tensor:
        self.sampled += len(prompts)
        if self.counting:
            return torch.zeros(1, device=self.model.device).expand(len(prompts), *self.model.shape)
        return pictures.draw(
            *(self.model, prompts),
            negative=negative,
            folder=self.job.cache,
            tick=lambda done, _: self.progress(title, before + done, total),
        )
