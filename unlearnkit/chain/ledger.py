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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, quoted
from ..io.files import atomic_file
from ..io.reading import parse_json, read_bytes, typed

__all__ = [
    "HEAD",
    "LEDGER",
    "Entry",
    "append",
    "caught_up",
    "examined",
    "read",
    "refuse_none",
    "sealed",
    "text",
]

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


def sealed(entries: Sequence[Entry], kind: str, facts: Mapping[str, Any]) -> Entry:
    """The entry that comes after ``entries``, with its hash."""
    previous = entries[-1].hash if entries else NOTHING
    entry = Entry(len(entries), kind, json.loads(_plain(facts)), previous, "")
    return Entry(entry.number, kind, entry.facts, previous, _hash(entry))


def append(folder: Path, entries: Sequence[Entry], entry: Entry) -> None:
    """Write the ledger with one entry more, in one atomic step. An OSError leaves it as it was."""
    _durable(folder / LEDGER, text((*entries, entry)))
    _durable(folder / HEAD, _head(entry))


def caught_up(folder: Path, entries: Sequence[Entry]) -> None:
    """Write the head of the last entry where a kill came between the two of ``append``."""
    if _head_of(folder) != _head(entries[-1]).encode():
        _durable(folder / HEAD, _head(entries[-1]))


def text(entries: Sequence[Entry]) -> str:
    """The ledger of these entries."""
    return "".join(f"{entry.line()}\n" for entry in entries)


def read(folder: Path) -> list[Entry]:
    """Every entry. Raises InputError for a folder without a ledger, and for one whose hashes do not fit."""
    entries, wrong = examined(folder)
    if wrong:
        raise InputError(f"the ledger of {quoted(folder)} was changed: {wrong[0]}; put a copy back")
    return entries


def examined(folder: Path) -> tuple[list[Entry], list[str]]:
    """The entries, and where the ledger does not fit its hashes, a line each; nothing of that if it fits.

    Raises InputError for a folder without a ledger, and for one that cannot be read.
    """
    head = _head_of(folder)  # before the ledger, which is written first: it may be ahead, the head may not
    refuse_none(folder)
    raw = read_bytes(folder / LEDGER, what="ledger")
    entries: list[Entry] = []
    wrong: list[str] = []
    before: Entry | None = None
    for number, line in enumerate(raw.removesuffix(b"\n").split(b"\n"), 1):
        where = f"{LEDGER}, line {number}"
        try:
            entry = _entry(line, where)
            fits = entry.line().encode() == line and _hash(entry) == entry.hash
        except InputError as error:
            wrong.append(str(error))
            before = None
            continue
        except ValueError:  # a number that is not finite, or half a character
            wrong.append(f"{where} is damaged: it holds what no ledger holds")
            before = None
            continue
        if not fits:
            wrong.append(f"{where} does not fit its hash")
        elif entry.number != number - 1:
            wrong.append(f"{where} holds entry {entry.number}: a line was removed, added or moved")
        elif before is not None and entry.previous != before.hash:
            wrong.append(f"{where} does not follow the line before it")
        elif number == 1 and entry.previous != NOTHING:
            wrong.append(f"{where} follows another line, and is the first")
        entries.append(entry)
        before = entry
    if not raw.endswith(b"\n"):
        wrong.append(f"{LEDGER} does not end with a whole line")
    if isinstance(head, str):
        wrong.append(head)
    elif found := _apart(head, entries):
        wrong.append(found)
    return entries, wrong


def refuse_none(folder: Path) -> None:
    """Raises InputError for a folder without a ledger."""
    try:
        (folder / LEDGER).lstat()
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{quoted(folder)} is no chain: make one with unlearnkit chain init") from None
    except OSError:
        pass  # reading the ledger says why


def _head_of(folder: Path) -> bytes | str:
    """What the head holds, nothing where there is none; in words, why it cannot be read."""
    try:
        (folder / HEAD).lstat()
    except OSError:
        return b""
    try:
        return read_bytes(folder / HEAD, what=f"{HEAD},")
    except InputError as error:
        return str(error)


def _apart(head: bytes, entries: Sequence[Entry]) -> str:
    """What is wrong with the head. The ledger may be one entry ahead of it: that is where a kill can fall."""
    if (not head and len(entries) == 1) or head in [_head(one).encode() for one in entries[-2:]]:
        return ""
    return f"{HEAD} is not that of the last entry: lines were removed from the end of {LEDGER}, or it was changed"


def _head(entry: Entry) -> str:
    return _plain({"entries": entry.number + 1, "hash": entry.hash}) + "\n"


def _entry(line: bytes, where: str) -> Entry:
    types = {"number": int, "kind": str, "facts": dict, "previous": str, "hash": str}
    data = typed(parse_json(line, kind=dict, where=where), types, where=where)
    return Entry(**{name: data[name] for name in types})


def _body(entry: Entry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in ("number", "kind", "facts", "previous")}


def _hash(entry: Entry) -> str:
    return hashlib.sha256(_plain(_body(entry)).encode()).hexdigest()


def _plain(data: Mapping[str, Any]) -> str:
    return json.dumps(data, sort_keys=True, ensure_ascii=False, allow_nan=False)


def _durable(path: Path, content: str) -> None:
    """Write whole or not at all, and not lost by a power cut."""
    with atomic_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
