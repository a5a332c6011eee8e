"""The commands of ``unlearnkit chain``: one request after another."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError, listed, nearest, printable
from ..errors import quoted as cut
from . import complete
from .chain_read import Folder, guards, log, report, status, verify
from .checks import known_chain
from .output import answer
from .request import NAMES, several_of
from .terminal import Device, Dtype, Seed, Variant, err, known_model, quoted, say, showing

if TYPE_CHECKING:
    from ..chain.commands.undo import UndoPlan
    from ..chain.ledger import Entry
    from ..schema import Concept

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
    concept: Annotated[
        list[str] | None, typer.Option(help="What to erase; several are erased together.")
    ] = None,
    concepts: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Names to erase, in a file as 'unlearnkit erase' takes."),
    ] = None,
    each: Annotated[
        bool,
        typer.Option("--each", help="A request of its own for each concept, in order, not one for all."),
    ] = False,
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

    own = open_chain(project).options
    options: dict[str, Any] = {
        "settings": parse_pairs(set_ or [], find(method or own.method)),
        "guards": parse_pairs(guard or [], settings_of("guards")),
        "keep": keep or (),
        **{"method": method, "force": force, "seed": seed, "device": device},
    }
    several = several_of(own.model, concept, concepts, kind, phrase, instead)
    every = dict.fromkeys(one if isinstance(one, str) else one.name for one in several)
    names = listed(every, longest=NAMES)
    single: dict[str, Any] = {"kind": kind, "phrases": phrase or (), "instead": instead}
    if each:
        _add_each(project, several, single, names, options)
        return

    from ..chain.commands.add import add

    with _stoppable(project, names) as tick:
        entry = add(project, several, **single, **options, tick=tick)
    _say_entry(project, entry)


def _add_each(
    project: Path, several: list[str | Concept], single: dict[str, Any], names: str, options: dict[str, Any]
) -> None:
    from ..chain.commands.add_each import add_each
    from ..chain.project import open_chain
    from ..model.places import hints_of
    from ..runs.requests import request_for

    request = request_for(several, **single, known=hints_of(open_chain(project).options.model))
    with _stoppable(project, names) as tick:
        entries = add_each(
            project, request.erase, **options, tick=tick, done=lambda one: _say_entry(project, one)
        )
    left = len(request.erase) - len(entries)
    answer({"chain": project, "entries": [_facts(one) for one in entries], "passed_over": left})
    if left:
        say(f"{left} of {len(request.erase)} were erased already and passed over")


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


def _facts(entry: Entry) -> dict[str, Any]:
    facts = {"entry": entry.number, "kind": entry.kind, "weights": entry.facts["weights"], "head": entry.hash}
    made = entry.facts.get("remade", [entry.facts])
    places = {name: place for one in made for name, place in one.get("instead", {}).items()}
    return {**facts, "seconds": entry.facts["making"], "instead": places}


def _say_entry(project: Path, entry: Entry) -> None:
    from ..chain.places import replaced
    from ..chain.project import open_chain

    answer({"chain": project, **_facts(entry)})
    for name, places in replaced(open_chain(project)).items():
        was, now = (cut(place) if place else "nothing" for place in places)
        say(f"{cut(name)}: {now} takes its place now, no longer {was}")
    print_ = f"entry {entry.number}, model {entry.facts['weights'][:12]}, head {entry.hash[:12]}"
    say(f"{print_}; see unlearnkit chain status {quoted(project)}")
