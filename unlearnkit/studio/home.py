"""What a studio holds: its folder, the jobs that it started, and the process that draws."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .drawing import Drawing
from .jobs import Jobs
from .workspace import Workspace, scan

__all__ = ["Home"]


class Home:
    """One folder. models: further models, from the command line."""

    def __init__(self, folder: Path, models: Iterable[str] = ()) -> None:
        self.folder, self.models = folder, tuple(models)
        self.jobs, self.drawing = Jobs(folder), Drawing(folder)

    def workspace(self) -> Workspace:
        """What is in the folder now."""
        return scan(self.folder, self.models)

    def close(self) -> None:
        """End every process of the studio."""
        self.jobs.close()
        self.drawing.close()
