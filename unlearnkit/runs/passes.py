"""The time and memory of single passes, measured on this machine: prediction, sampling, training, decoding."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..data.pictures import BATCH
from ..model.model import Model
from ..model.selection import TEXT_ENCODER
from ..training.masters import MasterWeights
from ..training.settings import Training
from .peak_memory import peak_memory

__all__ = ["decoding_bytes", "denoising_time", "forward_time", "training_pass"]

PATIENCE = 0.5  # seconds per measurement, or one pass if that takes longer


def forward_time(model: Model, rows: int) -> float:
    """Seconds per row of a pass without gradients."""
    inputs = _inputs(model, rows)
    with torch.no_grad():
        return _timed(lambda: model.forward(*inputs), model) / rows


def denoising_time(model: Model) -> float:
    """Seconds per image of one sampling step."""
    pictures = min(BATCH, model.batch)
    x, t, states = _inputs(model, pictures)
    with torch.no_grad():
        step = (model.forward, x, t, states, states, model.hints.guidance)
        return _timed(lambda: model.family.guided(*step), model) / pictures


def decoding_bytes(model: Model, pictures: int) -> int:
    """Peak bytes of decoding this many images in the model's batches."""
    vae, at_once = getattr(model.pipe, "vae", None), min(pictures, model.batch)
    if vae is None or not at_once:
        return 0
    taken = peak_memory(
        lambda: vae.decode(torch.empty(at_once, *model.shape, dtype=vae.dtype, device=vae.device))
    )
    # SDXL's in half precision is decoded in full
    return taken * (2 if vae.dtype == torch.float16 and vae.config.force_upcast else 1)


def training_pass(model: Model, settings: Training, rows: int) -> tuple[float, int]:
    """Seconds per row of a forward and backward pass, and the peak bytes of a training step."""
    inputs, trained = _inputs(model, rows), MasterWeights(model.weights(settings.part), settings.updates)
    masters = trained.init(0)
    weights: dict[int, int] = {}
    saved: dict[int, int] = {}
    # of recomputed blocks: number, the largest's bytes, the widest layer's
    blocks, recomputed, widest = 0, 0.0, 0.0

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
