"""Metrics of whole sets of pictures: the distance between two models, and the diversity of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..metrics.distance import cmmd, diversity, fid, kid
from ..metrics.stats import Interval, rate
from ..schema import Case
from .plan import AFTER, BEFORE, Plan, Reference, cases_for
from .rows import Pictures

__all__ = ["Features", "distances", "never_knew"]

Features = Mapping[str, NDArray[Any]]
FID_LEAST = 5000  # pictures, below which the bias of FID is too large


def distances(plan: Plan, cases: Sequence[Case], features: Features) -> dict[str, Any]:
    """The distance of the edited model's pictures to the untouched model's, and the diversity of both."""
    by_role: dict[str, Any] = {}
    for role in ("erased", "kept"):
        at = [i for i, case in enumerate(cases) if (case.role == "erased") == (role == "erased")]
        prompts = [cases[i].prompt_id for i in at]
        if len(set(prompts)) < 3:
            continue
        part: dict[str, Any] = {"n": len(at)}
        for name, distance in (("reader", kid), ("clip", cmmd)):
            if f"{AFTER}/{name}" not in features:
                continue
            x, y = (features[f"{side}/{name}"][at].astype(np.float64) for side in (BEFORE, AFTER))
            part[distance.__name__] = distance(x, y, prompts)
            if name == "clip" or "diversity" not in part:
                spread = diversity(x, y, prompts)
                part["diversity"] = dict(zip((BEFORE, AFTER, "change"), spread, strict=True))
            if name == "reader" and len(at) >= FID_LEAST:
                part["fid"] = {
                    "value": fid(x, y),
                    "n": len(at),
                    "network": f"{plan.data['features']}, {x.shape[1]} features",
                    "reference": "the untouched model's pictures of the same prompts and noise",
                }
        by_role[role] = part
    return by_role


def never_knew(plan: Plan, cases: Sequence[Case], pictures: Pictures, features: Features) -> dict[str, Any]:
    """Distances to a reference model that never knew the concept, on the concept's prompts.

    The edited and the untouched model are compared with it. The floor is the distance of the reference to the untouched
    model on prompts that both know.
    """
    reference = plan.reference
    if not reference:
        return {}
    name, ask, both = reference.side, reference.ask, reference.both
    known = {case.id: case for case in cases}
    compared: dict[str, Any] = {"n": len(ask), "floor n": len(both), "missing": reference.missing}
    for feature, distance in (("reader", kid), ("clip", cmmd)):
        if f"{name}/{feature}" in features:
            of = _between(plan, cases, features, feature, distance)
            compared[distance.__name__] = {
                AFTER: of(name, AFTER, ask),
                BEFORE: of(name, BEFORE, ask),
                "floor": of(name, BEFORE, both),
            }
    compared["instead"] = _instead(plan, reference, cases, pictures, features)
    compared["confusion"] = {
        concept.name: _confusion(
            concept.kind, [i for i in ask if known[i].concept == concept.name], pictures, name
        )
        for concept in plan.concepts
    }
    return compared


def _between(
    plan: Plan,
    cases: Sequence[Case],
    features: Features,
    feature: str,
    distance: Callable[..., Interval],
) -> Callable[[str, str, Sequence[str]], Interval]:
    """``of(side, other side, ids)``: the distance of their pictures of these cases."""
    prompts = {case.id: case.prompt_id for case in cases}

    def rows(side: str, ids: Sequence[str]) -> NDArray[np.float64]:
        place = {case.id: i for i, case in enumerate(cases_for(plan, side, cases))}
        return features[f"{side}/{feature}"][[place[i] for i in ids]].astype(np.float64)

    return lambda one, other, ids: distance(rows(one, ids), rows(other, ids), [prompts[i] for i in ids])


def _instead(
    plan: Plan, reference: Reference, cases: Sequence[Case], pictures: Pictures, features: Features
) -> dict[str, dict[str, Any]]:
    """Of each side, on the prompts that the reference draws: the diversity, and the share whose other part is right."""
    known, found = {case.id: case for case in cases}, dict[str, dict[str, Any]]()
    prompts = [known[i].prompt_id for i in reference.ask]
    other = {one.name: "object" if one.kind == "style" else "style" for one in plan.concepts}
    for side in (BEFORE, AFTER, reference.side):
        place = {case.id: n for n, case in enumerate(cases_for(plan, side, cases))}
        found[side] = {}
        feature = next(
            (f"{side}/{name}" for name in ("clip", "reader") if f"{side}/{name}" in features), None
        )
        if feature and len(set(prompts)) >= 3:
            x = features[feature][[place[i] for i in reference.ask]].astype(np.float64)
            found[side]["diversity"] = diversity(x, x, prompts)[0]
        drawn = [(known[i], pictures[side, i]) for i in reference.ask]
        shown = [
            (one, picture, kind)
            for one, picture in drawn
            if (kind := other[one.concept]) in picture.words and getattr(one, kind)
        ]
        if shown:
            right = [picture.shows(kind, getattr(one, kind)) for one, picture, kind in shown]
            found[side]["rest right"] = rate(right, [one.prompt_id for one, _, _ in shown])
    return found


def _confusion(kind: str, ids: Sequence[str], pictures: Pictures, reference: str) -> dict[str, float]:
    """Total variation, 0 to 1, between the labels of a model's pictures and of the reference's."""
    if not ids:
        return {}
    seen = {side: Counter(pictures[side, i].seen(kind) for i in ids) for side in (BEFORE, AFTER, reference)}
    theirs = seen[reference]
    return {
        side: sum(abs(seen[side][word] - theirs[word]) for word in seen[side] | theirs) / (2 * len(ids))
        for side in (BEFORE, AFTER)
    }
