"""A request under way: its folder below ``work``, which a killed process leaves and the same request takes up again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import DivergedError, InputError, UnlearnError, quoted
from ..io.files import entries, write_text
from ..io.reading import read_json, typed
from .project import LOOKS, REQUEST, WORK, Project, identity

__all__ = ["work"]


@contextmanager
def work(project: Project, facts: Mapping[str, Any]) -> Iterator[Path]:
    """The folder for the work that these facts describe. A failure that would come again leaves nothing of it.

    Raises InputError where the same concepts are half erased with other settings.
    """
    facts = json.loads(json.dumps({**facts, "head": project.head}))
    place = project.folder / WORK / identity(facts)
    for other in entries(place.parent):
        if other != place:
            _refuse(project, other, facts)
    place.mkdir(parents=True, exist_ok=True)
    write_text(place / REQUEST, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    try:
        yield place
    except UnlearnError as error:
        if isinstance(error, DivergedError) or not _begun(project, place):
            shutil.rmtree(place, ignore_errors=True)
        raise


def _begun(project: Project, place: Path) -> bool:
    """Whether anything is there that would be lost."""
    return any(place.rglob("*.safetensors")) or (project.folder / LOOKS / place.name).exists()


def _refuse(project: Project, other: Path, facts: Mapping[str, Any]) -> None:
    """Refuse to begin a request that is half done with other settings, naming the first that differs."""
    if not (other / REQUEST).is_file() or not _begun(project, other):
        return
    where = f"{quoted(other / REQUEST)}"
    theirs = typed(read_json(other / REQUEST, what="request", kind=dict), {"head": str}, where=where)
    names = _names(facts)
    if theirs["head"] != facts["head"] or not names or names != _names(theirs):
        return
    name, was, now = next(_differences(theirs, facts))
    raise InputError(
        f"the request to erase {quoted(', '.join(names))} is half done with another {name} ({quoted(was)}, now "
        f"{quoted(now)}): give the same to go on, or remove the folder {quoted(other)} to begin anew"
    )


def _names(facts: Mapping[str, Any]) -> list[str]:
    """What a request erases; nothing where it is none."""
    request = facts.get("request")
    erase = request.get("erase") if isinstance(request, dict) else None
    return [str(one.get("name")) for one in erase or () if isinstance(one, dict)]


def _differences(was: Any, now: Any, name: str = "request") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(was, dict) and isinstance(now, dict):
        for key in [*now, *(key for key in was if key not in now)]:
            yield from _differences(was.get(key), now.get(key), key)
    elif was != now:
        yield name, was, now
