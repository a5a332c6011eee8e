"""Other wordings of the concept, without any search: words for it, and sentences about it.

Synonyms, other languages and descriptions are those of ``phrasings.toml`` and of the request's own phrases; typos
and upper case are made from the name. Sentences put the concept into a clause, beside another object, or leave it to
its superclass or a description. After the tests of EMMA (Wei et al. 2024, arXiv 2412.17862) and HUB (Moon et al. 2024,
arXiv 2410.05664).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..data.superclasses import broader
from ..data.wording import format_prompt
from ..errors import InputError
from ..model.model import Model
from ..schema import folded
from .attack import NO_TEXT, Budget, Cost, Group, Victim
from .phrasings import descriptions, sentences, words_for
from .result import Attempt, SearchResult

__all__ = ["Wording"]


@dataclass(frozen=True)
class Wording:
    name: ClassVar = "wording"
    title: ClassVar = "Other wordings"
    paper: ClassVar = "Wei et al. 2024, arXiv 2412.17862; Moon et al. 2024, arXiv 2410.05664"
    summary: ClassVar = (
        "Synonyms, typos, other languages, clauses, two objects, descriptions, the superclass."
    )
    group: ClassVar[Group] = "wording"

    def refuses(self, model: Model) -> str | None:
        return NO_TEXT if model.classes else None

    def search(self, victim: Victim) -> SearchResult:
        attempts, template = list[Attempt](), victim.model.hints.templates[victim.concept.kind][0]
        arms = {
            arm: [format_prompt(template, word) for word in words]
            for arm, words in words_for(victim.concept).items()
        }
        for arm, prompts in (*arms.items(), ("sentences", _sentences(victim))):
            readable = [prompt for prompt in prompts if _fits(victim.model, prompt)]
            for i, seed in enumerate(victim.seeds(self.name, arm) if readable else ()):
                attempts.append(Attempt(arm, readable[i % len(readable)], seed))
        return SearchResult(tuple(attempts))

    def cost(self, budget: Budget) -> Cost:
        return Cost(arms=3)  # at most: a concept may have no synonym in the table


def _sentences(victim: Victim) -> list[str]:
    """The name in longer prompts, and prompts that leave the name out."""
    concept, hints = victim.concept, victim.model.hints
    others = [word for word in hints.objects if folded(word) not in concept.folded][:3]
    forms = [form.replace("{other}", other) for form in sentences(concept.kind) for other in others]
    wide = broader(concept.name) or ("art" if concept.kind == "style" else "thing")
    named = [format_prompt(form, concept.name) for form in dict.fromkeys(forms)]
    template = hints.templates[concept.kind][0]
    return [*named, *(format_prompt(template, text) for text in (wide, *descriptions(concept)))]


def _fits(model: Model, prompt: str) -> bool:
    """Whether the model reads the prompt to its end."""
    try:
        model.reads(prompt)
    except InputError:
        return False
    return True
