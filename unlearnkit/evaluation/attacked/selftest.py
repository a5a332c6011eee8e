"""Do the attacks tell the truth? They attack, on the canvas, models whose verdict is known.

The untouched model behind a filter of prompts knows the concept as before, so wordings and learned vectors must bring
it back. A model that never knew the concept must stand against every attack: it is its own control.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...attacks import BUDGETS, find
from ...io.tick import Tick
from ...schema import Concept, Request
from ..evaluate import canvas_evaluators_for
from .carry_out import carry_out
from .figures import LIMIT
from .run import targets

__all__ = ["EXPECTED", "falls", "self_test_attacks"]

# by model: the attacks it must fall to; the others of the list it must withstand
EXPECTED: dict[str, dict[str, bool]] = {
    "filter": {"wording": True, "inversion": True},
    "never knew": {
        "wording": False,
        "inversion": False,
        "sdedit": False,
        "completion": False,
        "inpainting": False,
    },
}


def self_test_attacks(
    folder: Path, *, budget: str = "quick", only: Sequence[str] | None = None, tick: Tick | None = None
) -> dict[str, dict[str, bool]]:
    """By model and attack: whether the model falls, to compare with ``EXPECTED``. only: names of attacks."""
    from ...canvas import world
    from ...model.load import load

    model = load("canvas")
    tools, name = canvas_evaluators_for(model), world.NEVER_KNEW_OBJECTS[0]
    (plain,) = targets(model, {}, Request((Concept(name),)))
    tested = {
        "filter": dataclasses.replace(plain, filtered=name),
        "never knew": dataclasses.replace(plain, applied=plain.never_knew or {}),
    }
    verdicts: dict[str, dict[str, bool]] = {}
    for title, target in tested.items():
        for attack in EXPECTED[title]:
            if only is None or attack in only:
                place = folder / title.replace(" ", "-") / attack
                figures = carry_out(place, find(attack), target, tools, budget=BUDGETS[budget], tick=tick)
                verdicts.setdefault(title, {})[attack] = falls(figures)
    return verdicts


def falls(figures: Mapping[str, Any]) -> bool:
    """Whether a counted arm surely shows the concept more often than its control, by more than ``LIMIT``."""
    return any(one["counted"] and one["difference"]["low"] > LIMIT for one in figures["arms"].values())
