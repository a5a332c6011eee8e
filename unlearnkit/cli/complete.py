"""What Tab offers after a command: names of methods, settings, attacks, runs, chains and models.

Everything comes from ``known`` and from names of files, so that a shell waits for no import of torch.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer

__all__ = ["chains", "kinds", "methods", "models", "named", "runs", "settings", "settings_of", "value_of"]

Pairs = list[tuple[str, str]]  # what is offered, and a word on it, which zsh and fish show
MOST = 1000  # entries of a folder


def named(what: str) -> Callable[[str], Pairs]:
    """Names of ``known.NAMES``: suites, attacks, budgets or dtypes."""

    def offer(incomplete: str) -> Pairs:
        from ..known import names

        return _starting(incomplete, names(what).items())

    return offer


def methods(incomplete: str) -> Pairs:
    """Names of methods."""
    from .. import known

    return _starting(incomplete, ((name, one.title) for name, one in known.methods().items()))


def kinds(incomplete: str) -> Pairs:
    """Kinds of concepts."""
    return _starting(incomplete, (("object", ""), ("style", "")))


def settings(context: typer.Context, incomplete: str) -> Pairs:
    """``NAME=VALUE`` for each setting of the method on the command line: its choices, else its default."""
    from ..known import find

    return _starting(incomplete, _pairs(find(_method(context))))


def settings_of(name: str) -> Callable[[str], Pairs]:
    """The same for ``known.settings_of``."""

    def offer(incomplete: str) -> Pairs:
        from ..known import settings_of

        return _starting(incomplete, _pairs(settings_of(name)))

    return offer


def value_of(setting: str) -> Callable[[typer.Context, str], Pairs]:
    """The choices of one setting of the method on the command line."""

    def offer(context: typer.Context, incomplete: str) -> Pairs:
        from ..known import find
        from ..settings import describe

        found = (one for one in describe(find(_method(context))) if one.name == setting)
        choices = (str(choice) for one in found for choice in one.choices or ())
        return _starting(incomplete, ((choice, "") for choice in choices))

    return offer


def runs(incomplete: str) -> Pairs:
    """Run folders, and folders on the way to them."""
    return list(_folders(incomplete, "recipe.toml", start="runs/"))


def chains(incomplete: str) -> Pairs:
    """Chains, and folders on the way to them."""
    return list(_folders(incomplete, "ledger.jsonl"))


def models(incomplete: str) -> Pairs:
    """The models that ship with unlearnkit, and folders of pipelines."""
    from ..runs.recipes import SHIPPED

    return _starting(incomplete, ((name, "ships with unlearnkit") for name in SHIPPED)) + list(
        _folders(incomplete, "model_index.json")
    )


def _method(context: typer.Context) -> str:
    from .. import known

    name = context.params.get("method") or context.params.get("name") or "esd"
    return str(name) if name in known.methods() else "esd"


def _pairs(cls: type) -> Iterator[tuple[str, str]]:
    from ..settings import as_typed, describe

    for one in describe(cls):
        for value in one.choices or ("" if one.default in (None, ()) else one.default,):
            yield f"{one.name}={as_typed(value)}", one.doc


def _folders(incomplete: str, mark: str, start: str = "") -> Iterator[tuple[str, str]]:
    """Folders that begin so and have the file ``mark``; of the others, those below which one may be found."""
    typed = incomplete or (start if Path(start).is_dir() else "")
    before, _, name = typed.rpartition("/")
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        place = Path(f"{before}/" if "/" in typed else ".").expanduser()
        for path in itertools.islice(sorted(place.iterdir()), MOST):
            if path.name.startswith(name) and not path.name.startswith(".") and path.is_dir():
                shown = f"{before}/{path.name}" if "/" in typed else path.name
                yield (shown, "") if (path / mark).is_file() else (f"{shown}/", "a folder")


def _starting(incomplete: str, offers: Any) -> Pairs:
    return [(name, text) for name, text in offers if name.startswith(incomplete)]
