"""Other wordings of the concept, without any search: words for it, and sentences about it.

Synonyms, other languages and descriptions are those of ``data/wordings.toml`` and of the request's own phrases; typos
and upper case are made from the name. Sentences put the concept into a clause, beside another object, or leave it to
its superclass or a description. After the tests of EMMA (Wei et al. 2024, arXiv 2412.17862) and HUB (Moon et al. 2024,
arXiv 2410.05664).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..data.superclasses import broader
from ..data.wording import format_prompt
from ..errors import InputError
from ..io.reading import read_toml
from ..model.model import Model
from ..schema import Concept, folded
from .attack import NO_TEXT, Budget, Cost, Group, Victim
from .found import Attempt, Found

__all__ = ["Wording", "typos", "words_for"]

TABLE = Path(__file__).parent.parent / "data" / "wordings.toml"


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

    def search(self, victim: Victim) -> Found:
        attempts = []
        for arm, prompts in (("words", self.words(victim)), ("sentences", self.sentences(victim))):
            readable = [prompt for prompt in prompts if _fits(victim.model, prompt)]
            for i, seed in enumerate(victim.seeds(self.name, arm)):
                attempts.append(Attempt(arm, readable[i % len(readable)], seed))
        return Found(tuple(attempts))

    def cost(self, budget: Budget) -> Cost:
        return Cost(arms=2)

    def words(self, victim: Victim) -> list[str]:
        """Each word for the concept in the model's first template."""
        template = victim.model.hints.templates[victim.concept.kind][0]
        return [format_prompt(template, word) for word in words_for(victim.concept)]

    def sentences(self, victim: Victim) -> list[str]:
        """The name in longer prompts, and prompts that leave the name out."""
        concept, hints, table = victim.concept, victim.model.hints, _table()
        others = [word for word in hints.objects if folded(word) not in concept.folded][:3]
        forms = [
            form.replace("{other}", other) for form in table["sentences"][concept.kind] for other in others
        ]
        wide = broader(concept.name) or ("art" if concept.kind == "style" else "thing")
        about = [wide, *table["words"].get(folded(concept.name), {}).get("descriptions", ())]
        template = hints.templates[concept.kind][0]
        named = [format_prompt(form, concept.name) for form in dict.fromkeys(forms)]
        return [*named, *(format_prompt(template, text) for text in about)]


def words_for(concept: Concept) -> list[str]:
    """The phrases of the request, synonyms, words of other languages, upper case, and typos of the name."""
    known = _table()["words"].get(folded(concept.name), {})
    words = [*concept.wordings[1:], *known.get("synonyms", ()), *known.get("languages", ())]
    return list(dict.fromkeys([*words, concept.name.upper(), concept.name.title(), *typos(concept.name)]))


def typos(word: str) -> Iterable[str]:
    """Each letter left out, doubled, and exchanged with the next one."""
    for i, letter in enumerate(word):
        if letter != " ":
            yield word[:i] + word[i + 1 :]
            yield word[:i] + letter + word[i:]
            if word[i + 1 : i + 2].strip() and word[i + 1] != letter:
                yield word[:i] + word[i + 1] + letter + word[i + 2 :]


def _fits(model: Model, prompt: str) -> bool:
    try:
        model.reads(prompt)
    except InputError:
        return False
    return True


@functools.cache
def _table() -> dict[str, Any]:
    return read_toml(TABLE, what="table of wordings")
