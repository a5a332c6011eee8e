"""Request after request on the canvas: what is forgotten, what comes back, and what else is lost.

    python benchmarks/continual.py run [--contender esd ...] [--sequence objects ...]    order 0, seed 0
    python benchmarks/continual.py run --best 3       the other orders and seeds of the three best by now
    python benchmarks/continual.py plan               what is left, and how long it should take
    python benchmarks/continual.py table              docs/continual.md and docs/continual.png from the rows

A cell is a chain: contender, sequence, order, seed. It is stored in ``runs/continual`` and resumes request by request.
Each request adds one line to ``results/continual.jsonl``; its key has all that it depends on, and it is not repeated.
Erasure is matched: training ends at the first score (every 20 steps) at which the validation classifier sees the
concept in at most 5 % of 40 pictures; a closed form takes the first value of its ladder that does so. "as shipped"
(``chain add`` with its defaults), "uce, whole" (UCE with the canvas's settings) and "uce-diverse" run in full. The
held-out classifier gives the rows. A contender that keeps less than 30 % of the other objects or styles has collapsed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import continual_table
from cells import sampler
from rows import keep, part, plain, read, share

from unlearnkit import Concept, chain, load
from unlearnkit.chain.edits import make_edit
from unlearnkit.chain.finish import base_model
from unlearnkit.chain.guards import Guards
from unlearnkit.chain.project import open_chain
from unlearnkit.chain.weights import current_edit
from unlearnkit.errors import UnlearnError
from unlearnkit.methods import find, resolve
from unlearnkit.metrics.evaluators import Evaluators
from unlearnkit.model.model import Model
from unlearnkit.schema import Request
from unlearnkit.settings import changed
from unlearnkit.training.job import Job
from unlearnkit.training.settings import Training

ROWS = Path(__file__).parent / "results" / "continual.jsonl"
RUNS = Path("runs") / "continual"
MATCH: dict[str, Any] = {"stop": "erased", "stop_every": 20, "stop_at": 0.05}
COLLAPSED = 0.30
ORDERS, SEEDS = (0, 1, 2), (0, 1)

OBJECTS = (
    *("cat", "frog", "owl", "car", "airplane", "rocket"),
    *("apple", "pizza", "tree", "cactus", "castle", "guitar"),
)
STYLES = ("pixel art", "pop art", "watercolor", "van gogh", "blueprint")
SEQUENCES: dict[str, list[Concept]] = {
    "objects": [Concept(name) for name in OBJECTS],
    "styles": [Concept(name, "style") for name in STYLES],
    "mixed": [
        Concept(name, "style" if name in STYLES else "object")
        for name in (
            *("cat", "van gogh", "car", "apple", "pixel art"),
            *("tree", "castle", "watercolor", "owl", "pop art"),
        )
    ],
}


@dataclass(frozen=True)
class Contender:
    """How a chain is made. ladder: settings that are tried in turn until the guide says that it is erased.

    matched: whether training ends as soon as the guide says so.
    """

    method: str = "esd"
    regime: str = "sequential"
    settings: Mapping[str, Any] = field(default_factory=dict)
    guards: dict[str, Any] = field(default_factory=dict)
    merge: Mapping[str, Any] = field(default_factory=dict)
    ladder: Sequence[Mapping[str, Any]] = ()
    matched: bool = True


PLAIN = {"retain_weight": 0.0, "steps": 400, "null": "empty", "eta": 1.3}  # the paper's loss alone
BARE = {"bank": 0, "replay": 0}
GUARDS = {"bank": 200, "bank_near": 0, "bank_weight": 5.0, "replay": 10, "replay_weight": 1.0}
SHIPPED = dataclasses.asdict(Guards())
CONTENDERS: dict[str, Contender] = {
    "esd": Contender(settings=PLAIN),
    "ca": Contender("ca", settings={"steps": 400}),
    "uce": Contender("uce", ladder=[{"erase_weight": scale} for scale in (1.0, 2.0, 5.0, 10.0, 20.0, 50.0)]),
    "uce, whole": Contender("uce", matched=False),
    "uce-diverse": Contender("uce-diverse", guards={"replay": 10}, matched=False),
    "uce-diverse, joint": Contender("uce-diverse", regime="joint", matched=False),
    "salun": Contender("salun", settings={"steps": 400}),
    "esd, l2sp": Contender(settings=PLAIN | {"rule": ("l2sp",)}),
    "esd, weak l2sp": Contender(settings=PLAIN | {"rule": ("l2sp",), "l2sp": 500.0}),
    "esd, selft": Contender(settings=PLAIN | {"mask": "selft", "mask_share": 0.1}),
    "esd, projection": Contender(
        settings=PLAIN | {"trains": "xattn-kv"}, guards={"project": 16, "free": 0.1}
    ),
    "esd, joint": Contender(regime="joint", settings=PLAIN),
    "esd, ties": Contender(regime="merged", settings=PLAIN),
    "sculpting": Contender("sculpting", settings={"steps": 400}),
    "duge": Contender("duge", settings={"steps": 400}),
    "doco": Contender("doco"),
    "doco, bank, replay": Contender("doco", guards=GUARDS),
    "duge, bank, replay": Contender("duge", settings={"steps": 400, "memory": 0}, guards=SHIPPED),
    "sculpting, bank, replay": Contender("sculpting", settings={"steps": 400}, guards=SHIPPED),
    "esd, keep, bank, replay": Contender(settings={"steps": 400}, guards=GUARDS),
    "as shipped": Contender(guards=SHIPPED, matched=False),
}


@dataclass(frozen=True)
class Cell:
    contender: str
    sequence: str
    order: int
    seed: int

    @property
    def folder(self) -> Path:
        name = f"{self.contender}-{self.sequence}-{self.order}-{self.seed}"
        return RUNS / name.replace(", ", "+").replace(" ", "-")

    def requests(self) -> list[Concept]:
        """The sequence in this order; order 0 is as it is written."""
        found = list(SEQUENCES[self.sequence])
        if self.order:
            random.Random(self.order).shuffle(found)
        return found


def rows() -> list[dict[str, Any]]:
    return list(read(ROWS))


def key(cell: Cell, number: int, model: Model, pictures: int) -> dict[str, Any]:
    """All that a row depends on."""
    contender, requests = CONTENDERS[cell.contender], cell.requests()
    facts: dict[str, Any] = {"base": model.fingerprint()[:12], "pictures": pictures, "made": vars(contender)}
    filled = resolve(model, Request((requests[number],)), contender.method, contender.settings)
    facts |= {"drawn by": sampler(model), "settings": changed(filled)}
    facts |= {"cell": vars(cell), "request": number, "of": [one.name for one in requests]}
    return plain(facts)


def run(
    cell: Cell, model: Model, tools: Evaluators | None, pictures: int, requests: int | None = None
) -> str:
    """Go on with a cell until it is done or has collapsed: which of the two, or why it failed."""
    contender, wanted = CONTENDERS[cell.contender], cell.requests()[:requests]
    settings = dict(contender.settings) | (MATCH if trains(cell.contender) and contender.matched else {})
    made = {json.dumps(row["key"], sort_keys=True): row for row in rows()}
    if not cell.folder.exists():
        how: dict[str, Any] = {"regime": contender.regime, "merge": contender.merge, "pictures": pictures}
        guards = BARE | contender.guards
        chain.init(cell.folder, model, method=contender.method, settings=settings, guards=guards, **how)
    for number, concept in enumerate(wanted):
        name = key(cell, number, model, pictures)
        row = made.get(json.dumps(name, sort_keys=True))
        if row is None:
            done = open_chain(cell.folder).steps
            if len(done) <= number:
                try:
                    extra = _ladder(cell.folder, contender, concept, model) if contender.ladder else {}
                    chain.add(
                        cell.folder, concept, settings=extra, seed=cell.seed, model=model, evaluators=tools
                    )
                except UnlearnError as error:
                    return f"failed at {concept.name}: {error}"
            row = keep(ROWS, {"key": name, **figures(cell.folder, number)})
        if collapsed(row):
            return f"collapsed after {number + 1}"
    return "done"


def figures(folder: Path, number: int) -> dict[str, Any]:
    """What the ledger says after request ``number`` (from 0), as plain figures; rates keep k and n."""
    project = open_chain(folder)
    added = [entry for entry in project.entries if entry.kind == "add"]
    facts, look = added[number].facts, added[number].facts["look"]
    names = [entry.facts["request"]["erase"][0]["name"] for entry in added[: number + 1]]
    first = [entry.facts["look"]["seen"].get(name) for entry, name in zip(added, names, strict=False)]
    now = [look["seen"].get(name) for name in names]
    back = [
        after["after"]["value"] - then["after"]["value"]
        for then, after in zip(first[:-1], now[:-1], strict=True)
        if then and after
    ]
    edits = {entry.facts["edit"]["hash"]: entry.facts["edit"]["bytes"] for entry in added[: number + 1]}
    return {
        "concept": names[-1],
        "current": now[-1] and now[-1]["after"],
        "past": _pooled([rate["after"] for rate in now[:-1] if rate]),
        "all": _pooled([rate["after"] for rate in now if rate]),
        "relapse": max(back, default=0.0),
        "kept": look["kept"],
        "alignment": look["clip"],
        "kid": look["kid"],
        "drift": facts["drift"]["total"],
        "seconds": facts["making"],
        "bytes": sum(edits.values()),
        "settings": {name: facts["recipe"]["settings"].get(name) for name in ("steps", "lr", "erase_weight")},
    }


def collapsed(row: Mapping[str, Any]) -> bool:
    return any(
        rates["after"]["value"] < COLLAPSED * rates["before"]["value"]
        for group, rates in row["kept"].items()
        if group.startswith("unrelated")
    )


def _ladder(folder: Path, contender: Contender, concept: Concept, model: Model) -> Mapping[str, Any]:
    """The first settings of the ladder whose erasure matches by the validation classifier, else the last."""
    from unlearnkit.training.stopping import erasure_score

    project, request = open_chain(folder), Request((concept,))
    model, score = base_model(project, model), erasure_score(model, request)
    applied = current_edit(project, model, project.steps)
    guards = project.options.guards
    for settings in contender.ladder:
        filled = resolve(model, request, contender.method, dict(contender.settings) | dict(settings))
        settings_of = dataclasses.asdict(filled)
        recipe = {"method": contender.method, "settings": settings_of, "seed": 0, "guards": guards}
        edit, _ = make_edit(project, model, project.steps, request, recipe, job=Job())
        with model.wearing(applied), model.wearing(edit):
            if score(model, 0) <= MATCH["stop_at"]:
                return settings
    return contender.ladder[-1]


def _pooled(rates: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    return {"k": sum(rate["k"] for rate in rates), "n": sum(rate["n"] for rate in rates)}


def cells(contenders: Sequence[str], sequences: Sequence[str], best: int) -> Iterator[Cell]:
    """Order 0 and seed 0 of each; with ``best`` every order and seed of so many, in order of what they reached.

    A closed form draws nothing: another seed would give the very same pictures, and counts no more.
    """
    if best:
        ranked = continual_table.ranked(rows())
        contenders = [name for name in ranked if name in contenders][:best]
    for sequence in sequences:
        for name in contenders:
            for order in ORDERS if best else ORDERS[:1]:
                for seed in SEEDS if best and trains(name) else SEEDS[:1]:
                    yield Cell(name, sequence, order, seed)


def trains(contender: str) -> bool:
    return issubclass(find(CONTENDERS[contender].method), Training)


def left(wanted: Sequence[Cell], model: Model, pictures: int) -> None:
    """Print what is not made yet, with the time that a request of this contender took so far."""
    found = rows()
    made = {json.dumps(row["key"], sort_keys=True) for row in found}
    total, unknown = 0.0, 0
    for cell in wanted:
        keys = [key(cell, number, model, pictures) for number in range(len(cell.requests()))]
        missing = sum(json.dumps(one, sort_keys=True) not in made for one in keys)
        took = [row["seconds"] for row in found if row["key"]["cell"]["contender"] == cell.contender]
        known = [seconds for seconds in took if seconds is not None]  # not of a request that was killed
        mean = sum(known) / len(known) if known else None
        total, unknown = total + missing * (mean or 0.0), unknown + (missing if mean is None else 0)
        print(f"{missing:3} requests left, {'?' if mean is None else f'{mean:.0f}'} s each: {cell}")
    print(f"about {total / 3600:.1f} h of training without the looks, and {unknown} requests of unknown cost")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["run", "plan", "table"])
    parser.add_argument("--contender", action="append", choices=list(CONTENDERS))
    parser.add_argument("--sequence", action="append", choices=list(SEQUENCES))
    parser.add_argument("--best", type=int, default=0)
    parser.add_argument("--pictures", type=int, default=5, help="of each word after each request")
    parser.add_argument("--requests", type=int, help="stop a cell after so many")
    parser.add_argument("--share", type=share, default=(0, 1), help="of the cells, such as 0/4")
    given = parser.parse_args()
    if given.what == "table":
        print(continual_table.write(rows()))
    else:
        opened_model = load("canvas")
        chosen = list(
            cells(given.contender or list(CONTENDERS), given.sequence or list(SEQUENCES), given.best)
        )
        if given.what == "plan":
            left(chosen, opened_model, given.pictures)
        else:
            for one in part(chosen, given.share):
                print(one, run(one, opened_model, None, given.pictures, given.requests), flush=True)
