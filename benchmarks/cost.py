"""What a training step of each method costs over the bare passes that its equation needs, and the memory it takes.

    python benchmarks/cost.py [--method esd] [--batch 8] [--steps 2] [--rounds 5] [--trains all]

The bare passes are those of the method's plan: rows without gradient, rows forward and backward to the weights of the
part that it trains, in one graph or, where gradients are combined, in a graph for each side. Blocks of whole steps and
of bare passes alternate, one thread in one process; time is of the processor, and the figure is the median over rounds
of (whole / bare). Memory is the peak while training above the peak while passing barely, beside the bytes of the
trained copies, their gradients and Adam's two moments, which are all that training needs. Each method has a process of
its own, because a process does not give back what it once held. Rows go to results/cost.jsonl, the last one counts.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from peak import Peak
from rows import keep

from unlearnkit import Concept, load
from unlearnkit.methods import METHODS, edit_for, plan
from unlearnkit.model.model import Model
from unlearnkit.schema import Request
from unlearnkit.seeds import stream
from unlearnkit.settings import describe
from unlearnkit.training.job import Job
from unlearnkit.training.method import Plan
from unlearnkit.training.settings import Training

ROWS = Path(__file__).parent / "results" / "cost.jsonl"
REQUEST = Request((Concept("cat"),))
MANY = 10_000
# few pictures and short preparations: only steps are timed
LITTLE = {
    "pictures": 8,
    "retain_pictures": 1,
    "memory": 8,
    "neighbours": 8,
    "fisher_pictures": 1,
    "fisher_times": 1,
    "discriminator_warmup": 0,
    "mask_warmup": 1,
    "start": "pictures",
    "grammar": "plain",
    "stop": "none",
}


def chosen(method: str, batch: int, steps: int, trains: str | None) -> dict[str, Any]:
    """The method's own defaults, not the canvas's, but for the size of everything; keeping is on."""
    cls = METHODS[method]
    given = LITTLE | {"batch": batch, "steps": steps} | ({"trains": trains} if trains else {})
    settings = dataclasses.asdict(cls()) | {
        k: v for k, v in given.items() if k in {s.name for s in describe(cls)}
    }
    return settings | ({"retain_weight": 1.0} if method in ("ca", "esd") else {})


def whole(model: Model, method: str, settings: dict[str, Any]) -> float:
    """Seconds of all steps but the first, whose end is where time begins."""
    ticks: list[float] = []

    def tick(stage: str, done: int, total: int) -> None:
        if stage == "training":
            ticks.append(time.process_time())

    settings = settings | {"steps": settings["steps"] + 1}
    edit_for(model, REQUEST, method=method, settings=settings, job=Job(progress=tick))
    return ticks[-1] - ticks[0]


def bare(model: Model, planned: Plan, sides: int, steps: int) -> float:
    """Seconds of the passes of ``steps`` steps: some rows without gradient, then each side forward and backward."""
    free, rows = (round(count) for count in planned.passes)
    weights = {name: w.detach().clone().requires_grad_() for name, w in model.weights(planned.part).items()}
    n = max(free, rows)
    x, t = (
        torch.randn(n, *model.shape, generator=stream(0, "bare")),
        torch.arange(n) * (model.num_timesteps // n),
    )
    states = model.encode(["a cat"]).repeat(n, 1, 1)
    places = torch.tensor_split(torch.arange(rows), sides)
    with model.frozen():
        began = time.process_time()
        for _ in range(steps):
            if free:
                with torch.no_grad():
                    model.eps(x[:free], t[:free], states[:free])
            with model.wearing(weights):
                for at in places:
                    loss = model.eps(x[at], t[at], states[at]).square().mean()
                    torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
        return time.process_time() - began


def cost(method: str, batch: int, steps: int, rounds: int, trains: str | None) -> dict[str, Any]:
    model = load("canvas")
    settings = chosen(method, batch, steps, trains)
    # of many steps, so that passes before training and in a warm-up, neither of which is timed, do not count
    planned = plan(model, REQUEST, method=method, settings=settings | {"steps": MANY})
    sides = 1 if settings["combine"] == "sum" and method != "erasediff" else 2
    bare(model, planned, sides, 2)
    with Peak() as idle:
        bare(model, planned, sides, 2)
    with Peak() as trained:
        whole(model, method, settings | {"steps": 2})
    found = [(whole(model, method, settings), bare(model, planned, sides, steps)) for _ in range(rounds)]
    ratios = [one / other for one, other in found]
    return {
        "method": method,
        "trains": settings["trains"],
        "batch": batch,
        "rows a step": {
            "without gradient": round(planned.passes[0]),
            "forward and backward": round(planned.passes[1]),
        },
        "seconds a step": round(statistics.median(one for one, _ in found) / steps, 3),
        "over bare passes": round(statistics.median(ratios), 3),
        "spread": [round(min(ratios), 3), round(max(ratios), 3)],
        "copies, gradients and moments MB": round(16 * planned.weights / 1e6, 1),
        "peak above that of bare passes MB": round((trained.highest - idle.highest) / 1e6, 1),
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "device": str(model.device),
    }


if __name__ == "__main__":
    able = [name for name, method in METHODS.items() if issubclass(method, Training)]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--method", choices=able, help="default: every method that trains")
    parser.add_argument("--trains", help="default: the method's own")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=2, help="a block")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    if given.method is None:
        for name in able:
            subprocess.run([sys.executable, __file__, "--method", name, *sys.argv[1:]], check=True)
    else:
        torch.set_num_threads(1)
        keep(ROWS, cost(given.method, given.batch, given.steps, given.rounds, given.trains))
