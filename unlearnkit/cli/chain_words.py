"""The words of ``unlearnkit chain status`` and ``log``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..chain.commands.status import Line
    from ..chain.facts import Rate
    from ..chain.ledger import Entry

__all__ = ["cells", "facts_of", "in_words", "rate_of"]


def in_words(entry: Entry) -> str:
    """What an entry of the ledger did."""
    facts = entry.facts
    if entry.kind == "init":
        return f"{facts['regime']} chain on {facts['model']}"
    if entry.kind == "add":
        names = ", ".join(concept["name"] for concept in facts["request"]["erase"])
        return f"{names} with {facts['recipe']['method']}, {facts['making']} s"
    return f"request {', '.join(map(str, facts['removes']))}"


def cells(line: Line) -> list[str]:
    """A request's row of the table."""
    when = line.time[:16].replace("T", " ")
    facts = str(line.step.number), line.concept, line.step.recipe["method"], when, f"{line.seconds:.0f}"
    return [*facts, *("" if rate is None else rate_of(rate) for rate in line.seen), line.verdict or "-"]


def facts_of(line: Line) -> dict[str, Any]:
    """The same for ``--json``."""
    before, then, now = line.seen
    facts = {"request": line.step.number, "concept": line.concept, "method": line.step.recipe["method"]}
    facts |= {"time": line.time, "seconds": line.seconds, "before": before, "then": then, "now": now}
    return {**facts, "verdict": line.verdict or None, "edit": line.step.edit.hash}


def rate_of(rate: Rate) -> str:
    """A rate with its counts: ``"5% (1/20)"``."""
    return f"{rate.value:.0%} ({rate.k}/{rate.n})"
