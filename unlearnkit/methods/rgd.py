"""RGD: Boosting Alignment for Post-Unlearning Text-to-Image Generative Models (Ko et al. 2024, arXiv 2412.07808).

With l the ordinary denoising loss, on pictures that the base model drew from pairs of prompts, x_c with the concept and
x without:

    L_f = -min(l(x_c), cap)         climbs on the concept, but not for ever
    L_r = λ l(x)                    keeps everything else; keep_target = teacher: what the base model says

The step is their restricted gradient (theorem 4, in ``parts/combine.py``), which lets neither loss rise. Both sets
are diverse: a grammar of dimensions is filled in many ways, and the prompt to keep is the one to erase less its
concept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .. import seeds
from ..errors import InputError, quoted
from ..method import Method, Plan
from ..model import Model
from ..parts.ascent import CapOn, ascent
from ..schema import Concept, Request
from ..settings import setting
from ..training.descend import Job, Objective, Student
from ..training.grammar import pairs, read
from ..training.prompts import neighbours, unerased
from ..training.scenes import (
    KeepTarget,
    Noised,
    Scene,
    aimed,
    noise_ratio,
    repeats,
    scene,
    unprompted,
    untold,
)
from ..training.settings import Combines, Training, Trains, check, default
from ..training.train import Rows, plan_of, predict, train

__all__ = ["METHOD", "Settings", "sentences"]

LOSSES = ("erase", "keep")


@dataclass(frozen=True)
class Settings(Training):
    trains: Trains = default("trains", "all", source="paper, SD: the whole U-Net")
    combine: Combines = default("combine", "restricted", source="paper; sum is its GradDiff on diverse data")
    steps: int = default("steps", 100, source="released code, SD: one pass over 800 pairs")
    lr: float = default("lr", 1e-5, source="paper")
    batch: int = default("batch", 8, source="released code, SD")
    keep_weight: float = setting(
        1.6, "λ, weight of the keeping loss", low=0.0, source="paper, appendix C, and code, SD; CIFAR-10: 5"
    )
    cap: float = setting(
        1.5,
        "error up to which the concept is unlearned",
        low=0.0,
        source="paper, appendix C, SD; its script: 1.1",
    )
    cap_on: CapOn = setting(
        "batch",
        "what the cap is for: the batch's mean error, each error of the noise, or each error of the implied picture",
        source="released code: batch for SD, picture (with cap 0.1) for CIFAR-10",
    )
    erase_scale: Literal["none", "first"] = setting(
        "none",
        "first: the concept's error is counted in that of the network before, and so is the cap; some concepts are "
        "drawn with a fifth of another's error, and would hardly be climbed",
        source="paper: none; first: ours",
    )
    pictures: int = setting(800, "pairs of pictures a concept", low=1, source="paper, SD")
    diverse: bool = setting(
        True, "fill a grammar; off: the bare words, the kept ones in turn", source="paper"
    )
    grammar: str = setting(
        "scenes", "plain, people, scenes, or the path of a TOML file", source="ours, after the paper"
    )
    others: float = setting(
        0.5,
        "share of another word in the concept's place, where it could simply go",
        low=0.0,
        high=1.0,
        source="ours; paper: 0 for nudity, 1 for van gogh",
    )
    neighbours: int = setting(
        0,
        "words to take from the vocabulary: so many nearest; 0: all of them",
        low=0,
        source="ours; paper: balanced",
    )
    keep_target: KeepTarget = aimed(source="paper; teacher is ours")
    untold: float = unprompted()
    whole_keep: bool = setting(
        False,
        "the keeping gradient over every kept picture at each step",
        source="released code: on for CIFAR-10",
    )


@dataclass(frozen=True)
class _Step:
    """wanted: what the network shall say of each batch that is kept."""

    erase: Noised
    keep: list[Noised]
    wanted: list[Tensor]


def run(model: Model, request: Request, settings: Settings, *, seed: int, job: Job) -> dict[str, Tensor]:
    """The trained weights of the part that ``settings.trains`` names."""
    check(settings, losses=LOSSES)
    erased, rest = zip(*sentences(model, request, settings, seed=seed), strict=True)
    erase = scene(model, erased, job=job, title="pictures to erase")
    keep = untold(model, scene(model, rest, job=job, title="pictures to keep"), settings.untold)
    unit = _first(model, erase, settings, seed=seed) if settings.erase_scale == "first" else 1.0

    def prepare(step: int, student: Student) -> _Step:
        draws = seeds.stream(seed, "rgd", step)
        climbed = erase.batch(model, settings.batch, draws)
        if settings.whole_keep:
            places = torch.split(torch.arange(len(keep.latents)), settings.batch)
            kept = [keep.noised(model, which, draws) for which in places]
        else:
            kept = [keep.batch(model, settings.batch, draws)]
        if settings.keep_target == "noise":
            return _Step(climbed, kept, [batch.noise for batch in kept])
        return _Step(climbed, kept, [predict(model, [batch.rows])[0] for batch in kept])

    def losses(given: _Step) -> dict[str, Tensor]:
        if settings.whole_keep:
            (told,) = predict(model, [given.erase.rows])
            each = [_fit(model, *one) for one in zip(given.keep, given.wanted, strict=True)]
            fit = torch.stack(each).sum() / len(keep.latents)
        else:
            (other,), (wanted,) = given.keep, given.wanted
            told, as_before = predict(model, [given.erase.rows, other.rows], apart=settings.apart)
            fit = (as_before - wanted).square().mean()
        squares = (told - given.erase.noise).square() / unit
        ratio = noise_ratio(model, given.erase.rows.t)
        return {
            "erase": ascent(squares, settings.cap, settings.cap_on, ratio),
            "keep": settings.keep_weight * fit,
        }

    return train(model, request, settings, Objective(prepare, losses), seed=seed, job=job)


@torch.no_grad()
def _first(model: Model, found: Scene, settings: Settings, *, seed: int) -> float:
    """The untrained network's mean squared error on the concept's pictures, each noised once."""
    draws, errors = seeds.stream(seed, "rgd first"), 0.0
    for which in torch.split(torch.arange(len(found.latents)), settings.batch):
        batch = found.noised(model, which, draws)
        (told,) = predict(model, [batch.rows])
        errors += len(which) * (told - batch.noise).square().mean().item()
    return errors / len(found.latents)


def sentences(
    model: Model, request: Request, settings: Settings, *, seed: int, held_out: bool = False
) -> list[tuple[str, str]]:
    """``settings.pictures`` pairs of prompts a concept, (to erase, to keep).

    held_out: from the grammar's test pools, which share no word with those of training.
    """
    grammar, known = read(settings.grammar), unerased(model, request)
    found: list[tuple[str, str]] = []
    for concept in request.erase:
        others = _others(model, request, concept, known[concept.kind], settings)
        if settings.diverse:
            found += pairs(
                *(grammar, concept.kind, concept.wordings, others, known),
                count=settings.pictures,
                seed=seed,
                pool="test" if held_out else "train",
                share=settings.others,
            )
        else:
            found += [(concept.name, others[turn % len(others)]) for turn in range(settings.pictures)]
    return found


def _others(
    model: Model, request: Request, concept: Concept, known: list[str], settings: Settings
) -> list[str]:
    """Words that may take the concept's place: its ``instead``, what the request keeps, or what the model knows."""
    if concept.instead:
        return [concept.instead]
    if settings.neighbours or request.keep:
        near = neighbours(model, request, settings.neighbours)
        known = [word for other in near if other.kind == concept.kind for word in other.wordings]
    if not known:
        raise InputError(
            f"nothing of the kind {quoted(concept.kind)} to keep is found: give it with --keep, or raise neighbours"
        )
    return known


