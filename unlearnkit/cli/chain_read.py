"""The commands of ``unlearnkit chain`` that read: status, verify, log, report, guards."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ..errors import printable
from ..errors import quoted as cut
from . import complete
from .chain_words import cells, facts_of, in_words, rate_of
from .checks import known_chain, named_folder
from .output import answer, of_settings
from .terminal import Device, out, say, showing

__all__ = ["Folder", "guards", "log", "report", "status", "verify"]

Folder = Annotated[
    Path,
    typer.Argument(
        metavar="PROJECT",
        help="The folder of the chain.",
        parser=named_folder,
        autocompletion=complete.chains,
    ),
]

HEADS = ("request", "erased", "method", "when", "seconds", "before", "then", "now", "")
FOLDED = ("erased", "when")  # their cells may take several lines


def status(project: Folder) -> None:
    """Show what is erased, what it cost, and whether earlier erasures last. Reads only the ledger."""
    from ..chain.commands.status import status

    now = status(project)
    options = now.project.options
    answer(
        {
            "chain": project,
            "regime": options.regime,
            "model": options.model,
            "base": options.base,
            **{
                name: getattr(now, name)
                for name in ("kept", "kid", "displaced", "drift", "edits", "bytes", "seconds", "head")
            },
            "requests": [facts_of(line) for line in now.lines],
        }
    )
    say(f"{project}: {options.regime} chain on {options.model}, {options.base[:12]}")
    if not now.lines:
        say("no request")
    else:
        table = Table(box=None)
        for head in HEADS:
            table.add_column(head, no_wrap=head not in FOLDED, overflow="fold")
        for line in now.lines:
            table.add_row(*map(printable, cells(line)))
        out.print(table)
        if not all(line.verdict for line in now.lines):
            say("-: not evaluated")
    for name, place in now.displaced.items():
        say(
            f"{cut(name)} shows {cut(place)}, which is erased too: drop the request that erased {cut(name)}, and "
            "add it again with another --instead"
        )
    for group, rates in now.kept.items():
        say(f"{group:<18} right in {rate_of(rates.after)}, before {rate_of(rates.before)}")
    kid = "" if now.kid is None else f", KID to the base model {now.kid:.4g}"
    say(f"{'drift':<18} {now.drift:.3%} of the norm of the network's weights{kid}")
    say(
        f"{'cost':<18} {now.edits} edit{'s' * (now.edits != 1)}, {now.bytes / 1e6:.1f} MB, {now.seconds:.0f} s"
    )
    say(f"{'head':<18} {now.head}")


def verify(
    project: Folder,
    head: Annotated[str | None, typer.Option(help="The hash with which the ledger must end.")] = None,
    share: Annotated[
        str | None, typer.Option("--redraw", help="Build the model and draw this share of pictures again.")
    ] = None,
    device: Device = None,
) -> None:
    """Check ledger, edits and evaluations against their hashes; exit code 2 if anything differs."""
    known_chain(project)

    from ..chain.commands.verify import verify
    from .evaluate import share_of

    with showing() as tick:
        redraw = 0.0 if share is None else share_of(share)
        wrong = verify(project, head=head, redraw=redraw, device=device, tick=tick)
    answer({"chain": project, "changed": wrong})
    for line in wrong:
        say(f"changed: {line}")
    if wrong:
        sys.exit(2)
    say(f"{project}: nothing was changed")


def log(project: Folder) -> None:
    """List the ledger's entries, one line each."""
    from ..chain.commands.status import log

    entries = log(project)
    answer({"chain": project, "entries": entries})
    for entry in entries:
        what, facts = in_words(entry), entry.facts
        say(f"{entry.number:>4}  {facts['time']}  {entry.kind:<4}  {what}  {entry.hash[:12]}")


def report(project: Folder) -> None:
    """Write report.html, one file: what was erased when, what eroded, and pictures."""
    known_chain(project)

    from ..chain.commands.report import report

    page = report(project)
    answer({"page": page, "figures": page.with_suffix(".json")})
    say(str(page))


def guards() -> None:
    """List the settings of --guard and --merge: default, range, meaning, source."""
    from rich.markup import escape

    from ..known import settings_of
    from ..settings import as_typed, describe

    answer({name: of_settings(describe(settings_of(name))) for name in ("guards", "merge")})
    for option, name in (("--guard", "guards"), ("--merge", "merge")):
        for one in describe(settings_of(name)):
            out.print(f"[bold]{option} {one.name}[/bold]={escape(as_typed(one.default))}", markup=True)
            out.print(f"    {escape(f'{one.doc}: {one.allowed} (source: {one.source})')}", markup=True)
