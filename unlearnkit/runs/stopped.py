"""Where training with ``stop = converged`` ended, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..io.reading import typed

__all__ = ["sentences"]

TYPES: dict[str, Any] = {
    **dict.fromkeys(("step", "of"), int),
    **dict.fromkeys(("come", "moved"), float),
    **dict.fromkeys(("slowest", "why"), str),
    "converged": bool,
}


def sentences(facts: Mapping[str, Any]) -> list[str]:
    """A sentence for each stage, from an edit's facts or a run's; empty without ``stop = converged``.

    Raises InputError for facts of another shape.
    """
    stages = typed(facts, {"stopped": list}, where="the run")["stopped"] if "stopped" in facts else []
    return [_sentence(typed(stage, TYPES, where="where training stopped")) for stage in stages]


def _sentence(stage: Mapping[str, Any]) -> str:
    at, of = stage["step"], stage["of"]
    if not of:  # a closed form
        says = (
            "holds" if stage["converged"] else "does NOT hold: look at the pictures, or choose another method"
        )
        return (
            f"the solution {says}: the slowest held-out prompt, “{stage['slowest']}”, came {stage['come']:.2f} of the "
            f"way, retained words moved by {stage['moved']:.2f}; {stage['why']}"
        )
    if stage["converged"]:
        return (
            f"training stopped after {at} of {of} steps, because erasing has converged: the slowest held-out prompt, "
            f"“{stage['slowest']}”, came {stage['come']:.2f} of the way, retained words moved by {stage['moved']:.2f}"
        )
    return f"erasing has not converged in {of} steps, the limit: {stage['why']}; raise steps, or look at the pictures"
