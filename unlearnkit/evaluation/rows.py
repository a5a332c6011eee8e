"""The rows of each picture, and whether it shows what its prompt names."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from ..schema import KINDS, Case, Score, folded

__all__ = ["NOTHING", "Picture", "Pictures", "gather", "right", "same"]

NOTHING = "nothing"  # the label of a classifier that recognises nothing


@dataclasses.dataclass
class Picture:
    """failure: why the picture is broken; empty if it is not. words: labels by kind. numbers: other metrics."""

    image: str = ""
    failure: str = ""
    words: dict[str, str] = dataclasses.field(default_factory=dict)
    numbers: dict[str, float] = dataclasses.field(default_factory=dict)

    def shows(self, kind: str, word: str) -> bool:
        """Whether the classifier sees ``word``; a failed picture shows nothing."""
        return not self.failure and same(self.words.get(kind, ""), word)

    def seen(self, kind: str) -> str:
        """What is counted for the picture: its failure, else its label, ``"nothing"`` without one."""
        return self.failure or self.words.get(kind, "") or NOTHING


Pictures = dict[tuple[str, str], Picture]


def same(label: str, word: str) -> bool:
    """Whether a label means ``word``: one of its names is equal, apart from underscores and case."""
    names = (folded(name.replace("_", " ")) for name in label.split(","))
    return folded(word.replace("_", " ")) in names


def right(case: Case, picture: Picture) -> bool:
    """Whether the classifiers see everything that a right picture shows; false if they know none of it."""
    expected = {kind: word for kind in KINDS if kind in picture.words and (word := getattr(case, kind))}
    return bool(expected) and all(picture.shows(kind, word) for kind, word in expected.items())


def gather(scores: Iterable[Score]) -> Pictures:
    """The rows by (side, case)."""
    pictures: Pictures = {}
    for score in scores:
        picture = pictures.setdefault((score.side, score.case), Picture(image=score.image))
        name = score.metric.rpartition("/")[2]
        if name == "failure":
            picture.failure = str(score.value)
        elif isinstance(score.value, str):
            picture.words[name] = score.value
        else:
            picture.numbers[name] = score.value
    return pictures
