"""Run something in a forked process: with what is loaded here, so that it need not import everything first."""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from accelerate import PartialState


def forked(run: Callable[[], object], says: Path, **env: str) -> int:
    """Start ``run`` in a process of its own and give its number.

    It prints into ``says``.out and ``says``.err, and ends as a command does: with 0, with a SystemExit's code, or
    with 1 and a traceback.
    """
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.environ |= env
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(says.with_suffix(f".{name}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
        run()
        code = 0
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def killed(run: Callable[[], object]) -> None:
    """Call ``run`` in a forked process, and check that SIGKILL ended it."""
    child = os.fork()
    if child == 0:
        try:
            run()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


def two(run: Callable[[], object], folder: Path) -> list[tuple[str, str]]:
    """Two processes that share ``run``, set up as ``accelerate launch`` does: both end with 0. What each printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    def own() -> object:
        PartialState._reset_state()  # that of one process, if there is one already
        return run()

    places, children = [folder / f"process-{rank}" for rank in (0, 1)], []
    for rank, place in enumerate(places):
        env = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        children.append(forked(own, place, **env, MASTER_ADDR="127.0.0.1", MASTER_PORT=port))
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    said = [tuple(place.with_suffix(f".{name}").read_text() for name in ("out", "err")) for place in places]
    assert codes == [0, 0], said
    return said  # type: ignore[return-value]
