"""Settings of a method: one dataclass, filled and checked from KEY=VALUE pairs, TOML or Python.

A method declares its settings once:

    @dataclass(frozen=True)
    class ESDSettings:
        steps: int = setting(200, "optimiser steps", low=1, high=100_000, source="the authors' code")

Types: ``int``, ``float``, ``bool``, ``str``, ``Literal``, ``tuple[T, ...]`` and ``T | None``. In text (KEY=VALUE and
TOML) the word ``none`` means ``None`` if the type allows it. A tuple is written ``a,b,c``, an empty one ``none``.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from .errors import InputError, listed, nearest, quoted
from .oldnames import moved

__all__ = [
    "Setting",
    "as_typed",
    "build",
    "changed",
    "describe",
    "differences",
    "fitted",
    "in_words",
    "parse_pairs",
    "setting",
    "with_default",
    "with_role",
    "without_none",
]

T = TypeVar("T")
MOST: dict[type, float] = {int: 1_000_000, float: 1e12}  # the largest size of a number without own bounds
LONGEST, ITEMS = 4096, 1000  # characters of a text, items of a list


def setting(
    default: Any,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Iterable[Any] | None = None,
    source: str = "",
    min_items: int | None = None,
    role: str = "",
) -> Any:
    """A dataclass field that documents and checks itself.

    low, high: inclusive bounds of a number, or of every number in a tuple. Default: those of ``MOST``.
    choices: the allowed values, or the allowed items of a tuple. Default: those of a ``Literal``.
    source: where the default comes from: a paper, its code, or our own sweep. min_items: the fewest of a tuple.
    role: lets other code set it, see ``with_role``. Nothing in the package goes by a setting's name.
    """
    facts: dict[str, Any] = {"doc": " ".join(doc.split()), "low": low, "high": high, "source": source}
    facts |= {"role": role, "choices": None if choices is None else tuple(choices), "min_items": min_items}
    return dataclasses.field(default=default, metadata=facts)


def with_default(cls: type, name: str, value: Any, *, source: str) -> Any:
    """The field ``name`` of ``cls``, with another default and the source of that."""
    facts = next(field.metadata for field in dataclasses.fields(cls) if field.name == name)
    return dataclasses.field(default=value, metadata={**facts, "source": source})


def with_role(cls: type, role: str) -> tuple[str, ...]:
    """The names of the settings of ``cls`` that declare this role."""
    return tuple(field.name for field in dataclasses.fields(cls) if field.metadata.get("role") == role)


@dataclass(frozen=True)
class Setting:
    """One setting, for display and checks; ``annotation`` is its resolved Python type."""

    name: str
    type: str
    default: Any
    doc: str
    low: float | None
    high: float | None
    choices: tuple[Any, ...] | None
    source: str
    min_items: int | None
    annotation: Any

    @property
    def range(self) -> str:
        """The allowed values in words: ``"0 to 1"``, ``"at least 1"``, ``"x, u or all"``; empty if any will do."""
        parts = []
        if self.choices is not None:
            parts.append(_either([str(choice) for choice in self.choices]))
        if self.low is not None and self.high is not None:
            parts.append(f"{self.low:g} to {self.high:g}")
        elif self.low is not None:
            parts.append(f"at least {self.low:g}")
        elif self.high is not None:
            parts.append(f"at most {self.high:g}")
        if self.min_items is not None:
            parts.append(f"at least {self.min_items} item{'s' if self.min_items != 1 else ''}")
        return ", ".join(parts)

    @property
    def allowed(self) -> str:
        """Type and range in words: ``"a whole number, 1 to 1000"``, ``"x, u or all"``."""
        return self.type if not self.range else self.range if self.choices else f"{self.type}, {self.range}"


def as_typed(value: Any) -> str:
    """A value as written after ``--set NAME=``: ``true``, ``none``, ``a,b``."""
    if isinstance(value, tuple | list):
        return ",".join(map(as_typed, value)) or "none"
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def describe(cls: type) -> list[Setting]:
    """Every setting of a settings dataclass, in order of declaration."""
    hints = typing.get_type_hints(cls)
    return [_described(field, hints[field.name]) for field in dataclasses.fields(cls)]


def _described(field: dataclasses.Field[Any], annotation: Any) -> Setting:
    facts = field.metadata
    return Setting(
        name=field.name,
        type=in_words(annotation),
        default=field.default,
        doc=facts.get("doc", ""),
        choices=facts.get("choices") or _literal(annotation),
        source=facts.get("source", ""),
        annotation=annotation,
        **{name: facts.get(name) for name in ("low", "high", "min_items")},
    )


def build(cls: type[T], values: Mapping[str, Any]) -> T:
    """An instance of ``cls`` with ``values``, each checked for type and range. Other settings take their defaults.

    Raises InputError for an unknown name (with the nearest known one) and for a value that is not allowed.
    """
    known = _names(cls, values)
    return cls(**{name: _checked(known[name], value) for name, value in values.items()})


def changed(filled: Any) -> dict[str, Any]:
    """The settings that differ from the defaults of their class."""
    defaults = dataclasses.asdict(type(filled)())
    return {name: value for name, value in dataclasses.asdict(filled).items() if value != defaults[name]}


def differences(was: Any, now: Any, name: str = "request") -> Iterator[tuple[str, Any, Any]]:
    """Where two records differ, record in record: the name of the field, its value then and now."""
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for key in [*now, *(key for key in was if key not in now)]:
            yield from differences(was.get(key), now.get(key), key)
    elif _records(was) and _records(now) and len(was) == len(now):
        for one, other in zip(was, now, strict=True):
            yield from differences(one, other, name)
    elif was != now:
        yield name, _brief(was), _brief(now)


def _records(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, Mapping) for one in value)


def _brief(value: Any) -> Any:
    """A list of records as their names."""
    return tuple(one.get("name") for one in value) if value and _records(value) else value


def parse_pairs(pairs: Iterable[str], cls: type) -> dict[str, Any]:
    """``["steps=200", "lr=1e-4"]`` as ``{"steps": 200, "lr": 1e-4}``, typed and checked by the fields of ``cls``.

    Raises InputError for a pair without ``=``, a repeated or unknown name, and a value that is not allowed.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        name = name.strip()
        if not equals or not name:
            raise InputError(f"setting {quoted(pair)} is not of the form KEY=VALUE, for example steps=200")
        if name in values:
            raise InputError(f"setting {quoted(name)} is given twice: give it once")
        known = _names(cls, [name])[name]
        try:
            value = _parsed(known.annotation, text.strip())
        except ValueError:
            raise _refusal(known, text.strip()) from None
        values[name] = _checked(known, value)
    return values


