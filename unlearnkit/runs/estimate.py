"""The cost of a run before it starts: weights, time, memory, disk."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .. import methods
from ..data.pictures import BATCH
from ..errors import listed, quoted
from ..methods import Plan
from ..model import restore
from ..model.encoders import ROOM, encoders
from ..model.model import Model
from ..model.selection import TEXT_ENCODER
from ..schema import NEAREST, Recipe
from ..settings import as_typed, changed
from ..training.masters import MasterWeights
from ..training.settings import Training
from . import images
from .peak_memory import peak_memory

__all__ = ["Estimate", "disk", "estimate"]

PATIENCE = 0.5  # seconds per measurement, or one pass if that takes longer


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
        yield "changes", self._changes()
        early = getattr(self.settings, "stop", "none") != "none"
        steps = f"{'at most ' * early}{plan.steps} of {plan.batch} pictures"
        yield "steps", steps if plan.steps else "none: solved in closed form"
        if plan.sampled_images:
            yield "draws first", f"{plan.sampled_images} pictures of the model, unless they are in the cache"
        yield (
            "time",
            f"{'at most ' * early}about {_span(self.erasing)} to erase and {_span(self.drawing)} for grid.png",
        )
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
    forward = _forward(model, rows) if plan.steps else 0.0
    backward, training = _backward(model, settings, rows) if isinstance(settings, Training) else (0.0, 0)
    picture = model.hints.steps * _denoising(model)
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
            _networks(model) + _decoding(model, pictures * rows_of_grid),
            _resident(model) + training + _data_bytes(model, plan),
        ),
        disk=disk(model, plan, pipeline=pipeline),
    )


def disk(model: Model, plan: Plan, *, pipeline: bool = True) -> int:
    """Bytes that a run writes: the pipeline, the edit, and a checkpoint of weights and two moments."""
    latent = 4 * int(torch.Size(model.shape).numel())
    files = (16 if plan.steps else 4) * plan.weights + plan.sampled_images * latent + 2_000_000
    return files + (_networks(model) if pipeline else 0)


def _forward(model: Model, rows: int) -> float:
    """Seconds per row of a pass without gradients."""
    inputs = _inputs(model, rows)
    with torch.no_grad():
        return _timed(lambda: model.forward(*inputs), model) / rows


def _denoising(model: Model) -> float:
    """Seconds per image of one sampling step."""
    pictures = min(BATCH, model.batch)
    x, t, states = _inputs(model, pictures)
    with torch.no_grad():
        step = (model.forward, x, t, states, states, model.hints.guidance)
        return _timed(lambda: model.family.guided(*step), model) / pictures


def _decoding(model: Model, pictures: int) -> int:
    """Peak bytes of decoding this many images in the model's batches."""
    vae, at_once = getattr(model.pipe, "vae", None), min(pictures, model.batch)
    if vae is None or not at_once:
        return 0
    taken = peak_memory(
        lambda: vae.decode(torch.empty(at_once, *model.shape, dtype=vae.dtype, device=vae.device))
    )
    # SDXL's in half precision is decoded in full
    return taken * (2 if vae.dtype == torch.float16 and vae.config.force_upcast else 1)


def _backward(model: Model, settings: Training, rows: int) -> tuple[float, int]:
    """Seconds per row of a forward and backward pass, and the peak bytes of a training step."""
    inputs, trained = _inputs(model, rows), MasterWeights(model.weights(settings.part), settings.updates)
    masters = trained.init(0)
    weights: dict[int, int] = {}
    saved: dict[int, int] = {}
    blocks, recomputed, widest = (
        0,
        0.0,
        0.0,
    )  # of recomputed blocks: number, the largest's bytes, the widest layer's

    def note(tensor: Tensor, into: dict[int, int] = saved) -> Tensor:
        into.update(_storages([tensor]).items() - weights.items())
        return tensor

    def block(module: nn.Module, *inputs: Any) -> Any:
        nonlocal blocks, recomputed, widest
        blocks += 1
        for tensor in (one for one in inputs if isinstance(one, Tensor)):
            note(tensor)
        inside: dict[int, int] = {}
        with torch.autograd.graph.saved_tensors_hooks(lambda one: note(one, inside), lambda one: one):
            output = module(*inputs)  # keeps the counted tensors alive, so that no address is reused
        sides = 1 + settings.separate  # each has a pass of its own
        new = [size / sides for place, size in inside.items() if place not in saved]
        recomputed, widest = max(recomputed, sum(new)), max([widest, *new])
        del output
        return checkpoint(module, *inputs, use_reentrant=False)

    def step() -> None:
        cast = trained.cast_weights(masters)
        weights.update(_storages([*masters.values(), *cast.values(), *model.weights("all").values()]))
        with model.wearing(cast):
            x, t, states = inputs
            if settings.part == TEXT_ENCODER:
                states = model.conditioning([""]).expand_as(states)
            loss = model.forward(x, t, states).float().square().mean()
            torch.autograd.grad(loss, list(masters.values()), allow_unused=True)

    with model.frozen(), torch.enable_grad():
        hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
        with model.checkpointing(settings.checkpointing, block), hooks:
            step()
        with model.checkpointing(settings.checkpointing):
            seconds = _timed(step, model) / rows
    with torch.no_grad():
        others = (
            _storages(trained.cast_weights(masters).values()).items() - _storages(masters.values()).items()
        )
    numbers = sum(master.numel() for master in masters.values())
    moving = 2 * max([widest, *saved.values()])  # gradients into and out of the widest layer
    passing = sum(saved.values()) + moving + sum(size for _, size in others)
    if blocks:  # inputs are freed as gradients come; the recomputed block has none yet
        passing += recomputed - min(4 * numbers, sum(saved.values())) - 4 * numbers / blocks
    return seconds, settings.peak_bytes(numbers, max(0, round(passing)))


def _storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Bytes of the tensors' memory by address; shared memory counts once."""
    storages = (tensor.untyped_storage() for tensor in tensors)
    return {storage.data_ptr(): storage.nbytes() for storage in storages}


def _inputs(model: Model, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    latents = torch.zeros(rows, *model.shape, device=model.device)
    times = torch.full((rows,), model.num_timesteps // 2, device=model.device)
    return latents, times, model.encode([""] * rows)


def _timed(work: Callable[[], Any], model: Model) -> float:
    """Seconds of a call: the fastest of several, because the machine's load varies."""
    taken: list[float] = []
    while sum(taken) < PATIENCE:
        _synchronize(model)
        start = time.perf_counter()
        work()
        _synchronize(model)
        taken.append(time.perf_counter() - start)
    return min(taken)


def _synchronize(model: Model) -> None:
    """Wait until a GPU has finished."""
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)


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


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
