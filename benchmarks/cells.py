"""Cells of the comparison: one edit of the canvas, made once, looked at by the evaluation, and its row of figures.

A row is one line of ``results/methods.jsonl``: ``key`` says all that it depends on (base, evaluators, method, settings
other than the method's own defaults, target, seed, size), the rest is figures. A row that is there is not made again.
Edits and pictures stay in ``runs/methods``: a killed cell goes on, another size of it trains nothing anew, and all
cells share the pictures of the untouched model.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from compared import FORMS, outcomes
from peak import Peak, trimmed
from rows import once, plain

from unlearnkit import Concept, suites
from unlearnkit.canvas import WEIGHTS, world
from unlearnkit.canvas.check import never_knew
from unlearnkit.canvas.validation import validation_classifier
from unlearnkit.evaluation.draw import model_side
from unlearnkit.evaluation.evaluate import evaluate
from unlearnkit.evaluation.plan import Rules, plan_for
from unlearnkit.evaluation.record import stored
from unlearnkit.io.files import slug, write_text
from unlearnkit.methods import Job, edit_for, plan, resolve
from unlearnkit.metrics.evaluators import Evaluators, canvas_evaluators, evaluators_of
from unlearnkit.model.edit import Edit
from unlearnkit.model.model import Model
from unlearnkit.schema import Case, Request
from unlearnkit.settings import changed

ROWS = Path(__file__).parent / "results" / "methods.jsonl"
RUNS = Path("runs") / "methods"
TARGETS = ("cat", "car", "van gogh", "neon")
TUNED = ("cat", "van gogh")  # the others are for measuring alone
SIZES = {
    "full": (0, 0),  # all
    "some": (120, 120),  # for ten concepts at a time
    "together": (60, 40),  # of many at once: by name and in unseen templates alone
    "paired": (120, 900),  # of two edits compared prompt by prompt: every retained prompt with several seeds
    "quick": (24, 24),
    "few": (10, 16),
}  # pictures: of each erased form, of near and of other cells
NAMED = 3  # pictures of each prompt that asks by name, at full size: 207 of an object, 225 of a style


@dataclass(frozen=True)
class Cell:
    """targets: erased together, or ``in_turn``, each from the model that the one before it left. eye: who looks."""

    method: str
    targets: tuple[str, ...]
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    in_turn: bool = False
    size: str = "full"
    eye: Literal["judge", "guide"] = "judge"

    @property
    def request(self) -> Request:
        return Request(tuple(concept(target) for target in self.targets))

    @property
    def requests(self) -> list[Request]:
        """One after the other."""
        return [Request((one,)) for one in self.request.erase] if self.in_turn else [self.request]


def concept(name: str) -> Concept:
    return Concept(name, "style" if name in world.STYLES else "object")


def key(cell: Cell, model: Model, tools: Evaluators) -> dict[str, Any]:
    """All that the row depends on, as JSON gives it back."""
    looks = {"evaluators": tools.names, "size": cell.size, "eye": cell.eye}
    facts = made_of(cell, model) | looks
    return plain(facts)


def made_of(cell: Cell, model: Model) -> dict[str, Any]:
    """All that the edit depends on."""
    by_kind = {
        one.erase[0].kind: changed(resolve(model, one, cell.method, cell.settings)) for one in cell.requests
    }
    instead = {kind: word for kind, word in model.hints.instead(cell.method).items() if kind in by_kind}
    return {
        "base": model.fingerprint()[:12],
        "method": cell.method,
        "settings": by_kind if len(by_kind) > 1 else next(iter(by_kind.values())),
        "target": " + ".join(cell.targets) + (", in turn" if cell.in_turn else ""),
        "seed": cell.seed,
        "drawn by": sampler(model),
    } | ({"instead": instead} if instead else {})


def looked_at(cell: Cell, model: Model) -> dict[str, Any]:
    """The row of a cell, from the file or made now."""
    tools = tools_of(cell)
    return once(ROWS, key(cell, model, tools), lambda: measured(cell, model, tools))


def tools_of(cell: Cell) -> Evaluators:
    """Who looks: the held-out classifier, or the validation classifier."""
    if cell.eye == "judge":
        return canvas_evaluators()
    return evaluators_of(validation_classifier(), f"canvas-guide@{_guide()}")


def measured(cell: Cell, model: Model, tools: Evaluators) -> dict[str, Any]:
    edit, cost = made(cell, model)
    cases = asked(cell)
    names = {concept.name for concept in cell.request.erase}
    missing = {"object": world.NEVER_KNEW_OBJECTS, "style": world.NEVER_KNEW_STYLES}
    sides = [model_side("before", model, batch=50), model_side("after", model, edit=edit, batch=50)]
    known = (
        model.source == "canvas" and names <= {*missing["object"], *missing["style"]} and cell.size == "full"
    )
    if known:
        sides.append(model_side("never-knew", never_knew(), batch=50))
    evaluation_plan = plan_for(
        "canvas", cell.request, cases, [], sides, tools, Rules(), missing=missing if known else None
    )
    folder = _folder(cell, model) / f"{cell.size}-{cell.eye}-{_hash(tools.names)}"
    shared = {
        folder / "pictures" / side: RUNS / f"{side}-{model.fingerprint()[:12]}-{_hash(sampler(model))}"
        for side in ("before", "never-knew")
    }
    for own, common in shared.items():
        _link(common, own)
    began = time.process_time()
    verdict = evaluate(folder, cases, sides, evaluation_plan, tools)
    for own, common in shared.items():
        _link(own, common)
    tables = json.loads((folder / "tables.json").read_text(encoding="utf-8"))["tables"]
    paired = {}
    if cell.size == "paired":
        made_plan, drawn, scores, _ = stored(folder)
        paired = {"outcomes": outcomes(made_plan.concepts, drawn, scores)}
    looking = round(time.process_time() - began, 1)
    return figures(tables) | paired | {"grade": verdict["grade"], **cost, "seconds to look": looking}


def _link(source: Path, target: Path) -> None:
    """Give the pictures of one folder to another by hard links, where it lacks them."""
    target.mkdir(parents=True, exist_ok=True)
    for path in source.glob("*.png"):
        if not (target / path.name).exists():
            os.link(path, target / path.name)


def asked(cell: Cell) -> list[Case]:
    """The canvas suite's prompts, those by name several times at full size; fewer of them all at the other sizes."""
    every = _cases(cell, NAMED)
    once = [case for case in every if case.id.endswith("-0")]
    if cell.size == "full":
        named = ("erased", "name")
        return [case for case in every if case.id.endswith("-0") or (case.role, case.form) == named]
    if cell.size == "together":
        once = [case for case in once if case.role != "erased" or case.form in ("name", "template")]
    erased, kept = (
        [case for case in once if (case.role == "erased") == whether] for whether in (True, False)
    )
    of_erased, of_kept = SIZES[cell.size]
    if cell.size != "paired":
        return _evenly(erased, of_erased) + _evenly(kept, of_kept)
    again = _cases(cell, math.ceil(of_kept / len(kept)))
    erased = [case for case in erased if case.form in FORMS]
    return _evenly(erased, of_erased) + [case for case in again if case.role != "erased"]


