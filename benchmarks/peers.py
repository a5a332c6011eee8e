"""The official code of a method beside ours, on the same network: does it agree, and what does it cost?

    python benchmarks/peers.py run --peers FOLDER [--method esd] [--size canvas] [--steps 8] [--rounds 5]
    python benchmarks/peers.py table

FOLDER has their checkouts, each under its repository's name, and in ``site`` what pip installed for them alone. Nothing
of theirs is kept here: benchmarks/official has one file a method that runs theirs from the checkout, on the CPU in
float32, and says what it had to change. The networks are the canvas and a U-Net of 200 million random weights, with the
DDIM schedule of Stable Diffusion 1.4.

- agreement: the largest relative difference, over all tensors, of what both compute from the same numbers.
- a step: of blocks of steps, alternating in one process on one thread; processor time between the optimiser's steps,
  the median of all rounds. A closed form has no steps.
- from the model's folder to the file of changed weights: processor time of a process of its own each, without
  imports and without drawing pictures that both train on, the median.
- memory: the most that this process held resident, above what it held before.

Rows go to results/peers.jsonl; none is made twice. ``table`` writes docs/peers.md from them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import to_good
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from official.work import Peer, Work, watched
from peak import Peak, trimmed
from rows import markdown, once, read
from transformers.utils import logging as transformers_logging

from unlearnkit.model.places import CANVAS

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "benchmarks" / "results" / "peers.jsonl"
PAGE = ROOT / "docs" / "peers.md"
METHODS = ("esd", "uce", "ca", "doco", "rgd", "salun", "speed")
VERSIONS = ("torch", "diffusers", "transformers")
TITLES = {"canvas": "On the canvas", "200 M": "On a U-Net of 200 million random weights"}
HEADS: tuple[str, ...] = ("method", "agreement")
HEADS += ("s a step, theirs", "ours", "theirs / ours", "s end to end, theirs", "ours", "theirs / ours")
HEADS += ("MB, theirs", "ours", "ours / theirs")
WHAT = ("method", "their code", "commit", "what of theirs runs, and what was changed for it", "the same work")
HEADING = """
# Beside the official code

`benchmarks/peers.py table` writes this page from the rows of `benchmarks/results/peers.jsonl`. To make them, clone the
repositories below into one folder; then `python benchmarks/peers.py run --peers FOLDER`. Nothing of theirs is part of
this repository: their code runs from the checkout, on the CPU in float32, on the same network as ours. Where a script
needs a GPU, an old library or pictures, `benchmarks/official` gives it something in their place at run time.

- *agreement*: the largest relative difference of the gradient, or of the change, that both compute from the same
  numbers.
- *s a step*: seconds of processor time on one thread, blocks of both in turn, medians. More than 1 in *theirs / ours*:
  ours takes less. In brackets: the rounds' range.
- *s end to end*: from the model's folder to the file of changed weights, in a process of its own, without imports and
  without drawing the pictures that both train on.
- *MB*: the most that this process held, above what it held before.

Equal work is not equal erasure: these figures say nothing about what a method erases.

- Closed forms: unlearnkit reads every weight once, to check it and to hash it for the edit's header, and predicts once
  with and without the edit. The scripts do neither: weights that they do not change stay unread in their file, and
  UCE's does not load the VAE. That is most of the difference in time and memory. They solve in float32 and ours in
  float64, hence the difference in the result.
- The same reading and checking, some seconds at 200 million weights, is why four steps of CA end later than theirs.
- CA's script sums the squared error over the four channels, so its gradient is four times that of a mean. SalUn's
  draws from the VAE's distribution twice, for a prediction and for its target; for the comparison both take the mean.
- At 200 million weights ESD, RGD and SalUn were measured in one round of two steps. DoCo is missing there: both sides
  together need more than the machine's 24 GiB, because its discriminator takes no latents smaller than 64 x 64.
