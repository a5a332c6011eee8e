"""From pictures to rows: every instrument looks at every picture of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..metrics.pixels import change, spoilt
from ..schema import Case, Score
from .draw import picture_hash, read
from .plan import BEFORE, asked

if TYPE_CHECKING:
    from ..metrics.instruments import Instruments

__all__ = ["look"]

TOGETHER = 256  # pictures that are held in memory at once


def look(
    folder: Path,
    cases: Sequence[Case],
    plan: Mapping[str, Any],
    instruments: Instruments,
    tick: Callable[[int, int], None] | None = None,
) -> tuple[list[Score], dict[str, NDArray[np.float32]]]:
    """Every score of every picture below ``folder``, and the features, by side, of each instrument that has some.

    Features are named ``side/reader`` and ``side/clip`` and have the shape (cases of the side, d).
    """
    suite = f"{plan['suite']['name']}@{plan['suite']['version']}"
    scores: list[Score] = []
    features: dict[str, list[Any]] = {}
    shares = {side: {case.id for case in asked(plan, side, cases)} for side in plan["sides"]}
    total, done = sum(map(len, shares.values())), 0
    for start in range(0, len(cases), TOGETHER):
        before: dict[str, Image.Image] = {}
        for side, ids in shares.items():
            part = [case for case in cases[start : start + TOGETHER] if case.id in ids]
            if not part:
                continue
            told = [read(folder / side / f"{case.id}.png") for case in part]
            pictures = [picture for picture, _ in told]
            values: list[dict[str, Any]] = [
                {"failure": facts["failure"] or spoilt(picture)} for picture, facts in told
            ]
            for case, picture, found in zip(part, pictures, values, strict=True):
                if side == BEFORE:
                    before[case.id] = picture
                else:
                    found["change"] = round(change(before[case.id], picture), 6)
            _read(pictures, instruments, values)
            for name, array in _fit(part, pictures, instruments, values).items():
                features.setdefault(f"{side}/{name}", []).append(array)
            for case, picture, found in zip(part, pictures, values, strict=True):
                image = picture_hash(picture)
                scores += [
                    Score(case.id, side, image, metric, value, suite) for metric, value in found.items()
                ]
            done += len(part)
            if tick:
                tick(done, total)
    return scores, {name: np.concatenate(parts).astype(np.float32) for name, parts in features.items()}


def _read(
    pictures: Sequence[Image.Image], instruments: Instruments, values: Sequence[dict[str, Any]]
) -> None:
    """Add what every reader sees, and how sure it is."""
    for reader in instruments.readers:
        for found, words in zip(values, reader.look(pictures), strict=True):
            for kind, (word, share) in words.items():
                found[f"{reader.name}/{kind}"] = word
                found[f"{reader.name}/{kind} confidence"] = round(share, 6)


def _fit(
    cases: Sequence[Case],
    pictures: Sequence[Image.Image],
    instruments: Instruments,
    values: Sequence[dict[str, Any]],
) -> dict[str, NDArray[np.float64]]:
    """Add how well pictures fit their prompts, and the rest of them; return the features."""
    features = {}
    if instruments.features:
        features["reader"] = instruments.features(pictures)
    if clip := instruments.clip:
        vectors = features["clip"] = clip.images(pictures)
        texts, rests = (clip.texts([one or " " for one in words]) for words in (
            [case.prompt for case in cases], [case.rest for case in cases]
        ))  # fmt: skip
        for case, found, vector, text, rest in zip(cases, values, vectors, texts, rests, strict=True):
            found[f"{clip.name}/prompt"] = round(float(vector @ text), 6)
            if case.rest:
                found[f"{clip.name}/rest"] = round(float(vector @ rest), 6)
    return features
