"""What methods train on: pictures of the base model with the prompts that they were drawn from, noised by the batch.

A lesson is such rows with what the trained network shall predict for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import InputError
from ..model import Model
from ..schema import Concept, Request
from ..settings import setting
from ..wording import fill
from . import pictures
from .descend import Job, Progress
from .prompts import neighbours, prompts, texts
from .train import Rows, predict

__all__ = [
    "KeepTarget",
    "Lesson",
    "Noised",
    "Scene",
    "aimed",
    "counted",
    "gallery",
    "gathered",
    "joined",
    "kept",
    "matched",
    "noise_ratio",
    "repeats",
    "retold",
    "scene",
    "unprompted",
    "untold",
    "wordings",
]

KeepTarget = Literal["noise", "teacher"]

COUNTS = {
    "pictures": "pictures of each concept",
    "anchors": "pictures of the anchor for each concept",
    "neighbours": "if the request keeps nothing: so many nearest words are kept",
    "keep_pictures": "pictures for each kept concept",
}


def counted(what: str, count: int, *, source: str) -> Any:
    """The setting that says how many of ``COUNTS``, with a method's own default and its source."""
    return setting(count, COUNTS[what], low=0 if what == "neighbours" else 1, source=source)


def aimed(*, source: str) -> Any:
    """The setting of a ``KeepTarget``, with its source."""
    what = "what the keeping loss is drawn to: the true noise or the base model's prediction"
    return setting("noise", what, source=source)


def unprompted() -> Any:
    """The setting for ``share`` of ``untold``."""
    what = "share of the kept pictures that are shown without a prompt: what guidance starts from stays so"
    return setting(0.0, what, low=0.0, high=0.9, source="ours; paper: none")


@dataclass(frozen=True)
class Lesson:
    """Rows for the trained network, the erased ones first, and what it shall predict (n, c, h, w) for each."""

    rows: list[Rows]
    wanted: list[Tensor]


def matched(
    model: Model, given: Lesson, *, apart: bool, erase: float = 1.0, keep: float = 1.0
) -> dict[str, Tensor]:
    """The losses ``erase`` and, if the lesson has kept rows, ``keep``: weighted mean squared errors.

    apart: as for ``predict``.
    """
    found = predict(model, given.rows, apart=apart)
    errors = [(eps - aim).square().mean() for eps, aim in zip(found, given.wanted, strict=True)]
    weighted = zip(("erase", "keep"), (erase, keep), errors, strict=False)
    return {name: weight * error for name, weight, error in weighted}


@dataclass(frozen=True)
class Noised:
    """A batch of a scene: rows for the network, which pictures they are (n,), and what it should predict for them.

    noise: (n, c, h, w), the noise in the rows; for a flow the velocity that it makes.
    """

    rows: Rows
    noise: Tensor
    which: Tensor


@dataclass(frozen=True)
class Scene:
    """Pictures as latents (m, c, h, w), the states (k, tokens, width) of their prompts, and which each has (m,)."""

    latents: Tensor
    states: Tensor
    asked: Tensor

    def batch(self, model: Model, count: int, draws: torch.Generator) -> Noised:
        """``count`` pictures drawn with replacement, noised."""
        return self.noised(model, torch.randint(len(self.latents), (count,), generator=draws), draws)

    def noised(self, model: Model, which: Tensor, draws: torch.Generator) -> Noised:
        """These pictures (n,), each with noise of a time uniform in [0, times)."""
        t = torch.randint(model.times, (len(which),), generator=draws).to(model.device)
        noise = torch.randn((len(which), *self.latents.shape[1:]), generator=draws).to(model.device)
        x, aim = self.latents[which], model.aim(self.latents[which], noise)
        return Noised(Rows(model.noised(x, noise, t), t, self.states[self.asked[which]]), aim, which)


def joined(scenes: Sequence[Scene]) -> Scene:
    """All their pictures, one scene after the other."""
    first = accumulate((len(one.states) for one in scenes[:-1]), initial=0)
    return Scene(
        torch.cat([one.latents for one in scenes]),
        torch.cat([one.states for one in scenes]),
        torch.cat([start + one.asked for start, one in zip(first, scenes, strict=True)]),
    )


