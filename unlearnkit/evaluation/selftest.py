"""Is the evaluation right? It evaluates models whose verdict is known, on the canvas."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from .. import suites
from ..io.tick import Tick
from ..metrics.stats import needed
from ..model.edit import Edit
from ..schema import Case, Concept, Request
from .draw import Side, model_side
from .evaluate import evaluate
from .plan import AFTER, BEFORE, NEVER_KNEW, Rules, plan_for, thinned

if TYPE_CHECKING:
    from ..metrics.evaluators import Evaluators
    from ..model.model import Model

__all__ = ["EXPECTED", "filtered", "self_test", "spoiler", "trial"]

EXPECTED = {
    "identity": "nothing changed",
    "blank": "collapsed",
    "noise": "collapsed",
    "filter": "suppressed",
    "never knew": "generalises",
}


def self_test(
    folder: Path, *, batch: int | None = None, tick: Tick | None = None
) -> dict[str, dict[str, Any]]:
    """Evaluate, on the canvas: an edit that changes nothing, blank pictures, noise, a filter of prompts, and a model
    that never knew the concept. Returns the verdicts by name, to compare with ``EXPECTED``.
    """
    from ..canvas import world
    from ..canvas.check import never_knew
    from ..families.opening import quiet
    from ..metrics import evaluators as known
    from ..model.load import load

    model = load("canvas")
    with quiet():
        twin, tools = never_knew(), known.canvas_evaluators()
    name = world.NEVER_KNEW_OBJECTS[0]
    missing = {"object": list(world.NEVER_KNEW_OBJECTS), "style": list(world.NEVER_KNEW_STYLES)}
    before = _cached(model_side(BEFORE, model, batch=batch))
    reference = _cached(model_side(NEVER_KNEW, twin, batch=batch))
    empty = Edit({}, {"base": model.fingerprint()})
    afters = {
        "identity": model_side(AFTER, model, edit=empty, batch=batch),
        "blank": spoiler("blank", model),
        "noise": spoiler("noise", model),
        "filter": filtered(name, model, before),
        "never knew": dataclasses.replace(reference, name=AFTER),
    }
    request = Request((Concept(name),))
    return {
        title: trial(
            folder / title.replace(" ", "-"), [before, after, reference], request, tools, missing, tick
        )
        for title, after in afters.items()
    }


def trial(
    folder: Path,
    sides: Sequence[Side],
    request: Request,
    tools: Evaluators,
    missing: Mapping[str, Sequence[str]],
    tick: Tick | None = None,
) -> dict[str, Any]:
    """The verdict on the second side against the first. missing: words that the third side, a reference, never knew."""
    cases, left_out = _trial_cases(request, missing)
    plan = plan_for("canvas", request, cases, left_out, sides, tools, Rules(), missing=missing)
    return evaluate(folder, cases, sides, plan, tools, tick=tick)


def _trial_cases(request: Request, missing: Mapping[str, Sequence[str]]) -> tuple[list[Case], list[str]]:
    """The canvas's suite, thinned: as many prompts of the erased concept as a claim needs, and a few retained ones.

    Other words that the reference never knew are left out: they are no fair test of the retention.
    """
    cases, left_out = suites.cases("canvas", request)
    others = {word for words in missing.values() for word in words} - {one.name for one in request.erase}
    fair = [case for case in cases if not {case.object, case.style} & others]
    erased, retained = ([case for case in fair if (case.role == "erased") == want] for want in (True, False))
    return thinned(erased, each=needed(Rules().limit))[0] + retained[::8], left_out


def _cached(side: Side) -> Side:
    """The same side, which draws each picture once for all trials."""
    drawn: dict[tuple[str, int], Image.Image] = {}

    def sample(prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        pairs = list(zip(prompts, seeds, strict=True))
        if fresh := [pair for pair in pairs if pair not in drawn]:
            pictures = side.sample([prompt for prompt, _ in fresh], [seed for _, seed in fresh])
            drawn.update(zip(fresh, pictures, strict=True))
        return [drawn[pair] for pair in pairs]

    return dataclasses.replace(side, sample=sample)


def filtered(word: str, model: Model, plain: Side) -> Side:
    """A side of a model behind a filter: ``word`` is removed from prompts and used as the negative prompt.

    The weights do not change, and another word for the concept still draws it.
    """
    named = re.compile(rf"\b{re.escape(word)}\b", re.IGNORECASE)

    def sample(prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        struck = [i for i, prompt in enumerate(prompts) if named.search(prompt)]
        others = [i for i, prompt in enumerate(prompts) if not named.search(prompt)]
        words, numbers = [named.sub("", prompts[i]) for i in struck], [seeds[i] for i in struck]
        pictures = model.sample(words, numbers, negative=word, batch=plain.batch)
        pictures += plain.sample([prompts[i] for i in others], [seeds[i] for i in others])
        by_index = dict(zip(struck + others, pictures, strict=True))
        return [by_index[i] for i in range(len(prompts))]

    identity = hashlib.sha256(f"{plain.identity} without {word}".encode()).hexdigest()
    return Side(AFTER, identity, sample, plain.fits, weights=False)


def spoiler(kind: str, model: Model) -> Side:
    """A model whose every picture is ``"blank"`` or ``"noise"``."""
    pipe: Any = model.pipe
    size = model.shape[1] * pipe.vae_scale_factor

    def blank(seed: int) -> Image.Image:
        return Image.new("RGB", (size, size), "gray")

    def noise(seed: int) -> Image.Image:
        return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size, size, 3), np.uint8))

    made: Callable[[int], Image.Image] = blank if kind == "blank" else noise

    def sample(prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        return [made(seed) for seed in seeds]

    return Side(AFTER, kind, sample)
