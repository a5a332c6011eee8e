"""What the four papers claim, the cells that each claim needs, and what the rows say of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cells import ROWS, TARGETS, Cell
from held_out import STEPS
from rows import read

__all__ = ["CLAIMS", "EXPERIMENTS", "beats", "error", "held", "left", "lost", "more"]

TEN = ("cat", "frog", "owl", "car", "rocket", "apple", "pizza", "tree", "house", "guitar")
FIVE = ("cat", "van gogh", "car", "neon", "tree")

Changes = dict[str, dict[str, Any]]  # by name: the settings that differ from the shipped ones
DUGE: Changes = {
    "without prior": {"retain_weight": 0.0, "memory": 0},
    "without memory": {"memory": 0},
    "without regularisation": {"rule": ()},
    "attention alone": {"output_weight": 0.0},
    "without attention": {"attention_weight": 0.0, "output_weight": 1.0},
}
RGD: Changes = {
    "without diversity": {"diverse": False, "neighbours": 1},
    "nearest two": {"neighbours": 2},
    "sum": {"combine": "sum"},
}
DOCO: Changes = {
    "without surgery": {"combine": "sum", "adds": 0.0},
    "surgery alone": {"adds": 0.0},
    "released": {"released": True, "adds": 0.0},
}
SCULPTING: Changes = {
    "dense": {"mask": "none"},
    "static mask": {"mask": "saliency"},
    "without distillation": {"distil_weight": 0.0},
    "without superclass": {"retain_weight": 0.0},
    "without replay": {"replay_weight": 0.0},
}


def _sculpting(order: str = "sequence", **changes: Any) -> Cell:
    return Cell("sculpting", TEN, settings={"order": order} | changes)


SMALL: tuple[Cell, ...] = (
    *(Cell("duge", ("cat",), settings=changes) for changes in DUGE.values()),
    Cell("duge", FIVE, in_turn=True),
    *(Cell("rgd", ("cat",), settings=changes) for changes in RGD.values()),
    *(Cell("doco", ("cat",), settings=changes) for changes in DOCO.values()),
)
LARGE: tuple[Cell, ...] = (
    *(_sculpting(order) for order in ("joint", "sequence")),
    *(_sculpting(**changes) for changes in SCULPTING.values()),
    *(Cell(method, TEN, in_turn=turn) for method in ("salun", "esd") for turn in (False, True)),
)
EXPERIMENTS = (
    *(replace(cell, size="quick") for cell in SMALL),
    *(replace(cell, size="some") for cell in LARGE),
)


Row = Mapping[str, Any]
Find = Callable[[Cell], Row | None]
Verdict = bool | None  # whether it holds; None where the rows are too close to tell
Said = tuple[Verdict, str] | None  # that, and the figure; None where a row is missing


def left(row: Row, *forms: str) -> float:
    """Per cent of pictures on which what was erased is still seen; default: prompts by name."""
    return _share([_counts(row, forms or ("name",))])


def held(row: Row, kind: str = "", side: str = "after") -> float:
    """Per cent of the other cells' pictures that show what they should, objects and styles together or of one kind."""
    return _share([counts[side] for group, counts in row["kept"].items() if group.endswith(kind)])


def lost(row: Row, kind: str = "") -> float:
    """Points of ``held`` that were lost."""
    return held(row, kind, "before") - held(row, kind)


def alignment(row: Row) -> float:
    """The change of the CLIP score of kept prompts, in per cent of the untouched model's."""
    share: float = row["clip"]["after"] / row["clip"]["before"]
    return 100 * (share - 1)


def _counts(row: Row, forms: Sequence[str]) -> list[int]:
    """[k, n] of the pictures of these forms together."""
    return [sum(row["left"][form][at] for form in forms if form in row["left"]) for at in (0, 1)]


def _share(counts: Sequence[Sequence[int]]) -> float:
    """Per cent of [k, n] taken together."""
    return 100 * sum(k for k, _ in counts) / max(1, sum(n for _, n in counts))


UNSEEN = ("synonym", "template", "background")


def shipped(method: str, target: str = "cat") -> Cell:
    return Cell(method, (target,))


