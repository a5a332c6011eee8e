"""The process that draws: one model in memory, one picture after another. It alone of the studio imports torch.

Its parent writes a line of JSON for each picture, and gets one back: ``{"png": base64}`` or ``{"error": line}``.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ..errors import UnlearnError, printable

if TYPE_CHECKING:
    from ..model.edit import Edit
    from ..model.model import Model

__all__ = ["Artist", "main", "scaled"]

EDITS = 4  # that stay in memory


def scaled(model: Model, edit: Edit, strength: float) -> Edit:
    """The edit with its change multiplied by ``strength``: 0 is the untouched model, 1 the edit itself.

    Of a guard the size of its shift is multiplied.
    """
    from ..attacks import changes

    base = {name: value.detach().cpu() for name, value in model.values(edit.weights).items()}
    weights = changes.scaled(base, edit.weights, strength)
    hooks = [
        dataclasses.replace(hook, settings={**hook.settings, "most": hook.settings["most"] * strength})
        for hook in edit.hooks
    ]
    return dataclasses.replace(edit, weights=weights, hooks=tuple(hooks))


class Artist:
    """Draws pictures, with the last model and the last few edits in memory."""

    def __init__(self) -> None:
        self._name: tuple[str, str | None] = ("", None)
        self._model: Model | None = None
        self._edits: dict[str, Edit] = {}

    def draw(
        self,
        *,
        model: str,
        variant: str | None,
        edit: str | None,
        strength: float,
        prompt: str,
        seed: int,
        steps: int | None,
        guidance: float | None,
    ) -> bytes:
        """One picture as PNG, with what it was made from in its text chunk. edit: a file, None: the untouched model.

        Raises UnlearnError for unusable input.
        """
        from ..runs.images import save_png

        applied = self._edit(edit) if edit else None
        loaded = self._loaded(model, variant, applied)
        facts = {
            "model": model,
            "prompt": prompt,
            "seed": seed,
            "steps": loaded.hints.steps if steps is None else steps,
            "guidance": loaded.hints.guidance if guidance is None else guidance,
            "edit": None if applied is None else applied.hash(),
            "strength": strength if applied else None,
        }
        how: dict[str, Any] = {"steps": steps, "guidance": guidance}
        if applied is None:
            picture = loaded.sample([prompt], [seed], **how)[0]
        else:
            loaded.check(applied)
            with loaded.wearing(applied if strength == 1 else scaled(loaded, applied, strength)):
                picture = loaded.sample([prompt], [seed], **how)[0]
        with tempfile.TemporaryDirectory() as folder:
            save_png(picture, Path(folder) / "picture.png", facts=facts)
            return (Path(folder) / "picture.png").read_bytes()

    def _edit(self, path: str) -> Edit:
        from ..model.edit import Edit

        status = Path(path).stat()
        key = f"{path} {status.st_mtime_ns} {status.st_size}"
        if key not in self._edits:
            self._edits = dict([*self._edits.items(), (key, Edit.load(path))][-EDITS:])
        return self._edits[key]

    def _loaded(self, source: str, variant: str | None, edit: Edit | None) -> Model:
        from ..model.load import load

        if self._model is None or self._name != (source, variant):
            self._model = None  # two would not fit
            self._model = load(source, variant=variant, edit=edit)
            self._name = (source, variant)
        return self._model


def main(requests: TextIO, answers: TextIO) -> None:
    """Answer one line after another, until the input ends."""
    from ..model import load  # noqa: F401  the libraries, while the page is still read
    from ..runs import images  # noqa: F401

    artist = Artist()
    for line in requests:
        try:
            answer = {"png": base64.b64encode(artist.draw(**json.loads(line))).decode()}
        except UnlearnError as error:
            answer = {"error": str(error)}
        except (MemoryError, OSError, RuntimeError) as error:
            answer = {"error": printable(f"this picture could not be drawn: {error}")[:400]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer
    main(sys.stdin, own)