def _fit(model: Model, batch: Noised, wanted: Tensor) -> Tensor:
    """The summed error of a batch; its activations are made again in the backward pass, so that only one's are held."""

    def errors(x: Tensor) -> Tensor:
        (told,) = predict(model, [Rows(x, batch.rows.t, batch.rows.states)])
        return (told - wanted).square().mean(dim=(1, 2, 3)).sum()

    found: Tensor = checkpoint(errors, batch.rows.x, use_reentrant=False)
    return found


def plan(model: Model, request: Request, settings: Settings) -> Plan:
    asked = settings.pictures * len(request.erase)
    kept = asked + repeats(asked, settings.untold) if settings.whole_keep else settings.batch
    free: float = kept * (settings.whole_keep + (settings.keep_target == "teacher"))
    if settings.erase_scale == "first":
        free += asked / max(1, settings.steps)  # once
    rows = settings.batch + kept
    return plan_of(model, settings, losses=LOSSES, free=free, rows=rows, sampled=2 * asked)


METHOD = Method(
    name="rgd",
    title="Restricted gradient with diverse data",
    paper="Ko et al. 2024, arXiv 2412.07808",
    summary="climbs the concept's denoising loss and keeps a diverse rest, in steps that let neither loss rise",
    settings=Settings,
    run=run,
    plan=plan,
)
