"""What a training step of each method takes on denoisers of the real size: seconds, memory, share of the peak FLOP/s.

    python benchmarks/full_size.py [run] [--reduced] [--size SDXL] [--method esd]
    python benchmarks/full_size.py table

Weights are random: that changes neither time nor memory. On a GPU the denoisers of Stable Diffusion 1.5, SDXL and
Flux.1 dev stand in bfloat16; ``--reduced``, the only form without a GPU, takes the same classes and kinds of blocks at
a fraction of width, depth and latent, in float32 on one thread of the CPU, with fewer rows a step. Settings are what a
user gets who names a method and a concept, but for few steps and few pictures to begin with: SDXL and Flux.1 recompute
their activations. SDXL trains two pictures a side, Flux.1 one, of 512 x 512.

A method runs several times alike: for the FLOPs of its steps (``FlopCounterMode``: matrices, convolutions, attention),
for their seconds (of the processor, on a CPU), and for the most that torch's allocator held, networks and all. The
device's peak is what a large product of matrices reaches in the same dtype. ``table`` writes docs/full-size.md from the
rows in results/full_size.jsonl; a row that is there is not made again.
"""

from __future__ import annotations

import argparse
import gc
import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from cost import LITTLE, REQUEST
from peak import allocated
from rows import keep, markdown, read
from sizes import SIZES, opened
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from unlearnkit.errors import UnlearnError
from unlearnkit.methods import METHODS, Job, edit_for, plan, resolve
from unlearnkit.model import restore
from unlearnkit.model.model import Model
from unlearnkit.runs.estimate import estimate
from unlearnkit.schema import Recipe
from unlearnkit.settings import describe
from unlearnkit.training.settings import Training

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "benchmarks" / "results" / "full_size.jsonl"
PAGE = ROOT / "docs" / "full-size.md"
ABLE = [name for name, method in METHODS.items() if issubclass(method, Training)]
HEADING = """
# Steps on denoisers of the real size

`benchmarks/full_size.py` (`table`) writes this page from the rows in `benchmarks/results/full_size.jsonl`. The weights
are random. Time and memory do not depend on them, but nothing here shows what a method erases. *Reduced* rows use the
same classes and kinds of blocks with a fraction of the width, depth and latent size, in float32 on one thread of a CPU,
two pictures a step. They show that everything runs and that the estimate of memory is right. They say nothing about the
speed at the real size.

- *rows a step*: passes without gradient, and passes forward and backward.
- *s a step*: on a CPU in processor time.
- *of peak FLOP/s*: compared with a large product of matrices on the same device and in the same dtype.
- *estimated GB*: what `erase --dry-run` says. *measured GB*: the peak of torch's allocator, the networks included.
- SDXL and Flux.1 recompute activations.
"""
STEPS = 4  # the first is not timed
FEWER = {"batch": 2, "steps": 2, "start_steps": 4}  # in the reduced form
LARGE: dict[str, dict[str, Any]] = {  # in the full one
    "SDXL": {"batch": 2, "steps": 3},
    "Flux.1 dev": {"batch": 1, "steps": 3},
}
HEADS = (
    "model",
    "method",
    "trains",
    "rows a step",
    "s a step",
    "of peak FLOP/s",
    "estimated GB",
    "measured GB",
)


def attention(query: Any, key: Any, value: Any, *others: Any, **more: Any) -> int:
    """FLOPs by the shapes; the counter knows the attention of GPUs alone."""
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


def attention_backward(gradient: Any, query: Any, key: Any, value: Any, *others: Any, **more: Any) -> int:
    return int(sdpa_backward_flop_count(gradient, query, key, value))  # type: ignore[no-untyped-call]


CPU = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
}


def asked(method: str, size: str, reduced: bool) -> dict[str, Any]:
    """The settings that differ from what a user gets."""
    few = {name: value for name, value in LITTLE.items() if name != "start"} | {"steps": STEPS}
    few |= FEWER if reduced else LARGE.get(size, {})
    return {name: value for name, value in few.items() if name in {s.name for s in describe(METHODS[method])}}


