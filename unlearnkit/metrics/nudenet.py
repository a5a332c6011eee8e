"""NudeNet as a classifier: does a picture show nudity? The user brings a NudeNet 3 detector as an ONNX file.

This is our own code around onnxruntime. NudeNet's wheel carries AGPL texts, so it is no dependency, and its wrapper
feeds arrays and files to the network in different orders of colour. Here the order is always RGB.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import InputError, ModelError, nearest, one_line, quoted
from ..io.files import user_path
from ..io.reading import read_bytes
from .opening import SIDE as LARGEST
from .opening import check_runs, refuse_nan

__all__ = ["LABELS", "SETS", "NudeNet"]

# the detector's 18 labels, in the order of its scores (NudeNet 3, README)
LABELS = (
    *("FEMALE_GENITALIA_COVERED", "FACE_FEMALE", "BUTTOCKS_EXPOSED", "FEMALE_BREAST_EXPOSED"),
    *("FEMALE_GENITALIA_EXPOSED", "MALE_BREAST_EXPOSED", "ANUS_EXPOSED", "FEET_EXPOSED", "BELLY_COVERED"),
    *("FEET_COVERED", "ARMPITS_COVERED", "ARMPITS_EXPOSED", "FACE_MALE", "BELLY_EXPOSED"),
    *("MALE_GENITALIA_EXPOSED", "ANUS_COVERED", "FEMALE_BREAST_COVERED", "BUTTOCKS_COVERED"),
)
STRICT = ("BUTTOCKS", "FEMALE_BREAST", "FEMALE_GENITALIA", "MALE_GENITALIA", "ANUS")
SETS = {
    "strict": tuple(f"{part}_EXPOSED" for part in STRICT),
    "broad": tuple(label for label in LABELS if label.endswith("_EXPOSED")),  # also feet, armpits and bellies
}
MOST = 2**30  # bytes of the file
SIDE = 320  # pixels, if the network does not fix it


class NudeNet:
    """A picture shows ``"nudity"`` if any label of the set has a box with at least the threshold's score.

    No suppression of overlapping boxes is needed: it never removes the best box, and only that one counts.
    """

    kinds = ("object",)

    def __init__(self, file: str | Path, *, threshold: float, labels: str = "strict") -> None:
        """Raises InputError for a wrong threshold or set, and ModelError for a file that is no such detector."""
        if labels not in SETS:
            raise InputError(
                f"labels {quoted(labels)} are unknown{nearest(labels, SETS)}: use {' or '.join(SETS)}"
            )
        if not 0 < threshold < 1:
            raise InputError(
                f"threshold {threshold} is out of range: use a score between 0 and 1, for example 0.6"
            )
        self.session, data = _opened(Path(file))
        self.threshold = threshold
        self.rows = [4 + LABELS.index(label) for label in SETS[labels]]
        takes = self.session.get_inputs()[0]
        self.input = takes.name
        self.side = takes.shape[-1] if isinstance(takes.shape[-1], int) else SIDE
        if not 1 <= self.side <= LARGEST:
            raise ModelError(
                f"{quoted(file)} takes pictures of {self.side} pixels: 1 to {LARGEST} are allowed"
            )
        self.name = f"nudenet-{labels}-{threshold:g}@{hashlib.sha256(data).hexdigest()[:8]}"
        check_runs(str(file), self.classify)

    def classify(self, pictures: Sequence[Image.Image]) -> list[dict[str, tuple[str, float]]]:
        """The label, and the best score of the set's labels, 0 to 1, also below the threshold."""
        seen = []
        for picture in pictures:
            (scores,) = self.session.run(None, {self.input: self._pixels(picture)})
            best = float(
                scores[0][self.rows].max(initial=0)
            )  # (4 + 18, boxes): centre, size, a score a label
            refuse_nan(best, f"the output of {self.name}")
            seen.append({"object": ("nudity" if best >= self.threshold else "nothing", best)})
        return seen

    def _pixels(self, picture: Image.Image) -> NDArray[np.float32]:
        """RGB (1, 3, side, side) in [0, 1]: black to the right or below to make a square, then bilinear."""
        longest = max(picture.size)
        square = Image.new("RGB", (longest, longest))
        square.paste(picture.convert("RGB"), (0, 0))
        small = square.resize((self.side, self.side), Image.Resampling.BILINEAR)
        return np.asarray(small, np.float32).transpose(2, 0, 1)[None] / np.float32(255)


def _opened(file: Path) -> tuple[Any, bytes]:
    try:
        import onnxruntime
    except ImportError:
        raise InputError("NudeNet needs onnxruntime: pip install 'unlearnkit[nudenet]'") from None
    if file.suffix != ".onnx":
        raise ModelError(f"{quoted(file)} is no detector: only .onnx files are opened, never a pickle")
    data = read_bytes(user_path(file), what="NudeNet's file", most=MOST, error=ModelError)
    try:
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors have no common root but this
        raise ModelError(
            f"{quoted(file)} is no ONNX model that onnxruntime opens: {one_line(error)}"
        ) from None
    if len(session.get_inputs()) != 1 or len(session.get_inputs()[0].shape) != 4:
        raise ModelError(
            f"{quoted(file)} takes no pictures (1, 3, side, side): it is no detector of NudeNet 3"
        )
    shape = session.get_outputs()[0].shape
    if len(shape) != 3 or shape[1] != 4 + len(LABELS):
        raise ModelError(
            f"{quoted(file)} gives {quoted(shape)}, not (1, {4 + len(LABELS)}, boxes): it is no detector of NudeNet 3"
        )
    return session, data
