"""What is in the studio's folder: models, runs, chains and files. Names from the browser are looked up here.

No text of the browser ever becomes a path: it is a key of one of these tables, or it is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ..errors import InputError, UnlearnError, nearest, quoted
from ..model.places import CANVAS, RELATIVES, folder_of, is_canvas
from ..runs.recipes import load_recipe, placed
from ..schema import Recipe

__all__ = ["Run", "Workspace", "pick", "scan"]

T = TypeVar("T")

DEPTH = 5  # folders below the studio's
MOST = 20_000  # folders that are searched


@dataclass(frozen=True)
class Run:
    """A run folder by its name, the path from the studio's folder. recipe: None if it cannot be read; ``why`` says so.

    finished: whether it has a ``run.json``.
    """

    name: str
    path: Path
    recipe: Recipe | None
    why: str
    finished: bool

    @property
    def concepts(self) -> str:
        """The names of what it erases."""
        return ", ".join(one.name for one in self.recipe.request.erase) if self.recipe else ""

    @property
    def time(self) -> float:
        """When its last file of its own was written, in seconds."""
        names = ("run.json", "edit.safetensors", "recipe.toml")
        return max((self.path / name).lstat().st_mtime for name in names if (self.path / name).exists())


@dataclass(frozen=True)
class Workspace:
    """models: sources by name. runs, newest first. chains, files (``.safetensors``): paths by name."""

    folder: Path
    models: Mapping[str, str]
    runs: Mapping[str, Run] = field(default_factory=dict)
    chains: Mapping[str, Path] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)

    def model_of(self, run: Run) -> str:
        """The name of the model that a run was made from. Raises InputError if the studio does not have it."""
        if run.recipe is None:
            raise InputError(f"{run.name} cannot be used: {run.why}")
        for name, source in self.models.items():
            if placed(source, self.folder) == run.recipe.model:
                return name
        raise InputError(
            f"{run.name} was made from {quoted(run.recipe.model)}, which this studio was not opened on: start it "
            "with --model and that name"
        )

    def knows(self, run: Run) -> bool:
        """Whether the studio has the model of a run."""
        sources = [placed(source, self.folder) for source in self.models.values()]
        return run.recipe is not None and run.recipe.model in sources

    def finished(self) -> dict[str, Run]:
        """The finished runs by name, newest first."""
        return {name: run for name, run in self.runs.items() if run.finished and run.recipe}


def pick(name: str, among: Mapping[str, T], what: str) -> T:
    """The entry of this name. Raises InputError, with the nearest name, if there is none."""
    if name not in among:
        raise InputError(f"{what} {quoted(name)} is not in this studio{nearest(name, among)}")
    return among[name]


def scan(folder: Path, models: Iterable[str] = ()) -> Workspace:
    """What is in ``folder`` now. models: further ones, from the command line. Symbolic links are not followed."""
    known = {"canvas": "canvas"} | {name: name for name in RELATIVES if folder_of(name).is_dir()}
    known = known if CANVAS.is_dir() else {}
    known |= {name: name for name in models}
    runs: list[Run] = []
    chains: dict[str, Path] = {}
    files: dict[str, Path] = {}
    for count, (place, folders, names) in enumerate(os.walk(folder)):
        here, inside = Path(place), len(Path(place).relative_to(folder).parts)
        name = _name(here, folder)
        folders[:] = sorted(one for one in folders if not one.startswith((".", "__")) and inside < DEPTH)
        if count >= MOST or name is None:
            folders[:] = []
        elif _own(here, "ledger.jsonl", names):
            chains[name], folders[:] = here, []
        elif _own(here, "recipe.toml", names):
            runs.append(_run(name, here, "run.json" in names))
            folders[:] = []
        elif _own(here, "model_index.json", names):
            known[name], folders[:] = name, []
        else:
            for file in sorted(names):
                own = _name(here / file, folder)
                if file.endswith(".safetensors") and own and not (here / file).is_symlink():
                    files[own] = here / file
    runs.sort(key=lambda run: (-run.time, run.name))
    return Workspace(folder, known, {run.name: run for run in runs}, chains, files)


def _own(folder: Path, name: str, names: list[str]) -> bool:
    return name in names and not (folder / name).is_symlink()


def _name(path: Path, folder: Path) -> str | None:
    """The path from the studio's folder, as the commands take it; None if it is not UTF-8 text on one line."""
    name = path.relative_to(folder).as_posix()
    if not name.isprintable():
        return None
    return f"./{name}" if name.startswith(("-", "~")) or is_canvas(name) else name


def _run(name: str, path: Path, finished: bool) -> Run:
    try:
        recipe = load_recipe(path / "recipe.toml")
    except UnlearnError as error:
        return Run(name, path, None, str(error), finished)
    return Run(name, path, recipe, "", finished)
