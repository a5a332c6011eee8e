"""The studio's side of the process that draws: started when it is needed, one picture at a time, and a small cache."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from ..errors import InputError

__all__ = ["Drawing"]

CACHED = 256  # pictures
DIED = "the process that draws ended (exit code {}): perhaps too little memory; draw again to start it anew"


class Drawing:
    """Pictures by what they are made from. Safe to call from several threads: they wait for each other."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._cache = folder, dict[str, bytes]()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def warm(self) -> None:
        """Start the process if there is none, so that the first picture comes sooner."""
        if self._lock.acquire(blocking=False):
            try:
                self._started()
            finally:
                self._lock.release()

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "unlearnkit.studio.draw"],
                cwd=self.folder,
                env={**os.environ, "TRANSFORMERS_VERBOSITY": "error"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                start_new_session=True,
            )
        return self._process

    def picture(self, **request: Any) -> bytes:
        """A PNG, see ``draw.Artist.draw``. Raises InputError where that does, or if the process ends."""
        line = json.dumps(request, sort_keys=True)
        with self._lock:
            if line not in self._cache:
                answer = self._asked(line)
                if "error" in answer:
                    raise InputError(answer["error"])
                self._cache = dict([*self._cache.items(), (line, base64.b64decode(answer["png"]))][-CACHED:])
            return self._cache[line]

    def _asked(self, line: str) -> dict[str, str]:
        process = self._started()
        if process.stdin is None or process.stdout is None:
            raise InputError(DIED.format("unknown"))
        try:
            process.stdin.write(line + "\n")
            process.stdin.flush()
            text = process.stdout.readline()
        except OSError:
            text = ""
        if not text.endswith("\n"):
            self.close()
            raise InputError(DIED.format(process.returncode))
        answer: dict[str, str] = json.loads(text)
        return answer

    def free(self) -> None:
        """End the process if it draws nothing now: its memory is for a job."""
        if self._lock.acquire(blocking=False):
            try:
                self.close()
            finally:
                self._lock.release()

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            with contextlib.suppress(OSError):  # a line that it did not take
                self._process.communicate()
            self._process = None
