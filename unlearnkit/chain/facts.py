"""The facts of a ledger's entries, checked and typed. This is the one place that knows the keys of each kind of entry.

A correct hash shows that a line was not changed, not that we wrote it. A missing key or a wrong type raises InputError
with the line and the key, before the entry is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from ..errors import InputError, quoted
from ..oldnames import current
from ..schema import Concept, Kind, Request
from .ledger import LEDGER, Entry
from .table import Table

__all__ = [
    "REGIMES",
    "Added",
    "ChainOptions",
    "Change",
    "Evaluation",
    "Rate",
    "Rates",
    "Remade",
    "Reverted",
    "Stored",
    "changes",
    "options_of",
]

REGIMES = ("sequential", "joint", "merged")
FORMAT = 1
KINDS = ("add", "undo", "drop")
SIDES = ("before", "after")


@dataclass(frozen=True)
class Rate:
    """``k`` of ``n`` pictures, the share ``value``, and its 95 % interval ``low`` to ``high``."""

    k: int
    n: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Rates:
    """The rate of the base model, and of the model after an entry."""

    before: Rate
    after: Rate


@dataclass(frozen=True)
class Stored:
    """The file of an edit. hash: of its weights, also the file's name. sha256, bytes: of the file."""

    hash: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Evaluation:
    """The evaluation after an entry. folder: its name below ``looks``. sha256: of its ``evaluation.json``.

    files: sha256 of the list of its files; None in older chains without such a list.
    seen: by concept, kept: by group, the rates before and after.
    """

    folder: str
    sha256: str
    files: str | None
    seen: Mapping[str, Rates]
    kept: Mapping[str, Rates]
    kid: float | None


@dataclass(frozen=True)
class ChainOptions:
    """The options of ``init``. base: the fingerprint of the base model. evaluators: by kind. Others: see ``init``."""

    model: str
    base: str
    dtype: str
    variant: str | None
    regime: str
    method: str
    settings: Mapping[str, Any]
    guards: Mapping[str, Any]
    merge: Mapping[str, Any]
    pictures: int
    evaluators: Mapping[str, str]
    time: str


@dataclass(frozen=True)
class Change:
    """The facts of every later entry. weights: the fingerprint of the model after it."""

    number: int
    kind: str
    hash: str
    weights: str
    edit_seconds: float
    evaluation_seconds: float
    drift: float
    layers: Mapping[str, float]
    evaluation: Evaluation | None
    time: str


@dataclass(frozen=True)
class Added(Change):
    """A request. recipe: method, settings, seed, guards. after: numbers of the requests on which its edit builds.

    instead: by the name of a concept, the word that took its place; also of concepts that were erased once more, where
    it is empty if nothing did.
    """

    request: Request
    recipe: Mapping[str, Any]
    edit: Stored
    after: tuple[int, ...]
    instead: Mapping[str, str]

    @property
    def made(self) -> tuple[Stored, ...]:
        """The edits that this entry added."""
        return (self.edit,)


@dataclass(frozen=True)
class Remade:
    """An edit that was made again because an earlier request was reverted."""

    request: int
    edit: Stored
    after: tuple[int, ...]
    instead: Mapping[str, str]


@dataclass(frozen=True)
class Reverted(Change):
    """Requests that were reverted by undo or drop."""

    removes: tuple[int, ...]
    remade: tuple[Remade, ...]

    @property
    def made(self) -> tuple[Stored, ...]:
        """The edits that this entry added."""
        return tuple(again.edit for again in self.remade)


def options_of(entries: Sequence[Entry]) -> ChainOptions:
    """The first entry. Raises InputError if it is not an init entry."""
    entry = entries[0]
    at = Table(entry.facts, f"{LEDGER}, line 1")
    if entry.kind != "init":
        raise InputError(f"{at.where} is damaged: its kind is {quoted(entry.kind)}, not 'init'")
    if (found := at.whole("format", least=1)) != FORMAT:
        raise InputError(
            f"{at.where} has format {found}, and this unlearnkit reads {FORMAT}: use a newer one"
        )
    at.digest("weights")
    looks = at.table("looks")
    regime = at.text("regime")
    if regime not in REGIMES:
        raise at.wrong("regime", regime, f"one of {', '.join(REGIMES)}")
    sources = {name: looks.maybe(name, looks.text) for name in ("objects", "styles", "clip")}
    return ChainOptions(
        model=at.text("model"),
        base=at.digest("base"),
        dtype=at.text("dtype"),
        variant=at.text("variant") if "variant" in at.data else None,
        regime=regime,
        method=at.text("method"),
        settings=current(at.text("method"), at.table("settings").data),
        guards=current("guards", at.table("guards").data),
        merge=at.table("merge").data,
        pictures=looks.whole("pictures"),
        evaluators={name: source for name, source in sources.items() if source is not None},
        time=at.time(),
    )


