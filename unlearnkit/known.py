"""What the command line checks before torch is imported: names of methods, attacks and suites, and all settings.

``known.json`` is generated from what the methods declare; ``tests/test_settings_page.py`` compares the two and, with
``UNLEARNKIT_WRITE=1``, writes it. A setting that several methods share is stored once, with each method's differences.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from .errors import InputError, nearest, quoted
from .settings import Setting, describe, setting, without_none

__all__ = [
    "FILE",
    "METHOD",
    "NAMES",
    "Known",
    "check_name",
    "find",
    "methods",
    "names",
    "settings_of",
    "table",
]

FILE = Path(__file__).with_name("known.json")
METHOD = ("name", "title", "paper", "summary")  # a method's own words
NAMES = ("suite", "attack", "budget", "dtype")  # that have a summary, and no settings
_PLAIN = {one.__name__: one for one in (int, float, bool, str)}


class Known:
    """Settings, and what their method says of itself."""

    name: ClassVar[str]
    title: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    summary: ClassVar[str] = ""


def methods() -> dict[str, type[Known]]:
    """By name, for each method a dataclass with its settings and its own words, but no code."""
    return {name: find(name) for name in _read()["methods"]}


@functools.cache
def find(name: str) -> type[Known]:
    """The settings of the method called ``name``; InputError with the nearest name for an unknown one."""
    known = _read()["methods"]
    if name not in known:
        raise InputError(
            f"method {quoted(name)} is unknown{nearest(name, known)}: use one of {', '.join(known)}"
        )
    facts = known[name]
    return _class(name, facts["settings"], {word: facts[word] for word in METHOD})


@functools.cache
def settings_of(name: str) -> type[Known]:
    """The settings ``"guards"`` and ``"merge"`` of a chain, and ``"rules"`` of an evaluation."""
    return _class(name, _read()[name]["settings"], {"name": name})


def names(what: str) -> dict[str, str]:
    """Every suite, attack, budget or dtype, with a summary. what: one of ``NAMES``."""
    return dict(_read()["names"][what])


def check_name(what: str, name: str) -> None:
    """Raise InputError, with the nearest name, for an unknown suite, attack, budget or dtype."""
    if name not in (allowed := names(what)):
        raise InputError(
            f"{what} {quoted(name)} is unknown{nearest(name, allowed)}: use one of {', '.join(allowed)}"
        )


@functools.cache
def _read() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
    return read


def _class(name: str, settings: Mapping[str, dict[str, Any]], attributes: dict[str, str]) -> type[Known]:
    common, fields = _read()["settings"], []
    for key, own in settings.items():
        facts = {**common[key], **own}
        annotation, default = _decoded(facts["type"]), facts["default"]
        default = tuple(default) if isinstance(default, list) else default
        words = {word: facts[word] for word in ("low", "high", "choices", "source", "min_items")}
        fields.append((key, annotation, setting(default, facts["doc"], **words)))
    return dataclasses.make_dataclass(name, fields, frozen=True, bases=(Known,), namespace=attributes)


def table(
    declared: Mapping[str, type], others: Mapping[str, type], names: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """The content of ``known.json``.

    declared: the methods by name. others: more settings by the name that ``settings_of`` takes. names: see ``NAMES``.
    """
    common: dict[str, dict[str, Any]] = {}

    def differences(cls: type) -> dict[str, dict[str, Any]]:
        rows = {one.name: _facts(one) for one in describe(cls)}
        for name, row in rows.items():
            common.setdefault(name, row)
        return {
            name: {key: value for key, value in row.items() if not _same(common[name][key], value)}
            for name, row in rows.items()
        }

    of_methods = {
        name: {**{word: getattr(cls, word) for word in METHOD}, "settings": differences(cls)}
        for name, cls in declared.items()
    }
    rest = {name: {"settings": differences(cls)} for name, cls in others.items()}
    return {"methods": of_methods, **rest, "names": names, "settings": common}


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)  # 1, 1.0 and true are three defaults


def _facts(one: Setting) -> dict[str, Any]:
    facts = {"type": _encoded(one.annotation), **{key: getattr(one, key) for key in ("default", "doc")}}
    facts |= {key: getattr(one, key) for key in ("low", "high", "choices", "source", "min_items")}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in facts.items()}


def _encoded(annotation: Any) -> Any:
    """A type as JSON: ``"int"``, ``{"one of": ["x", "u"]}``, ``{"list of": "int"}``, ``{"or none": "float"}``."""
    if (inner := without_none(annotation)) is not annotation:
        return {"or none": _encoded(inner)}
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return {"one of": list(inside)}
    return {"list of": _encoded(inside[0])} if origin is tuple else annotation.__name__


def _decoded(written: Any) -> Any:
    if isinstance(written, str):
        return _PLAIN[written]
    (kind, inside), *_ = written.items()
    if kind == "one of":
        return Literal[tuple(inside)]
    inner: Any = _decoded(inside)
    return types.GenericAlias(tuple, (inner, ...)) if kind == "list of" else inner | types.NoneType
