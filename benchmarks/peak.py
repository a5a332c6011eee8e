"""The most memory that a stretch of work holds."""

from __future__ import annotations

import ctypes
import gc
import threading
import time
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

__all__ = ["Peak", "allocated", "trimmed"]


class Peak:
    """``highest`` bytes while it was open: of the GPU's allocator, else of the resident set, read every 5 ms."""

    highest = 0

    def __enter__(self) -> Peak:
        self.open = True
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while self.open:
            self.highest = max(self.highest, _held())
            time.sleep(0.005)

    def __exit__(self, *_: object) -> None:
        self.open = False
        self.thread.join()


def _held() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def trimmed() -> None:
    """Give memory that nothing holds any more back to the system, so that work after it is seen to take its own."""
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc's
        trim(0)


def allocated(work: Callable[[], object]) -> int:
    """The most bytes that torch's allocator held while ``work`` ran, above what it held before; no library's own."""
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return int(torch.cuda.max_memory_allocated() - before)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    return int(
        max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))
    )
