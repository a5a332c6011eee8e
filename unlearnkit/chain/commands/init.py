"""``chain init``: begin a chain in a new folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ... import methods
from ...errors import InputError, nearest, quoted
from ...io.files import entries, locked, user_path, writing
from ...models.load import is_canvas, load
from ...models.model import Model
from ...settings import build
from .. import ledger
from ..evaluate import found_at, tools
from ..facts import REGIMES
from ..finish import stamp
from ..guards import Guards
from ..merging import Merge
from ..project import Project, project_of

__all__ = ["init"]

MOST = 10_000  # pictures of a word


def init(
    folder: str | Path,
    model: Model | str | Path = "canvas",
    *,
    regime: str = "sequential",
    method: str = "esd",
    settings: Mapping[str, Any] | None = None,
    guards: Mapping[str, Any] | None = None,
    merge: Mapping[str, Any] | None = None,
    pictures: int = 5,
    objects: str | None = None,
    styles: str | None = None,
    clip: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    variant: str | None = None,
) -> Project:
    """Begin a chain in a new or empty folder.

    model: a loaded Model, or anything that ``load`` takes. regime: ``sequential``, ``joint`` or ``merged``.
    method, settings, guards: what a request takes that says nothing else. merge: see ``Merge``.
    pictures: of each word of the model's vocabulary after each request; 0 looks at nothing.
    objects, styles, clip: what looks at them, as in ``evaluate``; for the canvas its own judge if none is named.
    device, dtype, variant: as in ``load``.
    """
    folder = user_path(folder)
    _empty(folder)
    if regime not in REGIMES:
        raise InputError(
            f"regime {quoted(regime)} is unknown{nearest(regime, REGIMES)}: use one of {', '.join(REGIMES)}"
        )
    if not 0 <= pictures <= MOST:
        raise InputError(f"pictures {quoted(pictures)} is out of range: use 0 to {MOST}")
    build(methods.find(method), settings or {})
    readers = {"objects": objects, "styles": styles, "clip": clip}
    readers = {name: source and found_at(source) for name, source in readers.items()}
    loaded = model if isinstance(model, Model) else load(model, device=device, dtype=dtype, variant=variant)
    facts = {
        "format": 1,
        "model": _source(loaded.source),
        "base": loaded.fingerprint(),
        "weights": loaded.fingerprint(),
        "dtype": loaded.precision,
        **({"variant": loaded.variant} if loaded.variant else {}),
        "regime": regime,
        "method": method,
        "settings": dict(settings or {}),
        "guards": dataclasses.asdict(build(Guards, guards or {})),
        "merge": dataclasses.asdict(build(Merge, merge or {})),
        "looks": {"pictures": pictures, **readers},
        **stamp(()),
    }
    entry = ledger.sealed((), "init", facts)
    begun = project_of(folder, (entry,))
    tools(begun)  # what cannot look is said before there is a chain
    with locked(folder):
        _empty(folder)  # two may begin at once
        ledger.append(folder, (), entry)
    return begun


def _empty(folder: Path) -> None:
    """Raises InputError where something is in the folder, or it is none."""
    with writing(folder):
        if folder.exists() and (not folder.is_dir() or entries(folder)):
            raise InputError(f"{quoted(folder)} is not empty: choose another folder for the chain")


def _source(source: str) -> str:
    """A folder or file by its full path, so that the chain can be opened from anywhere."""
    return source if is_canvas(source) else found_at(source, must=False)
