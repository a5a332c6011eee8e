"""How soon the command line answers, beside a bare ``import torch``.

    python benchmarks/answers.py [--repeats 5]

Prints processor seconds (user and system, the least of the repeats) of each command in a process of its own. What is
only asked or mistyped should take at most LIMIT; a run of UCE on the canvas at most RUN.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

LIMIT, RUN = 0.5, 6.0  # processor seconds
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


def spent(words: tuple[str, ...], folder: Path) -> float:
    """Processor seconds of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, cwd=folder, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats, slow = parser.parse_args().repeats, 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)

        def row(title: str, words: tuple[str, ...], limit: float | None, times: int) -> bool:
            seconds = min(spent(words, place) for _ in range(times))
            over = limit is not None and seconds > limit
            print(
                f"{title:<36}{seconds:6.2f} s{'  above the limit of ' + str(limit) if over else ''}",
                flush=True,
            )
            return over

        row("python -c 'import torch'", (sys.executable, "-c", "import torch"), None, repeats)
        for title, words in ANSWERS.items():
            slow += row(title, words, LIMIT, repeats)
        row("erase ... uce --dry-run", (*ERASE, "uce", "--dry-run"), None, 1)
        for number, title in enumerate(("erase ... uce, the first run", "erase ... uce, a later run")):
            words = (*ERASE, "uce", "--out", f"run-{number}")
            slow += row(title, words, RUN, 1)
    sys.exit(1 if slow else 0)


if __name__ == "__main__":
    main()
