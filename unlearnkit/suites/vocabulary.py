"""The words of a model's vocabulary, each in a few of its own templates: one panel of prompts, whatever is erased.

The file is a model's ``unlearnkit.toml`` (see ``hints``). A right picture shows the words of the vocabulary that are in
its prompt. Every model of a sequence can be evaluated on the same panel with the same noise. A word counts as retained
until it is erased, and as erased from then on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..data.superclasses import broader
from ..data.wording import contains_word, format_prompt
from ..errors import InputError, quoted
from ..io.reading import read_text
from ..model.hints import Hints, parse
from ..schema import KINDS, Case, Kind, Request, Role, folded
from .prompt_specs import PromptSpec, build_cases

__all__ = ["cases", "panel"]

NAME, VERSION, NEEDS_FILE = "vocabulary", 2, True
SUMMARY = "the words of a model's unlearnkit.toml, each in a few of its templates"
EACH = 5  # prompts of a word
WORDS_MOST = 3000  # of a vocabulary


def cases(request: Request, replicates: int, file: Path | None) -> tuple[list[Case], list[str]]:
    if file is None:
        raise InputError(f"suite {NAME!r} takes the words of a model's unlearnkit.toml")
    hints = parse(read_text(file, what="file"), where=str(file))
    if len(hints.objects) + len(hints.styles) > WORDS_MOST:
        raise InputError(f"file {quoted(file)} has over {WORDS_MOST:,} words: use a smaller vocabulary")
    return panel(request, hints, EACH, replicates), []


def panel(request: Request, hints: Hints, each: int, replicates: int = 1) -> list[Case]:
    """``each`` prompts of every word of the vocabulary and of every erased concept, at most one for each template.

    replicates: pictures of each prompt, multiplied if there are fewer than ``each`` templates.
    """
    forms = max(1, min(each, min(len(hints.templates.get(kind, ("{}",))) for kind in KINDS)))
    specs = {one.prompt: one for one in _specs(request, hints, forms)}
    again = -(-each // forms) * replicates
    return build_cases(specs.values(), suite=NAME, version=VERSION, replicates=again)


def _specs(request: Request, hints: Hints, forms: int) -> Iterator[PromptSpec]:
    for kind in KINDS:
        templates = hints.templates.get(kind, ("{}",))
        own = [wording for one in request.erase if one.kind == kind for wording in one.wordings]
        for offset, word in enumerate(dict.fromkeys((*hints.vocabulary(kind), *own))):
            for k in range(forms):
                prompt = format_prompt(templates[(offset + k) % len(templates)], word)
                shown = {
                    one: _word(prompt, word if one == kind else "", hints.vocabulary(one)) for one in KINDS
                }
                yield _spec(prompt, shown, request)


def _word(prompt: str, own: str, words: Sequence[str]) -> str:
    """The word that a right picture of the prompt shows: its own, else the longest word in the prompt."""
    return own or max((word for word in words if contains_word(prompt, [word])), key=len, default="")


def _spec(prompt: str, shown: Mapping[Kind, str], request: Request) -> PromptSpec:
    for concept in request.erase:
        if folded(shown[concept.kind]) in concept.folded:
            looks = dict(shown) | {concept.kind: concept.name}
            return PromptSpec(prompt, "erased", "name", looks["object"], looks["style"], concept.name)
    near = {broader(one.name) for one in request.erase if one.kind == "object"} - {None}
    role: Role = "near" if broader(shown["object"]) in near else "unrelated"
    return PromptSpec(prompt, role, "name", shown["object"], shown["style"])
