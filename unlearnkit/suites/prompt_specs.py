"""From prompts to cases: stable ids, and for each picture a seed that depends on suite, prompt and replicate alone."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from ..io.files import slug
from ..schema import Case, Role
from ..seeds import derive

__all__ = ["PromptSpec", "build_cases"]


@dataclass(frozen=True)
class PromptSpec:
    """A Case without ids. seeds: those that a published protocol or a file fixes; default: derived."""

    prompt: str
    role: Role
    form: str
    object: str = ""
    style: str = ""
    concept: str = ""
    rest: str = ""
    seeds: tuple[int, ...] = ()


def build_cases(specs: Iterable[PromptSpec], *, suite: str, version: int, replicates: int) -> list[Case]:
    """The cases of all prompts. Each has ``replicates`` pictures, or one for each of its own seeds.

    Pictures of a repeated prompt are counted on, so ids never clash: to statistics it is one prompt with more pictures.
    No seed changes when other prompts come or go.
    """
    seen: Counter[str] = Counter()
    cases = []
    for spec in specs:
        first = seen[spec.prompt]
        print_ = hashlib.sha256(f"{spec.prompt}\x1f0".encode()).hexdigest()[:10]
        prompt_id = f"{slug(spec.prompt, length=40)}-{print_}"
        places = range(first, first + (len(spec.seeds) or replicates))
        numbers = spec.seeds or tuple(derive(version, suite, prompt_id, place) for place in places)
        seen[spec.prompt] += len(numbers)
        cases += [
            Case(
                *(f"{prompt_id}-{r}", prompt_id, spec.prompt, number, spec.role, spec.form),
                *(spec.object, spec.style, spec.concept, spec.rest),
            )
            for r, number in enumerate(numbers, first)
        ]
    return cases
