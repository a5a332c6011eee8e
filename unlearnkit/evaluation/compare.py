"""Runs side by side on the same prompts and seeds: one page, with a paired test for every two runs."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, quoted
from ..io.files import user_path, write_text
from ..io.locks import locked
from ..metrics.stats import Difference, difference, holm
from ..schema import ROLES, Case
from .attacked.panel import table_of
from .claims import GRADES
from .folders import FOLDER
from .plan import DIRECT
from .record import stored
from .report import SAFE, describe, inline, page, read_run, spread
from .rows import Pictures, gather, right

__all__ = ["compare", "figures_of"]

SHAPES = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SHOWN = 3  # prompts of each role


@dataclass(frozen=True)
class Tested:
    """The second run's share minus the first's, of n pictures. holm_p: p after Holm over all pairs. says: in words."""

    value: float
    low: float
    high: float
    p: float
    n: int
    holm_p: float
    says: str

    @classmethod
    def of(cls, change: Difference, holm_p: float, sentence: str, more: str, less: str) -> Tested:
        """sentence: with ``{}`` for ``more`` or ``less``, if the difference is significant."""
        says = sentence.format(more if change.value > 0 else less) if holm_p < 0.05 else "no difference shown"
        return cls(change.value, change.low, change.high, change.p, change.n, holm_p, says)


@dataclass(frozen=True)
class Pair:
    """Two runs by their letters. seen, kept: None without such pictures."""

    first: str
    second: str
    seen: Tested | None
    kept: Tested | None


def compare(runs: Sequence[str | Path], out: str | Path, *, suite: str | None = None) -> Path:
    """Write ``compare.html`` and ``compare.json`` into the folder ``out``, and return the former.

    suite: the evaluation's folder name, needed if the runs share several.
    Raises InputError for fewer than two runs or more than 26, and for runs that were not evaluated alike.
    """
    folders = [user_path(run) for run in runs]
    if not 2 <= len(folders) <= len(SHAPES):
        raise InputError(
            f"{len(folders)} given: name the folders of two evaluated runs or more, at most {len(SHAPES)}"
        )
    read = [read_run(folder) for folder in folders]
    name = _shared(read, suite)
    evaluated = [{**run, **run["evaluations"][name]} for run in read]
    for other in evaluated[1:]:
        _comparable(evaluated[0], other)
    # a run that needed no second round has the first round's cases alone
    cases = min((stored(folder / FOLDER / name)[1] for folder in folders), key=len)
    pictures = [gather(stored(folder / FOLDER / name)[2]) for folder in folders]
    kinds = {concept["name"]: concept["kind"] for concept in evaluated[0]["plan"]["concepts"]}
    facts = {
        "suite": evaluated[0]["plan"]["suite"],
        "concepts": evaluated[0]["plan"]["concepts"],
        "runs": [figures_of(*one) for one in zip(SHAPES, folders, evaluated, strict=False)],
        "pairs": [asdict(pair) for pair in _pairs(cases, pictures, kinds)],
        "attacked": table_of([run["attacks"] for run in read]),
    }
    shown = _shown(cases, [folder / FOLDER / name for folder in folders], pictures)
    curtain = evaluated[0]["plan"]["suite"]["name"] not in SAFE
    out = user_path(out)
    with locked(out):
        write_text(out / "compare.json", json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
        write_text(
            out / "compare.html", page("compare.html", **facts, shown=shown, curtain=curtain, grades=GRADES)
        )
    return out / "compare.html"


def _shared(read: Sequence[dict[str, Any]], suite: str | None) -> str:
    """The evaluation that all runs have: the chosen one, or the only one."""
    names = [name for name in read[0]["evaluations"] if all(name in one["evaluations"] for one in read)]
    if suite in names or (suite is None and len(names) == 1):
        return suite or names[0]
    if suite is None and names:
        raise InputError(f"the runs share the evaluations {', '.join(names)}: choose one with --suite")
    have = "; ".join(f"{one['name']}: {', '.join(one['evaluations'])}" for one in read)
    raise InputError(
        f"the runs share no evaluation{f' {quoted(suite)}' if suite else ''} ({have}): evaluate them alike"
    )


def _comparable(first: dict[str, Any], other: dict[str, Any]) -> None:
    one, two = first["plan"], other["plan"]
    for what, name in (("other prompts or seeds", "cases"), ("other evaluators", "instruments")):
        if one[name] != two[name]:
            raise InputError(
                f"{quoted(first['name'])} and {quoted(other['name'])} were evaluated with {what}: evaluate them alike"
            )
    if one["sides"]["before"] != two["sides"]["before"]:
        raise InputError(
            f"{quoted(first['name'])} and {quoted(other['name'])} start from different models or samplers"
        )


def figures_of(letter: str, folder: Path, run: dict[str, Any]) -> dict[str, Any]:
    """One run in figures: how often the concept is still seen, how much is retained."""
    verdict, tables = run["verdict"], run["tables"]
    direct = [concept["direct"] for concept in tables["concepts"] if concept["direct"]]
    return {
        "letter": letter,
        "name": folder.resolve().name,
        "method": run["plan"].get("method", ""),
        "seed": run["plan"].get("seed", ""),
        "grade": verdict["grade"],
        "verdict": [line for one in verdict["concepts"] for line in (one["headline"], one["more"]) if line],
        "stayed": verdict["kept"]["sentence"],
        "seen": max((one["after"] for one in direct), key=lambda rate: rate["value"]) if direct else None,
        "kept": verdict["kept"]["groups"],
        "failed": tables["failed"]["after"],
        "kid": tables["distances"].get("kept", {}).get("kid"),
        "seconds": run["seconds"],
    }


def _shown(
    cases: Sequence[Case], folders: Sequence[Path], pictures: Sequence[Pictures]
) -> list[dict[str, Any]]:
    """The first prompts of each role, with the picture before and the picture of every run."""
    roles = {role: [case for case in cases if case.role == role] for role in ROLES}
    roles["erased"] = [case for case in roles["erased"] if case.form in DIRECT]

    def picture(i: int, side: str, case: Case) -> dict[str, str]:
        place = folders[i] / "pictures" / side / f"{case.id}.png"
        return {"picture": inline(place), "seen": describe(pictures[i][side, case.id])}

    return [
        {
            "role": role,
            "case": case,
            "pictures": [
                picture(0, "before", case),
                *(picture(i, "after", case) for i in range(len(folders))),
            ],
        }
        for role, chosen in roles.items()
        for case in spread(chosen, SHOWN)
    ]


def _pairs(cases: Sequence[Case], pictures: Sequence[Pictures], kinds: dict[str, str]) -> list[Pair]:
    """For every two runs: the second's share minus the first's on the same pictures."""
    direct = [
        case for case in cases if case.role == "erased" and case.form in DIRECT and case.concept in kinds
    ]
    retained = [case for case in cases if case.role != "erased" and (case.object or case.style)]
    both = list(itertools.combinations(range(len(pictures)), 2))

    def seen(case: Case, run: Pictures) -> bool:
        return run["after", case.id].shows(kinds[case.concept], case.concept)

    def kept(case: Case, run: Pictures) -> bool:
        return right(case, run["after", case.id])

    def tested(
        chosen: Sequence[Case], true: Callable[[Case, Pictures], bool], more: str, less: str
    ) -> dict[tuple[int, int], Tested]:
        ids = [case.prompt_id for case in chosen]
        truths = [[true(case, run) for case in chosen] for run in pictures]
        changes = {(a, b): difference(truths[a], truths[b], ids) for a, b in both} if chosen else {}
        adjusted = holm([change.p for change in changes.values()])
        return {
            pair: Tested.of(change, p, f"{SHAPES[pair[1]]} {{}} than {SHAPES[pair[0]]}", more, less)
            for (pair, change), p in zip(changes.items(), adjusted, strict=True)
        }

    shown = tested(direct, seen, "shows it more often", "shows it less often")
    stayed = tested(retained, kept, "keeps more", "keeps less")
    return [Pair(SHAPES[a], SHAPES[b], shown.get((a, b)), stayed.get((a, b))) for a, b in both]
