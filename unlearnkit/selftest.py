"""Does the evaluator tell the truth? Models whose verdict is known, put through the whole evaluation of the canvas."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from . import suites
from .claims import Rules
from .draw import Side, model_side
from .evaluate import NEVER_KNEW, Tick, evaluate, plan_for
from .schema import Case, Concept, Request

if TYPE_CHECKING:
    from .metrics.instruments import Instruments
    from .model import Model

__all__ = ["EXPECTED", "self_test", "spoiler", "thinned", "trial"]

ENOUGH = 40  # prompts of a form: with 35 of which none shows it, the bound is below the limit of 10 %

EXPECTED = {
    "identity": "nothing changed",
    "blank": "collapsed",
    "noise": "collapsed",
    "negative prompt": "suppressed",
    "never knew": "gone",
}


def self_test(folder: Path, *, batch: int = 32, tick: Tick | None = None) -> dict[str, dict[str, Any]]:
    """Evaluate, on the canvas: an edit that changes nothing, blank pictures, noise, a negative prompt, and a model that
    never knew the concept. Returns the verdicts by name, to be held against ``EXPECTED``.
    """
    from .canvas import world
    from .canvas.check import never_knew
    from .metrics import instruments as known
    from .model import load

    model, without, tools = load("canvas"), never_knew(), known.canvas()
    name = world.NEVER_KNEW_OBJECTS[0]
    missing = {"object": list(world.NEVER_KNEW_OBJECTS), "style": list(world.NEVER_KNEW_STYLES)}
    request = Request((Concept(name),))
    reference = model_side(NEVER_KNEW, without, batch=batch)
    afters = {
        "identity": model_side("after", model, batch=batch),
        "blank": spoiler("blank", model),
        "noise": spoiler("noise", model),
        "negative prompt": model_side("after", model, negative=name, batch=batch),
        "never knew": dataclasses.replace(reference, name="after"),
    }
    return {
        title: trial(
            folder / title.replace(" ", "-"),
            model,
            after,
            request,
            tools,
            reference,
            missing,
            batch=batch,
            tick=tick,
        )
        for title, after in afters.items()
    }


def trial(
    folder: Path,
    model: Model,
    after: Side,
    request: Request,
    tools: Instruments,
    reference: Side | None = None,
    missing: dict[str, list[str]] | None = None,
    *,
    batch: int = 32,
    tick: Tick | None = None,
) -> dict[str, Any]:
    """The verdict on anything that draws, held against ``model`` on a thinned suite of the canvas."""
    cases, left_out = suites.cases("canvas", request)
    erased = {concept.name for concept in request.erase}
    # what the reference never knew besides the concept is no fair test of what stays
    others = {word for words in (missing or {}).values() for word in words} - erased
    cases = thinned([case for case in cases if not {case.object, case.style} & others])
    sides = [model_side("before", model, batch=batch), after, *([reference] if reference else [])]
    plan = plan_for("canvas", request, cases, left_out, sides, tools, Rules(), missing=missing)
    return evaluate(folder, cases, sides, plan, tools, batch=batch, tick=tick)


def thinned(cases: Sequence[Case]) -> list[Case]:
    """Evenly spread cases of every role and form, as many as a claim needs and no more."""
    found = []
    for group in dict.fromkeys((case.role, case.form) for case in cases):
        part = [case for case in cases if (case.role, case.form) == group]
        count = min(ENOUGH, len(part))
        found += [part[i * len(part) // count] for i in range(count)]
    return found


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

    return Side("after", kind, sample)
