"""How soon the command line answers, beside bare imports of the libraries.

    python benchmarks/answers.py [--repeats 5]

Prints processor seconds (user and system, the least of the repeats) of each command in a process of its own, and how
many times ``import torch`` that is. What is only asked or mistyped should take at most LIMIT seconds. The cache of
pictures starts empty: the first run draws the untouched half of its grid, a later one does not.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

LIMIT = 0.5  # processor seconds
IMPORTS = {
    "import torch": "import torch",
    "import diffusers, transformers": "import diffusers, transformers",
    "the classes of the canvas": "import diffusers, transformers as t\n"
    "diffusers.StableDiffusionPipeline, diffusers.UNet2DConditionModel, diffusers.AutoencoderKL\n"
    "diffusers.DPMSolverMultistepScheduler, t.CLIPTextModel, t.CLIPTokenizer",
}
COMMAND = (sys.executable, "-m", "unlearnkit")
ERASE = (*COMMAND, "erase", "canvas", "--concept", "cat", "--method")
ANSWERS = {
    "unlearnkit --help": (*COMMAND, "--help"),
    "unlearnkit methods": (*COMMAND, "methods"),
    "unlearnkit methods uce": (*COMMAND, "methods", "uce"),
    "a mistyped command": (*COMMAND, "eraze"),
    "a mistyped method": (*ERASE, "ucee"),
    "a mistyped setting": (*ERASE, "uce", "--set", "rigde=1"),
    "a setting out of range": (*ERASE, "uce", "--set", "ridge=-1"),
    "a mistyped part": (*ERASE, "esd", "--trains", "xatn"),
    "a mistyped model": (*COMMAND, "erase", "canvass", "--concept", "cat"),
    "a mistyped suite": (*COMMAND, "evaluate", "runs/esd-cat-0", "--suite", "canvass"),
}
RUNS = {
    "erase ... uce, the first run": (),
    "erase ... uce, a later run": (),
    "erase ... uce, without grid and pipeline": ("--pictures", "0", "--no-pipeline"),
}


def spent(words: tuple[str, ...], folder: Path) -> float:
    """Processor seconds of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    alone = {"OMP_NUM_THREADS": "1", "UNLEARNKIT_CACHE": str(folder / "cache")}
    subprocess.run(words, cwd=folder, capture_output=True, env={**os.environ, **alone})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats, slow = parser.parse_args().repeats, 0
    with tempfile.TemporaryDirectory() as folder:
        place, torch = Path(folder), list[float]()

        def row(title: str, words: tuple[str, ...], limit: float | None, times: int) -> bool:
            seconds = min(spent(words, place) for _ in range(times))
            torch.append(seconds)
            over = limit is not None and seconds > limit
            note = f"  above the limit of {limit}" if over else ""
            print(f"{title:<40}{seconds:6.2f} s {seconds / torch[0]:6.2f}{note}", flush=True)
            return over

        for title, code in IMPORTS.items():
            row(title, (sys.executable, "-c", code), None, repeats)
        for title, words in ANSWERS.items():
            slow += row(title, words, LIMIT, repeats)
        row("erase ... uce --dry-run", (*ERASE, "uce", "--dry-run"), None, 1)
        for number, (title, how) in enumerate(RUNS.items()):
            row(title, (*ERASE, "uce", "--out", f"run-{number}", *how), None, 1)
    sys.exit(1 if slow else 0)


if __name__ == "__main__":
    main()
