"""A table of a ledger's line. Values are read by name and type; an error names the line and the key."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from ..errors import InputError, quoted
from ..io.reading import typed

__all__ = ["Table"]

LARGEST = 1e15  # of any number in a ledger
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"

T = TypeVar("T")


@dataclass(frozen=True)
class Table:
    """data: its contents. where: its name in messages, line and keys."""

    data: Any
    where: str

    def __post_init__(self) -> None:
        typed(self.data, {}, where=self.where)

    def wrong(self, name: str, value: Any, expected: str) -> InputError:
        return InputError(f"{self.where} is damaged: {quoted(name)} is {quoted(value)}, not {expected}")

    def said(self, error: InputError) -> InputError:
        """The error of a value's own class, with its place; added once."""
        text = str(error)
        return error if text.startswith(self.where) else InputError(f"{self.where} is damaged: {text}")

    def table(self, name: str) -> Table:
        return Table(self._of(name, dict), f"{self.where}, {quoted(name)}")

    def tables(self, name: str) -> list[Table]:
        where = f"{self.where}, {quoted(name)}"
        return [Table(one, where) for one in self._of(name, list)]

    def text(self, name: str, *, empty: bool = False) -> str:
        value = self._of(name, str)
        if not (empty or value.strip()):
            raise self.wrong(name, value, "text that says something")
        return str(value)

    def texts(self, name: str) -> tuple[str, ...]:
        values = self._of(name, list)
        if not all(isinstance(value, str) for value in values):
            raise self.wrong(name, values, "a list of texts")
        return tuple(values)

    def whole(self, name: str, *, least: int = 0, most: int = 2**63 - 1) -> int:
        value = self._of(name, int)
        if not least <= value <= most:
            raise self.wrong(name, value, f"{least} to {most}")
        return int(value)

    def number(self, name: str, *, least: float = -LARGEST, most: float = LARGEST) -> float:
        value = float(self._of(name, float))
        if not (math.isfinite(value) and least <= value <= most):
            raise self.wrong(name, value, f"{least:g} to {most:g}")
        return value

    def numbers(self, name: str) -> tuple[int, ...]:
        values = self._of(name, list)
        if not all(type(value) is int and value >= 1 for value in values):
            raise self.wrong(name, values, "a list of whole numbers from 1")
        return tuple(values)

    def digest(self, name: str, *, length: int = 64) -> str:
        value = self._of(name, str)
        if not re.fullmatch(f"[0-9a-f]{{{length}}}", value):
            raise self.wrong(name, value, f"{length} hexadecimal digits")
        return str(value)

    def time(self) -> str:
        value = self._of("time", str)
        if not re.fullmatch(TIME, value, re.ASCII):
            raise self.wrong("time", value, "a time such as 2026-01-31T12:00:00Z")
        return str(value)

    def maybe(self, name: str, take: Callable[[str], T]) -> T | None:
        if isinstance(self.data, dict) and name in self.data and self.data[name] is None:
            return None
        return take(name)

    def _of(self, name: str, kind: type) -> Any:
        return typed(self.data, {name: kind}, where=self.where)[name]
