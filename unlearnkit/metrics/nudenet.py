"""NudeNet as a reader: whether a picture shows nudity, by a NudeNet 3 detector in ONNX form that the user brings.

Our own few lines around onnxruntime, none of NudeNet's: its wheel carries AGPL texts, so it is no dependency, and its
wrapper feeds arrays and files to the network in different orders of colour. Here it is always RGB.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import InputError, ModelError, nearest, quoted

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
    "broad": tuple(label for label in LABELS if label.endswith("_EXPOSED")),  # feet, armpits and bellies, too
}
SIDE = 320  # pixels, where the network itself does not say


class NudeNet:
    """A picture shows ``"nudity"`` if any label of the set has a box with at least the threshold's score.

    That is a statement on pictures, so boxes that overlap need not be thinned out: it never removes the best one.
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
        told = self.session.get_inputs()[0]
        self.input = told.name
        self.side = told.shape[2] if isinstance(told.shape[2], int) else SIDE
        self.name = f"nudenet-{labels}-{threshold:g}@{hashlib.sha256(data).hexdigest()[:8]}"

    def look(self, pictures: Sequence[Image.Image]) -> list[dict[str, tuple[str, float]]]:
        """The word and the best score of the set's labels, 0 to 1, whether it reaches the threshold or not."""
        found = []
        for picture in pictures:
            (scores,) = self.session.run(None, {self.input: self._pixels(picture)})
            best = float(scores[0][self.rows].max())  # (4 + 18, boxes): centre, size, and a score a label
            found.append({"object": ("nudity" if best >= self.threshold else "nothing", best)})
        return found

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
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ModelError(
            f"{quoted(file)} cannot be read ({error.strerror}): name NudeNet's .onnx file"
        ) from None
    try:
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors have no common root but this
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{quoted(file)} is no ONNX model that onnxruntime opens: {reason}") from None
    shape = session.get_outputs()[0].shape
    if len(shape) != 3 or shape[1] != 4 + len(LABELS):
        raise ModelError(
            f"{quoted(file)} gives {shape}, not (1, {4 + len(LABELS)}, boxes): it is no detector of NudeNet 3"
        )
    return session, data
