"""Lists of concepts to erase, in files of up to a hundred thousand.

names.txt       one name a line; empty lines and lines that begin with # are passed over
names.csv       columns name, and optionally kind, phrases (separated by ;) and instead
names.toml      tables [[erase]], as in a recipe
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from ..errors import InputError, nearest, quoted
from ..io.csv_files import csv_rows, refuse_rows
from ..io.reading import read_text, read_toml
from ..model.hints import GENERAL, Hints
from ..schema import Concept, Kind
from .recipes import concept_table
from .requests import kind_of

__all__ = ["read_concepts"]

COLUMNS = ("name", "kind", "phrases", "instead")
LARGEST, MOST = 2**27, 100_000  # bytes of a file, and its concepts


def read_concepts(
    path: str | Path, *, kind: str | None = None, known: Hints = GENERAL
) -> tuple[Concept, ...]:
    """The concepts of a file, in its order. Raises InputError that names all wrong lines by number.

    kind: of the concepts that have none of their own; None: as ``request_for`` decides with these hints.
    """
    path = Path(path)
    found, wrong, places = list[Concept](), list[str](), dict[tuple[Kind, str], tuple[str, Concept]]()
    for where, row in _rows(path, wrong):
        try:
            own = cast(Kind, row.get("kind") or kind or kind_of(row.get("name", ""), "object", known))
            concept = Concept(**{**row, "kind": own})
        except InputError as error:
            wrong.append(f"{where}: {error}")
            continue
        earlier = next((places[own, word] for word in concept.folded if (own, word) in places), None)
        if earlier and concept.meaning != earlier[1].meaning:
            wrong.append(f"{where}: {quoted(concept.name)} is another concept in {earlier[0]}: name it once")
        elif not earlier:
            places |= dict.fromkeys([(concept.kind, word) for word in concept.folded], (where, concept))
            found.append(concept)
    refuse_rows(path, wrong)
    if not found:
        raise InputError(f"file {quoted(path)} has no concepts: write one name a line")
    if len(found) > MOST:
        raise InputError(f"file {quoted(path)} has {len(found):,} concepts: at most {MOST:,} are read")
    return tuple(found)


def _rows(path: Path, wrong: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """Where each concept stands in the file, and its fields; unreadable ones are added to ``wrong``."""
    if path.suffix.lower() == ".toml":
        data = read_toml(path, what="file")
        if (odd := next((name for name in data if name != "erase"), None)) or "erase" not in data:
            what = f"the unknown table {quoted(odd)}" if odd else "no table [[erase]]"
            raise InputError(f"file {quoted(path)} has {what}: use [[erase]] for each concept")
        tables = data["erase"] if isinstance(data["erase"], list) else [data["erase"]]
        rows = []
        for place, one in ((f"[[erase]] number {number}", one) for number, one in enumerate(tables, 1)):
            try:
                rows.append((place, concept_table(one, place)))
            except InputError as error:
                wrong.append(str(error))
        return rows
    if path.suffix.lower() == ".csv":
        return [
            (f"line {line}", _fields(path, row))
            for line, row in csv_rows(path, required=("name",), wrong=wrong)
        ]
    # not splitlines, which also splits at characters that a name may not have
    lines = enumerate(read_text(path, what="file", most=LARGEST).split("\n"), 1)
    plain = [(number, line.strip()) for number, line in lines]
    return [(f"line {n}", {"name": name}) for n, name in plain if name and not name.startswith("#")]


def _fields(path: Path, row: dict[str, str]) -> dict[str, Any]:
    if odd := next((name for name in row if name not in COLUMNS), None):
        raise InputError(
            f"file {quoted(path)} has the unknown column {quoted(odd)}{nearest(odd, COLUMNS)}: use {', '.join(COLUMNS)}"
        )
    fields: dict[str, Any] = {name: value.strip() for name, value in row.items() if value.strip()}
    phrases = tuple(one.strip() for one in fields.pop("phrases", "").split(";") if one.strip())
    return {"name": "", **fields, "phrases": phrases}
