"""ESD: Erasing Concepts from Diffusion Models (Gandikota et al. 2023, arXiv 2303.07345).

The trained network θ on the prompt c is drawn to what the frozen θ* predicts, steered away from c:

    paper       ε_θ(x_t, c, t)  <-  ε_θ*(x_t, t) - η (ε_θ*(x_t, c, t) - ε_θ*(x_t, t))
    released    ε_θ(x_t, c, t)  <-  ε_θ*(x_t, c, t) - η (ε_θ*(x_t, c, t) - ε_θ*(x_t, t))

The second is the form of the authors' newer code, and its η is the first one's plus 1. x_t comes from the trained
network itself: partial denoising with guidance under the prompt, stopped at a random step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .. import seeds
from ..method import Method, Plan
from ..model import Model
from ..schema import Concept, Request
from ..settings import setting
from ..training import pictures
from ..training.descend import Job, Objective, Student
from ..training.prompts import texts
from ..training.scenes import Lesson, counted, kept, matched
from ..training.settings import Training, Trains, check, default
from ..training.train import Rows, plan_of, predict, train
from ..wording import fill

__all__ = ["METHOD", "Settings", "target"]


@dataclass(frozen=True)
class Settings(Training):
    trains: Trains = default(
        "trains", "xattn", source="paper: xattn (x) for styles, not-xattn (u) for objects"
    )
    steps: int = default("steps", 1000, source="paper; newer released code: 200")
    lr: float = default("lr", 1e-5, source="paper; newer released code: 5e-5")
    batch: int = default("batch", 1, source="paper")
    eta: float = setting(
        1.0, "η, how far the target is steered away from the concept", low=0.0, source="paper"
    )
    null: Literal["empty", "rest"] = setting(
        "empty",
        "what stands for no concept: the empty prompt (or 'instead'), or the concept's prompt less its word (or with "
        "'instead' for it), so that what else it says is not steered away from",
        source="paper: empty; rest: ours",
    )
    eta_is: Literal["paper", "released"] = setting(
        "paper", "how η is meant; released = 2 is paper = 1", source="newer released code: 2, released"
    )
    start: Literal["student", "pictures"] = setting(
        "student",
        "where x_t comes from: partial denoising with the trained network, or noised pictures of the base model",
        source="paper: student; pictures is ours",
    )
    start_guidance: float = setting(3.0, "guidance of the partial denoising", low=0.0, source="paper's code")
    start_steps: int = setting(
        50, "DDIM steps of a whole denoising, of which a part is done", low=1, source="paper"
    )
    templates: bool = setting(
        False, "train on the wordings in the model's templates too", source="ours; paper: bare"
    )
    pictures: int = setting(32, "pictures of each concept for start = pictures", low=1, source="ours")
    keep: float = setting(
        0.0, "weight of the squared change on kept prompts", low=0.0, source="ours; paper: 0"
    )
    neighbours: int = counted("neighbours", 8, source="ours")
    keep_pictures: int = counted("keep_pictures", 8, source="ours")


def target(told: Tensor, null: Tensor, settings: Settings) -> Tensor:
    """What the trained network shall predict, from the frozen one's prediction with the prompt and without."""
    start = null if settings.eta_is == "paper" else told
    return start - settings.eta * (told - null)


@dataclass(frozen=True)
class _Scene:
    """Prompts in states (n, tokens, width), what stands for no prompt, and pictures (n, c, h, w) where needed."""

    states: Tensor
    null: Tensor
    pictures: Tensor | None


def run(model: Model, request: Request, settings: Settings, *, seed: int, job: Job) -> dict[str, Tensor]:
    """The trained weights of the part that ``settings.trains`` names."""
    check(settings, losses=_losses(settings))
    drawn = settings.pictures if settings.start == "pictures" else 0
    erase = _scene(model, request.erase, settings, drawn, job)
    others = kept(model, request, settings.neighbours) if settings.keep else ()
    keep = _scene(model, others, settings, settings.keep_pictures, job) if others else None

    def prepare(step: int, student: Student) -> Lesson:
        draws = seeds.stream(seed, "esd", step)
        which = torch.randint(len(erase.states), (settings.batch,), generator=draws)
        c, null = erase.states[which], erase.null[which]
        noise = torch.randn((settings.batch, *model.shape), generator=draws).to(model.device)
        if erase.pictures is None:
            stop = int(torch.randint(settings.start_steps, (), generator=draws))
            with student():
                x, t = model.denoise(
                    noise, c, null, steps=settings.start_steps, guidance=settings.start_guidance, stop=stop
                )
        else:
            t = torch.randint(model.times, (settings.batch,), generator=draws).to(model.device)
            x = model.noised(erase.pictures[which], noise, t)
        rows = [Rows(x, t, c)]
        if keep is not None and keep.pictures is not None:
            others = seeds.stream(seed, "esd keep", step)
            which = torch.randint(len(keep.states), (settings.batch,), generator=others)
            noise = torch.randn(noise.shape, generator=others).to(model.device)
            s = torch.randint(model.times, (settings.batch,), generator=others).to(model.device)
            rows.append(Rows(model.noised(keep.pictures[which], noise, s), s, keep.states[which]))
        null_eps, told, *kept_eps = predict(model, [Rows(x, t, null), *rows])
        return Lesson(rows, [target(told, null_eps, settings), *kept_eps])

    def losses(given: Lesson) -> dict[str, Tensor]:
        return matched(model, given, apart=settings.apart, keep=settings.keep)

    return train(model, request, settings, Objective(prepare, losses), seed=seed, job=job)


def _losses(settings: Settings) -> tuple[str, ...]:
    return ("erase", "keep") if settings.keep else ("erase",)


def _scene(model: Model, concepts: tuple[Concept, ...], settings: Settings, drawn: int, job: Job) -> _Scene:
    """States, and ``drawn`` pictures a concept (its prompts in turn); with none drawn, each prompt once."""
    asked: list[str] = []
    null: list[str] = []
    found: list[Tensor] = []
    for concept in concepts:
        pairs = texts(concept, model.hints, templates=settings.templates)
        pairs = tuple(pairs[place % len(pairs)] for place in range(drawn or len(pairs)))
        words = tuple(fill(form, word) for form, word in pairs)
        rest = [form if settings.null == "rest" else "{}" for form, _ in pairs]
        asked += words
        null += [" ".join(fill(form, concept.instead or "").split()) for form in rest]
        if drawn:
            found.append(pictures.draw(model, words, folder=job.cache))
            if job.progress:
                job.progress("pictures", len(found), len(concepts))
    return _Scene(model.encode(asked), model.encode(null), torch.cat(found) if found else None)


def plan(model: Model, request: Request, settings: Settings) -> Plan:
    others = len(kept(model, request, settings.neighbours)) if settings.keep else 0
    rows = settings.batch * (1 + bool(others))
    sampled = others * settings.keep_pictures
    free = float(settings.batch + rows)
    if settings.start == "pictures":
        sampled += len(request.erase) * settings.pictures
    else:
        free += settings.batch * (settings.start_steps - 1)  # two passes a step, half the steps on average
    return plan_of(model, settings, losses=_losses(settings), free=free, rows=rows, sampled=sampled)


METHOD = Method(
    name="esd",
    title="Erased Stable Diffusion",
    paper="Gandikota et al. 2023, arXiv 2303.07345",
    summary="trains the network to predict, for the concept, what it predicts without, steered away from it",
    settings=Settings,
    run=run,
    plan=plan,
)
