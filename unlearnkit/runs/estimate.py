"""The cost of a run before it starts: weights, time, memory, disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .. import methods
from ..errors import listed, quoted
from ..io.tick import span
from ..methods import Plan
from ..model import restore
from ..model.encoders import ROOM, encoders
from ..model.model import Model
from ..model.selection import TEXT_ENCODER
from ..schema import NEAREST, Recipe
from ..settings import as_typed, changed
from ..training.settings import Training
from . import images
from .passes import decoding_bytes, denoising_time, forward_time, training_pass

__all__ = ["Estimate", "disk", "estimate"]


@dataclass(frozen=True)
class Estimate:
    """A plan and its cost on this machine.

    erasing, drawing: seconds. memory, disk: bytes; memory is that of the networks plus the peak of a training step or
    of decoding images, without the libraries' own.
    """

    model: Model
    recipe: Recipe
    settings: Any
    plan: Plan
    erasing: float
    drawing: float
    memory: int
    disk: int

    def lines(self) -> Iterator[tuple[str, str]]:
        """The estimate as lines (title, text)."""
        plan, request = self.plan, self.recipe.request
        yield (
            "model",
            f"{self.model.source}, {self.model.family.TITLE}, {self.model.precision} on {self.model.device}",
        )
        yield "method", self.recipe.method
        other = [f"{name}={as_typed(value)}" for name, value in changed(self.settings).items()]
        yield "settings", ", ".join(other) or "the method's defaults"
        if other:
            yield "", f"and the method's defaults, see 'unlearnkit methods {self.recipe.method}'"
        if family := methods.family_settings(
            self.model, self.recipe.method, self.recipe.settings, self.settings
        ):
            yield "by family", ", ".join(f"{name}={as_typed(value)}" for name, value in family.items())
        yield "erases", listed("/".join(concept.wordings) for concept in request.erase)
        yield "instead", ", ".join(dict.fromkeys(self._instead()))
        yield "keeps", listed(concept.name for concept in request.keep) or "what the method chooses"
        if unused := methods.unretained(self.model, self.settings, request):
            yield "but", unused
        yield "changes", self._changes()
        early = getattr(self.settings, "stop", "none") != "none"
        steps = f"{'at most ' * early}{plan.steps} of {plan.batch} pictures"
        yield "steps", steps if plan.steps else "none: solved in closed form"
        if plan.sampled_images:
            yield "draws first", f"{plan.sampled_images} pictures of the model, unless they are in the cache"
        grid = f" and {span(self.drawing)} for grid.png" if self.drawing else ""
        yield "time", f"{'at most ' * early}about {span(self.erasing)} to erase{grid}"
        yield "memory", f"about {_size(self.memory)}"
        yield "disk", f"about {_size(self.disk)}"

    def facts(self) -> dict[str, Any]:
        """The estimate as plain data: counts, seconds, bytes."""
        plan, recipe, model = self.plan, self.recipe, self.model
        return {
            "model": {"source": model.source, "family": model.family.TITLE, "device": str(model.device)},
            "precision": model.precision,
            "method": recipe.method,
            "settings": dataclasses.asdict(self.settings),
            "changed_settings": changed(self.settings),
            "family_settings": methods.family_settings(model, recipe.method, recipe.settings, self.settings),
            "erases": recipe.request.erase,
            "instead": list(self._instead()),
            "keeps": recipe.request.keep,
            "weights": {"count": plan.weights, "tensors": plan.tensors, "share": self._share()},
            "steps": {"count": plan.steps, "batch": plan.batch},
            "draws_first": plan.sampled_images,
            "seconds": {"erasing": self.erasing, "drawing": self.drawing},
            "bytes": {"memory": self.memory, "disk": self.disk},
        }

    def _instead(self) -> Iterator[str]:
        """What takes each concept's place, in words."""
        default = methods.default_instead(self.model, self.settings)
        words = {None: "what the method chooses", "": "nothing", NEAREST: "the nearest retained word"}
        for concept in self.recipe.request.erase:
            word = default.get(concept.kind) if concept.instead is None else concept.instead
            yield words.get(word) or quoted(word)

    def _share(self) -> float:
        """The share of the network's weights that would change."""
        text = self.plan.part == TEXT_ENCODER
        networks = encoders(self.model.pipe).values() if text else [self.model.denoiser]
        return self.plan.weights / sum(
            weight.numel() for network in networks for weight in network.parameters()
        )

    def _changes(self) -> str:
        plan = self.plan
        if not plan.weights:
            return "no weight: a guard acts at inference"
        where = "the text encoders" if plan.part == TEXT_ENCODER else "the denoiser"
        return f"{plan.weights:,} weights in {plan.tensors} tensors, {self._share():.1%} of {where}"


@restore.steady()
def estimate(model: Model, recipe: Recipe, *, pictures: int = 3, pipeline: bool = True) -> Estimate:
    """The cost of ``run_recipe`` with the same arguments. Runs a few real passes; changes and writes nothing."""
    settings = methods.resolve(model, recipe.request, recipe.method, recipe.settings)
    plan = methods.plan(model, recipe.request, method=recipe.method, settings=recipe.settings)
    rows = max(1, round(plan.passes[1]))
    forward = forward_time(model, rows) if plan.steps else 0.0
    backward, training = training_pass(model, settings, rows) if isinstance(settings, Training) else (0.0, 0)
    picture = model.hints.steps * denoising_time(model)
    rows_of_grid = len(images.shown(recipe.request)) + len(images.neighbours(model, recipe.request))
    return Estimate(
        model=model,
        recipe=recipe,
        settings=settings,
        plan=plan,
        erasing=plan.steps * (plan.passes[0] * forward + plan.passes[1] * backward)
        + plan.sampled_images * picture,
        drawing=2 * pictures * rows_of_grid * picture,
        memory=max(
            _networks(model) + decoding_bytes(model, pictures * rows_of_grid),
            _resident(model) + training + _data_bytes(model, plan),
        ),
        disk=disk(model, plan, pipeline=pipeline),
    )


def disk(model: Model, plan: Plan, *, pipeline: bool = True) -> int:
    """Bytes that a run writes: the pipeline, the edit, and a checkpoint of weights and two moments."""
    latent = 4 * int(torch.Size(model.shape).numel())
    files = (16 if plan.steps else 4) * plan.weights + plan.sampled_images * latent + 2_000_000
    return files + (_networks(model) if pipeline else 0)


def _networks(model: Model) -> int:
    """Bytes of the pipeline's networks."""
    return sum(map(_size_of, restore.networks(model.pipe)))


def _data_bytes(model: Model, plan: Plan) -> int:
    """Bytes of the training data: each image's latent, and its conditioning, which the model caches too.

    An upper bound, as if no two images had the same prompt.
    """
    states = plan.sampled_images * model.encode([""]).nbytes
    return states + min(states, ROOM) + plan.sampled_images * 4 * int(torch.Size(model.shape).numel())


def _resident(model: Model) -> int:
    """Bytes of the networks on the device during training: on a GPU the denoiser only."""
    return _networks(model) if model.device.type == "cpu" else _size_of(model.denoiser)


def _size_of(network: nn.Module) -> int:
    return sum(weight.nbytes for weight in (*network.parameters(), *network.buffers()))


def _size(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{max(1, round(number / 1e6))} MB"