def repeats(count: int, share: float) -> int:
    """How many of ``count`` pictures ``untold`` shows a second time."""
    return round(count * share / (1 - share))


def untold(model: Model, found: Scene, share: float) -> Scene:
    """The scene with some of its pictures a second time, told nothing: they are ``share``, in [0, 1), of what it is."""
    count = len(found.latents)
    again = repeats(count, share)
    if not again:
        return found
    which = torch.arange(again) * count // again
    return joined([found, Scene(found.latents[which], model.encode([""]), torch.zeros_like(which))])


def scene(
    model: Model, words: Sequence[str], *, job: Job, negative: str = "", title: str = "pictures"
) -> Scene:
    """One picture of the model as it is worn for each prompt, from the cache where it is there.

    negative: what it shall not show; of no use to a model that is told a class, whose picture shows no other.
    """
    if not words:
        raise InputError(
            "there is no prompt to draw pictures of: name something to keep, or raise neighbours"
        )

    def tick(done: int, total: int) -> None:
        if job.progress:
            job.progress(title, done, total)

    if model.classes is not None:
        negative = ""
    latents = pictures.draw(model, words, negative=negative, folder=job.cache, tick=tick)
    place = {word: number for number, word in enumerate(dict.fromkeys(words))}
    return Scene(latents, model.encode(list(place)), torch.tensor([place[word] for word in words]))


def gathered(model: Model, groups: Sequence[Sequence[str]], *, job: Job, title: str = "pictures") -> Scene:
    """The scenes of several lists of prompts, one after the other.

    Each list is drawn by itself, so that the cache has its pictures for whoever asks for that list again.
    """
    total, done = sum(map(len, groups)), 0
    found = []
    for words in groups or [()]:
        told = job.progress and partial(_further, job.progress, before=done, total=total)
        found.append(scene(model, words, job=replace(job, progress=told), title=title))
        done += len(words)
    return joined(found)


def _further(progress: Progress, title: str, done: int, _: int, *, before: int, total: int) -> None:
    """Progress of a part, told as that of the whole."""
    progress(title, before + done, total)


def gallery(
    model: Model, concepts: Sequence[Concept], each: int, *, job: Job, title: str = "pictures"
) -> Scene:
    """``each`` pictures of every concept, one concept after the other, in all its wordings and the templates."""
    return gathered(model, [wordings(model, one, each) for one in concepts], job=job, title=title)


def wordings(model: Model, concept: Concept, count: int) -> tuple[str, ...]:
    """``count`` prompts of the concept: every wording, bare and in the model's templates, in turn."""
    words = prompts(concept, model.hints, templates=True)
    return tuple(words[place % len(words)] for place in range(count))


def retold(model: Model, concept: Concept, words: Sequence[str]) -> Tensor:
    """States (prompts, words, tokens, width): each of the concept's prompts, as in ``wordings``, with other words."""
    forms = [form for form, _ in texts(concept, model.hints, templates=True)]
    return torch.stack([model.encode([fill(form, word) for word in words]) for form in forms])


def kept(model: Model, request: Request, nearest: int) -> tuple[Concept, ...]:
    """What is kept: the request's list, else the nearest words. Raises InputError where there is nothing."""
    found = neighbours(model, request, nearest)
    if not found:
        raise InputError(
            "nothing to keep is found: give it with --keep, or a vocabulary in the model's unlearnkit.toml"
        )
    return found


def noise_ratio(model: Model, t: Tensor) -> Tensor:
    """r (n, 1, 1, 1) for times t (n,): a squared error of the prediction is r times that of the implied picture.

    (1 - ᾱ_t) / ᾱ_t for noise; for the velocity of a flow σ_t².
    """
    one = torch.ones((len(t), 1, 1, 1), device=t.device)
    return model.clean(0 * one, one, t).square()