def _names(cls: type, names: Iterable[str]) -> dict[str, Setting]:
    """The settings of ``cls`` by name. Raises InputError if one of ``names`` is not among them."""
    known = {setting.name: setting for setting in describe(cls)}
    for name in names:
        if name not in known:
            unknown = f"setting {quoted(name)} is unknown{nearest(name, known)}: use one of {listed(known)}"
            raise InputError(moved(getattr(cls, "name", cls.__name__.lower()), name) or unknown)
    return known


def _checked(known: Setting, value: Any) -> Any:
    """``value`` in the setting's own type, or InputError."""
    try:
        value = fitted(known.annotation, value)
    except ValueError:
        raise _refusal(known, value) from None
    if value is None:
        return None
    items = value if isinstance(value, tuple) else (value,)
    good = (
        (known.choices is None or all(item in known.choices for item in items))
        and (known.low is None or all(item >= known.low for item in items))
        and (known.high is None or all(item <= known.high for item in items))
        and (known.min_items is None or len(items) >= known.min_items)
    )
    if not good:
        raise _refusal(known, value)
    for item in items:
        most = MOST.get(type(item)) if known.high is None or abs(item) > abs(known.high) else None
        if most is not None and abs(item) > most:
            bound = f"{most if item > 0 else -most:,.0f}"
            raise InputError(f"setting {known.name!r} got {quoted(item)}: it takes at most {bound}")
        if isinstance(item, str) and len(item) > LONGEST:
            raise InputError(f"setting {known.name!r} got {quoted(item)}: at most {LONGEST} characters fit")
    if len(items) > ITEMS:
        raise InputError(f"setting {known.name!r} got {len(items)} items: it takes at most {ITEMS}")
    return value


