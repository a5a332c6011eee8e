"""Does the model know a word? Its prompts must explain the pictures that they draw better than made-up words do.

For each template f, three pictures x of f(word) are drawn and noised; o are made-up words, the same for every model:

    gain(f) = mean over x of [mean over o of |ε - ε_θ(x_t, f(o))|²] / |ε - ε_θ(x_t, f(word))|² - 1

A known word helps in every template, so the smallest gain counts. Method and constants are ours. How large a known
word's gain is depends on the model: ``[recognition]`` in its hints has the smallest allowed one, by kind.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .. import seeds
from ..errors import InputError, nearest, quoted
from ..model.model import Model
from ..model.sampling import sample_latents
from ..schema import KINDS, Concept, Request, folded
from .wording import format_prompt

__all__ = ["check_recognised", "gains"]

TEMPLATES, PICTURES, STEPS = 6, 3, 6  # pictures of each template, and their sampling steps
SHARE = {"object": 0.6, "style": 0.5}  # of the timesteps, that separated made-up words from known ones best
MOST = 8  # names of one request; each takes seconds
MADE_UP = ("moxuvi", "zefrimo", "kuborta", "lati", "cagunep")


@torch.no_grad()
def gains(model: Model, concept: Concept) -> Iterator[float]:
    """The gain of a concept's name in each template; near 0 for a word that means nothing to the model."""
    for form in _forms(model, concept.kind):
        prompts = [format_prompt(form, concept.name)] * PICTURES
        numbers = [seeds.derive(0, "recognition", form, i) for i in range(PICTURES)]
        steps = min(STEPS, model.hints.steps)
        x = sample_latents(model, prompts, numbers, steps=steps, guidance=model.hints.guidance)
        noise = torch.randn(x.shape, generator=seeds.stream(0, "recognition", form)).to(x.device)
        t = torch.full((PICTURES,), int(model.num_timesteps * SHARE[concept.kind]), device=x.device)
        x_t, target = model.add_noise(x, noise, t), model.training_target(x, noise)
        words = [concept.name, *MADE_UP]
        cond = model.encode([format_prompt(form, word) for word in words])
        own, *others = (
            (model.eps(x_t, t, one.expand(PICTURES, -1, -1)) - target).square().flatten(1).mean(1)
            for one in cond
        )
        yield float((torch.stack(others).mean(0) / own - 1).mean())


def _forms(model: Model, kind: str) -> tuple[str, ...]:
    """An object's first templates, which show little else; a style's last ones, which have an object beside it."""
    forms = model.hints.templates[kind]
    return forms[-TEMPLATES:] if kind == "style" else forms[:TEMPLATES]


def check_recognised(model: Model, request: Request) -> None:
    """Raises InputError for a name to erase that means nothing to the model.

    Not checked: words of the model's vocabulary, kinds that the hints' ``[recognition]`` lacks, and long lists.
    """
    known = {kind: {folded(word) for word in model.hints.vocabulary(kind)} for kind in KINDS}
    asks = model.hints.recognition
    checked = [one for one in request.erase if one.kind in asks and folded(one.name) not in known[one.kind]]
    for concept in checked if len(checked) <= MOST else ():
        words, least = model.hints.vocabulary(concept.kind), asks[concept.kind]
        for gain in gains(model, concept):
            if gain < least:
                close = nearest(concept.name, words)
                raise InputError(
                    f"{model.source} does not seem to know the {concept.kind} {quoted(concept.name)}{close}: its "
                    f"pictures are explained nearly as well by made-up words (gain {gain:.2f}, known ones {least:g} "
                    "or more); check name and --kind, or add --force"
                )
