"""The folders of a run's evaluations: what is in them, and whether it was changed. Without torch, for quick readers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError, printable, quoted
from ..io import manifest
from ..io.files import folder_name
from ..io.reading import read_json, typed
from . import shapes

__all__ = [
    "FACTS",
    "FOLDER",
    "HASHED",
    "changes",
    "facts_of",
    "figures",
    "finished",
    "folder_of",
    "folders",
    "sound",
]

FOLDER = "evaluation"
FACTS = "evaluation.json"
HASHED = ("plan.json", "cases.jsonl", "rows.jsonl", "features.safetensors", "tables.json")
LISTED = tuple(name for name in HASHED if name != "features.safetensors")  # files that always exist
OLD = (
    "sha256",
    "drawn",
    "processes",
    "seconds",
    "finished",
    "versions",
)  # the keys of evaluation.json in older versions


def folder_of(run: Path, suite: str, file: str | Path | None = None) -> Path:
    """The folder of an evaluation: ``RUN/evaluation/canvas``, ``RUN/evaluation/prompts-FILE`` for a CSV."""
    return run / FOLDER / folder_name(suite if file is None else f"{suite} {Path(file).stem}")


def folders(run: Path) -> list[Path]:
    """The folders of a run's evaluations, finished or not: one for each suite; in a chain only one."""
    if not (run / FOLDER).is_dir():
        return []
    each = [run / FOLDER, *sorted(path for path in (run / FOLDER).iterdir() if path.is_dir())]
    return [folder for folder in each if (folder / FACTS).exists() or (folder / "plan.json").exists()]


def finished(run: Path) -> list[Path]:
    """The folders of a run's finished evaluations. Raises InputError where there is none."""
    if ready := [folder for folder in folders(run) if (folder / FACTS).is_file()]:
        return ready
    if not run.exists():
        raise InputError(f"{quoted(run)} does not exist: name the folder of a finished run")
    raise InputError(
        f"{quoted(run)} has no finished evaluation: make one with unlearnkit evaluate {quoted(run)}"
    )


def facts_of(folder: Path) -> dict[str, Any]:
    """``evaluation.json``. Raises InputError if it is missing or was changed."""
    facts = manifest.load(folder / FACTS, old=OLD, what="evaluation")
    types = {
        "sha256": dict,
        "drawn": dict,
        "processes": int,
        "seconds": float,
        "versions": dict,
        "finished": str,
    }
    where = f"evaluation {quoted(folder / FACTS)}"
    typed(facts, types, where=where)
    typed(facts["sha256"], dict.fromkeys((*LISTED, *facts["sha256"]), str), where=f"{where}, sha256")
    return dict(facts)


def changes(folder: Path, facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Files that differ from those of the finished evaluation, as (path inside, reason); see ``manifest.changes``."""
    whole = manifest.sealed(facts)  # older versions list only five of the files
    for name, why in manifest.changes(folder, facts["sha256"], leave=[FACTS]):
        if whole or name in facts["sha256"]:
            yield name, why


def sound(folder: Path) -> dict[str, Any]:
    """``evaluation.json``, if every file that it lists is unchanged. Raises InputError naming the first that is not."""
    facts = facts_of(folder)
    for name, why in changes(folder, facts):
        raise InputError(
            f"{printable(name)} of {quoted(folder)} {why}: put a copy of it back, or remove the evaluation's folder "
            "and evaluate again"
        )
    return facts


def figures(folder: Path) -> dict[str, Any]:
    """The verdict and the tables of a finished evaluation. Raises InputError for a file of another shape."""
    path = folder / "tables.json"
    data = read_json(path, what="figures", kind=dict)
    shapes.check(data, shapes.FIGURES, where=f"figures {quoted(path)}")
    return data
