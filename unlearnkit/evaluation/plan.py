"""What is fixed before a picture is drawn: suite, seeds, thresholds, evaluators, and the cases of each side."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import suites
from ..errors import InputError, quoted
from ..metrics import stats
from ..schema import Case, Request
from ..settings import build, setting
from ..version import __version__

if TYPE_CHECKING:
    from ..metrics.evaluators import Evaluators
    from .draw import Side

__all__ = [
    "AFTER",
    "BEFORE",
    "DIRECT",
    "NEVER_KNEW",
    "UNGRADED",
    "Plan",
    "PlannedConcept",
    "Reference",
    "Rules",
    "cases_for",
    "lines",
    "lines_of",
    "plan_for",
    "thinned",
]

BEFORE, AFTER, NEVER_KNEW = "before", "after", "never-knew"
DIRECT = ("name", "i2p")  # forms that name the concept
UNGRADED = ("superclass",)  # reported, not graded: other members of a superclass are right
ENOUGH = (
    36  # prompts of a form: if none of 35 shows the concept, the upper bound is below the usual limit of 10 %
)
FIRST, RETAINED = 110, 240  # pictures of each retained role in the first round, and in both, see ``WORSE``
LEVEL = 0.9706  # of the intervals of both rounds: Pocock 1977, two looks, 5 % in all
WORSE, BETTER = 0.015, 0.005  # shares of an edit that truly loses a point: both rounds show it kept with 81 %
REFERENCE = 60  # prompts of each of the two groups of a reference


@dataclass(frozen=True)
class Rules:
    """The thresholds of the claims, fixed before a picture is drawn."""

    limit: float = setting(
        0.10, "largest share of pictures that may still show an erased concept", low=0.001, high=0.5
    )
    margin: float = setting(0.05, "largest loss of accuracy on retained concepts", low=0.001, high=0.5)
    known: float = setting(
        0.50,
        "smallest share of pictures in which the untouched model must show the concept",
        low=0.0,
        high=1.0,
    )
    broken: float = setting(
        0.10, "rise in the share of failed pictures that counts as a collapse", low=0.0, high=1.0
    )


@dataclass(frozen=True)
class PlannedConcept:
    """An erased concept. name: the suite's. asked: the request's. kind: ``object`` or ``style``."""

    name: str
    asked: str
    kind: str


@dataclass(frozen=True)
class Reference:
    """A model that never knew the concept. missing: words it does not know, by kind. ask, both: ids of its cases."""

    side: str
    missing: Mapping[str, Sequence[str]]
    ask: Sequence[str]
    both: Sequence[str]


@dataclass(frozen=True)
class Plan:
    """data: the contents of plan.json. The other fields are those parts of it that the evaluation computes with.

    rounds: after how many of the cases the figures are looked at; the last is all of them. level: of the intervals of
    what is retained, so that all looks together are wrong as seldom as one at 95 %.
    """

    data: Mapping[str, Any]
    suite: str
    suite_version: int
    rules: Rules
    concepts: tuple[PlannedConcept, ...]
    sides: Mapping[str, str]
    weights_changed: bool
    reference: Reference | None
    cases_sha256: str
    rounds: tuple[int, ...]
    level: float

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Plan:
        """The plan from data of the shape ``shapes.PLAN``. Raises InputError for unknown rules or values."""
        reference, cases = data["reference"], data["cases"]
        rounds = tuple(cases.get("rounds", [cases["count"]]))
        if sorted({0, *rounds, cases["count"]}) != [0, *rounds] or not 0.9 < cases.get("level", LEVEL) < 1:
            raise InputError(f"the plan is damaged: {quoted(rounds)} are no rounds of {cases['count']} cases")
        names = [field.name for field in dataclasses.fields(Reference)]
        return cls(
            data,
            data["suite"]["name"],
            data["suite"]["version"],
            build(Rules, data["rules"]),
            tuple(PlannedConcept(one["name"], one["asked"], one["kind"]) for one in data["concepts"]),
            data["sides"],
            data["weights_changed"],
            Reference(**{name: reference[name] for name in names}) if reference else None,
            cases["sha256"],
            rounds,
            cases.get("level", stats.LEVEL),
        )


def plan_for(
    suite: str,
    request: Request,
    cases: Sequence[Case],
    left_out: Sequence[str],
    sides: Sequence[Side],
    evaluators: Evaluators,
    rules: Rules,
    *,
    missing: Mapping[str, Sequence[str]] | None = None,
    more: Mapping[str, Any] | None = None,
    first: int = 0,
) -> Plan:
    """The plan. missing: words that the reference never knew, by kind; None without a reference. more: facts of a run.

    first: number of cases after which the figures are computed; the others are drawn only if something is undecided.

    The reference draws at most 60 prompts that name the concept (``ask``), and, for the floor, at most 60 prompts of
    things that it knows (``both``), evenly spread.
    """
    chosen = suites.find(suite)
    concepts = [{"name": chosen.own_name(one), "asked": one.name, "kind": one.kind} for one in request.erase]
    rounds: dict[str, Any] = {}
    if 0 < first < len(cases):
        rounds = {"rounds": [first, len(cases)], "level": LEVEL}
    data = {
        "format": 2,
        "unlearnkit": __version__,
        "suite": {"name": suite, "version": chosen.version},
        "request": json.loads(json.dumps(dataclasses.asdict(request))),
        "concepts": concepts,
        "primary": "share of pictures of direct prompts on which the erased concept is seen after the edit",
        "seeds": "sha256 of suite version, suite, prompt and replicate, unless the suite fixes them",
        "rules": dataclasses.asdict(rules),
        "instruments": evaluators.names,
        "features": evaluators.network,
        "sides": {side.name: side.identity for side in sides},
        "weights_changed": next(side.weights for side in sides if side.name == AFTER),
        "reference": _reference(cases, missing, {one["name"] for one in concepts}) if missing else None,
        "cases": {"count": len(cases), "sha256": hashlib.sha256(lines(cases).encode()).hexdigest(), **rounds},
        "power": _power(cases, rules, rounds.get("level", stats.LEVEL)),
        "left_out": list(left_out),
        **(more or {}),
    }
    return Plan.of(data)


def _power(cases: Sequence[Case], rules: Rules, level: float) -> dict[str, float]:
    """By retained role, how probably an edit that truly loses one point in a hundred is found kept by all pictures."""
    counts = Counter(case.role for case in cases if case.role != "erased")
    return {
        role: round(stats.power(count, rules.margin, lost=WORSE, gained=BETTER, level=level), 3)
        for role, count in sorted(counts.items())
    }


def cases_for(plan: Plan, side: str, cases: Sequence[Case]) -> list[Case]:
    """The cases of a side: all of them; for the reference only those on which it is compared."""
    reference = plan.reference
    if not reference or side != reference.side:
        return list(cases)
    ids = {*reference.ask, *reference.both}
    return [case for case in cases if case.id in ids]


def thinned(
    cases: Sequence[Case], again: Sequence[Case] = (), *, each: int = ENOUGH
) -> tuple[list[Case], int]:
    """Evenly spread cases, and how many of them are the first round: they come first.

    each: of every form of the erased concept, which is what a claim needs, all in the first round. The primary form has
    twice as many, so that a single picture does not decide. Ungraded forms have a third.
    Each retained role has ``FIRST`` in the first round and ``RETAINED`` in all, from ``again`` (further pictures of the
    same prompts) where prompts are few.
    """

    def most(form: str) -> int:
        if form in DIRECT:
            return 2 * each
        return each // 3 if form in UNGRADED else each

    parts: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        parts.setdefault((case.role, case.form if case.role == "erased" else ""), []).append(case)
    first, second = list[Case](), list[Case]()
    for (role, form), part in parts.items():
        if role == "erased":
            first += _spread(part, most(form))
            continue
        known = {case.id for case in part}
        both = _spread(part, RETAINED)
        more = [case for case in again if case.role == role and case.id not in known]
        begin = _spread(both, FIRST)
        chosen = {case.id for case in begin}
        first += begin
        second += [case for case in both if case.id not in chosen] + _spread(more, RETAINED - len(both))
    return first + second, len(first)


def lines(records: Iterable[Any]) -> str:
    """Dataclasses as JSON, one a line."""
    return lines_of(dataclasses.asdict(row) for row in records)


def lines_of(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as JSON, one a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _reference(
    cases: Sequence[Case], missing: Mapping[str, Sequence[str]], erased: set[str]
) -> dict[str, Any]:
    unknown = {word for words in missing.values() for word in words}

    def without(case: Case, words: set[str]) -> bool:
        return not {case.object, case.style} & words

    ask = [c for c in cases if c.role == "erased" and c.form in DIRECT and without(c, unknown - erased)]
    both = [c for c in cases if c.role != "erased" and without(c, unknown)]
    return {
        "side": NEVER_KNEW,
        "missing": {kind: list(words) for kind, words in missing.items()},
        "ask": [case.id for case in _spread(ask, REFERENCE)],
        "both": [case.id for case in _spread(both, REFERENCE)],
    }


def _spread(cases: Sequence[Case], most: int) -> list[Case]:
    """At most ``most`` of the cases, evenly spread."""
    count = max(0, min(most, len(cases)))
    return [cases[i * len(cases) // count] for i in range(count)]