def on(*needed: Cell) -> Callable[[Callable[..., tuple[Verdict, str]]], Callable[[Find], Said]]:
    """A claim that needs these cells' rows."""

    def claim(judged: Callable[..., tuple[Verdict, str]]) -> Callable[[Find], Said]:
        def said(find: Find) -> Said:
            found = [row for cell in needed if (row := find(cell))]
            return judged(*found) if len(found) == len(needed) else None

        return said

    return claim


@on(*(shipped("rgd", target) for target in TARGETS))
def _rgd_erases(*all_four: Row) -> tuple[bool, str]:
    most, moved = max(map(left, all_four)), max(abs(alignment(row)) for row in all_four)
    return most <= 1 and moved <= 1, f"at most {most:.1f} % left, alignment moves by at most {moved:.1f} %"


def _rgd_both(find: Find) -> Said:
    both = {}
    for row in read(ROWS):
        if row["key"].get("claim") == STEPS:
            method, combine = row["key"]["method"], row["key"]["settings"].get("combine", "restricted")
            both[method if method == "graddiff" else combine] = row["both"]
    if not {"restricted", "graddiff"} <= set(both):
        return None
    figures = ", ".join(f"{name} {_share([counts]):.0f} %" for name, counts in sorted(both.items()))
    return more(both["restricted"], both["graddiff"]), f"share of steps: {figures}"


@on(
    shipped("rgd"),
    *(Cell("rgd", ("cat",), settings=RGD[name]) for name in ("without diversity", "nearest two")),
)
def _rgd_diverse(whole: Row, plain: Row, nearest: Row) -> tuple[Verdict, str]:
    figures = [f"{name} {left(row):.1f} % left, {held(row):.1f} % kept" for name, row in
               (("diverse", whole), ("not", plain), ("two nearest concepts", nearest))]  # fmt: skip
    return beats(whole, plain, nearest), "; ".join(figures)


@on(shipped("doco"), shipped("doco", "van gogh"))
def _doco_unseen(*both: Row) -> tuple[bool, str]:
    worst = max(left(row, form) - left(row) for row in both for form in UNSEEN if form in row["left"])
    return worst <= 2, f"the worst unseen form has {worst:+.1f} points of what is left by name"


@on(*(shipped(method, target) for target in ("cat", "van gogh") for method in ("doco", "ca")))
def _doco_beats_ca(doco_cat: Row, ca_cat: Row, doco_style: Row, ca_style: Row) -> tuple[Verdict, str]:
    pairs = ((doco_cat, ca_cat), (doco_style, ca_style))
    figures = "; ".join(
        f"DoCo {left(ours, *UNSEEN):.1f} %, CA {left(theirs, *UNSEEN):.1f} %" for ours, theirs in pairs
    )
    less = [more(*(_counts(row, UNSEEN) for row in (theirs, ours))) for ours, theirs in pairs]
    return _together(less), f"left on unseen forms, cat and van gogh: {figures}"


def error(row: Row) -> float:
    """The standard error of kept less left by name, in points."""
    kept = [counts["after"] for counts in row["kept"].values()]
    parts = [(held(row) / 100, sum(n for _, n in kept)), (left(row) / 100, row["left"]["name"][1])]
    return 100 * math.sqrt(sum(share * (1 - share) / n for share, n in parts))


def beats(one: Row, *others: Row) -> Verdict:
    """Whether it keeps more, less what is left by name, than each of the others; None within the noise (95 %)."""
    verdicts = []
    for other in others:
        ahead = (held(one) - left(one)) - (held(other) - left(other))
        verdicts.append(ahead > 0 if abs(ahead) > 1.96 * math.hypot(error(one), error(other)) else None)
    return False if False in verdicts else None if None in verdicts else True


def more(one: Sequence[int], other: Sequence[int]) -> Verdict:
    """Whether the first of two shares [k, n] is the larger; None within the noise (95 %)."""
    (p, n), (q, m) = ((k / n, n) for k, n in (one, other))
    noise = 1.96 * math.sqrt(p * (1 - p) / n + q * (1 - q) / m)
    return p > q if abs(p - q) > noise else None


def _together(verdicts: Sequence[Verdict]) -> Verdict:
    """Whether it holds somewhere and fails nowhere; None where it is told nowhere."""
    return False if False in verdicts else True if True in verdicts else None


