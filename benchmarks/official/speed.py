"""SPEED (Ouxiang-Li/SPEED): their function for the edit."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from unlearnkit.data.text_columns import CLIP_LENGTH, centroids

from . import script
from .work import Peer, Work, difference, erased, opened, request

KEEP = ("dog", "car", "house", "tree", "owl", "bus", "apple", "castle", "guitar", "rocket", "flower", "pizza")
SETTINGS = {"templates": False, "tokens": "last"}


def edited(work: Work, keep: tuple[str, ...], copies: int, scale: float, **given: Any) -> dict[str, Tensor]:
    """The new value matrices. scale: of all text states; given: in the place of what the script imports."""
    pipe = StableDiffusionPipeline.from_pretrained(work.pipeline, safety_checker=None)
    if scale != 1:
        pipe.text_encoder.register_forward_hook(lambda _, __, output: _scaled(output, scale))
    how = {"params": "V", "aug_num": copies, "threshold": 0.1, "retain_scale": 1.0, "lamb": 0.0}
    with script.quiet(), script.inside(work.checkout, "pandas"):
        space = script.run(work.checkout / "train_erase_null.py", constants={"cuda": "cpu"}, main=False)
        space |= given
        torch.manual_seed(0)
        np.random.seed(0)
        made: dict[str, Tensor] = space["edit_model"](
            SimpleNamespace(**how, disable_filter=False),
            pipe,
            ["cat"],
            ["bear"],
            list(keep),
            baseline="SPEED",
            emb_size=pipe.text_encoder.config.hidden_size,
            device="cpu",
        )
    return {f"unet.{name}": weight for name, weight in made.items()}


def _scaled(output: Any, scale: float) -> Any:
    output.last_hidden_state = output.last_hidden_state * scale
    return output


def theirs(work: Work) -> Mapping[str, Tensor]:
    weights = edited(work, KEEP, 10, 1.0)
    torch.save(weights, work.out / "weights.pt")
    return weights


def ours(work: Work) -> Mapping[str, Tensor]:
    return erased(work, "speed", SETTINGS, request("bear", *KEEP))


def agrees(work: Work) -> tuple[str, float]:
    """With one retained word, which neither refines, our centroids, and states of the length that ours gives them."""
    model = opened(work)
    empty = model.text([""])[0].T.double()
    last = model.text(["cat"])[0].T[:, 1:2].double()
    scale = float(CLIP_LENGTH / torch.cat([empty, last], dim=1).norm(dim=0).mean())
    where = (scale * centroids(empty[:, 1:], 3, 0)).T.float()
    base = model.weights("values")
    theirs_ = edited(work, KEEP[:1], 0, scale, kmeans=lambda **_: (None, where))
    ours_ = erased(work, "speed", SETTINGS | {"copies": 0}, request("bear", KEEP[0]))
    changes = [{n: w - base[n].detach() for n, w in one.items()} for one in (theirs_, ours_)]
    return "change", difference(*changes)


PEER = Peer(
    "speed",
    "Ouxiang-Li/SPEED",
    "the function edit_model of train_erase_null.py, on the CPU; kmeans-pytorch as it is on PyPI; for the agreement "
    "its k-means gives our centroids",
    f"one concept, {len(KEEP)} retained ones, ten copies each, the values; agreement: with one retained one",
    theirs,
    ours,
    agrees,
)
