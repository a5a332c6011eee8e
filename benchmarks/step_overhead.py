"""What one training step costs over the bare passes that its equation needs, and what memory training takes.

    python benchmarks/step_overhead.py [--train xattn] [--batch 8] [--steps 12] [--rounds 7]

Time: ESD's step on the canvas (``start = "pictures"``) needs one forward pass of 2 x batch rows without gradient and
one forward and backward pass of batch rows. Blocks of whole steps and of such bare passes alternate in one process;
the figure is the median over rounds of (whole / bare). Memory: the peak of the resident set during training above
what the process held with the model loaded and warmed up by the bare passes, beside the bytes of the trained copies,
their gradients and Adam's two moments.
"""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
from pathlib import Path

import torch

from unlearnkit import Concept, load
from unlearnkit.descend import Job
from unlearnkit.methods import edit_for
from unlearnkit.model import Model
from unlearnkit.schema import Request
from unlearnkit.seeds import stream


def bare(model: Model, part: str, batch: int, steps: int) -> float:
    """Seconds of ``steps`` times: 2 x batch rows forward, batch rows forward and backward to the part's weights."""
    weights = {name: w.detach().clone().requires_grad_() for name, w in model.weights(part).items()}
    states = model.encode(["a cat", ""])
    x = torch.randn(2 * batch, *model.shape, generator=stream(0, "bare"))
    t = torch.arange(2 * batch) * (model.times // (2 * batch))
    both = states.repeat_interleave(batch, 0)
    with model.frozen():
        began = time.perf_counter()
        for _ in range(steps):
            with torch.no_grad():
                wanted = model.predict(x, t, both)[:batch]
            with model.wearing(weights):
                loss = (model.predict(x[:batch], t[:batch], both[:batch]) - wanted).square().mean()
                torch.autograd.grad(loss, list(weights.values()))
        return time.perf_counter() - began


def whole(model: Model, settings: dict[str, object], steps: int) -> float:
    """Seconds of ``steps`` steps of the method, from the end of the first step, so without preparation."""
    ticks: list[float] = []

    def tick(stage: str, done: int, total: int) -> None:
        if stage == "training":
            ticks.append(time.perf_counter())

    edit_for(
        model,
        Request((Concept("cat"),)),
        method="esd",
        settings=settings | {"steps": steps + 1},
        job=Job(progress=tick),
    )
    return ticks[-1] - ticks[0]


class Peak:
    """The largest resident set of this process while it is open, in bytes, read every 5 ms."""

    def __enter__(self) -> Peak:
        self.highest, self.open = 0, True
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self) -> None:
        while self.open:
            self.highest = max(self.highest, resident())
            time.sleep(0.005)

    def __exit__(self, *_: object) -> None:
        self.open = False
        self.thread.join()


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", default="xattn", choices=["xattn-kv", "xattn", "not-xattn", "all"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=12, help="a block")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    model = load("canvas")
    part = given.train
    settings: dict[str, object] = {
        "trains": given.train,
        "batch": given.batch,
        "start": "pictures",
        "keep": 0.0,
    }
    bare(model, part, given.batch, 3)
    whole(model, settings, 2)
    with Peak() as idle:
        bare(model, part, given.batch, 3)
    with Peak() as trained:
        whole(model, settings, 3)
    rounds = [
        (whole(model, settings, given.steps), bare(model, part, given.batch, given.steps))
        for _ in range(given.rounds)
    ]
    network = sum(w.numel() * w.element_size() for w in model.weights("all").values())
    more = trained.highest - idle.highest
    copies = sum(w.numel() for w in model.weights(part).values()) * 4
    print(
        json.dumps(
            {
                "threads": torch.get_num_threads(),
                "trains": given.train,
                "batch": given.batch,
                "seconds a step": round(statistics.median(w for w, _ in rounds) / given.steps, 4),
                "over bare passes": round(statistics.median(w / b for w, b in rounds), 3),
                "spread": [round(min(w / b for w, b in rounds), 3), round(max(w / b for w, b in rounds), 3)],
                "network MB": round(network / 1e6, 1),
                "trained copies, gradients and moments MB": round(4 * copies / 1e6, 1),
                "peak of training over peak of bare passes MB": round(more / 1e6, 1),
            },
            indent=1,
        )
    )
