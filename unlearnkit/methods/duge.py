"""DUGE: Continual Unlearning for Foundational Text-to-Image Models without Generalization Erosion (arXiv 2503.13769).

The trained θ attends to the concept as the frozen φ attends to nothing; with the i-th of M cross-attention maps

    A_i^θ  for θ on the concept's prompt,    A_i^φ  for φ on the empty prompt, at the same noised picture of the concept

    L_U   = 1/M Σ_i mean (A_i^θ - A_i^φ)²                   breaks the tie between words and picture
    L_pr  = E ||ε - ε_θ(x_t, c_pr, t)||²                    on related concepts' pictures and a memory bank's
    L_reg = mean (θ - φ)²                                   rule = l2sp, or distillation on the memory bank, or both
    L     = λ_U L_U + λ_pr L_pr + λ_reg L_reg

The paper's text could be read only at second hand: the first two losses are its own, the third is a reading of its one
line, and every number is ours (PAPERS.md). ``target``, ``attends``, ``instead`` and ``distil`` are the other readings.
Attention alone may leave the concept in the values of the words: ``output`` draws the predicted noise as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .. import seeds
from ..errors import InputError
from ..method import Method, Plan
from ..model import Model
from ..schema import Concept, Request
from ..settings import setting
from ..training.anchors import anchor, phrased, turns
from ..training.attention import Watch, distance, folds, readable, steered, watched
from ..training.descend import Job, Objective, Student
from ..training.memory import bank
from ..training.scenes import KeepTarget, Scene, kept, scene
from ..training.settings import Rules, Training, Trains, check, default
from ..training.train import Rows, plan_of, predict, train
from ..wording import fill, until

__all__ = ["METHOD", "Settings"]


@dataclass(frozen=True)
class Settings(Training):
    trains: Trains = default("trains", "xattn", source="ours: maps hang on queries and keys")
    steps: int = default("steps", 300, source="ours; DUGE's is not known")
    rule: Rules = default("rule", ("l2sp",), source="our reading of DUGE's regularisation")
    target: Literal["null", "steered"] = setting(
        "null",
        "what is to be reached: the empty prompt (or 'instead'), or from there steered away from the concept",
        source="paper, at second hand; steered is another reading",
    )
    null: Literal["empty", "rest"] = setting(
        "empty",
        "what stands for no concept, unless 'instead' does: the empty prompt, or the concept's prompt less its word, "
        "so that what else it says is not steered away from",
        source="paper: empty; rest: ours",
    )
    eta: float = setting(1.0, "how far target = steered goes", low=0.0, source="ours; 1.8 on the canvas")
    attends: Literal["maps", "output"] = setting(
        "maps", "what A is: the softmax, or its product with the values", source="paper, at second hand"
    )
    layers: tuple[str, ...] = setting(
        (),
        "cross-attention layers, or how their names begin (mid_block, up_blocks.1); none: all",
        source="ours",
    )
    erase: float = setting(1.0, "λ_U, weight of the attention loss", low=0.0, source="ours")
    erase_scale: Literal["first", "none"] = setting(
        "first", "first: λ_U is divided by the loss at the first step, which is tiny", source="ours"
    )
    output: float = setting(
        0.0,
        "weight of a loss that draws the predicted noise to that of the empty prompt (or of 'instead')",
        low=0.0,
        source="paper: none; ours: 3 on the canvas, 1 where no attention can be read",
    )
    prior: float = setting(
        1.0, "λ_pr, weight of prior preservation", low=0.0, source="ours, as in DreamBooth"
    )
    prior_target: KeepTarget = setting(
        "noise",
        "what it is drawn to: the true noise, or the base model's prediction",
        source="paper, at second hand",
    )
    related: int = setting(
        8,
        "if the request keeps nothing: so many nearest words are the related concepts",
        low=1,
        source="ours",
    )
    related_pictures: int = setting(25, "pictures for each related concept", low=1, source="ours: 200 in all")
    memory: int = setting(
        100, "pictures in the memory bank of unrelated prompts, 0 for none", low=0, source="ours"
    )
    distil: float = setting(
        0.0, "weight of distilling the base on the memory bank", low=0.0, source="the other reading of L_reg"
    )
    pictures: int = setting(200, "pictures of each concept", low=1, source="ours: 20 prompts with 10 each")
    grammar: str = phrased(source="ours; for the concept and the related ones")


@dataclass(frozen=True)
class _Forget:
    """Pictures of the concepts; for each the states of the wanted prompt, and the folds (m, tokens, tokens) of both."""

    scene: Scene
    wanted: Tensor
    folds: tuple[Tensor, Tensor] | None


@dataclass(frozen=True)
class _Step:
    """Noised pictures of the concept, what A (folded) and ε shall be for them; kept rows and what ε shall be there."""

    erase: Rows
    maps: list[Tensor]
    fold: Tensor | None
    eps: Tensor
    keep: list[Rows]
    wanted: list[Tensor]
    taught: Tensor | None


def run(model: Model, request: Request, settings: Settings, *, seed: int, job: Job) -> dict[str, Tensor]:
    """The trained weights. Raises InputError where no related concept is found."""
    _check(settings)
    words = _words(model, request, settings)
    layers = settings.layers if settings.erase else None
    with watched(model, layers=layers, of=settings.attends) as watch:
        forget = _forget(model, request, settings, job)
        scenes = {name: scene(model, found, job=job, title=name) for name, found in words.items()}
        n, read = settings.batch, settings.batch if settings.erase else 0

        def prepare(step: int, student: Student) -> _Step:
            batch = forget.scene.batch(model, n, seeds.stream(seed, "duge", step))
            keep = [
                one.batch(model, n, seeds.stream(seed, "duge", name, step)) for name, one in scenes.items()
            ]
            asked = [Rows(batch.rows.x, batch.rows.t, forget.wanted[batch.which])]
            if settings.target == "steered":
                asked.append(batch.rows)
            teach = keep if settings.prior_target == "teacher" else keep[-1:] if settings.distil else []
            eps, maps = _pass(watch, asked + [one.rows for one in teach], read=read * len(asked))
            taught = eps[len(asked) :]
            fold = None
            if forget.folds is not None:
                fold, other = (one[batch.which, None] for one in forget.folds)
                both = torch.cat([other, fold])[: read * len(asked)]
                maps = [one @ both for one in maps]
            goal = eps[0]
            if settings.target == "steered":
                kind = settings.attends == "maps"
                maps = [steered(one, settings.eta, maps=kind) for one in maps]
                goal = steered(torch.cat(eps[:2]), settings.eta, maps=False)
            return _Step(
                batch.rows,
                maps,
                fold,
                goal,
                [one.rows for one in keep],
                taught if settings.prior_target == "teacher" else [one.noise for one in keep],
                taught[-1] if settings.distil else None,
            )

        def attention(given: _Step, maps: list[Tensor]) -> Tensor:
            folded = maps if given.fold is None else [one @ given.fold for one in maps]
            return distance(folded, given.maps)

        scale = settings.erase
        if scale and settings.erase_scale == "first":
            scale /= _first(watch, prepare, attention, model=model, read=read)

        def losses(given: _Step) -> dict[str, Tensor]:
            if settings.apart:
                (eps,), maps = _pass(watch, [given.erase], read=read)
                kept_eps = predict(model, given.keep) if given.keep else []
            else:
                (eps, *kept_eps), maps = _pass(watch, [given.erase, *given.keep], read=read)
            found = {}
            if settings.erase:
                found["erase"] = scale * attention(given, maps)
            if settings.output:
                found["erase_output"] = settings.output * (eps - given.eps).square().mean()
            if settings.prior:
                errors = [
                    (one - aim).square().mean() for one, aim in zip(kept_eps, given.wanted, strict=True)
                ]
                found["keep"] = settings.prior * torch.stack(errors).mean()
            if given.taught is not None:
                found["keep_distil"] = settings.distil * (kept_eps[-1] - given.taught).square().mean()
            return found

        return train(model, request, settings, Objective(prepare, losses), seed=seed, job=job)


def _pass(watch: Watch, rows: Sequence[Rows], *, read: int) -> tuple[list[Tensor], list[Tensor]]:
    """The predicted noise for each of the rows, in one pass, and what each layer did in the first ``read`` rows."""
    x, t, states = (torch.cat([getattr(one, name) for one in rows]) for name in ("x", "t", "states"))
    eps, maps = watch.eps(x, t, states, rows=read)
    return list(torch.split(eps, [len(one.t) for one in rows])), maps


@torch.no_grad()
def _first(
    watch: Watch,
    prepare: Callable[[int, Student], _Step],
    attention: Callable[[_Step, list[Tensor]], Tensor],
    *,
    model: Model,
    read: int,
) -> float:
    """The attention loss of the base model itself on the pictures of the first step."""
    with model.frozen():
        given = prepare(0, nullcontext)
        found = attention(given, _pass(watch, [given.erase], read=read)[1]).item()
    if found == 0:
        raise InputError(
            "the concept's attention is that of what is wanted already: nothing to erase is left"
        )
    return found


def _forget(model: Model, request: Request, settings: Settings, job: Job) -> _Forget:
    nothing = "" if settings.null == "rest" else None
    prompts = [
        (form, word, nothing if concept.instead is None else anchor(model, request, concept))
        for concept in request.erase
        for form, word in turns(model, request, concept, settings.pictures, settings.grammar)
    ]
    found = scene(model, [fill(form, word) for form, word, _ in prompts], job=job)
    wanted = model.encode(
        ["" if place is None else " ".join(fill(form, place).split()) for form, _, place in prompts]
    )
    unfolded = not settings.erase or settings.attends == "output"
    if unfolded or all(place is None for *_, place in prompts):
        return _Forget(found, wanted, None)
    both = [torch.stack(one) for one in zip(*(_folds(model, *prompt) for prompt in prompts), strict=True)]
    return _Forget(found, wanted, (both[0].to(model.device), both[1].to(model.device)))


def _folds(model: Model, form: str, word: str, place: str | None) -> tuple[Tensor, Tensor]:
    """The folds of the maps of both prompts; nothing is folded where the wanted one is empty."""
    tokens = model.text([""]).shape[1]
    if place is None:
        return torch.eye(tokens), torch.eye(tokens)
    start, end, other = (model.last_token(until(form, rest)) for rest in ("", word, place))
    return folds(tokens, start, end, other), folds(tokens, start, other, end)


def _words(model: Model, request: Request, settings: Settings) -> dict[str, list[str]]:
    """Prompts of related concepts, and of the memory bank: what is kept, as far as a loss looks at it."""
    found: dict[str, list[str]] = {}
    related: tuple[Concept, ...] = ()
    if settings.prior:
        related = kept(model, request, settings.related)
        found["prior"] = [
            fill(*told)
            for one in related
            for told in turns(model, request, one, settings.related_pictures, settings.grammar)
        ]
    if settings.memory and (settings.prior or settings.distil):
        found["memory"] = list(bank(model, request, related, settings.memory))
    return found


def _check(settings: Settings) -> None:
    check(settings, losses=_losses(settings))
    if not settings.erase and not settings.output:
        raise InputError("erase=0 and output=0 leave nothing that erases: choose one of them above 0")
    if settings.distil and not settings.memory:
        raise InputError(
            "distil looks at the memory bank, and memory=0 leaves it empty: choose memory above 0"
        )


def _losses(settings: Settings) -> tuple[str, ...]:
    weights = {
        "erase": settings.erase,
        "erase_output": settings.output,
        "keep": settings.prior,
        "keep_distil": settings.distil,
    }
    return tuple(name for name, weight in weights.items() if weight)


def plan(model: Model, request: Request, settings: Settings) -> Plan:
    _check(settings)
    if settings.erase:
        readable(model, settings.layers)
    n, words = settings.batch, _words(model, request, settings)
    taught = len(words) if settings.prior_target == "teacher" else bool(settings.distil)
    return plan_of(
        model,
        settings,
        losses=_losses(settings),
        free=n * (1 + (settings.target == "steered") + taught),
        rows=n * (1 + len(words)),
        sampled=settings.pictures * len(request.erase) + sum(map(len, words.values())),
    )


METHOD = Method(
    name="duge",
    title="DUGE",
    paper="2025, arXiv 2503.13769",
    summary="the concept's cross-attention becomes that of no prompt; related concepts and a memory bank are kept",
    settings=Settings,
    run=run,
    plan=plan,
)
