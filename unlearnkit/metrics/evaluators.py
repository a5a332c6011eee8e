"""What scores pictures: classifiers of objects and styles, a CLIP, a network of features.

Each name ends with the hash of the weights.
"""

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

from ..errors import InputError, ModelError, quoted
from .checkpoint import Checkpoint, Device
from .kinds import CLASSIFIER, CLIP, FEATURE
from .nudenet import NudeNet
from .opening import check_runs, labels_of, open_network, refuse_nan
from .pixels import batches

__all__ = [
    "Classifier",
    "Clip",
    "Evaluators",
    "TransformersClassifier",
    "canvas_evaluators",
    "evaluators_of",
    "local_evaluators",
]

Floats = NDArray[np.float64]
# a bare checkpoint; all but the first are refused as pickles
FILES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")

Words = dict[str, tuple[str, float]]


class Classifier(Protocol):
    """For each picture its label and the label's probability, 0 to 1, by kind (object, style)."""

    @property
    def name(self) -> str: ...

    @property
    def kinds(self) -> tuple[str, ...]: ...

    def classify(self, pictures: Sequence[Image.Image]) -> list[Words]: ...


class Clip(Protocol):
    """Pictures and prompts as unit vectors (n, d) of one space."""

    @property
    def name(self) -> str: ...

    def images(self, pictures: Sequence[Image.Image]) -> Floats: ...

    def texts(self, prompts: Sequence[str]) -> Floats: ...


@dataclass(frozen=True)
class Evaluators:
    """classifiers: at most one of each kind. clip: for CLIP score, CMMD and diversity.

    features: gives the features (n, d) of pictures, for KID and FID. network: the name of its network, with the hash.
    """

    classifiers: tuple[Classifier, ...] = ()
    clip: Clip | None = None
    features: Callable[[Sequence[Image.Image]], Floats] | None = None
    network: str = ""

    @property
    def names(self) -> list[str]:
        """Every classifier and the CLIP with their hashes, as the names of metrics have them."""
        return [classifier.name for classifier in self.classifiers] + ([self.clip.name] if self.clip else [])


def canvas_evaluators() -> Evaluators:
    """The canvas's held-out classifier, which no method may use, and its CLIP."""
    from ..canvas import WEIGHTS
    from ..canvas.evaluators import alignment, held_out_classifier

    clip = _CanvasClip(alignment(), f"canvas-clip@{_hash(WEIGHTS / 'clip')}")
    return evaluators_of(held_out_classifier(), f"canvas-judge@{_hash(WEIGHTS / 'judge')}", clip)


def evaluators_of(network: Any, name: str, clip: Clip | None = None) -> Evaluators:
    """A classifier of the canvas; its features are the mean and the maximum of its last maps."""
    return Evaluators(
        (_CanvasClassifier(network, name),), clip, lambda pictures: _canvas_features(network, pictures), name
    )


def local_evaluators(
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
) -> Evaluators:
    """Evaluators for real models. Each source is a folder or hub id that transformers opens, or a file.

    objects, styles: image classifiers (model types in ``kinds.CLASSIFIERS``), or checkpoints of timm's ViT whose
    classes are ``words["object"]`` and ``words["style"]`` in order.
    clip: a CLIP (``CLIPModel``). features: an image model (``kinds.FEATURES``, for example DINOv2) for KID and FID;
    default: the CLIP.
    nudenet: the .onnx file of a detector, whose label for an object is "nudity". labels, threshold: see ``NudeNet``.
    device: of all networks but NudeNet, which runs on the CPU.
    Raises InputError for two classifiers of objects, and for NudeNet without a threshold.
    """
    classifiers: list[Classifier] = []
    for source, kind in ((objects, "object"), (styles, "style")):
        if source is not None and Path(source).suffix in FILES:
            classifiers.append(Checkpoint(source, kind, (words or {}).get(kind, ()), device=device))
        elif source is not None:
            classifiers.append(TransformersClassifier(source, kind, device=device))
    if nudenet is not None:
        if objects is not None:
            raise InputError("a classifier of objects and NudeNet cannot be used together: name one of them")
        if threshold is None:
            raise InputError("NudeNet needs a threshold: the score from which a box counts, for example 0.6")
        classifiers.append(NudeNet(nudenet, threshold=threshold, labels=labels))
    clip_model = None if clip is None else _TransformersClip(clip, device=device)
    network = clip_model if features is None else _FeatureNetwork(features, device=device)
    if network is None:
        return Evaluators(tuple(classifiers))
    return Evaluators(tuple(classifiers), clip_model, network.images, network.name)


class TransformersClassifier:
    """An image classifier of transformers; its labels are those of its own ``id2label``."""

    def __init__(self, source: str | Path, kind: str, *, device: Device = "cpu", batch: int = 32) -> None:
        """Raises ModelError as ``open_network`` does, and for a classifier that does not name its classes."""
        from transformers import AutoImageProcessor

        opened = open_network(source, CLASSIFIER)
        self.processor, self.model, self.name = (
            opened.processor(AutoImageProcessor),
            opened.network,
            opened.name,
        )
        self.words = labels_of(self.model.config.id2label, opened.source)
        self.kinds, self.batch = (kind,), batch
        check_runs(opened.source, self.classify)
        self.model.to(device)

    @torch.no_grad()
    def classify(self, pictures: Sequence[Image.Image]) -> list[Words]:
        seen: list[Words] = []
        for part in batches(pictures, self.batch):
            pixels = self.processor(images=part, return_tensors="pt").to(self.model.device)
            shares = self.model(**pixels).logits.softmax(1).cpu()
            if shares.shape != (len(part), len(self.words)):
                raise ModelError(f"it has {len(self.words)} labels and gives {shares.shape[1]} numbers")
            refuse_nan(shares, f"the output of {self.name}")
            for share in shares:
                best = int(share.argmax())
                seen.append({self.kinds[0]: (self.words[best], float(share[best]))})
        return seen


class _FeatureNetwork:
    """An image model of transformers. Features: the pooled output, or without one the mean of the last states."""

    def __init__(self, source: str | Path, *, device: Device = "cpu", batch: int = 32) -> None:
        from transformers import AutoImageProcessor

        opened = open_network(source, FEATURE)
        self.processor, self.model, self.name = (
            opened.processor(AutoImageProcessor),
            opened.network,
            opened.name,
        )
        self.pooled = not any(".pooler." in f".{name}" for name in opened.unset)
        self.batch = batch
        check_runs(opened.source, self.images)
        self.model.to(device)

    @torch.no_grad()
    def images(self, pictures: Sequence[Image.Image]) -> Floats:
        parts = []
        for part in batches(pictures, self.batch):
            states = self.model(**self.processor(images=part, return_tensors="pt").to(self.model.device))
            pooled = getattr(states, "pooler_output", None) if self.pooled else None
            parts.append((states.last_hidden_state.mean(1) if pooled is None else pooled).flatten(1))
        return _finite(np.asarray(torch.cat(parts).cpu().double()), self.name)


class _TransformersClip:
    """A CLIP of transformers."""

    def __init__(self, source: str | Path, *, device: Device = "cpu", batch: int = 32) -> None:
        from transformers import CLIPImageProcessor

        opened = open_network(source, CLIP)
        self.processor, self.model, self.name = (
            opened.processor(CLIPImageProcessor),
            opened.network,
            opened.name,
        )
        self.tokenizer, self.batch = opened.tokenizer(), batch
        text = self.model.config.text_config
        self.longest = min(self.tokenizer.model_max_length, text.max_position_embeddings)
        if max(self.tokenizer.get_vocab().values(), default=0) >= text.vocab_size:
            raise ModelError(
                f"{quoted(opened.source)} has a tokenizer of more words than its text encoder knows "
                f"({text.vocab_size}): use its own tokenizer"
            )
        check_runs(opened.source, self.images)
        check_runs(opened.source, lambda pictures: self.texts(["a picture"]))
        self.model.to(device)

    @torch.no_grad()
    def images(self, pictures: Sequence[Image.Image]) -> Floats:
        parts = []
        for part in batches(pictures, self.batch):
            pixels = self.processor(images=part, return_tensors="pt").pixel_values.to(self.model.device)
            pooled = self.model.vision_model(pixel_values=pixels).pooler_output
            parts.append(self.model.visual_projection(pooled))
        return _finite(_unit(torch.cat(parts)), self.name)

    @torch.no_grad()
    def texts(self, prompts: Sequence[str]) -> Floats:
        words = self.tokenizer(
            list(prompts), padding=True, truncation=True, max_length=self.longest, return_tensors="pt"
        ).to(self.model.device)
        pooled = self.model.text_model(words.input_ids, words.attention_mask).pooler_output
        return _finite(_unit(self.model.text_projection(pooled)), self.name)


def _finite(vectors: Floats, name: str) -> Floats:
    refuse_nan(vectors, f"the output of {name}")
    return vectors


@dataclass(frozen=True)
class _CanvasClassifier:
    """A classifier of the canvas: it labels the object and the style of a picture."""

    network: Any
    name: str
    kinds: tuple[str, ...] = ("object", "style")

    def classify(self, pictures: Sequence[Image.Image]) -> list[Words]:
        return [
            {"object": (seen.object, seen.object_confidence), "style": (seen.style, seen.style_confidence)}
            for seen in self.network.classify(pictures)
        ]


@dataclass(frozen=True)
class _CanvasClip:
    """The canvas's CLIP."""

    alignment: Any
    name: str

    def images(self, pictures: Sequence[Image.Image]) -> Floats:
        return np.asarray(self.alignment.images(pictures).double())

    def texts(self, prompts: Sequence[str]) -> Floats:
        return np.asarray(self.alignment.texts(prompts).double())


@torch.no_grad()
def _canvas_features(network: Any, pictures: Sequence[Image.Image], batch: int = 256) -> Floats:
    from ..canvas.classifier import pixels

    parts = []
    for start in range(0, len(pictures), batch):
        maps = network.body(pixels(pictures[start : start + batch]))
        parts.append(torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1))
    return np.asarray(torch.cat(parts).double())


def _unit(vectors: torch.Tensor) -> Floats:
    return np.asarray(torch.nn.functional.normalize(vectors.cpu().double(), dim=1))


def _hash(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        total.update(path.read_bytes())
    return total.hexdigest()[:8]
