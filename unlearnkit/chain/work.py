"""An unfinished request: its folder below ``work``, which remains after a kill and which the same request resumes."""

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
from ..settings import differences
from .project import LOOKS, REQUEST, WORK, Project, identity

__all__ = ["work"]


@contextmanager
def work(project: Project, facts: Mapping[str, Any]) -> Iterator[Path]:
    """The folder for the request with these facts. It is removed after an error that would come again.

    Raises InputError if a request for the same concepts is unfinished with other settings.
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
        if isinstance(error, DivergedError) or not _has_progress(project, place):
            shutil.rmtree(place, ignore_errors=True)
        raise


def _has_progress(project: Project, place: Path) -> bool:
    """Whether there is progress that would be lost."""
    return any(place.rglob("*.safetensors")) or (project.folder / LOOKS / place.name).exists()


def _refuse(project: Project, other: Path, facts: Mapping[str, Any]) -> None:
    """Refuse a request that is unfinished with other settings, naming the first difference."""
    if not (other / REQUEST).is_file() or not _has_progress(project, other):
        return
    where = f"{quoted(other / REQUEST)}"
    theirs = typed(read_json(other / REQUEST, what="request", kind=dict), {"head": str}, where=where)
    names = _names(facts)
    if theirs["head"] != facts["head"] or not names or names != _names(theirs):
        return
    name, was, now = next(differences(theirs, facts), ("setting", "unknown", "unknown"))
    raise InputError(
        f"the request to erase {quoted(', '.join(names))} is unfinished with another {name} ({quoted(was)}, now "
        f"{quoted(now)}): use the same to resume it, or remove the folder {quoted(other)} to start again"
    )


def _names(facts: Mapping[str, Any]) -> list[str]:
    """The names of the erased concepts; empty for facts without a request."""
    request = facts.get("request")
    erase = request.get("erase") if isinstance(request, dict) else None
    return [str(one.get("name")) for one in erase or () if isinstance(one, dict)]
