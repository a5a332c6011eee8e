"""Does the evaluator tell the truth? Models whose verdict is known, put through the whole evaluation of the canvas."""

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
from ..metrics.stats import needed
from ..models.edit import Edit
from ..schema import Case, Concept, Request
from .draw import Side, model_side
from .evaluate import Tick, evaluate
from .plan import AFTER, BEFORE, NEVER_KNEW, Rules, plan_for, thinned

if TYPE_CHECKING:
    from ..metrics.evaluators import Evaluators
    from ..models.model import Model

__all__ = ["EXPECTED", "filtered", "self_test", "spoiler", "trial"]

EXPECTED = {
    "identity": "nothing changed",
    "blank": "collapsed",
    "noise": "collapsed",
    "filter": "suppressed",
    "never knew": "gone",
}


def self_test(
    folder: Path, *, batch: int | None = None, tick: Tick | None = None
) -> dict[str, dict[str, Any]]:
    """Evaluate, on the canvas: an edit that changes nothing, blank pictures, noise, a filter of prompts, and a model
    that never knew the concept. Returns the verdicts by name, to be held against ``EXPECTED``.
    """
    from ..canvas import world
    from ..canvas.check import never_knew
    from ..families.opening import quiet
    from ..metrics import evaluators as known
    from ..models.load import load

    model = load("canvas")
    with quiet():
        twin, tools = never_knew(), known.canvas_evaluators()
    name = world.NEVER_KNEW_OBJECTS[0]
    missing = {"object": list(world.NEVER_KNEW_OBJECTS), "style": list(world.NEVER_KNEW_STYLES)}
    before = _remembering(model_side(BEFORE, model, batch=batch))
    reference = _remembering(model_side(NEVER_KNEW, twin, batch=batch))
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
    """The verdict on the second side, held against the first; missing: what the third, the reference, never knew."""
    cases, left_out = _asked(request, missing)
    plan = plan_for("canvas", request, cases, left_out, sides, tools, Rules(), missing=missing)
    return evaluate(folder, cases, sides, plan, tools, tick=tick)


def _asked(request: Request, missing: Mapping[str, Sequence[str]]) -> tuple[list[Case], list[str]]:
    """The canvas's suite, thinned: as many prompts as a claim needs of what is erased, a few of what stays.

    What the reference never knew besides the concept is left out: it is no fair test of what stays.
    """
    cases, left_out = suites.cases("canvas", request)
    others = {word for words in missing.values() for word in words} - {one.name for one in request.erase}
    fair = [case for case in cases if not {case.object, case.style} & others]
    erased, kept = ([case for case in fair if (case.role == "erased") == want] for want in (True, False))
    return thinned(erased, each=needed(Rules().limit)) + kept[::8], left_out


def _remembering(side: Side) -> Side:
    """The same side, which draws a picture once and shows it to every trial."""
    drawn: dict[tuple[str, int], Image.Image] = {}

    def sample(prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        asked = list(zip(prompts, seeds, strict=True))
        if fresh := [one for one in asked if one not in drawn]:
            pictures = side.sample([prompt for prompt, _ in fresh], [seed for _, seed in fresh])
            drawn.update(zip(fresh, pictures, strict=True))
        return [drawn[one] for one in asked]

    return dataclasses.replace(side, sample=sample)


def filtered(word: str, model: Model, plain: Side) -> Side:
    """A side of a model behind a filter: a prompt that names ``word`` loses it, and has it as negative prompt.

    The weights stay as they are, and whoever finds another word gets the picture.
    """
    named = re.compile(rf"\b{re.escape(word)}\b", re.IGNORECASE)

    def sample(prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        struck = [i for i, prompt in enumerate(prompts) if named.search(prompt)]
        others = [i for i, prompt in enumerate(prompts) if not named.search(prompt)]
        words, numbers = [named.sub("", prompts[i]) for i in struck], [seeds[i] for i in struck]
        pictures = model.sample(words, numbers, negative=word, batch=plain.batch)
        pictures += plain.sample([prompts[i] for i in others], [seeds[i] for i in others])
        found = dict(zip(struck + others, pictures, strict=True))
        return [found[i] for i in range(len(prompts))]

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
