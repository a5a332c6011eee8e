"""Concept Ablation (nupurkmr9/concept-ablation): their training script for diffusers."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch import Tensor

from unlearnkit.data.image_sets import DenoiserInput
from unlearnkit.methods.ca import CA
from unlearnkit.training.anchors import Anchored
from unlearnkit.training.attention import detach_bos
from unlearnkit.training.net import Net, Step

from . import script
from .pictures import Fed, Rows, shown
from .work import Peer, Work, difference, erased, gradient, opened, request, watched

PICTURES, BATCH, LR = 4, 4, 8e-6
SETTINGS = {"trains": "xattn-kv", "lr": LR, "batch": BATCH, "teacher": "student", "pictures": PICTURES}


def arguments(work: Work, **more: Any) -> list[str]:
    given = {
        "pretrained_model_name_or_path": work.pipeline,
        "output_dir": work.out,
        "concept_type": "object",
        "caption_target": "bear+cat",
        "instance_prompt": "given",
        "instance_data_dir": "given",
        "train_batch_size": BATCH,
        "max_train_steps": work.steps,
        "learning_rate": LR,
        "max_grad_norm": 1e9,
        "dataloader_num_workers": 0,  # all in the process whose time is taken
        **more,
    }
    return [word for name, value in given.items() for word in (f"--{name}", str(value))]


def theirs(work: Work) -> Mapping[str, Tensor]:
    folder = work.checkout / "diffusers"
    (collate,) = script.function(folder / "utils.py", "collate_fn", given={"torch": torch})
    utils = {
        "collate_fn": collate,
        "CustomDiffusionDataset": functools.partial(Rows, work, PICTURES, work.steps * BATCH),
    }
    with (
        script.inside(folder, utils=utils),
        script.patched((transformers, "CLIPFeatureExtractor", transformers.CLIPImageProcessor)),
    ):
        script.run(folder / "train.py", arguments(work))
    weights = torch.load(work.out / "delta.bin")["unet"]
    return {f"unet.{name}": weight for name, weight in weights.items()}


def ours(work: Work) -> Mapping[str, Tensor]:
    return erased(work, "ca", SETTINGS | {"steps": work.steps}, request("bear"))


def agrees(work: Work) -> tuple[str, float]:
    shown(work, PICTURES)
    with watched(passes=True) as seen:
        theirs(work)
    model, method = opened(work), CA(**SETTINGS)  # type: ignore[arg-type]
    (x, t, concept, _), (_, _, anchor, _) = seen.passes[:2]
    fed: Any = Fed(DenoiserInput(x, t, anchor), x)
    net = Net(model)
    with detach_bos(model):
        mine = gradient(
            net, method.part, lambda: method.loss(net, (Anchored(fed, concept), None), Step(0, 0))
        )
    # theirs sums the squares over the latents' four channels and divides by one channel's places
    return "gradient / 4", difference({name: one / 4 for name, one in seen.gradients.items()}, mine)


PEER = Peer(
    "ca",
    "nupurkmr9/concept-ablation",
    "diffusers/train.py; its data set gives our pictures and sentences, all of each picture counts, and a class that "
    "transformers has renamed has its old name",
    "xattn-kv, four pictures a step, the trained network as the teacher",
    theirs,
    ours,
    agrees,
)
