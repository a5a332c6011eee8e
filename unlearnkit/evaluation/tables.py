"""From rows to figures: every aggregate of an evaluation is computed here, from stored scores and features only."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..metrics.stats import LEVEL, cluster_bootstrap, difference, holm, rate
from ..schema import KINDS, Case, Score
from .distribution_metrics import Features, distances, never_knew
from .plan import AFTER, BEFORE, DIRECT, Plan, PlannedConcept
from .rows import Picture, Pictures, gather

__all__ = ["retained", "tables"]

SAME = 0.01  # levels of 255, on average: rounding of another batch size, see Model.sample
PER_CONCEPT = 5  # pictures that a concept needs for its own line


def tables(plan: Plan, cases: Sequence[Case], scores: Iterable[Score], features: Features) -> dict[str, Any]:
    """Every figure of an evaluation as plain data; shares are in [0, 1], intervals have 95 %, ``plan.level`` in "kept".

    cases: those with scores. features: arrays (cases of the side, d) named ``side/reader`` and ``side/clip``, in the
        cases' order; may be empty.
    """
    pictures = gather(scores)
    kinds = _kinds(pictures)
    kept = [case for case in cases if case.role != "erased"]
    erased = [case for case in cases if case.role == "erased"]
    computed: dict[str, Any] = {
        "concepts": [
            _concept(concept, [case for case in erased if case.concept == concept.name], pictures, kinds)
            for concept in plan.concepts
            if concept.kind in kinds
        ],
        "kept": retained(plan, cases, pictures),
        "by concept": {kind: _by_concept(kind, plan, cases, pictures) for kind in kinds},
        "unlearncanvas": _unlearncanvas(plan, cases, pictures, kinds),
        "failed": _failed(cases, pictures),
        "change": {
            role: _change(chosen, pictures) for role, chosen in (("erased", erased), ("kept", kept)) if chosen
        },
        "clip": _means(kept, pictures, "prompt"),
        "clip rest": _means([case for case in erased if case.rest], pictures, "rest"),
        "distances": distances(plan, cases, features),
        "never-knew": never_knew(plan, cases, pictures, features),
    }
    if alike := _alike(kept, pictures):
        computed["alike"] = alike
    for concept, p in zip(
        computed["concepts"],
        holm([c["direct"]["change"].p if c["direct"] else 1.0 for c in computed["concepts"]]),
        strict=True,
    ):
        concept["holm p"] = p
    return _plain(computed)  # type: ignore[no-any-return]


def retained(plan: Plan, cases: Sequence[Case], pictures: Pictures) -> dict[str, dict[str, Any]]:
    """By role and kind, how many pictures of what is retained are right before and after; ``plan.level`` intervals."""
    return {
        role: {
            kind: _paired(chosen, pictures, _right(kind), level=plan.level)
            for kind in _kinds(pictures)
            if (chosen := [case for case in cases if case.role == role and getattr(case, kind)])
        }
        for role in ("near", "unrelated")
    }


def _kinds(pictures: Pictures) -> list[str]:
    """The kinds that a classifier recognised."""
    return [kind for kind in KINDS if any(kind in picture.words for picture in pictures.values())]


def _paired(
    cases: Sequence[Case],
    pictures: Pictures,
    true: Callable[[Case, Picture], bool],
    *,
    level: float = LEVEL,
) -> dict[str, Any]:
    """A share before and after on the same cases, and its change. level: of the interval of the change."""
    prompts = [case.prompt_id for case in cases]
    was, now = ([true(case, pictures[side, case.id]) for case in cases] for side in (BEFORE, AFTER))
    return {
        BEFORE: rate(was, prompts),
        AFTER: rate(now, prompts),
        "change": difference(was, now, prompts, level=level),
    }


def _right(kind: str) -> Callable[[Case, Picture], bool]:
    """Whether a picture shows the object, or the style, of its prompt."""
    return lambda case, picture: picture.shows(kind, getattr(case, kind))


def _concept(
    concept: PlannedConcept, cases: Sequence[Case], pictures: Pictures, kinds: Sequence[str]
) -> dict[str, Any]:
    """How often the erased concept is seen, form by form, the labels of its pictures, and how often the rest of the
    prompt is right: the style of an erased object, the object of an erased style.
    """
    kind, name = concept.kind, concept.name

    def figures(chosen: Sequence[Case]) -> dict[str, Any] | None:
        if not chosen:
            return None
        shown = _paired(chosen, pictures, lambda case, picture: picture.shows(kind, name))
        lost = _paired(chosen, pictures, lambda case, picture: bool(picture.failure))
        return shown | {"failed": lost}

    forms = dict.fromkeys(case.form for case in cases if case.form not in DIRECT)
    direct = [case for case in cases if case.form in DIRECT]
    other = "object" if kind == "style" else "style"
    rest = [case for case in direct if getattr(case, other)]
    return {
        **dataclasses.asdict(concept),
        "direct": figures(direct),
        "rest right": _paired(rest, pictures, _right(other)) if rest and other in kinds else None,
        "forms": {form: figures([case for case in cases if case.form == form]) for form in forms},
        "seen instead": {
            side: Counter(
                picture.seen(kind)
                for case in direct
                if (picture := pictures.get((side, case.id))) is not None
            ).most_common(12)
            for side in dict.fromkeys(side for side, _ in pictures)
        },
    }


def _by_concept(kind: str, plan: Plan, cases: Sequence[Case], pictures: Pictures) -> list[dict[str, Any]]:
    """Accuracy before and after for every object or style, sorted by its change; erased ones are marked."""
    erased = {concept.name for concept in plan.concepts if concept.kind == kind}
    groups: dict[str, list[Case]] = {}
    for case in cases:
        if name := getattr(case, kind):
            groups.setdefault(name, []).append(case)
    table = []
    for name, group in sorted(groups.items()):
        chosen = [
            case for case in group if (case.concept == name if name in erased else case.role != "erased")
        ]
        if len(chosen) >= PER_CONCEPT:
            table.append({"name": name, "erased": name in erased, **_paired(chosen, pictures, _right(kind))})
    adjusted = holm([one["change"].p for one in table])
    for one, p in zip(table, adjusted, strict=True):
        one["holm p"] = p
    return sorted(table, key=lambda one: (not one["erased"], one["change"].value, one["name"]))


def _unlearncanvas(
    plan: Plan, cases: Sequence[Case], pictures: Pictures, kinds: Sequence[str]
) -> dict[str, Any]:
    """UA, IRA and CRA of a request for one concept, before and after.

    IRA and CRA are means over concepts, so every concept has as many pictures here as the one with the fewest.
    """
    if len(plan.concepts) != 1 or plan.concepts[0].kind not in kinds:
        return {}
    name, kind = plan.concepts[0].name, plan.concepts[0].kind
    grid = [case for case in cases if case.form == "name"]
    erased = [case for case in grid if case.role == "erased"]
    metrics = {}
    if erased:
        unseen = _paired(erased, pictures, lambda case, picture: not picture.shows(kind, name))
        metrics["UA"] = {side: unseen[side] for side in (BEFORE, AFTER)}
    chosen = [("IRA", kind, [case for case in grid if case.role != "erased"])]
    chosen += [("CRA", other, grid) for other in kinds if other != kind]
    for metric, sort, group in chosen:
        if even := _even(sort, group):
            shares = _paired(even, pictures, _right(sort))
            metrics[metric] = {side: shares[side] for side in (BEFORE, AFTER)}
    return metrics


def _even(kind: str, cases: Sequence[Case]) -> list[Case]:
    """Equally many cases of every concept of a kind, evenly spread."""
    by_word: dict[str, list[Case]] = {}
    for case in cases:
        if word := getattr(case, kind):
            by_word.setdefault(word, []).append(case)
    least = min(map(len, by_word.values()), default=0)
    return [part[i * len(part) // least] for part in by_word.values() for i in range(least)]


def _failed(cases: Sequence[Case], pictures: Pictures) -> dict[str, Any]:
    reasons = {
        side: dict(
            Counter(
                picture.failure for (at, _), picture in pictures.items() if at == side and picture.failure
            )
        )
        for side in dict.fromkeys(side for side, _ in pictures)
    }
    return _paired(cases, pictures, lambda case, picture: bool(picture.failure)) | {"reasons": reasons}


def _alike(cases: Sequence[Case], pictures: Pictures) -> dict[str, int]:
    """The number of different pictures of retained prompts, if the edit leaves at most half of them; else nothing."""
    different = {side: len({pictures[side, case.id].image for case in cases}) for side in (BEFORE, AFTER)}
    if different[BEFORE] < 2 or 2 * different[AFTER] > different[BEFORE]:
        return {}
    return {**different, "n": len(cases)}


def _change(cases: Sequence[Case], pictures: Pictures) -> dict[str, Any]:
    values = [pictures[AFTER, case.id].numbers["change"] for case in cases]
    return {
        "mean": cluster_bootstrap(values, [case.prompt_id for case in cases]),
        "largest": max(values),
        "identical": sum(value <= SAME for value in values),
        "n": len(values),
    }


def _means(cases: Sequence[Case], pictures: Pictures, name: str) -> dict[str, Any]:
    """The mean of a number before, after, and of its change; empty if it was not measured."""
    chosen = [case for case in cases if name in pictures[AFTER, case.id].numbers]
    if not chosen:
        return {}
    was, now = ([pictures[side, case.id].numbers[name] for case in chosen] for side in (BEFORE, AFTER))
    prompts = [case.prompt_id for case in chosen]
    return {
        BEFORE: cluster_bootstrap(was, prompts),
        AFTER: cluster_bootstrap(now, prompts),
        "change": cluster_bootstrap([b - a for a, b in zip(was, now, strict=True)], prompts),
        "n": len(chosen),
    }


def _plain(value: Any) -> Any:
    """Plain data for JSON: dataclasses as dicts, tuples as lists, floats with 10 digits, NaN and infinities as None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.10g}") if math.isfinite(value) else None
    return value
