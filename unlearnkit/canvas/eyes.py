"""The recipe's stages ``guide`` and ``judge``, and the disturbed pictures from which every evaluator learns."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..seeds import derive, stream
from . import augment, world
from .classifier import Eye
from .loop import train_stage
from .studio import Pixels, Studio, sown, write_array

__all__ = ["mixed_batch", "share_right", "train_guide", "train_judge", "with_round_trips"]


def with_round_trips(studio: Studio) -> tuple[Pixels, Pixels]:
    """The evaluators' pictures, and autoencoder round trips of the first third of them (made once)."""
    data, path = studio.data("seen"), studio.folder / "seen-trips.npy"
    if not path.is_file():
        third = data[: len(data) // 3]
        write_array(path, augment.round_trips(studio.vae(), third, studio.device, seed=studio.seed))
    return data, np.load(path, mmap_mode="r")


def mixed_batch(studio: Studio, data: Pixels, trips: Pixels, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Which pictures (128,), the last half of them round trips; and their disturbed pixels (128, 3, 64, 64)."""
    painted = torch.randint(len(data), (64,), generator=draw)
    back = torch.randint(len(trips), (64,), generator=draw)
    images = torch.cat([studio.images(data, painted), studio.images(trips, back)])
    return torch.cat([painted, back]), augment.degrade(images, draw)


def share_right(logits: Tensor, labels: Tensor) -> float:
    """How often the largest logit is the label's, in [0, 1]."""
    return (logits.argmax(1) == labels).float().mean().item()


def _train_eye(studio: Studio, name: str, form: str) -> None:
    data, trips = with_round_trips(studio)
    objects, styles = studio.labels("seen")
    seed = derive(studio.seed, name)
    with sown(seed):
        eye = Eye(form, list(world.OBJECTS), list(world.STYLES)).to(studio.device)

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        index, images = mixed_batch(studio, data, trips, stream(seed, "batch", step))
        with studio.autocast():
            o, s = eye(images)
        o, s = o.float(), s.float()
        to, ts = objects[index].to(studio.device), styles[index].to(studio.device)
        loss = F.cross_entropy(o, to, label_smoothing=0.02) + F.cross_entropy(s, ts, label_smoothing=0.02)
        return loss, {"object": share_right(o, to), "style": share_right(s, ts)}

    steps = studio.steps[name]
    train_stage(f"{name}-run", eye, loss_of, steps=steps, learning_rate=3e-3, folder=studio.folder)
    eye.eval().save(studio.folder / name)
    _say_held_out(studio, name, eye)


@torch.no_grad()
def _say_held_out(studio: Studio, name: str, eye: Eye) -> None:
    test, (objects, styles) = studio.data("test"), studio.labels("test")
    out = [eye(studio.images(test, index)) for index in torch.split(torch.arange(len(test)), 250)]
    right = share_right(torch.cat([o for o, _ in out]).cpu(), objects)
    in_style = share_right(torch.cat([s for _, s in out]).cpu(), styles)
    print(
        f"{name} on {len(test)} held-out painted pictures: object {right:.4f} style {in_style:.4f}",
        flush=True,
    )


def train_guide(studio: Studio) -> None:
    """The evaluator that methods may use."""
    _train_eye(studio, "guide", "residual")


def train_judge(studio: Studio) -> None:
    """The evaluator that only evaluation may use: another form, another seed."""
    _train_eye(studio, "judge", "plain")
