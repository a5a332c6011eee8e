"""Evaluate an edit against the untouched model: cases, pictures, rows, figures, verdict.

An evaluation is a folder, ``RUN/evaluation/SUITE``, written in this order:

    plan.json            suite, seeds, evaluators, thresholds, hashes of both models: fixed before a picture is drawn
    cases.jsonl          one line a case: prompt, seed, role, what a right picture shows
    pictures/SIDE/       one PNG a case, ``before`` and ``after`` with the same prompts and seeds
    rows.jsonl           one line a score: everything below is computed from these
    features.safetensors the features behind the distances, cases x d
    tables.json          every figure, and the verdict
    evaluation.json      a hash of each file above, versions, seconds; it is written last

A killed evaluation resumes where it stopped. One command at a time writes there; under ``accelerate launch`` its
processes share the drawing.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import suites
from ..errors import InputError, quoted
from ..io import manifest, processes
from ..io.files import member, resumable, tidy, user_path, write_text, writing
from ..io.locks import locked
from ..io.tick import Tick, stage
from ..io.versions import versions
from ..runs import runfolder
from ..schema import Case, Request, Score
from . import claims
from .draw import Side, draw, model_side
from .folders import FACTS, FOLDER, figures, folder_of, sound
from .plan import AFTER, BEFORE, NEVER_KNEW, Plan, Rules, cases_for, lines, plan_for, thinned
from .record import same_plan, write_facts, write_features
from .score import score_pictures
from .tables import tables

if TYPE_CHECKING:
    import torch

    from ..metrics.evaluators import Evaluators
    from ..model.model import Model

__all__ = ["canvas_evaluators_for", "evaluate", "evaluate_run", "never_knows"]

LARGEST = 16  # of a latent's sides, for the canvas's classifier: its pictures have 64 pixels


def evaluate_run(
    run: str | Path,
    *,
    suite: str | None = None,
    file: str | Path | None = None,
    replicates: int = 1,
    quick: bool = False,
    rules: Rules | None = None,
    evaluators: Callable[[torch.device], Evaluators] | None = None,
    batch: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
    tick: Tick | None = None,
) -> dict[str, Any]:
    """Evaluate a finished run, into ``RUN/evaluation/SUITE``, and return the verdict.

    suite, file, replicates: the prompts, see ``suites``; default for the canvas and models with its words: ``canvas``.
    quick: use only as many prompts as a claim needs, the retained ones in at most two rounds, and no comparison with a
        model that never knew the concept.
    rules: the thresholds; default: ``Rules()``.
    evaluators: opens the evaluators on a device; default: the canvas's own, for the canvas.
    batch: pictures per call; default: ``Model.batch``, which depends on their size.
    Raises InputError for a folder without a finished run or with another evaluation, and for what the suite refuses.
    """
    from ..canvas import world
    from ..families.opening import quiet
    from ..model.load import load

    run = user_path(run)
    recipe, edit = runfolder.opened(run)
    fits = world.of_canvas(recipe.model)
    if suite is None and not fits:
        raise InputError(
            f"{quoted(recipe.model)} is not the canvas, so its prompts are not known: choose prompts and a "
            "classifier, for example --suite prompts --file prompts.csv --objects CLASSIFIER"
        )
    suite = suite or "canvas"
    member(run, FOLDER, folder_of(run, suite, file).name)
    cases, left_out = suites.cases(suite, recipe.request, replicates=replicates, file=file)
    if evaluators is None and not fits:
        raise InputError(
            f"suite {suite!r} needs evaluators: name a classifier, a CLIP, or both, for example --objects CLASSIFIER"
        )
    model = load(recipe.model, device=device, dtype=dtype, edit=edit, variant=recipe.variant)
    with quiet():
        tools = evaluators(model.device) if evaluators else canvas_evaluators_for(model)
    sides = [model_side(BEFORE, model, batch=batch), model_side(AFTER, model, edit=edit, batch=batch)]
    missing = never_knows(recipe.request) if suite == recipe.model == "canvas" and not quick else {}
    if missing:
        from ..canvas.check import never_knew

        with quiet():
            twin = never_knew(device=model.device, dtype=model.dtype)
        sides.append(model_side(NEVER_KNEW, twin, batch=batch))
    first = 0
    if quick:
        again, _ = suites.cases(suite, recipe.request, replicates=replicates + 1, file=file)
        cases, first = thinned(cases, again)
    more = {"model": recipe.model, "method": recipe.method, "seed": recipe.seed, "edit": edit.hash()}
    plan = plan_for(
        suite,
        recipe.request,
        cases,
        left_out,
        sides,
        tools,
        rules or Rules(),
        missing=missing,
        more=more,
        first=first,
    )
    return evaluate(folder_of(run, suite, file), cases, sides, plan, tools, tick=tick)


def canvas_evaluators_for(model: Model) -> Evaluators:
    """The canvas's evaluators. Raises InputError for a model whose pictures are not like the canvas's."""
    from ..metrics.evaluators import canvas_evaluators

    if max(model.shape[1:]) > LARGEST:
        raise InputError(
            f"the canvas's classifier knows only small pictures of the canvas, unlike those of {quoted(model.source)}: "
            "name a classifier with --objects, --styles or --clip, and the prompts with --suite"
        )
    return canvas_evaluators()


def evaluate(
    folder: Path,
    cases: Sequence[Case],
    sides: Sequence[Side],
    plan: Plan,
    evaluators: Evaluators,
    *,
    tick: Tick | None = None,
) -> dict[str, Any]:
    """Draw and score pictures, and write figures and verdict into ``folder``. Returns the verdict.

    sides: the first is ``before``. The plan's second round is drawn only if the first leaves something undecided.

    Raises InputError where ``folder`` holds an evaluation with another plan.
    """
    index, count = processes.index(), processes.count()
    started = time.monotonic()
    with _exclusive(folder):
        if index == 0:
            manifest.no_links(folder)
            for side in folder.glob("pictures/*"):
                tidy(side, exclusive=True)
            same_plan(folder, plan)
            if (folder / FACTS).exists() and count == 1:
                sound(folder)
                return dict(figures(folder)["verdict"])
            write_text(folder / "plan.json", json.dumps(plan.data, indent=1, ensure_ascii=False) + "\n")
            write_text(folder / "cases.jsonl", lines(cases))
        processes.wait()
        rounds = _Rounds()
        for start, end in pairwise((0, *plan.rounds)):
            share = cases[start:end]
            rounds.drawn += Counter(_draw_all(folder / "pictures", share, sides, plan, (index, count), tick))
            processes.wait()
            if index == 0:
                classifying = stage(tick, "classifying")
                rounds.add(*score_pictures(folder / "pictures", share, plan, evaluators, classifying))
            if end == plan.rounds[-1]:
                break
            enough = index == 0 and claims.decided(plan, cases[:end], rounds.scores)
            if processes.broadcast(float(enough)):
                break
        if index:
            return {}
        write_text(folder / "rows.jsonl", lines(rounds.scores))
        write_features(folder, rounds.features)
        computed = tables(plan, cases[:end], rounds.scores, rounds.features)
        verdict = claims.verdict(plan, computed)
        text = json.dumps({"verdict": verdict, "tables": computed}, indent=1, ensure_ascii=False)
        write_text(folder / "tables.json", text + "\n")
        facts = {
            "drawn": dict(rounds.drawn),
            "processes": count,
            "seconds": round(time.monotonic() - started, 1),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "versions": versions("numpy", "pillow"),
        }
        write_text(folder / FACTS, write_facts(folder, facts))
    return verdict


@dataclass
class _Rounds:
    """What the rounds so far gave: pictures drawn by side, scores, and features (cases so far, d) by name."""

    drawn: Counter[str] = field(default_factory=Counter)
    scores: list[Score] = field(default_factory=list)
    features: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def add(self, scores: list[Score], features: dict[str, NDArray[np.float32]]) -> None:
        self.scores += scores
        for name, found in features.items():
            before = self.features.get(name)
            self.features[name] = found if before is None else np.concatenate([before, found])


@contextlib.contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """A context in which no other command writes in the folder. Of several processes the first has the lock."""
    with resumable(folder / "plan.json", "the same command goes on from there"), writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder) if processes.first() else contextlib.nullcontext():
            yield


def _draw_all(
    folder: Path,
    cases: Sequence[Case],
    sides: Sequence[Side],
    plan: Plan,
    process: tuple[int, int],
    tick: Tick | None,
) -> dict[str, int]:
    """Draw the missing pictures of every side; return the number of drawn pictures, by side."""
    shares = [(side, cases_for(plan, side.name, cases)) for side in sides]
    total, start, drawn = sum(len(part) for _, part in shares), 0, {}
    for side, part in shares:
        drawing = stage(tick, "drawing", start, total)
        drawn[side.name] = draw(part, side, folder / side.name, process=process, tick=drawing)
        start += len(part)
    return drawn


def never_knows(request: Request) -> dict[str, list[str]]:
    """The words that the canvas's never-knew model does not know; empty if it is not shipped or knows the request."""
    from ..canvas import WEIGHTS, world

    missing = {"object": list(world.NEVER_KNEW_OBJECTS), "style": list(world.NEVER_KNEW_STYLES)}
    known = suites.find("canvas").own_name
    covered = all(known(concept) in missing[concept.kind] for concept in request.erase)
    return missing if covered and (WEIGHTS / "never-knew").is_dir() else {}
