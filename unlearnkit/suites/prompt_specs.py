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

    Repetitions of a prompt are counted, so ids never clash, and no seed changes when other prompts come or go. Their
    ``prompt_id`` is the same: to statistics they are one prompt with more pictures.
    """
    seen: Counter[str] = Counter()
    cases = []
    for spec in specs:
        own, prompt_id = _name(spec.prompt, seen[spec.prompt]), _name(spec.prompt, 0)
        seen[spec.prompt] += 1
        numbers = spec.seeds or tuple(derive(version, suite, own, r) for r in range(replicates))
        cases += [
            Case(
                *(f"{own}-{r}", prompt_id, spec.prompt, number, spec.role, spec.form),
                *(spec.object, spec.style, spec.concept, spec.rest),
            )
            for r, number in enumerate(numbers)
        ]
    return cases


def _name(prompt: str, repeat: int) -> str:
    """A name that no other prompt has, nor another repetition of it."""
    hashed = hashlib.sha256(f"{prompt}\x1f{repeat}".encode()).hexdigest()[:10]
    return f"{slug(prompt, length=40)}-{hashed}"
