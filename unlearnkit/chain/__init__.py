"""Requests one after another, with a ledger, undo, and a look at all of them after each.

    from unlearnkit import chain
    chain.init("project", "canvas")
    chain.add("project", "cat")
    chain.add("project", "dog")
    chain.drop("project", 1)
    chain.build("project", "without-dog")

Names are imported when they are first used, so that asking for the status of a chain loads no model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..io.lazy import lazily

if TYPE_CHECKING:
    from .building import build, edit
    from .checking import verify
    from .guards import Guards
    from .history import report
    from .merging import Merge
    from .standing import log, status
    from .steps import add, init
    from .taking import back, drop, undo

__all__ = [
    "Guards",
    "Merge",
    "add",
    "back",
    "build",
    "drop",
    "edit",
    "init",
    "log",
    "report",
    "status",
    "undo",
    "verify",
]

_HOME = {
    "Guards": "guards",
    "Merge": "merging",
    "add": "steps",
    "back": "taking",
    "build": "building",
    "drop": "taking",
    "edit": "building",
    "init": "steps",
    "log": "standing",
    "report": "history",
    "status": "standing",
    "undo": "taking",
    "verify": "checking",
}


__getattr__ = lazily(__name__, _HOME)
