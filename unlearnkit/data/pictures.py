"""Images of the base model, as latents or pixels: drawn once, cached on disk, shared between methods and runs.

A batch is one file. Its name is a hash of all inputs: the denoiser's fingerprint, scheduler, text states, seeds, steps,
guidance, dtype and device. So a resumed run reads the same batch that the killed one drew. Its header has a hash of
this name and the latents: a batch whose file was changed or exchanged is drawn again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from .. import seeds
from ..errors import InputError
from ..io import manifest, processes, tensors
from ..io.files import tidy
from ..io.tick import Advance
from ..model.encoders import encoders
from ..model.model import Model
from ..model.sampling import sample_latents

__all__ = ["cached", "default_folder", "draw", "image_seeds", "images"]

BATCH = 8


def default_folder() -> Path:
    """``$UNLEARNKIT_CACHE``, else ``unlearnkit`` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("UNLEARNKIT_CACHE") or Path(home) / "unlearnkit")


def image_seeds(prompts: Sequence[str]) -> list[int]:
    """A seed for each image, by its prompt and position. It does not depend on the run, so that runs share images."""
    return [seeds.derive(0, "pictures", prompt, place) for place, prompt in enumerate(prompts)]


def draw(
    model: Model,
    prompts: Sequence[str],
    *,
    seeds_of: Sequence[str] | None = None,
    negative: str = "",
    folder: Path | None = None,
    tick: Advance | None = None,
) -> Tensor:
    """Latents (n, c, h, w), fp32, on the model's device: one image a prompt, at the hints' steps and guidance.

    seeds_of: as many prompts, whose images' seeds are used; None: of the prompts themselves.
    negative: the negative prompt. folder: the cache, default: ``default_folder()``.
    Raises InputError if the cache cannot be written.
    """
    folder = (folder or default_folder()) / "pictures"
    numbered = list(zip(prompts, image_seeds(seeds_of or prompts), strict=True))
    done, latents = 0, []
    with processes.first_goes_ahead():
        tidy(folder)
        for chunk in _chunks(numbered):
            latents.append(_drawn(model, chunk, negative, folder))
            done += len(chunk)
            if tick:
                tick(done, len(numbered))
    return torch.cat(latents).to(model.device)


def images(
    model: Model,
    prompts: Sequence[str],
    numbers: Sequence[int],
    *,
    tick: Advance | None = None,
) -> list[Image.Image]:
    """What ``model.sample`` draws for prompts and seeds at the hints' steps and guidance, from the cache if it can be.

    They are cached as pixels, all in one file, so its name depends on the image decoder as well. A cache that
    cannot be written is not used.
    """
    others = {
        name: part
        for name, part in model.pipe.components.items()
        if isinstance(part, nn.Module) and part is not model.denoiser and name not in encoders(model.pipe)
    }
    total = hashlib.sha256(_key(model, list(zip(prompts, numbers, strict=True)), "").encode())
    for name, part in others.items():
        total.update(f"{name} {getattr(part, 'config', '')!r}".encode())
        total.update(manifest.tensor_hash(sorted(part.state_dict().items())).encode())
    key = f"{total.hexdigest()[:24]}-pixels"
    path = default_folder() / "pictures" / f"{key}.safetensors"
    if path.is_file() and (pixels := _read(path, key, "pixels")) is not None and len(pixels) == len(prompts):
        if tick:
            tick(len(prompts), len(prompts))
        return [Image.fromarray(one.numpy()) for one in pixels]
    drawn = model.sample(prompts, numbers, tick=tick)
    if drawn and all(image.mode == "RGB" and image.size == drawn[0].size for image in drawn):
        pixels = torch.from_numpy(np.stack([np.asarray(image) for image in drawn]))
        facts = {"prompts": list(prompts), "seeds": list(numbers), "sha256": _hash(key, pixels)}
        with contextlib.suppress(InputError):
            tensors.write(path, {"pixels": pixels}, facts)
    return drawn


def cached(
    model: Model,
    prompts: Sequence[str],
    numbers: Sequence[int],
    what: str,
    names: Sequence[str],
    make: Callable[[list[str]], Tensor],
) -> list[float]:
    """A number for each name, found with the images of these prompts and seeds; those that the cache has are not found
    again.

    what: everything else that the numbers depend on. make: the numbers (n,) of the names that are missing. A cache
    that cannot be written is not used.
    """
    total = hashlib.sha256(_key(model, list(zip(prompts, numbers, strict=True)), "").encode())
    total.update(what.encode())
    key = total.hexdigest()[:32]
    path = default_folder() / "pictures" / f"{key}.safetensors"
    with processes.first_goes_ahead():
        known = _read_all(path, key)
        if missing := [name for name in names if f"of {name}" not in known]:
            found = zip(missing, make(missing), strict=True)
            known |= {f"of {name}": number.clone() for name, number in found}
            with contextlib.suppress(InputError):
                tensors.write(path, known, {"sha256": _hash_all(key, known)})
    return [float(known[f"of {name}"]) for name in names]


def _drawn(model: Model, chunk: list[tuple[str, int]], negative: str, folder: Path) -> Tensor:
    """The latents of a batch, from the cache or drawn and written there."""
    key = _key(model, chunk, negative)
    path = folder / f"{key}.safetensors"
    latents = _read(path, key) if path.is_file() else None
    if latents is None:
        words, picture_seeds = zip(*chunk, strict=True)
        steps, guidance = model.hints.steps, model.hints.guidance
        latents = sample_latents(
            model, words, picture_seeds, steps=steps, guidance=guidance, negative=negative
        ).cpu()
        facts = {"prompts": list(words), "seeds": list(picture_seeds), "sha256": _hash(key, latents)}
        tensors.write(path, {"latents": latents}, facts)
    return latents


def _chunks(numbered: list[tuple[str, int]]) -> Iterator[list[tuple[str, int]]]:
    for start in range(0, len(numbered), BATCH):
        yield numbered[start : start + BATCH]


def _key(model: Model, chunk: list[tuple[str, int]], negative: str) -> str:
    total = hashlib.sha256(model.fingerprint().encode())
    facts = [
        json.dumps(dict(model.pipe.scheduler.config), sort_keys=True, default=str),
        *(type(model.pipe.scheduler).__name__, str(model.dtype), model.device.type),
        *(model.hints.steps, model.hints.guidance, [seed for _, seed in chunk]),
        *([model.hints.size] if model.hints.size else []),
    ]
    total.update(json.dumps(facts).encode())
    states = model.encode([*(prompt for prompt, _ in chunk), negative])
    total.update(states.float().cpu().contiguous().numpy().data)
    return total.hexdigest()[:32]


def _hash(key: str, latents: Tensor) -> str:
    return manifest.tensor_hash([(key, latents)])


def _hash_all(key: str, known: Mapping[str, Tensor]) -> str:
    return manifest.tensor_hash([(f"{key} {name}", known[name]) for name in sorted(known)])


def _read_all(path: Path, key: str) -> dict[str, Tensor]:
    """All tensors of a cache file; none of one that is missing, damaged or changed."""
    try:
        known, facts = tensors.read(path) if path.is_file() else ({}, {})
        return known if known and facts["sha256"] == _hash_all(key, known) else {}
    except (InputError, KeyError, TypeError):
        return {}


def _read(path: Path, key: str, name: str = "latents") -> Tensor | None:
    """The latents or pixels in a cache file, or None for a damaged or changed file."""
    try:
        stored, facts = tensors.read(path)
        found = stored[name]
        return found if facts["sha256"] == _hash(key, found) else None
    except (InputError, KeyError, TypeError):
        return None