def _refusal(known: Setting, value: Any) -> InputError:
    close = nearest(value, map(str, known.choices)) if known.choices and isinstance(value, str) else ""
    odd = isinstance(value, float) and not math.isfinite(value)
    takes = known.allowed.replace("a number", "a finite number") if odd else known.allowed
    return InputError(f"setting {known.name!r} got {quoted(value)}{close}: it takes {takes}")


def fitted(annotation: Any, value: Any) -> Any:
    """A Python or TOML value in the annotated type (an int becomes a float, a list a tuple, one of a list's choices a
    list of it), or ValueError."""
    inner = without_none(annotation)
    if inner is not annotation:
        return None if value is None or value == "none" else fitted(inner, value)
    if typing.get_origin(annotation) is Literal:
        for choice in typing.get_args(annotation):
            if choice == value and type(choice) is type(value):
                return value
        raise ValueError
    if typing.get_origin(annotation) is tuple:
        item = typing.get_args(annotation)[0]
        if isinstance(value, str) and typing.get_origin(item) is Literal:
            value = () if value == "none" else (value,)
        if not isinstance(value, list | tuple):
            raise ValueError
        return tuple(fitted(item, one) for one in value)
    if annotation is float and type(value) is int:
        value = float(value) if abs(value) < 2**1000 else math.inf
    other = not isinstance(value, annotation) or (isinstance(value, bool) and annotation is not bool)
    if other or (annotation is float and not math.isfinite(value)):
        raise ValueError
    return value


def _parsed(annotation: Any, text: str) -> Any:
    """The text of a KEY=VALUE pair in the annotated type, or ValueError."""
    inner = without_none(annotation)
    if inner is not annotation:
        return None if text == "none" else _parsed(inner, text)
    if typing.get_origin(annotation) is tuple:
        item = typing.get_args(annotation)[0]
        parts = [] if text in ("", "none") else text.split(",")
        return tuple(_parsed(item, part.strip()) for part in parts)
    if typing.get_origin(annotation) is Literal:
        return {str(choice): choice for choice in typing.get_args(annotation)}.get(text, text)
    if annotation is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError
        return text.lower() == "true"
    return annotation(text)


def without_none(annotation: Any) -> Any:
    """The type ``T`` of ``T | None``; any other type unchanged."""
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        inner = [arg for arg in typing.get_args(annotation) if arg is not types.NoneType]
        if len(inner) == 1:
            return inner[0]
    return annotation


def _literal(annotation: Any) -> tuple[Any, ...] | None:
    annotation = without_none(annotation)
    if typing.get_origin(annotation) is tuple:
        annotation = typing.get_args(annotation)[0]
    return typing.get_args(annotation) if typing.get_origin(annotation) is Literal else None


_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_WORDS |= {list: "a list of tables", dict: "a table"}


def in_words(annotation: Any) -> str:
    """The allowed values of a type in words: ``"a whole number, or none"``."""
    inner = without_none(annotation)
    if inner is not annotation:
        return f"{in_words(inner)}, or none"
    if typing.get_origin(annotation) is tuple:
        return f"a list, each {in_words(typing.get_args(annotation)[0])}"
    if typing.get_origin(annotation) is Literal:
        return _either([str(choice) for choice in typing.get_args(annotation)])
    return _WORDS[annotation]


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
