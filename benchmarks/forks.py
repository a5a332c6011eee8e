"""A command in a process of its own that may be killed on the way, and how what it left is compared."""

from __future__ import annotations

import itertools
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from toys import Call

from unlearnkit.errors import InputError

__all__ = ["REFUSED", "VARIES", "apart", "contents", "ended", "here", "killed", "started", "whole"]

VARIES = {  # by the file: where the entries are that depend on where the kill fell
    "run.json": (("resumed",), ("method seconds",), ("sealed",)),
    "evaluation.json": (("drawn",), ("sealed",)),
    "files.json": (("evaluation/evaluation.json",),),
    "ledger.jsonl": (("hash",), ("previous",), ("facts", "look", "sha256"), ("facts", "look", "files")),
    "head.json": (("hash",),),
}
OPERATIONS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.chmod", "os.truncate"}
REFUSED = 2
Kill = tuple[str, float]  # "time" and seconds, or "operation" and its number


def watched(last: float | None) -> Callable[[], int]:
    """Count the file operations of this process from now on, and die right before number ``last``."""
    count = 0

    def hook(event: str, given: tuple[Any, ...]) -> None:
        nonlocal count
        written = event == "open" and isinstance(given[2], int) and given[2] & (os.O_WRONLY | os.O_RDWR)
        if event in OPERATIONS or written:
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1

    sys.addaudithook(hook)
    return lambda: count


def started(folder: Path, call: Call, kill: Kill | None = None, wait: float = 0) -> int:
    """``call`` in ``folder``, in a process of its own; beside the folder it leaves what it printed, and its facts."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.chdir(folder)
        printed = os.open(f"{folder}.said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        time.sleep(wait)
        start, count = time.perf_counter(), watched(kill[1] if kill and kill[0] == "operation" else None)
        try:
            call()
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        except InputError as error:
            os.write(2, f"{error}\n".encode())
            code = REFUSED
        Path(f"{folder}.facts").write_text(json.dumps([time.perf_counter() - start, count()]))
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def ended(child: int) -> int | None:
    """The exit code of a process; None where a signal ended it."""
    status = os.waitpid(child, 0)[1]
    return None if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def whole(folder: Path, call: Call) -> tuple[float, int]:
    """Run ``call`` to its end: its seconds, and its file operations."""
    if ended(started(folder, call)):
        raise SystemExit(f"a command failed:\n{Path(f'{folder}.said').read_text()}")
    seconds, count = json.loads(Path(f"{folder}.facts").read_text())
    return seconds, count


def killed(folder: Path, call: Call, kill: Kill) -> bool:
    """Whether the kill came before the end."""
    child = started(folder, call, kill)
    if kill[0] == "time":
        time.sleep(kill[1])
        os.kill(child, signal.SIGKILL)
    return ended(child) is None


def here(folder: Path, call: Callable[[], Any]) -> Any:
    back = Path.cwd()
    os.chdir(folder)
    try:
        return call()
    finally:
        os.chdir(back)


def contents(folder: Path) -> tuple[dict[str, Any], int]:
    """Every file but locks, and every unfinished folder; and how many values were set aside."""
    found: dict[str, Any] = {}
    aside = 0
    for path in sorted(folder.rglob("*")):
        if path.name == ".lock" or (path.is_dir() and not path.name.endswith(".part")):
            continue
        data: Any = path.read_bytes() if path.is_file() else None
        if path.name in VARIES:
            data = [json.loads(line) for line in (data.splitlines() if path.suffix == ".jsonl" else [data])]
            for entry, (*way, last) in itertools.product(data, VARIES[path.name]):
                for name in way:
                    entry = entry.get(name) or {}
                aside += entry.pop(last, None) is not None
        found[path.relative_to(folder).as_posix()] = data
    return found, aside


def apart(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """The files that are in one only, or differ."""
    return sorted(name for name in found.keys() | wanted.keys() if found.get(name, 0) != wanted.get(name, 0))
