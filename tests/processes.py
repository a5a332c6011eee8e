"""Run something in a process of its own that is killed on the way."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable


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
