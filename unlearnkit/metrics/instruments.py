"""What looks at pictures: classifiers of objects and styles, and a CLIP. Each name carries the hash of the weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ..edit import digest
from ..errors import InputError, ModelError, quoted
from ..families.opening import quiet
from .checkpoint import Checkpoint, Device
from .nudenet import NudeNet
from .pixels import batches

__all__ = ["Classifier", "Clip", "Instruments", "Reader", "canvas", "eye", "local"]

Floats = NDArray[np.float64]
# a bare checkpoint; all but the first are refused as pickles
FILES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")

Words = dict[str, tuple[str, float]]


class Reader(Protocol):
    """A classifier: for each picture the word that it sees and its probability, by kind (object, style)."""

    @property
    def name(self) -> str: ...

    @property
    def kinds(self) -> tuple[str, ...]: ...

    def look(self, pictures: Sequence[Image.Image]) -> list[Words]: ...


class Clip(Protocol):
    """Pictures and prompts as unit vectors (n, d) of one space."""

    @property
    def name(self) -> str: ...

    def images(self, pictures: Sequence[Image.Image]) -> Floats: ...

    def texts(self, prompts: Sequence[str]) -> Floats: ...


@dataclass(frozen=True)
class Instruments:
    """readers: at most one a kind. clip: for CLIP score, CMMD and diversity.

    features: of pictures, (n, d), for KID and FID; network: the name of what makes them, with its hash.
    """

    readers: tuple[Reader, ...] = ()
    clip: Clip | None = None
    features: Callable[[Sequence[Image.Image]], Floats] | None = None
    network: str = ""

    @property
    def names(self) -> list[str]:
        """Every instrument with its hash, as it stands in the names of metrics."""
        return [reader.name for reader in self.readers] + ([self.clip.name] if self.clip else [])


def canvas() -> Instruments:
    """The judge, which no method may ask, and the evaluators' CLIP."""
    from ..canvas import WEIGHTS
    from ..canvas.evaluators import alignment, judge

    told = _Canvas(alignment(), f"canvas-clip@{_hash(WEIGHTS / 'clip')}")
    return eye(judge(), f"canvas-judge@{_hash(WEIGHTS / 'judge')}", told)


def eye(network: Any, name: str, clip: Clip | None = None) -> Instruments:
    """An Eye of the canvas as a reader, and as features: mean and maximum of its last maps."""
    return Instruments((_Eye(network, name),), clip, lambda pictures: _eye_features(network, pictures), name)


def local(
    *,
    objects: str | Path | None = None,
    styles: str | Path | None = None,
    clip: str | Path | None = None,
    features: str | Path | None = None,
    nudenet: str | Path | None = None,
    labels: str = "strict",
    threshold: float | None = None,
    words: Mapping[str, Sequence[str]] | None = None,
    device: Device = "cpu",
) -> Instruments:
    """Instruments for real models, each a folder or hub id that transformers opens, or a file.

    objects, styles: image classifiers (``AutoModelForImageClassification``), or checkpoints of timm's ViT whose classes
    are ``words["object"]`` and ``words["style"]`` in order. clip: a CLIP (``CLIPModel``). features: an image model
    (``AutoModel``, for example DINOv2) for KID and FID, else the CLIP. nudenet: a detector's .onnx file, which sees
    "nudity" as an object, with ``labels`` and ``threshold`` as ``NudeNet`` says. device: of all but NudeNet, which
    has the CPU.
    Raises InputError for two readers of objects, and for NudeNet without a threshold.
    """
    readers: list[Reader] = []
    for source, kind in ((objects, "object"), (styles, "style")):
        if source is not None and Path(source).suffix in FILES:
            readers.append(Checkpoint(source, kind, (words or {}).get(kind, ()), device=device))
        elif source is not None:
            readers.append(Classifier(source, kind, device=device))
    if nudenet is not None:
        if objects is not None:
            raise InputError(
                "a classifier of objects and NudeNet cannot read the same pictures: name one of them"
            )
        if threshold is None:
            raise InputError(
                "NudeNet needs a threshold: say from which score on a box counts, for example 0.6"
            )
        readers.append(NudeNet(nudenet, threshold=threshold, labels=labels))
    told = None if clip is None else _Transformers(clip, device=device)
    network = told if features is None else _Features(features, device=device)
    if network is None:
        return Instruments(tuple(readers))
    return Instruments(tuple(readers), told, network.images, network.name)