def changes(entries: Sequence[Entry]) -> tuple[Added | Reverted, ...]:
    """All entries but the first. Raises InputError for wrong facts, and for numbers of requests that are not active."""
    changes: list[Added | Reverted] = []
    active: set[int] = set()
    for entry in entries[1:]:
        at = Table(entry.facts, f"{LEDGER}, line {entry.number + 1}")
        if entry.kind not in KINDS:
            raise InputError(f"{at.where} is damaged: its kind {quoted(entry.kind)} is unknown")
        common = _common(entry, at)
        if entry.kind == "add":
            added = Added(
                **common,
                request=_request(at.table("request")),
                recipe=_recipe(at.table("recipe")),
                edit=_stored(at.table("edit")),
                after=at.numbers("after"),
                instead=_instead(at),
            )
            _known(at, "after", added.after, active)
            active.add(entry.number)
            changes.append(added)
            continue
        removes = at.numbers("removes")
        if not removes:
            raise at.wrong("removes", [], "the numbers of requests")
        _known(at, "removes", removes, active)
        active -= {*removes}
        reverted = Reverted(**common, removes=removes, remade=tuple(map(_remade, at.tables("remade"))))
        for again in reverted.remade:
            _known(at, "remade", (again.request, *again.after), active)
        changes.append(reverted)
    return tuple(changes)


def _known(at: Table, name: str, numbers: Sequence[int], active: set[int]) -> None:
    if len({*numbers}) < len(numbers) or not active.issuperset(numbers):
        raise at.wrong(name, list(numbers), "active requests")


def _common(entry: Entry, at: Table) -> dict[str, Any]:
    drift = at.table("drift")
    layers = drift.table("layers")
    at.digest("before")
    return {
        "number": entry.number,
        "kind": entry.kind,
        "hash": entry.hash,
        "weights": at.digest("weights"),
        "edit_seconds": at.number("making", least=0.0),
        "evaluation_seconds": at.number("looking", least=0.0),
        "drift": drift.number("total", least=0.0),
        "layers": {name: layers.number(name, least=0.0) for name in layers.data},
        "evaluation": at.maybe("look", lambda name: _evaluation(at.table(name))),
        "time": at.time(),
    }


def _request(at: Table) -> Request:
    try:
        return Request(
            tuple(map(_concept, at.tables("erase"))),
            tuple(map(_concept, at.tables("keep"))),
        )
    except InputError as error:  # empty, or both erased and kept
        raise at.said(error) from None


def _concept(at: Table) -> Concept:
    kind, phrases = cast(Kind, at.text("kind")), at.texts("phrases")
    try:
        instead = at.maybe("instead", lambda name: at.text(name, empty=True))  # empty: nothing
        return Concept(at.text("name"), kind, phrases, instead)
    except InputError as error:
        raise at.said(error) from None


def _recipe(at: Table) -> Mapping[str, Any]:
    at.whole("seed")
    settings = current(at.text("method"), at.table("settings").data)
    return {**at.data, "settings": settings, "guards": current("guards", at.table("guards").data)}


def _stored(at: Table) -> Stored:
    return Stored(at.digest("hash"), at.digest("sha256"), at.whole("bytes"))


def _remade(at: Table) -> Remade:
    return Remade(at.whole("request"), _stored(at.table("edit")), at.numbers("after"), _instead(at))


def _instead(at: Table) -> Mapping[str, str]:
    """Empty in chains of earlier versions, which did not write it down."""
    if "instead" not in at.data:
        return {}
    places = at.table("instead")
    return {name: places.text(name, empty=True) for name in places.data}


def _evaluation(at: Table) -> Evaluation:
    return Evaluation(
        folder=at.digest("folder", length=16),
        sha256=at.digest("sha256"),
        files=at.digest("files") if "files" in at.data else None,
        seen=_rates(at.table("seen")),
        kept=_rates(at.table("kept")),
        kid=at.maybe("kid", at.number),
    )


def _rates(at: Table) -> dict[str, Rates]:
    tables = {name: at.table(name) for name in at.data}
    return {name: Rates(*(_rate(one.table(side)) for side in SIDES)) for name, one in tables.items()}


def _rate(at: Table) -> Rate:
    numbers = {name: at.number(name, least=0.0, most=1.0) for name in ("value", "low", "high")}
    return Rate(at.whole("k"), at.whole("n", least=1), **numbers)
