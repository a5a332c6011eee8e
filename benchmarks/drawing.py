"""Pictures a second of an evaluation's drawing, PNG files and all, against a bare diffusers call of the same batch.

    python benchmarks/drawing.py [--model canvas] [--batch 32] [--batches 2] [--rounds 5]

Blocks of both alternate in one process; the figure is the median over rounds of (evaluation / bare).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from unlearnkit.evaluation.draw import draw, model_side
from unlearnkit.model.load import load
from unlearnkit.model.model import Model
from unlearnkit.schema import Case


def bare(model: Model, cases: list[Case], batch: int) -> None:
    """The pipeline's own call, prompts as text, pictures thrown away."""
    model.pipe.set_progress_bar_config(disable=True)
    for start in range(0, len(cases), batch):
        part = cases[start : start + batch]
        model.pipe(
            [case.prompt for case in part],
            num_inference_steps=model.hints.steps,
            guidance_scale=model.hints.guidance,
            generator=[torch.Generator().manual_seed(case.seed) for case in part],
        )


def ours(model: Model, cases: list[Case], batch: int) -> None:
    """The same cases into a fresh folder."""
    with tempfile.TemporaryDirectory() as folder:
        draw(cases, model_side("before", model, batch=batch), Path(folder))


def seconds(work: Callable[[Model, list[Case], int], None], *given: Any) -> tuple[float, float]:
    """How long it takes by the wall's clock, and by the processor's, which does not count what others do here."""
    began = time.perf_counter(), time.process_time()
    work(*given)
    return time.perf_counter() - began[0], time.process_time() - began[1]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="canvas")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--batches", type=int, default=2, help="a block")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    model = load(given.model)
    count = given.batch * given.batches
    cases = [Case(f"case-{i}", f"case-{i}", f"a cat {i}", i, "erased", "name") for i in range(count)]
    bare(model, cases[: given.batch], given.batch)
    rounds = [
        (seconds(bare, model, cases, given.batch), seconds(ours, model, cases, given.batch))
        for _ in range(given.rounds)
    ]
    found: dict[str, Any] = {"threads": torch.get_num_threads(), "batch": given.batch, "rounds": given.rounds}
    for i, clock in enumerate(("wall", "processor")):
        ratios = [b[i] / o[i] for b, o in rounds]
        found[clock] = {
            "bare pictures a second": round(statistics.median(count / b[i] for b, _ in rounds), 3),
            "speed against bare": round(statistics.median(ratios), 3),
            "spread": [round(min(ratios), 3), round(max(ratios), 3)],
        }
    print(json.dumps(found))
