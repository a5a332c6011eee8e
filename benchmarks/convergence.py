"""Does the panel of ``stop = converged`` and ``reach`` know what is left? The validation classifier says.

    python benchmarks/convergence.py train --method esd --concept halftone [--every 20]
    python benchmarks/convergence.py solve --method uce --concept neon [--weight 1 --weight 4 ...]

``train`` trains a method with the canvas's settings and reads the panel every so many steps; ``solve`` solves a closed
form with each erase weight. A row of ``results/convergence.jsonl`` has each time how far the slowest prompt has come,
how far retained words have moved, and how many of 16 pictures (held-out prompts and the model's templates) still show
the concept. One that is there is not made again.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from cells import concept
from rows import once

from unlearnkit import load, seeds
from unlearnkit.canvas.validation import validation_classifier
from unlearnkit.data.prompts import prompts
from unlearnkit.data.text_columns import target_of
from unlearnkit.methods import edit_for, resolve
from unlearnkit.model.model import Model
from unlearnkit.schema import Request
from unlearnkit.training.job import EarlyStopping, Job, Run
from unlearnkit.training.net import Net
from unlearnkit.training.panel import Panel

ROWS = Path(__file__).parent / "results" / "convergence.jsonl"
STEPS = 8  # of sampling


class Watch:
    """The panel, and the classifier's count, of the weights that the model has."""

    def __init__(self, model: Model, name: str, method: Any) -> None:
        self.model, self.name, self.one = model, name, concept(name)
        request, run = Request((self.one,)), Run(model, Request((self.one,)), Net(model))
        if hasattr(method, "place"):
            self.panel = Panel(
                run, lambda one: method.place(model, request, one), targeted=method.TARGET_PROMPT is not None
            )
        else:
            self.panel = Panel(run, target_of)
        words = prompts(self.one, model.hints, templates=True)
        self.prompts = [*self.panel.prompts[: self.panel.count], *words[:8]]
        self.found: list[dict[str, Any]] = []

    def read(self, at: float) -> float:
        reading = self.panel.read()
        numbers = [seeds.derive(0, "convergence", number) for number in range(len(self.prompts))]
        seen = validation_classifier().classify(self.model.sample(self.prompts, numbers, steps=STEPS))
        left = sum(getattr(label, self.one.kind) == self.name for label in seen)
        self.found.append(
            {
                "at": at,
                "come": round(reading.come, 3),
                "moved": round(reading.moved, 3),
                "left": [left, len(seen)],
            }
        )
        return 0.0


def trained(model: Model, method: str, name: str, every: int) -> Mapping[str, Any]:
    request = Request((concept(name),))
    watch = Watch(model, name, resolve(model, request, method, {}))
    stop = EarlyStopping(lambda _, step: watch.read(step), every=every, patience=10**9)
    edit_for(model, request, method=method, settings={"stop": "none"}, job=Job(stop=stop))
    return {"readings": watch.found}


def solved(model: Model, method: str, name: str, weights: list[float]) -> Mapping[str, Any]:
    request = Request((concept(name),))
    watch = Watch(model, name, resolve(model, request, method, {}))
    for weight in weights:
        settings = {"erase_weight": weight, "reach": 0.0}
        with model.wearing(edit_for(model, request, method=method, settings=settings)):
            watch.read(weight)
    return {"readings": watch.found}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["train", "solve"])
    parser.add_argument("--method", required=True)
    parser.add_argument("--concept", required=True)
    parser.add_argument("--every", type=int, default=20)
    parser.add_argument("--weight", type=float, action="append")
    given = parser.parse_args()
    torch.set_num_threads(1)
    opened, weights = load("canvas"), given.weight or [1.0, 4.0, 16.0, 64.0]
    facts = {"base": opened.fingerprint()[:12], "method": given.method, "concept": given.concept}
    facts |= {"every": given.every} if given.what == "train" else {"weights": weights}
    if given.what == "train":
        once(ROWS, facts, lambda: trained(opened, given.method, given.concept, given.every))
    else:
        once(ROWS, facts, lambda: solved(opened, given.method, given.concept, weights))
