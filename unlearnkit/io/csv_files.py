"""CSV files from outside, with bounds, and one-line errors that name the wrong lines."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ..errors import InputError, listed, quoted
from .reading import read_text

__all__ = ["csv_rows", "refuse_rows"]

LARGEST = 100_000  # characters of one field
SAID = 5  # wrong rows with a reason
ROWS, SIZE = 100_000, 2**27  # of a file, the latter in bytes


def csv_rows(
    file: Path, *, required: Iterable[str], wrong: list[str] | None = None
) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV file with their line numbers. Raises InputError for a malformed file, header or row.

    wrong: if given, malformed rows are added here, for ``refuse_rows``, and not refused.
    """
    text, where = read_text(file, what="file", most=SIZE), f"file {quoted(file)}"
    if "\0" in text:
        raise InputError(f"{where}, line {text[: text.index(chr(0))].count(chr(10)) + 1}: it has a zero byte")
    csv.field_size_limit(LARGEST)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows, bad = [], list[str]()
    try:
        header = [name.strip() for name in next(reader, [])]
        if missing := [name for name in required if name not in header]:
            raise InputError(
                f"{where} has no column {quoted(missing[0])}, its columns are {listed(header) or 'none'}"
            )
        if twice := [name for name, count in Counter(header).items() if count > 1]:
            raise InputError(f"{where} has the column {quoted(twice[0])} twice: keep one")
        start = reader.line_num + 1
        for row in reader:
            if len(row) == len(header):
                rows.append((start, dict(zip(header, row, strict=True))))
            elif row:
                bad.append(f"line {start} has {len(row)} fields instead of {len(header)}")
            if len(rows) > ROWS:
                raise InputError(f"{where} has over {ROWS:,} rows: use fewer")
            start = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{where}, line {reader.line_num}: {error}") from None
    if wrong is None:
        refuse_rows(file, bad)
    else:
        wrong += bad
    return rows


def refuse_rows(file: Path, wrong: list[str]) -> None:
    """Raise InputError that names every wrong row by number, and says of the first five what is wrong with them.

    wrong: texts such as ``"line 7 has 1 field instead of 2"``; the first number in each is the row's.
    """
    if not wrong:
        return
    numbered = sorted((int(found[0]) if (found := re.search(r"\d+", one)) else 0, one) for one in wrong)
    text = "; ".join(one for _, one in numbered[:SAID])
    if more := [number for number, _ in numbered[SAID:]]:
        text += f"; and {len(more)} more: {_ranges(more)}"
    raise InputError(f"file {quoted(file)} cannot be used: {text}")


def _ranges(numbers: list[int]) -> str:
    """``"6, 8 to 12"`` of sorted numbers."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number <= spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return listed(f"{first} to {last}" if last > first else str(first) for first, last in spans)
