"""Words in sentences: a template filled, with the article that the word wants."""

from __future__ import annotations

import re

from .errors import InputError, quoted

__all__ = ["articles", "check_unicode", "fill", "until"]

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


def check_unicode(text: str) -> None:
    """Raise InputError for a text that UTF-8 cannot spell, as a command line of other bytes gives it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{quoted(text)} is not valid Unicode text: spell it in UTF-8") from None


def _n(word: str) -> str:
    word = word.lower()
    return "n" if word[:1] in tuple("aeiou") and not word.startswith(_SOUNDS) else ""
