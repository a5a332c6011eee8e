"""Recipes as TOML: everything that determines a run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ..errors import InputError, nearest, quoted
from ..io.reading import read_toml
from ..model.places import RELATIVES
from ..schema import Concept, Recipe, Request, check_unicode
from ..settings import describe, fitted, in_words

__all__ = ["SHIPPED", "checked_table", "concept_table", "dump_recipe", "load_recipe", "placed"]

SHIPPED = ("canvas", *RELATIVES)  # model names that win over a folder of that name


def dump_recipe(recipe: Recipe, settings: Any = None) -> str:
    """The recipe as TOML. settings: a filled settings dataclass; if given, all its values are written.

    ``load_recipe`` reads it back to an equal recipe, except that ``None`` among the settings becomes ``"none"``
    (TOML has no null), which ``build`` turns into ``None`` again.
    """
    values, docs = dict(recipe.settings), {}
    if settings is not None:
        docs = {one.name: one.doc for one in describe(type(settings))}
        values = {name: getattr(settings, name) for name in docs}
    lines = [f"{name} = {_toml(getattr(recipe, name))}" for name in ("model", "method", "seed")]
    for name in ("dtype", "variant"):
        if (value := getattr(recipe, name)) is not None:
            lines.append(f"{name} = {_toml(value)}")
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
    """The recipe in a TOML file. A model's relative path starts at the file's folder.

    Raises InputError for an unusable file, table, key or value.
    """
    data = read_toml(path, what="recipe")
    where = f"recipe {quoted(path)}"
    top = checked_table(data, _RECIPE, where, required=("model", "method", "erase"))
    concepts = {
        table: tuple(Concept(**concept_table(item, f"{where}, [[{table}]]")) for item in top.get(table, ()))
        for table in ("erase", "keep")
    }
    return Recipe(
        model=placed(top["model"], Path(path).parent),
        method=top["method"],
        request=Request(**concepts),
        settings={name: _frozen(value) for name, value in top.get("settings", {}).items()},
        seed=top.get("seed", 0),
        dtype=top.get("dtype"),
        variant=top.get("variant"),
    )


def concept_table(data: Any, where: str) -> dict[str, Any]:
    """The checked fields of a concept's table. Raises InputError, beginning with ``where``, for anything else."""
    return checked_table(data, _CONCEPT, where, required=("name",))


def placed(model: str, folder: Path = Path()) -> str:
    """The absolute path of a model that is a file or folder, relative to ``folder``; any other name unchanged."""
    if model in ("", *SHIPPED):
        return model
    try:
        path = folder / Path(model).expanduser()
        return str(path.resolve()) if path.exists() else model
    except (OSError, ValueError, RuntimeError):  # not a valid path
        return model


_RECIPE: dict[str, Any] = {
    "model": str,
    "method": str,
    "seed": int,
    "dtype": str,
    "variant": str,
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


def checked_table(
    data: Any, allowed: dict[str, Any], where: str, *, required: tuple[str, ...]
) -> dict[str, Any]:
    """The values of a table, of the types in ``allowed``. Raises InputError, beginning with ``where``."""
    if not isinstance(data, dict):
        raise InputError(f"{where} has {quoted(data)} where a table is expected")
    checked = {}
    for name, value in data.items():
        if name not in allowed:
            raise InputError(f"{where} has the unknown key {quoted(name)}{nearest(name, allowed)}")
        try:
            checked[name] = fitted(allowed[name], value)
        except ValueError:
            raise InputError(
                f"{where} has {name} = {quoted(value)}: it takes {in_words(allowed[name])}"
            ) from None
    if missing := [name for name in required if name not in checked]:
        raise InputError(f"{where} lacks {missing[0]!r}: add it")
    return checked


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def _toml(value: Any) -> str:
    if value is None:
        return '"none"'
    if isinstance(value, str):
        check_unicode(value)
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value) if isinstance(value, bool) else repr(value)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
