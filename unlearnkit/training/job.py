"""How a run is carried out (``Job``), and what a method may use in it (``Run``)."""

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
from ..io.tick import Tick
from ..model.model import Model
from ..model.sampling import decoded
from ..parts import Losses, Rule, Stateful
from ..schema import Request
from .net import CountingNet, Net, Step

__all__ = ["EarlyStopping", "ExtraLosses", "Job", "Run"]


@dataclass(frozen=True)
class EarlyStopping:
    """Stop early by a score and return the weights with the best score.

    score: called as ``score(model, step)`` with the trained weights in the model; lower is better.
    every: steps between two scores. patience: scores without an improvement before training ends.
    enough: a score this low ends training at once.
    """

    score: Callable[[Model, int], float]
    every: int = 50
    patience: int = 3
    enough: float = -math.inf


@dataclass(frozen=True)
class ExtraLosses:
    """What a chain of requests adds to the method of the next request.

    losses: ``losses(net, step)`` gives further losses. rules: run after the method's own.
    facts: everything that both depend on, as JSON.
    """

    losses: Callable[[Net, Step], Losses]
    rules: tuple[Rule, ...]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Job:
    """How a run is carried out. Only ``stop`` and ``auxiliary`` change the edit.

    folder: for ``log.jsonl``, ``checkpoint.safetensors`` and finally ``edit.safetensors``. A killed run resumes from
        its checkpoint and ends with the same bits. None: nothing is written.
    progress: called as ``progress(stage, done, total)``.
    checkpoint_every: steps between checkpoints; 0: once a minute and at most 5 % of the time.
    stop: early stopping; None: all steps.
    cache: the folder of the base model's images; None: the user's cache folder.
    identity: the run's hash; only a checkpoint with the same one is loaded. Set by ``edit_for``.
    auxiliary: what a chain adds to a method that trains.
    """

    folder: Path | None = None
    progress: Tick | None = None
    checkpoint_every: int = 0
    stop: EarlyStopping | None = None
    cache: Path | None = None
    identity: str = ""
    auxiliary: ExtraLosses | None = None


@dataclass
class Run:
    """One run of a method on a model: what its ``data`` may use.

    full: the whole request if ``request`` is one stage's part of it.
    sampled: number of images drawn, those in the cache included.
    state: made by ``data``, saved in each checkpoint. rules: made by ``data``, they constrain the weights.
    reencode: whether drawn images are decoded and encoded again; see the setting.
    contexts: stay open until the run ends. stopped: for each stage with stop = converged, where it ended and why.
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
    reencode: bool = False
    contexts: ExitStack = field(default_factory=ExitStack)
    stopped: list[dict[str, Any]] = field(default_factory=list)

    @property
    def full_request(self) -> Request:
        """The whole request; a stage's request is a part of it."""
        return self.full or self.request

    @property
    def counting(self) -> bool:
        """Whether this is a dry run, which only counts: it draws, encodes and computes nothing."""
        return isinstance(self.net, CountingNet)

    def stream(self, *labels: str | int) -> torch.Generator:
        """A generator for draws outside of the training steps."""
        return seeds.stream(self.seed, *labels)

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """The conditioning (n, tokens, width) of prompts."""
        if self.counting:
            return self.model.encode([""]).expand(len(prompts), -1, -1)
        return self.model.encode(prompts)

    def images(self, prompts: Sequence[str], *, title: str = "pictures", negative: str = "") -> ImageSet:
        """One image of the base model for each prompt, from the cache if it has it; see ``pictures.draw``."""
        return self.image_groups([prompts], title=title, negative=negative)

    def image_groups(
        self,
        groups: Sequence[Sequence[str]],
        *,
        title: str = "pictures",
        negative: str = "",
        seeds_of: Sequence[Sequence[str]] | None = None,
    ) -> ImageSet:
        """The images of several lists of prompts, one after the other. Each list has its own entry in the cache.

        seeds_of: lists of as many prompts, whose images' seeds these images have.
        Raises InputError if a list is empty.
        """
        if not groups or not all(groups):
            raise InputError(
                "there is no prompt to draw pictures of: give one with --keep, or raise neighbours"
            )
        total, done, sets = sum(map(len, groups)), 0, []
        if self.model.classes is not None:
            negative = ""  # a class-conditional model has no negative prompt
        if self.counting:
            groups = seeds_of = [list(chain.from_iterable(groups))]
        for prompts, own in zip(groups, seeds_of or groups, strict=True):
            latents = self._latents(prompts, own, negative, title, done, total)
            mean, spread = self._reencoded(latents) if self.reencode else (latents, None)
            place = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
            index = torch.tensor([place[prompt] for prompt in prompts])
            sets.append(ImageSet(self.model, mean, self.encode(list(place)), index, spread))
            done += len(prompts)
        return ImageSet.joined(sets)

    def enter(self, context: AbstractContextManager[Any]) -> Any:
        """Enter a context that stays open until the run ends."""
        return self.contexts.enter_context(context)

    def progress(self, title: str, done: int, total: int) -> None:
        if self.job.progress and not self.counting:
            self.job.progress(title, done, total)

    def _reencoded(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (n, c, h, w) of the VAE's latents of these latents' images."""
        if self.counting:
            return latents, latents
        parts = [
            self.model.posterior(decoded(self.model, part)) for part in torch.split(latents, pictures.BATCH)
        ]
        mean, spread = (torch.cat(one).to(latents.device) for one in zip(*parts, strict=True))
        return mean, spread

    def _latents(
        self,
        prompts: Sequence[str],
        seeds_of: Sequence[str],
        negative: str,
        title: str,
        before: int,
        total: int,
    ) -> Tensor:
        self.sampled += len(prompts)
        if self.counting:
            return torch.zeros(1, device=self.model.device).expand(len(prompts), *self.model.shape)
        return pictures.draw(
            *(self.model, prompts),
            seeds_of=seeds_of,
            negative=negative,
            folder=self.job.cache,
            tick=lambda done, _: self.progress(title, before + done, total),
        )
