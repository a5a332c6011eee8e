"""Commands in processes of their own: start, progress, stop, and how they ended in one line."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from ..errors import InputError, printable

__all__ = ["Job", "Jobs"]

KEPT, LONGEST = 400, 600  # lines of a job that are kept, characters of each
PATIENCE = 20.0  # seconds until a job that was stopped is killed
PROGRESS = re.compile(r"(.{1,80}[^:]) (\d{1,12}) of (\d{1,12})(?:, about (\d+:\d\d) min left)?")
FOLDER = re.compile(r".*; (?:run folder|chain): (.+)$")
# what would make the command believe that it writes to a terminal
TERMINALS = ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "CLICOLOR_FORCE")


class Job:
    """One command.

    stage, done, total, left: of its progress; ``left`` is like ``"0:34"``, empty if unknown. folder: the name of the
    run folder that it announced. lines: what else it printed. tab: of the page, that shows it.
    """

    def __init__(self, number: int, title: str, words: Sequence[str], folder: Path, tab: str) -> None:
        self.number, self.title, self.words, self.tab = number, title, list(words), tab
        self.stage, self.done, self.total, self.left, self.folder = "", 0, 0, "", ""
        self.lines: deque[str] = deque(maxlen=KEPT)
        self.stopping, self.started, self.seconds = False, time.monotonic(), 0.0
        env = {name: value for name, value in os.environ.items() if name not in TERMINALS}
        env |= {
            "NO_COLOR": "1",
            "TERM": "dumb",
            "PYTHONUNBUFFERED": "1",
            "UNLEARNKIT_PROGRESS_SECONDS": "0.5",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "unlearnkit", *words],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self._reader.start()

    @property
    def command(self) -> str:
        """The command, quoted for a shell."""
        return shlex.join(["unlearnkit", *self.words])

    @property
    def running(self) -> bool:
        """Whether its process is at work."""
        return self._reader.is_alive() or self.process.poll() is None

    @property
    def ended(self) -> str:
        """``done``, ``refused``, ``stopped`` or ``died``; empty while it runs."""
        code = self.process.poll()
        if code is None or self._reader.is_alive():
            return ""
        return {0: "done", 2: "refused", 130: "stopped"}.get(code, "died")

    @property
    def says(self) -> str:
        """How it ended, in one line; empty while it runs."""
        last = next((line for line in reversed(self.lines) if line.strip()), "")
        code = self.process.poll() or 0
        if self.ended == "died" and code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
            memory = ": this machine may have too little memory" if name == "SIGKILL" else ""
            return f"The process was killed ({name}){memory}. What it had written is kept."
        if self.ended == "died":
            return f"The command broke (exit code {code}): {last}"
        if self.ended == "done":
            return f"Done in {self.seconds:.0f} s."
        return {"refused": last or "The command was refused.", "stopped": "Stopped."}.get(self.ended, "")

    def stop(self) -> None:
        """Interrupt it as Ctrl-C does; after ``PATIENCE`` seconds it is killed."""
        if not self.stopping and self.process.poll() is None:
            self.stopping = True
            self._signal(signal.SIGTERM)
            timer = threading.Timer(PATIENCE, self.kill)
            timer.daemon = True
            timer.start()

    def kill(self) -> None:
        """End it at once, with its children."""
        if self.process.poll() is None:
            self._signal(getattr(signal, "SIGKILL", signal.SIGTERM))

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, number)
            else:
                self.process.send_signal(number)

    def _read(self, stream: IO[bytes]) -> None:
        for raw in iter(lambda: stream.readline(100_000), b""):
            line = printable(raw.decode("utf-8", "replace").rstrip("\n"))[:LONGEST]
            if match := PROGRESS.fullmatch(line):
                self.stage, self.left = match[1], match[4] or ""
                self.done, self.total = int(match[2]), int(match[3])
                continue
            if match := FOLDER.search(line):
                self.folder = match[1]
            if line.strip():
                self.lines.append(line)
        stream.close()
        self.process.wait()
        self.seconds = time.monotonic() - self.started


class Jobs:
    """The jobs of one studio, in memory. ``folder`` is where their commands run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._jobs, self._lock = folder, dict[int, Job](), threading.Lock()
        self._numbers = itertools.count(1)

    def all(self) -> list[Job]:
        """Every job, the newest first."""
        return [*self._jobs.values()][::-1]

    def get(self, number: int) -> Job:
        """The job of this number. Raises InputError if there is none."""
        if number not in self._jobs:
            raise InputError(f"there is no job {number} in this studio: it was started anew since")
        return self._jobs[number]

    def running(self) -> Job | None:
        """The job that is at work."""
        return next((job for job in self._jobs.values() if job.running), None)

    def start(self, title: str, words: Sequence[str], tab: str = "") -> Job:
        """Start a command. tab: that shows it. Raises InputError while another one is at work."""
        with self._lock:
            if busy := self.running():
                raise InputError(f"another job is at work ({busy.title}): wait until it is done, or stop it")
            try:
                job = Job(next(self._numbers), title, words, self.folder, tab)
            except (OSError, ValueError) as error:
                raise InputError(f"the command cannot be started: {error}") from None
            self._jobs[job.number] = job
            return job

    def close(self) -> None:
        """Stop what is at work, and wait for it."""
        if job := self.running():
            job.stop()
            try:
                job.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                job.kill()
