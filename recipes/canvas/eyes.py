"""The recipe's stages ``guide`` and ``judge``, and the augmented pictures for every evaluator's training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

import augment
from loop import train_stage
from studio import Pixels, Studio, sown, write_array
from unlearnkit.canvas import world
from unlearnkit.canvas.classifier import CanvasClassifier
from unlearnkit.seeds import derive, stream

__all__ = ["mixed_batch", "save_classifier", "share_right", "train_guide", "train_judge", "with_round_trips"]


def with_round_trips(studio: Studio, part: str = "seen") -> tuple[Pixels, Pixels]:
    """A part of the pictures, and autoencoder round trips of its first third (made once)."""
    data, path = studio.data(part), studio.folder / f"{part}-trips.npy"
    if not path.is_file():
        third = data[: len(data) // 3]
        write_array(path, augment.round_trips(studio.vae(), third, studio.device, seed=studio.seed))
    return data, np.load(path, mmap_mode="r")


def mixed_batch(
    studio: Studio, sources: Sequence[tuple[Pixels, int]], draw: torch.Generator
) -> tuple[list[Tensor], Tensor]:
    """From each source as many pictures as it says: which (count,) each, and all their disturbed pixels in turn."""
    indices = [torch.randint(len(data), (count,), generator=draw) for data, count in sources]
    images = [studio.images(data, index) for (data, _), index in zip(sources, indices, strict=True)]
    return indices, augment.degrade(torch.cat(images), draw)


def share_right(logits: Tensor, labels: Tensor) -> Tensor:
    """How often the largest logit is the label's, in [0, 1]."""
    return (logits.argmax(1) == labels).float().mean()


def save_classifier(classifier: CanvasClassifier, folder: Path) -> None:
    """Write an evaluator in half precision, as ``CanvasClassifier.load`` reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    half = {k: v.half() if v.is_floating_point() else v for k, v in classifier.state_dict().items()}
    save_file(half, str(folder / "model.safetensors"))
    facts = {
        "form": classifier.form,
        "objects": classifier.objects,
        "styles": classifier.styles,
        "world": world.VERSION,
    }
    (folder / "config.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _train_classifier(studio: Studio, name: str, form: str) -> None:
    known, strange = with_round_trips(studio), with_round_trips(studio, "unknown")
    sources = [(data, count) for data, count in zip((*known, *strange), (64, 64, 16, 16), strict=True)]
    labels = [studio.labels(part) for part in ("seen", "seen", "unknown", "unknown")]
    seed = derive(studio.seed, name)
    with sown(seed):
        classifier = CanvasClassifier(
            form, [*world.OBJECTS, world.NOTHING], [*world.STYLES, world.NOTHING]
        ).to(studio.device)

    def loss_of(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        indices, images = mixed_batch(studio, sources, stream(seed, "batch", step))
        with studio.autocast():
            o, s = classifier(images)
        o, s = o.float(), s.float()
        to, ts = (
            torch.cat([part[side][index] for part, index in zip(labels, indices, strict=True)])
            for side in (0, 1)
        )
        to, ts = to.to(studio.device), ts.to(studio.device)
        loss = F.cross_entropy(o, to, label_smoothing=0.02) + F.cross_entropy(s, ts, label_smoothing=0.02)
        return loss, {"object": share_right(o, to), "style": share_right(s, ts)}

    steps = studio.steps[name]
    train_stage(f"{name}-run", classifier, loss_of, steps=steps, learning_rate=3e-3, folder=studio.folder)
    save_classifier(classifier.eval(), studio.folder / name)
    for part in ("test", "unknown-test"):
        _say_held_out(studio, name, classifier, part)


@torch.no_grad()
def _say_held_out(studio: Studio, name: str, classifier: CanvasClassifier, part: str) -> None:
    test, (objects, styles) = studio.data(part), studio.labels(part)
    out = [classifier(studio.images(test, index)) for index in torch.split(torch.arange(len(test)), 250)]
    right = share_right(torch.cat([o for o, _ in out]).cpu(), objects)
    in_style = share_right(torch.cat([s for _, s in out]).cpu(), styles)
    print(f"{name} on {len(test)} pictures of {part}: object {right:.4f} style {in_style:.4f}", flush=True)


def train_guide(studio: Studio) -> None:
    """The evaluator that methods may use."""
    _train_classifier(studio, "guide", "residual")


def train_judge(studio: Studio) -> None:
    """The evaluator that only evaluation may use: another form, another seed."""
    _train_classifier(studio, "judge", "plain")
