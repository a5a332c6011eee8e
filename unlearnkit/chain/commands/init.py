"""``chain init``: create a chain in a new folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ... import methods
from ...errors import InputError, nearest, quoted
from ...io.files import entries, user_path, writing
from ...io.locks import locked
from ...model.load import load
from ...model.model import Model
from ...model.places import is_canvas
from ...settings import build
from .. import ledger
from ..evaluate import open_evaluators, resolved
from ..facts import FORMAT, REGIMES
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
    """Create a chain in a new or empty folder.

    model: a loaded Model, or anything that ``load`` takes. regime: ``sequential``, ``joint`` or ``merged``.
    method, settings, guards: defaults of every request. merge: see ``Merge``.
    pictures: of each word of the model's vocabulary after each request; 0: no evaluation.
    objects, styles, clip: sources of the evaluators, as in ``evaluate``; default: none; for the canvas its own.
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
    if merge and regime != "merged":
        raise InputError(
            f"merge is for regime merged, and this chain is {regime}: leave it out, or choose --regime merged"
        )
    sources = {"objects": objects, "styles": styles, "clip": clip}
    sources = {name: source and resolved(source) for name, source in sources.items()}
    loaded = model if isinstance(model, Model) else load(model, device=device, dtype=dtype, variant=variant)
    facts = {
        "format": FORMAT,
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
        "looks": {"pictures": pictures, **sources},
        **stamp(()),
    }
    entry = ledger.new_entry((), "init", facts)
    project = project_of(folder, (entry,))
    open_evaluators(project)  # evaluators that cannot be opened are an error before there is a chain
    with locked(folder):
        _empty(folder)  # another process may create it at the same time
        ledger.append(folder, (), entry)
    return project


def _empty(folder: Path) -> None:
    """Raises InputError if the folder is not empty, or not a folder."""
    with writing(folder):
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{quoted(folder)} is a file: choose a new folder for the chain")
        if folder.exists() and entries(folder):
            raise InputError(f"{quoted(folder)} is not empty: choose another folder for the chain")


def _source(source: str) -> str:
    """The full path of a folder or file, so that the chain can be opened from anywhere."""
    return source if is_canvas(source) else resolved(source, must=False)
