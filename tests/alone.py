"""Fresh processes that answer line by line; one has plain diffusers without unlearnkit, and draws."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PROGRAM = """
import json, sys
sys.modules["unlearnkit"] = None
import torch
from pathlib import Path
from diffusers import DiffusionPipeline
torch.set_num_threads(1)
for line in sys.stdin:
    folder, prompt, how = json.loads(line)
    own = {}
    if Path(folder, "pipeline.py").exists():
        own = {"custom_pipeline": folder, "trust_remote_code": True}
    pipe = DiffusionPipeline.from_pretrained(folder, **own)
    pipe.set_progress_bar_config(disable=True)
    if hasattr(pipe, "labels"):
        prompt, how = [pipe.labels[prompt]], {}
    if type(pipe).__name__ == "PixArtSigmaPipeline":
        how["use_resolution_binning"] = False
    how |= {"num_inference_steps": 3, "guidance_scale": 4.0, "generator": torch.Generator().manual_seed(7)}
    print(pipe(prompt, **how).images[0].tobytes().hex(), flush=True)
"""

Draw = Callable[..., bytes]


@contextlib.contextmanager
def asking(program: str, place: Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A fresh process that runs a program until its input ends; what it says on stderr is in ``place/errors``."""
    with (
        (place / "errors").open("w") as errors,
        subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            **options,
        ) as process,
    ):
        assert process.stdin and process.stdout
        yield process
        process.stdin.close()


@contextlib.contextmanager
def diffusers_alone(place: Path) -> Iterator[Draw]:
    """``draw(folder, prompt, **how)``: the picture of a saved pipeline, with seed 7, three steps and guidance 4."""
    with asking(PROGRAM, place, cwd=place) as process:

        def draw(folder: Path, prompt: str, **how: Any) -> bytes:
            print(json.dumps([str(folder), prompt, how]), file=process.stdin, flush=True)
            picture = process.stdout.readline()
            assert picture, (place / "errors").read_text()
            return bytes.fromhex(picture)

        yield draw
