"""A training run's state, in memory and on disk: weights, optimiser, mask and method, and its log."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError, quoted
from ..io import manifest, processes, tensors
from ..io.files import write_text
from ..io.reading import parse_json, read_bytes, typed
from ..parts import Stateful
from .adam import Adam

__all__ = ["CHECKPOINT", "LOG", "CheckpointTimer", "Log", "State"]

CHECKPOINT = "checkpoint.safetensors"
LOG = "log.jsonl"


class State:
    """Everything a checkpoint holds."""

    def __init__(self, masters: dict[str, Tensor], stateful: Mapping[str, Stateful], optimiser: Adam) -> None:
        self.masters, self.stateful, self.optimiser = masters, stateful, optimiser
        self.done, self.best, self.best_score, self.waited = 0, dict[str, Tensor](), math.inf, 0

    def score(self, score: float) -> float:
        """Store the weights if no score was lower so far."""
        self.waited += 1
        if score < self.best_score:
            self.best_score, self.waited = score, 0
            self.best = {name: master.detach().clone() for name, master in self.masters.items()}
        return score

    def save(self, path: Path, identity: str) -> None:
        saved = {f"weight/{name}": master for name, master in self.masters.items()}
        saved |= self.optimiser.tensors()
        saved |= {f"best/{name}": weight for name, weight in self.best.items()}
        for owner, part in self.stateful.items():
            saved |= {f"{owner}/{name}": tensor for name, tensor in part.tensors().items()}
        facts = {
            "identity": identity,
            "done": self.done,
            "waited": self.waited,
            "best_score": self.best_score,
            "sha256": manifest.tensor_hash(sorted(saved.items())),
        }
        tensors.write(path, saved, facts)

    def resume(self, path: Path, identity: str, before: int) -> None:
        """Load the checkpoint at ``path`` if there is one. before: number of its steps that changed no weight.

        Raises InputError for a checkpoint of another run, and for one that was changed.
        """
        if not path.exists():
            return
        saved, facts = tensors.read(path, device=next(iter(self.masters.values())).device)
        # older versions wrote no hash
        if facts.get("sha256", expected := manifest.tensor_hash(sorted(saved.items()))) != expected:
            raise InputError(f"{quoted(path)} was changed: delete it, and the run starts again")
        by: dict[str, dict[str, Tensor]] = {}
        for key, tensor in saved.items():
            owner, _, name = key.partition("/")
            by.setdefault(owner, {})[name] = tensor
        if facts.get("identity") != identity or by.get("weight", {}).keys() != self.masters.keys():
            raise InputError(
                f"{quoted(path)} belongs to a run with other settings: choose another folder, or delete it"
            )
        self.done, self.waited, self.best_score = facts["done"], facts["waited"], facts["best_score"]
        for name, master in self.masters.items():
            with torch.no_grad():
                master.copy_(by["weight"][name])
        self.optimiser.restore(by, max(0, self.done - before))
        self.best = by.get("best", {})
        for owner, part in self.stateful.items():
            part.restore(by.get(owner, {}))


class CheckpointTimer:
    """When the next checkpoint is due: after ``every`` steps or, with 0, each minute and at most 5 % of the time."""

    def __init__(self, every: int) -> None:
        self.every, self.pause, self.last = every, 60.0, time.monotonic()
        self.checked = self.last

    def due(self, done: int) -> bool:
        self.checked = time.monotonic()
        return done % self.every == 0 if self.every else self.checked - self.last >= self.pause

    def reset(self) -> None:
        self.last = time.monotonic()
        self.pause = max(60.0, 20 * (self.last - self.checked))


class Log:
    """``log.jsonl``: one line per step. Lines after the checkpoint are removed, so that no step appears twice."""

    def __init__(self, folder: Path | None, *, after: int) -> None:
        self.path = folder / LOG if folder and processes.first() else None
        self.after, self.start = after, time.monotonic()

    def __enter__(self) -> Log:
        if self.path:
            write_text(self.path, "".join(line for line in _lines(self.path) if _step(line) <= self.after))
            ways = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | ways)
            self.file = os.fdopen(handle, "a", encoding="utf-8", buffering=1)
        return self

    def __exit__(self, *_: object) -> None:
        if self.path:
            self.file.close()

    def line(self, step: int, values: Mapping[str, float]) -> None:
        if self.path:
            facts = {"step": step, **values, "seconds": round(time.monotonic() - self.start, 3)}
            self.file.write(json.dumps(facts) + "\n")


def _lines(path: Path) -> list[str]:
    """The lines of a log, each with its line end. Bytes that are not UTF-8 are replaced."""
    if not path.exists():
        return []
    return read_bytes(path, what="log").decode("utf-8", "replace").splitlines(keepends=True)


def _step(line: str) -> float:
    """The step of a log line; infinity for a damaged or incomplete line."""
    try:
        row = parse_json(line, kind=dict, where="a line of the log") if line.endswith("\n") else {}
        return float(typed(row, {"step": float}, where="a line of the log")["step"])
    except InputError:
        return math.inf
