"""What a command checks of its input before anything heavy is imported: that what was named is there.

The functions that a command calls check the same again, and more; these make a mistyped name cost no seconds.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import InputError, quoted
from ..io.files import user_path

__all__ = [
    "known_chain",
    "known_device",
    "known_dtype",
    "known_edit",
    "known_folder",
    "known_run",
    "named_folder",
]

DEVICES = ("cpu", "cuda", "mps", "xpu", "hpu", "mtia", "meta", "privateuseone")


def known_run(run: str | Path) -> None:
    """Raise InputError if this is no folder with a finished run."""
    from ..runs.names import RUN, no_run

    if not (user_path(run) / RUN).is_file():
        raise no_run(user_path(run))


def known_folder(run: str | Path) -> None:
    """Raise InputError if there is nothing in this place."""
    from ..runs.names import no_run

    if not user_path(run).exists():
        raise no_run(user_path(run))


def known_chain(project: str | Path) -> None:
    """Raise InputError if this is no chain."""
    from ..chain.ledger import refuse_none

    refuse_none(user_path(project))


def named_folder(name: str) -> Path:
    """The folder. Raises InputError for an empty name, which a shell makes of a variable that is not set."""
    if not name:
        raise InputError("the name of the folder is empty: give one, or . for this folder")
    return Path(name)


def known_edit(path: str | Path) -> Path:
    """The edit's file, also for its run folder. Raises InputError if there is no such file."""
    from ..runs.names import EDIT

    path = user_path(path)
    if not path.exists():
        raise InputError(f"edit {quoted(path)} cannot be read: it does not exist")
    return path / EDIT if (path / EDIT).is_file() else path


def known_device(device: str | None) -> str | None:
    """The device. Raises InputError for a name that no build of PyTorch knows."""
    if device is not None and re.sub(r":\d+$", "", device) not in DEVICES:
        raise InputError(f"device {quoted(device)} cannot be used: use cpu, cuda or cuda:1, or leave it out")
    return device


def known_dtype(dtype: str | None) -> str | None:
    """The dtype. Raises InputError for an unknown one."""
    from ..known import check_name

    if dtype is not None:
        check_name("dtype", dtype)
    return dtype
