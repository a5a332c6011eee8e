"""Carry out an attack on one concept of one edited model, beside its control, into a folder.

The control is the same attack, with the same budget and seeds, where it must find nothing: on a model that never knew
the concept; where there is none, for an unrelated concept, whose pictures are judged for the erased one.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from ...attacks import ATTACKS, Attack, Budget, SearchResult, Victim
from ...attacks.drawing import batches, draw_attempts
from ...data.prompts import neighbours
from ...errors import InputError, quoted
from ...io import manifest, processes
from ...io.files import resumable, tidy, write_text, writing
from ...io.locks import locked
from ...io.tick import Advance, Tick, stage
from ...io.versions import versions
from ...metrics.pixels import spoilt
from ...model.edit import Edit, digest
from ...model.model import Model, Weights
from ...runs.images import save_png
from ...schema import Concept, Request
from ...version import __version__
from ..draw import picture_hash, read
from ..plan import lines_of
from ..rows import NOTHING, same
from . import cache, record
from .figures import AFTER, CONTROL, LIMIT

if TYPE_CHECKING:
    from ...metrics.evaluators import Evaluators

__all__ = ["Target", "carry_out", "unrelated"]

CHUNK = 256  # pictures that are in memory at the same time
PARTS = "parts"  # of a search; removed when it is done


@dataclass(frozen=True)
class Target:
    """What is attacked. model: the untouched base. applied: the edit or weights that should have erased ``concept``.

    seen_as: the concept's label. never_knew: weights of a model that never knew it, None where there is none.
    shows, filtered: see ``Victim``.
    """

    model: Model
    concept: Concept
    applied: Edit | Weights
    seen_as: str
    never_knew: Weights | None = None
    filtered: str = ""
    shows: Callable[[Sequence[Image.Image]], Sequence[bool]] | None = None

    def facts(self) -> dict[str, Any]:
        """What identifies it and its control, as JSON."""
        other = unrelated(self.model, self.concept)
        control: dict[str, Any] = {"kind": "unrelated concept", "concept": other and other.name}
        if self.never_knew is not None:
            control = {"kind": "never knew", "weights": digest(self.never_knew.items())}
        edit = self.applied.hash() if isinstance(self.applied, Edit) else digest(self.applied.items())
        return {
            "model": self.model.source,
            "base": self.model.fingerprint(),
            "edit": edit,
            "filtered": self.filtered,
            "dtype": self.model.precision,
            "concept": {**json.loads(json.dumps(dataclasses.asdict(self.concept))), "seen as": self.seen_as},
            "control": control,
        }

    def victims(self, budget: Budget, seed: int, folder: Path) -> dict[str, Victim]:
        """What is attacked and its control, by side."""
        common: dict[str, Any] = {"budget": budget, "seed": seed, "shows": self.shows}
        sides = {
            AFTER: Victim(
                self.model,
                self.concept,
                applied=self.applied,
                filtered=self.filtered,
                folder=folder / AFTER / PARTS,
                **common,
            )
        }
        other = unrelated(self.model, self.concept)
        if self.never_knew is not None:
            twin: dict[str, Any] = {"applied": self.never_knew, "whole": True, "filtered": ""}
            sides[CONTROL] = replace(sides[AFTER], folder=folder / CONTROL / PARTS, **twin)
        elif other:
            sides[CONTROL] = replace(sides[AFTER], concept=other, folder=folder / CONTROL / PARTS)
        return sides


def unrelated(model: Model, concept: Concept) -> Concept | None:
    """The word of the model's vocabulary, of the concept's kind, whose text states are farthest from it."""
    words = [one for one in neighbours(model, Request((concept,)), 2**20) if one.kind == concept.kind]
    return words[-1] if words else None


def carry_out(
    folder: Path,
    attack: Attack,
    target: Target,
    evaluators: Evaluators,
    *,
    budget: Budget,
    seed: int = 0,
    tick: Tick | None = None,
) -> dict[str, Any]:
    """Attack, draw, judge, and write figures into ``folder``. Returns the content of ``figures.json``.

    A killed command goes on where it stopped. Raises InputError where the folder holds an attack with another plan,
    for a model that the attack refuses, and under several processes.
    """
    if why := attack.refuses(target.model):
        raise InputError(f"attack {attack.name!r} is not possible: {why}")
    if processes.count() > 1:
        raise InputError("attacks run in one process: start without accelerate launch")
    if not any(target.concept.kind in one.kinds for one in evaluators.classifiers):
        raise InputError(
            f"nothing here can recognise {target.concept.kind}s: name a classifier of {target.concept.kind}s"
        )
    plan = _plan(attack, target, evaluators, budget, seed)
    with (
        resumable(folder / "plan.json", "the same command goes on from there"),
        writing(folder),
        locked(folder),
    ):
        manifest.no_links(folder)
        record.same_plan(folder, plan)
        if (folder / record.FACTS).exists():
            return record.figures_of(folder)
        for place in folder.glob("**/"):
            tidy(place, exclusive=True)
        write_text(folder / "plan.json", record.text_of(plan))
        seconds, rows = dict[str, float](), list[dict[str, Any]]()
        for side, victim in target.victims(budget, seed, folder).items():
            if side == CONTROL and attack.group == "probe" and target.never_knew is None:
                continue  # another concept's loss says nothing about this one's
            started, stored = time.monotonic(), (folder / side, folder / "pictures" / side)
            key = cache.key_of(plan, versions("numpy")) if side == CONTROL else ""
            cache.fetch(key, *stored)
            result = _search_result(folder / side, attack, victim, side, tick)
            drawing = stage(tick, f"{attack.name}, {side}: drawing")
            rows += _judged(folder, side, victim, result, target, evaluators, drawing)
            cache.keep(key, *stored)
            seconds[side] = round(time.monotonic() - started, 1)
        write_text(folder / "rows.jsonl", lines_of(rows))
        figures = record.computed(folder, rows)
        write_text(folder / "figures.json", record.text_of(figures))
        files = {name: manifest.file_hash(path) for name, path in manifest.contents(folder).items()}
        finished = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        facts = {"sha256": files, "seconds": seconds, "finished": finished, "versions": versions("numpy")}
        write_text(folder / record.FACTS, manifest.dump(facts))
    return {**figures, "seconds": seconds}


def _plan(
    attack: Attack, target: Target, evaluators: Evaluators, budget: Budget, seed: int
) -> dict[str, Any]:
    """Everything that is fixed before the search."""

    return {
        "format": record.FORMAT,
        "unlearnkit": __version__,
        "attack": attack.name,
        "group": attack.group,
        "settings": dataclasses.asdict(attack),  # type: ignore[call-overload]
        "budget": dataclasses.asdict(budget),
        "seed": seed,
        "limit": LIMIT,
        "instruments": evaluators.names,
        "refused": [name for name, one in ATTACKS.items() if one.refuses(target.model)],
        **target.facts(),
    }


def _search_result(
    folder: Path, attack: Attack, victim: Victim, side: str, tick: Tick | None
) -> SearchResult:
    """What the attack finds, from the folder if it is there."""
    result = SearchResult.load(folder)
    if result is None:
        victim.progress = stage(tick, f"{attack.name}, {side}: searching")
        attack.search(victim).save(folder)
        result = SearchResult.load(folder)
    shutil.rmtree(folder / PARTS, ignore_errors=True)
    if result is None:
        raise InputError(f"{quoted(folder)} cannot be read")
    return result


def _judged(
    folder: Path,
    side: str,
    victim: Victim,
    result: SearchResult,
    target: Target,
    evaluators: Evaluators,
    drawing: Advance | None,
) -> list[dict[str, Any]]:
    """Draw the pictures that are missing, and judge all of them: one row each."""
    place, kind = folder / "pictures" / side, target.concept.kind
    identity = manifest.file_hash(folder / side / "found.json")
    place.mkdir(parents=True, exist_ok=True)
    paths = [place / f"{number:04d}.png" for number in range(len(result.attempts))]
    facts = [
        {"prompt": one.prompt, "seed": one.seed, "side": identity, "failure": ""} for one in result.attempts
    ]
    done = 0
    for numbers in batches(result.attempts, victim.model.batch):
        if missing := [i for i in numbers if not _there(paths[i], facts[i])]:
            for i, picture in zip(
                missing, draw_attempts(victim, result, [result.attempts[i] for i in missing]), strict=True
            ):
                save_png(picture, paths[i], facts=facts[i])
        done += len(numbers)
        if drawing:
            drawing(done, len(paths))
    classifier, rows = (
        next(one for one in evaluators.classifiers if kind in one.kinds),
        list[dict[str, Any]](),
    )
    for first in range(0, len(paths), CHUNK):
        pictures = [read(path)[0] for path in paths[first : first + CHUNK]]
        for number, (picture, words) in enumerate(
            zip(pictures, classifier.classify(pictures), strict=True), first
        ):
            seen = spoilt(picture) or words[kind][0] or NOTHING
            row = {"side": side, "attempt": number, "arm": result.attempts[number].arm}
            row |= {"image": picture_hash(picture), "seen": seen, "shows": same(seen, target.seen_as)}
            rows.append(row)
    return rows


def _there(path: Path, facts: Mapping[str, Any]) -> bool:
    """Whether the picture of this attempt exists whole; any other file is drawn again."""
    try:
        return read(path)[1] == facts
    except InputError:
        return False
