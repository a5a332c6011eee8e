"""What ends a command from outside ends it as Ctrl-C does: by KeyboardInterrupt, with a line that says how to go on."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

__all__ = ["interruptible"]

ENDING = ("SIGTERM", "SIGHUP")  # a scheduler's, and a terminal's that is closed; Windows has no SIGHUP


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within this the signals that end a process raise KeyboardInterrupt; those that are ignored, as by nohup, stay so.

    The exit code of a command that was stopped is 130, whichever signal it was.
    """
    if threading.current_thread() is not threading.main_thread():  # signals are for the main one
        yield
        return
    before: dict[int, Any] = {}
    try:
        for name in ENDING:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, _interrupt)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt
