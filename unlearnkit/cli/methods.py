"""The command ``unlearnkit methods``: names and settings, known before torch is imported."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from . import complete
from .output import answer, of_settings
from .terminal import out

__all__ = ["methods"]


def methods(
    name: Annotated[
        str | None, typer.Argument(help="Show this method and its settings.", autocompletion=complete.methods)
    ] = None,
) -> None:
    """List the methods, or show one with all its settings: default, range and source."""
    from .. import known

    if name is None:
        answer({"methods": [_words(one) for one in known.methods().values()]})
        table = Table("name", "what it does", "paper", box=None, header_style="bold", pad_edge=False)
        for method in known.methods().values():
            table.add_row(method.name, method.summary, method.paper)
        out.print(table)
        return
    from rich.markup import escape
    from rich.padding import Padding

    from ..settings import as_typed, describe

    method = known.find(name)
    answer({**_words(method), "settings": of_settings(describe(method))})
    out.print(method.title, style="bold")
    for line in (method.paper, "", method.summary, ""):
        out.print(line)
    for one in describe(method):
        out.print(f"[bold]{one.name}[/bold] = {escape(as_typed(one.default))}", markup=True)
        source = f" (source: {one.source})" if one.source else ""
        out.print(Padding(f"{one.doc}: {one.allowed}{source}", (0, 0, 0, 4)), soft_wrap=False)


def _words(method: Any) -> dict[str, str]:
    from ..known import METHOD

    return {word: getattr(method, word) for word in METHOD}
