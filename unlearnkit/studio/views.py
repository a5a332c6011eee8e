"""What each tab shows: the values of its template. Numbers come from the folder, never from memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .. import known
from ..canvas.world import of_canvas
from ..chain.commands.status import status
from ..errors import InputError, UnlearnError, printable, quoted
from ..io.files import member
from ..model.hints import Hints
from ..model.places import is_canvas
from ..schema import check_unicode, folded
from ..settings import as_typed
from .commands import Form, command_of, hints_for, important, shell
from .files import COMPARISON, exported
from .home import Home
from .verdicts import attacks, checked, evaluations
from .workspace import Run, Workspace, pick

__all__ = ["TABS", "VIEWS", "request_of"]

TABS = {"erase": "Erase", "look": "Look", "check": "Check", "requests": "Requests", "ship": "Ship"}
METHODS = (
    "esd",
    "uce",
    "duge",
    "rgd",
    "doco",
    "sculpting",
    "robust",
)  # first in the list: those of the README
LONGEST = 1000  # characters of a prompt
COLUMNS = 4  # edits side by side
STRONGEST = 1.5


def erase(home: Home, form: Form) -> dict[str, Any]:
    """The form to erase: suggestions, the method's settings with this model's defaults, unfinished runs."""
    workspace = home.workspace()
    model = form.get("model") or next(iter(workspace.models), "")
    hints = hints_for(pick(model, workspace.models, "model"), workspace)
    method = form.get("method") or hints.method
    cls = known.find(method)
    kind = form.get("kind") or ("style" if folded(form.get("concept", "")) in hints.styles else "object")
    own = {**hints.training, **hints.settings(method, kind)}
    first, rest = important(method)
    names = [name for name in dict.fromkeys((*METHODS, *known.methods())) if name != hints.method]
    running = home.jobs.running()
    return {
        "models": list(workspace.models),
        "model": model,
        "objects": hints.objects,
        "styles": hints.styles,
        "methods": [
            ("", f"{hints.method}: {known.find(hints.method).title} (default)"),
            *((name, f"{name}: {known.find(name).title}") for name in names),
        ],
        "method": method,
        "summary": cls.summary,
        "first": first,
        "rest": rest,
        "defaults": {one.name: as_typed(own.get(one.name, one.default)) for one in (*first, *rest)},
        "unfinished": [
            run
            for run in workspace.runs.values()
            if not run.finished and (not running or running.folder != run.name)
        ],
    }


def look(home: Home, form: Form) -> dict[str, Any]:
    """Pictures before and after: the addresses of the pictures, one row for each seed."""
    workspace = home.workspace()
    runs = workspace.finished()
    chosen = [pick(name, runs, "run") for name in dict.fromkeys(form.get("run", "").split("\n")) if name]
    if not chosen and not form.get("model"):
        chosen = [run for run in runs.values() if workspace.knows(run)][:1]
    chosen = chosen[:COLUMNS]
    model = workspace.model_of(chosen[0]) if chosen else form.get("model") or next(iter(workspace.models), "")
    for run in chosen[1:]:
        if workspace.model_of(run) != model:
            raise InputError(
                f"{run.name} and {chosen[0].name} change different models: look at one model's runs"
            )
    hints = hints_for(pick(model, workspace.models, "model"), workspace)
    prompt = form.get("prompt", "").strip() or _first_prompt(chosen, hints)
    shown: dict[str, str] = {"prompt": prompt, "seed": form.get("seed", "0").strip() or "0"}
    shown |= {name: form.get(name, "").strip() for name in ("steps", "guidance")}
    shown |= {"strength": form.get("strength", "1"), "rows": form.get("rows", "2")}
    rows = _number(shown["rows"], "the number of pictures", 1, 8, whole=True)
    seed = _number(shown["seed"], "the seed", 0, 2**63 - 1, whole=True)
    common = {"model": model, "prompt": prompt, "steps": shown["steps"], "guidance": shown["guidance"]}
    request_of({**common, "seed": str(seed), "strength": shown["strength"]}, workspace)
    pictures = [
        [
            {**common, "seed": str(number), **side}
            for side in ({}, *({"run": run.name, "strength": shown["strength"]} for run in chosen))
        ]
        for number in range(int(seed), int(seed + rows))
    ]
    home.drawing.warm()
    return {
        "runs": [*runs.values()],
        "chosen": chosen,
        "model": model,
        "models": list(workspace.models),
        "shown": shown,
        "pictures": pictures,
        "usual": {"steps": hints.steps, "guidance": hints.guidance},
        "covered": not is_canvas(workspace.models[model]),
        "strongest": STRONGEST,
    }


def check(home: Home, form: Form) -> dict[str, Any]:
    """The verdicts of all runs, and one run with its attacks."""
    workspace = home.workspace()
    runs = [*workspace.finished().values()]
    rows = [(run, _evaluated(run)) for run in runs]
    one = pick(form["run"], workspace.finished(), "run") if form.get("run") else (runs[0] if runs else None)
    canvas, evaluated, attacked, wrong = False, [], [], ""
    try:
        if one:
            canvas = bool(one.recipe and of_canvas(one.recipe.model))
            evaluated, attacked = checked(one.path), attacks(one.path)
    except UnlearnError as error:
        wrong = printable(str(error))
    labels = {"Evaluate, the quick way": {"what": "evaluate", "quick": "1"}} if canvas else {}
    labels |= {"Evaluate with every prompt": {"what": "evaluate"}} if canvas else {}
    labels |= {"Attack it": {"what": "attack"}} if canvas or evaluated else {}
    labels |= {"Write the report": {"what": "report"}} if evaluated else {}
    labels |= {"Verify its files": {"what": "verify"}}
    return {
        "rows": rows,
        "one": one,
        "evaluated": evaluated,
        "attacked": attacked,
        "wrong": wrong,
        "reported": bool(one and (one.path / "report.html").is_file()),
        "compared": (workspace.folder / COMPARISON / "compare.html").is_file(),
        "canvas": canvas,
        "comparable": sum(bool(evaluated) for _, evaluated in rows),
        "actions": _actions(workspace, "check", labels, new=not evaluated, run=one.name) if one else [],
        "plane": _plane({run.name: each for run, each_run in rows for each in each_run[:1]}),
    }


def requests(home: Home, form: Form) -> dict[str, Any]:
    """A chain as a time line, with what still holds."""
    workspace = home.workspace()
    name = form.get("chain") or next(iter(workspace.chains), "")
    now, wrong = None, ""
    try:
        now = status(pick(name, workspace.chains, "chain")) if name else None
    except UnlearnError as error:
        if name not in workspace.chains:
            raise
        wrong = printable(str(error))
    model = now.project.options.model if now else ""
    source = next(
        (one for one in workspace.models if one == model or workspace.models[one] == model), "canvas"
    )
    return {
        "chains": list(workspace.chains),
        "chain": name,
        "now": now,
        "wrong": wrong,
        "active": {line.step.number for line in now.lines} if now else set(),
        "models": list(workspace.models),
        "methods": list(known.methods()),
        "hints": hints_for(workspace.models.get(source, "canvas"), workspace),
        "reported": bool(name and (workspace.chains[name] / "report.html").is_file()),
        "actions": _actions(
            workspace,
            "requests",
            {"Verify": {"what": "chain-verify"}, "Write the report": {"what": "chain-report"}},
            chain=name,
        )
        if name
        else [],
    }


def ship(home: Home, form: Form) -> dict[str, Any]:
    """What a run can be shipped as, and what has been exported already."""
    workspace = home.workspace()
    runs = [*workspace.finished().values()]
    one = pick(form["run"], workspace.finished(), "run") if form.get("run") else (runs[0] if runs else None)
    files = [
        {"name": name, "bytes": _bytes(path), **exported(path)} for name, path in workspace.files.items()
    ]
    return {
        "one": one,
        "options": [(run.name, f"{run.name}: without {run.concepts}") for run in runs],
        "model": one.recipe.model if one and one.recipe else "",
        "into": [(one["name"], f"a copy of {one['name']}") for one in files if not one["ours"]],
        "edit": _bytes(one.path / "edit.safetensors") if one else 0,
        "pipeline": _bytes(one.path / "pipeline") if one else 0,
        "files": files,
    }


VIEWS: Mapping[str, Callable[[Any, Form], dict[str, Any]]] = {
    "erase": erase,
    "look": look,
    "check": check,
    "requests": requests,
    "ship": ship,
}


def request_of(form: Form, workspace: Workspace) -> dict[str, Any]:
    """What the process that draws is asked for. Raises InputError for a field that it cannot take."""
    prompt = form.get("prompt", "").strip()
    check_unicode(prompt)
    if not prompt or len(prompt) > LONGEST:
        raise InputError(f"the prompt has {len(prompt)} characters: give 1 to {LONGEST}")
    run = pick(form["run"], workspace.finished(), "run") if form.get("run") else None
    model = workspace.model_of(run) if run else form.get("model", "")
    steps, guidance = form.get("steps", "").strip(), form.get("guidance", "").strip()
    strength = _number(form.get("strength", "1"), "the strength", 0, STRONGEST)
    return {
        "model": pick(model, workspace.models, "model"),
        "variant": run.recipe.variant if run and run.recipe else None,
        "edit": str(member(run.path, "edit.safetensors")) if run else None,
        "strength": strength if run else 1.0,
        "prompt": prompt,
        "seed": int(_number(form.get("seed", "0"), "the seed", 0, 2**63 - 1, whole=True)),
        "steps": int(_number(steps, "steps", 1, 1000, whole=True)) if steps else None,
        "guidance": _number(guidance, "guidance", 0, 1000) if guidance else None,
    }


def _first_prompt(chosen: list[Run], hints: Hints) -> str:
    """A prompt that asks for what the first run erased."""
    recipe = chosen[0].recipe if chosen else None
    name, kind = (recipe.request.erase[0].name, recipe.request.erase[0].kind) if recipe else ("cat", "object")
    return hints.templates[kind][0].format(name)


def _actions(
    workspace: Workspace,
    tab: str,
    labels: Mapping[str, Mapping[str, str]],
    *,
    new: bool = False,
    **common: str,
) -> list[dict[str, Any]]:
    """Buttons that each start a command."""
    return [
        {
            "label": label,
            "fields": {**fields, **common, "tab": tab},
            "command": shell(command_of(fields["what"], {**fields, **common}, workspace)[1]),
            "first": number == 0 and fields["what"] == "evaluate" and new,
        }
        for number, (label, fields) in enumerate(labels.items())
    ]


def _plane(named: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Runs as points (x, y) of a drawing 100 wide and high; ``low`` is the share at its lower left corner."""
    points = {name: one["point"] for name, one in named.items() if one["point"]}
    low = min(0.9, math.floor(10 * min((min(point) for point in points.values()), default=0.9)) / 10)
    scaled = {name: [100 * (share - low) / (1 - low) for share in point] for name, point in points.items()}
    return {"low": low, "points": [(name, x, 100 - y) for name, (x, y) in scaled.items()]}


def _evaluated(run: Run) -> list[dict[str, Any]]:
    try:
        return evaluations(run.path)
    except UnlearnError:
        return []  # said where the run is shown


def _number(text: str, what: str, low: float, high: float, *, whole: bool = False) -> Any:
    try:
        number: Any = int(text) if whole else float(text)
    except ValueError:
        number = math.nan
    if not low <= number <= high or len(text) > 20:
        raise InputError(f"{what} is {quoted(text)}: use {'a whole number, ' * whole}{low:g} to {high:g}")
    return number


def _bytes(path: Path) -> int:
    """The size of a file or a folder; 0 if it is not there."""
    if path.is_symlink() or not path.exists():
        return 0
    if path.is_dir():
        return sum(_bytes(one) for one in path.iterdir())
    return path.stat().st_size
