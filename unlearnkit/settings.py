"""Settings of a method: one dataclass, filled from KEY=VALUE pairs, from TOML or from Python, always checked.

A method declares its settings once:

    @dataclass(frozen=True)
    class ESDSettings:
        steps: int = setting(200, "optimiser steps", low=1, high=100_000, source="the authors' code")
        part: Literal["xattn", "xattn-kv"] = setting("xattn", "weights that are trained")

Types: ``int``, ``float``, ``bool``, ``str``, ``Literal``, ``tuple[T, ...]`` and ``T | None``. In text (KEY=VALUE and
TOML) the word ``none`` stands for ``None`` wherever the type allows it, a tuple is written ``a,b,c``, an empty one
``none``.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from .errors import InputError, nearest
from .schema import Concept, Recipe, Request

__all__ = ["Setting", "build", "describe", "dump_recipe", "load_recipe", "parse_pairs", "setting"]

T = TypeVar("T")


def setting(
    default: Any,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Iterable[Any] | None = None,
    source: str = "",
    min_items: int | None = None,
) -> Any:
    """A dataclass field with all that a user wants to know about it.

    low, high: inclusive bounds of a number, or of every number in a tuple.
    choices: the allowed values, or the allowed items of a tuple (a ``Literal`` brings its own).
    source: where the default comes from: a paper, its code, or our own sweep.
    min_items: the fewest items of a tuple.
    """
    facts = {
        "doc": " ".join(doc.split()),
        "low": low,
        "high": high,
        "choices": None if choices is None else tuple(choices),
        "source": source,
        "min_items": min_items,
    }
    return dataclasses.field(default=default, metadata=facts)


@dataclass(frozen=True)
class Setting:
    """One setting as it is shown and checked; ``annotation`` is its resolved Python type."""

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


def describe(cls: type) -> list[Setting]:
    """Every setting of a settings dataclass, in order of declaration."""
    hints = typing.get_type_hints(cls)
    found = []
    for field in dataclasses.fields(cls):
        facts, annotation = field.metadata, hints[field.name]
        literal = _literal(annotation)
        found.append(
            Setting(
                name=field.name,
                type=_in_words(annotation),
                default=field.default,
                doc=facts.get("doc", ""),
                low=facts.get("low"),
                high=facts.get("high"),
                choices=facts.get("choices") or literal,
                source=facts.get("source", ""),
                min_items=facts.get("min_items"),
                annotation=annotation,
            )
        )
    return found


def build(cls: type[T], values: Mapping[str, Any]) -> T:
    """An instance of ``cls`` with ``values``, each checked for type and range; what is left out takes its default.

    Raises InputError for an unknown name (with the nearest known one) and for a value that is not allowed.
    """
    known = {one.name: one for one in describe(cls)}
    return cls(**{name: _checked(_known(name, known), value) for name, value in values.items()})


def parse_pairs(pairs: Iterable[str], cls: type) -> dict[str, Any]:
    """``["steps=200", "lr=1e-4"]`` as ``{"steps": 200, "lr": 1e-4}``, typed and checked by the fields of ``cls``.

    Raises InputError for a pair without ``=``, a repeated or unknown name, and a value that is not allowed.
    """
    known = {one.name: one for one in describe(cls)}
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        name = name.strip()
        if not equals or not name:
            raise InputError(f"setting {pair!r} is not of the form KEY=VALUE, for example steps=200")
        if name in values:
            raise InputError(f"setting {name!r} is given twice: give it once")
        one = _known(name, known)
        try:
            value = _parsed(one.annotation, text.strip())
        except ValueError:
            raise _refusal(one, text.strip()) from None
        values[name] = _checked(one, value)
    return values


def dump_recipe(recipe: Recipe, settings: Any = None) -> str:
    """The recipe as TOML; ``settings``, a filled settings dataclass, has every default of it spelled out.

    ``load_recipe`` reads it back to an equal recipe, except that ``None`` among the settings becomes ``"none"``
    (TOML has no null), which ``build`` turns into ``None`` again.
    """
    values, docs = dict(recipe.settings), {}
    if settings is not None:
        docs = {one.name: one.doc for one in describe(type(settings))}
        values = {name: getattr(settings, name) for name in docs}
    lines = [f"{name} = {_toml(getattr(recipe, name))}" for name in ("model", "method", "seed")]
    for table, concepts in (("erase", recipe.request.erase), ("keep", recipe.request.keep)):
        for concept in concepts:
            lines += ["", f"[[{table}]]", f"name = {_toml(concept.name)}", f"kind = {_toml(concept.kind)}"]
            if concept.phrases:
                lines.append(f"phrases = {_toml(concept.phrases)}")
            if concept.instead is not None:
                lines.append(f"instead = {_toml(concept.instead)}")
    lines += ["", "[settings]"]
    for name, value in values.items():
        comment = f"  # {docs[name]}" if docs.get(name) else ""
        lines.append(f"{_key(name)} = {_toml(value)}{comment}")
    return "\n".join(lines) + "\n"


def load_recipe(path: str | Path) -> Recipe:
    """The recipe in a TOML file. Raises InputError for a file, table, key or value that cannot be used."""
    try:
        data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"recipe {str(path)!r} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise InputError(f"recipe {str(path)!r} is not TOML: {' '.join(str(error).split())}") from None
    where = f"recipe {str(path)!r}"
    top = _table(data, _RECIPE, where, required=("model", "method", "erase"))
    concepts = {
        table: tuple(
            Concept(**_table(item, _CONCEPT, f"{where}, [[{table}]]", required=("name",)))
            for item in top.get(table, ())
        )
        for table in ("erase", "keep")
    }
    return Recipe(
        model=top["model"],
        method=top["method"],
        request=Request(**concepts),
        settings={name: _frozen(value) for name, value in top.get("settings", {}).items()},
        seed=top.get("seed", 0),
    )


_RECIPE: dict[str, Any] = {
    "model": str,
    "method": str,
    "seed": int,
    "erase": list,
    "keep": list,
    "settings": dict,
}
_CONCEPT: dict[str, Any] = {
    "name": str,
    "kind": str,
    "phrases": tuple[str, ...],
    "instead": str,
}


def _table(data: Any, allowed: dict[str, Any], where: str, *, required: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise InputError(f"{where} has {data!r} where a table is expected")
    checked = {}
    for name, value in data.items():
        if name not in allowed:
            raise InputError(f"{where} has the unknown key {name!r}{nearest(name, allowed)}")
        try:
            checked[name] = _fitted(allowed[name], value)
        except ValueError:
            raise InputError(f"{where} has {name} = {value!r}: it takes {_in_words(allowed[name])}") from None
    if missing := [name for name in required if name not in checked]:
        raise InputError(f"{where} lacks {missing[0]!r}: add it")
    return checked


def _known(name: str, known: Mapping[str, Setting]) -> Setting:
    if name not in known:
        raise InputError(f"setting {name!r} is unknown{nearest(name, known)}: use one of {', '.join(known)}")
    return known[name]


def _checked(one: Setting, value: Any) -> Any:
    """``value`` in the setting's own type, or InputError."""
    try:
        value = _fitted(one.annotation, value)
    except ValueError:
        raise _refusal(one, value) from None
    if value is None:
        return None
    items = value if isinstance(value, tuple) else (value,)
    good = (
        (one.choices is None or all(item in one.choices for item in items))
        and (one.low is None or all(item >= one.low for item in items))
        and (one.high is None or all(item <= one.high for item in items))
        and (one.min_items is None or len(items) >= one.min_items)
    )
    if not good:
        raise _refusal(one, value)
    return value


