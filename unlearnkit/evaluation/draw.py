"""Pictures of an evaluation: the same prompts and seeds for every side, one PNG a case, none of them made twice.

A side is a model that draws: the untouched one, the edited one, a reference. The text chunk of each PNG has its prompt,
seed and side. So a killed evaluation resumes where it stopped, and never uses another model's picture. Several
processes share the cases in whole batches. Each picture has its own seed, so it does not matter which process draws it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..errors import InputError, quoted
from ..io.files import writing
from ..io.reading import parse_json, read_picture, typed
from ..io.tick import Advance
from ..runs.images import save_png
from ..schema import Case

if TYPE_CHECKING:
    from ..model.edit import Edit
    from ..model.model import Model

__all__ = ["Side", "draw", "model_side", "picture_hash", "read"]


@dataclass(frozen=True)
class Side:
    """A model that draws one picture of every pair.

    identity: sha256 of all that its pictures depend on, except prompt and seed.
    sample: ``sample(prompts, seeds)`` gives one picture each. fits: whether the model reads a prompt to its end.
    weights: whether its weights differ from the untouched model's (a filter changes none). batch: pictures per call.
    """

    name: str
    identity: str
    sample: Callable[[Sequence[str], Sequence[int]], list[Image.Image]]
    fits: Callable[[str], bool] = lambda prompt: True
    weights: bool = True
    batch: int = 32


def model_side(name: str, model: Model, *, edit: Edit | None = None, batch: int | None = None) -> Side:
    """A model, with ``edit`` applied if there is one, at the steps and guidance scale of its hints.

    batch: pictures per call; default: ``model.batch``.
    """
    import torch

    batch = batch or model.batch
    tokenizer: Any = getattr(model.pipe, "tokenizer", None)
    sampler = [model.hints.steps, model.hints.guidance, None]  # no negative prompt
    facts = {
        "weights": model.fingerprint(),
        "edit": None if edit is None else edit.hash(),
        "text": hashlib.sha256(model.encode([""]).float().cpu().numpy().tobytes()).hexdigest(),
        "scheduler": [type(model.pipe.scheduler).__name__, dict(model.pipe.scheduler.config)],
        "sampler": [*sampler, model.hints.size] if model.hints.size else sampler,
        "dtype": str(model.dtype),
    }

    def sample(prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        with torch.no_grad(), contextlib.nullcontext() if edit is None else model.wearing(edit):
            return model.sample(prompts, seeds, batch=batch)

    def fits(prompt: str) -> bool:
        if tokenizer is None:
            return True
        return bool(len(tokenizer(prompt, verbose=False).input_ids) <= tokenizer.model_max_length)

    text = json.dumps(facts, sort_keys=True, default=str)
    changes = edit is None or (bool(edit.weights) and not edit.hooks)
    return Side(name, hashlib.sha256(text.encode()).hexdigest(), sample, fits, changes, batch)


def draw(
    cases: Sequence[Case],
    side: Side,
    folder: Path,
    *,
    process: tuple[int, int] = (0, 1),
    tick: Advance | None = None,
) -> int:
    """Draw every case that is missing in ``folder``, and return the number of drawn pictures.

    process: (index, count) of this process; it draws every count-th batch. tick: assumes that all are equally fast.
    Raises InputError for a folder that holds another side's or another seed's pictures, or cannot be written.
    """
    index, count = process
    starts = range(0, len(cases), side.batch)[index::count]
    batches = [cases[start : start + side.batch] for start in starts]
    done, drawn = 0, 0
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for part in batches:
            missing = [case for case in part if not _finished(folder / f"{case.id}.png", case, side)]
            if missing:
                for case, picture, failure in _sampled(missing, side):
                    facts = _facts(case, side) | {"failure": failure}
                    save_png(picture, folder / f"{case.id}.png", facts=facts)
                drawn += len(missing)
            done = min(len(cases), done + count * len(part))
            if tick:
                tick(done, len(cases))
    return drawn


def read(path: Path) -> tuple[Image.Image, dict[str, Any]]:
    """A picture and its text chunk. Raises InputError for a missing, damaged or foreign file."""
    if not path.exists():
        raise InputError(f"{quoted(path)} is missing: draw it again with unlearnkit evaluate")
    picture, where = read_picture(path), f"picture {quoted(path)}"
    text = getattr(picture, "text", {}).get("unlearnkit")
    if not isinstance(text, str):
        raise InputError(f"{where} is no picture of an evaluation: remove it")
    facts = parse_json(text, kind=dict, where=where)
    typed(facts, {"prompt": str, "seed": int, "side": str, "failure": str}, where=where)
    return picture.convert("RGB"), facts


def picture_hash(picture: Image.Image) -> str:
    """sha256 of size and pixels; it does not depend on the file's compression."""
    return hashlib.sha256(f"{picture.size}".encode() + picture.convert("RGB").tobytes()).hexdigest()


def _sampled(cases: Sequence[Case], side: Side) -> list[tuple[Case, Image.Image, str]]:
    """Each case with its picture, and the reason if the model failed."""
    from ..families.opening import quiet

    # quiet: otherwise diffusers prints every prompt that is too long
    with quiet(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pictures = side.sample([case.prompt for case in cases], [case.seed for case in cases])
    # diffusers turns NaN into black pixels, with a warning of numpy
    nan = any("invalid value" in str(one.message) for one in caught)
    sampled = []
    for case, picture in zip(cases, pictures, strict=True):
        black = nan and not np.asarray(picture).any()
        failure = "not a number" if black else "" if side.fits(case.prompt) else "prompt too long"
        sampled.append((case, picture, failure))
    return sampled


def _facts(case: Case, side: Side) -> dict[str, Any]:
    return {"prompt": case.prompt, "seed": case.seed, "side": side.identity}


def _finished(path: Path, case: Case, side: Side) -> bool:
    """Whether the picture exists. A damaged or foreign file is drawn again; another model's picture is an error."""
    if path.is_dir() and not path.is_symlink():
        if any(path.iterdir()):
            raise InputError(f"{quoted(path)} is a folder with something in it: move it away")
        path.rmdir()
        return False
    if path.is_symlink() or not path.exists():
        return False
    try:
        facts = read(path)[1]
    except InputError:
        return False
    if {name: facts[name] for name in ("prompt", "seed", "side")} != _facts(case, side):
        raise InputError(
            f"{quoted(path)} was drawn by another model, sampler or seed: remove the folder {quoted(path.parent)}"
        )
    return True
