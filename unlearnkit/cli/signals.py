"""SIGTERM and SIGHUP end a command as Ctrl-C does: by KeyboardInterrupt, with a line on how to continue."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

__all__ = ["interruptible"]

ENDING = ("SIGTERM", "SIGHUP")  # from a scheduler, and from a closed terminal; Windows has no SIGHUP


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Inside, these signals raise KeyboardInterrupt; ignored ones, as with nohup, stay ignored.

    A stopped command's exit code is 130 for every signal.
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