- MACE is not compared: unlearnkit does not have it, and its training needs Grounded-SAM and an older diffusers.
"""
PIXELS = {"canvas": 4, "200 M": 8}  # a latent's


def peer_of(method: str) -> Peer:
    found: Peer = importlib.import_module(f"official.{method}").PEER
    return found


def network(size: str, latent: int, folder: Path) -> Path:
    """A pipeline with latents of this height and width, saved as a folder that both sides open."""
    import sizes  # takes seconds, and the processes of one side do without
    from transformers import CLIPTextModel

    path = folder / f"{size.replace(' ', '')}-{latent}" / "pipeline"
    if path.exists():
        return path
    if size == "canvas":
        pipe = StableDiffusionPipeline.from_pretrained(CANVAS, safety_checker=None)
        pipe.unet.register_to_config(sample_size=latent)
    else:
        torch.manual_seed(0)
        pipe = sizes.stable_diffusion(True)
        blocks = {name: pipe.unet.config[name] for name in ("down_block_types", "up_block_types")}
        unet = UNet2DConditionModel(
            sample_size=latent, block_out_channels=(160, 320, 640, 640), cross_attention_dim=768, **blocks
        )
        pipe.register_modules(unet=unet, text_encoder=sizes._clip(CLIPTextModel, 768))
    pipe.scheduler = DDIMScheduler(**sizes.BETAS, clip_sample=False, set_alpha_to_one=False)
    pipe.save_pretrained(path)
    (path / "unlearnkit.toml").write_text("[sampling]\nsteps = 4\n", encoding="utf-8")
    return path


def side(peer: Peer, name: str, work: Work) -> dict[str, float]:
    """Processor seconds and bytes of one side, from the model's folder to the file of changed weights.

    Bytes are of a first, short call, which also imports all that is imported late.
    """
    trimmed()
    with Peak() as idle:
        time.sleep(0.1)
    first = work.out / "first"
    first.mkdir()
    with Peak() as held:
        getattr(peer, name)(replace(work, steps=2, out=first))
    trimmed()
    began = time.process_time()
    getattr(peer, name)(work)
    return {"seconds": time.process_time() - began, "bytes": held.highest - idle.highest}


def steps(peer: Peer, work: Work, rounds: int) -> dict[str, Any]:
    """Seconds of a step of both, blocks in turn."""
    found: dict[str, list[float]] = {"theirs": [], "ours": []}
    for _ in range(rounds):
        for name, times in found.items():
            with watched() as seen, tempfile.TemporaryDirectory() as out:
                changed = getattr(peer, name)(replace(work, out=Path(out)))
            if not seen.ticks:
                return {}
            times.append(seen.step(sum(map(torch.numel, changed.values()))))
    ratios = [a / b for a, b in zip(found["theirs"], found["ours"], strict=True)]
    middle = {name: round(statistics.median(times), 4) for name, times in found.items()}
    return {"step": middle | {"ratio": round(statistics.median(ratios), 3), "spread": _spread(ratios)}}


def alone(method: str, work: Work, rounds: int) -> dict[str, Any]:
    """Each side in processes of its own, in turn."""
    found: dict[str, list[dict[str, float]]] = {"theirs": [], "ours": []}
    for _ in range(rounds):
        for name, made in found.items():
            with tempfile.TemporaryDirectory() as out:
                words = [work.checkout, work.pipeline, out, work.steps, work.latent, work.size]
                command = [sys.executable, __file__, "side", "--method", method, "--side", name]
                command += ["--work", json.dumps(list(map(str, words)))]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(done.stderr)
            made.append(json.loads(done.stdout.splitlines()[-1]))
    ratios = [a["seconds"] / b["seconds"] for a, b in zip(*found.values(), strict=True)]
    seconds = {
        name: round(statistics.median(one["seconds"] for one in made), 3) for name, made in found.items()
    }
    held = {
        name: round(statistics.median(one["bytes"] for one in made) / 1e6, 1) for name, made in found.items()
    }
    return {
        "end to end": seconds | {"ratio": round(statistics.median(ratios), 3), "spread": _spread(ratios)},
        "MB": held | {"ratio": round(held["ours"] / held["theirs"], 3)},
    }


def _spread(ratios: list[float]) -> list[float]:
    return [round(min(ratios), 3), round(max(ratios), 3)]


def run(given: argparse.Namespace, folder: Path) -> None:
    """Make the rows that are not there yet."""
    for size in given.size or list(PIXELS):
        for method in given.method or METHODS:
            peer = peer_of(method)
            checkout = given.peers.resolve() / peer.repo.split("/")[1]
            if not checkout.is_dir():
                raise SystemExit(f"{checkout} is not there: clone https://github.com/{peer.repo}")
            git = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
            commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
            key = {"size": size, "method": method, "commit": commit, "steps": given.steps}
            once(ROWS, key, partial(measured, peer, size, checkout, folder, given))


def measured(peer: Peer, size: str, checkout: Path, folder: Path, given: Any) -> dict[str, Any]:
    """A row: whether both agree, and what both cost."""
    latent = peer.latent
    out = folder / f"out {peer.method} {size}"
    out.mkdir()
    work = Work(checkout, network(size, latent, folder), out, given.steps, latent, latent * PIXELS[size])
    what, far = peer.agrees(work)  # and pictures are drawn
    row: dict[str, Any] = {"agreement": [what, float(f"{far:.2g}")]}
    row |= steps(peer, work, given.rounds) | alone(peer.method, work, given.processes)
    return row | {name: sys.modules[name].__version__ for name in VERSIONS}


def page(found: list[Mapping[str, Any]]) -> str:
    """docs/peers.md."""
    lines = [HEADING.strip()]
    for size in PIXELS:
        rows = [row for row in found if row["key"]["size"] == size and "agreement" in row]
        if not rows:
            continue
        rows = [row for method in METHODS for row in rows if row["key"]["method"] == method]
        lines += ["", f"## {TITLES[size]}", "", *markdown(HEADS, map(_cells, rows))]
    ran = []
    for method in METHODS:
        commits = {row["key"]["commit"] for row in found if row["key"]["method"] == method}
        peer = peer_of(method)
        if commits:
            link = f"[{peer.repo}](https://github.com/{peer.repo})"
            ran.append([method, link, ", ".join(sorted(commits)), peer.ran, peer.same])
    lines += ["", "## What ran", "", *markdown(WHAT, ran)]
    if to_good.ROWS.is_file():
        lines += [
            "",
            "## Time to a good erasure",
            "",
            to_good.HEAD.strip(),
            "",
            *to_good.times(),
            "",
            to_good.headline(),
        ]
    versions = {", ".join(f"{name} {row[name]}" for name in VERSIONS) for row in found if "torch" in row}
    return "\n".join([*lines, "", f"Made with {'; '.join(sorted(versions))}.", ""])


def _cells(row: Mapping[str, Any]) -> list[str]:
    what, far = row["agreement"]
    cells = [row["key"]["method"], f"{far:.0e}, {what}"]
    for name in ("step", "end to end"):
        cells += _three(row[name]) if name in row else ["", "", ""]
    return [*cells, *_three(row["MB"], digits=0)]


def _three(of: Mapping[str, Any], digits: int = 2) -> list[str]:
    spread = f" ({of['spread'][0]:.2f} to {of['spread'][1]:.2f})" if "spread" in of else ""
    return [f"{of['theirs']:.{digits}f}", f"{of['ours']:.{digits}f}", f"{of['ratio']:.2f}{spread}"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("run", "table", "side"))
    parser.add_argument("--peers", type=Path, help="the folder with their checkouts")
    parser.add_argument("--method", choices=METHODS, action="append", help="default: every one")
    parser.add_argument("--size", choices=list(PIXELS), action="append", help="default: both")
    parser.add_argument("--steps", type=int, default=8, help="of a block")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=3, help="of each side, from end to end")
    parser.add_argument("--side", choices=("theirs", "ours"), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    if given.what == "side":
        checkout, pipeline, out, *counts = given.work
        count, latent, size = map(int, counts)
        work = Work(Path(checkout), Path(pipeline), Path(out), count, latent, size)
        print(json.dumps(side(peer_of(given.method[0]), given.side, work)))
    elif given.what == "table":
        PAGE.write_text(page(list(read(ROWS))), encoding="utf-8")
    elif given.peers is None:
        parser.error("run: --peers FOLDER names the folder with their checkouts")
    else:
        with tempfile.TemporaryDirectory() as folder:
            run(given, Path(folder))
