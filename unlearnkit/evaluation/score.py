"""From pictures to rows: every evaluator scores every picture of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..io.tick import Advance
from ..metrics.pixels import change, spoilt
from ..schema import Case, Score
from .draw import picture_hash, read
from .plan import BEFORE, Plan, cases_for

if TYPE_CHECKING:
    from ..metrics.evaluators import Evaluators

__all__ = ["score_pictures"]

CHUNK = 256  # cases whose pictures are in memory at the same time


def score_pictures(
    folder: Path,
    cases: Sequence[Case],
    plan: Plan,
    evaluators: Evaluators,
    tick: Advance | None = None,
) -> tuple[list[Score], dict[str, NDArray[np.float32]]]:
    """Every score of every picture below ``folder``, and the features of each side.

    Features are named ``side/reader`` and ``side/clip`` and have the shape (cases of the side, d).
    """
    suite = f"{plan.suite}@{plan.suite_version}"
    scores: list[Score] = []
    features: dict[str, list[Any]] = {}
    ids_of = {side: {case.id for case in cases_for(plan, side, cases)} for side in plan.sides}
    total, done = sum(map(len, ids_of.values())), 0
    for start in range(0, len(cases), CHUNK):
        before: dict[str, Image.Image] = {}
        for side, ids in ids_of.items():
            chunk = [case for case in cases[start : start + CHUNK] if case.id in ids]
            if not chunk:
                continue
            stored = [read(folder / side / f"{case.id}.png") for case in chunk]
            pictures = [picture for picture, _ in stored]
            values: list[dict[str, Any]] = [
                {"failure": facts["failure"] or spoilt(picture)} for picture, facts in stored
            ]
            for case, picture, metrics in zip(chunk, pictures, values, strict=True):
                if side == BEFORE:
                    before[case.id] = picture
                else:
                    metrics["change"] = round(change(before[case.id], picture), 6)
            _classify(pictures, evaluators, values)
            for name, array in _features(chunk, pictures, evaluators, values).items():
                features.setdefault(f"{side}/{name}", []).append(array)
            for case, picture, metrics in zip(chunk, pictures, values, strict=True):
                image = picture_hash(picture)
                scores += [Score(case.id, side, image, name, value, suite) for name, value in metrics.items()]
            done += len(chunk)
            if tick:
                tick(done, total)
    return scores, {name: np.concatenate(parts).astype(np.float32) for name, parts in features.items()}


def _classify(
    pictures: Sequence[Image.Image], evaluators: Evaluators, values: Sequence[dict[str, Any]]
) -> None:
    """Add the label of every classifier, and its probability."""
    for classifier in evaluators.classifiers:
        for metrics, labels in zip(values, classifier.classify(pictures), strict=True):
            for kind, (word, probability) in labels.items():
                metrics[f"{classifier.name}/{kind}"] = word
                metrics[f"{classifier.name}/{kind} confidence"] = round(probability, 6)


def _features(
    cases: Sequence[Case],
    pictures: Sequence[Image.Image],
    evaluators: Evaluators,
    values: Sequence[dict[str, Any]],
) -> dict[str, NDArray[np.float64]]:
    """The features; add the CLIP score of each picture with its prompt, and with the rest of its prompt."""
    features = {}
    if evaluators.features:
        features["reader"] = evaluators.features(pictures)
    if clip := evaluators.clip:
        vectors = features["clip"] = clip.images(pictures)
        prompts = clip.texts([case.prompt or " " for case in cases])
        rest_texts = clip.texts([case.rest or " " for case in cases])
        for case, metrics, vector, prompt, rest in zip(
            cases, values, vectors, prompts, rest_texts, strict=True
        ):
            metrics[f"{clip.name}/prompt"] = round(float(vector @ prompt), 6)
            if case.rest:
                metrics[f"{clip.name}/rest"] = round(float(vector @ rest), 6)
    return features