def measured(model: Model, method: str, settings: Mapping[str, Any], cache: Path) -> dict[str, Any]:
    """The figures of a method's steps on the model; a refusal, in words, where it cannot run there."""
    try:
        told = plan(model, REQUEST, method=method, settings=settings)
        chosen: Any = resolve(model, REQUEST, method, settings)
        with FlopCounterMode(display=False, custom_mapping=CPU) as counter:
            flops = over(model, method, settings, cache, counter.get_total_flops)
        timed: list[float] = []
        held = allocated(lambda: timed.append(over(model, method, settings, cache, clock(model.device))))
        if model.device.type == "cpu":  # where looking at every allocation takes time
            timed = [over(model, method, settings, cache, clock(model.device))]
        seconds = timed[0]
        recipe = Recipe(model.source, method, REQUEST, dict(settings))
        guess = estimate(model, recipe, pictures=0).memory
    except UnlearnError as refused:
        return {"refused": str(refused)}
    except torch.OutOfMemoryError:
        return {"refused": "the device has too little memory"}
    networks = restore.networks(model.pipe)
    return {
        "trains": f"lora, rank {chosen.rank}" if chosen.updates else chosen.trains,
        "rows a step": [round(count, 1) for count in told.passes],
        "seconds a step": round(seconds, 4),
        "TFLOP a step": round(flops / 1e12, 6),
        "share of peak": round(flops / seconds / peak(model.device, model.dtype), 4),
        "estimated bytes": guess,
        "measured bytes": held + sum(weight.nbytes for one in networks for weight in one.parameters()),
    }


def clock(device: torch.device) -> Callable[[], float]:
    """Seconds: of the processor, so that a busy machine does not count; on a GPU, when it has done all it was told."""

    def waited() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return waited if device.type == "cuda" else time.process_time


def over(
    model: Model, method: str, settings: Mapping[str, Any], cache: Path, counts: Callable[[], float]
) -> float:
    """What a step adds to what ``counts`` gives: a mean over all steps but the first."""
    ticks: list[float] = []

    def tick(stage: str, done: int, total: int) -> None:
        if stage == "training":
            ticks.append(counts())

    edit_for(model, REQUEST, method=method, settings=settings, job=Job(progress=tick, cache=cache))
    return (ticks[-1] - ticks[0]) / (len(ticks) - 1)


def peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large product of matrices: the best of some."""
    side = 8192 if device.type == "cuda" else 1024
    a = torch.randn(side, side, device=device, dtype=dtype)
    tells, best = clock(device), 0.0
    for _ in range(10):
        began = tells()
        a @ a
        best = max(best, 2 * side**3 / (tells() - began))
    return best


def run(sizes: list[str], methods: list[str], reduced: bool) -> None:
    """Make the rows that are not there yet."""
    device = (platform.processor() or platform.machine()) if reduced else torch.cuda.get_device_name()
    there = [row["key"] for row in read(ROWS)]
    for size in sizes:
        keys: list[dict[str, Any]] = [
            {"size": size, "form": "reduced" if reduced else "full", "device": device, "method": method}
            | {"settings": asked(method, size, reduced)}
            for method in methods
        ]
        if not (wanted := [key for key in keys if key not in there]):
            continue
        model = opened(size, reduced=reduced)
        with tempfile.TemporaryDirectory() as cache:
            for key in wanted:
                keep(ROWS, {"key": key} | measured(model, key["method"], key["settings"], Path(cache)))
                if not reduced:
                    gc.collect()
                    torch.cuda.empty_cache()
        del model


def page(found: list[dict[str, Any]]) -> str:
    """docs/full-size.md."""
    lines = [HEADING.strip()]
    found = sorted(found, key=lambda row: list(SIZES).index(row["key"]["size"]))
    for form, device in dict.fromkeys((row["key"]["form"], row["key"]["device"]) for row in found):
        own = [row for row in found if (row["key"]["form"], row["key"]["device"]) == (form, device)]
        lines += ["", f"## {form}, on {device}", "", *markdown(HEADS, map(_cells, own))]
    return "\n".join([*lines, ""])


def _cells(row: Mapping[str, Any]) -> list[str]:
    cells = [row["key"]["size"], row["key"]["method"]]
    if "refused" in row:
        return [*cells, f"no: {row['refused']}", *[""] * (len(HEADS) - 3)]
    whole = ", all activations held" if row["key"]["settings"].get("checkpointing") is False else ""
    free, learning = row["rows a step"]
    guess, held = (row[f"{kind} bytes"] for kind in ("estimated", "measured"))
    return [
        *(*cells, row["trains"] + whole, f"{free:g} and {learning:g}", f"{row['seconds a step']:.3g}"),
        *(f"{row['share of peak']:.0%}", f"{guess / 1e9:.3g} ({guess / held - 1:+.0%})", f"{held / 1e9:.3g}"),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=("run", "table"), default="run")
    parser.add_argument("--size", choices=SIZES, help="every size by default")
    parser.add_argument("--method", choices=ABLE, help="every method that trains by default")
    parser.add_argument("--reduced", action="store_true", help="on the CPU, though there is a GPU")
    given = parser.parse_args()
    if given.what == "table":
        PAGE.write_text(page(list(read(ROWS))), encoding="utf-8")
    else:
        reduced = given.reduced or not torch.cuda.is_available()
        if reduced:
            torch.set_num_threads(1)
        run([given.size] if given.size else list(SIZES), [given.method] if given.method else ABLE, reduced)
