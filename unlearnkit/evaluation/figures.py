"""The figures that claims are made from, typed: read once from the plain data of ``tables``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..metrics.stats import Difference, Interval, Rate

__all__ = ["ConceptFigures", "Figures", "Paired", "ReferenceFigures"]


@dataclass(frozen=True)
class Paired:
    """A share before and after on the same cases, and its change."""

    before: Rate
    after: Rate
    change: Difference

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Paired:
        return cls(Rate(**data["before"]), Rate(**data["after"]), Difference(**data["change"]))


@dataclass(frozen=True)
class ConceptFigures:
    """An erased concept. direct: prompts by name; None without any. failed: of these. forms: of other prompts."""

    name: str
    direct: Paired | None
    failed: Paired | None
    forms: Mapping[str, Paired]
    holm_p: float


@dataclass(frozen=True)
class Diversity:
    """Of pictures of retained prompts. change: None if there are too few prompts for an interval."""

    before: float
    after: float
    change: Interval | None


@dataclass(frozen=True)
class ReferenceFigures:
    """KID to a model that never knew the concept, on n prompts; floor: on prompts that both know.

    missing: the words that the reference does not know, by kind. An interval is None if there are too few prompts.
    """

    n: int
    floor_n: int
    missing: Mapping[str, Sequence[str]]
    before: Interval | None
    after: Interval | None
    floor: Interval | None


@dataclass(frozen=True)
class Figures:
    """retained: by role and kind, such as ``near objects``. unchanged: whether the edit changed no picture.

    alike: numbers of different pictures (before, after, n), if the edit leaves at most half of them.
    """

    concepts: tuple[ConceptFigures, ...]
    failed: Paired
    retained: Mapping[str, Paired]
    unchanged: bool
    alike: Mapping[str, int] | None
    diversity: Diversity | None
    reference: ReferenceFigures | None

    @classmethod
    def of(cls, tables: Mapping[str, Any]) -> Figures:
        """From the result of ``tables``."""
        changes = tables["change"].values()
        return cls(
            tuple(map(_concept, tables["concepts"])),
            Paired.of(tables["failed"]),
            {
                f"{role} {kind}s": Paired.of(figures)
                for role, kinds in tables["kept"].items()
                for kind, figures in kinds.items()
            },
            bool(changes) and all(part["identical"] == part["n"] for part in changes),
            tables.get("alike"),
            _diversity(tables["distances"].get("kept", {}).get("diversity")),
            _reference(tables["never-knew"]),
        )


def _concept(data: Mapping[str, Any]) -> ConceptFigures:
    direct, forms = data["direct"], data["forms"]
    return ConceptFigures(
        data["name"],
        Paired.of(direct) if direct else None,
        Paired.of(direct["failed"]) if direct else None,
        {form: Paired.of(figures) for form, figures in forms.items()},
        data["holm p"],
    )


def _diversity(data: Mapping[str, Any] | None) -> Diversity | None:
    if not data:
        return None
    return Diversity(data["before"]["value"], data["after"]["value"], _interval(data["change"]))


def _reference(data: Mapping[str, Any]) -> ReferenceFigures | None:
    if "kid" not in data:
        return None
    sides = (_interval(data["kid"][side]) for side in ("before", "after", "floor"))
    return ReferenceFigures(data["n"], data["floor n"], data["missing"], *sides)


def _interval(data: Mapping[str, float | None]) -> Interval | None:
    value, low, high = data["value"], data["low"], data["high"]
    return None if value is None or low is None or high is None else Interval(value, low, high)
