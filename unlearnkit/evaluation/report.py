"""The report of a run: ``report.html``, one file that opens anywhere, and ``report.json``; same folder, same bytes."""

from __future__ import annotations

import base64
import functools
import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..io import manifest
from ..io.files import user_path, write_text
from ..io.locks import locked
from ..io.reading import read_text
from ..metrics import METRICS
from ..runs import runfolder
from ..runs.stopped import sentences
from ..schema import Case
from ..version import __version__
from .attacked.grades import MEANING
from .attacked.panel import attack_pictures, attack_summary, inline, unblurred
from .claims import GRADES, percent
from .folders import HASHED, figures, finished, sound
from .plan import DIRECT
from .record import plan_of, stored
from .rows import NOTHING, Picture, gather, right
from .times import log_rows, times, took

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["HTML", "JSON", "SAFE", "describe", "inline", "page", "read_run", "render", "report", "spread"]

HTML, JSON = "report.html", "report.json"
EVALUATION = (
    "drawn",
    "processes",
    "seconds",
    "finished",
    "versions",
)  # keys of evaluation.json that a report has
PAGES = Path(__file__).parent / "pages"
SHOWN = 6  # pairs of each group
SAFE = (
    "canvas",
    "unlearncanvas",
)  # suites whose pictures are never covered; a user's own prompts may draw anything
CURVE = 400  # points of a loss curve
TIMES = ("step", "seconds", "time")


def report(run: str | Path) -> Path:
    """Write ``RUN/report.html`` and ``RUN/report.json`` and return the former.

    The same folder gives the same bytes. Raises InputError if the run has no finished evaluation, or a file of one
    was changed.
    """
    run = user_path(run)
    finished(run)
    with locked(run):
        html, facts = render(run)
        write_text(run / HTML, html)
        write_text(run / JSON, facts)
    return run / HTML


def render(run: Path) -> tuple[str, str]:
    """The texts of ``report.html`` and ``report.json``. Raises InputError as ``report`` does."""
    facts = read_run(run)
    pairs = {folder.name: _pairs(folder) for folder in finished(run)}
    shown = {
        name: [{"title": g["title"], "cases": [p["case"].id for p in g["pairs"]]} for g in groups]
        for name, groups in pairs.items()
    }
    context = {
        "groups": pairs,
        "curves": _curves(run),
        "metrics": METRICS,
        "grades": GRADES,
        "safe": SAFE,
        "resists": MEANING,
        "found": attack_pictures(run),
        "canvas": unblurred(facts),
        "stopped": sentences(facts["run"]),
    }
    html = page("report.html", **facts, **context)
    hashed = {HTML: hashlib.sha256(html.encode()).hexdigest()}
    return html, manifest.dump({**facts, "pairs": shown, "unlearnkit": __version__, "sha256": hashed})


def read_run(run: Path) -> dict[str, Any]:
    """The contents of a run folder: run, recipe, and for each evaluation plan, facts, verdict and tables.

    Raises InputError for a file that was changed.
    """
    run_facts = runfolder.read(run)
    evaluations = {}
    for folder in finished(run):
        facts = sound(folder)
        hashes = {name: facts["sha256"][name] for name in HASHED if name in facts["sha256"]}
        evaluations[folder.name] = {
            "plan": dict(plan_of(folder).data),
            "evaluation": {**{name: facts[name] for name in facts if name in EVALUATION}, "sha256": hashes},
            **figures(folder),
        }
    return {
        "name": run.resolve().name,
        "run": {name: run_facts[name] for name in run_facts if name in (*runfolder.OLD, "stopped")},
        "seconds": times(run, run_facts),
        "recipe": read_text(run / runfolder.RECIPE, what="recipe"),
        "evaluations": evaluations,
        "attacks": attack_summary(run, evaluations),
    }


