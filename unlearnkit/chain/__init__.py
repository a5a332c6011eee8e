"""Requests one after another, with a ledger, undo, and an evaluation of all of them after each.

    from unlearnkit import chain
    chain.init("project", "canvas")
    chain.add("project", "cat")
    chain.add("project", "dog")
    chain.drop("project", 1)
    chain.build("project", "without-dog")

Names are imported when they are first used, so the status of a chain needs no model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..io.lazy import lazily

if TYPE_CHECKING:
    from .commands.add import add
    from .commands.add_each import add_each
    from .commands.attack import attack
    from .commands.build import build, edit
    from .commands.init import init
    from .commands.report import report
    from .commands.status import log, status
    from .commands.undo import drop, undo, undo_plan
    from .commands.verify import verify
    from .guards import Guards
    from .merging import Merge

__all__ = [
    "Guards",
    "Merge",
    "add",
    "add_each",
    "attack",
    "build",
    "drop",
    "edit",
    "init",
    "log",
    "report",
    "status",
    "undo",
    "undo_plan",
    "verify",
]

_HOME = {
    "Guards": "guards",
    "Merge": "merging",
    "add": "commands.add",
    "add_each": "commands.add_each",
    "attack": "commands.attack",
    "build": "commands.build",
    "drop": "commands.undo",
    "edit": "commands.build",
    "init": "commands.init",
    "log": "commands.status",
    "report": "commands.report",
    "status": "commands.status",
    "undo": "commands.undo",
    "undo_plan": "commands.undo",
    "verify": "commands.verify",
}


__getattr__ = lazily(__name__, _HOME)
