"""The commands of ``unlearnkit chain``: one request after another."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError, nearest, printable
from ..errors import quoted as cut
from . import complete
from .chain_read import Folder, guards, log, report, status, verify
from .checks import known_chain
from .output import answer
from .terminal import Device, Dtype, Seed, Variant, err, known_model, quoted, say, showing

if TYPE_CHECKING:
    from ..chain.commands.undo import UndoPlan
    from ..chain.ledger import Entry

__all__ = ["commands"]

commands = typer.Typer(
    help="One request after another: a ledger, an evaluation of all after each, and undo.",
    no_args_is_help=True,
)

Pairs = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="A setting of the method.", autocompletion=complete.settings
    ),
]
GuardPairs = Annotated[
    list[str] | None,
    typer.Option(
        "--guard",
        metavar="KEY=VALUE",
        help="See 'unlearnkit chain guards'.",
        autocompletion=complete.settings_of("guards"),
    ),
]


@commands.command()
def init(
    project: Folder,
    model: Annotated[
        str,
        typer.Argument(
            help="canvas, a diffusers folder, a hub id or a file.", autocompletion=complete.models
        ),
    ],
    regime: Annotated[
        str, typer.Option(help="sequential: from the last edit; joint: all together; merged: each alone.")
    ] = "sequential",
    method: Annotated[
        str, typer.Option(help="The method of requests that name none.", autocompletion=complete.methods)
    ] = "esd",
    set_: Pairs = None,
    guard: GuardPairs = None,
    merge: Annotated[
        list[str] | None,
        typer.Option(
            "--merge",
            metavar="KEY=VALUE",
            help="rule, scale or trim of merging.",
            autocompletion=complete.settings_of("merge"),
        ),
    ] = None,
    pictures: Annotated[
        int, typer.Option(min=0, help="Pictures per word of the vocabulary after each request; 0: none.")
    ] = 5,
    objects: Annotated[str | None, typer.Option(help="A classifier of objects, to evaluate them.")] = None,
    styles: Annotated[str | None, typer.Option(help="A classifier of styles.")] = None,
    clip: Annotated[str | None, typer.Option(help="A CLIP.")] = None,
    device: Device = None,
    dtype: Dtype = None,
    variant: Variant = None,
) -> None:
    """Create a chain: a folder with a model's requests, their edits and the ledger.

    [bold]unlearnkit chain init project canvas[/bold]
    """
    from ..chain.facts import REGIMES
    from ..known import find, settings_of
    from ..settings import parse_pairs

    settings = parse_pairs(set_ or [], find(method))
    guards = parse_pairs(guard or [], settings_of("guards"))
    merging = parse_pairs(merge or [], settings_of("merge"))
    known_model(model)
    if regime not in REGIMES:
        raise InputError(
            f"regime {cut(regime)} is unknown{nearest(regime, REGIMES)}: use one of {', '.join(REGIMES)}"
        )

    from ..chain.commands.init import init

    init(
        project,
        model,
        regime=regime,
        method=method,
        settings=settings,
        guards=guards,
        merge=merging,
        pictures=pictures,
        objects=objects,
        styles=styles,
        clip=clip,
        device=device,
        dtype=dtype,
        variant=variant,
    )
    answer({"chain": project, "regime": regime, "model": model})
    say(f"{project}: a {regime} chain on {model}")
    say(f"  erase with: unlearnkit chain add {quoted(project)} --concept ...")


@commands.command()
def add(
    project: Folder,
    concept: Annotated[list[str], typer.Option(help="What to erase; several are erased together.")],
    kind: Annotated[
        str | None, typer.Option(help="object or style (default: what the model's hints say, else object).")
    ] = None,
    phrase: Annotated[list[str] | None, typer.Option(help="Another wording of the concept.")] = None,
    instead: Annotated[
        str | None, typer.Option(help="What appears in its place: a word, nothing, or nearest.")
    ] = None,
    keep: Annotated[list[str] | None, typer.Option(help="A concept to retain; may be repeated.")] = None,
    method: Annotated[
        str | None, typer.Option(help="The method (default: the chain's).", autocompletion=complete.methods)
    ] = None,
    set_: Pairs = None,
    guard: GuardPairs = None,
    seed: Seed = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Erase a name even if the model does not seem to know it.")
    ] = False,
    device: Device = None,
) -> None:
    """Erase one more request. A stopped request changes nothing; the same command continues it.

    [bold]unlearnkit chain add project --concept cat[/bold]
    """
    from ..chain.project import open_chain
    from ..known import find, settings_of
    from ..settings import parse_pairs

    chosen = method or open_chain(project).options.method
    settings = parse_pairs(set_ or [], find(chosen))
    guards = parse_pairs(guard or [], settings_of("guards"))

    from ..chain.commands.add import add

    with _stoppable(project, ", ".join(concept)) as tick:
        entry = add(
            project,
            concept,
            kind=kind,
            phrases=phrase or (),
            instead=instead,
            keep=keep or (),
            method=method,
            settings=settings,
            guards=guards,
            force=force,
            seed=seed,
            device=device,
            tick=tick,
        )
    _say_entry(project, entry)


@commands.command()
def undo(
    project: Folder,
    count: Annotated[int, typer.Argument(min=1, help="How many of the last requests.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    device: Device = None,
) -> None:
    """Undo the last requests."""
    known_chain(project)

    from ..chain.commands.undo import undo, undo_plan

    _plan(undo_plan(project, undo=count))
    if not dry_run:
        with _stoppable(project, "") as tick:
            entry = undo(project, count, device=device, tick=tick)
        _say_entry(project, entry)


@commands.command()
def drop(
    project: Folder,
    numbers: Annotated[list[int], typer.Argument(help="Their numbers in status.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    device: Device = None,
) -> None:
    """Undo any requests: exact for merged edits, otherwise later requests are trained again."""
    known_chain(project)

    from ..chain.commands.undo import drop, undo_plan

    _plan(undo_plan(project, drop=numbers))
    if not dry_run:
        with _stoppable(project, "") as tick:
            entry = drop(project, *numbers, device=device, tick=tick)
        _say_entry(project, entry)


@commands.command()
def build(
    project: Folder,
    folder: Annotated[Path, typer.Option("--out", help="A new folder for the pipeline.")],
    device: Device = None,
) -> None:
    """Write the current model as a folder for plain diffusers."""
    known_chain(project)

    from ..chain.commands.build import build

    built = build(project, folder, device=device)
    answer({"chain": project, "folder": built})
    say(str(built))


for _command in (status, verify, log, report, guards):
    commands.command()(_command)


@contextlib.contextmanager
def _stoppable(project: Path, names: str) -> Iterator[Any]:
    """Show progress on stderr; an interrupt prints how to continue."""
    try:
        title = f"erasing {names}; chain: {project}" if names else f"chain: {project}"
        with showing(printable(title)) as tick:
            yield tick
    except KeyboardInterrupt:
        err.print("stopped; the chain is unchanged, and the same command continues", markup=False)
        sys.exit(130)


def _plan(plan: UndoPlan) -> None:
    answer({"plan": plan})
    say(str(plan))


def _say_entry(project: Path, entry: Entry) -> None:
    facts = {"entry": entry.number, "kind": entry.kind, "weights": entry.facts["weights"], "head": entry.hash}
    answer({"chain": project, **facts, "seconds": entry.facts["making"]})
    print_ = f"entry {entry.number}, model {entry.facts['weights'][:12]}, head {entry.hash[:12]}"
    say(f"{print_}; unlearnkit chain status {quoted(project)}")
