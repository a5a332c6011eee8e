"""What an edit did, always beside the untouched model: cases, pictures, rows, figures, verdict.

An evaluation is a folder, ``RUN/evaluation``, written in this order:

    plan.json            suite, seeds, instruments, thresholds, hashes of both models: fixed before a picture is drawn
    cases.jsonl          one line a case: prompt, seed, role, what a right picture shows
    pictures/SIDE/       one PNG a case, ``before`` and ``after`` with the same prompts and seeds
    rows.jsonl           one line a score: everything below is computed from these
    features.safetensors the features behind the distances, cases x d
    tables.json          every figure, and the verdict
    evaluation.json      hashes of all of the above, versions, seconds: its presence says that it is finished

A killed evaluation goes on where it stopped. Under ``accelerate launch`` its processes share the drawing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import __version__, claims, suites
from .claims import Rules
from .draw import Side, draw, model_side, picture_hash, read
from .errors import EditError, InputError
from .files import whole, write_text, writing
from .metrics.pixels import change, spoilt
from .schema import Case, Request, Score
from .tables import BEFORE, tables

if TYPE_CHECKING:
    from .metrics.instruments import Instruments

__all__ = ["FOLDER", "evaluate", "evaluate_run", "file_hash", "plan_for", "stored"]

FOLDER, AFTER, NEVER_KNEW = "evaluation", "after", "never-knew"
LOOK = 256  # pictures that are looked at together
Tick = Callable[[str, int, int], None]


def evaluate_run(
    run: str | Path,
    *,
    suite: str = "canvas",
    file: str | Path | None = None,
    replicates: int = 1,
    rules: Rules | None = None,
    instruments: Instruments | None = None,
    batch: int = 32,
    device: str | None = None,
    dtype: str | None = None,
    tick: Tick | None = None,
) -> dict[str, Any]:
    """Evaluate a finished run, into ``RUN/evaluation``, and return the verdict.

    suite, file, replicates: what is asked, see ``suites``. rules: the thresholds, ``Rules()`` unless told.
    instruments: what looks; for the suite ``canvas`` the canvas's own. batch: pictures drawn at once.
    Raises InputError for a folder that holds no finished run or another evaluation, and what the suite refuses.
    """
    from .edit import Edit
    from .model import load
    from .settings import load_recipe

    run = Path(run)
    if not (run / "run.json").is_file():
        raise InputError(f"{str(run)!r} is no finished run: make one with unlearnkit erase")
    recipe = load_recipe(run / "recipe.toml")
    cases, left_out = suites.cases(suite, recipe.request, replicates=replicates, file=file)
    edit = Edit.load(run / "edit.safetensors")
    if instruments is None:
        from .metrics import instruments as known

        if suite != "canvas":
            raise InputError(f"suite {suite!r} needs instruments: name a classifier, a CLIP, or both")
        instruments = known.canvas()
    device = _device(device)
    model = load(recipe.model, device=device, dtype=dtype)
    if edit.facts.get("base") not in (None, model.fingerprint()):
        raise EditError(f"the edit of {str(run)!r} was made from another model than {recipe.model!r} is now")
    sides = [model_side(BEFORE, model, batch=batch), model_side(AFTER, model, edit=edit, batch=batch)]
    missing = _missing(recipe.request) if suite == "canvas" else {}
    if missing:
        from .canvas.check import never_knew

        sides.append(model_side(NEVER_KNEW, never_knew(device=device, dtype=dtype), batch=batch))
    plan = plan_for(
        suite, recipe.request, cases, left_out, sides, instruments, rules or Rules(), missing=missing
    )
    plan |= {"model": recipe.model, "method": recipe.method, "seed": recipe.seed, "edit": edit.hash()}
    return evaluate(run / FOLDER, cases, sides, plan, instruments, batch=batch, tick=tick)


def plan_for(
    suite: str,
    request: Request,
    cases: Sequence[Case],
    left_out: Sequence[str],
    sides: Sequence[Side],
    instruments: Instruments,
    rules: Rules,
    *,
    missing: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """All that is decided before anything is drawn. missing: what the reference model never knew, by kind."""
    chosen = suites.find(suite)
    return {
        "format": 1,
        "unlearnkit": __version__,
        "suite": {"name": suite, "version": chosen.version},
        "request": json.loads(json.dumps(dataclasses.asdict(request))),
        "concepts": [
            {"name": chosen.known(one), "asked": one.name, "kind": one.kind} for one in request.erase
        ],
        "primary": "share of pictures of direct prompts on which the erased concept is seen after the edit",
        "seeds": "sha256 of suite version, suite, prompt and replicate, unless the suite fixes them",
        "rules": dataclasses.asdict(rules),
        "instruments": instruments.names,
        "sides": {side.name: side.identity for side in sides},
        "weights_changed": next(side.weights for side in sides if side.name == AFTER),
        "reference": {"side": NEVER_KNEW, "missing": {k: list(v) for k, v in missing.items()}}
        if missing
        else None,
        "cases": {"count": len(cases), "sha256": hashlib.sha256(_lines(cases).encode()).hexdigest()},
        "left_out": list(left_out),
    }


def evaluate(
    folder: Path,
    cases: Sequence[Case],
    sides: Sequence[Side],
    plan: Mapping[str, Any],
    instruments: Instruments,
    *,
    batch: int = 32,
    tick: Tick | None = None,
) -> dict[str, Any]:
    """Draw, look, count and judge into ``folder``; the first side is ``before``. Returns the verdict.

    Raises InputError where ``folder`` holds an evaluation with another plan.
    """
    index, count, wait = _processes()
    begun = time.monotonic()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if index == 0:
            _same_plan(folder, plan)
            if (folder / "evaluation.json").exists() and count == 1:
                return dict(json.loads((folder / "tables.json").read_text(encoding="utf-8"))["verdict"])
            write_text(folder / "plan.json", json.dumps(plan, indent=1, ensure_ascii=False) + "\n")
            write_text(folder / "cases.jsonl", _lines(cases))
        wait()
        drawn = {}
        for side in sides:
            ticks = None if tick is None else _stage(tick, f"drawing {side.name}")
            drawn[side.name] = draw(
                cases, side, folder / "pictures" / side.name, batch=batch, process=(index, count), tick=ticks
            )
        wait()
        if index:
            return {}
        scores, features = _look(folder, cases, sides, plan, instruments, tick)
        with whole(folder / "rows.jsonl") as partial:
            partial.write_text(_lines(scores), encoding="utf-8")
        _write_features(folder, features)
        found = tables(plan, cases, scores, features)
        judged = claims.verdict(plan, found)
        text = json.dumps({"verdict": judged, "tables": found}, indent=1, ensure_ascii=False)
        write_text(folder / "tables.json", text + "\n")
        facts = {
            "sha256": {name: file_hash(folder / name) for name in _HASHED if (folder / name).exists()},
            "drawn": drawn,
            "processes": count,
            "seconds": round(time.monotonic() - begun, 1),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "versions": {"unlearnkit": __version__, "python": platform.python_version()}
            | {name: version(name) for name in ("torch", "diffusers", "transformers", "numpy", "pillow")},
        }
        write_text(folder / "evaluation.json", json.dumps(facts, indent=1) + "\n")
    return judged


_HASHED = ("plan.json", "cases.jsonl", "rows.jsonl", "features.safetensors", "tables.json")


def stored(folder: Path) -> tuple[dict[str, Any], list[Case], list[Score], dict[str, Any]]:
    """Plan, cases, scores and features of a finished evaluation. Raises InputError where they cannot be read."""
    if not (folder / "evaluation.json").is_file():
        raise InputError(f"{str(folder)!r} is no finished evaluation: make one with unlearnkit evaluate")
    try:
        plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
        cases = [Case(**row) for row in _rows(folder / "cases.jsonl")]
        scores = [Score(**row) for row in _rows(folder / "rows.jsonl")]
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{str(folder)!r} is damaged: {' '.join(str(error).split())}") from None
    name, at = plan["suite"]["name"], plan["suite"]["version"]
    if name in suites.SUITES and at > suites.find(name).version:
        raise InputError(
            f"{str(folder)!r} was made with version {at} of suite {name!r}: use a newer unlearnkit"
        )
    features = {}
    if (folder / "features.safetensors").exists():
        from . import tensors

        features = {k: v.numpy() for k, v in tensors.read(folder / "features.safetensors")[0].items()}
    return plan, cases, scores, features


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _look(
    folder: Path,
    cases: Sequence[Case],
    sides: Sequence[Side],
    plan: Mapping[str, Any],
    instruments: Instruments,
    tick: Tick | None,
) -> tuple[list[Score], dict[str, Any]]:
    """Every score of every picture, and the features (cases, d) of every side."""
    suite = f"{plan['suite']['name']}@{plan['suite']['version']}"
    scores: list[Score] = []
    features: dict[str, list[Any]] = {}
    for start in range(0, len(cases), LOOK):
        part = cases[start : start + LOOK]
        told = [[case.prompt for case in part], [case.rest or " " for case in part]]
        texts, rests = map(instruments.clip.texts, told) if instruments.clip else (None, None)
        before: list[Any] = []
        for side in sides:
            pictures, facts = zip(
                *(read(folder / "pictures" / side.name / f"{case.id}.png") for case in part), strict=True
            )
            before = before or list(pictures)
            found: list[dict[str, Any]] = [
                {"failure": fact["failure"] or spoilt(picture)}
                for picture, fact in zip(pictures, facts, strict=True)
            ]
            if side.name != BEFORE:
                for values, was, now in zip(found, before, pictures, strict=True):
                    values["change"] = round(change(was, now), 6)
            for reader in instruments.readers:
                for values, words in zip(found, reader.look(pictures), strict=True):
                    for kind, (word, share) in words.items():
                        values[f"{reader.name}/{kind}"] = word
                        values[f"{reader.name}/{kind} confidence"] = round(share, 6)
            if instruments.features:
                features.setdefault(f"{side.name}/reader", []).append(instruments.features(pictures))
            if instruments.clip and texts is not None and rests is not None:
                vectors = instruments.clip.images(pictures)
                features.setdefault(f"{side.name}/clip", []).append(vectors)
                for i, (case, values) in enumerate(zip(part, found, strict=True)):
                    values[f"{instruments.clip.name}/prompt"] = round(float(vectors[i] @ texts[i]), 6)
                    if case.rest:
                        values[f"{instruments.clip.name}/rest"] = round(float(vectors[i] @ rests[i]), 6)
            for case, picture, values in zip(part, pictures, found, strict=True):
                image = picture_hash(picture)
                scores += [
                    Score(case.id, side.name, image, metric, value, suite) for metric, value in values.items()
                ]
        if tick:
            tick("looking", min(start + LOOK, len(cases)), len(cases))
    return scores, {name: np.concatenate(parts).astype(np.float32) for name, parts in features.items()}


def _write_features(folder: Path, features: Mapping[str, Any]) -> None:
    import torch

    from . import tensors

    if features:
        written = {name: torch.from_numpy(array) for name, array in features.items()}
        tensors.write(folder / "features.safetensors", written, {})


def _same_plan(folder: Path, plan: Mapping[str, Any]) -> None:
    """Refuse to go on with an evaluation that was begun with another plan, naming the first difference."""
    if not (folder / "plan.json").exists():
        return
    try:
        old = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    except ValueError:
        raise InputError(f"{str(folder / 'plan.json')!r} is damaged: remove {str(folder)!r}") from None
    for name, value in plan.items():
        if old.get(name) != value:
            raise InputError(
                f"{str(folder)!r} was begun with another plan ({name} differs): finish it with the same words and "
                f"version, or remove it"
            )


def _missing(request: Request) -> dict[str, list[str]]:
    """What the canvas's never-knew model never knew, if it is shipped and covers the request; else nothing."""
    from .canvas import WEIGHTS, world

    missing = {"object": list(world.NEVER_KNEW_OBJECTS), "style": list(world.NEVER_KNEW_STYLES)}
    known = suites.find("canvas").known
    covered = all(known(concept) in missing[concept.kind] for concept in request.erase)
    return missing if covered and (WEIGHTS / "never-knew").is_dir() else {}


def _processes() -> tuple[int, int, Callable[[], None]]:
    """Which of how many processes this is, and a way to wait for the others; one unless accelerate started several."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return 0, 1, lambda: None
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available())
    return state.process_index, state.num_processes, state.wait_for_everyone


def _device(device: str | None) -> str | None:
    """Each of several processes on a GPU of its own, unless the user names a device."""
    if device is None and "LOCAL_RANK" in os.environ:
        import torch

        if torch.cuda.is_available():
            return f"cuda:{os.environ['LOCAL_RANK']}"
    return device


def _stage(tick: Tick, name: str) -> Callable[[int, int], None]:
    return lambda done, total: tick(name, done, total)


def _lines(rows: Sequence[Any]) -> str:
    return "".join(json.dumps(dataclasses.asdict(row), ensure_ascii=False) + "\n" for row in rows)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            yield json.loads(line)
        except ValueError:
            raise ValueError(f"{path.name}, line {number} is not JSON") from None
