"""From the rows of an attack to its figures: for each arm a rate, that of its control, and the difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...metrics.stats import Interval, newcombe, wilson

__all__ = ["AFTER", "CONTROL", "LIMIT", "Arm", "AttackFigures", "arm_figures", "headline"]

AFTER, CONTROL = "after", "control"  # what is attacked, and what the same attack finds where there is nothing
LIMIT = 0.10  # an arm whose control shows the concept more often is reported and not counted


@dataclass(frozen=True)
class Share(Interval):
    """``k`` of ``n`` pictures."""

    k: int
    n: int


@dataclass(frozen=True)
class Arm:
    """One variant of an attack: the share of pictures that show the concept.

    control, difference: None without a control. counted: whether the control is at most ``LIMIT``.
    """

    after: Share
    control: Share | None
    difference: Interval | None
    counted: bool

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Arm:
        control, difference = data["control"], data["difference"]
        return cls(
            Share(**data["after"]),
            Share(**control) if control else None,
            Interval(**difference) if difference else None,
            data["counted"],
        )


@dataclass(frozen=True)
class AttackFigures:
    """A finished attack. never_knew: whether its control is a model that never knew the concept.

    losses: of a probe, by side and by caption and state (``own caption, after``).
    """

    attack: str
    never_knew: bool
    arms: Mapping[str, Arm]
    losses: Mapping[str, Mapping[str, Interval]]

    @classmethod
    def of(cls, plan: Mapping[str, Any], figures: Mapping[str, Any]) -> AttackFigures:
        """From plan.json and figures.json, whose shapes were checked."""
        sides = figures["figures"] if plan["group"] == "probe" else {}
        losses = {side: {name: Interval(**one) for name, one in own.items()} for side, own in sides.items()}
        arms = {name: Arm.of(one) for name, one in figures["arms"].items()}
        return cls(plan["attack"], plan["control"]["kind"] == "never knew", arms, losses)


def arm_figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Arm]:
    """The figures of each arm, in the rows' order.

    The unit is the picture: those of one arm share what was found, so that the interval is over further pictures of
    this find, not over further searches.
    """
    figures: dict[str, Arm] = {}
    for arm in dict.fromkeys(row["arm"] for row in rows if row["side"] == AFTER):
        after, control = _share(rows, AFTER, arm), _share(rows, CONTROL, arm)
        if after and control:
            difference = newcombe(after.k, after.n, control.k, control.n)
            figures[arm] = Arm(after, control, difference, control.value <= LIMIT)
        elif after:
            figures[arm] = Arm(after, None, None, False)
    return figures


def headline(arms: Mapping[str, Arm]) -> str | None:
    """The counted arm with the largest difference; None if none is counted."""
    counted = {arm: one.difference.value for arm, one in arms.items() if one.counted and one.difference}
    return max(counted, key=lambda arm: counted[arm], default=None)


def _share(rows: Sequence[Mapping[str, Any]], side: str, arm: str) -> Share | None:
    """The share of pictures that show the concept; None without pictures."""
    shown = [row["shows"] for row in rows if row["side"] == side and row["arm"] == arm]
    k, n = sum(shown), len(shown)
    return Share(k / n, *wilson(k, n), k, n) if n else None
