"""The shapes of the figures and the plan of a finished evaluation.

``tables.json`` may come from another version, or be edited by hand with new hashes. Pages read it only after a check.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType
from typing import Any

from ..errors import InputError, quoted
from ..io.reading import typed

__all__ = ["ATTACKED", "ATTACK_PLAN", "FIGURES", "PLAN", "PROBED", "check"]

Shape = Any  # a type, a tuple of shapes, a dict of shapes by name, a list of one shape, or Each


@dataclass(frozen=True)
class Each:
    """A table with any names, whose values all have one shape."""

    inner: Shape


@dataclass(frozen=True)
class Pair:
    """A list of exactly these two."""

    first: Shape
    second: Shape


NUMBER = (int, float)
INTERVAL = {"value": (*NUMBER, NoneType), "low": (*NUMBER, NoneType), "high": (*NUMBER, NoneType)}
CHANGE = {"value": NUMBER, "low": NUMBER, "high": NUMBER}
TESTED = {**CHANGE, "p": NUMBER}
RATE = {**CHANGE, "k": NUMBER, "n": NUMBER}
BOTH = {"before": RATE, "after": RATE}
SHOWN = {**BOTH, "change": TESTED, "failed": {"after": RATE}}
MEANS = {"before": INTERVAL, "after": INTERVAL, "change": INTERVAL}
DISTANCES = {"after": INTERVAL, "before": INTERVAL, "floor": INTERVAL}
EMPTY: dict[str, Shape] = {}
CONCEPT = {
    "name": str,
    "direct": (SHOWN, NoneType),
    "forms": Each((SHOWN, NoneType)),
    "rest right?": ({**BOTH, "change": TESTED}, NoneType),
    "seen instead": {"after?": [Pair(str, int)]},
    "holm p": NUMBER,
}
TABLES = {
    "concepts": [CONCEPT],
    "by concept": Each([{"name": str, "erased": bool, **BOTH}]),
    "unlearncanvas": {"UA?": BOTH, "IRA?": BOTH, "CRA?": BOTH},
    "failed": {**BOTH, "change": CHANGE, "reasons": Each(Each(int))},
    "change": Each({"mean": INTERVAL, "identical": int, "n": int}),
    "clip": (MEANS, EMPTY),
    "clip rest": (MEANS, EMPTY),
    "distances": Each({"kid?": INTERVAL, "cmmd?": INTERVAL, "diversity?": MEANS}),
    "never-knew": (
        {
            "missing": Each([str]),
            "kid?": DISTANCES,
            "cmmd?": DISTANCES,
            "instead?": Each({"diversity?": INTERVAL, "rest right?": RATE}),
            "confusion": Each(({"before": NUMBER, "after": NUMBER}, EMPTY)),
        },
        EMPTY,
    ),
}
VERDICT = {
    "grade": str,
    "sentence": str,
    "concepts": [{"headline": str, "more": str, "missing": [str]}],
    "kept": {"sentence": str, "groups": Each({**BOTH, "verdict": str, "change": CHANGE})},
    "rules": {"margin": NUMBER, "limit": NUMBER, "known": NUMBER},
    "not claimed": [str],
}
FIGURES = {"verdict": VERDICT, "tables": TABLES}
PLAN = {
    "format": int,
    "unlearnkit": str,
    "suite": {"name": str, "version": int},
    "request": dict,
    "concepts": [{"name": str, "asked": str, "kind": str}],
    "primary": str,
    "seeds": str,
    "rules": dict,
    "instruments": [str],
    "sides": {"before": str, "after": str},
    "weights_changed": bool,
    "reference": ({"side": str, "ask": [str], "both": [str], "missing": Each([str])}, NoneType),
    "power?": Each(NUMBER),
    "cases": {"count": int, "sha256": str, "rounds?": [int], "level?": NUMBER},
    "left_out": [str],
}
# of an attack: figures.json and plan.json
ATTACKED = {
    "arms": Each(
        {
            "after": RATE,
            "control": (RATE, NoneType),
            "difference": (CHANGE, NoneType),
            "counted": bool,
        }
    ),
    "figures": Each(dict),
    "headline": (str, NoneType),
    "limit": NUMBER,
}
ATTACK_PLAN = {
    **dict.fromkeys(("attack", "group", "unlearnkit", "model", "base", "edit"), str),
    "format": int,
    "seed": int,
    "limit": NUMBER,
    "budget": {"name": str},
    "concept": {"name": str, "seen as": str},
    "control": {"kind": str, "concept?": (str, NoneType)},
    "instruments": [str],
    "refused": [str],
}
PROBED = Each(CHANGE)


def check(data: Any, shape: Shape, *, where: str) -> None:
    """Raises InputError naming the first value of another shape. A name that ends with ``?`` is optional."""
    for name, value, inner in _members(data, shape, where):
        if isinstance(inner, tuple) and not all(isinstance(one, type) for one in inner):
            inner = next((one for one in inner if _fits(value, one)), inner[0])
        if isinstance(inner, type | tuple):
            typed({name: value}, {name: inner}, where=where)
        else:
            check(value, inner, where=f"{where}, {name}")


def _members(data: Any, shape: Shape, where: str) -> Iterator[tuple[str, Any, Shape]]:
    """The direct members of a table or a list, each with its shape."""
    if isinstance(shape, Each):
        for name, value in typed(data, {}, where=where).items():
            yield quoted(name), value, shape.inner
    elif isinstance(shape, dict):
        typed(data, {}, where=where)
        for name, inner in shape.items():
            if name.removesuffix("?") in data:
                yield name.removesuffix("?"), data[name.removesuffix("?")], inner
            elif not name.endswith("?"):
                raise InputError(f"{where} is damaged: it has no {name!r}")
    elif not isinstance(data, list) or (isinstance(shape, Pair) and len(data) != 2):
        expected = "a list" if isinstance(shape, list) else "a list of two values"
        raise InputError(f"{where} is damaged: it is {quoted(data)} where {expected} belongs")
    else:
        kinds = [shape.first, shape.second] if isinstance(shape, Pair) else shape * len(data)
        yield from zip((f"number {n + 1}" for n in range(len(data))), data, kinds, strict=True)


def _fits(data: Any, shape: Shape) -> bool:
    """Whether a value may have this one of several shapes, without its members; ``{}`` is only an empty table."""
    if isinstance(shape, type):
        return isinstance(data, shape)
    return isinstance(data, dict) and bool(data) == bool(shape)
