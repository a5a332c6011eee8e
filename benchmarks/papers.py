"""What the four papers claim, the cells that each claim needs, and what the rows say of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from cells import ROWS, TARGETS, Cell
from compared import (
    FORMS,
    Row,
    Verdict,
    beats,
    beyond,
    counted,
    held,
    left,
    left_less,
    lost,
    more,
    percent,
    points,
    told,
)
from held_out import STEPS
from rows import read

__all__ = ["CLAIMS", "EXPERIMENTS", "LOSSES", "duge_with"]

TEN = ("cat", "frog", "owl", "car", "rocket", "apple", "pizza", "tree", "house", "guitar")
FIVE = ("cat", "van gogh", "car", "neon", "tree")

Changes = dict[str, dict[str, Any]]  # by name: the settings that differ from the shipped ones
DUGE: Changes = {
    "without prior": {"retain_weight": 0.0, "memory": 0},
    "without memory": {"memory": 0},
    "without regularisation": {"rule": ()},
    "without attention": {"attention_weight": 0.0},
    "maps alone": {"attention_weight": 1.0, "output_weight": 0.0},
    "output alone": {"attends": "output", "attention_weight": 1.0, "output_weight": 0.0},
    "output and noise": {"attends": "output", "attention_weight": 1.0},
}
LOSSES = ("without attention", "maps alone", "output alone", "output and noise")
RGD: Changes = {
    "without diversity": {"diverse": False, "neighbours": 1},
    "nearest two": {"neighbours": 2},
}
DOCO: Changes = {
    "without surgery": {"combine": "sum", "adds": 0.0},
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


def duge_with(name: str, target: str) -> Cell:
    """DUGE with one of its variants, or as shipped."""
    return Cell("duge", (target,), settings=DUGE.get(name, {}))


DUGE_FIVE, DOCO_TEN = Cell("duge", FIVE, in_turn=True), Cell("doco", TEN)
PARTS = ("without distillation", "without superclass", "without replay")
PAIRED: tuple[Cell, ...] = (
    *(duge_with(name, target) for target in ("cat", "van gogh") for name in ("", *LOSSES)),
    *(Cell("rgd", ("cat",), settings=changes) for changes in ({}, *RGD.values())),
    DUGE_FIVE,
    *(replace(DUGE_FIVE, settings=DUGE[name]) for name in DUGE if name.startswith("without")),
    DOCO_TEN,
    *(replace(DOCO_TEN, settings=DOCO[name]) for name in ("without surgery", "released")),
    _sculpting(),
    *(_sculpting(**SCULPTING[name]) for name in PARTS),
)
SOME: tuple[Cell, ...] = (
    *(_sculpting(order) for order in ("joint", "sequence")),
    *(_sculpting(**SCULPTING[name]) for name in ("dense", "static mask")),
    *(Cell(method, TEN, in_turn=True) for method in ("salun", "esd")),
)
EXPERIMENTS = tuple(
    replace(cell, size=size) for size, cells in (("paired", PAIRED), ("some", SOME)) for cell in cells
)


Find = Callable[[Cell], Row | None]
Said = tuple[Verdict, str] | None  # that, and the figure; None where a row is missing


def alignment(row: Row) -> float:
    """The change of the CLIP score of kept prompts, in per cent of the untouched model's."""
    share: float = row["clip"]["after"] / row["clip"]["before"]
    return 100 * (share - 1)


UNSEEN = FORMS[1:]


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
    """All seeds of the newest settings. The steps of one run count as independent."""
    rows = [row for row in read(ROWS) if row["key"].get("claim") == STEPS]
    newest = {_contender(row): _but_seed(row) for row in rows}
    both = dict.fromkeys(newest, (0, 0))
    for row in rows:
        if _but_seed(row) == newest[name := _contender(row)]:
            both[name] = (both[name][0] + row["both"][0], both[name][1] + row["both"][1])
    if not {"restricted", "graddiff"} <= set(both):
        return None
    figures = ", ".join(
        f"{name} {percent([counts]):.0f} % of {counts[1]}" for name, counts in sorted(both.items())
    )
    return more(both["restricted"], both["graddiff"]), f"share of steps: {figures}"


def _contender(row: Row) -> str:
    method: str = row["key"]["method"]
    return method if method == "graddiff" else str(row["key"]["settings"].get("combine", "restricted"))


def _but_seed(row: Row) -> dict[str, Any]:
    return {name: value for name, value in row["key"].items() if name != "seed"}


