"""Controls of attacks on a model that never knew the concept, kept for later runs: they do not depend on the edit."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...attacks.result import SearchResult
from ...data.pictures import default_folder
from ...errors import InputError
from ...io.unfinished import staging

__all__ = ["fetch", "keep", "key_of"]

OWN = ("edit", "filtered")  # entries of a plan on which such a control does not depend


def key_of(plan: Mapping[str, Any], versions: Mapping[str, str]) -> str:
    """The name of a control: a hash of everything that it depends on; empty for one that depends on the edit."""
    if plan["control"]["kind"] != "never knew":
        return ""
    facts = {name: value for name, value in plan.items() if name not in OWN}
    text = json.dumps([facts, dict(versions)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def fetch(key: str, result: Path, pictures: Path) -> None:
    """Copy a control from the cache, if it is there whole and the folder has none yet."""
    place = default_folder() / "controls" / key
    if not key or result.exists() or pictures.exists() or not (place / "found").is_dir():
        return
    try:
        if SearchResult.load(place / "found") is None:
            return
    except InputError:
        return
    shutil.copytree(place / "pictures", pictures)
    with staging(result.parent) as partial:
        shutil.copytree(place / "found", partial / result.name)
        (partial / result.name).rename(result)


def keep(key: str, result: Path, pictures: Path) -> None:
    """Copy a finished control into the cache."""
    place = default_folder() / "controls" / key
    if not key or place.exists():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    with staging(place.parent) as partial:
        shutil.copytree(result, partial / key / "found")
        shutil.copytree(pictures, partial / key / "pictures")
        (partial / key).rename(place)
