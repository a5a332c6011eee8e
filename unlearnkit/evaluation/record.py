"""The folder of an evaluation: what is written when, and how it is read back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import suites, tensors
from ..errors import InputError
from ..files import slug
from ..schema import Case, Score

__all__ = ["FOLDER", "HASHED", "file_hash", "finished", "folder_of", "same_plan", "stored", "write_features"]

FOLDER = "evaluation"
HASHED = ("plan.json", "cases.jsonl", "rows.jsonl", "features.safetensors", "tables.json")
FORMAT = 2  # of plan.json


def folder_of(run: Path, suite: str, file: str | Path | None = None) -> Path:
    """Where a run's evaluation on a suite is: ``RUN/evaluation/canvas``, ``RUN/evaluation/prompts-FILE`` for a CSV."""
    return run / FOLDER / slug(suite if file is None else f"{suite} {Path(file).stem}")


def finished(run: Path) -> list[Path]:
    """The folders of a run's finished evaluations: one a suite, or, as in a chain's looks, the only one itself.

    Raises InputError where there is none.
    """
    folders = [run / FOLDER, *sorted((run / FOLDER).glob("*/"))]
    if found := [folder for folder in folders if (folder / "evaluation.json").is_file()]:
        return found
    raise InputError(f"{str(run)!r} has no finished evaluation: make one with unlearnkit evaluate")


def stored(folder: Path) -> tuple[dict[str, Any], list[Case], list[Score], dict[str, NDArray[np.float32]]]:
    """Plan, cases, scores and features of a finished evaluation. Raises InputError where they cannot be read."""
    try:
        plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
        name, at, form = plan["suite"]["name"], plan["suite"]["version"], plan["format"]
        if form != FORMAT:
            raise InputError(
                f"{str(folder)!r} has format {form} of evaluations, this unlearnkit reads {FORMAT}: remove the "
                f"folder and evaluate again"
            )
        if name in suites.SUITES and at > suites.find(name).version:
            raise InputError(
                f"{str(folder)!r} was made with version {at} of suite {name!r}: use a newer unlearnkit"
            )
        cases = [Case(**row) for row in _rows(folder / "cases.jsonl")]
        scores = [Score(**row) for row in _rows(folder / "rows.jsonl")]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{str(folder)!r} is damaged: {' '.join(str(error).split())}") from None
    features = {}
    if (folder / "features.safetensors").exists():
        features = {k: v.numpy() for k, v in tensors.read(folder / "features.safetensors")[0].items()}
    return plan, cases, scores, features


def same_plan(folder: Path, plan: Mapping[str, Any]) -> None:
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


def write_features(folder: Path, features: Mapping[str, NDArray[np.float32]]) -> None:
    """Features by ``side/what``, each (cases of the side, d); no file where there are none."""
    import torch

    if features:
        written = {name: torch.from_numpy(array) for name, array in features.items()}
        tensors.write(folder / "features.safetensors", written, {})


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    # not splitlines, which breaks at U+2028 and the like, too: a prompt may hold these
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n")[:-1], 1):
        try:
            yield json.loads(line)
        except ValueError:
            raise ValueError(f"{path.name}, line {number} is not JSON") from None
