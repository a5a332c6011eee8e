"""Two edits compared: how many points more the one keeps and the other leaves, with a 95 % interval.

Rows of size ``paired`` have what the judge saw of every prompt. Two of them on the same prompts are compared prompt by
prompt (Tango's interval at the effective number of pairs), other rows by their counts (Newcombe's interval).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from unlearnkit.evaluation.plan import AFTER, PlannedConcept
from unlearnkit.evaluation.rows import Picture, gather
from unlearnkit.metrics.stats import Interval, difference, newcombe
from unlearnkit.schema import KINDS, Case, Kind, Score

__all__ = [
    "FORMS",
    "MARGIN",
    "ahead",
    "beats",
    "beyond",
    "counted",
    "held",
    "left",
    "left_less",
    "lost",
    "more",
    "outcomes",
    "percent",
    "points",
    "told",
]

Row = Mapping[str, Any]
Verdict = bool | None  # whether it holds; None where the rows are too close to tell

MARGIN = 3.0  # points: a difference below that is none
FORMS = ("name", "synonym", "template", "background")


def outcomes(
    concepts: Iterable[PlannedConcept], cases: Sequence[Case], scores: Iterable[Score]
) -> dict[str, str]:
    """What the judge saw after the edit: 1 or 0 for each picture, the pictures of one prompt in one word.

    left: whether the erased concept is seen, of prompts that ask for it in any form. objects, styles: whether they
    are right, of retained prompts. cases: a hash of the prompts and seeds.
    """
    pictures = gather(scores)
    kinds = {concept.name: concept.kind for concept in concepts}

    def words(chosen: Sequence[Case], seen: Callable[[Case, Picture], bool]) -> str:
        bits: dict[str, str] = {}
        for case in chosen:
            one = "1" if seen(case, pictures[AFTER, case.id]) else "0"
            bits[case.prompt_id] = bits.get(case.prompt_id, "") + one
        return " ".join(bits.values())

    asked = [case for case in cases if case.role == "erased"]
    kept = [case for case in cases if case.role != "erased"]

    def right_in(kind: Kind) -> str:
        return words(kept, lambda case, picture: picture.shows(kind, getattr(case, kind)))

    right = {f"{kind}s": right_in(kind) for kind in KINDS}
    hashed = hashlib.sha256("\n".join(f"{case.prompt_id} {case.seed}" for case in cases).encode())
    shown = words(asked, lambda case, picture: picture.shows(kinds[case.concept], case.concept))
    return {"cases": hashed.hexdigest()[:12], "left": shown, **right}


def left(row: Row, *forms: str) -> float:
    """Per cent of pictures on which what was erased is still seen; default: prompts by name."""
    return percent([counted(row, forms or ("name",))])


def held(row: Row, kind: str = "", side: str = "after") -> float:
    """Per cent of the other cells' pictures that show what they should, objects and styles together or of one kind."""
    return percent([counts[side] for group, counts in row["kept"].items() if group.endswith(kind)])


def lost(row: Row, kind: str = "") -> float:
    """Points of ``held`` that were lost."""
    return held(row, kind, "before") - held(row, kind)


def counted(row: Row, forms: Sequence[str]) -> list[int]:
    """[k, n] of the pictures of these forms together."""
    return [sum(row["left"][form][at] for form in forms if form in row["left"]) for at in (0, 1)]


def percent(counts: Sequence[Sequence[int]]) -> float:
    """Per cent of [k, n] taken together."""
    return 100 * sum(k for k, _ in counts) / max(1, sum(n for _, n in counts))


def ahead(one: Row, other: Row) -> Interval:
    """How many points more the first keeps, plus how many less it leaves, of prompts in any of ``FORMS``.

    The interval is that of a sum of two independent estimates (MOVER, Zou and Donner 2008).
    """
    parts = [_kept_more(one, other), left_less(one, other)]
    value = sum(part.value for part in parts)
    below = math.hypot(*(part.value - part.low for part in parts))
    above = math.hypot(*(part.high - part.value for part in parts))
    return points(Interval(value, value - below, value + above))


def told(one: Row, other: Row) -> str:
    """``ahead`` in words, with the number of pictures of retained prompts; each shows an object and a style."""
    pictures = [counts["after"][1] for group, counts in one["kept"].items() if group.endswith("objects")]
    gap, n = ahead(one, other), sum(pictures)
    how = "paired" if _paired(one, other) else "not paired"
    return f"ahead by {gap.value:+.1f} points ({gap.low:.1f} to {gap.high:.1f}; {how}, n = {n})"


def beats(one: Row, *others: Row) -> Verdict:
    """Whether it is ahead of each of the others; False where it is not by ``MARGIN``, None where unclear."""
    verdicts = [beyond(ahead(one, other)) for other in others]
    return False if False in verdicts else None if None in verdicts else True


def more(one: Sequence[int], other: Sequence[int]) -> Verdict:
    """Whether the first of two shares [k, n] is the larger; False where it is not by ``MARGIN`` points."""
    return beyond(points(newcombe(*one, *other)))


def points(share: Interval) -> Interval:
    """The same in points."""
    return Interval(100 * share.value, 100 * share.low, 100 * share.high)


def beyond(gap: Interval) -> Verdict:
    """Whether a difference in points is above 0; False where it is below ``MARGIN``, None where unclear."""
    return True if gap.low > 0 else False if gap.high < MARGIN else None


def _paired(one: Row, other: Row) -> bool:
    hashes = [row.get("outcomes", {}).get("cases") for row in (one, other)]
    return hashes[0] is not None and hashes[0] == hashes[1]


def _kept_more(one: Row, other: Row) -> Interval:
    """A picture's object and style are not independent; without pairs they count as one judgement, half each."""
    if _paired(one, other):
        return _difference(one, other, [f"{kind}s" for kind in KINDS])
    sums = [
        [sum(each["after"][at] for each in row["kept"].values()) / 2 for at in (0, 1)] for row in (one, other)
    ]
    return newcombe(*sums[0], *sums[1])


def left_less(one: Row, other: Row) -> Interval:
    """How much less of the erased concept the first leaves, as a share of the pictures that ask for it."""
    if _paired(one, other):
        return _difference(other, one, ("left",))
    return newcombe(*counted(other, FORMS), *counted(one, FORMS))


def _difference(one: Row, other: Row, names: Sequence[str]) -> Interval:
    """The share of the first less that of the second; pictures of one prompt are not independent."""
    pairs = [
        (place, bit == "1", bit_of_other == "1")
        for name in names
        for place, words in enumerate(
            zip(*(row["outcomes"][name].split() for row in (one, other)), strict=True)
        )
        for bit, bit_of_other in zip(*words, strict=True)
    ]
    prompts, ours, theirs = zip(*pairs, strict=True)
    return difference(theirs, ours, prompts)
