"""The words that a model says it knows, each in a few of its own templates: a fixed panel, whatever is erased.

The file is a model's ``unlearnkit.toml`` (see ``hints``). What a right picture shows is which of these words stand in
the prompt. The same panel, with the same noise, can be asked of every model of a sequence: a word counts among what is
kept until it is erased, and among what is erased from then on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..data.bank import contains_word
from ..data.superclasses import broader
from ..data.wording import format_prompt
from ..errors import InputError, quoted
from ..io.reading import read_text
from ..models.hints import Hints, parse
from ..schema import KINDS, Case, Concept, Request, Role, folded
from .asking import Question, ask

__all__ = ["cases", "known", "panel"]

NAME, VERSION, ASKS_FILE = "vocabulary", 2, True
SUMMARY = "the words of a model's unlearnkit.toml, each in a few of its templates"
EACH = 5  # prompts of a word
WORDS_MOST = 3000  # of a vocabulary


def known(concept: Concept) -> str:
    """The concept's own name."""
    return concept.name


def cases(request: Request, replicates: int, file: Path | None) -> tuple[list[Case], list[str]]:
    if file is None:
        raise InputError(f"suite {NAME!r} takes the words of a model's unlearnkit.toml")
    hints = parse(read_text(file, what="file"), where=str(file))
    if len(hints.objects) + len(hints.styles) > WORDS_MOST:
        raise InputError(f"file {quoted(file)} has over {WORDS_MOST:,} words: name fewer in its vocabulary")
    return panel(request, hints, EACH, replicates), []


def panel(request: Request, hints: Hints, each: int, replicates: int = 1) -> list[Case]:
    """``each`` prompts, as far as there are templates, of every word of the vocabulary and of what is erased.

    replicates: pictures of each prompt, more of them where there are fewer than ``each`` templates.
    """
    forms = max(1, min(each, min(len(hints.templates.get(kind, ("{}",))) for kind in KINDS)))
    questions = {one.prompt: one for one in _questions(request, hints, forms)}
    again = -(-each // forms) * replicates
    return ask(questions.values(), suite=NAME, version=VERSION, replicates=again)


def _questions(request: Request, hints: Hints, forms: int) -> Iterator[Question]:
    for kind in KINDS:
        templates = hints.templates.get(kind, ("{}",))
        own = [wording for one in request.erase if one.kind == kind for wording in one.wordings]
        for turn, word in enumerate(dict.fromkeys((*hints.vocabulary(kind), *own))):
            for k in range(forms):
                prompt = format_prompt(templates[(turn + k) % len(templates)], word)
                shown = {
                    one: _word(prompt, word if one == kind else "", hints.vocabulary(one)) for one in KINDS
                }
                yield _question(prompt, shown, request)


def _word(prompt: str, own: str, words: Sequence[str]) -> str:
    """Which of the words a right picture of the prompt shows: its own, else the longest that stands in it."""
    return own or max((word for word in words if contains_word(prompt, [word])), key=len, default="")


def _question(prompt: str, shown: dict[str, str], request: Request) -> Question:
    for concept in request.erase:
        if folded(shown[concept.kind]) in concept.folded:
            looks = dict(shown) | {concept.kind: concept.name}
            return Question(prompt, "erased", "name", looks["object"], looks["style"], concept.name)
    near = {broader(one.name) for one in request.erase if one.kind == "object"} - {None}
    role: Role = "near" if broader(shown["object"]) in near else "unrelated"
    return Question(prompt, role, "name", shown["object"], shown["style"])