@functools.cache
def _templates() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    pages = Environment(
        loader=FileSystemLoader(PAGES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {"percent": _percent, "rate": _rate, "points": _points, "figure": _figure, "took": took}
    return pages


def page(template: str, **context: Any) -> str:
    """A page from ``pages/`` with all values escaped. Its policy allows only our own script."""
    script = (PAGES / "page.js").read_text(encoding="utf-8")
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _templates()
        .get_template(template)
        .render(
            script=script,
            script_hash=allowed,
            style=(PAGES / "page.css").read_text(encoding="utf-8"),
            version=__version__,
            **context,
        )
    )


def _pairs(folder: Path) -> list[dict[str, Any]]:
    """Before/after pairs by rule: the first cases of each role in the suite's order, and the worst failures."""
    plan, cases, scores, _ = stored(folder)
    pictures = gather(scores)
    kinds = {concept.name: concept.kind for concept in plan.concepts}
    sure = {
        (score.case, score.metric.rpartition("/")[2].removesuffix(" confidence")): float(score.value)
        for score in scores
        if score.side == "after" and score.metric.endswith("confidence") and not isinstance(score.value, str)
    }

    direct = [case for case in cases if case.role == "erased" and case.form in DIRECT]
    still = [
        case
        for case in cases
        if case.role == "erased" and pictures["after", case.id].shows(kinds[case.concept], case.concept)
    ]
    still.sort(key=lambda case: (-sure.get((case.id, kinds[case.concept]), 0.0), case.id))
    harmed = [
        c
        for c in cases
        if c.role != "erased" and right(c, pictures["before", c.id]) and not right(c, pictures["after", c.id])
    ]
    harmed.sort(key=lambda case: (case.role, -pictures["after", case.id].numbers.get("change", 0.0), case.id))
    groups = [
        (
            "Erased: the first prompts",
            "the first cases that ask for it by name, in the suite's order",
            direct,
        ),
        (
            "Erased: the worst failures",
            "where the classifier is surest that it still sees the concept",
            still,
        ),
        (
            "Kept: nearest neighbours",
            "the first cases, in the suite's order",
            [c for c in cases if c.role == "near"],
        ),
        (
            "Kept: everything else",
            "the first cases, in the suite's order",
            [c for c in cases if c.role == "unrelated"],
        ),
        ("Kept: the worst damage", "right before, not after; the most changed first", harmed),
    ]
    return [
        {
            "title": title,
            "rule": rule,
            "total": len(chosen),
            "pairs": [
                {
                    "case": case,
                    **{
                        side: inline(folder / "pictures" / side / f"{case.id}.png")
                        for side in ("before", "after")
                    },
                    "seen": {side: describe(pictures[side, case.id]) for side in ("before", "after")},
                }
                for case in spread(chosen, SHOWN)
            ],
        }
        for title, rule, chosen in groups
        if chosen
    ]


def describe(picture: Picture) -> str:
    """The labels of a picture, or why it failed, in words."""
    if picture.failure or not picture.words:
        return picture.failure or "not looked at"
    words = {kind: word.split(",")[0] for kind, word in picture.words.items()}
    if all(word in ("", NOTHING) for word in words.values()):
        return "nothing it knows"
    return ", ".join(f"no {kind}" if word in ("", NOTHING) else word for kind, word in words.items())


def spread(cases: Sequence[Case], count: int) -> list[Case]:
    """The first ``count`` cases, at most one of each cell (object and style) as long as there are enough cells."""
    cells: dict[tuple[str, str], Case] = {}
    for case in cases:
        cells.setdefault((case.object, case.style), case)
    chosen = list(cells.values())[:count]
    rest = [case for case in cases if case not in chosen]
    return chosen + rest[: count - len(chosen)]


def _curves(run: Path) -> list[dict[str, Any]]:
    """Every number of the training logs that changes, as points of a drawing 100 wide and 40 high.

    A method that trains in stages has a log for each stage, in ``stage-1``, ``stage-2`` and so on.
    """
    stages = sorted(run.glob("stage-*/log.jsonl"), key=lambda log: (len(log.parent.name), log.parent.name))
    curves = []
    for log in (run / "log.jsonl", *stages):
        where = "" if log.parent == run else f"{log.parent.name.replace('-', ' ')}, "
        for name, values in _numbers(log).items():
            every = values[:: max(1, len(values) // CURVE)]
            low, high = min(every), max(every)
            points = [
                f"{100 * i / max(1, len(every) - 1):.2f},{40 - 40 * (v - low) / ((high - low) or 1):.2f}"
                for i, v in enumerate(every)
            ]
            facts = {"low": low, "high": high, "last": values[-1], "steps": len(values)}
            curves.append({"name": f"{where}{name}", "points": " ".join(points), **facts})
    return curves


def _numbers(log: Path) -> dict[str, list[float]]:
    """The numbers of a log by name, without times and numbers that never change."""
    numbers: dict[str, list[float]] = {}
    for row in log_rows(log):
        for name, value in row.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if number and name not in TIMES and math.isfinite(value):
                numbers.setdefault(name, []).append(float(value))
    return {name: values for name, values in numbers.items() if min(values) < max(values)}


def _percent(share: float | None) -> str:
    return "–" if share is None else percent(share)


def _rate(rate: Mapping[str, Any] | None) -> str:
    """``4.3 % (1.5 to 12.0), 3 of 69``."""
    if rate is None:
        return "–"
    low, high = rate["low"] * 100, rate["high"] * 100
    return f"{_percent(rate['value'])} ({low:.1f} to {high:.1f}), {rate['k']} of {rate['n']}"


def _points(change: Mapping[str, Any] | None) -> str:
    """``-1.2 (-3.0 to +0.4)``, in points of a hundred."""
    if change is None:
        return "–"
    return f"{change['value'] * 100:+.1f} ({change['low'] * 100:+.1f} to {change['high'] * 100:+.1f})"


def _figure(interval: Mapping[str, Any] | None) -> str:
    """``0.281 (0.275 to 0.288)``."""
    if interval is None or interval["value"] is None:
        return "–"
    ends = [interval["low"], interval["high"]]
    if None in ends:
        return f"{interval['value']:.3g}"
    return f"{interval['value']:.3g} ({ends[0]:.3g} to {ends[1]:.3g})"
