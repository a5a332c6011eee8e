"""Words in sentences: a template filled, with the article that the word wants."""

from __future__ import annotations

import re

__all__ = ["articles", "fill", "until"]

_SOUNDS = ("uni", "eu", "one", "use")  # letters of a vowel, spoken otherwise: a unicorn


def fill(template: str, word: str) -> str:
    """The template with the word for ``{}``, an article just before it mended: ``fill("a {}", "owl") == "an owl"``."""
    return re.sub(
        r"(?:\b([Aa])n? )?\{\}", lambda found: (f"{found[1]}{_n(word)} " if found[1] else "") + word, template
    )


def until(template: str, word: str) -> str:
    """The filled template up to the end of the word."""
    return fill(template[: template.index("{}") + 2], word)


def articles(text: str) -> str:
    """The text with every "a" and "an" as the word behind it wants it."""
    return re.sub(r"\b([Aa])n? (?=(\w+))", lambda found: f"{found[1]}{_n(found[2])} ", text)


def _n(word: str) -> str:
    word = word.lower()
    return "n" if word[:1] in tuple("aeiou") and not word.startswith(_SOUNDS) else ""
