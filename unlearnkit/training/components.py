"""The parts of a training run, made from its settings: early stopping, combine, mask, rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..data.prompts import neighbours, texts
from ..data.wording import format_prompt, prefix_through
from ..errors import InputError
from ..model.model import Model
from ..parts import Combine, Rule
from ..parts.combine import pcgrad, preserving, restricted, summed
from ..parts.mask import Mask
from ..parts.rules import Projection, StartPenalty, span_basis
from ..schema import Concept, Request
from .converged import Convergence
from .job import EarlyStopping, Run
from .panel import Panel
from .settings import Training

Place = Callable[[Model, Request, Concept], str | None]

__all__ = ["check_rules", "combine_of", "convergence_of", "mask_of", "rules_of", "stop_of"]


def stop_of(model: Model, request: Request, settings: Training) -> EarlyStopping | None:
    """Early stopping; None to train all steps."""
    if settings.stop in ("none", "converged"):
        return None
    from .stopping import accuracy_score, erasure_score  # opens the canvas

    if settings.stop == "guide":
        return EarlyStopping(accuracy_score(model, request), settings.stop_every)
    return EarlyStopping(erasure_score(model, request), settings.stop_every, settings.steps, settings.stop_at)


def convergence_of(settings: Training, run: Run, place: Place) -> Convergence | None:
    """Ends training with stop = converged, else None. Draws pictures; a dry run only counts them.

    place: as ``Trained.place``.
    """
    if settings.stop != "converged":
        return None
    panel = Panel(
        run,
        lambda concept: place(run.model, run.request, concept),
        targeted=settings.TARGET_PROMPT is not None,
    )
    return Convergence(
        panel,
        every=settings.stop_every,
        reach=settings.stop_reach,
        brake=settings.stop_brake,
        patience=settings.stop_patience,
        least=round(settings.stop_from * settings.steps),
        cycle=0 if settings.schedule == "constant" else settings.steps,
    )


def combine_of(settings: Training, seed: int) -> Combine:
    """How the losses' gradients are combined."""
    if settings.combine == "restricted":
        return restricted
    if settings.combine == "pcgrad":
        return pcgrad(seed)
    if settings.combine == "sum":
        return summed
    return preserving(per_tensor=settings.combine == "preserving-tensor", adds=settings.adds)


def mask_of(model: Model, settings: Training) -> Mask | None:
    """The mask of entries that may change; None for all."""
    if settings.mask == "none":
        return None
    dynamic = settings.mask == "dynamic"
    return Mask(
        share=settings.mask_share,
        warmup=settings.mask_warmup,
        steps=settings.mask_warmup + settings.steps,
        every=settings.mask_every if dynamic else 0,
        per_matrix=dynamic,
        scale=model.weights(settings.part) if settings.mask == "selft" else None,
    )


def rules_of(model: Model, request: Request, settings: Training) -> list[Rule]:
    """The rules that constrain the weights."""
    start = model.weights(settings.part)
    rules: list[Rule] = []
    if "l1sp" in settings.rule:
        rules.append(StartPenalty(start, settings.l1sp, 1))
    if "l2sp" in settings.rule:
        rules.append(StartPenalty(start, settings.l2sp, 2))
    if "project" in settings.rule:
        basis = span_basis(_protected(model, request, settings)).to(model.device, torch.float32)
        matrices = model.weights("text")
        rules.append(Projection(matrices, dict.fromkeys(matrices, basis), _beside(matrices, start)))
    return rules


def check_rules(model: Model, settings: Training) -> None:
    """Raises InputError for a rule that would constrain nothing of what this model trains."""
    if "project" in settings.rule and not model.weights("text").keys() & model.weights(settings.part).keys():
        raise InputError(
            f"rule=project constrains the matrices that read the text, and trains={settings.trains} trains none of "
            "them here: choose trains=all, or leave the rule out"
        )


def _beside(matrices: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What else decides the matrices' output for a text: their biases, and PixArt's projection of the text states."""
    biases = {name.removesuffix("weight") + "bias" for name in matrices}
    own = {name: weight for name, weight in start.items() if name in biases or ".caption_projection." in name}
    return {name: weight.detach().float().clone() for name, weight in own.items()}


def _protected(model: Model, request: Request, settings: Training) -> Tensor:
    """Text states (n, width) of the protected concepts: at the last token of each wording, bare and in templates."""
    protected = neighbours(model, request, settings.protect)
    words = [
        text
        for concept in protected
        for text in texts(concept, model.hints, templates=True, without=request.erased)
    ]
    if not words:
        raise InputError("rule=project finds nothing to protect: keep at least one concept")
    states = model.text([format_prompt(form, word) for form, word in words])
    ends = [model.last_token(prefix_through(form, word)) for form, word in words]
    return torch.stack([row[end] for row, end in zip(states, ends, strict=True)])
