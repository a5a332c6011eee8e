"""The ledger: what happened to a chain, one JSON line an entry, each with the hash of the one before.

    ledger.jsonl   {"facts": {...}, "hash": "...", "kind": "add", "number": 3, "previous": "..."}
    head.json      how many lines there are, and the hash of the last: a line cut off at the end is missed there

A line is written in one way only, so that a changed space is found like a changed word. The whole file is written anew
beside its place and renamed: it has all of a line or nothing of it. Whoever can write all files can write another
history, with hashes that fit: keep the head's hash elsewhere, and ``verify`` holds the ledger against it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import whole

__all__ = ["HEAD", "LEDGER", "Entry", "append", "findings", "read", "sealed"]

LEDGER, HEAD = "ledger.jsonl", "head.json"
NOTHING = "0" * 64  # what the first entry follows


@dataclass(frozen=True)
class Entry:
    """One thing that happened. facts: plain data of the kind ``init``, ``add``, ``undo`` or ``drop``."""

    number: int
    kind: str
    facts: Mapping[str, Any]
    previous: str
    hash: str

    def line(self) -> str:
        """The entry as the one line that stands for it, without its end."""
        return _plain(_body(self) | {"hash": self.hash})

    def made(self) -> list[Mapping[str, Any]]:
        """The edits that it made: that of its request, and those that were made anew."""
        parts = (self.facts, *self.facts.get("remade", ()))
        return [part["edit"] for part in parts if "edit" in part]


def sealed(entries: Sequence[Entry], kind: str, facts: Mapping[str, Any]) -> Entry:
    """The entry that comes after ``entries``, with its hash."""
    previous = entries[-1].hash if entries else NOTHING
    entry = Entry(len(entries), kind, json.loads(_plain(facts)), previous, "")
    return Entry(entry.number, kind, entry.facts, previous, _hash(entry))


def append(folder: Path, entries: Sequence[Entry], entry: Entry) -> None:
    """Write the ledger with one entry more, in one atomic step. An OSError leaves it as it was."""
    _durable(folder / LEDGER, "".join(f"{one.line()}\n" for one in (*entries, entry)))
    _durable(folder / HEAD, _head(entry))


def read(folder: Path) -> list[Entry]:
    """Every entry. Raises InputError for a folder without a ledger, and for one whose hashes do not fit."""
    if not (folder / LEDGER).is_file():
        raise InputError(f"{str(folder)!r} is no chain: make one with unlearnkit chain init")
    wrong = next(findings(folder), None)
    if wrong:
        raise InputError(f"the ledger of {str(folder)!r} was changed: {wrong}; put a copy back")
    return [_entry(line) for line in _lines(folder / LEDGER)]


def findings(folder: Path) -> Iterator[str]:
    """Where the ledger does not fit its hashes, a line each; nothing if it fits."""
    entries: list[Entry | None] = []
    lines = _lines(folder / LEDGER)
    for number, raw in enumerate(lines, 1):
        where = f"{LEDGER}, line {number}"
        try:
            entry = _entry(raw)
        except (ValueError, KeyError, TypeError):
            yield f"{where} cannot be read"
            entries.append(None)
            continue
        if entry.line().encode() != raw or _hash(entry) != entry.hash:
            yield f"{where} does not fit its hash"
        elif entry.number != number - 1:
            yield f"{where} holds entry {entry.number}: a line was removed, added or moved"
        elif number > 1 and entries[-1] is not None and entry.previous != entries[-1].hash:
            yield f"{where} does not follow the line before it"
        entries.append(entry)
    if not (folder / LEDGER).read_bytes().endswith(b"\n"):
        yield f"{LEDGER} does not end with a whole line"
    yield from _head_findings(folder, entries)


def _head_findings(folder: Path, entries: Sequence[Entry | None]) -> Iterator[str]:
    """The head against the ledger, which may be one entry ahead of it: that is where a kill can fall."""
    text = (folder / HEAD).read_bytes() if (folder / HEAD).is_file() else b""
    ends = [_head(one).encode() if one else None for one in entries[-2:]]
    if not text and len(entries) == 1:
        return
    if text not in ends or not text:
        yield f"{HEAD} is not that of the last entry: lines were removed from the end of {LEDGER}, or it was changed"


def _head(entry: Entry) -> str:
    return _plain({"entries": entry.number + 1, "hash": entry.hash}) + "\n"


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().removesuffix(b"\n").split(b"\n")


def _entry(raw: bytes) -> Entry:
    data = json.loads(raw.decode("utf-8"))
    return Entry(**{name: data[name] for name in ("number", "kind", "facts", "previous", "hash")})


def _body(entry: Entry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in ("number", "kind", "facts", "previous")}


def _hash(entry: Entry) -> str:
    return hashlib.sha256(_plain(_body(entry)).encode()).hexdigest()


def _plain(data: Mapping[str, Any]) -> str:
    return json.dumps(data, sort_keys=True, ensure_ascii=False, allow_nan=False)


def _durable(path: Path, text: str) -> None:
    """Write whole or not at all, and not lost by a power cut."""
    with whole(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