def _refusal(one: Setting, value: Any) -> InputError:
    close = nearest(value, map(str, one.choices)) if one.choices and isinstance(value, str) else ""
    return InputError(f"setting {one.name!r} got {value!r}{close}: it takes {one.allowed}")


def _fitted(annotation: Any, value: Any) -> Any:
    """A Python or TOML value in the annotated type (an int becomes a float, a list a tuple), or ValueError."""
    inner = _without_none(annotation)
    if inner is not annotation:
        return None if value is None or value == "none" else _fitted(inner, value)
    if typing.get_origin(annotation) is Literal:
        for choice in typing.get_args(annotation):
            if choice == value and type(choice) is type(value):
                return value
        raise ValueError
    if typing.get_origin(annotation) is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError
        return tuple(_fitted(typing.get_args(annotation)[0], item) for item in value)
    if annotation is float and type(value) is int:
        value = float(value)
    if not isinstance(value, annotation) or (isinstance(value, bool) and annotation is not bool):
        raise ValueError
    if annotation is float and not math.isfinite(value):
        raise ValueError
    return value


def _parsed(annotation: Any, text: str) -> Any:
    """The text of a KEY=VALUE pair in the annotated type, or ValueError."""
    inner = _without_none(annotation)
    if inner is not annotation:
        return None if text == "none" else _parsed(inner, text)
    if typing.get_origin(annotation) is tuple:
        item = typing.get_args(annotation)[0]
        return (
            tuple(_parsed(item, part.strip()) for part in text.split(",")) if text not in ("", "none") else ()
        )
    if typing.get_origin(annotation) is Literal:
        return {str(choice): choice for choice in typing.get_args(annotation)}.get(text, text)
    if annotation is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError
        return text.lower() == "true"
    return annotation(text)


def _without_none(annotation: Any) -> Any:
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        inner = [arg for arg in typing.get_args(annotation) if arg is not types.NoneType]
        if len(inner) == 1:
            return inner[0]
    return annotation


def _literal(annotation: Any) -> tuple[Any, ...] | None:
    annotation = _without_none(annotation)
    if typing.get_origin(annotation) is tuple:
        annotation = typing.get_args(annotation)[0]
    return typing.get_args(annotation) if typing.get_origin(annotation) is Literal else None


_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    list: "a list of tables",
    dict: "a table",
}


def _in_words(annotation: Any) -> str:
    inner = _without_none(annotation)
    if inner is not annotation:
        return f"{_in_words(inner)}, or none"
    if typing.get_origin(annotation) is tuple:
        return f"a list, each {_in_words(typing.get_args(annotation)[0])}"
    if typing.get_origin(annotation) is Literal:
        return _either([str(choice) for choice in typing.get_args(annotation)])
    return _WORDS[annotation]


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def _toml(value: Any) -> str:
    if value is None:
        return '"none"'
    if isinstance(value, str):
        if not value.isprintable() and re.search("[\ud800-\udfff]", value):
            raise InputError(f"{value!r} is not valid Unicode text: spell it in UTF-8")
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value) if isinstance(value, bool) else repr(value)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
