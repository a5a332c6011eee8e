"""The ledger of a chain: whatever is changed in it is found, and nothing of it is written by halves."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unlearnkit.chain import ledger
from unlearnkit.chain.ledger import HEAD, LEDGER, Entry, append, check_ledger, new_entry, read
from unlearnkit.errors import InputError

few = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**50), 2**50)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def written(folder: Path, facts: list[dict[str, Any]]) -> list[Entry]:
    """A fresh ledger with one entry for each of the facts."""
    for name in (LEDGER, HEAD):
        (folder / name).unlink(missing_ok=True)
    entries: list[Entry] = []
    for number, one in enumerate(facts):
        entry = new_entry(entries, "add" if number else "init", one)
        append(folder, entries, entry)
        entries.append(entry)
    return entries


@few
@given(facts=st.lists(st.dictionaries(st.text(max_size=5), plain, max_size=4), min_size=1, max_size=4))
def test_what_is_written_is_read_and_fits(facts: list[dict[str, Any]], tmp_path: Path) -> None:
    entries = written(tmp_path, facts)
    assert read(tmp_path) == entries
    assert not list(check_ledger(tmp_path)[1])
    assert [entry.previous for entry in entries[1:]] == [entry.hash for entry in entries[:-1]]


def test_a_missing_head_is_called_missing(tmp_path: Path) -> None:
    written(tmp_path, [{}, {}, {}])
    (tmp_path / HEAD).unlink()
    (told,) = check_ledger(tmp_path)[1]
    assert told.startswith(f"{HEAD} is missing")


@few
@given(place=st.integers(0), bit=st.integers(0, 7), file=st.sampled_from([LEDGER, HEAD]))
def test_any_flipped_bit_is_found(place: int, bit: int, file: str, tmp_path: Path) -> None:
    written(tmp_path, [{"what": "ä"}, {"what": [1, 2.5]}, {"what": None}])
    raw = bytearray((tmp_path / file).read_bytes())
    at = place % len(raw)
    raw[at] ^= 1 << bit
    (tmp_path / file).write_bytes(raw)
    found = list(check_ledger(tmp_path)[1])
    assert found
    if file == LEDGER:
        line = 1 + bytes((tmp_path / file).read_bytes())[:at].count(b"\n")
        assert any(f"line {line}" in one for one in found) or at == len(raw) - 1
    with pytest.raises(InputError, match="was changed"):
        read(tmp_path)


@few
@given(count=st.integers(2, 6), data=st.data())
def test_lines_that_are_removed_or_swapped_are_found_and_where(
    count: int, data: st.DataObject, tmp_path: Path
) -> None:
    written(tmp_path, [{"number": i} for i in range(count)])
    lines = (tmp_path / LEDGER).read_bytes().splitlines(keepends=True)
    one = data.draw(st.integers(0, count - 1))
    (tmp_path / LEDGER).write_bytes(b"".join(lines[:one] + lines[one + 1 :]))
    found = list(check_ledger(tmp_path)[1])
    assert any(f"line {one + 1} holds entry {one + 1}" in line for line in found) or one == count - 1
    assert any(HEAD in line for line in found) or one < count - 1
    other = data.draw(st.integers(0, count - 1).filter(lambda at: at != one))
    lines[one], lines[other] = lines[other], lines[one]
    (tmp_path / LEDGER).write_bytes(b"".join(lines))
    assert any(
        f"line {min(one, other) + 1} holds entry {max(one, other)}" in line
        for line in check_ledger(tmp_path)[1]
    )


def test_a_line_that_was_sealed_anew_does_not_fit_the_next(tmp_path: Path) -> None:
    entries = written(tmp_path, [{}, {"erased": "cat"}, {}])
    forged = new_entry(entries[:1], "add", {"erased": "dog"})
    text = "".join(f"{entry.line()}\n" for entry in (entries[0], forged, entries[2]))
    (tmp_path / LEDGER).write_text(text, encoding="utf-8")
    assert list(check_ledger(tmp_path)[1]) == [f"{LEDGER}, line 3 does not follow the line before it"]


def test_a_kill_between_ledger_and_head_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = written(tmp_path, [{}, {}])
    before = (tmp_path / HEAD).read_bytes()
    entry = new_entry(entries, "add", {})
    append(tmp_path, entries, entry)
    (tmp_path / HEAD).write_bytes(before)
    assert read(tmp_path) == [*entries, entry]
    append(tmp_path, [*entries, entry], new_entry([*entries, entry], "undo", {}))
    assert len(read(tmp_path)) == 4


def test_a_full_disk_leaves_the_ledger_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = written(tmp_path, [{}, {}])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ledger.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        append(tmp_path, entries, new_entry(entries, "add", {}))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_is_no_chain_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no chain: make one"):
        read(tmp_path)