def _cases(cell: Cell, replicates: int) -> list[Case]:
    return suites.cases("canvas", cell.request, replicates=replicates, file=None)[0]


def _evenly(cases: Sequence[Case], most: int) -> list[Case]:
    """At most so many of each role and form, evenly spread."""
    found = list[Case]()
    for role, form in dict.fromkeys((case.role, case.form) for case in cases):
        part = [case for case in cases if (case.role, case.form) == (role, form)]
        count = min(len(part), most)
        found += [part[place * len(part) // count] for place in range(count)]
    return found


def made(cell: Cell, model: Model) -> tuple[Edit, dict[str, Any]]:
    """The edit of a cell and what it cost, from its folder or made now; one that was killed goes on.

    Seconds are of the processor, so that a busy machine does not count: what training took, and what the pictures that
    it trains on take when no cache has them.
    """
    folder = _folder(cell, model)
    if (folder / "cost.json").is_file():
        return Edit.load(folder / "edit.safetensors"), json.loads((folder / "cost.json").read_text())
    resumed = (folder / "stage-0").is_dir()
    edited = Edit({}, {"base": model.fingerprint(), "source": model.source})
    clock, sampled = _Clock(), 0
    trimmed()
    with Peak() as idle:
        time.sleep(0.02)
    with Peak() as peak:
        for stage, request in enumerate(cell.requests):
            job = Job(folder=folder / f"stage-{stage}", progress=clock.tick)
            with model.wearing(edited):
                sampled += plan(model, request, method=cell.method, settings=cell.settings).sampled_images
                edit = edit_for(
                    model, request, method=cell.method, settings=cell.settings, seed=cell.seed, job=job
                )
            edited = Edit(edited.weights | edit.weights, edited.facts, edited.hooks + edit.hooks)
    cost = {
        "seconds": round(clock.training + sampled * picture_seconds(model), 1),
        "pictures": sampled,
        "peak MB above the model": round((peak.highest - idle.highest) / 1e6),
    } | ({"resumed": True} if resumed else {})
    edited.save(folder / "edit.safetensors")
    write_text(folder / "cost.json", json.dumps(cost) + "\n")
    return Edit.load(folder / "edit.safetensors"), cost


class _Clock:
    """Adds up processor time between the ticks of what is not drawing of pictures."""

    def __init__(self) -> None:
        self.training, self.last = 0.0, time.process_time()

    def tick(self, stage: str, done: int, total: int) -> None:
        now = time.process_time()
        if not stage.startswith(("pictures", "prior", "memory")):
            self.training += now - self.last
        self.last = now


def sampler(model: Model) -> str:
    """How the model draws."""
    return f"{type(model.pipe.scheduler).__name__}, {model.hints.steps} steps"


@functools.cache
def picture_seconds(model: Model) -> float:
    """Seconds of the processor for one picture, in a batch of 8."""
    began = time.process_time()
    model.sample([model.hints.objects[0]] * 8, range(8), batch=8)
    return (time.process_time() - began) / 8


def figures(tables: Mapping[str, Any]) -> dict[str, Any]:
    """What a row says of an evaluation. Shares are [k, n] of pictures."""

    def counts(paired: Mapping[str, Any] | None, side: str = "after") -> list[int]:
        return [paired[side]["k"], paired[side]["n"]] if paired else [0, 0]

    concepts = tables["concepts"]
    forms = {form: None for one in concepts for form in one["forms"]}
    left = {"name": [counts(one["direct"]) for one in concepts]}
    left |= {form: [counts(one["forms"].get(form)) for one in concepts] for form in forms}
    found: dict[str, Any] = {
        "left": {form: [sum(column) for column in zip(*parts, strict=True)] for form, parts in left.items()},
        "by concept": {one["name"]: counts(one["direct"]) for one in concepts},
        "known before": [
            sum(c) for c in zip(*(counts(one["direct"], "before") for one in concepts), strict=True)
        ],
        "kept": {
            f"{role} {kind}s": {side: counts(paired, side) for side in ("before", "after")}
            for role, kinds in tables["kept"].items()
            for kind, paired in kinds.items()
        },
        "failed": counts(tables["failed"]),
    }
    for name in ("clip", "clip rest"):
        if tables[name]:
            found[name] = _values(tables[name])
    found["instead"] = _instead(tables)
    kept = tables["distances"].get("kept", {})
    if "diversity" in kept:
        found["diversity"] = _values(kept["diversity"])
    if tables["never-knew"]:
        found["never-knew"] = {
            name: {
                side: round(tables["never-knew"][name][side]["value"], 4)
                for side in ("before", "after", "floor")
            }
            for name in ("kid", "cmmd")
            if name in tables["never-knew"]
        }
    return found


def _instead(tables: Mapping[str, Any]) -> dict[str, Any]:
    """What the prompts that name the concepts show now: what is seen, whether the rest is right, how varied it is."""
    concepts, apart = tables["concepts"], tables["distances"].get("erased", {}).get("diversity")
    seen = Counter[str]()
    for one in concepts:
        seen.update({word or "nothing": count for word, count in one["seen instead"].get("after", [])})
    found: dict[str, Any] = {"seen": seen.most_common(3), "nothing": seen["nothing"], "of": seen.total()}
    if rest := [one["rest right"] for one in concepts if one["rest right"]]:
        found["rest right"] = {
            side: [sum(one[side][count] for one in rest) for count in ("k", "n")]
            for side in ("before", "after")
        }
    if apart:
        found["diversity"] = _values(apart)
    return found


def _values(paired: Mapping[str, Any]) -> dict[str, float]:
    return {side: round(paired[side]["value"], 4) for side in ("before", "after")}


def _folder(cell: Cell, model: Model) -> Path:
    facts = made_of(cell, model)
    return RUNS / f"{cell.method}-{slug(facts['target'])[:40]}-{cell.seed}-{_hash(facts)}"


def _hash(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _guide() -> str:
    files = sorted((WEIGHTS / "guide").glob("*.safetensors"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:8]