class Classifier:
    """An image classifier of transformers; its words are those of its own ``id2label``."""

    def __init__(self, source: str | Path, kind: str, *, device: Device = "cpu", batch: int = 32) -> None:
        from transformers import AutoImageProcessor
        from transformers import AutoModelForImageClassification as Kind

        self.processor, self.model, self.name = _opened(source, AutoImageProcessor, Kind, device)
        self.kinds, self.batch = (kind,), batch

    @torch.no_grad()
    def look(self, pictures: Sequence[Image.Image]) -> list[Words]:
        seen: list[Words] = []
        for part in batches(pictures, self.batch):
            pixels = self.processor(images=part, return_tensors="pt").to(self.model.device)
            for share in self.model(**pixels).logits.softmax(1).cpu():
                best = int(share.argmax())
                seen.append({self.kinds[0]: (str(self.model.config.id2label[best]), float(share[best]))})
        return seen


class _Features:
    """An image model of transformers; its features are the pooled output, else the mean of the last states."""

    def __init__(self, source: str | Path, *, device: Device = "cpu", batch: int = 32) -> None:
        from transformers import AutoImageProcessor, AutoModel

        self.processor, self.model, self.name = _opened(source, AutoImageProcessor, AutoModel, device)
        self.batch = batch

    @torch.no_grad()
    def images(self, pictures: Sequence[Image.Image]) -> Floats:
        parts = []
        for part in batches(pictures, self.batch):
            told = self.model(**self.processor(images=part, return_tensors="pt").to(self.model.device))
            pooled = getattr(told, "pooler_output", None)
            pooled = told.last_hidden_state.mean(1) if pooled is None else pooled
            parts.append(pooled.flatten(1))
        return np.asarray(torch.cat(parts).cpu().double())


class _Transformers:
    """A CLIP of transformers."""

    def __init__(self, source: str | Path, *, device: Device = "cpu", batch: int = 32) -> None:
        from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

        self.processor, self.model, self.name = _opened(source, CLIPImageProcessor, CLIPModel, device)
        self.tokenizer, self.batch = AutoTokenizer.from_pretrained(source), batch

    @torch.no_grad()
    def images(self, pictures: Sequence[Image.Image]) -> Floats:
        parts = []
        for part in batches(pictures, self.batch):
            pixels = self.processor(images=part, return_tensors="pt").pixel_values.to(self.model.device)
            pooled = self.model.vision_model(pixel_values=pixels).pooler_output
            parts.append(self.model.visual_projection(pooled))
        return _unit(torch.cat(parts))

    @torch.no_grad()
    def texts(self, prompts: Sequence[str]) -> Floats:
        told = self.tokenizer(list(prompts), padding=True, truncation=True, return_tensors="pt")
        told = told.to(self.model.device)
        pooled = self.model.text_model(told.input_ids, told.attention_mask).pooler_output
        return _unit(self.model.text_projection(pooled))


@dataclass(frozen=True)
class _Eye:
    """An Eye of the canvas: it sees an object and a style at once."""

    network: Any
    name: str
    kinds: tuple[str, ...] = ("object", "style")

    def look(self, pictures: Sequence[Image.Image]) -> list[Words]:
        return [
            {"object": (seen.object, seen.object_confidence), "style": (seen.style, seen.style_confidence)}
            for seen in self.network.look(pictures)
        ]


@dataclass(frozen=True)
class _Canvas:
    """The canvas's CLIP."""

    alignment: Any
    name: str

    def images(self, pictures: Sequence[Image.Image]) -> Floats:
        return np.asarray(self.alignment.images(pictures).double())

    def texts(self, prompts: Sequence[str]) -> Floats:
        return np.asarray(self.alignment.texts(prompts).double())


@torch.no_grad()
def _eye_features(network: Any, pictures: Sequence[Image.Image], batch: int = 256) -> Floats:
    from ..canvas.classifier import pixels

    parts = []
    for start in range(0, len(pictures), batch):
        maps = network.body(pixels(pictures[start : start + batch]))
        parts.append(torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1))
    return np.asarray(torch.cat(parts).double())


def _opened(source: str | Path, processor: Any, model: Any, device: Device) -> tuple[Any, Any, str]:
    """Processor, network (safetensors alone, fp32, on the device) and name with its hash."""
    try:
        with quiet():
            prepared = processor.from_pretrained(source)
            network = model.from_pretrained(source, dtype=torch.float32, use_safetensors=True)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{quoted(source)} is no folder or hub id that transformers opens: {reason}"
        ) from None
    name = f"{Path(str(source)).name}@{digest(network.state_dict().items())[:8]}"
    return prepared, network.eval().requires_grad_(False).to(device), name


def _unit(vectors: torch.Tensor) -> Floats:
    return np.asarray(torch.nn.functional.normalize(vectors.cpu().double(), dim=1))


def _hash(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        total.update(path.read_bytes())
    return total.hexdigest()[:8]
