"""From questions to cases: stable ids, and one seed a picture that depends on suite, prompt and replicate alone."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, listed, quoted
from ..io.files import slug
from ..io.reading import read_text
from ..schema import Case, Role
from ..seeds import derive

__all__ = ["Question", "ask", "rows"]

LARGEST = 100_000  # characters of one field of a CSV file
ROWS, SIZE = 100_000, 2**27  # of a CSV file, the latter in bytes


@dataclass(frozen=True)
class Question:
    """A Case without ids and seeds; ``seeds`` are given where a published protocol or a file fixes them."""

    prompt: str
    role: Role
    form: str
    object: str = ""
    style: str = ""
    concept: str = ""
    rest: str = ""
    seeds: tuple[int, ...] = ()


def ask(questions: Iterable[Question], *, suite: str, version: int, replicates: int) -> list[Case]:
    """The cases of all questions, ``replicates`` pictures each unless the question brings its own seeds.

    A prompt that is asked again keeps its place in the count, so that ids never clash and no seed shifts when other
    prompts come or go.
    """
    seen: Counter[str] = Counter()
    found = []
    for one in questions:
        again = seen[one.prompt]
        seen[one.prompt] += 1
        print_ = hashlib.sha256(f"{one.prompt}\x1f{again}".encode()).hexdigest()[:10]
        prompt_id = f"{slug(one.prompt, length=40)}-{print_}"
        numbers = one.seeds or tuple(derive(version, suite, prompt_id, r) for r in range(replicates))
        found += [
            Case(
                *(f"{prompt_id}-{r}", prompt_id, one.prompt, number, one.role, one.form),
                *(one.object, one.style, one.concept, one.rest),
            )
            for r, number in enumerate(numbers)
        ]
    return found


def rows(file: Path, *, required: Iterable[str]) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV file with their line numbers. Raises InputError for a file, header or row that is not one."""
    text, where = read_text(file, what="file", most=SIZE), f"file {quoted(file)}"
    if "\0" in text:
        raise InputError(f"{where}, line {text[: text.index(chr(0))].count(chr(10)) + 1}: it has a zero byte")
    csv.field_size_limit(LARGEST)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    found, wrong = [], []
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
                found.append((start, dict(zip(header, row, strict=True))))
            elif row:
                wrong.append(f"line {start} has {len(row)} fields instead of {len(header)}")
            if len(found) > ROWS:
                raise InputError(f"{where} has over {ROWS:,} rows: ask fewer prompts")
            start = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{where}, line {reader.line_num}: {error}") from None
    refuse(file, wrong)
    return found


def refuse(file: Path, wrong: list[str]) -> None:
    """Raise InputError that names the first few of the rows that are wrong, if there are any."""
    if wrong:
        more = f", and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise InputError(f"file {quoted(file)} cannot be used: {'; '.join(wrong[:5])}{more}")
