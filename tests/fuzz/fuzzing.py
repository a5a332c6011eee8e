"""What the fuzzer gives to the command line, and what must hold of every answer.

Each reader has a strategy, which makes something odd, and a function that gives it to a command in a box: a new folder
with nothing else in it than a file of the user's own. Whatever came, the command ends with 0, 2 or 130; with 2 it says
why in one line; no traceback; what was in the box is still there, bit for bit; nothing new is outside of the folder
that the command was given to write in.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import logging
import re
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import saved
from unlearnkit.cli import main
from unlearnkit.evaluation.folders import FACTS
from unlearnkit.evaluation.record import write_facts

COUNTS: Counter[str] = Counter()
LINE = 1001  # characters of the line that says what is wrong
PROGRESS = re.compile(r"note: |erasing |evaluating |chain: |.* \d+ of \d+(, about .* left)?$")
LOCKS = (".lock", "lock")


@dataclasses.dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


def command(*words: object) -> Ended:
    """What a command says and how it ends; any exception but the end of the process is a fault."""
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with (
        logged(err),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(action="ignore"),
    ):
        try:
            main([str(word) for word in words])
        except SystemExit as stopped:
            code = stopped.code or 0
    return Ended(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def logged(file: io.StringIO) -> Iterator[None]:
    """What other libraries log goes to ``file`` too: they write to the stderr that they found when first imported."""
    handler = logging.StreamHandler(file)
    libraries = [logging.getLogger(name) for name in ("diffusers", "transformers", "huggingface_hub")]
    for one in libraries:
        one.addHandler(handler)
    try:
        yield
    finally:
        for one in libraries:
            one.removeHandler(handler)


def held(*words: object, may_write: tuple[str, ...] = ()) -> Ended:
    """Run a command in the working folder, which is a box, and check all that must hold of it."""
    before = contents(Path())
    ended = command(*words)
    assert ended.code in (0, 2, 130), ended
    assert "Traceback" not in ended.err and "Traceback" not in ended.out, ended
    if ended.code == 2 and not ended.out:
        *earlier, last = ended.err.splitlines() or [""]
        assert last.strip() and len(last) <= LINE, ended
        assert all(PROGRESS.match(line) for line in earlier), ended
    said = (ended.out + ended.err).replace("\n", "")
    assert all(one.isprintable() for one in said), ended
    for path, print_ in contents(Path()).items():
        own = path.parts[0] in may_write
        assert own or before.get(path) == print_ or path.name in LOCKS, f"{path} was written: {ended}"
        before.pop(path, None)
    assert not [path for path in before if path.parts[0] not in may_write], f"{before} is lost: {ended}"
    return ended


def contents(folder: Path) -> dict[Path, str]:
    """The sha256 of every file below."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@contextlib.contextmanager
def box() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="unlearnkit-fuzz-") as place, contextlib.chdir(place):
        Path("mine.txt").write_text("years of work")
        yield Path(place)


# what is given, made once


@functools.cache
def hollow() -> Path:
    """A model folder without weights: all that is read before these is read."""
    made = Path(tempfile.mkdtemp(prefix="unlearnkit-hollow-")) / "model"
    shutil.copytree(saved.folder(), made, ignore=shutil.ignore_patterns("*.safetensors"))
    return made


@functools.cache
def edited() -> Path:
    """A finished run without pictures; read-only."""
    made = Path(tempfile.mkdtemp(prefix="unlearnkit-edited-"))
    words = ["erase", saved.folder(), "--concept", "cat", "--method", "uce", "--pictures", "0"]
    assert command(*words, "--no-pipeline", "--out", made / "run").code == 0
    return made / "run"


@functools.cache
def chained() -> Path:
    """A chain of three requests that was not looked at; read-only."""
    made = Path(tempfile.mkdtemp(prefix="unlearnkit-chained-")) / "chain"
    assert command("chain", "init", made, saved.folder(), "--method", "uce", "--pictures", "0").code == 0
    for concept in ("cat", "dog", "car"):
        assert command("chain", "add", made, "--concept", concept).code == 0
    return made


@functools.cache
def evaluated() -> Path:
    """A finished run with its pipeline, an evaluation of a few prompts, and a report; read-only."""
    run = saved.evaluated(Path(tempfile.mkdtemp(prefix="unlearnkit-evaluated-")))
    assert command("report", run).code == 0
    return run


def sealed_again(folder: Path) -> None:
    """New hashes for the files of an evaluation, as somebody would write them who changes figures by hand."""
    facts = json.loads((folder / FACTS).read_text())
    (folder / FACTS).write_text(
        write_facts(folder, {name: facts[name] for name in facts.keys() - {"sha256"}})
    )