def _better(whole: Row, name: str, other: Row) -> tuple[Verdict, str]:
    """Whether more is kept and less is left than in the variant of this name, in points together."""
    figures = [f"{left(row):.1f} % left and {held(row):.1f} % kept" for row in (whole, other)]
    return beats(whole, other), f"{figures[0]}; {name}: {figures[1]}"


def _doco_variant(name: str) -> Callable[[Find], Said]:
    pair = (shipped("doco"), Cell("doco", ("cat",), settings=DOCO[name]))
    return on(*pair)(lambda whole, other: _better(whole, name, other))


def _ten(order: str) -> Callable[[Find], Said]:
    @on(_sculpting(order))
    def judged(row: Row) -> tuple[bool, str]:
        moved = 100 * (row["clip"]["after"] - row["clip"]["before"])
        return left(row) <= 2 and abs(moved) <= 1, f"{left(row):.1f} % left, alignment {moved:+.1f} points"

    return judged


@on(_sculpting(), _sculpting(mask="none"), _sculpting(mask="saliency"),
    Cell("salun", TEN, in_turn=True), Cell("esd", TEN, in_turn=True))  # fmt: skip
def _ten_rivals(*found: Row) -> tuple[Verdict, str]:
    names = ("dynamic mask", "dense", "static mask", "SalUn", "ESD")
    figures = [
        f"{name} {left(row):.1f} % left, {held(row):.1f} % kept"
        for name, row in zip(names, found, strict=True)
    ]
    return beats(*found), "; ".join(figures)


def _without(part: str) -> Callable[[Find], Said]:
    @on(_sculpting(), _sculpting(**SCULPTING[part]))
    def judged(whole: Row, less: Row) -> tuple[Verdict, str]:
        most = [max(_share([counts]) for counts in row["by concept"].values()) for row in (whole, less)]
        figures = [f"{left(row):.1f} % left (the worst concept {worst:.1f} %), {held(row):.1f} % kept"
                   for row, worst in zip((whole, less), most, strict=True)]  # fmt: skip
        return beats(whole, less), f"with: {figures[0]}; {part}: {figures[1]}"

    return judged


@on(shipped("duge"), shipped("duge", "van gogh"))
def _duge_erases(*both: Row) -> tuple[bool, str]:
    most, gone = max(map(left, both)), max(map(lost, both))
    return most <= 2 and gone <= 3, f"at most {most:.1f} % left, at most {gone:.1f} points lost on the rest"


@on(Cell("duge", FIVE, in_turn=True))
def _duge_five(row: Row) -> tuple[bool, str]:
    return left(row) <= 5 and lost(
        row
    ) <= 3, f"{left(row):.1f} % left, {lost(row):.1f} points lost on the rest"


def _duge_without(part: str) -> Callable[[Find], Said]:
    pair = (shipped("duge"), Cell("duge", ("cat",), settings=DUGE[part]))
    return on(*pair)(lambda whole, less: _better(whole, part, less))


CLAIMS: dict[str, Callable[[Find], Said]] = {
    "RGD erases 99 % with alignment within 1 % of the base": _rgd_erases,
    "RGD lets both held-out losses fall in more steps than GradDiff": _rgd_both,
    "RGD needs diverse data: it leaves less and keeps more with it": _rgd_diverse,
    "DoCo erases unseen wordings and backgrounds within 2 points of those it saw": _doco_unseen,
    "DoCo leaves less on unseen wordings than CA": _doco_beats_ca,
    "DoCo's surgery is worth more than plain addition": _doco_variant("without surgery"),
    "DoCo's projection is worth more than the released code's": _doco_variant("released"),
    "Sculpting Memory leaves 2 % of ten concepts at once, alignment within a point": _ten("joint"),
    "Sculpting Memory leaves 2 % of ten concepts in sequence, alignment within a point": _ten("sequence"),
    "Sculpting Memory's ten in sequence beat dense, static mask, SalUn and ESD": _ten_rivals,
    **{
        f"Sculpting Memory is worse {part}": _without(part)
        for part in SCULPTING
        if part.startswith("without")
    },
    "DUGE erases an object and a style, the rest within 3 points": _duge_erases,
    "DUGE erases five requests in a row: at most 5 % left, the rest within 3 points": _duge_five,
    **{f"DUGE is worse {part}": _duge_without(part) for part in DUGE if part.startswith("without")},
    "DUGE's attention loss alone leaks": _duge_without("attention alone"),
}
