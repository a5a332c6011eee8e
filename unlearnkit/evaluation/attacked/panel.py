"""What a report shows of a run's attacks: rates beside their controls, the grade, and the pictures that show it."""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...attacks import ATTACKS
from ...io.reading import read_bytes
from ..claims import GRADES
from . import record
from .figures import AFTER, AttackFigures
from .grades import graded

__all__ = ["attack_figures", "attack_pictures", "attack_summary", "inline", "table_of", "unblurred"]

SHOWN = 6  # pictures of each attack


def attack_summary(run: Path, evaluations: Mapping[str, Any]) -> dict[str, Any]:
    """By erased concept: the grade under attack, the reasons against a higher one, and every attack's figures.

    Empty without attacks. Raises InputError for an attack whose files were changed.
    """
    result = {}
    for concept, listed in _by_concept(run).items():
        refused = {name for _, plan, _ in listed for name in plan.get("refused", ())}
        possible = {name: one.group for name, one in ATTACKS.items() if name not in refused}
        done = [AttackFigures.of(plan, figures) for _, plan, figures in listed]
        grade, reasons = graded(_before(evaluations, concept), done, possible)
        rows = [_facts(*one) for one in listed]
        result[concept] = {"grade": grade, "reasons": reasons, "attacks": rows}
    return result


def attack_figures(chain: Path, folders: Collection[str] | None = None) -> dict[str, Any]:
    """As ``attack_summary``, without grades, which a chain does not have. folders: of these attacks, None: of all."""
    result = {}
    for concept, listed in _by_concept(chain).items():
        attacks = [_facts(*one) for one in listed if folders is None or one[0] in folders]
        if attacks:
            result[concept] = {"grade": "", "reasons": [], "attacks": attacks}
    return result


def _by_concept(run: Path) -> dict[str, list[tuple[str, dict[str, Any], dict[str, Any]]]]:
    """Folder, plan and figures of every finished attack, by the erased concept's name."""
    found: dict[str, list[tuple[str, dict[str, Any], dict[str, Any]]]] = {}
    for folder in record.finished_attacks(run):
        plan, figures = record.plan_of(folder), record.figures_of(folder)
        found.setdefault(plan["concept"]["name"], []).append((folder.name, plan, figures))
    return found


def _before(evaluations: Mapping[str, Any], concept: str) -> str:
    """The lowest grade of a concept in the evaluations that grade it, ``"not shown"`` without one."""
    grades = [
        claim["grade"]
        for one in evaluations.values()
        for claim, planned in zip(one["verdict"]["concepts"], one["plan"]["concepts"], strict=False)
        if concept in (planned["asked"], planned["name"], claim["name"])
    ]
    known = [grade for grade in grades if grade in GRADES]
    return min(known, key=list(GRADES).index, default="not shown")


def _facts(folder: str, plan: Mapping[str, Any], figures: Mapping[str, Any]) -> dict[str, Any]:
    """One attack for the page and for report.json."""
    known = ATTACKS.get(plan["attack"])
    return {
        "folder": folder,
        "attack": plan["attack"],
        "title": known.title if known else plan["attack"],
        "summary": known.summary if known else "",
        "budget": plan["budget"]["name"],
        "seed": plan["seed"],
        "control": plan["control"],
        "arms": figures["arms"],
        "figures": figures["figures"],
        "seconds": figures["seconds"],
    }


def table_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """For several runs side by side: the grades under attack, and the row of each variant that any run has.

    runs: of each what ``attack_summary`` gives. Variants with another budget or seed are rows of their own.
    Empty without attacks.
    """
    grades = [{concept: one["grade"] for concept, one in run.items()} for run in runs]
    rows: dict[str, list[dict[str, Any] | None]] = {}
    for number, run in enumerate(runs):
        for concept, one in run.items():
            for each in one["attacks"]:
                for arm, figures in each["arms"].items():
                    title = f"{concept}: {each['title']}, {arm} ({each['budget']}, seed {each['seed']})"
                    rows.setdefault(title, [None] * len(runs))[number] = figures
    return {"grades": grades, "rows": rows} if rows else {}


def attack_pictures(run: Path) -> dict[str, list[dict[str, str]]]:
    """By attack's folder: the first pictures in which the concept is seen after the edit."""
    shown: dict[str, list[dict[str, str]]] = {}
    for folder in record.finished_attacks(run):
        rows = [row for row in record.rows_of(folder) if row["side"] == AFTER and row["shows"]]
        shown[folder.name] = [
            {"arm": row["arm"], "url": inline(folder / "pictures" / AFTER / f"{row['attempt']:04d}.png")}
            for row in rows[:: max(1, len(rows) // SHOWN)][:SHOWN]
        ]
    return shown


def unblurred(facts: Mapping[str, Any]) -> bool:
    """Whether every evaluation used the canvas's own prompts, so that no picture needs a cover."""
    return all(one["plan"]["suite"]["name"] == "canvas" for one in facts["evaluations"].values())


def inline(path: Path) -> str:
    """A PNG as a data URL."""
    return f"data:image/png;base64,{base64.b64encode(read_bytes(path, what='picture')).decode()}"
