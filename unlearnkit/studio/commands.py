"""From a form of the page to the words of a command. The page shows the same command, to be copied."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any

from ..chain.project import open_chain
from ..errors import InputError, quoted
from ..io.files import folder_name
from ..known import find
from ..model.hints import Hints
from ..model.places import hints_of
from ..runs.recipes import SHIPPED
from ..schema import LONGEST, Concept, check_unicode
from ..settings import Setting, describe, parse_pairs
from .workspace import Run, Workspace, pick

__all__ = ["Form", "command_of", "hints_for", "important", "shell"]

Form = Mapping[str, str]
Words = list[str]

FIRST = (  # the settings that are not folded, as far as a method has them
    *("steps", "lr", "trains", "stop", "erase_weight", "retain_weight", "neighbours"),
    *("threshold", "slope", "most", "safe"),
)
SHOWN = 5
PIECES = 40  # names in one field


def command_of(what: str, form: Form, workspace: Workspace) -> tuple[str, Words]:
    """A title, and the words after ``unlearnkit``. Raises InputError for a form that is incomplete or odd."""
    return pick(what, COMMANDS, "action")(form, workspace)


def shell(words: Words) -> str:
    """The command as a line for a shell."""
    return shlex.join(["unlearnkit", *words])


def hints_for(source: str, workspace: Workspace) -> Hints:
    """The hints of a model of the studio."""
    place = workspace.folder / source
    return hints_of(place if source not in SHIPPED and place.is_dir() else source)


def important(method: str) -> tuple[list[Setting], list[Setting]]:
    """The method's settings: the few that a page shows at once, and the rest."""
    every = {one.name: one for one in describe(find(method))}
    first = [every[name] for name in FIRST if name in every][:SHOWN]
    return first, [one for one in every.values() if one not in first]


def _erase(form: Form, workspace: Workspace) -> tuple[str, Words]:
    model = pick(form.get("model", ""), workspace.models, "model")
    concept, rest = _concept(form, form.get("method") or hints_for(model, workspace).method)
    words = ["erase", model, *rest]
    if name := _text(form, "name"):
        words += ["--out", f"runs/{folder_name(name)}"]
    if (pictures := _text(form, "pictures")) not in ("", "3"):
        words += ["--pictures", _whole(pictures, "the number of pictures")]
    if not form.get("pipeline"):
        words += ["--no-pipeline"]
    return f"erase {concept}", words


def _dry(form: Form, workspace: Workspace) -> tuple[str, Words]:
    title, words = _erase(form, workspace)
    return f"what it takes to {title}", [*words, "--dry-run"]


def _concept(form: Form, method: str) -> tuple[str, Words]:
    """What is erased, and how: the options that ``erase`` and ``chain add`` share. method: if none is chosen."""
    name = _text(form, "concept")
    if not name:
        raise InputError("the concept is missing: name what to erase, for example cat")
    Concept(name, instead=_text(form, "instead") or None)
    words = _option("concept", name)
    for option in ("kind", "instead"):
        if value := _text(form, option):
            words += _option(option, value)
    for option in ("phrase", "keep"):
        for value in _pieces(form, option):
            words += _option(option, value)
    if form.get("method"):
        words += ["--method", method]
    pairs = [f"{key[4:]}={form[key].strip()}" for key in form if key.startswith("set-") and form[key].strip()]
    parse_pairs(pairs, find(method))
    for pair in pairs:
        words += ["--set", _line(pair, "the setting")]
    if (seed := _text(form, "seed")) not in ("", "0"):
        words += ["--seed", _whole(seed, "the seed")]
    if form.get("force"):
        words += ["--force"]
    return name, words


def _resume(form: Form, workspace: Workspace) -> tuple[str, Words]:
    run = pick(form.get("run", ""), workspace.runs, "run")
    less = [] if form.get("pipeline") else ["--no-pipeline"]
    return f"resume {run.name}", ["erase", "--resume", *less, "--out", run.name]


def _evaluate(form: Form, workspace: Workspace) -> tuple[str, Words]:
    run = _finished(form, workspace)
    words = ["evaluate", run.name, *(["--quick"] if form.get("quick") else [])]
    return f"evaluate {run.name}", words


def _attack(form: Form, workspace: Workspace) -> tuple[str, Words]:
    run = _finished(form, workspace)
    return f"attack {run.name}", ["attack", run.name]


def _report(form: Form, workspace: Workspace) -> tuple[str, Words]:
    run = _finished(form, workspace)
    return f"report on {run.name}", ["report", run.name]