@on(
    shipped("rgd"),
    *(Cell("rgd", ("cat",), settings=RGD[name]) for name in ("without diversity", "nearest two")),
)
def _rgd_diverse(whole: Row, plain: Row, nearest: Row) -> tuple[Verdict, str]:
    figures = [f"diverse {left(whole):.1f} % left, {held(whole):.1f} % kept"]
    for name, row in (("not", plain), ("two nearest concepts", nearest)):
        figures.append(f"{name} {left(row):.1f} % left, {held(row):.1f} % kept, {told(whole, row)}")
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
    less = [more(*(counted(row, UNSEEN) for row in (theirs, ours))) for ours, theirs in pairs]
    return _together(less), f"left on unseen forms, cat and van gogh: {figures}"


def _together(verdicts: Sequence[Verdict]) -> Verdict:
    """Whether it holds somewhere and fails nowhere; None where it is told nowhere."""
    return False if False in verdicts else True if True in verdicts else None


def _better(whole: Row, name: str, other: Row) -> tuple[Verdict, str]:
    """Whether more is kept and less is left than in the variant of this name, in points together."""
    figures = [f"{left(row):.1f} % left and {held(row):.1f} % kept" for row in (whole, other)]
    return beats(whole, other), f"{figures[0]}; {name}: {figures[1]}; {told(whole, other)}"


def _variant(whole: Cell, name: str, variants: Changes) -> Callable[[Find], Said]:
    pair = (whole, replace(whole, settings={**whole.settings, **variants[name]}))
    return on(*pair)(lambda row, other: _better(row, name, other))


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
        + ("" if row is found[0] else f", {told(found[0], row)}")
        for name, row in zip(names, found, strict=True)
    ]
    return beats(*found), "; ".join(figures)


@on(shipped("duge"), shipped("duge", "van gogh"))
def _duge_erases(*both: Row) -> tuple[bool, str]:
    most, gone = max(map(left, both)), max(map(lost, both))
    return most <= 2 and gone <= 3, f"at most {most:.1f} % left, at most {gone:.1f} points lost on the rest"


def _leaks(name: str) -> Callable[[Find], Said]:
    @on(shipped("duge"), duge_with(name, "cat"))
    def judged(whole: Row, alone: Row) -> tuple[Verdict, str]:
        gap = points(left_less(whole, alone))
        named = f"left by name {left(alone):.1f} %, as shipped {left(whole):.1f} %"
        figure = f"{named}; of all prompts {gap.value:+.1f} points ({gap.low:.1f} to {gap.high:.1f})"
        return beyond(gap), figure

    return judged


@on(DUGE_FIVE)
def _duge_five(row: Row) -> tuple[bool, str]:
    figure = f"{left(row):.1f} % left, {lost(row):.1f} points lost on the rest"
    return left(row) <= 5 and lost(row) <= 3, figure


CLAIMS: dict[str, Callable[[Find], Said]] = {
    "RGD erases 99 % with alignment within 1 % of the base": _rgd_erases,
    "RGD lets both held-out losses fall in more steps than GradDiff": _rgd_both,
    "RGD needs diverse data: it leaves less and keeps more with it": _rgd_diverse,
    "DoCo erases unseen wordings and backgrounds within 2 points of those it saw": _doco_unseen,
    "DoCo leaves less on unseen wordings than CA": _doco_beats_ca,
    "DoCo's surgery is worth more than plain addition, ten at once": _variant(
        DOCO_TEN, "without surgery", DOCO
    ),
    "DoCo's projection is worth more than the released code's, ten at once": _variant(
        DOCO_TEN, "released", DOCO
    ),
    "Sculpting Memory leaves 2 % of ten concepts at once, alignment within a point": _ten("joint"),
    "Sculpting Memory leaves 2 % of ten concepts in sequence, alignment within a point": _ten("sequence"),
    "Sculpting Memory's ten in sequence beat dense, static mask, SalUn and ESD": _ten_rivals,
    **{
        f"Sculpting Memory's ten in sequence are worse {part}": _variant(_sculpting(), part, SCULPTING)
        for part in PARTS
    },
    "DUGE erases an object and a style, the rest within 3 points": _duge_erases,
    "DUGE erases five requests in a row: at most 5 % left, the rest within 3 points": _duge_five,
    **{
        f"DUGE's five requests in a row are worse {part}": _variant(DUGE_FIVE, part, DUGE)
        for part in DUGE
        if part.startswith("without")
    },
    **{
        f"DUGE's attention loss alone leaks ({name})": _leaks(name) for name in ("maps alone", "output alone")
    },
}
