"""The command ``unlearnkit studio``."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from ..io.files import user_path
from .output import answer, emit
from .terminal import WHAT, WHERE, known_model, out

__all__ = ["studio"]


def studio(
    folder: Annotated[
        Path, typer.Argument(help="The folder with runs, chains and models; new runs go there too.")
    ] = Path(),
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help="A model outside the folder: a hub id, a folder or a file; may be repeated.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port (0: any free one).", rich_help_panel=WHERE)
    ] = 0,
) -> None:
    """Open a local web page to erase, look, check and ship. It prints its address; Ctrl-C ends it.

    Only this machine can reach it, only with that address. It needs the extra 'studio'.

    [bold]unlearnkit studio[/bold]
    """
    from ..runs.recipes import placed
    from ..studio.serve import serve

    def say(address: str) -> None:
        answer({"address": address})
        emit(0)
        out.print(address, markup=False)

    models = [placed(known_model(one)) for one in model or ()]
    with contextlib.suppress(KeyboardInterrupt):  # the usual end
        serve(user_path(folder), models=models, port=port, say=say)