def _verify(form: Form, workspace: Workspace) -> tuple[str, Words]:
    run = _finished(form, workspace)
    return f"verify {run.name}", ["verify", run.name]


def _compare(form: Form, workspace: Workspace) -> tuple[str, Words]:
    chosen = form.get("runs", "").split("\n")
    names = [pick(name, workspace.runs, "run").name for name in dict.fromkeys(chosen) if name]
    if len(names) < 2:
        raise InputError("choose two runs or more to compare")
    return f"compare {len(names)} runs", ["compare", *names]


def _export(form: Form, workspace: Workspace) -> tuple[str, Words]:
    run = _finished(form, workspace)
    file = f"{folder_name(_text(form, 'name') or f'without {run.concepts}')}.safetensors"
    words = ["export", run.name, "--out", file]
    if into := form.get("into"):
        words += ["--into", pick(into, {name: name for name in workspace.files}, "file")]
    if (lose := _text(form, "lose")) not in ("", "0.01"):
        words += ["--lose", _number(lose, "the share that may be lost")]
    return f"export {run.name}", words


def _init(form: Form, workspace: Workspace) -> tuple[str, Words]:
    name = folder_name(_text(form, "name") or "project")
    words = ["chain", "init", name, pick(form.get("model", ""), workspace.models, "model")]
    if form.get("regime"):
        words += ["--regime", _line(form["regime"], "the regime")]
    if form.get("method"):
        words += ["--method", find(form["method"]).name]
    return f"new chain {name}", words


def _add(form: Form, workspace: Workspace) -> tuple[str, Words]:
    chain = _chain(form, workspace)
    concept, words = _concept(form, form.get("method") or open_chain(workspace.chains[chain]).options.method)
    return f"erase {concept} in {chain}", ["chain", "add", chain, *words]


def _drop(form: Form, workspace: Workspace) -> tuple[str, Words]:
    chain, number = _chain(form, workspace), _whole(form.get("number", ""), "the request's number")
    dry = ["--dry-run"] if form.get("dry") else []
    return f"take request {number} of {chain} back", ["chain", "drop", chain, number, *dry]


def _on_chain(command: str) -> Callable[[Form, Workspace], tuple[str, Words]]:
    def words(form: Form, workspace: Workspace) -> tuple[str, Words]:
        chain = _chain(form, workspace)
        return f"{command} {chain}", ["chain", command, chain]

    return words


COMMANDS: dict[str, Callable[[Form, Workspace], tuple[str, Words]]] = {
    "erase": _erase,
    "dry": _dry,
    "resume": _resume,
    "evaluate": _evaluate,
    "attack": _attack,
    "report": _report,
    "verify": _verify,
    "compare": _compare,
    "export": _export,
    "chain-init": _init,
    "chain-add": _add,
    "chain-drop": _drop,
    "chain-status": _on_chain("status"),
    "chain-verify": _on_chain("verify"),
    "chain-report": _on_chain("report"),
}


def _finished(form: Form, workspace: Workspace) -> Run:
    run = pick(form.get("run", ""), workspace.runs, "run")
    if not run.finished:
        raise InputError(f"{run.name} is not finished: resume it first")
    return run


def _chain(form: Form, workspace: Workspace) -> str:
    pick(form.get("chain", ""), workspace.chains, "chain")
    return form["chain"]


def _option(name: str, value: str) -> Words:
    """An option with its value, which may begin with a dash."""
    return [f"--{name}={value}"] if value.startswith("-") else [f"--{name}", value]


def _pieces(form: Form, name: str) -> list[str]:
    pieces = [piece.strip() for piece in _text(form, name, longest=PIECES * LONGEST).split(",")]
    if len(pieces) > PIECES:
        raise InputError(f"{name} has {len(pieces)} names: give at most {PIECES}")
    return [piece for piece in pieces if piece]


def _text(form: Form, name: str, longest: int = LONGEST) -> str:
    return _line(form.get(name, "").strip(), name, longest)


def _line(text: str, what: str, longest: int = 4096) -> str:
    if len(text) > longest:
        raise InputError(f"{what} has {len(text)} characters: give at most {longest}")
    check_unicode(text)
    if "\0" in text or "\n" in text:
        raise InputError(f"{what} {quoted(text)} has a character that no command takes")
    return text


def _whole(text: str, what: str) -> str:
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise InputError(f"{what} {quoted(text)} is no whole number")
    return text


def _number(text: str, what: str) -> str:
    try:
        number: Any = float(text)
    except ValueError:
        raise InputError(f"{what} {quoted(text)} is no number") from None
    return f"{number:g}"
