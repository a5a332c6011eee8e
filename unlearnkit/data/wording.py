"""Put words into templates, with the right article."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from ..schema import folded

__all__ = ["contains_word", "fix_articles", "format_prompt", "prefix_through", "sealed", "target_prompt"]

_folded = functools.lru_cache(2**16)(folded)
SPACE, END = "\x00", "\x01"  # of a sealed name; no text has them
_SOUNDS = ("uni", "eu", "one", "use")  # written with a vowel, spoken without: a unicorn


def format_prompt(template: str, word: str) -> str:
    """The template with the word for ``{}`` and the right article before it: ``("a {}", "owl")`` gives ``"an owl"``."""
    return re.sub(
        r"(?:\b([Aa])n? )?\{\}", lambda found: (f"{found[1]}{_n(word)} " if found[1] else "") + word, template
    )


def target_prompt(template: str, place: str | None) -> str:
    """The template with this word or, for "", without any; the empty prompt for None."""
    return "" if place is None else " ".join(format_prompt(template, place).split())


def prefix_through(template: str, word: str) -> str:
    """The prompt up to the end of the word."""
    return format_prompt(template[: template.index("{}") + 2], word)


def fix_articles(text: str) -> str:
    """The text with every "a" and "an" corrected for the next word. Sealed names are opened, and stay as they are."""
    text = re.sub(r"\b([Aa])n? (?=(\w+))", lambda found: f"{found[1]}{_n(found[2])} ", text)
    return text.replace(SPACE, " ").replace(END, "")


def sealed(name: str) -> str:
    """Somebody's name for ``fix_articles``, in which "Hoi An" and "an der" are no articles."""
    return name.replace(" ", SPACE) + END


def contains_word(text: str, wordings: Sequence[str]) -> bool:
    """Whether the text contains one of the wordings as whole words."""
    text = folded(text)
    # of a long list hardly any needs a pattern
    parts = (word for word in map(_folded, wordings) if word in text)
    return any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) for word in parts)


def _n(word: str) -> str:
    word = word.lower()
    return "n" if word[:1] in tuple("aeiou") and not word.startswith(_SOUNDS) else ""
