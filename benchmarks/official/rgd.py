"""RGD (reds-lab/Restricted_gradient_diversity_unlearning): their training function for Stable Diffusion."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unlearnkit.parts.combine import restricted
from unlearnkit.seeds import stream

from . import script
from .compvis import LatentDiffusion
from .pictures import shown
from .work import Peer, Work, difference, erased, opened, request

PICTURES, BATCH, ALPHA = 4, 4, 1.6
SETTINGS = {"batch": BATCH, "retain_weight": ALPHA, "cap": 1.1, "pictures": PICTURES, "diverse": False}
ABSENT: tuple[str, ...] = ("matplotlib.pyplot", "convertModels", "dataset", "utils", "ldm", "ldm.models")
ABSENT += ("ldm.models.diffusion", "ldm.models.diffusion.ddim")


def theirs(work: Work) -> Mapping[str, Tensor]:
    found, model = shown(work, PICTURES), LatentDiffusion(work.pipeline)
    batches = tuple([(found["pixels"], found[name])] * work.steps for name in ("concept", "anchor"))
    path = work.checkout / "SD" / "train-scripts" / "nsfw_RGD.py"
    with script.quiet(), script.inside(work.checkout / "SD", *ABSENT):
        space = script.run(path, given={"os": os, "folder_path": ""}, main=False)
        space |= {"setup_model": lambda *_: model, "setup_forget_nsfw_data_rgd": lambda *_: batches}
        space |= {"sleep": lambda *_: None, "save_history": lambda *_: None}
        space["save_model"] = lambda *_, **__: torch.save(
            model.model.diffusion_model.state_dict(), work.out / "unet.pt"
        )
        how: dict[str, Any] = {
            "truncate": True,
            "surgery": True,
            "alpha": ALPHA,
            "m": 1.1,
            "batch_size": BATCH,
        }
        rest = ("proposed_path", "forget", "retain", "config_path", "ckpt_path", "diffusers_config_path")
        how |= dict.fromkeys((*rest, "device", "c_guidance"))
        space["nsfw_proposed"](train_method="full", epochs=1, lr=1e-5, **how)
    return {f"unet.{name}": weight for name, weight in torch.load(work.out / "unet.pt").items()}


def ours(work: Work) -> Mapping[str, Tensor]:
    return erased(work, "rgd", SETTINGS | {"steps": work.steps}, request("bear"))


def agrees(work: Work) -> tuple[str, float]:
    """Of gradients that oppose each other."""
    shown(work, PICTURES)
    names = ("flatten_grads", "unflatten_grads", "project_grad_onto", "apply_pcgrad_update")
    path, given = work.checkout / "SD" / "train-scripts" / "nsfw_RGD.py", {"torch": torch, "np": np}
    surgery = script.function(path, *names, given=given)[-1]
    draws = stream(0, "peers")
    weights = {n: w.detach().clone().requires_grad_() for n, w in opened(work).weights("all").items()}
    erase = {name: torch.randn(w.shape, generator=draws) for name, w in weights.items()}
    keep = {name: torch.randn(w.shape, generator=draws) - 0.1 * erase[name] for name, w in weights.items()}
    first, second = surgery(*([one.double() for one in side.values()] for side in (erase, keep)))
    sums = {n: a + ALPHA * b for n, a, b in zip(weights, first, second, strict=True)}

    def loss(gradient: Mapping[str, Tensor]) -> Any:
        return torch.stack([(gradient[name] * w).sum() for name, w in weights.items()]).sum()

    mine = restricted(0, {"erase": loss(erase), "retain": ALPHA * loss(keep)}, weights)
    return "surgery", difference(sums, mine)


PEER = Peer(
    "rgd",
    "reds-lab/Restricted_gradient_diversity_unlearning",
    "their function nsfw_proposed of SD/train-scripts/nsfw_RGD.py, which as published stops at undefined names: they "
    "are given; our pipeline answers its calls to a CompVis model, and gives our pictures and sentences",
    "all weights, four pictures a side and step, of the same size; agreement: their function apply_pcgrad_update on "
    "random gradients, in float64",
    theirs,
    ours,
    agrees,
)
