"""The ledger: the history of a chain, one JSON line for each entry, with the hash of the entry before it.

    ledger.jsonl   {"facts": {...}, "hash": "...", "kind": "add", "number": 3, "previous": "..."}
    head.json      the number of lines, and the hash of the last: shows when lines at the end were removed

A line has one exact form, so a changed space is detected like a changed word. The whole file is written under another
name and renamed, so it never has a part of a line. Who can write all files can write another history with correct
hashes: keep the head's hash elsewhere, and ``verify`` compares the ledger with it.
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
    "check_ledger",
    "new_entry",
    "read",
    "refuse_none",
    "repair_head",
    "text",
]

LEDGER, HEAD = "ledger.jsonl", "head.json"
NOTHING = "0" * 64  # previous hash of the first entry


@dataclass(frozen=True)
class Entry:
    """One event. kind: ``init``, ``add``, ``undo`` or ``drop``. facts: plain data, see ``facts``."""

    number: int
    kind: str
    facts: Mapping[str, Any]
    previous: str
    hash: str

    def line(self) -> str:
        """The entry as its line, without the newline."""
        return _plain(_body(self) | {"hash": self.hash})


def new_entry(entries: Sequence[Entry], kind: str, facts: Mapping[str, Any]) -> Entry:
    """The next entry after ``entries``, with its hash."""
    previous = entries[-1].hash if entries else NOTHING
    entry = Entry(len(entries), kind, json.loads(_plain(facts)), previous, "")
    return Entry(entry.number, kind, entry.facts, previous, _hash(entry))


def append(folder: Path, entries: Sequence[Entry], entry: Entry) -> None:
    """Write the ledger with one more entry, atomically. An OSError leaves it unchanged."""
    _durable(folder / LEDGER, text((*entries, entry)))
    _durable(folder / HEAD, _head(entry))


def repair_head(folder: Path, entries: Sequence[Entry]) -> None:
    """Write the head of the last entry, if a kill came between the two writes of ``append``."""
    if _head_of(folder) != _head(entries[-1]).encode():
        _durable(folder / HEAD, _head(entries[-1]))


def text(entries: Sequence[Entry]) -> str:
    """The text of the ledger with these entries."""
    return "".join(f"{entry.line()}\n" for entry in entries)


def read(folder: Path) -> list[Entry]:
    """Every entry. Raises InputError for a folder without a ledger, and for wrong hashes."""
    entries, wrong = check_ledger(folder)
    if wrong:
        raise InputError(f"the ledger of {quoted(folder)} was changed: {wrong[0]}; put a copy back")
    return entries


def check_ledger(folder: Path) -> tuple[list[Entry], list[str]]:
    """The entries, and what is wrong with the ledger, one line each; empty if nothing is.

    Raises InputError for a folder without a ledger, and for a ledger that cannot be read.
    """
    head = _head_of(
        folder
    )  # before the ledger, which is written first: the ledger may be ahead, the head may not
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
        except ValueError:  # a number that is not finite, or a broken character
            wrong.append(f"{where} is damaged: it has a number or a character that no ledger has")
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
    elif error_line := _head_error(head, entries):
        wrong.append(error_line)
    return entries, wrong


def refuse_none(folder: Path) -> None:
    """Raises InputError for a folder without a ledger."""
    try:
        (folder / LEDGER).lstat()
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{quoted(folder)} is no chain: make one with unlearnkit chain init {quoted(folder)} MODEL"
        ) from None
    except OSError:
        pass  # reading the ledger says why


def _head_of(folder: Path) -> bytes | str:
    """The bytes of the head, empty if there is none; or as text why it cannot be read."""
    try:
        (folder / HEAD).lstat()
    except OSError:
        return b""
    try:
        return read_bytes(folder / HEAD, what=f"{HEAD},")
    except InputError as error:
        return str(error)


def _head_error(head: bytes, entries: Sequence[Entry]) -> str:
    """What is wrong with the head. The ledger may be one entry ahead, after a kill between the two writes."""
    if (not head and len(entries) == 1) or head in [_head(one).encode() for one in entries[-2:]]:
        return ""
    if not head:
        return (
            f"{HEAD} is missing: without it nobody sees whether lines were removed from the end of {LEDGER}"
        )
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
    """Write atomically and flush to the disk."""
    with atomic_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
