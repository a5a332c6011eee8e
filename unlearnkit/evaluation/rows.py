"""Rows by picture: all that is known of one picture, and whether it shows what it should."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from ..schema import KINDS, Case, Score, folded

__all__ = ["NOTHING", "Picture", "Pictures", "gather", "right", "same"]

NOTHING = "nothing"  # what a reader says that knows when it knows nothing of what it sees


@dataclasses.dataclass
class Picture:
    """Why it failed, if it did; the word that was seen, by kind; how well it fits, by metric."""

    image: str = ""
    failure: str = ""
    words: dict[str, str] = dataclasses.field(default_factory=dict)
    numbers: dict[str, float] = dataclasses.field(default_factory=dict)

    def shows(self, kind: str, word: str) -> bool:
        """Whether the reader sees ``word``; nothing is seen in a picture that failed."""
        return not self.failure and same(self.words.get(kind, ""), word)

    def seen(self, kind: str) -> str:
        """The word that counts for it: why it failed, else what was seen, ``"nothing"`` if that is no word."""
        return self.failure or self.words.get(kind, "") or NOTHING


Pictures = dict[tuple[str, str], Picture]


def same(label: str, word: str) -> bool:
    """Whether a reader's label means ``word``: one of its names is equal to it, underscores and case aside."""
    names = (folded(name.replace("_", " ")) for name in label.split(","))
    return folded(word.replace("_", " ")) in names


def right(case: Case, picture: Picture) -> bool:
    """Whether the reader sees everything that a right picture shows; false where it cannot tell anything."""
    told = {kind: word for kind in KINDS if kind in picture.words and (word := getattr(case, kind))}
    return bool(told) and all(picture.shows(kind, word) for kind, word in told.items())


def gather(scores: Iterable[Score]) -> Pictures:
    """The rows by (side, case)."""
    found: Pictures = {}
    for score in scores:
        picture = found.setdefault((score.side, score.case), Picture(image=score.image))
        name = score.metric.rpartition("/")[2]
        if name == "failure":
            picture.failure = str(score.value)
        elif isinstance(score.value, str):
            picture.words[name] = score.value
        else:
            picture.numbers[name] = score.value
    return found
