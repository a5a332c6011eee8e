"""Commands that are killed and started again, or started twice at once: is the result that of one whole run?

    python benchmarks/kills.py [--kills 200] [--command erase ...] [--seed 0]
    python benchmarks/kills.py --two [--rounds 5] [--command erase ...]

Each command runs on toy models in a forked process. SIGKILL comes at a random moment of its duration, or right before a
random one of its file operations (a rename, a file that is opened to be written, a removal and so on); some are killed
twice. Then the same command runs to its end, and every file is compared, byte for byte, with what a run makes that
nobody killed. ``verify`` must find nothing, and no unfinished file may stay after the next command that writes there.
The clock stands still in these processes, so that only what is in ``forks.VARIES`` may differ: whether a run was
resumed, how much was drawn before the kill, and the hashes over these. How many values that are is printed. Training
writes a checkpoint at every second step here, not once a minute, so that kills fall around them as well.

``--two`` starts two commands that write to one place, the second one up to a whole duration later: what is there
afterwards must be what those that succeeded make one after the other. POSIX only. Exits with 1 where anything differs.
"""

from __future__ import annotations

import argparse
import io
import itertools
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout, suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from forks import REFUSED, apart, contents, ended, here, killed, started, whole
from toys import COMMANDS, STARTS, Command, findings, settled

REASONS = ("another process", "exists already", "already has", "is not empty", "another plan")


@cache
def prepared(name: str) -> Path:
    """The folder that a command starts from, made in this process, which so has all modules; treat it as read-only."""
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    for call in STARTS[name]:
        said = io.StringIO()
        with suppress(SystemExit), redirect_stdout(said), redirect_stderr(said):
            here(folder, call)
    return folder


def fresh(command: Command) -> Path:
    """A folder of its own for a command."""
    return Path(shutil.copytree(prepared(command.start), Path(tempfile.mkdtemp()) / "work"))


def kills(name: str, count: int, draws: random.Random) -> bool:
    """Kill a command until so many kills fell before its end; print what came of it."""
    command = COMMANDS[name]
    again = command.again or command.run
    measured = [(folder := fresh(command), *whole(folder, command.run)) for _ in range(2)]
    wanted, aside = contents(measured[0][0])
    took, operations = min(one[1] for one in measured), measured[0][2]
    fell, twice, different, begun = Counter[str](), 0, list[str](), time.perf_counter()
    if wrong := apart(contents(measured[1][0])[0], wanted):
        different.append(f"two whole runs: {wrong}")
    for number in range(2 * count):
        if fell.total() >= count:
            break
        folder, said = fresh(command), list[str]()
        for call in (command.run, again)[: 2 if draws.random() < 0.25 else 1]:
            how = ("time", "operation")[number % 2]
            kill = how, draws.uniform(0, took) if how == "time" else draws.randrange(operations)
            if here(folder, command.done) or not killed(folder, call, kill):
                break
            said.append(f"{how} {kill[1]:.3f}")
            fell[how] += 1
        twice += len(said) > 1
        code = ended(started(folder, (command.tidy or again) if here(folder, command.done) else again))
        if code not in (0, REFUSED):
            said.append(Path(f"{folder}.said").read_text())
        different += judged(folder, wanted, f"killed at {', '.join(said)}")
    print(
        f"{name:13} {took:5.2f} s {operations:5} operations: killed {fell['time']:3} times by the clock, "
        f"{fell['operation']:3} at an operation, {twice:2} of them twice; {len(different)} different; "
        f"{aside} values set aside; {time.perf_counter() - begun:.0f} s",
        *different,
        sep="\n    ",
        flush=True,
    )
    return not different


def judged(folder: Path, wanted: dict[str, Any], how: str) -> list[str]:
    """What is not as it should be in a folder, which is removed if all is."""
    wrong = apart(contents(folder)[0], wanted) + here(folder, findings)
    if not wrong:
        shutil.rmtree(folder.parent)
    return [f"{how}: {wrong[:8]} in {folder}"] if wrong else []


def two(name: str, rounds: int, draws: random.Random) -> bool:
    """Start two commands at once, again and again; print what came of it."""
    command = COMMANDS[name]
    calls = command.run, command.other

    @cache
    def in_order(order: tuple[int, ...]) -> dict[str, Any]:
        folder = fresh(command)
        for number in order:
            whole(folder, calls[number])
        return contents(folder)[0]

    took, different, seen = whole(fresh(command), command.run)[0], list[str](), Counter[str]()
    for turn in range(rounds):
        folder, late = fresh(command), draws.uniform(0, took) * (turn > 0)
        both = [started(folder, calls[0]), started(folder, calls[1], wait=late)]
        codes = [ended(child) for child in both]
        said = Path(f"{folder}.said").read_text()
        worked = [number for number, code in enumerate(codes) if code == 0]
        seen[f"{len(worked)} did it"] += 1
        seen.update(f"refused: {reason}" for reason in REASONS if reason in said)
        orders = list(itertools.permutations(worked))
        if not worked or {*codes} - {0, REFUSED}:
            different.append(f"{late:.2f} s later: exit codes {codes}, in {folder}: {said}")
        else:
            found = contents(folder)[0]
            fits = next((one for one in orders if not apart(found, in_order(one))), orders[0])
            different += judged(folder, in_order(fits), f"{late:.2f} s later, {codes}, {said!r}")
    summary = ", ".join(f"{count} times {what}" for what, count in sorted(seen.items()))
    print(f"{name:13} two at once: {summary}; {len(different)} mixed", *different, sep="\n    ", flush=True)
    return not different


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200, help="of all commands together")
    parser.add_argument("--two", action="store_true", help="start two at once instead")
    parser.add_argument("--rounds", type=int, default=5, help="of --two")
    parser.add_argument("--command", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["UNLEARNKIT_CACHE"] = "cache"  # in the current folder: it is compared, too
    settled()
    fine = []
    for number, name in enumerate(given.command):
        draws = random.Random(f"{given.seed} {name}")
        share = len(range(number, given.kills, len(given.command)))
        fine.append(two(name, given.rounds, draws) if given.two else kills(name, share, draws))
    sys.exit(not all(fine))
